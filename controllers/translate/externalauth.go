package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/external"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// addExternalAuth compiles an ExternalAuth filter (GEP-1494): a policy of the route's own with one method. A service that cannot be asked
// closes its rule: nobody is let in who was not judged.
func (g *graph) addExternalAuth(r *routeNode, rule *ruleNode, f gwv1.HTTPExternalAuthFilter, field string) {
	c := external.Config{Policy: rule.rule.Key.String(), Name: externalMethod, Protocol: external.Protocol(f.ExternalAuthProtocol)}
	switch http, grpc := f.HTTPAuthConfig, f.GRPCAuthConfig; {
	case http != nil && c.Protocol != external.HTTP, grpc != nil && c.Protocol != external.GRPC:
		rule.invalid.add(wrong(field, gwv1.RouteReasonUnsupportedValue, "the settings are those of another protocol than %s", c.Protocol))
		return
	case http != nil:
		c.Path, c.AllowedRequestHeaders, c.AllowedResponseHeaders = http.Path, http.AllowedRequestHeaders, http.AllowedResponseHeaders
	case grpc != nil:
		c.AllowedRequestHeaders = grpc.AllowedRequestHeaders
	}
	if f.ForwardBody != nil {
		c.MaxBody = int(f.ForwardBody.MaxSize)
	}
	if err := c.Check(); err != nil {
		rule.invalid.add(wrong(field, gwv1.RouteReasonUnsupportedValue, "%s", err))
		return
	}
	ref, p := g.follow(r, f.BackendRef, field+".backendRef")
	if p != nil {
		rule.rule.Failure = backendInvalid(p)
		return
	}
	c.Backend = ref
	rule.calls = append(rule.calls, ref)
	config := auth.Config{Policies: []auth.Policy{{
		Name: r.id.Name, UID: string(r.object.GetUID()), Require: auth.Any,
		Methods: []auth.Method{{Name: externalMethod, External: &c}},
	}}}
	rule.rule.Filters = append(rule.rule.Filters, config)
	sum := sha256.Sum256([]byte(config.String()))
	rule.rule.Security = hex.EncodeToString(sum[:8])
}

// externalMethod is what the method of an ExternalAuth filter is called in identities, logs and metrics.
const externalMethod = "externalAuth"

// call notes what the filters of a rule call.
func (r *routeNode) call(rule *ruleNode, called map[snapshot.BackendRef]snapshot.Backend) {
	for _, ref := range rule.calls {
		for _, b := range r.backends {
			if b.Ref == ref {
				called[ref] = b
			}
		}
	}
}

// closeCall closes a rule whose service may not be asked any more: neither is it asked, nor anybody let in.
func (r *ruleNode) closeCall(p *problem) {
	r.calls = nil
	r.rule.Filters = slices.DeleteFunc(slices.Clone(r.rule.Filters), func(f snapshot.Filter) bool { _, ok := f.(auth.Config); return ok })
	r.rule.Failure = backendInvalid(p)
}
