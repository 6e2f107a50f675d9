package translate

import (
	"fmt"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func (g *graph) grpcRoute(o *gwv1.GRPCRoute) *routeNode {
	r := newRoute("GRPCRoute", o, o.Spec.ParentRefs, o.Spec.Hostnames)
	for i, spec := range o.Spec.Rules {
		rule, field := r.newRule(i, spec.Name), ruleField(i)
		matches := spec.Matches
		if len(matches) == 0 {
			matches = []gwv1.GRPCRouteMatch{{}}
		}
		for j, m := range matches {
			match, p := g.grpcMatch(m, fmt.Sprintf("%s.matches[%d]", field, j))
			rule.addMatch(match, p)
		}
		g.fillRule(r, rule, asHTTPRule(spec), field)
	}
	r.close()
	return r
}

// asHTTPRule is what a rule does, in the words of an HTTPRoute, which has all of them and more.
func asHTTPRule(spec gwv1.GRPCRouteRule) gwv1.HTTPRouteRule {
	//lint:ignore SA1019 a deprecated field that is refused must be read
	rule := gwv1.HTTPRouteRule{Filters: asHTTPFilters(spec.Filters), SessionPersistence: spec.SessionPersistence}
	for _, b := range spec.BackendRefs {
		rule.BackendRefs = append(rule.BackendRefs, gwv1.HTTPBackendRef{BackendRef: b.BackendRef, Filters: asHTTPFilters(b.Filters)})
	}
	return rule
}

func asHTTPFilters(filters []gwv1.GRPCRouteFilter) []gwv1.HTTPRouteFilter {
	var out []gwv1.HTTPRouteFilter
	for _, f := range filters {
		out = append(out, gwv1.HTTPRouteFilter{
			Type:                   gwv1.HTTPRouteFilterType(f.Type),
			RequestHeaderModifier:  f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier,
			RequestMirror:          f.RequestMirror,
			ExtensionRef:           f.ExtensionRef,
		})
	}
	return out
}
