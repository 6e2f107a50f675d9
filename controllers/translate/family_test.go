package translate_test

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func ptr[T any](v T) *T { return &v }

func meta(n snapshot.Name) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name, UID: types.UID(n.String()), Generation: 1}
}

// familyOf is a Gateway, a route to it, its Service and its policy, all of one name.
func familyOf(n snapshot.Name, port int32) []policy.Object {
	gateway := &gwv1.Gateway{ObjectMeta: meta(n), Spec: gwv1.GatewaySpec{
		GatewayClassName: "gatehouse",
		Listeners:        []gwv1.Listener{{Name: "http", Port: port, Protocol: gwv1.HTTPProtocolType}},
	}}
	route := &gwv1.HTTPRoute{ObjectMeta: meta(n)}
	route.Spec.ParentRefs = []gwv1.ParentReference{{Name: gwv1.ObjectName(n.Name)}}
	backend := gwv1.HTTPBackendRef{}
	backend.Name, backend.Port = gwv1.ObjectName(n.Name), ptr(gwv1.PortNumber(80))
	route.Spec.Rules = []gwv1.HTTPRouteRule{{BackendRefs: []gwv1.HTTPBackendRef{backend}}}
	service := &corev1.Service{ObjectMeta: meta(n), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	limit := &v1alpha1.RateLimitPolicy{ObjectMeta: meta(n)}
	limit.Spec.TargetRefs = []gwv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
		Group: gwv1.GroupName, Kind: "HTTPRoute", Name: gwv1.ObjectName(n.Name),
	}}}
	limit.Spec.Limits = []v1alpha1.RateLimit{{Name: "all", Rates: []v1alpha1.Rate{{Requests: 1, Window: "1m"}}}}
	return []policy.Object{gateway, route, service, limit}
}
