package infra

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/members"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// house is an Infra in pod "a", with what watches have told.
type house struct {
	*Infra
	changes int
}

func newHouse(t *testing.T, change func(*Options)) *house {
	h := &house{}
	o := options
	o.Pod, o.PodUID, o.Headless, o.Log = "a", "uid-a", "members", testr.New(t)
	o.Changed = func() { h.changes++ }
	if change != nil {
		change(&o)
	}
	h.Infra = New(o)
	return h
}

// ready tells which pods are, as "a=10.0.0.1".
func (h *house) ready(pods ...string) {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: "gatehouse", Name: "members-1", Labels: map[string]string{discoveryv1.LabelServiceName: "members"},
	}}
	for _, p := range pods {
		name, address, _ := strings.Cut(p, "=")
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address}, NodeName: new("node-" + name),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: name, UID: types.UID("uid-" + name)},
		})
	}
	h.Set(s)
}

func (h *house) says(pod, bound, failed string) {
	h.Set(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: "gatehouse", Name: pod, OwnerReferences: []metav1.OwnerReference{{Kind: "Pod", UID: types.UID("uid-" + pod)}},
		Annotations: map[string]string{members.BoundAnnotation: bound, members.FailedAnnotation: failed},
	}})
}

// publish tells of a Service of Gateway gw that sends spec port 80 to a pod port.
func (h *house) publish(kind corev1.ServiceType, change func(*corev1.Service), pods ...uint16) {
	g := gateway("gw")
	s := h.options.service(g, *owner, nil, nil)
	s.Spec.Type = kind
	for i, pod := range pods {
		p := Port{Number: uint16(80 + i)}
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name: p.name(), Port: int32(p.Number), Protocol: p.protocol(), TargetPort: intstr.FromInt32(int32(pod)),
		})
	}
	if change != nil {
		change(s)
	}
	h.Set(s)
}

// applied tells that gw is served on sockets, which were bound here but for those with an error.
func (h *house) applied(errs map[snapshot.SocketKey]error) translate.Facts {
	var r snapshot.BindResult
	for key, err := range errs {
		r.Sockets = append(r.Sockets, snapshot.BindState{Key: key, Err: err})
	}
	g := gateway("gw", 80)
	for key := range errs {
		if key.Address.IsValid() {
			g.Addresses = append(g.Addresses, key.Address.String())
		}
	}
	h.Applied([]translate.Infra{g}, map[types.UID]bool{g.UID: true}, r)
	var f translate.Facts
	f.Bound(r)
	h.Complete(&f)
	return f
}

func socket(port uint16) snapshot.SocketKey {
	return snapshot.SocketKey{Gateway: snapshot.Name{Namespace: "web", Name: "gw"}, Port: port}
}

// says is what facts say of a socket.
func says(f translate.Facts, key snapshot.SocketKey) string {
	err, tried := f.Binds[key]
	switch {
	case !tried:
		return "pending"
	case err != nil:
		return err.Error()
	}
	return "bound"
}

