package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Attached is policies at their places. It remembers effects as they are asked for, so it is for one goroutine at a time.
type Attached struct {
	kinds    []Kind
	policies []attached // by kind, then age
	gateways map[snapshot.Name]*GatewayTarget
	routes   map[RouteID]*RouteTarget
	places   map[scope][]use // in the order of policies
	effects  map[string]Effect
}

// attached is one policy, compiled.
type attached struct {
	kind     int // in Attached.kinds
	object   Object
	effect   Effect
	problems []Problem
	targets  []resolved
}

// scope is a place in the hierarchy: a Gateway, or a listener, or a route, or a rule.
type scope struct {
	kind    string
	name    snapshot.Name
	section string // "" the whole
}

// use is a policy that acts at a place. Refuses, when not empty, says why it refuses everything there instead.
type use struct {
	policy  int
	refuses string
}

// Attach compiles the policies and finds the places that they name. Objects that are of none of the kinds are passed over. The order
// of objects does not matter: between equals age decides, then namespace and name.
func Attach(kinds []Kind, objects []Object, targets Targets) *Attached {
	a := &Attached{
		kinds:    kinds,
		gateways: map[snapshot.Name]*GatewayTarget{},
		routes:   map[RouteID]*RouteTarget{},
		places:   map[scope][]use{},
		effects:  map[string]Effect{},
	}
	for i := range targets.Gateways {
		a.gateways[targets.Gateways[i].Name] = &targets.Gateways[i]
	}
	for i := range targets.Routes {
		a.routes[targets.Routes[i].ID] = &targets.Routes[i]
	}
	objects = slices.Clone(objects)
	slices.SortFunc(objects, byAge)
	for k, kind := range kinds {
		for _, o := range objects {
			if kind.is(o) {
				a.attach(k, o)
			}
		}
	}
	return a
}

func byAge(x, y Object) int {
	return cmp.Or(
		x.GetCreationTimestamp().Time.Compare(y.GetCreationTimestamp().Time),
		cmp.Compare(x.GetNamespace()+"/"+x.GetName(), y.GetNamespace()+"/"+y.GetName()),
	)
}

func (a *Attached) attach(kind int, o Object) {
	k := a.kinds[kind]
	p := attached{kind: kind, object: o}
	p.effect, p.problems = k.compile(o)
	for _, t := range k.targets(o) {
		r := a.resolve(k, o.GetNamespace(), t)
		p.targets = append(p.targets, r)
		a.place(k, p, r)
	}
	a.policies = append(a.policies, p)
}

// place enters a policy where it acts: it is valid there, or it is in error and must refuse.
func (a *Attached) place(k Kind, p attached, r resolved) {
	broken := r.reason != "" || len(p.problems) > 0
	if !r.exists || r.foreign || broken && !k.FailClosed {
		return
	}
	u := use{policy: len(a.policies)}
	if broken {
		u.refuses = fmt.Sprintf("%s %s/%s is not valid", k.Name, p.object.GetNamespace(), p.object.GetName())
	}
	a.places[r.scope] = append(a.places[r.scope], u)
}

// Rule is what applies to a rule of a route when it is reached through that listener. Equal sets of policies give the same slices.
func (a *Attached) Rule(gateway snapshot.Name, section string, route RouteID, rule int) Effect {
	scopes := append(a.listenerScopes(gateway, section), scope{route.Kind, route.Name, ""})
	if r := a.routes[route]; r != nil && rule < len(r.Rules) && r.Rules[rule] != "" {
		scopes = append(scopes, scope{route.Kind, route.Name, r.Rules[rule]})
	}
	return a.effect(scopes)
}

// Default is what applies on a listener to requests that match no rule: the policies of the Gateway and of the listener. Its Failure
// is for everything on the listener.
func (a *Attached) Default(gateway snapshot.Name, section string) Effect {
	return a.effect(a.listenerScopes(gateway, section))
}

func (a *Attached) listenerScopes(gateway snapshot.Name, section string) []scope {
	return []scope{{string(Gateway), gateway, ""}, {string(Gateway), gateway, section}}
}

// effect merges what is attached at these places, from the outermost in.
func (a *Attached) effect(scopes []scope) Effect {
	var uses []use
	var key []byte
	for _, s := range scopes {
		for _, u := range a.places[s] {
			if len(a.policies[u.policy].targets) > 1 && slices.Contains(uses, u) {
				continue // another target of the same policy led here already
			}
			uses = append(uses, u)
			key = strconv.AppendInt(key, int64(u.policy), 10)
			key = append(key, ' ')
			if u.refuses != "" {
				key = append(key, '!')
			}
		}
	}
	if e, ok := a.effects[string(key)]; ok {
		return e
	}
	e := a.merge(uses)
	a.effects[string(key)] = e
	return e
}

func (a *Attached) merge(uses []use) Effect {
	var all Effect
	for i, k := range a.kinds {
		var parts []Effect
		for _, u := range uses {
			p := a.policies[u.policy]
			switch {
			case p.kind != i:
			case u.refuses != "":
				all.fail(&snapshot.Failure{Reason: "policy_invalid", Detail: u.refuses})
			default:
				parts = append(parts, p.effect)
				all.fail(p.effect.Failure)
			}
		}
		if len(parts) > 0 {
			all.Filters = append(all.Filters, k.merge(parts).Filters...)
		}
	}
	all.Filters = slices.Clip(all.Filters) // whoever appends must not write behind another's back
	return all
}

// fail keeps the first failure: that of the outermost policy.
func (e *Effect) fail(f *snapshot.Failure) {
	if e.Failure == nil {
		e.Failure = f
	}
}
