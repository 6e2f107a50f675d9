package contracts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/ratelimit"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Connections are shared by those who agree on endpoint, protocol and TLS, whatever their backend; never by those who don't.
func TestContract16_ConnectionsAreSharedByTheirKeyAndNotByBackend(t *testing.T) {
	b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	h := open(t, options{})
	for _, name := range []string{"a", "b", "h2c"} {
		h.endpoints(name, b.address)
	}
	h.serve(rule("a", "a"), rule("b", "b"), rule("h2c", "h2c"))
	asked := 0
	for range 3 {
		for path, want := range map[string]string{"/a": "HTTP/1.1", "/b": "HTTP/1.1", "/h2c": "HTTP/2.0"} {
			if status, proto := h.get(path); status != 200 || proto != want {
				t.Errorf("%s: %d %s, want %s", path, status, proto, want)
			}
			asked++
			h.tally.last(t, asked) // the connection is idle again
		}
	}
	if made, _ := b.connections(); made != 2 {
		t.Errorf("%d connections, want one of HTTP/1.1 for two backends, and one of HTTP/2", made)
	}
}

// One backend's failures say nothing about the endpoint for another one.
func TestContract16_OneBackendsFailuresDoNotHurtAnotherOnTheSameEndpoint(t *testing.T) {
	b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/bad") {
			panic(http.ErrAbortHandler)
		}
		ok(w, r)
	})
	h := open(t, options{})
	h.endpoints("bad", b.address)
	h.endpoints("good", b.address)
	h.serve(rule("bad", "bad"), rule("good", "good"))
	for range 20 {
		h.get("/bad")
		if status, _ := h.get("/good"); status != 200 {
			t.Fatal(status)
		}
	}
}

// A new route never answers 503 for endpoints that were told before the plan.
func TestContract17_EndpointsThatWereToldBeforeServeFromTheFirstRequestOn(t *testing.T) {
	b := serveHTTP(t, ok)
	h := open(t, options{})
	h.serve()
	for i := range 30 {
		name := fmt.Sprintf("b%d", i)
		h.endpoints(name, b.address)
		h.serve(rule(name, name))
		if status, _ := h.get("/" + name); status != 200 {
			t.Fatalf("%s: %d", name, status)
		}
	}
}

func TestContract17_NeverToldDiffersFromEmpty(t *testing.T) {
	h := open(t, options{})
	h.serve(rule("a", "a"))
	for i, want := range []message.Reason{message.ReasonEndpointsPending, message.ReasonNoEndpoint} {
		status, _ := h.get("/a")
		if got := h.tally.last(t, i+1).reason; status != 503 || got != want {
			t.Errorf("%d %v, want %v", status, got, want)
		}
		h.endpoints("a")
	}
}

// Address and port of an endpoint change together: there is no moment in which one is old and the other new.
func TestContract17_AddressAndPortChangeTogether(t *testing.T) {
	var mu sync.Mutex // guards bad
	var bad []netip.AddrPort
	var asked atomic.Int64
	a, b := netip.MustParseAddrPort("10.0.0.1:1001"), netip.MustParseAddrPort("10.0.0.2:1002")
	h := open(t, options{transport: func(k message.ConnKey, _ message.TransportOptions) message.Transport {
		return transport(func(_ context.Context, at *message.Attempt) error {
			asked.Add(1)
			if at.Endpoint != a && at.Endpoint != b || at.Conn.Endpoint != at.Endpoint || k != at.Conn {
				mu.Lock()
				bad = append(bad, at.Endpoint)
				mu.Unlock()
			}
			at.Response, at.Sent = &message.Response{Status: 200, Length: -1}, message.SentBody
			return nil
		})
	}})
	h.endpoints("a", a)
	h.serve(rule("a", "a"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		c := h.dial()
		defer c.close()
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if status, _ := c.ask("GET", "/a", ""); status != 200 {
						t.Error(status)
						return
					}
				}
			}
		})
	}
	for i := 0; i < 500 || asked.Load() < 200; i++ {
		h.endpoints("a", []netip.AddrPort{a, b}[i%2])
		runtime.Gosched()
	}
	close(stop)
	wg.Wait()
	if len(bad) > 0 {
		t.Errorf("%d attempts went to %v", len(bad), bad[0])
	}
}

// transport is one of a function.
type transport func(context.Context, *message.Attempt) error

func (f transport) RoundTrip(ctx context.Context, at *message.Attempt) error { return f(ctx, at) }
func (transport) Retire()                                                    {}
func (transport) Revive()                                                    {}

