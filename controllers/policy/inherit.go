package policy

import (
	"cmp"
	"slices"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// standing is a policy at one of the places that lead to a rule.
type standing struct {
	use
	level int
	// replacedBy is one further down that takes its place; nil: it acts.
	replacedBy *use
	// keeps are those further up that it would replace, and that stay.
	keeps []use
}

// standing finds all that stands at these places, from the outermost in, and who replaces whom. Only a policy that is valid replaces and is
// replaced: of one that is not, nobody knows what it says.
func (a *Attached) standing(scopes []scope) []standing {
	var all []standing
	for level, s := range scopes {
		for _, u := range a.places[s] {
			all = append(all, standing{use: u, level: level})
		}
	}
	if !a.replaces {
		return all
	}
	for i := range all {
		child := &all[i]
		if child.refuses != "" || !a.policies[child.policy].inherits.Replace {
			continue
		}
		for j := range all[:i] {
			parent := &all[j]
			switch {
			case parent.level == child.level || parent.policy == child.policy || a.policies[parent.policy].kind != a.policies[child.policy].kind:
			case parent.refuses == "" && a.policies[parent.policy].inherits.MayReplace:
				parent.replacedBy = &child.use
			default:
				child.keeps = append(child.keeps, parent.use)
			}
		}
	}
	return all
}

// under is a policy below a Gateway.
type under struct {
	policy  int
	gateway snapshot.Name
}

// relations are how a policy stands to others below a Gateway.
type relations struct {
	reaches  int   // in how many places it stands: the rules by listener, and what matches none
	replaced int   // in how many of them another has taken its place
	by       []use // who did
	keeps    []use // whom it would replace and does not
}

// relationsOf looks at all that is reached through the Gateway.
func (a *Attached) relationsOf(policy int, gateway snapshot.Name) relations {
	if a.family == nil {
		a.family = map[under]*relations{}
		if a.replaces {
			a.relate()
		}
		for _, r := range a.family {
			slices.SortFunc(r.by, byPolicy)
			slices.SortFunc(r.keeps, byPolicy)
		}
	}
	if r := a.family[under{policy, gateway}]; r != nil {
		return *r
	}
	return relations{}
}

// relate counts how policies stand to each other, in all places that are reached.

func (a *Attached) relate() {
	for _, g := range a.gateways {
		for _, section := range g.Listeners {
			a.relateAt(g.Name, a.listenerScopes(g.Name, section))
		}
	}
	for _, r := range a.routes {
		for _, key := range r.Attached {
			for rule := range r.Rules {
				a.relateAt(key.Gateway, a.ruleScopes(key.Gateway, key.Section, r.ID, rule))
			}
		}
	}
}

func (a *Attached) relateAt(gateway snapshot.Name, scopes []scope) {
	all := a.standing(scopes)
	for i, s := range all {
		r := a.family[under{s.policy, gateway}]
		if r == nil {
			r = &relations{}
			a.family[under{s.policy, gateway}] = r
		}
		r.keep(s.keeps)
		if slices.ContainsFunc(all[:i], func(earlier standing) bool { return earlier.policy == s.policy }) {
			continue // counted
		}
		r.reaches++
		acts := slices.ContainsFunc(all[i:], func(same standing) bool { return same.policy == s.policy && same.replacedBy == nil })
		if acts {
			continue
		}
		r.replaced++
		if !slices.Contains(r.by, *s.replacedBy) {
			r.by = append(r.by, *s.replacedBy)
		}
	}
}

func byPolicy(x, y use) int {
	return cmp.Or(cmp.Compare(x.policy, y.policy), cmp.Compare(x.target, y.target))
}

func (r *relations) keep(uses []use) {
	for _, u := range uses {
		if !slices.Contains(r.keeps, u) {
			r.keeps = append(r.keeps, u)
		}
	}
}
