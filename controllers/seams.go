package controllers

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Surroundings is what the loop asks of a cluster.
type Surroundings interface {
	// Synced reports whether everything has been read once. Until then nothing is built, and so nothing is served. The loop is roused
	// when that has changed.
	Synced() bool
	// Follow is told after each Build all references that it followed, and those of them that have no answer. The answers come by
	// Loop.Set and Loop.Answer. It returns soon.
	Follow(refs, wants []translate.Ref)
	// Complete adds to the facts what is known of the cluster: CRDs, and kinds that cannot be read.
	Complete(*translate.Facts)
	// Stored are all objects of a kind as they are stored now, with their statuses. Nobody changes them.
	Stored(kind string) []Object
	// Gateways reports whether all Gateways that there are have been told.
	Gateways() bool
}

// Outside is what there is for the Gateways outside of this process: the record of pod ports, Services, and what the other replicas have
// bound. infra.Infra is one. Nothing of it waits for the API server but Run and Lead. It calls back (its Options.Changed) when PodPorts
// or what Complete says may differ from before.
type Outside interface {
	// Set and Delete tell of what there is in the cluster, as the loop is told of it: of our own namespace the ConfigMaps, Leases and
	// EndpointSlices of the Service over our own pods, of all namespaces the Services (of those of others little more than their names),
	// and the nodes where their addresses are wanted. They are called from several goroutines. Nobody changes an object that was
	// told.
	Set(...Object)
	Delete(...Object)

	// PodPorts is the record of pod ports. Nil: listeners bind their spec port (exposure host). Nobody changes the map.
	PodPorts() map[translate.PodPort]uint16

	// Applied is told after each Apply: what the Gateways ought to have, which Gateways there are that may be ours (translate.Result; nil:
	// this is not known now, so nothing may be removed), and what became of the sockets here. It is never told before the first full sync.
	Applied(wanted []translate.Infra, gateways map[types.UID]bool, here snapshot.BindResult)

	// Complete adds to the facts of this process what is known of the outside: Addresses, Unprovided, and in Binds, which hold what was
	// bound here, what the other replicas say.
	Complete(*translate.Facts)

	// Run says what this replica has bound, until ctx ends, on every replica.
	Run(ctx context.Context)
	// Lead writes what the Gateways ought to have, until ctx ends, on the leader: at most one call at a time, and any number after each
	// other.
	Lead(ctx context.Context)
}

// Statuses is where statuses go: status.Writer is one.
type Statuses interface {
	// Told takes all statuses of now; what is not among them stays as it is. It returns soon. Nobody changes what was told.
	Told([]translate.Status)
	// Seen tells that an object is new, changed or gone in the cluster, its status included: what was written may have to be written
	// again. It returns soon.
	Seen(kind string, name snapshot.Name)
	// Lead writes until ctx ends, on the leader: at most one call at a time, and any number after each other. A call looks at all that
	// was told, whenever that was.
	Lead(ctx context.Context)
}
