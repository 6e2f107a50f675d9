// Package ratelimit limits how many requests are admitted in a time, and how many at once, by keys that expressions make. README.md
// says what a user can rely on; this is how it is done.
//
// A filter knows every limit that holds for its rule, and admits in one step: expressions are evaluated first, then the shards of all
// counters that the request touches are locked, in the order of their ids, all of them are looked at, and only if each enforcing limit
// admits, all of them take. A refusal takes nothing. Nothing is called while locks are held.
//
// Counters live in keep under (policy, limit, window), and so have nothing of a rule or a snapshot in them.
package ratelimit

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/expr"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Build makes the filter. Its counters are those that any other rule with the same limits has.
func (c Config) Build(env filter.Env) (filter.Faces, error) {
	f, err := newLimiter(c, env)
	if err != nil {
		return filter.Faces{}, err
	}
	return filter.Faces{Request: f.request, Response: f.response, Done: f.done}, nil
}

func newLimiter(c Config, env filter.Env) (*limiter, error) {
	f := &limiter{clock: env.Clock, slot: env.Slot()}
	seen := map[counterKey]bool{}
	for _, l := range c.Limits {
		once := counterKey{policy: l.Policy, limit: l.Name}
		if seen[once] {
			continue
		}
		seen[once] = true
		if err := f.add(l, env); err != nil {
			return nil, fmt.Errorf("limit %s of %s: %w", l.Name, l.Policy.Name, err)
		}
	}
	slices.SortFunc(f.claims, func(a, b claim) int { return cmp.Compare(a.counter.id, b.counter.id) })
	f.leases.New = func() any {
		return &lease{limits: make([]applied, len(f.limits)), slots: make([]int32, len(f.claims)), held: make([]held, 0, f.concurrent)}
	}
	return f, nil
}

// limiter is the filter. It is immutable but for its pool.
type limiter struct {
	clock      func() time.Time
	slot       message.Slot
	limits     []limit
	claims     []claim // what limits want of counters, in the order of the counters' ids
	concurrent int     // claims that are for concurrency
	leases     sync.Pool
}

// limit is a Limit ready to be asked.
type limit struct {
	title  string // "shop/api-limits/per-client", for notes
	shadow bool
	when   *expr.Program // nil: always
	key    []*expr.Program

	admitted, refused, shadowed filter.Counter
	failed                      filter.Counter // expressions that failed
	evicted                     filter.Counter // keys forgotten too early
}

// claim is what one limit wants of one counter: room for a request in a rate, or a place among those under way.
type claim struct {
	counter *counter
	limit   int
	rate    rate
	places  int64 // of concurrency; 0: a rate
}

func (f *limiter) add(l Limit, env filter.Env) error {
	if err := l.check(); err != nil {
		return err
	}
	when, key, err := l.compile()
	if err != nil {
		return err
	}
	policy := l.Policy.Name.String()
	count := func(result string) filter.Counter {
		return env.Counter("ratelimit_requests_total", "policy", policy, "limit", l.Name, "result", result)
	}
	i := len(f.limits)
	f.limits = append(f.limits, limit{
		title: policy + "/" + l.Name, shadow: l.Shadow, when: when, key: key,
		admitted: count("admitted"), refused: count("refused"), shadowed: count("shadow"),
		failed:  env.Counter("ratelimit_expression_errors_total", "policy", policy, "limit", l.Name),
		evicted: env.Counter("ratelimit_evicted_keys_total", "policy", policy, "limit", l.Name),
	})
	for _, r := range l.Rates {
		f.claims = append(f.claims, claim{counter: keptCounter(env.Keep, l, r.Window), limit: i, rate: newRate(r, l.Name)})
	}
	if l.Concurrency > 0 {
		f.claims = append(f.claims, claim{counter: keptCounter(env.Keep, l, 0), limit: i, places: l.Concurrency})
		f.concurrent++
	}
	return nil
}

// lease is what the filter knows of one exchange, from Request to Done.
type lease struct {
	keys   []byte    // of all limits that apply, one behind the other
	limits []applied // by limit
	slots  []int32   // by claim, while it is being decided

	held    []held // places taken, given back by Done
	tight   *rate  // what the fields tell about; nil: nothing
	left    int64  // of it
	restore int64  // nanoseconds
}

// applied is what became of one limit.
type applied struct {
	applies  bool
	from, to int // of keys
	shard    uint8
	refused  bool  // it would not admit
	wait     int64 // nanoseconds until its rates admit; 0: they do
	slowest  *rate // the one to wait for
	evicted  int
}

type held struct {
	counter *counter
	shard   uint8
	slot    int32
}

// request is OnRequest.
func (f *limiter) request(ex *message.Exchange) filter.Verdict {
	f.done(ex) // a chain that is run twice on an exchange must not lose what it holds
	l := f.leases.Get().(*lease)
	if !f.applying(ex, l) {
		f.giveBack(l)
		return filter.Continue
	}
	place := ex.Slot(f.slot)
	*place = l // from here on Done gives back what is held, whatever happens
	admitted := f.admit(l, int64(f.clock().Sub(epoch)))
	if !admitted {
		*place = nil
		f.refuse(ex, l)
		f.giveBack(l)
		return filter.Answer
	}
	f.count(ex, l)
	return filter.Continue
}

// epoch is what times are counted from. A difference to it is taken on the monotonic clock, so that a clock that is set forgives
// nobody and locks nobody out.
var epoch = time.Now()

