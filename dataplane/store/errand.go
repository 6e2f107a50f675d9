package store

import (
	"context"
	"sync"
	"time"
)

// errand is something that nobody waits for.
type errand struct {
	op      string // opAdd, opRelease, opKeep
	counter Counter
	key     Key
	id      string        // of a lease
	amount  time.Duration // of opAdd
	deepest time.Duration // of opAdd
	since   time.Time
}

// errandTimeout is how long a batch of errands may take: no request waits for it.
const errandTimeout = time.Second

// Add adds to the debt of a rate, or takes from it, whatever it is; a debt deeper than deepest is cut to it. It returns at once. What
// cannot be sent is dropped, and counted.
func (s *Store) Add(c Counter, k Key, amount, deepest time.Duration) {
	s.later(errand{op: opAdd, counter: c, key: k, amount: amount, deepest: deepest})
}

func (s *Store) later(e errand) {
	e.since = time.Now()
	s.owed.add(1)
	select {
	case s.errands <- e:
	default:
		s.dropped(1)
	}
}

func (s *Store) dropped(n int) {
	s.owed.add(-n)
	s.options.Metrics.StoreDropped(n)
}

// run runs errands until the store is closed; what is left then is dropped.
func (s *Store) run() {
	var batch []errand
	for {
		select {
		case e := <-s.errands:
			batch = append(batch[:0], e)
		case <-s.ending.Done():
			s.dropped(len(s.errands))
			return
		}
		for len(batch) < maxBatch {
			select {
			case e := <-s.errands:
				batch = append(batch, e)
				continue
			default:
			}
			break
		}
		s.runAll(batch)
		clear(batch)
	}
}

// runAll runs a batch. A place is given back again and again until that succeeds, or the place has ended by itself; an addition is tried
// once, as nobody knows whether it has arrived.
func (s *Store) runAll(batch []errand) {
	for len(batch) > 0 {
		if s.health.wait(s.ending) != nil {
			s.dropped(len(batch))
			return
		}
		failed := s.carry(batch)
		s.owed.add(len(failed) - len(batch))
		batch = batch[:0]
		lost := 0
		for _, e := range failed {
			if e.op == opAdd || time.Since(e.since) > s.options.LeaseTTL {
				lost++
			} else {
				batch = append(batch, e)
			}
		}
		if lost > 0 {
			s.dropped(lost)
		}
	}
}

// carry sends errands, and returns those that failed.
func (s *Store) carry(batch []errand) (failed []errand) {
	ctx, cancel := context.WithTimeout(context.WithValue(s.ending, onBehalf{}, true), errandTimeout)
	defer cancel()
	var groups []*group
	var of [][]errand
	for _, e := range batch {
		name := s.slot(e.counter)
		g := find(&groups, name)
		if len(groups) > len(of) {
			of = append(of, nil)
		}
		for i := range groups {
			if groups[i] == g {
				of[i] = append(of[i], e)
			}
		}
	}
	for i, g := range groups {
		g.errands(of[i], s.options.LeaseTTL)
	}
	s.send(ctx, groups)
	for i, g := range groups {
		if g.err != nil {
			failed = append(failed, of[i]...)
			s.went(g.err)
		}
	}
	return failed
}

// errands writes errands as one call.
func (g *group) errands(all []errand, ttl time.Duration) {
	g.numbers = 1 + len(all)
	g.number(int64(len(all)))
	for _, e := range all {
		g.key(e.counter, e.key)
		g.word(e.op)
		switch e.op {
		case opAdd:
			g.number(int64(e.amount))
			g.number(int64(e.deepest))
		case opRelease:
			g.word(e.id)
			g.word("")
		case opKeep:
			g.word(e.id)
			g.number(ttl.Milliseconds())
		}
		for range 3 {
			g.word("")
		}
	}
}

// settle returns when no errand is left, or with ctx's error. A store that is down is not waited for.
func (s *Store) settle(ctx context.Context) error {
	if !s.health.up.Load() {
		return nil
	}
	return s.owed.wait(ctx)
}

// owed counts errands that are not run yet.
type owed struct {
	mu   sync.Mutex // guards what follows
	n    int
	zero chan struct{} // closed when n comes to be 0; nil: nobody waits
}

func (o *owed) add(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.n += n
	if o.n == 0 && o.zero != nil {
		close(o.zero)
		o.zero = nil
	}
}

func (o *owed) wait(ctx context.Context) error {
	o.mu.Lock()
	if o.n == 0 {
		o.mu.Unlock()
		return nil
	}
	if o.zero == nil {
		o.zero = make(chan struct{})
	}
	zero := o.zero
	o.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
