package writers

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr/testr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/status"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

const controllerName = "gatehouse.dev/gateway-controller"

// lead has a writer lead until the returned function is called, or the test ends.
func (s *server) lead(t *testing.T, all ...translate.Status) (w *status.Writer, stop func()) {
	w = status.NewWriter(status.Options{Client: s, Log: testr.New(t)})
	w.Told(all)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Lead(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return w, stop
}

func accepted(state metav1.ConditionStatus, message string) []metav1.Condition {
	return []metav1.Condition{{Type: "Accepted", Status: state, Reason: "Because", Message: message}}
}

func parent(name string, conditions []metav1.Condition) gwv1.RouteStatus {
	return gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{{
		ParentRef: gwv1.ParentReference{Name: gwv1.ObjectName(name)}, ControllerName: controllerName, Conditions: conditions,
	}}}
}

func ancestor(name string, conditions []metav1.Condition) gwv1.PolicyStatus {
	return gwv1.PolicyStatus{Ancestors: []gwv1.PolicyAncestorStatus{{
		AncestorRef: gwv1.ParentReference{Name: gwv1.ObjectName(name)}, ControllerName: controllerName, Conditions: conditions,
	}}}
}

func route(namespace, name string) *gwv1.HTTPRoute {
	return &gwv1.HTTPRoute{ObjectMeta: named(namespace, name), Spec: gwv1.HTTPRouteSpec{
		CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{{Name: "gw"}}},
	}}
}

func of(o client.Object, kind string, value any) translate.Status {
	return translate.Status{Kind: kind, Name: snapshot.Name{Namespace: o.GetNamespace(), Name: o.GetName()}, Generation: o.GetGeneration(), Value: value}
}

func everyKind(t *testing.T, s *server) {
	web := s.space(t, "web")
	class := &gwv1.GatewayClass{ObjectMeta: named("", web), Spec: gwv1.GatewayClassSpec{ControllerName: controllerName}}
	gateway := &gwv1.Gateway{ObjectMeta: named(web, "gw"), Spec: gwv1.GatewaySpec{
		GatewayClassName: gwv1.ObjectName(web), Listeners: []gwv1.Listener{{Name: "http", Port: 80, Protocol: gwv1.HTTPProtocolType}},
	}}
	grpc := &gwv1.GRPCRoute{ObjectMeta: named(web, "r"), Spec: gwv1.GRPCRouteSpec{CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{{Name: "gw"}}}}}
	http := route(web, "r")
	tls := &gwv1.BackendTLSPolicy{ObjectMeta: named(web, "p"), Spec: gwv1.BackendTLSPolicySpec{
		TargetRefs: []gwv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Kind: "Service", Name: "s"}}},
		Validation: gwv1.BackendTLSPolicyValidation{Hostname: "a.example.com", WellKnownCACertificates: new(gwv1.WellKnownCACertificatesSystem)},
	}}
	limits := &v1alpha1.RateLimitPolicy{}
	s.create(t, class)
	for _, o := range []client.Object{gateway, grpc, http, tls} {
		s.create(t, o)
	}
	raw := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gatehouse.dev/v1alpha1", "kind": "RateLimitPolicy", "metadata": map[string]any{"namespace": web, "name": "p"},
		"spec": map[string]any{
			"targetRefs": []any{map[string]any{"group": gwv1.GroupName, "kind": "Gateway", "name": "gw"}},
			"limits":     []any{map[string]any{"name": "all", "rates": []any{map[string]any{"requests": int64(10), "window": "1s"}}}},
		},
	}}
	s.create(t, raw)
	limits.ObjectMeta = named(web, "p")
	s.get(t, limits)

	count := int32(0)
	_, stop := s.lead(t,
		of(class, "GatewayClass", gwv1.GatewayClassStatus{Conditions: accepted("True", ""), SupportedFeatures: []gwv1.SupportedFeature{{Name: "Gateway"}}}),
		of(gateway, "Gateway", gwv1.GatewayStatus{
			Conditions: append(accepted("True", ""), metav1.Condition{Type: "Programmed", Status: "True", Reason: "Programmed"}),
			Addresses:  []gwv1.GatewayStatusAddress{{Value: "192.0.2.1"}}, AttachedListenerSets: &count,
			Listeners: []gwv1.ListenerStatus{{Name: "http", SupportedKinds: []gwv1.RouteGroupKind{{Kind: "HTTPRoute"}}, Conditions: accepted("True", "")}},
		}),
		of(grpc, "GRPCRoute", parent("gw", accepted("True", ""))),
		of(http, "HTTPRoute", parent("gw", accepted("False", "no"))),
		of(tls, "BackendTLSPolicy", ancestor("gw", accepted("True", ""))),
		of(limits, "RateLimitPolicy", ancestor("gw", accepted("True", ""))),
	)
	eventually(t, "all are written", func() bool {
		for _, o := range []client.Object{class, gateway, grpc, http, tls, limits} {
			s.get(t, o)
		}
		return len(class.Status.Conditions) == 1 && class.Status.Conditions[0].Status == "True" && len(class.Status.SupportedFeatures) == 1 &&
			len(gateway.Status.Listeners) == 1 && len(grpc.Status.Parents) == 1 && len(http.Status.Parents) == 1 &&
			len(tls.Status.Ancestors) == 1 && len(limits.Status.Ancestors) == 1
	})
	for _, c := range gateway.Status.Conditions {
		if c.ObservedGeneration != gateway.Generation || c.Status != "True" || c.LastTransitionTime.Unix() <= 0 {
			t.Errorf("the default of the CRD is there, or it is of two generations: %+v", gateway.Status.Conditions)
		}
	}
	stop()

	// And taken back: addresses, listeners and entries that are wanted no more go.
	s.lead(t,
		of(gateway, "Gateway", gwv1.GatewayStatus{Conditions: accepted("False", "")}),
		of(http, "HTTPRoute", gwv1.RouteStatus{}),
		of(limits, "RateLimitPolicy", gwv1.PolicyStatus{}),
	)
	eventually(t, "it is taken back", func() bool {
		s.get(t, gateway)
		s.get(t, http)
		s.get(t, limits)
		st := gateway.Status
		return len(st.Addresses)+len(st.Listeners)+len(http.Status.Parents)+len(limits.Status.Ancestors) == 0 && len(st.Conditions) == 1 && st.AttachedListenerSets == nil
	})
}

