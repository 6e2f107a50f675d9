package controllers

import (
	"os"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gatehouse-dev/gatehouse/controllers/infra"
)

func TestEachKindIsNamedAsItsCRDIs(t *testing.T) {
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, k := range kinds(scheme, true) {
		if !k.custom {
			continue
		}
		found++
		if _, err := os.Stat("source/schemas/" + k.resource + ".json"); err != nil {
			t.Errorf("%s: no CRD is called %s", k.name, k.resource)
		}
	}
	if found < 6+len(Policies) {
		t.Errorf("only %d kinds have a CRD", found)
	}
}

func TestPathsAreKnownWithoutAskingTheAPIServer(t *testing.T) {
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	m := mapper(scheme)
	for kind, want := range map[schema.GroupKind]string{
		{Group: "gateway.networking.k8s.io", Kind: "Gateway"}:          "gateways namespace",
		{Group: "gateway.networking.k8s.io", Kind: "GatewayClass"}:     "gatewayclasses root",
		{Group: "gateway.networking.k8s.io", Kind: "BackendTLSPolicy"}: "backendtlspolicies namespace",
		{Group: "gatehouse.dev", Kind: "AuthPolicy"}:                   "authpolicies namespace",
		{Group: "gatehouse.dev", Kind: "RateLimitPolicy"}:              "ratelimitpolicies namespace",
		{Kind: "Service"}:   "services namespace",
		{Kind: "Namespace"}: "namespaces root",
		{Kind: "Node"}:      "nodes root",
		{Group: "discovery.k8s.io", Kind: "EndpointSlice"}:                "endpointslices namespace",
		{Group: "coordination.k8s.io", Kind: "Lease"}:                     "leases namespace",
		{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}: "customresourcedefinitions root",
	} {
		mapping, err := m.RESTMapping(kind)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := mapping.Resource.Resource + " " + string(mapping.Scope.Name()); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
}

func TestOnlyWhatIsReadStaysInMemory(t *testing.T) {
	trim := trimmer{namespace: "gatehouse-system", headless: "members"}
	meta := func(namespace string, labels map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{
			Namespace: namespace, Name: "x", UID: "u", ResourceVersion: "7", Labels: labels, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
			Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "long"}, Finalizers: []string{"f"},
		}
	}
	service := func(namespace string, labels map[string]string) *corev1.Service {
		return &corev1.Service{ObjectMeta: meta(namespace, labels), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Type: "LoadBalancer", Ports: []corev1.ServicePort{{Port: 80}}}}
	}
	again := func(o Object) Object { return trim.trim(trim.trim(o)) }

	theirs := again(service("shop", nil)).(*corev1.Service)
	if theirs.Annotations != nil || theirs.ManagedFields != nil || theirs.Spec.ClusterIP != "" || theirs.Spec.Type != "LoadBalancer" || len(theirs.Spec.Ports) != 1 {
		t.Errorf("a Service: %+v", theirs)
	}
	for _, ours := range []*corev1.Service{service("gatehouse-system", nil), service("shop", map[string]string{infra.UIDLabel: "u"})} {
		if got := again(ours).(*corev1.Service); got.Spec.ClusterIP == "" || got.Annotations == nil || got.ManagedFields != nil {
			t.Errorf("one of ours: %+v", got)
		}
	}

	node := "node-1"
	slice := func(namespace, service string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta: meta(namespace, map[string]string{discoveryv1.LabelServiceName: service, "other": "x"}),
			Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, NodeName: &node, TargetRef: &corev1.ObjectReference{Name: "pod"}}},
		}
	}
	if got := again(slice("shop", "members")).(*discoveryv1.EndpointSlice); got.Endpoints[0].TargetRef != nil || got.Labels["other"] != "" ||
		got.Labels[discoveryv1.LabelServiceName] != "members" || trim.outside(got) {
		t.Errorf("a slice: %+v", got)
	}
	if got := again(slice("gatehouse-system", "members")).(*discoveryv1.EndpointSlice); got.Endpoints[0].TargetRef == nil || !trim.outside(got) {
		t.Errorf("of our own pods: %+v", got)
	}

	keys := &corev1.Secret{ObjectMeta: meta("shop", map[string]string{"tier": "gold"}), Data: map[string][]byte{"tls.key": []byte("k")}}
	keys.Annotations["gatehouse.dev/labels.x"] = "tier=gold"
	secret := again(keys).(*corev1.Secret)
	if len(secret.Annotations) != 1 || secret.Annotations["gatehouse.dev/labels.x"] != "tier=gold" || secret.Labels["tier"] != "gold" || len(secret.Data) != 1 ||
		secret.Finalizers != nil {
		t.Errorf("a Secret: %+v", secret.ObjectMeta)
	}

	crd := &metav1.PartialObjectMetadata{ObjectMeta: meta("", nil)}
	crd.Annotations[bundleVersion] = "v1.7.0"
	if got := again(crd).GetAnnotations(); len(got) != 1 || got[bundleVersion] != "v1.7.0" {
		t.Errorf("a CRD: %v", got)
	}
	namespace := asNamespace(asNamespace(&metav1.PartialObjectMetadata{ObjectMeta: meta("", map[string]string{"a": "b"})})).(*corev1.Namespace)
	if namespace.Labels["a"] != "b" || namespace.UID != "u" || namespace.Annotations != nil {
		t.Errorf("a Namespace: %+v", namespace)
	}
	if got := trim.outside(&corev1.Service{}); !got {
		t.Error("a Service that was an alias may have lost its label")
	}
	if slices.Contains([]bool{trim.outside(&corev1.Secret{}), trim.outside(&corev1.Namespace{})}, true) {
		t.Error("a Secret is nobody's business outside")
	}
}
