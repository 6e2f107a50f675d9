package infra

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/gatehouse-dev/gatehouse/controllers/members"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

var options = Options{
	Namespace:     "gatehouse",
	Owner:         "release",
	Record:        "ports",
	Selector:      map[string]string{"app": "gatehouse"},
	ClusterDomain: "cluster.local",
	Service:       ServiceOptions{Type: corev1.ServiceTypeLoadBalancer},
}

var owner = &metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "release", UID: "owner"}

// world is a cluster in which plans are carried out as the API server would.
type world struct {
	State
	options Options
	plan    Plan
}

func newWorld(wanted ...translate.Infra) *world {
	w := &world{options: options, State: State{Record: Record{}, Owner: owner, Now: time.Unix(1_800_000_000, 0).UTC()}}
	w.want(wanted...)
	return w
}

// want sets what there is to be; all of it is there.
func (w *world) want(all ...translate.Infra) {
	w.Wanted, w.Gateways = all, map[types.UID]bool{}
	for _, g := range all {
		w.Gateways[g.UID] = true
	}
}

// gateway has the UID uid-<name>, and names the ports that it serves.
func gateway(name string, ports ...uint16) translate.Infra {
	return translate.Infra{Gateway: snapshot.Name{Namespace: "web", Name: name}, UID: types.UID("uid-" + name), Class: "gatehouse", Ports: ports, Named: ports}
}

// bind has two replicas say that they have bound everything in the record but for some ports of pods.
func (w *world) bind(but ...uint16) {
	said := members.Said{Bound: map[members.Socket]bool{}}
	for _, entries := range w.Record {
		for _, e := range entries {
			if e.held() && !slices.Contains(but, e.Pod) {
				said.Bound[members.Socket{Port: e.Pod}] = true
			}
		}
	}
	w.Members = members.Members{Ready: []members.Pod{{Name: "a", Said: said}, {Name: "b", Said: said}}}
}

// step makes a plan and carries it out.
func (w *world) step() {
	w.plan = MakePlan(w.options, w.State)
	w.Record = w.plan.Record
	for _, t := range w.plan.Tasks {
		for _, s := range []*corev1.Service{t.Service, t.Alias} {
			if s != nil {
				w.remove(s)
				w.Services = append(w.Services, s.DeepCopy())
			}
		}
	}
	for _, s := range w.plan.Remove {
		w.remove(s)
	}
}

func (w *world) remove(gone *corev1.Service) {
	w.Services = slices.DeleteFunc(w.Services, func(s *corev1.Service) bool { return s.Namespace == gone.Namespace && s.Name == gone.Name })
}

// settle goes on until there is nothing more to do.
func (w *world) settle(t *testing.T) {
	t.Helper()
	for range 10 {
		w.bind()
		record := w.Record.clone()
		w.step()
		if len(w.plan.Tasks)+len(w.plan.Remove) == 0 && w.Record.equal(record) {
			return
		}
	}
	t.Fatalf("there is always something to do: %+v", w.plan)
}

func (w *world) service(gateway string) *corev1.Service {
	for _, s := range w.Services {
		if s.Namespace == w.options.Namespace && uidOf(s) == types.UID("uid-"+gateway) {
			return s
		}
	}
	return nil
}

// ports are those of a Gateway's Service: "80:10000 443:10001".
func (w *world) ports(gateway string) string {
	s := w.service(gateway)
	if s == nil {
		return "none"
	}
	var words []string
	for _, p := range s.Spec.Ports {
		words = append(words, fmt.Sprintf("%d:%d", p.Port, p.TargetPort.IntVal))
	}
	return strings.Join(words, " ")
}

func (w *world) expect(t *testing.T, gateway, ports string) {
	t.Helper()
	if got := w.ports(gateway); got != ports {
		t.Errorf("%s publishes %s, want %s; the record is %v", gateway, got, ports, w.Record.text())
	}
}

func (w *world) expectRecord(t *testing.T, gateway, want string) {
	t.Helper()
	if got := w.Record.text()["uid-"+gateway]; got != want {
		t.Errorf("the record of %s is %q, want %q", gateway, got, want)
	}
}