// An endpoint that leaves finishes what is under way to it, and keeps no idle connection.
func TestContract18_WhatLeavesThePlanFinishesItsWork(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/a/held" {
			close(reached)
			<-release
		}
		ok(w, r)
	})
	h := open(t, options{})
	h.endpoints("a", b.address)
	h.serve(rule("a", "a"))
	h.get("/a")
	done := make(chan int)
	go func() { status, _ := h.get("/a/held"); done <- status }()
	<-reached
	h.endpoints("a")
	h.serve()
	if status, _ := h.get("/a"); status != 404 {
		t.Error(status)
	}
	close(release)
	if status := <-done; status != 200 {
		t.Errorf("what was under way: %d", status)
	}
	until(t, "connections to what has left are closed", func() bool { _, open := b.connections(); return open == 0 })
}

// A policy that flaps gives nobody a fresh quota; one that was away for longer than the grace does.
func TestContract18_APolicyThatFlapsKeepsItsCounters(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	h := open(t, options{clock: func() time.Time { return time.Unix(0, now.Load()) }})
	h.endpoints("a", serveHTTP(t, ok).address)
	limit := ratelimit.Config{Limits: []ratelimit.Limit{{
		Policy: ratelimit.Policy{UID: "u", Name: gateway}, Name: "three", Rates: []ratelimit.Rate{{Requests: 3, Window: 24 * time.Hour}},
	}}}
	h.serve(rule("a", "a", with(limit)))
	for i := range 5 {
		want := 200
		if i >= 3 {
			want = 429
		}
		if status, _ := h.get("/a"); status != want {
			t.Errorf("request %d: %d, want %d", i, status, want)
		}
		h.serve(rule("a", "a"))
		now.Add(int64(4 * time.Minute))
		h.serve(rule("a", "a", with(limit)))
	}
	h.serve(rule("a", "a"))
	now.Add(int64(6 * time.Minute))
	h.serve(rule("a", "a"))
	h.serve(rule("a", "a", with(limit)))
	if status, _ := h.get("/a"); status != 200 {
		t.Errorf("after the grace: %d", status)
	}
}

// A filter whose building panics costs its rule, and neither this Apply nor the next: what it was about to keep is made then.
func TestContract18_APanicWhileAThingIsMadeLeavesNothingBehind(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	type key struct{}
	panics := true
	f := probe{"kept", func(env filter.Env) (filter.Faces, error) {
		keep.Get(env.Keep, key{}, func() int {
			if panics {
				panic("oh")
			}
			return 1
		})
		return filter.Faces{Done: func(*message.Exchange) {}}, nil
	}}
	h.serve(rule("a", "a", with(f)))
	if status, _ := h.get("/a"); status != 500 {
		t.Error(status)
	}
	panics = false
	applied := make(chan struct{})
	go func() { defer close(applied); h.serve(rule("a", "a", with(f))) }()
	closed(t, "the next Apply", applied)
	if status, _ := h.get("/a"); status != 200 {
		t.Error(status)
	}
}

// canary is a filter on a rule that nothing long-lived uses: as long as its plan is held, it is.
func canary(freed *atomic.Int64) probe {
	return probe{"canary", func(filter.Env) (filter.Faces, error) {
		held := new([1 << 10]byte)
		runtime.AddCleanup(held, func(n *atomic.Int64) { n.Add(1) }, freed)
		return filter.Faces{Request: func(*message.Exchange) filter.Verdict { held[0]++; return filter.Continue }}, nil
	}}
}

// Streams that live over many edits hold their rule, and no plan.
func TestContract19_LongStreamsHoldNoPlan(t *testing.T) {
	streams, edits := 1000, 60
	if testing.Short() {
		streams = 100
	}
	h := open(t, options{transport: func(message.ConnKey, message.TransportOptions) message.Transport {
		return transport(func(_ context.Context, at *message.Attempt) error {
			switch {
			case at.Request.Target.Path != "/stream":
				at.Response = &message.Response{Status: 200, Length: -1}
			case at.Request.Upgrade == "":
				at.Response = &message.Response{Status: 200, Length: -1, Body: message.NewBody(newSilent("hello"), -1, nil)}
			default:
				at.Response = &message.Response{Status: 101, Length: -1, Upgrade: "websocket", Tunnel: func(c message.Tunnel) message.Outcome {
					if c != nil {
						io.Copy(io.Discard, c)
						c.Close()
					}
					return message.Outcome{}
				}}
			}
			return nil
		})
	}})
	h.endpoints("a", netip.MustParseAddrPort("10.0.0.1:80"))
	var freed atomic.Int64
	edit := func() { h.serve(rule("stream", "a"), rule("other", "a", with(canary(&freed)))) }
	edit()
	// Streams are many on few connections, tunnels are few.
	var bodies []io.Closer
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	for i := range edits {
		c := client(t, true)
		c.Timeout = 0
		for range streams / edits {
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+h.address()+"/stream", nil)
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.ReadFull(res.Body, make([]byte, 5))
			bodies = append(bodies, res.Body)
		}
		if i%3 == 0 {
			w := tunnelTo(h, "/stream")
			defer w.close()
		}
		h.get("/other")
		edit()
	}
	until(t, "the plans before the last are freed", func() bool {
		runtime.GC()
		return int(freed.Load()) >= edits-1 // the data plane may hold one more than serves, for a moment
	})
	if served, ended := h.tally.count(); served-ended < len(bodies)+edits/3 {
		t.Errorf("%d streams are open, want %d: nothing was proved", served-ended, len(bodies)+edits/3)
	}
	leave()
	for _, b := range bodies {
		b.Close()
	}
}

