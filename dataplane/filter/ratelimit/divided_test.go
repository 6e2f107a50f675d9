package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func divided(l Limit) Limit {
	l.Scope = Divided
	return l
}

func TestAMemberAdmitsItsShareRoundedUp(t *testing.T) {
	for _, q := range []struct {
		rate    Rate
		members int64
		want    int
		again   time.Duration // until the next one
	}{
		{perMinute(10, 2), 0, 12, 6 * time.Second},
		{perMinute(10, 2), 1, 12, 6 * time.Second},
		{perMinute(10, 2), 3, 4, 18 * time.Second},
		{perMinute(10, 0), 3, 4, 18 * time.Second},
		{perMinute(10, 0), 30, 1, 180 * time.Second},
		{Rate{Requests: 1, Window: 744 * time.Hour}, 100, 1, 74_400 * time.Hour},
	} {
		h := newHouse(t)
		h.members.Store(q.members)
		c := h.chain(divided(limitOf("l", q.rate)))
		if got := admitted(c, 20, "10.0.0.1"); got != q.want {
			t.Errorf("%v of %d: %d were admitted, want %d", q.rate, q.members, got, q.want)
		}
		h.Pass(q.again - time.Millisecond)
		if admitted(c, 1, "10.0.0.1") == 1 {
			t.Errorf("%v of %d: one more before %v", q.rate, q.members, q.again)
		}
		h.Pass(time.Millisecond)
		if admitted(c, 2, "10.0.0.1") != 1 {
			t.Errorf("%v of %d: not one more after %v", q.rate, q.members, q.again)
		}
	}
}

func TestPlacesAreDividedToo(t *testing.T) {
	h := newHouse(t)
	h.members.Store(3)
	c := h.chain(divided(concurrent(7)))
	var under []*message.Exchange
	take := func() (n int) {
		for range 10 {
			if ex := from("10.0.0.1"); ask(c, ex) {
				under = append(under, ex)
				n++
			}
		}
		return n
	}
	if n := take(); n != 3 {
		t.Errorf("%d of 7 places for one of three, want 3", n)
	}
	h.members.Store(1)
	if n := take(); n != 4 {
		t.Errorf("%d more when it is alone, want 4", n)
	}
	h.members.Store(100)
	if n := take(); n != 0 {
		t.Errorf("%d more among a hundred, want none", n)
	}
	for _, ex := range under {
		c.Done(ex)
	}
	if n := take(); n != 1 {
		t.Errorf("%d of 7 places for one of a hundred, want 1", n)
	}
}

func TestAShareThatWasUsedStaysUsedWhenMembersComeAndGo(t *testing.T) {
	h := newHouse(t)
	h.members.Store(5)
	c := h.chain(divided(limitOf("l", perMinute(100, 0))))
	if n := admitted(c, 100, "10.0.0.1"); n != 20 {
		t.Fatalf("%d", n)
	}
	h.members.Store(1)
	if n := admitted(c, 100, "10.0.0.1"); n != 0 {
		t.Errorf("%d more: the others took their shares with them", n)
	}
	h.members.Store(10)
	h.Pass(30 * time.Second)
	if n := admitted(c, 100, "10.0.0.1"); n != 5 {
		t.Errorf("%d came back in half a window of one in ten, want 5", n)
	}
}

func TestACostLargerThanAShareIsAdmittedWhenNothingIsOwedAndPaidBackAtTheShareOfTheRate(t *testing.T) {
	h := newHouse(t)
	h.members.Store(10)
	c := h.chain(divided(priced(perMinute(60, 0)))) // 6 for each member, one in ten seconds
	if over(c, costing(61)) {
		t.Error("61 of 60 were admitted")
	}
	if !over(c, costing(30)) {
		t.Error("30 of 60 were refused")
	}
	h.Pass(299 * time.Second) // all but a moment of what 30 are worth
	if over(c, costing(7)) {
		t.Error("another large one while something is owed")
	}
	h.Pass(time.Second)
	if !over(c, costing(7)) {
		t.Error("refused though nothing is owed")
	}
}

