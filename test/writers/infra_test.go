package writers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/infra"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func named(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// release is Gatehouse installed in a namespace of its own, as one replica: it binds whatever the record names.
type release struct {
	*infra.Infra
	t         *testing.T
	server    *server
	namespace string
	owner     *corev1.ConfigMap
	options   infra.Options

	mu     sync.Mutex // guards what follows
	wanted []translate.Infra
	there  map[types.UID]bool
	ever   map[types.UID]bool // those of all times; the other parts of the test have others
	seen   map[string]bool    // ConfigMaps that the watch has told
	blind  bool               // it does not know which Gateways there are
}

func install(t *testing.T, s *server) *release {
	r := &release{t: t, server: s, namespace: s.space(t, "gatehouse"), there: map[types.UID]bool{}, ever: map[types.UID]bool{}}
	r.owner = &corev1.ConfigMap{ObjectMeta: named(r.namespace, "release")}
	s.create(t, r.owner)
	s.create(t, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: r.namespace, Name: "members", Labels: map[string]string{discoveryv1.LabelServiceName: "members"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "pod", UID: "uid-pod"}}},
	})
	r.options = infra.Options{
		Client: s, Log: testr.New(t), Namespace: r.namespace, Pod: "pod", PodUID: "uid-pod", Headless: "members", Owner: "release", Record: "ports",
		Selector: map[string]string{"app": "gatehouse"}, ClusterDomain: "cluster.local",
		Service: infra.ServiceOptions{Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal},
	}
	return r
}

// run has the release lead until the returned function is called, or the test ends.
func (r *release) run() (stop func()) {
	wake := make(chan struct{}, 1)
	r.options.Changed = func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	r.Infra = infra.New(r.options)
	ctx, cancel := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	one := r.Infra
	all.Go(func() { one.Run(ctx) })
	all.Go(func() { one.Lead(ctx) })
	all.Go(func() { r.watch(ctx, one) })
	all.Go(func() {
		for ctx.Err() == nil {
			r.apply(one)
			select {
			case <-ctx.Done():
			case <-wake:
			}
		}
	})
	stop = func() { cancel(); all.Wait() }
	r.t.Cleanup(stop)
	return stop
}

// watch tells what there is, as the controllers' watches do; it looks again and again.
func (r *release) watch(ctx context.Context, one *infra.Infra) {
	known := map[string]client.Object{}
	for ; ctx.Err() == nil; time.Sleep(15 * time.Millisecond) {
		now := map[string]client.Object{}
		var maps corev1.ConfigMapList
		var services corev1.ServiceList
		var leases coordinationv1.LeaseList
		var slices discoveryv1.EndpointSliceList
		for _, list := range []client.ObjectList{&maps, &leases, &slices} {
			if r.server.List(ctx, list, client.InNamespace(r.namespace)) != nil {
				return
			}
		}
		if r.server.List(ctx, &services) != nil {
			return
		}
		note := func(o client.Object) { now[fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName())] = o }
		for i := range maps.Items {
			note(&maps.Items[i])
		}
		for i := range leases.Items {
			note(&leases.Items[i])
		}
		for i := range slices.Items {
			note(&slices.Items[i])
		}
		for i := range services.Items {
			if o := &services.Items[i]; o.Namespace == r.namespace || r.knows(types.UID(o.Labels[infra.UIDLabel])) {
				note(o)
			}
		}
		for name, o := range now {
			if was := known[name]; was == nil || was.GetResourceVersion() != o.GetResourceVersion() {
				one.Set(o)
			}
		}
		for name, o := range known {
			if now[name] == nil {
				one.Delete(o)
			}
		}
		known = now
		r.mu.Lock()
		r.seen = map[string]bool{}
		for _, c := range maps.Items {
			r.seen[c.Name] = true
		}
		r.mu.Unlock()
	}
}

func (r *release) knows(gateway types.UID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ever[gateway]
}

// apply is the loop: what has a pod port is bound.
func (r *release) apply(one *infra.Infra) {
	r.mu.Lock()
	defer r.mu.Unlock()
	there := r.there
	if r.blind {
		there = nil
	}
	one.Applied(slices.Clone(r.wanted), there, snapshot.BindResult{Sockets: r.sockets(one)})
}

func (r *release) sockets(one *infra.Infra) (all []snapshot.BindState) {
	ports := one.PodPorts()
	for _, g := range r.wanted {
		for _, p := range g.Ports {
			if pod := ports[translate.PodPort{Gateway: g.UID, Port: p}]; pod != 0 {
				all = append(all, snapshot.BindState{Key: snapshot.SocketKey{Gateway: g.Gateway, Port: pod}})
			}
		}
	}
	return all
}

