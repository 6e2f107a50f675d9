package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// backend is a message.Backend of a function.
type backend func(ctx context.Context, at *message.Attempt) error

func (b backend) Do(ctx context.Context, at *message.Attempt) error { return b(ctx, at) }

func answer(status int, text string) backend {
	return func(_ context.Context, at *message.Attempt) error {
		at.Endpoint = netip.MustParseAddrPort("10.0.0.1:80")
		at.Response = &message.Response{Status: status, Length: -1, Body: message.BodyOf([]byte(text))}
		return nil
	}
}

func refuse(at *message.Attempt) error {
	at.Endpoint = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.9"), uint16(len(at.Pick.Excluded)+1))
	return &message.Error{Reason: message.ReasonConnectFailed, Err: errors.New("refused")}
}

// house is a proxy with one socket and one listener, whose rules a test gives.
type house struct {
	t        *testing.T
	proxy    *Proxy
	plan     *Plan
	backends map[string]backend
	problems []string
}

var (
	gateway = snapshot.Name{Namespace: "infra", Name: "gw"}
	sock    = snapshot.SocketKey{Gateway: gateway, Port: 8080}
)

func ref(name string) snapshot.BackendRef {
	return snapshot.BackendRef{Service: snapshot.Name{Namespace: "shop", Name: name}, Port: 80}
}

func newHouse(t *testing.T, options Options, backends map[string]backend, listeners ...*snapshot.Listener) *house {
	t.Helper()
	if options.RetryBodyBytes == 0 {
		options.RetryBodyBytes = 1024
	}
	if options.Async == nil {
		options.Async = func(work func()) bool { work(); return true }
	}
	h := &house{t: t, proxy: New(options), backends: backends}
	t.Cleanup(h.proxy.Close)
	h.plan = h.build(listeners...)
	return h
}

func (h *house) build(listeners ...*snapshot.Listener) *Plan {
	s := &snapshot.Snapshot{Sockets: []snapshot.Socket{{Key: sock, SpecPort: 80, Protocol: snapshot.HTTP, Listeners: listeners}}}
	for name := range h.backends {
		s.Backends = append(s.Backends, snapshot.Backend{Ref: ref(name)})
	}
	return Builder{
		Backends: func(b snapshot.Backend) message.Backend { return h.backends[b.Ref.Service.Name] },
		Env:      func(snapshot.RuleKey) filter.Env { return filter.Env{Clock: time.Now} },
		RouteKey: func(snapshot.Name, snapshot.RuleKey) any { return nil },
		Dropped:  func(string) filter.Counter { return new(count) },
		Problem:  func(what string, err error) { h.problems = append(h.problems, what+": "+err.Error()) },
	}.Build(s)
}

type count struct{ n atomic.Int64 }

func (c *count) Add(n float64) { c.n.Add(int64(n)) }

func listenerOf(hostname string, rules ...*snapshot.Rule) *snapshot.Listener {
	l := &snapshot.Listener{Key: snapshot.ListenerKey{Gateway: gateway, Section: "http" + hostname}, Hostname: hostname}
	host := snapshot.Host{}
	for _, r := range rules {
		host.Matches = append(host.Matches, snapshot.Match{Path: snapshot.PathMatch{Kind: snapshot.PathPrefix, Value: "/" + r.Key.Name}, Rule: r})
	}
	l.Hosts = []snapshot.Host{host}
	return l
}

// rule serves the path prefix /name from a backend of that name.
func ruleOf(name string, change func(*snapshot.Rule)) *snapshot.Rule {
	r := &snapshot.Rule{
		Key:      snapshot.RuleKey{Kind: "HTTPRoute", Route: snapshot.Name{Namespace: "shop", Name: "r"}, Name: name},
		Backends: []snapshot.WeightedBackend{{Ref: ref(name), Weight: 1}},
	}
	if change != nil {
		change(r)
	}
	return r
}

