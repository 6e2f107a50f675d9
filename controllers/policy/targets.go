package policy

import "github.com/gatehouse-dev/gatehouse/dataplane/snapshot"

// Targets is what policies can be attached to, as plain data: all Gateways and routes that there are, those of others included, since
// a target that is not ours differs from one that does not exist.
type Targets struct {
	Gateways []GatewayTarget
	Routes   []RouteTarget
}

// GatewayTarget is a Gateway.
type GatewayTarget struct {
	Name      snapshot.Name
	Listeners []string // the names in its spec, whether the listeners serve or not
	Foreign   bool     // it is another controller's: nothing is said about it
}

// RouteTarget is a route.
type RouteTarget struct {
	ID        RouteID
	Hostnames []string // lower case; empty: any
	Rules     []string // the rules' names in order, "" for one without
	// Takes reports whether that rule takes GET of the path, whatever else the request has. Nil: browsers do not come here.
	Takes func(rule int, path string) bool
	// Parents are the Gateways of ours that its parentRefs name, accepted there or not.
	Parents []snapshot.Name
	// Attached are the listeners that accepted it.
	Attached []snapshot.ListenerKey
	// Foreign: it names Gateways, and all that exist are other controllers'; nothing is said about it.
	Foreign bool
}

// RouteID names a route.
type RouteID struct {
	Kind string // HTTPRoute, GRPCRoute
	Name snapshot.Name
}
