package oidc

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
)

const home = "https://shop.example.com"

func TestABrowserLogsInAndComesBackToWhereItWas(t *testing.T) {
	for _, at := range []string{home, "http://shop.example.com", home + ":8443", "http://[::1]:8080"} {
		h := newHouse(t)
		b := h.browser(h.build())
		a := b.visit(at + "/cart/a%2Cb?x=1&y=%2F%zz")
		if a.outcome != method.Accepted || a.response.Status != 200 {
			t.Fatalf("%s: %d %s %q", at, a.response.Status, a.result.Detail, a.hops)
		}
		if last := a.hops[len(a.hops)-1]; last != at+"/cart/a%2Cb?x=1&y=%2F%zz" {
			t.Errorf("%s: came back to %s", at, last)
		}
		id := a.identity
		if id.Subject != "ada" || id.Claims["groups"].([]any)[1] != "dev" || id.Claims["iat"].(json.Number) != "1800000000" || !id.Expires.Equal(h.Clock().Add(time.Hour)) {
			t.Errorf("%s: identity %+v", at, id)
		}
		if again := b.visit(at + "/"); again.outcome != method.Accepted || len(again.hops) != 0 {
			t.Errorf("%s: the session did not hold: %d %q", at, again.outcome, again.hops)
		}
		if n := h.Counted("oidc_logins_total", "result", "completed"); n != 1 {
			t.Errorf("%s: %v logins counted", at, n)
		}
	}
}

func TestCookiesAreAsSafeAsTheSchemeAllows(t *testing.T) {
	for at, want := range map[string]string{
		"https://shop.example.com": "__Host-gatehouse-",
		"http://shop.example.com":  "gatehouse-",
	} {
		h := newHouse(t)
		b := h.browser(h.build())
		first := b.ask("GET", at+"/", http.Header{"Sec-Fetch-Mode": {"navigate"}})
		second := b.ask("GET", h.agrees(first.response.Header.Get("Location")), nil)
		lines := append(first.response.Header.Values("Set-Cookie"), second.response.Header.Values("Set-Cookie")...)
		if len(lines) != 4 { // of the login, of the session, the login's end, the marker
			t.Fatalf("%s: %q", at, lines)
		}
		for _, line := range lines {
			if !strings.HasPrefix(line, want) || !strings.HasSuffix(line, "; HttpOnly; SameSite=Lax") || !strings.Contains(line, "; Path=/;") ||
				strings.Contains(line, "Domain") || strings.Contains(line, "; Secure") != strings.HasPrefix(at, "https") {
				t.Errorf("%s: %s", at, line)
			}
			for _, secret := range []string{"ada", "refresh-", "s3cret", "access-"} {
				if strings.Contains(line, secret) {
					t.Errorf("%s: a cookie shows %q", at, secret)
				}
			}
		}
		for _, a := range []*answer{first, second} {
			if a.response.Header.Get("Cache-Control") != "no-store" || a.response.Header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("%s: %v", at, a.response.Header)
			}
		}
	}
}

