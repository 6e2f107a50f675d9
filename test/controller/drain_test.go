package controller

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-dev/gatehouse/test/process"
)

func TestADrainingReplicaStillFollowsItsEndpoints(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	r := w.start()
	r.applied()
	at := w.address("gw", 80)
	w.answers(at, "/", "200 cart")

	r.leave()
	if err := r.plane.Ready(); err == nil {
		t.Error("it is still ready")
	}
	other := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "moved") }))
	t.Cleanup(other.Close)
	_, port, _ := net.SplitHostPort(other.Listener.Addr().String())
	w.apply(fmt.Sprintf(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: SHOP, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: %s}]
endpoints: [{addresses: [192.0.2.1]}]
`, port))
	w.answers(at, "/", "200 moved")
}

func TestTheProcessLeavesInOrder(t *testing.T) {
	w := newWorld(t)
	port := process.FreePort(t)
	w.create(fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: CLASS}
spec: {controllerName: gatehouse.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: SHOP}
spec:
  gatewayClassName: CLASS
  addresses: [{value: 127.0.0.1}]
  listeners: [{name: http, protocol: HTTP, port: %d}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: hello, namespace: SHOP}
spec:
  parentRefs: [{name: gw}]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: there.example}}]}]
`, port))
	p := process.New(t)
	p.Start("controller", "--kubeconfig="+control.Kubeconfig, "--namespace="+w.release, "--pod-name=gatehouse-a", "--pod-uid="+w.podUID(),
		"--exposure=host", "--drain-delay=2s", "--drain-timeout=5s")
	serves := func() string { // that no request fails is asked without the client's own retries
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		io.Copy(io.Discard, response.Body)
		return response.Status
	}
	if got := serves(); got != "302 Found" {
		t.Fatalf("served: %s", got)
	}
	w.condition("Gateway", "gw", "Accepted", "True Accepted")

	p.Signal(syscall.SIGTERM)
	began := time.Now()
	w.within(time.Second, "it is not ready any more", func() string {
		if got := get(p.Health, "localhost", "/readyz"); !strings.HasPrefix(got, "503") {
			return got
		}
		return ""
	})
	w.within(2*time.Second, "the lease is released", func() string {
		l := &coordinationv1.Lease{}
		if err := w.client.Get(context.Background(), types.NamespacedName{Namespace: w.release, Name: "gatehouse-leader"}, l); err != nil {
			return err.Error()
		}
		if h := l.Spec.HolderIdentity; h != nil && *h != "" {
			return "held by " + *h
		}
		return ""
	})
	for time.Since(began) < 1500*time.Millisecond {
		if got := serves(); got != "302 Found" {
			t.Fatalf("%s after SIGTERM: %s", time.Since(began), got)
		}
	}
	if code := p.Exits(); code != 0 || time.Since(began) < 2*time.Second || time.Since(began) > 15*time.Second {
		t.Errorf("it ended after %s: %d", time.Since(began), code)
	}
	for line := range strings.Lines(p.Said()) {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("a line of the log is not JSON: %s", line)
		}
	}
}
