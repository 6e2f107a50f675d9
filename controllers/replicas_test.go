package controllers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMembersAreTheReadyReplicasAndThisOne(t *testing.T) {
	var told int
	trim := trimmer{namespace: "gatehouse-system", headless: "members"}
	r := &replicas{self: "a", told: func(n int) { told = n }, own: trim.ownSlice}
	slice := func(name, service string, pods map[string]bool) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
			Namespace: "gatehouse-system", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service},
		}}
		for pod, ready := range pods {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod},
			})
		}
		return s
	}
	for _, step := range []struct {
		what string
		do   func()
		want int
	}{
		{"another Service's", func() { r.set([]Object{slice("x", "shop", map[string]bool{"q": true})}) }, 0},
		{"others are ready, we are not yet", func() { r.set([]Object{slice("v4", "members", map[string]bool{"a": false, "b": true, "c": true})}) }, 3},
		{"we are", func() { r.set([]Object{slice("v4", "members", map[string]bool{"a": true, "b": true, "c": true})}) }, 3},
		{"the other family says the same", func() { r.set([]Object{slice("v6", "members", map[string]bool{"a": true, "b": true, "c": true})}) }, 3},
		{"a second slice", func() { r.set([]Object{slice("v4-2", "members", map[string]bool{"d": true, "e": false})}) }, 4},
		{"one has left", func() { r.delete([]Object{slice("v4-2", "members", nil)}) }, 3},
		{"all have", func() { r.set([]Object{slice("v4", "members", nil), slice("v6", "members", nil)}) }, 1},
	} {
		if step.do(); told != step.want {
			t.Errorf("%s: %d members, want %d", step.what, told, step.want)
		}
	}
}
