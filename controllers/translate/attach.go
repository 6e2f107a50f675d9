package translate

import (
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// attachRoutes finds the listeners that take each route. Whether a listener serves does not matter here: a route is attached to it all
// the same, and comes to life with it.
func (g *graph) attachRoutes() {
	for _, r := range g.routes {
		for _, ref := range r.parentRefs {
			if gateway := g.parent(r.id.Name.Namespace, ref); gateway != nil {
				r.parents = append(r.parents, g.attach(r, ref, gateway))
			}
		}
	}
}

func (g *graph) attach(r *routeNode, ref gwv1.ParentReference, gateway *gatewayNode) *parentNode {
	p := &parentNode{ref: ref, gateway: gateway}
	named, allowed := 0, 0
	for _, l := range gateway.listeners {
		if !namesListener(ref, l) {
			continue
		}
		named++
		if !l.takesKind(r.id.Kind) || !g.admits(l, r.id.Name.Namespace) {
			continue
		}
		allowed++
		if !r.hostnamesMeet(l) {
			continue
		}
		if !r.attachedTo(l) { // by another parentRef
			l.attached = append(l.attached, r)
			if r.problem == nil {
				l.routeCount++
			}
		}
		p.listeners = append(p.listeners, l)
	}
	switch {
	case named == 0:
		p.problem = noSuchListener(ref, gateway)
	case allowed == 0:
		p.problem = wrong("", gwv1.RouteReasonNotAllowedByListeners, "no listener of Gateway %s that the parentRef names takes %ss from namespace %s; see its allowedRoutes",
			gateway.name, r.id.Kind, r.id.Name.Namespace)
	case len(p.listeners) == 0:
		p.problem = wrong("spec.hostnames", gwv1.RouteReasonNoMatchingListenerHostname, "none of the hostnames is one of a listener of Gateway %s", gateway.name)
	}
	return p
}

func namesListener(ref gwv1.ParentReference, l *listenerNode) bool {
	return (ref.SectionName == nil || *ref.SectionName == "" || *ref.SectionName == l.spec.Name) && (ref.Port == nil || *ref.Port == l.spec.Port)
}

func noSuchListener(ref gwv1.ParentReference, gateway *gatewayNode) *problem {
	section, port := value(ref.SectionName, ""), value(ref.Port, 0)
	switch {
	case section == "":
		return wrong("spec.parentRefs", gwv1.RouteReasonNoMatchingParent, "Gateway %s has no listener on port %d", gateway.name, port)
	case port == 0:
		return wrong("spec.parentRefs", gwv1.RouteReasonNoMatchingParent, "Gateway %s has no listener %s", gateway.name, section)
	}
	return wrong("spec.parentRefs", gwv1.RouteReasonNoMatchingParent, "Gateway %s has no listener %s on port %d", gateway.name, section, port)
}

func (r *routeNode) hostnamesMeet(l *listenerNode) bool {
	return len(r.hostnames) == 0 || slices.ContainsFunc(r.hostnames, func(h string) bool { return hostnamesIntersect(h, l.hostname) })
}

// acceptedBy are the listeners that serve the route as an accepted one.
func (r *routeNode) acceptedBy() []snapshot.ListenerKey {
	var keys []snapshot.ListenerKey
	if r.problem != nil {
		return nil
	}
	for _, p := range r.parents {
		for _, l := range p.listeners {
			if !slices.Contains(keys, l.key) {
				keys = append(keys, l.key)
			}
		}
	}
	return keys
}

func (r *routeNode) attachedTo(l *listenerNode) bool {
	return slices.ContainsFunc(r.parents, func(p *parentNode) bool { return slices.Contains(p.listeners, l) })
}

// gateways are those of ours that the route names, each once.
func (r *routeNode) gateways() []*gatewayNode {
	var all []*gatewayNode
	for _, p := range r.parents {
		if !slices.Contains(all, p.gateway) {
			all = append(all, p.gateway)
		}
	}
	return all
}

// attachPolicies hands the graph to the policies as what they can be attached to.
func (g *graph) attachPolicies() {
	g.policies = policy.Attach(policy.Input{
		Kinds: g.in.Kinds, Objects: g.in.Objects.Policies, Targets: g.targets(), Lookup: g.lookup, LastGood: g.in.LastGood.policy(),
	})
	g.good.policies = g.policies.LastGood()
}

func (g *graph) targets() policy.Targets {
	var t policy.Targets
	if len(g.in.Objects.Policies) == 0 {
		return t
	}
	theirs := map[snapshot.Name]bool{}
	for _, o := range byAge(g.in.Objects.Gateways) {
		target := policy.GatewayTarget{Name: nameOf(o), Foreign: g.byName[nameOf(o)] == nil}
		for _, l := range o.Spec.Listeners {
			target.Listeners = append(target.Listeners, string(l.Name))
		}
		theirs[target.Name] = target.Foreign
		t.Gateways = append(t.Gateways, target)
	}
	ours := map[policy.RouteID]bool{}
	for _, r := range g.routes {
		ours[r.id] = true
		t.Routes = append(t.Routes, r.target())
	}
	foreign := func(id policy.RouteID, refs []gwv1.ParentReference, rules []string) {
		if ours[id] {
			return
		}
		t.Routes = append(t.Routes, policy.RouteTarget{ID: id, Rules: rules, Foreign: slices.ContainsFunc(refs, func(ref gwv1.ParentReference) bool {
			name, ok := parentGateway(id.Name.Namespace, ref)
			return ok && theirs[name]
		})})
	}
	for _, o := range g.in.Objects.HTTPRoutes {
		var rules []string
		for _, rule := range o.Spec.Rules {
			rules = append(rules, string(value(rule.Name, "")))
		}
		foreign(policy.RouteID{Kind: "HTTPRoute", Name: nameOf(o)}, o.Spec.ParentRefs, rules)
	}
	for _, o := range g.in.Objects.GRPCRoutes {
		var rules []string
		for _, rule := range o.Spec.Rules {
			rules = append(rules, string(value(rule.Name, "")))
		}
		foreign(policy.RouteID{Kind: "GRPCRoute", Name: nameOf(o)}, o.Spec.ParentRefs, rules)
	}
	return t
}

func (r *routeNode) target() policy.RouteTarget {
	t := policy.RouteTarget{ID: r.id, Hostnames: r.hostnames, Attached: r.acceptedBy()}
	if r.id.Kind == "HTTPRoute" {
		t.Takes = func(rule int, path string) bool { return r.rules[rule].takes(path) }
	}
	for _, rule := range r.rules {
		t.Rules = append(t.Rules, rule.name)
	}
	for _, n := range r.gateways() {
		t.Parents = append(t.Parents, n.name)
	}
	return t
}