func TestAPortIsRecordedThenBoundThenPublished(t *testing.T) {
	w := newWorld(gateway("a", 80, 443), gateway("b", 80))
	w.step()
	w.expectRecord(t, "a", "80=10000 443=10001")
	w.expectRecord(t, "b", "80=10002")
	w.expect(t, "a", "none")
	w.step()
	w.expect(t, "a", "none") // no replica is ready

	w.bind(10001)
	w.step()
	w.expect(t, "a", "80:10000") // a Service is made with its first port
	w.expect(t, "b", "80:10002")
	w.bind()
	w.step()
	w.expect(t, "a", "80:10000 443:10001")
	w.step()
	if len(w.plan.Tasks) > 0 {
		t.Errorf("there is something to do: %+v", w.plan.Tasks)
	}
}

func TestWhatIsPublishedIsNotWithdrawn(t *testing.T) {
	for name, c := range map[string]func(*world){
		"a replica cannot bind it": func(w *world) {
			w.Members.Ready[0].Said = members.Said{Failed: map[members.Socket]string{{Port: 10001}: "in use"}}
		},
		"a new replica has not spoken": func(w *world) {
			w.Members.Ready = append(w.Members.Ready, members.Pod{Name: "c"})
		},
		"no replica is ready":             func(w *world) { w.Members = members.Members{} },
		"its listener is invalid":         func(w *world) { w.Wanted[0].Ports = []uint16{80} },
		"all listeners are invalid":       func(w *world) { w.Wanted[0].Ports = nil },
		"the Gateway is refused":          func(w *world) { w.Wanted = nil },
		"its class is gone for a while":   func(w *world) { w.Wanted = nil },
		"it is not known who there is":    func(w *world) { w.Wanted, w.Gateways = nil, nil },
		"the owner is gone":               func(w *world) { w.Owner = nil },
		"an address of another comes too": func(w *world) { w.Wanted[0].Addresses = []string{"192.0.2.1"} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(gateway("a", 80, 443))
			w.settle(t)
			c(w)
			w.step()
			w.expect(t, "a", "80:10000 443:10001")
			w.expectRecord(t, "a", "80=10000 443=10001")
			w.Now = w.Now.Add(time.Hour)
			w.step()
			w.expect(t, "a", "80:10000 443:10001")
		})
	}
}

func TestAServiceKeepsItsLastPortUntilThereIsAnother(t *testing.T) {
	w := newWorld(gateway("a", 80))
	w.settle(t)
	w.want(gateway("a", 8080))
	w.step()
	w.expectRecord(t, "a", "80=10000 8080=10001") // what is published is not freed
	w.step()
	w.expect(t, "a", "80:10000")
	w.bind()
	w.step()
	w.expect(t, "a", "8080:10001")
	w.step()
	w.expectRecord(t, "a", fmt.Sprintf("80=10000@%d 8080=10001", w.Now.Unix()))
}

func TestAFreedPortRestsBeforeAnotherGatewayGetsIt(t *testing.T) {
	w := newWorld(gateway("a", 80, 81))
	w.settle(t)
	w.want(gateway("a", 80), gateway("b", 80))
	w.settle(t)
	freed := w.Now
	w.expect(t, "a", "80:10000")
	w.expect(t, "b", "80:10002")
	if w.plan.Again != freed.Add(rest) {
		t.Errorf("again %v", w.plan.Again)
	}

	w.Now = freed.Add(rest - time.Second)
	w.want(gateway("a", 80), gateway("b", 80), gateway("c", 80))
	w.settle(t)
	w.expect(t, "c", "80:10003")
	w.Now = freed.Add(rest)
	w.want(gateway("a", 80), gateway("b", 80), gateway("c", 80), gateway("d", 80))
	w.settle(t)
	w.expect(t, "d", "80:10001")
	if !w.plan.Again.IsZero() {
		t.Errorf("again %v", w.plan.Again)
	}
}

func TestAPortThatComesBackSoonIsTheSame(t *testing.T) {
	w := newWorld(gateway("a", 80, 81))
	w.settle(t)
	w.want(gateway("a", 80))
	w.settle(t)
	w.Now = w.Now.Add(rest / 2)
	w.want(gateway("a", 80, 81))
	w.settle(t)
	w.expect(t, "a", "80:10000 81:10001")
}

