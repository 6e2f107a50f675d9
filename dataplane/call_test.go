package dataplane

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/outbound"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/wiretest"
)

// names is a resolver of a fixed set.
type names map[string]string

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := n[host]; ok {
		return []netip.Addr{netip.MustParseAddr(a)}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// house is a data plane that serves nothing, and calls.
func house(t *testing.T, change func(*Settings)) *DataPlane {
	t.Helper()
	s := Defaults()
	s.LocalEndpoints = true
	if change != nil {
		change(&s)
	}
	d := New(Options{
		Settings: s, Engine: nethttp.New(), Transport: nethttp.NewTransport,
		Resolver: names{"login.example.": "127.0.0.1", "metadata.example.": "169.254.169.254"},
	})
	t.Cleanup(func() {
		d.backends.Close()
		d.Shutdown(context.Background())
	})
	return d
}

// callTo is the Caller that a filter gets for a backend of the snapshot.
func callTo(t *testing.T, d *DataPlane, b snapshot.Backend, endpoints ...string) filter.Caller {
	t.Helper()
	if b.Outside == nil {
		set := snapshot.Endpoints{Backend: b.Ref}
		for _, e := range endpoints {
			set.Endpoints = append(set.Endpoints, snapshot.Endpoint{Address: netip.MustParseAddrPort(e)})
		}
		d.SetEndpoints([]snapshot.Endpoints{set})
	}
	things, handles := d.keep.Begin(), d.options.Telemetry.Round()
	defer things.End()
	build := d.builder(things, handles)
	build.Backends(b)
	call, err := build.Env(snapshot.RuleKey{}).Call(b.Ref)
	if err != nil {
		t.Fatal(err)
	}
	return call
}

var authz = snapshot.BackendRef{Service: snapshot.Name{Namespace: "infra", Name: "authz"}, Port: 9000}

func get(path string) *message.Exchange {
	return &message.Exchange{Request: message.Request{Method: "GET", Target: message.Target{Path: path}}}
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func wantReason(t *testing.T, err error, reason message.Reason) {
	t.Helper()
	var known *message.Error
	if !errors.As(err, &known) || known.Reason != reason {
		t.Errorf("error %v, want %s", err, reason)
	}
}

func TestABackendThatTheSnapshotDoesNotNameCannotBeCalled(t *testing.T) {
	d := house(t, nil)
	things := d.keep.Begin()
	defer things.End()
	if _, err := d.builder(things, d.options.Telemetry.Round()).Env(snapshot.RuleKey{}).Call(authz); err == nil {
		t.Error("it can")
	}
}

func TestACallIsTriedOnTheNextEndpointWhenNoByteWasSent(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, body)
	})
	call := callTo(t, house(t, nil), snapshot.Backend{Ref: authz}, nobody(t), addr)
	for range 20 {
		ex := get("/check")
		ex.Request.Method, ex.Request.Body = "POST", message.BodyOf([]byte("who"))
		if err := call.Do(context.Background(), ex); err != nil {
			t.Fatal(err)
		}
		if got, err := wiretest.ReadAll(ex.Response.Body); got != "POST authz.infra:9000 who" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func TestACallWithoutEndpointsSaysSo(t *testing.T) {
	d := house(t, nil)
	wantReason(t, callTo(t, d, snapshot.Backend{Ref: authz}).Do(context.Background(), get("/")), message.ReasonNoEndpoint)
	wantReason(t, callTo(t, d, snapshot.Backend{Ref: authz}, nobody(t)).Do(context.Background(), get("/")), message.ReasonConnectFailed)
}

func TestACallerWorksWhenItsPlanIsGone(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	d := house(t, nil)
	call := callTo(t, d, snapshot.Backend{Ref: authz}, addr)
	away := callTo(t, d, snapshot.Backend{Ref: snapshot.BackendRef{Outside: "login.example", Port: portOf(addr)}, Outside: &snapshot.Outside{}})
	for range 3 {
		d.keep.Begin().End() // plans that name neither
		for _, c := range []filter.Caller{call, away} {
			ex := get("/")
			if err := c.Do(context.Background(), ex); err != nil {
				t.Fatal(err)
			}
			if got, err := wiretest.ReadAll(ex.Response.Body); got != "ok" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
		}
	}
}

func portOf(addr string) uint16 { return netip.MustParseAddrPort(addr).Port() }

// The context bounds a call to the end of its answer's body, and what it held is free again.
func TestACallEndsWithItsContext(t *testing.T) {
	gone := make(chan struct{}, 10)
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			io.WriteString(w, "hel")
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
		gone <- struct{}{}
	})
	call := callTo(t, house(t, nil), snapshot.Backend{Ref: authz}, addr)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	wantReason(t, call.Do(ctx, get("/head")), message.ReasonAttemptTimeout)
	<-gone

	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	ex := get("/body")
	if err := call.Do(ctx, ex); err != nil {
		t.Fatal(err)
	}
	_, err := wiretest.ReadAll(ex.Response.Body)
	wantReason(t, err, message.ReasonAttemptTimeout)
	<-gone

	ctx, cancel = context.WithCancel(context.Background())
	ex = get("/body")
	if err := call.Do(ctx, ex); err != nil {
		t.Fatal(err)
	}
	cancel() // nobody reads
	<-gone
	wantBusy(t, call, 0)
}

