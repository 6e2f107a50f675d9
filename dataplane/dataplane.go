package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/keyring"
	"github.com/gatehouse-dev/gatehouse/dataplane/listen"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/proxy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/store"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
	"github.com/gatehouse-dev/gatehouse/dataplane/upstream"
)

// Options are what a data plane is made of.
type Options struct {
	Settings  Settings
	Engine    message.Engine           // reads from clients
	Transport message.TransportFactory // speaks to endpoints
	Telemetry *telemetry.Telemetry     // nil: none
	Resolver  upstream.Resolver        // of hosts outside of the cluster; nil: the system's
	Store     *store.Store             // what replicas share; nil: nothing
	Log       *slog.Logger             // nil: none
	Clock     func() time.Time         // nil: time.Now
}

// DataPlane serves snapshots. Apply and SetEndpoints are called by one goroutine; requests come by as many as there are.
type DataPlane struct {
	options  Options
	keep     *keep.Store
	backends *upstream.Backends
	proxy    *proxy.Proxy
	listen   *listen.Listen
	async    *async
	keys     *keyring.Ring
	members  atomic.Int64                               // live replicas, this one included
	pages    atomic.Pointer[map[string]message.Handler] // of filters, by what follows /filters/

	current   atomic.Pointer[plan]
	state     atomic.Int32 // starting, serving or leaving
	exchanges atomic.Int64 // under way: between Serve and the end of Done

	mu       sync.Mutex // one Apply at a time
	sequence uint64
	offered  map[string]message.Handler // pages, while a plan is built
}

const (
	starting = iota
	serving
	leaving
)

// keyLife is how long a key of our own seals, where nobody gives us keys that replicas share.
const keyLife = 12 * time.Hour

// plan is a snapshot, alive. A request loads it once; a connection when it is accepted.
type plan struct {
	proxy  *proxy.Plan
	listen *listen.Plan
	text   func() string
}

// New returns a data plane that serves nothing yet.
func New(o Options) *DataPlane {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	s := o.Settings
	d := &DataPlane{options: o, keep: keep.New(o.Clock), keys: keyring.New(keyLife, o.Clock), offered: map[string]message.Handler{}}
	d.async = newAsync(func(p any, stack []byte) {
		o.Log.Error("work of a filter panicked", "panic", p, "stack", string(stack))
	})
	d.backends = upstream.New(upstream.Options{
		Transport: o.Transport, TransportOptions: s.Transport(), Allowed: allowed(s.LocalEndpoints), Resolver: o.Resolver, Clock: o.Clock,
	})
	d.proxy = proxy.New(proxy.Options{
		RequestTimeout: s.RequestTimeout, AttemptTimeout: s.AttemptTimeout, StreamIdle: s.StreamIdle, StreamGrace: s.StreamGrace,
		ConnectRetries: s.ConnectRetries, RetryBodyBytes: s.RetryBodyBytes, TrustedProxies: s.TrustedProxies, Forwarded: s.Forwarded,
		ServerName: s.ServerName, Zone: s.Zone, Clock: o.Clock, Telemetry: o.Telemetry, Log: o.Log, Async: d.async.run,
	})
	limits := s.Limits()
	o.Telemetry.BodyBudget(limits.BodyBudget)
	d.current.Store(&plan{proxy: new(proxy.Plan), listen: new(listen.Plan), text: func() string { return "" }})
	d.listen = listen.New(listen.Options{
		Engine: o.Engine, Handler: handler{d}, Limits: limits, Handshake: s.TLSHandshake, MaxConnections: s.MaxConnections,
		Current: func() *listen.Plan { return d.current.Load().listen }, Keys: d.keys, Log: o.Log,
		DrainLeft: s.DrainTimeout, Retry: -1, // whoever applies tries again what could not be bound
	})
	return d
}

// allowed is the second look at addresses, after that of the controllers: an endpoint on loopback or a link-local address would let a
// tenant reach what only this machine may (threats 38).
func allowed(local bool) func(netip.AddrPort) bool {
	return func(a netip.AddrPort) bool {
		ip := a.Addr().Unmap()
		if ip.IsMulticast() || ip.IsUnspecified() {
			return false
		}
		return local || !ip.IsLoopback() && !ip.IsLinkLocalUnicast()
	}
}

// handler is what engines call. It is apart from DataPlane, so that only they do.
type handler struct{ d *DataPlane }

// Serve loads the plan once: the exchange finishes on it, whatever is applied meanwhile.
func (h handler) Serve(ex *message.Exchange) {
	h.d.exchanges.Add(1)
	now := h.d.current.Load()
	if !now.listen.Holds(ex.Conn) {
		ex.Conn.Leave()
		h.d.proxy.Refuse(ex, message.ReasonMisdirected, "the listener has changed since the connection was made")
		return
	}
	h.d.proxy.Serve(ex, now.proxy)
}

func (h handler) Done(ex *message.Exchange) {
	served := ex.State != nil // else the engine refused it by itself
	h.d.proxy.Done(ex)
	if served {
		h.d.exchanges.Add(-1)
	}
}

// SetEndpoints replaces the endpoints of these backends, and no other. It is told before the Apply that first names a backend.
func (d *DataPlane) SetEndpoints(sets []snapshot.Endpoints) { d.backends.SetEndpoints(sets) }

