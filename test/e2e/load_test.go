//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// target is what a load asks, and who may answer.
type target struct {
	host     string         // Host and server name
	http     string         // address:port of plain HTTP; empty: none
	https    string         // that of HTTPS; empty: none
	roots    *x509.CertPool // for https
	path     string         // prefix of paths; a number is added, so that no two requests are alike
	backends []string       // prefixes of the names that may answer
	header   http.Header    // of each request
	refused  int            // the status that is right, where it is not a backend that ought to answer; 0: it is
}

// client is one way to reach a target. The kinds differ in what a change can break: kept connections must be ended gracefully, fresh ones must
// find a listener, and a POST is not sent a second time by Go's client once its head is out.
type loadClient struct {
	kind   string
	method string
	scheme string
	http.Client
}

// What a client takes for a failure though it would have gone on well; see stillness. (The clients' own limits are only for what never ends.)
const (
	slowDial   = 5 * time.Second
	slowAnswer = 15 * time.Second
	forever    = time.Minute
)

// dial connects to an address, and fails as one does who waits for slowDial.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	began := time.Now()
	c, err := (&net.Dialer{Timeout: forever}).DialContext(ctx, network, address)
	if took := machine.ran(began, time.Now()); err == nil && took > slowDial {
		c.Close()
		return nil, fmt.Errorf("dial %s: connected after %v only", address, took)
	}
	return c, err
}

// probePort is the last local port of a probe: from 12000 on, where the kernel takes none by itself and kube-proxy none for Services.
var probePort atomic.Uint32

// probe connects to an address that may not be served yet. It does so from a port that is used for nothing else: a SYN that is under way
// before kube-proxy has heard of the Service goes nowhere, and for two minutes the kernel sends there whatever comes from that port.
func probe(address string) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 12000 + int(probePort.Add(1)%18000)}, Timeout: 500 * time.Millisecond}
	c, err := d.Dial("tcp", address)
	if err == nil {
		err = c.Close()
	}
	return err
}

// probe is that for all the addresses of a target.
func (g target) probe() error {
	for _, address := range []string{g.http, g.https} {
		if address != "" {
			if err := probe(address); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g target) clients() []*loadClient {
	var all []*loadClient
	add := func(kind, scheme string, address string, change func(*http.Transport)) {
		if address == "" {
			return
		}
		transport := &http.Transport{
			MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second, TLSClientConfig: &tls.Config{RootCAs: g.roots},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, address) },
		}
		var only http.Protocols
		only.SetHTTP1(true)
		transport.Protocols = &only
		change(transport)
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			all = append(all, &loadClient{kind, method, scheme, http.Client{
				Transport: transport, Timeout: forever,
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}})
		}
	}
	kept := func(*http.Transport) {}
	fresh := func(t *http.Transport) { t.DisableKeepAlives = true }
	h2c := func(t *http.Transport) {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	h2 := func(t *http.Transport) {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP2(true)
	}
	add("HTTP/1.1 kept", "http", g.http, kept)
	add("HTTP/1.1 fresh", "http", g.http, fresh)
	add("h2c", "http", g.http, h2c)
	add("TLS HTTP/1.1 kept", "https", g.https, kept)
	add("TLS h2", "https", g.https, h2)
	add("TLS fresh", "https", g.https, fresh)
	return all
}

// load asks at a constant rate, however slow answers are, and checks each answer.
type load struct {
	t       *testing.T
	target  target
	clients []*loadClient
	began   time.Time
	cancel  context.CancelFunc
	done    chan struct{}
	under   sync.WaitGroup

	mu       sync.Mutex // guards what follows
	sent     int
	took     []time.Duration
	failures []failure
	ended    bool
}

type failure struct {
	at   time.Time // when the request was begun
	kind string
	err  error
}

// begin starts a load of perSecond requests. It ends with the test if nobody ends it before.
func begin(t *testing.T, g target, perSecond int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, target: g, clients: g.clients(), began: time.Now(), cancel: cancel, done: make(chan struct{})}
	go l.run(ctx, perSecond)
	t.Cleanup(func() { l.end() })
	return l
}

