package external_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/external"
)

func overHTTP() external.Config {
	return external.Config{Name: "check", Protocol: external.HTTP, Timeout: 2 * time.Second}
}

// record is a service that notes what it is told.
type record struct {
	mu    sync.Mutex
	last  *http.Request
	body  string
	asked int
}

func (s *record) handler(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.last, s.body = r, string(content)
		s.asked++
		s.mu.Unlock()
		answer(w, r)
	}
}

func (s *record) count() int { s.mu.Lock(); defer s.mu.Unlock(); return s.asked }

func TestAServiceIsToldWhatWasAskedAndWhoAsks(t *testing.T) {
	var s record
	c := overHTTP()
	c.Path, c.AllowedRequestHeaders = "/auth/", []string{"x-tenant", "Host", "content-length"}
	h := newHouse(t, serve(t, s.handler(func(http.ResponseWriter, *http.Request) {})), c)
	res, body := h.ask("PUT", "/a//b/../c;x=1?q=%zz&r=a;b", "hello",
		"Authorization", "Bearer t", "Cookie", "session=secret", "X-Tenant", "one", "X-Tenant", "two", "X_Tenant", "three",
		"X-Forwarded-For", "6.6.6.6", "x-forwarded-uri", "/public", "X-Forwarded-Proto", "https", "X-Secret", "no")
	if res.StatusCode != 200 || body != "let in" {
		t.Fatal(res.Status, body)
	}
	r := s.last
	if r.Method != "PUT" || r.RequestURI != "/auth/a/c;x=1?q=%zz&r=a;b" || r.Host != "shop.example" || r.ContentLength != 0 || s.body != "" {
		t.Errorf("asked %s %s at %s, length %d", r.Method, r.RequestURI, r.Host, r.ContentLength)
	}
	id := r.Header.Get("X-Request-Id")
	r.Header.Del("X-Request-Id")
	want := http.Header{
		"Authorization": {"Bearer t"}, "X-Tenant": {"one", "two"}, "X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {"http"},
		"X-Forwarded-Host": {"shop.example"}, "X-Forwarded-Port": {"80"}, "X-Forwarded-Method": {"PUT"}, "X-Forwarded-Uri": {"/a/c;x=1?q=%zz&r=a;b"},
	}
	r.Header.Del("Content-Length")
	if fmt.Sprint(r.Header) != fmt.Sprint(want) || id == "" {
		t.Errorf("told %v\nwant %v", r.Header, want)
	}
	_, at, sent := h.reached()
	if at.RequestURI != "/a/c;x=1?q=%zz&r=a;b" || sent != "hello" || at.Header.Get("Authorization") != "Bearer t" || at.Header.Get("Cookie") != "session=secret" {
		t.Errorf("the backend got %s %q %v", at.RequestURI, sent, at.Header)
	}
}

func TestWhatTheServiceSaysReachesTheBackendAndNobodyElseSaysIt(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/anonymous" {
			w.Header().Set("X-User", "ada")
			w.Header()["X-Groups"] = []string{"ops", "dev"}
		}
		w.Header().Set("X-Forwarded-For", "6.6.6.6")
		w.Header().Set("X-Request-Id", "chosen")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Set-Cookie", "a=b")
		io.WriteString(w, "fine")
	}
	for _, listed := range []bool{true, false} {
		c := overHTTP()
		c.Subject = "X-User"
		if listed {
			c.AllowedResponseHeaders = []string{"x-user", "X-Groups"}
		}
		h := newHouse(t, serve(t, answer), c)
		forged := []string{"X-User", "root", "x_user", "root", "X-USER", "root", "X-Groups", "admin", "Content-Type", "application/json", "X-Subject", "root"}
		h.ask("POST", "/", "{}", forged...)
		_, r, _ := h.reached()
		if got := r.Header; fmt.Sprint(got["X-User"], got["X-Groups"], got["Content-Type"], got["X_user"], got["Set-Cookie"], got["X-Subject"]) != "[ada] [ops dev] [application/json] [] [] [ada]" {
			t.Errorf("listed %v: the backend got %v", listed, got)
		}
		if got := r.Header.Get("X-Forwarded-For"); got != "127.0.0.1" || r.Header.Get("X-Request-Id") == "chosen" {
			t.Errorf("the service speaks for us: %v", r.Header)
		}
		if !listed {
			continue // nobody can know then which names the service would say
		}
		h.ask("GET", "/anonymous", "", forged...)
		_, r, _ = h.reached()
		if fmt.Sprint(r.Header["X-User"], r.Header["X-Groups"], r.Header["X_user"], r.Header["X-Subject"]) != "[] [] [] []" {
			t.Errorf("what the service did not say, a client did: %v", r.Header)
		}
	}
}

