package oidc

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

const wellKnown = "/.well-known/openid-configuration"

func TestAnOutageAtStartHealsByItself(t *testing.T) {
	h := newHouse(t)
	h.away.Store(true)
	b := h.browser(h.build())
	nav := http.Header{"Sec-Fetch-Mode": {"navigate"}}
	for range 20 {
		if a := b.ask("GET", home+"/", nav); a.outcome != method.Unavailable {
			t.Fatalf("outcome %d", a.outcome)
		}
	}
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Absent {
		t.Errorf("a script: outcome %d", a.outcome)
	}
	h.away.Store(false)
	if a := b.ask("GET", home+"/", nav); a.outcome != method.Unavailable {
		t.Error("it was asked again at once")
	}
	h.Pass(retryAtFirst)
	b.loggedIn(home+"/", "ada")
	if n := h.idp.called(wellKnown); n != 1 {
		t.Errorf("discovery was asked %d times", n)
	}
	// Later it is looked up again; what is known is used meanwhile, and for as long as it is away.
	h.away.Store(true)
	h.Pass(believedFor)
	h.browser(b.method).leaves(home + "/")
	h.away.Store(false)
	h.until(func() bool {
		h.Pass(time.Second)
		h.browser(b.method).leaves(home + "/")
		return h.idp.called(wellKnown) == 2
	})
}

// A plan that reaches the provider in another way is used at once, also by what outlives plans.
func TestTheNewestPlanSaysHowTheProviderIsReached(t *testing.T) {
	h := newHouse(t)
	h.build()
	r := h.Store.Begin()
	defer r.End()
	env := h.env(r)
	env.Call = func(snapshot.BackendRef) (filter.Caller, error) { return through{}, nil }
	m, err := settings().Build(env)
	if err != nil {
		t.Fatal(err)
	}
	if a := h.browser(m).ask("GET", home+"/", http.Header{"Sec-Fetch-Mode": {"navigate"}}); a.outcome != method.Unavailable {
		t.Errorf("outcome %d", a.outcome)
	}
}

// SSRF by discovery: endpoints that we call stand on the issuer's origin, or on one that the policy names; nobody is sent into the clear.
func TestDiscoveryCannotSendUsElsewhere(t *testing.T) {
	for name, change := range map[string]func(d map[string]any){
		"token endpoint on metadata":    func(d map[string]any) { d["token_endpoint"] = "http://169.254.169.254/token" },
		"token endpoint on another":     func(d map[string]any) { d["token_endpoint"] = "https://evil.example/token" },
		"token endpoint in the clear":   func(d map[string]any) { d["token_endpoint"] = "http://sso.example.com/token" },
		"token endpoint, another port":  func(d map[string]any) { d["token_endpoint"] = issuer + ":8443/token" },
		"token endpoint with a user":    func(d map[string]any) { d["token_endpoint"] = "https://sso.example.com@evil.example/token" },
		"no token endpoint":             func(d map[string]any) { delete(d, "token_endpoint") },
		"keys on another":               func(d map[string]any) { d["jwks_uri"] = "https://evil.example/keys" },
		"keys in a file":                func(d map[string]any) { d["jwks_uri"] = "file:///etc/passwd" },
		"authorization in the clear":    func(d map[string]any) { d["authorization_endpoint"] = "http://sso.example.com/authorize" },
		"authorization by script":       func(d map[string]any) { d["authorization_endpoint"] = "javascript:alert(1)" },
		"authorization with a fragment": func(d map[string]any) { d["authorization_endpoint"] = issuer + "/authorize#x" },
		"logout in the clear":           func(d map[string]any) { d["end_session_endpoint"] = "http://evil.example/" },
		"another issuer":                func(d map[string]any) { d["issuer"] = "https://evil.example" },
		"an issuer with a slash more":   func(d map[string]any) { d["issuer"] = issuer + "/" },
		"no issuer":                     func(d map[string]any) { delete(d, "issuer") },
		"only symmetric algorithms":     func(d map[string]any) { d["id_token_signing_alg_values_supported"] = []string{"HS256", "none"} },
	} {
		h := newHouse(t)
		h.idp.document = change
		a := h.browser(h.build()).ask("GET", home+"/", http.Header{"Sec-Fetch-Mode": {"navigate"}})
		if a.outcome != method.Unavailable || a.result.Detail == "" {
			t.Errorf("%s: outcome %d, %s", name, a.outcome, a.result.Detail)
		}
	}
}