func request(method, path string, fields ...message.Field) *message.Exchange {
	host, _ := message.ParseHost("shop.example.com")
	target, _, _ := message.ParseTarget(path, message.PathRules{})
	return &message.Exchange{
		Request: message.Request{
			Method: method, Scheme: "http", Host: host, Target: target, Version: message.HTTP11, Header: message.NewHeader(fields...),
		},
		Conn: &message.Conn{Socket: sock, Remote: netip.MustParseAddrPort("192.0.2.7:4711")}, Received: time.Now(),
	}
}

// do runs the exchange as an engine does and returns status and body.
func (h *house) do(ex *message.Exchange) (int, string) {
	h.t.Helper()
	return h.on(ex, h.plan)
}

func (h *house) on(ex *message.Exchange, plan *Plan) (int, string) {
	h.proxy.Serve(ex, plan)
	status, text := ex.Response.Status, ""
	if b := ex.Response.Body; b != nil {
		for {
			p, err := b.Next()
			if err != nil {
				if err != io.EOF {
					ex.Outcome.Err = err
				}
				break
			}
			text += string(p)
		}
	}
	h.proxy.Done(ex)
	ex.Request.Body.Release()
	return status, text
}

func TestARequestIsForwardedAndAnswered(t *testing.T) {
	h := newHouse(t, Options{}, map[string]backend{"cart": answer(200, "hello")}, listenerOf("", ruleOf("cart", nil)))
	ex := request("GET", "/cart/1")
	if status, text := h.do(ex); status != 200 || text != "hello" {
		t.Fatal(status, text)
	}
	if ex.Route != "HTTPRoute shop/r rule cart" || ex.BackendName != "shop/cart:80" || ex.Attempts != 1 || ex.MatchedPrefix != "/cart" {
		t.Fatalf("%q %q %d %q", ex.Route, ex.BackendName, ex.Attempts, ex.MatchedPrefix)
	}
}

func TestWhatMatchesNothingIs404WithAReason(t *testing.T) {
	h := newHouse(t, Options{}, map[string]backend{"cart": answer(200, "")}, listenerOf("other.example.com", ruleOf("cart", nil)))
	ex := request("GET", "/cart")
	if status, _ := h.do(ex); status != 404 || ex.Response.Reason != message.ReasonNoRoute || ex.Response.Origin != message.OriginProxy {
		t.Fatal(status, ex.Response)
	}
	ex = request("GET", "/nothing")
	ex.Request.Host, _ = message.ParseHost("other.example.com")
	if status, _ := h.do(ex); status != 404 {
		t.Fatal(status)
	}
}

// The most specific listener serves a host, and no other (listener isolation).
func TestAListenerIsolates(t *testing.T) {
	h := newHouse(t, Options{}, map[string]backend{"a": answer(200, "a"), "b": answer(200, "b")},
		listenerOf("", ruleOf("a", nil)), listenerOf("*.example.com", ruleOf("b", nil)))
	if status, _ := h.do(request("GET", "/a")); status != 404 {
		t.Fatal("a less specific listener served", status)
	}
	if status, text := h.do(request("GET", "/b")); status != 200 || text != "b" {
		t.Fatal(status, text)
	}
}

func TestAConnectionMadeForAnotherHostIsMisdirected(t *testing.T) {
	a, b := listenerOf("shop.example.com", ruleOf("a", nil)), listenerOf("other.example.com", ruleOf("a", nil))
	h := newHouse(t, Options{}, map[string]backend{"a": answer(200, "a")}, a, b)
	for _, s := range h.plan.sockets {
		for _, name := range []string{"shop.example.com", "other.example.com"} {
			l, _ := s.names.Match(name)
			l.secure = true
		}
	}
	ex := request("GET", "/a")
	ex.Conn.TLS = &message.TLSState{}
	for key, want := range map[snapshot.ListenerKey]int{a.Key: 200, b.Key: 421} {
		ex := request("GET", "/a")
		ex.Conn.TLS, ex.Conn.Listener = &message.TLSState{}, key
		if status, _ := h.do(ex); status != want {
			t.Errorf("connection of %v: %d, want %d", key, status, want)
		}
	}
	if status, _ := h.do(request("GET", "/a")); status != 421 {
		t.Error("a connection in the clear reaches a listener that is HTTPS now")
	}
}