func TestThePortsOfAGatewayThatIsGoneRest(t *testing.T) {
	w := newWorld(gateway("a", 80), gateway("b", 80))
	w.settle(t)
	w.want(gateway("b", 80))
	w.step()
	w.expectRecord(t, "a", "80=10000") // its Service is still there
	if w.service("a") != nil {
		t.Error("its Service is there")
	}
	w.step()
	w.expectRecord(t, "a", fmt.Sprintf("80=10000@%d", w.Now.Unix()))
	w.Now = w.Now.Add(rest)
	w.step()
	if _, is := w.Record["uid-a"]; is {
		t.Errorf("it is in the record: %v", w.Record)
	}
}

// A cache that is late may not show what a Service publishes; what it does show is given to nobody.
func TestAPodPortToWhichAServiceSendsIsGivenToNobodyElse(t *testing.T) {
	w := newWorld(gateway("a", 80))
	w.settle(t)
	w.Record = Record{}
	w.Gateways, w.Wanted = map[types.UID]bool{"uid-a": true, "uid-b": true}, []translate.Infra{gateway("b", 80)}
	w.settle(t)
	w.expect(t, "b", "80:10001")
}

func TestARecordThatIsLostIsTakenFromTheServices(t *testing.T) {
	w := newWorld(gateway("a", 80), gateway("b", 80, 443))
	w.settle(t)
	w.want(gateway("c", 80), gateway("a", 80), gateway("b", 80, 443)) // c is older than all others
	w.Record = Record{}
	w.step()
	w.expect(t, "a", "80:10000")
	w.expect(t, "b", "80:10001 443:10002")
	w.expectRecord(t, "a", "80=10000")
	w.expectRecord(t, "b", "80=10001 443=10002")
	w.expectRecord(t, "c", "80=10003")
}

func TestATargetPortThatSomebodyChangedIsRepaired(t *testing.T) {
	w := newWorld(gateway("a", 80), gateway("b", 80))
	w.settle(t)
	for name, change := range map[string]func(*corev1.Service){
		"to another's":   func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(10001) },
		"to a name":      func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("http") },
		"its selector":   func(s *corev1.Service) { s.Spec.Selector["app"] = "other" },
		"one more label": func(s *corev1.Service) { s.Spec.Selector["pod"] = "0" },
		"its type":       func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP },
		"a label":        func(s *corev1.Service) { delete(s.Labels, gatewayLabel) },
	} {
		change(w.service("a"))
		w.step()
		w.expect(t, "a", "80:10000")
		w.expect(t, "b", "80:10001")
		if s := w.service("a"); len(s.Spec.Selector) != 1 || s.Spec.Selector["app"] != "gatehouse" || s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Labels[gatewayLabel] != "a" {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestWhatOthersPutOnAServiceIsNoReasonToWrite(t *testing.T) {
	w := newWorld(gateway("a", 80))
	w.settle(t)
	s := w.service("a")
	s.Labels["theirs"], s.Annotations["theirs"] = "x", "x"
	s.Finalizers = []string{"service.kubernetes.io/load-balancer-cleanup"}
	s.Spec.Ports[0].NodePort, s.Spec.HealthCheckNodePort = 30001, 30002
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "theirs", Port: 9, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(9)})
	s.Spec.ClusterIP, s.Spec.ExternalTrafficPolicy = "10.96.0.9", corev1.ServiceExternalTrafficPolicyCluster
	w.step()
	if len(w.plan.Tasks) > 0 {
		t.Errorf("it is written: %+v", w.plan.Tasks)
	}
}

func TestAFullRangeIsTold(t *testing.T) {
	w := newWorld(gateway("a", 80, 81), gateway("b", 80, 443))
	w.options.LastPodPort = 10002
	w.settle(t)
	w.expect(t, "a", "80:10000 81:10001")
	w.expect(t, "b", "80:10002")
	if got := w.plan.Unprovided[w.Wanted[1].Gateway]; !strings.Contains(got, "no port of the pods is left for port 443") || len(w.plan.Unprovided) != 1 {
		t.Errorf("told: %v", w.plan.Unprovided)
	}
	w.want(gateway("a", 80), gateway("b", 80, 443))
	w.settle(t)
	w.Now = w.Now.Add(rest)
	w.settle(t)
	w.expect(t, "b", "80:10002 443:10001")
	if len(w.plan.Unprovided) > 0 {
		t.Errorf("told: %v", w.plan.Unprovided)
	}
}

