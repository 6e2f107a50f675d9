package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/store"
	"github.com/gatehouse-dev/gatehouse/dataplane/store/storetest"
)

// under is how many places are taken.
func under(t *testing.T, s *store.Store, c store.Counter) int64 {
	t.Helper()
	look := places(c, 1)
	look.Shadow = 1
	ok, got := ask(t, s, look)
	if got[0].Lease != nil {
		got[0].Lease.Release()
		return got[0].Under - 1
	}
	if !ok {
		t.Fatal("a shadow refused")
	}
	return got[0].Under
}

func TestAPlaceIsTakenUntilItIsGivenBack(t *testing.T) {
	s := connected(t, store.Options{Addresses: []string{storetest.Start(t).Address()}})
	c := places(s.Counter("p", "a"), 3)
	var held []*store.Lease
	for i := range 3 {
		ok, got := ask(t, s, c)
		if !ok || got[0].Lease == nil || got[0].Under != int64(i+1) {
			t.Fatalf("place %d: %v %+v", i, ok, got[0])
		}
		held = append(held, got[0].Lease)
	}
	if ok, got := ask(t, s, c); ok || got[0].Lease != nil || got[0].Under != 3 {
		t.Errorf("%v %+v", ok, got[0])
	}
	for range 5 {
		held[0].Release() // once, however often
	}
	storetest.Eventually(t, 5*time.Second, "one is free", func() bool { return under(t, s, c.Counter) == 2 })
	if ok, _ := ask(t, s, c); !ok {
		t.Error("the free place was refused")
	}
	if ok, _ := ask(t, s, c); ok {
		t.Error("there was one more: a place was given back twice")
	}
}

func TestPlacesOfAReplicaThatDiedEndAndThoseOfTheOthersDoNot(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	o := store.Options{Addresses: []string{server.Address()}, LeaseTTL: time.Second}
	living := connected(t, o)
	dying, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	up(t, dying)
	c := places(living.Counter("p", "a"), 5)
	for range 2 {
		ask(t, living, c)
		ask(t, dying, c)
	}
	// It ends without giving anything back: its errands are not run either.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	dying.Close(ended)
	began := time.Now()
	storetest.Eventually(t, 5*time.Second, "the places of the dead are free", func() bool { return under(t, living, c.Counter) == 2 })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("that took %v", took)
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if n := under(t, living, c.Counter); n != 2 {
			t.Fatalf("%d are under way, want 2: those who live longer than a lease keep their places", n)
		}
	}
}

func TestAServerThatWasStartedAgainLearnsWhatIsUnderWay(t *testing.T) {
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}})
	c := places(s.Counter("p", "a"), 5)
	_, one := ask(t, s, c)
	ask(t, s, c)
	ask(t, s, c)
	server.Kill()
	one[0].Lease.Release() // while nobody listens
	server.Start()
	up(t, s)
	storetest.Eventually(t, 5*time.Second, "two are under way", func() bool { return under(t, s, c.Counter) == 2 })
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if n := under(t, s, c.Counter); n != 2 {
			t.Fatalf("%d are under way: what was given back came again", n)
		}
	}
}

func TestAPlaceThatNobodyWaitsForAnyMoreIsGivenBack(t *testing.T) {
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}, Timeout: 100 * time.Millisecond})
	c := places(s.Counter("p", "a"), 1)
	server.Freeze()
	call := s.NewCall()
	call.Claims = append(call.Claims, c)
	if err := s.Ask(call); !errors.Is(err, store.Timeout) {
		t.Error(err)
	}
	s.Free(call)
	server.Thaw() // which now decides the call
	storetest.Eventually(t, 10*time.Second, "the place is free", func() bool {
		if !s.Up() {
			return false
		}
		call := s.NewCall()
		defer s.Free(call)
		call.Claims = append(call.Claims, c)
		return s.Ask(call) == nil && call.Admitted
	})
}

func TestPlacesAreNeverMoreThanThereAreHoweverTheyComeAndGo(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	o := store.Options{Addresses: []string{server.Address()}, LeaseTTL: time.Second}
	const most = 7
	var mu sync.Mutex // guards now and peak
	var now, peak int
	var all sync.WaitGroup
	var last *store.Store
	for range 3 {
		s := connected(t, o)
		last = s
		counter := s.Counter("p", "a")
		for i := range 8 {
			all.Go(func() {
				for n := range 60 {
					ok, got := ask(t, s, places(counter, most))
					if !ok {
						continue
					}
					mu.Lock()
					now++
					peak = max(peak, now)
					mu.Unlock()
					if (i+n)%20 == 0 {
						time.Sleep(400 * time.Millisecond) // long enough to be renewed
					}
					mu.Lock()
					now--
					mu.Unlock()
					got[0].Lease.Release()
				}
			})
		}
	}
	all.Wait()
	if peak > most || peak < 2 {
		t.Errorf("%d were under way at once, of %d", peak, most)
	}
	storetest.Eventually(t, 5*time.Second, "all places are free", func() bool { return under(t, last, last.Counter("p", "a")) == 0 })
}

func TestWhatIsLeftToDoIsDoneBeforeTheEnd(t *testing.T) {
	server := storetest.Start(t)
	o := store.Options{Addresses: []string{server.Address()}, Timeout: time.Second}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	up(t, s)
	counter := s.Counter("p", "a")
	for i := range 2000 {
		c := places(counter, 1)
		c.Key[0], c.Key[1] = byte(i), byte(i>>8)
		_, got := ask(t, s, c)
		got[0].Lease.Release()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	storetest.Eventually(t, time.Second, "the probe's key is gone", func() bool { return server.Do("DBSIZE") == ":0" })
	if got := server.Do("DBSIZE"); got != ":0" {
		t.Error(fmt.Sprint(got, " keys are left"))
	}
}
