package controllers

import (
	"maps"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// same reports whether two versions of an object mean the same to Build and to the table of endpoints. The status of an object never
// counts: our own writes would wake us. What has a generation has it for that; the kinds without one are compared.
func same(a, b Object) bool {
	if a.GetUID() != b.GetUID() || !a.GetCreationTimestamp().Time.Equal(b.GetCreationTimestamp().Time) {
		return false // another one of that name; among files the time is the place
	}
	switch x := a.(type) {
	case *corev1.Service:
		y := b.(*corev1.Service)
		return x.Spec.Type == y.Spec.Type && equality.Semantic.DeepEqual(x.Spec.Ports, y.Spec.Ports)
	case *corev1.Secret:
		y := b.(*corev1.Secret)
		return x.Type == y.Type && reflect.DeepEqual(x.Data, y.Data) && maps.Equal(x.Labels, y.Labels) && maps.Equal(x.Annotations, y.Annotations)
	case *corev1.ConfigMap:
		y := b.(*corev1.ConfigMap)
		return maps.Equal(x.Data, y.Data) && reflect.DeepEqual(x.BinaryData, y.BinaryData)
	case *corev1.Namespace:
		return reflect.DeepEqual(x.Labels, b.GetLabels())
	case *discoveryv1.EndpointSlice:
		y := b.(*discoveryv1.EndpointSlice)
		return x.AddressType == y.AddressType && equality.Semantic.DeepEqual(x.Ports, y.Ports) && equality.Semantic.DeepEqual(x.Endpoints, y.Endpoints) &&
			x.Labels[discoveryv1.LabelServiceName] == y.Labels[discoveryv1.LabelServiceName]
	}
	return a.GetGeneration() == b.GetGeneration() && a.GetGeneration() != 0
}
