package external_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	authpb "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/external"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
)

var (
	app   = snapshot.BackendRef{Service: snapshot.Name{Namespace: "shop", Name: "cart"}, Port: 80}
	authz = snapshot.BackendRef{Service: snapshot.Name{Namespace: "infra", Name: "authz"}, Port: 9000}
)

// house is a data plane with one route, whose requests an external service judges.
type house struct {
	t     *testing.T
	plane *dataplane.DataPlane
	url   string
	key   snapshot.SocketKey

	mu   sync.Mutex
	now  time.Time
	seen []*http.Request // what reached the backend
	body []string
}

func newHouse(t *testing.T, service string, c external.Config) *house {
	t.Helper()
	h := &house{t: t, now: time.Unix(1_700_000_000, 0)}
	s := dataplane.Defaults()
	s.LocalEndpoints = true
	h.plane = dataplane.New(dataplane.Options{
		Settings: s, Engine: nethttp.New(), Transport: nethttp.NewTransport, Clock: h.clock, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		h.plane.Shutdown(ctx)
	})
	port := netip.MustParseAddrPort(nobody(t)).Port()
	h.key = snapshot.SocketKey{Gateway: snapshot.Name{Namespace: "infra", Name: "gw"}, Address: netip.MustParseAddr("127.0.0.1"), Port: port}
	h.url = "http://" + netip.AddrPortFrom(h.key.Address, port).String()

	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		h.seen, h.body = append(h.seen, r), append(h.body, string(content))
		h.mu.Unlock()
		io.WriteString(w, "let in")
	})
	h.plane.SetEndpoints([]snapshot.Endpoints{
		{Backend: app, Endpoints: []snapshot.Endpoint{{Address: netip.MustParseAddrPort(backend)}}},
		{Backend: authz, Endpoints: []snapshot.Endpoint{{Address: netip.MustParseAddrPort(service)}}},
	})
	h.apply(c)
	return h
}

// apply makes each config a policy of its own, on a path of its own: the first on "/", the next on "/1".
func (h *house) apply(configs ...external.Config) {
	h.t.Helper()
	host := snapshot.Host{}
	for i, c := range configs {
		path := []string{"/", "/1", "/2"}[i]
		if c.Backend == (snapshot.BackendRef{}) {
			c.Backend = authz
		}
		host.Matches = append(host.Matches, snapshot.Match{
			Path: snapshot.PathMatch{Kind: snapshot.PathPrefix, Value: path},
			Rule: &snapshot.Rule{
				Key: snapshot.RuleKey{Kind: "HTTPRoute", Route: app.Service, Rule: i},
				Filters: []snapshot.Filter{auth.Config{Policies: []auth.Policy{{
					Name: snapshot.Name{Namespace: "shop", Name: "ext"}, Methods: []auth.Method{{Name: "check", External: &c}},
					Forward: auth.Forward{Headers: []auth.Header{{Name: "X-Subject", Value: "identity.subject"}}},
				}}}},
				Backends: []snapshot.WeightedBackend{{Ref: app, Weight: 1}},
			},
		})
	}
	result := h.plane.Apply(&snapshot.Snapshot{
		Sockets: []snapshot.Socket{{
			Key: h.key, SpecPort: 80, Protocol: snapshot.HTTP,
			Listeners: []*snapshot.Listener{{Key: snapshot.ListenerKey{Gateway: h.key.Gateway, Section: "http"}, Hosts: []snapshot.Host{host}}},
		}},
		Backends: []snapshot.Backend{{Ref: app}, {Ref: authz}},
	})
	for _, s := range result.Sockets {
		if s.Err != nil {
			h.t.Fatal(s.Err)
		}
	}
}

func (h *house) clock() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.now }
func (h *house) pass(d time.Duration) {
	h.mu.Lock()
	h.now = h.now.Add(d)
	h.mu.Unlock()
}

// reached is how many requests reached the backend, and the last of them.
func (h *house) reached() (n int, last *http.Request, body string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n = len(h.seen); n > 0 {
		last, body = h.seen[n-1], h.body[n-1]
	}
	return n, last, body
}

var client = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       20 * time.Second,
}

// ask sends a request, and returns the answer and its body.
func (h *house) ask(method, path, body string, fields ...string) (*http.Response, string) {
	h.t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, h.url+path, content)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Host = "shop.example"
	return h.send(client, req, fields...)
}

// askHost asks for the root of another host.
func (h *house) askHost(host string) (*http.Response, string) {
	h.t.Helper()
	req, err := http.NewRequest("GET", h.url+"/", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Host = host
	return h.send(client, req)
}

func (h *house) send(by *http.Client, req *http.Request, fields ...string) (*http.Response, string) {
	h.t.Helper()
	for i := 0; i < len(fields); i += 2 {
		req.Header[fields[i]] = append(req.Header[fields[i]], fields[i+1]) // as it is spelled
	}
	res, err := by.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	b.ReadFrom(res.Body)
	return res, b.String()
}

func nobody(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func serve(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// bytesOf serves connections of bytes.
func bytesOf(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				nc.SetDeadline(time.Now().Add(20 * time.Second))
				f(nc)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// check is an ext_authz server that answers by a function.
type check func(context.Context, *authpb.CheckRequest) (*authpb.CheckResponse, error)

func (c check) Check(ctx context.Context, r *authpb.CheckRequest) (*authpb.CheckResponse, error) {
	return c(ctx, r)
}

func serveGRPC(t testing.TB, c check) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.MaxSendMsgSize(1 << 30))
	authpb.RegisterAuthorizationServer(srv, c)
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	return l.Addr().String()
}
