package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Resolver finds the addresses of a name; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// How long what a resolver said is believed. It does not tell us the records' own times, so this is short.
const (
	believed      = 30 * time.Second // then it is asked again
	usedMeanwhile = 10 * time.Minute // what it said last is used while it fails
	pauseAfter    = 2 * time.Second  // between two lookups that fail
	lookupTimeout = 5 * time.Second
	maxAddresses  = 16 // of a name
)

// Outside is a host outside of the cluster: its endpoints are what its name resolves to. It is resolved when somebody calls it, by one
// lookup at a time, and asked again in the background while calls go on with what is known. Each address is looked at after the name
// has been resolved, and connections are made to that very address: no answer of a resolver that changes its mind between the look and
// the connection leads inside (threats 29, 38).
type Outside struct {
	b    *Backends
	g    *group
	host string
	port uint16

	found atomic.Pointer[found] // nil: nothing yet

	mu      sync.Mutex    // guards what follows
	private bool          // private addresses may be spoken to
	flight  chan struct{} // closed when the lookup under way ends; nil when there is none
}

// found is what a lookup came to. It is immutable.
type found struct {
	until time.Time      // then the resolver is asked again
	stale time.Time      // until when it may be used while the resolver fails
	err   *message.Error // why there is nothing to use; nil: the endpoints are there
}

// outside returns the host of that backend; b.mu is held.
func (b *Backends) outside(g *group, s snapshot.Backend) *Outside {
	if g.outside == nil {
		g.outside = &Outside{b: b, g: g, host: s.Ref.Outside, port: s.Ref.Port}
	}
	o := g.outside
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.private != s.Outside.Private {
		o.private = s.Outside.Private
		o.found.Store(nil) // what was refused may pass now, and the other way round
	}
	return o
}

// Retire closes what is idle: no plan names the host any more. Whoever still holds it resolves it anew.
func (o *Outside) Retire() {
	o.found.Store(nil)
	o.tell(nil)
}

// Revive does nothing: the next call resolves the name.
func (o *Outside) Revive() {}

// ready returns when there are endpoints, or says why there are none.
func (o *Outside) ready(ctx context.Context) error {
	now := o.b.options.Clock()
	f := o.found.Load()
	if f != nil && now.Before(f.until) {
		return f.error()
	}
	flight := o.look()
	if f != nil && f.err == nil && now.Before(f.stale) {
		return nil
	}
	select {
	case <-flight:
	case <-ctx.Done():
		return message.ContextError(ctx)
	}
	if f = o.found.Load(); f == nil {
		return errPending // it was retired just now
	}
	return f.error()
}

func (f *found) error() error {
	if f.err == nil {
		return nil
	}
	return f.err
}

// look starts a lookup, or joins the one under way.
func (o *Outside) look() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flight == nil {
		flight := make(chan struct{})
		o.flight = flight
		go o.lookup(flight, o.private)
	}
	return o.flight
}

func (o *Outside) lookup(flight chan struct{}, private bool) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	addresses, err := o.resolve(ctx)
	before, now := o.found.Load(), o.b.options.Clock()
	next := &found{until: now.Add(pauseAfter)}
	switch usable, refused := o.usable(addresses, private); {
	case err != nil && !notFound(err) && before != nil && before.err == nil && now.Before(before.stale):
		next.stale = before.stale
	case err != nil:
		next.err = &message.Error{Reason: message.ReasonNoEndpoint, Err: fmt.Errorf("%s does not resolve: %w", o.host, err)}
		o.tell(nil)
	case len(usable) == 0:
		next.err = &message.Error{Reason: message.ReasonNoEndpoint, Err: fmt.Errorf("%s may not be called: %s", o.host, refused)}
		o.tell(nil)
	default:
		next.until, next.stale = now.Add(believed), now.Add(usedMeanwhile)
		o.tell(usable)
	}
	o.mu.Lock()
	if o.private == private { // else it was changed meanwhile: the next call looks again
		o.found.Store(next)
	}
	o.flight = nil
	o.mu.Unlock()
	close(flight)
}

func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// resolve finds the addresses of the host. A name is meant as it stands: without the final dot a resolver would try it below the search
// domains of the cluster first, where a namespace may be called com.
func (o *Outside) resolve(ctx context.Context) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(o.host); err == nil {
		return []netip.Addr{a}, nil
	}
	if o.host == "localhost" || strings.HasSuffix(o.host, ".localhost") { // RFC 6761 6.3: no resolver is asked
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	name := o.host
	if !strings.HasSuffix(name, ".") && !strings.HasSuffix(name, ".svc") {
		name += "."
	}
	return o.b.options.Resolver.LookupNetIP(ctx, "ip", name)
}

// usable are the addresses that may be spoken to, and why the others may not.
func (o *Outside) usable(addresses []netip.Addr, private bool) (usable []snapshot.Endpoint, refused string) {
	refused = "it has no address"
	for i, a := range addresses {
		a = a.Unmap()
		if why := refusal(a, private); why != "" {
			refused = a.String() + " " + why
			continue
		}
		to := netip.AddrPortFrom(a, o.port)
		if o.b.options.Allowed != nil && !o.b.options.Allowed(to) {
			refused = a.String() + " is on this machine"
			continue
		}
		if i < maxAddresses {
			usable = append(usable, snapshot.Endpoint{Address: to})
		}
	}
	return usable, refused
}

func (o *Outside) tell(endpoints []snapshot.Endpoint) {
	o.b.SetEndpoints([]snapshot.Endpoints{{Backend: o.g.ref, Endpoints: endpoints}})
}

// Ranges that lead inside, or nowhere (RFC 6890 and its registries); loopback, link-local, multicast and RFC 1918 netip knows by itself.
var (
	privateRanges = prefixes("100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "fec0::/10", "64:ff9b:1::/48")
	noRanges      = prefixes("0.0.0.0/8", "240.0.0.0/4", "2001::/32", "100::/64")
	// An address of these has an IPv4 address in it, to which a translator may lead: at that byte.
	embedding = []struct {
		prefix netip.Prefix
		at     int
	}{
		{netip.MustParsePrefix("64:ff9b::/96"), 12}, {netip.MustParsePrefix("2002::/16"), 2}, {netip.MustParsePrefix("::/96"), 12},
		{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // RFC 2765 2.1; the mapped ones were unmapped
	}
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// refusal says why an address may not be called; "" it may. Loopback is for Options.Allowed to judge.
func refusal(a netip.Addr, private bool) string {
	within := func(ranges []netip.Prefix) bool {
		for _, p := range ranges {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	switch {
	case a.Zone() != "" || a.IsLinkLocalUnicast():
		return "is link-local"
	case a.IsMulticast() || a.IsUnspecified() || within(noRanges):
		return "is no host's address"
	case !private && (a.IsPrivate() || within(privateRanges)):
		return "is private"
	case a.IsLoopback():
		return ""
	}
	for _, e := range embedding {
		if e.prefix.Contains(a) {
			b := a.As16()
			inner := netip.AddrFrom4([4]byte(b[e.at : e.at+4]))
			if why := refusal(inner, private); why != "" || inner.IsLoopback() {
				return "leads to " + inner.String()
			}
		}
	}
	return ""
}
