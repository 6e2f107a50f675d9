package scenarios

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/controllers/endpoints"
	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// house is the whole one without a cluster: objects from YAML through source and the loop to a data plane that serves on loopback.
// Listeners have the ports of their spec, and are bound elsewhere, as in a pod.
type house struct {
	t        testing.TB
	plane    *dataplane.DataPlane
	loop     *controllers.Loop
	backends map[string]*backend
	ports    map[translate.PodPort]uint16
	gateways map[string]types.UID // "ns/name"
	objects  []controllers.Object
	seen     *telemetry.Telemetry
	engine   message.Engine
	changes  int

	byAddress sync.Map // netip.AddrPort → *backend

	mu    sync.Mutex // guards what follows
	tells int
	last  []translate.Status
	binds snapshot.BindResult
}

// Apply and SetEndpoints are the data plane's; the house notes what could not be bound.
func (h *house) Apply(s *snapshot.Snapshot) snapshot.BindResult {
	r := h.plane.Apply(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.binds = r
	return r
}

func (h *house) SetEndpoints(sets []snapshot.Endpoints) { h.plane.SetEndpoints(sets) }

func (h *house) tell(all []translate.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tells++
	h.last = all
}

// state tells how often statuses were told, and whether every socket is bound.
func (h *house) state() (tells int, bound bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	failed := func(b snapshot.BindState) bool { return b.Err != nil }
	return h.tells, !slices.ContainsFunc(h.binds.Sockets, failed)
}

// openHouse makes a house that serves nothing yet. Ports of Gateways must be known before the first objects.
func openHouse(t testing.TB, w wire, settings dataplane.Settings) *house {
	t.Helper()
	h := &house{
		t: t, backends: map[string]*backend{}, ports: map[translate.PodPort]uint16{}, gateways: map[string]types.UID{},
	}
	seen, err := telemetry.New(telemetry.Options{Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&testLog{t: t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	settings.LocalEndpoints = true
	h.seen, h.engine = seen, w.engine(h)
	h.plane = dataplane.New(dataplane.Options{
		Settings: settings, Engine: h.engine, Transport: w.transport(h), Telemetry: seen, Log: log,
	})
	h.loop = controllers.NewLoop(controllers.Options{
		DataPlane: h,
		Input: translate.Input{
			Kinds: controllers.Policies, FilterOrder: dataplane.FilterOrder(), Paths: settings.Paths, PodPorts: h.ports,
		},
		Endpoints: endpoints.Options{AllowLocal: true},
		Told:      h.tell,
		Log:       logr.FromSlogHandler(log.Handler()),
	})
	t.Cleanup(h.close)
	return h
}

// run starts the loop, and ends it with the test.
func (h *house) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.loop.Run(ctx) }()
	h.t.Cleanup(func() { cancel(); <-done })
}

func (h *house) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	h.plane.Shutdown(ctx)
	closing, end := context.WithTimeout(context.Background(), time.Second)
	defer end()
	h.seen.Close(closing)
}

// backend is the one of that name; it is started on first use.
func (h *house) backend(name string) *backend {
	b := h.backends[name]
	if b == nil {
		if strings.HasPrefix(name, "dead") {
			b = refusing(h.t, name)
		} else {
			b = newBackend(h.t, name)
		}
		h.backends[name] = b
		h.byAddress.Store(b.address, b)
	}
	return b
}

// port is where a port of a Gateway's spec is bound.
func (h *house) port(gateway string, spec uint16) uint16 {
	h.t.Helper()
	p := h.ports[translate.PodPort{Gateway: h.gateways[gateway], Port: spec}]
	if p == 0 {
		h.t.Fatalf("Gateway %s has no port %d", gateway, spec)
	}
	return p
}

// know gives each port of Gateways a place. The map is read by the loop, so all Gateways of a scenario are told of before it runs.
func (h *house) know(objects []controllers.Object) {
	for _, o := range objects {
		g, ok := o.(*gwv1.Gateway)
		if !ok {
			continue
		}
		h.gateways[g.Namespace+"/"+g.Name] = g.UID
		for _, l := range g.Spec.Listeners {
			key := translate.PodPort{Gateway: g.UID, Port: uint16(l.Port)}
			if h.ports[key] == 0 {
				h.ports[key] = freePort(h.t)
			}
		}
	}
}

// set makes these all objects that there are, and returns when they are served.
func (h *house) set(objects []controllers.Object) {
	h.t.Helper()
	h.changes++
	h.objects = objects
	// A class of ours that is new each time and that no Gateway has: statuses are told of after a Build, and a change of EndpointSlices
	// alone needs none.
	marker := &gwv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{Name: "change-" + strconv.Itoa(h.changes)},
		Spec:       gwv1.GatewayClassSpec{ControllerName: v1alpha1.ControllerName},
	}
	before, _ := h.state()
	h.loop.Replace(append(slices.Clone(objects), marker))
	if h.changes == 1 {
		h.run()
	}
	until(h.t, "a change is served and told of", func() bool {
		tells, bound := h.state()
		return tells > before && bound
	})
}