func TestARefusedConnectionIsTriedElsewhereWhateverTheMethod(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		calls := 0
		h := newHouse(t, Options{ConnectRetries: 2}, map[string]backend{"a": func(ctx context.Context, at *message.Attempt) error {
			if calls++; calls < 3 {
				return refuse(at)
			}
			if len(at.Pick.Excluded) != 2 {
				t.Errorf("excluded %v", at.Pick.Excluded)
			}
			return answer(200, "ok")(ctx, at)
		}}, listenerOf("", ruleOf("a", nil)))
		ex := request(method, "/a")
		ex.Request.Body = message.BodyOf([]byte("body"))
		if status, _ := h.do(ex); status != 200 || calls != 3 || ex.Attempts != 3 {
			t.Fatal(method, status, calls)
		}
	}
}

func TestAPooledConnectionThatWasClosedIsNoReasonToFail(t *testing.T) {
	for _, c := range []struct {
		method string
		reused bool
		want   int
	}{{"GET", true, 200}, {"GET", false, 502}, {"POST", true, 502}} {
		calls := 0
		h := newHouse(t, Options{ConnectRetries: 2}, map[string]backend{"a": func(ctx context.Context, at *message.Attempt) error {
			if calls++; calls == 1 {
				at.Endpoint, at.Sent, at.Reused = netip.MustParseAddrPort("10.0.0.1:80"), message.SentHead, c.reused
				return &message.Error{Reason: message.ReasonUpstreamReset, Err: io.EOF}
			}
			return answer(200, "ok")(ctx, at)
		}}, listenerOf("", ruleOf("a", nil)))
		if status, _ := h.do(request(c.method, "/a")); status != c.want {
			t.Errorf("%s, reused %v: %d, want %d", c.method, c.reused, status, c.want)
		}
	}
}

func TestNoConnectionIs502AfterAllAttempts(t *testing.T) {
	calls := 0
	h := newHouse(t, Options{ConnectRetries: 2}, map[string]backend{"a": func(_ context.Context, at *message.Attempt) error {
		calls++
		return refuse(at)
	}}, listenerOf("", ruleOf("a", nil)))
	ex := request("GET", "/a")
	if status, _ := h.do(ex); status != 502 || calls != 3 || ex.Response.Reason != message.ReasonConnectFailed {
		t.Fatal(status, calls)
	}
}

func TestARouteSaysWhichCodesAreTriedAgain(t *testing.T) {
	for _, c := range []struct {
		method  string
		retry   snapshot.Retry
		failing int // how many answers are 503 before a 200
		status  int
		calls   int
	}{
		{"GET", snapshot.Retry{Set: true, Attempts: 3, Codes: []int{503}}, 2, 200, 3},
		{"GET", snapshot.Retry{Set: true, Attempts: 3, Codes: []int{503}}, 4, 503, 4},
		{"GET", snapshot.Retry{Set: true, Attempts: 3, Codes: []int{500}}, 1, 503, 1},
		{"GET", snapshot.Retry{Set: true, Attempts: 0, Codes: []int{503}}, 1, 503, 1},
		{"GET", snapshot.Retry{}, 1, 503, 1},
		{"POST", snapshot.Retry{Set: true, Attempts: 3, Codes: []int{503}}, 1, 503, 1},
		{"PUT", snapshot.Retry{Set: true, Attempts: 1, Codes: []int{503}, Backoff: time.Millisecond}, 1, 200, 2},
	} {
		calls := 0
		var bodies []string
		h := newHouse(t, Options{ConnectRetries: 2}, map[string]backend{"a": func(ctx context.Context, at *message.Attempt) error {
			calls++
			if at.Request.Body != nil {
				b, _ := at.Request.Body.Next()
				bodies = append(bodies, string(b))
				at.Request.Body.Next()
			}
			if calls <= c.failing {
				return answer(503, "busy")(ctx, at)
			}
			return answer(200, "ok")(ctx, at)
		}}, listenerOf("", ruleOf("a", func(r *snapshot.Rule) { r.Retry = c.retry })))
		ex := request(c.method, "/a")
		if c.method == "PUT" {
			ex.Request.Body = message.BodyOf([]byte("thing"))
		}
		if status, _ := h.do(ex); status != c.status || calls != c.calls {
			t.Errorf("%s %+v, %d failing: status %d calls %d, want %d %d", c.method, c.retry, c.failing, status, calls, c.status, c.calls)
		}
		if c.method == "PUT" && !slices.Equal(bodies, []string{"thing", "thing"}) {
			t.Errorf("bodies %q", bodies)
		}
	}
}