// silent is a body that says one thing and then waits until it is given up.
type silent struct {
	say  string
	gone chan struct{}
	once sync.Once
	err  error
}

func newSilent(say string) *silent { return &silent{say: say, gone: make(chan struct{})} }

func (s *silent) Next() ([]byte, error) {
	if p := s.say; p != "" {
		s.say = ""
		return []byte(p), nil
	}
	<-s.gone
	return nil, s.err
}
func (s *silent) More() bool               { return s.say != "" }
func (s *silent) Trailer() *message.Header { return nil }
func (s *silent) Abort(err error) {
	s.once.Do(func() {
		if s.err = err; err == nil {
			s.err = io.ErrUnexpectedEOF
		}
		close(s.gone)
	})
}

// What lost its rule, or whose access rules changed, is closed after the grace: a body and a tunnel, begun before the change or while
// its answer was still awaited. What comes back in time stays.
func TestContract19_AStreamWithoutItsRuleIsClosedAfterTheGrace(t *testing.T) {
	secured := func(s string) func(*snapshot.Rule) { return func(r *snapshot.Rule) { r.Security = s } }
	release := make(chan struct{}, 10)
	b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/late") {
			<-release
		}
		if r.Header.Get("Upgrade") != "" {
			nc, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				io.Copy(io.Discard, nc)
				nc.Close()
			}
			return
		}
		io.WriteString(w, "hello")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	h := open(t, options{settings: func(s *dataplane.Settings) { s.StreamGrace = time.Millisecond }})
	h.endpoints("a", b.address)
	h.serve(rule("gone", "a"), rule("guarded", "a", secured("v1")), rule("stays", "a"))

	type stream struct {
		path string
		c    *conn
	}
	var streams []stream
	start := func(path string, upgrade bool) {
		c := h.dial()
		fields := ""
		if upgrade {
			fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
		}
		c.send("GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n", path, fields)
		streams = append(streams, stream{path, c})
	}
	for _, path := range []string{"/gone", "/guarded", "/stays", "/gone/late", "/guarded/late", "/stays/late"} {
		start(path, false)
		start(path, true)
	}
	until(t, "all are under way", func() bool { served, _ := h.tally.count(); return served == len(streams) })
	head := func(s stream) {
		if line, err := s.c.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 ") {
			t.Errorf("%s: %q %v", s.path, line, err)
		}
	}
	for _, s := range streams {
		if !strings.HasSuffix(s.path, "/late") {
			head(s)
		}
	}
	h.serve(rule("guarded", "a", secured("v2")), rule("stays", "a"))
	for range 6 {
		release <- struct{}{}
	}
	for _, s := range streams {
		if strings.HasSuffix(s.path, "/late") {
			head(s)
		}
		if strings.HasPrefix(s.path, "/stays") {
			continue
		}
		if _, err := io.Copy(io.Discard, s.c.r); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s goes on", s.path)
		}
		s.c.close()
	}
	until(t, "eight have ended", func() bool { _, ended := h.tally.count(); return ended == 8 })
	h.tally.mu.Lock()
	for _, e := range h.tally.ends {
		if e.reason != message.ReasonRuleGone {
			t.Errorf("%s ended with %v", e.target, e.reason)
		}
	}
	h.tally.mu.Unlock()
	for _, s := range streams {
		s.c.close()
	}
}

// A stream on which the client alone speaks is under way, not idle.
func TestContract19_AStreamThatOnlyUploadsIsNotIdle(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	h := open(t, options{
		settings: func(s *dataplane.Settings) { s.StreamIdle = time.Hour },
		clock:    func() time.Time { return time.Unix(0, now.Load()) },
	})
	got := make(chan struct{}, 100)
	h.endpoints("h2c", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			got <- struct{}{}
		}
		io.WriteString(w, "thanks")
	}).address)
	h.serve(rule("a", "h2c"))
	in, out := io.Pipe()
	req, _ := http.NewRequest("POST", "http://"+h.address()+"/a", in)
	req.Header.Set("Content-Type", "application/grpc")
	res, err := client(t, true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for range 5 {
		fmt.Fprintln(out, "piece")
		closed(t, "a piece", got)
		now.Add(int64(20 * time.Minute))
	}
	time.Sleep(1500 * time.Millisecond) // the registry looks once a second
	out.Close()
	if text, err := io.ReadAll(res.Body); string(text) != "thanks" || err != nil {
		t.Errorf("%q %v", text, err)
	}
}