// TestTheBoundThatTheReadmePromises lets members come and go at random, each noticed by all others within a lag, under random and under
// saturating traffic, and holds what all admit together to the bound of README.md.
func TestTheBoundThatTheReadmePromises(t *testing.T) {
	for run := range 120 {
		rng := rand.New(rand.NewPCG(3, uint64(run)))
		runDivided(t, run, rng)
	}
}

type member struct {
	house *house
	chain *filter.Chain
	heard []news // what it has still to hear
}

type news struct {
	at      time.Duration
	members int
}

func runDivided(t *testing.T, run int, rng *rand.Rand) {
	r := Rate{Requests: 1 + rng.Int64N(300), Window: time.Minute, Burst: rng.Int64N(100)}
	lag := time.Duration(rng.Int64N(int64(5 * time.Second)))
	saturating := run%2 == 0
	var now time.Duration
	var live []*member
	joins, leaves, most, fewest := 0, 0, 0, 1000
	tell := func(joined *member) {
		for _, m := range live {
			if m == joined {
				m.heard = []news{{now, len(live)}} // it knows itself, and who is there
				continue
			}
			m.heard = append(m.heard, news{now + time.Duration(rng.Int64N(int64(lag)+1)), len(live)})
		}
		most, fewest = max(most, len(live)), min(fewest, len(live))
	}
	join := func() {
		m := &member{house: newHouse(t)}
		m.house.Pass(now)
		m.chain = m.house.chain(divided(limitOf("l", r)))
		live = append(live, m)
		tell(m)
	}
	for range 1 + rng.IntN(8) {
		join()
	}
	for _, m := range live {
		m.heard = []news{{0, len(live)}}
	}
	most, fewest = len(live), len(live)

	var total int64
	step := 100 * time.Millisecond
	for now < 3*time.Minute {
		switch rng.IntN(300) {
		case 0:
			join()
			joins++
		case 1:
			if len(live) > 1 {
				i := rng.IntN(len(live))
				live = append(live[:i:i], live[i+1:]...)
				leaves++
				tell(nil)
			}
		}
		for _, m := range live {
			latest := -1
			for i, n := range m.heard {
				if n.at <= now {
					latest = i
				}
			}
			if latest >= 0 {
				m.house.members.Store(int64(m.heard[latest].members))
				m.heard = m.heard[latest+1:]
			}
			for saturating || rng.IntN(3) == 0 {
				if admitted(m.chain, 1, "10.0.0.1") == 0 {
					break
				}
				total++
			}
		}
		now += step
		for _, m := range live {
			m.house.Pass(step)
		}
	}

	perSecond := float64(r.Requests) / r.Window.Seconds()
	share := float64((r.Requests + r.Burst + int64(fewest) - 1) / int64(fewest))
	changes := float64(joins + leaves)
	room := float64(r.Requests + r.Burst)
	slack := float64(most) + changes*(share+2*float64(most))
	atMost := room + perSecond*(now.Seconds()+float64(joins)*lag.Seconds()) + slack
	if float64(total) > atMost {
		t.Errorf("run %d: %d were admitted, at most %.1f are promised (%s)", run, total, atMost, describe(r, most, joins, leaves, lag))
	}
	if atLeast := room + perSecond*(now.Seconds()-changes*lag.Seconds()) - slack; saturating && float64(total) < atLeast {
		t.Errorf("run %d: %d were admitted, at least %.1f are promised (%s)", run, total, atLeast, describe(r, most, joins, leaves, lag))
	}
}

func describe(r Rate, most, joins, leaves int, lag time.Duration) string {
	return fmt.Sprintf("%v, up to %d members, %d joined, %d left, lag %v", r, most, joins, leaves, lag)
}
