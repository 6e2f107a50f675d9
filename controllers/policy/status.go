package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Status is what a policy is to be told. An entry that is not in it is to be removed, if it is ours.
type Status struct {
	Kind       string
	Name       snapshot.Name
	Generation int64
	// Status without times: who writes it knows when a condition changed.
	Status gwv1.PolicyStatus
	// Problems are what its author should change, with the fields that they speak of.
	Problems []Problem
}

// InForce says why a listener of ours does not serve what was built for it; "" it does.
type InForce func(listener snapshot.ListenerKey) (why string)

const (
	maxAncestors = 16 // gwv1.PolicyStatus
	maxProblems  = 5  // told in one message; the rest is counted
)

// Statuses says of each policy, by kind and then age, what became of it. There is one entry per Gateway of ours under which it acts.
// What has no Gateway (a target that does not exist, or cannot be attached to, or that nobody serves) is an entry of its own.
//
// More than 16 entries do not fit: those in which something is wrong stay, and the last one's message counts those left out, where the
// policy acts all the same.
func (a *Attached) Statuses(inForce InForce) []Status {
	out := make([]Status, 0, len(a.policies))
	for i := range a.policies {
		p := &a.policies[i]
		s := Status{
			Kind:       a.kinds[p.kind].Name,
			Name:       snapshot.Name{Namespace: p.object.GetNamespace(), Name: p.object.GetName()},
			Generation: p.object.GetGeneration(),
			Problems:   p.allProblems(),
		}
		s.Status.Ancestors = []gwv1.PolicyAncestorStatus{}
		for _, e := range fit(a.entries(p)) {
			s.Status.Ancestors = append(s.Status.Ancestors, a.ancestor(p, e, inForce))
		}
		out = append(out, s)
	}
	return out
}

// allProblems are those of the policy itself, then those of its targets.
func (p *attached) allProblems() []Problem {
	all := slices.Clone(p.problems)
	for i, t := range p.targets {
		if t.reason != "" && !t.foreign {
			all = append(all, Problem{FieldPath: fmt.Sprintf("spec.targetRefs[%d]", i), Reason: string(t.reason), Message: t.message})
		}
	}
	return all
}

// entry is what is to be told about a policy under one ancestor.
type entry struct {
	ref     gwv1.ParentReference
	refused *resolved // the ancestor is itself a target that cannot be attached to
	reaches []reach
	leftOut int // entries behind this one that do not fit
}

// reach is a target and the listeners of the ancestor through which it is reached.
type reach struct {
	target    *resolved
	listeners []snapshot.ListenerKey
}

func (a *Attached) entries(p *attached) []entry {
	var all entries
	for i := range p.targets {
		t := &p.targets[i]
		switch {
		case t.foreign:
		case t.reason != "":
			e := all.of(t.reference())
			if e.refused == nil {
				e.refused = t
			}
		case t.scope.kind == string(Gateway):
			all.of(reference("Gateway", t.scope.name, "")).reach(t, a.listenersOf(t))
		default:
			route := a.routes[RouteID{t.scope.kind, t.scope.name}]
			for _, gateway := range route.Parents {
				all.of(reference("Gateway", gateway, "")).reach(t, through(route, gateway))
			}
			if len(route.Parents) == 0 {
				all.of(t.reference()).reach(t, nil)
			}
		}
	}
	return all
}

type entries []entry

// of is the entry of that ancestor, made if need be.
func (all *entries) of(ref gwv1.ParentReference) *entry {
	for i := range *all {
		if reflect.DeepEqual((*all)[i].ref, ref) {
			return &(*all)[i]
		}
	}
	*all = append(*all, entry{ref: ref})
	return &(*all)[len(*all)-1]
}

func (e *entry) reach(t *resolved, through []snapshot.ListenerKey) {
	e.reaches = append(e.reaches, reach{t, through})
}

func (a *Attached) listenersOf(t *resolved) []snapshot.ListenerKey {
	if t.scope.section != "" {
		return []snapshot.ListenerKey{{Gateway: t.scope.name, Section: t.scope.section}}
	}
	var keys []snapshot.ListenerKey
	for _, section := range a.gateways[t.scope.name].Listeners {
		keys = append(keys, snapshot.ListenerKey{Gateway: t.scope.name, Section: section})
	}
	return keys
}

func through(route *RouteTarget, gateway snapshot.Name) []snapshot.ListenerKey {
	var keys []snapshot.ListenerKey
	for _, k := range route.Attached {
		if k.Gateway == gateway {
			keys = append(keys, k)
		}
	}
	return keys
}

// fit cuts to what a status can hold.
func fit(entries []entry) []entry {
	if len(entries) <= maxAncestors {
		return entries
	}
	slices.SortStableFunc(entries, func(x, y entry) int { return x.weight() - y.weight() })
	entries[maxAncestors-1].leftOut = len(entries) - maxAncestors
	return entries[:maxAncestors]
}

