//go:build limits

// Package limits tests RateLimitPolicies across replicas as a user has them: real gatehouse processes on files, a real Redis, alone, as a
// cluster, and watched by sentinels. It counts what all of them admit together while replicas come and go and the store is started again,
// and holds that to what is promised (`make limits-test`: build tag limits, as it wants a minute and a machine that is not too busy).
package limits

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/process"
)

func TestMain(m *testing.M) { os.Exit(process.Main(m)) }

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	process.Until(t, what, holds)
}

// backend answers at once, or after ?delay=, and knows how many it has under way.
type backend struct {
	*httptest.Server
	now, most atomic.Int64
}

func newBackend(t testing.TB) *backend {
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := b.now.Add(1)
		defer b.now.Add(-1)
		for most := b.most.Load(); now > most && !b.most.CompareAndSwap(most, now); most = b.most.Load() {
		}
		if d, err := time.ParseDuration(r.URL.Query().Get("delay")); err == nil {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
			}
		}
		w.Header().Set("X-Tokens-Used", r.URL.Query().Get("tokens"))
	}))
	t.Cleanup(b.Close)
	return b
}

// objects are the files of one replica: a Gateway on a port of its own, the route /limited with the policy's spec, and /free without.
const objects = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: gatehouse
  listeners: [{name: http, protocol: HTTP, port: %d}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: limited}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches: [{path: {value: /limited}}]
    backendRefs: [{name: backend, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: free}
spec:
  parentRefs: [{name: gw}]
  rules:
  - backendRefs: [{name: backend, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: backend}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: backend, labels: {kubernetes.io/service-name: backend}}
addressType: IPv4
ports: [{port: %d}]
endpoints: [{addresses: [127.0.0.1]}]
---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limits}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: limited}]
%s
`

// fleet is replicas that serve the same.
type fleet struct {
	t       testing.TB
	backend *backend
	spec    string
	args    []string

	mu       sync.Mutex // guards replicas
	replicas []*replica
}

func newFleet(t testing.TB, spec string, args ...string) *fleet {
	return &fleet{t: t, backend: newBackend(t), spec: spec, args: args}
}

// replica is a gatehouse that runs.
type replica struct {
	*process.Process
	url string
}

// prepare gives a replica its ports and files.
func (f *fleet) prepare() (r *replica, dir string) {
	f.t.Helper()
	port := process.FreePort(f.t)
	r = &replica{process.New(f.t), fmt.Sprintf("http://127.0.0.1:%d", port)}
	dir = f.t.TempDir()
	text := fmt.Sprintf(objects, port, f.backend.Listener.Addr().(*net.TCPAddr).Port, indented(f.spec))
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return r, dir
}

func indented(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
}

// add starts a replica and waits until it is ready.
func (f *fleet) add(args ...string) *replica {
	f.t.Helper()
	r, dir := f.prepare()
	f.launch(r, dir, args...)
	return r
}

func (f *fleet) launch(r *replica, dir string, args ...string) {
	f.t.Helper()
	given := append([]string{"-f", dir, "--drain-delay=0s"}, f.args...)
	r.Start("run", append(given, args...)...)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replicas = append(f.replicas, r)
}

// remove takes a replica away, gently or at once.
func (f *fleet) remove(r *replica, signal syscall.Signal) {
	f.mu.Lock()
	for i := range f.replicas {
		if f.replicas[i] == r {
			f.replicas = append(f.replicas[:i:i], f.replicas[i+1:]...)
			break
		}
	}
	f.mu.Unlock()
	r.Signal(signal)
	r.Exits()
}

// some is the n-th of the replicas that there are.
func (f *fleet) some(n int) *replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replicas[n%len(f.replicas)]
}

// page is what a replica says at an address of its own.
func (f *fleet) page(url string) string {
	f.t.Helper()
	answer, err := http.Get("http://" + url)
	if err != nil {
		f.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// status asks once; 0 is no answer.
func status(url string) int {
	answer, err := client.Get(url)
	if err != nil {
		return 0
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	return answer.StatusCode
}

// load is clients that ask all replicas in turn, all the time.
type load struct {
	admitted, refused, unavailable, lost atomic.Int64

	stop chan struct{}
	all  sync.WaitGroup

	mu    sync.Mutex        // guards spans
	spans map[*replica]span // nil: of all replicas together
}

// span is what was admitted between two refusals: at both there was nothing left.
type span struct {
	admitted    int64 // in all
	first, last time.Time
	from, to    int64 // admitted by then
}

// load starts n clients, each of which asks about a hundred times a second.
func (f *fleet) load(n int) *load {
	l := &load{stop: make(chan struct{}), spans: map[*replica]span{}}
	for i := range n {
		l.all.Go(func() {
			for k := i; ; k++ {
				select {
				case <-l.stop:
					return
				case <-time.After(time.Duration(5+rand.IntN(8)) * time.Millisecond):
				}
				r, sent := f.some(k), time.Now()
				before, of := l.span(nil).admitted, l.span(r).admitted
				switch status(r.url + "/limited") {
				case 200:
					l.admitted.Add(1)
					l.admit(nil, r)
				case 429:
					l.refused.Add(1)
					l.refuse(nil, sent, before)
					l.refuse(r, sent, of)
				case 503:
					l.unavailable.Add(1)
				default:
					l.lost.Add(1)
				}
			}
		})
	}
	return l
}

// lap is what was admitted since the last lap, and how long that took.
type lap struct {
	at       time.Time
	admitted int64
}

func (l *load) now() lap { return lap{time.Now(), l.admitted.Load()} }

func (l *load) span(r *replica) span {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spans[r]
}

func (l *load) admit(all ...*replica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range all {
		s := l.spans[r]
		s.admitted++
		l.spans[r] = s
	}
}

// refuse notes a refusal, of a request that was sent when so many were admitted. It was decided at a time between sent and now.
func (l *load) refuse(r *replica, sent time.Time, before int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spans[r]
	if s.first.IsZero() {
		s.first, s.from = time.Now(), before
	}
	if sent.After(s.last) {
		s.last, s.to = sent, s.admitted
	}
	l.spans[r] = s
}

// again begins new spans.
func (l *load) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r, s := range l.spans {
		l.spans[r] = span{admitted: s.admitted}
	}
}

// tooFew reports whether a counter that gives back so many in a second has refused what it had: whatever else the machine does, and
// however seldom clients could ask, between two refusals has gone what came back. What is under way may be missing.
func (l *load) tooFew(r *replica, perSecond float64) (says string, yes bool) {
	s := l.span(r)
	if s.first.IsZero() || !s.last.After(s.first) {
		return "", false
	}
	seconds := s.last.Sub(s.first).Seconds()
	says = fmt.Sprintf("%d between two refusals in %.2fs, want %.0f", s.to-s.from, seconds, perSecond*seconds)
	return says, float64(s.to-s.from) < perSecond*seconds*0.99-clients-1
}

// clients are those that ask all the time.
const clients = 8

func (l *load) since(before lap) (admitted, seconds float64) {
	now := l.now()
	return float64(now.admitted - before.admitted), now.at.Sub(before.at).Seconds()
}

func (l *load) end() {
	close(l.stop)
	l.all.Wait()
}

func (l *load) String() string {
	return fmt.Sprintf("%d admitted, %d refused, %d without the store, %d lost", l.admitted.Load(), l.refused.Load(), l.unavailable.Load(), l.lost.Load())
}
