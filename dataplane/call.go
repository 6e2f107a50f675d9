package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/upstream"
)

// calls is the backends of a snapshot under way to a plan, for calls of our own: what Env.Call resolves. A filter holds the Caller, and
// the Caller its backend, so both work as long as an exchange does, whatever is applied meanwhile (contracts 18).
type calls struct {
	settings *Settings
	clock    func() time.Time
	backends map[snapshot.BackendRef]callee
}

type callee struct {
	backend *upstream.Backend
	outside bool
	secure  bool
}

// add notes a backend of the snapshot.
func (c *calls) add(s snapshot.Backend, b *upstream.Backend) {
	c.backends[s.Ref] = callee{b, s.Outside != nil, s.TLS != nil || s.Outside != nil && s.Outside.TLS}
}

// caller returns what calls that backend. A backend that the snapshot does not name is an error: whoever compiled the policy has not
// listed it.
func (c *calls) caller(ref snapshot.BackendRef) (filter.Caller, error) {
	to, ok := c.backends[ref]
	if !ok {
		return nil, fmt.Errorf("the snapshot has no backend %s to call", ref)
	}
	out := &caller{to: to, settings: c.settings, clock: c.clock}
	host := ref.Service.Name + "." + ref.Service.Namespace
	if to.outside {
		host = ref.Outside
		if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
			host = "[" + host + "]"
		}
	}
	out.scheme, out.port = "http", 80
	if to.secure {
		out.scheme, out.port = "https", 443
	}
	if ref.Port != out.port {
		host += ":" + strconv.Itoa(int(ref.Port))
		out.port = ref.Port
	}
	out.host, ok = message.ParseHost(host)
	if !ok {
		return nil, fmt.Errorf("backend %s: its host is none", ref)
	}
	return out, nil
}

// caller makes calls of our own to one backend.
type caller struct {
	to       callee
	host     message.Host // of a request that names none, and the only one outside of the cluster
	port     uint16
	scheme   string
	settings *Settings
	clock    func() time.Time
}

// Do makes one call. No byte sent: it is tried on another endpoint, like any request (Settings.ConnectRetries). An answer is never tried
// again.
func (c *caller) Do(ctx context.Context, ex *message.Exchange) error {
	if err := c.prepare(ex); err != nil {
		return err
	}
	at, release, err := c.attempts(ctx, ex)
	if err != nil {
		release()
		return err
	}
	ex.Response = at.Response
	ex.Response.Origin = message.OriginUpstream
	end := &callEnd{at: at, release: release}
	if ex.Response.Body == nil {
		end.over(nil)
		return nil
	}
	ex.Response.Body.Wrap(func(inner message.Source) message.Source {
		end.Source = inner
		return end
	}, ex.Response.Body.Len())
	end.watch(ctx)
	return nil
}

// prepare fills in what the caller left to us, and refuses what leads elsewhere: a client of libraries asks for any URL that it has read
// somewhere, but the address that was checked, and the name that is verified, are this backend's.
func (c *caller) prepare(ex *message.Exchange) error {
	q := &ex.Request
	if q.Upgrade != "" {
		return &message.Error{Reason: message.ReasonBadUpgrade, Err: errors.New("a call of our own is no tunnel")}
	}
	if q.Host.Raw == "" {
		q.Host = c.host
	}
	if c.to.outside && (q.Host.Name != c.host.Name || c.portOf(q) != c.port || q.Scheme != "" && q.Scheme != c.scheme) {
		return &message.Error{Reason: message.ReasonBadHost, Err: fmt.Errorf("a call for %s://%s by way of %s://%s", q.Scheme, q.Host.Raw, c.scheme, c.host.Raw)}
	}
	q.Scheme = c.scheme
	if ex.ID != "" && !q.Header.Has("X-Request-Id") {
		q.Header.Add("X-Request-Id", ex.ID)
	}
	if t := ex.Trace; t.Traceparent != "" && !q.Header.Has("Traceparent") {
		q.Header.Add("Traceparent", t.Traceparent)
		if t.Tracestate != "" {
			q.Header.Add("Tracestate", t.Tracestate)
		}
	}
	q.Body.Keep(c.settings.RetryBodyBytes)
	return nil
}

