package auth

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func TestWhatMethodsSayDecidesByWhatThePolicyRequires(t *testing.T) {
	const (
		yes  = "yes"
		no   = "no"   // a wrong credential
		none = "none" // nothing presented
		down = "down" // cannot tell
	)
	for _, c := range []struct {
		require Require
		said    []string
		want    string // subject, or reason; "" anonymous
		asked   int
	}{
		{Any, []string{yes, yes}, "m0", 1},
		{Any, []string{none, yes}, "m1", 2},
		{Any, []string{no, yes}, "m1", 2},
		{Any, []string{down, yes}, "m1", 2},
		{Any, []string{none, none}, "unauthenticated", 2},
		{Any, []string{none, no}, "bad_credential", 2},
		{Any, []string{no, none}, "bad_credential", 2},
		{Any, []string{down, none}, "auth_unavailable", 2},
		{Any, []string{no, down}, "auth_unavailable", 2},
		{"", []string{none}, "unauthenticated", 1},

		{All, []string{yes, yes}, "m0", 2},
		{All, []string{yes, none}, "unauthenticated", 2},
		{All, []string{none, yes}, "unauthenticated", 1},
		{All, []string{yes, no}, "bad_credential", 2},
		{All, []string{yes, down}, "auth_unavailable", 2},

		{Optional, []string{none, none}, "", 2},
		{Optional, []string{none, yes}, "m1", 2},
		{Optional, []string{no, none}, "bad_credential", 2},
		{Optional, []string{none, down}, "auth_unavailable", 2},
	} {
		for _, shadow := range []bool{false, true} {
			name := string(c.require) + " " + strings.Join(c.said, ",")
			h := newHouse(t)
			p, methods, all := policyOf("api", c.require), map[string]method.Method{}, []*scripted{}
			p.Shadow = shadow
			for i, say := range c.said {
				m := "m" + string(rune('0'+i))
				s := map[string]*scripted{
					yes: accepts(m), no: says(method.Refused, `Basic realm="x"`, "wrong"),
					none: says(method.Absent, `Basic realm="x"`, ""), down: says(method.Unavailable, "", "no keys"),
				}[say]
				p.Methods, methods[m], all = append(p.Methods, Method{Name: m}), s, append(all, s)
			}
			ex := get("/")
			send(t, h.chain(methods, p), ex)

			got := subjectOf(ex)
			if r := reasonOf(ex); r != message.ReasonNone {
				got = r.String()
			}
			refused := !slices.Contains([]string{"", "m0", "m1"}, c.want)
			want := c.want
			if shadow && refused {
				want = ""
				if n := note(ex, "auth_shadow"); !strings.HasPrefix(n, "shop/api: "+c.want) {
					t.Errorf("%s: the log says %q", name, n)
				}
			}
			if got != want {
				t.Errorf("%s, shadow %v: %q, want %q", name, shadow, got, want)
			}
			asked := 0
			for _, s := range all {
				asked += s.asked
			}
			if asked != c.asked {
				t.Errorf("%s: %d methods asked, want %d", name, asked, c.asked)
			}
			result := "allowed"
			switch {
			case refused && shadow:
				result = "shadow"
			case refused:
				result = c.want
			case c.want == "":
				result = "anonymous"
			}
			if n := h.counted("shop/api", result); n != 1 {
				t.Errorf("%s, shadow %v: %v counted under %s", name, shadow, n, result)
			}
		}
	}
}

func TestAnOutcomeThatNobodyKnowsLetsNobodyIn(t *testing.T) {
	for _, require := range []Require{Any, All, Optional} {
		c := newHouse(t).chain(map[string]method.Method{"m": says(method.Outcome(99), "", "")}, policyOf("api", require, "m"))
		if got := send(t, c, get("/")); got == 0 {
			t.Errorf("%s: let in", require)
		}
	}
}

func TestAnIdentityWithoutASubjectIsNone(t *testing.T) {
	c := newHouse(t).chain(map[string]method.Method{"m": accepts("")}, policyOf("api", Any, "m"))
	if got := send(t, c, get("/")); got != 503 {
		t.Errorf("%d", got)
	}
}

