package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// fake is a transport that answers 200, or fails as told, and notes whether it was retired.
type fake struct {
	mu      sync.Mutex
	key     message.ConnKey
	calls   int
	err     error
	retired bool
}

func (f *fake) RoundTrip(_ context.Context, at *message.Attempt) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	at.Response = &message.Response{Status: 200}
	return f.err
}
func (f *fake) Retire() { f.mu.Lock(); f.retired = true; f.mu.Unlock() }
func (f *fake) Revive() { f.mu.Lock(); f.retired = false; f.mu.Unlock() }

// network makes fakes and remembers them by key.
type network struct {
	mu   sync.Mutex
	made map[message.ConnKey]*fake
}

func (n *network) transport(key message.ConnKey, _ message.TransportOptions) message.Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := &fake{key: key}
	n.made[key] = f
	return f
}

func (n *network) at(address string) *fake {
	return n.made[message.ConnKey{Endpoint: netip.MustParseAddrPort(address)}]
}

func setup() (*network, *Backends) {
	n := &network{made: map[message.ConnKey]*fake{}}
	return n, New(Options{Transport: n.transport})
}

var shop = snapshot.BackendRef{Service: snapshot.Name{Namespace: "shop", Name: "cart"}, Port: 80}

func told(ref snapshot.BackendRef, addresses ...string) []snapshot.Endpoints {
	set := snapshot.Endpoints{Backend: ref}
	for _, a := range addresses {
		draining := a[0] == '~'
		if draining {
			a = a[1:]
		}
		set.Endpoints = append(set.Endpoints, snapshot.Endpoint{Address: netip.MustParseAddrPort(a), Draining: draining})
	}
	return []snapshot.Endpoints{set}
}

func attempt(t *testing.T, be *Backend) (netip.AddrPort, error) {
	t.Helper()
	at := &message.Attempt{}
	err := be.Do(context.Background(), at)
	if err == nil {
		at.Finished(nil)
	}
	return at.Endpoint, err
}

func reasonIs(t *testing.T, err error, want message.Reason) {
	t.Helper()
	if got := ReasonOf(err); err == nil || got != want {
		t.Fatalf("%v: reason %v, want %v", err, got, want)
	}
}

func TestNeverToldDiffersFromEmpty(t *testing.T) {
	_, b := setup()
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	_, err := attempt(t, be)
	reasonIs(t, err, message.ReasonEndpointsPending)
	b.SetEndpoints(told(shop))
	_, err = attempt(t, be)
	reasonIs(t, err, message.ReasonNoEndpoint)
}

func TestABackendMayBeToldBeforeAPlanNamesIt(t *testing.T) {
	_, b := setup()
	b.SetEndpoints(told(shop, "10.0.0.1:80"))
	if _, err := attempt(t, b.Use(snapshot.Backend{Ref: shop}, nil)); err != nil {
		t.Fatal(err)
	}
}

func TestAnEndpointThatStaysKeepsItsLoadAndConnections(t *testing.T) {
	n, b := setup()
	b.SetEndpoints(told(shop, "10.0.0.1:80"))
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	at := &message.Attempt{}
	if err := be.Do(context.Background(), at); err != nil {
		t.Fatal(err)
	}
	b.SetEndpoints(told(shop, "10.0.0.1:80", "10.0.0.2:80"))
	if load := b.endpoints[at.Endpoint].Active.Load(); load != 1 {
		t.Fatalf("load %d after the set changed", load)
	}
	at.Finished(nil)
	if load := b.endpoints[at.Endpoint].Active.Load(); load != 0 {
		t.Fatalf("load %d at the end", load)
	}
	if n.at("10.0.0.1:80").retired {
		t.Fatal("its connections were closed")
	}
}

func TestAnEndpointThatLeavesIsRetiredWhenNobodyNamesItAnyMore(t *testing.T) {
	n, b := setup()
	other := snapshot.BackendRef{Service: snapshot.Name{Namespace: "shop", Name: "canary"}, Port: 80}
	b.SetEndpoints(append(told(shop, "10.0.0.1:80"), told(other, "10.0.0.1:80")...))
	if _, err := attempt(t, b.Use(snapshot.Backend{Ref: shop}, nil)); err != nil {
		t.Fatal(err)
	}
	b.SetEndpoints(told(shop))
	if n.at("10.0.0.1:80").retired {
		t.Fatal("another backend still names it")
	}
	b.SetEndpoints(told(other))
	if !n.at("10.0.0.1:80").retired {
		t.Fatal("nobody names it, and its idle connections stay")
	}
}

func TestDrainingEndpointsServeOnlyWhenNoOtherIsThere(t *testing.T) {
	_, b := setup()
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	b.SetEndpoints(told(shop, "10.0.0.1:80", "~10.0.0.2:80"))
	for range 50 {
		if a, err := attempt(t, be); err != nil || a != netip.MustParseAddrPort("10.0.0.1:80") {
			t.Fatal(a, err)
		}
	}
	b.SetEndpoints(told(shop, "~10.0.0.2:80"))
	if a, err := attempt(t, be); err != nil || a != netip.MustParseAddrPort("10.0.0.2:80") {
		t.Fatal(a, err)
	}
}

func TestRefusedAddressesAreNeverPicked(t *testing.T) {
	n := &network{made: map[message.ConnKey]*fake{}}
	b := New(Options{Transport: n.transport, Allowed: func(a netip.AddrPort) bool { return !a.Addr().IsLoopback() }})
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	b.SetEndpoints(told(shop, "127.0.0.1:80"))
	_, err := attempt(t, be)
	reasonIs(t, err, message.ReasonNoEndpoint)
}

