package message

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Version is the HTTP version of a message.
type Version uint8

const (
	HTTP10 Version = iota
	HTTP11
	HTTP2
	HTTP3
)

func (v Version) String() string { return [...]string{"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"}[v] }

// Request is the head of a request and its body.
type Request struct {
	Method  string
	Scheme  string // "http" or "https": how the client reached us, by the connection or a trusted proxy
	Host    Host
	Target  Target
	Version Version
	Header  Header
	Body    *Body // nil: none

	// What frames or is hop-by-hop, as typed fields.
	Upgrade        string // the protocol asked for by Upgrade, in lower case; "" none. "websocket" is the one that is forwarded
	ExpectContinue bool   // Expect: 100-continue
	TETrailers     bool   // TE: trailers (gRPC demands it)
}

// GRPC reports whether the request is gRPC (its content type begins so).
func (r *Request) GRPC() bool {
	const ct = "application/grpc"
	v := r.Header.Get("Content-Type")
	return len(v) >= len(ct) && v[:len(ct)] == ct && (len(v) == len(ct) || v[len(ct)] == '+' || v[len(ct)] == ';')
}

// Idempotent reports whether the method may be sent twice (RFC 9110 9.2.2).
func (r *Request) Idempotent() bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// Origin is who made a response.
type Origin uint8

const (
	OriginUpstream Origin = iota // a backend
	OriginFilter                 // a filter answered
	OriginProxy                  // we failed to forward, or refused
)

func (o Origin) String() string { return [...]string{"upstream", "filter", "gateway"}[o] }

// Response is the head of an answer and its body or tunnel.
type Response struct {
	Status  int
	Header  Header
	Body    *Body // nil: none
	Length  int64 // the Content-Length of an answer that has none by its nature (HEAD, 304); −1 when not given
	Trailer []string

	// Tunnel, after a 101, runs until both sides are done and returns what happened. Body is nil then. Whoever drops such an answer
	// calls Tunnel(nil), which only closes the backend's side.
	Tunnel  func(client Tunnel) Outcome
	Upgrade string // the protocol of a 101

	Origin Origin
	Reason Reason // why it is not a backend's answer; ReasonNone when it is
	Detail string // for the log: the cause behind Reason; never sent to a client
}

// Drop gives up an answer that nobody will get: its body is aborted, the backend's side of its tunnel is closed. A nil one is none.
func (r *Response) Drop(err error) {
	switch {
	case r == nil:
	case r.Tunnel != nil:
		r.Tunnel(nil)
	default:
		r.Body.Abort(err)
	}
}