// want has a Gateway, which is made if need be, serve some ports. It returns what was wanted of it.
func (r *release) want(namespace, name string, change func(*translate.Infra), ports ...uint16) translate.Infra {
	r.t.Helper()
	g := &gwv1.Gateway{ObjectMeta: named(namespace, name), Spec: gwv1.GatewaySpec{
		GatewayClassName: "gatehouse", Listeners: []gwv1.Listener{{Name: "http", Port: 80, Protocol: gwv1.HTTPProtocolType}},
	}}
	if err := r.server.Get(r.t.Context(), client.ObjectKeyFromObject(g), g); apierrors.IsNotFound(err) {
		r.server.create(r.t, g)
	} else if err != nil {
		r.t.Fatal(err)
	}
	one := translate.Infra{Gateway: snapshot.Name{Namespace: namespace, Name: name}, UID: g.UID, Class: "gatehouse", Ports: ports, Named: ports}
	if change != nil {
		change(&one)
	}
	r.mu.Lock()
	r.wanted = append(slices.DeleteFunc(slices.Clone(r.wanted), func(o translate.Infra) bool { return o.UID == one.UID }), one)
	r.ever[one.UID] = true
	there := map[types.UID]bool{one.UID: true}
	for _, o := range r.wanted {
		there[o.UID] = true
	}
	r.there = there
	r.mu.Unlock()
	if r.Infra != nil {
		r.apply(r.Infra)
	}
	return one
}

// forget has the loop believe that a Gateway is gone.
func (r *release) forget(g translate.Infra) {
	r.mu.Lock()
	r.wanted = slices.DeleteFunc(slices.Clone(r.wanted), func(o translate.Infra) bool { return o.UID == g.UID })
	r.there = map[types.UID]bool{} // a new one: who was told the old one may still read it
	for _, o := range r.wanted {
		r.there[o.UID] = true
	}
	r.mu.Unlock()
	r.apply(r.Infra)
}

// service is a Gateway's Service, nil if there is none.
func (r *release) service(g translate.Infra) *corev1.Service {
	r.t.Helper()
	return r.find(r.namespace, g)
}

func (r *release) alias(g translate.Infra) *corev1.Service {
	r.t.Helper()
	return r.find(g.Gateway.Namespace, g)
}

func (r *release) find(namespace string, g translate.Infra) *corev1.Service {
	var all corev1.ServiceList
	if err := r.server.List(r.t.Context(), &all, client.InNamespace(namespace), client.MatchingLabels{infra.UIDLabel: string(g.UID)}); err != nil {
		r.t.Fatal(err)
	}
	if len(all.Items) == 0 {
		return nil
	}
	return &all.Items[0]
}

// ports are those of a Gateway's Service, sorted: "80 443".
func (r *release) ports(g translate.Infra) string {
	s := r.service(g)
	if s == nil {
		return "none"
	}
	slices.SortFunc(s.Spec.Ports, func(a, b corev1.ServicePort) int { return cmp.Compare(a.Port, b.Port) })
	var words []string
	for _, p := range s.Spec.Ports {
		words = append(words, fmt.Sprint(p.Port))
	}
	return strings.Join(words, " ")
}

func (r *release) eventuallyPorts(g translate.Infra, ports string) *corev1.Service {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%s publishes %s", g.Gateway, ports), func() bool { return r.ports(g) == ports })
	return r.service(g)
}

// facts are what the loop would build statuses from.
func (r *release) facts() translate.Facts {
	r.mu.Lock()
	defer r.mu.Unlock()
	var f translate.Facts
	f.Bound(snapshot.BindResult{Sockets: r.sockets(r.Infra)})
	r.Complete(&f)
	return f
}

// record is what is stored of a Gateway.
func (r *release) record(g translate.Infra) string {
	c := &corev1.ConfigMap{ObjectMeta: named(r.namespace, "ports")}
	r.server.get(r.t, c)
	return c.Data[string(g.UID)]
}

