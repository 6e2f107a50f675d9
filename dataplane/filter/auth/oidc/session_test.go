package oidc

import (
	"crypto/sha256"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func TestASessionIsRefreshedBeforeItsTokensEnd(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	before := b.cookies(home)
	h.Pass(time.Hour - maxAhead - time.Second)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Accepted || a.response.Header.Has("Set-Cookie") {
		t.Fatal("it was refreshed too early")
	}
	h.Pass(time.Second)
	h.idp.set(func() { // the refreshed token says what is true now
		for _, claims := range h.idp.refresh {
			claims["groups"] = []string{"none"}
		}
	})
	a := b.ask("POST", home+"/api", http.Header{"Sec-Fetch-Mode": {"cors"}})
	if a.outcome != method.Accepted || a.response.Header.Get("Cache-Control") != "no-store" || !a.identity.Expires.Equal(h.Clock().Add(time.Hour)) {
		t.Fatalf("%d %s %v", a.outcome, a.result.Detail, a.identity)
	}
	if groups := a.identity.Claims["groups"].([]any); groups[0] != "none" {
		t.Errorf("groups %v", groups)
	}
	if maps.Equal(before, b.cookies(home)) {
		t.Error("no new cookies")
	}
	h.Pass(time.Hour - maxAhead - time.Second)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Accepted || h.idp.called("/token") != 2 {
		t.Errorf("the new session: %d, %d calls", a.outcome, h.idp.called("/token"))
	}
	if n := h.Counted("oidc_refreshes_total", "result", "refreshed"); n != 1 {
		t.Errorf("%v refreshes counted", n)
	}
}

// Providers that rotate refresh tokens end a session when one is shown twice.
func TestConcurrentRequestsBurnARefreshTokenOnce(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	b := h.browser(m)
	b.loggedIn(home+"/", "ada")
	old := b.cookies(home)
	var line []string
	for name, value := range old {
		line = append(line, name+"="+value)
	}
	ask := func() *answer {
		return through1(m, exchange(t, "GET", home+"/", http.Header{"Cookie": {strings.Join(line, "; ")}}))
	}
	h.Pass(2 * time.Hour) // the tokens have ended: nobody is let in without a refresh
	hold := make(chan struct{})
	h.idp.set(func() { h.idp.hold = hold })
	var all sync.WaitGroup
	answers := make([]*answer, 20)
	for i := range answers {
		all.Go(func() { answers[i] = ask() })
	}
	h.until(func() bool { return h.idp.called("/token") >= 2 }) // one has come to the provider, and is held there
	close(hold)
	all.Wait()
	for i, a := range answers {
		if a.outcome != method.Accepted || !a.response.Header.Has("Set-Cookie") {
			t.Fatalf("request %d: outcome %d %s", i, a.outcome, a.result.Detail)
		}
	}
	h.Pass(time.Minute) // and one more that comes late, with the old cookie
	if a := ask(); a.outcome != method.Accepted {
		t.Errorf("a late one: outcome %d %s", a.outcome, a.result.Detail)
	}
	if n := h.idp.called("/token"); n != 2 {
		t.Errorf("the token endpoint was called %d times, one of them for the login", n)
	}
}

// A client that leaves while its refresh is under way does not end it for others, nor loses the token.
func TestAClientThatLeavesDoesNotEndARefresh(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	b := h.browser(m)
	b.loggedIn(home+"/", "ada")
	h.Pass(2 * time.Hour)
	hold := make(chan struct{})
	h.idp.set(func() { h.idp.hold = hold })
	var line []string
	for name, value := range b.cookies(home) {
		line = append(line, name+"="+value)
	}
	ex := exchange(t, "GET", home+"/", http.Header{"Cookie": {strings.Join(line, "; ")}})
	ex.Context()
	done := make(chan method.Result)
	go func() { done <- m.Authenticate(ex) }()
	h.until(func() bool { return h.idp.called("/token") >= 2 })
	ex.Cancel(errors.New("left"))
	if r := <-done; r.Outcome != method.Unavailable {
		t.Errorf("the one that left: outcome %d", r.Outcome)
	}
	close(hold)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Accepted || h.idp.called("/token") != 2 {
		t.Errorf("the next: outcome %d, %d calls", a.outcome, h.idp.called("/token"))
	}
}

func TestARefusedRefreshIsALoginOr401(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	h.idp.set(func() { clear(h.idp.refresh) })
	h.Pass(time.Hour - maxAhead)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Accepted || a.response.Header.Has("Set-Cookie") {
		t.Errorf("while the tokens are good: outcome %d", a.outcome)
	}
	h.Pass(maxAhead)
	for mode, want := range map[string]int{"cors": 401, "navigate": 302} {
		if a := b.ask("GET", home+"/", http.Header{"Sec-Fetch-Mode": {mode}}); a.outcome != method.Refused || a.response.Status != want {
			t.Errorf("%s: outcome %d, %d", mode, a.outcome, a.response.Status)
		}
	}
	if n := h.idp.called("/token"); n != 2 {
		t.Errorf("the provider was asked %d times, one of them for the login", n)
	}
	b.loggedIn(home+"/", "ada")
}

func TestAProviderThatIsAwayEndsNoSessionThatIsGood(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	h.away.Store(true)
	h.Pass(time.Hour - maxAhead)
	for range 50 {
		if a := b.ask("GET", home+"/", nil); a.outcome != method.Accepted {
			t.Fatalf("while the tokens are good: outcome %d", a.outcome)
		}
	}
	if n := h.Counted("oidc_refreshes_total", "result", "unavailable"); n != 1 {
		t.Errorf("the provider was bothered %v times", n)
	}
	h.Pass(maxAhead)
	if a := b.ask("GET", home+"/", http.Header{"Sec-Fetch-Mode": {"navigate"}}); a.outcome != method.Unavailable {
		t.Errorf("after them: outcome %d", a.outcome)
	}
	h.away.Store(false)
	h.Pass(unrenewedFor)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Accepted {
		t.Errorf("when it is back: outcome %d %s", a.outcome, a.result.Detail)
	}
}

func TestASessionOutlivesARestartAndNeedsNoProvider(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	h.Store = keep.New(h.Clock)
	h.away.Store(true)
	b.method = h.build()
	b.loggedIn(home+"/", "ada")
	if a := b.ask("GET", home+"/oauth2/logout", nil); a.response.Status != 200 || len(b.cookies(home)) != 0 {
		t.Errorf("logout without the provider: %d, left %v", a.response.Status, b.cookies(home))
	}
}

func TestTheKeysOfTheProcessRotate(t *testing.T) {
	h := newHouse(t)
	key := func(n byte) []byte { k := sha256.Sum256([]byte{n}); return k[:] }
	keys := [][]byte{key(1)}
	r := h.Store.Begin()
	env := h.env(r)
	env.Keys = func(string) [][]byte { return keys }
	m, err := settings().Build(env)
	if err != nil {
		t.Fatal(err)
	}
	r.End()
	b := h.browser(m)
	b.loggedIn(home+"/", "ada")
	keys = [][]byte{key(2), key(1)}
	b.loggedIn(home+"/", "ada")
	h.Pass(openedFor)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Accepted {
		t.Errorf("under the key before: outcome %d", a.outcome)
	}
	keys = [][]byte{key(3), key(2)}
	h.Pass(openedFor)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Refused {
		t.Errorf("under a key that is gone: outcome %d", a.outcome)
	}
	keys = nil
	if a := b.ask("GET", home+"/", http.Header{"Sec-Fetch-Mode": {"navigate"}}); a.outcome != method.Unavailable {
		t.Errorf("without keys: outcome %d", a.outcome)
	}
}

func TestASessionEndsAtItsAge(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build(func(c *Config) { c.SessionTTL = 100 * time.Minute }))
	a := b.visit(home + "/")
	if !a.identity.Expires.Equal(h.Clock().Add(time.Hour)) {
		t.Errorf("expires %s", a.identity.Expires)
	}
	h.Pass(time.Hour)
	a = b.ask("GET", home+"/", nil)
	if a.outcome != method.Accepted || !a.identity.Expires.Equal(h.Clock().Add(40*time.Minute)) {
		t.Fatalf("refreshed: outcome %d, expires %v", a.outcome, a.identity)
	}
	if line := a.response.Header.Get("Set-Cookie"); !strings.Contains(line, "; Max-Age=2400;") {
		t.Errorf("%s", line[len(line)-90:])
	}
	h.Pass(40 * time.Minute)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Refused || h.idp.called("/token") != 2 {
		t.Errorf("at its age: outcome %d, %d calls", a.outcome, h.idp.called("/token"))
	}
}

