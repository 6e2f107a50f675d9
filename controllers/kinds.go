package controllers

import (
	"fmt"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
)

// kind is a kind of objects that is watched.
type kind struct {
	name     string // "HTTPRoute"
	object   client.Object
	list     client.ObjectList
	resource string // "httproutes.gateway.networking.k8s.io", as RBAC and its CRD name it
	custom   bool   // it comes by a CRD, and may be absent
	own      bool   // it is watched in our own namespace only
	needed   bool   // who may not read it must not serve: it would have nothing to serve, or let in whom it should not
	build    bool   // Build or the table of endpoints wants it; else only Outside does
}

// kinds are all kinds that are watched, policies among them, and nodes if their addresses are wanted. The order is that in which one reads
// what is missing.
func kinds(scheme *runtime.Scheme, nodes bool) []kind {
	all := []kind{
		{object: &gwv1.GatewayClass{}, custom: true, build: true, needed: true},
		{object: &gwv1.Gateway{}, custom: true, build: true, needed: true},
		{object: &gwv1.HTTPRoute{}, custom: true, build: true, needed: true},
		{object: &gwv1.GRPCRoute{}, custom: true, build: true},
		{object: &gwv1.ReferenceGrant{}, custom: true, build: true},
		{object: &gwv1.BackendTLSPolicy{}, custom: true, build: true},
	}
	for _, p := range Policies {
		all = append(all, kind{object: p.New(), custom: true, build: true, needed: p.FailClosed})
	}
	all = append(all,
		kind{object: &corev1.Service{}, build: true, needed: true},
		kind{object: &discoveryv1.EndpointSlice{}, build: true, needed: true},
		metadataOf(&corev1.Namespace{}, scheme, kind{build: true}),
		kind{object: &corev1.ConfigMap{}, own: true},
		kind{object: &coordinationv1.Lease{}, own: true},
	)
	if nodes {
		all = append(all, kind{object: &corev1.Node{}})
	}
	for i := range all {
		all[i] = all[i].complete(scheme)
	}
	return all
}

// definitions is the kind of the CRDs themselves. Their metadata says which kinds there are, and of which release.
func definitions(scheme *runtime.Scheme) kind {
	return metadataOf(&apiextensionsv1.CustomResourceDefinition{}, scheme, kind{}).complete(scheme)
}

// metadataOf makes a kind of which only the metadata is read.
func metadataOf(o client.Object, scheme *runtime.Scheme, k kind) kind {
	gvk := kindOf(o, scheme)
	object, list := &metav1.PartialObjectMetadata{}, &metav1.PartialObjectMetadataList{}
	object.SetGroupVersionKind(gvk)
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	k.object, k.list = object, list
	return k
}

// complete fills in what follows from the type.
func (k kind) complete(scheme *runtime.Scheme) kind {
	gvk := kindOf(k.object, scheme)
	k.name = gvk.Kind
	k.resource = resourceOf(gvk).GroupResource().String()
	if k.list == nil {
		list, err := scheme.New(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err != nil {
			panic(err) // a kind in the table that the scheme does not know
		}
		k.list = list.(client.ObjectList)
	}
	return k
}

func kindOf(o client.Object, scheme *runtime.Scheme) schema.GroupVersionKind {
	if gvk := o.GetObjectKind().GroupVersionKind(); !gvk.Empty() {
		return gvk
	}
	all, _, err := scheme.ObjectKinds(o)
	if err != nil {
		panic(err)
	}
	return all[0]
}

// resourceOf is how a kind is called in paths. That of Gateway is not what its last letter makes one think.
func resourceOf(gvk schema.GroupVersionKind) schema.GroupVersionResource {
	plural, _ := meta.UnsafeGuessKindToResource(gvk)
	if gvk.Kind == "Gateway" {
		plural.Resource = "gateways"
	}
	return plural
}

// Scheme knows all kinds that are read and written.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientscheme.AddToScheme, gwv1.Install, v1alpha1.AddToScheme, apiextensionsv1.AddToScheme, metav1.AddMetaToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("make the scheme: %w", err)
		}
	}
	return scheme, nil
}

// mapper says how the kinds of a scheme are called in paths. It asks nobody: an API server that is away, or that serves a broken
// aggregated API, must not keep us from what we know.
func mapper(scheme *runtime.Scheme) meta.RESTMapper {
	global := map[string]bool{"GatewayClass": true, "Namespace": true, "CustomResourceDefinition": true, "Node": true}
	m := meta.NewDefaultRESTMapper(scheme.PrioritizedVersionsAllGroups())
	for gvk := range scheme.AllKnownTypes() {
		scope := meta.RESTScopeNamespace
		if global[gvk.Kind] {
			scope = meta.RESTScopeRoot
		}
		plural := resourceOf(gvk)
		m.AddSpecific(gvk, plural, plural.GroupVersion().WithResource(strings.ToLower(gvk.Kind)), scope)
	}
	return m
}
