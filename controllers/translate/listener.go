package translate

import (
	"fmt"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// listenerNode is one listener of a Gateway.
type listenerNode struct {
	gateway  *gatewayNode
	spec     *gwv1.Listener
	field    string // "spec.listeners[0]"
	key      snapshot.ListenerKey
	hostname string // lower case; "" any
	port     uint16
	protocol snapshot.Protocol     // "" for one that is not served
	kinds    []gwv1.RouteGroupKind // the kinds of routes that it takes

	problem    *problem // why it is not accepted
	conflict   *problem // with other listeners of the port
	refs       problems // certificates and kinds that do not resolve
	unserved   *problem // why it is not programmed, though accepted
	overlap    *problem // of its TLS settings with other listeners of the port
	waits      bool     // for an answer about a certificate: nothing is said about the Gateway
	keyPairs   []keyPair
	clients    *snapshot.Clients // how certificates of clients are checked; nil: they are not asked for
	attached   []*routeNode      // oldest first, each once
	routeCount int32             // of the accepted ones among them
}

// valid reports whether the listener's own settings can be served.
func (l *listenerNode) valid() bool { return l.problem == nil && l.conflict == nil }

// serves reports whether requests reach routes through it.
func (l *listenerNode) serves() bool {
	return l.valid() && l.unserved == nil && (l.protocol == snapshot.HTTP || len(l.keyPairs) > 0)
}

func (g *graph) newListener(n *gatewayNode, index int) *listenerNode {
	spec := &n.object.Spec.Listeners[index]
	l := &listenerNode{
		gateway:  n,
		spec:     spec,
		field:    fmt.Sprintf("spec.listeners[%d]", index),
		key:      snapshot.ListenerKey{Gateway: n.name, Section: string(spec.Name)},
		hostname: strings.ToLower(string(value(spec.Hostname, ""))),
		port:     uint16(spec.Port),
	}
	if spec.Port < 1 || spec.Port > 65535 {
		l.problem = wrong(l.field+".port", gwv1.ListenerReasonUnsupportedValue, "%d is not a port", spec.Port)
		return l
	}
	switch spec.Protocol {
	case gwv1.HTTPProtocolType:
		l.protocol = snapshot.HTTP
	case gwv1.HTTPSProtocolType:
		l.protocol = snapshot.HTTPS
	default:
		l.problem = wrong(l.field+".protocol", gwv1.ListenerReasonUnsupportedProtocol, "%s is not served; use HTTP or HTTPS", spec.Protocol)
		return l
	}
	l.problem = l.refuseFields()
	l.selectKinds()
	if l.protocol == snapshot.HTTPS && l.problem == nil {
		g.loadCertificates(l)
		g.loadAuthorities(l)
	}
	return l
}

// refuseFields finds what the listener asks for and would not get. Most of it is about who may come in, so it is never passed over.
func (l *listenerNode) refuseFields() *problem {
	if f := l.spec.Filters; f != nil && len(f.Requests) > 0 {
		return wrong(l.field+".filters", v1alpha1.ReasonUnsupportedField, "filters of listeners are not served by this version of Gatehouse; use policies or filters of routes")
	}
	tls := l.spec.TLS
	if l.protocol == snapshot.HTTP {
		if tls != nil {
			return wrong(l.field+".tls", v1alpha1.ReasonInvalidTLSConfig, "a listener of protocol HTTP has no TLS; use HTTPS or remove tls")
		}
		return nil
	}
	if tls != nil {
		if mode := value(tls.Mode, gwv1.TLSModeTerminate); mode != gwv1.TLSModeTerminate {
			return wrong(l.field+".tls.mode", gwv1.ListenerReasonUnsupportedValue, "%s is not served for HTTPS; use Terminate", mode)
		}
		if len(tls.Options) > 0 {
			return wrong(l.field+".tls.options", v1alpha1.ReasonUnsupportedField, "no TLS options are served by this version of Gatehouse; remove %s", firstKey(tls.Options))
		}
	}
	return nil
}

func firstKey[K ~string, V any](m map[K]V) K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	return slices.Min(keys)
}

// routeKinds are the kinds of routes that HTTP and HTTPS listeners take.
var routeKinds = []gwv1.Kind{"HTTPRoute", "GRPCRoute"}

