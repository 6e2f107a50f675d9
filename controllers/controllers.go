// Package controllers is the way from objects to the data plane and back: a change of an object becomes a snapshot that is applied,
// and a status that is told. It decides little itself. translate says what the objects mean, endpoints where the backends are, policy
// what policies do; the loop here brings them what changed and carries on what they say.
//
// The loop is the same for files and for a cluster: it takes objects that are new, changed or gone, whoever saw it. In a cluster, Cluster
// watches them, answers what Build asks for, and lets one replica at a time write statuses and what Gateways have outside.
package controllers

import (
	"reflect"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// DataPlane is what serves. The loop is its only caller, from one goroutine.
type DataPlane interface {
	// Apply makes the snapshot what is served, and tells of each of its sockets whether it could be bound. Applying the same again
	// tries those that could not.
	Apply(*snapshot.Snapshot) snapshot.BindResult
	// SetEndpoints replaces the endpoints of these backends; a plan need not name them yet.
	SetEndpoints([]snapshot.Endpoints)
}

// Object is a typed Kubernetes object, such as *gwv1.HTTPRoute. Nobody changes one that the loop has been told of.
type Object = client.Object

// identity tells objects apart: no two kinds have one Go type.
type identity struct {
	kind reflect.Type
	name snapshot.Name
}

func identityOf(o Object) identity {
	return identity{reflect.TypeOf(o), snapshot.Name{Namespace: o.GetNamespace(), Name: o.GetName()}}
}
