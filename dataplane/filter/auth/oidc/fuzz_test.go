package oidc

import (
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// FuzzNoCookieIsTakenForASession: whatever a browser sends, it lets nobody in, and nothing of ours goes on to a backend.
func FuzzNoCookieIsTakenForASession(f *testing.F) {
	h := newHouse(f)
	m := h.build()
	plain, secure := namesOf("", settings().tag())
	b := h.browser(m)
	b.loggedIn(home+"/", "ada")
	good := b.cookies(home)[secure.part(0)]
	f.Add("a=1; b=2", "", false)
	f.Add(secure.part(0)+"=1.AAAA; a=1", secure.login("00")+"=x", true)
	f.Add(plain.part(0)+"=2."+good[2:90]+";"+plain.part(1)+"="+good[90:], " ;= ;", false)
	f.Fuzz(func(t *testing.T, one, two string, https bool) {
		r := message.Request{Method: "GET", Scheme: "http", Host: message.Host{Raw: "shop.example.com", Name: "shop.example.com"}}
		if https {
			r.Scheme = "https"
		}
		r.Target = message.Target{Raw: "/", Path: "/"}
		r.Header = message.NewHeader(message.Field{Name: "Cookie", Value: one}, message.Field{Name: "cookie", Value: two})
		if result := m.Authenticate(&message.Exchange{Request: r}); result.Outcome == method.Accepted && !strings.Contains(one+two, good) {
			t.Errorf("%q and %q let in %s", one, two, result.Identity.Subject)
		}
		var before, after []string
		for name, value := range cookies(&r.Header) {
			if !begins(name, []string{plain.prefix, secure.prefix}) && name+value != "" {
				before = append(before, name+"="+value)
			}
		}
		m.Strip(&r)
		for name, value := range cookies(&r.Header) {
			if name+value != "" {
				after = append(after, name+"="+value)
			}
		}
		if !slices.Equal(before, after) {
			t.Errorf("%q and %q: before %q, after %q", one, two, before, after)
		}
	})
}

// FuzzUnpack: what is read is what was written, and what was cut is refused. (Only what we have sealed is ever read.)
func FuzzUnpack(f *testing.F) {
	f.Add([]byte{}, int64(0), "", "")
	f.Add((&login{state: "s", back: "/"}).pack(), int64(-1), "a", strings.Repeat("x", 300))
	f.Fuzz(func(t *testing.T, raw []byte, n int64, a, b string) {
		unpackLogin(raw)
		unpackSession(append([]byte{sessionFormat}, raw...))
		var p packer
		p.number(n)
		p.text(a)
		p.text(b)
		u := unpacker{rest: p}
		if u.number() != n || u.text() != a || u.text() != b || !u.ended() {
			t.Errorf("%d %q %q is read as something else", n, a, b)
		}
		cut := unpacker{rest: p[:len(p)-1]}
		if cut.number(); cut.text() == a && cut.text() == b && cut.ended() {
			t.Errorf("%d %q %q may be cut", n, a, b)
		}
	})
}
