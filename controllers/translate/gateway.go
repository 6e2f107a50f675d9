package translate

import (
	"fmt"
	"net/netip"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// gatewayNode is a Gateway of a class of ours.
type gatewayNode struct {
	object    *gwv1.Gateway
	name      snapshot.Name
	listeners []*listenerNode

	problem  *problem // why it is not served as a whole
	refs     problems // what it refers to itself, and cannot be had
	notes    problems // what it asks for and does not get, though it is accepted
	unusable problems // addresses that it asks for and cannot have

	addresses []netip.Addr                // where its listeners bind; the zero Addr: all
	taken     map[netip.AddrPort]*problem // of those, what another Gateway has; the zero Addr as unspecified
}

func (g *graph) addGateways() {
	for _, o := range byAge(g.in.Objects.Gateways) {
		class := g.class(string(o.Spec.GatewayClassName))
		if class == nil {
			continue
		}
		n := &gatewayNode{object: o, name: nameOf(o)}
		n.problem = refuseGateway(o, class)
		n.refs.add(refuseClientCertificate(o))
		n.notes.add(noteListenerSets(o))
		g.bindAddresses(n)
		for i := range o.Spec.Listeners {
			n.listeners = append(n.listeners, g.newListener(n, i))
		}
		findConflicts(n.listeners)
		findOverlaps(n.listeners)
		g.gateways = append(g.gateways, n)
		g.byName[n.name] = n
	}
	g.settleAddresses()
}

// refuseGateway says why a Gateway is not served at all.
func refuseGateway(o *gwv1.Gateway, class *classNode) *problem {
	if class.problem != nil {
		return wrong("spec.gatewayClassName", gwv1.GatewayReasonInvalidParameters, "GatewayClass %s is not accepted: %s", class.object.Name, class.problem)
	}
	if i := o.Spec.Infrastructure; i != nil && i.ParametersRef != nil {
		return wrong("spec.infrastructure.parametersRef", gwv1.GatewayReasonInvalidParameters,
			"this version of Gatehouse takes no parameters (%s %s); remove the reference", i.ParametersRef.Kind, i.ParametersRef.Name)
	}
	for i, a := range o.Spec.Addresses {
		field := fmt.Sprintf("spec.addresses[%d]", i)
		if t := value(a.Type, gwv1.IPAddressType); t != gwv1.IPAddressType {
			return wrong(field, gwv1.GatewayReasonUnsupportedAddress, "addresses of type %s are not served; use IPAddress", t)
		}
		if a.Routability != gwv1.GatewayAddressRoutabilityDefault {
			return wrong(field+".routability", gwv1.GatewayReasonUnsupportedAddress, "routability is not served by this version of Gatehouse; remove it")
		}
	}
	return nil
}

// refuseClientCertificate: what would use the certificate, TLS to backends, is refused where it is asked for, so nothing else is closed.
func refuseClientCertificate(o *gwv1.Gateway) *problem {
	if o.Spec.TLS == nil || o.Spec.TLS.Backend == nil || o.Spec.TLS.Backend.ClientCertificateRef == nil {
		return nil
	}
	return wrong("spec.tls.backend.clientCertificateRef", v1alpha1.ReasonUnsupportedField,
		"this version of Gatehouse presents no client certificate to backends; remove the field")
}

func noteListenerSets(o *gwv1.Gateway) *problem {
	a := o.Spec.AllowedListeners
	if a == nil || a.Namespaces == nil || value(a.Namespaces.From, gwv1.NamespacesFromNone) == gwv1.NamespacesFromNone {
		return nil
	}
	return wrong("spec.allowedListeners", v1alpha1.ReasonUnsupportedField, "this version of Gatehouse serves no ListenerSets: none is attached")
}

// bindAddresses finds where the listeners bind. Behind a Service (with recorded pod ports) that is everywhere in the pod, and the
// addresses of the spec are the Service's.
func (g *graph) bindAddresses(n *gatewayNode) {
	all := []netip.Addr{{}}
	if g.in.PodPorts != nil {
		n.addresses = all
		return
	}
	asked := 0
	for i, a := range n.object.Spec.Addresses {
		if a.Value == "" {
			continue // any address
		}
		asked++
		addr, err := netip.ParseAddr(a.Value)
		if err != nil {
			n.unusable.add(wrong(fmt.Sprintf("spec.addresses[%d].value", i), gwv1.GatewayReasonAddressNotUsable, "%q is not an IP address", a.Value))
			continue
		}
		n.addresses = append(n.addresses, addr)
	}
	if asked == 0 {
		n.addresses = all
	}
}

// settleAddresses gives each address and port to the oldest Gateway that wants it.
func (g *graph) settleAddresses() {
	if g.in.PodPorts != nil {
		return
	}
	var owners []socketOwner
	for _, n := range g.gateways {
		n.taken = map[netip.AddrPort]*problem{}
		var own []socketOwner
		for _, port := range n.servedPorts() {
			for _, addr := range n.addresses {
				s := socketOwner{addr, port, n}
				if other := s.overlapping(owners); other != nil {
					n.taken[netip.AddrPortFrom(addr, port)] = wrong("spec.addresses", gwv1.GatewayReasonAddressNotUsable,
						"%s is used by Gateway %s, which is older; give one of them another port or address", s, other.gateway.name)
					continue
				}
				own = append(own, s)
			}
		}
		owners = append(owners, own...)
	}
}

type socketOwner struct {
	addr    netip.Addr
	port    uint16
	gateway *gatewayNode
}

func (s socketOwner) String() string {
	if !s.addr.IsValid() {
		return fmt.Sprintf("port %d on all addresses", s.port)
	}
	return netip.AddrPortFrom(s.addr, s.port).String()
}

// overlapping finds who has the port on that address, or on all addresses: the kernel gives one of the two only.
func (s socketOwner) overlapping(owners []socketOwner) *socketOwner {
	for i, o := range owners {
		if o.port == s.port && (o.addr == s.addr || everywhere(o.addr) || everywhere(s.addr)) {
			return &owners[i]
		}
	}
	return nil
}

func everywhere(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }

// servedPorts are the ports of the spec, ascending, on which at least one listener serves.
func (n *gatewayNode) servedPorts() []uint16 {
	if n.problem != nil {
		return nil
	}
	return portsOf(n.listeners, (*listenerNode).serves)
}

// accepted says whether the Gateway is served, and the reason and message of its condition.
func (n *gatewayNode) accepted() (bool, gwv1.GatewayConditionReason, string) {
	if n.problem != nil {
		return false, gwv1.GatewayConditionReason(n.problem.reason), n.problem.String()
	}
	var bad []string
	for _, l := range n.listeners {
		if !l.valid() {
			bad = append(bad, l.key.Section)
		}
	}
	note := n.notes.message()
	switch len(bad) {
	case 0:
		return true, gwv1.GatewayReasonAccepted, note
	case len(n.listeners):
		return false, gwv1.GatewayReasonListenersNotValid, "no listener is valid; their conditions say why"
	}
	message := fmt.Sprintf("not valid: %s; the conditions of these listeners say why", strings.Join(bad, ", "))
	if note != "" {
		message += "; " + note
	}
	return true, gwv1.GatewayReasonListenersNotValid, message
}
