package auth

import (
	"fmt"
	"strings"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/apikey"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/basic"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/certificate"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/external"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// method reads the one way that is set.
func (c *compilation) method(field string, m v1alpha1.AuthMethod) auth.Method {
	out := auth.Method{Name: string(m.Name)}
	if m.Name == "" {
		c.wrong(field+".name", "a method needs a name")
	}
	n, before := 0, len(c.problems)
	way := func(name string) string {
		n++
		return field + "." + name
	}
	if m.JWT != nil {
		out.JWT = c.jwt(way("jwt"), *m.JWT)
		c.checked(field+".jwt", before, out.JWT.Check)
	}
	if m.APIKey != nil {
		out.APIKey = c.apiKey(way("apiKey"), *m.APIKey)
		c.checked(field+".apiKey", before, out.APIKey.Check)
	}
	if m.OIDC != nil {
		out.OIDC = c.oidc(way("oidc"), *m.OIDC)
		c.checked(field+".oidc", before, out.OIDC.Check)
	}
	if m.Basic != nil {
		out.Basic = c.basic(way("basic"), *m.Basic)
		c.checked(field+".basic", before, out.Basic.Check)
	}
	if m.ClientCertificate != nil {
		out.Certificate = c.certificate(way("clientCertificate"), *m.ClientCertificate)
	}
	if m.External != nil {
		out.External = c.external(way("external"), m.Name, *m.External)
		c.checked(field+".external", before, out.External.Check)
	}
	if n != 1 {
		c.wrong(field, "must be exactly one of jwt, apiKey, oidc, basic, clientCertificate and external")
	}
	return out
}

// checked asks settings for what they themselves find wrong, and could not be built, when nothing else has been found.
func (c *compilation) checked(field string, before int, check func() error) {
	if len(c.problems) > before {
		return
	}
	if err := check(); err != nil {
		c.wrong(field, "%v", err)
	}
}

func (c *compilation) apiKey(field string, m v1alpha1.APIKeyMethod) *apikey.Config {
	out := new(apikey.Config)
	if len(m.From) == 0 {
		c.wrong(field+".from", "must name at least one place where a key may stand, e.g. {header: X-API-Key}")
	}
	out.From = c.places(field+".from", m.From)
	out.Keys = c.keys(field, m)
	return out
}

// places are where the credentials of a method stand.
func (c *compilation) places(field string, from []v1alpha1.CredentialSource) (out method.Places) {
	for i, s := range from {
		c.source(fmt.Sprintf("%s[%d]", field, i), s)
		out = append(out, method.Place{Header: string(s.Header), Prefix: s.Prefix, Query: string(s.Query), Cookie: string(s.Cookie)})
	}
	return out
}

// source checks a place where a credential may stand.
func (c *compilation) source(field string, s v1alpha1.CredentialSource) {
	n := 0
	for _, name := range []string{string(s.Header), string(s.Query), string(s.Cookie)} {
		if name == "" {
			continue
		}
		n++
		if !message.ValidName(name) {
			c.wrong(field, "%.60q is no name of a header, a parameter or a cookie", name)
		}
	}
	switch {
	case n != 1:
		c.wrong(field, "must be exactly one of header, query and cookie")
	case s.Prefix != "" && s.Header == "":
		c.wrong(field+".prefix", "belongs to header")
	case message.AliasName(string(s.Header), "Cookie"):
		c.wrong(field+".header", "name the cookie with cookie, not the header Cookie")
	case s.Header != "" && ownHeader(string(s.Header)):
		c.wrong(field+".header", "%s frames the message or is set by Gatehouse itself; choose another name", s.Header)
	}
}

// ownHeader: what a client sends under such a name never gets to a filter.
func ownHeader(name string) bool {
	return framing(name) || forwarded(name) || message.AliasName(name, "Forwarded") || message.AliasName(name, "X-Real-IP") ||
		message.AliasName(name, "X-Request-Id")
}

func dashes(name string) string { return strings.ReplaceAll(name, "_", "-") }

func (c *compilation) basic(field string, m v1alpha1.BasicMethod) *basic.Config {
	out := &basic.Config{Realm: m.Realm}
	switch {
	case m.Realm == "":
		out.Realm = "restricted"
	case strings.ContainsFunc(m.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }):
		c.wrong(field+".realm", `must be printable ASCII without " and \`)
	}
	field += ".secretRef"
	if s, p := c.lookup.Secret(field, m.SecretRef); c.found(p) {
		out.Users = c.users(field, s)
	}
	return out
}

func (c *compilation) certificate(field string, m v1alpha1.ClientCertificateMethod) *certificate.Config {
	switch m.SubjectFrom {
	case "", v1alpha1.CertificateURI, v1alpha1.CertificateDNS, v1alpha1.CertificateEmail, v1alpha1.CertificateCommonName:
	default:
		c.wrong(field+".subjectFrom", "this version of Gatehouse does not know %q; use URI, DNS, Email or CommonName", m.SubjectFrom)
	}
	return &certificate.Config{SubjectFrom: string(m.SubjectFrom)}
}

// The bounds of external services, as in the CRD.
const (
	minTimeout, maxTimeout, defaultTimeout = time.Millisecond, time.Minute, time.Second

	maxCacheFor = time.Hour
)

func (c *compilation) external(field string, name gwv1.SectionName, m v1alpha1.ExternalMethod) *external.Config {
	out := &external.Config{
		Policy:                 c.id(),
		Subject:                m.SubjectFrom,
		Name:                   c.policy.Namespace + "/" + c.policy.Name + "/" + string(name),
		Path:                   m.Path,
		AllowedRequestHeaders:  c.headerNames(field+".allowedRequestHeaders", m.AllowedRequestHeaders),
		AllowedResponseHeaders: c.headerNames(field+".allowedResponseHeaders", m.AllowedResponseHeaders),
		Timeout:                c.duration(field+".timeout", m.Timeout, defaultTimeout, minTimeout, maxTimeout),
		CacheFor:               c.duration(field+".cacheFor", m.CacheFor, 0, 0, maxCacheFor),
	}
	switch m.Protocol {
	case v1alpha1.ExternalHTTP:
		out.Protocol = external.HTTP
		if m.Path != "" {
			c.plainPath(field+".path", m.Path)
		}
	case v1alpha1.ExternalGRPC:
		out.Protocol = external.GRPC
		if m.Path != "" || len(m.AllowedResponseHeaders) > 0 {
			c.wrong(field, "path and allowedResponseHeaders belong to protocol HTTP")
		}
	default:
		c.wrong(field+".protocol", "this version of Gatehouse knows no protocol %q; use HTTP or GRPC", m.Protocol)
	}
	if b := m.ForwardBody; b != nil {
		if b.MaxSize < 1 || b.MaxSize > external.MaxMaxBody {
			c.wrong(field+".forwardBody.maxSize", "must be from 1 to %d bytes", external.MaxMaxBody)
		}
		out.MaxBody = int(b.MaxSize)
	}
	backend, p := c.lookup.Backend(field+".backendRef", m.BackendRef)
	c.found(p)
	out.Backend = backend
	return out
}

func (c *compilation) headerNames(field string, names []gwv1.HTTPHeaderName) (out []string) {
	for i, n := range names {
		switch field := fmt.Sprintf("%s[%d]", field, i); {
		case !message.ValidName(string(n)):
			c.wrong(field, "%.60q is no name of a header (RFC 9110 5.1)", n)
		case framing(string(n)):
			c.wrong(field, "%s frames the message, and is never passed on", n)
		}
		out = append(out, string(n))
	}
	return out
}

// plainPath wants the path as it is after normalisation, and below the root.
func (c *compilation) plainPath(field, path string) {
	t, reason, detail := message.ParseTarget(path, message.PathRules{})
	switch {
	case reason != message.ReasonNone:
		c.wrong(field, "%q is no path: %s", path, detail)
	case t.HasQuery || t.Path != path || path == "/" || path == "*" || strings.HasSuffix(path, "/"):
		c.wrong(field, "%q is no plain path such as /a/b: without query, escapes, dots and a slash at the end", path)
	}
}

// duration reads one that may be absent.
func (c *compilation) duration(field string, text *gwv1.Duration, absent, least, most time.Duration) time.Duration {
	if text == nil {
		return absent
	}
	d, err := policy.ParseDuration(*text)
	switch {
	case err != nil:
		c.wrong(field, "%v", err)
	case d < least || d > most:
		c.wrong(field, "must be from %s to %s", snapshot.DurationWord(least), snapshot.DurationWord(most))
	}
	return d
}
