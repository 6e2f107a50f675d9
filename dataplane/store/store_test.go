package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/store"
	"github.com/gatehouse-dev/gatehouse/dataplane/store/storetest"
)

func open(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = time.Second // this machine is busy
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connected(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	s := open(t, o)
	up(t, s)
	return s
}

func up(t testing.TB, s *store.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Connected(ctx); err != nil {
		t.Fatal(err)
	}
}

// bucket is a rate of n in an hour: nothing comes back while a test runs.
func bucket(c store.Counter, n int64) store.Claim {
	interval := time.Hour / time.Duration(n)
	return store.Claim{Counter: c, Cost: interval, Most: time.Duration(n) * interval, Deepest: time.Duration(n) * interval}
}

func places(c store.Counter, n int64) store.Claim { return store.Claim{Counter: c, Places: n} }

// ask asks once, and hands out a copy of the claims.
func ask(t testing.TB, s *store.Store, claims ...store.Claim) (admitted bool, answers []store.Claim) {
	t.Helper()
	c := s.NewCall()
	c.Claims = append(c.Claims, claims...)
	if err := s.Ask(c); err != nil {
		t.Fatal(err)
	}
	admitted, answers = c.Admitted, append(answers, c.Claims...)
	s.Free(c)
	return admitted, answers
}

func admits(t testing.TB, s *store.Store, want int, claims ...store.Claim) {
	t.Helper()
	got := 0
	for range want + 3 {
		if ok, _ := ask(t, s, claims...); ok {
			got++
		}
	}
	if got != want {
		t.Errorf("%d were admitted, want %d", got, want)
	}
}

func TestARateAdmitsWhatItSaysAndTellsWhatIsOwed(t *testing.T) {
	s := connected(t, store.Options{Addresses: []string{storetest.Start(t).Address()}})
	c := bucket(s.Counter("p", "a"), 3)
	for i := range 3 {
		ok, got := ask(t, s, c)
		want := time.Duration(i+1) * 20 * time.Minute
		if !ok || got[0].Refused || got[0].Debt > want || got[0].Debt < want-time.Minute {
			t.Errorf("request %d: %v, debt %v, want about %v", i, ok, got[0].Debt, want)
		}
	}
	if ok, got := ask(t, s, c); ok || !got[0].Refused || got[0].Debt < 59*time.Minute {
		t.Errorf("request 3: %v, %+v", ok, got[0])
	}
	c.Key[3] = 1
	if ok, _ := ask(t, s, c); !ok {
		t.Error("another key was refused")
	}
}

func TestARefusalTakesNothingFromAny(t *testing.T) {
	s := connected(t, store.Options{Addresses: []string{storetest.Start(t).Address()}})
	small, large, slots := bucket(s.Counter("p", "small"), 2), bucket(s.Counter("q", "large"), 10), places(s.Counter("p", "at once"), 4)
	admits(t, s, 2, small, large, slots)
	admits(t, s, 8, large)
	admits(t, s, 2, slots)
}

func TestAShadowRefusesNobodyAndThenTakesNothing(t *testing.T) {
	s := connected(t, store.Options{Addresses: []string{storetest.Start(t).Address()}})
	shadow, slots, real := bucket(s.Counter("p", "shadow"), 2), places(s.Counter("p", "slots"), 1), bucket(s.Counter("p", "real"), 5)
	shadow.Shadow, slots.Shadow = 1, 2
	for i := range 5 {
		ok, got := ask(t, s, shadow, real, slots)
		if !ok || got[0].Refused != (i >= 2) || got[2].Refused != (i >= 1) || (got[2].Lease != nil) != (i == 0) {
			t.Errorf("request %d: %v %+v", i, ok, got)
		}
	}
	if ok, got := ask(t, s, shadow, real, slots); ok || !got[1].Refused {
		t.Errorf("%v %+v", ok, got)
	}
}

func TestWhatALimitOnTrialRefusesNoneOfItsClaimsTakes(t *testing.T) {
	s := connected(t, store.Options{Addresses: []string{storetest.Start(t).Address()}})
	short, long, slots := bucket(s.Counter("p", "short"), 2), bucket(s.Counter("p", "long"), 10), places(s.Counter("p", "slots"), 9)
	short.Shadow, long.Shadow, slots.Shadow = 1, 1, 1
	for range 5 {
		if ok, got := ask(t, s, short, long, slots); !ok || got[1].Refused != got[0].Refused || (got[2].Lease == nil) != got[0].Refused {
			t.Errorf("%v %+v", ok, got)
		}
	}
	long.Cost = 0
	if _, got := ask(t, s, long); got[0].Debt > 12*time.Minute {
		t.Errorf("debt %v: more was taken than 2 of 10 in an hour", got[0].Debt)
	}
	if n := under(t, s, slots.Counter); n != 2 {
		t.Errorf("%d places are taken", n)
	}
}

func TestARateComesBackEvenlyOnTheServersClock(t *testing.T) {
	s := connected(t, store.Options{Addresses: []string{storetest.Start(t).Address()}})
	c := store.Claim{Counter: s.Counter("p", "a"), Cost: 20 * time.Millisecond, Most: 100 * time.Millisecond, Deepest: 100 * time.Millisecond}
	began, n := time.Now(), 0
	for time.Since(began) < 500*time.Millisecond {
		if ok, _ := ask(t, s, c); ok {
			n++
		}
	}
	elapsed := time.Since(began)
	if want := 5 + int(elapsed/(20*time.Millisecond)); n < want-1 || n > want+1 {
		t.Errorf("%d were admitted in %v, want %d", n, elapsed, want)
	}
}

func TestACostIsTakenAtOnceAndGivenBackWhenAsked(t *testing.T) {
	s := connected(t, store.Options{Addresses: []string{storetest.Start(t).Address()}})
	one := bucket(s.Counter("p", "a"), 10)
	seven := one
	seven.Cost *= 7
	if ok, _ := ask(t, s, seven); !ok {
		t.Error("7 of 10 were refused")
	}
	if ok, _ := ask(t, s, seven); ok {
		t.Error("14 of 10 were admitted")
	}
	s.Add(one.Counter, one.Key, -5*one.Cost, one.Deepest)
	storetest.Eventually(t, 5*time.Second, "it is given back", func() bool {
		free := one
		free.Cost = 0
		_, got := ask(t, s, free)
		return got[0].Debt <= 2*one.Cost
	})
	admits(t, s, 8, one)

	s.Add(one.Counter, one.Key, 500*one.Cost, 20*one.Cost)
	storetest.Eventually(t, 5*time.Second, "it goes into debt, and no deeper than it may", func() bool {
		deep := one
		deep.Deepest = 20 * one.Cost
		_, got := ask(t, s, deep)
		return got[0].Debt > 19*one.Cost && got[0].Debt <= 20*one.Cost
	})
}

func TestADebtThatASmallerRateDoesNotKnowIsCut(t *testing.T) {
	s := connected(t, store.Options{Addresses: []string{storetest.Start(t).Address()}})
	c := bucket(s.Counter("p", "a"), 100)
	admits(t, s, 100, c)
	small := store.Claim{Counter: c.Counter, Cost: 50 * time.Millisecond, Most: 50 * time.Millisecond, Deepest: 50 * time.Millisecond}
	if ok, got := ask(t, s, small); ok || got[0].Debt > 50*time.Millisecond {
		t.Errorf("%v, debt %v", ok, got[0].Debt)
	}
	storetest.Eventually(t, 5*time.Second, "the next one is admitted after an interval of the new rate", func() bool {
		ok, _ := ask(t, s, small)
		return ok
	})
}

func TestADebtThatTheServerHasLostIsToldToIt(t *testing.T) {
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}})
	c := bucket(s.Counter("p", "a"), 10)
	admits(t, s, 4, func() store.Claim { d := c; d.Most = 4 * c.Cost; return d }())
	c.Least = 2 * c.Cost
	admits(t, s, 6, c) // less than it knows changes nothing
	server.Do("FLUSHALL")
	c.Least = 11 * c.Cost
	c.Deepest = 20 * c.Cost
	if ok, got := ask(t, s, c); ok || got[0].Debt < 10*c.Cost {
		t.Errorf("%v, debt %v", ok, got[0].Debt)
	}
	c.Least = 0
	if ok, got := ask(t, s, c); ok || got[0].Debt < 10*c.Cost {
		t.Errorf("others do not know it: %v, debt %v", ok, got[0].Debt)
	}
}