func TestWithoutARefreshTokenASessionEndsWithItsToken(t *testing.T) {
	h := newHouse(t)
	h.idp.noRefresh = true
	b := h.browser(h.build(func(c *Config) { c.SessionTTL = 24 * time.Hour }))
	b.loggedIn(home+"/", "ada")
	h.Pass(time.Hour - time.Second)
	b.loggedIn(home+"/", "ada")
	h.Pass(time.Second)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Refused {
		t.Errorf("outcome %d", a.outcome)
	}
}

func TestTokensThatLiveShortAreRefreshedOften(t *testing.T) {
	h := newHouse(t)
	h.idp.lives = 20 * time.Second
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	for range 30 {
		h.Pass(7 * time.Second)
		b.loggedIn(home+"/", "ada")
	}
	if n := h.Counted("oidc_logins_total", "result", "completed"); n != 1 {
		t.Errorf("%v logins", n)
	}
	if n := h.Counted("oidc_refreshes_total", "result", "refreshed"); n < 9 || n > 15 {
		t.Errorf("%v refreshes", n)
	}
}

func TestARefreshMayGiveNoIDToken(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	h.idp.set(func() { h.idp.grant = func(a map[string]any) { delete(a, "id_token"); delete(a, "refresh_token") } })
	h.Pass(time.Hour)
	a := b.ask("GET", home+"/", nil)
	if a.outcome != method.Accepted || a.identity.Subject != "ada" || !a.identity.Expires.Equal(h.Clock().Add(time.Hour)) {
		t.Errorf("outcome %d %s", a.outcome, a.result.Detail)
	}
}