func serviceLives(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	r.run()
	g := r.want(web, "gw", func(i *translate.Infra) {
		i.Labels, i.Annotations = map[string]string{"team": "shop"}, map[string]string{"example.com/size": "large"}
	}, 80)
	first := r.eventuallyPorts(g, "80")
	eventually(t, "there is an alias", func() bool { return r.alias(g) != nil })
	for _, one := range []*corev1.Service{first, r.alias(g)} {
		if one.Generation > 1 || one.Labels["team"] != "shop" || one.Annotations["example.com/size"] != "large" ||
			one.Labels["gateway.networking.k8s.io/gateway-name"] != "gw" {
			t.Errorf("not complete when it was made: %+v", one.ObjectMeta)
		}
	}
	if o := first.OwnerReferences; len(o) != 1 || o[0].UID != r.owner.UID {
		t.Errorf("owned by %v", o)
	}
	if o := r.alias(g).OwnerReferences; len(o) != 1 || o[0].UID != g.UID {
		t.Errorf("the alias is owned by %v", o)
	}

	// What others put on it stays through all of our changes.
	change(t, s, first, func(o *corev1.Service) {
		o.Annotations["cloud"], o.Labels["cloud"] = "theirs", "theirs"
		o.Finalizers = []string{"example.com/balancer"}
	}, s.update)
	change(t, s, first, func(o *corev1.Service) {
		o.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
	}, s.updateStatus)
	r.want(web, "gw", nil, 80, 443)
	second := r.eventuallyPorts(g, "80 443")
	if second.Spec.Ports[0].NodePort != first.Spec.Ports[0].NodePort || second.Spec.HealthCheckNodePort != first.Spec.HealthCheckNodePort ||
		second.Spec.ClusterIP != first.Spec.ClusterIP || second.Annotations["cloud"] != "theirs" || second.Labels["cloud"] != "theirs" {
		t.Errorf("of others was lost: was %+v\nis %+v", first, second)
	}
	if second.Labels["team"] != "" || second.Annotations["example.com/size"] != "" {
		t.Errorf("what the Gateway does not want any more is there: %+v", second.ObjectMeta)
	}
	eventually(t, "its address is told", func() bool {
		f := r.facts()
		return len(f.Addresses[g.Gateway]) == 1 && f.Addresses[g.Gateway][0].Value == "192.0.2.1" && len(f.Binds) == 2
	})

	change(t, s, second, func(o *corev1.Service) {
		o.Spec.Ports[0].TargetPort, o.Spec.Selector = intstr.FromInt32(9), map[string]string{"app": "evil"}
	}, s.update)
	eventually(t, "it is repaired", func() bool {
		now := r.service(g)
		return now.Spec.Selector["app"] == "gatehouse" && now.Spec.Ports[0].TargetPort.IntVal >= 10000
	})
	r.want(web, "gw", nil, 443)
	r.eventuallyPorts(g, "443")
	eventually(t, "the other port rests", func() bool { return strings.Contains(r.record(g), "80=1") && strings.Contains(r.record(g), "@") })

	change(t, s, second, func(o *corev1.Service) { o.Finalizers = nil }, s.update)
	s.remove(t, second)
	eventually(t, "it is made again", func() bool { now := r.service(g); return now != nil && now.UID != second.UID })
	s.remove(t, &gwv1.Gateway{ObjectMeta: named(web, "gw")})
	r.forget(g)
	eventually(t, "both are gone", func() bool { return r.service(g) == nil && r.alias(g) == nil })
}

func exposureChanges(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	stop := r.run()
	g := r.want(web, "gw", nil, 80, 443)
	r.eventuallyPorts(g, "80 443")
	eventually(t, "there is an alias", func() bool { return r.alias(g) != nil })
	was := r.record(g)
	stop()

	r.options.Host = true
	stop = r.run()
	eventually(t, "both are gone, though the Gateway is there", func() bool { return r.service(g) == nil && r.alias(g) == nil })
	if is := r.record(g); is != was {
		t.Errorf("the record is %q, was %q", is, was)
	}
	stop()

	r.options.Host = false
	r.run()
	r.eventuallyPorts(g, "80 443")
	if is := r.record(g); is != was {
		t.Errorf("the record is %q, was %q", is, was)
	}
}

func serviceChangesType(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	var g translate.Infra
	for _, o := range []infra.ServiceOptions{
		{Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: "Local", LoadBalancerClass: "example.com/lb", IPFamilyPolicy: "SingleStack"},
		{Type: corev1.ServiceTypeClusterIP, ExternalTrafficPolicy: "Local", LoadBalancerClass: "example.com/lb"},
		{Type: corev1.ServiceTypeNodePort, ExternalTrafficPolicy: "Cluster"},
		{Type: corev1.ServiceTypeLoadBalancer},
		{Type: corev1.ServiceTypeClusterIP},
	} {
		r.options.Service = o
		stop := r.run()
		g = r.want(web, "gw", nil, 80, 443)
		eventually(t, fmt.Sprintf("it is of type %s", o.Type), func() bool { now := r.service(g); return now != nil && now.Spec.Type == o.Type })
		now := r.eventuallyPorts(g, "80 443")
		if f := r.facts(); f.Unprovided[g.Gateway] != "" {
			t.Errorf("%s: %s", o.Type, f.Unprovided[g.Gateway])
		}
		if class := now.Spec.LoadBalancerClass; (class != nil) != (o.Type == corev1.ServiceTypeLoadBalancer && o.LoadBalancerClass != "") {
			t.Errorf("%s has class %v", o.Type, class)
		}
		stop()
	}
}

