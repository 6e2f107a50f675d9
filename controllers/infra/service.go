package infra

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

// ServiceOptions is what the operator wants of each Gateway's Service.
type ServiceOptions struct {
	Type corev1.ServiceType // LoadBalancer, NodePort or ClusterIP
	// Labels and Annotations are on each; a Gateway's own, in spec.infrastructure, win.
	Labels, Annotations   map[string]string
	ExternalTrafficPolicy corev1.ServiceExternalTrafficPolicy // not for ClusterIP; "" is the API server's choice
	LoadBalancerClass     string                              // for LoadBalancer; "" is the cluster's choice
	IPFamilyPolicy        corev1.IPFamilyPolicy               // "" is the API server's choice
	// AddressPool are the addresses that a Gateway may ask for in spec.addresses. None: it may ask for none. For LoadBalancer.
	AddressPool []netip.Prefix
	// AddressAnnotations are how addresses that are asked for get to the load balancer; Addresses in a value stands for them, separated
	// by commas. None: as spec.loadBalancerIP, which has room for one.
	AddressAnnotations map[string]string
}

// Addresses stands for the addresses that a Gateway asks for in the value of an annotation: "metallb.io/loadBalancerIPs: $(ADDRESSES)".
const Addresses = "$(ADDRESSES)"

// externalDNS: with this annotation, ExternalDNS leaves a Service to a controller of that name. It is on the alias alone, or the alias
// would be published as a CNAME to a name inside the cluster.
const externalDNS = "external-dns.alpha.kubernetes.io/controller"

// usable sorts the addresses that a Gateway asks for: those in the operator's pool, and in words those that are not.
func (o ServiceOptions) usable(asked []string) (usable []string, problem string) {
	if o.Type != corev1.ServiceTypeLoadBalancer {
		return nil, "" // it gets what it gets; Build compares
	}
	var bad []string
	for _, text := range asked {
		addr, err := netip.ParseAddr(text)
		if err == nil && slices.ContainsFunc(o.AddressPool, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }) {
			usable = append(usable, text)
		} else {
			bad = append(bad, text)
		}
	}
	switch {
	case len(bad) == 0:
		return usable, ""
	case len(o.AddressPool) == 0:
		return usable, fmt.Sprintf("spec.addresses: %s cannot be had, since Gatehouse has no pool of addresses that Gateways may ask for", strings.Join(bad, ", "))
	}
	return usable, fmt.Sprintf("spec.addresses: %s cannot be had; Gateways may ask for addresses in %s", strings.Join(bad, ", "), prefixes(o.AddressPool))
}

func prefixes(pool []netip.Prefix) string {
	var texts []string
	for _, p := range pool {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}

// service is a Gateway's Service as it should be: the fields that are ours, and no others.
func (o Options) service(g translate.Infra, owner metav1.OwnerReference, ports []corev1.ServicePort, addresses []string) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: o.metadata(g),
		Spec: corev1.ServiceSpec{
			Type:     o.Service.Type,
			Selector: maps.Clone(o.Selector),
			Ports:    ports,
		},
	}
	s.Namespace, s.Name = o.Namespace, serviceName(g.Gateway)
	s.OwnerReferences = []metav1.OwnerReference{owner}
	if p := o.Service.IPFamilyPolicy; p != "" {
		s.Spec.IPFamilyPolicy = &p
	}
	if o.Service.Type != corev1.ServiceTypeClusterIP {
		s.Spec.ExternalTrafficPolicy = o.Service.ExternalTrafficPolicy
	}
	if o.Service.Type == corev1.ServiceTypeLoadBalancer {
		if class := o.Service.LoadBalancerClass; class != "" {
			s.Spec.LoadBalancerClass = &class
		}
		o.Service.ask(s, addresses)
	}
	seal(s)
	return s
}

// ask has the load balancer asked for addresses.
func (o ServiceOptions) ask(s *corev1.Service, addresses []string) {
	if len(addresses) == 0 {
		return
	}
	if len(o.AddressAnnotations) == 0 {
		s.Spec.LoadBalancerIP = addresses[0]
	}
	for k, v := range o.AddressAnnotations {
		s.Annotations[k] = strings.ReplaceAll(v, Addresses, strings.Join(addresses, ","))
	}
}

