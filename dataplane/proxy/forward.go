package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/upstream"
)

var (
	errRequestTimeout = &message.Error{Reason: message.ReasonRequestTimeout}
	errAttemptTimeout = &message.Error{Reason: message.ReasonAttemptTimeout}
	errClientLeft     = &message.Error{Reason: message.ReasonClientLeft}
	errGivenUp        = errors.New("given up for another attempt")
)

// forward sends the request to a share of the rule's backends and returns the answer: the backend's, or ours when there is none.
func (l *life) forward() *message.Response {
	r := l.rule
	l.startMirrors()
	l.target = r.pick()
	if l.target == nil {
		return l.fail(message.ReasonNoBackend, "all weights are zero")
	}
	if f := l.target.failure; f != nil {
		return l.failure(f)
	}
	l.ex.BackendName = l.target.name
	if r.mayResend(&l.ex.Request) || len(l.mirror) > 0 {
		l.ex.Request.Body.Keep(l.p.options.RetryBodyBytes)
	}
	if d := pickTimeout(r.timeouts.Request, l.p.options.RequestTimeout); d > 0 {
		l.context()
		cancel := l.cancel
		l.requestTimer = time.AfterFunc(d, func() { cancel(errRequestTimeout) })
	}
	l.watchUpload()
	resp := l.attempts()
	if l.requestTimer != nil {
		l.requestTimer.Stop()
	}
	return resp
}

// attempts tries until there is an answer that stands.
func (l *life) attempts() *message.Response {
	r := l.rule
	l.tried = l.triedFew[:0]
	for n := 0; ; n++ {
		err := l.try(n)
		reason := upstream.ReasonOf(err)
		if err == nil && !slices.Contains(r.retry.Codes, l.attempt.Response.Status) {
			return l.accept()
		}
		if n >= r.extraAttempts(l.p.options.ConnectRetries) || !l.again(err, reason) {
			if err != nil {
				return l.broken(err, reason)
			}
			return l.accept()
		}
		if err == nil {
			reason = message.ReasonNone
			l.giveUp(errGivenUp)
		}
		l.rewind()
		if !l.pause(r.retry.Backoff) {
			return l.broken(context.Cause(l.context()), l.causeReason(message.ReasonClientLeft))
		}
		l.p.options.Telemetry.Retry(reason)
	}
}

// try makes one attempt.
func (l *life) try(n int) error {
	at := &l.attempt
	*at = message.Attempt{Exchange: l.ex, Request: l.ex.Request, N: n, Started: l.p.options.Clock()}
	at.Request.Header = l.ex.Request.Header.Share()
	at.Pick = message.Pick{Excluded: l.tried, Zone: l.p.options.Zone}
	if l.target.chain.HasAttempt() || l.chain.HasAttempt() {
		at.Before = l.before
	}
	l.ex.Attempts = n + 1

	ctx := l.ctx
	if ctx == nil {
		ctx = l.ex.Context()
	}
	var timer *time.Timer
	if d := pickTimeout(l.rule.timeouts.Backend, l.p.options.AttemptTimeout); d > 0 {
		attempt, cancel := context.WithCancelCause(l.context())
		ctx = attempt
		timer = time.AfterFunc(d, func() { cancel(errAttemptTimeout) })
	}
	err := l.target.backend.Do(ctx, at)
	if timer != nil && !timer.Stop() && err == nil {
		// The timer fired while the answer came: too late is too late.
		l.giveUp(errAttemptTimeout)
		err = errAttemptTimeout
	}
	if err != nil && ctx.Err() != nil {
		err = l.explain(ctx, err)
	}
	if at.Join != nil {
		l.joins = append(l.joins, at.Join)
	}
	if at.Endpoint.IsValid() {
		l.ex.Upstream = at.Endpoint
		l.tried = append(l.tried, at.Endpoint)
	}
	return err
}

// explain turns the error of an attempt whose context has ended into what ended it.
func (l *life) explain(ctx context.Context, err error) error {
	var e *message.Error
	if errors.As(context.Cause(ctx), &e) {
		return e
	}
	if upstream.ReasonOf(err) == message.ReasonBodyTimeout {
		return err
	}
	return errClientLeft
}

