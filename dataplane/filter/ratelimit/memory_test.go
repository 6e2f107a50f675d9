package ratelimit

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

func TestMemoryHasABoundAndTheNearestToFreshGoes(t *testing.T) {
	c := newCounter(16 * shards)
	r := newRate(perMinute(10, 0), "l", 1, false)
	now := int64(0)
	use := func(name string, times int) (evicted int) {
		key := []byte(name)
		s := &c.shards[0]
		for range times {
			slot := s.find(key)
			if slot == none {
				if s.addRate(key, now+r.interval, now) {
					evicted++
				}
				continue
			}
			s.slots[slot].value = now + r.debt(s.slots[slot].value, now) + r.interval
		}
		return evicted
	}
	use("heavy", 9)
	evicted := 0
	for i := range 1000 {
		evicted += use(fmt.Sprint("light", i), 1)
	}
	if n := len(c.shards[0].index); n != 16 {
		t.Errorf("%d keys, want 16", n)
	}
	if evicted != 1000-15 {
		t.Errorf("%d evicted, want %d", evicted, 1000-15)
	}
	if c.shards[0].find([]byte("heavy")) == none {
		t.Error("the one that had used most was pushed out by a flood")
	}
	now += 7 * r.interval // all but the heavy one are fresh
	if evicted := use("late", 1); evicted != 0 {
		t.Error("a fresh key counts as evicted")
	}
	for i := range 4 {
		use(fmt.Sprint("later", i), 1)
	}
	if n := len(c.shards[0].index); n != 6 {
		t.Errorf("%d keys, want 6: the fresh ones are forgotten as others come", n)
	}
	checkHeap(t, &c.shards[0])

	use("heavy", 8) // what the heap knows of it is older
	now += 3 * r.interval
	use("last", 1)
	if c.shards[0].find([]byte("heavy")) == none {
		t.Error("one that is not fresh was taken for fresh")
	}
	checkHeap(t, &c.shards[0])
}

// checkHeap proves that heap, index and slots tell of the same keys.
func checkHeap(t *testing.T, s *shard) {
	t.Helper()
	if len(s.heap) != len(s.index) || len(s.index)+len(s.free) != len(s.slots) {
		t.Fatalf("%d in the heap, %d keys, %d free of %d slots", len(s.heap), len(s.index), len(s.free), len(s.slots))
	}
	for i, e := range s.heap {
		if parent := (i - 1) / 2; s.heap[parent].fresh > e.fresh {
			t.Fatalf("entry %d is less than its parent", i)
		}
		if s.index[s.slots[e.slot].key] != e.slot {
			t.Fatalf("entry %d has a slot that is not its key's", i)
		}
	}
}

func TestBytesPerKey(t *testing.T) {
	c := newCounter(MaxKeys)
	heapInUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heapInUse()
	for i := range 2 * MaxKeys {
		key := fmt.Appendf(nil, "10.%d.%d.%d", i>>16, i>>8&255, i&255)
		s := &c.shards[shardOf(key)]
		s.addRate(key, int64(i+1), 0)
	}
	per := float64(heapInUse()-before) / float64(c.keys())
	t.Logf("%d keys, %.0f bytes each", c.keys(), per)
	if per > 160 {
		t.Errorf("%.0f bytes per key", per)
	}
	if n := c.keys(); n > MaxKeys {
		t.Errorf("%d keys, want at most %d", n, MaxKeys)
	}
	runtime.KeepAlive(c)
}

func TestEvictedKeysAreCounted(t *testing.T) {
	h := newHouse(t)
	l := limitOf("l", perMinute(10, 0))
	l.Key = []string{"source.ip"}
	c := h.chain(l)
	counter := h.kept(l, time.Minute)
	for i := range counter.shards {
		counter.shards[i].maxKeys = 1
	}
	for i := range 100 {
		admitted(c, 1, fmt.Sprintf("10.0.0.%d", i))
	}
	if n, kept := h.counted("ratelimit_evicted_keys_total", "l", ""), counter.keys(); int(n) != 100-kept || kept > shards {
		t.Errorf("%v evicted, %d kept", n, kept)
	}
}
