// Package outbound lends calls of our own to libraries that want a client: Client is an *http.Client over a filter.Caller, Conn a gRPC
// connection over one. So JWKS fetches, logins and external authorization go the way of every other request (endpoints, health, TLS,
// limits, spans), and nobody dials for himself (contracts 14).
//
// What comes from outside is bounded: an answer has a greatest size, a call a longest time, and no redirect is ever followed: it would
// lead away from the host that was checked (threats 29). Bodies stream both ways. Errors carry a *message.Error.
//
// A Caller speaks to one backend. Where that lies outside of the cluster, a request for another host is an error, so a library cannot be
// talked into sending a credential elsewhere by what it has read.
package outbound

import (
	"context"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Options bound the calls of a client.
type Options struct {
	Timeout  time.Duration // of a call, to the end of the answer's body; 0: DefaultTimeout. The caller's context may end it sooner
	MaxBytes int64         // of an answer's body, and of one message over gRPC; 0: DefaultMaxBytes
}

// What holds where Options say nothing.
const (
	DefaultTimeout  = 10 * time.Second
	DefaultMaxBytes = 1 << 20
)

func (o Options) filled() Options {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	return o
}

type parentKey struct{}

// For makes calls under the context forks of ex: they carry its request id and span, and a request that calls itself ends. The context
// derives from ex's, so that a client that leaves ends them. Without it calls belong to nobody (a refresh in the background).
func For(ex *message.Exchange) context.Context {
	return context.WithValue(ex.Context(), parentKey{}, ex)
}

// exchange is the one of a call under that context, without a request.
func exchange(ctx context.Context) (*message.Exchange, error) {
	parent, _ := ctx.Value(parentKey{}).(*message.Exchange)
	if parent == nil {
		return &message.Exchange{Received: time.Now()}, nil
	}
	fork, ok := parent.Fork()
	if !ok {
		return nil, &message.Error{Reason: message.ReasonTooManyForks}
	}
	fork.Request = message.Request{} // what a client presented to us is for us (threats 32)
	return fork, nil
}

// tooLarge is the error of an answer over its bound.
func tooLarge() error {
	return &message.Error{Reason: message.ReasonUpstreamProtocol, Err: errTooLarge}
}

var errTooLarge = errors.Join(errors.New("the answer is over the limit"), message.ErrTooLarge)