// hang waits until the attempt is ended from outside.
func hang(ctx context.Context, at *message.Attempt) error {
	at.Endpoint = netip.MustParseAddrPort("10.0.0.1:80")
	at.Sent = message.SentHead
	<-ctx.Done()
	return &message.Error{Reason: message.ReasonUpstreamReset, Err: ctx.Err()}
}

func TestTimeoutsEndAnAttemptAndARequest(t *testing.T) {
	for _, c := range []struct {
		name     string
		timeouts snapshot.Timeouts
		retry    snapshot.Retry
		reason   message.Reason
		attempts int
	}{
		{"attempt", snapshot.Timeouts{Backend: 20 * time.Millisecond}, snapshot.Retry{}, message.ReasonAttemptTimeout, 1},
		{"attempt, tried again", snapshot.Timeouts{Backend: 20 * time.Millisecond}, snapshot.Retry{Set: true, Attempts: 2}, message.ReasonAttemptTimeout, 3},
		{"request bounds all attempts", snapshot.Timeouts{Request: 50 * time.Millisecond, Backend: 30 * time.Millisecond}, snapshot.Retry{Set: true, Attempts: 9}, message.ReasonRequestTimeout, 2},
		{"request", snapshot.Timeouts{Request: 20 * time.Millisecond}, snapshot.Retry{Set: true, Attempts: 9}, message.ReasonRequestTimeout, 1},
	} {
		h := newHouse(t, Options{}, map[string]backend{"a": hang}, listenerOf("", ruleOf("a", func(r *snapshot.Rule) {
			r.Timeouts, r.Retry = c.timeouts, c.retry
		})))
		ex := request("GET", "/a")
		if status, _ := h.do(ex); status != 504 || ex.Response.Reason != c.reason || ex.Attempts != c.attempts {
			t.Errorf("%s: %d %v, %d attempts, want %v, %d", c.name, status, ex.Response.Reason, ex.Attempts, c.reason, c.attempts)
		}
	}
}

func TestAClientThatLeavesEndsTheAttempt(t *testing.T) {
	h := newHouse(t, Options{}, map[string]backend{"a": hang}, listenerOf("", ruleOf("a", func(r *snapshot.Rule) {
		r.Retry = snapshot.Retry{Set: true, Attempts: 9}
	})))
	ex := request("GET", "/a")
	ctx, leave := context.WithCancel(context.Background())
	ex.WithParent(ctx)
	time.AfterFunc(10*time.Millisecond, leave)
	if status, _ := h.do(ex); status != 499 || ex.Attempts != 1 {
		t.Fatal(status, ex.Attempts)
	}
}

