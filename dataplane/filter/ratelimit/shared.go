package ratelimit

import (
	"crypto/sha256"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/store"
)

// trust is how long this process refuses by itself what the store has said to be exhausted. It is short: the store may have been emptied,
// or a charge given back.
const trust = int64(time.Second)

// ask has the store decide about the shared limits of a request that all others admit. When there is no answer and a limit demands one,
// unanswered names it.
func (f *limiter) ask(ex *message.Exchange, l *lease, now int64) (admitted bool, unanswered string) {
	if f.store == nil {
		return f.without(ex, l, now, store.Down)
	}
	generation := f.store.Generation()
	if f.exhausted(l, seen{at: now, generation: generation}) {
		return false, ""
	}
	call := f.store.NewCall()
	for i := range f.shared {
		c := &f.shared[i]
		if a := &l.limits[c.limit]; a.applies {
			shadow := 0
			if f.limits[c.limit].shadow {
				shadow = 1 + c.limit
			}
			call.Claims = append(call.Claims, c.of(l, a, shadow))
			if c.places == 0 {
				call.Claims[len(call.Claims)-1].Least = c.counter.lost(l.keys[a.from:a.to], a.shard, now, generation, &c.rate)
			}
		}
	}
	if len(call.Claims) == 0 {
		f.store.Free(call)
		return true, ""
	}
	if err := f.store.Ask(call); err != nil {
		asked := call.Asked
		f.store.Free(call)
		if admitted, unanswered = f.without(ex, l, now, err); admitted {
			f.owe(l, asked, generation)
		}
		return admitted, unanswered
	}
	f.learn(l, call, seen{at: f.now(), generation: generation})
	admitted = call.Admitted
	f.store.Free(call)
	return admitted, ""
}

// of is a claim as the store knows it.
func (c *claim) of(l *lease, a *applied, shadow int) store.Claim {
	out := store.Claim{Counter: c.stored, Key: keyOf(l.keys[a.from:a.to]), Shadow: shadow, Places: c.places}
	if c.places == 0 {
		out.Cost, out.Most, out.Deepest = time.Duration(c.rate.cost(a.cost)), time.Duration(c.rate.most), time.Duration(c.rate.deepest)
	}
	return out
}

func keyOf(key []byte) (k store.Key) {
	sum := sha256.Sum256(key)
	copy(k[:], sum[:])
	return k
}

// learn takes the answers of a call, whose claims stand in the order of f.shared.
func (f *limiter) learn(l *lease, call *store.Call, now seen) {
	n := 0
	for i := range f.shared {
		c := &f.shared[i]
		a := &l.limits[c.limit]
		if !a.applies {
			continue
		}
		answer := &call.Claims[n]
		n++
		a.refused = a.refused || answer.Refused
		switch {
		case answer.Lease != nil:
			l.remote = append(l.remote, answer.Lease)
			l.hold(c, a)
		case c.places == 0:
			key, debt := l.keys[a.from:a.to], int64(answer.Debt)
			owed, evicted := c.counter.remember(key, a.shard, now, debt, int64(f.members()), &c.rate)
			if evicted {
				a.evicted++
			}
			if debt += owed; owed > 0 {
				f.store.Add(c.stored, keyOf(key), time.Duration(owed), time.Duration(c.rate.deepest))
			}
			if answer.Refused {
				a.wants(&c.rate, debt)
				a.wait = max(a.wait, 1) // the store has rounded
				if a.slowest == nil {
					a.slowest = &c.rate
				}
			} else if call.Admitted && !f.limits[c.limit].shadow {
				l.tell(&c.rate, debt)
			}
		}
	}
}

