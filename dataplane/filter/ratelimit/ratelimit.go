// Package ratelimit limits how many requests are admitted in a time, and how many at once, by keys that expressions make. README.md
// says what a user can rely on; this is how it is done.
//
// A filter knows every limit that holds for its rule, and admits in one step: expressions are evaluated first, then the shards of all
// counters that the request touches are locked, in the order of their ids, all of them are looked at, and only if each enforcing limit
// admits, all of them take. A refusal takes nothing. Nothing is called while locks are held.
//
// Counters live in keep under (policy, limit, window), and so have nothing of a rule or a snapshot in them.
//
// A limit that is Shared has its counters in the store (dataplane/store), which decides all of a request's in one step. It is asked last:
// what counters of this process took before is given back when it refuses. Of what the store says this process remembers the debts, as
// counters of its own (mirrors): they refuse without asking while a key is surely exhausted, they go on counting when the store is away,
// and they are what is shown.
package ratelimit

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/store"
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
	f := &limiter{clock: env.Clock, slot: env.Slot(), store: env.Store, members: env.Members}
	if f.members == nil {
		f.members = func() int { return 1 }
	}
	once := c.once()
	for _, l := range once {
		if err := f.add(l, env); err != nil {
			return nil, fmt.Errorf("limit %s of %s: %w", l.Name, l.Policy.Name, err)
		}
	}
	byCounter := func(a, b claim) int { return cmp.Compare(a.counter.id, b.counter.id) }
	slices.SortFunc(f.claims, byCounter)
	slices.SortFunc(f.shared, byCounter)
	for _, c := range f.shared {
		if f.limits[c.limit].failure == CountLocally {
			f.fallback = append(f.fallback, c)
		}
	}
	f.leases.New = func() any {
		n := max(len(f.claims), len(f.shared))
		l := &lease{limits: make([]applied, len(f.limits)), slots: make([]int32, n), held: make([]held, 0, f.concurrent)}
		if len(f.shared) > 0 {
			l.taken = make([]int64, n)
		}
		return l
	}
	f.show(once, env)
	return f, nil
}

// once is the limits without those that stand there before.
func (c Config) once() (limits []Limit) {
	seen := map[counterKey]bool{}
	for _, l := range c.Limits {
		if k := (counterKey{policy: l.Policy, limit: l.Name}); !seen[k] {
			seen[k] = true
			limits = append(limits, l)
		}
	}
	return limits
}

// limiter is the filter. It is immutable but for its pool.
type limiter struct {
	clock   func() time.Time
	slot    message.Slot
	store   *store.Store // nil: none
	members func() int

	limits     []limit
	claims     []claim // what limits want of counters of this process, in the order of the counters' ids
	shared     []claim // what they want of those in the store; the counters are their mirrors
	fallback   []claim // those of them that this process counts when the store is away
	concurrent int     // claims that are for concurrency
	after      bool    // some cost is known only with the answer
	leases     sync.Pool
}

// limit is a Limit ready to be asked.
type limit struct {
	title   string // "shop/api-limits/per-client", for notes
	shadow  bool
	failure OnStoreFailure // of a shared one
	programs

	admitted, refused, shadowed filter.Counter
	failed                      filter.Counter // expressions that failed
	evicted                     filter.Counter // keys forgotten too early
	unanswered                  filter.Counter // the store gave no answer
}

// claim is what one limit wants of one counter: room for a request in a rate, or a place among those under way.
type claim struct {
	counter *counter
	limit   int
	places  int64     // of concurrency; 0: a rate
	divided *division // of which this member has a share; nil: all of it is ours
	rate    rate
	stored  store.Counter
	window  time.Duration
}

func (f *limiter) add(l Limit, env filter.Env) error {
	if err := l.check(); err != nil {
		return err
	}
	p, err := l.compile()
	if err != nil {
		return err
	}
	policy := l.Policy.Name.String()
	counter := func(name string) filter.Counter { return env.Counter(name, "policy", policy, "limit", l.Name) }
	count := func(result string) filter.Counter {
		return env.Counter("ratelimit_requests_total", "policy", policy, "limit", l.Name, "result", result)
	}
	i := len(f.limits)
	f.limits = append(f.limits, limit{
		title: policy + "/" + l.Name, shadow: l.Shadow, failure: l.OnStoreFailure, programs: p,
		admitted: count("admitted"), refused: count("refused"), shadowed: count("shadow"),
		failed: counter("ratelimit_expression_errors_total"), evicted: counter("ratelimit_evicted_keys_total"),
	})
	if l.Scope == Shared {
		f.limits[i].unanswered = counter("ratelimit_store_failures_total")
	}
	f.after = f.after || p.after != nil
	for _, r := range l.Rates {
		f.claim(l, claim{counter: keptCounter(env.Keep, l, r.Window), limit: i, rate: newRate(r, l.Name, 1, l.CostFromResponse)}, r)
	}
	if l.Concurrency > 0 {
		f.claim(l, claim{counter: keptCounter(env.Keep, l, 0), limit: i, places: l.Concurrency}, Rate{})
		f.concurrent++
	}
	return nil
}

