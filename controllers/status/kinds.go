package status

import (
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
)

// kind is a kind of objects whose statuses we write.
type kind struct {
	object func() client.Object
	status func(client.Object) any // a Value
}

// kinds are all of them, by the Kind in translate.Status.
var kinds = map[string]kind{
	"GatewayClass":     kindOf(func(o *gwv1.GatewayClass) gwv1.GatewayClassStatus { return o.Status }),
	"Gateway":          kindOf(func(o *gwv1.Gateway) gwv1.GatewayStatus { return o.Status }),
	"HTTPRoute":        kindOf(func(o *gwv1.HTTPRoute) gwv1.RouteStatus { return o.Status.RouteStatus }),
	"GRPCRoute":        kindOf(func(o *gwv1.GRPCRoute) gwv1.RouteStatus { return o.Status.RouteStatus }),
	"BackendTLSPolicy": kindOf(func(o *gwv1.BackendTLSPolicy) gwv1.PolicyStatus { return o.Status }),
	"AuthPolicy":       kindOf(func(o *v1alpha1.AuthPolicy) gwv1.PolicyStatus { return o.Status }),
	"RateLimitPolicy":  kindOf(func(o *v1alpha1.RateLimitPolicy) gwv1.PolicyStatus { return o.Status }),
}

// kindOf makes a kind of how one gets at its status.
func kindOf[T any, V Value, P interface {
	*T
	client.Object
}](status func(P) V) kind {
	return kind{
		object: func() client.Object { return P(new(T)) },
		status: func(o client.Object) any { return status(o.(P)) },
	}
}

// merged is Merged without its type.
type merged struct {
	status         any
	changed, newer bool
	leftOut        []string
}

// merge is Merge for values whose type is known only now.
func merge(stored, wanted any, generation int64, now time.Time) (merged, error) {
	switch stored := stored.(type) {
	case gwv1.GatewayClassStatus:
		return mergeAs(stored, wanted, generation, now)
	case gwv1.GatewayStatus:
		return mergeAs(stored, wanted, generation, now)
	case gwv1.RouteStatus:
		return mergeAs(stored, wanted, generation, now)
	case gwv1.PolicyStatus:
		return mergeAs(stored, wanted, generation, now)
	}
	return merged{}, fmt.Errorf("%T is no status", stored)
}

func mergeAs[V Value](stored V, wanted any, generation int64, now time.Time) (merged, error) {
	value, ok := wanted.(V)
	if !ok {
		return merged{}, fmt.Errorf("a status is of type %T, not %T", stored, wanted)
	}
	m := Merge(stored, value, generation, now)
	return merged{m.Status, m.Changed, m.Newer, m.LeftOut}, nil
}
