package translate

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func (g *graph) httpRoute(o *gwv1.HTTPRoute) *routeNode {
	r := newRoute("HTTPRoute", o, o.Spec.ParentRefs, o.Spec.Hostnames)
	for i, spec := range o.Spec.Rules {
		rule, field := r.newRule(i, spec.Name), ruleField(i)
		matches := spec.Matches
		if len(matches) == 0 {
			matches = []gwv1.HTTPRouteMatch{{}}
		}
		for j, m := range matches {
			match, p := g.httpMatch(m, fmt.Sprintf("%s.matches[%d]", field, j))
			rule.addMatch(match, p)
		}
		g.fillRule(r, rule, spec, field)
	}
	r.close()
	return r
}

func (r *ruleNode) addMatch(m snapshot.Match, p *problem) {
	if p != nil {
		r.invalid.add(p)
		return
	}
	r.matches = append(r.matches, m)
}

// fillRule compiles what a rule does. A GRPCRoute's rule comes as one of an HTTPRoute: it knows less, and nothing else.
func (g *graph) fillRule(r *routeNode, rule *ruleNode, spec gwv1.HTTPRouteRule, field string) {
	//lint:ignore SA1019 a deprecated field that is refused must be read
	if spec.SessionPersistence != nil {
		rule.invalid.add(wrong(field+".sessionPersistence", gwv1.RouteReasonUnsupportedValue, "session persistence is not served by this version of Gatehouse; remove the field"))
	}
	g.addFilters(r, rule, spec.Filters, field)
	rule.setTimeouts(spec.Timeouts, field+".timeouts")
	rule.setRetry(spec.Retry, field+".retry")
	redirects := slices.ContainsFunc(spec.Filters, func(f gwv1.HTTPRouteFilter) bool { return f.Type == gwv1.HTTPRouteFilterRequestRedirect })
	switch {
	case redirects && len(spec.BackendRefs) > 0:
		rule.invalid.add(wrong(field, gwv1.RouteReasonIncompatibleFilters, "a rule with RequestRedirect forwards nothing; remove its backendRefs"))
	case redirects:
	case len(spec.BackendRefs) == 0:
		rule.rule.Failure = failure(message.ReasonNoBackend, "the rule has no backendRefs")
	default:
		g.weigh(r, rule, spec.BackendRefs, field)
	}
}

func (r *ruleNode) setTimeouts(t *gwv1.HTTPRouteTimeouts, field string) {
	if t == nil {
		return
	}
	r.rule.Timeouts.Request = r.timeout(t.Request, field+".request")
	r.rule.Timeouts.Backend = r.timeout(t.BackendRequest, field+".backendRequest")
}

// timeout is 0 for none given, and negative for one that is switched off.
func (r *ruleNode) timeout(text *gwv1.Duration, field string) time.Duration {
	if text == nil {
		return 0
	}
	d, p := duration(*text, field)
	r.invalid.add(p)
	if d == 0 {
		return -1
	}
	return d
}

func (r *ruleNode) setRetry(retry *gwv1.HTTPRouteRetry, field string) {
	if retry == nil {
		return
	}
	out := snapshot.Retry{Set: true, Attempts: max(0, value(retry.Attempts, 1))}
	for i, c := range retry.Codes {
		if c < 400 || c > 599 {
			r.invalid.add(wrong(fmt.Sprintf("%s.codes[%d]", field, i), gwv1.RouteReasonUnsupportedValue, "%d cannot be retried; use codes from 400 to 599", c))
		}
		out.Codes = append(out.Codes, int(c))
	}
	slices.Sort(out.Codes)
	out.Codes = slices.Compact(out.Codes)
	if retry.Backoff != nil {
		d, p := duration(*retry.Backoff, field+".backoff")
		r.invalid.add(p)
		out.Backoff = d
	}
	r.rule.Retry = out
}

// durationForm is GEP-2257: up to four numbers of up to five digits, each with its unit.
var durationForm = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

func duration(text gwv1.Duration, field string) (time.Duration, *problem) {
	if durationForm.MatchString(string(text)) {
		if d, err := time.ParseDuration(string(text)); err == nil {
			return d, nil
		}
	}
	return 0, wrong(field, gwv1.RouteReasonUnsupportedValue, "%q is not a duration such as 1h30m, 10s or 500ms", text)
}
