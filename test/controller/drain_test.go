package controller

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
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

// program is the binary, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gatehouse-controller-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gatehouse")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/gatehouse").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return path, nil
})

// freePort is one that nobody has now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestTheProcessLeavesInOrder(t *testing.T) {
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(path)) })
	w := newWorld(t)
	port, health := freePort(t), freePort(t)
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
	cmd := exec.Command(path, "controller", "--kubeconfig="+control.Kubeconfig, "--namespace="+w.release, "--pod-name=gatehouse-a",
		"--pod-uid="+w.podUID(), "--exposure=host", fmt.Sprintf("--health-address=127.0.0.1:%d", health), "--admin-address=", "--access-log=",
		"--drain-delay=2s", "--drain-timeout=5s")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })

	ready := func() string { return get(fmt.Sprintf("127.0.0.1:%d", health), "localhost", "/readyz") }
	w.eventually("it is ready", func() string {
		if got := ready(); got != "200 ok" {
			return got
		}
		return ""
	})
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

	cmd.Process.Signal(syscall.SIGTERM)
	began := time.Now()
	w.within(time.Second, "it is not ready any more", func() string {
		if got := ready(); !strings.HasPrefix(got, "503") {
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
	select {
	case err := <-exited:
		if err != nil || time.Since(began) < 2*time.Second {
			t.Errorf("it ended after %s: %v\n%s", time.Since(began), err, said.String())
		}
	case <-time.After(15 * time.Second):
		t.Errorf("it does not end:\n%s", said.String())
	}
	for line := range strings.Lines(said.String()) {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("a line of the log is not JSON: %s", line)
		}
	}
}
