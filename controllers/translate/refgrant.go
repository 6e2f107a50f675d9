package translate

import (
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// grants are the ReferenceGrants by the namespace in which they stand, which is that of their targets.
type grants map[string][]*gwv1.ReferenceGrant

func newGrants(all []*gwv1.ReferenceGrant) grants {
	g := grants{}
	for _, grant := range all {
		g[grant.Namespace] = append(g[grant.Namespace], grant)
	}
	return g
}

// referrer is who refers to something.
type referrer struct {
	kind      string // of group gateway.networking.k8s.io
	namespace string
}

// allow decides every reference across namespaces. It is asked before anybody looks whether the target exists, so that no message can
// tell.
func (g grants) allow(from referrer, group, kind string, target snapshot.Name) bool {
	if from.namespace == target.Namespace {
		return true
	}
	for _, grant := range g[target.Namespace] {
		if grantsFrom(grant, from) && grantsTo(grant, group, kind, target.Name) {
			return true
		}
	}
	return false
}

func grantsFrom(grant *gwv1.ReferenceGrant, from referrer) bool {
	for _, f := range grant.Spec.From {
		if f.Group == gwv1.GroupName && string(f.Kind) == from.kind && string(f.Namespace) == from.namespace {
			return true
		}
	}
	return false
}

func grantsTo(grant *gwv1.ReferenceGrant, group, kind, name string) bool {
	for _, t := range grant.Spec.To {
		if string(t.Group) == group && string(t.Kind) == kind && (t.Name == nil || *t.Name == "" || string(*t.Name) == name) {
			return true
		}
	}
	return false
}