// apply adds objects, or puts them in the place of those with their names.
func (h *house) apply(changed []controllers.Object) {
	h.t.Helper()
	all := slices.Clone(h.objects)
	for _, c := range changed {
		i := slices.IndexFunc(all, func(o controllers.Object) bool { return same(o, c) })
		if i < 0 {
			all = append(all, c)
			continue
		}
		if !implied(c) {
			c.SetCreationTimestamp(all[i].GetCreationTimestamp())
			all[i] = c
		}
	}
	h.set(all)
}

// implied is a Namespace that nobody wrote: all it has is the label that each gets.
func implied(o controllers.Object) bool {
	ns, ok := o.(*corev1.Namespace)
	return ok && len(ns.Labels) <= 1
}

// delete takes an object away, e.g. "HTTPRoute default/shop".
func (h *house) delete(what string) {
	h.t.Helper()
	kind, name, _ := strings.Cut(what, " ")
	all := slices.DeleteFunc(slices.Clone(h.objects), func(o controllers.Object) bool {
		return reflect.TypeOf(o).Elem().Name() == kind && o.GetNamespace()+"/"+o.GetName() == name
	})
	if len(all) == len(h.objects) {
		h.t.Fatalf("there is no %s to delete", what)
	}
	h.set(all)
}

func same(a, b controllers.Object) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && a.GetNamespace() == b.GetNamespace() && a.GetName() == b.GetName()
}

// status is what users are told now, a line per object and parent.
func (h *house) status() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return translate.Text(h.last)
}

// read reads YAML as the API server would take it.
func read(t testing.TB, yaml string) []controllers.Object {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	r := source.NewLoader([]string{file}).Load()
	if r.Failed() {
		t.Fatalf("the objects are not valid: %v", r.Problems)
	}
	return controllers.Files(r)
}

// slices are the EndpointSlices of a Service whose endpoints are backends: "blue", "green(draining)", "grey(unready)". Each backend has
// a port of its own, and a slice has one for all its endpoints, so each backend gets a slice.
func (h *house) slices(namespace, service string, words []string) (all []controllers.Object) {
	for _, word := range words {
		name, state, _ := strings.Cut(strings.TrimSuffix(word, ")"), "(")
		address := h.backend(name).address
		port, portName := int32(address.Port()), "http"
		ready, serving, terminating := state == "", state != "unready", state == "draining"
		all = append(all, &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: service + "-" + name, Labels: map[string]string{discoveryv1.LabelServiceName: service},
			},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{
				Addresses:  []string{address.Addr().String()},
				Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
			}},
		})
	}
	return all
}

// endpoints replaces the endpoints of a Service: "shop/cart: blue green(draining)".
func (h *house) endpoints(line string) {
	h.t.Helper()
	namespace, service, words := serviceLine(line)
	all := slices.DeleteFunc(slices.Clone(h.objects), func(o controllers.Object) bool {
		s, ok := o.(*discoveryv1.EndpointSlice)
		return ok && s.Namespace == namespace && s.Labels[discoveryv1.LabelServiceName] == service
	})
	h.set(append(all, h.slices(namespace, service, words)...))
}

// serviceLine reads "shop/cart: blue green"; the namespace may be left out.
func serviceLine(line string) (namespace, service string, words []string) {
	name, rest, _ := strings.Cut(line, ":")
	namespace, service, ok := strings.Cut(strings.TrimSpace(name), "/")
	if !ok {
		namespace, service = "default", namespace
	}
	return namespace, service, strings.Fields(rest)
}

// receive waits for what must come.
func receive[T any](t testing.TB, c <-chan T, what string) (got T) {
	t.Helper()
	select {
	case got = <-c:
		return got
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain for %s", what)
		return got
	}
}

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

var lastPort = sync.OnceValue(func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(mathrand.Uint32N(12000))
	return n
})

// freePort is one that nobody has and that the kernel does not give out by itself, so that nobody gets it meanwhile.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 1000 {
		port := 20000 + lastPort().Add(1)%12000
		l, err := net.Listen("tcp", ":"+strconv.Itoa(int(port)))
		if err == nil {
			l.Close()
			return uint16(port)
		}
	}
	t.Fatal("no port is free")
	return 0
}

// keyPair is a self-signed certificate for names, in PEM.
func keyPair(t testing.TB, names ...string) (certificate, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// secret is a Secret with a key pair, as YAML.
func secret(t testing.TB, name string, hosts ...string) string {
	namespace, name, _ := strings.Cut(name, "/")
	certificate, key := keyPair(t, hosts...)
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: %s\n  tls.key: %s\n",
		name, namespace, base64.StdEncoding.EncodeToString(certificate), base64.StdEncoding.EncodeToString(key))
}

// testLog shows what the house logs with the test that it happened in, and nothing after its end.
type testLog struct {
	t  testing.TB
	mu sync.Mutex
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { recover() }() // the test is over
	l.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}
