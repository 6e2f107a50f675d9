package store

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Lease is a place among those under way, which the server holds for LeaseTTL, and for as long as it is renewed.
type Lease struct {
	store   *Store
	counter Counter
	key     Key
	id      string
	since   time.Time

	// Guarded by leases.mu.
	told     bool // the server may know of it
	renewing bool
	released bool
}

// leases are those that this process holds.
type leases struct {
	unique string // of this process
	last   atomic.Uint64
	store  *Store

	mu   sync.Mutex // guards held, and what leases say
	held map[*Lease]struct{}
}

// id is a word for a lease that no other has.
func (l *leases) id() string {
	return l.unique + "." + strconv.FormatUint(l.last.Add(1), 36)
}

// hold takes charge of a place that was taken.
func (l *leases) hold(c *Claim) *Lease {
	return l.enter(&Lease{store: l.store, counter: c.Counter, key: c.Key, id: c.id, told: true})
}

// Owe is a place that was given without the server's word, since there was none: it learns of it with the next renewal, or when it is
// found again.
func (s *Store) Owe(c Counter, k Key) *Lease {
	return s.leases.enter(&Lease{store: s, counter: c, key: k, id: s.leases.id()})
}

func (l *leases) enter(lease *Lease) *Lease {
	lease.since = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[lease] = struct{}{}
	return lease
}

// Release gives the place back, once, however often it is called. It returns at once.
func (l *Lease) Release() {
	all := &l.store.leases
	all.mu.Lock()
	again, renewing, told := l.released, l.renewing, l.told
	l.released = true
	delete(all.held, l)
	all.mu.Unlock()
	if told && !again && !renewing { // else a renewal on its way could come after it, and hold the place for nobody; who renews gives it back then
		l.store.giveBackPlace(l)
	}
}

func (s *Store) giveBackPlace(l *Lease) {
	s.later(errand{op: opRelease, counter: l.counter, key: l.key, id: l.id})
}

// renew keeps the places of all that is under way for long, until the store is closed. A server that was started again, or was out of
// reach for longer than LeaseTTL, learns of them anew.
func (s *Store) renew() {
	tick := time.NewTicker(s.options.LeaseTTL / 3)
	defer tick.Stop()
	for {
		age := s.options.LeaseTTL / 6 // younger ones are mostly gone before it matters
		select {
		case <-tick.C:
		case <-s.renewed: // the store is back
			age = 0
		case <-s.ending.Done():
			return
		}
		if !s.health.up.Load() {
			continue
		}
		for batch := range s.leases.due(time.Now().Add(-age), maxBatch) {
			s.keep(batch)
		}
	}
}

// due yields batches of those leases that began before a time, marked as being renewed.
func (l *leases) due(before time.Time, most int) func(yield func([]*Lease) bool) {
	var all []*Lease
	l.mu.Lock()
	for lease := range l.held {
		if lease.since.Before(before) {
			all = append(all, lease)
		}
	}
	l.mu.Unlock()
	return func(yield func([]*Lease) bool) {
		for len(all) > 0 {
			n := min(len(all), most)
			if batch := l.mark(all[:n]); len(batch) > 0 && !yield(batch) {
				return
			}
			all = all[n:]
		}
	}
}

func (l *leases) mark(some []*Lease) (held []*Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range some {
		if !lease.released {
			lease.renewing, lease.told = true, true
			held = append(held, lease)
		}
	}
	return held
}

// keep renews some leases. What fails is tried again with the next round.
func (s *Store) keep(batch []*Lease) {
	errands := make([]errand, len(batch))
	for i, l := range batch {
		errands[i] = errand{op: opKeep, counter: l.counter, key: l.key, id: l.id}
	}
	s.carry(errands)
	s.leases.mu.Lock()
	var gone []*Lease
	for _, l := range batch {
		l.renewing = false
		if l.released {
			gone = append(gone, l)
		}
	}
	s.leases.mu.Unlock()
	for _, l := range gone {
		s.giveBackPlace(l)
	}
}
