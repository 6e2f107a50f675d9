package contracts

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/mem"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// house is a whole data plane on loopback, over wire/nethttp on both sides unless a test gives another transport, with one Gateway that
// has one socket. A tally stands between engine and data plane.
type house struct {
	t      testing.TB
	plane  *dataplane.DataPlane
	seen   *telemetry.Telemetry
	log    *text // the access log
	errors *text // what the data plane finds worth a line
	key    snapshot.SocketKey
	tally  *tally
}

var gateway = snapshot.Name{Namespace: "infra", Name: "gw"}

// options are what a house can be given.
type options struct {
	settings  func(*dataplane.Settings)
	transport message.TransportFactory
	clock     func() time.Time
	log       io.Writer // nil: a text that the house keeps
	queue     int
}

func open(t testing.TB, o options) *house {
	t.Helper()
	h := &house{t: t, log: &text{}, errors: &text{}, key: snapshot.SocketKey{Gateway: gateway, Address: netip.MustParseAddr("127.0.0.1"), Port: freePort(t)}}
	if o.log == nil {
		o.log = h.log
	}
	seen, err := telemetry.New(telemetry.Options{Log: o.log, LogQueue: o.queue})
	if err != nil {
		t.Fatal(err)
	}
	settings := dataplane.Defaults()
	settings.LocalEndpoints = true
	if o.settings != nil {
		o.settings(&settings)
	}
	if o.transport == nil {
		o.transport = nethttp.NewTransport
	}
	h.seen, h.tally = seen, newTally(nethttp.New())
	h.plane = dataplane.New(dataplane.Options{
		Settings: settings, Engine: h.tally, Transport: o.transport, Telemetry: seen, Clock: o.clock, Log: slog.New(slog.NewTextHandler(h.errors, nil)),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		h.shutdown(ctx)
		seen.Close(ctx)
		h.tally.check(t)
	})
	return h
}

// shutdown may be called by a test too, once.
func (h *house) shutdown(ctx context.Context) error {
	plane := h.plane
	if plane == nil {
		return nil
	}
	h.plane = nil
	return plane.Shutdown(ctx)
}

// serve applies a snapshot of one listener for HTTP with these rules, each under the path of its name.
func (h *house) serve(rules ...*snapshot.Rule) {
	h.t.Helper()
	h.apply(listener("http", "", rules...))
}

func (h *house) apply(listeners ...*snapshot.Listener) {
	h.t.Helper()
	h.applySnapshot(h.snapshot(listeners...))
}

func (h *house) applySnapshot(s *snapshot.Snapshot) {
	h.t.Helper()
	for _, b := range h.plane.Apply(s).Sockets {
		if b.Err != nil {
			h.t.Fatal(b.Err)
		}
	}
}

// snapshot has every backend that a rule names.
func (h *house) snapshot(listeners ...*snapshot.Listener) *snapshot.Snapshot {
	s := &snapshot.Snapshot{Sockets: []snapshot.Socket{{Key: h.key, SpecPort: h.key.Port, Protocol: snapshot.HTTP, Listeners: listeners}}}
	named := map[snapshot.BackendRef]bool{}
	add := func(ref snapshot.BackendRef) {
		if named[ref] || ref.Service.Name == "" {
			return
		}
		named[ref] = true
		b := snapshot.Backend{Ref: ref}
		if strings.HasPrefix(ref.Service.Name, "h2c") {
			b.Protocol = snapshot.BackendH2C
		}
		s.Backends = append(s.Backends, b)
	}
	for _, l := range listeners {
		if l.TLS != nil {
			s.Sockets[0].Protocol = snapshot.HTTPS
		}
		for _, host := range l.Hosts {
			for _, m := range host.Matches {
				for _, b := range m.Rule.Backends {
					add(b.Ref)
				}
				for _, m := range m.Rule.Mirrors {
					add(m.Ref)
				}
			}
		}
	}
	return s
}

// endpoints tells the data plane where backends are.
func (h *house) endpoints(name string, addresses ...netip.AddrPort) {
	set := snapshot.Endpoints{Backend: ref(name)}
	for _, a := range addresses {
		set.Endpoints = append(set.Endpoints, snapshot.Endpoint{Address: a})
	}
	h.plane.SetEndpoints([]snapshot.Endpoints{set})
}

func ref(name string) snapshot.BackendRef {
	return snapshot.BackendRef{Service: snapshot.Name{Namespace: "shop", Name: name}, Port: 80}
}