func (l *listenerNode) selectKinds() {
	group := gwv1.Group(gwv1.GroupName)
	var asked []gwv1.RouteGroupKind
	if l.spec.AllowedRoutes != nil {
		asked = l.spec.AllowedRoutes.Kinds
	}
	if len(asked) == 0 {
		for _, k := range routeKinds {
			l.kinds = append(l.kinds, gwv1.RouteGroupKind{Group: &group, Kind: k})
		}
		return
	}
	for i, k := range asked {
		if value(k.Group, group) != group || !slices.Contains(routeKinds, k.Kind) {
			l.refs.add(wrong(fmt.Sprintf("%s.allowedRoutes.kinds[%d]", l.field, i), gwv1.ListenerReasonInvalidRouteKinds,
				"a listener of protocol %s takes %s, not %s", l.protocol, join(routeKinds), groupKind(string(value(k.Group, "")), string(k.Kind))))
			continue
		}
		if !l.takesKind(string(k.Kind)) {
			l.kinds = append(l.kinds, gwv1.RouteGroupKind{Group: &group, Kind: k.Kind})
		}
	}
}

func (l *listenerNode) takesKind(kind string) bool {
	return slices.ContainsFunc(l.kinds, func(k gwv1.RouteGroupKind) bool { return string(k.Kind) == kind })
}

// admits reports whether allowedRoutes.namespaces lets routes of that namespace in.
func (g *graph) admits(l *listenerNode, namespace string) bool {
	from, selector := gwv1.NamespacesFromSame, (*gwv1.RouteNamespaces)(nil)
	if a := l.spec.AllowedRoutes; a != nil && a.Namespaces != nil {
		from, selector = value(a.Namespaces.From, gwv1.NamespacesFromSame), a.Namespaces
	}
	switch from {
	case gwv1.NamespacesFromAll:
		return true
	case gwv1.NamespacesFromSame:
		return namespace == l.gateway.name.Namespace
	case gwv1.NamespacesFromSelector:
		return g.selects(selector.Selector, namespace)
	}
	return false
}

// findConflicts finds listeners that a request could not be told apart by. All of them are conflicted, and none serves. Protocols that
// are not served take no part.
func findConflicts(listeners []*listenerNode) {
	for _, l := range listeners {
		if l.protocol == "" {
			continue
		}
		for _, other := range listeners {
			if other == l || other.port != l.port || other.protocol == "" {
				continue
			}
			if other.protocol != l.protocol {
				l.conflict = wrong(l.field, gwv1.ListenerReasonProtocolConflict, "listener %s has another protocol on port %d; use another port", other.key.Section, l.port)
				break
			}
			if other.hostname == l.hostname && l.conflict == nil {
				l.conflict = wrong(l.field, gwv1.ListenerReasonHostnameConflict, "listener %s has the same port and hostname; change one of them", other.key.Section)
			}
		}
	}
}

// findOverlaps finds HTTPS listeners of one port between which a client may carry a connection over. Certificates tell more than
// hostnames.
func findOverlaps(listeners []*listenerNode) {
	for _, l := range listeners {
		for _, other := range listeners {
			if other == l || other.port != l.port || l.protocol != snapshot.HTTPS || other.protocol != snapshot.HTTPS {
				continue
			}
			if certificatesOverlap(l.keyPairs, other.keyPairs) {
				l.overlap = wrong(l.field, gwv1.ListenerReasonOverlappingCertificates, "a certificate has a name in common with one of listener %s", other.key.Section)
				break
			}
			if l.overlap == nil && hostnamesIntersect(l.hostname, other.hostname) {
				l.overlap = wrong(l.field, gwv1.ListenerReasonOverlappingHostnames, "the hostname overlaps with that of listener %s", other.key.Section)
			}
		}
	}
}

// portsOf are the ports of those listeners, ascending.
func portsOf(listeners []*listenerNode, which func(*listenerNode) bool) []uint16 {
	var ports []uint16
	for _, l := range listeners {
		if which(l) && !slices.Contains(ports, l.port) {
			ports = append(ports, l.port)
		}
	}
	slices.Sort(ports)
	return ports
}