// wantBusy waits until so many calls are under way to the endpoints.
func wantBusy(t *testing.T, call filter.Caller, want int64) {
	t.Helper()
	wiretest.Await(t, "the endpoints to be free", func() bool { return call.(*caller).to.backend.Active() == want }, func() string {
		return fmt.Sprint(call.(*caller).to.backend.Active())
	})
}

func TestACallIsOverWithItsBody(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1<<20)) })
	call := callTo(t, house(t, nil), snapshot.Backend{Ref: authz}, addr)
	for _, end := range []func(*message.Response){
		func(r *message.Response) { wiretest.ReadAll(r.Body) },
		func(r *message.Response) { r.Drop(nil) },
		func(r *message.Response) { r.Body.Next(); r.Drop(nil); r.Drop(nil) },
	} {
		ex := get("/")
		if err := call.Do(context.Background(), ex); err != nil {
			t.Fatal(err)
		}
		wantBusy(t, call, 1)
		end(ex.Response)
		wantBusy(t, call, 0)
	}
}

func TestAnAttemptOfACallHasItsOwnTime(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	call := callTo(t, house(t, func(s *Settings) { s.AttemptTimeout = 30 * time.Millisecond }), snapshot.Backend{Ref: authz}, addr)
	wantReason(t, call.Do(context.Background(), get("/")), message.ReasonAttemptTimeout)
	wantBusy(t, call, 0)
}

// abroad is a backend outside over TLS, and what it was asked.
func abroad(t *testing.T, h http.HandlerFunc) snapshot.Backend {
	t.Helper()
	certificate, root := wiretest.Certificate(t, "login.example")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	t.Cleanup(func() { srv.Close() })
	return snapshot.Backend{
		Ref: snapshot.BackendRef{Outside: "login.example", Port: portOf(l.Addr().String())},
		Outside: &snapshot.Outside{
			TLS: true, Roots: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}),
		},
	}
}

func TestAHostOutsideIsCalledOverTLSAndNothingIsFollowed(t *testing.T) {
	var asked atomic.Int32
	b := abroad(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
		case "/keys":
			fmt.Fprint(w, `{"keys":[]}`)
		case "/large":
			for range 2000 {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<10)); err != nil {
					return
				}
			}
		}
	})
	client := outbound.Client(callTo(t, house(t, nil), b), outbound.Options{})
	base := fmt.Sprintf("https://login.example:%d", b.Ref.Port)

	if body, _, err := outbound.Fetch(context.Background(), client, base+"/keys", 1<<10); string(body) != `{"keys":[]}` || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	_, _, err := outbound.Fetch(context.Background(), client, base+"/away", 1<<10)
	if err == nil || !strings.Contains(err.Error(), "status 302") || asked.Load() != 2 {
		t.Errorf("a redirect: %v, %d requests", err, asked.Load())
	}
	if _, _, err = outbound.Fetch(context.Background(), client, base+"/large", 1<<10); !errors.Is(err, message.ErrTooLarge) {
		t.Errorf("a large answer: %v", err)
	}
	// What a library has read somewhere does not lead it elsewhere.
	before := asked.Load()
	for _, url := range []string{
		"https://other.example/keys", "https://login.example/keys", strings.Replace(base, "https", "http", 1) + "/keys", "http://169.254.169.254/",
	} {
		_, _, err := outbound.Fetch(context.Background(), client, url, 1<<10)
		wantReason(t, err, message.ReasonBadHost)
	}
	if asked.Load() != before {
		t.Error("a request for another host was sent")
	}
}

