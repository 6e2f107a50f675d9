package wiretest

import (
	"bufio"
	"context"
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
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// RunTransport runs the whole suite on the transports that a factory makes for a protocol: ProtocolHTTP1 or ProtocolH2C.
func RunTransport(t *testing.T, name string, factory message.TransportFactory, protocol message.Protocol) {
	b := backend{factory, protocol}
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
	if protocol == message.ProtocolHTTP1 {
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
}

func (b backend) transport(t testing.TB, addr string) message.Transport {
	tr := b.factory(message.ConnKey{Endpoint: netip.MustParseAddrPort(addr), Protocol: b.protocol}, message.TransportOptions{
		ConnectTimeout: patience, IdleTimeout: patience, MaxIdle: 8, MaxHeadBytes: 8 << 10, MaxInformations: 4,
	})
	t.Cleanup(tr.Retire)
	return tr
}

// serve is a backend by net/http.
func (b backend) serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols), DisableGeneralOptionsHandler: true}
	srv.Protocols.SetHTTP1(b.protocol == message.ProtocolHTTP1)
	srv.Protocols.SetUnencryptedHTTP2(b.protocol == message.ProtocolH2C)
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// script is a backend of bytes: each connection is given to f, by number.
func script(t testing.TB, f func(n int, nc net.Conn, br *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
	one := b.protocol == message.ProtocolHTTP1
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Protocols: new(http.Protocols), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	})}
	srv.Protocols.SetHTTP1(b.protocol == message.ProtocolHTTP1)
	srv.Protocols.SetUnencryptedHTTP2(b.protocol == message.ProtocolH2C)
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

// earlyAnswer: the backend answers while the client is still sending; the sender is joined once its body is given up.
func earlyAnswer(t *testing.T, b backend) {
	addr := b.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if rc := http.NewResponseController(w); rc.EnableFullDuplex() == nil {
			io.ReadFull(r.Body, make([]byte, 5))
		}
		w.WriteHeader(413)
		io.WriteString(w, "too much")
	})
	tr := b.transport(t, addr)
	src := &Pieces{Rest: []string{"hello"}, Wait: make(chan struct{})}
	at := attempt("POST", "/", message.NewBody(src, 1000, nil))
	got, err := try(t, tr, at)
	if err != nil || at.Response.Status != 413 || got != "too much" {
		t.Errorf("%q, %v", got, err)
	}
	if at.Join == nil {
		t.Fatal("nothing to join, while the body is being read")
	}
	at.Request.Body.Abort(nil)
	at.Join()
	if got, err := try(t, tr, attempt("POST", "/", message.BodyOf([]byte("hello")))); err != nil || got != "too much" {
		t.Errorf("the next attempt: %q, %v", got, err)
	}
}

func contexts(t *testing.T, b backend) {
	entered := make(chan struct{}, 10)
	release := make(chan struct{})
	addr := b.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			io.WriteString(w, "hel")
			w.(http.Flusher).Flush()
		}
		entered <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		io.WriteString(w, "lo")
	})
	tr := b.transport(t, addr)

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	at := attempt("GET", "/", nil)
	want(t, tr.RoundTrip(ctx, at), message.ReasonAttemptTimeout)
	cancel()
	if at.Sent != message.SentHead {
		t.Errorf("sent %d", at.Sent)
	}
	<-entered

	why, stop := context.WithCancelCause(context.Background())
	go func() {
		<-entered
		stop(&message.Error{Reason: message.ReasonRequestTimeout})
	}()
	want(t, tr.RoundTrip(why, attempt("GET", "/", nil)), message.ReasonRequestTimeout)

	gone, leave := context.WithCancel(context.Background())
	leave()
	at = attempt("GET", "/", nil)
	want(t, tr.RoundTrip(gone, at), message.ReasonClientLeft)
	if at.Sent != message.SentNothing {
		t.Errorf("sent %d", at.Sent)
	}

	// Once the head is there, ctx means nothing any more: the body lives on, until Abort.
	short, cut := context.WithCancel(context.Background())
	at = attempt("GET", "/body", nil)
	if err := tr.RoundTrip(short, at); err != nil {
		t.Fatal(err)
	}
	<-entered
	cut()
	close(release)
	if got, err := ReadAll(at.Response.Body); got != "hello" || err != nil {
		t.Errorf("after ctx: %q, %v", got, err)
	}
}

