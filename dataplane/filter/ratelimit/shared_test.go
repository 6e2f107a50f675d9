package ratelimit

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/store"
	"github.com/gatehouse-dev/gatehouse/dataplane/store/storetest"
)

// replica is a house with a connection to the store and the real clock, as the store has it.
type replica struct {
	*house
	chain *filter.Chain
	asked *asked
}

// asked counts calls to the store.
type asked struct{ ok, failed atomic.Int64 }

func (a *asked) StoreCall(result string, _ time.Duration) {
	if result == "ok" {
		a.ok.Add(1)
	} else {
		a.failed.Add(1)
	}
}
func (*asked) StoreUp(bool)     {}
func (*asked) StoreDropped(int) {}

func newReplica(t testing.TB, server *storetest.Server, limits ...Limit) *replica {
	t.Helper()
	r := &replica{house: newHouse(t), asked: &asked{}}
	s, err := store.Open(store.Options{
		Addresses: []string{server.Address()}, Timeout: 500 * time.Millisecond, Metrics: r.asked, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Close(ctx)
	})
	r.shared = s
	r.up()
	stop := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() { // the clock that others stand still until they are moved goes with the real one
		last := time.Now()
		for {
			select {
			case <-time.After(time.Millisecond):
				now := time.Now()
				r.Pass(now.Sub(last))
				last = now
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() { close(stop); ticking.Wait() })
	r.chain = r.house.chain(limits...)
	return r
}

func (r *replica) up() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.shared.Connected(ctx); err != nil {
		r.t.Fatal(err)
	}
}

func shared(l Limit, onFailure OnStoreFailure) Limit {
	l.Scope, l.OnStoreFailure = Shared, onFailure
	return l
}

func perHour(n int64) Rate { return Rate{Requests: n, Window: time.Hour} }

func TestReplicasShareWhatIsShared(t *testing.T) {
	server := storetest.Start(t)
	l := shared(limitOf("l", perHour(10), Rate{Requests: 100, Window: 24 * time.Hour}), CountLocally)
	l.Key = []string{"source.ip"}
	a, b := newReplica(t, server, l), newReplica(t, server, l)
	if n := admitted(a.chain, 7, "10.0.0.1") + admitted(b.chain, 7, "10.0.0.1"); n != 10 {
		t.Errorf("%d were admitted by both, want 10", n)
	}
	if n := admitted(b.chain, 1, "10.0.0.2"); n != 1 {
		t.Error("another client was refused")
	}
}

func TestARefusalOfTheStoreGivesBackWhatWasTakenHere(t *testing.T) {
	server := storetest.Start(t)
	local, places := limitOf("local", perHour(10)), concurrent(3)
	r := newReplica(t, server, local, shared(limitOf("l", perHour(2)), CountLocally), places)
	if n := admitted(r.chain, 9, "10.0.0.1"); n != 2 {
		t.Fatalf("%d", n)
	}
	if n := r.kept(places, 0).keys(); n != 0 {
		t.Error("a place is still held")
	}
	if n := admitted(r.house.chain(local), 20, "10.0.0.1"); n != 8 {
		t.Errorf("%d are left of the local limit, want 8", n)
	}
}

func TestARefusalHereTakesNothingFromTheStoreAndDoesNotAskIt(t *testing.T) {
	server := storetest.Start(t)
	l := shared(limitOf("l", perHour(10)), CountLocally)
	r := newReplica(t, server, limitOf("local", perHour(2)), l)
	if n := admitted(r.chain, 9, "10.0.0.1"); n != 2 || r.asked.ok.Load() != 2 {
		t.Errorf("%d were admitted, and the store was asked %d times", n, r.asked.ok.Load())
	}
	if n := admitted(r.house.chain(l), 20, "10.0.0.1"); n != 8 {
		t.Errorf("%d are left in the store, want 8", n)
	}
}

func TestWhoIsSurelyExhaustedIsRefusedWithoutAskingButNotForLong(t *testing.T) {
	server := storetest.Start(t)
	r := newReplica(t, server, shared(limitOf("l", perHour(3)), CountLocally))
	admitted(r.chain, 4, "10.0.0.1")
	before := r.asked.ok.Load()
	if n := admitted(r.chain, 1000, "10.0.0.1"); n != 0 {
		t.Errorf("%d were admitted", n)
	}
	if n := r.asked.ok.Load() - before; n > 20 {
		t.Errorf("the store was asked %d times about a key that has nothing left", n)
	}
	ex := from("10.0.0.1")
	over(r.chain, ex)
	if after := ex.Response.Header.Get("Retry-After"); after != "1200" && after != "1199" {
		t.Errorf("Retry-After %q, want 1200", after)
	}
	if got := ex.Response.Header.Get("RateLimit"); !strings.HasPrefix(got, `"l";r=0;t=1`) {
		t.Errorf("RateLimit %q", got)
	}
	server.Do("FLUSHALL") // an operator is generous
	storetest.Eventually(t, 5*time.Second, "nobody stays locked out by what was remembered", func() bool {
		return admitted(r.chain, 1, "10.0.0.1") == 1
	})
}

func TestFieldsTellWhatIsLeftOfASharedLimit(t *testing.T) {
	server := storetest.Start(t)
	l := shared(limitOf("l", perHour(10)), CountLocally)
	a, b := newReplica(t, server, l), newReplica(t, server, l)
	admitted(a.chain, 4, "10.0.0.1")
	ex := from("10.0.0.1")
	met, _ := b.chain.Request(ex)
	ex.Response = &message.Response{Status: 200}
	b.chain.Response(ex, met, nil)
	b.chain.Done(ex)
	if got := ex.Response.Header.Get("RateLimit"); !strings.HasPrefix(got, `"l";r=5;t=`) {
		t.Errorf("RateLimit %q", got)
	}
	if got := ex.Response.Header.Get("RateLimit-Policy"); got != `"l";q=10;w=3600` {
		t.Errorf("RateLimit-Policy %q", got)
	}
}

func TestPlacesInTheStoreAreHeldUntilDone(t *testing.T) {
	server := storetest.Start(t)
	l := shared(concurrent(3), CountLocally)
	a, b := newReplica(t, server, l), newReplica(t, server, l)
	one, two, three := from("10.0.0.1"), from("10.0.0.1"), from("10.0.0.1")
	if !ask(a.chain, one) || !ask(b.chain, two) || !ask(a.chain, three) {
		t.Fatal("3 of 3 were refused")
	}
	ex := from("10.0.0.1")
	if ask(b.chain, ex) {
		t.Fatal("a fourth was admitted")
	}
	if ex.Response.Reason != message.ReasonConcurrencyLimited || ex.Response.Header.Get("Retry-After") != "1" {
		t.Errorf("%v, Retry-After %q", ex.Response.Reason, ex.Response.Header.Get("Retry-After"))
	}
	a.chain.Done(one)
	a.chain.Done(one) // twice
	storetest.Eventually(t, 5*time.Second, "the place is free", func() bool { return ask(b.chain, ex) })
	if ask(a.chain, from("10.0.0.1")) {
		t.Error("one place was given back twice")
	}
	for c, ex := range map[*message.Exchange]*filter.Chain{two: b.chain, three: a.chain, ex: b.chain} {
		ex.Done(c)
	}
	storetest.Eventually(t, 5*time.Second, "all are free", func() bool { return server.Do("DBSIZE") == ":0" })
}

func TestAnAnswersCostIsTakenFromTheStore(t *testing.T) {
	server := storetest.Start(t)
	l := shared(metered(perHour(100)), CountLocally)
	a, b := newReplica(t, server, l), newReplica(t, server, l)
	if !serve(a.chain, "90") {
		t.Fatal("refused")
	}
	storetest.Eventually(t, 5*time.Second, "the other replica knows", func() bool {
		ex := from("10.0.0.1")
		met, _ := b.chain.Request(ex)
		ex.Response = &message.Response{Status: 200}
		ex.Response.Header.Set("x-tokens", "0") // looking is free
		b.chain.Response(ex, met, nil)
		b.chain.Done(ex)
		return strings.HasPrefix(ex.Response.Header.Get("RateLimit"), `"l";r=9;`)
	})
}

func TestALimitOnTrialInTheStoreRefusesNobody(t *testing.T) {
	server := storetest.Start(t)
	l := shared(limitOf("l", perHour(2), Rate{Requests: 50, Window: 2 * time.Hour}), CountLocally)
	l.Shadow, l.Concurrency = true, 40
	r := newReplica(t, server, l)
	if n := admitted(r.chain, 10, "10.0.0.1"); n != 10 {
		t.Errorf("%d were admitted, want all", n)
	}
	if n := r.counted("ratelimit_requests_total", "l", "shadow"); n != 8 {
		t.Errorf("%v would have been refused, want 8", n)
	}
	ex := from("10.0.0.1")
	ask(r.chain, ex)
	if got := note(ex, "limit_shadow"); got != "shop/api-limits/l" {
		t.Errorf("noted %q", got)
	}
}

func TestWithoutAStoreEachLimitDoesWhatItSays(t *testing.T) {
	for _, q := range []struct {
		name   string
		do     OnStoreFailure
		shadow bool
		want   int
	}{
		{"Allow", Allow, false, 20}, {"Deny", Deny, false, 0}, {"Local", CountLocally, false, 3}, {"Deny on trial", Deny, true, 20},
	} {
		t.Run(q.name, func(t *testing.T) {
			h := newHouse(t) // no store was named
			h.members.Store(4)
			l := shared(limitOf("l", perHour(10)), q.do)
			l.Shadow = q.shadow
			other := limitOf("other", perHour(20))
			c := h.chain(other, l)
			if n := admitted(c, 20, "10.0.0.1"); n != q.want {
				t.Errorf("%d were admitted, want %d", n, q.want)
			}
			ex := from("10.0.0.1")
			met, v := c.Request(ex)
			reason, detail, failed := v.Failed()
			if q.name == "Deny" && (!failed || reason != message.ReasonLimitUnavailable || detail != "shop/api-limits/l" || met != 0) {
				t.Errorf("%v %q", reason, detail)
			}
			if got := note(ex, "limit_store"); q.want < 20 && got != "down" {
				t.Errorf("noted %q", got)
			}
			c.Done(ex)
			if n := admitted(h.chain(other), 40, "10.0.0.1"); n > 20-q.want {
				t.Errorf("%d are left of another limit, of which %d were taken", n, q.want)
			}
			if n := h.counted("ratelimit_store_failures_total", "l", ""); n == 0 {
				t.Error("nothing was counted")
			}
		})
	}
}

func TestNeitherAStoreThatGoesAwayNorOneThatLostItsDataIsAFreshStart(t *testing.T) {
	server := storetest.Start(t)
	l := shared(limitOf("l", perHour(100)), CountLocally)
	l.Key = []string{"source.ip"}
	a, b := newReplica(t, server, l), newReplica(t, server, l)
	a.members.Store(2)
	b.members.Store(2)
	if n := admitted(a.chain, 60, "10.0.0.1") + admitted(b.chain, 60, "10.0.0.1"); n != 100 {
		t.Fatalf("%d", n)
	}
	if n := admitted(a.chain, 1, "10.0.0.1"); n != 0 { // so both know that nothing is left
		t.Fatalf("%d", n)
	}
	if n := admitted(a.chain, 40, "10.0.0.2"); n != 40 {
		t.Fatalf("%d", n)
	}
	server.Kill()
	if n := admitted(a.chain, 100, "10.0.0.1") + admitted(b.chain, 100, "10.0.0.1"); n > 2 {
		t.Errorf("%d more were admitted of a client that had used everything", n)
	}
	if n := admitted(a.chain, 100, "10.0.0.2"); n < 29 || n > 31 {
		t.Errorf("%d were admitted by one of two, of a client that had 60 left; want 30", n)
	}
	if n := admitted(b.chain, 100, "10.0.0.3"); n != 50 {
		t.Errorf("%d were admitted by one of two, of a new client; want 50", n)
	}
	server.Start() // without its data
	a.up()
	b.up()
	if n := admitted(a.chain, 100, "10.0.0.1") + admitted(b.chain, 100, "10.0.0.1"); n > 2 {
		t.Errorf("%d were admitted of a client that had used everything before the store was started again", n)
	}
	if n, m := admitted(a.chain, 100, "10.0.0.2"), admitted(b.chain, 100, "10.0.0.2"); n+m < 28 || n+m > 32 {
		t.Errorf("%d and %d were admitted of a client that had used 40 and then 30 meanwhile, want 30", n, m)
	}
	if n := admitted(a.chain, 60, "10.0.0.4") + admitted(b.chain, 60, "10.0.0.4"); n != 100 {
		t.Errorf("%d were admitted of a new client, want 100", n)
	}
}

func TestWhoWasInDebtBeforeTheStoreWasLostIsAdmittedWhenItIsPaid(t *testing.T) {
	server := storetest.Start(t)
	r := newReplica(t, server, shared(limitOf("l", Rate{Requests: 4, Window: 2 * time.Second}), CountLocally))
	if n := admitted(r.chain, 10, "10.0.0.1"); n != 4 {
		t.Fatalf("%d", n)
	}
	server.Kill()
	admitted(r.chain, 10, "10.0.0.1")
	server.Start()
	r.up()
	began := time.Now()
	storetest.Eventually(t, 5*time.Second, "it is admitted again", func() bool { return admitted(r.chain, 1, "10.0.0.1") == 1 })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("that took %v, more than a whole counter", took)
	}
}