func TestASocketServesWhenAllReplicasHaveBoundItAndItIsPublished(t *testing.T) {
	for name, c := range map[string]struct {
		here error
		tell func(*house)
		want string
	}{
		"nothing is known":            {want: "pending"},
		"bound here, not published":   {tell: func(h *house) { h.ready("a") }, want: "pending"},
		"bound here and published":    {tell: func(h *house) { h.ready("a"); h.publish("LoadBalancer", nil, 10000) }, want: "bound"},
		"published elsewhere":         {tell: func(h *house) { h.ready("a"); h.publish("LoadBalancer", nil, 10009) }, want: "pending"},
		"a new replica is silent":     {tell: func(h *house) { h.ready("a", "b"); h.publish("LoadBalancer", nil, 10000) }, want: "bound"},
		"none is ready":               {tell: func(h *house) { h.publish("LoadBalancer", nil, 10000) }, want: "bound"},
		"it cannot be bound here":     {here: errors.New("in use"), tell: func(h *house) { h.ready("a"); h.publish("LoadBalancer", nil, 10000) }, want: "pod a: in use"},
		"we are not ready, and can't": {here: errors.New("in use"), tell: func(h *house) { h.ready("b"); h.says("b", "10000", ""); h.publish("LoadBalancer", nil, 10000) }, want: "bound"},
		"another cannot": {tell: func(h *house) {
			h.ready("a", "b")
			h.says("b", "", "10000: in use")
			h.publish("LoadBalancer", nil, 10000)
		}, want: "pod b: in use"},
		"one that is gone cannot": {tell: func(h *house) { h.ready("a"); h.says("b", "", "10000: in use"); h.publish("LoadBalancer", nil, 10000) }, want: "bound"},
		"the Service is another's": {tell: func(h *house) {
			h.ready("a")
			h.publish("LoadBalancer", func(s *corev1.Service) { s.Labels[UIDLabel] = "uid-before" }, 10000)
		}, want: "pending"},
		"the Service is being deleted": {tell: func(h *house) {
			h.ready("a")
			h.publish("LoadBalancer", func(s *corev1.Service) { s.DeletionTimestamp = new(metav1.Now()) }, 10000)
		}, want: "pending"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			if c.tell != nil {
				c.tell(h)
			}
			f := h.applied(map[snapshot.SocketKey]error{socket(10000): c.here})
			if got := says(f, socket(10000)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestAddressesAreThoseUnderWhichAServiceIsReached(t *testing.T) {
	node := func(name, addresses string, change func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		for _, word := range strings.Fields(addresses) {
			kind, address, _ := strings.Cut(word, "=")
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeAddressType(kind), Address: address})
		}
		if change != nil {
			change(n)
		}
		return n
	}
	for name, c := range map[string]struct {
		kind    corev1.ServiceType
		service func(*corev1.Service)
		nodes   []*corev1.Node
		want    string
	}{
		"a load balancer that has given none": {
			kind:    "LoadBalancer",
			service: func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.9"} },
		},
		"a load balancer": {
			kind: "LoadBalancer",
			service: func(s *corev1.Service) {
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}, {Hostname: "lb.example.com"}, {IP: "2001:db8::1"}}
			},
			want: "IPAddress=192.0.2.1 Hostname=lb.example.com IPAddress=2001:db8::1",
		},
		"ClusterIP": {
			kind:    "ClusterIP",
			service: func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.9", "fd00::9"} },
			want:    "IPAddress=10.96.0.9 IPAddress=fd00::9",
		},
		"external nodes": {
			kind: "NodePort",
			nodes: []*corev1.Node{
				node("node-b", "InternalIP=10.0.0.2 ExternalIP=192.0.2.2 Hostname=b", nil), node("node-a", "ExternalIP=192.0.2.1 ExternalIP=2001:db8::1 InternalIP=10.0.0.1", nil),
				node("not-ready", "ExternalIP=192.0.2.3", func(n *corev1.Node) { n.Status.Conditions = nil }),
				node("excluded", "ExternalIP=192.0.2.4", func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""} }),
			},
			want: "IPAddress=192.0.2.1 IPAddress=192.0.2.2 IPAddress=2001:db8::1",
		},
		"internal nodes": {kind: "NodePort", nodes: []*corev1.Node{node("node-b", "InternalIP=10.0.0.2", nil)}, want: "IPAddress=10.0.0.2"},
		"nodes with a replica": {
			kind:    "NodePort",
			service: func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = "Local" },
			nodes:   []*corev1.Node{node("node-a", "InternalIP=10.0.0.1", nil), node("node-b", "InternalIP=10.0.0.2", nil)},
			want:    "IPAddress=10.0.0.1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			h.ready("a")
			for _, n := range c.nodes {
				h.Set(n)
			}
			h.publish(c.kind, c.service, 10000)
			f := h.applied(nil)
			if got := words(f.Addresses[socket(0).Gateway]); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func words(all []gwv1.GatewayStatusAddress) string {
	var words []string
	for _, a := range all {
		words = append(words, fmt.Sprintf("%s=%s", *a.Type, a.Value))
	}
	return strings.Join(words, " ")
}

