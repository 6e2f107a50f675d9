package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Call is all that one request wants of the store. NewCall makes one, who asks fills in Claims and reads the answers in them, and Free
// takes it back.
type Call struct {
	Claims []Claim
	// Admitted: every claim that enforces admits, and all that admit have taken. Otherwise none has.
	Admitted bool
	// Asked, beside an error: the server was asked, and may have taken. Else it surely has not.
	Asked bool

	state state
	done  chan error // holds one
	timer *time.Timer
}

// Counter is what a claim is about, but for the key. It is made once, by Store.Counter.
type Counter struct {
	group string // counters of one group are decided in one step, in a cluster too: they have one slot
	name  string // what stands before the key
}

// Claim is what a call wants of one counter: that a rate admits, or, with Places, a place among those under way.
type Claim struct {
	Counter Counter
	Key     Key
	// Shadow, when it is not 0, numbers a limit on trial: what its claims (those of the same number) refuse hinders nobody, and then none
	// of them takes.
	Shadow int

	Cost    time.Duration // of a rate: what the request adds to the debt
	Most    time.Duration // the largest debt after that
	Deepest time.Duration // a debt that is larger is cut to it; at least Most
	Least   time.Duration // the debt is at least so large: who asks remembers what the store may have lost. 0: nothing is known
	Places  int64         // 0: a rate

	// The answer.
	Refused bool          // it alone would not admit
	Debt    time.Duration // of a rate: now, this request included if it was admitted
	Under   int64         // way, of places: likewise
	Lease   *Lease        // the place that was taken; who holds it gives it back

	id string // of the lease
}

// Key tells one counter of a name from another: a hash of what a request was told apart by, so that the store's memory betrays no
// client. Two keys that a client chooses collide with a chance of 2^-64 at best.
type Key [16]byte

// Result is why there is no answer.
type Result string

func (r Result) Error() string { return "the store " + resultTexts[r] }

// The results.
const (
	Down    Result = "down"    // it is known not to answer, and is not asked
	Timeout Result = "timeout" // no answer in time; nobody knows whether it has decided
	Full    Result = "full"    // too many are asking
	Failed  Result = "error"   // it said so, or the connection broke
)

var resultTexts = map[Result]string{
	Down: "is down", Timeout: "did not answer in time", Full: "is asked by too many at once", Failed: "failed",
}

type state = atomic.Int32

const (
	waiting int32 = iota
	sent          // the server may decide it from here on
	answered
	abandoned // by who asked: the worker has it now
)

var calls = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &Call{done: make(chan error, 1), timer: t}
}}

// NewCall returns a call without claims.
func (s *Store) NewCall() *Call { return calls.Get().(*Call) }

// Free takes a call back, after Ask.
func (s *Store) Free(c *Call) {
	if c.state.Load() == abandoned {
		return // a worker may still write into it
	}
	clear(c.Claims)
	c.Claims, c.Admitted, c.Asked = c.Claims[:0], false, false
	c.state.Store(waiting)
	calls.Put(c)
}

// Counter names a counter: its group, and what tells it from others there. Counters of one group are decided in one step. (Those of
// several groups are too, but in a cluster: there, what one group took while another refused is given back.)
func (s *Store) Counter(group, name string) Counter {
	return Counter{group, s.options.Prefix + ":{" + group + "}:" + name + ":"}
}

// Ask has a call decided. It returns within Timeout; the error is a Result, and then there is no answer.
func (s *Store) Ask(c *Call) error {
	began := time.Now()
	err := s.ask(c)
	result := "ok"
	var r Result
	if errors.As(err, &r) {
		result = string(r)
	}
	s.options.Metrics.StoreCall(result, time.Since(began))
	return err
}

func (s *Store) ask(c *Call) error {
	if !s.health.up.Load() {
		return Down
	}
	for i := range c.Claims {
		if c.Claims[i].Places > 0 {
			c.Claims[i].id = s.leases.id()
		}
	}
	select {
	case s.calls <- c:
	default:
		return Full
	}
	c.timer.Reset(s.options.Timeout)
	select {
	case err := <-c.done:
		c.timer.Stop()
		c.Asked = true
		return err
	case <-c.timer.C:
		if c.state.CompareAndSwap(waiting, abandoned) {
			return Timeout
		}
		c.Asked = true
		if c.state.CompareAndSwap(sent, abandoned) {
			return Timeout
		}
		return <-c.done // just now
	}
}

// answer ends a call, and hands over the places that it got. Nobody may be there to take them.
func (s *Store) answer(c *Call, err error) {
	if !c.state.CompareAndSwap(sent, answered) {
		s.withdraw(c, err)
		return
	}
	if err == nil && c.Admitted {
		for i := range c.Claims {
			if l := &c.Claims[i]; l.Places > 0 && !l.Refused {
				l.Lease = s.leases.hold(l)
			}
		}
	} else if err != nil {
		s.withdraw(c, err)
	}
	c.done <- err
}

// withdraw gives back the places of a call that nobody waits for, or of which nobody knows whether it was decided. What it took of rates
// stays taken.
func (s *Store) withdraw(c *Call, err error) {
	if err == nil && !c.Admitted {
		return
	}
	for i := range c.Claims {
		if l := &c.Claims[i]; l.Places > 0 && (err != nil || !l.Refused) {
			s.later(errand{op: opRelease, counter: l.Counter, key: l.Key, id: l.id})
		}
	}
}