func TestWeightsShareRequests(t *testing.T) {
	h := newHouse(t, Options{}, map[string]backend{"a": answer(200, "a"), "b": answer(200, "b")}, listenerOf("", ruleOf("a", func(r *snapshot.Rule) {
		r.Backends = []snapshot.WeightedBackend{
			{Ref: ref("a"), Weight: 70}, {Ref: ref("b"), Weight: 0}, {Weight: 30, Failure: &snapshot.Failure{Reason: "backend_invalid"}},
		}
	})))
	got := map[int]int{}
	for range 5000 {
		status, text := h.do(request("GET", "/a"))
		if text == "b" {
			t.Fatal("weight 0 is never chosen")
		}
		got[status]++
	}
	if got[200] < 3300 || got[200] > 3700 || got[500] != 5000-got[200] {
		t.Fatalf("70/30: %v", got)
	}
}

func TestARuleWithoutABackendAnswers500(t *testing.T) {
	for name, change := range map[string]func(*snapshot.Rule){
		"none":        func(r *snapshot.Rule) { r.Backends = nil },
		"all zero":    func(r *snapshot.Rule) { r.Backends[0].Weight = 0 },
		"failure":     func(r *snapshot.Rule) { r.Failure = &snapshot.Failure{Reason: "route_invalid"} },
		"not in plan": func(r *snapshot.Rule) { r.Backends[0].Ref = ref("nowhere") },
	} {
		h := newHouse(t, Options{}, map[string]backend{"a": answer(200, "")}, listenerOf("", ruleOf("a", change)))
		if status, _ := h.do(request("GET", "/a")); status != 500 {
			t.Errorf("%s: %d", name, status)
		}
	}
}

func TestForwardedFieldsAreOurs(t *testing.T) {
	var seen message.Header
	h := newHouse(t, Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Forwarded: true}, map[string]backend{
		"a": func(ctx context.Context, at *message.Attempt) error {
			seen = at.Request.Header.Clone()
			return answer(200, "")(ctx, at)
		}}, listenerOf("", ruleOf("a", nil)))

	spoofed := []message.Field{
		{Name: "X-Forwarded-For", Value: "1.1.1.1"}, {Name: "x_forwarded_for", Value: "2.2.2.2"}, {Name: "X-Forwarded-Proto", Value: "https"},
		{Name: "X-Forwarded-Prefix", Value: "/admin"}, {Name: "X-Real-IP", Value: "1.1.1.1"}, {Name: "Forwarded", Value: "for=1.1.1.1"},
		{Name: "Proxy", Value: "http://evil"}, {Name: "X-Request-Id", Value: "mine"},
	}
	ex := request("GET", "/a", spoofed...)
	h.do(ex)
	want := map[string]string{
		"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example.com", "X-Forwarded-Port": "80",
		"Forwarded": `for=192.0.2.7;host="shop.example.com";proto=http`,
	}
	for name, value := range want {
		if got, ok := seen.Only(name); !ok || got != value {
			t.Errorf("from a stranger: %s is %q, want %q", name, got, value)
		}
	}
	for _, name := range []string{"x_forwarded_for", "X-Forwarded-Prefix", "X-Real-IP", "Proxy"} {
		if seen.Has(name) {
			t.Errorf("%s passes", name)
		}
	}
	if ex.ClientIP != netip.MustParseAddr("192.0.2.7") || ex.ID == "mine" || len(ex.ID) != 32 {
		t.Errorf("client %v id %q", ex.ClientIP, ex.ID)
	}

	ex = request("GET", "/a", message.Field{Name: "X-Forwarded-For", Value: "6.6.6.6, 203.0.113.9, 10.1.1.1"}, message.Field{Name: "X-Forwarded-Proto", Value: "https"},
		message.Field{Name: "X-Request-Id", Value: "theirs"})
	ex.Conn.Remote = netip.MustParseAddrPort("[::ffff:10.0.0.5]:99")
	h.do(ex)
	if ex.ClientIP != netip.MustParseAddr("203.0.113.9") || ex.ID != "theirs" || ex.Request.Scheme != "https" {
		t.Errorf("behind a trusted proxy: client %v id %q scheme %q", ex.ClientIP, ex.ID, ex.Request.Scheme)
	}
	if got := seen.Get("X-Forwarded-For"); got != "6.6.6.6, 203.0.113.9, 10.1.1.1, 10.0.0.5" {
		t.Errorf("the chain is continued: %q", got)
	}
}

