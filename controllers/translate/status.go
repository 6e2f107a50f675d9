package translate

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

const controllerName = gwv1.GatewayController(v1alpha1.ControllerName)

// Facts is what is known after a snapshot was applied, as plain data.
type Facts struct {
	// Applied: the data plane works by the snapshot.
	Applied bool
	// Binds says of each socket whether it could be bound, with replicas on all of them; nil error: it was. One that is missing was not
	// tried yet.
	Binds map[snapshot.SocketKey]error
	// Addresses are those under which clients reach each Gateway. Nil: those of its spec, where the sockets are bound (files, hosts).
	// Not nil: what a Gateway is not in, it does not have yet.
	Addresses map[snapshot.Name][]gwv1.GatewayStatusAddress
	// Unprovided is why the infrastructure of a Gateway could not be made, in the API server's words.
	Unprovided map[snapshot.Name]string
	// Unusable is which of the addresses that a Gateway asks for it cannot have, in words.
	Unusable map[snapshot.Name]string
	// Remarks are what a Gateway lacks though it serves, in words.
	Remarks map[snapshot.Name]string
	// RefusedEndpoints are addresses of backends that are not used, and why; in words.
	RefusedEndpoints map[snapshot.BackendRef][]string
	// CRDs are the bundle versions of the Gateway API's CRDs, by the CRD's name; "" for one without. Nil: there are no CRDs to look at.
	CRDs map[string]string
	// Unreadable are the kinds that we may not read, as RBAC names them: "grpcroutes.gateway.networking.k8s.io".
	Unreadable []string
}

// Bound takes over what became of the sockets of a snapshot that was applied.
func (f *Facts) Bound(r snapshot.BindResult) {
	f.Applied, f.Binds = true, map[snapshot.SocketKey]error{}
	for _, s := range r.Sockets {
		f.Binds[s.Key] = s.Err
	}
}

// AllBound is the facts of a snapshot that was applied without a hitch: what `check` and goldens assume.
func AllBound(s *snapshot.Snapshot) Facts {
	var r snapshot.BindResult
	for _, socket := range s.Sockets {
		r.Sockets = append(r.Sockets, snapshot.BindState{Key: socket.Key})
	}
	var f Facts
	f.Bound(r)
	return f
}

// Status is what an object is to be told. Conditions have no times: who writes them knows when they changed.
type Status struct {
	Kind       string
	Name       snapshot.Name
	Generation int64
	// Value is a gwv1.GatewayClassStatus, GatewayStatus, RouteStatus or PolicyStatus. Entries of ours that are not in it are to be
	// removed; entries of others are none of our business.
	Value any
	// Problems are all that is wrong with it, with the fields that they speak of.
	Problems []Problem
}

// Problem is something that its author should change.
type Problem struct {
	Field   string // "spec.rules[0].filters[1]"; "" the object as a whole
	Message string
}

// Statuses is the graph as users see it, once the facts are there. Objects about which an answer is still missing have none: what was
// said last stays.
func (r Result) Statuses(f Facts) []Status {
	g := r.graph
	var out []Status
	for _, c := range g.classes {
		out = append(out, c.status(f))
	}
	for _, n := range g.gateways {
		if !n.waits() {
			out = append(out, g.gatewayStatus(n, f))
		}
	}
	for _, route := range g.routes {
		if !route.waits {
			out = append(out, route.status(f))
		}
	}
	out = append(out, g.backendTLSStatus()...)
	inForce := func(key snapshot.ListenerKey) string { return g.inForce(key, f) }
	for _, s := range g.policies.Statuses(inForce) {
		out = append(out, Status{Kind: s.Kind, Name: s.Name, Generation: s.Generation, Value: s.Status, Problems: policyProblems(s.Problems)})
	}
	return out
}

// Waiting are the objects about which nothing is said now, since an answer is missing: what was said of them last stays.
func (r Result) Waiting() (all []Ref) {
	for _, n := range r.graph.gateways {
		if n.waits() {
			all = append(all, Ref{Kind: "Gateway", Name: n.name})
		}
	}
	for _, route := range r.graph.routes {
		if route.waits {
			all = append(all, Ref{Kind: route.id.Kind, Name: route.id.Name})
		}
	}
	for _, p := range r.graph.policies.Waiting() {
		all = append(all, Ref{Kind: p.Kind, Name: p.Name})
	}
	return all
}

func policyProblems(problems []policy.Problem) []Problem {
	var out []Problem
	for _, p := range problems {
		out = append(out, Problem{p.FieldPath, p.Message})
	}
	return out
}

func (c *classNode) status(f Facts) Status {
	accepted := condition(gwv1.GatewayClassConditionStatusAccepted, metav1.ConditionTrue, gwv1.GatewayClassReasonAccepted, unreadable(f))
	if c.problem != nil {
		accepted = condition(gwv1.GatewayClassConditionStatusAccepted, metav1.ConditionFalse, c.problem.reason, c.problem.String())
	}
	all := []metav1.Condition{accepted}
	if f.CRDs != nil {
		all = append(all, supportedVersion(f.CRDs))
	}
	status := gwv1.GatewayClassStatus{Conditions: conditions(c.object.Generation, all...)}
	for _, feature := range supported {
		if f.served(string(feature)) {
			status.SupportedFeatures = append(status.SupportedFeatures, gwv1.SupportedFeature{Name: gwv1.FeatureName(feature)})
		}
	}
	return Status{Kind: "GatewayClass", Name: snapshot.Name{Name: c.object.Name}, Generation: c.object.Generation, Value: status, Problems: told(c.problem.list())}
}

