// Package status makes out of what is stored in an object's status, and of what Build says, the status that is to be written, and on the
// leader writes it. Merge decides what; it asks nobody and knows no clock. Writer does the rest.
//
// A status has several authors. Other controllers have entries beside ours, and other tools have conditions within ours; all of that
// stays as it is and where it is. What is ours is what carries our controllerName, the conditions that Build writes, and all else in the
// status of a GatewayClass or Gateway of ours. Ours that Build no longer speaks of goes.
//
// A status that would say the same again is not to be written: each write wakes all who watch. So what the API server fills in by itself
// is filled in here too, and a time moves only with the status of its condition.
//
// Values are of the types of the Gateway API that we are built with. A field that a newer one adds to another controller's entry is not in
// them, nor are fractions of seconds. Neither is lost: a write is a JSON Patch that names only what changes, for one version of the object.
//
// Limits: a status that was not written stays until its object is told about again, or seen. What others do with an object of which
// nothing is told any more is not repaired.
package status

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

const controllerName = gwv1.GatewayController(v1alpha1.ControllerName)

// What a status can hold, by the CRDs. One thing too many, and the API server refuses the whole.
const (
	maxConditions = 8
	maxListeners  = 64
	maxAddresses  = 16
	maxParents    = 32
	maxAncestors  = 16
	maxMessage    = 32768 // characters; we count bytes, which are as many or more
)

// Value is what can stand in translate.Status.Value.
type Value interface {
	gwv1.GatewayClassStatus | gwv1.GatewayStatus | gwv1.RouteStatus | gwv1.PolicyStatus
}

// Merged is what is to become of a status.
type Merged[V Value] struct {
	// Status shares parts with what was stored and with what was wanted; none of it may be changed. It is what was stored if there is
	// nothing to write.
	Status  V
	Changed bool // Status is to be written
	// Newer: what is stored speaks of a newer generation of the object than ours. Nothing is written; an answer to it will come, or
	// another of us has given it already.
	Newer bool
	// LeftOut names what of ours is not in Status, since others left no room: "ancestor Gateway infra/gw", "condition Conflicted of
	// listener http". It is the same whether Changed or not.
	LeftOut []string
}

// Merge brings what Build wants to say of a generation of an object together with what is stored. Times of conditions in wanted don't
// count, nor do their generations: a status is of one. Where there is no room for all of ours, what comes first in wanted goes in.
func Merge[V Value](stored, wanted V, generation int64, now time.Time) Merged[V] {
	newer := func(c metav1.Condition) bool { return c.ObservedGeneration > generation }
	if slices.ContainsFunc(ownConditions(stored), newer) {
		return Merged[V]{Status: stored, Newer: true}
	}
	m := merger{generation: generation, now: metav1.NewTime(now).Rfc3339Copy()}
	merged := m.merge(stored, wanted).(V)
	if equality.Semantic.DeepEqual(stored, merged) {
		return Merged[V]{Status: stored, LeftOut: m.leftOut}
	}
	return Merged[V]{Status: merged, Changed: true, LeftOut: m.leftOut}
}

// merger is one merge under way.
type merger struct {
	generation int64
	now        metav1.Time // to the second, as it is stored
	leftOut    []string
}

func (m *merger) merge(stored, wanted any) any {
	switch wanted := wanted.(type) {
	case gwv1.GatewayClassStatus:
		return m.class(stored.(gwv1.GatewayClassStatus), wanted)
	case gwv1.GatewayStatus:
		return m.gateway(stored.(gwv1.GatewayStatus), wanted)
	case gwv1.RouteStatus:
		return m.route(stored.(gwv1.RouteStatus), wanted)
	case gwv1.PolicyStatus:
		return m.policy(stored.(gwv1.PolicyStatus), wanted)
	}
	panic("status: a Value that is not merged") // Value has a type that has no case here
}

func (m *merger) class(stored, wanted gwv1.GatewayClassStatus) gwv1.GatewayClassStatus {
	wanted.Conditions = m.conditions("", stored.Conditions, wanted.Conditions)
	return wanted
}

func (m *merger) gateway(stored, wanted gwv1.GatewayStatus) gwv1.GatewayStatus {
	listeners := list[gwv1.SectionName, gwv1.ListenerStatus]{
		limit: maxListeners,
		key:   func(l gwv1.ListenerStatus) gwv1.SectionName { return l.Name },
		ours:  func(gwv1.ListenerStatus) bool { return true },
		join:  m.listener,
		left:  func(l gwv1.ListenerStatus) { m.leave("listener " + string(l.Name)) },
	}
	wanted.Addresses = m.addresses(wanted.Addresses)
	wanted.Conditions = m.conditions("", stored.Conditions, wanted.Conditions)
	wanted.Listeners = listeners.merge(stored.Listeners, wanted.Listeners)
	return wanted
}

func (m *merger) addresses(wanted []gwv1.GatewayStatusAddress) []gwv1.GatewayStatusAddress {
	var all []gwv1.GatewayStatusAddress
	for _, a := range wanted {
		if len(all) == maxAddresses {
			m.leave("address " + a.Value)
			continue
		}
		a.Type = or(a.Type, gwv1.IPAddressType)
		all = append(all, a)
	}
	return all
}

