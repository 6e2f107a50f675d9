package auth

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func TestEachChallengeHasAFieldOfItsOwn(t *testing.T) {
	bearer, invalid := `Bearer realm="api"`, `Bearer realm="api", error="invalid_token"`
	basic := `Basic realm="a, b", charset="UTF-8"`
	for _, c := range []struct {
		sentence string
		said     []*scripted
		status   int
		want     []string
	}{
		{"all methods", []*scripted{says(method.Absent, bearer, ""), says(method.Absent, basic, "")}, 401, []string{bearer, basic}},
		{"the same once", []*scripted{says(method.Absent, bearer, ""), says(method.Absent, bearer, "")}, 401, []string{bearer}},
		{"an error only for what was presented", []*scripted{says(method.Absent, bearer, ""), says(method.Refused, invalid, "")}, 401, []string{invalid}},
		{"two realms", []*scripted{says(method.Absent, basic, ""), says(method.Absent, `Basic realm="c"`, "")}, 401, []string{basic, `Basic realm="c"`}},
		{"none: no 401 without a challenge", []*scripted{says(method.Absent, "", "")}, 403, nil},
		{"one that cannot be sent is none", []*scripted{says(method.Absent, "Basic realm=\"a\r\nX-Evil: 1\"", "")}, 403, nil},
		{"none when nobody can tell", []*scripted{says(method.Absent, bearer, ""), says(method.Unavailable, "", "")}, 503, nil},
	} {
		p, methods := policyOf("api", Any), map[string]method.Method{}
		for i, s := range c.said {
			name := string(rune('a' + i))
			p.Methods, methods[name] = append(p.Methods, Method{Name: name}), s
		}
		ex := get("/")
		if got := send(t, newHouse(t).chain(methods, p), ex); got != c.status {
			t.Errorf("%s: %d, want %d", c.sentence, got, c.status)
		}
		if d := cmp.Diff(c.want, ex.Response.Header.Values("WWW-Authenticate")); d != "" {
			t.Errorf("%s: %s", c.sentence, d)
		}
	}
}

func TestEachMethodOfOursHasItsChallenge(t *testing.T) {
	p := Policy{Name: policyOf("api", Any).Name, Methods: []Method{
		{Name: "partners", APIKey: partners()},
		{Name: "tokens", APIKey: partners(method.Place{Header: "Authorization", Prefix: "Bearer "})},
		{Name: "staff", Basic: staff(t)},
	}}
	c := newHouse(t).chain(nil, p)
	for sentence, want := range map[string]struct {
		ex         *message.Exchange
		reason     message.Reason
		challenges []string
	}{
		"nothing is presented": {get("/"), message.ReasonUnauthenticated,
			[]string{`ApiKey realm="api"`, `Bearer realm="api"`, `Basic realm="staff", charset="UTF-8"`}},
		"a wrong token": {get("/", field("Authorization", "Bearer wrong")), message.ReasonBadCredential,
			[]string{`ApiKey realm="api"`, `Bearer realm="api", error="invalid_token"`, `Basic realm="staff", charset="UTF-8"`}},
		"a wrong password": {get("/", basicOf("ann:wrong")), message.ReasonBadCredential,
			[]string{`ApiKey realm="api"`, `Bearer realm="api"`, `Basic realm="staff", charset="UTF-8"`}},
	} {
		if got := send(t, c, want.ex); got != 401 || reasonOf(want.ex) != want.reason {
			t.Errorf("%s: %d %v", sentence, got, reasonOf(want.ex))
		}
		if d := cmp.Diff(want.challenges, want.ex.Response.Header.Values("WWW-Authenticate")); d != "" {
			t.Errorf("%s: %s", sentence, d)
		}
		if want.ex.Response.Reason.GRPC() != message.GRPCUnauthenticated {
			t.Errorf("%s: gRPC %d", sentence, want.ex.Response.Reason.GRPC())
		}
	}
}

func TestTheLogSaysWhyAndNeverWithACredential(t *testing.T) {
	p := Policy{Name: policyOf("api", Any).Name, Methods: []Method{{Name: "partners", APIKey: partners()}, {Name: "staff", Basic: staff(t)}}}
	ex := get("/", field("X-API-Key", "hunter2"), basicOf("ann:hunter2"))
	send(t, newHouse(t).chain(nil, p), ex)
	if want := "shop/api: partners: unknown key; staff: wrong user or password"; ex.Response.Detail != want {
		t.Errorf("%q, want %q", ex.Response.Detail, want)
	}
	if note(ex, "auth") != "shop/api" {
		t.Errorf("notes %v", ex.Notes)
	}
	p.Shadow = true
	ex = get("/", field("X-API-Key", "hunter2"), basicOf("ann:hunter2"))
	send(t, newHouse(t).chain(nil, p), ex)
	if got := note(ex, "auth_shadow"); got == "" || strings.Contains(got, "hunter2") {
		t.Errorf("%q", got)
	}
}

// A preflight carries no credential. Where the route has CORS it never comes here; where it has not, it is a request like any other.
func TestAnOPTIONSRequestNeedsCredentialsLikeAnyOther(t *testing.T) {
	p := Policy{Name: policyOf("api", Any).Name, Methods: []Method{{Name: "partners", APIKey: partners()}}}
	ex := get("/", field("Origin", "https://other.example.com"), field("Access-Control-Request-Method", "GET"))
	ex.Request.Method = "OPTIONS"
	if got := send(t, newHouse(t).chain(nil, p), ex); got != 401 {
		t.Errorf("%d", got)
	}
}

func TestParametersThatCarryCredentialsAreHiddenFromTheLogWhateverTheAnswer(t *testing.T) {
	p := Policy{Name: policyOf("api", Any).Name, Methods: []Method{{Name: "partners", APIKey: partners(method.Place{Query: "partner"}, method.Place{Header: "X-Key"})}}}
	c := newHouse(t).chain(nil, p)
	for _, path := range []string{"/?partner=key-of-red", "/?partner=nearly-key-of-red", "/"} {
		ex := get(path)
		send(t, c, ex)
		if !slices.Equal(ex.HiddenQuery, []string{"partner"}) {
			t.Errorf("%s: %v", path, ex.HiddenQuery)
		}
	}
}
