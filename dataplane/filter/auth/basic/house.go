package basic

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"runtime"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
)

const (
	remembered = 5 * time.Minute // since the password was checked
	maxEntries = 1 << 16
	patience   = 3 * time.Second // for a place to check a password
)

// house is what all methods of a process share, in keep: the passwords that were right a short while ago, and the places where one may be
// checked. Checking takes tens of milliseconds of a core by design, so at most half of the cores do it, whatever is asked: requests with
// credentials that are known go on meanwhile.
//
// What is remembered is a keyed hash of the stored hash and of the whole credential, never a part of it (CVE-2026-71326). So an entry is
// of no use to another user, and of none at all once a user's password has changed or the user is gone. Wrong passwords are not
// remembered: nobody fills the memory with them.
type house struct {
	secret [32]byte
	places chan struct{}

	mu      sync.RWMutex // guards entries
	entries map[entry]time.Time
}

type houseKey struct{}

// Share keeps the house for another round of keep. Whoever hands out a method that was built in an earlier round calls it: the house would
// be forgotten, and the next method have one of its own, with as many places again.
func Share(env filter.Env) { sharedHouse(env) }

func sharedHouse(env filter.Env) *house { return keep.Get(env.Keep, houseKey{}, newHouse) }

// entry is a hash.
type entry [sha256.Size]byte

func newHouse() *house {
	h := &house{places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), entries: map[entry]time.Time{}}
	rand.Read(h.secret[:])
	return h
}

// key is the entry of a credential. Hashes of passwords are of one length, so no two credentials make the same.
func (h *house) key(hash, credential []byte) entry {
	var room [32 + 60 + maxCredential]byte
	b := append(room[:0], h.secret[:]...)
	b = append(b, hash...)
	return sha256.Sum256(append(b, credential...))
}

func (h *house) verified(key entry, now time.Time) bool {
	h.mu.RLock()
	at, found := h.entries[key]
	h.mu.RUnlock()
	return found && now.Sub(at) < remembered && !now.Before(at)
}

// remember notes that the credential is right. When there is no room, what is too old goes, or else any.
func (h *house) remember(key entry, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.entries) >= maxEntries {
		for k, at := range h.entries {
			if now.Sub(at) >= remembered {
				delete(h.entries, k)
			}
		}
	}
	for k := range h.entries {
		if len(h.entries) < maxEntries {
			break
		}
		delete(h.entries, k)
	}
	h.entries[key] = now
}

// enter waits for a place, until the client leaves or patience ends. Who got one leaves it.
func (h *house) enter(ctx context.Context) bool {
	select {
	case h.places <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case h.places <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (h *house) leave() { <-h.places }
