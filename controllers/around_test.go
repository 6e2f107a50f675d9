package controllers

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// fakeCluster is what a loop has around it.
type fakeCluster struct {
	unsynced atomic.Bool
	asked    func() // before Synced answers
	gateways atomic.Bool
	refs     []translate.Ref
	wants    []translate.Ref
	stored   map[string][]Object
	facts    translate.Facts
}

func (c *fakeCluster) Synced() bool {
	if asked := c.asked; asked != nil {
		c.asked = nil
		asked()
	}
	return !c.unsynced.Load()
}

func (c *fakeCluster) Gateways() bool                     { return c.gateways.Load() }
func (c *fakeCluster) Follow(refs, wants []translate.Ref) { c.refs, c.wants = refs, wants }
func (c *fakeCluster) Stored(kind string) []Object        { return c.stored[kind] }
func (c *fakeCluster) Complete(f *translate.Facts) {
	f.CRDs, f.Unreadable = c.facts.CRDs, c.facts.Unreadable
}

// fakeOutside has pod ports, and notes what it is told.
type fakeOutside struct {
	ports    map[translate.PodPort]uint16
	wanted   []translate.Infra
	gateways map[types.UID]bool
	here     snapshot.BindResult
	applied  int
}

func (o *fakeOutside) Set(...Object)                          {}
func (o *fakeOutside) Delete(...Object)                       {}
func (o *fakeOutside) PodPorts() map[translate.PodPort]uint16 { return o.ports }
func (o *fakeOutside) Complete(f *translate.Facts) {
	f.Addresses = map[snapshot.Name][]gwv1.GatewayStatusAddress{}
}
func (o *fakeOutside) Run(context.Context)  {}
func (o *fakeOutside) Lead(context.Context) {}
func (o *fakeOutside) Applied(wanted []translate.Infra, gateways map[types.UID]bool, here snapshot.BindResult) {
	o.wanted, o.gateways, o.here = wanted, gateways, here
	o.applied++
}

// newClusterBench is a bench whose loop has a cluster around it.
func newClusterBench(t *testing.T, c *fakeCluster, o Outside) *bench {
	b := &bench{t: t, plane: &fakeDataPlane{}}
	b.loop = NewLoop(Options{
		DataPlane: b.plane, Cluster: c, Outside: o, Input: translate.Input{Kinds: Policies},
		Told: func(all []translate.Status) { b.statuses, b.told, b.tells = all, words(all), b.tells+1 },
		Log:  testr.New(t),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.loop.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

var cart = translate.Ref{Kind: "Service", Name: snapshot.Name{Namespace: "shop", Name: "cart"}}

func TestNothingIsServedBeforeEverythingWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{}
		c.unsynced.Store(true)
		b := newClusterBench(t, c, nil)
		b.loop.Set(read(t, world)...)
		b.expect("read in part", "endpoints shop/cart:80 10.0.0.1:8080")
		c.unsynced.Store(false)
		b.loop.Around()
		b.expect("read", "apply")
		<-b.loop.Applied()
		c.unsynced.Store(true)
		b.loop.Set(read(t, world, "name: api", "name: other")...)
		b.expect("what happens later", "apply")
	})
}

func TestWhatIsReadWhileTheLoopIsBusyIsInTheFirstSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{}
		c.unsynced.Store(true)
		b := newClusterBench(t, c, nil)
		objects := read(t, world)
		c.asked = func() { // the last watch comes to its end just now
			b.loop.Set(objects...)
			c.unsynced.Store(false)
		}
		b.loop.Around()
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		if b.plane.last == nil || len(b.plane.last.Sockets) == 0 {
			t.Error("the first snapshot is empty")
		}
	})
}

