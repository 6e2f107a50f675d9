package lease

import (
	"context"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typed "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// owned is a client that gives each Lease that it writes its owner. LeaseLock, which writes ours, has no place for one.
type owned struct {
	typed.LeasesGetter
	owner func() *metav1.OwnerReference
}

func (o owned) Leases(namespace string) typed.LeaseInterface {
	return ownedLeases{o.LeasesGetter.Leases(namespace), o.owner}
}

type ownedLeases struct {
	typed.LeaseInterface
	owner func() *metav1.OwnerReference
}

func (o ownedLeases) Create(ctx context.Context, l *coordinationv1.Lease, opts metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return o.LeaseInterface.Create(ctx, withOwner(l, o.owner()), opts)
}

func (o ownedLeases) Update(ctx context.Context, l *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return o.LeaseInterface.Update(ctx, withOwner(l, o.owner()), opts)
}

// withOwner is the Lease with that owner and no other: one of an earlier release would take the Lease along when it is collected. Nil: the
// owner is not there, or not known yet, and what the Lease says of it stays.
func withOwner(l *coordinationv1.Lease, owner *metav1.OwnerReference) *coordinationv1.Lease {
	same := func(r metav1.OwnerReference) bool { return r.UID == owner.UID }
	if owner == nil || len(l.OwnerReferences) == 1 && slices.ContainsFunc(l.OwnerReferences, same) {
		return l
	}
	l = l.DeepCopy()
	l.OwnerReferences = []metav1.OwnerReference{*owner}
	return l
}
