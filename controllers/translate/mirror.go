package translate

import (
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// addMirror resolves where copies of requests go. One that cannot be used is dropped, and said in ResolvedRefs: the request itself
// does not suffer.
func (g *graph) addMirror(r *routeNode, rule *ruleNode, m gwv1.HTTPRequestMirrorFilter, field string) {
	out := snapshot.Mirror{Numerator: 1, Denominator: 1}
	switch {
	case m.Fraction != nil:
		n, d := m.Fraction.Numerator, value(m.Fraction.Denominator, 100)
		if n < 0 || d < 1 || n > d {
			rule.invalid.add(wrong(field+".fraction", gwv1.RouteReasonUnsupportedValue, "%d of %d is not a share", n, d))
			return
		}
		out.Numerator, out.Denominator = uint32(n), uint32(d)
	case m.Percent != nil:
		if *m.Percent < 0 || *m.Percent > 100 {
			rule.invalid.add(wrong(field+".percent", gwv1.RouteReasonUnsupportedValue, "%d is not from 0 to 100", *m.Percent))
			return
		}
		out.Numerator, out.Denominator = uint32(*m.Percent), 100
	}
	ref, p := g.follow(r, m.BackendRef, field+".backendRef")
	if p != nil {
		return
	}
	out.Ref = ref
	rule.rule.Mirrors = append(rule.rule.Mirrors, out)
}
