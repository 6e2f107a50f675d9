//go:build e2e

package e2e

import (
	"sync"
	"time"
)

// stillness knows when this machine stood still: when a goroutine that wants to run every few milliseconds did not come to its turn, as happens on
// virtual machines and under the load of others. A time limit for the product does not count such a time; what fails at once or is wrong fails
// whatever the machine did.
type stillness struct {
	mu   sync.Mutex // guards gaps
	gaps []gap      // in order
}

type gap struct{ from, to time.Time }

const (
	beat   = 10 * time.Millisecond
	noGaps = 50 * time.Millisecond // shorter ones are a matter of course
)

// machine is watched from the start of the tests on.
var machine stillness

func (s *stillness) watch() {
	last := time.Now()
	for now := range time.Tick(beat) {
		now = time.Now() // the tick says when it was due
		if now.Sub(last) > noGaps {
			s.mu.Lock()
			s.gaps = append(s.gaps, gap{last.Add(beat), now})
			s.mu.Unlock()
		}
		last = now
	}
}

// ran is how long the machine ran between two times.
func (s *stillness) ran(from, to time.Time) time.Duration {
	stood, _ := s.stood(from, to)
	return to.Sub(from) - stood
}

// stood is how long it stood still, in all and at a time.
func (s *stillness) stood(from, to time.Time) (all, longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.gaps {
		if g.from.Before(from) {
			g.from = from
		}
		if g.to.After(to) {
			g.to = to
		}
		if d := g.to.Sub(g.from); d > 0 {
			all, longest = all+d, max(longest, d)
		}
	}
	return all, longest
}