func TestWhatHasNotOurOwnerIsNotTouched(t *testing.T) {
	w := newWorld(gateway("a", 80))
	w.settle(t)
	name := w.Wanted[0].Gateway
	w.service("a").OwnerReferences[0].UID = "another installation"
	w.want(gateway("a", 80, 81))
	w.settle(t)
	w.expect(t, "a", "80:10000")
	if got := w.plan.Unprovided[name]; !strings.Contains(got, "another installation") {
		t.Errorf("told: %q", got)
	}
	w.want()
	w.step()
	if w.service("a") == nil {
		t.Error("it was removed")
	}
}

func TestATakenNameIsTold(t *testing.T) {
	w := newWorld(gateway("a", 80))
	theirs := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "gatehouse", Name: serviceName(w.Wanted[0].Gateway)}}
	w.Services = append(w.Services, theirs)
	w.bind()
	w.step()
	w.bind()
	w.step()
	if got := w.plan.Unprovided[w.Wanted[0].Gateway]; !strings.Contains(got, "not Gatehouse's") || len(w.plan.Tasks) > 0 {
		t.Errorf("told %q, to do %+v", got, w.plan.Tasks)
	}
}

func TestWithoutItsOwnerNothingIsMade(t *testing.T) {
	w := newWorld(gateway("a", 80))
	w.Owner = nil
	w.settle(t)
	if got := w.plan.Unprovided[w.Wanted[0].Gateway]; len(w.Services) > 0 || !strings.Contains(got, "ConfigMap gatehouse/release is not there") {
		t.Errorf("told %q, made %v", got, w.Services)
	}
}

func TestAGatewayThatIsMadeAnewGetsAServiceOfItsOwn(t *testing.T) {
	w := newWorld(gateway("a", 80))
	w.settle(t)
	again := gateway("a", 80)
	again.UID = "uid-again"
	w.want(again)
	w.bind()
	w.step()
	if w.service("a") != nil || len(w.plan.Unprovided) > 0 {
		t.Errorf("the old one is there, or it is told: %v", w.plan.Unprovided)
	}
	w.settle(t)
	w.expect(t, "again", "80:10001")
	if n := len(w.Services); n != 2 {
		t.Errorf("%d Services", n)
	}
}

func TestAServiceThatIsBeingDeletedIsLeftAlone(t *testing.T) {
	w := newWorld(gateway("a", 80))
	w.settle(t)
	w.service("a").DeletionTimestamp = new(metav1.Now())
	w.service("a").Spec.Selector = nil
	w.step()
	if len(w.plan.Tasks) > 0 {
		t.Errorf("it is changed: %+v", w.plan.Tasks)
	}
	w.want()
	w.step()
	if w.service("a") == nil {
		t.Error("it is removed")
	}
}

func TestAServiceGoesOnlyWhenItsGatewayIsKnownToBeGone(t *testing.T) {
	w := newWorld(gateway("a", 80), gateway("b", 80))
	w.settle(t)
	w.Wanted, w.Gateways = nil, nil
	w.step()
	if len(w.plan.Remove) > 0 {
		t.Errorf("removed: %v", w.plan.Remove)
	}
	w.Gateways = map[types.UID]bool{"uid-b": true}
	w.step()
	var gone []string
	for _, s := range w.plan.Remove {
		gone = append(gone, s.Namespace+"/"+s.Name)
	}
	if diff := gocmp.Diff([]string{"gatehouse/" + serviceName(gateway("a").Gateway), "web/a-gatehouse"}, gone); diff != "" {
		t.Error(diff)
	}
}

