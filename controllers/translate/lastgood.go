package translate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// LastGood is what served when all answers were there, by route, listener and policy. It is for what is pending only: were it for what is
// wrong too, replicas would differ, and a restart would become the outage.
type LastGood struct {
	routes    map[policy.RouteID]*routeNode
	listeners map[snapshot.ListenerKey][]keyPair
	// authorities are whom each listener trusts about its clients.
	authorities map[snapshot.ListenerKey][]authorities
	// pairs spares reading a key again: as long as a Secret is the same object, so is what was read from it.
	pairs map[*corev1.Secret]keyPair
	// backends are those that policies refer to, as they were when they were looked at last.
	backends map[snapshot.BackendRef]snapshot.Backend
	policies *policy.LastGood
}

func newLastGood() *LastGood {
	return &LastGood{
		routes:      map[policy.RouteID]*routeNode{},
		listeners:   map[snapshot.ListenerKey][]keyPair{},
		authorities: map[snapshot.ListenerKey][]authorities{},
		pairs:       map[*corev1.Secret]keyPair{},
		backends:    map[snapshot.BackendRef]snapshot.Backend{},
	}
}

func (l *LastGood) keyPairs(key snapshot.ListenerKey) []keyPair {
	if l == nil {
		return nil
	}
	return l.listeners[key]
}

func (l *LastGood) pair(secret *corev1.Secret) (keyPair, bool) {
	if l == nil {
		return keyPair{}, false
	}
	p, known := l.pairs[secret]
	return p, known
}

// keepBackend takes over what was known of a backend.
func (l *LastGood) keepBackend(last *LastGood, ref snapshot.BackendRef) {
	if last == nil {
		return
	}
	if b, known := last.backends[ref]; known {
		l.backends[ref] = b
	}
}

func (l *LastGood) policy() *policy.LastGood {
	if l == nil {
		return nil
	}
	return l.policies
}

func (l *LastGood) route(id policy.RouteID) *routeNode {
	if l == nil {
		return nil
	}
	return l.routes[id]
}

// remember notes what serves for the next Build. A route whose answers are pending is replaced by its last good version: with the
// parents of today, since an attachment acts at once, and less what may not be used any more.
func (g *graph) remember(fresh *routeNode) *routeNode {
	if !fresh.waits {
		compiled := *fresh // without what is attached to it from here on
		g.good.routes[fresh.id] = &compiled
		return fresh
	}
	last := g.in.LastGood.route(fresh.id)
	if last == nil {
		for i := range fresh.rules {
			fresh.rules[i].withheld = true
		}
		return fresh
	}
	g.good.routes[fresh.id] = last
	kept := *last
	kept.object, kept.parentRefs = fresh.object, fresh.parentRefs
	kept.waits = true
	kept.rules = slices.Clone(last.rules)
	for i := range kept.rules {
		g.recheck(&kept, &kept.rules[i])
	}
	return &kept
}

// recheck closes the backends of a rule, and what its filters ask, that are known to be out of bounds by now: a grant that is gone, a policy that wants TLS.
func (g *graph) recheck(r *routeNode, rule *ruleNode) {
	rule.rule.Backends = slices.Clone(rule.rule.Backends)
	for i := range rule.rule.Backends {
		b := &rule.rule.Backends[i]
		if b.Failure != nil {
			continue
		}
		if _, _, p := g.backend(r.referrer(), b.Ref, ""); p != nil {
			b.Ref, b.Failure = snapshot.BackendRef{}, backendInvalid(p)
		}
	}
	for _, ref := range rule.calls {
		if _, _, p := g.backend(r.referrer(), ref, ""); p != nil {
			rule.closeCall(p)
		}
	}
	rule.rule.Mirrors = slices.DeleteFunc(slices.Clone(rule.rule.Mirrors), func(m snapshot.Mirror) bool {
		_, _, p := g.backend(r.referrer(), m.Ref, "")
		return p != nil
	})
}
