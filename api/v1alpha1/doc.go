// Package v1alpha1 holds the kinds of the group gatehouse.dev: what platform and application teams write beside the
// kinds of the Gateway API, and the words that Gatehouse uses in conditions.
//
// Everything that can be said about one object alone is said here, by markers from which the CRDs are generated (types,
// bounds, defaults, CEL rules with messages), so that `kubectl apply`, `gatehouse check` and `gatehouse run` give the
// same answer. What needs other objects (does the target exist, does the expression compile) is said in a condition.
//
// The package imports nothing of ours: anybody may import it to write a client.
//
// +kubebuilder:object:generate=true
// +groupName=gatehouse.dev
package v1alpha1
