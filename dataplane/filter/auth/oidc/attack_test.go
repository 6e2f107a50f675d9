package oidc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Open redirect: whatever is asked for, a login returns to the host that was asked.
func TestOpenRedirectInTheReturn(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	for _, raw := range []string{
		"//evil.example", "//evil.example/%2e%2e", "///evil.example", "/.//evil.example", "/x?//evil.example", "/?https://evil.example",
		"/https://evil.example", "/@evil.example", "/:80@evil.example/", "/x?next=%0d%0aLocation:%20https://evil.example", "/?rd=//evil.example",
	} {
		b := h.browser(m)
		a := b.visit(home + raw)
		last, err := url.Parse(a.hops[len(a.hops)-1])
		if err != nil || last.Scheme != "https" || last.Host != "shop.example.com" || last.User != nil || a.outcome != method.Accepted {
			t.Errorf("%s: returns to %q", raw, a.hops)
		}
	}
	// What no engine lets through (ParseTarget refuses it) leads nowhere either.
	for _, path := range []string{`\\evil.example`, `/\evil.example`, "https://evil.example", "evil.example", "", "*", "/\r\nSet-Cookie: a=b", "/\tx", "/\x80"} {
		ex := exchange(t, "GET", home+"/", http.Header{"Sec-Fetch-Mode": {"navigate"}})
		ex.Request.Target = message.Target{Raw: path, Path: path}
		a := through1(m, ex)
		b := h.browser(m)
		b.keep(&url.URL{Scheme: "https", Host: "shop.example.com", Path: "/"}, a.response)
		to := b.ask("GET", h.agrees(a.response.Header.Get("Location")), nil).response.Header.Get("Location")
		if !strings.HasPrefix(to, home+"/") || strings.ContainsFunc(to, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			t.Errorf("%q: returns to %q", path, to)
		}
	}
}

// Open redirect by the query of the callback or the logout: nothing in it says where to go.
func TestOpenRedirectByParameters(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	const evil = "&rd=https://evil.example&redirect_uri=https://evil.example&return=//evil.example&post_logout_redirect_uri=https://evil.example"
	if to := b.ask("GET", h.agrees(b.leaves(home+"/page"))+evil, nil).response.Header.Get("Location"); to != home+"/page" {
		t.Errorf("the callback leads to %q", to)
	}
	if to := b.ask("GET", home+"/oauth2/logout?"+evil, nil).response.Header.Get("Location"); !strings.HasPrefix(to, issuer+"/end?") || strings.Contains(to, "evil") {
		t.Errorf("the logout leads to %q", to)
	}
}

