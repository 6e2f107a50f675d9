package auth

import (
	"net/netip"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func apikeySource(header string) method.Place { return method.Place{Header: header} }

func TestTheFirstRuleThatFitsDecides(t *testing.T) {
	const broken = `request.path.split("/")[7] == "x"`
	inside := prefixes("10.0.0.0/8", "2001:db8::/32")
	for _, c := range []struct {
		sentence string
		rules    Authorize
		ip       string
		method   string
		want     string // the rule that denied, "allowed", or "default"
	}{
		{"no rule, allow", Authorize{}, "10.0.0.1", "GET", "allowed"},
		{"no rule, deny", Authorize{Deny: true}, "10.0.0.1", "GET", "default"},
		{"order: deny first", Authorize{Rules: []Rule{{Name: "d", Deny: true, Methods: []string{"GET"}}, {Name: "a", Methods: []string{"GET"}}}}, "10.0.0.1", "GET", "d"},
		{"order: allow first", Authorize{Deny: true, Rules: []Rule{{Name: "a", Methods: []string{"GET"}}, {Name: "d", Deny: true, Methods: []string{"GET"}}}}, "10.0.0.1", "GET", "allowed"},
		{"all that is set must fit", Authorize{Deny: true, Rules: []Rule{{Name: "a", Methods: []string{"GET"}, Sources: inside}}}, "192.0.2.1", "GET", "default"},
		{"a method is compared with case", Authorize{Deny: true, Rules: []Rule{{Name: "a", Methods: []string{"GET"}}}}, "10.0.0.1", "get", "default"},
		{"HEAD is not GET", Authorize{Deny: true, Rules: []Rule{{Name: "a", Methods: []string{"GET"}}}}, "10.0.0.1", "HEAD", "default"},
		{"an address inside", Authorize{Deny: true, Rules: []Rule{{Name: "a", Sources: inside}}}, "10.9.9.9", "GET", "allowed"},
		{"an address mapped into IPv6", Authorize{Rules: []Rule{{Name: "d", Deny: true, Sources: inside}}}, "::ffff:10.1.2.3", "GET", "d"},
		{"an address with a zone", Authorize{Rules: []Rule{{Name: "d", Deny: true, Sources: inside}}}, "2001:db8::1%eth0", "GET", "d"},
		{"no address fits a rule that denies", Authorize{Rules: []Rule{{Name: "d", Deny: true, Sources: inside}}}, "", "GET", "d"},
		{"no address fits none that allows", Authorize{Deny: true, Rules: []Rule{{Name: "a", Sources: prefixes("0.0.0.0/0", "::/0")}}}, "", "GET", "default"},
		{"an expression holds", Authorize{Deny: true, Rules: []Rule{{Name: "a", When: `request.path.startsWith("/a")`}}}, "10.0.0.1", "GET", "allowed"},
		{"an expression does not hold", Authorize{Deny: true, Rules: []Rule{{Name: "a", When: `request.path == "/b"`}}}, "10.0.0.1", "GET", "default"},
		{"a broken expression denies", Authorize{Rules: []Rule{{Name: "d", Deny: true, When: broken}}}, "10.0.0.1", "GET", "d"},
		{"a broken expression never allows", Authorize{Deny: true, Rules: []Rule{{Name: "a", When: broken}}}, "10.0.0.1", "GET", "default"},
	} {
		h := newHouse(t)
		p := policyOf("api", Any)
		p.Authorize = c.rules
		ex := get("/a")
		ex.Request.Method = c.method
		ex.ClientIP = netip.Addr{}
		if c.ip != "" {
			ex.ClientIP = netip.MustParseAddr(c.ip)
		}
		got := "allowed"
		if status := send(t, h.chain(nil, p), ex); status != 0 {
			if status != 403 || ex.Response.Reason != message.ReasonDenied || ex.Response.Header.Has("WWW-Authenticate") {
				t.Errorf("%s: %d %v %v", c.sentence, status, ex.Response.Reason, ex.Response.Header)
			}
			got = map[string]string{"shop/api: rule d": "d", "shop/api: no rule allows it": "default"}[ex.Response.Detail]
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.sentence, got, c.want)
		}
	}
}

func TestRulesSeeTheIdentityThatTheirPolicyProved(t *testing.T) {
	only := func(name, method, subject string) Policy {
		p := policyOf(name, Any, method)
		p.Authorize = Authorize{Deny: true, Rules: []Rule{{Name: "a", When: `identity.subject == "` + subject + `"`}}}
		return p
	}
	methods := map[string]method.Method{"o": accepts("outer"), "i": accepts("inner")}
	if got := send(t, newHouse(t).chain(methods, only("outer", "o", "outer"), only("inner", "i", "inner")), get("/")); got != 0 {
		t.Errorf("%d", got)
	}
	if got := send(t, newHouse(t).chain(methods, only("outer", "o", "inner"), only("inner", "i", "inner")), get("/")); got != 403 {
		t.Errorf("the outer policy sees the inner identity: %d", got)
	}
	p := only("rules", "", "outer")
	p.Methods = nil
	if got := send(t, newHouse(t).chain(methods, policyOf("outer", Any, "o"), p), get("/")); got != 0 {
		t.Errorf("a policy of rules alone does not see who was proven further out: %d", got)
	}
}

// Who has presented nothing may be let in once somebody is named: a bare 403 would be the end of it.
func TestAnAnonymousRequestThatIsDeniedIsAskedToProveSomething(t *testing.T) {
	for _, c := range []struct {
		said   *scripted
		status int
		reason message.Reason
	}{
		{says(method.Absent, `Basic realm="x"`, ""), 401, message.ReasonUnauthenticated},
		{accepts("bob"), 403, message.ReasonDenied},
	} {
		h := newHouse(t)
		p := policyOf("api", Optional, "m")
		p.Authorize = Authorize{Deny: true, Rules: []Rule{{Name: "staff", When: `identity.subject == "alice"`}}}
		ex := get("/")
		status := send(t, h.chain(map[string]method.Method{"m": c.said}, p), ex)
		if status != c.status || ex.Response.Reason != c.reason || ex.Response.Header.Has("WWW-Authenticate") != (status == 401) {
			t.Errorf("%d %v %v, want %d", status, ex.Response.Reason, ex.Response.Header, c.status)
		}
	}
}