// rawStatus is what is stored, as it is stored.
func (s *server) rawStatus(t *testing.T, o client.Object, kind string) map[string]any {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(gwv1.GroupVersion.String())
	u.SetKind(kind)
	if err := s.Get(t.Context(), client.ObjectKeyFromObject(o), u); err != nil {
		t.Fatal(err)
	}
	raw, _ := u.Object["status"].(map[string]any)
	return raw
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// putStatus stores a status as JSON says it, as another controller would.
func (s *server) putStatus(t *testing.T, o client.Object, text string) {
	t.Helper()
	if err := s.Status().Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(`{"status":`+text+`}`))); err != nil {
		t.Fatal(err)
	}
}

func foreignStays(t *testing.T, s *server) {
	web := s.space(t, "web")
	r := route(web, "r")
	s.create(t, r)
	// A time with a fraction is one that our types round.
	const theirs = `{"conditions":[{"lastTransitionTime":"2026-01-02T03:04:05.123456Z","message":"m","observedGeneration":7,"reason":"R","status":"True","type":"Accepted"}],` +
		`"controllerName":"example.com/other","parentRef":{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"gw"}}`
	const odd = `{"lastTransitionTime":"2026-01-02T03:04:05.5Z","message":"m","reason":"R","status":"True","type":"example.com/Odd"}`
	s.putStatus(t, r, `{"parents":[{"controllerName":"`+controllerName+`","parentRef":{"name":"old"},"conditions":[`+odd+`]},`+theirs+
		`,{"controllerName":"`+controllerName+`","parentRef":{"name":"gw"},"conditions":[`+odd+`]}]}`)
	for _, state := range []metav1.ConditionStatus{"True", "False"} {
		_, stop := s.lead(t, of(r, "HTTPRoute", parent("gw", accepted(state, string(state)))))
		eventually(t, "ours is written", func() bool {
			return strings.Contains(encoded(t, s.rawStatus(t, r, "HTTPRoute")), `"message":"`+string(state)+`"`)
		})
		stop()
		text := encoded(t, s.rawStatus(t, r, "HTTPRoute"))
		if !strings.Contains(text, theirs) || !strings.Contains(text, odd) || strings.Contains(text, `"old"`) {
			t.Errorf("stored is %s", text)
		}
	}

	g := &gwv1.Gateway{ObjectMeta: named(web, "gw"), Spec: gwv1.GatewaySpec{
		GatewayClassName: "gatehouse", Listeners: []gwv1.Listener{{Name: "http", Port: 80, Protocol: gwv1.HTTPProtocolType}},
	}}
	s.create(t, g)
	s.putStatus(t, g, `{"conditions":[`+odd+`],"listeners":[{"name":"http","attachedRoutes":3,"supportedKinds":[],"conditions":[`+odd+`]}]}`)
	s.lead(t, of(g, "Gateway", gwv1.GatewayStatus{Conditions: accepted("True", ""), Listeners: []gwv1.ListenerStatus{{Name: "http", Conditions: accepted("True", "")}}}))
	eventually(t, "ours is written", func() bool { return strings.Count(encoded(t, s.rawStatus(t, g, "Gateway")), `"Accepted"`) == 2 })
	if text := encoded(t, s.rawStatus(t, g, "Gateway")); strings.Count(text, odd) != 2 || strings.Contains(text, `"attachedRoutes":3`) {
		t.Errorf("stored is %s", text)
	}
}

