package wiretest

import (
	"context"
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

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

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
	addr := l.Addr().String()
	goOn := make(chan struct{})
	srv := &http.Server{Protocols: b.protocols(), ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
		open.Add(1)
		return ctx
	}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			<-goOn
		}
		io.WriteString(w, "ok")
	})}
	go srv.Serve(b.over(&countedListener{l, &open}))
	t.Cleanup(func() { srv.Close() })
	tr := b.transport(t, addr)

	slow := attempt("GET", "/slow", nil)
	if err := tr.RoundTrip(context.Background(), slow); err != nil {
		t.Fatal(err)
	}
	if _, err := try(t, tr, attempt("GET", "/", nil)); err != nil {
		t.Fatal(err)
	}
	tr.Retire()
	if b.one() {
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