func TestAGRPCClientGetsItsStatus(t *testing.T) {
	h := newHouse(t, Options{}, map[string]backend{"a": func(_ context.Context, at *message.Attempt) error { return refuse(at) }}, listenerOf("", ruleOf("a", nil)))
	for path, want := range map[string]string{"/a": "14", "/none": "12"} {
		ex := request("POST", path, message.Field{Name: "Content-Type", Value: "application/grpc"})
		status, _ := h.do(ex)
		if got := ex.Response.Header.Get("Grpc-Status"); status != 200 || got != want || ex.Response.Body != nil {
			t.Errorf("%s: %d, grpc-status %q, want %q", path, status, got, want)
		}
	}
}

func TestAMirrorGetsACopyAndNeverSlowsTheRequest(t *testing.T) {
	var copies []string
	h := newHouse(t, Options{RetryBodyBytes: 10}, map[string]backend{
		"a": func(ctx context.Context, at *message.Attempt) error {
			for err := error(nil); at.Request.Body != nil && err == nil; {
				_, err = at.Request.Body.Next()
			}
			return answer(200, "ok")(ctx, at)
		},
		"copy": func(ctx context.Context, at *message.Attempt) error {
			content, _ := at.Request.Body.Buffer(100)
			copies = append(copies, fmt.Sprintf("%s %s %s", at.Request.Method, at.Request.Target, content))
			return answer(500, "whatever")(ctx, at)
		}}, listenerOf("", ruleOf("a", func(r *snapshot.Rule) {
		r.Mirrors = []snapshot.Mirror{{Ref: ref("copy"), Numerator: 1, Denominator: 1}}
	})))
	for _, body := range []string{"", "short", strings.Repeat("long", 10)} {
		ex := request("POST", "/a?x=1")
		ex.Request.Body = message.BodyOf([]byte(body))
		if status, text := h.do(ex); status != 200 || text != "ok" {
			t.Fatal(status, text)
		}
	}
	if want := []string{"POST /a?x=1 ", "POST /a?x=1 short"}; !slices.Equal(copies, want) {
		t.Fatalf("copies %q, want %q (what is longer than the hold is not mirrored)", copies, want)
	}
	if n := h.plan.sockets[sock]; n == nil {
		t.Fatal("no socket")
	}
}

// endless is a body that ends only when it is aborted.
type endless struct {
	stop chan struct{}
	err  atomic.Pointer[error]
}

func (e *endless) Next() ([]byte, error) {
	<-e.stop
	return nil, *e.err.Load()
}
func (e *endless) More() bool               { return false }
func (e *endless) Trailer() *message.Header { return nil }
func (e *endless) Abort(err error) {
	if e.err.CompareAndSwap(nil, &err) {
		close(e.stop)
	}
}

