package auth

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/external"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// lines are the fields of the request that is forwarded.
func lines(ex *message.Exchange) (out []string) {
	for name, value := range ex.Request.Header.All() {
		out = append(out, name+": "+value)
	}
	slices.Sort(out)
	return out
}

func forwarding(p Policy, headers ...Header) Policy {
	p.Forward.Headers = headers
	return p
}

func TestABackendLearnsWhoItIsFromUsAlone(t *testing.T) {
	spoofed := []message.Field{
		field("X-User", "admin"), field("x-user", "admin"), field("X_User", "admin"), field("x_USER", "admin"), field("X-Users", "mine"),
	}
	user := Header{"X-User", "identity.subject"}
	shadow := forwarding(policyOf("api", Any, "m"), user)
	shadow.Shadow = true
	for _, c := range []struct {
		sentence string
		policy   Policy
		method   *scripted
		want     []string
	}{
		{"proven", forwarding(policyOf("api", Any, "m"), user), accepts("ann"), []string{"X-User: ann", "X-Users: mine"}},
		{"anonymous", forwarding(policyOf("api", Optional, "m"), user), says(method.Absent, "", ""), []string{"X-Users: mine"}},
		{"rules alone", forwarding(policyOf("api", Any), user), nil, []string{"X-Users: mine"}},
		{"shadow, refused", shadow, says(method.Refused, "", ""), []string{"X-Users: mine"}},
		{"shadow, proven", shadow, accepts("ann"), []string{"X-User: ann", "X-Users: mine"}},
		{"a name that could end the field", forwarding(policyOf("api", Any, "m"), user), accepts("ann\r\nX-Admin: 1"), []string{"X-Users: mine"}},
		{"a name with a space at its end", forwarding(policyOf("api", Any, "m"), user), accepts("admin "), []string{"X-Users: mine"}},
		{"an expression that fails", forwarding(policyOf("api", Any, "m"), Header{"X-User", `request.path.split("/")[7]`}), accepts("ann"), []string{"X-Users: mine"}},
	} {
		ex := get("/", spoofed...)
		if got := send(t, newHouse(t).chain(map[string]method.Method{"m": c.method}, c.policy), ex); got != 0 {
			t.Errorf("%s: %d", c.sentence, got)
		}
		if d := cmp.Diff(c.want, lines(ex)); d != "" {
			t.Errorf("%s: %s", c.sentence, d)
		}
	}
}

// What a client says about itself must not be believed on the way either.
func TestNeitherMethodsNorRulesSeeAnIdentityHeaderOfAClient(t *testing.T) {
	told := ""
	asks := &scripted{say: func(ex *message.Exchange) method.Result {
		told, _ = ex.Request.Header.Joined("X-User")
		return method.Result{Outcome: method.Accepted}
	}}
	p := forwarding(policyOf("api", Any, "check"), Header{"X-User", "identity.subject"})
	p.Authorize = Authorize{Deny: true, Rules: []Rule{{Name: "a", When: `request.headers["x-user"] == "admin"`}}}
	if got := send(t, newHouse(t).chain(map[string]method.Method{"check": asks}, p), get("/", field("X-User", "admin"))); got != 403 || told != "" {
		t.Errorf("%d, and the service was told %q", got, told)
	}
}

func TestAHeaderInWhichACredentialStandsIsReadBeforeItIsSet(t *testing.T) {
	p := forwarding(Policy{Name: policyOf("api", Any).Name, Methods: []Method{{Name: "partners", APIKey: partners()}}}, Header{"X-Api-Key", "identity.subject"})
	ex := get("/", field("X-API-Key", "key-of-red"))
	if got := send(t, newHouse(t).chain(nil, p), ex); got != 0 || !slices.Equal(lines(ex), []string{"X-Api-Key: red"}) {
		t.Errorf("%d %v", got, lines(ex))
	}
}

func TestWhatAMethodSetsReplacesWhatTheClientSent(t *testing.T) {
	m := accepts("ann")
	m.result.Set = []method.Field{{Name: "X-Role", Value: "user"}, {Name: "Authorization", Value: "Bearer inner"}, {Name: "Content-Length", Value: "7"}, {Name: "X-Bad", Value: "a\nb"}}
	ex := get("/", field("X-Role", "admin"), field("X_Role", "admin"), field("Authorization", "Bearer outer"), field("X-Bad", "1"))
	send(t, newHouse(t).chain(map[string]method.Method{"m": m}, policyOf("api", Any, "m")), ex)
	if d := cmp.Diff([]string{"Authorization: Bearer inner", "X-Role: user"}, lines(ex)); d != "" {
		t.Error(d)
	}
}

