package oidc

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/filtertest"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// through is a Caller over a handler. What is nil cannot be reached.
type through struct{ to http.Handler }

func (c through) Do(ctx context.Context, ex *message.Exchange) error {
	if c.to == nil {
		return &message.Error{Reason: message.ReasonConnectFailed, Err: errors.New("refused")}
	}
	var body bytes.Buffer
	for ex.Request.Body != nil {
		piece, err := ex.Request.Body.Next()
		if err != nil {
			break
		}
		body.Write(piece)
	}
	r := httptest.NewRequestWithContext(ctx, ex.Request.Method, ex.Request.Scheme+"://"+ex.Request.Host.Raw+ex.Request.Target.String(), &body)
	for name, value := range ex.Request.Header.All() {
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() { defer close(done); c.to.ServeHTTP(w, r) }()
	select {
	case <-done:
	case <-ctx.Done():
		return &message.Error{Reason: message.ReasonAttemptTimeout, Err: ctx.Err()}
	}
	ex.Response = message.Respond(message.OriginUpstream, w.Code, w.Header().Get("Content-Type"), w.Body.String())
	return nil
}

// house is what a method lives in.
type house struct {
	*filtertest.House
	t    testing.TB
	key  []byte
	idp  *idp
	away atomic.Bool // the provider cannot be reached
}

const issuer = "https://sso.example.com"

func newHouse(t testing.TB) *house {
	h := &house{House: filtertest.New(time.Unix(1_800_000_000, 0)), t: t, key: make([]byte, 32)}
	rand.Read(h.key)
	h.idp = newIDP(t, issuer, h.Clock)
	return h
}

// until waits for what happens beside the test.
func (h *house) until(happened func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatal("it did not happen")
		}
	}
}

// Do makes the house the way to its provider.
func (h *house) Do(ctx context.Context, ex *message.Exchange) error {
	to := through{h.idp}
	if h.away.Load() {
		to.to = nil
	}
	return to.Do(ctx, ex)
}

func (h *house) env(r *keep.Round) filter.Env {
	env := h.Env(r)
	env.Call = func(snapshot.BackendRef) (filter.Caller, error) { return h, nil }
	env.Keys = func(purpose string) [][]byte {
		d := sha256.Sum256(append([]byte(purpose), h.key...))
		return [][]byte{d[:]}
	}
	return env
}