// hold counts in the mirror what this process has under way.
func (l *lease) hold(c *claim, a *applied) {
	s := &c.counter.shards[a.shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.find(l.keys[a.from:a.to])
	if slot == none {
		slot = s.add(l.keys[a.from:a.to], 0)
	}
	s.slots[slot].value++
	l.held = append(l.held, held{c.counter, a.shard, slot})
}

// remember makes a mirror say what the store said; and, if it was away before, what this process has admitted since it had told last, which
// is owed to it. That was counted as a share, of which each request is so many times as large as there are members.
func (c *counter) remember(key []byte, shard uint8, now seen, debt, members int64, r *rate) (owed int64, evicted bool) {
	s := &c.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.find(key)
	if slot == none {
		if debt <= 0 {
			return 0, false
		}
		evicted = s.addRate(key, now.at+debt, now.at)
		slot = s.find(key)
	} else if last := s.heard(slot); last.generation != now.generation {
		since := max(s.slots[slot].value, now.at) - max(last.fresh, now.at)
		owed = min(max(since, 0)/max(members, 1), r.deepest)
	}
	now.fresh = now.at + debt
	s.slots[slot].value = now.fresh + owed
	s.hear(slot, now)
	return owed, evicted
}

// exhausted reports whether an enforcing limit surely does not admit, so that the store need not be asked.
func (f *limiter) exhausted(l *lease, now seen) (yes bool) {
	for i := range f.shared {
		c := &f.shared[i]
		a := &l.limits[c.limit]
		if !a.applies || c.places > 0 || f.limits[c.limit].shadow {
			continue
		}
		if debt, heard := c.counter.heard(l.keys[a.from:a.to], a.shard, now, &c.rate); heard && !a.wants(&c.rate, debt) {
			a.refused, yes = true, true
		}
	}
	return yes
}

// heard is the debt that the store has told of not long ago, and not before it was away.
func (c *counter) heard(key []byte, shard uint8, now seen, r *rate) (debt int64, ok bool) {
	s := &c.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.find(key)
	if slot == none {
		return 0, false
	}
	if when := s.heard(slot); when.generation != now.generation || when.at <= now.at-trust {
		return 0, false
	}
	return r.debt(s.slots[slot].value, now.at), true
}

// lost is the debt that the store has told of and perhaps lost: it was away since.
func (c *counter) lost(key []byte, shard uint8, now, generation int64, r *rate) time.Duration {
	s := &c.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.find(key)
	if slot == none || s.heard(slot).generation == generation {
		return 0
	}
	return time.Duration(r.debt(s.heard(slot).fresh, now))
}

// without does what limits say for a store that gives no answer.
func (f *limiter) without(ex *message.Exchange, l *lease, now int64, err error) (admitted bool, unanswered string) {
	applies := false
	for i := range f.limits {
		limit, a := &f.limits[i], &l.limits[i]
		if !a.applies || limit.unanswered == nil {
			continue
		}
		applies = true
		limit.unanswered.Add(1)
		if limit.failure == Deny && !limit.shadow && unanswered == "" {
			unanswered = limit.title
		}
	}
	if !applies {
		return true, ""
	}
	var why store.Result
	if errors.As(err, &why) {
		ex.Note("limit_store", string(why))
	}
	if unanswered != "" {
		return false, unanswered
	}
	return f.admitInstead(l, now), ""
}

// admitInstead counts in the mirrors what the store cannot.
func (f *limiter) admitInstead(l *lease, now int64) bool {
	return len(f.fallback) == 0 || f.admit(f.fallback, l, now)
}

// owe tells the store of what was admitted without it. Of places it learns when it is back. Of rates it may have taken what it was asked,
// and while it is down all is remembered until it is back (remember); what it was too busy to be asked is told behind the request, or as
// much more would be admitted as it is too slow.
func (f *limiter) owe(l *lease, asked bool, generation int64) {
	for i := range f.fallback {
		c := &f.fallback[i]
		a := &l.limits[c.limit]
		if !a.applies || a.refused {
			continue
		}
		key := l.keys[a.from:a.to]
		if c.places > 0 {
			l.remote = append(l.remote, f.store.Owe(c.stored, keyOf(key)))
			continue
		}
		c.counter.doubt(key, a.shard, generation)
		if !asked && a.cost > 0 && f.store.Up() {
			f.store.Add(c.stored, keyOf(key), time.Duration(c.rate.cost(a.cost)), time.Duration(c.rate.deepest))
		}
	}
}

// doubt notes that a mirror no more says what that store said: it has counted a share since.
func (c *counter) doubt(key []byte, shard uint8, generation int64) {
	s := &c.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot := s.find(key); slot != none {
		last := s.heard(slot)
		if last.generation == 0 {
			last.generation = generation
		}
		last.at = never
		s.hear(slot, last)
	}
}

// chargeShared is charge for a claim in the store.
func (f *limiter) chargeShared(c *claim, l *lease, a *applied, now, n int64) {
	key := l.keys[a.from:a.to]
	if f.store == nil || !f.store.Up() { // it is told with the next request of this key
		r, _ := f.share(c)
		c.counter.charge(key, a.shard, now, r.amount(n), r)
		return
	}
	c.counter.charge(key, a.shard, now, c.rate.amount(n), &c.rate)
	f.store.Add(c.stored, keyOf(key), time.Duration(c.rate.amount(n)), time.Duration(c.rate.deepest))
}