// applying finds the limits that apply, and their keys. A condition that fails applies; a part of a key that fails is "".
func (f *limiter) applying(ex *message.Exchange, l *lease) (any bool) {
	for i := range f.limits {
		limit, a := &f.limits[i], &l.limits[i]
		*a = applied{}
		if limit.when != nil {
			holds, err := limit.when.Holds(ex)
			if err != nil {
				limit.failed.Add(1)
			} else if !holds {
				continue
			}
		}
		a.applies, any = true, true
		a.from = len(l.keys)
		for _, part := range limit.key {
			from := len(l.keys)
			var err error
			if l.keys, err = part.Append(l.keys, ex); err != nil {
				limit.failed.Add(1) // nothing was appended
			}
			l.keys = closePart(l.keys, from)
		}
		l.keys = closeKey(l.keys, a.from)
		a.to = len(l.keys)
		a.shard = shardOf(l.keys[a.from:a.to])
	}
	return any
}

// admit decides, and takes if all enforcing limits admit. A shadow limit that would not admit takes nothing itself and hinders nobody.
func (f *limiter) admit(l *lease, now int64) bool {
	locked := 0
	defer func() {
		for i := range locked {
			if c := &f.claims[i]; l.limits[c.limit].applies {
				c.counter.shards[l.limits[c.limit].shard].mu.Unlock()
			}
		}
	}()
	admits := true
	for i := range f.claims {
		c := &f.claims[i]
		if a := &l.limits[c.limit]; a.applies {
			c.counter.shards[a.shard].mu.Lock()
		}
		locked = i + 1
	}
	for i := range f.claims {
		c := &f.claims[i]
		a := &l.limits[c.limit]
		if a.applies && !c.look(l, a, i, now) {
			a.refused = true
			admits = admits && f.limits[c.limit].shadow
		}
	}
	if !admits {
		return false
	}
	for i := range f.claims {
		c := &f.claims[i]
		if a := &l.limits[c.limit]; a.applies && !a.refused {
			c.take(l, a, i, now, f.limits[c.limit].shadow)
		}
	}
	return true
}

// look reports whether this claim alone admits, and what it waits for if not.
func (c *claim) look(l *lease, a *applied, i int, now int64) bool {
	s := &c.counter.shards[a.shard]
	slot := s.find(l.keys[a.from:a.to])
	l.slots[i] = slot
	if slot == none {
		return true
	}
	v := &s.slots[slot].value
	if c.places > 0 {
		return *v < c.places
	}
	debt := c.rate.debt(*v, now)
	if *v-now > debt {
		*v = now + debt // more than this rate knows: it was larger once, and is cut now, or the next request would wait for it again
	}
	wait := c.rate.wait(debt)
	if wait > a.wait {
		a.wait, a.slowest = wait, &c.rate
	}
	return wait <= 0
}

// take takes what look has found free.
func (c *claim) take(l *lease, a *applied, i int, now int64, shadow bool) {
	s := &c.counter.shards[a.shard]
	slot := l.slots[i]
	if c.places > 0 {
		if slot == none {
			slot = s.add(l.keys[a.from:a.to], 0)
		}
		s.slots[slot].value++
		l.held = append(l.held, held{c.counter, a.shard, slot})
		return
	}
	debt := c.rate.interval
	if slot != none {
		debt += c.rate.debt(s.slots[slot].value, now)
		s.slots[slot].value = now + debt
	} else if s.addRate(l.keys[a.from:a.to], now+debt, now) {
		a.evicted++
	}
	left := c.rate.left(debt)
	if !shadow && (l.tight == nil || left < l.left || left == l.left && c.rate.restored(debt) > l.restore) {
		l.tight, l.left, l.restore = &c.rate, left, c.rate.restored(debt)
	}
}

// count counts an admitted request by limit, and notes what shadow limits would have refused.
func (f *limiter) count(ex *message.Exchange, l *lease) {
	for i := range f.limits {
		limit, a := &f.limits[i], &l.limits[i]
		switch {
		case !a.applies:
			continue
		case a.refused:
			limit.shadowed.Add(1)
			ex.Note("limit_shadow", limit.title)
		default:
			limit.admitted.Add(1)
		}
		if a.evicted > 0 {
			limit.evicted.Add(float64(a.evicted))
		}
	}
}

// response is OnResponse: it tells an admitted client where it stands.
func (f *limiter) response(ex *message.Exchange) filter.Verdict {
	if l, ok := (*ex.Slot(f.slot)).(*lease); ok && l.tight != nil {
		setFields(&ex.Response.Header, l.tight, l.left, l.restore)
	}
	return filter.Continue
}

// done is OnDone. It may come for an exchange that never met the filter, or that it refused: then there is nothing in the slot.
func (f *limiter) done(ex *message.Exchange) {
	place := ex.Slot(f.slot)
	if l, ok := (*place).(*lease); ok {
		*place = nil
		f.giveBack(l)
	}
}

// giveBack releases the places of a lease, and pools it.
func (f *limiter) giveBack(l *lease) {
	for _, h := range l.held {
		h.release()
	}
	l.keys, l.held, l.tight = l.keys[:0], l.held[:0], nil
	if cap(l.keys) <= 4096 {
		f.leases.Put(l)
	}
}

func (h held) release() {
	s := &h.counter.shards[h.shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots[h.slot].value--
	if s.slots[h.slot].value == 0 {
		s.remove(h.slot)
	}
}