func settings(change ...func(*Config)) Config {
	c := Config{
		Policy: "shop/staff", Issuer: issuer, Backend: snapshot.BackendRef{Outside: "sso.example.com", Port: 443}, ClientID: "gatehouse",
		ClientSecret: snapshot.Sensitive{Name: snapshot.Name{Namespace: "shop", Name: "sso"}, Key: "client-secret", Data: []byte("s3cret")},
		Scopes:       []string{"openid", "groups"}, CallbackPath: "/oauth2/callback", LogoutPath: "/oauth2/logout",
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func (h *house) build(change ...func(*Config)) method.Method {
	h.t.Helper()
	r := h.Store.Begin()
	defer r.End()
	m, err := settings(change...).Build(h.env(r))
	if err != nil {
		h.t.Fatal(err)
	}
	return m
}

// browser is a user with cookies, in front of one method.
type browser struct {
	t       testing.TB
	house   *house
	method  method.Method
	jar     http.CookieJar
	refuses func(name string) bool // cookies that it does not keep
	fetches http.Header            // sent with each request, over those of a navigation
	sees    *answer                // the last
}

func (h *house) browser(m method.Method) *browser {
	b := &browser{t: h.t, house: h, method: m}
	b.forget()
	return b
}

func (b *browser) forget() { b.jar, _ = cookiejar.New(nil) }

// answer is what a browser gets.
type answer struct {
	outcome  method.Outcome
	result   method.Result
	response *message.Response
	identity *message.Identity
	upstream *message.Request // what the backend got; nil: nothing
	hops     []string
}

func (a *answer) text() string {
	body, _ := a.response.Body.Buffer(1 << 20)
	return string(body)
}

// exchange is a request as it comes to the method.
func exchange(t testing.TB, verb, raw string, header http.Header) *message.Exchange {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	ex := &message.Exchange{ID: "req-1"}
	host, ok := message.ParseHost(u.Host)
	target, reason, detail := message.ParseTarget(raw[strings.Index(raw, u.Host)+len(u.Host):], message.PathRules{KeepDoubleSlash: true})
	if !ok || reason != message.ReasonNone {
		t.Fatalf("%s: %s", raw, detail)
	}
	ex.Request = message.Request{Method: verb, Scheme: u.Scheme, Host: host, Target: target, Version: message.HTTP11}
	for name, values := range header {
		for _, v := range values {
			ex.Request.Header.Add(name, v)
		}
	}
	return ex
}

// ask sends one request through the method, as the filter would.
func (b *browser) ask(verb, raw string, header http.Header) *answer {
	b.t.Helper()
	ex := exchange(b.t, verb, raw, header)
	u, _ := url.Parse(raw)
	var line []string
	for _, c := range b.jar.Cookies(u) {
		line = append(line, c.Name+"="+c.Value)
	}
	if len(line) > 0 {
		ex.Request.Header.Add("Cookie", strings.Join(line, "; "))
	}
	a := through1(b.method, ex)
	b.keep(u, a.response)
	return a
}

// through1 is one exchange through the method.
func through1(m method.Method, ex *message.Exchange) *answer {
	defer ex.Cancel(nil)
	result := m.Authenticate(ex)
	a := &answer{outcome: result.Outcome, result: result, identity: result.Identity, response: result.Response}
	switch result.Outcome {
	case method.Accepted:
		m.Strip(&ex.Request)
		for _, f := range result.Set {
			ex.Request.Header.Set(f.Name, f.Value)
		}
		a.upstream = &ex.Request
		a.response = message.Respond(message.OriginUpstream, 200, "text/plain", "hello "+result.Identity.Subject)
		if result.OnResponse != nil {
			result.OnResponse(a.response)
		}
	case method.Unavailable:
		a.response = message.Failure(message.ReasonAuthUnavailable, result.Detail)
	default:
		if a.response == nil {
			a.response = message.Failure(message.ReasonUnauthenticated, result.Detail)
		}
	}
	return a
}

func (b *browser) keep(u *url.URL, r *message.Response) {
	h := http.Header{}
	for _, line := range r.Header.Values("Set-Cookie") {
		if name, _, _ := strings.Cut(line, "="); b.refuses != nil && b.refuses(name) {
			continue
		}
		if len(line) > 4096 {
			b.t.Errorf("a cookie of %d bytes", len(line))
			continue
		}
		h.Add("Set-Cookie", line)
	}
	// The jar lives by the real time.
	b.jar.SetCookies(u, (&http.Response{Header: h}).Cookies())
}

// visit goes to a page and follows redirects, as a browser does: those to the provider go there.
func (b *browser) visit(raw string) *answer {
	b.t.Helper()
	var hops []string
	for range 20 {
		if strings.HasPrefix(raw, issuer) {
			w := httptest.NewRecorder()
			b.house.idp.ServeHTTP(w, httptest.NewRequest("GET", raw, nil))
			raw = w.Header().Get("Location")
		} else {
			header := http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Site": {"same-origin"}, "Accept": {"text/html,*/*"}}
			maps.Copy(header, b.fetches)
			b.sees = b.ask("GET", raw, header)
			b.sees.hops = hops
			raw = b.sees.response.Header.Get("Location")
		}
		if raw == "" {
			return b.sees
		}
		hops = append(hops, raw)
	}
	b.t.Fatalf("redirects without end: %q", hops)
	return nil
}

// leaves visits a page and stops where it is sent away: at the provider.
func (b *browser) leaves(raw string) (to string) {
	b.t.Helper()
	a := b.ask("GET", raw, http.Header{"Sec-Fetch-Mode": {"navigate"}})
	to = a.response.Header.Get("Location")
	if a.response.Status != 302 || !strings.HasPrefix(to, issuer+"/authorize?") {
		b.t.Fatalf("%s: %d to %q (%s)", raw, a.response.Status, to, a.result.Detail)
	}
	return to
}

// agrees is where the provider sends a browser back to.
func (h *house) agrees(to string) string {
	w := httptest.NewRecorder()
	h.idp.ServeHTTP(w, httptest.NewRequest("GET", to, nil))
	return w.Header().Get("Location")
}

// cookies are the browser's for a page.
func (b *browser) cookies(raw string) map[string]string {
	u, _ := url.Parse(raw)
	out := map[string]string{}
	for _, c := range b.jar.Cookies(u) {
		out[c.Name] = c.Value
	}
	return out
}

// put sets a cookie, as whoever tampers with the browser would.
func (b *browser) put(raw, name, value string) {
	u, _ := url.Parse(raw)
	b.jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

func (b *browser) loggedIn(raw, subject string) {
	b.t.Helper()
	a := b.visit(raw)
	if a.outcome != method.Accepted || a.identity.Subject != subject {
		b.t.Fatalf("%s: outcome %d, %d %q, %s", raw, a.outcome, a.response.Status, a.text(), a.result.Detail)
	}
}
