// Package auth compiles AuthPolicies: it checks all that a user can get wrong, so that what it gives can be built, reads the Secrets that
// methods need, and makes all policies that meet on a rule into one filter.
//
// A policy in error lets nobody in (Kind is FailClosed). So nothing is guessed and nothing is passed over here: what is not understood, from
// a newer CRD or in a Secret, is a problem that names the field. What the CRD's own rules refuse is refused here too, since an older
// CRD may let it through.
//
// Limits: a host that is loopback by name or address may be reached only where endpoints may be on it (files, not a cluster); the data
// plane knows, and such an issuer is unavailable elsewhere.
package auth

import (
	"fmt"
	"slices"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/expr"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Kind is AuthPolicy.
var Kind = kind()

func kind() policy.Kind {
	k := policy.Of(
		func() *v1alpha1.AuthPolicy { return new(v1alpha1.AuthPolicy) },
		func(p *v1alpha1.AuthPolicy) []policy.Target { return p.Spec.TargetRefs },
		policy.AttachTo{policy.Gateway, policy.Listener, policy.ListenerSet, policy.HTTPRoute, policy.GRPCRoute, policy.Rule},
		merge,
		compile)
	k.FailClosed, k.Exclusive, k.Inheritance = true, true, inheritance
	return k
}

func inheritance(o policy.Object) policy.Inheritance {
	spec := o.(*v1alpha1.AuthPolicy).Spec
	return policy.Inheritance{Replace: spec.Replace, MayReplace: spec.Children == v1alpha1.ChildrenMayReplace}
}

// merge lets every policy hold.
func merge(effects []policy.Effect) policy.Effect {
	var all auth.Config
	for _, e := range effects {
		for _, f := range e.Filters {
			all.Policies = append(all.Policies, f.(auth.Config).Policies...)
		}
	}
	return policy.Effect{Filters: []snapshot.Filter{all.Settle()}}
}

// compile is one policy as a filter.
func compile(p *v1alpha1.AuthPolicy, lookup policy.Lookup) (policy.Effect, []policy.Problem) {
	c := compilation{policy: p, lookup: lookup}
	out := auth.Policy{Name: snapshot.Name{Namespace: p.Namespace, Name: p.Name}, UID: string(p.UID)}
	c.frame(&out)
	for i, m := range p.Spec.Methods {
		field := fmt.Sprintf("spec.methods[%d]", i)
		if slices.ContainsFunc(p.Spec.Methods[:i], func(other v1alpha1.AuthMethod) bool { return other.Name == m.Name }) {
			c.wrong(field+".name", "another method is named %q; who came in by which could not be told", m.Name)
		}
		out.Methods = append(out.Methods, c.method(field, m))
	}
	if p.Spec.Authorize != nil {
		out.Authorize = c.authorize("spec.authorize", *p.Spec.Authorize)
	}
	out.Forward = c.forward("spec.forward", p.Spec.Forward)
	if len(c.problems) > 0 {
		return policy.Effect{}, c.problems
	}
	return policy.Effect{Filters: []snapshot.Filter{auth.Config{Policies: []auth.Policy{out}}}, Backends: c.backends, Paths: c.paths}, nil
}

// compilation is what is known and found while a policy is compiled.
type compilation struct {
	policy   *v1alpha1.AuthPolicy
	lookup   policy.Lookup
	backends []snapshot.Backend
	paths    []policy.Path
	problems []policy.Problem
}

func (c *compilation) wrong(field, format string, args ...any) {
	c.problems = append(c.problems, policy.Problem{FieldPath: field, Message: fmt.Sprintf(format, args...)})
}

// found keeps a problem of the Lookup; false: there was one.
func (c *compilation) found(p *policy.Problem) bool {
	if p != nil {
		c.problems = append(c.problems, *p)
	}
	return p == nil
}

// expression compiles a text; the filter will find it compiled.
func (c *compilation) expression(field, text string, want expr.Kind) {
	if _, err := expr.Compile(text, want); err != nil {
		c.wrong(field, "%v", err)
	}
}

// frame reads what is neither method nor rule.
func (c *compilation) frame(out *auth.Policy) {
	spec := c.policy.Spec
	switch spec.Mode {
	case v1alpha1.AuthModeEnforce, "":
	case v1alpha1.AuthModeShadow:
		out.Shadow = true
	default:
		c.wrong("spec.mode", "this version of Gatehouse knows no mode %q; use Enforce or Shadow", spec.Mode)
	}
	switch spec.Require {
	case v1alpha1.AuthRequireAny, "":
		out.Require = auth.Any
	case v1alpha1.AuthRequireAll:
		out.Require = auth.All
	case v1alpha1.AuthRequireOptional:
		out.Require = auth.Optional
	default:
		c.wrong("spec.require", "this version of Gatehouse knows no requirement %q; use Any, All or Optional", spec.Require)
	}
	switch spec.Children {
	case v1alpha1.ChildrenMayAdd, v1alpha1.ChildrenMayReplace, "":
	default:
		c.wrong("spec.children", "this version of Gatehouse does not know %q; use MayAdd or MayReplace", spec.Children)
	}
	switch {
	case len(spec.Methods) == 0 && spec.Authorize == nil:
		c.wrong("spec", "a policy needs methods or authorize, or both")
	case len(spec.Methods) == 0 && out.Require != auth.Any && out.Require != "":
		c.wrong("spec.require", "%s needs methods", spec.Require)
	}
}