func (c *caller) portOf(q *message.Request) uint16 {
	switch {
	case q.Host.Port != 0:
		return q.Host.Port
	case c.scheme == "https":
		return 443
	}
	return 80
}

var errNoAnswerInTime = &message.Error{Reason: message.ReasonAttemptTimeout}

// attempts tries until there is an answer, or nothing more to try. Release ends what the last attempt holds.
func (c *caller) attempts(ctx context.Context, ex *message.Exchange) (at *message.Attempt, release func(), err error) {
	var tried []netip.AddrPort
	for n := 0; ; n++ {
		at = &message.Attempt{Exchange: ex, Request: ex.Request, N: n, Started: c.clock()}
		at.Request.Header = ex.Request.Header.Share()
		at.Pick = message.Pick{Excluded: tried, Zone: c.settings.Zone}
		err = c.attempt(ctx, at)
		ex.Attempts, ex.Upstream = n+1, at.Endpoint
		release = func() { leave(at) }
		if err == nil || n >= c.extra() || !c.again(at, err) || ctx.Err() != nil {
			return at, release, err
		}
		leave(at)
		ex.Request.Body.Rewind()
		tried = append(tried, at.Endpoint)
	}
}

// attempt makes one, within the time for one.
func (c *caller) attempt(ctx context.Context, at *message.Attempt) error {
	d := c.settings.AttemptTimeout
	if d <= 0 {
		return c.to.backend.Do(ctx, at)
	}
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil) // of no meaning once there is an answer
	timer := time.AfterFunc(d, func() { cancel(errNoAnswerInTime) })
	err := c.to.backend.Do(own, at)
	if !timer.Stop() && err == nil { // too late is too late
		at.Response.Drop(errNoAnswerInTime)
		at.Finished(errNoAnswerInTime)
		err = errNoAnswerInTime
	}
	return err
}

// leave waits until nothing reads the request body any more, which is given up first.
func leave(at *message.Attempt) {
	if at.Join != nil {
		at.Request.Body.Abort(errCallOver)
		at.Join()
		at.Join = nil
	}
}

var errCallOver = errors.New("the call is over")

// extra is how often a call is tried elsewhere at most. A name outside may have addresses of a family that this machine cannot reach: all
// of them are tried.
func (c *caller) extra() int {
	n := c.settings.ConnectRetries
	if size, _ := c.to.backend.Size(); c.to.outside {
		n = max(n, min(size-1, 7))
	}
	return n
}

// again decides whether a call that failed may be made once more: nothing of it has left us, or a backend has closed the idle connection
// that was just taken, and the method means the same twice.
func (c *caller) again(at *message.Attempt, err error) bool {
	body := at.Request.Body
	switch upstream.ReasonOf(err) {
	case message.ReasonConnectFailed, message.ReasonConnectTimeout:
		return at.Sent == message.SentNothing && at.Endpoint.IsValid() && body.Rewindable()
	case message.ReasonUpstreamReset:
		return (at.Sent == message.SentNothing || at.Reused && at.Request.Idempotent() && body.Ended()) && body.Rewindable()
	}
	return false
}

// callEnd is the body of a call's answer. The call is over with its end: then its endpoint is no longer busy.
type callEnd struct {
	message.Source
	at      *message.Attempt
	release func()
	once    sync.Once

	mu   sync.Mutex  // guards stop against a context that ends at once
	stop func() bool // nil: nothing ends the body from outside
}

// watch gives the body up when ctx ends.
func (e *callEnd) watch(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop = context.AfterFunc(ctx, func() { e.Abort(message.ContextError(ctx)) })
}

func (e *callEnd) Next() ([]byte, error) {
	p, err := e.Source.Next()
	if err != nil {
		e.over(err)
	}
	return p, err
}

func (e *callEnd) Abort(err error) {
	e.Source.Abort(err)
	e.over(err)
}

func (e *callEnd) over(err error) {
	e.once.Do(func() {
		e.mu.Lock()
		stop := e.stop
		e.mu.Unlock()
		if stop != nil {
			stop()
		}
		e.release()
		if f := e.at.Finished; f != nil {
			e.at.Finished = nil
			f(err)
		}
	})
}