// A refreshed ID token of another: the provider, or whoever stands in its place, swaps users.
func TestARefreshCannotChangeWhoIsLoggedIn(t *testing.T) {
	for name, change := range map[string]func(c map[string]any){
		"another subject":  func(c map[string]any) { c["sub"] = "eve" },
		"another nonce":    func(c map[string]any) { c["nonce"] = "another" },
		"another audience": func(c map[string]any) { c["aud"] = "another" },
		"another issuer":   func(c map[string]any) { c["iss"] = "https://evil.example" },
		"already over":     func(c map[string]any) { c["exp"] = 1 },
	} {
		h := newHouse(t)
		b := h.browser(h.build())
		b.loggedIn(home+"/", "ada")
		h.idp.set(func() { h.idp.token = change })
		h.Pass(time.Hour)
		if a := b.ask("GET", home+"/", nil); a.outcome == method.Accepted {
			t.Errorf("%s: %v", name, a.identity)
		}
	}
}

// What answers while a logout is under way must not log in again.
func TestALogoutIsNotUndoneByARefreshUnderWay(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	b := h.browser(m)
	b.loggedIn(home+"/", "ada")
	h.Pass(time.Hour - maxAhead)
	var line []string
	for name, value := range b.cookies(home) {
		line = append(line, name+"="+value)
	}
	slow := m.Authenticate(exchange(t, "GET", home+"/", http.Header{"Cookie": {strings.Join(line, "; ")}}))
	b.ask("POST", home+"/oauth2/logout", nil)
	r := message.Respond(message.OriginUpstream, 200, "text/plain", "")
	if slow.OnResponse == nil {
		t.Fatal("the slow one was not refreshed")
	}
	slow.OnResponse(r)
	if r.Header.Has("Set-Cookie") {
		t.Error("it sets the session again")
	}
}

func TestALargeSessionIsSplitAndStalePartsGo(t *testing.T) {
	h := newHouse(t)
	large(h, 8000)
	b := h.browser(h.build())
	a := b.visit(home + "/")
	if a.outcome != method.Accepted || len(a.identity.Claims["list"].([]any)) != 80 {
		t.Fatalf("%d %s", a.response.Status, a.result.Detail)
	}
	names := slices.Sorted(maps.Keys(b.cookies(home)))
	if len(names) != 5 { // four parts and the marker
		t.Errorf("%q", names)
	}
	h.idp.set(func() {
		for _, claims := range h.idp.refresh {
			delete(claims, "list")
		}
	})
	h.Pass(time.Hour)
	b.loggedIn(home+"/", "ada")
	if names := slices.Sorted(maps.Keys(b.cookies(home))); len(names) != 2 {
		t.Errorf("after it has become small: %q", names)
	}
	// And if a browser keeps a stale part all the same, it does no harm.
	_, secure := namesOf("", settings().tag())
	b.put(home, secure.part(2), "stale")
	b.loggedIn(home+"/", "ada")
}

