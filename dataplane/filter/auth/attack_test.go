package auth

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/external"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/oidc"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// The attacks of the list that the filter as a whole has to stand. Those on a single method are in its own room.

func TestAttackDuplicatedAuthorizationHeaders(t *testing.T) {
	p := Policy{Name: policyOf("api", Any).Name, Methods: []Method{
		{Name: "staff", Basic: staff(t)},
		{Name: "tokens", APIKey: partners(method.Place{Header: "Authorization", Prefix: "Bearer "})},
	}}
	c := newHouse(t).chain(nil, p)
	token, password := field("Authorization", "Bearer key-of-red"), basicOf("ann:secret")
	for sentence, fields := range map[string][]message.Field{
		"twice the same":            {token, token},
		"a good and a bad one":      {token, field("authorization", "Bearer other")},
		"a bad and a good one":      {field("AUTHORIZATION", "Bearer other"), token},
		"two schemes, both good":    {token, password},
		"two schemes the other way": {password, token},
		"one of no known scheme":    {field("Authorization", "Custom x"), token},
		"an empty one":              {field("Authorization", ""), password},
		"joined by a comma":         {field("Authorization", "Bearer key-of-red, Bearer other")},
	} {
		ex := get("/", fields...)
		if got := send(t, c, ex); got != 401 || reasonOf(ex) != message.ReasonBadCredential || ex.Identity != nil {
			t.Errorf("%s: %d %v %v", sentence, got, reasonOf(ex), ex.Identity)
		}
	}
	for _, one := range []message.Field{token, password} {
		if got := send(t, c, get("/", one)); got != 0 {
			t.Errorf("one alone: %d", got)
		}
	}
}

func TestAttackHeaderSpoofing(t *testing.T) {
	p := forwarding(Policy{Name: policyOf("api", Any).Name, Methods: []Method{{Name: "partners", APIKey: partners()}}}, Header{"X-Auth-User", "identity.subject"})
	c := newHouse(t).chain(nil, p)
	for _, name := range []string{"X-Auth-User", "x-auth-user", "X_Auth_User", "x-AUTH_user", "X-Auth_User"} {
		ex := get("/", field("X-API-Key", "key-of-blue"), field(name, "admin"), field(name, "root"))
		if got := send(t, c, ex); got != 0 || len(lines(ex)) != 1 || lines(ex)[0] != "X-Auth-User: blue" {
			t.Errorf("%s: %d %v", name, got, lines(ex))
		}
	}
	// And no key in a spelling that only other servers read.
	if got := send(t, c, get("/", field("X_API_Key", "key-of-blue"))); got != 401 {
		t.Errorf("%d", got)
	}
}

// There is one path: what rules see is what is forwarded, so either a trick is refused before any filter, or the rule sees through it.
func TestAttackPathTricksAroundARule(t *testing.T) {
	p := policyOf("api", Any)
	p.Authorize.Rules = []Rule{{Name: "admin", Deny: true, When: `request.path == "/admin" || request.path.startsWith("/admin/")`}}
	c := newHouse(t).chain(nil, p)
	for _, path := range []string{
		"/admin", "//admin", "/./admin", "/x/../admin", "/%61dmin", "/x/%2e%2e/admin", "/x/%2E%2e/admin/", "/admin//secret", "/%2fadmin",
		"/x%2f..%2fadmin", "/..;/admin", "/x/..;a=b/admin", "/\\admin", "/%5cadmin", "/%252e%252e/admin", "/admin/%00", "/../admin", "/admin#x",
	} {
		target, reason, _ := message.ParseTarget(path, message.PathRules{})
		if reason != message.ReasonNone {
			continue // 400 before any filter
		}
		ex := get("/")
		ex.Request.Target = target
		if got := send(t, c, ex); got != 403 {
			t.Errorf("%s goes as %s: %d", path, target, got)
		}
	}
	// What is another resource to us is forwarded as what it is: the backend gets the very bytes that the rule has seen.
	for _, path := range []string{"/Admin", "/admin;x=1", "/administrator"} {
		ex := get(path)
		if got := send(t, c, ex); got != 0 || ex.Request.Target.String() != path {
			t.Errorf("%s goes as %s: %d", path, ex.Request.Target, got)
		}
	}
}

// tail is a body without content whose trailer says that.
type tail struct{ fields message.Header }

func (*tail) Next() ([]byte, error)      { return nil, io.EOF }
func (*tail) More() bool                 { return true }
func (t *tail) Trailer() *message.Header { return &t.fields }
func (*tail) Abort(error)                {}

