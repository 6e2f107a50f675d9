// Package policy attaches policies: custom resources that act on a Gateway, a listener, a route or one rule of it (GEP-713). Targets,
// inheritance, what an error does and what the status says are one piece of code here, the same for all kinds; a kind says only what
// it may be attached to, what it compiles to, and how several that meet on one rule become one (Of).
//
// Inheritance: a policy of a Gateway acts on everything that is reached through it, one of a listener on what is reached through
// that listener, one of a route on all its rules, one of a rule on that rule. All that apply are handed to the kind's merge, outermost
// first. A child drops its parent only if it says so and the parent lets it (Kind.Inheritance); the statuses of both tell. A policy acts
// once on a rule, however many of its targets lead there.
//
// What a policy refers to comes from a Lookup. While an answer is pending the policy does what it did last (LastGood); one of which
// nothing is known yet does nothing, or refuses.
//
// A policy in error is not applied, or, for kinds that decide about access (FailClosed), refuses what it is attached to, and nothing
// else. A target or section that does not exist cannot be closed: the status says so, and nothing is refused.
//
// Limits: a target stands in the policy's own namespace; ListenerSets are refused by status. The condition `…Affected` on targets,
// which GEP-713 recommends, is not written.
package policy

import (
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Object is a typed policy, such as *v1alpha1.RateLimitPolicy.
type Object interface {
	metav1.Object
	runtime.Object
}

// Target is what a policy names: group, kind, name, and for a part of it a sectionName (a listener's or a rule's name).
type Target = gwv1.LocalPolicyTargetReferenceWithSectionName

// Effect is what policies do to a rule, or to what matches no rule. It is shared: nobody changes its slices.
type Effect struct {
	Filters []snapshot.Filter
	// Backends are those that the filters call. Compile gives those that are not a Service (Outside); what it got from Lookup is added
	// for it, of which the Ref alone is set.
	Backends []snapshot.Backend
	// Paths are those that the filters answer themselves, as compile gives them. The status tells which of them no request gets to.
	Paths []Path
	// Fingerprint is one of all that is done here, and Security of that part which decides about access; "" nothing. Attached makes them.
	Fingerprint, Security string
	// Failure, when set, is the answer instead of forwarding: a policy that decides about access is in error.
	Failure *snapshot.Failure
}

// Problem is what is wrong in a policy, in words for its author.
type Problem struct {
	FieldPath string // "spec.limits[0].when"
	Reason    string // of the condition Accepted; "" means Invalid
	Message   string // what to change; a column is part of it where the field is an expression
	// Pending: it is no mistake; what the policy refers to is not known yet.
	Pending bool
	// Reference: it is about what the policy refers to, so the condition ResolvedRefs tells it too.
	Reference bool
	// Lessened: the policy is accepted and acts, but less than it says, for want of something that is not its author's. Programmed tells.
	Lessened bool
}

func (p Problem) String() string {
	if p.FieldPath == "" {
		return p.Message
	}
	return p.FieldPath + ": " + p.Message
}

// Place is a kind of thing that a policy may be attached to.
type Place string

// The places. Rule is a named rule of those kinds of routes which the kind attaches to.
const (
	Gateway     Place = "Gateway"
	Listener    Place = "listener"
	ListenerSet Place = "ListenerSet"
	HTTPRoute   Place = "HTTPRoute"
	GRPCRoute   Place = "GRPCRoute"
	Rule        Place = "rule"
)

// AttachTo is where policies of a kind may be attached.
type AttachTo []Place

// Kind is a kind of policy, made by Of.
type Kind struct {
	// Name is the Kubernetes kind, "RateLimitPolicy".
	Name string
	// New makes an empty object of the kind, to be read into.
	New func() Object
	// FailClosed: a policy of this kind that is in error refuses what it is attached to. For kinds that decide about access.
	FailClosed bool
	// Exclusive: a target has at most one policy of this kind; the oldest has it, and others are Conflicted there.
	Exclusive bool
	// Inheritance says how a policy stands to those above and below it. Nil: they add up, and none replaces another.
	Inheritance func(Object) Inheritance

	attachTo AttachTo
	is       func(Object) bool
	targets  func(Object) []Target
	compile  func(Object, Lookup) (Effect, []Problem)
	merge    func([]Effect) Effect
}

// Inheritance is how a policy stands to those of its kind above and below it in the hierarchy.
type Inheritance struct {
	Replace    bool // it takes the place of those above it that let themselves be replaced; else it adds to them
	MayReplace bool // policies below it may take its place
}

// Of makes a kind of a Kubernetes type T, which is named as its kind. Compile turns one policy into an effect, or says what is wrong
// with it: it checks all that a user can get wrong, so that the data plane can build what it gets. Merge turns the effects that meet on
// a rule, outermost first and on one level oldest first, into one; it is called with at least one, and its Filters alone count.
// Neither changes its arguments; both are functions of them, and of what Lookup answers, alone.
func Of[T Object](fresh func() T, targets func(T) []Target, attachTo AttachTo, merge func([]Effect) Effect,
	compile func(T, Lookup) (Effect, []Problem)) Kind {
	return Kind{
		Name:     reflect.TypeFor[T]().Elem().Name(),
		New:      func() Object { return fresh() },
		attachTo: attachTo,
		is:       func(o Object) bool { _, ok := o.(T); return ok },
		targets:  func(o Object) []Target { return targets(o.(T)) },
		compile:  func(o Object, l Lookup) (Effect, []Problem) { return compile(o.(T), l) },
		merge:    merge,
	}
}
