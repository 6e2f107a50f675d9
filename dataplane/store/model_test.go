package store_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/store"
	"github.com/gatehouse-dev/gatehouse/dataplane/store/storetest"
)

// unit is what costs one: a day, so that the milliseconds of a test are nothing.
const unit = 24 * time.Hour

// model is the obvious one: what was used of each counter, in whole units, as nothing comes back meanwhile; or the places taken.
type model map[string]int64

// decide is what a call ought to do.
func (m model) decide(claims []store.Claim, names []string) (admits bool, refused []bool) {
	admits = true
	trial := map[int]bool{}
	refused = make([]bool, len(claims))
	for i, c := range claims {
		n := names[i]
		if c.Places > 0 {
			refused[i] = m[n] >= c.Places
		} else {
			m[n] = max(min(m[n], int64(c.Deepest/unit)), int64(c.Least/unit))
			refused[i] = m[n]+int64(c.Cost/unit) > int64(c.Most/unit)
		}
		switch {
		case refused[i] && c.Shadow == 0:
			admits = false
		case refused[i]:
			trial[c.Shadow] = true
		}
	}
	for i, c := range claims {
		refused[i] = refused[i] || trial[c.Shadow]
		switch {
		case !admits || refused[i]:
		case c.Places > 0:
			m[names[i]]++
		default:
			m[names[i]] += int64(c.Cost / unit)
		}
	}
	return admits, refused
}

// randomClaims are some of three rates and two kinds of places.
func randomClaims(rng *rand.Rand, s *store.Store, run int) (claims []store.Claim, names []string) {
	for _, i := range rng.Perm(5)[:1+rng.IntN(4)] {
		c := store.Claim{Counter: s.Counter(fmt.Sprint("run", run), fmt.Sprint(i)), Shadow: max(0, rng.IntN(5)-2)}
		if i < 3 {
			c.Cost, c.Most = time.Duration(rng.IntN(5))*unit, time.Duration(5+rng.IntN(20))*unit
			c.Deepest = c.Most + time.Duration(rng.IntN(10))*unit
			if rng.IntN(6) == 0 {
				c.Least = time.Duration(rng.Int64N(int64(c.Deepest/unit))) * unit
			}
		} else {
			c.Places = 1 + rng.Int64N(6)
		}
		claims, names = append(claims, c), append(names, fmt.Sprint(i))
	}
	return claims, names
}

// TestAnyRunSaysWhatTheModelSays sends random calls of several claims, with costs, trials, places and what is remembered, beside the model.
func TestAnyRunSaysWhatTheModelSays(t *testing.T) {
	t.Parallel()
	s := connected(t, store.Options{Addresses: []string{storetest.Start(t).Address()}})
	for run := range 60 {
		rng := rand.New(rand.NewPCG(4, uint64(run)))
		m := model{}
		for step := range 60 {
			claims, names := randomClaims(rng, s, run)
			want, refused := m.decide(claims, names)
			got, answers := ask(t, s, claims...)
			if got != want {
				t.Fatalf("run %d step %d: admitted %v, the model says %v\n%+v", run, step, got, want, claims)
			}
			for i, a := range answers {
				what := fmt.Sprintf("run %d step %d claim %d (%+v)", run, step, i, claims[i])
				if a.Refused != refused[i] {
					t.Fatalf("%s: refused %v, the model says %v", what, a.Refused, refused[i])
				}
				if (a.Lease != nil) != (want && !refused[i] && a.Places > 0) {
					t.Fatalf("%s: lease %v", what, a.Lease)
				}
				if debt := time.Duration(m[names[i]]) * unit; a.Places == 0 && (a.Debt > debt+time.Second || a.Debt < debt-time.Minute) {
					t.Fatalf("%s: debt %v, the model says %v", what, a.Debt, debt)
				}
				if a.Places > 0 && a.Under != m[names[i]] {
					t.Fatalf("%s: %d are under way, the model says %d", what, a.Under, m[names[i]])
				}
			}
		}
	}
}
