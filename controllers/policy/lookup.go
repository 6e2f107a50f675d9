package policy

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Lookup answers what a policy refers to outside of its own object, as seen from its namespace: across namespaces only what a
// ReferenceGrant allows. Each method says what is wrong in words for the author; field is the path of the reference in the policy. A
// Problem with Pending set means that nobody has looked yet: the policy's last good effect serves on, and nothing is said about it.
type Lookup interface {
	Secret(field string, ref gwv1.SecretObjectReference) (Secret, *Problem)
	// Secrets are those of the policy's own namespace that the selector takes, by name. Where listing is forbidden it is a Problem.
	Secrets(field string, selector metav1.LabelSelector) ([]Secret, *Problem)
	// Backend is a Service port that a filter calls. It is entered into the snapshot.
	Backend(field string, ref gwv1.BackendObjectReference) (snapshot.BackendRef, *Problem)
}

// Secret is what a policy may know of one.
type Secret struct {
	Name        snapshot.Name
	Labels      map[string]string
	Annotations map[string]string
	Data        map[string][]byte
}
