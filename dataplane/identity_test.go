package dataplane

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
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
	"google.golang.org/grpc/credentials/insecure"
	healthgrpc "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/jwt"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
)

var tokenKey = bytes.Repeat([]byte("k"), 32)

// token is a JWT of ann that expires then.
func token(expires time.Time) string {
	enc := base64.RawURLEncoding.EncodeToString
	head := enc([]byte(`{"alg":"HS256","kid":"k"}`)) + "." + enc(fmt.Appendf(nil, `{"iss":"us","sub":"ann","exp":%d}`, expires.Unix()))
	mac := hmac.New(sha256.New, tokenKey)
	mac.Write([]byte(head))
	return head + "." + enc(mac.Sum(nil))
}

// lines is an access log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// on is the line of the path, waited for.
func (l *lines) on(t *testing.T, path string) map[string]any {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		l.mu.Lock()
		text := l.text.String()
		l.mu.Unlock()
		for line := range strings.Lines(text) {
			var m map[string]any
			if json.Unmarshal([]byte(line), &m) == nil && m["path"] == path {
				return m
			}
		}
	}
	t.Fatalf("no line of %s", path)
	return nil
}

// guarded is a data plane whose one rule wants a token, before a backend of HTTP (under /) and one of gRPC.
type guarded struct {
	addr string
	log  *lines
	past atomic.Int64 // nanoseconds by which its clock is ahead
}

func newGuarded(t *testing.T, web, calls string) *guarded {
	t.Helper()
	g := &guarded{log: &lines{}}
	seen, err := telemetry.New(telemetry.Options{Log: g.log})
	if err != nil {
		t.Fatal(err)
	}
	s := Defaults()
	s.LocalEndpoints = true
	plane := New(Options{
		Settings: s, Engine: nethttp.New(), Transport: nethttp.NewTransport, Telemetry: seen,
		Clock: func() time.Time { return time.Now().Add(time.Duration(g.past.Load())) },
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		plane.Shutdown(ctx)
		plane.backends.Close()
		seen.Close(ctx)
	})

	gateway, shop := snapshot.Name{Namespace: "infra", Name: "gw"}, snapshot.Name{Namespace: "shop", Name: "shop"}
	policy := auth.Policy{Name: snapshot.Name{Namespace: "shop", Name: "api"}, Methods: []auth.Method{{Name: "customers", JWT: &jwt.Config{
		Issuer: "us", Algorithms: []string{"HS256"},
		Keys: jwt.Keys{Inline: fmt.Appendf(nil, `{"keys":[{"kty":"oct","kid":"k","alg":"HS256","k":%q}]}`, base64.RawURLEncoding.EncodeToString(tokenKey))},
	}}}}
	var snap snapshot.Snapshot
	host := snapshot.Host{}
	for i, b := range []struct{ path, addr string }{{"/", web}, {"/grpc.health.v1.Health", calls}} {
		ref := snapshot.BackendRef{Service: shop, Port: uint16(1 + i)}
		host.Matches = append(host.Matches, snapshot.Match{Path: snapshot.PathMatch{Kind: snapshot.PathPrefix, Value: b.path}, Rule: &snapshot.Rule{
			Key: snapshot.RuleKey{Kind: "HTTPRoute", Route: shop, Rule: i}, Filters: []snapshot.Filter{auth.Config{Policies: []auth.Policy{policy}}},
			Backends: []snapshot.WeightedBackend{{Ref: ref, Weight: 1}},
		}})
		snap.Backends = append(snap.Backends, snapshot.Backend{Ref: ref})
		plane.SetEndpoints([]snapshot.Endpoints{{Backend: ref, Endpoints: []snapshot.Endpoint{{Address: netip.MustParseAddrPort(b.addr)}}}})
	}
	g.addr = nobody(t)
	key := snapshot.SocketKey{Gateway: gateway, Address: netip.MustParseAddrPort(g.addr).Addr(), Port: netip.MustParseAddrPort(g.addr).Port()}
	snap.Sockets = []snapshot.Socket{{Key: key, SpecPort: 80, Protocol: snapshot.HTTP, Listeners: []*snapshot.Listener{{
		Key: snapshot.ListenerKey{Gateway: gateway, Section: "http"}, Hosts: []snapshot.Host{host},
	}}}}
	if err := plane.Apply(&snap).Sockets[0].Err; err != nil {
		t.Fatal(err)
	}
	return g
}

// Over the wires that there are: an event stream, a WebSocket, a gRPC stream, and an upload that trickles.
func TestAStreamDoesNotOutliveTheTokenByWhichItCameIn(t *testing.T) {
	left := make(chan string, 8)
	web := serve(t, func(w http.ResponseWriter, r *http.Request) {
		defer func() { left <- r.URL.Path }()
		switch r.URL.Path {
		case "/socket":
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
			buffered.Flush()
			io.Copy(io.Discard, conn)
		case "/upload":
			io.Copy(io.Discard, r.Body)
		default:
			fmt.Fprint(w, "data: hello\n\n")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})
	health := grpc.NewServer()
	healthpb.RegisterHealthServer(health, healthgrpc.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go health.Serve(l)
	t.Cleanup(health.Stop)

	g := newGuarded(t, web, l.Addr().String())
	bearer := "Bearer " + token(time.Now().Add(time.Hour))
	begin := func(text string) (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(30 * time.Second))
		io.WriteString(c, text+"Host: a\r\nAuthorization: "+bearer+"\r\n\r\n")
		return c, bufio.NewReader(c)
	}
	untilText := func(r *bufio.Reader, want string) {
		t.Helper()
		var got strings.Builder
		for !strings.Contains(got.String(), want) {
			b, err := r.ReadByte()
			if err != nil {
				t.Fatalf("%v after %q", err, got.String())
			}
			got.WriteByte(b)
		}
	}

	_, events := begin("GET /events HTTP/1.1\r\n")
	untilText(events, "data: hello")
	_, socket := begin("GET /socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")
	untilText(socket, "hello")
	sender, upload := begin("POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n")
	io.WriteString(sender, "5\r\nhello\r\n")

	client, err := grpc.NewClient("passthrough:///"+g.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "authorization", bearer), 30*time.Second)
	defer cancel()
	call, err := healthpb.NewHealthClient(client).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call.Recv(); err != nil {
		t.Fatal(err)
	}

	g.past.Store(int64(time.Hour))
	if rest, _ := io.ReadAll(events); bytes.HasSuffix(rest, []byte("0\r\n\r\n")) {
		t.Errorf("the stream of events looks whole: %q", rest)
	}
	if rest, _ := io.ReadAll(socket); len(rest) > 0 {
		t.Errorf("the socket says %q", rest)
	}
	if _, err := call.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the call ends with %v", err)
	}
	io.WriteString(sender, "5\r\nworld\r\n")
	if line, _ := upload.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 401 ") {
		t.Errorf("the upload is answered %q", line)
	}

	for _, path := range []string{"/events", "/socket", "/grpc.health.v1.Health/Watch", "/upload"} {
		line := g.log.on(t, path)
		if line["reason"] != "identity_expired" || line["subject"] != "ann" || line["auth_policy"] != "shop/api" || line["auth_method"] != "customers" {
			t.Errorf("%s: %v", path, line)
		}
	}
	for range 3 { // what the client loses the backend loses, too
		select {
		case <-left:
		case <-time.After(10 * time.Second):
			t.Fatal("a backend still speaks")
		}
	}
	_, late := begin("GET /late HTTP/1.1\r\n")
	if line, _ := late.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 401 ") {
		t.Errorf("the token still lets in: %q", line)
	}
}
