package mem

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Upstream is a backend: it does what Transport.RoundTrip promises. Reply makes the usual one.
type Upstream func(ctx context.Context, at *message.Attempt) error

// Transport makes an Upstream a message.Transport.
type Transport struct {
	Upstream Upstream
	retired  atomic.Bool
}

// RoundTrip asks the Upstream. A context that has ended, and a key without an Upstream, are what they are on a network.
func (t *Transport) RoundTrip(ctx context.Context, at *message.Attempt) error {
	at.Response, at.Sent, at.Reused, at.Replays, at.Join = nil, message.SentNothing, false, 0, nil
	if ctx.Err() != nil {
		return message.ContextError(ctx)
	}
	if t.Upstream == nil {
		return &message.Error{Reason: message.ReasonConnectFailed, Err: errors.New("nobody is there")}
	}
	return t.Upstream(ctx, at)
}

func (t *Transport) Retire() { t.retired.Store(true) }
func (t *Transport) Revive() { t.retired.Store(false) }

// Retired reports whether the key has left the plan.
func (t *Transport) Retired() bool { return t.retired.Load() }

// Factory makes transports whose backends are found by key; nil: nobody is there.
func Factory(find func(message.ConnKey) Upstream) message.TransportFactory {
	return func(key message.ConnKey, _ message.TransportOptions) message.Transport {
		return &Transport{Upstream: find(key)}
	}
}

// Reply is a backend that reads the request to its end and gives an answer that Make makes anew each time.
func Reply(answer func(at *message.Attempt, body []byte) *message.Response) Upstream {
	return func(ctx context.Context, at *message.Attempt) error {
		at.Sent = message.SentHead
		content, err := drain(ctx, at.Request.Body)
		if len(content) > 0 {
			at.Sent = message.SentBody
		}
		if err != nil {
			return err
		}
		at.Response = answer(at, content)
		return nil
	}
}

func drain(ctx context.Context, body *message.Body) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	var content []byte
	for {
		p, err := body.Next()
		if err == io.EOF {
			return content, nil
		}
		var known *message.Error
		switch {
		case ctx.Err() != nil:
			return content, message.ContextError(ctx)
		case errors.As(err, &known):
			return content, known
		case err != nil:
			return content, &message.Error{Reason: message.ReasonClientLeft, Err: err}
		}
		content = append(content, p...)
	}
}
