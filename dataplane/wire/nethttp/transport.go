package nethttp

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// NewTransport makes the transport for a key; it is a message.TransportFactory. Zero options mean no limit, and no idle connections.
//
// ProtocolHTTPS is spoken as HTTP/1.1 over TLS, which is all that calls of our own need; what needs HTTP/2 asks for ProtocolH2.
func NewTransport(key message.ConnKey, options message.TransportOptions) message.Transport {
	secure := key.TLS != message.TLSKey{}
	named := options.TLS != nil && options.TLS.ServerName != "" && options.TLS.Key() == key.TLS
	switch {
	case key.Protocol == message.ProtocolHTTP1 && !secure, key.Protocol == message.ProtocolHTTPS && named:
		return newOne(key, options)
	case key.Protocol == message.ProtocolH2C && !secure, key.Protocol == message.ProtocolH2 && named:
		return newTwo(key, options)
	}
	return refused{}
}

var _ message.TransportFactory = NewTransport

// refused answers for keys whose TLS settings nobody gave, or that want TLS in the clear: never is one half of it taken for the whole
// (contracts 24).
type refused struct{}

func (refused) RoundTrip(_ context.Context, at *message.Attempt) error {
	at.Response, at.Sent, at.Join = nil, message.SentNothing, nil
	return &message.Error{Reason: message.ReasonTLSFailed, Err: errors.New("the connection's key and its TLS settings disagree")}
}
func (refused) Retire() {}
func (refused) Revive() {}

// continueTimeout is how long a backend may think about Expect: 100-continue before it gets the body all the same (RFC 9110 10.1.1).
const continueTimeout = time.Second

// bodyError is the error of an attempt whose request body broke off: that is the client's doing, or a filter's, not the backend's.
func bodyError(err error) error {
	var known *message.Error
	if errors.As(err, &known) {
		return known
	}
	return &message.Error{Reason: message.ReasonClientLeft, Err: err}
}

// dialError is the error of an attempt that got no connection.
func dialError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return message.ContextError(ctx)
	}
	var known *message.Error
	if errors.As(err, &known) {
		return known
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return &message.Error{Reason: message.ReasonConnectTimeout, Err: err}
	}
	return &message.Error{Reason: message.ReasonConnectFailed, Err: err}
}

func protocolError(text string) error {
	return &message.Error{Reason: message.ReasonUpstreamProtocol, Err: errors.New(text)}
}