func TestOnHostsTheAddressesAreThoseOfTheNodes(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Host = true })
	if h.PodPorts() != nil {
		t.Error("pod ports are recorded")
	}
	h.ready("a=10.0.0.1", "b=10.0.0.2", "c=10.0.0.3")
	h.says("b", "80 10.0.0.2:81", "")
	all, one := socket(80), socket(80)
	f := h.applied(map[snapshot.SocketKey]error{all: nil})
	if got := words(f.Addresses[all.Gateway]); got != "IPAddress=10.0.0.1 IPAddress=10.0.0.2" {
		t.Errorf("addresses %s", got)
	}
	if got := says(f, all); got != "pending" { // c has not spoken
		t.Errorf("port 80 is %s", got)
	}

	one.Address = netip.MustParseAddr("10.0.0.2")
	h.says("b", "10.0.0.2:80", "")
	f = h.applied(map[snapshot.SocketKey]error{one: errors.New("cannot assign requested address")})
	if got := says(f, one); got != "bound" { // it is the address of one node
		t.Errorf("port 80 is %s", got)
	}
	if got := words(f.Addresses[one.Gateway]); got != "IPAddress=10.0.0.2" {
		t.Errorf("addresses %s", got)
	}
}

func TestARecordThatSomebodyDeletesCountsOn(t *testing.T) {
	h := newHouse(t, nil)
	if ports := h.PodPorts(); ports == nil || len(ports) > 0 {
		t.Errorf("to begin with: %v", ports)
	}
	c := func(version, text string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "gatehouse", Name: "ports", UID: "1", ResourceVersion: version},
			Data:       map[string]string{"u": text},
		}
	}
	pod := func() uint16 { return h.PodPorts()[translate.PodPort{Gateway: "u", Port: 80}] }
	h.Set(c("5", "80=10000 443=10001@1795000000"))
	h.Set(c("4", "80=10009")) // a watch that is late
	if pod() != 10000 {
		t.Errorf("recorded %d", pod())
	}
	h.Delete(c("6", "80=10000"))
	if pod() != 10000 {
		t.Errorf("after it was deleted %d", pod())
	}
	h.Applied(nil, nil, snapshot.BindResult{})
	// Whoever leads next writes it again, with the port that rests.
	if s, stored, ok := h.state(); !ok || stored != nil || s.Record.text()["u"] != "80=10000 443=10001@1795000000" {
		t.Errorf("stored %v, remembered %v", stored, s.Record.text())
	}
}

func TestWhatIsOfNoConcernWakesNobody(t *testing.T) {
	h := newHouse(t, nil)
	h.says("a", "10000", "")
	h.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	before := h.changes
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	h.Set(
		&coordinationv1.Lease{ObjectMeta: meta("gatehouse", "leader")},
		&corev1.ConfigMap{ObjectMeta: meta("gatehouse", "kube-root-ca.crt")},
		&corev1.ConfigMap{ObjectMeta: meta("web", "ports")},
		&corev1.Service{ObjectMeta: meta("web", "shop")},
		&discoveryv1.EndpointSlice{ObjectMeta: meta("gatehouse", "others")},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: "2"}},
	)
	h.says("a", "10000", "") // again
	h.Delete(&corev1.Service{ObjectMeta: meta("web", "shop")}, &coordinationv1.Lease{ObjectMeta: meta("gatehouse", "leader")})
	if h.changes != before {
		t.Errorf("it was told %d times", h.changes-before)
	}
	h.publish("LoadBalancer", nil, 10000)
	if h.changes != before+1 {
		t.Error("it was not told of a Service")
	}
}

func TestWhatAGatewayCannotHaveIsToldInItsFacts(t *testing.T) {
	h := newHouse(t, nil)
	h.planned = map[snapshot.Name]string{{Namespace: "web", Name: "x"}: "no port"}
	name := socket(0).Gateway
	h.failures = failures{
		{gateway: name}:                     {job: job{gateway: name}, unprovided: "exceeded quota"},
		{gateway: snapshot.Name{Name: "y"}}: {job: job{gateway: snapshot.Name{Name: "y"}}, remark: "no alias"},
	}
	key := socket(80)
	key.Address = netip.MustParseAddr("192.0.2.1")
	f := h.applied(map[snapshot.SocketKey]error{key: nil})
	got := []string{f.Unprovided[snapshot.Name{Namespace: "web", Name: "x"}], f.Unprovided[name], f.Remarks[snapshot.Name{Name: "y"}], f.Unusable[name]}
	want := []string{"no port", "exceeded quota", "no alias", "spec.addresses: 192.0.2.1 cannot be had, since Gatehouse has no pool of addresses that Gateways may ask for"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
