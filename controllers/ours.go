package controllers

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// ours is what a Build was about. What others do in the same cluster concerns nobody here, and costs no Build.
type ours struct {
	built    bool
	classes  map[string]bool
	gateways map[snapshot.Name]bool
	refs     map[translate.Ref]bool
	selected map[string][]labels.Selector // of Secrets, by namespace
	policies map[string]bool              // namespaces with policies of ours: they look at what is around them, whose ever it is
	selects  bool                         // a listener selects namespaces by their labels
}

func newOurs(objects translate.Objects, refs []translate.Ref) ours {
	o := ours{
		built: true, classes: map[string]bool{}, gateways: map[snapshot.Name]bool{}, refs: map[translate.Ref]bool{}, policies: map[string]bool{},
		selected: map[string][]labels.Selector{},
	}
	for _, c := range objects.GatewayClasses {
		o.classes[c.Name] = c.Spec.ControllerName == v1alpha1.ControllerName
	}
	for _, g := range objects.Gateways {
		if o.classes[string(g.Spec.GatewayClassName)] {
			o.gateways[identityOf(g).name] = true
			o.selects = o.selects || slices.ContainsFunc(g.Spec.Listeners, selectsNamespaces)
		}
	}
	for _, ref := range refs {
		o.refs[ref] = true
		if s, err := labels.Parse(ref.Selector); err == nil && ref.Selector != "" {
			o.selected[ref.Name.Namespace] = append(o.selected[ref.Name.Namespace], s)
		}
	}
	for _, p := range objects.Policies {
		o.policies[p.GetNamespace()] = true
	}
	return o
}

func selectsNamespaces(l gwv1.Listener) bool {
	return l.AllowedRoutes != nil && l.AllowedRoutes.Namespaces != nil && l.AllowedRoutes.Namespaces.Selector != nil
}

// concern reports whether an object that is new, or was changed or deleted, can make a difference to Build. It is asked of both versions.
func (o ours) concern(object Object) bool {
	if !o.built {
		return true
	}
	switch v := object.(type) {
	case nil, *discoveryv1.EndpointSlice: // these take the short way
		return false
	case *gwv1.GatewayClass:
		return v.Spec.ControllerName == v1alpha1.ControllerName
	case *gwv1.Gateway:
		return o.classes[string(v.Spec.GatewayClassName)] || o.policies[v.Namespace]
	case *gwv1.HTTPRoute:
		return o.policies[v.Namespace] || o.names(v.Namespace, v.Spec.ParentRefs)
	case *gwv1.GRPCRoute:
		return o.policies[v.Namespace] || o.names(v.Namespace, v.Spec.ParentRefs)
	case *corev1.Namespace:
		return o.selects
	case *corev1.Service, *corev1.ConfigMap:
		ref, _ := refTo(object)
		return o.refs[ref]
	case *corev1.Secret:
		ref, _ := refTo(object)
		return o.refs[ref] || slices.ContainsFunc(o.selected[v.Namespace], func(s labels.Selector) bool { return s.Matches(labels.Set(v.Labels)) })
	}
	return true
}

// names reports whether one of the parents of a route is a Gateway of ours.
func (o ours) names(namespace string, parents []gwv1.ParentReference) bool {
	for _, p := range parents {
		name := snapshot.Name{Namespace: namespace, Name: string(p.Name)}
		if p.Namespace != nil {
			name.Namespace = string(*p.Namespace)
		}
		if o.gateways[name] {
			return true
		}
	}
	return false
}

// refTo is how Build would refer to an object; not ok: to such it doesn't.
func refTo(o Object) (ref translate.Ref, ok bool) {
	switch o.(type) {
	case *corev1.Service:
		return translate.Ref{Kind: "Service", Name: identityOf(o).name}, true
	case *corev1.Secret:
		return translate.Ref{Kind: "Secret", Name: identityOf(o).name}, true
	case *corev1.ConfigMap:
		return translate.Ref{Kind: "ConfigMap", Name: identityOf(o).name}, true
	}
	return ref, false
}
