package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Path is one that a policy's filters answer themselves, to browsers, which come with GET: where a login returns to.
type Path struct {
	Path      string // as requests have it: "/oauth2/callback"
	Field     string // of the policy, that says so: "spec.methods[0].oidc.callbackPath"
	Otherwise string // what follows when requests for it do not get to the filters: "logins cannot complete"
}

// strayPaths says which of the policy's paths lead nowhere under an ancestor. Its filters get the requests that are taken by a rule which
// the policy holds for; all others are 404, or somebody else's. On a Gateway or listener they get what matches no rule, too.
func (a *Attached) strayPaths(policy int, e entry) (all []Problem) {
	for _, r := range e.reaches {
		route := a.routes[RouteID{r.target.scope.kind, r.target.scope.name}]
		if route == nil || route.Takes == nil {
			continue
		}
		for _, path := range a.policies[policy].effect.Paths {
			stray := func(k snapshot.ListenerKey) bool {
				return a.actsOn(policy, k, route, func(int) bool { return true }) && !a.gets(policy, k, route, path.Path)
			}
			problem := Problem{
				FieldPath: path.Field, Reason: v1alpha1.PolicyReasonPartiallyProgrammed, Lessened: true,
				Message: fmt.Sprintf("%s: no rule of %s %s that this policy holds for takes GET %s; add a match for it, or choose a path that one takes",
					path.Otherwise, route.ID.Kind, route.ID.Name, path.Path),
			}
			if slices.ContainsFunc(r.listeners, stray) && !slices.Contains(all, problem) {
				all = append(all, problem)
			}
		}
	}
	return all
}

// gets reports whether the policy gets requests for the path, on the hosts of the route: by a rule of it, or of another of the policy's
// routes that has the same hosts.
func (a *Attached) gets(policy int, k snapshot.ListenerKey, route *RouteTarget, path string) bool {
	if a.acts(policy, a.listenerScopes(k.Gateway, k.Section)) {
		return true
	}
	return slices.ContainsFunc(a.policies[policy].targets, func(t resolved) bool {
		other := a.routes[RouteID{t.scope.kind, t.scope.name}]
		return other != nil && other.Takes != nil && slices.Contains(other.Attached, k) && other.hasHostsOf(route) &&
			a.actsOn(policy, k, other, func(rule int) bool { return other.Takes(rule, path) })
	})
}

// actsOn reports whether the policy acts on one of these rules of the route, through that listener.
func (a *Attached) actsOn(policy int, k snapshot.ListenerKey, route *RouteTarget, these func(rule int) bool) bool {
	for rule := range route.Rules {
		if these(rule) && a.acts(policy, a.ruleScopes(k.Gateway, k.Section, route.ID, rule)) {
			return true
		}
	}
	return false
}

// acts reports whether the policy stands at one of these places, valid, and none has taken its place.
func (a *Attached) acts(policy int, scopes []scope) bool {
	return slices.ContainsFunc(a.standing(scopes), func(s standing) bool {
		return s.policy == policy && s.refuses == "" && s.replacedBy == nil
	})
}

// hasHostsOf reports whether the route gets, of each host of the other, the requests that no rule of the other takes.
func (r *RouteTarget) hasHostsOf(other *RouteTarget) bool {
	if len(r.Hostnames) == 0 {
		return true
	}
	missing := func(host string) bool {
		return !slices.ContainsFunc(r.Hostnames, func(own string) bool {
			suffix, wild := strings.CutPrefix(own, "*")
			return own == host || wild && strings.HasSuffix(host, suffix)
		})
	}
	return len(other.Hostnames) > 0 && !slices.ContainsFunc(other.Hostnames, missing)
}
