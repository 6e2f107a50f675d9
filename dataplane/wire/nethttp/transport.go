package nethttp

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// NewTransport makes the transport for a key; it is a message.TransportFactory. Zero options mean no limit, and no idle connections.
func NewTransport(key message.ConnKey, options message.TransportOptions) message.Transport {
	switch {
	case key.TLS != (message.TLSKey{}):
		return noTLS{}
	case key.Protocol == message.ProtocolHTTP1:
		return newOne(key, options)
	case key.Protocol == message.ProtocolH2C:
		return newTwo(key, options)
	}
	return noTLS{}
}

var _ message.TransportFactory = NewTransport

// noTLS answers for keys that ask for TLS: what isn't built yet and concerns security is refused, never ignored (contracts 24).
type noTLS struct{}

func (noTLS) RoundTrip(_ context.Context, at *message.Attempt) error {
	at.Response, at.Sent, at.Join = nil, message.SentNothing, nil
	return &message.Error{Reason: message.ReasonTLSFailed, Err: errors.New("TLS to backends is not built yet")}
}
func (noTLS) Retire() {}
func (noTLS) Revive() {}

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
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return &message.Error{Reason: message.ReasonConnectTimeout, Err: err}
	}
	return &message.Error{Reason: message.ReasonConnectFailed, Err: err}
}

func protocolError(text string) error {
	return &message.Error{Reason: message.ReasonUpstreamProtocol, Err: errors.New(text)}
}
