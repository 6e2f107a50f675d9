// Package controller holds no code but tests: a replica of Gatehouse with both of its houses in this process, beside a real API server.
// Objects go in as users write them; requests over loopback and statuses come out. There are no nodes and no controllers of Kubernetes
// here, so tests write the EndpointSlices, and nobody deletes what others own.
package controller

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	runtimelog "sigs.k8s.io/controller-runtime/pkg/log"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/controllers/infra"
	"github.com/gatehouse-dev/gatehouse/controllers/lease"
	"github.com/gatehouse-dev/gatehouse/controllers/status"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
	"github.com/gatehouse-dev/gatehouse/hack/kube"
	"github.com/gatehouse-dev/gatehouse/test/process"
)

// control is the one control plane of all tests. Each test has namespaces of its own.
var control *kube.Control

// lateCRDs are not there from the start: tests bring them.
var lateCRDs = []string{"gatehouse.dev_ratelimitpolicies.yaml"}

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	runtimelog.SetLogger(logr.Discard())
	var err error
	if control, err = kube.Start(context.Background(), ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	err = addCRDs()
	code := 1
	if err == nil {
		code = process.Main(m)
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	if err := control.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func addCRDs() error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return fmt.Errorf("where is the Gateway API module? %w", err)
	}
	files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "config/crd/standard/gateway.networking.k8s.io_*s.yaml"))
	args := []string{"apply", "--server-side"}
	for _, f := range files {
		if !strings.Contains(f, "_vap_") {
			args = append(args, "-f", f)
		}
	}
	return errors.Join(kubectl(args...), kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"))
}

func kubectl(args ...string) error {
	if out, err := control.Kubectl(context.Background(), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", args[0], err, out)
	}
	return nil
}

func config() *rest.Config {
	return &rest.Config{Host: control.Host, BearerToken: control.Token, TLSClientConfig: rest.TLSClientConfig{CAData: control.CA}, QPS: -1}
}

// world is what a test has of the cluster: a namespace for the release, one for an application, and a client that may do everything.
type world struct {
	t       *testing.T
	client  client.Client
	id      string
	release string // namespaces
	shop    string
	words   *strings.Replacer
	replica *replica // the last one that was started
}

var worlds atomic.Int64

func newWorld(t *testing.T) *world {
	t.Helper()
	scheme, err := controllers.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprint(worlds.Add(1))
	w := &world{t: t, client: c, id: id, release: "gatehouse-" + id, shop: "shop-" + id}
	w.words = strings.NewReplacer("RELEASE", w.release, "SHOP", w.shop, "CLASS", "gatehouse-"+id)
	w.create(`
apiVersion: v1
kind: Namespace
metadata: {name: RELEASE}
---
apiVersion: v1
kind: Namespace
metadata: {name: SHOP}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: gatehouse-owner, namespace: RELEASE}
---
apiVersion: v1
kind: Service
metadata: {name: gatehouse-members, namespace: RELEASE}
spec: {clusterIP: None, ports: [{name: health, port: 8081}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gatehouse-a, namespace: RELEASE, labels: {app: gatehouse}}
spec: {containers: [{name: gatehouse, image: none}]}
`)
	w.create(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: gatehouse-members-1, namespace: RELEASE, labels: {kubernetes.io/service-name: gatehouse-members}}
addressType: IPv4
ports: [{name: health, port: 8081}]
endpoints: [{addresses: [10.1.1.1], targetRef: {kind: Pod, name: gatehouse-a, namespace: RELEASE, uid: ` + w.podUID() + `}}]
`)
	return w
}

// podUID is that of the replica's pod.
func (w *world) podUID() string {
	w.t.Helper()
	pod := &corev1.Pod{}
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Namespace: w.release, Name: "gatehouse-a"}, pod); err != nil {
		w.t.Fatal(err)
	}
	return string(pod.UID)
}

// create creates objects of a YAML text, which are deleted when the test ends.
func (w *world) create(text string) {
	w.t.Helper()
	for _, o := range w.parse(text) {
		if err := w.client.Create(w.t.Context(), o); err != nil {
			w.t.Fatalf("create %s %s: %v", o.GetKind(), o.GetName(), err)
		}
		if o.GetKind() != "Namespace" { // nobody is there who would bring one to its end
			w.t.Cleanup(func() {
				if err := w.client.Delete(context.Background(), o); client.IgnoreNotFound(err) != nil && !apierrors.IsNotFound(err) {
					w.t.Logf("delete %s %s: %v", o.GetKind(), o.GetName(), err)
				}
			})
		}
	}
}

// apply changes objects to what the text says.
func (w *world) apply(text string) {
	w.t.Helper()
	for _, o := range w.parse(text) {
		err := w.client.Apply(w.t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"), client.ForceOwnership)
		if err != nil {
			w.t.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

func (w *world) delete(text string) {
	w.t.Helper()
	for _, o := range w.parse(text) {
		if err := w.client.Delete(w.t.Context(), o); err != nil {
			w.t.Fatalf("delete %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

func (w *world) parse(text string) (all []*unstructured.Unstructured) {
	w.t.Helper()
	for doc := range strings.SplitSeq(w.words.Replace(text), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			w.t.Fatalf("%v in:\n%s", err, doc)
		}
		all = append(all, o)
	}
	return all
}

// backend starts a server that answers with its name, and makes a Service and its EndpointSlice for it.
func (w *world) backend(name string) {
	w.t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, name) }))
	w.t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	w.create(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: SHOP}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, namespace: SHOP, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: http, port: %[2]s}]
endpoints: [{addresses: [192.0.2.1]}]
`, name, port))
}

