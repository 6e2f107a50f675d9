package controllers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/endpoints"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// fakeDataPlane notes what it is told.
type fakeDataPlane struct {
	mu      sync.Mutex // guards calls
	calls   []string
	last    *snapshot.Snapshot
	failing int           // so many times Apply cannot bind
	hold    chan struct{} // when set, Apply waits for it
}

func (d *fakeDataPlane) Apply(s *snapshot.Snapshot) (r snapshot.BindResult) {
	if d.hold != nil {
		<-d.hold
	}
	var err error
	if d.failing > 0 {
		d.failing--
		err = errors.New("address in use")
	}
	for _, socket := range s.Sockets {
		r.Sockets = append(r.Sockets, snapshot.BindState{Key: socket.Key, Err: err})
	}
	d.last = s
	d.note("apply")
	return r
}

func (d *fakeDataPlane) note(call string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, call)
}

// since returns the calls after the first n.
func (d *fakeDataPlane) since(n int) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls[n:])
}

func (d *fakeDataPlane) SetEndpoints(all []snapshot.Endpoints) {
	for _, e := range all {
		var addresses []string
		for _, a := range e.Endpoints {
			addresses = append(addresses, a.Address.String())
		}
		d.note(strings.TrimSpace("endpoints " + e.Backend.String() + " " + strings.Join(addresses, " ")))
	}
}

// bench is a loop with a fake data plane, whose goroutine runs in a synctest bubble.
type bench struct {
	t        *testing.T
	loop     *Loop
	plane    *fakeDataPlane
	statuses []translate.Status // the last ones
	told     []string           // of them: "HTTPRoute shop/api: …", conditions that are False or say something
	tells    int
	seen     int // calls that were looked at
}