func (l *life) causeReason(otherwise message.Reason) message.Reason {
	var e *message.Error
	if errors.As(context.Cause(l.context()), &e) {
		return e.Reason
	}
	return otherwise
}

// again decides whether a failed attempt, or an answer with a listed code (err nil), may be followed by another one.
func (l *life) again(err error, reason message.Reason) bool {
	at, q := &l.attempt, &l.ex.Request
	if err != nil && !elsewhere(reason) {
		return false
	}
	if err != nil && at.Sent == message.SentNothing {
		return at.Endpoint.IsValid() && q.Body.Rewindable()
	}
	// A backend may close an idle connection just as it is taken: that says nothing about the backend, and nothing came of the request.
	lost := err != nil && reason == message.ReasonUpstreamReset && at.Reused && q.Idempotent()
	// A body that has not come to its end may still be read for the attempt that failed.
	return (lost || l.rule.mayResend(q)) && q.Upgrade == "" && q.Body.Ended() && q.Body.Rewindable()
}

// elsewhere reports whether another endpoint may do better: what went wrong lies on the way to this one. The client, a filter, a
// timeout of the whole and the lack of endpoints go with the request wherever it is sent; so does TLS, which is the backend's setting.
func elsewhere(reason message.Reason) bool {
	switch reason {
	case message.ReasonConnectFailed, message.ReasonConnectTimeout, message.ReasonUpstreamReset, message.ReasonUpstreamProtocol,
		message.ReasonAttemptTimeout:
		return true
	}
	return false
}

// rewind makes the request body start again, once nothing of the attempts before reads it: their connections are gone, so that waits
// for nobody. Again has said that it can be.
func (l *life) rewind() {
	l.join()
	l.ex.Request.Body.Rewind()
}

// giveUp drops the answer of an attempt that does not count.
func (l *life) giveUp(why error) {
	at := &l.attempt
	at.Response.Drop(why)
	if f := at.Finished; f != nil {
		at.Finished = nil
		f(why)
	}
	at.Response = nil
}

// pause waits between two attempts, with a little jitter; false when the exchange ended meanwhile.
func (l *life) pause(backoff time.Duration) bool {
	ctx := l.context()
	if backoff <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(backoff + rand.N(backoff/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// accept makes the attempt's answer the exchange's.
func (l *life) accept() *message.Response {
	r := l.attempt.Response
	l.finished = l.attempt.Finished
	r.Origin = message.OriginUpstream
	if failed := l.runOnResponse(r); failed != nil {
		return l.broken(failed, message.ReasonPanic) // done drops the backend's
	}
	return r
}

// runOnResponse runs what attempt faces left for the answer that counts, the last first. A panic fails this exchange and no other.
func (l *life) runOnResponse(r *message.Response) (failed error) {
	defer func() {
		if p := recover(); p != nil {
			failed = fmt.Errorf("on the answer of an attempt: %v", p)
			l.p.options.Log.Error("a filter panicked", "filter", "of an attempt", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	for _, face := range slices.Backward(l.attempt.OnResponse) {
		face(r)
	}
	return nil
}

// broken is the answer when no attempt had one.
func (l *life) broken(err error, reason message.Reason) *message.Response {
	detail := ""
	if err != nil {
		detail = err.Error()
	}
	return l.fail(reason, detail)
}

// runAttemptFaces runs the attempt faces of the rule's filters, then those of the backendRef.
func (l *life) runAttemptFaces(at *message.Attempt) error {
	for _, c := range [...]*chain{l.chain, l.target.chain} {
		v := c.Attempt(at)
		if reason, detail, failed := v.Failed(); failed {
			return &message.Error{Reason: reason, Err: errors.New(detail)}
		}
	}
	return nil
}

// pickTimeout chooses between a rule's timeout and the process default: 0 is not set, negative none.
func pickTimeout(rule, process time.Duration) time.Duration {
	if rule != 0 {
		return rule
	}
	return process
}
