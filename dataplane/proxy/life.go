package proxy

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// life is what an exchange needs from Serve to Done. It holds the rule and its chains, never the plan: a WebSocket that lives for
// days must not hold the routes of its first day (contracts 19).
type life struct {
	p  *Proxy
	ex *message.Exchange

	pre    *chain
	preMet int // filters of pre that the request has met
	chain  *chain
	met    int
	rule   *rule // nil: no rule matched

	attempt  message.Attempt
	finished func(error) // of the attempt whose answer is on its way
	joins    []func()    // of all attempts: what may still read the request body
	tried    []netip.AddrPort
	triedFew [4]netip.AddrPort
	target   *share
	before   func(*message.Attempt) error

	requestTimer *time.Timer
	ctx          context.Context // of all attempts; nil until one needs it
	cancel       context.CancelCauseFunc

	stream stream // in the registry while the answer is under way
	upload upload // sees the request body
	mirror []*mirror
}

var lives = sync.Pool{New: func() any {
	l := new(life)
	l.before = l.runAttemptFaces
	return l
}}

func newLife(p *Proxy, ex *message.Exchange) *life {
	l := lives.Get().(*life)
	l.p, l.ex = p, ex
	l.pre, l.chain = none, none
	ex.State = l
	return l
}

// free makes the life ready for another exchange. Nothing may refer to it any more: its body has ended and its timers are stopped.
func (l *life) free() {
	before := l.before
	*l = life{before: before}
	lives.Put(l)
}

// done ends the exchange: everything that is still under way is given up, in the order that lets it stop at once.
func (l *life) done() {
	if l.stream.registered() {
		l.p.streams.remove(&l.stream)
	}
	if l.requestTimer != nil {
		l.requestTimer.Stop()
	}
	if e := l.stream.last; e != nil && l.ex.Outcome.Reason == message.ReasonNone {
		l.ex.Outcome.Reason, l.ex.Outcome.Err = e.Reason, e
	}
	failure := l.ex.Outcome.Err
	if r := l.ex.Response; r != nil {
		r.Body.Abort(failure)
	}
	l.dropReplaced(failure)
	if len(l.joins) > 0 {
		l.ex.Request.Body.Abort(failure)
		l.join()
	}
	if l.cancel != nil {
		l.cancel(context.Canceled)
	}
	l.finish(failure)
	l.mirrorBodies()
	l.chain.Done(l.ex)
	l.pre.Done(l.ex)
}

// dropReplaced gives up the backend's answer when the client got another one: of a filter, or of the engine after a panic.
func (l *life) dropReplaced(failure error) {
	theirs, sent := l.attempt.Response, l.ex.Response
	switch {
	case theirs == nil || theirs == sent:
	case theirs.Tunnel == nil || sent == nil || sent.Tunnel == nil:
		theirs.Drop(failure)
	}
}

// join waits until nothing sends the request body any more.
func (l *life) join() {
	for _, join := range l.joins {
		join()
	}
	l.joins = l.joins[:0]
}

// finish ends the attempt that gave the answer.
func (l *life) finish(err error) {
	if f := l.finished; f != nil {
		l.finished = nil
		f(err)
	}
}

// context is the one that attempts run under. It is made only when something can end an attempt from outside.
func (l *life) context() context.Context {
	if l.ctx == nil {
		l.ctx, l.cancel = context.WithCancelCause(l.ex.Context())
	}
	return l.ctx
}
