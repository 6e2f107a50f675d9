package nethttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// dialer makes connections to one endpoint, secured if its key says so.
type dialer struct {
	net     net.Dialer
	address string
	tls     *tls.Config // nil in the clear
	timeout time.Duration
}

// newDialer returns the one for a key. Protocol is what ALPN (RFC 7301) offers: one, so that nothing is left to the backend's choice.
func newDialer(key message.ConnKey, options message.TransportOptions, protocol string) dialer {
	d := dialer{net: net.Dialer{Timeout: options.ConnectTimeout}, address: key.Endpoint.String(), timeout: options.ConnectTimeout}
	if c := options.TLS; c != nil {
		d.tls = &tls.Config{
			ServerName: c.ServerName, RootCAs: c.Roots, NextProtos: []string{protocol},
			ClientSessionCache: tls.NewLRUClientSessionCache(8), // of this key alone: a session never outlives the roots that proved it
		}
	}
	return d
}

// dial makes a connection. What the TLS handshake finds is tls_failed; the time that it takes is bounded like that of the connection.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	nc, err := d.net.DialContext(ctx, "tcp", d.address)
	if err != nil || d.tls == nil {
		return nc, err
	}
	return d.secure(ctx, nc)
}

func (d *dialer) secure(ctx context.Context, nc net.Conn) (net.Conn, error) {
	c := tls.Client(nc, d.tls)
	handshake, cancel := ctx, func() {}
	if d.timeout > 0 {
		handshake, cancel = context.WithTimeout(ctx, d.timeout)
	}
	defer cancel()
	err := c.HandshakeContext(handshake)
	switch {
	case err == nil && (c.ConnectionState().NegotiatedProtocol == d.tls.NextProtos[0] || d.tls.NextProtos[0] == protocolOne):
		return &secured{c}, nil
	case err == nil:
		err = fmt.Errorf("the backend does not speak %s over TLS", d.tls.NextProtos[0])
	case ctx.Err() != nil:
		nc.Close()
		return nil, ctx.Err()
	case handshake.Err() != nil:
		nc.Close()
		return nil, &message.Error{Reason: message.ReasonConnectTimeout, Err: errors.New("no TLS handshake in time")}
	}
	nc.Close()
	return nil, &message.Error{Reason: message.ReasonTLSFailed, Err: err}
}

const (
	protocolOne = "http/1.1"
	protocolTwo = "h2"
)

// secured is a TLS connection to a backend.
type secured struct{ *tls.Conn }

// Close closes at once. tls.Conn waits up to five seconds to say goodbye to who does not read, and nothing of ours ends by it: a request
// says itself where it ends.
func (s *secured) Close() error { return s.NetConn().Close() }

// silent reports whether nothing that was decrypted, or only read, waits for a reader: what came without a request for it would become
// the answer to the next one.
func (s *secured) silent() bool {
	s.SetReadDeadline(time.Unix(1, 0))
	var b [1]byte
	n, err := s.Read(b[:])
	s.SetReadDeadline(time.Time{})
	var timeout net.Error
	return n == 0 && errors.As(err, &timeout) && timeout.Timeout()
}
