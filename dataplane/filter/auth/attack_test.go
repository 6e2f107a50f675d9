package auth

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/apikey"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// The attacks of the list that the filter as a whole has to stand. Those on a single method are in its own room.

func TestAttackDuplicatedAuthorizationHeaders(t *testing.T) {
	p := Policy{Name: policyOf("api", Any).Name, Methods: []Method{
		{Name: "staff", Basic: staff(t)},
		{Name: "tokens", APIKey: partners(apikey.Source{Header: "Authorization", Prefix: "Bearer "})},
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