func TestManyProcessesShareOneCounterWithoutLosingOrInventingAny(t *testing.T) {
	server := storetest.Start(t)
	var admitted atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		s := connected(t, store.Options{Addresses: []string{server.Address()}})
		a, b := bucket(s.Counter("p", "a"), 3000), bucket(s.Counter("q", "b"), 2500)
		for range 50 {
			all.Go(func() {
				for range 20 {
					if ok, _ := ask(t, s, a, b); ok {
						admitted.Add(1)
					}
				}
			})
		}
	}
	all.Wait()
	if n := admitted.Load(); n != 2500 {
		t.Errorf("%d were admitted, want 2500", n)
	}
}

func TestWhatIsForgottenLeavesTheServer(t *testing.T) {
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}, Prefix: "mine"})
	c := store.Claim{Counter: s.Counter("p", "a"), Cost: 30 * time.Millisecond, Most: time.Second, Deepest: time.Second}
	for i := range 100 {
		c.Key[0] = byte(i)
		ask(t, s, c)
	}
	storetest.Eventually(t, 5*time.Second, "no key is left", func() bool { return server.Do("DBSIZE") == ":0" })
}

func TestKeysAreUnderThePrefixWithTheirGroupAsTag(t *testing.T) {
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}, Prefix: "mine"})
	c := bucket(s.Counter("p", "a"), 10)
	c.Key = store.Key{0: 0xff, 15: 1}
	ask(t, s, c)
	if got := server.Do("TYPE", "mine:{p}:a:_wAAAAAAAAAAAAAAAAAAAQ"); got != "+string" {
		t.Errorf("%s of %s", got, server.Do("RANDOMKEY"))
	}
}