func writersRace(t *testing.T, s *server) {
	web := s.space(t, "web")
	r := route(web, "r")
	s.create(t, r)
	const times = 40
	var all sync.WaitGroup
	all.Go(func() { // another controller, which does it as we do
		for i := range times {
			change(t, s, route(web, "r"), func(o *gwv1.HTTPRoute) {
				entry := parent("gw", accepted("True", fmt.Sprint(i))).Parents[0]
				entry.ControllerName, entry.Conditions[0].LastTransitionTime = "example.com/other", metav1.Now()
				if len(o.Status.Parents) == 0 || o.Status.Parents[0].ControllerName != entry.ControllerName {
					o.Status.Parents = append([]gwv1.RouteParentStatus{entry}, o.Status.Parents...)
				} else {
					o.Status.Parents[0] = entry
				}
			}, s.updateStatus)
		}
	})
	w, _ := s.lead(t)
	for i := range times {
		w.Told([]translate.Status{of(r, "HTTPRoute", parent("gw", accepted("True", fmt.Sprint("ours ", i))))})
		s.get(t, r)
	}
	all.Wait()
	eventually(t, "both have the last word", func() bool {
		s.get(t, r)
		p := r.Status.Parents
		return len(p) == 2 && p[0].Conditions[0].Message == fmt.Sprint(times-1) && p[1].Conditions[0].Message == fmt.Sprint("ours ", times-1)
	})
}

func nothingToWrite(t *testing.T, s *server) {
	web := s.space(t, "web")
	var all []translate.Status
	for i := range 200 {
		r := route(web, fmt.Sprintf("r%d", i))
		s.create(t, r)
		all = append(all, of(r, "HTTPRoute", parent("gw", accepted("True", "as before"))))
	}
	written := func() (n int, versions string) {
		var list gwv1.HTTPRouteList
		if err := s.List(t.Context(), &list, client.InNamespace(web)); err != nil {
			t.Fatal(err)
		}
		for _, r := range list.Items {
			if len(r.Status.Parents) > 0 && r.Status.Parents[0].Conditions[0].Message == "as before" {
				n++
			}
			versions += " " + r.ResourceVersion
		}
		return n, versions
	}
	_, stop := s.lead(t, all...)
	eventually(t, "all are written", func() bool { n, _ := written(); return n == len(all) })
	stop()

	// Another one leads. Once it has written what is new it has looked at all others.
	r := route(web, "new")
	s.create(t, r)
	_, before := written()
	all = append(all, of(r, "HTTPRoute", parent("gw", accepted("True", "new"))))
	s.lead(t, all...)
	eventually(t, "what is new is written", func() bool { s.get(t, r); return len(r.Status.Parents) > 0 })
	s.remove(t, r)
	_, after := written()
	if want := strings.TrimSpace(before); !contains(want, after) {
		t.Error("others were written")
	}
}

// contains reports whether all words are there but one at most: that of the route that is gone.
func contains(words, text string) bool {
	missing := 0
	for _, w := range strings.Fields(words) {
		if !strings.Contains(text+" ", " "+w+" ") {
			missing++
		}
	}
	return missing <= 1
}

func earlierObject(t *testing.T, s *server) {
	r := route(s.space(t, "web"), "r")
	s.create(t, r)
	for i := range 3 {
		change(t, s, r, func(o *gwv1.HTTPRoute) {
			o.Spec.Hostnames = []gwv1.Hostname{gwv1.Hostname(fmt.Sprintf("h%d.example.com", i))}
		}, s.update)
	}
	s.get(t, r)
	before := of(r, "HTTPRoute", parent("gw", accepted("True", "before")))
	s.remove(t, r)
	r = route(r.Namespace, "r")
	s.create(t, r)
	w, _ := s.lead(t, before)
	other := route(r.Namespace, "other")
	s.create(t, other)
	w.Told([]translate.Status{before, of(other, "HTTPRoute", parent("gw", accepted("True", "")))})
	eventually(t, "another one is written", func() bool { s.get(t, other); return len(other.Status.Parents) > 0 })
	w.Told([]translate.Status{of(r, "HTTPRoute", parent("gw", accepted("True", "after")))})
	eventually(t, "the new one has its own", func() bool { s.get(t, r); return len(r.Status.Parents) > 0 })
	if c := r.Status.Parents[0].Conditions[0]; c.Message != "after" || c.ObservedGeneration != 1 {
		t.Errorf("%+v", c)
	}
}
