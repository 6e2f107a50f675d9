package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// Store is the connection of a process to what it shares with others. All methods may be called by many.
type Store struct {
	options Options
	client  atomic.Pointer[rueidis.Client] // nil until the first connection
	failed  atomic.Int32                   // batches in a row
	probes  atomic.Int64

	generation atomic.Int64
	roused     chan struct{} // holds one; the watcher looks at once

	calls   chan *Call
	errands chan errand // what nobody waits for
	owed    owed
	leases  leases
	renewed chan struct{} // holds one: all leases are renewed at once

	wait   sync.WaitGroup
	ending context.Context // ends with Close
	end    context.CancelFunc
	health health
}

// The bounds of what waits in memory.
const (
	maxCalls   = 4096
	maxErrands = 1 << 16
)

// workers is how many batches are on their way at once. What comes meanwhile makes the next ones larger.
const workers = 4

// Open starts to connect, and returns at once: a process serves without its store, too.
func Open(o Options) (*Store, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	s := &Store{
		options: o.withDefaults(), roused: make(chan struct{}, 1),
		calls: make(chan *Call, maxCalls), errands: make(chan errand, maxErrands), renewed: make(chan struct{}, 1),
	}
	s.ending, s.end = context.WithCancel(context.Background())
	s.health.set(false)
	s.leases.store, s.leases.unique, s.leases.held = s, unique(), map[*Lease]struct{}{}
	s.options.Metrics.StoreUp(false)
	for range workers {
		s.wait.Go(s.work)
	}
	s.wait.Go(s.watch)
	s.wait.Go(s.run)
	s.wait.Go(s.renew)
	return s, nil
}

// Connected returns when the store is there, or with ctx's error.
func (s *Store) Connected(ctx context.Context) error { return s.health.wait(ctx) }

// Up reports whether the store is asked now.
func (s *Store) Up() bool { return s.health.up.Load() }

// Generation is how often the store was found: what was heard of it in another one may be lost there by now. 0: not yet.
func (s *Store) Generation() int64 { return s.generation.Load() }

// Probes is how often the store was looked for.
func (s *Store) Probes() int64 { return s.probes.Load() }

// Timeout is the longest that Ask takes.
func (s *Store) Timeout() time.Duration { return s.options.Timeout }

// Close runs the errands that are left, as long as ctx lets it and the store is there, and closes the connections. Nobody asks any more.
func (s *Store) Close(ctx context.Context) error {
	err := s.settle(ctx)
	s.end()
	done := make(chan struct{})
	go func() { s.wait.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c := s.client.Load(); c != nil {
		(*c).Close()
	}
	return err
}

// health is whether the store is asked.
type health struct {
	up atomic.Bool

	mu sync.Mutex    // guards ch, and changes of up
	ch chan struct{} // closed while it is up
}

// set reports whether that is a change.
func (h *health) set(up bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ch == nil {
		h.ch = make(chan struct{})
	}
	if h.up.Load() == up {
		return false
	}
	h.up.Store(up)
	if up {
		close(h.ch)
	} else {
		h.ch = make(chan struct{})
	}
	return true
}

// wait returns when the store is up, or with ctx's error.
func (h *health) wait(ctx context.Context) error {
	h.mu.Lock()
	ch := h.ch
	h.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unique is a word that no other process has.
func unique() string {
	var b [12]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
