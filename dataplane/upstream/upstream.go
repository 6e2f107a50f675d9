// Package upstream is backends, alive: their endpoints, how busy each is, and the connections to them.
//
// Three keys, never mixed (contracts 16). An endpoint (address:port) carries load and what is in flight: it is shared by all backends
// that name it, so that health is learned per endpoint and not per route. A connection key (endpoint, protocol, TLS) carries idle
// connections. A backend (namespace, name, port, owner of its settings) carries the picker.
//
// Endpoints come by the short way: SetEndpoints replaces one backend's picker and nothing else. It may come before any plan names the
// backend; a backend that never was told differs from one that was told of none. An endpoint that stays in the set keeps its object,
// and thereby its load and its connections; one that leaves finishes what is under way,
// its idle connections are closed, and it comes back as it was within keep.Grace.
package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/balance"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// Options are what all backends share.
type Options struct {
	Transport        message.TransportFactory
	TransportOptions message.TransportOptions
	// Allowed says whether an endpoint may be used at all; nil: every one. A second look after the controllers' (threats 38).
	Allowed  func(netip.AddrPort) bool
	Resolver Resolver         // of hosts outside of the cluster; nil: the system's
	Clock    func() time.Time // nil: time.Now
}

// Backends is all backends of the process.
type Backends struct {
	options Options

	mu        sync.Mutex // guards what follows
	groups    map[snapshot.BackendRef]*group
	endpoints map[netip.AddrPort]*endpoint
}

// New returns a Backends that knows none.
func New(options Options) *Backends {
	if options.Clock == nil {
		options.Clock = time.Now
	}
	if options.Resolver == nil {
		options.Resolver = net.DefaultResolver
	}
	return &Backends{
		options:   options,
		groups:    map[snapshot.BackendRef]*group{},
		endpoints: map[netip.AddrPort]*endpoint{},
	}
}

// group is one backend over all snapshots: what its endpoints are, and the picker among them.
type group struct {
	b         *Backends
	ref       snapshot.BackendRef
	algorithm string              // guarded by Backends.mu
	told      []snapshot.Endpoint // what SetEndpoints said last; guarded by Backends.mu
	used      []*endpoint         // of told, those that are picked from; guarded by Backends.mu
	handle    *telemetry.Backend  // of the newest plan; guarded by Backends.mu
	outside   *Outside            // of a host outside of the cluster; nil: none. Guarded by Backends.mu
	state     atomic.Pointer[state]
}

// state is what a pick reads: immutable, replaced as a whole. A nil state: never told.
type state struct {
	picker balance.Picker
	size   int
}

// endpoint is one address and what is known of it.
type endpoint struct {
	balance.Endpoint
	holders int       // groups that use it; guarded by Backends.mu
	left    time.Time // when the last of them let go; guarded by Backends.mu

	transports atomic.Pointer[[]keyed] // few per endpoint: a list beats a map
	options    *Options
	mu         sync.Mutex // guards changes of transports and retired
	retired    bool
}

type keyed struct {
	key       message.ConnKey
	transport message.Transport
}

// SetEndpoints replaces the endpoints of the backends that are named; all others stay as they are.
func (b *Backends) SetEndpoints(sets []snapshot.Endpoints) {
	var gone, back []*endpoint
	b.mu.Lock()
	for _, set := range sets {
		g := b.group(set.Backend)
		g.told = set.Endpoints
		l, r := b.rebuild(g, g.told)
		gone, back = append(gone, l...), append(back, r...)
	}
	b.forget()
	b.mu.Unlock()
	settle(gone, back)
}

// forget drops endpoints that nobody has named for the grace of keep: one that flaps comes back with what is in flight to it (contracts
// 18). b.mu is held.
func (b *Backends) forget() {
	now := b.options.Clock()
	for address, ep := range b.endpoints {
		if ep.holders == 0 && now.Sub(ep.left) > keep.Grace {
			delete(b.endpoints, address)
		}
	}
}

// group returns the group of that name; b.mu is held.
func (b *Backends) group(ref snapshot.BackendRef) *group {
	g := b.groups[ref]
	if g == nil {
		g = &group{b: b, ref: ref}
		b.groups[ref] = g
	}
	return g
}