// alias is what gives a Gateway's Service a name in the Gateway's own namespace.
func (o Options) alias(g translate.Infra) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: o.metadata(g),
		Spec: corev1.ServiceSpec{
			Type:         corev1.ServiceTypeExternalName,
			ExternalName: fmt.Sprintf("%s.%s.svc.%s", serviceName(g.Gateway), o.Namespace, o.ClusterDomain),
		},
	}
	s.Namespace, s.Name = g.Gateway.Namespace, aliasName(g.Gateway.Name)
	s.Annotations[externalDNS] = "gatehouse"
	s.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: gwv1.GroupVersion.String(), Kind: "Gateway", Name: g.Gateway.Name, UID: g.UID,
	}}
	seal(s)
	return s
}

// metadata is what both have. What is ours wins over what the Gateway wants, and that over what the operator wants.
func (o Options) metadata(g translate.Infra) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Labels: map[string]string{}, Annotations: map[string]string{}}
	maps.Copy(m.Labels, o.Service.Labels)
	maps.Copy(m.Labels, g.Labels)
	maps.Copy(m.Labels, map[string]string{
		UIDLabel:     string(g.UID),
		gatewayLabel: labelValue(g.Gateway.Name),
		classLabel:   labelValue(g.Class),
	})
	maps.Copy(m.Annotations, o.Service.Annotations)
	maps.Copy(m.Annotations, g.Annotations)
	m.Annotations[gatewayAnnotation] = g.Gateway.String()
	return m
}

// seal notes what is applied, so that it shows in a Service when there is something to take away.
func seal(s *corev1.Service) {
	delete(s.Annotations, appliedAnnotation)
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // it has no part that cannot be JSON
	}
	s.Annotations[appliedAnnotation] = hash(string(text))
}

// servicePort is a port of the spec and where it goes.
func servicePort(p Port, pod uint16) corev1.ServicePort {
	return corev1.ServicePort{Name: p.name(), Protocol: p.protocol(), Port: int32(p.Number), TargetPort: intstr.FromInt32(int32(pod))}
}

// publishedPorts are those of ours in a Service, with the pod port that they go to (0 if somebody made it none).
func publishedPorts(s *corev1.Service) map[Port]uint16 {
	out := map[Port]uint16{}
	for _, sp := range s.Spec.Ports {
		p := Port{Number: uint16(sp.Port), UDP: sp.Protocol == corev1.ProtocolUDP}
		if sp.Name != p.name() {
			continue // somebody else's
		}
		out[p] = 0
		if n := sp.TargetPort.IntVal; sp.TargetPort.Type == intstr.Int && n > 0 && n <= 65535 {
			out[p] = uint16(n)
		}
	}
	return out
}

// differs reports whether a Service that is there is not as it should be, in what is ours.
func differs(want, have *corev1.Service) bool {
	within := func(want, have map[string]string) bool {
		for k, v := range want {
			if got, ok := have[k]; !ok || got != v {
				return false
			}
		}
		return true
	}
	hasOwner := func(o metav1.OwnerReference) bool {
		return slices.ContainsFunc(have.OwnerReferences, func(h metav1.OwnerReference) bool { return h.UID == o.UID })
	}
	a, b := want.Spec, have.Spec
	same := within(want.Labels, have.Labels) && within(want.Annotations, have.Annotations) &&
		!slices.ContainsFunc(want.OwnerReferences, func(o metav1.OwnerReference) bool { return !hasOwner(o) }) &&
		a.Type == b.Type && maps.Equal(a.Selector, b.Selector) && a.ExternalName == b.ExternalName &&
		(a.ExternalTrafficPolicy == "" || a.ExternalTrafficPolicy == b.ExternalTrafficPolicy) &&
		(a.LoadBalancerClass == nil || b.LoadBalancerClass != nil && *a.LoadBalancerClass == *b.LoadBalancerClass) &&
		(a.IPFamilyPolicy == nil || b.IPFamilyPolicy != nil && *a.IPFamilyPolicy == *b.IPFamilyPolicy) &&
		(a.LoadBalancerIP == "" || a.LoadBalancerIP == b.LoadBalancerIP)
	return !same || slices.ContainsFunc(a.Ports, func(p corev1.ServicePort) bool { return !hasPort(b.Ports, p) })
}

func hasPort(ports []corev1.ServicePort, want corev1.ServicePort) bool {
	return slices.ContainsFunc(ports, func(p corev1.ServicePort) bool {
		return p.Port == want.Port && p.Protocol == want.Protocol && p.Name == want.Name && p.TargetPort == want.TargetPort
	})
}

func ownedBy(s *corev1.Service, owner types.UID) bool {
	return slices.ContainsFunc(s.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == owner })
}

func uidOf(s *corev1.Service) types.UID { return types.UID(s.Labels[UIDLabel]) }
