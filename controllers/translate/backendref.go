package translate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// weigh resolves the backendRefs of a rule. One that cannot be used keeps its weight, and its share is answered with 500.
func (g *graph) weigh(r *routeNode, rule *ruleNode, refs []gwv1.HTTPBackendRef, field string) {
	total := uint64(0)
	for i, ref := range refs {
		at := fmt.Sprintf("%s.backendRefs[%d]", field, i)
		weight := uint32(max(0, value(ref.Weight, 1)))
		total += uint64(weight)
		b := snapshot.WeightedBackend{Weight: weight}
		b.Filters = g.attemptFilters(rule, ref.Filters, at)
		backend, p := g.follow(r, ref.BackendObjectReference, at)
		if p != nil {
			b.Failure = backendInvalid(p)
		} else {
			b.Ref = backend
		}
		rule.rule.Backends = append(rule.rule.Backends, b)
	}
	if total == 0 {
		rule.rule.Backends = nil
		rule.rule.Failure = failure(message.ReasonNoBackend, "the rule has no backendRef with a weight")
	}
}

// follow resolves a reference of a route to a backend, and notes on the route what came of it.
func (g *graph) follow(r *routeNode, ref gwv1.BackendObjectReference, field string) (snapshot.BackendRef, *problem) {
	target, p := backendRefOf(r.id.Name.Namespace, ref, field)
	if p != nil {
		r.refs.add(p)
		return target, p
	}
	if !slices.Contains(r.services, target.Service) {
		r.services = append(r.services, target.Service)
	}
	backend, answer, p := g.backend(r.referrer(), target, field)
	switch {
	case answer == Pending:
		r.waits = true
	case p != nil:
		r.refs.add(p)
		return target, p
	case !slices.Contains(r.backends, backend):
		r.backends = append(r.backends, backend)
	}
	return target, nil
}

func backendRefOf(namespace string, ref gwv1.BackendObjectReference, field string) (snapshot.BackendRef, *problem) {
	group, kind := value(ref.Group, ""), value(ref.Kind, "Service")
	if group != "" || kind != "Service" {
		return snapshot.BackendRef{}, wrong(field, gwv1.RouteReasonInvalidKind, "%s is not a kind of backend here; use a Service", groupKind(string(group), string(kind)))
	}
	port := value(ref.Port, 0)
	if port < 1 || port > 65535 {
		return snapshot.BackendRef{}, wrong(field+".port", v1alpha1.ReasonInvalidBackend, "a port of Service %s is needed", ref.Name)
	}
	return snapshot.BackendRef{
		Service: snapshot.Name{Namespace: string(value(ref.Namespace, gwv1.Namespace(namespace))), Name: string(ref.Name)},
		Port:    uint16(port),
	}, nil
}

func groupKind(group, kind string) string {
	if group == "" || group == gwv1.GroupName {
		return kind
	}
	return kind + " of group " + group
}

// backend looks at the Service behind a reference: may the referrer use it, is it there, can it be spoken to.
func (g *graph) backend(from referrer, ref snapshot.BackendRef, field string) (snapshot.Backend, Answer, *problem) {
	b := snapshot.Backend{Ref: ref}
	if !g.grants.allow(from, "", "Service", ref.Service) {
		return b, Found, wrong(field, gwv1.RouteReasonRefNotPermitted, "no ReferenceGrant in namespace %s allows %s to use Service %s",
			ref.Service.Namespace, from, ref.Service)
	}
	service, answer := g.refs.service(ref.Service)
	switch answer {
	case Pending:
		if ps := g.secured[ref.Service]; len(ps) > 0 { // for this port or another: its name is not known yet
			return b, Pending, refuseTLS(ps[0], ref, field)
		}
		return b, Pending, nil
	case Absent, Forbidden: // Services are watched as a whole: what that does not show is not there for us
		return b, Absent, wrong(field, gwv1.RouteReasonBackendNotFound, "there is no Service %s", ref.Service)
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return b, Found, wrong(field, v1alpha1.ReasonInvalidBackend,
			"Service %s is of type ExternalName, which is not served: whoever may write it could point it at anything; use a Service with EndpointSlices", ref.Service)
	}
	port := portOf(service, ref.Port)
	if port == nil {
		return b, Found, wrong(field, gwv1.RouteReasonBackendNotFound, "Service %s has no TCP port %d; it has %s", ref.Service, ref.Port, portsIn(service))
	}
	if p := g.securedBy(ref.Service, port.Name); p != nil {
		return b, Found, refuseTLS(p, ref, field)
	}
	protocol, p := protocolOf(from.kind, ref, value(port.AppProtocol, ""), field)
	b.Protocol = protocol
	return b, Found, p
}

func portOf(service *corev1.Service, number uint16) *corev1.ServicePort {
	for i := range service.Spec.Ports {
		p := &service.Spec.Ports[i]
		if p.Port == int32(number) && (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) {
			return p
		}
	}
	return nil
}

func portsIn(service *corev1.Service) string {
	var ports []string
	for _, p := range service.Spec.Ports {
		ports = append(ports, fmt.Sprintf("%d/%s", p.Port, string(p.Protocol)))
	}
	if len(ports) == 0 {
		return "none"
	}
	return strings.Join(ports, ", ")
}

// protocolOf reads what a Service port says that it speaks. Words that say nothing about the wire are passed over; those that ask for
// what we cannot do are refused. GRPCRoutes need no word: gRPC is always sent as HTTP/2.
func protocolOf(routeKind string, ref snapshot.BackendRef, appProtocol, field string) (snapshot.BackendProtocol, *problem) {
	refuse := func(why string) (snapshot.BackendProtocol, *problem) {
		return "", wrong(field, gwv1.RouteReasonUnsupportedProtocol, "port %d of Service %s has appProtocol %s: %s", ref.Port, ref.Service, appProtocol, why)
	}
	switch strings.ToLower(appProtocol) {
	case "kubernetes.io/h2c":
		return snapshot.BackendH2C, nil
	case "kubernetes.io/ws":
		if routeKind == "GRPCRoute" {
			return refuse("gRPC cannot be sent to it")
		}
		return snapshot.BackendWS, nil
	case "kubernetes.io/wss", "https":
		return refuse("TLS to backends is not served by this version of Gatehouse")
	}
	return snapshot.BackendHTTP, nil
}
