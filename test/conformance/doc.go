// Package conformance runs the Gateway API's conformance suite against a Gatehouse that helm installed into a real Kubernetes, and tells the
// outcome as a table: each test with its time, each profile with its counts, each extended feature.
//
// It is a module of its own, so that the product needs none of the suite's dependencies. hack/e2e.sh makes what it needs and runs it inside the
// cluster's network (make conformance). It stands and falls with the suite: nothing is skipped by us, and what the GatewayClass claims is what is tested.
package conformance
