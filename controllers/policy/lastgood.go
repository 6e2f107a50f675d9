package policy

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// LastGood is what policies did when all answers were there. It is for what is pending only, not for what is wrong: a restart must not
// become the outage.
type LastGood struct {
	policies map[identity]compiled
}

// identity of a policy: one that was deleted and made anew has no past.
type identity struct {
	kind string
	name snapshot.Name
	uid  types.UID
}

func identityOf(k Kind, o Object) identity {
	return identity{k.Name, snapshot.Name{Namespace: o.GetNamespace(), Name: o.GetName()}, o.GetUID()}
}

// compiled is what came of compiling a policy.
type compiled struct {
	effect    Effect
	problems  []Problem
	inherits  Inheritance
	questions []question // what it refers to
	// unknown: an answer is missing, and so is what the policy does.
	unknown bool
}

func (c compiled) broken() bool {
	return slices.ContainsFunc(c.problems, func(p Problem) bool { return !p.Lessened })
}

// lessened are the problems with which it acts all the same.
func (c compiled) lessened() (all []Problem) {
	for _, p := range c.problems {
		if p.Lessened {
			all = append(all, p)
		}
	}
	return all
}

// compileWith compiles a policy. A Lookup of nil looks at nothing.
func (k Kind) compileWith(o Object, l Lookup) compiled {
	var c compiled
	asked := &asking{lookup: l}
	effect, problems := k.compile(o, asked)
	for _, p := range problems {
		if p.Pending {
			asked.pending = true
		} else {
			c.problems = append(c.problems, p)
		}
	}
	c.effect, c.questions, c.unknown = effect, asked.questions, asked.pending
	c.effect.Backends = slices.Concat(effect.Backends, asked.backends)
	if k.Inheritance != nil {
		c.inherits = k.Inheritance(o)
	}
	return c
}

// settle decides what a policy does now, and remembers it in next. While an answer is missing that is what it did last, unless something
// is wrong for certain by now: with the policy, or with what it referred to then. Replacing, too, acts only if it did then and still does.
func (last *LastGood) settle(next *LastGood, id identity, now compiled, l Lookup) (c compiled, waits bool) {
	if !now.unknown {
		next.policies[id] = now
		return now, false
	}
	before, known := compiled{}, false
	if last != nil {
		before, known = last.policies[id]
	}
	if known {
		next.policies[id] = before
	}
	switch {
	case now.broken():
		return now, false
	case l == nil:
		return now, false
	case !known || slices.ContainsFunc(before.questions, func(q question) bool { p := q(l); return p != nil && !p.Pending }):
		return now, true
	}
	before.inherits.Replace = before.inherits.Replace && now.inherits.Replace
	before.inherits.MayReplace = before.inherits.MayReplace && now.inherits.MayReplace
	return before, true
}
