package translate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func (n *gatewayNode) waits() bool {
	return slices.ContainsFunc(n.listeners, func(l *listenerNode) bool { return l.waits })
}

func (g *graph) gatewayStatus(n *gatewayNode, f Facts) Status {
	generation := n.object.Generation
	ok, reason, message := n.accepted()
	all := []metav1.Condition{
		condition(gwv1.GatewayConditionAccepted, truth(ok), reason, message),
		g.gatewayProgrammed(n, f),
		n.resolved(),
	}
	all = append(all, n.insecureFallback()...)
	none := int32(0)
	status := gwv1.GatewayStatus{
		Addresses:            g.addresses(n, f),
		Conditions:           conditions(generation, all...),
		AttachedListenerSets: &none,
	}
	problems := slices.Concat(n.problem.list(), n.refs, n.notes, n.unusable)
	for _, l := range n.listeners {
		status.Listeners = append(status.Listeners, g.listenerStatus(l, f))
		problems = slices.Concat(problems, l.problem.list(), l.conflict.list(), l.unserved.list(), l.refs)
		if p := g.unbound(l, f); p != nil && p.reason != string(gwv1.ListenerReasonPending) {
			problems = append(problems, problem{l.field, p.reason, p.message})
		}
	}
	return Status{Kind: "Gateway", Name: n.name, Generation: generation, Value: status, Problems: told(problems)}
}

// resolved says whether the Gateway's own references resolve, and sums up those of its listeners.
func (n *gatewayNode) resolved() metav1.Condition {
	if len(n.refs) > 0 {
		return condition(gwv1.GatewayConditionResolvedRefs, metav1.ConditionFalse, n.refs[0].reason, n.refs.message())
	}
	var bad []string
	for _, l := range n.listeners {
		if len(l.refs) > 0 {
			bad = append(bad, l.key.Section)
		}
	}
	if len(bad) > 0 {
		return condition(gwv1.GatewayConditionResolvedRefs, metav1.ConditionFalse, gwv1.GatewayReasonListenersNotResolved,
			"not resolved: "+strings.Join(bad, ", ")+"; the conditions of these listeners say what")
	}
	return condition(gwv1.GatewayConditionResolvedRefs, metav1.ConditionTrue, gwv1.GatewayReasonResolvedRefs, "")
}

func truth(ok bool) metav1.ConditionStatus {
	if ok {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// gatewayProgrammed says whether the valid part of a Gateway serves under all of its addresses, and what is amiss beside that.
func (g *graph) gatewayProgrammed(n *gatewayNode, f Facts) metav1.Condition {
	c := g.programmed(n, f)
	if remark := f.Remarks[n.name]; remark != "" {
		c.Message = strings.TrimPrefix(c.Message+"; "+remark, "; ")
	}
	return c
}

// programmed is about the valid part. Parts that are not are told by Accepted and by the listeners.
func (g *graph) programmed(n *gatewayNode, f Facts) metav1.Condition {
	no := func(reason gwv1.GatewayConditionReason, message string) metav1.Condition {
		return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionFalse, reason, message)
	}
	if ok, _, _ := n.accepted(); !ok {
		return no(gwv1.GatewayReasonInvalid, "the Gateway is not accepted")
	}
	if why := f.Unprovided[n.name]; why != "" {
		return no(gwv1.GatewayReasonNoResources, why)
	}
	bad, waiting := n.unusable, problems(nil)
	if why := f.Unusable[n.name]; why != "" {
		bad = append(slices.Clip(bad), problem{message: why})
	}
	for _, l := range n.listeners {
		p := g.unbound(l, f)
		switch {
		case !l.serves() || p == nil:
		case p.reason == string(gwv1.ListenerReasonPending):
			waiting.add(&problem{message: "listener " + l.key.Section + ": " + p.message})
		case !slices.ContainsFunc(bad, func(o problem) bool { return o.message == p.message }):
			bad = append(slices.Clip(bad), problem{message: p.message})
		}
	}
	switch {
	case len(bad) > 0:
		return no(gwv1.GatewayReasonAddressNotUsable, bad.message())
	case len(waiting) > 0:
		return no(gwv1.GatewayReasonPending, waiting.message())
	case f.Addresses != nil && len(f.Addresses[n.name]) == 0:
		return no(gwv1.GatewayReasonAddressNotAssigned, "the Service of the Gateway has no address yet; is there a load balancer that gives it one?")
	}
	return g.assigned(n, f)
}

// assigned compares the addresses that there are with those that were asked for.
func (g *graph) assigned(n *gatewayNode, f Facts) metav1.Condition {
	if f.Addresses != nil {
		for i, a := range n.object.Spec.Addresses {
			has := func(s gwv1.GatewayStatusAddress) bool { return sameAddress(s.Value, a.Value) }
			if a.Value != "" && !slices.ContainsFunc(f.Addresses[n.name], has) {
				return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionFalse, gwv1.GatewayReasonAddressNotUsable,
					fmt.Sprintf("spec.addresses[%d]: %s was not given to the Gateway's Service", i, a.Value))
			}
		}
	}
	return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionTrue, gwv1.GatewayReasonProgrammed, "")
}

// sameAddress compares what may be written in several ways: 2001:DB8::1 is 2001:db8::1.
func sameAddress(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return a == b || errX == nil && errY == nil && x.Unmap() == y.Unmap()
}

