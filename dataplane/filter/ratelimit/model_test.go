package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// bucket is the slow, obvious model: what is there for a key, which grows evenly up to all. In nanoseconds of growth, as the window
// need not be divided by the requests without a rest.
type bucket struct {
	have, full, each int64
}

// TestAnyRunSaysWhatTheModelSays sends random requests in random time through random limits, beside a model of buckets.
func TestAnyRunSaysWhatTheModelSays(t *testing.T) {
	for run := range 300 {
		rng := rand.New(rand.NewPCG(1, uint64(run)))
		h := newHouse(t)
		limits := randomLimits(rng)
		c := h.chain(limits...)
		model := map[string]*bucket{}
		places := map[string]int64{}
		type open struct {
			ex     *message.Exchange
			places []string
		}
		var under []open
		var passed time.Duration
		for step := range 300 {
			d := time.Duration(rng.ExpFloat64() * float64(limits[0].window()) / 20)
			h.Pass(d)
			passed += d
			for _, b := range model {
				b.have = min(b.full, b.have+int64(d))
			}
			if len(under) > 0 && rng.IntN(3) == 0 {
				i := rng.IntN(len(under))
				c.Done(under[i].ex)
				for _, p := range under[i].places {
					places[p]--
				}
				under = slices.Delete(under, i, i+1)
			}
			ip := fmt.Sprintf("10.0.0.%d", rng.IntN(3))
			want := true
			var take []*bucket
			var hold, shadows []string
			for _, l := range limits {
				key := l.Name
				if l.Key != nil {
					key += ip
				}
				ok := true
				var own []*bucket
				for i, r := range l.Rates {
					k := fmt.Sprint(key, i)
					if model[k] == nil {
						each := int64(r.Window) / r.Requests
						if int64(r.Window)%r.Requests != 0 {
							each++
						}
						full := each * (r.Requests + r.Burst)
						model[k] = &bucket{full, full, each}
					}
					ok = ok && model[k].have >= model[k].each
					own = append(own, model[k])
				}
				if l.Concurrency > 0 {
					ok = ok && places[key] < l.Concurrency
				}
				switch {
				case !ok && l.Shadow:
					shadows = append(shadows, "shop/api-limits/"+l.Name)
				case !ok:
					want = false
				default:
					take = append(take, own...)
					if l.Concurrency > 0 {
						hold = append(hold, key)
					}
				}
			}
			ex := from(ip)
			got := ask(c, ex)
			if got != want {
				t.Fatalf("run %d step %d at %v from %s: admitted %v, the model says %v\n%s", run, step, passed, ip, got, want, Config{limits})
			}
			if got {
				if noted := notes(ex, "limit_shadow"); !slices.Equal(noted, shadows) {
					t.Fatalf("run %d step %d: notes of shadow limits %q, the model says %q\n%s", run, step, noted, shadows, Config{limits})
				}
				for _, b := range take {
					b.have -= b.each
				}
				for _, p := range hold {
					places[p]++
				}
				under = append(under, open{ex, hold})
			}
		}
	}
}

func (l Limit) window() time.Duration {
	if len(l.Rates) == 0 {
		return time.Minute
	}
	return l.Rates[0].Window
}

func randomLimits(rng *rand.Rand) []Limit {
	windows := []time.Duration{time.Second, 7 * time.Second, time.Minute, time.Hour}
	var out []Limit
	for i := range 1 + rng.IntN(3) {
		l := Limit{Policy: apiLimits, Name: fmt.Sprint("l", i), Shadow: rng.IntN(4) == 0}
		if rng.IntN(2) == 0 {
			l.Key = []string{"source.ip"}
		}
		for _, w := range windows[:rng.IntN(len(windows))] {
			l.Rates = append(l.Rates, Rate{Requests: 1 + rng.Int64N(20), Window: w, Burst: rng.Int64N(4)})
		}
		if l.Rates == nil || rng.IntN(3) == 0 {
			l.Concurrency = 1 + rng.Int64N(4)
		}
		out = append(out, l)
	}
	return out
}
