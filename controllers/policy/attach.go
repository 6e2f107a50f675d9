package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Input is what Attach is given.
type Input struct {
	Kinds   []Kind
	Objects []Object // those of no kind in Kinds are passed over; the order does not matter
	Targets Targets
	// Lookup makes what answers a policy's questions. Nil: no kind of these asks any.
	Lookup func(Kind, Object) Lookup
	// LastGood is what serves while an answer is pending: that of the Attached before. Nil: nothing.
	LastGood *LastGood
}

// Attached is policies at their places. It remembers effects as they are asked for, so it is for one goroutine at a time.
type Attached struct {
	kinds    []Kind
	policies []attached // by kind, then age
	gateways map[snapshot.Name]*GatewayTarget
	routes   map[RouteID]*RouteTarget
	places   map[scope][]use // in the order of policies
	holders  map[holding]int // the policy that has a place to itself
	replaces bool            // some policy would take the place of others
	effects  map[string]Effect
	good     *LastGood
	family   map[under]*relations // made when statuses are asked for
}

// attached is one policy, compiled.
type attached struct {
	kind   int // in Attached.kinds
	object Object
	compiled
	// waits: an answer is missing, so it does what it did last, and nothing is said about it.
	waits   bool
	targets []resolved
}

func (p *attached) name() snapshot.Name {
	return snapshot.Name{Namespace: p.object.GetNamespace(), Name: p.object.GetName()}
}

// scope is a place in the hierarchy: a Gateway, or a listener, or a route, or a rule.
type scope struct {
	kind    string
	name    snapshot.Name
	section string // "" the whole
}

// holding is a place as policies of one kind share it.
type holding struct {
	kind int
	scope
}

// use is a policy that acts at a place. Refuses, when not empty, says why it refuses everything there instead.
type use struct {
	policy  int
	target  int // of the policy's
	refuses string
}

// Attach compiles the policies and finds the places that they name. Between equals age decides, then namespace and name.
func Attach(in Input) *Attached {
	a := &Attached{
		kinds:    in.Kinds,
		gateways: map[snapshot.Name]*GatewayTarget{},
		routes:   map[RouteID]*RouteTarget{},
		places:   map[scope][]use{},
		holders:  map[holding]int{},
		effects:  map[string]Effect{},
		good:     &LastGood{policies: map[identity]compiled{}},
	}
	for i := range in.Targets.Gateways {
		a.gateways[in.Targets.Gateways[i].Name] = &in.Targets.Gateways[i]
	}
	for i := range in.Targets.Routes {
		a.routes[in.Targets.Routes[i].ID] = &in.Targets.Routes[i]
	}
	objects := slices.Clone(in.Objects)
	slices.SortFunc(objects, byAge)
	for k, kind := range in.Kinds {
		for _, o := range objects {
			if kind.is(o) {
				a.attach(in, k, o)
			}
		}
	}
	return a
}

// LastGood is for the next Attach.
func (a *Attached) LastGood() *LastGood { return a.good }

func byAge(x, y Object) int {
	return cmp.Or(
		x.GetCreationTimestamp().Time.Compare(y.GetCreationTimestamp().Time),
		cmp.Compare(x.GetNamespace()+"/"+x.GetName(), y.GetNamespace()+"/"+y.GetName()),
	)
}

func (a *Attached) attach(in Input, kind int, o Object) {
	k := a.kinds[kind]
	p := attached{kind: kind, object: o}
	for _, t := range k.targets(o) {
		p.targets = append(p.targets, a.resolve(k, o.GetNamespace(), t))
	}
	var l Lookup
	if in.Lookup != nil && slices.ContainsFunc(p.targets, a.concerns) {
		l = in.Lookup(k, o)
	}
	p.compiled, p.waits = in.LastGood.settle(a.good, identityOf(k, o), k.compileWith(o, l), l)
	a.replaces = a.replaces || p.inherits.Replace
	for i := range p.targets {
		a.place(k, &p, i)
	}
	a.policies = append(a.policies, p)
}

// concerns reports whether a target is one of ours, or leads to one. For a policy without any nothing is looked up: what Secrets are
// read is what Gateways of ours need.
func (a *Attached) concerns(t resolved) bool {
	if !t.exists || t.foreign {
		return false
	}
	route := a.routes[RouteID{t.scope.kind, t.scope.name}]
	return t.scope.kind == string(Gateway) || route != nil && len(route.Parents) > 0
}

