package policy

import (
	"fmt"
	"reflect"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

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
	maxTold      = 5  // things of one sort in one message; the rest is counted
)

// Waiting names a policy of which nothing is said now, since an answer is missing: what was said of it last stays.
type Waiting struct {
	Kind string
	Name snapshot.Name
}

// Waiting are those that wait for an answer.
func (a *Attached) Waiting() (all []Waiting) {
	for _, p := range a.policies {
		if p.waits {
			all = append(all, Waiting{a.kinds[p.kind].Name, p.name()})
		}
	}
	return all
}

// Statuses says of each policy that does not wait, by kind and then age, what became of it. There is one entry per Gateway of ours under which it acts.
// What has no Gateway (a target that does not exist, or cannot be attached to, or that nobody serves) is an entry of its own.
//
// More than 16 entries do not fit: those in which something is wrong stay, and the last one's message counts those left out, where the
// policy acts all the same.
func (a *Attached) Statuses(inForce InForce) []Status {
	out := make([]Status, 0, len(a.policies))
	for i := range a.policies {
		p := &a.policies[i]
		if p.waits {
			continue
		}
		s := Status{
			Kind:       a.kinds[p.kind].Name,
			Name:       p.name(),
			Generation: p.object.GetGeneration(),
			Problems:   p.allProblems(),
		}
		s.Status.Ancestors = []gwv1.PolicyAncestorStatus{}
		entries := a.entries(p)
		for j := range entries {
			entries[j].stray = a.strayPaths(i, entries[j])
			s.Problems = append(s.Problems, entries[j].stray...)
		}
		s.Problems = distinct(s.Problems)
		for _, e := range fit(entries) {
			s.Status.Ancestors = append(s.Status.Ancestors, a.ancestor(i, e, inForce))
		}
		out = append(out, s)
	}
	return out
}

// allProblems are those of the policy itself, then those of its targets.
func (p *attached) allProblems() []Problem {
	all := slices.Clone(p.problems)
	for i, t := range p.targets {
		field := fmt.Sprintf("spec.targetRefs[%d]", i)
		switch {
		case t.foreign:
		case t.reason != "":
			all = append(all, Problem{FieldPath: field, Reason: string(t.reason), Message: t.message})
		case t.conflict != "":
			all = append(all, Problem{FieldPath: field, Reason: string(gwv1.PolicyReasonConflicted), Message: t.conflict})
		}
	}
	return all
}

// entry is what is to be told about a policy under one ancestor.
type entry struct {
	ref     gwv1.ParentReference
	gateway snapshot.Name // that the ancestor is; zero: it is none of ours
	refused *resolved     // the ancestor is itself a target that cannot be attached to
	reaches []reach
	stray   []Problem // paths of the policy that lead nowhere here
	leftOut int       // entries behind this one that do not fit
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
			all.ofGateway(t.scope.name).reach(t, a.listenersOf(t))
		default:
			route := a.routes[RouteID{t.scope.kind, t.scope.name}]
			for _, gateway := range route.Parents {
				all.ofGateway(gateway).reach(t, through(route, gateway))
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

func (all *entries) ofGateway(name snapshot.Name) *entry {
	e := all.of(reference("Gateway", name, ""))
	e.gateway = name
	return e
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
	if e.refused != nil || !reached || len(e.stray) > 0 {
		return 0
	}
	return 1
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