func TestAStoreThatIsAwayIsNotWaitedForAndFoundAgain(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	const timeout = 50 * time.Millisecond
	s := connected(t, store.Options{Addresses: []string{server.Address()}, Timeout: timeout})
	c := bucket(s.Counter("p", "a"), 1000)
	for _, away := range []struct {
		name       string
		stop, back func()
	}{
		{"frozen", server.Freeze, server.Thaw},
		{"dead", server.Kill, server.Start},
		{"frozen for so long that the connection is given up", func() {
			server.Freeze()
			storetest.Eventually(t, 5*time.Second, "it is down", func() bool {
				call := s.NewCall()
				defer s.Free(call)
				call.Claims = append(call.Claims, c)
				s.Ask(call)
				return !s.Up()
			})
			time.Sleep(pingGivesUp)
		}, server.Thaw},
	} {
		t.Run(away.name, func(t *testing.T) {
			away.stop()
			var down bool
			for began := time.Now(); time.Since(began) < time.Second; {
				one := time.Now()
				call := s.NewCall()
				call.Claims = append(call.Claims, c)
				err := s.Ask(call)
				took := time.Since(one)
				if err == nil {
					t.Fatal("it answered")
				}
				if took > timeout+100*time.Millisecond {
					t.Errorf("%v after %v", err, took)
				}
				if errors.Is(err, store.Down) {
					down = true
					if took > 20*time.Millisecond {
						t.Errorf("it is known to be down, and that took %v", took)
					}
				} else if down {
					t.Errorf("%v after it was down", err)
				}
				s.Free(call)
				time.Sleep(time.Millisecond)
			}
			if !down {
				t.Error("it was asked again and again")
			}
			away.back()
			up(t, s)
			c.Key[5]++
			admits(t, s, 3, func() store.Claim { b := bucket(c.Counter, 3); b.Key = c.Key; return b }())
		})
	}
}

