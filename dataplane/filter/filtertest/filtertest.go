// Package filtertest is what a filter lives in, for the tests of filters: a store of what outlives a snapshot, a clock that stands until it
// is moved, and counters that can be read. A test adds to the Env what else its filter asks for.
package filtertest

import (
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
)

// House is that. Embed it in what the tests of one filter need besides.
type House struct {
	Store *keep.Store

	mu       sync.Mutex // guards what follows
	now      time.Time
	counters []*counter
}

// New is a house where it is that time.
func New(now time.Time) *House {
	h := &House{now: now}
	h.Store = keep.New(h.Clock)
	return h
}

// Clock says what time it is there.
func (h *House) Clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// Pass lets time pass.
func (h *House) Pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// Env has the store's round, the clock and the counters.
func (h *House) Env(r *keep.Round) filter.Env {
	return filter.Env{Keep: r, Clock: h.Clock, Counter: h.counter}
}

type counter struct {
	house *House
	name  string
	pairs []string
	n     float64 // guarded by the house
}

func (c *counter) Add(n float64) {
	c.house.mu.Lock()
	defer c.house.mu.Unlock()
	c.n += n
}

func (h *House) counter(name string, pairs ...string) filter.Counter {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &counter{house: h, name: name, pairs: pairs}
	h.counters = append(h.counters, c)
	return c
}

// Counted is the sum of the counters of a name that have these labels (label, value, label, value), whatever others they have.
func (h *House) Counted(name string, pairs ...string) (sum float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.counters {
		if c.name == name && c.has(pairs) {
			sum += c.n
		}
	}
	return sum
}

func (c *counter) has(pairs []string) bool {
	for want := range slices.Chunk(pairs, 2) {
		if !slices.ContainsFunc(slices.Collect(slices.Chunk(c.pairs, 2)), func(p []string) bool { return slices.Equal(p, want) }) {
			return false
		}
	}
	return true
}
