package controller

import (
	"strings"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func TestObjectsBecomeAnswersAndStatuses(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	r.applied()
	w.backend("cart")
	w.create(basics)
	at := w.address("gw", 80)
	w.answers(at, "/", "200 cart")
	w.condition("Gateway", "gw", "Programmed", "True Programmed")
	w.condition("HTTPRoute", "api", "ResolvedRefs", "True ResolvedRefs")
	w.condition("GatewayClass", "", "SupportedVersion", "True SupportedVersion")

	w.apply(strings.Replace(basics[strings.LastIndex(basics, "\n---\n")+5:], "name: cart", "name: nope", 1))
	w.answers(at, "/", "500")
	if got := w.condition("HTTPRoute", "api", "ResolvedRefs", "False BackendNotFound"); !strings.Contains(got, "there is no Service "+w.shop+"/nope") {
		t.Errorf("told: %s", got)
	}
	w.eventually("an Event of it", func() string {
		var all eventsv1.EventList
		if err := w.client.List(t.Context(), &all, client.InNamespace(w.shop)); err != nil {
			return err.Error()
		}
		for _, e := range all.Items {
			if e.Regarding.Kind == "HTTPRoute" && e.Reason == "BackendNotFound" && e.Type == "Warning" {
				return ""
			}
		}
		return "not among those there are"
	})
}

func TestARouteThatMovesAwayIsTakenBack(t *testing.T) {
	w := newWorld(t)
	w.start().applied()
	w.backend("cart")
	w.create(basics)
	w.condition("HTTPRoute", "api", "Accepted", "True Accepted")
	w.apply(strings.Replace(basics[strings.LastIndex(basics, "\n---\n")+5:], "name: gw", "name: other", 1))
	w.eventually("the entry of the route", func() string {
		route := &gwv1.HTTPRoute{}
		if err := w.client.Get(t.Context(), types.NamespacedName{Namespace: w.shop, Name: "api"}, route); err != nil {
			return err.Error()
		}
		if len(route.Status.Parents) > 0 {
			return "still there for " + string(route.Status.Parents[0].ParentRef.Name)
		}
		return ""
	})
}
