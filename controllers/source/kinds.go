package source

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
)

// kind is one kind of object that is read from files.
type kind struct {
	group, name string
	namespaced  bool
	empty       func() Object
	admit       admitter
}

// admitter does with an object what the API server does when it is created. It changes value as the server would
// (pruning, defaults), so that it can be made into the typed object that is returned; nil if it cannot.
type admitter interface {
	versions() []string // served, the one that objects get first
	admit(version string, value map[string]any, empty Object) (Object, []finding)
}

// finding is a problem within one object, before its place is known.
type finding struct{ field, message string }

func findings(errs field.ErrorList) []finding {
	var list []finding
	for _, err := range errs {
		list = append(list, finding{err.Field, err.ErrorBody()})
	}
	return list
}

// kinds is the list of what is read from files. CRDs have their schema by their plural.
var kinds = []kind{
	crd(gwv1.GroupName, "GatewayClass", "gatewayclasses", clusterScoped, func() Object { return new(gwv1.GatewayClass) }),
	crd(gwv1.GroupName, "Gateway", "gateways", namespaced, func() Object { return new(gwv1.Gateway) }),
	crd(gwv1.GroupName, "ListenerSet", "listenersets", namespaced, func() Object { return new(gwv1.ListenerSet) }),
	crd(gwv1.GroupName, "HTTPRoute", "httproutes", namespaced, func() Object { return new(gwv1.HTTPRoute) }),
	crd(gwv1.GroupName, "GRPCRoute", "grpcroutes", namespaced, func() Object { return new(gwv1.GRPCRoute) }),
	crd(gwv1.GroupName, "TLSRoute", "tlsroutes", namespaced, func() Object { return new(gwv1.TLSRoute) }),
	crd(gwv1.GroupName, "TCPRoute", "tcproutes", namespaced, func() Object { return new(gwv1.TCPRoute) }),
	crd(gwv1.GroupName, "UDPRoute", "udproutes", namespaced, func() Object { return new(gwv1.UDPRoute) }),
	crd(gwv1.GroupName, "ReferenceGrant", "referencegrants", namespaced, func() Object { return new(gwv1.ReferenceGrant) }),
	crd(gwv1.GroupName, "BackendTLSPolicy", "backendtlspolicies", namespaced, func() Object { return new(gwv1.BackendTLSPolicy) }),

	crd(v1alpha1.GroupName, "AuthPolicy", "authpolicies", namespaced, func() Object { return new(v1alpha1.AuthPolicy) }),
	crd(v1alpha1.GroupName, "RateLimitPolicy", "ratelimitpolicies", namespaced, func() Object { return new(v1alpha1.RateLimitPolicy) }),

	core(corev1.GroupName, "Namespace", clusterScoped, defaultNamespace, checkNamespace),
	core(corev1.GroupName, "Service", namespaced, defaultService, checkService),
	core(discoveryv1.GroupName, "EndpointSlice", namespaced, defaultEndpointSlice, checkEndpointSlice),
	core(corev1.GroupName, "Secret", namespaced, defaultSecret, checkSecret),
	core(corev1.GroupName, "ConfigMap", namespaced, nil, checkConfigMap),
}

const (
	clusterScoped = false
	namespaced    = true
)

// kindOf looks up what an object says it is. The finding says what to change if we don't read it; it is no more than a
// warning for the kinds of Kubernetes that lie beside ours in many folders (Deployments, Roles, …).
func kindOf(apiVersion, name string) (k kind, version string, problem *finding, warning bool) {
	group, version := splitAPIVersion(apiVersion)
	switch {
	case apiVersion == "":
		return kind{}, "", &finding{"apiVersion", "Required value: every object names its apiVersion, e.g. " + exampleVersion(name)}, false
	case name == "":
		return kind{}, "", &finding{"kind", "Required value: every object names its kind"}, false
	}
	for _, k := range kinds {
		if k.name != name || k.group != group {
			continue
		}
		served := k.admit.versions()
		if !slices.Contains(served, version) {
			return kind{}, "", &finding{"apiVersion", fmt.Sprintf("%s is not served in version %q: use %s", name, version, joinAPIVersion(group, served[0]))}, false
		}
		return k, version, nil, false
	}
	if i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name }); i >= 0 {
		return kind{}, "", &finding{"apiVersion", fmt.Sprintf("there is no kind %s in %q: use %s", name, apiVersion, exampleVersion(name))}, false
	}
	if slices.Contains(foreignGroups, group) || (group == "" && slices.Contains(foreignCoreKinds, name)) {
		return kind{}, "", &finding{"kind", fmt.Sprintf("%s of %s is nothing that Gatehouse reads: ignored", name, apiVersion)}, true
	}
	var known []string
	for _, k := range kinds {
		known = append(known, k.name)
	}
	return kind{}, "", &finding{"kind", fmt.Sprintf("unknown kind %s in %s%s", name, apiVersion, didYouMean(name, known))}, false
}

// exampleVersion is the apiVersion that a kind is to be written in.
func exampleVersion(name string) string {
	for _, k := range kinds {
		if k.name == name {
			return joinAPIVersion(k.group, k.admit.versions()[0])
		}
	}
	return gwv1.GroupName + "/v1"
}

func splitAPIVersion(apiVersion string) (group, version string) {
	if group, version, ok := strings.Cut(apiVersion, "/"); ok {
		return group, version
	}
	return "", apiVersion
}

func joinAPIVersion(group, version string) string {
	if group == "" {
		return version
	}
	return group + "/" + version
}

// foreignGroups and foreignCoreKinds are Kubernetes' own, which often stand in the same files as what we read.
var foreignGroups = []string{
	"admissionregistration.k8s.io", "apiextensions.k8s.io", "apps", "autoscaling", "batch", "cert-manager.io",
	"certificates.k8s.io", "coordination.k8s.io", "monitoring.coreos.com", "networking.k8s.io", "policy",
	"rbac.authorization.k8s.io", "scheduling.k8s.io", "storage.k8s.io",
}

var foreignCoreKinds = []string{
	"Endpoints", "LimitRange", "PersistentVolume", "PersistentVolumeClaim", "Pod", "PodTemplate",
	"ReplicationController", "ResourceQuota", "ServiceAccount",
}