func namesFit(t *testing.T, s *server) {
	r := install(t, s)
	a := s.space(t, "n")
	ab := a + "-b"
	s.create(t, &corev1.Namespace{ObjectMeta: named("", ab)})
	r.run()
	long := strings.Repeat("abcdefghi.", 25) + "abc"
	gateways := []translate.Infra{r.want(ab, "c", nil, 80), r.want(a, "b-c", nil, 80), r.want(a, "b.c", nil, 80), r.want(a, long, nil, 80), r.want(r.namespace, "own", nil, 80)}
	names := map[string]bool{}
	for _, g := range gateways {
		names[r.eventuallyPorts(g, "80").Name] = true
	}
	if len(names) != len(gateways) {
		t.Errorf("Services: %v", names)
	}
	for _, g := range gateways[:4] {
		eventually(t, "there is an alias", func() bool { return r.alias(g) != nil })
	}
	if f := r.facts(); len(f.Remarks)+len(f.Unprovided) > 0 {
		t.Errorf("told: %v %v", f.Remarks, f.Unprovided)
	}
}

// quota bounds how many Services a namespace has; there is no controller that would count.
func quota(t *testing.T, s *server, namespace string) *corev1.ResourceQuota {
	q := &corev1.ResourceQuota{ObjectMeta: named(namespace, "few"), Spec: corev1.ResourceQuotaSpec{
		Hard: corev1.ResourceList{"services": resource.MustParse("1")},
	}}
	s.create(t, q)
	change(t, s, q, func(q *corev1.ResourceQuota) {
		q.Status.Hard = q.Spec.Hard
		q.Status.Used = corev1.ResourceList{"services": resource.MustParse("1")}
	}, s.updateStatus)
	return q
}

func quotaIsLocal(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	r.run()
	before := r.want(web, "before", nil, 80)
	r.eventuallyPorts(before, "80")
	q := quota(t, s, r.namespace)
	after := r.want(web, "after", nil, 80)
	eventually(t, "the quota is told", func() bool { return strings.Contains(r.facts().Unprovided[after.Gateway], "exceeded quota: few") })
	r.want(web, "before", nil, 80, 443)
	r.eventuallyPorts(before, "80 443")
	if f := r.facts(); f.Unprovided[before.Gateway] != "" {
		t.Errorf("the other one is told: %s", f.Unprovided[before.Gateway])
	}
	s.remove(t, q)
	r.eventuallyPorts(after, "80")
	eventually(t, "nothing is told any more", func() bool { return r.facts().Unprovided[after.Gateway] == "" })
}

func aliasIsRefused(t *testing.T, s *server) {
	r, full, ending := install(t, s), s.space(t, "full"), s.space(t, "ending")
	r.run()
	in := r.want(ending, "gw", nil) // has no port yet
	s.remove(t, &corev1.Namespace{ObjectMeta: named("", ending)})
	quota(t, s, full)
	for where, said := range map[string]string{full: "exceeded quota", ending: "because it is being terminated"} {
		g := in
		if where == full {
			g = r.want(full, "gw", nil, 80)
		} else {
			r.want(ending, "gw", nil, 80)
		}
		r.eventuallyPorts(g, "80")
		eventually(t, "it is told", func() bool {
			f := r.facts()
			return f.Unprovided[g.Gateway] == "" && strings.Contains(f.Remarks[g.Gateway], said)
		})
	}
}

func namesAreTaken(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	theirs := &corev1.Service{ObjectMeta: named(web, "gw-gatehouse"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 7}}}}
	s.create(t, theirs)
	r.run()
	g := r.want(web, "gw", nil, 80)
	r.eventuallyPorts(g, "80")
	eventually(t, "it is told", func() bool {
		return strings.Contains(r.facts().Remarks[g.Gateway], "gw-gatehouse, which is not this Gateway's")
	})
	version := theirs.ResourceVersion
	s.get(t, theirs)
	if theirs.ResourceVersion != version {
		t.Errorf("it was touched: %+v", theirs)
	}
	s.remove(t, theirs)
	eventually(t, "there is an alias", func() bool { return r.alias(g) != nil })
	eventually(t, "nothing is told any more", func() bool { return r.facts().Remarks[g.Gateway] == "" })
}