func relayed(t *testing.T, b backend) {
	addr := b.serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := 3
		if r.URL.Path == "/flood" {
			n = 5000
		}
		w.Header().Set("Link", "</a.css>")
		for range n {
			w.WriteHeader(103)
		}
		io.WriteString(w, "ok")
	})
	tr := b.transport(t, addr)
	at := attempt("GET", "/", nil)
	var codes []int
	at.Exchange.MaxInform = 2
	at.Exchange.Informer = func(code int, h *message.Header) error {
		codes = append(codes, code)
		if h.Get("Link") != "</a.css>" {
			t.Errorf("fields %s", lines(h))
		}
		return nil
	}
	got, err := try(t, tr, at)
	if err != nil || got != "ok" || !slices.Equal(codes, []int{103, 103}) {
		t.Errorf("%q, %v, informed %v", got, err, codes)
	}
	_, err = try(t, tr, attempt("GET", "/flood", nil))
	want(t, err, message.ReasonUpstreamProtocol)
}

// expected: with Expect the body is pulled only once the backend asks for it, or never.
func expected(t *testing.T, b backend) {
	addr := b.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(403)
			return
		}
		content, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "got %s", content)
	})
	tr := b.transport(t, addr)
	for path, status := range map[string]int{"/no": 403, "/yes": 200} {
		at := attempt("POST", path, message.NewBody(&Pieces{Rest: []string{"hello"}}, 5, nil))
		at.Request.ExpectContinue = true
		got, err := try(t, tr, at)
		if err != nil || at.Response.Status != status {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		if at.Join != nil {
			at.Request.Body.Abort(nil)
			at.Join()
		}
		if pulled := at.Request.Body.Passed() > 0; pulled != (path == "/yes") {
			t.Errorf("%s: pulled %v", path, pulled)
		}
	}
}

func nobody(t *testing.T, b backend) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	at := attempt("POST", "/", message.BodyOf([]byte("hello")))
	_, err = try(t, b.transport(t, addr), at)
	want(t, err, message.ReasonConnectFailed)
	if at.Sent != message.SentNothing || at.Response != nil {
		t.Errorf("sent %d, answer %v", at.Sent, at.Response)
	}
	if at.Join != nil {
		at.Join()
	}
	if !at.Request.Body.Rewind() || at.Request.Body.Passed() != 0 {
		t.Log("the body was pulled although there was no connection")
	}
}

// broken: answers that break off, requests that break off, answers that are given up.
func broken(t *testing.T, b backend) {
	addr := b.serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/open":
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/endless":
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 10000)); err != nil {
					return
				}
			}
		default:
			io.Copy(io.Discard, r.Body)
		}
	})
	tr := b.transport(t, addr)
	for _, path := range []string{"/length", "/open"} {
		got, err := try(t, tr, attempt("GET", path, nil))
		want(t, err, message.ReasonResponseTruncated)
		if got != "hello" {
			t.Errorf("%s: %q", path, got)
		}
	}

	at := attempt("GET", "/endless", nil)
	if err := tr.RoundTrip(context.Background(), at); err != nil {
		t.Fatal(err)
	}
	if _, err := at.Response.Body.Next(); err != nil {
		t.Error(err)
	}
	go at.Response.Body.Abort(&message.Error{Reason: message.ReasonWriteTimeout})
	for {
		if _, err := at.Response.Body.Next(); err != nil {
			want(t, err, message.ReasonWriteTimeout)
			break
		}
	}

	at = attempt("POST", "/", message.NewBody(&Pieces{Rest: []string{"hel"}, Err: &message.Error{Reason: message.ReasonBodyTimeout}}, -1, nil))
	_, err := try(t, tr, at)
	want(t, err, message.ReasonBodyTimeout)
	if at.Join != nil {
		at.Join()
	}
	if got, err := try(t, tr, attempt("GET", "/", nil)); err != nil || got != "" {
		t.Errorf("the next attempt: %q, %v", got, err)
	}
}

