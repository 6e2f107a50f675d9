package translate

import (
	"strings"

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
	group, kind string
	namespace   string
}

// gatewayAPI is a referrer of the Gateway API's own kinds.
func gatewayAPI(kind, namespace string) referrer { return referrer{gwv1.GroupName, kind, namespace} }

// String says who it is as a message does: "HTTPRoutes from web". A grant for a policy must name another group than people have in mind.
func (r referrer) String() string {
	kinds := r.kind + "s"
	if stem, ok := strings.CutSuffix(r.kind, "Policy"); ok {
		kinds = stem + "Policies"
	}
	if r.group != gwv1.GroupName {
		kinds += " (group " + r.group + ")"
	}
	return kinds + " from " + r.namespace
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
		if string(f.Group) == from.group && string(f.Kind) == from.kind && string(f.Namespace) == from.namespace {
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
