package wiretest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// RunTransport runs the whole suite on the transports that a factory makes for a protocol.
func RunTransport(t *testing.T, name string, factory message.TransportFactory, protocol message.Protocol) {
	b := backend{factory: factory, protocol: protocol}
	if protocol == message.ProtocolHTTPS || protocol == message.ProtocolH2 {
		b.secure(t)
	}
	parts := []struct {
		name string
		run  func(*testing.T, backend)
	}{
		{"ARequestArrivesAsItIs", arrives},
		{"AnAnswerComesAsItIs", comes},
		{"ConnectionsAreUsedAgain", reuse},
		{"ManyAtOnceGetTheirOwn", many},
		{"AnEarlyAnswerIsHeard", earlyAnswer},
		{"AContextEndsTheAttempt", contexts},
		{"A1xxIsPassedOn", relayed},
		{"TheBackendIsAskedForTheBody", expected},
		{"NobodyThere", nobody},
		{"BodiesThatBreakOff", broken},
		{"RetiredKeysHoldNoConnections", retired},
	}
	if b.one() {
		parts = append(parts, []struct {
			name string
			run  func(*testing.T, backend)
		}{
			{"ABackendMayVanishAtAnyByte", vanishing},
			{"WhatFramesAmbiguouslyIsRefused", badAnswers},
			{"NoByteReachesTheNextRequest", leftovers},
			{"TunnelsAreSpliced", spliced},
		}...)
	}
	for _, part := range parts {
		t.Run(name+"/"+part.name, func(t *testing.T) {
			NothingLeaks(t, func(t *testing.T) { t.Run("", func(t *testing.T) { part.run(t, b) }) })
		})
	}
}

type backend struct {
	factory  message.TransportFactory
	protocol message.Protocol
	tls      *message.TLSConfig // nil in the clear
	config   *tls.Config        // of the servers
}

// one reports whether HTTP/1 is spoken.
func (b backend) one() bool {
	return b.protocol == message.ProtocolHTTP1 || b.protocol == message.ProtocolHTTPS
}

func (b backend) transport(t testing.TB, addr string) message.Transport {
	key := message.ConnKey{Endpoint: netip.MustParseAddrPort(addr), Protocol: b.protocol}
	if b.tls != nil {
		key.TLS = b.tls.Key()
	}
	tr := b.factory(key, message.TransportOptions{
		ConnectTimeout: patience, IdleTimeout: patience, MaxIdle: 8, MaxHeadBytes: 8 << 10, MaxInformations: 4, TLS: b.tls,
	})
	t.Cleanup(tr.Retire)
	return tr
}

// serve is a backend by net/http.
func (b backend) serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l := b.listen(t)
	srv := &http.Server{Handler: h, Protocols: b.protocols(), DisableGeneralOptionsHandler: true}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// script is a backend of bytes: each connection is given to f, by number.