func TestWhatTheProviderSaysOfARefreshDecides(t *testing.T) {
	for answer, want := range map[struct {
		status int
		text   string
	}]method.Outcome{
		{400, `{"error":"invalid_grant"}`}:  method.Refused,
		{400, `{"error":"token_expired"}`}:  method.Refused,
		{403, `rubbish`}:                    method.Refused,
		{401, `{"error":"invalid_client"}`}: method.Unavailable, // a wrong secret is not the user's fault
		{500, `{}`}:                         method.Unavailable,
		{503, `<html>`}:                     method.Unavailable,
		{429, `{}`}:                         method.Unavailable,
		{302, ``}:                           method.Unavailable,
		{200, `{}`}:                         method.Unavailable,
		{200, `not JSON`}:                   method.Unavailable,
		{200, `{"access_token":"` + strings.Repeat("x", maxDocument) + `"}`}: method.Unavailable,
	} {
		h := newHouse(t)
		b := h.browser(h.build())
		b.loggedIn(home+"/", "ada")
		h.idp.set(func() {
			h.idp.answer = func(path string) (int, string) {
				if path == "/token" {
					return answer.status, answer.text
				}
				return 0, ""
			}
		})
		h.Pass(time.Hour)
		if a := b.ask("GET", home+"/", nil); a.outcome != want {
			t.Errorf("%d %.40s: outcome %d %s", answer.status, answer.text, a.outcome, a.result.Detail)
		}
	}
}

func TestManyWhoComeAtStartLookTheProviderUpOnce(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	hold := make(chan struct{})
	h.idp.answer = func(string) (int, string) { <-hold; return 0, "" }
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			a := through1(m, exchange(t, "GET", home+"/", http.Header{"Sec-Fetch-Mode": {"navigate"}}))
			if a.response.Status != 302 {
				t.Errorf("%d %s", a.response.Status, a.result.Detail)
			}
		})
	}
	h.until(func() bool { return h.idp.called(wellKnown) > 0 })
	close(hold)
	all.Wait()
	if n := h.idp.called(wellKnown); n != 1 {
		t.Errorf("%d look-ups", n)
	}
}

func TestADiscoveryDocumentThatIsNoneIsSurvived(t *testing.T) {
	for answer, status := range map[string]int{
		"": 200, "<html>": 200, "null": 200, "[]": 200, `{"issuer": 7}`: 200, strings.Repeat("x", maxDocument+1): 200, "gone": 404, "moved": 302,
	} {
		h := newHouse(t)
		h.idp.answer = func(path string) (int, string) { return status, answer }
		a := h.browser(h.build()).ask("GET", home+"/", http.Header{"Sec-Fetch-Mode": {"navigate"}})
		if a.outcome != method.Unavailable || len(a.result.Detail) > 1000 {
			t.Errorf("%d %.20s: outcome %d, %.100s", status, answer, a.outcome, a.result.Detail)
		}
	}
}

// JWKS that are away, of a gigabyte, redirect to a link-local address, or are none.
func TestKeysThatCannotBeHad(t *testing.T) {
	for answer, want := range map[string]struct{ status, page int }{
		"away":                                 {500, 503},
		"http://169.254.169.254/":              {302, 503},
		"<html>":                               {200, 503},
		strings.Repeat("x", maxDocument+1):     {200, 503},
		`{"keys": []}`:                         {200, 502},
		`{"keys": [{"kty":"oct","k":"AAAA"}]}`: {200, 502},
	} {
		h := newHouse(t)
		h.idp.answer = func(path string) (int, string) {
			if path == "/keys" {
				return want.status, answer
			}
			return 0, ""
		}
		if a := h.browser(h.build()).visit(home + "/"); a.response.Status != want.page || sessionSet(a) || len(a.result.Detail) > 1000 {
			t.Errorf("%.30s: %d %.200s", answer, a.response.Status, a.result.Detail)
		}
	}
}

