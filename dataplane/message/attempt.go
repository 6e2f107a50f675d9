package message

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/netip"
	"time"
)

// Sent tells how much of a request may have reached the backend; it decides whether the request may be tried again.
type Sent uint8

const (
	SentNothing Sent = iota // no byte left us: safe to try elsewhere
	SentHead                // the head, or a part of it
	SentBody                // the head and a part of the body
	SentUnknown             // it cannot be told
)

// Protocol is what is spoken to a backend.
type Protocol uint8

const (
	ProtocolHTTP1 Protocol = iota // HTTP/1.1 in the clear
	ProtocolH2C                   // HTTP/2 with prior knowledge, in the clear
	ProtocolHTTPS                 // HTTP/1.1 or HTTP/2 over TLS, by ALPN
	ProtocolH2                    // HTTP/2 over TLS
)

func (p Protocol) String() string {
	return [...]string{"http1", "h2c", "https", "h2"}[p]
}

// ConnKey is what two attempts must agree on to share a connection: never the route, never the backend (contracts 16). It is a plain
// comparable value.
type ConnKey struct {
	Endpoint netip.AddrPort
	Protocol Protocol
	TLS      TLSKey
}

// TLSKey names how a backend is verified. The zero value: not TLS.
type TLSKey struct {
	ServerName  string
	Fingerprint string // of roots, subject alternative names and client certificate
}

// TLSConfig says how a backend is verified and what is shown to it. It is immutable; Key names it in connection keys.
type TLSConfig struct {
	// ServerName is sent as SNI (RFC 6066 3), and the certificate must be valid for it. Of an IP address nothing is sent, but the
	// certificate must be valid for it all the same.
	ServerName string
	Roots      *x509.CertPool // nil: the system's
	// Fingerprint tells two settings apart that have the same ServerName: a hash of the roots' PEM, "" for the system's.
	Fingerprint string
}

// Key is the name of the settings: two with the same key share connections.
func (c *TLSConfig) Key() TLSKey { return TLSKey{ServerName: c.ServerName, Fingerprint: c.Fingerprint} }

// Pick is what the balancer may know of a request.
type Pick struct {
	Hash     uint64           // of the key for consistent hashing; 0 when there is none
	Excluded []netip.AddrPort // endpoints already tried
	Zone     string           // our own zone; "" unknown
}

// Attempt is one try of forwarding an exchange. Filters of a backendRef, signing and per-try fields act on it and never on the
// exchange, so that a retry cannot apply them twice. Its Request starts as the exchange's after all request filters, its Header
// shared copy-on-write.
type Attempt struct {
	Exchange *Exchange // for ids, spans and Inform; nobody changes it through the attempt
	Request  Request   // own head; Body is what is sent
	N        int       // 0 for the first try

	Pick     Pick
	Endpoint netip.AddrPort // chosen by the backend
	Conn     ConnKey        // chosen by the backend

	// Before runs when the endpoint is chosen and nothing has been sent: the attempt faces of filters. Its error ends the attempt.
	Before func(*Attempt) error

	// OnResponse run over the answer when this attempt's is the one that counts: the response side of a backendRef's filters. Added by
	// attempt faces, called by the proxy before the response faces of the rule.
	OnResponse []func(*Response)

	Response *Response // set by the transport when it returns nil
	Sent     Sent      // set by the transport, also on error
	Reused   bool      // the connection had served before
	Started  time.Time // when the transport was called
	Replays  int       // times that the transport tried again by itself (net/http does, on a dead pooled connection)

	// Join waits until nothing reads the request body any more; set by the transport when something may. The caller aborts the body
	// first when it no longer wants it sent.
	Join func()
	// Finished is called once, when the attempt is over: the response body is at its end or was given up. Set by the backend (in-flight
	// counts, ejection), called by the proxy.
	Finished func(err error)
}

// Transport speaks one protocol to one ConnKey. RoundTrip makes one attempt: it sends the request, relays 1xx by
// Exchange.Inform, and returns when the head of the answer is there. It changes Response, Sent, Reused, Replays and Join, and
// nothing else. Its errors are *Error.
//
// ctx ends the attempt until RoundTrip returns; the error is then the *Error in its cause, attempt_timeout for a deadline, else
// client_left. After that ctx means nothing: the body of the answer ends by Abort, a tunnel by its client's side.
type Transport interface {
	RoundTrip(ctx context.Context, at *Attempt) error
	// Retire closes what is idle, and each used connection as it comes back: the key has left the plan (contracts 18).
	Retire()
	// Revive ends Retire: the key is wanted again.
	Revive()
}

// ContextError is the error of an attempt whose context has ended: its cause, where that says what it means; else the time is over, or
// the client has left.
func ContextError(ctx context.Context) error {
	cause := context.Cause(ctx)
	var known *Error
	switch {
	case errors.As(cause, &known):
		return known
	case errors.Is(cause, context.DeadlineExceeded):
		return &Error{Reason: ReasonAttemptTimeout, Err: cause}
	}
	return &Error{Reason: ReasonClientLeft, Err: cause}
}

// TransportOptions are the limits that a transport keeps.
type TransportOptions struct {
	ConnectTimeout  time.Duration // for TCP, and again for TLS
	IdleTimeout     time.Duration // an idle connection is closed after it
	MaxIdle         int           // idle connections kept per ConnKey
	MaxHeadBytes    int64         // of an answer
	MaxInformations int           // 1xx answers relayed or dropped per attempt; more is a protocol error
	TLS             *TLSConfig    // what ConnKey.TLS names; nil in the clear
}

// TransportFactory makes the transport for a key; the engine that goes with it is chosen in cmd.
type TransportFactory func(key ConnKey, options TransportOptions) Transport

// Backend makes attempts: it picks an endpoint, takes a connection, and speaks. A group of endpoints is one, and so is what fans a
// request out to several. Its errors are *Error.
type Backend interface {
	Do(ctx context.Context, at *Attempt) error
}

// Tunnel is a connection after 101 or CONNECT: bytes both ways.
type Tunnel interface {
	io.ReadWriter
	CloseWrite() error // no more bytes from us; the other way stays open
	Close() error
}
