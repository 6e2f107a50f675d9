// Package listen owns what faces clients below HTTP: listening sockets, TLS and its server names, and the leaving of connections.
//
// A connection belongs to the socket that accepted it, never to its local address (cluster 21), and for TLS to the listener that its
// server name chose. Both stand in its message.Conn; what was decided at the handshake is compared again per request (contracts 20).
//
// # Applying
//
// The root makes a Plan of a snapshot's sockets with Prepare, and hands it to Apply together with the function that stores the pointer
// to the whole new plan. The order is: bind what is new (nothing is accepted there yet); store the pointer; close what left, bind again
// what was in its way, and accept on what is new. So no connection meets a plan that doesn't know its socket, an address that moves
// from one Gateway to another is handed over without a moment's pause, and a socket that stays is not touched, whether its routes,
// certificates or its protocol change.
//
// A bind that fails hurts its own listeners only; it is tried again at the next Apply and every Options.Retry.
//
// # Leaving
//
// Connections that share their fate (socket, listener, TLS settings) share a message.Server. When certificates change, those of the old
// ones are told to leave in waves over Options.Spread; when the listener is gone or demands something else of its clients, at once, and
// the root refuses their requests meanwhile (Plan.Holds). A connection is first told by Connection: close on its next answer
// (message.Conn.Leave), and Options.LeaveFirst later by Server.Shutdown, which sends GOAWAY and in the end closes idle connections.
//
// # Limits
//
// Every connection has a deadline from accept on: Options.Handshake for TLS, then the engine's head timeout. PROXY protocol and
// passthrough are not built yet. Session tickets are good wherever the keyring is the same.
package listen

import (
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/keyring"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Options are the settings of a Listen. A duration of 0 is its default, a negative one is none.
type Options struct {
	Engine  message.Engine
	Handler message.Handler
	Limits  message.Limits
	// Current is the plan that serves: what the function given to Apply has stored.
	Current func() *Plan

	Handshake      time.Duration // from accept to the end of the TLS handshake; 10 s
	MaxConnections int           // more are closed at once and counted; 0: no limit
	Spread         time.Duration // over which connections with an old certificate are told to leave; 30 s
	LeaveFirst     time.Duration // from Connection: close to Server.Shutdown; none: wire/nethttp's has a patience of its own
	DrainLeft      time.Duration // for connections that were told to leave, before they are cut; 60 s
	Retry          time.Duration // between two tries of a bind that failed; 5 s

	// Keys are what the keys of session tickets are derived from; nil: random ones.
	Keys *keyring.Ring

	// Bound is called, from a goroutine of its own, when a bind that had failed succeeds between two Applies, with the state of all
	// sockets. Nil: nobody wants to know.
	Bound func(snapshot.BindResult)

	Log *slog.Logger // nil: dropped
}

func (o *Options) defaults() {
	for d, or := range map[*time.Duration]time.Duration{
		&o.Handshake: 10 * time.Second, &o.Spread: 30 * time.Second, &o.DrainLeft: time.Minute, &o.Retry: 5 * time.Second,
	} {
		if *d == 0 {
			*d = or
		}
	}
	if o.Keys == nil {
		o.Keys = keyring.New(0, time.Now)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Listen is all listening sockets of a data plane and their connections.
type Listen struct {
	options Options
	base    *tls.Config // picks the listener's config by server name

	applying sync.Mutex // one Apply, retry or Shutdown at a time; guards what follows
	sockets  map[snapshot.SocketKey]*socket
	failed   map[snapshot.SocketKey]error
	retry    *time.Timer
	closed   bool

	mu      sync.Mutex          // guards what follows
	leaving map[*group]struct{} // told to leave, and not gone yet
	shaking map[*conn]struct{}  // in their handshake

	ids      atomic.Uint64
	open     atomic.Int64
	draining atomic.Bool
	quiet    chan struct{}   // gets a value when the last connection has ended
	hurry    chan struct{}   // closed by Shutdown: no more waiting for waves
	final    context.Context // Shutdown's; may be read once hurry is closed
	tasks    sync.WaitGroup
}

// New returns a Listen without sockets.
func New(o Options) *Listen {
	o.defaults()
	return &Listen{
		options: o,
		base:    &tls.Config{GetConfigForClient: choose},
		sockets: map[snapshot.SocketKey]*socket{},
		failed:  map[snapshot.SocketKey]error{},
		leaving: map[*group]struct{}{},
		shaking: map[*conn]struct{}{},
		quiet:   make(chan struct{}, 1),
		hurry:   make(chan struct{}),
	}
}

// Open is the number of connections, those in their handshake included.
func (l *Listen) Open() int { return int(l.open.Load()) }

// wait waits for d, and reports false when there is no more time to wait.
func (l *Listen) wait(d time.Duration) bool {
	select {
	case <-l.hurry:
		return false
	default:
	}
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.hurry:
		return false
	}
}