func TestADenialIsTheServices(t *testing.T) {
	for _, c := range []struct {
		status int
		want   int
	}{{401, 401}, {403, 403}, {302, 302}, {429, 429}, {404, 404}, {204, 403}, {201, 403}, {304, 403}, {206, 403}} {
		h := newHouse(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://login.example/?return=x")
			w.Header().Set("WWW-Authenticate", `Bearer realm="a"`)
			w.Header()["Set-Cookie"] = []string{"a=1; HttpOnly", "b=2"}
			w.Header().Set("Server", "authd")
			w.Header().Set("Connection", "close, X-Hop")
			w.Header().Set("X-Hop", "1")
			w.WriteHeader(c.status)
			if c.status != 204 && c.status != 304 {
				io.WriteString(w, "go away")
			}
		}), overHTTP())
		res, body := h.ask("GET", "/", "")
		n, _, _ := h.reached()
		if res.StatusCode != c.want || n != 0 {
			t.Errorf("%d: the client got %d, %d requests reached the backend", c.status, res.StatusCode, n)
		}
		if c.want != c.status {
			if strings.Contains(body, "go away") || res.Header.Get("Location") != "" {
				t.Errorf("%d: %v %q", c.status, res.Header, body)
			}
			continue
		}
		if body != "go away" || res.Header.Get("Location") == "" || res.Header.Get("WWW-Authenticate") == "" || !slices.Equal(res.Header["Set-Cookie"], []string{"a=1; HttpOnly", "b=2"}) {
			t.Errorf("%d: %v %q", c.status, res.Header, body)
		}
		if res.Header.Get("Server") != "" || res.Header.Get("X-Hop") != "" || len(res.Header["Date"]) > 1 {
			t.Errorf("%d: %v", c.status, res.Header)
		}
	}
}