func TestAServiceIsWhatOperatorAndGatewayWant(t *testing.T) {
	g := gateway("a", 80)
	g.Labels = map[string]string{"team": "shop", gatewayLabel: "forged", "stage": "prod"}
	g.Annotations = map[string]string{"cloud/size": "large", externalDNS: "mine"}
	w := newWorld(g)
	local := corev1.ServiceExternalTrafficPolicyLocal
	w.options.Service = ServiceOptions{
		Type:   corev1.ServiceTypeLoadBalancer,
		Labels: map[string]string{"stage": "any", "by": "ops"}, Annotations: map[string]string{"cloud/size": "small", "cloud/zone": "1"},
		ExternalTrafficPolicy: local, LoadBalancerClass: "example.com/lb", IPFamilyPolicy: corev1.IPFamilyPolicyPreferDualStack,
	}
	w.settle(t)
	s := w.service("a")
	delete(s.Annotations, appliedAnnotation)
	want := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "gatehouse", Name: serviceName(g.Gateway),
			Labels: map[string]string{
				UIDLabel: "uid-a", gatewayLabel: "a", classLabel: "gatehouse", "team": "shop", "stage": "prod", "by": "ops",
			},
			Annotations:     map[string]string{"cloud/size": "large", "cloud/zone": "1", externalDNS: "mine", gatewayAnnotation: "web/a"},
			OwnerReferences: []metav1.OwnerReference{*owner},
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "gatehouse"},
			Ports:                 []corev1.ServicePort{{Name: "tcp-80", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(10000)}},
			ExternalTrafficPolicy: local, LoadBalancerClass: new("example.com/lb"), IPFamilyPolicy: new(corev1.IPFamilyPolicyPreferDualStack),
		},
	}
	if diff := gocmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}

	w.options.Service.Type = corev1.ServiceTypeClusterIP
	w.settle(t)
	if spec := w.service("a").Spec; spec.ExternalTrafficPolicy != "" || spec.LoadBalancerClass != nil {
		t.Errorf("of type ClusterIP it has %+v", spec)
	}
}

func TestAnAliasGivesANameInTheGatewaysNamespace(t *testing.T) {
	g := gateway("a", 80)
	g.Labels, g.Annotations = map[string]string{"team": "shop"}, map[string]string{externalDNS: "mine", "x": "y"}
	w := newWorld(g)
	w.settle(t)
	i := slices.IndexFunc(w.Services, func(s *corev1.Service) bool { return s.Namespace == "web" })
	s := w.Services[i]
	delete(s.Annotations, appliedAnnotation)
	want := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "web", Name: "a-gatehouse",
			Labels:          map[string]string{UIDLabel: "uid-a", gatewayLabel: "a", classLabel: "gatehouse", "team": "shop"},
			Annotations:     map[string]string{externalDNS: "gatehouse", gatewayAnnotation: "web/a", "x": "y"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "gateway.networking.k8s.io/v1", Kind: "Gateway", Name: "a", UID: "uid-a"}},
		},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: serviceName(g.Gateway) + ".gatehouse.svc.cluster.local"},
	}
	if diff := gocmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
}

// A Gateway in our own namespace has its alias beside its Service.
func TestTheAliasOfAGatewayInOurNamespaceIsNoServiceOfOurs(t *testing.T) {
	g := gateway("a", 80)
	g.Gateway.Namespace = "gatehouse"
	w := newWorld(g)
	w.settle(t)
	if len(w.Services) != 2 {
		t.Fatalf("%d Services", len(w.Services))
	}
	w.want()
	w.settle(t)
	if len(w.Services) != 0 {
		t.Errorf("%v are there", w.Services)
	}
}

