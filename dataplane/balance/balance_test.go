package balance

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// endpoints makes a set of n.
func endpoints(n int) []*Endpoint {
	set := make([]*Endpoint, n)
	for i := range set {
		set[i] = &Endpoint{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)}
	}
	return set
}

// each runs a test for every algorithm: this is the property test that a new one passes by being in the list.
func each(t *testing.T, test func(t *testing.T, name string)) {
	for _, a := range Algorithms {
		t.Run(a.Name, func(t *testing.T) { test(t, a.Name) })
	}
}

func TestAnEmptySetPicksNothing(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		if e := New(name, nil).Pick(Request{}); e != nil {
			t.Errorf("picked %v of nothing", e.Address)
		}
	})
}

func TestAPickIsOneOfTheSetAndNotAnExcludedOneWhileThereIsAnother(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		for round := range 500 {
			set := endpoints(1 + rand.IntN(12))
			var q Request
			for _, e := range set {
				e.Active.Store(int64(rand.IntN(5)))
				if rand.IntN(2) == 0 {
					q.Excluded = append(q.Excluded, e.Address)
				}
			}
			q.Excluded = append(q.Excluded, netip.MustParseAddrPort("192.0.2.1:80")) // one that has left the set
			allOut := len(q.Excluded) == len(set)+1
			p := New(name, set)
			for range 20 {
				e := p.Pick(q)
				if !slices.Contains(set, e) {
					t.Fatalf("round %d: %v is not of the set", round, e)
				}
				if !allOut && slices.Contains(q.Excluded, e.Address) {
					t.Fatalf("round %d: %v was excluded, and %d of %d were not", round, e.Address, len(set)+1-len(q.Excluded), len(set))
				}
			}
		}
	})
}

func TestPicksSpreadEvenlyAlsoAroundExclusions(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		for _, excluded := range []int{0, 1, 3} {
			set := endpoints(8)
			var q Request
			for _, e := range set[2 : 2+excluded] {
				q.Excluded = append(q.Excluded, e.Address)
			}
			p, counts := New(name, set), map[*Endpoint]int{}
			const picks = 40000
			for range picks {
				counts[p.Pick(q)]++
			}
			want := picks / (len(set) - excluded)
			if len(counts) != len(set)-excluded {
				t.Errorf("%d excluded: %d endpoints were picked", excluded, len(counts))
			}
			for e, n := range counts {
				if n < want*9/10 || n > want*11/10 { // the deviation of a fair choice is below 2 %
					t.Errorf("%d excluded: %v was picked %d times, want about %d", excluded, e.Address, n, want)
				}
			}
		}
	})
}

func TestLeastRequestLeavesABusyEndpointAlone(t *testing.T) {
	set := endpoints(4)
	set[1].Active.Store(100)
	p := New("LeastRequest", set)
	for range 1000 {
		if p.Pick(Request{}) == set[1] {
			t.Fatal("the busy one was picked, though each pair has a less busy one")
		}
	}
}

func TestRoundRobinVisitsEachOnceInARound(t *testing.T) {
	set := endpoints(7)
	p := New("RoundRobin", set)
	for range 3 {
		seen := map[*Endpoint]bool{}
		for range set {
			seen[p.Pick(Request{})] = true
		}
		if len(seen) != len(set) {
			t.Errorf("a round visited %d of %d", len(seen), len(set))
		}
	}
}

func TestRoundRobinStartsAnywhere(t *testing.T) {
	set, first := endpoints(4), map[*Endpoint]bool{}
	for range 200 {
		first[New("RoundRobin", set).Pick(Request{})] = true
	}
	if len(first) != len(set) {
		t.Errorf("new pickers began with only %d of %d endpoints", len(first), len(set))
	}
}

func TestAnUnknownAlgorithmIsTheDefault(t *testing.T) {
	if got, want := fmt.Sprintf("%T", New("Astrology", endpoints(2))), fmt.Sprintf("%T", New("", endpoints(2))); got != want {
		t.Errorf("an unknown algorithm is %s, want the default %s", got, want)
	}
}

func TestManyPickAtOnce(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		set := endpoints(5)
		p := New(name, set)
		var wait sync.WaitGroup
		for g := range 8 {
			wait.Go(func() {
				q := Request{Excluded: []netip.AddrPort{set[g%5].Address}}
				for range 2000 {
					e := p.Pick(q)
					e.Active.Add(1)
					e.Active.Add(-1)
				}
			})
		}
		wait.Wait()
		for _, e := range set {
			if n := e.Active.Load(); n != 0 {
				t.Errorf("%v: %d are left", e.Address, n)
			}
		}
	})
}

func TestAPickDoesNotAllocate(t *testing.T) {
	each(t, func(t *testing.T, name string) {
		set := endpoints(10)
		p := New(name, set)
		for what, q := range map[string]Request{"plain": {}, "with exclusions": {Excluded: []netip.AddrPort{set[3].Address, set[4].Address}}} {
			if n := testing.AllocsPerRun(1000, func() { p.Pick(q) }); n != 0 {
				t.Errorf("%s: %v allocations", what, n)
			}
		}
	})
}

func BenchmarkPick(b *testing.B) {
	for _, a := range Algorithms {
		b.Run(a.Name, func(b *testing.B) {
			p := New(a.Name, endpoints(100))
			b.ReportAllocs()
			for b.Loop() {
				p.Pick(Request{})
			}
		})
	}
}
