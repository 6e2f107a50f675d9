package ratelimit

import (
	"sync/atomic"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// division is a limit of which each member has a share.
type division struct {
	rate   Rate
	name   string
	after  bool
	places int64
	last   atomic.Pointer[share]
}

// share is what one of so many members has.
type share struct {
	members int
	rate    rate
	places  int64
}

// of is the share of one of so many. What was asked for last is remembered: their number changes rarely.
func (d *division) of(members int) *share {
	members = max(1, members)
	if s := d.last.Load(); s != nil && s.members == members {
		return s
	}
	s := &share{members: members}
	if d.places > 0 {
		s.places = (d.places + int64(members) - 1) / int64(members)
	} else {
		s.rate = newRate(d.rate, d.name, members, d.after)
	}
	d.last.Store(s)
	return s
}

// share is what this process has of a claim that is divided.
func (f *limiter) share(c *claim) (*rate, int64) {
	s := c.divided.of(f.members())
	return &s.rate, s.places
}

// ours is what it has of any claim.
func (f *limiter) ours(c *claim) (*rate, int64) {
	if c.divided != nil {
		return f.share(c)
	}
	return &c.rate, c.places
}

// admit decides about counters of this process, and takes if all enforcing limits admit. A shadow limit that would not admit takes
// nothing itself and hinders nobody.
func (f *limiter) admit(claims []claim, l *lease, now int64) bool {
	locked := 0
	defer func() {
		for i := range locked {
			if c := &claims[i]; l.limits[c.limit].applies {
				c.counter.shards[l.limits[c.limit].shard].mu.Unlock()
			}
		}
	}()
	admits := true
	for i := range claims {
		c := &claims[i]
		if a := &l.limits[c.limit]; a.applies {
			c.counter.shards[a.shard].mu.Lock()
		}
		locked = i + 1
	}
	for i := range claims {
		c := &claims[i]
		a := &l.limits[c.limit]
		if !a.applies {
			continue
		}
		r, places := &c.rate, c.places // as ours, which is too large to be inlined
		if c.divided != nil {
			r, places = f.share(c)
		}
		if !c.look(l, a, i, now, r, places) {
			a.refused = true
			admits = admits && f.limits[c.limit].shadow
		}
	}
	if !admits {
		return false
	}
	for i := range claims {
		c := &claims[i]
		a := &l.limits[c.limit]
		if a.applies && !a.refused {
			r, places := &c.rate, c.places
			if c.divided != nil {
				r, places = f.share(c)
			}
			c.take(l, a, i, now, r, places, f.limits[c.limit].shadow)
		}
	}
	return true
}

// look reports whether this claim alone admits, and what it waits for if not.
func (c *claim) look(l *lease, a *applied, i int, now int64, r *rate, places int64) bool {
	s := &c.counter.shards[a.shard]
	slot := s.find(l.keys[a.from:a.to])
	l.slots[i] = slot
	if places > 0 {
		return slot == none || s.slots[slot].value < places
	}
	if slot == none {
		return a.cost == 1 || a.wants(r, 0)
	}
	v := &s.slots[slot].value
	debt := r.debt(*v, now)
	if *v-now > debt {
		*v = now + debt // more than this rate knows: it was larger once, and is cut now, or the next request would wait for it again
	}
	return a.cost == 1 && debt+r.interval <= r.most || a.wants(r, debt)
}

// wants reports whether a rate with that debt admits, and remembers what is to be waited for if not.
func (a *applied) wants(r *rate, debt int64) bool {
	var wait int64
	if a.cost == 1 {
		wait = debt + r.interval - r.most // there is always room for one
	} else {
		cost := r.cost(a.cost)
		if cost > 0 { // else it is admitted, also in a debt that is deeper than a share
			wait = r.wait(debt, cost)
		}
		a.never = a.never || r.never(cost)
	}
	if wait > a.wait {
		a.wait, a.slowest = wait, r
	}
	return wait <= 0
}

// take takes what look has found free.
func (c *claim) take(l *lease, a *applied, i int, now int64, r *rate, places int64, shadow bool) {
	s := &c.counter.shards[a.shard]
	slot := l.slots[i]
	if places > 0 {
		if slot == none {
			slot = s.add(l.keys[a.from:a.to], 0)
		}
		s.slots[slot].value++
		l.held = append(l.held, held{c.counter, a.shard, slot})
		return
	}
	debt := r.cost(a.cost)
	if l.taken != nil {
		l.taken[i] = debt
	}
	if slot != none {
		debt += r.debt(s.slots[slot].value, now)
		s.slots[slot].value = now + debt
	} else if debt > 0 && s.addRate(l.keys[a.from:a.to], now+debt, now) {
		a.evicted++
	}
	if !shadow {
		l.tell(r, debt)
	}
}

// tell keeps the tightest rate for the fields.
func (l *lease) tell(r *rate, debt int64) {
	left := r.left(debt)
	if l.tight != nil && left > l.left {
		return
	}
	if restored := r.restored(debt, left); l.tight == nil || left < l.left || restored > l.restore {
		l.tight, l.left, l.restore = r, left, restored
	}
}

// untake gives back what counters of this process took of a request that the store has not admitted.
func (f *limiter) untake(l *lease) {
	f.release(l)
	now := f.now()
	for i := range f.claims {
		c := &f.claims[i]
		if a := &l.limits[c.limit]; a.applies && l.taken[i] > 0 {
			r, _ := f.ours(c)
			c.counter.charge(l.keys[a.from:a.to], a.shard, now, -l.taken[i], r)
		}
	}
	l.tight = nil
}

// charge adds to the debt of a key, or takes from it, whatever it is; it reports whether a key was forgotten for that.
func (c *counter) charge(key []byte, shard uint8, now, amount int64, r *rate) (evicted bool) {
	s := &c.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.find(key)
	if slot == none {
		return amount > 0 && s.addRate(key, now+min(amount, r.deepest), now)
	}
	debt := r.debt(s.slots[slot].value, now)
	s.slots[slot].value = now + min(max(debt+amount, 0), r.deepest)
	return false
}

// charge takes the rest of what a request costs, now that there is an answer. One was taken when it came; if the cost cannot be told,
// that is all.
func (f *limiter) charge(ex *message.Exchange, l *lease) {
	now := f.now()
	for i := range f.limits {
		limit, a := &f.limits[i], &l.limits[i]
		if limit.after == nil || !a.applies || a.refused {
			continue
		}
		n, err := limit.after.Number(ex)
		if err != nil {
			limit.failed.Add(1)
			continue
		}
		if n == 1 {
			continue
		}
		for i := range f.claims {
			if c := &f.claims[i]; &f.limits[c.limit] == limit && c.places == 0 {
				r, _ := f.ours(c)
				if c.counter.charge(l.keys[a.from:a.to], a.shard, now, r.amount(n-1), r) {
					limit.evicted.Add(1)
				}
			}
		}
		for i := range f.shared {
			if c := &f.shared[i]; &f.limits[c.limit] == limit && c.places == 0 {
				f.chargeShared(c, l, a, now, n-1)
			}
		}
	}
}

// amount is what n more (or fewer, −1) add to a debt.
func (r *rate) amount(n int64) int64 {
	if n <= 0 {
		return n * r.interval
	}
	return r.interval * min(n, r.deepest/r.interval+1)
}
