// Package keep holds what outlives a snapshot, by key: connection pools, health, rate-limit counters, TLS settings, fetched keys.
//
// Whoever applies a snapshot opens a Round and asks for everything that the new plan needs. What exists is handed out again, what
// does not is made; what no plan asked for is retired at the end of the round. A retired thing still works for whoever holds it (a
// request may sit two seconds in external authorization while its pool leaves the plan), takes on no new idle work, and is revived,
// as it was, when its key is asked for within five minutes: a policy that flaps must not reset quotas, health or keys (contracts 18).
// After that it is forgotten, and the garbage collector frees it once nobody holds it.
package keep

import (
	"sync"
	"time"
)

// Grace is how long a retired thing can be revived.
const Grace = 5 * time.Minute

// Retirer is implemented by things that must know when they leave or return to the plan. Both are called without any lock of the
// store held, in order, and never twice in a row.
type Retirer interface {
	Retire()
	Revive()
}

// Store keeps things. The zero value is not ready; use New.
type Store struct {
	now func() time.Time

	mu     sync.Mutex // guards what follows
	things map[any]*thing
	round  uint64
}

type thing struct {
	value   any
	ready   chan struct{} // closed when value is made
	round   uint64        // the last one that asked
	retired time.Time     // zero: alive
}

// New returns an empty store that reads the time from now.
func New(now func() time.Time) *Store {
	return &Store{now: now, things: map[any]*thing{}}
}

// Round is one application of a snapshot.
type Round struct {
	store *Store
	n     uint64
}

// Begin opens a round. One round at a time is open.
func (s *Store) Begin() *Round {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.round++
	return &Round{s, s.round}
}

// Get returns the thing of that key, making it if it isn't there. Key is any comparable value; its type is part of it, so each room
// uses a key type of its own. Create runs without a lock held, and once.
func Get[T any](r *Round, key any, create func() T) T {
	return r.get(key, func() any { return create() }).(T)
}

func (r *Round) get(key any, create func() any) any {
	s := r.store
	s.mu.Lock()
	t, found := s.things[key]
	if !found {
		t = &thing{ready: make(chan struct{}), round: r.n}
		s.things[key] = t
		s.mu.Unlock()
		return s.make(key, t, create)
	}
	t.round = r.n
	revive := !t.retired.IsZero()
	t.retired = time.Time{}
	s.mu.Unlock()

	<-t.ready
	if x, ok := t.value.(Retirer); ok && revive {
		x.Revive()
	}
	return t.value
}

// make makes the thing. A create that panics leaves nothing behind: whoever asks next makes it, instead of waiting for ever.
func (s *Store) make(key any, t *thing, create func() any) any {
	defer func() {
		if t.value == nil {
			s.mu.Lock()
			delete(s.things, key)
			s.mu.Unlock()
		}
		close(t.ready)
	}()
	t.value = create()
	return t.value
}

// End retires what this round did not ask for, and forgets what has been retired for longer than Grace.
func (r *Round) End() {
	s := r.store
	now := s.now()
	var gone []Retirer
	s.mu.Lock()
	for key, t := range s.things {
		switch {
		case t.round == r.n:
		case t.retired.IsZero():
			t.retired = now
			if x, ok := t.value.(Retirer); ok {
				gone = append(gone, x)
			}
		case now.Sub(t.retired) > Grace:
			delete(s.things, key)
		}
	}
	s.mu.Unlock()
	for _, x := range gone {
		x.Retire()
	}
}

// Len is the number of things alive and retired, for metrics and tests.
func (s *Store) Len() (alive, retired int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.things {
		if t.retired.IsZero() {
			alive++
		} else {
			retired++
		}
	}
	return alive, retired
}