// Apply makes the snapshot what is served. It never refuses the whole for one part: a socket that cannot be bound is in the result, a
// rule that cannot be built answers 500 and is logged, since that is a bug of ours. Applying a snapshot again tries once more what
// could not be bound.
func (d *DataPlane) Apply(s *snapshot.Snapshot) snapshot.BindResult {
	d.mu.Lock()
	defer d.mu.Unlock()
	began := d.options.Clock()
	things, handles := d.keep.Begin(), d.options.Telemetry.Round()

	d.offered = map[string]message.Handler{}
	next := &plan{proxy: d.builder(things, handles).Build(s), text: s.String}
	next.listen = d.listen.Prepare(things, handles, s.Sockets)
	for _, p := range next.listen.Problems {
		if !p.New {
			continue
		}
		d.options.Log.Error("a certificate cannot be used", "listener", p.Listener, "secret", p.Secret, "error", p.Err)
	}
	result := d.listen.Apply(next.listen, func() { d.current.Store(next) })
	d.proxy.Applied(next.proxy)
	offered := d.offered
	d.pages.Store(&offered)

	things.End()
	handles.End()
	d.sequence++
	d.options.Telemetry.Applied(d.sequence, d.options.Clock().Sub(began))
	return result
}

// builder is what the proxy needs to make a plan in this round.
func (d *DataPlane) builder(things *keep.Round, handles *telemetry.Round) proxy.Builder {
	log := d.options.Log
	ours := &calls{settings: &d.options.Settings, clock: d.options.Clock, backends: map[snapshot.BackendRef]callee{}}
	return proxy.Builder{
		Backends: func(b snapshot.Backend) message.Backend {
			be := d.backends.Use(b, handles.Backend(b.Ref.String()))
			if o := be.Outside(); o != nil {
				keep.Get(things, outside{b.Ref}, func() *upstream.Outside { return o }) // retires what no plan names
			}
			ours.add(b, be)
			return be
		},
		Env: func(rule snapshot.RuleKey) filter.Env {
			return filter.Env{
				Rule: rule, Keep: things, Clock: d.options.Clock, Keys: d.keys.Derive, Call: ours.caller, Async: d.async.run,
				Store: d.options.Store, Members: d.live,
				CounterOf: func(name, counter string, pairs ...string) filter.Counter {
					return handles.Counter(name, counter, pairs...)
				},
				GaugeOf: handles.Gauge,
				Admin:   func(path string, page message.Handler) { d.offered[path] = page },
			}
		},
		RouteKey: func(gateway snapshot.Name, k snapshot.RuleKey) any { return handles.Route(routeLabels(gateway, k)) },
		Dropped: func(backend string) filter.Counter {
			return handles.Counter("mirror", "mirrors_dropped", "backend", backend)
		},
		Problem: func(what string, err error) { log.Error("cannot be built; it answers 500", "what", what, "error", err) },
		Panicked: func(name string, value any, stack []byte) {
			log.Error("a filter panicked", "filter", name, "panic", value, "stack", string(stack))
		},
	}
}

// outside is the key of a host outside of the cluster in keep.
type outside struct{ ref snapshot.BackendRef }

func routeLabels(gateway snapshot.Name, k snapshot.RuleKey) telemetry.RouteLabels {
	labels := telemetry.RouteLabels{Gateway: gateway.String()}
	if k.Kind != "" {
		labels.Kind, labels.Route, labels.Rule = k.Kind, k.Route.String(), k.RuleName()
	}
	return labels
}

// SetKeys replaces the keys from which those of session tickets and cookies are derived: the first seals, all of them open. Each has at
// least keyring.Size bytes. Before the first call they are random, and of this process alone.
func (d *DataPlane) SetKeys(keys [][]byte) error { return d.keys.Set(keys) }

// SetMembers says how many replicas share the traffic, this one included: limits that are divided admit so many times less here. It may
// be told at any time, also before the first Apply, and holds from the next request on. Before it is told, and for less than one, it is 1.
func (d *DataPlane) SetMembers(live int) { d.members.Store(int64(live)) }

func (d *DataPlane) live() int { return max(1, int(d.members.Load())) }

// Page is a page of a filter, by what follows /filters/ on the admin port; nil: there is none.
func (d *DataPlane) Page(path string) message.Handler {
	if pages := d.pages.Load(); pages != nil {
		return (*pages)[path]
	}
	return nil
}

// Text is what is served, as text.
func (d *DataPlane) Text() string { return d.current.Load().text() }

// SetReady says that what was asked to be served is served. Ready's error says why others should not send traffic (yet, or any more).
func (d *DataPlane) SetReady() { d.state.CompareAndSwap(starting, serving) }

func (d *DataPlane) Ready() error {
	switch d.state.Load() {
	case starting:
		return errors.New("the first snapshot is not applied yet")
	case leaving:
		return errors.New("shutting down")
	}
	return nil
}

// Leave makes this replica not ready, and tells clients with each answer that it is leaving, while it still accepts.
func (d *DataPlane) Leave() {
	d.state.Store(leaving)
	d.listen.Leave()
}

// Shutdown stops accepting, lets what is under way finish, and cuts the rest when ctx ends, whose error it then returns.
func (d *DataPlane) Shutdown(ctx context.Context) error {
	err := d.listen.Shutdown(ctx)
	for end := time.Now().Add(time.Second); d.exchanges.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // what was cut still writes its last lines
	}
	d.proxy.Close()
	d.async.wait(ctx)
	return err
}
