package ratelimit

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/store/storetest"
)

func TestPlacesThatWereGivenWithoutTheStoreAreCountedWhenItIsBack(t *testing.T) {
	server := storetest.Start(t)
	l := shared(concurrent(8), CountLocally)
	a, b := newReplica(t, server, l), newReplica(t, server, l)
	a.members.Store(2)
	server.Kill()
	var under []*message.Exchange
	for range 10 {
		if ex := from("10.0.0.1"); ask(a.chain, ex) {
			under = append(under, ex)
		}
	}
	if len(under) != 4 {
		t.Fatalf("%d places without the store, want a share of 4", len(under))
	}
	server.Start()
	a.up()
	b.up()
	free := func() (n int) {
		var all []*message.Exchange
		for range 10 {
			if ex := from("10.0.0.1"); ask(b.chain, ex) {
				all = append(all, ex)
			}
		}
		for _, ex := range all {
			b.chain.Done(ex)
		}
		return len(all)
	}
	storetest.Eventually(t, 5*time.Second, "the others have the rest", func() bool { return free() == 4 })
	for _, ex := range under {
		a.chain.Done(ex)
	}
	storetest.Eventually(t, 5*time.Second, "they have all", func() bool { return free() == 8 })
}

func TestWhatWasAdmittedWithoutAskingABusyStoreIsToldToIt(t *testing.T) {
	server := storetest.Start(t)
	l := shared(limitOf("l", perHour(1_000_000)), CountLocally)
	l.Key = []string{"source.ip"}
	r := newReplica(t, server, l)
	const n = 6000 // more than the store has asked at once
	for client := range 5 {
		ip, generation := fmt.Sprint("10.0.0.", client), r.shared.Generation()
		server.Freeze()
		var all sync.WaitGroup
		var got atomic.Int64
		for range n {
			all.Go(func() { got.Add(int64(admitted(r.chain, 1, ip))) })
		}
		before := r.asked.failed.Load()
		storetest.Eventually(t, 5*time.Second, "some are too many", func() bool { return r.asked.failed.Load() > before+100 })
		server.Thaw()
		all.Wait()
		if r.shared.Generation() != generation || !r.shared.Up() {
			r.up() // this machine was too slow, and the store was given up: another test
			continue
		}
		counted := 0
		storetest.Eventually(t, 5*time.Second, "the store has counted all", func() bool {
			ex := from(ip)
			if !ask(r.chain, ex) {
				t.Fatal("refused")
			}
			defer r.chain.Done(ex)
			counted = 1_000_000 - leftOf(t, r, ip)
			return counted >= int(got.Load())*9/10
		})
		return
	}
	t.Skip("this machine is too slow")
}

// leftOf is what the store says to be left of the limit.
func leftOf(t *testing.T, r *replica, ip string) int {
	t.Helper()
	ex := from(ip)
	if !ask(r.chain, ex) {
		t.Fatal("refused")
	}
	ex.Response = message.Respond(message.OriginUpstream, 200, "", "")
	ex.Response.Header.Set("x-tokens", "0") // to look costs nothing where the answer says the cost
	r.chain.Response(ex, r.chain.Len(), nil)
	defer r.chain.Done(ex)
	v, _ := ex.Response.Header.Only("RateLimit")
	_, v, _ = strings.Cut(v, "r=")
	v, _, _ = strings.Cut(v, ";")
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatal(ex.Response.Header)
	}
	return n
}

func TestWhatCostsNothingIsAdmittedToAShareThatIsInDeepDebt(t *testing.T) {
	h := newHouse(t)
	h.members.Store(10)
	c := h.chain(divided(priced(perMinute(100, 0))))
	if !over(c, costing(100)) || over(c, costing(1)) {
		t.Fatal("a whole limit at once, and no more")
	}
	if !over(c, costing(0)) {
		t.Error("what costs nothing was refused")
	}
}

func TestAStoreThatWasSlowOnceIsNotToldThatAllReplicasHaveAdmittedWhatOneDid(t *testing.T) {
	server := storetest.Start(t)
	l := shared(limitOf("l", perHour(4)), CountLocally)
	r := newReplica(t, server, l)
	r.members.Store(8) // a share is one request, and takes two hours to come back
	server.Freeze()
	if admitted(r.chain, 1, "10.0.0.1") != 1 {
		t.Fatal("the share was not given")
	}
	server.Thaw()
	r.up()
	if n := admitted(r.chain, 8, "10.0.0.1"); n != 3 {
		t.Errorf("%d more were admitted, want 3: the store was asked, and has counted one", n)
	}
}

func TestAfterAnOutageEachReplicaHasOnlyUsedWhatItAdmitted(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("data lost ", lost), func(t *testing.T) {
			server := storetest.Start(t)
			l := shared(limitOf("l", perHour(80)), CountLocally)
			l.Key = []string{"source.ip"}
			a, b := newReplica(t, server, l), newReplica(t, server, l)
			a.members.Store(8)
			b.members.Store(8)
			if n := admitted(a.chain, 10, "10.0.0.1"); n != 10 { // so both have heard of 10 or nothing
				t.Fatal(n)
			}
			back := server.Thaw
			if lost {
				server.Kill()
				back = server.Start
			} else {
				server.Freeze()
			}
			storetest.Eventually(t, 10*time.Second, "it is missed", func() bool {
				return admitted(a.chain, 1, "10.0.0.2")+admitted(b.chain, 1, "10.0.0.2") >= 0 && !a.shared.Up() && !b.shared.Up()
			})
			alone := admitted(a.chain, 20, "10.0.0.1") + admitted(b.chain, 20, "10.0.0.1")
			if alone == 0 {
				t.Fatal("nothing was admitted without the store")
			}
			back()
			a.up()
			b.up()
			// The first request of each tells the store, a moment later.
			rest := 0
			for range 90 {
				rest += admitted(a.chain, 1, "10.0.0.1") + admitted(b.chain, 1, "10.0.0.1")
			}
			if all := 10 + alone + rest; all < 75 || all > 84 {
				t.Errorf("10 before, %d meanwhile and %d afterwards are %d, want 80", alone, rest, all)
			}
		})
	}
}

func TestAnAnswersCostWithoutTheStoreIsToldWhenItIsBack(t *testing.T) {
	server := storetest.Start(t)
	r := newReplica(t, server, shared(metered(perHour(100)), CountLocally))
	r.members.Store(4)
	server.Kill()
	storetest.Eventually(t, 10*time.Second, "it is missed", func() bool { return !r.shared.Up() || !ask(r.chain, from("10.0.0.1")) })
	if !serve(r.chain, "20") {
		t.Fatal("refused")
	}
	server.Start()
	r.up()
	storetest.Eventually(t, 5*time.Second, "about 20 are counted, and not four times as many", func() bool {
		left := leftOf(t, r, "10.0.0.1")
		return left > 50 && left < 80
	})
}
