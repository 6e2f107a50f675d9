package scenarios

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// grpcBackend is a real gRPC server with the health service, whose answers carry its name as metadata.
type grpcBackend struct {
	healthpb.UnimplementedHealthServer
	name string
	next chan healthpb.HealthCheckResponse_ServingStatus
	left chan error

	mu  sync.Mutex // guards what follows
	saw []metadata.MD
}

// grpcBackend starts one; its words may stand in "backends".
func newGRPCBackend(t *testing.T, h *house, name string) *grpcBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &grpcBackend{name: name, next: make(chan healthpb.HealthCheckResponse_ServingStatus), left: make(chan error, 10)}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, g)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	b := &backend{name: name, address: netip.MustParseAddrPort(l.Addr().String())}
	h.backends[name] = b
	h.byAddress.Store(b.address, b)
	return g
}

func (g *grpcBackend) note(ctx context.Context) {
	md, _ := metadata.FromIncomingContext(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.saw = append(g.saw, md)
}

func (g *grpcBackend) last() metadata.MD {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.saw[len(g.saw)-1]
}

func (g *grpcBackend) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	g.note(ctx)
	grpc.SetHeader(ctx, metadata.Pairs("x-backend", g.name))
	grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", g.name))
	switch r.Service {
	case "missing":
		return nil, status.Error(codes.NotFound, "no such service: 100% sure")
	case "hang":
		<-ctx.Done()
		g.left <- ctx.Err()
		return nil, ctx.Err()
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func (g *grpcBackend) Watch(_ *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	g.note(stream.Context())
	stream.SendHeader(metadata.Pairs("x-backend", g.name))
	for {
		select {
		case s, more := <-g.next:
			if !more {
				return nil
			}
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: s}); err != nil {
				return err
			}
		case <-stream.Context().Done():
			g.left <- stream.Context().Err()
			return stream.Context().Err()
		}
	}
}

const grpcGateways = `
-- objects.yaml --
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: any, port: 80, protocol: HTTP}
  - {name: bar, port: 80, protocol: HTTP, hostname: bar.com}
  - {name: foo, port: 80, protocol: HTTP, hostname: foo.bar.com}
  - {name: wild, port: 80, protocol: HTTP, hostname: "*.bar.com"}
---
`

// dial makes a gRPC client that names the authority.
func (h *house) dial(t *testing.T, authority string) healthpb.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+h.gatewayAddress(t), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

// check calls Check, and tells who answered or with which code it failed.
func check(t *testing.T, client healthpb.HealthClient, service string, pairs ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), pairs...), patience)
	defer cancel()
	var header, trailer metadata.MD
	_, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		return status.Code(err).String()
	}
	if got := strings.Join(trailer["x-trailer"], ","); got != strings.Join(header["x-backend"], ",") {
		t.Errorf("metadata in front is of %v, behind of %q", header["x-backend"], got)
	}
	return strings.Join(header["x-backend"], ",")
}

// grpcHouse has backends blue and green, and a route of rules in front of them.
func grpcHouse(t *testing.T, objects string) (h *house, blue, green *grpcBackend) {
	t.Helper()
	h = serve(t, "-- backends --\nblue: dead\ngreen: dead\n", objects)
	blue, green = newGRPCBackend(t, h, "blue"), newGRPCBackend(t, h, "green")
	h.endpoints("blue: blue")
	h.endpoints("green: green")
	return h, blue, green
}

func grpcRoute(name, more, rules string) string {
	return fmt.Sprintf("---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: %s}\nspec:\n  parentRefs: [{name: gw}]\n%s  rules:\n%s", name, more, rules)
}

func TestGRPCMethodsMatchExactly(t *testing.T) {
	t.Parallel()
	h, _, _ := grpcHouse(t, "-- objects.yaml --\n"+grpcRoute("exact", "", `
  - name: check
    matches: [{method: {service: grpc.health.v1.Health, method: Check}}]
    backendRefs: [{name: blue, port: 8080}]
  - matches: [{method: {service: grpc.health.v1.Health, method: List}}]
    backendRefs: [{name: green, port: 8080}]
`))
	client := h.dial(t, "example.com")
	if got := check(t, client, ""); got != "blue" {
		t.Errorf("Check: %s", got)
	}
	if _, err := client.List(t.Context(), &healthpb.HealthListRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("List, which goes to a backend that has none: %v", err)
	}
	stream, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("Watch, which no rule matches: %v", err)
	}
}

func TestGRPCMetadataMatches(t *testing.T) {
	t.Parallel()
	h, _, _ := grpcHouse(t, "-- objects.yaml --\n"+grpcRoute("headers", "", `
  - matches: [{headers: [{name: version, value: one}]}]
    backendRefs: [{name: blue, port: 8080}]
  - matches: [{headers: [{name: version, value: one}, {name: color, value: orange}]}, {headers: [{name: color, value: blue}]}]
    backendRefs: [{name: green, port: 8080}]
`))
	client := h.dial(t, "example.com")
	for _, c := range []struct{ want, pairs string }{
		{"blue", "version one"},
		{"green", "version one color orange"},
		{"green", "color blue"},
		{"Unimplemented", "version two"},
		{"Unimplemented", ""},
	} {
		if got := check(t, client, "", strings.Fields(c.pairs)...); got != c.want {
			t.Errorf("%q: %s, want %s", c.pairs, got, c.want)
		}
	}
}