// Respond returns an answer of ours with a short text body.
func Respond(origin Origin, status int, contentType, text string) *Response {
	r := &Response{Status: status, Origin: origin, Length: -1, Body: BodyOf([]byte(text))}
	if text != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

// Failure is the answer of ours for a reason: its status, and its sentence as text. Detail is for the log.
func Failure(reason Reason, detail string) *Response {
	r := Respond(OriginProxy, reason.Status(), "text/plain; charset=utf-8", reason.Text()+"\n")
	r.Reason, r.Detail = reason, detail
	return r
}

// Outcome is how an exchange ended; the engine fills it before Done.
type Outcome struct {
	BytesIn  int64  // of the request body, or of a tunnel from the client
	BytesOut int64  // of the response body, or of a tunnel to the client
	Reason   Reason // ReasonNone when all went well
	Err      error  // what broke, for the log
}

// Handler is what an engine calls. Serve returns with a final ex.Response; the engine writes its head, pulls its body, fills
// ex.Outcome, and calls Done exactly once, from a defer: after the last byte, a client that left, a panic in Serve, or the end of a
// tunnel days later. After Done nobody touches the exchange any more, its bodies included: their memory serves the next one.
//
// What an engine refuses by itself (bad framing, host or target, a head that is too large or too slow, 405, an announced body over
// the limit) never meets Serve: only Done is called, with ex.Response set, its Reason telling why, and ex.State nil. As much of the
// request as could be read is there, for the log.
//
// While a body of ex.Response is pulled, the engine aborts it when the client leaves. After Done it cancels ex.Context.
type Handler interface {
	Serve(ex *Exchange)
	Done(ex *Exchange)
}

// Limits are what an engine holds a client to. Each zero means none, but engines are never given zeros outside tests. The page that
// lists what covers what: dataplane/settings.go.
type Limits struct {
	HeadTimeout   time.Duration // from the first byte of a head to its end; also from accept to the first head
	IdleTimeout   time.Duration // between two requests of a connection
	BodyTimeout   time.Duration // between two pieces of a request body
	WriteTimeout  time.Duration // a write to the client that makes no progress
	MaxHeadBytes  int           // request line and fields
	MaxFields     int           // field lines
	MaxURIBytes   int           // request target
	MaxBodyBytes  int64         // of a request; 0: no limit
	MaxStreams    int           // HTTP/2 streams at once on a connection
	Paths         PathRules
	BodyBudget    *Budget // for bodies that are held
	MaxInform     int     // 1xx answers passed on per exchange
	DrainBytes    int64   // of an unread request body after an early answer
	DrainDuration time.Duration
}

// Engine is an HTTP implementation, facing clients.
type Engine interface {
	// Open returns a server for connections that share their fate: they are told to leave together.
	Open(h Handler, limits Limits) Server
}

// Server serves connections.
type Server interface {
	// Serve takes the connection over and returns at once or when it ends. For TLS, conn is a *tls.Conn whose handshake is done.
	Serve(conn net.Conn, info *Conn)
	// Shutdown tells clients to leave (GOAWAY, Connection: close), refuses nothing that is under way, and returns when all connections
	// have ended, or with ctx's error.
	Shutdown(ctx context.Context) error
	// Close ends every connection at once.
	Close()
}

// Conn is the connection by which exchanges come. Socket and Listener are keys that listen sets and proxy reads; an engine passes
// them on.
type Conn struct {
	ID       uint64
	Socket   any // snapshot.SocketKey of the listening socket that accepted: never the local address (cluster 21)
	Listener any // snapshot.ListenerKey chosen by SNI; nil without TLS
	TLS      *TLSState
	Remote   netip.AddrPort
	Local    netip.AddrPort
	Opened   time.Time

	leaving atomic.Bool
}

// TLSState is what the handshake found.
type TLSState struct {
	ServerName  string // lower case, "" without SNI
	Version     uint16 // as crypto/tls numbers it
	CipherSuite uint16
	ALPN        string
	Resumed     bool
	Fingerprint string // of what the handshake proved: listener, least version, client authentication; not of the listener's certificates
	// Certificates are the client's, its own first, when they have been verified against what the listener trusts; else there are none.
	Certificates []*x509.Certificate
}

// Leave asks that the connection end: engines answer with Connection: close from now on. Leaving reports it.
func (c *Conn) Leave()        { c.leaving.Store(true) }
func (c *Conn) Leaving() bool { return c != nil && c.leaving.Load() }

// Note is a word for the access log.
type Note struct{ Key, Value string }

// Exchange is a request and its response, from head to Done. It is used by one goroutine at a time, but for Cancel.
//
// Facts that rooms leave for each other are fields here, with who sets and who reads them.
type Exchange struct {
	Request  Request
	Response *Response
	Outcome  Outcome
	Conn     *Conn
	Received time.Time // when the head was complete

	ID       string     // request id: set by proxy; log, traces, X-Request-Id
	ClientIP netip.Addr // set by proxy from trusted hops; limits, logs, authorization
	Identity *Identity  // set by filter auth, nil: nobody has proven anything; expressions, limits, logs, and streams that end with it
	// HiddenQuery are names of query parameters that carry credentials here: set by filter auth; log and traces show no values of them.
	HiddenQuery []string

	Route    string // "HTTPRoute ns/name rule": set by proxy after the match; log
	RouteKey any    // what telemetry resolved for the rule: set by proxy; telemetry
	// ListenerPort is the port in the listener's spec, which redirects name: set by proxy.
	ListenerPort uint16
	// MatchedPrefix is what of the path the rule's prefix match matched: set by proxy; redirects and rewrites that replace it.
	MatchedPrefix string
	Attempts      int // made so far: set by proxy; log, metrics
	Upstream      netip.AddrPort
	BackendName   string
	Depth         int    // forks above this one
	Trace         Trace  // set by telemetry; proxy writes traceparent from it
	State         any    // the handler's own, from Serve to Done
	Wire          string // the engine's name, for tests and the log

	Notes []Note

	// Informer passes a 1xx answer on; set by the engine, nil when the client cannot take one.
	Informer func(code int, h *Header) error
	informed int
	// MaxInform bounds Informer's calls; set by the engine from Limits.
	MaxInform int

	parent context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc

	pre, rule slots
}

// Trace is the W3C trace context of an exchange.
type Trace struct {
	Traceparent string // what goes upstream; "" when there is none
	Tracestate  string
	Span        any // telemetry's own
}

// slots hold filters' state. Most rules have few filters with any: those need no allocation.
type slots struct {
	few  [4]any
	many []any
}

// Slot names a place for a filter's state in an exchange. It is given out when a chain is built, and good for exchanges of that chain.
type Slot struct {
	Pre bool
	N   int
}

// Slot is the place; it holds nil until the filter sets it.
func (ex *Exchange) Slot(s Slot) *any {
	set := &ex.rule
	if s.Pre {
		set = &ex.pre
	}
	if s.N < len(set.few) {
		return &set.few[s.N]
	}
	n := s.N - len(set.few)
	if n >= len(set.many) {
		set.many = append(set.many, make([]any, n+1-len(set.many))...)
	}
	return &set.many[n]
}

// Note leaves a word for the access log.
func (ex *Exchange) Note(key, value string) { ex.Notes = append(ex.Notes, Note{key, value}) }

// WithParent sets the context that Context derives from: the engine's, which ends when the client leaves. Before the first Context.
func (ex *Exchange) WithParent(ctx context.Context) { ex.parent = ctx }

// Context ends when the client leaves or the exchange is over. It is made on first use and never reused.
func (ex *Exchange) Context() context.Context {
	if ex.ctx == nil {
		parent := ex.parent
		if parent == nil {
			parent = context.Background()
		}
		ex.ctx, ex.cancel = context.WithCancelCause(parent)
	}
	return ex.ctx
}

// Cancel ends the context with a cause. The engine calls it when the client has left, and after Done.
func (ex *Exchange) Cancel(cause error) {
	if ex.cancel != nil {
		ex.cancel(cause)
	}
}

// Inform passes a 1xx answer on to the client (RFC 9110 15.2), at most MaxInform of them; what a client cannot take is dropped.
func (ex *Exchange) Inform(code int, h *Header) error {
	if ex.Informer == nil || ex.informed >= ex.MaxInform {
		return nil
	}
	ex.informed++
	return ex.Informer(code, h)
}

// Fork returns an exchange of our own that belongs to this one: copied head without body, parent's id and client, its own context,
// one level deeper. It reports false at the fourth level: a request that calls itself.
func (ex *Exchange) Fork() (*Exchange, bool) {
	if ex.Depth >= 3 {
		return nil, false
	}
	f := &Exchange{
		Request: ex.Request, Conn: ex.Conn, Received: ex.Received, ID: ex.ID, ClientIP: ex.ClientIP, Route: ex.Route,
		RouteKey: ex.RouteKey, Depth: ex.Depth + 1, Trace: ex.Trace, Identity: ex.Identity, parent: ex.Context(),
	}
	f.Request.Header = ex.Request.Header.Clone()
	f.Request.Body = nil
	return f, true
}

// Reset makes the exchange new, so that an engine can use its memory again after Done. Contexts are never reused.
func (ex *Exchange) Reset() { *ex = Exchange{} }