// pingGivesUp is longer than it takes to notice that a connection is dead.
const pingGivesUp = 8 * time.Second

func TestAStoreThatIsNotThereAtFirstIsFoundLater(t *testing.T) {
	server := storetest.Start(t)
	server.Kill()
	began := time.Now()
	s := open(t, store.Options{Addresses: []string{server.Address()}})
	c := s.NewCall()
	if err := s.Ask(c); !errors.Is(err, store.Down) || time.Since(began) > 500*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	server.Start()
	up(t, s)
	admits(t, s, 2, bucket(s.Counter("p", "a"), 2))
}

func TestAServerThatAcceptsAndSaysNothingHoldsUpNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t, store.Options{Addresses: []string{l.Addr().String()}})
	for range 10 {
		began := time.Now()
		if err := s.Ask(s.NewCall()); !errors.Is(err, store.Down) || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	}
}

func TestAServerThatForgotTheScriptIsToldAgain(t *testing.T) {
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}})
	server.Do("SCRIPT", "FLUSH")
	admits(t, s, 2, bucket(s.Counter("p", "a"), 2))
}

func TestAnErrorOfTheServerIsNoAnswer(t *testing.T) {
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}})
	server.Do("CONFIG", "SET", "maxmemory", "1")
	c := s.NewCall()
	c.Claims = append(c.Claims, bucket(s.Counter("p", "a"), 2))
	if err := s.Ask(c); !errors.Is(err, store.Failed) {
		t.Error(err)
	}
	s.Free(c)
	storetest.Eventually(t, 5*time.Second, "it is asked no more", func() bool {
		c := s.NewCall()
		defer s.Free(c)
		c.Claims = append(c.Claims, bucket(s.Counter("p", "a"), 2))
		return errors.Is(s.Ask(c), store.Down)
	})
	server.Do("CONFIG", "SET", "maxmemory", "0")
	up(t, s)
	admits(t, s, 2, bucket(s.Counter("p", "a"), 2))
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	one := []string{"a:1"}
	for name, o := range map[string]store.Options{
		"no address":                     {},
		"an address without a port":      {Addresses: []string{"a"}},
		"several of one server":          {Addresses: []string{"a:1", "b:1"}},
		"sentinels without a name":       {Addresses: one, Mode: store.Sentinel},
		"a name without sentinels":       {Addresses: one, Primary: "x"},
		"a database of a cluster":        {Addresses: one, Mode: store.Cluster, Database: 1},
		"a mode that is none":            {Addresses: one, Mode: "ring"},
		"a prefix that a cluster misses": {Addresses: one, Prefix: "a{b"},
		"a lease too short":              {Addresses: one, LeaseTTL: time.Millisecond},
		"a URL with a password":          {Addresses: []string{"redis://:secret@a:1"}},
		"a host with a password":         {Addresses: []string{"secret@a:1"}},
	} {
		if _, err := store.Open(o); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkAsk(b *testing.B) {
	s := connected(b, store.Options{Addresses: []string{storetest.Start(b).Address()}, Log: slog.New(slog.DiscardHandler)})
	for _, parallel := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%d at once", parallel), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(parallel)
			x, y := bucket(s.Counter("p", "a"), 1e9), bucket(s.Counter("p", "b"), 1e9)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					c := s.NewCall()
					c.Claims = append(c.Claims, x, y)
					if err := s.Ask(c); err != nil {
						b.Error(err)
					}
					s.Free(c)
				}
			})
		})
	}
}
