package balance

import (
	"math/rand/v2"
	"sync/atomic"
)

// roundRobin takes one after the other. It starts anywhere, so that replicas, and pickers that were just made anew because the set
// changed, do not all begin with the same endpoint.
type roundRobin struct {
	set  []*Endpoint
	next atomic.Uint64
}

func newRoundRobin(set []*Endpoint) Picker {
	r := &roundRobin{set: set}
	r.next.Store(uint64(rand.Uint32()))
	return r
}

func (r *roundRobin) Pick(q Request) *Endpoint {
	c := candidatesOf(r.set, q.Excluded)
	return c.at(int(r.next.Add(1) % uint64(c.n)))
}