// rule is named as its path; it forwards to the backend, if that has a name.
func rule(name, backend string, change ...func(*snapshot.Rule)) *snapshot.Rule {
	r := &snapshot.Rule{Key: snapshot.RuleKey{Kind: "HTTPRoute", Route: snapshot.Name{Namespace: "shop", Name: "r"}, Name: name}}
	if backend != "" {
		r.Backends = []snapshot.WeightedBackend{{Ref: ref(backend), Weight: 1}}
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func with(filters ...snapshot.Filter) func(*snapshot.Rule) {
	return func(r *snapshot.Rule) { r.Filters = append(r.Filters, filters...) }
}

func onBackend(filters ...snapshot.Filter) func(*snapshot.Rule) {
	return func(r *snapshot.Rule) { r.Backends[0].Filters = filters }
}

func listener(section, hostname string, rules ...*snapshot.Rule) *snapshot.Listener {
	l := &snapshot.Listener{Key: snapshot.ListenerKey{Gateway: gateway, Section: section}, Hostname: hostname, Hosts: []snapshot.Host{{}}}
	for _, r := range rules {
		l.Hosts[0].Matches = append(l.Hosts[0].Matches, snapshot.Match{Path: snapshot.PathMatch{Kind: snapshot.PathPrefix, Value: "/" + r.Key.Name}, Rule: r})
	}
	return l
}

// probe is a filter of a test's own.
type probe struct {
	name  string
	build func(env filter.Env) (filter.Faces, error)
}

func (p probe) FilterName() string                         { return p.name }
func (p probe) String() string                             { return p.name }
func (p probe) Build(env filter.Env) (filter.Faces, error) { return p.build(env) }

// faces is a probe that needs no environment.
func faces(name string, f filter.Faces) probe {
	return probe{name, func(filter.Env) (filter.Faces, error) { return f, nil }}
}

// tally is an engine that counts what passes between the real one and the data plane, and finds a second end, or an end of nothing.
type tally struct {
	real message.Engine

	mu      sync.Mutex // guards what follows
	handler message.Handler
	open    map[*message.Exchange]bool
	served  int
	ends    []end
	faults  []string
}

// end is how an exchange ended.
type end struct {
	served  bool // false: the engine refused it by itself
	status  int
	reason  message.Reason // of outcome, or else of the answer
	outcome message.Outcome
	origin  message.Origin
	target  string
}

func newTally(real message.Engine) *tally {
	return &tally{real: real, open: map[*message.Exchange]bool{}}
}

func (c *tally) Open(h message.Handler, limits message.Limits) message.Server {
	c.mu.Lock()
	c.handler = h
	c.mu.Unlock()
	return c.real.Open(tallied{c, h}, limits)
}

type tallied struct {
	c *tally
	h message.Handler
}

func (t tallied) Serve(ex *message.Exchange) {
	t.c.mu.Lock()
	if t.c.open[ex] {
		t.c.faults = append(t.c.faults, "Serve again before Done")
	}
	t.c.open[ex] = true
	t.c.served++
	t.c.mu.Unlock()
	t.h.Serve(ex)
}

// Done counts when the data plane has ended it, but looks before: nothing of an exchange is anybody's afterwards.
func (t tallied) Done(ex *message.Exchange) {
	t.c.mu.Lock()
	e := end{served: t.c.open[ex], outcome: ex.Outcome, reason: ex.Outcome.Reason, target: ex.Request.Target.Raw}
	if !e.served && ex.State != nil {
		t.c.faults = append(t.c.faults, "Done twice")
	}
	t.c.mu.Unlock()
	if r := ex.Response; r != nil {
		e.status, e.origin = r.Status, r.Origin
		if e.reason == message.ReasonNone {
			e.reason = r.Reason
		}
	}
	defer func() {
		t.c.mu.Lock()
		delete(t.c.open, ex)
		t.c.ends = append(t.c.ends, e)
		t.c.mu.Unlock()
	}()
	t.h.Done(ex)
}

// check says whether whatever was served has ended, and once.
func (c *tally) check(t testing.TB) {
	t.Helper()
	until(t, "all exchanges have ended", func() bool { // the last ones may end behind their connections
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.open) == 0
	})
	for _, f := range c.faults {
		t.Error(f)
	}
}

// last waits until n exchanges have ended, and nothing is under way, and returns the last end.
func (c *tally) last(t testing.TB, n int) end {
	t.Helper()
	var e end
	until(t, fmt.Sprintf("%d exchanges end", n), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.ends) < n || len(c.open) > 0 {
			return false
		}
		e = c.ends[len(c.ends)-1]
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ends) != n {
		t.Errorf("%d exchanges have ended, want %d", len(c.ends), n)
	}
	return e
}

func (c *tally) count() (served, ended int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.served, len(c.ends)
}

// mem is a Runner of the engine without sockets on the same data plane, as a client of its socket.
func (h *house) mem() *mem.Runner {
	h.t.Helper()
	_, before := h.tally.count()
	h.get("/") // the data plane gives its handler to an engine when the first connection comes
	until(h.t, "that has ended", func() bool { _, ended := h.tally.count(); return ended > before })
	h.tally.mu.Lock()
	defer h.tally.mu.Unlock()
	return &mem.Runner{
		Handler: tallied{h.tally, h.tally.handler}, Limits: message.Limits{MaxInform: 16},
		Conn: &message.Conn{Socket: h.key, Remote: netip.MustParseAddrPort("192.0.2.7:4711"), Local: netip.MustParseAddrPort("192.0.2.1:80")},
	}
}