func TestAddressesCanBeAskedForOutOfThePool(t *testing.T) {
	pool := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	for name, c := range map[string]struct {
		kind        corev1.ServiceType
		pool        []netip.Prefix
		annotations map[string]string
		asked       []string
		ip          string
		annotated   string
		made        bool
		problem     string
	}{
		"any":             {pool: pool, made: true},
		"one":             {pool: pool, asked: []string{"192.0.2.7"}, ip: "192.0.2.7", made: true},
		"one of each":     {pool: pool, asked: []string{"192.0.2.7", "2001:db8::7"}, annotations: map[string]string{"lb/ips": Addresses}, annotated: "192.0.2.7,2001:db8::7", made: true},
		"one outside":     {pool: pool, asked: []string{"198.51.100.7"}, problem: "spec.addresses: 198.51.100.7 cannot be had; Gateways may ask for addresses in 192.0.2.0/24, 2001:db8::/64"},
		"one of two":      {pool: pool, asked: []string{"198.51.100.7", "192.0.2.7"}, ip: "192.0.2.7", made: true, problem: "spec.addresses: 198.51.100.7 cannot be had; Gateways may ask for addresses in 192.0.2.0/24, 2001:db8::/64"},
		"no pool":         {asked: []string{"192.0.2.7"}, problem: "spec.addresses: 192.0.2.7 cannot be had, since Gatehouse has no pool of addresses that Gateways may ask for"},
		"a mapped one":    {pool: pool, asked: []string{"::ffff:192.0.2.7"}, ip: "::ffff:192.0.2.7", made: true},
		"no address":      {pool: pool, asked: []string{"a.example.com"}, problem: "spec.addresses: a.example.com cannot be had; Gateways may ask for addresses in 192.0.2.0/24, 2001:db8::/64"},
		"of a ClusterIP":  {kind: corev1.ServiceTypeClusterIP, pool: pool, asked: []string{"10.96.0.7"}, made: true},
		"of nodes":        {kind: corev1.ServiceTypeNodePort, asked: []string{"10.0.0.7"}, made: true},
		"through a label": {pool: pool, asked: []string{"192.0.2.7"}, annotations: map[string]string{"lb/ips": "ip=" + Addresses}, annotated: "ip=192.0.2.7", made: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := gateway("a", 80)
			g.Addresses = c.asked
			w := newWorld(g)
			w.options.Service.AddressPool, w.options.Service.AddressAnnotations = c.pool, c.annotations
			if c.kind != "" {
				w.options.Service.Type = c.kind
			}
			w.settle(t)
			if _, problem := w.options.Service.usable(c.asked); problem != c.problem {
				t.Errorf("told %q, want %q", problem, c.problem)
			}
			s := w.service("a")
			if (s != nil) != c.made {
				t.Fatalf("made: %v", s)
			}
			if s == nil {
				return
			}
			if s.Spec.LoadBalancerIP != c.ip || s.Annotations["lb/ips"] != c.annotated || len(s.Spec.ExternalIPs) > 0 {
				t.Errorf("loadBalancerIP %q, annotation %q, externalIPs %q", s.Spec.LoadBalancerIP, s.Annotations["lb/ips"], s.Spec.ExternalIPs)
			}
		})
	}
}

func TestThePlanChangesNothingThatItWasGiven(t *testing.T) {
	w := newWorld(gateway("a", 80, 81))
	w.settle(t)
	w.want(gateway("a", 80), gateway("b", 80))
	w.bind()
	record, services := w.Record.clone(), fmt.Sprintf("%+v", w.Services)
	MakePlan(w.options, w.State)
	if !w.Record.equal(record) || fmt.Sprintf("%+v", w.Services) != services {
		t.Error("it did")
	}
	if !maps.Equal(w.options.Selector, options.Selector) {
		t.Error("it changed the options")
	}
}

func TestOnHostsWhatWasMadeForServicesGoesAndTheRecordStays(t *testing.T) {
	w := newWorld(gateway("one", 80), gateway("two", 443))
	w.settle(t)
	w.expect(t, "one", "80:10000")
	record := w.Record.clone()
	foreign := []*corev1.Service{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "gatehouse", Name: "gatehouse-members"}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "gatehouse", Name: "of-another-owner", Labels: map[string]string{UIDLabel: "uid-one"},
			OwnerReferences: []metav1.OwnerReference{{UID: "another"}}}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "of-another-installation", Labels: map[string]string{UIDLabel: "uid-one"},
			OwnerReferences: []metav1.OwnerReference{{UID: "uid-one"}}},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web-one-1234.other.svc.cluster.local"}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "of-nobody", Labels: map[string]string{UIDLabel: "uid-one"}},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web-one-1234.gatehouse.svc.cluster.local"}},
	}
	w.Services = append(w.Services, foreign...)

	w.options.Host = true
	w.Gateways = nil // also while it is not known which Gateways there are
	w.step()
	if len(w.plan.Tasks) > 0 || len(w.plan.Remove) != 4 {
		t.Errorf("%d tasks, and %d are removed: want both Services and both aliases", len(w.plan.Tasks), len(w.plan.Remove))
	}
	if diff := gocmp.Diff(foreign, w.Services); diff != "" {
		t.Errorf("of others: -was +is\n%s", diff)
	}
	if !w.Record.equal(record) {
		t.Errorf("the record is %v, was %v", w.Record.text(), record.text())
	}
}
