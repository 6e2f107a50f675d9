package controllers

import (
	"cmp"
	"reflect"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

// statusKinds are the kinds in whose statuses we have entries beside those of others, policies included.
func statusKinds() []string {
	kinds := []string{"HTTPRoute", "GRPCRoute", "BackendTLSPolicy"}
	for _, p := range Policies {
		kinds = append(kinds, p.Name)
	}
	return kinds
}

// leftovers are statuses that take back what we said of objects of which there is nothing to say any more: a route that has moved to
// a Gateway of somebody else. Of those that wait for an answer, what was said stays.
func leftovers(told []translate.Status, waiting []translate.Ref, stored func(kind string) []Object) (all []translate.Status) {
	spoken := map[translate.Ref]bool{}
	for _, s := range told {
		spoken[translate.Ref{Kind: s.Kind, Name: s.Name}] = true
	}
	for _, w := range waiting {
		spoken[w] = true
	}
	for _, kind := range statusKinds() {
		for _, o := range stored(kind) {
			name := identityOf(o).name
			if spoken[translate.Ref{Kind: kind, Name: name}] {
				continue
			}
			if nothing := takenBack(o); nothing != nil {
				all = append(all, translate.Status{Kind: kind, Name: name, Generation: o.GetGeneration(), Value: nothing})
			}
		}
	}
	slices.SortFunc(all, func(a, b translate.Status) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name.String(), b.Name.String()))
	})
	return all
}

// takenBack is a status without an entry of ours, if there is one in what is stored, else nil.
func takenBack(o Object) any {
	switch s := statusOf(o).(type) {
	case gwv1.RouteStatus:
		if slices.ContainsFunc(s.Parents, func(p gwv1.RouteParentStatus) bool { return p.ControllerName == v1alpha1.ControllerName }) {
			return gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{}}
		}
	case gwv1.PolicyStatus:
		if slices.ContainsFunc(s.Ancestors, func(a gwv1.PolicyAncestorStatus) bool { return a.ControllerName == v1alpha1.ControllerName }) {
			return gwv1.PolicyStatus{Ancestors: []gwv1.PolicyAncestorStatus{}}
		}
	}
	return nil
}

// statusOf is an object's status as one of those that Build makes, or nil.
func statusOf(o Object) any {
	switch v := o.(type) {
	case *gwv1.GatewayClass:
		return v.Status
	case *gwv1.Gateway:
		return v.Status
	case *gwv1.HTTPRoute:
		return v.Status.RouteStatus
	case *gwv1.GRPCRoute:
		return v.Status.RouteStatus
	}
	field := reflect.ValueOf(o).Elem().FieldByName("Status") // our policies and others' have it in common
	if !field.IsValid() {
		return nil
	}
	if s, ok := field.Interface().(gwv1.PolicyStatus); ok {
		return s
	}
	return nil
}
