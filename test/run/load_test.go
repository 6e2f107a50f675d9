package run

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// load is clients that ask all the time, and look at every answer. None of them tries again in silence: over HTTP/1.1 they write bytes
// themselves, since net/http's client repeats a request whose connection was closed.
type load struct {
	t        testing.TB
	w        world
	path     string
	check    func(r reply) string // what is wrong with an answer; "" nothing
	leaving  atomic.Bool          // the gateway was told to go: refused connections are no failures any more
	stop     chan struct{}
	clients  sync.WaitGroup
	requests atomic.Int64
	closes   atomic.Int64 // connections that the gateway asked to end
	failed   atomic.Int64
}

// newLoad starts n clients of each kind: HTTP/1.1 that keeps its connection, HTTP/1.1 with a new one for each request, HTTP/2.
func newLoad(t testing.TB, w world, path string, n int) *load {
	l := &load{t: t, w: w, path: path, stop: make(chan struct{}), check: func(r reply) string {
		if r.status != 200 || r.Backend != "blue" && r.Backend != "green" || r.Target != path {
			return "not what was asked for"
		}
		return ""
	}}
	l.start(n)
	return l
}

func (l *load) start(n int) {
	for range n {
		l.clients.Go(func() { l.one(true) })
		l.clients.Go(func() { l.one(false) })
		l.clients.Go(l.two)
	}
}

// end stops the clients, and fails the test if any request failed.
func (l *load) end() {
	l.t.Helper()
	close(l.stop)
	l.clients.Wait()
	if l.requests.Load() == 0 {
		l.t.Error("no request was made")
	}
	if n := l.failed.Load(); n > 0 {
		l.t.Errorf("%d of %d requests failed", n, l.requests.Load())
	}
}

func (l *load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (l *load) wrong(format string, args ...any) {
	if l.failed.Add(1) <= 10 {
		l.t.Errorf("%s %s", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
	}
}

// one is a client of HTTP/1.1.
func (l *load) one(keep bool) {
	fields := "Host: example.com\r\n"
	if !keep {
		fields += "Connection: close\r\n"
	}
	for !l.stopped() {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", l.w.port), patience)
		if err != nil {
			if l.leaving.Load() && errors.Is(err, syscall.ECONNREFUSED) {
				return
			}
			l.wrong("dial: %v", err)
			return
		}
		l.connection(conn, fields)
		conn.Close()
	}
}

// connection asks until the gateway says that the connection ends.
func (l *load) connection(conn net.Conn, fields string) {
	r := bufio.NewReader(conn)
	for first := true; !l.stopped(); first = false {
		conn.SetDeadline(time.Now().Add(patience))
		_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\n%s\r\n", l.path, fields)
		var resp *http.Response
		if err == nil {
			resp, err = http.ReadResponse(r, nil)
		}
		if err != nil {
			// A connection that stood in the queue of a socket that closes is reset before anybody read it.
			if first && l.leaving.Load() && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
				return
			}
			l.wrong("HTTP/1.1, first %v: %v", first, err)
			return
		}
		l.look(resp)
		if resp.Close {
			l.closes.Add(1)
			return
		}
	}
}

func (l *load) look(resp *http.Response) {
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	l.requests.Add(1)
	r := reply{status: resp.StatusCode, header: resp.Header}
	if err == nil && resp.StatusCode == 200 && len(text) > 0 && bytes.HasPrefix(text, []byte("{")) {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		l.wrong("%v: %d %.100q", err, resp.StatusCode, text)
		return
	}
	if problem := l.check(r); problem != "" {
		l.wrong("%s: %d %v %.300q", problem, resp.StatusCode, resp.Header, text)
	}
}

// two is a client of HTTP/2.
func (l *load) two() {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	for !l.stopped() {
		resp, err := client.Get(l.w.url(l.path))
		if err != nil {
			if l.leaving.Load() && (errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "connection reset")) {
				return
			}
			l.wrong("HTTP/2: %v", err)
			return
		}
		l.look(resp)
	}
}
