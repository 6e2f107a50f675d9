package translate

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Objects is what users wrote. Their order does not matter. Nobody changes an object that is in it, Build included.
type Objects struct {
	GatewayClasses     []*gwv1.GatewayClass
	Gateways           []*gwv1.Gateway
	HTTPRoutes         []*gwv1.HTTPRoute
	GRPCRoutes         []*gwv1.GRPCRoute
	ReferenceGrants    []*gwv1.ReferenceGrant
	BackendTLSPolicies []*gwv1.BackendTLSPolicy
	Namespaces         []*corev1.Namespace
	Services           []*corev1.Service
	Secrets            []*corev1.Secret
	ConfigMaps         []*corev1.ConfigMap
	Policies           []policy.Object // of the kinds in Input.Kinds; others are passed over
}

// Add puts an object into the list of its kind. What Build has no list for goes to Policies, where only the given kinds are looked at.
func (o *Objects) Add(object policy.Object) {
	switch v := object.(type) {
	case *gwv1.GatewayClass:
		o.GatewayClasses = append(o.GatewayClasses, v)
	case *gwv1.Gateway:
		o.Gateways = append(o.Gateways, v)
	case *gwv1.HTTPRoute:
		o.HTTPRoutes = append(o.HTTPRoutes, v)
	case *gwv1.GRPCRoute:
		o.GRPCRoutes = append(o.GRPCRoutes, v)
	case *gwv1.ReferenceGrant:
		o.ReferenceGrants = append(o.ReferenceGrants, v)
	case *gwv1beta1.ReferenceGrant:
		o.ReferenceGrants = append(o.ReferenceGrants, (*gwv1.ReferenceGrant)(v))
	case *gwv1.BackendTLSPolicy:
		o.BackendTLSPolicies = append(o.BackendTLSPolicies, v)
	case *corev1.Namespace:
		o.Namespaces = append(o.Namespaces, v)
	case *corev1.Service:
		o.Services = append(o.Services, v)
	case *corev1.Secret:
		o.Secrets = append(o.Secrets, v)
	case *corev1.ConfigMap:
		o.ConfigMaps = append(o.ConfigMaps, v)
	default:
		o.Policies = append(o.Policies, v)
	}
}

func nameOf(o metav1.Object) snapshot.Name {
	return snapshot.Name{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// byAge returns the objects from the oldest on: what decides between equals everywhere in the Gateway API.
func byAge[T metav1.Object](objects []T) []T {
	sorted := slices.Clone(objects)
	slices.SortFunc(sorted, func(a, b T) int { return compareAge(a, b) })
	return sorted
}

func compareAge(a, b metav1.Object) int {
	return cmp.Or(
		a.GetCreationTimestamp().Time.Compare(b.GetCreationTimestamp().Time),
		compareNames(nameOf(a), nameOf(b)),
	)
}

// compareNames orders as the Gateway API does: alphabetically by "namespace/name".
func compareNames(a, b snapshot.Name) int {
	if a.Namespace == b.Namespace {
		return cmp.Compare(a.Name, b.Name)
	}
	return cmp.Compare(a.Namespace+"/", b.Namespace+"/")
}

func named[T metav1.Object](objects []T) map[snapshot.Name]T {
	m := make(map[snapshot.Name]T, len(objects))
	for _, o := range objects {
		m[nameOf(o)] = o
	}
	return m
}