func TestEndpointsThatWereTriedAreNotTriedAgain(t *testing.T) {
	_, b := setup()
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	b.SetEndpoints(told(shop, "10.0.0.1:80", "10.0.0.2:80"))
	first := netip.MustParseAddrPort("10.0.0.1:80")
	for range 50 {
		at := &message.Attempt{Pick: message.Pick{Excluded: []netip.AddrPort{first}}}
		if err := be.Do(context.Background(), at); err != nil || at.Endpoint == first {
			t.Fatal(at.Endpoint, err)
		}
		at.Finished(nil)
	}
}

func TestAFailedAttemptGivesItsLoadBack(t *testing.T) {
	n, b := setup()
	b.SetEndpoints(told(shop, "10.0.0.1:80"))
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	attempt(t, be)
	n.at("10.0.0.1:80").err = &message.Error{Reason: message.ReasonUpstreamReset, Err: errors.New("reset")}
	_, err := attempt(t, be)
	reasonIs(t, err, message.ReasonUpstreamReset)
	if load := b.endpoints[netip.MustParseAddrPort("10.0.0.1:80")].Active.Load(); load != 0 {
		t.Fatalf("load %d", load)
	}
}

func TestWhatMustRunBeforeAnAttemptCanEndIt(t *testing.T) {
	n, b := setup()
	b.SetEndpoints(told(shop, "10.0.0.1:80"))
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	denied := &message.Error{Reason: message.ReasonDenied}
	err := be.Do(context.Background(), &message.Attempt{Before: func(*message.Attempt) error { return denied }})
	if err != denied || len(n.made) != 0 {
		t.Fatal(err, len(n.made))
	}
}

// gRPC needs HTTP/2, a WebSocket HTTP/1.1, whatever else the backend speaks.
func TestTheProtocolFollowsBackendAndRequest(t *testing.T) {
	grpc := message.Request{Header: message.NewHeader(message.Field{Name: "content-type", Value: "application/grpc+proto"})}
	ws := message.Request{Upgrade: "websocket"}
	for _, c := range []struct {
		backend snapshot.BackendProtocol
		request message.Request
		want    message.Protocol
	}{
		{"", message.Request{}, message.ProtocolHTTP1},
		{"", grpc, message.ProtocolH2C},
		{"h2c", message.Request{}, message.ProtocolH2C},
		{"h2c", ws, message.ProtocolHTTP1},
		{"ws", ws, message.ProtocolHTTP1},
	} {
		_, b := setup()
		b.SetEndpoints(told(shop, "10.0.0.1:80"))
		at := &message.Attempt{Request: c.request}
		if err := b.Use(snapshot.Backend{Ref: shop, Protocol: c.backend}, nil).Do(context.Background(), at); err != nil || at.Conn.Protocol != c.want {
			t.Errorf("backend %q, upgrade %q: %v %v, want %v", c.backend, c.request.Upgrade, at.Conn.Protocol, err, c.want)
		}
	}
}

func TestEndpointsComeAndGoUnderLoad(t *testing.T) {
	_, b := setup()
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	b.SetEndpoints(told(shop, "10.0.0.1:80"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				if _, err := attempt(t, be); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 500 {
		b.SetEndpoints(told(shop, "10.0.0.1:80", fmt.Sprintf("10.0.1.%d:80", i%20+1)))
	}
	wg.Wait()
	for a, ep := range b.endpoints {
		if n := ep.Active.Load(); n != 0 {
			t.Errorf("%v has load %d at the end", a, n)
		}
	}
}

func TestAnAttemptAllocatesNothingHere(t *testing.T) {
	_, b := setup()
	b.SetEndpoints(told(shop, "10.0.0.1:80", "10.0.0.2:80"))
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	at := &message.Attempt{}
	n := testing.AllocsPerRun(1000, func() {
		*at = message.Attempt{}
		if err := be.Do(context.Background(), at); err != nil {
			t.Fatal(err)
		}
		at.Finished(nil)
	})
	if n > 1 { // the fake's response
		t.Fatalf("%v allocations", n)
	}
}

func TestAnEndpointThatFlapsComesBackWithItsLoad(t *testing.T) {
	n := &network{made: map[message.ConnKey]*fake{}}
	now := time.Unix(1000, 0)
	b := New(Options{Transport: n.transport, Clock: func() time.Time { return now }})
	b.SetEndpoints(told(shop, "10.0.0.1:80"))
	be := b.Use(snapshot.Backend{Ref: shop}, nil)
	at := &message.Attempt{}
	if err := be.Do(context.Background(), at); err != nil {
		t.Fatal(err)
	}
	b.SetEndpoints(told(shop))
	b.SetEndpoints(told(shop, "10.0.0.1:80"))
	if ep := b.endpoints[at.Endpoint]; ep.Active.Load() != 1 || n.at("10.0.0.1:80").retired {
		t.Fatalf("load %d, retired %v", ep.Active.Load(), n.at("10.0.0.1:80").retired)
	}
	at.Finished(nil)

	b.SetEndpoints(told(shop))
	now = now.Add(keep.Grace + time.Second)
	b.SetEndpoints(told(shop))
	if len(b.endpoints) != 0 {
		t.Fatal("an endpoint that left is held for ever")
	}
}
