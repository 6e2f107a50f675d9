package ratelimit

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
)

// MaxKeys is the most keys that one window of a limit remembers. When one more comes, the key that is the nearest to fresh is forgotten
// (of its shard, a sixteenth of all): who floods us with keys pushes out his own, each used once, and not the debts of heavy users. A
// short key takes some 130 bytes in all; a test measures it.
const MaxKeys = 100_000

const shards = 16 // a power of two

// counter holds what was used, by key, of one window of a limit; or what is under way, of its concurrency. It lives in keep, and
// outlives the chains that use it.
type counter struct {
	id      uint64      // locks are taken in the order of ids
	private atomic.Bool // keys may be secrets, or once were
	shards  [shards]shard
}

// counterKey is what a counter belongs to. A policy without a UID is known by its name. Window 0 is concurrency.
type counterKey struct {
	policy Policy
	limit  string
	window time.Duration
	mirror bool // of a counter in the store
}

var lastCounter atomic.Uint64

func newCounter(maxKeys int) *counter {
	c := &counter{id: lastCounter.Add(1)}
	for i := range c.shards {
		c.shards[i].maxKeys = max(1, maxKeys/shards)
	}
	return c
}

func keptCounter(round *keep.Round, l Limit, window time.Duration) *counter {
	return keep.Get(round, counterKey{l.Policy, l.Name, window, l.Scope == Shared}, func() *counter { return newCounter(MaxKeys) })
}

// shard is a part of a counter with a lock of its own. Each key has a slot, which it keeps as long as it is remembered.
type shard struct {
	mu      sync.Mutex // guards what follows; whoever locks several shards does so in the order of their counters' ids
	index   map[string]int32
	slots   []slot
	free    []int32
	heap    []entry // of rates: a min-heap by the time at which keys are fresh
	seen    []seen  // of mirrors, by slot: when the store has told of it; may be shorter than slots
	maxKeys int
}

// slot is one key: value is the time at which it is fresh again, or the number under way.
type slot struct {
	key   string
	value int64
}

// entry orders a slot by the time that it had when it was last looked at here. Times of keys only grow (but for a debt that a changed
// rate has cut), so it is a lower bound, and a request that is admitted has nothing to do with the heap.
type entry struct {
	fresh int64
	slot  int32
}

const none = int32(-1)

// find returns the slot of a key, or none. The caller holds the lock, here and below.
func (s *shard) find(key []byte) int32 {
	if i, ok := s.index[string(key)]; ok {
		return i
	}
	return none
}

// add makes a slot for a key that has none.
func (s *shard) add(key []byte, value int64) int32 {
	if s.index == nil {
		s.index = map[string]int32{}
	}
	i := int32(len(s.slots))
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
	} else {
		s.slots = append(s.slots, slot{})
	}
	if int(i) < len(s.seen) {
		s.seen[i] = seen{}
	}
	own := string(key) // a copy: key lies in a buffer
	s.slots[i] = slot{own, value}
	s.index[own] = i
	return i
}

// seen is when the store has told of a slot, which store that was, and at what time the key was fresh again by its word.
type seen struct{ at, generation, fresh int64 }

// hear notes that the store has told of a slot.
func (s *shard) hear(i int32, now seen) {
	for len(s.seen) <= int(i) {
		s.seen = append(s.seen, seen{})
	}
	s.seen[i] = now
}

// heard is when the store has told of a slot; generation 0: never.
func (s *shard) heard(i int32) seen {
	if int(i) < len(s.seen) && s.seen[i].generation != 0 {
		return s.seen[i]
	}
	return seen{at: never, fresh: never}
}

const never = math.MinInt64 / 2

// remove forgets a slot. When it was the last one of many, the memory goes too: maps never shrink.
func (s *shard) remove(i int32) {
	delete(s.index, s.slots[i].key)
	if len(s.index) == 0 && len(s.slots) > 64 {
		s.index, s.slots, s.free, s.heap, s.seen = nil, nil, nil, nil, nil
		return
	}
	s.slots[i] = slot{}
	s.free = append(s.free, i)
}

// addRate is add for a key of a rate, with a bound: it first forgets a few keys that are fresh, and if that doesn't help the one that
// is the nearest to it. It reports whether it forgot one that was not.
func (s *shard) addRate(key []byte, fresh, now int64) (evicted bool) {
	for range 4 {
		if len(s.heap) == 0 || s.heap[0].fresh > now {
			break
		}
		if s.lookedAt() {
			s.removeFirst()
		}
	}
	if len(s.index) >= s.maxKeys {
		for !s.lookedAt() {
		}
		evicted = s.heap[0].fresh > now
		s.removeFirst()
	}
	i := s.add(key, fresh)
	s.heap = append(s.heap, entry{fresh, i})
	s.up(len(s.heap) - 1)
	return evicted
}

// lookedAt brings the first entry up to date, and reports whether it was: then it is the first indeed.
func (s *shard) lookedAt() bool {
	first := &s.heap[0]
	v := s.slots[first.slot].value
	if v <= first.fresh {
		return true
	}
	first.fresh = v
	s.down(0)
	return false
}

func (s *shard) removeFirst() {
	i := s.heap[0].slot
	last := len(s.heap) - 1
	s.heap[0] = s.heap[last]
	s.heap = s.heap[:last]
	s.down(0)
	s.remove(i)
}

func (s *shard) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if s.heap[parent].fresh <= s.heap[i].fresh {
			return
		}
		s.heap[i], s.heap[parent] = s.heap[parent], s.heap[i]
		i = parent
	}
}

func (s *shard) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(s.heap) {
			return
		}
		if right := child + 1; right < len(s.heap) && s.heap[right].fresh < s.heap[child].fresh {
			child = right
		}
		if s.heap[i].fresh <= s.heap[child].fresh {
			return
		}
		s.heap[i], s.heap[child] = s.heap[child], s.heap[i]
		i = child
	}
}

// seed makes the shard of a key unknown to whoever chooses keys.
var seed = maphash.MakeSeed()

func shardOf(key []byte) uint8 { return uint8(maphash.Bytes(seed, key) & (shards - 1)) }

// A key is its parts, each with its length in front, so that no two sets of parts look alike. What is longer than maxKey is remembered
// as its SHA-256, behind a byte with which no other key begins (a length there is less than 128).
const (
	maxKey    = 127
	hashedKey = 0xff
)

// closePart puts the length of a part, dst[from:], in front of it.
func closePart(dst []byte, from int) []byte {
	var length [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(length[:], uint64(len(dst)-from))
	dst = append(dst, length[:k]...)
	copy(dst[from+k:], dst[from:len(dst)-k])
	copy(dst[from:], length[:k])
	return dst
}

// closeKey shortens the key dst[from:] if it is too long.
func closeKey(dst []byte, from int) []byte {
	if len(dst)-from <= maxKey {
		return dst
	}
	sum := sha256.Sum256(dst[from:])
	return append(append(dst[:from], hashedKey), sum[:]...)
}