func (e entry) weight() int {
	reached := slices.ContainsFunc(e.reaches, func(r reach) bool { return len(r.listeners) > 0 })
	if e.refused != nil || !reached {
		return 0
	}
	return 1
}

func (a *Attached) ancestor(p *attached, e entry, inForce InForce) gwv1.PolicyAncestorStatus {
	accepted, programmed := a.conditions(p, e, inForce)
	accepted.Type, programmed.Type = string(gwv1.PolicyConditionAccepted), v1alpha1.PolicyConditionProgrammed
	if e.leftOut > 0 {
		accepted.Message += fmt.Sprintf(" (there is no room here for %d more Gateways, where it is in force all the same)", e.leftOut)
	}
	accepted.ObservedGeneration = p.object.GetGeneration()
	programmed.ObservedGeneration = p.object.GetGeneration()
	return gwv1.PolicyAncestorStatus{
		AncestorRef:    e.ref,
		ControllerName: v1alpha1.ControllerName,
		Conditions:     []metav1.Condition{accepted, programmed},
	}
}

func (a *Attached) conditions(p *attached, e entry, inForce InForce) (accepted, programmed metav1.Condition) {
	switch {
	case e.refused != nil:
		reason := string(e.refused.reason)
		return no(reason, e.refused.message), no(reason, a.inError(p, e.refused.exists))
	case len(p.problems) > 0:
		reason := p.problems[0].Reason
		if reason == "" {
			reason = string(gwv1.PolicyReasonInvalid)
		}
		return no(reason, told(p.problems)), no(reason, a.inError(p, true))
	}
	names := make([]string, len(e.reaches))
	for i, r := range e.reaches {
		names[i] = r.target.String()
	}
	return yes(string(gwv1.PolicyReasonAccepted), "attached to "+strings.Join(names, "; ")), e.programmed(inForce)
}

// inError says what an error of the policy means for requests.
func (a *Attached) inError(p *attached, exists bool) string {
	if a.kinds[p.kind].FailClosed && exists {
		return "requests are refused here with 500 until the policy is mended"
	}
	return "the policy does nothing here until it is mended"
}

// programmed says whether the policy is in force wherever it is reached under this ancestor.
func (e entry) programmed(inForce InForce) metav1.Condition {
	var missing, waiting []string
	serving := 0
	for _, r := range e.reaches {
		if len(r.listeners) == 0 {
			missing = append(missing, e.notAttached(r))
		}
		for _, key := range r.listeners {
			if why := inForce(key); why != "" {
				waiting = append(waiting, "not in force on listener "+key.Section+": "+why)
			} else {
				serving++
			}
		}
	}
	all := strings.Join(distinct(append(missing, waiting...)), "; ")
	switch {
	case all == "":
		return yes(v1alpha1.PolicyReasonProgrammed, "in force")
	case serving > 0:
		return yes(v1alpha1.PolicyReasonPartiallyProgrammed, all)
	case len(waiting) == 0:
		return no(v1alpha1.PolicyReasonTargetNotAttached, all)
	}
	return no(v1alpha1.PolicyReasonPending, all)
}

func (e entry) notAttached(r reach) string {
	whole := r.target.scope.kind + " " + r.target.scope.name.String()
	switch {
	case r.target.scope.kind == string(Gateway):
		return "the Gateway has no listeners"
	case *e.ref.Kind == "Gateway":
		return "no listener of this Gateway serves " + whole
	}
	return "no Gateway serves " + whole
}

func (r *resolved) reference() gwv1.ParentReference {
	ref := reference(gwv1.Kind(r.scope.kind), r.scope.name, r.scope.section)
	ref.Group = &r.target.Group
	return ref
}

func reference(kind gwv1.Kind, name snapshot.Name, section string) gwv1.ParentReference {
	group, namespace := gwv1.Group(gwv1.GroupName), gwv1.Namespace(name.Namespace)
	ref := gwv1.ParentReference{Group: &group, Kind: &kind, Namespace: &namespace, Name: gwv1.ObjectName(name.Name)}
	if section != "" {
		s := gwv1.SectionName(section)
		ref.SectionName = &s
	}
	return ref
}

func told(problems []Problem) string {
	var parts []string
	for i, p := range problems {
		if i == maxProblems {
			parts = append(parts, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		parts = append(parts, p.String())
	}
	return strings.Join(parts, "; ")
}

// distinct keeps the first of equal texts, in order.
func distinct(texts []string) []string {
	var out []string
	for _, t := range texts {
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

func yes(reason, message string) metav1.Condition {
	return metav1.Condition{Status: metav1.ConditionTrue, Reason: reason, Message: message}
}

func no(reason, message string) metav1.Condition {
	return metav1.Condition{Status: metav1.ConditionFalse, Reason: reason, Message: message}
}
