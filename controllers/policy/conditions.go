package policy

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// ancestor is what is told about a policy under one ancestor.
func (a *Attached) ancestor(policy int, e entry, inForce InForce) gwv1.PolicyAncestorStatus {
	p := &a.policies[policy]
	var r relations
	if e.gateway != (snapshot.Name{}) {
		r = a.relationsOf(policy, e.gateway)
	}
	all := a.conditions(p, e, r, inForce)
	if e.leftOut > 0 {
		all[0].Message += fmt.Sprintf(" (there is no room here for %d more Gateways, where it is in force all the same)", e.leftOut)
	}
	for i := range all {
		all[i].ObservedGeneration = p.object.GetGeneration()
	}
	return gwv1.PolicyAncestorStatus{AncestorRef: e.ref, ControllerName: v1alpha1.ControllerName, Conditions: all}
}

// conditions are Accepted and Programmed, and where they make sense ResolvedRefs and Overridden.
func (a *Attached) conditions(p *attached, e entry, r relations, inForce InForce) []metav1.Condition {
	if e.refused != nil {
		reason := string(e.refused.reason)
		return []metav1.Condition{accepted(no(reason, e.refused.message)), programmed(no(reason, a.inError(p, e.refused.exists)))}
	}
	var all []metav1.Condition
	placed, conflicts := e.targets()
	switch {
	case placed == nil:
		reason := string(gwv1.PolicyReasonConflicted)
		all = append(all, accepted(no(reason, strings.Join(append(conflicts, texts(p.problems)...), "; "))), programmed(no(reason, "the policy does nothing here")))
	case p.broken():
		reason := p.problems[0].Reason
		if reason == "" {
			reason = string(gwv1.PolicyReasonInvalid)
		}
		all = append(all, accepted(no(reason, told(texts(p.problems)))), programmed(no(reason, a.inError(p, true))))
	default:
		text := strings.Join(slices.Concat([]string{"attached to " + strings.Join(placed, "; ")}, conflicts, a.kept(r)), "; ")
		inData := e.programmed(a.overrides(r), r.everywhere(), inForce)
		if less := p.lessened(); len(less) > 0 && inData.Status == metav1.ConditionTrue {
			inData = no(less[0].Reason, told(texts(less)))
		}
		all = append(all, accepted(yes(string(gwv1.PolicyReasonAccepted), text)), programmed(inData))
	}
	if resolved, refers := p.resolvedRefs(); refers {
		all = append(all, resolved)
	}
	if overridden := a.overridden(r); overridden.Type != "" {
		all = append(all, overridden)
	}
	return all
}

func accepted(c metav1.Condition) metav1.Condition {
	c.Type = string(gwv1.PolicyConditionAccepted)
	return c
}

func programmed(c metav1.Condition) metav1.Condition {
	c.Type = v1alpha1.PolicyConditionProgrammed
	return c
}

// targets are those of an entry in words: where the policy stands, and why it does not stand elsewhere.
func (e entry) targets() (placed, conflicts []string) {
	for _, r := range e.reaches {
		if r.target.conflict != "" {
			conflicts = append(conflicts, r.target.conflict)
		} else {
			placed = append(placed, r.target.String())
		}
	}
	return placed, conflicts
}

// inError says what an error of the policy means for requests.
func (a *Attached) inError(p *attached, exists bool) string {
	if a.kinds[p.kind].FailClosed && exists {
		return "requests are refused here with 500 until the policy is mended"
	}
	return "the policy does nothing here until it is mended"
}

// resolvedRefs says whether all is there that the policy refers to, if it refers to anything.
func (p *attached) resolvedRefs() (c metav1.Condition, refers bool) {
	var wrong []Problem
	for _, problem := range p.problems {
		if problem.Reference {
			wrong = append(wrong, problem)
		}
	}
	switch {
	case len(wrong) > 0:
		c = no(wrong[0].Reason, told(texts(wrong)))
	case len(p.questions) == 0 || p.unknown:
		return c, false
	default:
		c = yes(v1alpha1.PolicyReasonResolvedRefs, "")
	}
	c.Type = v1alpha1.PolicyConditionResolvedRefs
	return c, true
}

// programmed says whether the policy is in force wherever it is reached under this ancestor. Overridden says who has taken its place,
// and everywhere whether that is in all of it.
func (e entry) programmed(overridden string, everywhere bool, inForce InForce) metav1.Condition {
	var missing, waiting, lost []string
	serving := 0
	for _, r := range e.reaches {
		if r.target.conflict != "" {
			lost = append(lost, "not in force on "+r.target.String())
			continue
		}
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
	if overridden != "" {
		lost = append(lost, overridden)
	}
	var stray []string
	for _, problem := range e.stray {
		stray = append(stray, problem.Message)
	}
	lost = append(lost, few(stray)...)
	all := strings.Join(distinct(slices.Concat(missing, waiting, lost)), "; ")
	switch {
	case all == "":
		return yes(v1alpha1.PolicyReasonProgrammed, "in force")
	case everywhere:
		return no(v1alpha1.PolicyReasonOverridden, all)
	case serving > 0:
		return yes(v1alpha1.PolicyReasonPartiallyProgrammed, all)
	case len(waiting) == 0:
		return no(v1alpha1.PolicyReasonTargetNotAttached, all)
	}
	return no(v1alpha1.PolicyReasonPending, all)
}

// everywhere reports whether others have taken the policy's place wherever it stands.
func (r relations) everywhere() bool { return r.replaced > 0 && r.replaced == r.reaches }

// overrides says who has taken the policy's place, and where; "" nobody has.
func (a *Attached) overrides(r relations) string {
	var names []string
	for _, u := range r.by {
		names = append(names, a.named(u))
	}
	if len(names) == 0 {
		return ""
	}
	return "replaced by " + strings.Join(few(names), ", ")
}

// kept says whom the policy would replace, and that they stay.
func (a *Attached) kept(r relations) (texts []string) {
	for _, u := range r.keeps {
		why := "which does not let itself be replaced"
		if u.refuses != "" {
			why = "which is not valid or not known yet"
		}
		texts = append(texts, fmt.Sprintf("it adds to %s, %s", a.named(u), why))
	}
	return few(texts)
}

// named is a policy and where it stands: "AuthPolicy shop/strict (HTTPRoute shop/api, rule admin)".
func (a *Attached) named(u use) string {
	p := &a.policies[u.policy]
	return fmt.Sprintf("%s %s (%s)", a.kinds[p.kind].Name, p.name(), &p.targets[u.target])
}

// overridden is the condition of a policy whose place others have taken; without a type: there are none.
func (a *Attached) overridden(r relations) (c metav1.Condition) {
	if r.replaced == 0 {
		return c
	}
	reason := v1alpha1.PolicyReasonPartiallyOverridden
	if r.everywhere() {
		reason = v1alpha1.PolicyReasonOverridden
	}
	c = yes(reason, a.overrides(r))
	c.Type = v1alpha1.PolicyConditionOverridden
	return c
}

func texts(problems []Problem) (all []string) {
	for _, p := range problems {
		all = append(all, p.String())
	}
	return all
}

// told joins texts, and counts what would be too much.
func told(texts []string) string { return strings.Join(few(texts), "; ") }

func few(texts []string) []string {
	if more := len(texts) - maxTold; more > 0 {
		return append(slices.Clone(texts[:maxTold]), fmt.Sprintf("and %d more", more))
	}
	return texts
}

// distinct keeps the first of equals, in order.
func distinct[T comparable](all []T) []T {
	var out []T
	for _, t := range all {
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