func TestPlacesWithoutTheStoreAreThoseOfOneMember(t *testing.T) {
	server := storetest.Start(t)
	l := shared(concurrent(8), CountLocally)
	r := newReplica(t, server, l)
	r.members.Store(2)
	var under []*message.Exchange
	take := func(n int) (got int) {
		for range n {
			if ex := from("10.0.0.1"); ask(r.chain, ex) {
				under = append(under, ex)
				got++
			}
		}
		return got
	}
	if n := take(3); n != 3 {
		t.Fatalf("%d", n)
	}
	server.Kill()
	if n := take(10); n != 1 {
		t.Errorf("%d more places, want 1: this member has 4, and 3 are under way here", n)
	}
	for _, ex := range under {
		r.chain.Done(ex)
	}
	if n := r.kept(l, 0).keys(); n != 0 {
		t.Error("a place is still held")
	}
}

func TestManyRulesAndReplicasAtOnceShareExactly(t *testing.T) {
	server := storetest.Start(t)
	l, other := shared(limitOf("l", perHour(700)), CountLocally), shared(limitOf("other", perHour(900)), CountLocally)
	other.Policy.Name.Name = "another"
	var got atomic.Int64
	var all sync.WaitGroup
	for range 3 {
		r := newReplica(t, server, l, limitOf("local", perHour(1_000_000)), other)
		for range 10 {
			all.Go(func() { got.Add(int64(admitted(r.chain, 50, "10.0.0.1"))) })
		}
	}
	all.Wait()
	if n := got.Load(); n != 700 {
		t.Errorf("%d were admitted, want 700", n)
	}
}

func BenchmarkShared(b *testing.B) {
	server := storetest.Start(b)
	client := shared(limitOf("per-client", Rate{Requests: 1_000_000, Window: time.Second}, perHour(MaxRequests)), CountLocally)
	client.Key = []string{"source.ip"}
	r := newReplica(b, server, client)
	b.SetParallelism(16)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			over(r.chain, from("10.0.0.1"))
		}
	})
}