func (m *merger) listener(stored, wanted gwv1.ListenerStatus) gwv1.ListenerStatus {
	wanted.SupportedKinds = slices.Clone(wanted.SupportedKinds)
	for i, kind := range wanted.SupportedKinds {
		wanted.SupportedKinds[i].Group = or(kind.Group, gwv1.GroupName)
	}
	wanted.Conditions = m.conditions(" of listener "+string(wanted.Name), stored.Conditions, wanted.Conditions)
	return wanted
}

func (m *merger) route(stored, wanted gwv1.RouteStatus) gwv1.RouteStatus {
	parents := list[string, gwv1.RouteParentStatus]{
		limit: maxParents,
		key:   func(p gwv1.RouteParentStatus) string { return refText(p.ParentRef) },
		ours:  func(p gwv1.RouteParentStatus) bool { return p.ControllerName == controllerName },
		join:  m.parent,
		left:  func(p gwv1.RouteParentStatus) { m.leave("parent " + refText(p.ParentRef)) },
	}
	return gwv1.RouteStatus{Parents: parents.merge(stored.Parents, wanted.Parents)}
}

func (m *merger) parent(stored, wanted gwv1.RouteParentStatus) gwv1.RouteParentStatus {
	return gwv1.RouteParentStatus{
		ParentRef:      filled(wanted.ParentRef),
		ControllerName: controllerName,
		Conditions:     m.conditions(" of parent "+refText(wanted.ParentRef), stored.Conditions, wanted.Conditions),
	}
}

func (m *merger) policy(stored, wanted gwv1.PolicyStatus) gwv1.PolicyStatus {
	ancestors := list[string, gwv1.PolicyAncestorStatus]{
		limit: maxAncestors,
		key:   func(a gwv1.PolicyAncestorStatus) string { return refText(a.AncestorRef) },
		ours:  func(a gwv1.PolicyAncestorStatus) bool { return a.ControllerName == controllerName },
		join:  m.ancestor,
		left:  func(a gwv1.PolicyAncestorStatus) { m.leave("ancestor " + refText(a.AncestorRef)) },
	}
	return gwv1.PolicyStatus{Ancestors: ancestors.merge(stored.Ancestors, wanted.Ancestors)}
}

func (m *merger) ancestor(stored, wanted gwv1.PolicyAncestorStatus) gwv1.PolicyAncestorStatus {
	return gwv1.PolicyAncestorStatus{
		AncestorRef:    filled(wanted.AncestorRef),
		ControllerName: controllerName,
		Conditions:     m.conditions(" of ancestor "+refText(wanted.AncestorRef), stored.Conditions, wanted.Conditions),
	}
}

// conditions merges those of an object, or of one entry: " of listener http".
func (m *merger) conditions(of string, stored, wanted []metav1.Condition) []metav1.Condition {
	conditions := list[string, metav1.Condition]{
		limit: maxConditions,
		key:   func(c metav1.Condition) string { return c.Type },
		ours: func(c metav1.Condition) bool {
			return own(c) || slices.ContainsFunc(wanted, func(w metav1.Condition) bool { return w.Type == c.Type })
		},
		join: m.condition,
		left: func(c metav1.Condition) { m.leave("condition " + c.Type + of) },
	}
	return conditions.merge(stored, wanted)
}

// condition takes its time from the one that is stored if that has the same status. The CRDs' defaults (Unknown since 1970) tell no time.
func (m *merger) condition(stored, wanted metav1.Condition) metav1.Condition {
	wanted.ObservedGeneration = m.generation
	wanted.Message = storable(wanted.Message)
	wanted.LastTransitionTime = m.now
	if stored.Status == wanted.Status && stored.LastTransitionTime.Unix() > 0 {
		wanted.LastTransitionTime = stored.LastTransitionTime
	}
	return wanted
}

func (m *merger) leave(what string) { m.leftOut = append(m.leftOut, what) }

// own reports whether a condition in an entry of ours is one of those that Build writes.
func own(c metav1.Condition) bool { return slices.Contains(translate.Conditions, c.Type) }

// ownConditions are all of ours that stand in a status. What others observed says nothing about what we may write: one who counts wrong
// would silence us.
func ownConditions(stored any) []metav1.Condition {
	var all []metav1.Condition
	switch stored := stored.(type) {
	case gwv1.GatewayClassStatus:
		all = slices.Clone(stored.Conditions)
	case gwv1.GatewayStatus:
		all = slices.Clone(stored.Conditions)
		for _, l := range stored.Listeners {
			all = append(all, l.Conditions...)
		}
	case gwv1.RouteStatus:
		for _, p := range stored.Parents {
			if p.ControllerName == controllerName {
				all = append(all, p.Conditions...)
			}
		}
	case gwv1.PolicyStatus:
		for _, a := range stored.Ancestors {
			if a.ControllerName == controllerName {
				all = append(all, a.Conditions...)
			}
		}
	}
	return slices.DeleteFunc(all, func(c metav1.Condition) bool { return !own(c) })
}

// storable is a message as the API server takes and stores it: the error of another system may be of any length and of any bytes.
func storable(message string) string {
	message = strings.ToValidUTF8(message, "\uFFFD")
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-len("…")], "") + "…"
}