// rebuild makes a new picker of what was told, keeping the endpoints that stay; b.mu is held. It returns the endpoints that no group
// uses any more, and those that one uses again.
func (b *Backends) rebuild(g *group, told []snapshot.Endpoint) (gone, back []*endpoint) {
	next := make([]*endpoint, 0, len(told))
	set := make([]*balance.Endpoint, 0, len(told))
	for _, e := range b.usable(told) {
		ep := b.endpoints[e.Address]
		if ep == nil {
			ep = b.newEndpoint(e.Address)
			b.endpoints[e.Address] = ep
		}
		if ep.holders == 0 {
			back = append(back, ep)
		}
		ep.holders++
		next = append(next, ep)
		set = append(set, &ep.Endpoint)
	}
	for _, ep := range g.used {
		if ep.holders--; ep.holders == 0 {
			gone = append(gone, ep)
			ep.left = b.options.Clock()
		}
	}
	g.used = next
	g.state.Store(&state{picker: balance.New(g.algorithm, set), size: len(set)})
	g.show()
	return gone, back
}

// show tells telemetry how many endpoints there are; Backends.mu is held.
func (g *group) show() {
	ready, draining := 0, 0
	for _, e := range g.told {
		if e.Draining {
			draining++
		} else {
			ready++
		}
	}
	g.handle.SetEndpoints(ready, draining)
}