func gatewayIsThere(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	r.run()
	g, other := r.want(web, "gw", nil, 80), r.want(web, "other", nil, 80)
	r.eventuallyPorts(g, "80")
	r.eventuallyPorts(other, "80")
	uid := r.service(g).UID
	r.forget(g) // so the loop believes
	r.forget(other)
	s.remove(t, &gwv1.Gateway{ObjectMeta: named(web, "other")})
	eventually(t, "the one that is gone has no Service", func() bool { return r.service(other) == nil })
	if now := r.service(g); now == nil || now.UID != uid {
		t.Error("the Service of the one that is there is gone")
	}

	s.create(t, &gwv1.GatewayClass{ObjectMeta: named("", web), Spec: gwv1.GatewayClassSpec{ControllerName: "example.com/other"}})
	moved := &gwv1.Gateway{ObjectMeta: named(web, "gw")}
	change(t, s, moved, func(o *gwv1.Gateway) { o.Spec.GatewayClassName = gwv1.ObjectName(web) }, s.update)
	r.apply(r.Infra)
	eventually(t, "it is another controller's, and its Service is gone", func() bool { return r.service(g) == nil })
}

func leadersRace(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	other := &release{t: t, server: s, namespace: r.namespace, owner: r.owner, options: r.options, ever: map[types.UID]bool{}}
	r.blind, other.blind = true, true // neither has heard of the Gateways that the other one knows
	r.run()
	other.run()
	var all []translate.Infra
	for i := range 40 {
		all = append(all, r.want(web, fmt.Sprintf("r%d", i), nil, 80, 443), other.want(web, fmt.Sprintf("o%d", i), nil, 80))
	}
	c := &corev1.ConfigMap{ObjectMeta: named(r.namespace, "ports")}
	eventually(t, "all are recorded", func() bool {
		s.get(t, c)
		for _, g := range all {
			if !strings.Contains(c.Data[string(g.UID)], "80=") {
				return false
			}
		}
		return true
	})
	used := map[string]bool{}
	for _, text := range c.Data {
		for word := range strings.FieldsSeq(text) {
			_, pod, _ := strings.Cut(word, "=")
			pod, _, _ = strings.Cut(pod, "@")
			if used[pod] {
				t.Errorf("pod port %s is there twice", pod)
			}
			used[pod] = true
		}
	}
}

func recordIsMadeAgain(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	stop := r.run()
	g := r.want(web, "gw", nil, 80, 443)
	r.eventuallyPorts(g, "80 443")
	before := r.record(g)
	eventually(t, "it was seen", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.seen["ports"] })
	s.remove(t, &corev1.ConfigMap{ObjectMeta: named(r.namespace, "ports")})
	again := func() bool {
		c := &corev1.ConfigMap{}
		err := s.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "ports"}, c)
		return err == nil && c.Data[string(g.UID)] == before
	}
	eventually(t, "it is made again", again)

	stop() // and while nobody leads, so that only Services remember
	s.remove(t, &corev1.ConfigMap{ObjectMeta: named(r.namespace, "ports")})
	r.run()
	eventually(t, "it is made again of what Services say", again)
	r.eventuallyPorts(g, "80 443")
}

func ownerIsGone(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	s.remove(t, r.owner)
	r.run()
	g := r.want(web, "gw", nil, 80)
	eventually(t, "it is told", func() bool { return strings.Contains(r.facts().Unprovided[g.Gateway], "/release is not there") })
	if r.service(g) != nil || r.alias(g) != nil {
		t.Error("there is a Service")
	}
	s.create(t, &corev1.ConfigMap{ObjectMeta: named(r.namespace, "release")})
	r.eventuallyPorts(g, "80")
}

func leaseIsTaken(t *testing.T, s *server) {
	r, web := install(t, s), s.space(t, "web")
	r.run()
	r.want(web, "gw", nil, 80, 443)
	lease := &coordinationv1.Lease{}
	says := func() bool {
		err := s.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "pod"}, lease)
		return err == nil && lease.Annotations["gatehouse.dev/bound"] == "10000-10001"
	}
	eventually(t, "the replica says what it has bound", says)
	if o := lease.OwnerReferences; len(o) != 1 || o[0].UID != "uid-pod" || o[0].Kind != "Pod" || lease.Spec.LeaseDurationSeconds != nil {
		t.Errorf("%+v", lease)
	}
	s.remove(t, lease)
	eventually(t, "it says so again", says)
	change(t, s, lease, func(l *coordinationv1.Lease) { l.Annotations["gatehouse.dev/bound"] = "1" }, s.update)
	eventually(t, "it says so again", says)
}
