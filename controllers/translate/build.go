package translate

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Input is all that Build looks at.
type Input struct {
	// Kinds are the kinds of policies that are served.
	Kinds   []policy.Kind
	Objects Objects
	// FilterOrder is the order in which a request meets filters, by FilterName (dataplane/filters.go). Nil: as declared.
	FilterOrder []string
	// Paths is how the data plane normalises paths; a match is normalised alike.
	Paths message.PathRules
	// PodPorts says where a listener's port is bound in the pod. Nil: listeners bind their spec port on the Gateway's spec.addresses
	// (files, hosts). Not nil: they bind all addresses at the recorded port, and not at all before there is one.
	PodPorts map[PodPort]uint16
	// Answers are the references that have been looked up. Nil: what is not among the objects is absent.
	Answers Answers
	// LastGood is what serves while an answer is pending: that of the Result before. Nil: nothing.
	LastGood *LastGood
}

// PodPort names a port of a Gateway in its spec.
type PodPort struct {
	Gateway types.UID
	Port    uint16
}

// Result is the graph and its views.
type Result struct {
	Snapshot *snapshot.Snapshot
	// Infra is what each Gateway should have outside of the data plane, oldest Gateway first.
	Infra []Infra
	// Gateways are all Gateways that there are, but those of another controller's class: what they have outside must not be removed.
	Gateways map[types.UID]bool
	// Refs are all references that Build followed, sorted: what is referred to and, across namespaces, granted.
	Refs []Ref
	// Wants are those of them that have no answer yet. None: this Result is the whole truth.
	Wants []Ref
	// LastGood is for the next Build.
	LastGood *LastGood

	graph *graph
}

// Build is the life of a change: objects become a graph, and the graph becomes what the data plane must do. Result.Statuses is the
// other view of the same graph.
func Build(in Input) Result {
	g := newGraph(in)
	g.addClasses()
	g.addGateways()
	g.addRoutes()
	g.attachRoutes()
	g.attachPolicies()
	return Result{
		Snapshot: g.snapshot(),
		Infra:    g.infra(),
		Gateways: g.gatewayUIDs(),
		Refs:     g.refs.list(Found, Absent, Pending, Forbidden),
		Wants:    g.refs.list(Pending),
		LastGood: g.good,
		graph:    g,
	}
}
