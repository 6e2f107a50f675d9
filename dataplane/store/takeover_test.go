package store_test

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/store"
	"github.com/gatehouse-dev/gatehouse/dataplane/store/storetest"
)

// balancer is one address behind which servers take each other's place: new connections go to the one that has it now.
func balancer(t *testing.T) (address string, to *atomic.Pointer[storetest.Server]) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to = new(atomic.Pointer[storetest.Server])
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to.Load().Address())
			if err != nil {
				client.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
				all.Go(func() {
					io.Copy(pair[0], pair[1])
					pair[0].Close()
					pair[1].Close()
				})
			}
		}
	})
	return l.Addr().String(), to
}

func TestAServerWhosePlaceAnotherHasTakenIsLeftThoughItsConnectionLasts(t *testing.T) {
	t.Parallel()
	old, next := storetest.Start(t), storetest.Start(t)
	address, to := balancer(t)
	to.Store(old)
	s := connected(t, store.Options{Addresses: []string{address}})
	c := bucket(s.Counter("p", "a"), 1000)
	ask(t, s, c)

	to.Store(next)
	_, port, _ := net.SplitHostPort(next.Address())
	old.Do("REPLICAOF", "127.0.0.1", port)
	storetest.Eventually(t, 20*time.Second, "the new one is asked", func() bool {
		call := s.NewCall()
		defer s.Free(call)
		call.Claims = append(call.Claims, c)
		return s.Ask(call) == nil && call.Admitted
	})
}

func TestAPlaceOfADeadReplicaEndsThoughTheServersClockWasSetBack(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}, LeaseTTL: time.Second})
	c := places(s.Counter("p", "at once"), 2)
	_, got := ask(t, s, c)
	got[0].Lease.Release()
	key := "gatehouse:{p}:at once:" + strings.Repeat("A", 22)
	anHourAhead := time.Now().Add(time.Hour).UnixMicro() - 1767225600*1000000
	if n := server.Do("ZADD", key, fmt.Sprint(anHourAhead), "of-the-dead"); n != ":1" {
		t.Fatal(n)
	}
	if n := under(t, s, c.Counter); n < 1 {
		t.Fatalf("%d are under way, the dead one not", n)
	}
	storetest.Eventually(t, 5*time.Second, "its place is free", func() bool { return under(t, s, c.Counter) == 0 })
}

func TestPlacesThatWereGivenWithoutTheServerAreToldToItOnceAndGivenBack(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}})
	c := places(s.Counter("p", "at once"), 5)
	server.Kill()
	storetest.Eventually(t, 5*time.Second, "it is missed", func() bool {
		call := s.NewCall()
		defer s.Free(call)
		call.Claims = append(call.Claims, c)
		return s.Ask(call) == store.Down
	})
	a, b := s.Owe(c.Counter, c.Key), s.Owe(c.Counter, c.Key)
	a.Release()
	server.Start()
	up(t, s)
	storetest.Eventually(t, 5*time.Second, "it knows of the one that lasts", func() bool { return under(t, s, c.Counter) == 1 })
	b.Release()
	storetest.Eventually(t, 5*time.Second, "it is given back", func() bool { return under(t, s, c.Counter) == 0 })
}

func TestTheServerHasTakenNothingForACallThatWasNotAsked(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}, Timeout: 5 * time.Second})
	c := bucket(s.Counter("p", "a"), 1_000_000)
	const n = 6000 // more than wait and are on their way together
	server.Freeze()
	var answered, asked, unasked atomic.Int64
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			call := s.NewCall()
			defer s.Free(call)
			call.Claims = append(call.Claims, c)
			if s.Ask(call) == nil {
				answered.Add(1)
			}
			if call.Asked {
				asked.Add(1)
			} else {
				unasked.Add(1)
			}
		})
	}
	storetest.Eventually(t, 4*time.Second, "some are too many", func() bool { return unasked.Load() > 0 })
	server.Thaw()
	all.Wait()
	up(t, s)
	c.Cost, c.Most, c.Deepest = 0, time.Hour, time.Hour
	_, got := ask(t, s, c)
	counted := int64(got[0].Debt.Round(time.Hour/1_000_000)/(time.Hour/1_000_000)) + 500 // some come back meanwhile
	if counted < answered.Load() || counted > asked.Load()+500 {
		t.Errorf("about %d were counted; %d were asked and %d of them answered", counted, asked.Load(), answered.Load())
	}
}

func TestCallsOfManyClaimsTravelFewerAtOnce(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	s := connected(t, store.Options{Addresses: []string{server.Address()}, Timeout: 10 * time.Second})
	server.Do("CONFIG", "RESETSTAT")
	server.Freeze()
	const calls, claims = 120, 144 // as many as a policy can have
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			call := s.NewCall()
			defer s.Free(call)
			for i := range claims {
				call.Claims = append(call.Claims, bucket(s.Counter("p", fmt.Sprint(i)), 1000))
			}
			if err := s.Ask(call); err != nil || !call.Admitted {
				t.Error(err, call.Admitted)
			}
		})
	}
	time.AfterFunc(200*time.Millisecond, server.Thaw) // they wait for it
	all.Wait()
	const stats = "return string.match(redis.call('INFO', 'commandstats'), 'cmdstat_evalsha:calls=(%d+)')"
	if scripts, err := strconv.Atoi(server.Do("EVAL", stats, "0")); err != nil || scripts < calls*claims/2000 {
		t.Errorf("%d scripts decided %d claims; %v", scripts, calls*claims, err)
	}
}