// place enters a policy where it acts: it is valid there, or it is not and must refuse.
func (a *Attached) place(k Kind, p *attached, target int) {
	r := &p.targets[target]
	if !r.exists || r.foreign || r.reason == "" && !a.hold(k, p, r) {
		return
	}
	u := use{policy: len(a.policies), target: target}
	switch name := k.Name + " " + p.name().String(); {
	case r.reason != "" || p.broken():
		u.refuses = name + " is not valid"
	case p.unknown:
		u.refuses = name + " waits for an answer about what it refers to"
	}
	if u.refuses == "" || k.FailClosed {
		a.places[r.scope] = append(a.places[r.scope], u)
	}
}

// hold takes the place for a policy of an exclusive kind, and says whether it got it. Policies come from the oldest on. One that is in
// error has its place all the same: whether a younger one acts must not hang on that.
func (a *Attached) hold(k Kind, p *attached, r *resolved) bool {
	if !k.Exclusive {
		return true
	}
	at := holding{p.kind, r.scope}
	if holder, taken := a.holders[at]; taken && holder != len(a.policies) {
		r.conflict = fmt.Sprintf("%s has %s %s already, which is older, and one is all that it can have", r, k.Name, a.policies[holder].name())
		return false
	}
	a.holders[at] = len(a.policies)
	return true
}

// Rule is what applies to a rule of a route when it is reached through that listener. Equal sets of policies give the same slices.
func (a *Attached) Rule(gateway snapshot.Name, section string, route RouteID, rule int) Effect {
	return a.effect(a.ruleScopes(gateway, section, route, rule))
}

// Default is what applies on a listener to requests that match no rule: the policies of the Gateway and of the listener. Its Failure
// is for everything on the listener.
func (a *Attached) Default(gateway snapshot.Name, section string) Effect {
	return a.effect(a.listenerScopes(gateway, section))
}

func (a *Attached) listenerScopes(gateway snapshot.Name, section string) []scope {
	return []scope{{string(Gateway), gateway, ""}, {string(Gateway), gateway, section}}
}

func (a *Attached) ruleScopes(gateway snapshot.Name, section string, route RouteID, rule int) []scope {
	scopes := append(a.listenerScopes(gateway, section), scope{route.Kind, route.Name, ""})
	if r := a.routes[route]; r != nil && rule < len(r.Rules) && r.Rules[rule] != "" {
		scopes = append(scopes, scope{route.Kind, route.Name, r.Rules[rule]})
	}
	return scopes
}

// effect merges what acts at these places, from the outermost in.
func (a *Attached) effect(scopes []scope) Effect {
	var uses []use
	var key []byte
	for _, s := range a.standing(scopes) {
		if s.replacedBy != nil || slices.ContainsFunc(uses, func(u use) bool { return u.policy == s.policy && u.refuses == s.refuses }) {
			continue // or another target of the same policy led here already
		}
		uses = append(uses, s.use)
		key = strconv.AppendInt(key, int64(s.policy), 10)
		key = append(key, ' ')
		if s.refuses != "" {
			key = append(key, '!')
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
	var does, security []string
	for i, k := range a.kinds {
		var own Effect
		var parts []Effect
		for _, u := range uses {
			p := &a.policies[u.policy]
			switch {
			case p.kind != i:
			case u.refuses != "":
				own.fail(&snapshot.Failure{Reason: "policy_invalid", Detail: u.refuses})
			default:
				parts = append(parts, p.effect)
				own.fail(p.effect.Failure)
				all.call(p.effect.Backends)
			}
		}
		if len(parts) > 0 {
			own.Filters = k.merge(parts).Filters
		}
		text := own.text()
		does = append(does, text...)
		if k.FailClosed {
			security = append(security, text...)
		}
		all.Filters = append(all.Filters, own.Filters...)
		all.fail(own.Failure)
	}
	all.Filters = slices.Clip(all.Filters) // whoever appends must not write behind another's back
	all.Fingerprint, all.Security = fingerprint(does), fingerprint(security)
	return all
}

// fail keeps the first failure: that of the outermost policy.
func (e *Effect) fail(f *snapshot.Failure) {
	if e.Failure == nil {
		e.Failure = f
	}
}

// call adds backends, each once.
func (e *Effect) call(backends []snapshot.Backend) {
	for _, b := range backends {
		if !slices.ContainsFunc(e.Backends, func(known snapshot.Backend) bool { return known.Ref == b.Ref }) {
			e.Backends = append(e.Backends, b)
		}
	}
}

// text is what an effect does, in lines.
func (e *Effect) text() (lines []string) {
	for _, f := range e.Filters {
		lines = append(lines, f.FilterName()+" "+f.String())
	}
	if e.Failure != nil {
		lines = append(lines, "fail "+e.Failure.Detail)
	}
	return lines
}

func fingerprint(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	h := sha256.New()
	for _, l := range lines {
		fmt.Fprintf(h, "%d:%s", len(l), l) // an expression may hold anything, line ends too
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