func TestOnlyNavigationsAreSentToTheProvider(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	for _, c := range []struct {
		verb   string
		header http.Header
		sent   bool
	}{
		{"GET", http.Header{"Sec-Fetch-Mode": {"navigate"}}, true},
		{"HEAD", http.Header{"Sec-Fetch-Mode": {"navigate"}}, true},
		{"GET", http.Header{"Accept": {"text/html,application/xhtml+xml"}}, true},
		{"GET", http.Header{"Accept": {"text/html"}, "Sec-Fetch-Mode": {"cors"}}, false},
		{"GET", http.Header{"Accept": {"*/*"}}, false},
		{"GET", http.Header{"Accept": {"application/json"}}, false},
		{"GET", nil, false},
		{"POST", http.Header{"Sec-Fetch-Mode": {"navigate"}, "Accept": {"text/html"}}, false},
		{"GET", http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Purpose": {"prefetch;prerender"}}, false},
		{"GET", http.Header{"Sec-Fetch-Mode": {"navigate"}, "Content-Type": {"application/grpc"}}, false},
	} {
		a := h.browser(m).ask(c.verb, home+"/x", c.header)
		if a.outcome != method.Absent || a.result.Challenge != challenge {
			t.Errorf("%s %v: outcome %d, challenge %q", c.verb, c.header, a.outcome, a.result.Challenge)
		}
		if sent := a.response.Status == 302; sent != c.sent || !sent && (a.response.Status != 401 || a.response.Header.Has("Set-Cookie")) {
			t.Errorf("%s %v: %d", c.verb, c.header, a.response.Status)
		}
	}
	ex := exchange(t, "GET", home+"/", http.Header{"Sec-Fetch-Mode": {"websocket"}, "Accept": {"text/html"}})
	ex.Request.Upgrade = "websocket"
	if r := m.Authenticate(ex); r.Response != nil {
		t.Error("a WebSocket was sent to the provider")
	}
}

func TestSeveralTabsLogInAtOnce(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	one, two, three := b.leaves(home+"/one"), b.leaves(home+"/two?b"), b.leaves(home+"/three")
	for to, want := range map[string]string{two: "/two?b", one: "/one", three: "/three"} {
		a := b.visit(h.agrees(to))
		if a.outcome != method.Accepted || a.hops[0] != home+want {
			t.Errorf("%s: %d %q %s", want, a.response.Status, a.hops, a.result.Detail)
		}
	}
}

func TestLoginsUnderWayAreBounded(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	var sent []string
	for range 30 {
		sent = append(sent, b.leaves(home+"/"+strings.Repeat("x", 900)))
		h.Pass(time.Second)
	}
	if n := len(b.cookies(home)); n != maxLogins {
		t.Errorf("%d cookies of logins", n)
	}
	size := 0
	for name, value := range b.cookies(home) {
		size += len(name) + len(value)
	}
	if size > 8<<10 {
		t.Errorf("they take %d bytes", size)
	}
	if a := b.visit(h.agrees(sent[0])); a.response.Status != 400 || !strings.Contains(a.text(), "not known to your browser") {
		t.Errorf("the oldest: %d", a.response.Status)
	}
	if a := b.visit(h.agrees(sent[29])); a.outcome != method.Accepted {
		t.Errorf("the newest: %d %s", a.response.Status, a.result.Detail)
	}
	// The back button of a tab that was slower leads home, not to an error.
	if a := b.visit(h.agrees(sent[1])); a.outcome != method.Accepted || a.hops[0] != home+"/" {
		t.Errorf("a slow tab: %d %q", a.response.Status, a.hops)
	}
}

func TestALoginThatTakesTooLongIsBegunAnew(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	to := b.leaves(home + "/")
	h.Pass(loginTTL)
	if a := b.visit(h.agrees(to)); a.response.Status != 400 || a.outcome != method.Answered {
		t.Errorf("%d", a.response.Status)
	}
	if len(h.idp.redeemed) != 0 {
		t.Error("its code was redeemed")
	}
	b.leaves(home + "/")
	h.Pass(loginTTL)
	b.leaves(home + "/again")
	if left := b.cookies(home); len(left) != 1 {
		t.Errorf("cookies of logins that are over stay: %v", left)
	}
}

func TestTheTargetToReturnToIsNeverTooLong(t *testing.T) {
	h := newHouse(t)
	for raw, want := range map[string]string{
		"/a?" + strings.Repeat("q", 2000): "/a",
		"/" + strings.Repeat("p", 2000):   "/",
		"/b?":                             "/b?",
	} {
		b := h.browser(h.build())
		if a := b.visit(home + raw); a.outcome != method.Accepted || a.hops[len(a.hops)-1] != home+want {
			t.Errorf("%.20s: %q", raw, a.hops)
		}
	}
}

func TestTheProvidersErrorsAreToldAndDoNotLoop(t *testing.T) {
	for word, want := range map[string]struct {
		status int
		says   string
	}{
		"access_denied":           {403, "The login was refused"},
		"invalid_scope":           {400, "The provider says: invalid_scope"},
		"temporarily_unavailable": {503, "does not answer as it should"},
		"<script>alert(1)":        {400, "The provider says: <"},
	} {
		h := newHouse(t)
		h.idp.sendBack = func(q url.Values) {
			q.Del("code")
			q.Set("error", word)
			q.Set("error_description", "<b>call 555-1234</b>")
		}
		a := h.browser(h.build()).visit(home + "/page?x=1")
		text := a.text()
		if a.outcome != method.Answered || a.response.Status != want.status || !strings.Contains(text, want.says) {
			t.Errorf("%s: %d %s", word, a.response.Status, text)
		}
		if strings.Contains(text, "script") || strings.Contains(text, "555") || !strings.Contains(text, `href="`+home+`/page?x=1"`) {
			t.Errorf("%s: %s", word, text)
		}
		if len(a.hops) != 2 {
			t.Errorf("%s: %q", word, a.hops)
		}
		if !strings.Contains(a.response.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: no policy of contents", word)
		}
		if h.Counted("oidc_logins_total", "result", "failed") != 1 {
			t.Errorf("%s: not counted", word)
		}
	}
}

func TestWhoKeepsNoCookiesIsToldSo(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.refuses = func(string) bool { return true }
	if a := b.visit(home + "/"); a.response.Status != 400 || !strings.Contains(a.text(), "see that cookies are allowed") {
		t.Errorf("%d %s", a.response.Status, a.text())
	}
}

// A login loop: the provider logs the browser in at once, the session is not kept, and so on for ever.
func TestALoginLoopIsEnded(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.refuses = func(name string) bool { return strings.HasSuffix(name, "-0") }
	a := b.visit(home + "/page")
	if a.response.Status != 400 || a.outcome != method.Absent || !strings.Contains(a.text(), "your browser did not keep it") {
		t.Fatalf("%d %s", a.response.Status, a.text())
	}
	if n := h.Counted("oidc_logins_total", "result", "completed"); n != maxAgain {
		t.Errorf("after %v logins", n)
	}
	b.refuses = nil // the user has followed the advice, and the link
	b.loggedIn(home+"/page", "ada")
}

func TestAnotherMethodMayLookAtWhatIsNotOurs(t *testing.T) {
	h := newHouse(t)
	a := h.browser(h.build()).ask("GET", home+"/", http.Header{"Authorization": {"Bearer x"}, "Cookie": {"theirs=1; gatehouse-00000000-0=zzz"}})
	if a.outcome != method.Absent || a.result.Response != nil {
		t.Errorf("%+v", a.result)
	}
}

func TestTheCallbackTakesOnlyGET(t *testing.T) {
	h := newHouse(t)
	for _, verb := range []string{"POST", "HEAD", "PUT"} {
		a := h.browser(h.build()).ask(verb, home+"/oauth2/callback?code=a&state=b", nil)
		if a.outcome != method.Answered || a.response.Status != 405 || a.response.Header.Get("Allow") != "GET" {
			t.Errorf("%s: %d", verb, a.response.Status)
		}
	}
}

// A policy on a Gateway and one on a route, with the same callback path: the outer one lets the inner one's callback through, to those who
// have its session.
func TestPoliciesOneInsideTheOtherShareACallback(t *testing.T) {
	h := newHouse(t)
	outer, inner := h.build(), h.build(func(c *Config) { c.Policy = "shop/inner" })
	b := h.browser(outer)
	b.loggedIn(home+"/", "ada")
	b.method = inner
	to := h.agrees(b.leaves(home + "/in"))
	b.method = outer
	if a := b.ask("GET", to, nil); a.outcome != method.Accepted {
		t.Fatalf("the outer policy answered %d", a.response.Status)
	}
	b.method = inner
	if a := b.ask("GET", to, nil); a.response.Header.Get("Location") != home+"/in" {
		t.Errorf("the inner policy answered %d", a.response.Status)
	}
	b.loggedIn(home+"/in", "ada")
	b.method = outer
	b.loggedIn(home+"/", "ada")

	stranger := h.browser(outer)
	if a := stranger.ask("GET", to, http.Header{"Sec-Fetch-Mode": {"navigate"}}); a.outcome != method.Answered || a.response.Status != 400 {
		t.Errorf("to one without a session: %d", a.response.Status)
	}
}

func TestLoggingOutEndsTheSessionHereAndAtTheProvider(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		idp    func(d map[string]any)
		status int
		to     string
		after  string
	}{
		{"the provider's page", func(*Config) {}, nil, 303, issuer + "/end", ""},
		{"back to a path", func(c *Config) { c.AfterLogout = "/bye?x" }, nil, 303, issuer + "/end", home + "/bye?x"},
		{"back to elsewhere", func(c *Config) { c.AfterLogout = "https://www.example.com/" }, nil, 303, issuer + "/end", "https://www.example.com/"},
		{"a provider without logout", func(*Config) {}, func(d map[string]any) { delete(d, "end_session_endpoint") }, 200, "", ""},
		{"a provider without logout, to a path", func(c *Config) { c.AfterLogout = "/bye" }, func(d map[string]any) { delete(d, "end_session_endpoint") }, 303, home + "/bye", ""},
		{"an endpoint with a query", func(*Config) {}, func(d map[string]any) { d["end_session_endpoint"] = issuer + "/end?a=b" }, 303, issuer + "/end", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.idp.document = c.idp
			b := h.browser(h.build(c.change))
			b.loggedIn(home+"/", "ada")
			stolen := b.cookies(home)
			a := b.ask("POST", home+"/oauth2/logout", http.Header{"Sec-Fetch-Site": {"same-origin"}})
			if a.outcome != method.Answered || a.response.Status != c.status {
				t.Fatalf("%d %s", a.response.Status, a.result.Detail)
			}
			to, _ := url.Parse(a.response.Header.Get("Location"))
			q := to.Query()
			if to.RawQuery = ""; c.after != "" || c.to == issuer+"/end" {
				if q.Get("client_id") != "gatehouse" || q.Get("post_logout_redirect_uri") != c.after || strings.Count(q.Get("id_token_hint"), ".") != 2 {
					t.Errorf("asks for %v", q)
				}
			}
			if to.String() != c.to {
				t.Errorf("leads to %s", to)
			}
			if left := b.cookies(home); len(left) != 0 {
				t.Errorf("cookies are left: %v", left)
			}
			for name, value := range stolen { // who has kept the cookies is not let in by this process either
				b.put(home, name, value)
			}
			if a := b.ask("GET", home+"/", nil); a.outcome != method.Refused {
				t.Errorf("the old cookies: outcome %d", a.outcome)
			}
		})
	}
}