func TestAStreamWhoseRuleIsGoneEndsAfterTheGrace(t *testing.T) {
	stream := func(_ context.Context, at *message.Attempt) error {
		at.Endpoint = netip.MustParseAddrPort("10.0.0.1:80")
		at.Response = &message.Response{Status: 200, Body: message.NewBody(&endless{stop: make(chan struct{})}, -1, nil)}
		return nil
	}
	l := listenerOf("", ruleOf("a", func(r *snapshot.Rule) { r.Security = "v1" }))
	h := newHouse(t, Options{StreamGrace: time.Nanosecond}, map[string]backend{"a": stream}, l)

	for name, next := range map[string]*snapshot.Listener{
		"the rule is gone":     listenerOf("", ruleOf("b", nil)),
		"access rules changed": listenerOf("", ruleOf("a", func(r *snapshot.Rule) { r.Security = "v2" })),
		"the listener is gone": listenerOf("other.example.com", ruleOf("a", func(r *snapshot.Rule) { r.Security = "v1" })),
	} {
		ex := request("GET", "/a")
		h.proxy.Serve(ex, h.plan)
		h.proxy.Applied(h.plan)
		h.proxy.Applied(h.build(next))
		_, err := ex.Response.Body.Next()
		var e *message.Error
		if !errors.As(err, &e) || e.Reason != message.ReasonRuleGone {
			t.Errorf("%s: %v", name, err)
		}
		h.proxy.Done(ex)
	}
	if n := h.proxy.Count(); n != 0 {
		t.Fatalf("%d answers still registered", n)
	}
}

// proven is a filter that has everybody come in as bob, until a time.
type proven struct{ until time.Time }

func (proven) FilterName() string { return "auth" }
func (proven) String() string     { return "proven" }
func (p proven) Build(filter.Env) (filter.Faces, error) {
	return filter.Faces{Request: func(ex *message.Exchange) filter.Verdict {
		ex.Identity = &message.Identity{Subject: "bob", Expires: p.until}
		return filter.Continue
	}}, nil
}

func TestAStreamEndsWithTheIdentityByWhichItCameIn(t *testing.T) {
	var now atomic.Int64 // seconds
	end := time.Unix(1_700_000_000, 0)
	now.Store(end.Unix() - 60)
	clock := func() time.Time { return time.Unix(now.Load(), 0) }
	came := func(name string, until time.Time) *snapshot.Rule {
		return ruleOf(name, func(r *snapshot.Rule) { r.Filters = []snapshot.Filter{proven{until}} })
	}
	backends := map[string]backend{}
	for _, name := range []string{"body", "grpc", "tunnel", "forever"} {
		backends[name] = func(_ context.Context, at *message.Attempt) error {
			at.Response = &message.Response{Status: 200, Body: message.NewBody(&endless{stop: make(chan struct{})}, -1, nil)}
			if name == "tunnel" {
				at.Response = &message.Response{Status: 101, Tunnel: func(client message.Tunnel) message.Outcome {
					_, err := client.Read(make([]byte, 1))
					return message.Outcome{Reason: message.ReasonResponseTruncated, Err: err}
				}}
			}
			return nil
		}
	}
	h := newHouse(t, Options{Clock: clock}, backends,
		listenerOf("", came("body", end), came("grpc", end), came("tunnel", end), came("forever", time.Time{})))
	serve := func(path string, fields ...message.Field) *message.Exchange {
		ex := request("POST", path, fields...)
		h.proxy.Serve(ex, h.plan)
		return ex
	}
	body, forever := serve("/body"), serve("/forever")
	call := serve("/grpc", message.Field{Name: "Content-Type", Value: "application/grpc"})
	tunnel := serve("/tunnel")
	all := []*message.Exchange{body, forever, call, tunnel}
	defer func() {
		for _, ex := range all {
			h.proxy.Done(ex)
		}
	}()
	h.proxy.streams.expire()
	h.proxy.streams.sweep(func(s *stream) {
		if e, ok := s.inner.(*endless); ok && e.err.Load() != nil {
			t.Error("cut before its time")
		}
	})

	now.Store(end.Unix())
	_, err := body.Response.Body.Next()
	var e *message.Error
	if !errors.As(err, &e) || e.Reason != message.ReasonIdentityExpired {
		t.Errorf("a body ends with %v", err)
	}
	if _, err := call.Response.Body.Next(); err != io.EOF {
		t.Errorf("a gRPC call ends with %v", err)
	}
	if trailer := call.Response.Body.Trailer(); trailer.Get("Grpc-Status") != "16" || trailer.Get("Grpc-Message") == "" {
		t.Errorf("trailers %v", trailer)
	}
	there, here := net.Pipe()
	defer there.Close()
	if out := tunnel.Response.Tunnel(piped{here}); out.Reason != message.ReasonIdentityExpired {
		t.Errorf("a tunnel ends with %v", out)
	}
	if inner := forever.State.(*life).stream.inner.(*endless); inner.err.Load() != nil {
		t.Error("an identity without an end has one")
	}

	h.proxy.Done(call)
	all = []*message.Exchange{body, forever, tunnel}
	if call.Outcome.Reason != message.ReasonIdentityExpired {
		t.Errorf("the log says %q of the call", call.Outcome.Reason)
	}
}