func TestAMethodMayLetInWithoutNamingAnybody(t *testing.T) {
	outer, inner := policyOf("outer", Any, "token"), policyOf("inner", Any, "check")
	c := newHouse(t).chain(map[string]method.Method{"token": accepts("ann"), "check": says(method.Accepted, "", "")}, outer, inner)
	ex := get("/")
	if got := send(t, c, ex); got != 0 || subjectOf(ex) != "ann" {
		t.Errorf("%d %q", got, subjectOf(ex))
	}
}

func TestEveryPolicyMustLetARequestIn(t *testing.T) {
	for _, c := range []struct {
		outer, inner *scripted
		want         string
	}{
		{accepts("outer"), accepts("inner"), "inner"},
		{says(method.Absent, "", ""), accepts("inner"), "unauthenticated by shop/outer"},
		{accepts("outer"), says(method.Refused, "", ""), "bad_credential by shop/inner"},
	} {
		ex := get("/")
		send(t, newHouse(t).chain(map[string]method.Method{"o": c.outer, "i": c.inner}, policyOf("outer", Any, "o"), policyOf("inner", Any, "i")), ex)
		got := subjectOf(ex)
		if r := reasonOf(ex); r != message.ReasonNone {
			got = r.String() + " by " + note(ex, "auth")
		}
		if got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestAnIdentitySaysWhichPolicyAndMethodProvedIt(t *testing.T) {
	shared := &message.Identity{Subject: "ann", Labels: map[string]string{"tier": "gold"}}
	m := &scripted{result: method.Result{Outcome: method.Accepted, Identity: shared}}
	ex := get("/")
	send(t, newHouse(t).chain(map[string]method.Method{"customers": m}, policyOf("api", Any, "customers")), ex)
	want := &message.Identity{Subject: "ann", Method: "customers", Policy: "shop/api", Labels: map[string]string{"tier": "gold"}}
	if d := cmp.Diff(want, ex.Identity); d != "" {
		t.Error(d)
	}
	if shared.Policy != "" {
		t.Error("what belongs to the method was changed")
	}
}

func TestAnIdentityEndsWithTheFirstProofThatWasNeeded(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	until := func(hour int) *scripted {
		s := accepts("ann")
		if hour > 0 {
			s.result.Identity.Expires = at(hour)
		}
		return s
	}
	shadow := func(p Policy) Policy { p.Shadow = true; return p }
	nobody := says(method.Accepted, "", "")
	for _, c := range []struct {
		sentence string
		policies []Policy
		methods  map[string]method.Method
		want     time.Time
	}{
		{"never", []Policy{policyOf("a", Any, "x")}, map[string]method.Method{"x": until(0)}, time.Time{}},
		{"one", []Policy{policyOf("a", Any, "x")}, map[string]method.Method{"x": until(3)}, at(3)},
		{"all of one policy", []Policy{policyOf("a", All, "x", "y")}, map[string]method.Method{"x": until(5), "y": until(4)}, at(4)},
		{"the policy further out", []Policy{policyOf("a", Any, "x"), policyOf("b", Any, "y")}, map[string]method.Method{"x": until(1), "y": until(6)}, at(1)},
		{"the policy further out, and the inner never", []Policy{policyOf("a", Any, "x"), policyOf("b", Any, "y")}, map[string]method.Method{"x": until(1), "y": until(0)}, at(1)},
		{"not that of a shadow", []Policy{policyOf("a", Any, "x"), shadow(policyOf("b", Any, "y"))}, map[string]method.Method{"x": until(5), "y": until(2)}, at(5)},
		{"a shadow alone never", []Policy{shadow(policyOf("b", Any, "y"))}, map[string]method.Method{"y": until(2)}, time.Time{}},
		{"who proves nobody changes nothing", []Policy{policyOf("a", Any, "x"), policyOf("b", Any, "y")}, map[string]method.Method{"x": until(3), "y": nobody}, at(3)},
	} {
		ex := get("/")
		send(t, newHouse(t).chain(c.methods, c.policies...), ex)
		if ex.Identity == nil || !ex.Identity.Expires.Equal(c.want) {
			t.Errorf("%s: %v, want %v", c.sentence, ex.Identity, c.want)
		}
	}
}

func TestAPolicyThatIsAttachedTwiceAsksOnce(t *testing.T) {
	m := accepts("ann")
	p := policyOf("api", Any, "m")
	other := p
	other.UID = "made-anew"
	send(t, newHouse(t).chain(map[string]method.Method{"m": m}, p, p), get("/"))
	if m.asked != 1 {
		t.Errorf("asked %d times", m.asked)
	}
	send(t, newHouse(t).chain(map[string]method.Method{"m": m}, p, other), get("/"))
	if m.asked != 3 {
		t.Error("another policy is not asked")
	}
}

func TestWhatAMethodAnswersEndsTheRequest(t *testing.T) {
	callback := &scripted{say: func(*message.Exchange) method.Result {
		return method.Result{Outcome: method.Answered, Response: message.Respond(message.OriginFilter, 303, "", "")}
	}}
	later := accepts("ann")
	for _, require := range []Require{Any, All, Optional} {
		h, ex := newHouse(t), get("/oauth2/callback")
		if got := send(t, h.chain(map[string]method.Method{"sso": callback, "key": later}, policyOf("api", require, "sso", "key")), ex); got != 303 {
			t.Errorf("%s: %d", require, got)
		}
		if n := h.counted("shop/api", "answered"); n != 1 || reasonOf(ex) != message.ReasonNone || later.asked != 0 {
			t.Errorf("%s: %v counted, reason %v, asked %d", require, n, reasonOf(ex), later.asked)
		}
	}
	p := policyOf("api", Any, "sso")
	p.Shadow = true
	if got := send(t, newHouse(t).chain(map[string]method.Method{"sso": callback}, p), get("/oauth2/callback")); got != 0 {
		t.Errorf("a shadow policy answers: %d", got)
	}
}

func TestALoginIsWhatAClientGetsIfNobodyElseLetsItIn(t *testing.T) {
	var dropped int
	login := func(o method.Outcome, to string) *scripted {
		return &scripted{say: func(*message.Exchange) method.Result {
			r := message.Respond(message.OriginFilter, 302, "", "")
			r.Header.Set("Location", to)
			r.Body = message.NewBody(&dropping{&dropped}, -1, nil)
			return method.Result{Outcome: o, Response: r}
		}}
	}
	h, ex := newHouse(t), get("/")
	c := h.chain(map[string]method.Method{"key": says(method.Absent, "ApiKey", ""), "sso": login(method.Absent, "/one"), "two": login(method.Absent, "/two")}, policyOf("api", Any, "key", "sso", "two"))
	if got := send(t, c, ex); got != 302 || ex.Response.Header.Get("Location") != "/one" || ex.Response.Reason != message.ReasonUnauthenticated || dropped != 1 {
		t.Errorf("%d %v %v, %d dropped", got, ex.Response.Header, ex.Response.Reason, dropped)
	}
	for _, other := range []*scripted{accepts("ann"), says(method.Unavailable, "", "")} {
		dropped = 0
		ex = get("/")
		send(t, newHouse(t).chain(map[string]method.Method{"sso": login(method.Absent, "/one"), "other": other}, policyOf("api", Any, "sso", "other")), ex)
		if ex.Response != nil && ex.Response.Status == 302 || dropped != 1 {
			t.Errorf("%v, %d dropped", ex.Response, dropped)
		}
	}
}

// dropping is a body that counts how often it was given up.
type dropping struct{ n *int }

func (d *dropping) Next() ([]byte, error)    { panic("nobody reads it") }
func (d *dropping) More() bool               { return false }
func (d *dropping) Trailer() *message.Header { return nil }
func (d *dropping) Abort(error)              { *d.n++ }

func TestWhatAMethodChangesOfTheAnswerIsNeverLost(t *testing.T) {
	renewed := &scripted{say: func(*message.Exchange) method.Result {
		return method.Result{Outcome: method.Accepted, Identity: &message.Identity{Subject: "ann"}, OnResponse: func(r *message.Response) { r.Header.Add("Set-Cookie", "session=new") }}
	}}
	p := policyOf("api", Any, "sso")
	h := newHouse(t)
	for sentence, c := range map[string]*filter.Chain{
		"let in":           h.chain(map[string]method.Method{"sso": renewed}, p),
		"refused by rules": h.chain(map[string]method.Method{"sso": renewed}, denying(p)),
		"refused by another policy": h.chain(map[string]method.Method{"sso": renewed, "no": says(method.Absent, "", "")},
			p, policyOf("inner", Any, "no")),
	} {
		ex := get("/")
		met, v := c.Request(ex)
		if !v.Answered() {
			ex.Response = &message.Response{Status: 200}
		}
		c.Response(ex, met, nil)
		if got := ex.Response.Header.Values("Set-Cookie"); !slices.Equal(got, []string{"session=new"}) {
			t.Errorf("%s: %v", sentence, got)
		}
	}
}

func denying(p Policy) Policy { p.Authorize.Deny = true; return p }

func TestAMethodThatPanicsFailsTheRequestAndLetsNobodyIn(t *testing.T) {
	c := newHouse(t).chain(map[string]method.Method{"m": &scripted{say: func(*message.Exchange) method.Result { panic("bug") }}}, policyOf("api", Any, "m"))
	_, v := c.Request(get("/"))
	if reason, _, failed := v.Failed(); !failed || reason != message.ReasonPanic {
		t.Errorf("%v", v)
	}
}

func TestTwoFiltersInOneChainAreOne(t *testing.T) {
	h := newHouse(t)
	configs := []snapshot.Filter{
		Config{[]Policy{{Name: snapshot.Name{Name: "first"}, Methods: []Method{{Name: "key", APIKey: partners()}}}}},
		Config{[]Policy{{Name: snapshot.Name{Name: "second"}, Methods: []Method{{Name: "key", APIKey: partners()}, {Name: "staff", Basic: staff(t)}}, Require: All}}},
	}
	c, err := filter.Build(configs, h.env(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Len() != 1 {
		t.Errorf("%d filters", c.Len())
	}
	// The first one's credential is the second's, too: had the first one stripped it, nobody could come in.
	ex := get("/", field("X-API-Key", "key-of-red"), basicOf("ann:secret"))
	if got := send(t, c, ex); got != 0 || ex.Identity.Policy != "/second" && ex.Identity.Policy != "second" {
		t.Errorf("%d %v", got, ex.Identity)
	}
	if ex.Request.Header.Len() != 0 {
		t.Errorf("not stripped: %v", ex.Request.Header)
	}
	if got := send(t, c, get("/", field("X-API-Key", "key-of-red"))); got != 401 {
		t.Errorf("the second filter lets in: %d", got)
	}
}

func TestWhatCannotBeBuiltFailsTheBuild(t *testing.T) {
	good := Method{Name: "key", APIKey: partners()}
	policy := func(change func(*Policy)) Config {
		p := Policy{Name: snapshot.Name{Namespace: "shop", Name: "api"}, Methods: []Method{good}}
		change(&p)
		return Config{[]Policy{p}}
	}
	for want, c := range map[string]Config{
		"no policy":                    {},
		"it has no name":               policy(func(p *Policy) { p.Name = snapshot.Name{} }),
		`require "Some" is not known`:  policy(func(p *Policy) { p.Require = "Some" }),
		"require Optional without a":   policy(func(p *Policy) { p.Require, p.Methods = Optional, nil }),
		"not exactly one way":          policy(func(p *Policy) { p.Methods = []Method{{Name: "unknown"}} }),
		"not exactly one way to":       policy(func(p *Policy) { p.Methods = []Method{{Name: "two", APIKey: partners(), Basic: staff(t)}} }),
		`"key" has no name of its own`: policy(func(p *Policy) { p.Methods = []Method{good, good} }),
		`"" has no name of its own`:    policy(func(p *Policy) { p.Methods[0].Name = "" }),
		"method key: no place": policy(func(p *Policy) {
			p.Methods = []Method{{Name: "key", APIKey: partners()}}
			p.Methods[0].APIKey.From = nil
		}),
		"a rule without a name":      policy(func(p *Policy) { p.Authorize.Rules = []Rule{{}} }),
		"rule r: line 1, column":     policy(func(p *Policy) { p.Authorize.Rules = []Rule{{Name: "r", When: "request.method =="}} }),
		"is no network":              policy(func(p *Policy) { p.Authorize.Rules = []Rule{{Name: "r", Sources: prefixes("::ffff:10.0.0.0/104")}} }),
		"cannot be set":              policy(func(p *Policy) { p.Forward.Headers = []Header{{"Content-Length", "'1'"}} }),
		"header X-A: line 1, column": policy(func(p *Policy) { p.Forward.Headers = []Header{{"X-A", "nothing.of.it"}} }),
	} {
		_, err := filter.Build([]snapshot.Filter{c}, newHouse(t).env(), false, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
	}
	if _, err := filter.Build([]snapshot.Filter{policy(func(*Policy) {})}, newHouse(t).env(), false, nil); err != nil {
		t.Errorf("what is right: %v", err)
	}
}

func TestConfigsWithTheSameTextAreTheSame(t *testing.T) {
	base := func() Policy {
		return Policy{
			Name: snapshot.Name{Namespace: "shop", Name: "api"}, UID: "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9", Require: Any,
			Methods:   []Method{{Name: "key", APIKey: partners()}},
			Authorize: Authorize{Deny: true, Rules: []Rule{{Name: "ops", When: `request.path == "/a"`, Sources: prefixes("10.0.0.0/8"), Methods: []string{"GET", "POST"}}}},
			Forward:   Forward{Headers: []Header{{"X-User", "request.host"}}},
		}
	}
	seen := map[string]bool{}
	for _, change := range []func(*Policy){
		func(*Policy) {},
		func(p *Policy) { p.Name.Name = "b" },
		func(p *Policy) { p.UID = "1b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9" },
		func(p *Policy) { p.Shadow = true },
		func(p *Policy) { p.Require = All },
		func(p *Policy) { p.Require = Optional },
		func(p *Policy) { p.Methods[0].Name = "k" },
		func(p *Policy) { p.Methods[0].APIKey.Keys[0].Subject = "green" },
		func(p *Policy) { p.Methods[0].APIKey.Keys[0].Value = sensitive("another") },
		func(p *Policy) { p.Methods[0].APIKey.Keys[0].Labels[0].Value = "silver" },
		func(p *Policy) { p.Methods[0].APIKey.From[0] = apikeySource("X-Key") },
		func(p *Policy) { p.Methods = nil },
		func(p *Policy) { p.Authorize.Deny = false },
		func(p *Policy) { p.Authorize.Rules[0].Deny = true },
		func(p *Policy) { p.Authorize.Rules[0].Name = "o" },
		func(p *Policy) { p.Authorize.Rules[0].When = "" },
		func(p *Policy) { p.Authorize.Rules[0].Sources = nil },
		func(p *Policy) { p.Authorize.Rules[0].Methods = []string{"GET"} },
		func(p *Policy) { p.Authorize.Rules = nil },
		func(p *Policy) { p.Forward.Headers[0].Name = "X-Who" },
		func(p *Policy) { p.Forward.Headers[0].Value = "request.path" },
		func(p *Policy) { p.Forward.KeepCredential = true },
	} {
		p := base()
		change(&p)
		text := Config{[]Policy{p}}.String()
		if seen[text] {
			t.Errorf("twice: %s", text)
		}
		seen[text] = true
		if strings.Contains(text, "key-of-red") {
			t.Errorf("a secret in the text: %s", text)
		}
	}
	if a, b := (Config{[]Policy{base()}}).String(), (Config{[]Policy{base()}}).String(); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}