// CSRF of the callback: nobody is logged in by a link that another one has made.
func TestCSRFOfTheCallback(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	attacker := h.browser(m)
	link := h.agrees(attacker.leaves(home + "/"))
	u, _ := url.Parse(link)
	state := u.Query().Get("state")

	with := func(change func(q url.Values)) string {
		q := u.Query()
		change(q)
		return home + "/oauth2/callback?" + q.Encode()
	}
	victim := h.browser(m)
	victims := h.agrees(victim.leaves(home + "/mine"))
	for name, to := range map[string]string{
		"the attacker's state":      link,
		"no state":                  with(func(q url.Values) { q.Del("state") }),
		"an empty state":            with(func(q url.Values) { q.Set("state", "") }),
		"a made-up state":           with(func(q url.Values) { q.Set("state", state[:9]+"AAAAAAAAAAAAAAAAAAAAAAAAAA") }),
		"a state without a tag":     with(func(q url.Values) { q.Set("state", "AAAA") }),
		"a long state":              with(func(q url.Values) { q.Set("state", state[:9]+strings.Repeat("A", 5000)) }),
		"two states":                link + "&state=" + url.QueryEscape(mustQuery(t, victims, "state")),
		"two codes":                 victims + "&code=" + u.Query().Get("code"),
		"a query that is malformed": link + "&%zz",
		"no query":                  home + "/oauth2/callback",
		"an error without a state":  home + "/oauth2/callback?error=access_denied",
	} {
		a := victim.ask("GET", to, http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Site": {"cross-site"}})
		if a.outcome != method.Answered || a.response.Status != 400 || sessionSet(a) {
			t.Errorf("%s: %d %v", name, a.response.Status, a.response.Header)
		}
		if strings.Contains(a.text(), "AAAA") || strings.Contains(a.result.Detail, state) {
			t.Errorf("%s: repeats what was sent: %s", name, a.result.Detail)
		}
	}
	// The victim's own login cookie, under the name that the attacker's state asks for.
	_, secure := namesOf("", settings().tag())
	for _, value := range victim.cookies(home) {
		victim.put(home, secure.login(loginID(state)), value)
	}
	if a := victim.ask("GET", link, nil); a.response.Status != 400 || sessionSet(a) {
		t.Errorf("a login under another's name: %d", a.response.Status)
	}
	if len(h.idp.redeemed) != 0 {
		t.Errorf("codes were sent to the provider: %v", h.idp.redeemed)
	}
	// The attacker's login cookie, put where the victim's browser takes it, is for the same host: but then it is the attacker who must write
	// cookies there, which __Host- prevents. The victim's own login still works after all that.
	if a := victim.visit(victims); a.outcome != method.Accepted || a.hops[0] != home+"/mine" {
		t.Errorf("the victim's own login: %d %s", a.response.Status, a.result.Detail)
	}
}

func mustQuery(t *testing.T, raw, name string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil || u.Query().Get(name) == "" {
		t.Fatalf("%s has no %s", raw, name)
	}
	return u.Query().Get(name)
}

func sessionSet(a *answer) bool {
	for _, line := range a.response.Header.Values("Set-Cookie") {
		if name, rest, _ := strings.Cut(line, "="); strings.HasSuffix(name, "-0") && !strings.HasPrefix(rest, ";") {
			return true
		}
	}
	return false
}

// Replayed state: a login is completed once, also by who has kept its cookie.
func TestReplayedState(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	to := b.leaves(home + "/page")
	kept := b.cookies(home)
	link := h.agrees(to)
	if a := b.visit(link); a.outcome != method.Accepted {
		t.Fatal(a.response.Status)
	}
	thief := h.browser(b.method)
	for name, value := range kept {
		thief.put(home, name, value)
	}
	second := h.agrees(to) // even with a new code of the provider's
	for _, again := range []string{link, second} {
		if a := thief.ask("GET", again, nil); a.response.Status != 400 || sessionSet(a) || !strings.Contains(a.text(), home+"/page") {
			t.Errorf("%d", a.response.Status)
		}
	}
	if len(h.idp.redeemed) != 1 {
		t.Errorf("%d codes were redeemed", len(h.idp.redeemed))
	}
}

// Replayed code: a code of another login, or one that was used, is refused by the provider, for it is bound to PKCE's verifier.
func TestReplayedCode(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	attacker, victim := h.browser(m), h.browser(m)
	stolen := mustQuery(t, h.agrees(victim.leaves(home+"/")), "code")
	link, _ := url.Parse(h.agrees(attacker.leaves(home + "/")))
	q := link.Query()
	q.Set("code", stolen)
	a := attacker.ask("GET", home+"/oauth2/callback?"+q.Encode(), nil)
	if a.outcome != method.Answered || a.response.Status != 400 || sessionSet(a) || len(h.idp.redeemed) != 1 {
		t.Errorf("%d, %d redeemed", a.response.Status, len(h.idp.redeemed))
	}
	if strings.Contains(a.result.Detail, stolen) || strings.Contains(a.result.Detail, "s3cret") {
		t.Errorf("the log shows %s", a.result.Detail)
	}
}

// Mix-up: another provider sends the browser back to us, to get the code that ours has given (RFC 9207).
func TestMixUpOfProviders(t *testing.T) {
	for name, c := range map[string]struct {
		sendBack  func(q url.Values)
		announced bool
		fine      bool
	}{
		"another issuer":                   {func(q url.Values) { q.Set("iss", "https://evil.example") }, true, false},
		"none, though announced":           {func(q url.Values) { q.Del("iss") }, true, false},
		"another, not announced":           {func(q url.Values) { q.Set("iss", "https://evil.example") }, false, false},
		"a slash more":                     {func(q url.Values) { q.Set("iss", issuer+"/") }, true, false},
		"none, not announced":              {func(q url.Values) { q.Del("iss") }, false, true},
		"two":                              {func(q url.Values) { q.Add("iss", "https://evil.example") }, true, false},
		"an error of another":              {func(q url.Values) { q.Set("iss", "https://evil.example"); q.Set("error", "access_denied") }, true, false},
		"the right one, though not needed": {func(url.Values) {}, false, true},
	} {
		h := newHouse(t)
		h.idp.sendBack = c.sendBack
		if !c.announced {
			h.idp.document = func(d map[string]any) { delete(d, "authorization_response_iss_parameter_supported") }
		}
		a := h.browser(h.build()).visit(home + "/")
		if fine := a.outcome == method.Accepted; fine != c.fine || !fine && a.response.Status != 400 {
			t.Errorf("%s: %d %s", name, a.response.Status, a.result.Detail)
		}
		if !c.fine && len(h.idp.redeemed) != 0 {
			t.Errorf("%s: the code was sent on", name)
		}
	}
}

// ID tokens that say what they should not, or are signed as they should not be.
func TestForgedIDTokens(t *testing.T) {
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	plain := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for name, change := range map[string]func(p *idp){
		"nonce mismatch":          func(p *idp) { p.token = func(c map[string]any) { c["nonce"] = "another" } },
		"no nonce":                func(p *idp) { p.token = func(c map[string]any) { delete(c, "nonce") } },
		"another issuer":          func(p *idp) { p.token = func(c map[string]any) { c["iss"] = "https://evil.example" } },
		"another audience":        func(p *idp) { p.token = func(c map[string]any) { c["aud"] = "another" } },
		"several, and no party":   func(p *idp) { p.token = func(c map[string]any) { c["aud"] = []string{"gatehouse", "another"} } },
		"another party":           func(p *idp) { p.token = func(c map[string]any) { c["azp"] = "another" } },
		"a party that is no text": func(p *idp) { p.token = func(c map[string]any) { c["azp"] = []string{"gatehouse"} } },
		"expired":                 func(p *idp) { p.token = func(c map[string]any) { c["exp"] = p.now().Add(-time.Second).Unix() } },
		"no expiry":               func(p *idp) { p.token = func(c map[string]any) { delete(c, "exp") } },
		"not yet valid":           func(p *idp) { p.token = func(c map[string]any) { c["nbf"] = p.now().Add(time.Hour).Unix() } },
		"no subject":              func(p *idp) { p.token = func(c map[string]any) { delete(c, "sub") } },
		"another access token":    func(p *idp) { p.token = func(c map[string]any) { c["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" } },
		"alg none": func(p *idp) {
			p.sign = func(b []byte) string { return plain(`{"alg":"none"}`) + "." + plain(string(b)) + "." }
		},
		"another's key": func(p *idp) {
			p.sign = func(b []byte) string { return signed(p.t, jose.ES256, other, "k", b) }
		},
		"a key that is not known": func(p *idp) {
			p.sign = func(b []byte) string { return signed(p.t, jose.ES256, p.key, "../../dev/null", b) }
		},
		"the client's secret as key": func(p *idp) {
			p.sign = func(b []byte) string { return signed(p.t, jose.HS256, []byte(strings.Repeat("s3cret--", 4)), "k", b) }
		},
		"the public key as secret": func(p *idp) {
			public, _ := p.key.PublicKey.Bytes()
			p.sign = func(b []byte) string { return signed(p.t, jose.HS256, public, "k", b) }
		},
		"no ID token": func(p *idp) { p.grant = func(a map[string]any) { delete(a, "id_token") } },
		"rubbish":     func(p *idp) { p.grant = func(a map[string]any) { a["id_token"] = "a.b.c" } },
	} {
		h := newHouse(t)
		change(h.idp)
		a := h.browser(h.build()).visit(home + "/")
		if a.outcome != method.Answered || a.response.Status != 502 || sessionSet(a) {
			t.Errorf("%s: %d %s", name, a.response.Status, a.result.Detail)
		}
	}
	for name, change := range map[string]func(c map[string]any){
		"several, and we are the party": func(c map[string]any) { c["aud"], c["azp"] = []string{"gatehouse", "another"}, "gatehouse" },
		"no hash of the access token":   func(c map[string]any) { delete(c, "at_hash") },
	} {
		h := newHouse(t)
		h.idp.token = change
		if a := h.browser(h.build()).visit(home + "/"); a.outcome != method.Accepted {
			t.Errorf("%s: %d %s", name, a.response.Status, a.result.Detail)
		}
	}
}

// large makes a session of several parts.
func large(h *house, bytes int) {
	h.idp.claims = maps.Clone(h.idp.claims)
	var list []string
	for i := range bytes / 100 {
		list = append(list, fmt.Sprintf("%0100d", i))
	}
	h.idp.claims["list"] = list
}

// Cookie tampering: each part changed, cut, swapped, doubled, left out.
func TestCookieTampering(t *testing.T) {
	h := newHouse(t)
	large(h, 6000)
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	whole := b.cookies(home)
	prefix := "__Host-gatehouse-" + settings().tag() + "-"
	count := 0
	for name := range whole {
		if strings.HasPrefix(name, prefix) && len(name) == len(prefix)+1 {
			count++
		}
	}
	if count < 3 {
		t.Fatalf("%d parts", count)
	}
	refused := func(what string, change func(c map[string]string)) {
		t.Helper()
		c := maps.Clone(whole)
		change(c)
		var line []string
		for name, value := range c {
			line = append(line, name+"="+value)
		}
		a := through1(b.method, exchange(t, "GET", home+"/", http.Header{"Cookie": {strings.Join(line, "; ")}}))
		if a.outcome == method.Accepted || a.outcome == method.Unavailable {
			t.Errorf("%s: outcome %d", what, a.outcome)
		}
	}
	part := func(i int) string { return fmt.Sprintf("%s%d", prefix, i) }
	for i := range count {
		name := part(i)
		refused("left out", func(c map[string]string) { delete(c, name) })
		refused("emptied", func(c map[string]string) { c[name] = "" })
		refused("cut", func(c map[string]string) { c[name] = c[name][:len(c[name])-1] })
		refused("longer", func(c map[string]string) { c[name] += "A" })
		refused("other characters", func(c map[string]string) { c[name] = c[name][:9] + "=" + c[name][10:] })
		refused("swapped", func(c map[string]string) {
			c[name], c[part((i+1)%count)] = c[part((i+1)%count)], c[name]
		})
		for at := 2; at < len(whole[name]); at += 97 {
			refused("changed", func(c map[string]string) {
				text := []byte(c[name])
				text[at] = map[bool]byte{true: 'B', false: 'A'}[text[at] == 'A']
				c[name] = string(text)
			})
		}
	}
	for _, first := range []string{"", "9.", "0.", "1", ".", "x.", "7." + whole[part(0)][2:], "1." + whole[part(0)][2:]} {
		refused("another number of parts", func(c map[string]string) { c[part(0)] = first })
	}
	// Doubled, as another host of the same site could set them in the clear: nobody chooses.
	var line []string
	for name, value := range whole {
		line = append(line, name+"="+value)
	}
	line = append(line, part(0)+"="+whole[part(0)])
	if a := through1(b.method, exchange(t, "GET", home+"/", http.Header{"Cookie": {strings.Join(line, "; ")}})); a.outcome != method.Refused {
		t.Errorf("doubled: outcome %d", a.outcome)
	}
	// And a browser whose session is of no use begins anew.
	b.put(home, part(1), "AAAA")
	b.loggedIn(home+"/", "ada")
}

// Cookies from elsewhere: of another policy, client, host, scheme or process, or of another kind.
func TestCookiesOfAnother(t *testing.T) {
	h := newHouse(t)
	b := h.browser(h.build())
	b.loggedIn(home+"/", "ada")
	var value string
	for name, v := range b.cookies(home) {
		if strings.HasSuffix(name, "-0") {
			value = v
		}
	}
	pending := h.browser(b.method)
	pending.leaves(home + "/")
	var login string
	for _, v := range pending.cookies(home) {
		login = v
	}
	foreign := newHouse(t)
	for name, c := range map[string]struct {
		to     method.Method
		at     string
		value  string
		change func(*Config)
		fine   bool
	}{
		"its own":               {at: home, value: value, fine: true},
		"another port":          {at: home + ":8443", value: value, fine: true}, // cookies know no ports (RFC 6265 8.5)
		"another policy":        {at: home, value: value, change: func(c *Config) { c.Policy = "shop/other" }},
		"another client":        {at: home, value: value, change: func(c *Config) { c.ClientID = "other" }},
		"another issuer":        {at: home, value: value, change: func(c *Config) { c.Issuer = "https://sso2.example.com" }},
		"another host":          {at: "https://admin.example.com", value: value},
		"in the clear":          {at: "http://shop.example.com", value: value},
		"another process":       {to: foreign.build(), at: home, value: value},
		"a login as a session":  {at: home, value: "1." + login},
		"a session cut to none": {at: home, value: "1."},
	} {
		m, config := c.to, settings()
		if c.change != nil {
			c.change(&config)
			m = h.build(c.change)
		} else if m == nil {
			m = b.method
		}
		plain, secure := namesOf("", config.tag())
		names := secure
		if strings.HasPrefix(c.at, "http:") {
			names = plain
		}
		a := through1(m, exchange(t, "GET", c.at+"/", http.Header{"Cookie": {names.part(0) + "=" + c.value}}))
		if fine := a.outcome == method.Accepted; fine != c.fine || !fine && a.outcome != method.Refused {
			t.Errorf("%s: outcome %d %s", name, a.outcome, a.result.Detail)
		}
	}
	// A session as a login.
	state := settings().tag() + ".x"
	_, secure := namesOf("", settings().tag())
	a := through1(b.method, exchange(t, "GET", home+"/oauth2/callback?code=1&state="+state, http.Header{"Cookie": {secure.login(loginID(state)) + "=" + value[2:]}}))
	if a.response.Status != 400 {
		t.Errorf("a session as a login: %d", a.response.Status)
	}
}

// Huge cookies: what a browser could never have got from us is dropped, in little time and memory.
func TestHugeCookies(t *testing.T) {
	h := newHouse(t)
	m := h.build()
	_, secure := namesOf("", settings().tag())
	var many []string
	for i := range 5000 {
		many = append(many, fmt.Sprintf("%slogin-%d=%s", secure.prefix, i, "AAAA"))
	}
	for name, line := range map[string]string{
		"one of 60,000 bytes": secure.part(0) + "=1." + strings.Repeat("A", 60_000),
		"six of 10,000 bytes": secure.part(0) + "=6." + strings.Repeat("A", 10_000) + strings.Join([]string{"", "1=", "2=", "3=", "4=", "5="}, strings.Repeat("A", 10_000)+"; "+secure.prefix),
		"5,000 logins":        strings.Join(many, "; "),
		"60,000 semicolons":   strings.Repeat(";", 60_000),
	} {
		began := time.Now()
		a := through1(m, exchange(t, "GET", home+"/", http.Header{"Cookie": {line}, "Sec-Fetch-Mode": {"navigate"}}))
		if a.outcome == method.Accepted || a.response.Status != 302 {
			t.Errorf("%s: %d", name, a.response.Status)
		}
		if n := a.response.Header.Size(); n > 16<<10 {
			t.Errorf("%s: an answer of %d bytes", name, n)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
}

// A provider that says too much for cookies is told of; one that says a little less loses only the hint for its logout.
func TestAHugeSessionIsRefusedInWords(t *testing.T) {
	h := newHouse(t)
	large(h, 40_000)
	a := h.browser(h.build()).visit(home + "/")
	if a.response.Status != 502 || !strings.Contains(a.text(), "fits into cookies") || sessionSet(a) {
		t.Errorf("%d %s", a.response.Status, a.text())
	}
	found := false
	for n := 15_000; n < 20_000 && !found; n += 50 {
		h := newHouse(t)
		h.idp.claims["list"] = strings.Repeat("x", n)
		b := h.browser(h.build())
		if b.visit(home+"/").outcome != method.Accepted {
			break
		}
		to := b.ask("GET", home+"/oauth2/logout", nil).response.Header.Get("Location")
		found = !strings.Contains(to, "id_token_hint") && len(to) < 200
	}
	if !found {
		t.Error("no session was kept without its hint")
	}
}
