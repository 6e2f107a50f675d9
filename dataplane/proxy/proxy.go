// Package proxy is the way of a request: find the listener, match a rule, run its filters, forward, run them back.
//
//	Serve   trust and forwarded fields → listener by host → Pre filters → match → request filters → forward → response filters
//	forward pick a share of the weights → attempts (each: Before, endpoint, connection, head of the answer) → tried again or not
//	Done    done faces, mirrors with a body, telemetry; exactly once, after the last byte
//
// A request loads the plan once, at the top of the root's Serve, and finishes on it; after the head of its answer it holds only its
// rule. There is no lock on the way but that of the registry of answers under way.
//
// Retries. A request of which no byte was sent is tried on another endpoint, whatever its method (Settings.ConnectRetries), and so is an
// idempotent one whose pooled connection the backend had just closed. A route's retry replaces that number; with it, listed codes,
// attempt timeouts and broken connections are tried again when the method is idempotent (RFC 9110 9.2.2) and the body can be sent again:
// it had none, or what was sent of it is held.
package proxy

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// Options are what the way of a request needs beside its plan.
type Options struct {
	RequestTimeout time.Duration // 0: none
	AttemptTimeout time.Duration // 0: none
	StreamIdle     time.Duration
	StreamGrace    time.Duration
	ConnectRetries int
	RetryBodyBytes int
	TrustedProxies []netip.Prefix
	Forwarded      bool
	ServerName     string
	Zone           string
	Clock          func() time.Time
	Telemetry      *telemetry.Telemetry // nil: none
	Log            *slog.Logger
	Async          func(func()) bool // nil: mirrors are dropped
}

// Proxy carries exchanges. It has no state but the registry of answers under way.
type Proxy struct {
	options Options
	trust   trust
	streams streams
}

// New returns a Proxy; Close ends its goroutine.
func New(options Options) *Proxy {
	if options.Clock == nil {
		options.Clock = time.Now
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{options: options, trust: trust{options.TrustedProxies}}
	p.streams.start(options.Clock, options.StreamIdle, options.StreamGrace)
	return p
}

// Close ends the proxy's own goroutine: nothing idles or loses its rule after it. What is under way is for whoever cuts connections.
func (p *Proxy) Close() { p.streams.stop() }

// Serve finds the answer to an exchange, on this plan.
func (p *Proxy) Serve(ex *message.Exchange, plan *Plan) {
	l := newLife(p, ex)
	p.options.Telemetry.Begin(ex)
	p.prepare(ex)
	ex.Response = l.answer(plan)
	l.respond()
}

// Refuse answers an exchange that no plan may serve, with that reason.
func (p *Proxy) Refuse(ex *message.Exchange, reason message.Reason, detail string) {
	l := newLife(p, ex)
	p.options.Telemetry.Begin(ex)
	p.prepare(ex)
	ex.Response = l.fail(reason, detail)
	l.respond()
}

// Done ends an exchange. It is called once for each, also for those that an engine refused by itself (they have no life).
func (p *Proxy) Done(ex *message.Exchange) {
	l, _ := ex.State.(*life)
	if l == nil {
		p.options.Telemetry.End(ex)
		return
	}
	l.done()
	p.options.Telemetry.End(ex)
	ex.State = nil
	l.free()
}

// answer is the whole way to a response, which it returns before the response filters.
func (l *life) answer(plan *Plan) *message.Response {
	li, r := l.listener(plan)
	if r != nil {
		return r
	}
	l.pre = li.pre
	met, v := l.pre.Request(l.ex)
	l.preMet = met
	if r := l.ended(v); r != nil {
		return r
	}
	if li.deny != nil {
		return l.failure(li.deny)
	}

	rule := li.match(l.ex)
	l.ex.RouteKey = li.routeKey
	if rule == nil {
		l.chain = li.def
	} else {
		l.rule, l.chain = rule, rule.chain
		l.ex.Route, l.ex.RouteKey = rule.name, rule.routeKey
	}
	if l.chain.broken {
		return l.fail(message.ReasonFilterFailed, "a filter could not be built; the log says which")
	}
	l.met, v = l.chain.Request(l.ex)
	if r := l.ended(v); r != nil {
		return r
	}
	switch {
	case rule == nil:
		return l.fail(message.ReasonNoRoute, "")
	case rule.failure != nil:
		return l.failure(rule.failure)
	}
	return l.forward()
}

// listener finds who serves this host on the socket that accepted, and whether the connection may ask it.
func (l *life) listener(plan *Plan) (*listener, *message.Response) {
	key, _ := l.ex.Conn.Socket.(snapshot.SocketKey)
	s := plan.sockets[key]
	if s == nil {
		return nil, l.fail(message.ReasonNoRoute, "the listener is gone")
	}
	l.ex.ListenerPort = s.specPort
	li, found := s.names.Match(l.ex.Request.Host.Name)
	if l.ex.Conn.TLS != nil {
		// The best listener for the host must be the one whose TLS settings the client met (conformance: misdirected requests).
		if own, ok := l.ex.Conn.Listener.(snapshot.ListenerKey); !ok || !found || own != li.key {
			return nil, l.fail(message.ReasonMisdirected, "")
		}
	}
	if !found {
		return nil, l.fail(message.ReasonNoRoute, "no listener has this host")
	}
	if (l.ex.Conn.TLS != nil) != li.secure {
		return nil, l.fail(message.ReasonMisdirected, "the listener changed between HTTP and HTTPS")
	}
	return li, nil
}

// ended is the response when a filter's verdict ends the exchange; nil to go on.
func (l *life) ended(v filter.Verdict) *message.Response {
	if reason, detail, failed := v.Failed(); failed {
		return l.fail(reason, detail)
	}
	if !v.Answered() {
		return nil
	}
	if l.ex.Response == nil {
		return l.fail(message.ReasonFilterFailed, "a filter answered without a response")
	}
	l.ex.Response.Origin = message.OriginFilter
	return l.ex.Response
}

// respond runs the response filters in reverse over whatever the answer is, and speaks gRPC to those who do.
func (l *life) respond() {
	l.chain.Response(l.ex, l.met, l.fail)
	l.pre.Response(l.ex, l.preMet, l.fail)
	if l.ex.Response.Origin != message.OriginUpstream {
		if l.ex.Request.GRPC() {
			l.ex.Response = grpcResponse(l.ex.Response)
		}
		if s := l.p.options.ServerName; s != "" {
			l.ex.Response.Header.Set("Server", s)
		}
	}
	l.watch()
}

// fail is the answer for a reason.
func (l *life) fail(reason message.Reason, detail string) *message.Response {
	return message.Failure(reason, detail)
}

// failure is the answer that a snapshot demands.
func (l *life) failure(f *failure) *message.Response { return l.fail(f.reason, f.detail) }
