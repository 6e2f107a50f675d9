package controllers

import (
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/infra"
)

// trimmer strips objects of what nobody here reads, before they stay in memory: a cluster has tens of thousands of some.
type trimmer struct {
	namespace string // ours
	headless  string // name of the Service over our own pods
}

// bundleVersion is the annotation that says which release of the Gateway API a CRD is of.
const bundleVersion = "gateway.networking.k8s.io/bundle-version"

// trim may be called with what it returned. What it is given is its own.
func (t trimmer) trim(o Object) Object {
	o.SetManagedFields(nil)
	switch v := o.(type) {
	case *corev1.Service:
		if v.Namespace != t.namespace && v.Labels[infra.UIDLabel] == "" {
			v.Spec = corev1.ServiceSpec{Type: v.Spec.Type, Ports: v.Spec.Ports}
			v.Status = corev1.ServiceStatus{}
			bare(&v.ObjectMeta)
		}
	case *discoveryv1.EndpointSlice:
		t.slice(v)
	case *metav1.PartialObjectMetadata:
		version, ok := v.Annotations[bundleVersion] // of a CRD
		bare(&v.ObjectMeta)
		if ok {
			v.Annotations = map[string]string{bundleVersion: version}
		}
	case *corev1.Secret:
		labels, annotations := v.Labels, v.Annotations
		bare(&v.ObjectMeta)
		v.Labels = labels // they select, and say what the keys in it are good for
		for key, value := range annotations {
			if strings.HasPrefix(key, v1alpha1.GroupName+"/") { // last-applied would be the key a second time
				metav1.SetMetaDataAnnotation(&v.ObjectMeta, key, value)
			}
		}
	case *corev1.Node:
		v.Status = corev1.NodeStatus{Addresses: v.Status.Addresses, Conditions: v.Status.Conditions}
		v.Annotations = nil
	case *corev1.ConfigMap, *coordinationv1.Lease:
	default:
		o.SetAnnotations(nil)
		o.SetLabels(nil)
		o.SetFinalizers(nil)
		o.SetOwnerReferences(nil)
	}
	return o
}

// asNamespace makes the Namespace that Build looks at of its metadata.
func asNamespace(o Object) Object {
	if _, done := o.(*corev1.Namespace); done {
		return o
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(), CreationTimestamp: o.GetCreationTimestamp(), Labels: o.GetLabels(),
	}}
}

// slice keeps targetRefs and nodes of our own pods only: they tell who the members are.
func (t trimmer) slice(s *discoveryv1.EndpointSlice) {
	own := t.ownSlice(s)
	service, ok := s.Labels[discoveryv1.LabelServiceName]
	bare(&s.ObjectMeta)
	if ok {
		s.Labels = map[string]string{discoveryv1.LabelServiceName: service}
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.Hostname, e.DeprecatedTopology, e.Hints = nil, nil, nil
		if !own {
			e.TargetRef, e.NodeName = nil, nil
		}
	}
}

func (t trimmer) ownSlice(s *discoveryv1.EndpointSlice) bool {
	return s.Namespace == t.namespace && s.Labels[discoveryv1.LabelServiceName] == t.headless
}

// bare leaves of metadata what tells one object, and one version of it, from another.
func bare(m *metav1.ObjectMeta) {
	*m = metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation,
		CreationTimestamp: m.CreationTimestamp,
	}
}

// outside reports whether an object is one that Outside is told of. It is told of all Services: one that was an alias and has lost its label
// looks like any other.
func (t trimmer) outside(o Object) bool {
	switch v := o.(type) {
	case *corev1.Service:
		return true
	case *discoveryv1.EndpointSlice:
		return t.ownSlice(v)
	case *corev1.ConfigMap, *coordinationv1.Lease, *corev1.Node:
		return true
	}
	return false
}
