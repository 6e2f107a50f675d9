//go:build limits

// Package limits tests RateLimitPolicies across replicas as a user has them: real gatehouse processes on files, a real Redis, alone, as a
// cluster, and watched by sentinels. It counts what all of them admit together while replicas come and go and the store is started again,
// and holds that to what is promised (`make limits-test`: build tag limits, as it wants a minute and a machine that is not too busy).
package limits

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/store/storetest"
)

const root = "../.."

var buildIn string // made and removed by TestMain

func TestMain(m *testing.M) {
	var err error
	if buildIn, err = os.MkdirTemp("", "gatehouse-limits-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(buildIn)
	os.Exit(code)
}

var built = sync.OnceValues(func() (string, error) {
	c := exec.Command("go", "build", "-o", buildIn+"/", "./cmd/gatehouse")
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return filepath.Join(buildIn, "gatehouse"), nil
})

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	storetest.Eventually(t, 40*time.Second, what, holds)
}

var lastPort = sync.OnceValue(func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32N(8000))
	return n
})

// freePort is one that nobody has and that the kernel does not give out by itself.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20000 + int(lastPort().Add(1)%8000)
		if l, err := net.Listen("tcp", ":"+strconv.Itoa(port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
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
	url    string
	health string
	admin  string
	cmd    *exec.Cmd
	output *lockedBuffer
	ended  chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// prepare gives a replica its ports and files.
func (f *fleet) prepare() (r *replica, dir string) {
	f.t.Helper()
	port := freePort(f.t)
	r = &replica{
		url: fmt.Sprintf("http://127.0.0.1:%d", port), health: fmt.Sprintf("127.0.0.1:%d", freePort(f.t)),
		admin: fmt.Sprintf("127.0.0.1:%d", freePort(f.t)), output: &lockedBuffer{}, ended: make(chan struct{}),
	}
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
	bin, err := built()
	if err != nil {
		f.t.Fatal(err)
	}
	given := append([]string{"run", "-f", dir, "--health-address", r.health, "--admin-address", r.admin, "--access-log=", "--drain-delay=0s"}, f.args...)
	r.cmd = exec.Command(bin, append(given, args...)...)
	r.cmd.Stdout, r.cmd.Stderr = r.output, r.output
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	go func() { r.cmd.Wait(); close(r.ended) }()
	f.t.Cleanup(func() {
		r.cmd.Process.Kill()
		<-r.ended
		if f.t.Failed() {
			f.t.Logf("%s said:\n%s", r.url, r.output)
		}
	})
	eventually(f.t, "gatehouse is ready", func() bool {
		select {
		case <-r.ended:
			f.t.Fatalf("gatehouse has ended:\n%s", r.output)
		default:
		}
		return r.ready()
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replicas = append(f.replicas, r)
}

func (r *replica) ready() bool {
	answer, err := http.Get("http://" + r.health + "/readyz")
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == 200
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
	r.cmd.Process.Signal(signal)
	<-r.ended
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

// metric is the sum of a metric's series whose labels fit a pattern.
func (f *fleet) metric(r *replica, pattern string) (sum float64) {
	f.t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^`+pattern+`.* (\S+)$`).FindAllStringSubmatch(f.page(r.health+"/metrics"), -1) {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			f.t.Fatal(err)
		}
		sum += n
	}
	return sum
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

	began time.Time
	stop  chan struct{}
	all   sync.WaitGroup
}

// load starts n clients, each of which asks about a hundred times a second.
func (f *fleet) load(n int) *load {
	l := &load{began: time.Now(), stop: make(chan struct{})}
	for i := range n {
		l.all.Go(func() {
			for k := i; ; k++ {
				select {
				case <-l.stop:
					return
				case <-time.After(time.Duration(5+rand.IntN(8)) * time.Millisecond):
				}
				switch status(f.some(k).url + "/limited") {
				case 200:
					l.admitted.Add(1)
				case 429:
					l.refused.Add(1)
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
	at                time.Time
	admitted, refused int64
}

func (l *load) now() lap { return lap{time.Now(), l.admitted.Load(), l.refused.Load()} }

// wantedMore reports whether clients asked for clearly more than they got: else what was admitted is what a machine that does much else let
// them ask, and no limit.
func (l *load) wantedMore(since lap) bool {
	now := l.now()
	return now.refused-since.refused > (now.admitted-since.admitted)/4
}

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