func newBench(t *testing.T, kinds []policy.Kind) *bench {
	b := &bench{t: t, plane: &fakeDataPlane{}}
	b.loop = NewLoop(Options{
		DataPlane: b.plane,
		Input:     translate.Input{Kinds: kinds},
		Endpoints: endpoints.Options{},
		Told:      func(all []translate.Status) { b.told, b.tells = words(all), b.tells+1 },
		Log:       testr.New(t),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.loop.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

func words(all []translate.Status) (out []string) {
	note := func(s translate.Status, conditions []metav1.Condition) {
		for _, c := range conditions {
			if c.Status == metav1.ConditionFalse || c.Message != "" {
				out = append(out, fmt.Sprintf("%s %s: %s=%s %s", s.Kind, s.Name.Name, c.Type, c.Status, c.Message))
			}
		}
	}
	for _, s := range all {
		switch v := s.Value.(type) {
		case gwv1.GatewayStatus:
			note(s, v.Conditions)
		case gwv1.RouteStatus:
			for _, p := range v.Parents {
				note(s, p.Conditions)
			}
		case gwv1.PolicyStatus:
			for _, a := range v.Ancestors {
				note(s, a.Conditions)
			}
		}
	}
	return out
}

// expect waits until the loop has nothing more to do, and compares what the data plane was told since the last look.
func (b *bench) expect(what string, want ...string) {
	b.t.Helper()
	synctest.Wait()
	got := append([]string{}, b.plane.since(b.seen)...)
	b.seen += len(got)
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		b.t.Errorf("%s: want (-), got (+):\n%s", what, diff)
	}
}

func (b *bench) says(text string) bool {
	return slices.ContainsFunc(b.told, func(line string) bool { return strings.Contains(line, text) })
}

const world = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec:
  gatewayClassName: gatehouse
  listeners: [{name: http, protocol: HTTP, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api, namespace: shop}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
`

// read reads YAML as a file is read; old and new replace parts of it.
func read(t *testing.T, yaml string, oldnew ...string) []Object {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(strings.NewReplacer(oldnew...).Replace(yaml)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := source.NewLoader([]string{file}).Load()
	if r.Failed() {
		t.Fatal(r.Problems)
	}
	return Files(r)
}

// pick finds an object by its name.
func pick(t *testing.T, objects []Object, name string) Object {
	t.Helper()
	i := slices.IndexFunc(objects, func(o Object) bool { return o.GetName() == name })
	if i < 0 {
		t.Fatalf("no object %s", name)
	}
	return objects[i]
}

func TestTheFirstObjectsAreServedWithTheirEndpointsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		select {
		case <-b.loop.Applied():
			t.Error("applied before anything was")
		default:
		}
		b.loop.Replace(read(t, world))
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		<-b.loop.Applied()
		if want := "listener shop/gw/http :8080 HTTP\n  *\n    / → shop/cart:80\n"; b.plane.last.String() != want {
			t.Errorf("applied:\n%s\nwant:\n%s", b.plane.last, want)
		}
		if b.tells != 1 || b.says("=False") {
			t.Errorf("told %d times: %q", b.tells, b.told)
		}
	})
}

func TestNothingAtAllIsAppliedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.loop.Replace(nil)
		b.expect("without objects", "apply")
		<-b.loop.Applied()
	})
}

func TestEndpointsTakeTheShortWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.loop.Replace(read(t, world))
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		built := b.loop.built.Snapshot

		b.loop.Set(pick(t, read(t, world, "[10.0.0.1]", "[10.0.0.2]"), "cart-1"))
		b.expect("another address", "endpoints shop/cart:80 10.0.0.2:8080")
		b.loop.Delete(pick(t, read(t, world), "cart-1"))
		b.expect("none", "endpoints shop/cart:80")
		if b.loop.built.Snapshot != built || b.tells != 1 {
			t.Errorf("a change of endpoints was built, or told (%d)", b.tells)
		}
	})
}

func TestARefusedEndpointIsToldWithoutABuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.loop.Replace(read(t, world))
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		built := b.loop.built.Snapshot

		b.loop.Set(pick(t, read(t, world, "[10.0.0.1]", "[169.254.169.254]"), "cart-1"))
		b.expect("the cloud's metadata", "endpoints shop/cart:80")
		if b.loop.built.Snapshot != built || !b.says("shop/cart:80: 169.254.169.254 is a local, multicast or no address") {
			t.Errorf("told: %q", b.told)
		}
		b.loop.Set(pick(t, read(t, world), "cart-1"))
		b.expect("mended", "endpoints shop/cart:80 10.0.0.1:8080")
		if b.says("169.254") {
			t.Errorf("still told: %q", b.told)
		}
	})
}

func TestOnlyWhatIsDifferentIsApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		objects := read(t, world)
		b.loop.Replace(objects)
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")

		b.loop.Replace(slices.Clone(objects))
		b.expect("the same objects")
		route := pick(t, objects, "api").(*gwv1.HTTPRoute).DeepCopy()
		route.Annotations = map[string]string{"note": "new"}
		b.loop.Set(route)
		b.expect("an annotation")
		if b.tells != 1 {
			t.Errorf("told %d times, want 1: it says the same", b.tells)
		}
		b.loop.Set(pick(t, read(t, world, "rules: [{", `rules: [{matches: [{path: {value: "/v2"}}], `), "api"))
		b.expect("another path", "apply")
	})
}

func TestARuleThatDoesTheSameForAnotherRouteIsApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.loop.Replace(read(t, world))
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		before := b.plane.last.String()

		b.loop.Replace(read(t, world, "name: api", "name: other"))
		b.expect("a route of another name", "apply")
		if b.plane.last.String() != before {
			t.Fatalf("the text differs, so nothing was shown: %s", b.plane.last)
		}
		if got := b.plane.last.Sockets[0].Listeners[0].Hosts[0].Matches[0].Rule.Key.Route.Name; got != "other" {
			t.Errorf("served in the name of %s", got)
		}
	})
}

func TestSocketsThatCannotBeBoundAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.plane.failing = 7
		began := time.Now()
		b.loop.Replace(read(t, world))
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		if !b.says("address in use") {
			t.Errorf("told: %q", b.told)
		}
		pod := pick(t, read(t, world), "cart-1")
		var after []time.Duration
		for len(after) < 7 && time.Since(began) < 5*time.Minute {
			time.Sleep(100 * time.Millisecond) // of the bubble's time
			// Other changes do not put it off.
			zone := fmt.Sprint(len(after), time.Since(began))
			pod = pod.DeepCopyObject().(Object)
			pod.(*discoveryv1.EndpointSlice).Endpoints[0].Zone = &zone
			b.loop.Set(pod)
			synctest.Wait()
			for _, call := range b.plane.since(b.seen) {
				b.seen++
				if call == "apply" {
					after = append(after, time.Since(began).Truncate(time.Second))
				}
			}
		}
		want := []time.Duration{1, 3, 7, 15, 31, 61, 91}
		for i := range want {
			want[i] *= time.Second
		}
		if diff := cmp.Diff(want, after); diff != "" {
			t.Errorf("tried again after: want (-), got (+):\n%s", diff)
		}
		if b.says("address in use") {
			t.Errorf("it is bound, and told is: %q", b.told)
		}
		time.Sleep(time.Hour)
		b.expect("once bound it is left alone")
	})
}

func TestChangesThatComeMeanwhileAreOneBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.plane.hold = make(chan struct{})
		objects := read(t, world)
		b.loop.Replace(objects)
		synctest.Wait() // the first is being applied
		for i := range 50 {
			route := pick(t, objects, "api").(*gwv1.HTTPRoute).DeepCopy()
			path := fmt.Sprint("/v", i)
			route.Spec.Rules[0].Matches[0].Path.Value = &path
			route.Generation += int64(i) + 1
			b.loop.Set(route)
		}
		b.plane.hold <- struct{}{}
		b.plane.hold <- struct{}{}
		b.expect("fifty changes", "endpoints shop/cart:80 10.0.0.1:8080", "apply", "apply")
		if !strings.Contains(b.plane.last.String(), "/v49") {
			t.Errorf("the last change is not served: %s", b.plane.last)
		}
		b.plane.hold = nil
	})
}

func TestABackendIsEmptiedWhenThePlanHasForgottenIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.loop.Replace(read(t, world))
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		service := pick(t, read(t, world), "cart")
		b.loop.Delete(service)
		b.expect("the Service goes", "apply", "endpoints shop/cart:80")
		b.loop.Set(service)
		b.expect("and comes back", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
	})
}

func TestABackendThatIsStillNamedKeepsItsEndpoints(t *testing.T) {
	l := NewLoop(Options{DataPlane: &fakeDataPlane{}, Log: testr.New(t)})
	plane := l.options.DataPlane.(*fakeDataPlane)
	ref := snapshot.BackendRef{Service: snapshot.Name{Namespace: "shop", Name: "cart"}, Port: 80}
	l.serving.snapshot = &snapshot.Snapshot{Backends: []snapshot.Backend{{Ref: ref}}}
	l.forget(nil, []snapshot.BackendRef{ref})
	l.emptyGone()
	if len(plane.calls) > 0 {
		t.Errorf("while the plan names it: %q", plane.calls)
	}
	l.serving.snapshot = &snapshot.Snapshot{}
	l.emptyGone()
	l.emptyGone()
	if want := []string{"endpoints shop/cart:80"}; !slices.Equal(plane.calls, want) {
		t.Errorf("afterwards: %q, want %q", plane.calls, want)
	}
}

func TestAPanicInBuildLeavesWhatIsServed(t *testing.T) {
	panics := true
	kind := policy.Of(func() *v1alpha1.RateLimitPolicy { return new(v1alpha1.RateLimitPolicy) },
		func(p *v1alpha1.RateLimitPolicy) []policy.Target { return p.Spec.TargetRefs }, policy.AttachTo{policy.Gateway},
		func(e []policy.Effect) policy.Effect { return e[0] },
		func(*v1alpha1.RateLimitPolicy, policy.Lookup) (policy.Effect, []policy.Problem) {
			if panics {
				panic("a bug")
			}
			return policy.Effect{}, nil
		})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, []policy.Kind{kind})
		b.loop.Replace(read(t, world))
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")

		bad := &v1alpha1.RateLimitPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bad"}}
		b.loop.Set(bad, pick(t, read(t, world, "- {path", "", "port: 80}]}]", "port: 81}]}]"), "api"))
		b.expect("the policy panics")
		b.loop.Set(pick(t, read(t, world, "[10.0.0.1]", "[10.0.0.2]"), "cart-1"))
		b.expect("endpoints go on", "endpoints shop/cart:80 10.0.0.2:8080")
		panics = false
		b.loop.Set(pick(t, read(t, world, "[10.0.0.1]", "[10.0.0.3]"), "cart-1"))
		b.expect("any change tries again", "endpoints shop/cart:80 10.0.0.3:8080", "apply")
	})
}

func TestAnObjectThatWasSetAndDeletedInOneBatchIsNobodys(t *testing.T) {
	l := NewLoop(Options{Log: testr.New(t)})
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}}
	l.Set(service)
	l.Delete(service)
	l.Delete(service)
	changes, _ := l.batch()
	for id, o := range changes {
		if o != nil {
			t.Errorf("%v is told as %v", id, o)
		}
		l.note(id, o, true)
	}
	if again, _ := l.batch(); len(l.known) != 0 || len(l.objects) != 0 || len(again) != 0 {
		t.Errorf("known: %v, objects: %v", l.known, l.objects)
	}
}
