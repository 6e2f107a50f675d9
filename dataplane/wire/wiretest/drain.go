package wiretest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// draining: during Shutdown an idle HTTP/1 connection may still ask, is answered, and told to leave; the rest is closed in time.
func draining(t *testing.T, e message.Engine) {
	goOn := make(chan struct{})
	spy := NewSpy(func(ex *message.Exchange) {
		if ex.Request.Target.Path == "/slow" {
			<-goOn
		}
		ex.Response = Text(200, "ok")
	})
	addr, srv := Listen(t, e, spy, Limits())
	ask := func(nc net.Conn, path string) {
		fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
	}
	get := func(nc net.Conn) *http.Response {
		t.Helper()
		res, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		return res
	}
	busy, idle, unused, slow := dial(t, addr), dial(t, addr), dial(t, addr), dial(t, addr)
	for i, nc := range []net.Conn{busy, idle} {
		ask(nc, "/")
		if res := get(nc); res.Close {
			t.Errorf("answer %d says close before the end", i)
		}
	}
	ask(slow, "/slow")
	spy.AwaitServed(t, 3)

	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- srv.Shutdown(ctx) }()

	Await(t, "the drain to begin", func() bool {
		c := dial(t, addr)
		defer c.Close()
		ask(c, "/")
		return get(c).Close
	}, func() string { return "" })
	ask(busy, "/")
	if res := get(busy); res.StatusCode != 200 || !res.Close {
		t.Errorf("a request on an idle connection got %d, close %v", res.StatusCode, res.Close)
	}
	for _, nc := range []net.Conn{busy, idle, unused} {
		if rest, err := io.ReadAll(nc); err != nil || len(rest) > 0 {
			t.Errorf("an idle connection ended with %q, %v", rest, err)
		}
	}
	if since := time.Since(start); since < 500*time.Millisecond {
		t.Errorf("idle connections were closed after %v, without the time to learn it from an answer", since)
	}
	select {
	case err := <-ended:
		t.Errorf("Shutdown returned while a request was under way: %v", err)
	default:
	}
	close(goOn)
	if res := get(slow); res.StatusCode != 200 || !res.Close {
		t.Errorf("the request under way got %d, close %v", res.StatusCode, res.Close)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// goaway: an HTTP/2 client is told at once, and its streams end well.
func goaway(t *testing.T, e message.Engine) {
	goOn := make(chan struct{})
	spy := NewSpy(func(ex *message.Exchange) {
		<-goOn
		ex.Response = Text(200, "ok")
	})
	addr, srv := Listen(t, e, spy, Limits())
	f := newFramer(t, dial(t, addr))
	f.head(1, true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")
	spy.AwaitServed(t, 1)
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() { ended <- srv.Shutdown(ctx) }()
	if got := f.result(t); got != "GOAWAY NO_ERROR" {
		t.Errorf("got %s, want GOAWAY", got)
	}
	close(goOn)
	for got := ""; got != "200"; {
		if got = f.result(t); got == "closed" {
			t.Fatal("the stream under way was cut")
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	spy.Ends(t, 1)
}
