// Package filter says what a filter is: settings (a Config) that become up to five typed faces, and the chain that runs them.
//
// Filters are phases, not onions: nothing wraps anything. A request meets the faces in list order, a response in reverse; what goes
// around an exchange (retry, timeout, mirror) is a setting that the proxy knows. Faces are typed fields, so a method with a wrong
// signature does not compile: a filter that silently loses its face is authentication that fails open.
//
// A filter costs one directory below this one and one line in dataplane/filters.go, where the order is.
package filter

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/store"
)

// Config is a filter's settings that can build it.
type Config interface {
	snapshot.Filter
	// Build makes the filter. What a user can get wrong was refused before, where the policy was compiled: an error here is a bug of
	// ours, fails the rule closed, and is logged. No face at all is an error too.
	Build(env Env) (Faces, error)
}

// Joiner is a Config that makes one filter of itself and the next of its kind in a chain, since what they decide cannot be decided by one
// after the other. The result builds in the place of both; false: they stay two.
type Joiner interface {
	Join(next snapshot.Filter) (snapshot.Filter, bool)
}

// Faces are where a filter acts. Nil: not there.
type Faces struct {
	Conn     OnConn
	Request  OnRequest
	Attempt  OnAttempt
	Response OnResponse
	Done     OnDone
}

// OnConn sees a connection before anything is read of it. (Run by listen when L4 routes come.)
type OnConn func(*message.Conn) Verdict

// OnRequest sees the request before it is forwarded.
type OnRequest func(*message.Exchange) Verdict

// OnAttempt sees one attempt, after an endpoint has been chosen for it; it acts on the attempt only.
type OnAttempt func(*message.Attempt) Verdict

// OnResponse sees the head of the answer, whoever made it.
type OnResponse func(*message.Exchange) Verdict

// OnDone sees the end of the exchange. It never blocks: what must wait goes to Env.Async.
type OnDone func(*message.Exchange)

// Verdict is what a face says: go on, the answer is there (ex.Response is set), or fail with a reason.
type Verdict struct {
	kind   verdict
	reason message.Reason
	detail string
}

type verdict uint8

const (
	goOn verdict = iota
	answered
	failed
)

var (
	// Continue: the next face is asked.
	Continue = Verdict{kind: goOn}
	// Answer: ex.Response is the answer; it passes the response faces of the filters before this one only.
	Answer = Verdict{kind: answered}
)

// Fail ends the exchange with that reason; detail is for the log.
func Fail(reason message.Reason, detail string) Verdict {
	return Verdict{kind: failed, reason: reason, detail: detail}
}

// Failed reports whether the verdict is a failure, and its reason.
func (v Verdict) Failed() (message.Reason, string, bool) {
	return v.reason, v.detail, v.kind == failed
}

// Answered reports whether the verdict is Answer.
func (v Verdict) Answered() bool { return v.kind == answered }

// Env is what a filter may use beside its settings, when it is built. It is made anew for each chain.
type Env struct {
	Rule snapshot.RuleKey // the rule that the chain is of; zero for a listener's default and pre chain
	// Round of the store of what outlives a snapshot; good during Build only.
	Keep *keep.Round
	// Clock is the time for everything that a filter decides by.
	Clock func() time.Time
	// Call resolves a backend for calls of our own (contracts 14); the root resolves it.
	Call func(snapshot.BackendRef) (Caller, error)
	// Keys derives 32-byte keys for a purpose from the keys of the process, which all replicas share: the first seals and signs, each of
	// them opens and verifies. They rotate while the process runs: ask for each use.
	Keys func(purpose string) [][]byte
	// Async runs work that may wait, off the way of a request: bounded, and counted when it is refused (false).
	Async func(work func()) bool
	// Counter is a metric handle of that name, resolved once; the labels are the filter's name and these pairs (label, value, …).
	// Labels are out of telemetry.Labels. Build makes it of CounterOf.
	Counter func(name string, pairs ...string) Counter
	// CounterOf is Counter for any filter; the root gives it.
	CounterOf func(filter, name string, pairs ...string) Counter
	// Gauge shows a value that is read when metrics are asked for, by many at once; labels as with Counter, and one series for equal ones:
	// the last read given counts. Build makes it of GaugeOf.
	Gauge func(name string, read func() float64, pairs ...string)
	// GaugeOf is Gauge for any filter; the root gives it.
	GaugeOf func(filter, name string, read func() float64, pairs ...string)
	// Admin offers a page under /filters/ on the admin port; the page that was offered last under a path is shown.
	Admin func(path string, page message.Handler)
	// Store is what replicas share; nil: there is none.
	Store *store.Store
	// Members is how many replicas share the traffic now, this one included: at least 1. Nil: 1.
	Members func() int

	pre   bool
	slots *int
}

// Caller makes calls of our own through a backend (contracts 14): endpoints, health, TLS, limits and spans as for any other request, but
// never by way of a listener or a route. It may be used by many at once, and works for whoever holds it, also when its plan is gone
// (contracts 18). Libraries that want a client get one from dataplane/outbound.
//
// Do sends ex.Request and sets ex.Response. Who calls owns both: ex is a fork of the exchange that it is for (so that a request that
// calls itself comes to an end), or one of its own, with no engine behind it. ctx bounds the call up to the end of the answer's body,
// not only to its head. The body must be read to its end or given up (Response.Drop); then Request.Body is no longer read either.
// Redirects are answers like any other. Errors are *message.Error.
type Caller interface {
	Do(ctx context.Context, ex *message.Exchange) error
}

// Counter counts; Add may be called by many.
type Counter interface{ Add(n float64) }

// Slot gives out a place for this filter's state in each exchange that runs through the chain being built. A release at the end
// happens only if the slot is set, and clears it: Done may come for an exchange that never met the filter.
func (e Env) Slot() message.Slot {
	n := *e.slots
	*e.slots = n + 1
	return message.Slot{Pre: e.pre, N: n}
}
