// Package balance chooses one endpoint out of many. It knows addresses and how busy they are, and nothing of connections, health or
// protocols: HTTP attempts, TCP connections and UDP sessions are picked by the same code.
//
// Whoever owns the endpoints (upstream) makes the set, counts what is under way in Endpoint.Active, and makes a new Picker when the set
// changes; the same *Endpoint goes into the new set as long as its address stays, so that its load is not forgotten. Health is the
// owner's, too: what must not be picked is not in the set.
//
// An algorithm is one file, and one line in Algorithms. A pick takes no lock and allocates nothing.
package balance

import (
	"net/netip"
	"slices"
	"sync/atomic"
)

// Endpoint is one address that can be picked.
type Endpoint struct {
	Address netip.AddrPort // what exclusions name
	Zone    string         // where it stands; "" unknown
	Active  atomic.Int64   // what is under way to it; the owner counts up after a pick and down at the end
	Owner   any            // the owner's own; never looked at here
}

// Request is what a picker may know of a request. Its fields are those of message.Pick, in its order: one converts to the other.
type Request struct {
	Hash     uint64           // of the key for consistent hashing; 0 when there is none. No algorithm uses it yet
	Excluded []netip.AddrPort // endpoints already tried: not picked again while there is another one
	Zone     string           // our own zone; "" unknown. Passed on, and used once an algorithm prefers a zone
}

// Picker picks from the set that it was made of. It is used by many at once.
type Picker interface {
	// Pick returns an endpoint of the set, one that is not excluded if there is any. It is nil only when the set is empty.
	Pick(Request) *Endpoint
}

// Algorithm is a way to pick, by the name that users write.
type Algorithm struct {
	Name string
	// New makes a picker of a set that has at least one endpoint and does not change any more.
	New func(set []*Endpoint) Picker
}

// Algorithms is all of them; the first is the default.
var Algorithms = []Algorithm{
	{"LeastRequest", newLeastRequest},
	{"RoundRobin", newRoundRobin},
}

// New makes a picker over the set by the named algorithm. "" is the default, and so is a name that is not in Algorithms: names are
// checked where the policy is compiled, and traffic goes on all the same.
func New(algorithm string, set []*Endpoint) Picker {
	if len(set) == 0 {
		return none{}
	}
	i := max(0, slices.IndexFunc(Algorithms, func(a Algorithm) bool { return a.Name == algorithm }))
	return Algorithms[i].New(slices.Clone(set))
}

type none struct{}

func (none) Pick(Request) *Endpoint { return nil }

// candidates are those of a set that a request may be sent to. Excluding is rare (a retry) and sets are small, so they are counted and
// found by walking instead of being gathered.
type candidates struct {
	set      []*Endpoint
	excluded []netip.AddrPort // nil: all of the set
	n        int              // how many there are, at least 1
}

func candidatesOf(set []*Endpoint, excluded []netip.AddrPort) candidates {
	all := candidates{set: set, n: len(set)}
	if len(excluded) == 0 {
		return all
	}
	left := 0
	for _, e := range set {
		if !slices.Contains(excluded, e.Address) {
			left++
		}
	}
	if left == 0 {
		return all // better one that was tried before than none
	}
	return candidates{set, excluded, left}
}

// at is candidate i, 0 ≤ i < n.
func (c candidates) at(i int) *Endpoint {
	if c.excluded == nil {
		return c.set[i]
	}
	for _, e := range c.set {
		if slices.Contains(c.excluded, e.Address) {
			continue
		}
		if i == 0 {
			return e
		}
		i--
	}
	panic("balance: candidate out of range")
}
