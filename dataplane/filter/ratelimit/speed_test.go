package ratelimit

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/racetest"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// TestAtOnceNeverMoreIsAdmittedThanAllowed asks from many goroutines, over rules whose limits overlap in different orders (where locks
// that are taken in any order would lock each other out).
func TestAtOnceNeverMoreIsAdmittedThanAllowed(t *testing.T) {
	h := newHouse(t)
	a, b := limitOf("a", Rate{Requests: 300, Window: time.Hour}), limitOf("b", Rate{Requests: 500, Window: time.Hour}, Rate{Requests: 450, Window: 2 * time.Hour})
	places := Limit{Policy: apiLimits, Name: "places", Concurrency: 7}
	shadow := limitOf("shadow", Rate{Requests: 10, Window: time.Hour})
	shadow.Shadow = true
	chains := h.apply(Config{[]Limit{a, b, places}}, Config{[]Limit{places, shadow, b}}, Config{[]Limit{b, places, a}}, Config{[]Limit{shadow, a, places}})

	var got [4]atomic.Int64
	var under, most atomic.Int64
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := range 500 {
				n := (g + i) % len(chains)
				ex := from("10.0.0.1")
				if !ask(chains[n], ex) {
					continue
				}
				got[n].Add(1)
				for now := under.Add(1); ; {
					if old := most.Load(); now <= old || most.CompareAndSwap(old, now) {
						break
					}
				}
				under.Add(-1)
				chains[n].Done(ex)
			}
		})
	}
	all.Wait()
	if n := got[0].Load() + got[2].Load() + got[3].Load(); n > 300 {
		t.Errorf("a admitted %d, want at most 300", n)
	}
	if n := got[0].Load() + got[1].Load() + got[2].Load(); n > 450 {
		t.Errorf("b admitted %d, want at most 450", n)
	}
	if n := most.Load(); n > 7 {
		t.Errorf("%d at once, want at most 7", n)
	}
	if n := h.kept(places, 0).keys(); n != 0 {
		t.Errorf("places are still held")
	}

	// Nothing was lost either: what is left is exactly what was not admitted.
	left := func(l Limit) int { return admitted(h.chain(l), 1000, "10.0.0.1") }
	if n := int64(left(a)) + got[0].Load() + got[2].Load() + got[3].Load(); n != 300 {
		t.Errorf("a: %d in all, want 300", n)
	}
	if n := int64(left(b)) + got[0].Load() + got[1].Load() + got[2].Load(); n != 450 {
		t.Errorf("b: %d in all, want 450", n)
	}
}

// Two rules that take the same locks in different orders would one day wait for each other for ever.
func TestLocksAreTakenInOneOrderWhateverTheOrderOfLimits(t *testing.T) {
	h := newHouse(t)
	for range 20 {
		limits := []Limit{concurrent(1)}
		for i := range 10 {
			limits = append(limits, limitOf(fmt.Sprint("l", i), perMinute(1, 0), Rate{Requests: 1, Window: time.Hour}))
		}
		rand.Shuffle(len(limits), func(i, j int) { limits[i], limits[j] = limits[j], limits[i] })
		var f *limiter
		if _, err := filter.Build([]snapshot.Filter{built{Config{limits}, &f}}, h.env(h.Store.Begin()), false, nil); err != nil {
			t.Fatal(err)
		}
		if len(f.claims) != 21 || !slices.IsSortedFunc(f.claims, func(a, b claim) int { return cmp.Compare(a.counter.id, b.counter.id) }) {
			t.Fatal("claims are not in the order of their counters")
		}
	}
}

// built lets a test see the filter that a chain is given.
type built struct {
	Config
	out **limiter
}

func (b built) Build(env filter.Env) (faces filter.Faces, err error) {
	if *b.out, err = newLimiter(b.Config, env); err != nil {
		return faces, err
	}
	return b.Config.Build(env)
}

type noCounter struct{}

func (noCounter) Add(float64) {}

// typical is two limits with two rates each, as a shop would have them.
func typical(t testing.TB) *filter.Chain {
	client := limitOf("per-client", Rate{Requests: MaxRequests, Window: time.Second}, Rate{Requests: MaxRequests, Window: time.Hour})
	client.Key = []string{"source.ip", `request.headers["x-tenant"]`}
	client.When = `request.method != "OPTIONS"`
	all := limitOf("all", Rate{Requests: MaxRequests, Window: time.Second}, Rate{Requests: MaxRequests, Window: time.Hour})
	return quick(t, client, all)
}

// quick is a chain with the real clock, and without counters.
func quick(t testing.TB, limits ...Limit) *filter.Chain {
	env := filter.Env{Keep: keep.New(time.Now).Begin(), Clock: time.Now, Counter: func(string, ...string) filter.Counter { return noCounter{} }}
	c, err := filter.Build([]snapshot.Filter{Config{limits}}, env, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var backendFields = [3]message.Field{{Name: "Content-Type", Value: "text/plain"}, {Name: "Date", Value: "today"}, {Name: "Server", Value: "shop"}}

// answered gives the exchange an answer with three fields, as it comes from a backend.
func answered(ex *message.Exchange) { ex.Response.Header = message.NewHeader(backendFields[:]...) }

func run(c *filter.Chain, ex *message.Exchange) {
	if met, v := c.Request(ex); v == filter.Continue {
		c.Response(ex, met, nil)
	}
	c.Done(ex)
}

// The filter admits without an allocation; the two are the field about the rate, and room in the head for two lines.
func TestAnAdmittedRequestAllocatesAtMostTwice(t *testing.T) {
	racetest.SkipsAllocations(t)
	c := typical(t)
	ex := from("10.0.0.1")
	ex.Request.Header.Set("x-tenant", "blue")
	ex.Response = &message.Response{}
	run(c, ex)
	n := testing.AllocsPerRun(500, func() {
		answered(ex)
		run(c, ex)
	})
	if n > 2 {
		t.Errorf("%v allocations", n)
	}
	n = testing.AllocsPerRun(500, func() {
		c.Request(ex)
		c.Done(ex)
	})
	if n > 0 {
		t.Errorf("%v allocations without the answer", n)
	}
}

func BenchmarkAdmitted(b *testing.B) {
	c := typical(b)
	b.Run("two limits of two rates", func(b *testing.B) {
		ex := from("10.0.0.1")
		ex.Request.Header.Set("x-tenant", "blue")
		ex.Response = &message.Response{}
		b.ReportAllocs()
		for b.Loop() {
			answered(ex)
			run(c, ex)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		var client atomic.Int64
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			ex := from(fmt.Sprintf("10.0.0.%d", client.Add(1)))
			ex.Request.Header.Set("x-tenant", "blue")
			ex.Response = &message.Response{}
			for pb.Next() {
				answered(ex)
				run(c, ex)
			}
		})
	})
	b.Run("a new key each", func(b *testing.B) {
		ex := from("10.0.0.1")
		ex.Response = &message.Response{}
		ip := ex.ClientIP
		b.ReportAllocs()
		for b.Loop() {
			ip = ip.Next()
			ex.ClientIP = ip
			answered(ex)
			run(c, ex)
		}
	})
}

func BenchmarkRefused(b *testing.B) {
	c := quick(b, limitOf("l", Rate{Requests: 1, Window: time.Hour}))
	ex := from("10.0.0.1")
	ex.Response = &message.Response{}
	run(c, ex)
	b.ReportAllocs()
	for b.Loop() {
		ex.Notes = ex.Notes[:0]
		run(c, ex)
	}
}