func TestGRPCAuthoritiesAreHostnames(t *testing.T) {
	t.Parallel()
	h, _, _ := grpcHouse(t, grpcGateways+`
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: one}
spec:
  parentRefs: [{name: gw, sectionName: bar}, {name: gw, sectionName: foo}]
  rules: [{backendRefs: [{name: blue, port: 8080}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: two}
spec:
  parentRefs: [{name: gw, sectionName: wild}]
  rules: [{backendRefs: [{name: green, port: 8080}]}]
`)
	for authority, want := range map[string]string{
		"bar.com": "blue", "foo.bar.com": "blue", "foo.bar.com:80": "blue", "multiple.prefixes.bar.com": "green", "no.match": "Unimplemented",
	} {
		if got := check(t, h.dial(t, authority), ""); got != want {
			t.Errorf("%s: %s, want %s", authority, got, want)
		}
	}
}

func TestGRPCCallsOfOneConnectionAreSharedByWeight(t *testing.T) {
	t.Parallel()
	h, _, _ := grpcHouse(t, "-- objects.yaml --\n"+grpcRoute("weights", "", `
  - backendRefs:
    - {name: blue, port: 8080, weight: 70}
    - {name: green, port: 8080, weight: 30}
`))
	client := h.dial(t, "example.com")
	blue := 0
	for range 500 {
		switch got := check(t, client, ""); got {
		case "blue":
			blue++
		case "green":
		default:
			t.Fatal(got)
		}
	}
	if share := blue / 5; share < 61 || share > 79 {
		t.Errorf("blue got %d%%", share)
	}
}

func TestGRPCHeadersAreModifiedAndStatusesPass(t *testing.T) {
	t.Parallel()
	h, blue, _ := grpcHouse(t, "-- objects.yaml --\n"+grpcRoute("filters", "", `
  - filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-set, value: set}], add: [{name: x-add, value: added}], remove: [x-gone]}
    backendRefs: [{name: blue, port: 8080}]
`))
	client := h.dial(t, "example.com")
	if got := check(t, client, "", "x-gone", "1", "x-set", "old", "x-bin-bin", "\x00\xff"); got != "blue" {
		t.Fatal(got)
	}
	saw := blue.last()
	if saw.Get("x-set")[0] != "set" || saw.Get("x-add")[0] != "added" || len(saw.Get("x-gone")) > 0 || saw.Get("x-bin-bin")[0] != "\x00\xff" {
		t.Errorf("the backend saw %v", saw)
	}
	if got := saw.Get(":authority"); len(got) != 1 || got[0] != "example.com" {
		t.Errorf("authority %v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "missing"})
	if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != "no such service: 100% sure" {
		t.Errorf("a status of the backend came as %v", err)
	}
}

func TestGRPCStreamsFlowAndCancel(t *testing.T) {
	t.Parallel()
	h, blue, _ := grpcHouse(t, "-- objects.yaml --\n"+grpcRoute("all", "", "  - backendRefs: [{name: blue, port: 8080}]\n"))
	client := h.dial(t, "example.com")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		want := healthpb.HealthCheckResponse_ServingStatus(i % 3)
		select {
		case blue.next <- want:
		case <-time.After(patience):
			t.Fatal("the backend does not wait for the next message")
		}
		got, err := stream.Recv()
		if err != nil || got.Status != want {
			t.Fatalf("message %d: %v %v", i, got, err)
		}
	}
	cancel()
	receive(t, blue.left, "the backend to notice that the client cancelled")

	// A deadline of the client ends the call at the backend too.
	short, end := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer end()
	if _, err := client.Check(short, &healthpb.HealthCheckRequest{Service: "hang"}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a deadline came as %v", err)
	}
	receive(t, blue.left, "the backend to notice the deadline")

	// A stream that the backend ends, ends with its status.
	stream, err = client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	close(blue.next)
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the end of a stream came as %v", err)
	}
}

func TestGRPCFailuresOfOursAreStatuses(t *testing.T) {
	t.Parallel()
	h, _, _ := grpcHouse(t, "-- objects.yaml --\n"+grpcRoute("failures", "", `
  - name: limited
    matches: [{headers: [{name: to, value: limited}]}]
    backendRefs: [{name: blue, port: 8080}]
  - matches: [{headers: [{name: to, value: nowhere}]}]
    backendRefs: [{name: nowhere, port: 8080}]
  - matches: [{headers: [{name: to, value: dead}]}]
    backendRefs: [{name: dead, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: dead}
spec: {ports: [{name: http, port: 8080}]}
---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limited}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: failures, sectionName: limited}]
  limits: [{name: one, rates: [{requests: 1, window: 1h}]}]
`))
	client := h.dial(t, "example.com")
	for _, c := range []struct{ to, want string }{
		{"limited", "blue"}, {"limited", "ResourceExhausted"}, {"nowhere", "Unavailable"}, {"dead", "Unavailable"},
	} {
		if got := check(t, client, "", "to", c.to); got != c.want {
			t.Errorf("%s: %s, want %s", c.to, got, c.want)
		}
	}
	h.endpoints("dead: dead")
	if got := check(t, client, "", "to", "dead"); got != "Unavailable" {
		t.Errorf("a backend that refuses: %s", got)
	}
}

func TestGRPCHostnamesOfRoutesDecideBeforeMethods(t *testing.T) {
	t.Parallel()
	h, _, _ := grpcHouse(t, "-- objects.yaml --\n"+
		grpcRoute("any", "", "  - matches: [{method: {service: grpc.health.v1.Health, method: Check}}]\n    backendRefs: [{name: green, port: 8080}]\n")+
		grpcRoute("exact", "  hostnames: [shop.example.com]\n", "  - backendRefs: [{name: blue, port: 8080}]\n"))
	for authority, want := range map[string]string{"shop.example.com": "blue", "other.example.com": "green"} {
		if got := check(t, h.dial(t, authority), ""); got != want {
			t.Errorf("%s: %s, want %s", authority, got, want)
		}
	}
}