func TestKeysThatAreKnownOutliveAnOutageAndRotate(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	h.browser(m).loggedIn(home+"/", "ada")
	h.idp.set(func() {
		h.idp.answer = func(path string) (int, string) {
			if path == "/keys" {
				return 500, ""
			}
			return 0, ""
		}
	})
	h.browser(m).loggedIn(home+"/", "ada")
	other := newIDP(t, issuer, h.Clock)
	h.idp.set(func() { h.idp.key, h.idp.kid, h.idp.answer = other.key, "another", nil })
	h.browser(m).loggedIn(home+"/", "ada")
	if n := h.idp.called("/keys"); n != 2 {
		t.Errorf("keys were fetched %d times", n)
	}
}

// A provider spread over several hosts: each is called by the backend that the policy names for it.
func TestEndpointsOnOriginsThatThePolicyNames(t *testing.T) {
	h := newHouse(t)
	h.idp.document = func(d map[string]any) {
		d["token_endpoint"], d["jwks_uri"] = "https://oauth2.example.net/token", "https://KEYS.example.net:8443/keys"
	}
	var mu sync.Mutex
	called := map[string]string{}
	r := h.Store.Begin()
	defer r.End()
	env := h.env(r)
	env.Call = func(ref snapshot.BackendRef) (filter.Caller, error) {
		return watched{h, func(ex *message.Exchange) {
			mu.Lock()
			defer mu.Unlock()
			called[ex.Request.Host.Name+ex.Request.Target.Path] = ref.String()
		}}, nil
	}
	outside := func(host string) snapshot.BackendRef { return snapshot.BackendRef{Outside: host, Port: 443} }
	m, err := settings(func(c *Config) {
		c.Origins = []Origin{{"https://oauth2.example.net", outside("a")}, {"https://keys.example.net:8443/", outside("b")}}
	}).Build(env)
	if err != nil {
		t.Fatal(err)
	}
	h.browser(m).loggedIn(home+"/", "ada")
	for what, want := range map[string]string{
		"sso.example.com" + wellKnown: "outside/sso.example.com:443", "oauth2.example.net/token": "outside/a:443", "keys.example.net/keys": "outside/b:443",
	} {
		if called[what] != want {
			t.Errorf("%s by %q", what, called[what])
		}
	}
}

// watched is a Caller that tells of its calls.
type watched struct {
	filter.Caller
	tell func(*message.Exchange)
}

func (w watched) Do(ctx context.Context, ex *message.Exchange) error {
	w.tell(ex)
	return w.Caller.Do(ctx, ex)
}

func TestTheClientAuthenticatesAsTheProviderAnnounces(t *testing.T) {
	for name, c := range map[string]struct {
		methods []string
		secret  string
		basic   bool
	}{
		"nothing announced":     {nil, "s3cret", true},
		"both":                  {[]string{"client_secret_post", "client_secret_basic"}, "s3cret", true},
		"in the form":           {[]string{"client_secret_post"}, "s3cret", false},
		"a public client":       {[]string{"client_secret_basic", "none"}, "", false},
		"characters to encode":  {nil, "a&=:%+ ü", true},
		"the same, in the form": {[]string{"client_secret_post"}, "a&=:%+ ü", false},
	} {
		h := newHouse(t)
		h.idp.secret, h.idp.document = c.secret, func(d map[string]any) {
			if c.methods != nil {
				d["token_endpoint_auth_methods_supported"] = c.methods
			}
		}
		a := h.browser(h.build(func(s *Config) { s.ClientSecret.Data = []byte(c.secret) })).visit(home + "/")
		if a.outcome != method.Accepted || h.idp.basic != c.basic || len(h.idp.redeemed) != 1 {
			t.Errorf("%s: %d %s, by Basic: %v, %d requests", name, a.response.Status, a.result.Detail, h.idp.basic, len(h.idp.redeemed))
		}
	}
}