func TestAHostOutsideThatCannotProveItsNameIsNotCalled(t *testing.T) {
	var asked atomic.Int32
	b := abroad(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	b.Outside.Roots = nil // the system's do not know it
	wantReason(t, callTo(t, house(t, nil), b).Do(context.Background(), get("/")), message.ReasonTLSFailed)
	if asked.Load() != 0 {
		t.Error("it was asked")
	}
}

func TestAHostOutsideOnThisMachineIsCalledOnlyWhereEndpointsMayBeOnIt(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	b := snapshot.Backend{Ref: snapshot.BackendRef{Outside: "login.example", Port: portOf(addr)}, Outside: &snapshot.Outside{Private: true}}
	if err := callTo(t, house(t, nil), b).Do(context.Background(), get("/")); err != nil {
		t.Error(err)
	}
	wantReason(t, callTo(t, house(t, func(s *Settings) { s.LocalEndpoints = false }), b).Do(context.Background(), get("/")), message.ReasonNoEndpoint)
	b.Ref.Outside = "metadata.example"
	wantReason(t, callTo(t, house(t, nil), b).Do(context.Background(), get("/")), message.ReasonNoEndpoint)
}

// A request that calls itself comes to an end, and what a client presented to us is not told to whom we ask.
func TestACallOfAnExchangeIsAForkOfIt(t *testing.T) {
	var seen http.Header
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) { seen = r.Header })
	client := outbound.Client(callTo(t, house(t, nil), snapshot.Backend{Ref: authz}, addr), outbound.Options{})
	ex := &message.Exchange{ID: "7", Trace: message.Trace{Traceparent: "00-11111111111111111111111111111111-2222222222222222-01"}}
	ex.Request.Header.Add("Authorization", "Bearer secret")
	ex.Request.Header.Add("Cookie", "session=secret")
	if _, _, err := outbound.Fetch(outbound.For(ex), client, "http://authz/", 1); err != nil {
		t.Fatal(err)
	}
	if seen.Get("X-Request-Id") != "7" || seen.Get("Traceparent") != ex.Trace.Traceparent || seen.Get("Authorization")+seen.Get("Cookie") != "" {
		t.Errorf("told %v", seen)
	}
	ex.Depth = 3
	_, _, err := outbound.Fetch(outbound.For(ex), client, "http://authz/", 1)
	wantReason(t, err, message.ReasonTooManyForks)
	ex.Depth = 0
	ex.Cancel(&message.Error{Reason: message.ReasonClientLeft})
	_, _, err = outbound.Fetch(outbound.For(ex), client, "http://authz/", 1)
	wantReason(t, err, message.ReasonClientLeft)
}

// doctor is a gRPC server of health's.
type doctor struct {
	healthpb.UnimplementedHealthServer
	mu   sync.Mutex
	told metadata.MD
}

func (d *doctor) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	d.mu.Lock()
	d.told, _ = metadata.FromIncomingContext(ctx)
	d.mu.Unlock()
	switch r.Service {
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	case "unknown":
		return nil, status.Error(codes.NotFound, "unknown service: 100% café")
	}
	grpc.SetHeader(ctx, metadata.Pairs("x-head", "1"))
	grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "2"))
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func (d *doctor) Watch(r *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	for i := range 3 {
		if err := s.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_ServingStatus(i)}); err != nil {
			return err
		}
	}
	if r.Service == "endless" {
		<-s.Context().Done()
		return s.Context().Err()
	}
	return status.Error(codes.Aborted, "enough")
}