// addresses are those that clients can use, and none in the meantime: a wrong one would be published in DNS.
func (g *graph) addresses(n *gatewayNode, f Facts) []gwv1.GatewayStatusAddress {
	if n.problem != nil {
		return nil
	}
	if f.Addresses != nil {
		return f.Addresses[n.name]
	}
	var out []gwv1.GatewayStatusAddress
	for _, a := range n.addresses {
		if a.IsValid() && n.boundAt(a, g, f) {
			t := gwv1.IPAddressType
			out = append(out, gwv1.GatewayStatusAddress{Type: &t, Value: a.String()})
		}
	}
	return out
}

// boundAt reports whether each port that is served is bound on that address.
func (n *gatewayNode) boundAt(a netip.Addr, g *graph, f Facts) bool {
	for _, port := range n.servedPorts() {
		err, tried := f.Binds[snapshot.SocketKey{Gateway: n.name, Address: a, Port: port}]
		if !tried || err != nil || n.taken[netip.AddrPortFrom(a, port)] != nil {
			return false
		}
	}
	return true
}

func (g *graph) listenerStatus(l *listenerNode, f Facts) gwv1.ListenerStatus {
	accepted := condition(gwv1.ListenerConditionAccepted, metav1.ConditionTrue, gwv1.ListenerReasonAccepted, "")
	resolved := condition(gwv1.ListenerConditionResolvedRefs, metav1.ConditionTrue, gwv1.ListenerReasonResolvedRefs, "")
	if p := l.problem; p != nil {
		accepted = condition(gwv1.ListenerConditionAccepted, metav1.ConditionFalse, p.reason, p.String())
	} else if p := l.conflict; p != nil {
		accepted = condition(gwv1.ListenerConditionAccepted, metav1.ConditionFalse, p.reason, p.String())
	}
	if len(l.refs) > 0 {
		resolved = condition(gwv1.ListenerConditionResolvedRefs, metav1.ConditionFalse, l.refs[0].reason, l.refs.message())
	}
	all := []metav1.Condition{accepted, g.listenerProgrammed(l, f), resolved}
	if l.conflict != nil {
		all = append(all, condition(gwv1.ListenerConditionConflicted, metav1.ConditionTrue, l.conflict.reason, l.conflict.String()))
	}
	if l.overlap != nil {
		all = append(all, condition(gwv1.ListenerConditionOverlappingTLSConfig, metav1.ConditionTrue, l.overlap.reason, l.overlap.String()))
	}
	kinds := l.kinds
	if kinds == nil {
		kinds = []gwv1.RouteGroupKind{} // the field says so, rather than being left out
	}
	return gwv1.ListenerStatus{
		Name:           l.spec.Name,
		SupportedKinds: kinds,
		AttachedRoutes: l.routeCount,
		Conditions:     conditions(l.gateway.object.Generation, all...),
	}
}

func (g *graph) listenerProgrammed(l *listenerNode, f Facts) metav1.Condition {
	no := func(reason, message string) metav1.Condition {
		return condition(gwv1.ListenerConditionProgrammed, metav1.ConditionFalse, reason, message)
	}
	switch {
	case l.gateway.problem != nil:
		return no(string(gwv1.ListenerReasonInvalid), "the Gateway is not accepted")
	case !l.valid():
		return no(string(gwv1.ListenerReasonInvalid), "the listener is not accepted")
	case l.unserved != nil:
		return no(l.unserved.reason, l.unserved.String())
	case !l.serves():
		return no(string(gwv1.ListenerReasonInvalid), "no certificate can be used")
	}
	if p := g.unbound(l, f); p != nil {
		return no(p.reason, p.message)
	}
	return condition(gwv1.ListenerConditionProgrammed, metav1.ConditionTrue, gwv1.ListenerReasonProgrammed, "")
}

// unbound says why a listener that could serve does not, on one of its addresses at least; nil: it does on all.
func (g *graph) unbound(l *listenerNode, f Facts) *problem {
	if !l.serves() || l.gateway.problem != nil {
		return nil
	}
	for _, addr := range l.gateway.addresses {
		if p := l.gateway.taken[netip.AddrPortFrom(addr, l.port)]; p != nil {
			return &problem{"", string(gwv1.ListenerReasonPortUnavailable), p.message}
		}
	}
	pending := wrong("", gwv1.ListenerReasonPending, "port %d is not bound yet", l.port)
	if f.Addresses != nil {
		pending = wrong("", gwv1.ListenerReasonPending, "port %d is not bound on all replicas yet", l.port)
	}
	keys := g.socketKeys(l.gateway, l.port)
	if len(keys) == 0 && len(l.gateway.unusable) > 0 {
		return wrong("", gwv1.ListenerReasonPortUnavailable, "none of the Gateway's addresses can be used")
	}
	if len(keys) == 0 || !f.Applied {
		return pending
	}
	for _, key := range keys {
		err, tried := f.Binds[key]
		switch {
		case !tried:
			return pending
		case err != nil:
			return wrong("", gwv1.ListenerReasonPortUnavailable, "%s cannot be bound: %s", key.Bind(), err)
		}
	}
	return nil
}

// inForce says why what was built for a listener is not at work; "" it is.
func (g *graph) inForce(key snapshot.ListenerKey, f Facts) string {
	n := g.byName[key.Gateway]
	if n == nil {
		return "the Gateway is not served"
	}
	for _, l := range n.listeners {
		if l.key == key {
			if c := g.listenerProgrammed(l, f); c.Status != metav1.ConditionTrue {
				return c.Message
			}
			return ""
		}
	}
	return "the Gateway has no such listener"
}
