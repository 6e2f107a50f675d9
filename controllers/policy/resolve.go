package policy

import (
	"fmt"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// resolved is one target of a policy, looked up.
type resolved struct {
	target Target
	scope  scope
	// exists: the target and its section are there. Foreign: it is another controller's.
	exists, foreign bool
	// reason and message say why the policy cannot be attached there; "" it can.
	reason  gwv1.PolicyConditionReason
	message string
	// conflict says which other policy has the place; "" none.
	conflict string
}

// resolve looks a target up. What a CRD's own rules refuse is refused here too: an older CRD may let it through.
func (a *Attached) resolve(k Kind, namespace string, t Target) resolved {
	r := resolved{target: t, scope: scope{string(t.Kind), snapshot.Name{Namespace: namespace, Name: string(t.Name)}, ""}}
	if t.SectionName != nil {
		r.scope.section = string(*t.SectionName)
	}
	switch {
	case t.Group != gwv1.GroupName:
		r.refuse(gwv1.PolicyReasonInvalid, "%s cannot be attached to %s of group %q; it can be attached to %s", k.Name, t.Kind, t.Group, k.attachTo)
	case t.Kind == "ListenerSet" && slices.Contains(k.attachTo, ListenerSet):
		r.refuse(v1alpha1.PolicyReasonTargetNotSupported, "this version of Gatehouse does not serve ListenerSets; attach the policy to their Gateway or to routes")
	case t.Kind == "Gateway":
		a.resolveGateway(k, &r)
	case t.Kind == "HTTPRoute", t.Kind == "GRPCRoute":
		a.resolveRoute(k, &r)
	default:
		r.refuse(gwv1.PolicyReasonInvalid, "%s cannot be attached to %s; it can be attached to %s", k.Name, t.Kind, k.attachTo)
	}
	return r
}

func (a *Attached) resolveGateway(k Kind, r *resolved) {
	g := a.gateways[r.scope.name]
	if g == nil {
		r.refuse(gwv1.PolicyReasonTargetNotFound, "there is no Gateway %s", r.scope.name)
		return
	}
	r.foreign = g.Foreign
	place := Gateway
	if r.scope.section != "" {
		place = Listener
	}
	r.find(k, place, "listener", g.Listeners)
}

func (a *Attached) resolveRoute(k Kind, r *resolved) {
	route := a.routes[RouteID{r.scope.kind, r.scope.name}]
	if route == nil {
		r.refuse(gwv1.PolicyReasonTargetNotFound, "there is no %s %s", r.scope.kind, r.scope.name)
		return
	}
	r.foreign = route.Foreign
	if !slices.Contains(k.attachTo, Place(r.scope.kind)) {
		r.exists = true
		r.refuse(gwv1.PolicyReasonInvalid, "%s cannot be attached to %s; it can be attached to %s", k.Name, r.scope.kind, k.attachTo)
		return
	}
	place := Place(r.scope.kind)
	if r.scope.section != "" {
		place = Rule
	}
	r.find(k, place, "rule", route.Rules)
}

// find looks for the section among those that there are, and asks whether the kind attaches to such a place.
func (r *resolved) find(k Kind, place Place, word string, names []string) {
	r.exists = r.scope.section == "" || slices.Contains(names, r.scope.section)
	switch {
	case !r.exists:
		r.refuse(gwv1.PolicyReasonTargetNotFound, "%s %s has no %s %s; it has %s", r.scope.kind, r.scope.name, word, r.scope.section, listed(names))
	case !slices.Contains(k.attachTo, place):
		r.refuse(gwv1.PolicyReasonInvalid, "%s cannot be attached to a %s; it can be attached to %s", k.Name, place, k.attachTo)
	}
}

func (r *resolved) refuse(reason gwv1.PolicyConditionReason, format string, args ...any) {
	r.reason, r.message = reason, fmt.Sprintf(format, args...)
}

// String names the target as one says it: "HTTPRoute shop/api, rule checkout".
func (r *resolved) String() string {
	s := r.scope.kind + " " + r.scope.name.String()
	switch {
	case r.scope.section == "":
		return s
	case r.scope.kind == string(Gateway):
		return s + ", listener " + r.scope.section
	}
	return s + ", rule " + r.scope.section
}

// String lists the places: "Gateway, listener, HTTPRoute or rule".
func (t AttachTo) String() string {
	names := make([]string, len(t))
	for i, p := range t {
		names[i] = string(p)
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func listed(names []string) string {
	named := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" })
	if len(named) == 0 {
		return "none with a name"
	}
	return strings.Join(named, ", ")
}