// Some servers add the fields behind a body to those of the head.
func TestAttackHeaderSpoofingByTrailers(t *testing.T) {
	p := forwarding(Policy{Name: policyOf("api", Any).Name, Methods: []Method{{Name: "partners", APIKey: partners()}}}, Header{"X-Auth-User", "identity.subject"})
	for _, shadow := range []bool{false, true} {
		p.Shadow = shadow
		ex := get("/", field("X-API-Key", "key-of-blue"))
		ex.Request.Body = message.NewBody(&tail{message.NewHeader(
			field("X-Auth-User", "admin"), field("x_auth_user", "admin"), field("X-Checksum", "7"))}, -1, nil)
		if got := send(t, newHouse(t).chain(nil, p), ex); got != 0 {
			t.Fatalf("%d", got)
		}
		if _, err := ex.Request.Body.Next(); err != io.EOF {
			t.Fatal(err)
		}
		trailer := ex.Request.Body.Trailer()
		if trailer.Len() != 1 || trailer.Get("X-Checksum") != "7" {
			t.Errorf("shadow %v: the backend gets the trailer %v", shadow, slices.Collect(values(trailer)))
		}
	}
}

func values(h *message.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name, value := range h.All() {
			if !yield(name + ": " + value) {
				return
			}
		}
	}
}

// What is judged and what a backend reads must be the same: many servers take X_Api_Key for X-Api-Key (contracts 7).
func TestAttackAnotherSpellingBesideACredentialThatIsForwarded(t *testing.T) {
	keys := Method{Name: "partners", APIKey: partners()}
	check := Method{Name: "check", External: &external.Config{AllowedRequestHeaders: []string{"X-Tenant"}}}
	for _, shadow := range []bool{false, true} {
		p := Policy{Name: policyOf("api", All).Name, Require: All, Shadow: shadow, Methods: []Method{keys, check}, Forward: Forward{KeepCredential: true}}
		c := newHouse(t).chain(map[string]method.Method{"check": accepts("x")}, p)
		ex := get("/", field("X-API-Key", "key-of-blue"), field("X_API_Key", "key-of-red"), field("x-tenant", "one"), field("X_TENANT", "two"), field("X_Other", "1"))
		if got := send(t, c, ex); got != 0 {
			t.Fatalf("%d", got)
		}
		want := []string{"X-API-Key: key-of-blue", "X_Other: 1", "x-tenant: one"}
		if shadow { // takes nothing away
			want = []string{"X-API-Key: key-of-blue", "X_API_Key: key-of-red", "X_Other: 1", "X_TENANT: two", "x-tenant: one"}
		}
		if d := cmp.Diff(want, lines(ex)); d != "" {
			t.Errorf("shadow %v: %s", shadow, d)
		}
	}
}

// A backend that gets access tokens from us believes what stands in Authorization: that must be ours, or nothing.
func TestAttackAnAccessTokenOfTheClientsOwn(t *testing.T) {
	forwards := Method{Name: "staff", OIDC: &oidc.Config{ForwardAccessToken: true}}
	keys := Method{Name: "partners", APIKey: partners()}
	tokens := Method{Name: "tokens", APIKey: partners(method.Place{Header: "Authorization", Prefix: "Bearer "})}
	given := accepts("ann")
	given.result.Set = []method.Field{{Name: "Authorization", Value: "Bearer ours"}}
	nobody := says(method.Absent, "", "")
	for _, c := range []struct {
		sentence string
		require  Require
		staff    *scripted
		others   []Method
		keep     bool
		want     []string
	}{
		{"there is one of ours", Any, given, nil, false, []string{"Authorization: Bearer ours"}},
		{"the session has none", Any, accepts("ann"), nil, false, nil},
		{"anonymous", Optional, nobody, nil, false, nil},
		{"by another method", Any, nobody, []Method{keys}, false, nil},
		{"by another method whose credential is forwarded", Any, nobody, []Method{keys}, true, []string{"X-API-Key: key-of-blue"}},
		{"which may stand there and be forwarded", Any, nobody, []Method{keys, tokens}, true, []string{"Authorization: Bearer theirs", "X-API-Key: key-of-blue"}},
	} {
		p := Policy{Name: policyOf("api", c.require).Name, Require: c.require, Methods: append([]Method{forwards}, c.others...)}
		p.Forward.KeepCredential = c.keep
		ex := get("/", field("Authorization", "Bearer theirs"))
		if len(c.others) > 0 {
			ex.Request.Header.Add("X-API-Key", "key-of-blue")
		}
		if got := send(t, newHouse(t).chain(map[string]method.Method{"staff": c.staff}, p), ex); got != 0 {
			t.Errorf("%s: %d", c.sentence, got)
		}
		if d := cmp.Diff(c.want, lines(ex)); d != "" {
			t.Errorf("%s: %s", c.sentence, d)
		}
	}
}