// usable are the endpoints that are picked from: those that are allowed and ready; when none is ready, those that drain and still
// serve, as kube-proxy does (cluster 15). An address that stands twice counts once.
func (b *Backends) usable(told []snapshot.Endpoint) []snapshot.Endpoint {
	var ready, draining []snapshot.Endpoint
	seen := make(map[netip.AddrPort]bool, len(told))
	for _, e := range told {
		if seen[e.Address] || b.options.Allowed != nil && !b.options.Allowed(e.Address) {
			continue
		}
		seen[e.Address] = true
		if e.Draining {
			draining = append(draining, e)
		} else {
			ready = append(ready, e)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return draining
}

// Close closes what is idle, and each connection as it comes back.
func (b *Backends) Close() {
	b.mu.Lock()
	all := make([]*endpoint, 0, len(b.endpoints))
	for _, ep := range b.endpoints {
		all = append(all, ep)
	}
	b.mu.Unlock()
	settle(all, nil)
}

// settle tells endpoints that they left or returned, without a lock held.
func settle(gone, back []*endpoint) {
	for _, ep := range gone {
		ep.setRetired(true)
	}
	for _, ep := range back {
		ep.setRetired(false)
	}
}

func (b *Backends) newEndpoint(address netip.AddrPort) *endpoint {
	ep := &endpoint{options: &b.options}
	ep.Address, ep.Owner = address, ep
	ep.transports.Store(new([]keyed))
	return ep
}

// maxTransports bounds the keys of one endpoint: roots may be changed every day, and nobody asks for the old ones again.
const maxTransports = 64

// transport returns the one for that key, making it on first use. Secure is what its TLS names.
func (ep *endpoint) transport(key message.ConnKey, secure *message.TLSConfig) message.Transport {
	for _, k := range *ep.transports.Load() {
		if k.key == key {
			return k.transport
		}
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	have := *ep.transports.Load()
	for _, k := range have {
		if k.key == key {
			return k.transport
		}
	}
	options := ep.options.TransportOptions
	options.TLS = secure
	t := ep.options.Transport(key, options)
	if ep.retired {
		t.Retire()
	}
	if len(have) == maxTransports {
		go have[0].transport.Retire() // not under the lock
		have = have[1:]
	}
	next := append(have[:len(have):len(have)], keyed{key, t})
	ep.transports.Store(&next)
	return t
}

func (ep *endpoint) setRetired(retired bool) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.retired == retired {
		return
	}
	ep.retired = retired
	for _, k := range *ep.transports.Load() {
		if retired {
			k.transport.Retire()
		} else {
			k.transport.Revive()
		}
	}
}

// Backend is a backend as one plan sees it: protocol and TLS come from the plan, endpoints from what was told last.
type Backend struct {
	group    *group
	ref      snapshot.BackendRef
	protocol message.Protocol
	secure   *message.TLSConfig // nil: in the clear
	outside  *Outside           // nil: its endpoints are told
	broken   *message.Error     // it cannot be spoken to as it is set
	handle   *telemetry.Backend
}

// Use returns the backend for a plan, and makes its picker follow the plan's algorithm. Handle is what its attempts count into.
func (b *Backends) Use(s snapshot.Backend, handle *telemetry.Backend) *Backend {
	be := &Backend{ref: s.Ref, protocol: message.ProtocolHTTP1, handle: handle}
	if s.Protocol == snapshot.BackendH2C {
		be.protocol = message.ProtocolH2C
	}
	be.secure, be.broken = secure(s)
	var gone, back []*endpoint
	b.mu.Lock()
	g := b.group(s.Ref)
	g.handle = handle
	g.show()
	if s.Outside != nil {
		be.outside = b.outside(g, s)
	}
	if g.algorithm != s.Algorithm {
		g.algorithm = s.Algorithm
		if g.state.Load() != nil {
			gone, back = b.rebuild(g, g.told)
		}
	}
	b.mu.Unlock()
	settle(gone, back)
	be.group = g
	return be
}

// Size is the number of endpoints that are picked from; told is false when nobody has said yet.
func (be *Backend) Size() (n int, told bool) {
	s := be.group.state.Load()
	if s == nil {
		return 0, false
	}
	return s.size, true
}

// Active is the number of attempts under way to the endpoints that are picked from, those of other backends too.
func (be *Backend) Active() (n int64) {
	be.group.b.mu.Lock()
	defer be.group.b.mu.Unlock()
	for _, ep := range be.group.used {
		n += ep.Active.Load()
	}
	return n
}

// Outside is the host outside of the cluster that the backend is; nil: it is none. It is a keep.Retirer.
func (be *Backend) Outside() *Outside { return be.outside }

// Ref names the backend.
func (be *Backend) Ref() snapshot.BackendRef { return be.ref }

// errors of picking are made once: a backend without endpoints must not cost more than one with.
var (
	errPending    = &message.Error{Reason: message.ReasonEndpointsPending}
	errNoEndpoint = &message.Error{Reason: message.ReasonNoEndpoint}
)

// Do makes one attempt: it picks an endpoint, runs what must run before anything is sent, and speaks. When it returns nil, the
// caller calls at.Finished once the answer is at its end.
func (be *Backend) Do(ctx context.Context, at *message.Attempt) error {
	if be.broken != nil {
		return be.broken
	}
	if be.outside != nil {
		if err := be.outside.ready(ctx); err != nil {
			return err
		}
	}
	s := be.group.state.Load()
	if s == nil {
		return errPending
	}
	picked := s.picker.Pick(balance.Request(at.Pick))
	if picked == nil {
		return errNoEndpoint
	}
	ep := picked.Owner.(*endpoint)
	at.Endpoint = ep.Address
	at.Conn = message.ConnKey{Endpoint: ep.Address, Protocol: be.speak(&at.Request)}
	if be.secure != nil {
		at.Conn.TLS = be.secure.Key()
	}
	if at.Before != nil {
		if err := at.Before(at); err != nil {
			return err
		}
	}
	f := newFlight()
	ep.Active.Add(1)
	f.endpoint, f.secure, f.record = ep, be.secure, be.handle.Begin(at)
	if err := f.speak(ctx, at); err != nil {
		f.end(err)
		return err
	}
	at.Finished = f.finish
	return nil
}

// flight is an attempt between its beginning and its end. They are used again, so that an attempt allocates nothing here.
type flight struct {
	endpoint *endpoint
	secure   *message.TLSConfig
	record   telemetry.Attempt
	finish   func(error)
}

var flights sync.Pool // of *flight

func newFlight() *flight {
	if f, ok := flights.Get().(*flight); ok {
		return f
	}
	f := new(flight)
	f.finish = f.end
	return f
}

var errPanicked = &message.Error{Reason: message.ReasonPanic}

// speak makes the attempt. A transport that panics must not leave its endpoint looking busy for ever.
func (f *flight) speak(ctx context.Context, at *message.Attempt) (err error) {
	returned := false
	defer func() {
		if !returned {
			f.end(errPanicked)
		}
	}()
	err = f.endpoint.transport(at.Conn, f.secure).RoundTrip(ctx, at)
	f.record.Answered(err)
	returned = true
	return err
}

func (f *flight) end(err error) {
	f.endpoint.Active.Add(-1)
	f.record.Finished(err)
	f.endpoint, f.secure, f.record = nil, nil, telemetry.Attempt{}
	flights.Put(f)
}

// speak chooses the protocol for a request: gRPC needs HTTP/2, a WebSocket's Upgrade HTTP/1.1.
func (be *Backend) speak(r *message.Request) message.Protocol {
	two := be.protocol == message.ProtocolH2C || r.GRPC()
	switch {
	case be.secure == nil && two && r.Upgrade == "":
		return message.ProtocolH2C
	case be.secure == nil:
		return message.ProtocolHTTP1
	case two && r.Upgrade == "":
		return message.ProtocolH2
	}
	return message.ProtocolHTTPS
}

// ReasonOf is the reason that an error of a backend carries.
func ReasonOf(err error) message.Reason {
	if err == nil {
		return message.ReasonNone
	}
	var e *message.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return message.ReasonInternal
}
