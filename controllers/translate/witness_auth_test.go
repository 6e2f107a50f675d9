package translate_test

import (
	"slices"
	"testing"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// place is where a rule is met, or, without a kind, where what matches no rule is.
type place struct {
	listener snapshot.ListenerKey
	rule     snapshot.RuleKey
}

// level is how far down one of the policy's targets reaches the place; 0: none does.
func (p place) level(o *v1alpha1.AuthPolicy) (deepest int) {
	for _, t := range o.Spec.TargetRefs {
		name := snapshot.Name{Namespace: o.Namespace, Name: string(t.Name)}
		section := ""
		if t.SectionName != nil {
			section = string(*t.SectionName)
		}
		level := 0
		switch {
		case t.Kind == "Gateway" && name == p.listener.Gateway && section == "":
			level = 1
		case t.Kind == "Gateway" && name == p.listener.Gateway && section == p.listener.Section:
			level = 2
		case string(t.Kind) == p.rule.Kind && name == p.rule.Route && section == "":
			level = 3
		case string(t.Kind) == p.rule.Kind && name == p.rule.Route && section == p.rule.Name:
			level = 4
		}
		deepest = max(deepest, level)
	}
	return deepest
}

// checkAccess demands that whoever comes to a place meets each policy that reaches it, or is refused, but for policies that say that they may be
// replaced and have one that replaces further down, and for those whose target an older one has.
func (w witness) checkAccess(t *testing.T, p place, filters []snapshot.Filter, failure *snapshot.Failure, used map[snapshot.BackendRef]bool) {
	t.Helper()
	in := map[snapshot.Name]bool{}
	for _, f := range filters {
		config, ok := f.(auth.Config)
		for _, one := range config.Policies {
			if in[one.Name] {
				t.Errorf("%v: policy %s acts twice", p, one.Name)
			}
			in[one.Name] = true
			w.checkPolicy(t, one, used)
		}
		if ok && len(in) != len(config.Policies) {
			t.Errorf("%v has several filters for access", p)
		}
	}
	if failure != nil && (failure.Reason == "policy_invalid" || p.rule.Kind == "") {
		return
	}
	var reach []*v1alpha1.AuthPolicy
	for _, o := range w.Policies {
		if a, ok := o.(*v1alpha1.AuthPolicy); ok && p.level(a) > 0 {
			reach = append(reach, a)
		}
	}
	for _, o := range reach {
		name := snapshot.Name{Namespace: o.Namespace, Name: o.Name}
		excused := slices.ContainsFunc(reach, func(other *v1alpha1.AuthPolicy) bool {
			replaced := o.Spec.Children == v1alpha1.ChildrenMayReplace && other.Spec.Replace && p.level(other) > 1
			return other != o && (replaced || sharesTarget(o, other) && !other.CreationTimestamp.After(o.CreationTimestamp.Time))
		})
		if !in[name] && !excused {
			t.Errorf("%v is served without %s", p, name)
		}
	}
	for name := range in {
		if !slices.ContainsFunc(reach, func(o *v1alpha1.AuthPolicy) bool { return o.Namespace == name.Namespace && o.Name == name.Name }) {
			t.Errorf("%v meets %s, which does not reach it", p, name)
		}
	}
}

func sharesTarget(a, b *v1alpha1.AuthPolicy) bool {
	for _, x := range a.Spec.TargetRefs {
		for _, y := range b.Spec.TargetRefs {
			if a.Namespace == b.Namespace && x.Kind == y.Kind && x.Name == y.Name && (x.SectionName == nil) == (y.SectionName == nil) &&
				(x.SectionName == nil || *x.SectionName == *y.SectionName) {
				return true
			}
		}
	}
	return false
}

// checkPolicy demands a grant for all that a policy has from other namespaces.
func (w witness) checkPolicy(t *testing.T, p auth.Policy, used map[snapshot.BackendRef]bool) {
	t.Helper()
	granted := func(kind gwv1.Kind, target snapshot.Name) bool {
		return target.Namespace == p.Name.Namespace || slices.ContainsFunc(w.ReferenceGrants, func(g *gwv1.ReferenceGrant) bool {
			from, to := g.Spec.From[0], g.Spec.To[0]
			return g.Namespace == target.Namespace && from.Group == v1alpha1.GroupName && from.Kind == "AuthPolicy" && string(from.Namespace) == p.Name.Namespace &&
				to.Kind == kind && (to.Name == nil || string(*to.Name) == target.Name)
		})
	}
	for _, m := range p.Methods {
		if m.APIKey != nil {
			for _, k := range m.APIKey.Keys {
				if !granted("Secret", k.Value.Name) {
					t.Errorf("%s uses %s without a grant", p.Name, k.Value)
				}
			}
		}
		if m.External != nil {
			used[m.External.Backend] = true
			if !granted("Service", m.External.Backend.Service) {
				t.Errorf("%s asks %s without a grant", p.Name, m.External.Backend)
			}
		}
	}
}