func (b backend) script(t testing.TB, f func(n int, nc net.Conn, br *bufio.Reader)) string {
	t.Helper()
	l := b.listen(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for n := 0; ; n++ {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[nc] = true
			mu.Unlock()
			wg.Go(func() {
				defer nc.Close()
				f(n, nc, bufio.NewReader(nc))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for nc := range conns {
			nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// readRequest reads a request, its body too.
func readRequest(br *bufio.Reader) (*http.Request, error) {
	r, err := http.ReadRequest(br)
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	return r, err
}

// attempt makes an attempt of a request.
func attempt(method, target string, body *message.Body, fields ...string) *message.Attempt {
	path, query, has := strings.Cut(target, "?")
	at := &message.Attempt{Exchange: &message.Exchange{}}
	at.Request = message.Request{
		Method: method, Scheme: "http", Host: message.Host{Raw: "shop.example:8080", Name: "shop.example", Port: 8080},
		Target: message.Target{Raw: target, Path: path, Query: query, HasQuery: has}, Version: message.HTTP11, Header: Fields(fields...), Body: body,
	}
	return at
}

// try runs an attempt and reads the body of its answer.
func try(t testing.TB, tr message.Transport, at *message.Attempt) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := tr.RoundTrip(ctx, at); err != nil {
		return "", err
	}
	return ReadAll(at.Response.Body)
}

// want demands that an error has a reason.
func want(t testing.TB, err error, reason message.Reason) {
	t.Helper()
	var known *message.Error
	if !errors.As(err, &known) || known.Reason != reason {
		t.Errorf("error %v, want %s", err, reason)
	}
}

func arrives(t *testing.T, b backend) {
	seen := make(chan string, 1)
	addr := b.serve(t, func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		out := fmt.Sprintf("%s %s %s length=%d body=%d", r.Method, r.RequestURI, r.Host, r.ContentLength, len(content))
		var names []string
		for name, values := range r.Header {
			names = append(names, fmt.Sprintf("%s=%q", name, values))
		}
		slices.Sort(names)
		for name, values := range r.Trailer {
			names = append(names, fmt.Sprintf("trailer %s=%q", name, values))
		}
		if err != nil {
			names = append(names, err.Error())
		}
		seen <- strings.Join(append([]string{out}, names...), " ")
	})
	tr := b.transport(t, addr)
	tail := Fields("X-Sum: 5")
	one := b.one()
	for _, c := range []struct {
		at   *message.Attempt
		want string
		only bool // HTTP/1
	}{
		{attempt("GET", "/", nil), "GET / shop.example:8080 length=0 body=0", false},
		{attempt("GET", "/a%2Fb;c=1//d/./%7e?x=%zz&y=a;b?", nil), "GET /a%2Fb;c=1//d/./%7e?x=%zz&y=a;b? shop.example:8080 length=0 body=0", false},
		{attempt("GET", "//a//b", nil), "GET //a//b shop.example:8080 length=0 body=0", false},
		{attempt("GET", "/a?", nil), "GET /a? shop.example:8080 length=0 body=0", false},
		{attempt("GET", "/a\"<>|^`{}", nil), "GET /a\"<>|^`{} shop.example:8080 length=0 body=0", false},
		{attempt("OPTIONS", "*", nil), "OPTIONS * shop.example:8080 length=0 body=0", false},
		{attempt("GET", "/", nil, "User-Agent: x", "Accept-Encoding: br", "X-A: 1", "X-A: 2"),
			`GET / shop.example:8080 length=0 body=0 Accept-Encoding=["br"] User-Agent=["x"] X-A=["1" "2"]`, false},
		{attempt("GET", "/", nil, "Connection: x-a", "Transfer-Encoding: chunked", "Content-Length: 7", "Upgrade: x", "X-A: 1"),
			`GET / shop.example:8080 length=0 body=0 X-A=["1"]`, false},
		{attempt("POST", "/", message.BodyOf([]byte("hello"))), "POST / shop.example:8080 length=5 body=5", false},
		{attempt("PUT", "/", message.NewBody(&Pieces{Rest: []string{"hel", "lo"}}, 5, nil)), "PUT / shop.example:8080 length=5 body=5", false},
		{attempt("PUT", "/", message.NewBody(&Pieces{Rest: []string{strings.Repeat("x", 1<<20)}}, 1<<20, nil)), "PUT / shop.example:8080 length=1048576 body=1048576", false},
		{attempt("PUT", "/", message.NewBody(&Pieces{Rest: []string{"hel", "lo"}}, -1, nil)), "PUT / shop.example:8080 length=-1 body=5", false},
		{attempt("GET", "/", message.NewBody(&Pieces{Rest: []string{"hel", "lo"}}, -1, nil)), "GET / shop.example:8080 length=-1 body=5", false},
		{attempt("PUT", "/", message.NewBody(&Pieces{Rest: []string{"hello"}, Tail: &tail}, -1, nil)),
			`PUT / shop.example:8080 length=-1 body=5 trailer X-Sum=["5"]`, true},
	} {
		if c.only && !one {
			continue
		}
		if _, err := try(t, tr, c.at); err != nil {
			t.Fatalf("%s %s: %v", c.at.Request.Method, c.at.Request.Target.Raw, err)
		}
		got := strings.ReplaceAll(<-seen, ` Content-Length=["0"]`, "")
		for _, n := range []string{"5", "1048576"} {
			got = strings.ReplaceAll(got, ` Content-Length=["`+n+`"]`, "")
		}
		if got != c.want {
			t.Errorf("arrived\n%s\nwant\n%s", got, c.want)
		}
		sent := message.SentHead
		if c.at.Request.Body.Len() != 0 {
			sent = message.SentBody
		}
		if c.at.Sent != sent || c.at.Replays != 0 {
			t.Errorf("%s: sent %d, replays %d", c.want, c.at.Sent, c.at.Replays)
		}
	}
	at := attempt("GET", "/", nil)
	at.Request.TETrailers = true
	if _, err := try(t, tr, at); err != nil {
		t.Error(err)
	}
	if got := <-seen; !strings.Contains(got, `Te=["trailers"]`) {
		t.Errorf("arrived %s, want TE: trailers", got)
	}
	bad := attempt("GET", "/", nil)
	bad.Request.Header.Add("X-A", "b\r\nX-Evil: 1")
	if _, err := try(t, tr, bad); err == nil {
		t.Errorf("a line break in a value was sent: %s", <-seen)
	}
}

func comes(t *testing.T, b backend) {
	long := strings.Repeat("0123456789abcdef", 1<<14)
	addr := b.serve(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Date"], h["Content-Type"] = nil, nil
		h["X-A"] = []string{"1", "2"}
		switch r.URL.Path {
		case "/text":
			io.WriteString(w, "hello")
		case "/long":
			io.WriteString(w, long)
		case "/pieces":
			for _, p := range []string{"a", "b", "c"} {
				io.WriteString(w, p)
				w.(http.Flusher).Flush()
			}
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.WriteHeader(304)
		case "/trailer":
			h.Set("Trailer", "X-Sum, X-Late")
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			h.Set("X-Sum", "5")
		case "/length":
			h.Set("Content-Length", "1234")
		}
	})
	tr := b.transport(t, addr)
	for _, c := range []struct {
		method, path string
		status       int
		body         string
		length       int64 // of the body
		given        int64 // Response.Length
	}{
		{"GET", "/text", 200, "hello", 5, -1},
		{"GET", "/long", 200, long, -1, -1},
		{"GET", "/pieces", 200, "abc", -1, -1},
		{"GET", "/204", 204, "", 0, -1},
		{"GET", "/304", 304, "", 0, -1},
		{"HEAD", "/length", 200, "", 0, 1234},
		{"GET", "/trailer", 200, "hello", -1, -1},
	} {
		at := attempt(c.method, c.path, nil)
		got, err := try(t, tr, at)
		if err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		res := at.Response
		if res.Status != c.status || got != c.body || res.Body.Len() != c.length || res.Origin != message.OriginUpstream {
			t.Errorf("%s: %d %.20q length %d", c.path, res.Status, got, res.Body.Len())
		}
		if c.given >= 0 && res.Length != c.given {
			t.Errorf("%s: Length %d, want %d", c.path, res.Length, c.given)
		}
		if v := res.Header.Values("x-a"); !slices.Equal(v, []string{"1", "2"}) || res.Header.Has("Content-Length") || res.Header.Has("Transfer-Encoding") {
			t.Errorf("%s: fields %v", c.path, lines(&res.Header))
		}
		if c.path == "/trailer" {
			if tail := res.Body.Trailer(); tail == nil || tail.Get("X-Sum") != "5" || !slices.Contains(res.Trailer, "X-Sum") {
				t.Errorf("trailer %v, announced %v", tail, res.Trailer)
			}
		}
	}
}

func reuse(t *testing.T, b backend) {
	var conns atomic.Int32
	l := b.listen(t)
	srv := &http.Server{Protocols: b.protocols(), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	tr := b.transport(t, l.Addr().String())
	for i := range 10 {
		var body *message.Body
		if i%2 == 1 {
			body = message.NewBody(&Pieces{Rest: []string{"hello"}}, -1, nil)
		}
		at := attempt("POST", "/", body)
		if _, err := try(t, tr, at); err != nil {
			t.Fatal(err)
		}
		if at.Join != nil {
			at.Join()
		}
		if at.Reused != (i > 0) {
			t.Errorf("attempt %d: reused %v", i, at.Reused)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func many(t *testing.T, b backend) {
	addr := b.serve(t, func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s=%s", r.URL.Path, content)
	})
	tr := b.transport(t, addr)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for j := range 20 {
				path, content := fmt.Sprintf("/%d/%d", i, j), strings.Repeat("x", (i*j*7)%3000+1)
				at := attempt("POST", path, message.NewBody(&Pieces{Rest: []string{content}}, int64(len(content)), nil))
				got, err := try(t, tr, at)
				if err != nil || got != path+"="+content {
					t.Errorf("%s: %.40q, %v", path, got, err)
				}
				if at.Join != nil {
					at.Join()
				}
			}
		})
	}
	wg.Wait()
}
