package endpoints

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func shop(ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "shop"}, Spec: corev1.ServiceSpec{Ports: ports}}
}

func servicePort(name string, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, TargetPort: intstr.FromString("irrelevant")}
}

func slicePort(name string, number int32) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: &name, Port: &number}
}

// sliceOf makes a slice of the Service shop. An endpoint is an address and words: not-ready, serving, not-serving, terminating,
// zone=a.
func sliceOf(name string, ports []discoveryv1.EndpointPort, endpoints ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "shop"}},
		Ports:      ports, AddressType: discoveryv1.AddressTypeIPv4,
	}
	yes, no := true, false
	for _, text := range endpoints {
		words := strings.Fields(text)
		e := discoveryv1.Endpoint{Addresses: strings.Split(words[0], ",")}
		if strings.Contains(words[0], ":") {
			s.AddressType = discoveryv1.AddressTypeIPv6
		}
		for _, w := range words[1:] {
			zone, isZone := strings.CutPrefix(w, "zone=")
			switch {
			case isZone:
				e.Zone = &zone
			case w == "ready":
				e.Conditions.Ready = &yes
			case w == "not-ready":
				e.Conditions.Ready = &no
			case w == "serving":
				e.Conditions.Serving = &yes
			case w == "not-serving":
				e.Conditions.Serving = &no
			case w == "terminating":
				e.Conditions.Terminating = &yes
			default:
				panic(w)
			}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

var http = []discoveryv1.EndpointPort{slicePort("http", 8080)}

// lines tells changes as one reads them: "web/shop:80 10.0.0.1:8080 zone=a draining, …".
func lines(changed []snapshot.Endpoints, gone []snapshot.BackendRef) []string {
	out := []string{}
	for _, c := range changed {
		var parts []string
		for _, e := range c.Endpoints {
			text := e.Address.String()
			if e.Zone != "" {
				text += " zone=" + e.Zone
			}
			if e.Draining {
				text += " draining"
			}
			parts = append(parts, text)
		}
		out = append(out, strings.TrimSpace(c.Backend.String()+" "+strings.Join(parts, ", ")))
	}
	for _, g := range gone {
		out = append(out, g.String()+" gone")
	}
	return out
}

func TestABackendHasTheEndpointsOfAllSlices(t *testing.T) {
	none := []discoveryv1.EndpointPort{}
	nilPort, udp := slicePort("http", 1), slicePort("http", 5353)
	nilPort.Port = nil
	udpProtocol := corev1.ProtocolUDP
	udp.Protocol = &udpProtocol
	unnamed := discoveryv1.EndpointPort{Port: slicePort("", 8080).Port}
	external := shop(servicePort("http", 80))
	external.Spec.Type = corev1.ServiceTypeExternalName
	headless := shop(servicePort("http", 80))
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	overUDP := servicePort("http", 53)
	overUDP.Protocol = corev1.ProtocolUDP

	tests := []struct {
		name    string
		service *corev1.Service
		slices  []*discoveryv1.EndpointSlice
		want    []string
	}{
		{"a Service without slices is told as empty", shop(servicePort("http", 80)), nil, []string{"web/shop:80"}},
		{"joined by name, not by number", shop(servicePort("http", 80), servicePort("admin", 8080)),
			[]*discoveryv1.EndpointSlice{sliceOf("s", []discoveryv1.EndpointPort{slicePort("admin", 80), slicePort("http", 8080)}, "10.0.0.1")},
			[]string{"web/shop:80 10.0.0.1:8080", "web/shop:8080 10.0.0.1:80"}},
		{"a port without a name joins one without", shop(servicePort("", 80)),
			[]*discoveryv1.EndpointSlice{sliceOf("s", []discoveryv1.EndpointPort{unnamed}, "10.0.0.1"), sliceOf("t", []discoveryv1.EndpointPort{slicePort("", 9)}, "10.0.0.2")},
			[]string{"web/shop:80 10.0.0.1:8080, 10.0.0.2:9"}},
		{"a named port of a pod may have a number per slice", shop(servicePort("http", 80)),
			[]*discoveryv1.EndpointSlice{sliceOf("s", http, "10.0.0.1"), sliceOf("t", []discoveryv1.EndpointPort{slicePort("http", 9090)}, "10.0.0.2")},
			[]string{"web/shop:80 10.0.0.1:8080, 10.0.0.2:9090"}},
		{"slices without ports, or without a number, have nothing", shop(servicePort("http", 80)),
			[]*discoveryv1.EndpointSlice{sliceOf("s", nil, "10.0.0.1"), sliceOf("t", none, "10.0.0.2"), sliceOf("u", []discoveryv1.EndpointPort{nilPort}, "10.0.0.3")},
			[]string{"web/shop:80"}},
		{"UDP is not for us", shop(servicePort("http", 80), overUDP),
			[]*discoveryv1.EndpointSlice{sliceOf("s", []discoveryv1.EndpointPort{udp}, "10.0.0.1")}, []string{"web/shop:80"}},
		{"an ExternalName has no backend", external, []*discoveryv1.EndpointSlice{sliceOf("s", http, "10.0.0.1")}, []string{}},
		{"a headless Service is as any other", headless, []*discoveryv1.EndpointSlice{sliceOf("s", http, "10.0.0.1")}, []string{"web/shop:80 10.0.0.1:8080"}},
		{"both families, sorted, only the first address of each", shop(servicePort("http", 80)),
			[]*discoveryv1.EndpointSlice{sliceOf("s", http, "fd00::1"), sliceOf("t", http, "10.0.0.9,10.0.0.3", "10.0.0.10")},
			[]string{"web/shop:80 10.0.0.9:8080, 10.0.0.10:8080, [fd00::1]:8080"}},
		{"conditions are read as kube-proxy reads them", shop(servicePort("http", 80)), []*discoveryv1.EndpointSlice{sliceOf("s", http,
			"10.0.0.1",
			"10.0.0.2 ready terminating", // publishNotReadyAddresses
			"10.0.0.3 not-ready",
			"10.0.0.4 not-ready serving terminating",
			"10.0.0.5 not-ready terminating",
			"10.0.0.6 not-ready serving",
			"10.0.0.7 not-ready not-serving terminating",
			"10.0.0.8 zone=a")},
			[]string{"web/shop:80 10.0.0.1:8080, 10.0.0.2:8080, 10.0.0.4:8080 draining, 10.0.0.8:8080 zone=a"}},
		{"where an address stands twice, ready wins, and a zone over none", shop(servicePort("http", 80)), []*discoveryv1.EndpointSlice{
			sliceOf("a", http, "10.0.0.1 not-ready serving terminating", "10.0.0.2 zone=b"),
			sliceOf("b", http, "10.0.0.1 zone=a", "10.0.0.2 not-ready serving terminating zone=c")},
			[]string{"web/shop:80 10.0.0.1:8080 zone=a, 10.0.0.2:8080 zone=b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			forward, backward := New(Options{}), New(Options{})
			forward.SetService(tt.service)
			for _, s := range tt.slices {
				forward.SetSlice(s)
			}
			slices.Reverse(tt.slices)
			for _, s := range tt.slices {
				backward.SetSlice(s)
			}
			backward.SetService(tt.service)
			for order, table := range map[string]*Table{"forward": forward, "backward": backward} {
				if diff := cmp.Diff(tt.want, lines(table.Changes())); diff != "" {
					t.Errorf("%s: want (-), got (+):\n%s", order, diff)
				}
			}
		})
	}
}

func TestAddressesThatLeadBackAreRefusedAndNamed(t *testing.T) {
	fqdn := sliceOf("fqdn", nil, "shop.example.com")
	fqdn.AddressType = discoveryv1.AddressTypeFQDN
	all := []*discoveryv1.EndpointSlice{
		sliceOf("v4", http, "127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "255.255.255.255", "127.9.9.9 not-ready", "10.0.0.1", "nonsense"),
		sliceOf("v6", http, "::1", "fe80::1", "fe80::1%eth0", "ff02::1", "::", "::ffff:127.0.0.1", "::ffff:169.254.1.1", "fd00::1"),
		fqdn,
	}
	tests := []struct {
		name    string
		options Options
		want    string
		refused int
	}{
		{"in a cluster", Options{}, "web/shop:80 10.0.0.1:8080, [fd00::1]:8080", 14},
		{"where local addresses are allowed", Options{AllowLocal: true},
			"web/shop:80 10.0.0.1:8080, 127.0.0.1:8080, 169.254.1.1:8080, 169.254.169.254:8080, [::1]:8080, [fd00::1]:8080, [fe80::1]:8080", 8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := New(tt.options)
			table.SetService(shop(servicePort("http", 80), servicePort("other", 81)))
			for _, s := range all {
				table.SetSlice(s)
			}
			if diff := cmp.Diff([]string{tt.want, "web/shop:81"}, lines(table.Changes())); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
			refused := table.Refused()
			if len(refused) != 2 || refused[0].Count != tt.refused || len(refused[0].Some) != 3 || refused[0].Backend.Port != 80 {
				t.Errorf("refused: %+v", refused)
			}
			// The slice of names has no port, so it might have been meant for any; those of addresses have port http alone.
			if want := []Refused{{snapshot.BackendRef{Service: snapshot.Name{Namespace: "web", Name: "shop"}, Port: 81}, 1, []string{"shop.example.com"}}}; !cmp.Equal(want, refused[1:]) {
				t.Errorf("refused at the other port: %+v", refused[1:])
			}
			if got, want := refused[0].String(), fmt.Sprintf(" and %d more are local, multicast or no addresses", tt.refused-3); !strings.HasPrefix(got, "web/shop:80: 0.0.0.0, ") || !strings.HasSuffix(got, want) {
				t.Errorf("told as %q", got)
			}
			if got, want := refused[1].String(), "web/shop:81: shop.example.com is a local, multicast or no address"; got != want {
				t.Errorf("told as %q, want %q", got, want)
			}
			table.DeleteSlice(snapshot.Name{Namespace: "web", Name: "v4"})
			table.DeleteSlice(snapshot.Name{Namespace: "web", Name: "v6"})
			table.DeleteSlice(snapshot.Name{Namespace: "web", Name: "fqdn"})
			table.Changes()
			if left := table.Refused(); len(left) != 0 {
				t.Errorf("the slices are gone, and refused is still %+v", left)
			}
		})
	}
}

func TestOnlyWhatChangedIsTold(t *testing.T) {
	table := New(Options{})
	step := func(what string, do func(), want ...string) {
		t.Helper()
		do()
		if diff := cmp.Diff(append([]string{}, want...), lines(table.Changes())); diff != "" {
			t.Errorf("%s: want (-), got (+):\n%s", what, diff)
		}
	}
	both := []discoveryv1.EndpointPort{slicePort("http", 8080), slicePort("admin", 9090)}
	web := func(n string) snapshot.Name { return snapshot.Name{Namespace: "web", Name: n} }
	other := shop(servicePort("http", 80))
	other.Name = "other"

	step("slices alone are no backend", func() { table.SetSlice(sliceOf("a", both, "10.0.0.1")) })
	step("a Service makes them one", func() { table.SetService(shop(servicePort("http", 80), servicePort("admin", 90))) },
		"web/shop:80 10.0.0.1:8080", "web/shop:90 10.0.0.1:9090")
	step("another Service is another matter", func() { table.SetService(other) }, "web/other:80")
	step("the same again is no change", func() {
		table.SetService(shop(servicePort("http", 80), servicePort("admin", 90)))
		table.SetSlice(sliceOf("a", both, "10.0.0.1"))
	})
	step("a slice of one port changes that port", func() { table.SetSlice(sliceOf("b", http, "10.0.0.2")) },
		"web/shop:80 10.0.0.1:8080, 10.0.0.2:8080")
	step("a slice goes over to another Service", func() {
		moved := sliceOf("b", http, "10.0.0.2")
		moved.Labels[discoveryv1.LabelServiceName] = "other"
		table.SetSlice(moved)
	}, "web/other:80 10.0.0.2:8080", "web/shop:80 10.0.0.1:8080")
	step("a slice loses its label", func() {
		lost := sliceOf("b", http, "10.0.0.2")
		lost.Labels = nil
		table.SetSlice(lost)
	}, "web/other:80")
	step("a target port changes with its addresses", func() { table.SetSlice(sliceOf("a", []discoveryv1.EndpointPort{slicePort("http", 1)}, "10.0.0.5")) },
		"web/shop:80 10.0.0.5:1", "web/shop:90")
	step("a Service's port goes", func() { table.SetService(shop(servicePort("http", 80))) }, "web/shop:90 gone")
	step("a Service's port has another number", func() { table.SetService(shop(servicePort("http", 81))) },
		"web/shop:81 10.0.0.5:1", "web/shop:80 gone")
	step("a Service goes", func() { table.DeleteService(web("shop")) }, "web/shop:81 gone")
	step("and comes back to its endpoints", func() { table.SetService(shop(servicePort("http", 81))) }, "web/shop:81 10.0.0.5:1")
	step("the last slice goes", func() { table.DeleteSlice(web("a")) }, "web/shop:81")
	step("what is not there can be deleted", func() { table.DeleteSlice(web("a")); table.DeleteService(web("nope")) })
	step("all goes", func() { table.DeleteService(web("shop")); table.DeleteService(web("other")) },
		"web/other:80 gone", "web/shop:81 gone")
	if len(table.services) != 0 || len(table.owner) != 0 {
		t.Errorf("the empty table holds %v, %v", table.services, table.owner)
	}
}

// TestStepsLeadWhereTheWholeLeads: after random changes the sum of what was told is what a fresh table says.
func TestStepsLeadWhereTheWholeLeads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 50 {
		table, told := New(Options{}), map[snapshot.BackendRef]string{}
		services, all := map[string]*corev1.Service{}, map[string]*discoveryv1.EndpointSlice{}
		for range 60 {
			service, name := fmt.Sprint("svc", r.IntN(3)), fmt.Sprint("slice", r.IntN(5))
			switch r.IntN(5) {
			case 0:
				delete(services, service)
				table.DeleteService(snapshot.Name{Namespace: "web", Name: service})
			case 1:
				s := shop(servicePort("http", 80+int32(r.IntN(2))))
				s.Name = service
				services[service] = s
				table.SetService(s)
			case 2:
				delete(all, name)
				table.DeleteSlice(snapshot.Name{Namespace: "web", Name: name})
			default:
				s := sliceOf(name, http, fmt.Sprint("10.0.0.", r.IntN(4)), fmt.Sprint("10.0.1.", r.IntN(4), " not-ready serving terminating"))
				s.Labels[discoveryv1.LabelServiceName] = service
				all[name] = s
				table.SetSlice(s)
			}
			if r.IntN(3) == 0 {
				note(told, table)
			}
		}
		note(told, table)
		whole, want := New(Options{}), map[snapshot.BackendRef]string{}
		for _, s := range all {
			whole.SetSlice(s)
		}
		for _, s := range services {
			whole.SetService(s)
		}
		note(want, whole)
		if diff := cmp.Diff(want, told); diff != "" {
			t.Fatalf("round %d: want (-), got (+):\n%s", round, diff)
		}
	}
}

func note(told map[snapshot.BackendRef]string, table *Table) {
	changed, gone := table.Changes()
	for _, c := range changed {
		told[c.Backend] = fmt.Sprint(c.Endpoints)
	}
	for _, g := range gone {
		delete(told, g)
	}
}
