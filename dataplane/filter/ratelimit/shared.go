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
	if f.exhausted(l, seen{now, generation}) {
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
		f.store.Free(call)
		return f.without(ex, l, now, err)
	}
	f.learn(l, call, seen{f.now(), generation})
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
			debt := int64(answer.Debt)
			if answer.Refused {
				a.wants(&c.rate, debt)
				a.wait = max(a.wait, 1) // the store has rounded
				if a.slowest == nil {
					a.slowest = &c.rate
				}
			} else if call.Admitted && !f.limits[c.limit].shadow {
				l.tell(&c.rate, debt)
			}
			if c.counter.remember(l.keys[a.from:a.to], a.shard, now, debt) {
				a.evicted++
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

// remember makes a mirror say what the store said.
func (c *counter) remember(key []byte, shard uint8, now seen, debt int64) (evicted bool) {
	s := &c.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.find(key)
	if slot == none {
		if debt <= 0 {
			return false
		}
		evicted = s.addRate(key, now.at+debt, now.at)
		slot = s.find(key)
	}
	s.slots[slot].value = now.at + debt
	s.hear(slot, now)
	return evicted
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

// lost is the debt that this process knows of and the store perhaps not: it was away since it told of it.
func (c *counter) lost(key []byte, shard uint8, now, generation int64, r *rate) time.Duration {
	s := &c.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.find(key)
	if slot == none || s.heard(slot).generation == generation {
		return 0
	}
	return time.Duration(r.debt(s.slots[slot].value, now))
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

// admitInstead counts in the mirrors what the store cannot. What it takes of rates stays there: the store says anew what is owed when it
// is back.
func (f *limiter) admitInstead(l *lease, now int64) bool {
	return len(f.fallback) == 0 || f.admit(f.fallback, l, now)
}

// chargeShared is charge for a claim in the store.
func (f *limiter) chargeShared(c *claim, l *lease, a *applied, now, n int64) {
	key := l.keys[a.from:a.to]
	c.counter.charge(key, a.shard, now, c.rate.amount(n), &c.rate)
	if f.store != nil && f.store.Up() { // else it is told with the next request of this key
		f.store.Add(c.stored, keyOf(key), time.Duration(c.rate.amount(n)), time.Duration(c.rate.deepest))
	}
}
