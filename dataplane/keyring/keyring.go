// Package keyring is the keys of the process, of which all others are derived: those of session tickets and of cookies.
//
// Replicas that are given the same keys open each other's tickets and cookies. They are three: the current one seals, and all three
// open. The next one is handed out before it is used, so that a replica that has already gone on to it is understood by one that has not
// yet heard. Who is given none makes random ones, and new ones in time; then nobody else opens what was sealed, nor does a restart.
//
// A derived key is HKDF-SHA256 (RFC 5869) of a key and a purpose: what is known of one says nothing about the others.
package keyring

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Size is the least length of a key, and the length of what is derived, in bytes.
const Size = 32

// own is how many keys of its own a ring has: the newest seals.
const own = 3

// Ring is keys that change while they are used. It may be used by many at once.
type Ring struct {
	life  time.Duration
	clock func() time.Time

	mu    sync.Mutex // guards changes
	state atomic.Pointer[state]
}

// state is the keys of a time: immutable.
type state struct {
	keys    [][]byte // the first seals
	given   bool     // by Set; else they are random
	made    time.Time
	round   uint64
	derived sync.Map // purpose → [][]byte
}

// New returns a ring with random keys, of which a new one is made after each life (0: never), the two before it still open, and older
// ones do not.
func New(life time.Duration, clock func() time.Time) *Ring {
	r := &Ring{life: life, clock: clock}
	r.state.Store(&state{keys: [][]byte{random()}, made: clock(), round: 1})
	return r
}

func random() []byte {
	key := make([]byte, Size)
	rand.Read(key)
	return key
}

// Set replaces the keys by those that all replicas have, the one that seals first. They stay until the next Set. The same keys again
// change nothing.
func (r *Ring) Set(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("no keys")
	}
	copies := make([][]byte, len(keys))
	for i, k := range keys {
		if len(k) < Size {
			return fmt.Errorf("key %d has %d bytes; it needs %d", i+1, len(k), Size)
		}
		copies[i] = append([]byte(nil), k...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.state.Load(); !now.given || !equal(now.keys, copies) {
		r.state.Store(&state{keys: copies, given: true, round: now.round + 1})
	}
	return nil
}

func equal(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if string(a[i]) != string(b[i]) {
			return false
		}
	}
	return true
}

// Derive returns the keys for a purpose, of Size bytes each: the first seals and signs, all of them open and verify. Purposes come from
// settings, never from requests.
func (r *Ring) Derive(purpose string) [][]byte { return r.now().derive(purpose) }

// Round changes when Derive's answers do.
func (r *Ring) Round() uint64 { return r.now().round }

// now is the state of the hour.
func (r *Ring) now() *state {
	s := r.state.Load()
	if s.given || r.life <= 0 || r.clock().Sub(s.made) < r.life {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s = r.state.Load()
	at := r.clock()
	if age := at.Sub(s.made); !s.given && age >= r.life {
		older := s.keys[:min(len(s.keys), own-1)]
		if age >= own*r.life { // after a long silence every old key is too old
			older = nil
		}
		s = &state{keys: append([][]byte{random()}, older...), made: at, round: s.round + 1}
		r.state.Store(s)
	}
	return s
}

func (s *state) derive(purpose string) [][]byte {
	if keys, ok := s.derived.Load(purpose); ok {
		return keys.([][]byte)
	}
	keys := make([][]byte, len(s.keys))
	for i, k := range s.keys {
		d, err := hkdf.Key(sha256.New, k, nil, "gatehouse.dev "+purpose, Size)
		if err != nil {
			panic(fmt.Sprintf("derive a key: %v", err)) // its length is constant
		}
		keys[i] = d
	}
	s.derived.Store(purpose, keys)
	return keys
}
