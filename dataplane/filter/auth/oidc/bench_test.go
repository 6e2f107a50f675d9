package oidc

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// cookieLine is what a browser that is logged in sends.
func cookieLine(b *browser, at string) string {
	line := []string{"theme=dark"}
	for name, value := range b.cookies(at) {
		if !strings.HasSuffix(name, "-again") {
			line = append(line, name+"="+value)
		}
	}
	return strings.Join(append(line, "lang=en"), "; ")
}

func benchmark(b *testing.B, kept bool) {
	h := newHouse(b)
	large(h, 600)
	m := h.build()
	user := h.browser(m)
	user.loggedIn(home+"/", "ada")
	ex := exchange(b, "GET", home+"/cart?x=1", http.Header{"Cookie": {cookieLine(user, home)}, "Sec-Fetch-Mode": {"navigate"}})
	b.ReportAllocs()
	for b.Loop() {
		if !kept {
			m.(*gate).memory.sessions = newRecent[sessionKey, *session](1)
		}
		if r := m.Authenticate(ex); r.Outcome != method.Accepted {
			b.Fatal(r.Detail)
		}
	}
}

func BenchmarkAuthenticate(b *testing.B)                { benchmark(b, true) }
func BenchmarkAuthenticateForTheFirstTime(b *testing.B) { benchmark(b, false) }

func BenchmarkStrip(b *testing.B) {
	h := newHouse(b)
	m := h.build()
	user := h.browser(m)
	user.loggedIn(home+"/", "ada")
	ex := exchange(b, "GET", home+"/", http.Header{"Cookie": {cookieLine(user, home)}})
	b.ReportAllocs()
	for b.Loop() {
		r := message.Request{Header: ex.Request.Header.Share()}
		m.Strip(&r)
	}
}

func BenchmarkRedirectToALogin(b *testing.B) {
	m := newHouse(b).build()
	ex := exchange(b, "GET", home+"/cart?x=1", http.Header{"Sec-Fetch-Mode": {"navigate"}})
	b.ReportAllocs()
	for b.Loop() {
		if r := m.Authenticate(ex); r.Response.Status != 302 {
			b.Fatal(r.Detail)
		}
	}
}