func (l *load) run(ctx context.Context, perSecond int) {
	defer close(l.done)
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			for due := int(time.Since(l.began).Seconds() * float64(perSecond)); l.sent < due; {
				l.mu.Lock()
				n := l.sent
				l.sent++
				l.mu.Unlock()
				l.under.Go(func() { l.one(n) })
			}
		}
	}
}

func (l *load) one(n int) {
	c := l.clients[n%len(l.clients)]
	began := time.Now()
	err := ask(c, l.target, fmt.Sprintf("%s%d?n=%d", l.target.path, n, n))
	took, ran := time.Since(began), machine.ran(began, time.Now())
	if err == nil && ran > slowAnswer {
		err = fmt.Errorf("answered after %v only", ran)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
	if err != nil {
		l.failures = append(l.failures, failure{began, c.method + " " + c.kind, err})
	}
}

// answer is what hack/backend says.
type answer struct {
	Backend, Method, Host, Target string
	Header                        http.Header // of the request
}

// ask sends one request and says what of the answer is wrong.
func ask(c *loadClient, g target, uri string) error {
	var body io.Reader
	if c.method == http.MethodPost {
		body = strings.NewReader(strings.Repeat("x", 100))
	}
	r, err := http.NewRequest(c.method, c.scheme+"://"+g.host+uri, body)
	if err != nil {
		return err
	}
	maps.Copy(r.Header, g.header)
	response, err := c.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%d, but the body broke off: %w", response.StatusCode, err)
	}
	if g.refused != 0 && response.StatusCode == g.refused {
		return nil
	}
	if g.refused != 0 || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %.100q", response.StatusCode, raw)
	}
	var a answer
	if err := json.Unmarshal(raw, &a); err != nil {
		return fmt.Errorf("not the backend's answer: %w: %.100q", err, raw)
	}
	if a.Method != c.method || a.Host != g.host || a.Target != uri {
		return fmt.Errorf("somebody else's answer: asked %s %s %s, got that of %s %s %s", c.method, g.host, uri, a.Method, a.Host, a.Target)
	}
	if !slices.ContainsFunc(g.backends, func(p string) bool { return strings.HasPrefix(a.Backend, p) }) {
		return fmt.Errorf("backend %s answered, which is none of %v", a.Backend, g.backends)
	}
	return nil
}

// end stops the load, waits for what is under way, and tells what there was.
func (l *load) end() []failure {
	l.cancel()
	<-l.done
	l.under.Wait()
	for _, c := range l.clients {
		c.CloseIdleConnections()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return l.failures
	}
	l.ended = true
	ran := time.Since(l.began)
	_, still := machine.stood(l.began, time.Now())
	slices.Sort(l.took)
	l.t.Logf("load: %d requests in %.1f s (%.0f/s), %d failed; p50 %v, p99 %v, longest %v; the machine stood still for %v at most", l.sent, ran.Seconds(), float64(l.sent)/ran.Seconds(),
		len(l.failures), quantile(l.took, 0.5), quantile(l.took, 0.99), quantile(l.took, 1), still.Round(time.Millisecond))
	return l.failures
}

// endsClean ends the load, which must have had answers and no failure.
func (l *load) endsClean() {
	l.t.Helper()
	failures := l.end()
	if l.sent == 0 {
		l.t.Error("the load sent nothing")
	}
	l.tell(failures)
}

func (l *load) tell(failures []failure) {
	l.t.Helper()
	if len(failures) == 0 {
		return
	}
	kinds := map[string]int{}
	for _, f := range failures {
		kinds[f.kind]++
	}
	l.t.Errorf("%d of %d requests failed: %v", len(failures), l.sent, kinds)
	for i, f := range failures {
		if i == 12 {
			l.t.Logf("… and %d more", len(failures)-i)
			break
		}
		l.t.Logf("%s (%.2f s): %s: %v", f.at.Format("15:04:05.000"), f.at.Sub(l.began).Seconds(), f.kind, f.err)
	}
}

// quantile of sorted durations.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(100 * time.Microsecond)
}