func TestTheFirstSnapshotWaitsForAllAnswers(t *testing.T) {
	without := func(t *testing.T) []Object {
		return slices.DeleteFunc(read(t, world), func(o Object) bool { return o.GetName() == "cart" })
	}
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{}
		b := newClusterBench(t, c, nil)
		b.loop.Set(without(t)...)
		b.expect("a reference has no answer")
		if !slices.Equal(c.wants, []translate.Ref{cart}) || b.tells > 0 {
			t.Errorf("wanted are %v, told was %d times", c.wants, b.tells)
		}
		b.loop.Answer(cart, translate.Absent)
		b.expect("it has", "apply")
		if !b.says("there is no Service shop/cart") || len(c.wants) > 0 {
			t.Errorf("told: %q; wanted %v", b.told, c.wants)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := newClusterBench(t, &fakeCluster{}, nil)
		b.loop.Set(without(t)...)
		b.expect("a reference has no answer")
		b.loop.Hopeless(cart)
		b.expect("it never will", "apply")
		if b.says("there is no Service") {
			t.Errorf("nobody knows, and told is: %q", b.told)
		}
	})
}

func TestWhatWasThereIsGoneOnlyWhenTheAPIServerSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{}
		b := newClusterBench(t, c, nil)
		b.loop.Set(read(t, world)...)
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		service := pick(t, read(t, world), "cart")

		b.loop.Delete(service)
		b.expect("its watch says that it is gone")
		if !slices.Contains(c.wants, cart) || b.says("there is no Service") {
			t.Errorf("wanted are %v, told is %q", c.wants, b.told)
		}
		b.loop.Set(service)
		b.expect("it was replaced", "endpoints shop/cart:80 10.0.0.1:8080")

		b.loop.Delete(service)
		b.loop.Answer(cart, translate.Absent)
		b.expect("it is gone", "apply", "endpoints shop/cart:80")
		if !b.says("there is no Service shop/cart") {
			t.Errorf("told: %q", b.told)
		}

		// An old answer does not count once the object was there again.
		b.loop.Set(service)
		b.expect("it is back", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		b.loop.Answer(cart, translate.Absent)
		b.expect("an answer that was on its way")
		b.loop.Delete(service)
		b.expect("and gone again: that is to be asked for")
	})
}

func TestAnAnswerIsForgottenWithTheReference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{}
		b := newClusterBench(t, c, nil)
		objects := slices.DeleteFunc(read(t, world), func(o Object) bool { return o.GetName() == "cart" })
		b.loop.Set(objects...)
		synctest.Wait()
		b.loop.Answer(cart, translate.Absent)
		b.expect("there is none", "apply")
		route := pick(t, objects, "api")
		b.loop.Delete(route)
		b.expect("nobody refers to it", "apply")
		b.loop.Set(route)
		synctest.Wait()
		if !slices.Equal(c.wants, []translate.Ref{cart}) {
			t.Errorf("wanted are %v: there may be one by now, and nobody has looked", c.wants)
		}
	})
}

func TestOnlyOurOwnObjectsAreBuilt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newClusterBench(t, &fakeCluster{}, nil)
		b.loop.Set(read(t, world)...)
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		built := b.loop.built.Snapshot
		theirs := read(t, world, "{name: gatehouse}", "{name: theirs}", "gatehouse.dev/gateway-controller", "example.com/theirs",
			"gatewayClassName: gatehouse", "gatewayClassName: theirs", "namespace: shop", "namespace: other")
		b.loop.Set(slices.DeleteFunc(theirs, func(o Object) bool { return o.GetName() == "cart-1" })...)
		route := pick(t, read(t, world), "api").DeepCopyObject().(*gwv1.HTTPRoute)
		route.Status.Parents = []gwv1.RouteParentStatus{{ControllerName: v1alpha1.ControllerName}}
		service := pick(t, read(t, world), "cart").DeepCopyObject().(*corev1.Service)
		service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
		service.Annotations = map[string]string{"a": "b"}
		b.loop.Set(route, service)
		synctest.Wait()
		if b.loop.built.Snapshot != built {
			t.Error("what others did, and what was written into statuses, was built")
		}
		b.loop.Set(pick(t, read(t, world, "port: 80}]}]", "port: 81}]}]"), "api"))
		b.expect("ours is", "endpoints other/cart:80", "apply")
		if !slices.ContainsFunc(slices.Collect(maps.Values(b.loop.objects)), func(o Object) bool { return o == Object(service) }) {
			t.Error("the last version of an object that says the same is not the one that is kept")
		}
	})
}

func TestPodPortsComeFromTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, c := &fakeOutside{ports: map[translate.PodPort]uint16{}}, &fakeCluster{}
		b := newClusterBench(t, c, o)
		objects := read(t, world)
		gateway := pick(t, objects, "gw")
		b.loop.Set(objects...)
		b.expect("no pod port is recorded", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		if len(b.plane.last.Sockets) > 0 || len(o.wanted) != 1 || !b.says("not bound") {
			t.Errorf("sockets %v, wanted %v, told %q", b.plane.last.Sockets, o.wanted, b.told)
		}
		if o.gateways != nil {
			t.Error("not all Gateways are known, so nobody may conclude from those that are missing")
		}
		c.gateways.Store(true)
		o.ports = map[translate.PodPort]uint16{{Gateway: gateway.GetUID(), Port: 8080}: 10000}
		b.loop.Around()
		b.expect("one is", "apply")
		if b.plane.last.Sockets[0].Key.Port != 10000 || len(o.here.Sockets) != 1 || !o.gateways[gateway.GetUID()] {
			t.Errorf("applied %v; told outside: %+v", b.plane.last.Sockets, o)
		}
		tells := b.tells
		b.loop.Around()
		b.expect("the facts may have changed")
		if b.tells != tells+1 {
			t.Error("nobody was told")
		}
	})
}

func TestWhatWasSaidOfARouteThatIsNotOursAnyMoreIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine := func(name string) Object {
			return &gwv1.HTTPRoute{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Generation: 3},
				Status: gwv1.HTTPRouteStatus{RouteStatus: gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{
					{ControllerName: v1alpha1.ControllerName}, {ControllerName: "example.com/theirs"},
				}}},
			}
		}
		theirs := &gwv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "theirs"}}
		c := &fakeCluster{stored: map[string][]Object{"HTTPRoute": {mine("api"), mine("moved"), mine("waits"), theirs}}}
		b := newClusterBench(t, c, nil)
		b.loop.Set(read(t, world)...)
		b.loop.Set(pick(t, read(t, world, "name: api", "name: waits", "name: cart, port", "name: later, port"), "waits"))
		b.loop.Hopeless(translate.Ref{Kind: "Service", Name: snapshot.Name{Namespace: "shop", Name: "later"}})
		synctest.Wait()
		b.loop.Hopeless(translate.Ref{Kind: "Service", Name: snapshot.Name{Namespace: "shop", Name: "later"}})
		synctest.Wait()
		var got []string
		for _, s := range b.statuses {
			if v, ok := s.Value.(gwv1.RouteStatus); ok {
				got = append(got, s.Name.Name+": "+strings.Repeat("parent", len(v.Parents)))
			}
		}
		if want := []string{"api: parent", "moved: "}; !slices.Equal(got, want) {
			t.Errorf("told: %q, want %q", got, want)
		}
	})
}

func TestAnOperatorIsToldWhatMayNotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{facts: translate.Facts{Unreadable: []string{"grpcroutes.gateway.networking.k8s.io"}}}
		b := newClusterBench(t, c, nil)
		b.loop.Set(read(t, world)...)
		synctest.Wait()
		for _, s := range b.statuses {
			if v, ok := s.Value.(gwv1.GatewayClassStatus); ok {
				if got := v.Conditions[0]; got.Status != metav1.ConditionTrue || !strings.Contains(got.Message, "may not read grpcroutes") {
					t.Errorf("told: %+v", got)
				}
				return
			}
		}
		t.Error("nothing was told of the class")
	})
}