// unreadable tells an operator what RBAC keeps from us. Their authors cannot be told: we don't see what they wrote.
func unreadable(f Facts) string {
	if len(f.Unreadable) == 0 {
		return ""
	}
	return fmt.Sprintf("Gatehouse may not read %s; grant its ServiceAccount get, list and watch on them", strings.Join(f.Unreadable, ", "))
}

// served reports whether the kind that a feature is of has its CRD: what is not there cannot be claimed.
func (f Facts) served(feature string) bool {
	for kind, crd := range map[string]string{"HTTPRoute": "httproutes", "GRPCRoute": "grpcroutes", "ReferenceGrant": "referencegrants"} {
		if strings.HasPrefix(feature, kind) {
			return f.CRDs == nil || has(f.CRDs, crd+".gateway.networking.k8s.io")
		}
	}
	return true
}

func has(crds map[string]string, name string) bool {
	_, found := crds[name]
	return found
}

// supportedVersion compares the CRDs' bundle versions with those that we were built for. Others are served as well as can be.
func supportedVersion(crds map[string]string) metav1.Condition {
	var odd []string
	for _, name := range []string{"gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants"} {
		if name += ".gateway.networking.k8s.io"; !has(crds, name) {
			odd = append(odd, name+" is missing")
		}
	}
	for name, version := range crds {
		known := slices.ContainsFunc(supportedVersions, func(v string) bool { return strings.HasPrefix(version, v+".") })
		if version == "" {
			version = "no version"
		}
		if !known {
			odd = append(odd, fmt.Sprintf("%s has %s", name, version))
		}
	}
	if len(odd) == 0 {
		return condition(gwv1.GatewayClassConditionStatusSupportedVersion, metav1.ConditionTrue, gwv1.GatewayClassReasonSupportedVersion, "")
	}
	slices.Sort(odd)
	return condition(gwv1.GatewayClassConditionStatusSupportedVersion, metav1.ConditionFalse, gwv1.GatewayClassReasonUnsupportedVersion,
		fmt.Sprintf("supported are %s; %s", strings.Join(supportedVersions, " and "), strings.Join(odd, ", ")))
}

func (r *routeNode) status(f Facts) Status {
	status := gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{}}
	var problems problems
	for _, p := range r.parents {
		problems.add(p.problem)
		status.Parents = append(status.Parents, gwv1.RouteParentStatus{
			ParentRef:      p.ref,
			ControllerName: controllerName,
			Conditions:     conditions(r.object.GetGeneration(), r.conditions(p, f)...),
		})
	}
	problems = append(append(append(problems, r.problem.list()...), r.partial...), r.refs...)
	return Status{Kind: r.id.Kind, Name: r.id.Name, Generation: r.object.GetGeneration(), Value: status, Problems: told(problems)}
}

func (r *routeNode) conditions(p *parentNode, f Facts) []metav1.Condition {
	accepted := condition(gwv1.RouteConditionAccepted, metav1.ConditionTrue, gwv1.RouteReasonAccepted, "")
	refused := p.problem
	if refused == nil {
		refused = r.problem
	}
	if refused != nil {
		accepted = condition(gwv1.RouteConditionAccepted, metav1.ConditionFalse, refused.reason, refused.String())
	}
	resolved := condition(gwv1.RouteConditionResolvedRefs, metav1.ConditionTrue, gwv1.RouteReasonResolvedRefs, r.refusedEndpoints(f))
	if len(r.refs) > 0 {
		resolved = condition(gwv1.RouteConditionResolvedRefs, metav1.ConditionFalse, r.refs[0].reason, r.refs.message())
	}
	all := []metav1.Condition{accepted, resolved}
	if refused == nil && len(r.partial) > 0 {
		all = append(all, condition(gwv1.RouteConditionPartiallyInvalid, metav1.ConditionTrue, gwv1.RouteReasonUnsupportedValue,
			"Dropped Rule, what still matches it gets 500: "+r.partial.message()))
	}
	return all
}

func (r *routeNode) refusedEndpoints(f Facts) string {
	var texts []string
	for _, b := range r.backends {
		texts = append(texts, f.RefusedEndpoints[b.Ref]...)
	}
	if len(texts) == 0 {
		return ""
	}
	return "endpoints not used: " + strings.Join(texts, "; ")
}

func told(ps problems) []Problem {
	var out []Problem
	for _, p := range ps {
		out = append(out, Problem{p.field, p.message})
	}
	return out
}

// Conditions are the types of conditions that Build writes. One of them that is not in a status is to be removed from the object; all
// others are somebody else's.
var Conditions = []string{
	string(gwv1.GatewayConditionAccepted),
	string(gwv1.GatewayConditionProgrammed),
	string(gwv1.GatewayConditionResolvedRefs),
	string(gwv1.GatewayConditionInsecureFrontendValidationMode),
	string(gwv1.GatewayClassConditionStatusSupportedVersion),
	string(gwv1.ListenerConditionConflicted),
	string(gwv1.ListenerConditionOverlappingTLSConfig),
	string(gwv1.RouteConditionPartiallyInvalid),
	v1alpha1.PolicyConditionOverridden,
}

func condition[T, R ~string](kind T, status metav1.ConditionStatus, reason R, message string) metav1.Condition {
	return metav1.Condition{Type: string(kind), Status: status, Reason: string(reason), Message: message}
}

// conditions are all of one generation: an object's status is never of two.
func conditions(generation int64, all ...metav1.Condition) []metav1.Condition {
	for i := range all {
		all[i].ObservedGeneration = generation
	}
	return all
}

func gatewayRef(name snapshot.Name) gwv1.ParentReference {
	group, kind, namespace := gwv1.Group(gwv1.GroupName), gwv1.Kind("Gateway"), gwv1.Namespace(name.Namespace)
	return gwv1.ParentReference{Group: &group, Kind: &kind, Namespace: &namespace, Name: gwv1.ObjectName(name.Name)}
}
