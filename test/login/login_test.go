//go:build login

package login

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// signIn fills in the provider's form, which the browser has been sent to.
func (h *house) signIn(b *browser, user string) {
	h.t.Helper()
	b.at(h.provider.issuer + "/login/")
	b.write("#username", user)
	b.write("#password", password)
	b.click("button[type=submit]")
}

// seen is what the backend was sent for the page that is open.
type seen struct {
	Path, User, Mail string
	Cookie           []string
}

func (h *house) seen(b *browser) (s seen) {
	h.t.Helper()
	var text string
	b.run("return document.querySelector('#seen').textContent", &text)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// session are the cookies of the session.
func session(b *browser) (out []cookie) {
	for _, c := range b.cookies() {
		if n := len(c.Name); strings.Contains(c.Name, "gatehouse-") && n > 2 && c.Name[n-2] == '-' && c.Name[n-1] >= '0' && c.Name[n-1] <= '9' {
			out = append(out, c)
		}
	}
	return out
}

func TestAPersonLogsInGoesOnAndLogsOut(t *testing.T) {
	h := newHouse(t)
	for _, at := range []string{h.https, h.http} {
		b := newBrowser(t, nil)
		b.open(at + "/cart/a%2Cb?x=1&y=%2F")
		h.signIn(b, "ada")
		b.at(at + "/cart/a%2Cb?x=1&y=%2F")
		if s := h.seen(b); s.Path != "/cart/a%2Cb?x=1&y=%2F" || s.User != "ada" || s.Mail != "ada@example.test" || len(s.Cookie) != 0 {
			t.Errorf("the backend has seen %+v", s)
		}

		secure := strings.HasPrefix(at, "https")
		parts := session(b)
		if len(parts) == 0 {
			t.Fatalf("no session in %v", b.cookies())
		}
		for _, c := range parts {
			if c.Secure != secure || !c.HTTPOnly || c.SameSite != "Lax" || c.Path != "/" || strings.HasPrefix(c.Name, "__Host-") != secure || c.Expiry == 0 || c.Domain != "shop.example.test" {
				t.Errorf("%+v", c)
			}
		}
		var script string
		if b.run("return document.cookie", &script); script != "theme=dark" {
			t.Errorf("scripts see %q", script)
		}
		var api seen
		b.run("return fetch('/api/x', {method: 'POST', body: 'b'}).then(r => r.json())", &api)
		if api.User != "ada" || !slices.Equal(api.Cookie, []string{"theme=dark"}) {
			t.Errorf("a script's request was seen as %+v", api)
		}

		b.click("#out")
		b.at(at + "/bye") // by way of the provider
		if left := session(b); len(left) != 0 {
			t.Errorf("cookies are left: %v", left)
		}
		var status int
		if b.run("return fetch('/api/x').then(r => r.status)", &status); status != 401 {
			t.Errorf("a script got %d after the logout", status)
		}
		b.open(at + "/again")
		b.at(h.provider.issuer + "/login/")
	}
	if text := h.log.String(); !strings.Contains(text, `"path":"/oauth2/callback","query":"code=`) || regexp.MustCompile(`[?&"]code=[A-Za-z0-9_-]{9}`).MatchString(text) {
		t.Error("the log has no callbacks, or shows their codes")
	}
	for _, word := range []string{secret, "refresh_token", "code_verifier"} {
		if strings.Contains(h.log.String(), word) {
			t.Errorf("the log shows %s", word)
		}
	}
}

func TestASessionGoesOnThroughRefreshesAndRestarts(t *testing.T) {
	h := newHouse(t)
	h.provider.lives.Store(5)
	b := newBrowser(t, nil)
	b.open(h.https + "/")
	h.signIn(b, "ada")
	b.at(h.https + "/")
	first := session(b)
	// The page polls, several requests at once, all with the same refresh token, which this provider takes once.
	var bad int
	until(t, "three refreshes", func() bool {
		var failed int
		b.run("return Promise.all([...Array(12)].map(() => fetch('/api/poll').then(r => r.ok ? 0 : 1))).then(l => l.reduce((a, b) => a + b))", &failed)
		bad += failed
		return h.provider.refreshes.Load() >= 3
	})
	if bad != 0 || h.provider.refused.Load() != 0 {
		t.Errorf("%d requests failed, %d answers of the token endpoint are errors", bad, h.provider.refused.Load())
	}
	if now := session(b); now[0].Value == first[0].Value {
		t.Error("the cookie is the old one")
	}
	h.provider.lives.Store(3600)
	before := session(b)[0].Value
	until(t, "it is refreshed once more", func() bool {
		b.open(h.https + "/")
		return session(b)[0].Value != before
	})

	h.stop()
	h.start()
	b.open(h.https + "/after")
	if s := h.seen(b); s.User != "ada" || s.Path != "/after" {
		t.Errorf("after a restart with the same keys: %+v", s)
	}
}

func TestTabsLogInSideBySide(t *testing.T) {
	h := newHouse(t)
	b := newBrowser(t, nil)
	one := b.current()
	b.open(h.https + "/one")
	b.at(h.provider.issuer + "/login/")
	b.tab()
	b.open(h.https + "/two")
	h.signIn(b, "ada")
	b.at(h.https + "/two")
	b.switchTo(one)
	h.signIn(b, "ada")
	b.at(h.https + "/one")
}

func TestALongNamedPersonHasSeveralCookies(t *testing.T) {
	h := newHouse(t)
	b := newBrowser(t, nil)
	b.open(h.https + "/")
	h.signIn(b, "dora")
	b.at(h.https + "/")
	if s, parts := h.seen(b), session(b); s.User != "dora" || len(s.Cookie) != 0 || len(parts) < 4 {
		t.Errorf("%d cookies, the backend has seen %+v", len(parts), s)
	}
	b.open(h.https + "/more")
	if s := h.seen(b); s.User != "dora" {
		t.Errorf("%+v", s)
	}
	b.click("#out") // with a hint that is too long for an address: the provider is told the client alone
	until(t, "the session is gone", func() bool {
		b.open(h.https + "/bye")
		return len(session(b)) == 0
	})
}

func TestABrowserWithoutCookiesIsToldAndDoesNotLoop(t *testing.T) {
	h := newHouse(t)
	b := newBrowser(t, map[string]any{"profile.default_content_setting_values.cookies": 2})
	b.open(h.https + "/")
	h.signIn(b, "ada")
	b.at(h.https + "/oauth2/callback")
	if text := b.text(); !strings.Contains(text, "not known to your browser") || !strings.Contains(text, "cookies are allowed") {
		t.Errorf("the page says %s", text)
	}
}

func TestAnotherSiteCannotLogAnybodyOutOrIn(t *testing.T) {
	h := newHouse(t)
	b := newBrowser(t, nil)
	b.open(h.https + "/")
	h.signIn(b, "ada")
	b.at(h.https + "/")

	b.open(h.evil)
	b.click("#page") // SameSite=Lax: a link from elsewhere comes with the session
	b.at(h.https + "/linked")
	if s := h.seen(b); s.User != "ada" {
		t.Errorf("%+v", s)
	}
	b.open(h.evil)
	b.click("#out")
	b.at(h.https + "/oauth2/logout")
	if text := b.text(); !strings.Contains(text, "Another site has sent you here") || len(session(b)) == 0 {
		t.Errorf("the page says %s", text)
	}
	b.click("button")
	b.at(h.https + "/bye")
	if len(session(b)) != 0 {
		t.Error("whoever confirms it is still logged in")
	}

	// An attacker begins a login, and sends the victim the address that ends it (CSRF of the callback).
	attacker := newBrowser(t, map[string]any{"profile.default_content_setting_values.cookies": 2}) // so that the login is not used up
	attacker.open(h.https + "/")
	h.signIn(attacker, "dora")
	attacker.at(h.https + "/oauth2/callback")
	b.open(attacker.url())
	if text := b.text(); !strings.Contains(text, "not known to your browser") || len(session(b)) != 0 {
		t.Errorf("the page says %s", text)
	}
}
