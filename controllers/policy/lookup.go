package policy

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
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

// Secret is what a policy may know of one. Nobody changes its maps, nor the bytes in them.
type Secret struct {
	Name        snapshot.Name
	Labels      map[string]string
	Annotations map[string]string // those of group gatehouse.dev only
	Data        map[string][]byte
}

// Entry is an entry of the Secret's data as an effect may hold it. The message does not tell the other entries' names: more people may
// read a condition than a Secret, and the names may be those of clients.
func (s Secret) Entry(field, key string) (snapshot.Sensitive, *Problem) {
	data, ok := s.Data[key]
	if !ok {
		return snapshot.Sensitive{}, &Problem{
			FieldPath: field, Reason: v1alpha1.PolicyReasonInvalidSecretRef, Reference: true,
			Message: fmt.Sprintf("Secret %s has no entry %q", s.Name, key),
		}
	}
	return snapshot.Sensitive{Name: s.Name, Key: key, Data: data}, nil
}

// asking is a Lookup that remembers what it was asked, so that the same can be asked again of what served before.
type asking struct {
	lookup    Lookup // nil: nobody looks, and all is pending
	questions []question
	backends  []snapshot.Backend // what was found
	pending   bool
}

// question asks again what was asked once.
type question func(Lookup) *Problem

func (a *asking) Secret(field string, ref gwv1.SecretObjectReference) (s Secret, p *Problem) {
	p = a.ask(field, func(l Lookup) (p *Problem) { s, p = l.Secret(field, ref); return p })
	return s, p
}

func (a *asking) Secrets(field string, selector metav1.LabelSelector) (all []Secret, p *Problem) {
	p = a.ask(field, func(l Lookup) (p *Problem) { all, p = l.Secrets(field, selector); return p })
	return all, p
}

func (a *asking) Backend(field string, ref gwv1.BackendObjectReference) (b snapshot.BackendRef, p *Problem) {
	p = a.ask(field, func(l Lookup) (p *Problem) { b, p = l.Backend(field, ref); return p })
	if p == nil && !slices.ContainsFunc(a.backends, func(known snapshot.Backend) bool { return known.Ref == b }) {
		a.backends = append(a.backends, snapshot.Backend{Ref: b})
	}
	return b, p
}

func (a *asking) ask(field string, q question) *Problem {
	a.questions = append(a.questions, q)
	if a.lookup == nil {
		a.pending = true
		return &Problem{FieldPath: field, Message: "nobody has looked", Pending: true}
	}
	p := q(a.lookup)
	a.pending = a.pending || p != nil && p.Pending
	return p
}
