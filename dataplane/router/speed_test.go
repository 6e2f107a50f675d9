package router

import (
	"fmt"
	"testing"
)

// many is a table of n entries for one host, most of them prefixes, as a busy host has them.
func many(tb testing.TB, n int) *Table[int] {
	h := Host[int]{Name: "shop.example.com"}
	for i := range n {
		e := Entry[int]{Path: prefix(fmt.Sprintf("/team-%d/service-%d", i%50, i)), Payload: i}
		switch i % 5 {
		case 0:
			e.Path = exact(fmt.Sprintf("/team-%d/page-%d", i%50, i))
		case 1:
			e.Headers = []Value{{Name: "X-Canary", Value: "1"}}
		case 2:
			e.Method = "GET"
		}
		h.Entries = append(h.Entries, e)
	}
	tab, errs := New([]Host[int]{{Name: "*.example.com", Entries: h.Entries[:1]}, h, {Entries: h.Entries[:1]}})
	if len(errs) > 0 {
		tb.Fatal(errs)
	}
	return tab
}

func TestAMatchDoesNotAllocate(t *testing.T) {
	tab := many(t, 1000)
	for _, line := range []string{
		"GET shop.example.com/team-35/page-985",        // exact
		"GET shop.example.com/team-46/service-996/x/y", // prefix and header
		"GET shop.example.com/team-47/service-997",     // prefix and method
		"GET shop.example.com/team-47/nothing",         // none, through all hosts
		"GET other.example.com/",
	} {
		r := request(t, line, "X-Canary: 1", "User-Agent: test")
		if n := testing.AllocsPerRun(1000, func() { tab.Match(r) }); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
	query := table(t, Entry[string]{Queries: []Value{{Name: "a b", Value: "c d"}}})
	r := request(t, "GET h/?x=1&a+b=c%20d")
	if n := testing.AllocsPerRun(1000, func() {
		if query.Match(r) == nil {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("query: %v allocations", n)
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 1000, 5000} {
		tab := many(b, n)
		last := n - 5 // a multiple of 5: exact; the next ones are prefixes
		for name, line := range map[string]string{
			"exact":  fmt.Sprintf("GET shop.example.com/team-%d/page-%d", last%50, last),
			"prefix": fmt.Sprintf("GET shop.example.com/team-%d/service-%d/cart/items/1", (last+2)%50, last+2),
		} {
			r := request(b, line, "User-Agent: test", "Accept: */*")
			if e := tab.Match(r); e == nil || e.Payload < last {
				b.Fatalf("%s: %+v", line, e)
			}
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					tab.Match(r)
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		many(b, 5000)
	}
}
