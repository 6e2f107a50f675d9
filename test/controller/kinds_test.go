package controller

import (
	"fmt"
	"testing"
)

func TestAKindComesAndGoesWithItsCRD(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	r := w.start()
	r.applied() // though there is no such kind yet
	at := w.address("gw", 80)
	w.answers(at, "/", "200 cart")

	addCRD := func() {
		if err := kubectl("apply", "--server-side", "-f", "../../config/crd/"+lateCRDs[0]); err != nil {
			t.Fatal(err)
		}
		if err := kubectl("wait", "--for=condition=Established", "crd/ratelimitpolicies.gatehouse.dev", "--timeout=30s"); err != nil {
			t.Fatal(err)
		}
	}
	deleteCRD := func() {
		if err := kubectl("delete", "crd", "ratelimitpolicies.gatehouse.dev", "--ignore-not-found", "--timeout=30s"); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(deleteCRD)
	const policy = `
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limits, namespace: SHOP}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: api}]
  limits: [{name: all, rates: [{requests: 1, window: 1h}]}]
`
	for range 2 { // a kind that comes back is as one that comes
		addCRD()
		w.eventually("the policy can be created", func() string {
			for _, o := range w.parse(policy) {
				if err := w.client.Create(t.Context(), o); err != nil {
					return err.Error()
				}
			}
			return ""
		})
		w.condition("RateLimitPolicy", "limits", "Accepted", "True Accepted")
		w.answers(at, "/", "429")
		deleteCRD()
		w.answers(at, "/", "200 cart")
		if err := r.cluster.Waiting(); err != nil {
			t.Errorf("not ready: %v", err)
		}
	}
}

func TestWhatOthersDoCostsNothing(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	r := w.start()
	r.applied()
	w.answers(w.address("gw", 80), "/", "200 cart")
	w.condition("Gateway", "gw", "Programmed", "True Programmed")

	before := r.log.built.Load()
	w.create(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: CLASS-other}
spec: {controllerName: example.com/other}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: theirs, namespace: SHOP}
spec:
  gatewayClassName: CLASS-other
  listeners: [{name: http, protocol: HTTP, port: 80}]
`)
	for i := range 20 {
		w.create(fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: theirs-%d, namespace: SHOP}
spec:
  parentRefs: [{name: theirs}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
`, i))
	}
	// Something of ours after it: what comes before has been seen by then.
	w.create(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: last, namespace: SHOP}
spec:
  parentRefs: [{name: gw}]
  hostnames: [last.example]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
`)
	w.condition("HTTPRoute", "last", "Accepted", "True Accepted")
	if n := r.log.built.Load() - before; n != 1 {
		t.Errorf("%d times Build was run, want once", n)
	}
	if said := w.conditions("HTTPRoute", "theirs-0"); len(said) > 0 {
		t.Errorf("somebody else's route was told %v", said)
	}
}