// Whoever owns a route may let in whom a key names; what the Gateway's policy says about who came in, by its own methods, stays true.
func TestAttackAnotherIdentityInAHeaderOfThePolicyAbove(t *testing.T) {
	outer := forwarding(policyOf("gateway", Any, "tokens"), Header{"X-User", "identity.subject"})
	central := forwarding(policyOf("central", Any), Header{"X-Who", "identity.subject"}) // proves nothing itself: those below do
	inner := forwarding(policyOf("route", Any, "keys"), Header{"X-Client", "identity.subject"})
	ex := get("/")
	c := newHouse(t).chain(map[string]method.Method{"tokens": accepts("mallory"), "keys": accepts("admin")}, outer, central, inner)
	if got := send(t, c, ex); got != 0 || subjectOf(ex) != "admin" {
		t.Errorf("%d %s", got, subjectOf(ex))
	}
	if got := strings.Join(lines(ex), "; "); got != "X-Client: admin; X-User: mallory; X-Who: admin" {
		t.Error(got)
	}
}

// However many policies with passwords come and go, no more of the cores check them at once (README.md of basic).
func TestAttackPasswordsOfPoliciesThatComeLater(t *testing.T) {
	h := newHouse(t)
	config := staff(t)
	var alive int
	for range 3 {
		env := h.env()
		if _, err := (Method{Name: "staff", Basic: config}).build(env); err != nil {
			t.Fatal(err)
		}
		env.Keep.End()
		h.Pass(keep.Grace + time.Minute)
		before := alive
		if alive, _ = h.Store.Len(); before != 0 && alive != before {
			t.Errorf("%d things are kept, and were %d: what all of them share is forgotten", alive, before)
		}
	}
}

// Whoever owns a route may ask a service of his own. It must not be told the credentials that the Gateway's policy keeps from the route's
// backends (threats 32), unless both policies are of one namespace.
func TestAttackAServiceOfARouteThatCollectsCredentials(t *testing.T) {
	gateway := Policy{Name: snapshot.Name{Namespace: "infra", Name: "gateway"}, Require: All, Methods: []Method{
		{Name: "staff", Basic: staff(t)},
		{Name: "partners", APIKey: partners(method.Place{Query: "key"})},
		{Name: "first", APIKey: partners(method.Place{Cookie: "key"})},
	}}
	route := policyOf("route", Any)
	route.Methods = []Method{{Name: "check", External: &external.Config{AllowedRequestHeaders: []string{"Cookie"}}}}
	for _, c := range []struct {
		sentence string
		change   func(*Policy)
		want     string
	}{
		{"of another namespace", func(*Policy) {}, "[Cookie: a=1] /?b=2"},
		{"of its own", func(p *Policy) { p.Name.Namespace = "shop" }, "[Authorization: " + basicOf("ann:secret").Value + " Cookie: a=1; key=key-of-red] /?key=key-of-red&b=2"},
		{"forwarded", func(p *Policy) { p.Forward.KeepCredential = true }, "[Authorization: " + basicOf("ann:secret").Value + " Cookie: a=1; key=key-of-red] /?key=key-of-red&b=2"},
	} {
		told := ""
		check := &scripted{say: func(ex *message.Exchange) method.Result {
			told = fmt.Sprint(lines(ex), " ", ex.Request.Target)
			return method.Result{Outcome: method.Accepted}
		}}
		outer := gateway
		c.change(&outer)
		inner := Policy{Name: policyOf("inner", Any).Name, Methods: []Method{{Name: "staff", Basic: staff(t)}}} // looks at them all the same
		ex := get("/?key=key-of-red&b=2", basicOf("ann:secret"), field("Cookie", "a=1; key=key-of-red"))
		if got := send(t, newHouse(t).chain(map[string]method.Method{"check": check}, outer, route, inner), ex); got != 0 {
			t.Errorf("%s: %d", c.sentence, got)
		}
		if told != c.want {
			t.Errorf("%s: told %s, want %s", c.sentence, told, c.want)
		}
	}
}

// Whoever owns a route may set headers for his backend. That must not hide from the Gateway's rules what a request has under their names.
func TestAttackAHeaderThatAPolicyBelowHidesFromARuleAbove(t *testing.T) {
	gateway := policyOf("gateway", Any)
	gateway.Authorize.Rules = []Rule{{Name: "blocked", Deny: true, When: `request.headers["x-verdict"] == "block" || request.headers["x_verdict"] == "block"`}}
	sets := forwarding(policyOf("route", Any), Header{"X-Verdict", `""`})
	reads := policyOf("route", Any)
	reads.Methods = []Method{{Name: "check", External: &external.Config{AllowedRequestHeaders: []string{"X-Verdict"}}}}
	for _, below := range []Policy{sets, reads} {
		for _, name := range []string{"X-Verdict", "x_verdict"} {
			c := newHouse(t).chain(map[string]method.Method{"check": accepts("x")}, gateway, below)
			if got := send(t, c, get("/", field(name, "block"))); got != 403 {
				t.Errorf("%s: %d", name, got)
			}
		}
	}
}