// basics are a class, a Gateway and a route to the backend cart.
const basics = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: CLASS}
spec: {controllerName: gatehouse.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: SHOP}
spec:
  gatewayClassName: CLASS
  listeners: [{name: http, protocol: HTTP, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: SHOP}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
`

// replica is Gatehouse, as cmd puts it together.
type replica struct {
	w       *world
	cluster *controllers.Cluster
	plane   *dataplane.DataPlane
	infra   *infra.Infra
	log     *testLog
	applies atomic.Int64

	mu    sync.Mutex // guards ports
	ports map[uint16]uint16

	leave func() // what comes first on SIGTERM: not ready, and the lease released
	stop  func() // all that comes on SIGTERM, without patience
}

// Apply binds on ports of this machine that are free: pod ports are free in a pod, and other tests have pods, too.
func (r *replica) Apply(s *snapshot.Snapshot) (bound snapshot.BindResult) {
	r.applies.Add(1)
	here := *s
	here.Sockets = slices.Clone(s.Sockets)
	keys := map[snapshot.SocketKey]snapshot.SocketKey{}
	for i := range here.Sockets {
		key := &here.Sockets[i].Key
		key.Address, key.Port = netip.MustParseAddr("127.0.0.1"), r.portFor(key.Port)
		keys[*key] = s.Sockets[i].Key
	}
	for _, b := range r.plane.Apply(&here).Sockets {
		b.Key = keys[b.Key]
		bound.Sockets = append(bound.Sockets, b)
	}
	return bound
}

// portFor is the port that stands for a pod port here.
func (r *replica) portFor(pod uint16) uint16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports[pod] == 0 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		r.ports[pod] = uint16(l.Addr().(*net.TCPAddr).Port)
		l.Close()
	}
	return r.ports[pod]
}

// SetEndpoints sends to this machine what was to go elsewhere: the API server takes no endpoint on loopback.
func (r *replica) SetEndpoints(all []snapshot.Endpoints) {
	here := make([]snapshot.Endpoints, len(all))
	for i, set := range all {
		here[i].Backend = set.Backend
		for _, e := range set.Endpoints {
			e.Address = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), e.Address.Port())
			here[i].Endpoints = append(here[i].Endpoints, e)
		}
	}
	r.plane.SetEndpoints(here)
}

// quick are times of a lease for tests.
var quick = lease.Times{Duration: 3 * time.Second, Renew: 1500 * time.Millisecond, Retry: 300 * time.Millisecond, Call: time.Second}

// start starts a replica; change changes how.
func (w *world) start(change ...func(*controllers.ClusterOptions)) *replica {
	w.t.Helper()
	seen, err := telemetry.New(telemetry.Options{Log: io.Discard})
	if err != nil {
		w.t.Fatal(err)
	}
	r := &replica{w: w, log: &testLog{t: w.t}, ports: map[uint16]uint16{}}
	w.replica = r
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	settings := dataplane.Defaults()
	settings.LocalEndpoints = true
	r.plane = dataplane.New(dataplane.Options{
		Settings: settings, Engine: nethttp.New(), Transport: nethttp.NewTransport, Telemetry: seen, Log: log,
	})
	o := controllers.ClusterOptions{
		Config: config(), Namespace: w.release, Pod: "gatehouse-a", Headless: "gatehouse-members", Lease: "gatehouse-leader", Owner: "gatehouse-owner",
		DataPlane: r,
		Input:     translate.Input{Kinds: controllers.Policies, FilterOrder: dataplane.FilterOrder(), Paths: settings.Paths},
		Outside: func(c client.Client, changed func()) controllers.Outside {
			r.infra = infra.New(infra.Options{
				Client: c, Changed: changed, Log: logr.FromSlogHandler(log.Handler()).WithName("infra"),
				Namespace: w.release, Pod: "gatehouse-a", PodUID: types.UID(w.podUID()), Headless: "gatehouse-members",
				Owner: "gatehouse-owner", Record: "gatehouse-pod-ports", Selector: map[string]string{"app": "gatehouse"},
				ClusterDomain: "cluster.local", Service: infra.ServiceOptions{Type: corev1.ServiceTypeClusterIP},
			})
			return r.infra
		},
		Statuses: func(s controllers.StatusOptions) controllers.Statuses {
			return status.NewWriter(status.Options{Client: s.Client, Stored: s.Stored, Wrote: s.Wrote, Log: s.Log})
		},
		Patience: time.Second, Times: quick, Log: logr.FromSlogHandler(log.Handler()),
	}
	for _, c := range change {
		c(&o)
	}
	if r.cluster, err = controllers.NewCluster(o); err != nil {
		w.t.Fatal(err)
	}
	living, end := context.WithCancel(context.Background())
	leading, leave := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { r.cluster.Run(living) })
	left := make(chan struct{})
	go func() { defer close(left); r.cluster.Lead(leading) }()
	r.leave = func() {
		r.plane.Leave()
		leave()
		<-left
	}
	r.stop = sync.OnceFunc(func() {
		r.leave()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := r.plane.Shutdown(ctx); err != nil {
			w.t.Errorf("drain: %v", err)
		}
		end()
		all.Wait()
		seen.Close(ctx)
	})
	w.t.Cleanup(r.stop)
	return r
}

// applied waits for the first snapshot.
func (r *replica) applied() {
	r.w.t.Helper()
	select {
	case <-r.cluster.Applied():
	case <-time.After(limit):
		r.w.t.Fatalf("nothing is applied: %v", r.cluster.Waiting())
	}
}

// limit is how long anything may take that takes milliseconds on a machine that has nothing else to do.
const limit = 30 * time.Second

// eventually waits until what is asked for is so; it says "" then, and else how it is.
func (w *world) eventually(what string, is func() string) {
	w.t.Helper()
	w.within(limit, what, is)
}

func (w *world) within(d time.Duration, what string, is func() string) {
	w.t.Helper()
	last := "not asked"
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if last = is(); last == "" {
			return
		}
	}
	w.t.Fatalf("%s: after %s: %s", what, d, last)
}

// address is where requests for a port of a Gateway go here: the pod port, which the Service has as its target.
func (w *world) address(gateway string, port int32) string {
	w.t.Helper()
	var at string
	w.eventually("Service of Gateway "+gateway, func() string {
		var all corev1.ServiceList
		if err := w.client.List(w.t.Context(), &all, client.InNamespace(w.release)); err != nil {
			return err.Error()
		}
		for _, s := range all.Items {
			if s.Annotations["gatehouse.dev/gateway"] != w.shop+"/"+gateway {
				continue
			}
			for _, p := range s.Spec.Ports {
				if p.Port == port {
					at = fmt.Sprintf("127.0.0.1:%d", w.replica.portFor(uint16(p.TargetPort.IntValue())))
					return ""
				}
			}
		}
		return fmt.Sprintf("none of %d Services has port %d", len(all.Items), port)
	})
	return at
}

// get asks and returns status and body: "200 cart".
func get(address, host, path string) string {
	request, _ := http.NewRequest(http.MethodGet, (&url.URL{Scheme: "http", Host: address, Path: path}).String(), nil)
	request.Host = host
	response, err := quickClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", response.StatusCode, bytes.TrimSpace(body))
}

var quickClient = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
	DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // certificates here are of tests
}}

// answers waits until a GET of / is answered like that.
func (w *world) answers(address, path, want string) {
	w.t.Helper()
	w.eventually("GET "+path, func() string {
		if got := get(address, "shop.example", path); !strings.HasPrefix(got, want) {
			return got + ", want " + want
		}
		return ""
	})
}

// condition waits until a condition of a Gateway, its listener http or the first parent of a route says that, and returns its message.
func (w *world) condition(kind, name, conditionType, want string) (message string) {
	w.t.Helper()
	w.eventually(kind+" "+name+": "+conditionType, func() string {
		all := w.conditions(kind, name)
		for _, c := range all {
			if got := c.status + " " + c.reason; c.kind == conditionType {
				message = c.message
				if got != want {
					return fmt.Sprintf("%s (%s), want %s", got, c.message, want)
				}
				return ""
			}
		}
		return fmt.Sprintf("not among %v", all)
	})
	return message
}

type said struct{ kind, status, reason, message string }

func (w *world) conditions(kind, name string) (all []said) {
	w.t.Helper()
	o := &unstructured.Unstructured{}
	version := "gateway.networking.k8s.io/v1"
	if kind == "AuthPolicy" || kind == "RateLimitPolicy" {
		version = "gatehouse.dev/v1alpha1"
	}
	o.SetAPIVersion(version)
	o.SetKind(kind)
	key := types.NamespacedName{Namespace: w.shop, Name: name}
	if kind == "GatewayClass" {
		key = types.NamespacedName{Name: "gatehouse-" + w.id}
	}
	if err := w.client.Get(w.t.Context(), key, o); err != nil {
		return []said{{message: err.Error()}}
	}
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, entries := range []string{"parents", "ancestors"} {
		found, _, _ := unstructured.NestedSlice(o.Object, "status", entries)
		for _, e := range found {
			of, _, _ := unstructured.NestedSlice(e.(map[string]any), "conditions")
			list = append(list, of...)
		}
	}
	for _, c := range list {
		m := c.(map[string]any)
		text := func(key string) string { s, _ := m[key].(string); return s }
		all = append(all, said{text("type"), text("status"), text("reason"), text("message")})
	}
	return all
}

// listener is the condition of a listener, waited for like condition.
func (w *world) listener(gateway, section, conditionType, want string) (message string) {
	w.t.Helper()
	w.eventually("listener "+section+": "+conditionType, func() string {
		g := &gwv1.Gateway{}
		if err := w.client.Get(w.t.Context(), types.NamespacedName{Namespace: w.shop, Name: gateway}, g); err != nil {
			return err.Error()
		}
		for _, l := range g.Status.Listeners {
			for _, c := range l.Conditions {
				if string(l.Name) == section && c.Type == conditionType {
					message = c.Message
					if got := string(c.Status) + " " + c.Reason; got != want {
						return fmt.Sprintf("%s (%s), want %s", got, c.Message, want)
					}
					return ""
				}
			}
		}
		return fmt.Sprintf("not in %+v", g.Status.Listeners)
	})
	return message
}

// testLog writes to the test's log while the test runs, and counts how often it is told of a Build.
type testLog struct {
	t     *testing.T
	built atomic.Int64
	once  sync.Once
	mu    sync.Mutex // guards what follows
	done  bool       // the test has ended, and its log with it
	all   bytes.Buffer
}

// text is what was logged until now.
func (l *testLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func (l *testLog) Write(p []byte) (int, error) {
	l.once.Do(func() {
		l.t.Cleanup(func() { l.mu.Lock(); l.done = true; l.mu.Unlock() })
	})
	if bytes.Contains(p, []byte("built=true")) {
		l.built.Add(1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(p)
	if !l.done {
		l.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}