func TestADenialSpeaksGRPCToThoseWhoDo(t *testing.T) {
	h := newHouse(t, serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }), overHTTP())
	res, _ := h.ask("POST", "/shop.Cart/Get", "x", "Content-Type", "application/grpc")
	if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "7" {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

// Threats 25 and 31: whatever is not a clear yes is a no.
func TestAServiceThatIsDownSlowBrokenOrTalkativeLetsNobodyIn(t *testing.T) {
	var written atomic.Int64
	answers := func(text string) func(testing.TB) string {
		return func(t testing.TB) string {
			return bytesOf(t, func(nc net.Conn) {
				http.ReadRequest(bufio.NewReader(nc))
				io.WriteString(nc, text)
			})
		}
	}
	for _, c := range []struct {
		name    string
		service func(testing.TB) string
	}{
		{"down", nobody},
		{"slow to accept, slow to answer", func(t testing.TB) string {
			return bytesOf(t, func(nc net.Conn) { io.Copy(io.Discard, nc) })
		}},
		{"slow in its body", func(t testing.TB) string {
			return bytesOf(t, func(nc net.Conn) {
				http.ReadRequest(bufio.NewReader(nc))
				io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
				io.Copy(io.Discard, nc)
			})
		}},
		{"reset", func(t testing.TB) string {
			return bytesOf(t, func(nc net.Conn) {
				http.ReadRequest(bufio.NewReader(nc))
				nc.(*net.TCPConn).SetLinger(0)
			})
		}},
		{"closed at once", func(t testing.TB) string { return bytesOf(t, func(net.Conn) {}) }},
		{"garbage", answers("\x00\x01\x02\x16\x03\x01\r\n\r\n")},
		{"another protocol", answers("220 mail.example ESMTP\r\n")},
		{"cut in its head", answers("HTTP/1.1 200 OK\r\nX-User: a")},
		{"cut in its body", answers("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhel")},
		{"cut in its chunks", answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")},
		{"two lengths", answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n")},
		{"only 100", answers("HTTP/1.1 100 Continue\r\n\r\n")},
		{"endless 103", answers(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 1000) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")},
		{"101", answers("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")},
		{"status 099", answers("HTTP/1.1 099 What\r\nContent-Length: 0\r\n\r\n")},
		{"500", answers("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")},
		{"503", answers("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")},
		{"599", answers("HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n")},
		{"a head over the limit", answers("HTTP/1.1 200 OK\r\nX-User: " + strings.Repeat("a", 1<<20) + "\r\n\r\n")},
		{"too many fields", answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + strings.Repeat("X-A: b\r\n", 1000) + "\r\n")},
		{"a gigabyte, announced", gigabyte(&written, "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")},
		{"a gigabyte until it closes", gigabyte(&written, "HTTP/1.1 200 OK\r\n\r\n")},
		{"a gigabyte of denial", gigabyte(&written, "HTTP/1.1 403 Forbidden\r\nContent-Length: 1073741824\r\n\r\n")},
	} {
		t.Run(c.name, func(t *testing.T) {
			written.Store(0)
			config := overHTTP()
			config.Timeout = 300 * time.Millisecond
			h := newHouse(t, c.service(t), config)
			began := time.Now()
			res, _ := h.ask("GET", "/", "")
			if n, _, _ := h.reached(); res.StatusCode != 503 || n != 0 {
				t.Errorf("the client got %d, %d requests reached the backend", res.StatusCode, n)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if n := written.Load(); n > 16<<20 {
				t.Errorf("%d bytes were taken from the service", n)
			}
		})
	}
}

func gigabyte(written *atomic.Int64, head string) func(testing.TB) string {
	return func(t testing.TB) string {
		return bytesOf(t, func(nc net.Conn) {
			http.ReadRequest(bufio.NewReader(nc))
			io.WriteString(nc, head)
			piece := make([]byte, 64<<10)
			for range 1 << 14 {
				n, err := nc.Write(piece)
				written.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
}

// Threats 31: a body in chunks, over HTTP/2, or over the limit walks around nothing.
func TestABodyIsToldWholeOrTheRequestIsRefused(t *testing.T) {
	var s record
	c := overHTTP()
	c.MaxBody = 1000
	h := newHouse(t, serve(t, s.handler(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(s.body, "attack") {
			w.WriteHeader(403)
		}
	})), c)
	two := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
	two.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(two.CloseIdleConnections)

	fits, over := strings.Repeat("x", 994)+"attack", strings.Repeat("x", 2000)+"attack"
	for _, by := range []struct {
		name   string
		client *http.Client
	}{{"HTTP/1.1", client}, {"HTTP/2", two}} {
		for _, length := range []bool{true, false} {
			for _, b := range []struct {
				body string
				want int
			}{{"hello", 200}, {fits, 403}, {over, 413}, {strings.Repeat("x", 1000), 200}, {strings.Repeat("x", 1001), 413}} {
				t.Run(fmt.Sprintf("%s length %v, %d bytes", by.name, length, len(b.body)), func(t *testing.T) {
					before, _, _ := h.reached()
					req, err := http.NewRequest("POST", h.url, struct{ io.Reader }{strings.NewReader(b.body)})
					if err != nil {
						t.Fatal(err)
					}
					if length {
						req.ContentLength = int64(len(b.body))
					}
					asked := s.count()
					res, _ := h.send(by.client, req)
					n, _, got := h.reached()
					if res.StatusCode != b.want {
						t.Errorf("status %d, want %d", res.StatusCode, b.want)
					}
					if b.want == 200 && (n != before+1 || got != b.body) || b.want != 200 && n != before {
						t.Errorf("%d requests, the last with %d bytes", n-before, len(got))
					}
					if b.want != 413 && (s.body != b.body || s.last.ContentLength != int64(len(b.body))) {
						t.Errorf("told %d bytes, length %d", len(s.body), s.last.ContentLength)
					}
					if b.want == 413 && s.count() != asked {
						t.Error("asked about half a body")
					}
				})
			}
		}
	}
}

func TestAnAllowIsRememberedForWhatIsTheSame(t *testing.T) {
	var s record
	c := overHTTP()
	c.CacheFor, c.MaxBody, c.AllowedRequestHeaders, c.Subject = 10*time.Second, 100, []string{"X-Tenant"}, "X-User"
	h := newHouse(t, serve(t, s.handler(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-User", "ada")
		if r.URL.Path == "/no" {
			w.WriteHeader(403)
		}
	})), c)
	ask := func(want int, what, method, path, body string, fields ...string) {
		t.Helper()
		before := s.count()
		h.ask(method, path, body, fields...)
		if got := s.count() - before; got != want {
			t.Errorf("%s: asked %d times, want %d", what, got, want)
		}
	}
	ask(1, "the first", "GET", "/a", "")
	ask(0, "the same", "GET", "/a", "")
	ask(0, "what is not told", "GET", "/a", "", "X-Other", "1")
	if n, r, _ := h.reached(); n != 3 || r.Header.Get("X-User") != "ada" || r.Header.Get("X-Subject") != "ada" {
		t.Errorf("a remembered answer changes the request as well: %v", r.Header)
	}
	ask(1, "another path", "GET", "/b", "")
	ask(1, "another query", "GET", "/a?x=1", "")
	ask(1, "another method", "POST", "/a", "")
	ask(1, "another body", "POST", "/a", "one")
	ask(1, "yet another body", "POST", "/a", "two")
	ask(0, "the same body", "POST", "/a", "two")
	ask(1, "another credential", "GET", "/a", "", "Authorization", "Bearer x")
	ask(1, "another field", "GET", "/a", "", "X-Tenant", "one")
	ask(1, "another value of it", "GET", "/a", "", "X-Tenant", "two")
	ask(1, "two of it", "GET", "/a", "", "X-Tenant", "one", "X-Tenant", "two")
	ask(1, "a refusal", "GET", "/no", "")
	ask(1, "a refusal again", "GET", "/no", "")
	h.apply(c)
	ask(0, "after an edit elsewhere", "GET", "/a", "")
	h.pass(10 * time.Second)
	ask(1, "after its time", "GET", "/a", "")

	other := c
	other.Policy = "another"
	ask(1, "one policy", "GET", "/1", "")
	h.apply(other)
	ask(1, "another policy that is told the same", "GET", "/1", "")
	h.apply(c)
	ask(0, "the one again", "GET", "/1", "")
	h.apply(c, other)
	ask(0, "the other, beside it", "GET", "/1", "")
}
