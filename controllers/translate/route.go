package translate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// routeNode is a route that names a Gateway of ours: compiled, and then attached.
type routeNode struct {
	id         policy.RouteID
	object     metav1.Object
	parentRefs []gwv1.ParentReference
	hostnames  []string // lower case; empty: any
	rules      []ruleNode

	problem  *problem           // why no rule of it can be served
	partial  problems           // why some of its rules cannot be served
	refs     problems           // what it refers to and cannot be had
	services []snapshot.Name    // the Services that it refers to, each once
	backends []snapshot.Backend // what of them was found, each once
	waits    bool               // for an answer: nothing is said about it

	parents []*parentNode
}

// ruleNode is one rule, compiled. There is one for each rule of the spec.
type ruleNode struct {
	name    string
	matches []snapshot.Match      // without their Rule
	rule    snapshot.Rule         // without what policies add
	invalid problems              // why it cannot be served
	calls   []snapshot.BackendRef // what its own filters call
	// withheld: it is new, and not served before all about it is known.
	withheld bool
}

// parentNode is what became of one parentRef that names a Gateway of ours.
type parentNode struct {
	ref       gwv1.ParentReference
	gateway   *gatewayNode
	listeners []*listenerNode // those that take the route
	problem   *problem        // why none does
}

func (r *routeNode) referrer() referrer { return gatewayAPI(r.id.Kind, r.id.Name.Namespace) }

// addRoutes compiles the routes that name a Gateway of ours. Those of others cost nothing.
func (g *graph) addRoutes() {
	for _, o := range g.in.Objects.HTTPRoutes {
		if g.concerns(o.Namespace, o.Spec.ParentRefs) {
			g.routes = append(g.routes, g.remember(g.httpRoute(o)))
		}
	}
	for _, o := range g.in.Objects.GRPCRoutes {
		if g.concerns(o.Namespace, o.Spec.ParentRefs) {
			g.routes = append(g.routes, g.remember(g.grpcRoute(o)))
		}
	}
	slices.SortFunc(g.routes, func(a, b *routeNode) int {
		return cmp.Or(compareAge(a.object, b.object), cmp.Compare(a.id.Kind, b.id.Kind))
	})
}

func (g *graph) concerns(namespace string, refs []gwv1.ParentReference) bool {
	return slices.ContainsFunc(refs, func(ref gwv1.ParentReference) bool { return g.parent(namespace, ref) != nil })
}

// parent finds the Gateway of ours that a parentRef names; nil there is none.
func (g *graph) parent(namespace string, ref gwv1.ParentReference) *gatewayNode {
	name, ok := parentGateway(namespace, ref)
	if !ok {
		return nil
	}
	return g.byName[name]
}

func parentGateway(namespace string, ref gwv1.ParentReference) (snapshot.Name, bool) {
	if value(ref.Group, gwv1.GroupName) != gwv1.GroupName || value(ref.Kind, "Gateway") != "Gateway" {
		return snapshot.Name{}, false
	}
	return snapshot.Name{Namespace: string(value(ref.Namespace, gwv1.Namespace(namespace))), Name: string(ref.Name)}, true
}

func newRoute(kind string, o metav1.Object, parentRefs []gwv1.ParentReference, hostnames []gwv1.Hostname) *routeNode {
	r := &routeNode{id: policy.RouteID{Kind: kind, Name: nameOf(o)}, object: o, parentRefs: parentRefs}
	for _, h := range hostnames {
		if name := strings.ToLower(string(h)); !slices.Contains(r.hostnames, name) {
			r.hostnames = append(r.hostnames, name)
		}
	}
	return r
}

func (r *routeNode) newRule(index int, name *gwv1.SectionName) *ruleNode {
	n := string(value(name, ""))
	r.rules = append(r.rules, ruleNode{
		name: n,
		rule: snapshot.Rule{Key: snapshot.RuleKey{Kind: r.id.Kind, Route: r.id.Name, Rule: index, Name: n}},
	})
	return &r.rules[len(r.rules)-1]
}

func ruleField(index int) string { return fmt.Sprintf("spec.rules[%d]", index) }

// close ends the compilation of a route: a rule that cannot be served as it is written answers 500 where it matches, and its good
// parts do nothing, since nobody knows what they are worth without the bad ones.
func (r *routeNode) close() {
	var invalid problems
	bad := 0
	for i := range r.rules {
		rule := &r.rules[i]
		if len(rule.invalid) == 0 {
			continue
		}
		bad++
		invalid = append(invalid, rule.invalid...)
		rule.rule = snapshot.Rule{Key: rule.rule.Key, Failure: failure(message.ReasonRouteInvalid, rule.invalid.message())}
		rule.calls = nil
	}
	switch {
	case bad == 0:
	case bad == len(r.rules):
		r.problem = &problem{reason: invalid[0].reason, message: invalid.message()}
	default:
		r.partial = invalid
	}
}

func failure(reason message.Reason, detail string) *snapshot.Failure {
	return &snapshot.Failure{Reason: reason.String(), Detail: detail}
}

func backendInvalid(p *problem) *snapshot.Failure {
	return failure(message.ReasonBackendInvalid, p.message)
}