type piped struct{ net.Conn }

func (piped) CloseWrite() error { return nil }

// pieces is a request body that comes in pieces; each is taken before the next.
type pieces struct{ next func() ([]byte, error) }

func (p *pieces) Next() ([]byte, error)    { return p.next() }
func (p *pieces) More() bool               { return false }
func (p *pieces) Trailer() *message.Header { return nil }
func (p *pieces) Abort(error)              {}

func TestNoPieceOfARequestIsTakenOnceTheIdentityHasEnded(t *testing.T) {
	end := time.Unix(1_700_000_000, 0)
	now := end.Add(-time.Second)
	var got []string
	upload := func(_ context.Context, at *message.Attempt) error {
		for {
			p, err := at.Request.Body.Next()
			if err == io.EOF {
				return answer(200, "")(context.Background(), at)
			}
			if err != nil {
				return err
			}
			got = append(got, string(p))
		}
	}
	var left []string
	body := func() *message.Body {
		return message.NewBody(&pieces{func() ([]byte, error) {
			if len(left) == 0 {
				return nil, io.EOF
			}
			p := left[0]
			if left = left[1:]; p == "late" {
				now = end
			}
			return []byte(p), nil
		}}, -1, nil)
	}
	h := newHouse(t, Options{Clock: func() time.Time { return now }}, map[string]backend{"a": upload},
		listenerOf("", ruleOf("a", func(r *snapshot.Rule) { r.Filters = []snapshot.Filter{proven{end}} })))
	h.proxy.Close() // its ticker reads the clock, too

	for _, c := range []struct {
		pieces []string
		status int
		taken  []string
	}{
		{[]string{"one", "two"}, 200, []string{"one", "two"}},
		{[]string{"one", "late", "more"}, 401, []string{"one"}},
	} {
		got, left = nil, c.pieces
		ex := request("POST", "/a")
		ex.Request.Body = body()
		if status, _ := h.do(ex); status != c.status || !slices.Equal(got, c.taken) {
			t.Errorf("%v: %d, and the backend got %v", c.pieces, status, got)
		}
		if c.status == 401 && ex.Response.Reason != message.ReasonIdentityExpired {
			t.Errorf("refused with %v", ex.Response.Reason)
		}
	}
}

func TestAStreamThatIdlesIsCut(t *testing.T) {
	h := newHouse(t, Options{StreamIdle: time.Millisecond}, map[string]backend{"a": func(_ context.Context, at *message.Attempt) error {
		at.Response = &message.Response{Status: 200, Body: message.NewBody(&endless{stop: make(chan struct{})}, -1, nil)}
		return nil
	}}, listenerOf("", ruleOf("a", nil)))
	ex := request("GET", "/a")
	h.proxy.Serve(ex, h.plan)
	if _, err := ex.Response.Body.Next(); err == nil {
		t.Fatal("an idle stream goes on")
	}
	h.proxy.Done(ex)
}

func TestWhatAnEngineRefusedByItselfOnlyEnds(t *testing.T) {
	h := newHouse(t, Options{}, nil, listenerOf(""))
	h.proxy.Done(&message.Exchange{Response: message.Respond(message.OriginProxy, 400, "text/plain", "no")})
}
