package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of all kinds of Gatehouse.
const GroupName = "gatehouse.dev"

// ControllerName is what a GatewayClass names in spec.controllerName to be served by Gatehouse. It stands in each
// status entry that Gatehouse writes.
const ControllerName = "gatehouse.dev/gateway-controller"

// GroupVersion is the group and version of the kinds in this package.
var GroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// AddToScheme tells a scheme about the kinds of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&AuthPolicy{}, &AuthPolicyList{},
		&RateLimitPolicy{}, &RateLimitPolicyList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