func (h *house) address() string { return netip.AddrPortFrom(h.key.Address, h.key.Port).String() }

// figure is the sum of all series of a metric, those only whose labels have all these words.
func (h *house) figure(name string, labels ...string) (sum float64) {
	h.t.Helper()
	w := httptest.NewRecorder()
	h.seen.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	line := regexp.MustCompile(`(?m)^gatehouse_(?:` + name + `)(?:\{([^}]*)\})? (\S+)$`)
lines:
	for _, m := range line.FindAllStringSubmatch(w.Body.String(), -1) {
		for _, l := range labels {
			if !strings.Contains(m[1], l) {
				continue lines
			}
		}
		n, _ := strconv.ParseFloat(m[2], 64)
		sum += n
	}
	return sum
}

// client is a client of net/http: over HTTP/1.1, or over HTTP/2 with prior knowledge.
func client(t testing.TB, h2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, ExpectContinueTimeout: patience}
	if h2 {
		tr.Protocols.SetUnencryptedHTTP2(true)
	} else {
		tr.Protocols.SetHTTP1(true)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get asks on a connection of its own; fields are "Name: value".
func (h *house) get(path string, fields ...string) (int, string) {
	h.t.Helper()
	c := h.dial()
	defer c.close()
	return c.ask("GET", path, "", append(fields, "Connection: close")...)
}

// conn is a client's connection over HTTP/1.1, byte by byte.
type conn struct {
	t testing.TB
	*net.TCPConn
	r *bufio.Reader
}

func (h *house) dial() *conn {
	h.t.Helper()
	nc, err := net.DialTimeout("tcp", h.address(), patience)
	if err != nil {
		h.t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(patience))
	return &conn{h.t, nc.(*net.TCPConn), bufio.NewReader(nc)}
}

func (c *conn) close() { c.TCPConn.Close() }

func (c *conn) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.TCPConn, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// ask sends a request and reads its answer.
func (c *conn) ask(method, path, body string, fields ...string) (int, string) {
	c.t.Helper()
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: shop.example.com\r\n", method, path)
	for _, f := range fields {
		head += f + "\r\n"
	}
	if body != "" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	c.send("%s\r\n%s", head, body)
	res, text := c.answer(method)
	if res == nil {
		return 0, ""
	}
	return res.StatusCode, text
}

// answer reads the next answer, 1xx included; nil when the connection has ended.
func (c *conn) answer(method string) (*http.Response, string) {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return nil, ""
	}
	if res.StatusCode < 200 {
		return res, ""
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return res, "broke off: " + string(body)
	}
	return res, string(body)
}

// ended reports whether the server closes the connection, without another byte.
func (c *conn) ended() bool {
	_, err := c.r.ReadByte()
	return err == io.EOF
}

// backend is a server of net/http on loopback: HTTP/1.1 and HTTP/2 in the clear.
type backend struct {
	address netip.AddrPort
	server  *http.Server

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]http.ConnState
	made  int
}

func serveHTTP(t testing.TB, handle http.HandlerFunc) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{address: netip.MustParseAddrPort(l.Addr().String()), conns: map[net.Conn]http.ConnState{}}
	b.server = &http.Server{Handler: handle, Protocols: new(http.Protocols), ConnState: func(c net.Conn, s http.ConnState) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if s == http.StateNew {
			b.made++
		}
		if b.conns[c] = s; s == http.StateClosed {
			delete(b.conns, c)
		}
	}}
	b.server.Protocols.SetHTTP1(true)
	b.server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); b.server.Serve(l) }()
	t.Cleanup(func() { b.server.Close(); <-done })
	return b
}

// connections are how many have been made, and how many are open.
func (b *backend) connections() (made, open int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.made, len(b.conns)
}

// serveRaw is a backend of bytes: each connection is handle's.
func serveRaw(t testing.TB, handle func(net.Conn, *bufio.Reader)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards conns
	var conns []net.Conn
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			nc.SetDeadline(time.Now().Add(patience))
			mu.Lock()
			conns = append(conns, nc)
			mu.Unlock()
			wg.Go(func() { defer nc.Close(); handle(nc, bufio.NewReader(nc)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, nc := range conns {
			nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

// ok is a backend that reads the request and answers with its path.
func ok(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	io.WriteString(w, r.URL.Path)
}

// nextPort is where freePort looks next: below the ports that the system gives to outgoing connections, of which there are many here.
var nextPort atomic.Uint32

func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 10_000 {
		port := 10_000 + (uint32(os.Getpid())*131+nextPort.Add(1))%20_000
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return uint16(port)
		}
	}
	t.Fatal("no port is free")
	return 0
}

// until waits for a condition that nobody announces.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// closed waits for a channel.
func closed(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
}

// text is a writer for many.
type text struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// eachWire runs a test with clients of HTTP/1.1 and of HTTP/2.
func eachWire(t *testing.T, test func(t *testing.T, h2 bool)) {
	for name, h2 := range map[string]bool{"http1": false, "h2c": true} {
		t.Run(name, func(t *testing.T) { test(t, h2) })
	}
}