func TestOurCookiesStayWithUsAndOthersStayByteForByte(t *testing.T) {
	m := newHouse(t).build()
	plain, secure := namesOf("", settings().tag())
	for given, want := range map[string]string{
		"a=1; b=2":     "a=1; b=2",
		" a=1 ;;b = 2": " a=1 ;;b = 2",
		secure.part(0) + "=x; a=1; " + secure.part(1) + "=y; b= \"2\"":            "a=1; b= \"2\"",
		"a=1; " + plain.part(0) + "=x":                                            "a=1",
		"a=1;  b=2; " + secure.login("00") + "=x;c=3; " + secure.marker() + "=1;": "a=1;  b=2;c=3;",
		secure.part(0) + "=x":                                                     "",
		"x" + secure.part(0) + "=x; gatehouse-00000000-0=other":                   "x" + secure.part(0) + "=x; gatehouse-00000000-0=other",
		" " + secure.part(5) + " = x ;a=1":                                        "a=1",
	} {
		ex := exchange(t, "GET", home+"/", http.Header{"Cookie": {given}, "X-Other": {secure.part(0) + "=x"}})
		m.Strip(&ex.Request)
		if got := strings.Join(ex.Request.Header.Values("Cookie"), "|"); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
		if !ex.Request.Header.Has("X-Other") {
			t.Error("another field was changed")
		}
	}
	ex := exchange(t, "GET", home+"/", http.Header{"Cookie": {"a=1", secure.part(0) + "=x", "b=2; " + secure.part(1) + "=x"}})
	m.Strip(&ex.Request)
	if got := ex.Request.Header.Values("Cookie"); !slices.Equal(got, []string{"a=1", "b=2"}) {
		t.Errorf("several lines: %q", got)
	}
}

func TestBackendsGetTheAccessTokenWhereItIsAskedFor(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	if a := b.visit(home + "/"); a.upstream.Header.Has("Authorization") || a.upstream.Header.Has("Cookie") {
		t.Errorf("by default: %v", a.upstream.Header)
	}
	b = h.browser(h.build(func(c *Config) { c.ForwardAccessToken = true }))
	b.fetches = http.Header{"Authorization": {"Bearer mine"}}
	a := b.visit(home + "/")
	if got := a.upstream.Header.Values("Authorization"); len(got) != 1 || !strings.HasPrefix(got[0], "Bearer access-") {
		t.Errorf("%q", got)
	}
	// It ends with the first of its tokens.
	h.idp.set(func() { h.idp.grant = func(a map[string]any) { a["expires_in"] = 600 } })
	b.forget()
	if a := b.visit(home + "/"); !a.identity.Expires.Equal(h.Clock().Add(10 * time.Minute)) {
		t.Errorf("expires %s", a.identity.Expires)
	}
}

func TestAChangeOfSettingsKeepsSessions(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	calls := h.idp.called("/.well-known/openid-configuration")
	b.method = h.build(func(c *Config) { c.Scopes, c.LogoutPath = []string{"openid"}, "/bye" })
	b.loggedIn(home+"/", "ada")
	h.browser(b.method).leaves(home + "/")
	if n := h.idp.called("/.well-known/openid-configuration"); n != calls {
		t.Error("the provider was looked up again")
	}
}

func TestWithoutKeysOfTheProcessRandomOnesAreKept(t *testing.T) {
	h := newHouse(t)
	build := func() method.Method {
		r := h.Store.Begin()
		defer r.End()
		env := h.env(r)
		env.Keys, env.Counter = nil, nil
		m, err := settings().Build(env)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	b := h.browser(build())
	b.loggedIn(home+"/", "ada")
	b.method = build()
	h.Pass(openedFor)
	if a := b.ask("GET", home+"/", nil); a.outcome != method.Accepted {
		t.Errorf("outcome %d %s", a.outcome, a.result.Detail)
	}
}