func TestAGRPCServiceIsCalledByAGeneratedClient(t *testing.T) {
	certificate, root := wiretest.Certificate(t, "login.example")
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var options []grpc.ServerOption
			b := snapshot.Backend{Ref: authz}
			if secure {
				options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&certificate)))
				b.Ref = snapshot.BackendRef{Outside: "login.example", Port: portOf(l.Addr().String())}
				b.Outside = &snapshot.Outside{TLS: true, Roots: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})}
			}
			srv, health := grpc.NewServer(options...), new(doctor)
			healthpb.RegisterHealthServer(srv, health)
			go srv.Serve(l)
			t.Cleanup(srv.Stop)
			call := callTo(t, house(t, nil), b, l.Addr().String())
			converse(t, healthpb.NewHealthClient(outbound.Conn(call, outbound.Options{Timeout: 5 * time.Second})), health)
			wantBusy(t, call, 0)
		})
	}
}

func converse(t *testing.T, client healthpb.HealthClient, health *doctor) {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-told", "yes", "x-bytes-bin", "\x00\xff")
	var head, tail metadata.MD
	for range 3 {
		r, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&head), grpc.Trailer(&tail))
		if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING || strings.Join(head["x-head"], "") != "1" || strings.Join(tail["x-tail"], "") != "2" {
			t.Fatalf("%v, %v, head %v, tail %v", r, err, head, tail)
		}
	}
	health.mu.Lock()
	if health.told.Get("x-told")[0] != "yes" || health.told.Get("x-bytes-bin")[0] != "\x00\xff" {
		t.Errorf("told %v", health.told)
	}
	health.mu.Unlock()
	_, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "unknown"})
	if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != "unknown service: 100% café" {
		t.Errorf("error %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err = client.Check(short, &healthpb.HealthCheckRequest{Service: "slow"}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("slow: %v", err)
	}

	for _, service := range []string{"", "endless"} {
		short, cancel := context.WithCancel(ctx)
		w, err := client.Watch(short, &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			var r *healthpb.HealthCheckResponse
			if r, err = w.Recv(); err != nil || int(r.Status) != i {
				t.Fatalf("message %d: %v, %v", i, r, err)
			}
		}
		want := codes.Aborted
		if service == "endless" {
			cancel()
			want = codes.Canceled
		}
		if _, err = w.Recv(); status.Code(err) != want {
			t.Errorf("%q ended with %v, want %v", service, err, want)
		}
		cancel()
	}
}

func TestAGRPCServiceThatIsNoneIsAnError(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		code    codes.Code
	}{
		{"a page", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, codes.Unknown},
		{"503", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, codes.Unavailable},
		{"no status", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Write([]byte{0, 0, 0, 0, 0})
		}, codes.Internal},
		{"cut in a message", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			w.Write([]byte{0, 0, 0, 0, 9, 1})
			w.Header().Set("Grpc-Status", "0")
		}, codes.Internal},
		{"a gigabyte", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Write([]byte{0, 0x40, 0, 0, 0})
		}, codes.ResourceExhausted},
		{"compressed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Write([]byte{1, 0, 0, 0, 0})
		}, codes.Internal},
		{"no message", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "0")
		}, codes.Internal},
		{"no protobuf", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			w.Write([]byte{0, 0, 0, 0, 1, 0xff})
			w.Header().Set("Grpc-Status", "0")
		}, codes.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: c.handler, Protocols: new(http.Protocols)}
			srv.Protocols.SetUnencryptedHTTP2(true)
			go srv.Serve(l)
			t.Cleanup(func() { srv.Close() })
			call := callTo(t, house(t, nil), snapshot.Backend{Ref: authz}, l.Addr().String())
			_, err = healthpb.NewHealthClient(outbound.Conn(call, outbound.Options{})).Check(context.Background(), &healthpb.HealthCheckRequest{})
			if status.Code(err) != c.code {
				t.Errorf("%v, want %v", err, c.code)
			}
			wantBusy(t, call, 0)
		})
	}
}