func TestLoggingOutWorksWithoutASessionAndWithoutTheProvider(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	if a := b.ask("GET", home+"/oauth2/logout", nil); a.response.Status != 200 || !strings.Contains(a.text(), "You are logged out") {
		t.Errorf("without a session: %d", a.response.Status)
	}
	b.loggedIn(home+"/", "ada")
	h.Pass(2 * time.Hour) // also of a session that has ended
	if a := b.ask("GET", home+"/oauth2/logout", nil); a.response.Status != 303 {
		t.Errorf("of a session that has ended: %d", a.response.Status)
	}
}

// CSRF of the logout.
func TestAnotherSiteCannotLogOut(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	for _, header := range []http.Header{
		{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}},
		{"Origin": {"https://evil.example"}},
		{"Origin": {"null"}},
		{"Referer": {"https://shop.example.com.evil.example/"}},
		{"Sec-Fetch-Site": {"same-origin", "cross-site"}},
		{"Sec-Purpose": {"prefetch"}, "Sec-Fetch-Site": {"same-origin"}},
	} {
		for _, verb := range []string{"GET", "POST"} {
			a := b.ask(verb, home+"/oauth2/logout", header)
			if a.response.Status != 403 || !strings.Contains(a.text(), `<form method="post">`) || a.response.Header.Has("Set-Cookie") {
				t.Errorf("%s %v: %d", verb, header, a.response.Status)
			}
		}
	}
	b.loggedIn(home+"/", "ada")
	if a := b.ask("POST", home+"/oauth2/logout", http.Header{"Origin": {home}, "Referer": {home + "/page"}}); a.response.Status != 303 {
		t.Errorf("our own page: %d", a.response.Status)
	}
	if a := b.ask("PUT", home+"/oauth2/logout", nil); a.response.Status != 405 {
		t.Errorf("PUT: %d", a.response.Status)
	}
}

func TestWithoutALogoutPathThereIsNone(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build(func(c *Config) { c.LogoutPath = "" }))
	b.loggedIn(home+"/oauth2/logout", "ada")
}