// The order is: strip, what methods set, what they change, what policies set.
func TestWhatAMethodChangesComesBehindWhatIsStrippedAndBeforeWhatPoliciesSet(t *testing.T) {
	m := accepts("ann")
	m.strips = "Authorization"
	m.result.Set = []method.Field{{Name: "X-Role", Value: "user"}}
	m.result.OnRequest = func(r *message.Request) {
		r.Header.Add("Authorization", "Bearer inner")
		r.Header.Del("X-Role")
		r.Header.Add("X-User", "the service's")
	}
	p := forwarding(policyOf("api", Any, "m"), Header{"X-User", "identity.subject"})
	ex := get("/", field("Authorization", "Bearer outer"))
	send(t, newHouse(t).chain(map[string]method.Method{"m": m}, p), ex)
	if d := cmp.Diff([]string{"Authorization: Bearer inner", "X-User: ann"}, lines(ex)); d != "" {
		t.Error(d)
	}

	p.Shadow = true
	ex = get("/", field("Authorization", "Bearer outer"))
	send(t, newHouse(t).chain(map[string]method.Method{"m": m}, p), ex)
	if d := cmp.Diff([]string{"Authorization: Bearer outer", "X-Role: user", "X-User: ann"}, lines(ex)); d != "" {
		t.Errorf("in shadow: %s", d)
	}
}

// What a service may set is an identity header, also when it sets nothing.
func TestWhatAnExternalServiceMaySetIsNeverTheClients(t *testing.T) {
	p := policyOf("api", Any)
	p.Methods = []Method{{Name: "check", External: &external.Config{AllowedResponseHeaders: []string{"X-Tenant"}}}}
	for _, o := range []method.Outcome{method.Accepted, method.Refused} {
		p.Shadow = o == method.Refused
		ex := get("/", field("X_Tenant", "theirs"), field("x-tenant", "theirs"))
		if got := send(t, newHouse(t).chain(map[string]method.Method{"check": says(o, "", "")}, p), ex); got != 0 || ex.Request.Header.Len() != 0 {
			t.Errorf("%d %v", got, lines(ex))
		}
	}
}

func TestOfTwoPoliciesThatSetAHeaderTheInnermostCounts(t *testing.T) {
	outer := forwarding(policyOf("outer", Any), Header{"X-Who", `"outer"`}, Header{"X-Outer", `"yes"`})
	inner := forwarding(policyOf("inner", Any), Header{"x-who", `"inner"`})
	ex := get("/")
	send(t, newHouse(t).chain(nil, outer, inner), ex)
	if d := cmp.Diff([]string{"X-Outer: yes", "x-who: inner"}, lines(ex)); d != "" {
		t.Error(d)
	}
}

func TestCredentialsAreStrippedFromEveryPlaceUnlessThePolicyKeepsThem(t *testing.T) {
	methods := []Method{
		{Name: "partners", APIKey: partners(method.Place{Header: "X-API-Key"}, method.Place{Query: "key"}, method.Place{Cookie: "key"})},
		{Name: "staff", Basic: staff(t)},
	}
	send1 := func(keep, shadow bool, require Require) *message.Exchange {
		p := Policy{Name: policyOf("api", Any).Name, Shadow: shadow, Require: require, Methods: methods, Forward: Forward{KeepCredential: keep}}
		ex := get("/p?a=%7e&key=wrong&b=2", basicOf("ann:secret"), field("Cookie", "a=1; key=wrong; b=2"), field("X-Other", "1"))
		if require == Any {
			ex = get("/p?a=%7e&key=key-of-red&b=2", basicOf("ann:wrong"), field("X-Other", "1"))
		}
		send(t, newHouse(t).chain(nil, p), ex)
		return ex
	}
	ex := send1(false, false, Any)
	if d := cmp.Diff([]string{"X-Other: 1"}, lines(ex)); d != "" || ex.Request.Target.String() != "/p?a=%7e&b=2" {
		t.Errorf("also those that were not asked: %s %s", d, ex.Request.Target)
	}
	for _, ex := range []*message.Exchange{send1(true, false, Any), send1(false, true, Any)} {
		if ex.Request.Target.String() != "/p?a=%7e&key=key-of-red&b=2" || !ex.Request.Header.Has("Authorization") {
			t.Errorf("changed: %s %v", ex.Request.Target, lines(ex))
		}
	}
}

func TestACredentialThatTwoPoliciesNeedIsSeenByBoth(t *testing.T) {
	p := func(name string) Policy {
		return Policy{Name: policyOf(name, Any).Name, Methods: []Method{{Name: "partners", APIKey: partners()}}}
	}
	keeps := p("inner")
	keeps.Forward.KeepCredential = true
	ex := get("/", field("X-API-Key", "key-of-red"))
	if got := send(t, newHouse(t).chain(nil, p("outer"), keeps), ex); got != 0 || ex.Request.Header.Len() != 0 {
		t.Errorf("%d %v: one that strips is enough", got, lines(ex))
	}
}
