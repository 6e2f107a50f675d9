package auth

import (
	"fmt"
	"net/netip"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/expr"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func (c *compilation) authorize(field string, a v1alpha1.Authorization) auth.Authorize {
	out := auth.Authorize{Deny: c.action(field+".default", a.Default)}
	for i, r := range a.Rules {
		field := fmt.Sprintf("%s.rules[%d]", field, i)
		if slices.ContainsFunc(a.Rules[:i], func(other v1alpha1.AuthorizationRule) bool { return other.Name == r.Name }) {
			c.wrong(field+".name", "another rule is named %q", r.Name)
		}
		out.Rules = append(out.Rules, c.rule(field, r))
	}
	return out
}

// action is whether to deny.
func (c *compilation) action(field string, a v1alpha1.AuthorizationAction) bool {
	switch a {
	case v1alpha1.AuthorizationAllow:
		return false
	case v1alpha1.AuthorizationDeny:
	case "":
		c.wrong(field, "must be spelled out: Allow or Deny")
	default:
		c.wrong(field, "this version of Gatehouse knows no action %q; use Allow or Deny", a)
	}
	return true
}

func (c *compilation) rule(field string, r v1alpha1.AuthorizationRule) auth.Rule {
	out := auth.Rule{Name: string(r.Name), Deny: c.action(field+".action", r.Action), When: r.When}
	if r.Name == "" {
		c.wrong(field+".name", "a rule needs a name")
	}
	if r.When == "" && len(r.Sources) == 0 && len(r.Methods) == 0 {
		c.wrong(field, "a rule needs at least one of when, sources and methods; what becomes of all other requests is said by default")
	}
	if r.When != "" {
		c.expression(field+".when", r.When, expr.Bool)
	}
	for i, s := range r.Sources {
		if prefix, ok := c.network(fmt.Sprintf("%s.sources[%d]", field, i), string(s)); ok {
			out.Sources = append(out.Sources, prefix)
		}
	}
	for i, m := range r.Methods {
		if !message.ValidName(string(m)) {
			c.wrong(fmt.Sprintf("%s.methods[%d]", field, i), "%.40q is no HTTP method", m)
		}
		out.Methods = append(out.Methods, string(m))
	}
	return out
}

// network reads a CIDR. What could be meant otherwise is refused: bits beyond the prefix (is it the host or its network?) and IPv4 in
// the clothes of IPv6, which no client's address is.
func (c *compilation) network(field, text string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && !a.Is4In6() {
			c.wrong(field, "%s is an address and no network; write %s/%d", text, a, a.BitLen())
			return prefix, false
		}
		c.wrong(field, "%.60q is no network; write it like 10.0.0.0/8 or 2001:db8::/32", text)
	case prefix.Addr().Is4In6():
		c.wrong(field, "%s is IPv4 mapped into IPv6; write it as IPv4", text)
	case prefix != prefix.Masked():
		c.wrong(field, "%s has bits beyond the prefix; write %s, or %s/%d for the one address", text, prefix.Masked(), prefix.Addr(), prefix.Addr().BitLen())
	default:
		return prefix, true
	}
	return prefix, false
}

func (c *compilation) forward(field string, f v1alpha1.AuthForwarding) auth.Forward {
	var out auth.Forward
	switch f.Credential {
	case v1alpha1.CredentialStrip, "":
	case v1alpha1.CredentialForward:
		out.KeepCredential = true
	default:
		c.wrong(field+".credential", "this version of Gatehouse does not know %q; use Strip or Forward", f.Credential)
	}
	for i, h := range f.Headers {
		field := fmt.Sprintf("%s.headers[%d]", field, i)
		c.headerToSet(field+".name", h.Name)
		if slices.ContainsFunc(f.Headers[:i], func(other v1alpha1.ForwardedHeader) bool {
			return message.AliasName(string(other.Name), string(h.Name))
		}) {
			c.wrong(field+".name", "another header is named %s, as many servers see it", h.Name)
		}
		c.expression(field+".value", h.Value, expr.String)
		out.Headers = append(out.Headers, auth.Header{Name: string(h.Name), Value: h.Value})
	}
	return out
}

// reserved are headers that carry credentials or are set by Gatehouse itself, as in the CRD; those that frame are message.Framing.
var reserved = []string{
	"Authorization", "Proxy-Authorization", "Proxy-Authenticate", "WWW-Authenticate", "Cookie", "Set-Cookie", "Forwarded", "Via", "X-Real-IP",
	"X-Request-Id", "traceparent", "tracestate", "baggage",
}

// headerToSet checks the name of a header that backends get from us.
func (c *compilation) headerToSet(field string, name gwv1.HTTPHeaderName) {
	alias := func(other string) bool { return message.AliasName(other, string(name)) }
	switch {
	case !message.ValidName(string(name)):
		c.wrong(field, "%.60q is no name of a header (RFC 9110 5.1)", name)
	case framing(string(name)), forwarded(string(name)), slices.ContainsFunc(reserved, alias):
		c.wrong(field, "%s frames the message, carries credentials or is set by Gatehouse itself; choose another name", name)
	}
}

// framing is message.Framing for every spelling.
func framing(name string) bool { return message.Framing(dashes(name)) }

// forwarded reports whether a name is one of the X-Forwarded-… family.
func forwarded(name string) bool {
	const family = "X-Forwarded-"
	return len(name) >= len(family) && message.AliasName(name[:len(family)], family)
}