func retired(t *testing.T, b backend) {
	var open atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	goOn := make(chan struct{})
	srv := &http.Server{Protocols: new(http.Protocols), ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
		open.Add(1)
		return ctx
	}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			<-goOn
		}
		io.WriteString(w, "ok")
	})}
	srv.Protocols.SetHTTP1(b.protocol == message.ProtocolHTTP1)
	srv.Protocols.SetUnencryptedHTTP2(b.protocol == message.ProtocolH2C)
	counted := &countedListener{l, &open}
	go srv.Serve(counted)
	t.Cleanup(func() { srv.Close() })
	tr := b.transport(t, l.Addr().String())

	slow := attempt("GET", "/slow", nil)
	if err := tr.RoundTrip(context.Background(), slow); err != nil {
		t.Fatal(err)
	}
	if _, err := try(t, tr, attempt("GET", "/", nil)); err != nil {
		t.Fatal(err)
	}
	tr.Retire()
	if b.protocol == message.ProtocolHTTP1 {
		Await(t, "the idle connection to be closed", func() bool { return open.Load() == 1 }, func() string { return fmt.Sprint(open.Load()) })
	}
	if got, err := try(t, tr, attempt("GET", "/", nil)); err != nil || got != "ok" {
		t.Errorf("a retired transport must work for whoever holds it: %q, %v", got, err)
	}
	close(goOn)
	if got, err := ReadAll(slow.Response.Body); got != "ok" || err != nil {
		t.Errorf("the attempt under way: %q, %v", got, err)
	}
	Await(t, "all connections to be closed", func() bool { return open.Load() == 0 }, func() string { return fmt.Sprint(open.Load()) })
	tr.Revive()
	for i := range 2 {
		at := attempt("GET", "/", nil)
		if _, err := try(t, tr, at); err != nil || at.Reused != (i == 1) {
			t.Errorf("revived: %v, reused %v", err, at.Reused)
		}
	}
}

// countedListener takes closed connections off a count.
type countedListener struct {
	net.Listener
	open *atomic.Int32
}

func (l *countedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: nc, open: l.open}, nil
}

type countedConn struct {
	net.Conn
	open *atomic.Int32
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// vanishing: the connection is cut behind each byte of an answer.
func vanishing(t *testing.T, b backend) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	head := strings.Index(answer, "hello")
	var cut atomic.Int32
	for _, reset := range []bool{false, true} {
		addr := script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
			if _, err := readRequest(br); err != nil {
				return
			}
			io.WriteString(nc, answer[:cut.Load()])
			if reset && cut.Load() == 0 {
				nc.(*net.TCPConn).SetLinger(0)
			}
		})
		tr := b.transport(t, addr)
		for n := range len(answer) {
			cut.Store(int32(n))
			at := attempt("GET", "/", nil)
			got, err := try(t, tr, at)
			reason := message.ReasonUpstreamReset
			if n >= head {
				reason = message.ReasonResponseTruncated
			}
			want(t, err, reason)
			if n >= head && got != answer[head:n] || at.Sent != message.SentHead {
				t.Errorf("cut at %d: %q, sent %d", n, got, at.Sent)
			}
		}
	}
}