// claim enters a claim where its scope says.
func (f *limiter) claim(l Limit, c claim, r Rate) {
	c.window = r.Window
	if slices.ContainsFunc(l.Key, func(k string) bool { return !public.MatchString(k) }) {
		c.counter.private.Store(true)
	}
	if l.Scope != Local {
		c.divided = &division{rate: r, name: l.Name, after: l.CostFromResponse, places: c.places}
	}
	if l.Scope != Shared {
		f.claims = append(f.claims, c)
		return
	}
	if f.store != nil {
		c.stored = f.store.Counter(l.Policy.id(), l.Name+":"+windowWord(r.Window))
	}
	f.shared = append(f.shared, c)
}

// id is what a policy is known by in the store.
func (p Policy) id() string {
	if p.UID != "" {
		return p.UID
	}
	return p.Name.String()
}

func windowWord(d time.Duration) string {
	if d == 0 {
		return "at-once"
	}
	return snapshot.DurationWord(d)
}

// lease is what the filter knows of one exchange, from Request to Done.
type lease struct {
	keys   []byte    // of all limits that apply, one behind the other
	limits []applied // by limit
	slots  []int32   // by claim, while it is being decided
	taken  []int64   // by claim of this process: what it took, should it be given back; nil: the store is not asked

	held    []held         // places taken, given back by Done
	remote  []*store.Lease // likewise
	tight   *rate          // what the fields tell about; nil: nothing
	left    int64          // of it
	restore int64          // nanoseconds
}

// applied is what became of one limit.
type applied struct {
	from, to int   // of keys
	cost     int64 // what the request counts as
	wait     int64 // nanoseconds until its rates admit; 0: they do
	slowest  *rate // the one to wait for
	evicted  int
	applies  bool
	refused  bool // it would not admit
	never    bool // and never will: it costs too much
	shard    uint8
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
	now := f.now()
	if l.taken != nil {
		clear(l.taken)
	}
	admitted := f.admit(f.claims, l, now)
	if admitted && len(f.shared) > 0 {
		var unanswered string
		if admitted, unanswered = f.ask(ex, l, now); !admitted {
			f.untake(l)
		}
		if unanswered != "" {
			*place = nil
			f.giveBack(l)
			return filter.Fail(message.ReasonLimitUnavailable, unanswered)
		}
	}
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

func (f *limiter) now() int64 { return int64(f.clock().Sub(epoch)) }

// applying finds the limits that apply, their keys, and what the request counts as. A condition that fails applies; a part of a key that
// fails is ""; a cost that fails is 1.
func (f *limiter) applying(ex *message.Exchange, l *lease) (any bool) {
	for i := range f.limits {
		limit, a := &f.limits[i], &l.limits[i]
		*a = applied{cost: 1}
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
		if limit.cost != nil {
			if n, err := limit.cost.Number(ex); err != nil {
				limit.failed.Add(1)
			} else {
				a.cost = n
			}
		}
	}
	return any
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

// response is OnResponse: it tells an admitted client where it stands, and charges what is known only now.
func (f *limiter) response(ex *message.Exchange) filter.Verdict {
	l, ok := (*ex.Slot(f.slot)).(*lease)
	if !ok {
		return filter.Continue
	}
	if f.after {
		f.charge(ex, l)
	}
	if l.tight != nil {
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
	f.release(l)
	l.keys, l.tight = l.keys[:0], nil
	if cap(l.keys) <= 4096 {
		f.leases.Put(l)
	}
}

func (f *limiter) release(l *lease) {
	for _, h := range l.held {
		h.release()
	}
	l.held = l.held[:0]
	if len(l.remote) == 0 {
		return
	}
	for _, r := range l.remote {
		r.Release()
	}
	clear(l.remote)
	l.remote = l.remote[:0]
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
