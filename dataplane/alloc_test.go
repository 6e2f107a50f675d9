package dataplane

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/headers"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/ratelimit"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/racetest"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/mem"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
)

// ready is a transport that has its answer at hand.
type ready struct{ response message.Response }

func (r *ready) RoundTrip(_ context.Context, at *message.Attempt) error {
	r.response = message.Response{Status: 200, Length: -1}
	at.Response, at.Sent = &r.response, message.SentBody
	return nil
}
func (*ready) Retire() {}
func (*ready) Revive() {}

// What one exchange allocates from its head to Done, with the router, a rate limit, a header filter, least-request balancing, metrics
// and the access log, without any wire:
//
//	3  the lines of the head, copied once with room for X-Forwarded-*, and those of the answer, which begins with none here
//	2  the context that ends with the client
//	2  the request id, the client's address as text
//	1  RateLimit fields
const exchangeAllocations = 8

func TestAnExchangeWithTwoFiltersAllocatesWhatIsWrittenDown(t *testing.T) {
	racetest.SkipsAllocations(t)
	got := measure(t, func(run func()) float64 { return testing.AllocsPerRun(2000, run) })
	t.Logf("%v allocations", got)
	if got > exchangeAllocations {
		t.Errorf("%v allocations, %v are written down", got, exchangeAllocations)
	}
}

func BenchmarkExchangeWithTwoFilters(b *testing.B) {
	measure(b, func(run func()) float64 {
		b.ReportAllocs()
		for b.Loop() {
			run()
		}
		return 0
	})
}

func measure(t testing.TB, by func(run func()) float64) float64 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	seen, err := telemetry.New(telemetry.Options{Log: io.Discard, LogQueue: 16})
	if err != nil {
		t.Fatal(err)
	}
	plane := New(Options{
		Settings: Defaults(), Engine: nethttp.New(), Telemetry: seen,
		Transport: func(message.ConnKey, message.TransportOptions) message.Transport { return &ready{} },
	})
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		plane.Shutdown(ctx)
		seen.Close(ctx)
	}()

	gateway, cart := snapshot.Name{Namespace: "infra", Name: "gw"}, snapshot.BackendRef{Service: snapshot.Name{Namespace: "shop", Name: "cart"}, Port: 80}
	key := snapshot.SocketKey{Gateway: gateway, Address: netip.MustParseAddr("127.0.0.1"), Port: port}
	rule := &snapshot.Rule{
		Key: snapshot.RuleKey{Kind: "HTTPRoute", Route: cart.Service},
		Filters: []snapshot.Filter{
			ratelimit.Config{Limits: []ratelimit.Limit{{
				Policy: ratelimit.Policy{UID: "u", Name: cart.Service}, Name: "per-client", Key: []string{"source.ip"},
				Rates: []ratelimit.Rate{{Requests: 1_000_000_000, Window: time.Second}},
			}}},
			headers.Config{SetRequest: []headers.Field{{Name: "X-Team", Value: "shop"}}},
		},
		Backends: []snapshot.WeightedBackend{{Ref: cart, Weight: 1}},
	}
	plane.SetEndpoints([]snapshot.Endpoints{{Backend: cart, Endpoints: []snapshot.Endpoint{
		{Address: netip.MustParseAddrPort("10.0.0.1:80")}, {Address: netip.MustParseAddrPort("10.0.0.2:80")},
	}}})
	bound := plane.Apply(&snapshot.Snapshot{
		Sockets: []snapshot.Socket{{Key: key, SpecPort: 80, Protocol: snapshot.HTTP, Listeners: []*snapshot.Listener{{
			Key:   snapshot.ListenerKey{Gateway: gateway, Section: "http"},
			Hosts: []snapshot.Host{{Name: "shop.example.com", Matches: []snapshot.Match{{Path: snapshot.PathMatch{Kind: snapshot.PathPrefix, Value: "/cart"}, Rule: rule}}}},
		}}}},
		Backends: []snapshot.Backend{{Ref: cart}},
	})
	if err := bound.Sockets[0].Err; err != nil {
		t.Fatal(err)
	}

	runner := mem.Runner{Handler: handler{plane}, Conn: &message.Conn{Socket: key, Remote: netip.MustParseAddrPort("192.0.2.7:4711")}}
	request := mem.Request{Host: "shop.example.com", Target: "/cart/1?x=2", Header: message.NewHeader(
		message.Field{Name: "User-Agent", Value: "test"}, message.Field{Name: "Accept", Value: "*/*"},
	)}
	return by(func() {
		if r := runner.Do(&request); r.Status != 200 {
			t.Fatalf("%d %v", r.Status, r.Reason)
		}
	})
}