func badAnswers(t *testing.T, b backend) {
	for _, c := range []struct{ name, bytes string }{
		{"both Content-Length and Transfer-Encoding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"two Content-Lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"},
		{"a Content-Length that is none", "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello"},
		{"a negative Content-Length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"},
		{"another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
		{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"a folded line", "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n"},
		{"a bare line feed", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"},
		{"a NUL", "HTTP/1.1 200 OK\r\nX-A: b\x00\r\nContent-Length: 0\r\n\r\n"},
		{"a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"},
		{"no status", "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"},
		{"a status that is none", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n"},
		{"a status below 100", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"},
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n"},
		{"another version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"a head over the limit", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("b", 9<<10) + "\r\n\r\n"},
		{"a head without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: b\r\n", 2000)},
		{"an unasked 101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"a bad chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5x\r\nhello\r\n0\r\n\r\n"},
		{"a chunk longer than its size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"},
		{"a bare line feed behind a size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"},
		{"a trailer that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX A: b\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hold := make(chan struct{})
			addr := script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
				if _, err := readRequest(br); err != nil {
					return
				}
				io.WriteString(nc, c.bytes)
				if _, err := br.Peek(1); err == nil {
					t.Error("the connection was used again")
				}
				close(hold)
			})
			_, err := try(t, b.transport(t, addr), attempt("GET", "/", nil))
			want(t, err, message.ReasonUpstreamProtocol)
			<-hold
		})
	}
}

// leftovers: bytes that nobody asked for never answer somebody else's request (threats 6).
func leftovers(t *testing.T, b backend) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for _, c := range []struct{ name, method, first string }{
		{"behind the body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil},
		{"behind the last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + evil},
		{"behind 204", "GET", "HTTP/1.1 204 No Content\r\n\r\n" + evil},
		{"behind 304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n" + evil},
		{"behind HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + evil},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, late %v", c.name, late), func(t *testing.T) {
				sent := make(chan struct{})
				addr := script(t, func(n int, nc net.Conn, br *bufio.Reader) {
					for {
						r, err := readRequest(br)
						if err != nil {
							return
						}
						if n > 0 {
							fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(r.RequestURI), r.RequestURI)
							continue
						}
						if !late {
							io.WriteString(nc, c.first)
							continue
						}
						io.WriteString(nc, strings.TrimSuffix(c.first, evil))
						io.WriteString(nc, evil)
						close(sent)
					}
				})
				tr := b.transport(t, addr)
				if _, err := try(t, tr, attempt(c.method, "/0", nil)); err != nil {
					t.Fatal(err)
				}
				if late {
					<-sent
				}
				for i := range 3 {
					target := fmt.Sprintf("/%d", i+1)
					if got, err := try(t, tr, attempt("GET", target, nil)); err != nil || got != target {
						t.Errorf("request %d got %q, %v", i+1, got, err)
					}
				}
			})
		}
	}
	t.Run("an idle connection that the backend closes", func(t *testing.T) {
		closed := make(chan struct{}, 10)
		addr := script(t, func(n int, nc net.Conn, br *bufio.Reader) {
			if _, err := readRequest(br); err != nil {
				return
			}
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			nc.Close()
			closed <- struct{}{}
		})
		tr := b.transport(t, addr)
		for range 5 {
			at := attempt("POST", "/", nil)
			if got, err := try(t, tr, at); err != nil || got != "ok" || at.Reused {
				t.Errorf("%q, %v, reused %v", got, err, at.Reused)
			}
			<-closed
		}
	})
	t.Run("a body until the connection ends", func(t *testing.T) {
		addr := script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
			readRequest(br)
			io.WriteString(nc, "HTTP/1.0 200 OK\r\n\r\nhello")
		})
		tr := b.transport(t, addr)
		for range 2 {
			at := attempt("GET", "/", nil)
			if got, err := try(t, tr, at); got != "hello" || err != nil || at.Reused {
				t.Errorf("%q, %v", got, err)
			}
		}
	})
}

// spliced: both directions, bytes that came early, half-closed ends, and a backend that refuses.
func spliced(t *testing.T, b backend) {
	addr := script(t, func(n int, nc net.Conn, br *bufio.Reader) {
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
				io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
				return
			}
			if r.URL.Path == "/no" {
				io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
				continue
			}
			io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nX-A: 1\r\n\r\nwelcome ")
			io.Copy(struct{ io.Writer }{nc}, br) // not by splice, whose pipes outlive the test
			nc.(*net.TCPConn).CloseWrite()
			return
		}
	})
	tr := b.transport(t, addr)
	at := attempt("GET", "/no", nil)
	at.Request.Upgrade = "websocket"
	if got, err := try(t, tr, at); got != "no" || err != nil {
		t.Errorf("a refusal: %q, %v", got, err)
	}

	at = attempt("GET", "/", nil)
	at.Request.Upgrade = "websocket"
	if err := tr.RoundTrip(context.Background(), at); err != nil {
		t.Fatal(err)
	}
	res := at.Response
	if res.Status != 101 || res.Upgrade != "websocket" || res.Tunnel == nil || res.Header.Get("X-A") != "1" || !at.Reused {
		t.Fatalf("answer %+v", res)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := dial(t, l.Addr().String())
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan message.Outcome, 1)
	go func() { out <- res.Tunnel(ours.(*net.TCPConn)) }()
	io.WriteString(client, "hello")
	client.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(client); string(got) != "welcome hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if o := <-out; o.BytesIn != 5 || o.BytesOut != 13 || o.Reason != 0 {
		t.Errorf("outcome %+v", o)
	}

	// A tunnel that nobody runs ends with its exchange, or when it is told so.
	for _, told := range []bool{true, false} {
		at = attempt("GET", "/", nil)
		at.Request.Upgrade = "websocket"
		if err := tr.RoundTrip(context.Background(), at); err != nil {
			t.Fatal(err)
		}
		if told {
			at.Response.Tunnel(nil)
		}
		at.Exchange.Cancel(context.Canceled)
	}
}
