package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func TestAConnectionBelongsToTheSocketThatAcceptedIt(t *testing.T) {
	r := start(t, nil)
	a, b := plain("a", freePort(t)), plain("b", freePort(t))
	r.bound(a, b)
	dial(t, a.Key.Port).hears(t, "a plain open")
	dial(t, b.Key.Port).hears(t, "b plain open")
	info := <-r.engine.conns
	if info.Socket != a.Key || info.TLS != nil || info.Listener != nil || info.ID == 0 || info.Opened.IsZero() {
		t.Errorf("%+v", info)
	}
	if !r.current.Load().Holds(info) {
		t.Error("a fresh connection does not hold")
	}
}

func TestAWildcardTakesBothFamiliesAndAddressesAreUnmapped(t *testing.T) {
	r := start(t, nil)
	s := plain("a", freePort(t))
	s.Key.Address = netip.Addr{}
	r.bound(s)
	for _, at := range []string{"127.0.0.1", "::1"} {
		want := netip.MustParseAddr(at)
		c, err := net.Dial("tcp", netip.AddrPortFrom(want, s.Key.Port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		info := <-r.engine.conns
		if info.Remote.Addr() != want || info.Local.Addr() != want || info.Local.Port() != s.Key.Port {
			t.Errorf("%s: from %s to %s", at, info.Remote, info.Local)
		}
	}
}

func TestTwoGatewaysOnOneAddressTheFirstWinsAndTheOtherIsToldByWhom(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	other := plain("c", freePort(t))
	got := r.apply(plain("a", port), plain("b", port), other)
	if got[0].Err != nil || got[2].Err != nil {
		t.Fatalf("%v", got)
	}
	if got[1].Err == nil || !strings.Contains(got[1].Err.Error(), "taken by Gateway infra/a") || got[1].Key.Gateway.Name != "b" {
		t.Errorf("the second: %v", got[1].Err)
	}
	dial(t, port).hears(t, "a plain open")
	dial(t, other.Key.Port).hears(t, "c plain open")
	r.counted(`gatehouse_sockets{gateway="infra/b",state="failed"} 1`)

	// Who is there stays, whatever the order.
	got = r.apply(plain("b", port), plain("a", port), other)
	if got[0].Err == nil || got[1].Err != nil {
		t.Errorf("%v", got)
	}
	// A wildcard collides with an address.
	wild := plain("w", port)
	wild.Key.Address = netip.Addr{}
	got = r.apply(plain("a", port), wild)
	if got[1].Err == nil || !strings.Contains(got[1].Err.Error(), "infra/a") {
		t.Errorf("a wildcard beside an address: %v", got[1].Err)
	}
}

func TestAnAddressMovesToAnotherGatewayWithoutAPause(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	r.bound(plain("a", port))
	old := dial(t, port)
	old.hears(t, "a plain open")
	bound := r.l.sockets[plain("a", port).Key].bound

	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", address(port))
			if err != nil {
				failed <- err
				return
			}
			if _, err := fmt.Fprintln(c, "hello"); err != nil {
				failed <- err
				return
			}
			c.Close()
		}
	}()
	for i := range 50 {
		r.bound(plain([]string{"b", "a"}[i%2], port))
	}
	r.bound(plain("b", port))
	close(stop)
	if err := <-failed; err != nil {
		t.Error(err)
	}
	dial(t, port).hears(t, "b plain open")
	if !old.ended() {
		t.Error("a connection of the old Gateway lives on")
	}
	if r.l.sockets[plain("b", port).Key].bound != bound {
		t.Error("the socket was bound anew")
	}
}

func TestABindThatFailedIsTriedAgain(t *testing.T) {
	states := make(chan snapshot.BindResult, 1)
	r := start(t, func(o *Options) { o.Bound = func(b snapshot.BindResult) { states <- b } })
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(foreign.Addr().(*net.TCPAddr).Port)
	got := r.apply(plain("a", port))
	if got[0].Err == nil || !strings.Contains(got[0].Err.Error(), "another process") || !errors.Is(got[0].Err, syscall.EADDRINUSE) {
		t.Errorf("%v", got[0].Err)
	}
	foreign.Close()
	if b := <-states; len(b.Sockets) != 1 || b.Sockets[0].Err != nil {
		t.Errorf("%v", b)
	}
	dial(t, port).hears(t, "a plain open")
	r.counted(`gatehouse_sockets{gateway="infra/a",state="bound"} 1`)
}

func TestWhatAClosedSocketWasInTheWayOfIsBoundInTheSameApply(t *testing.T) {
	r := start(t, func(o *Options) { o.Retry = -1 })
	port := freePort(t)
	wild := plain("w", port)
	wild.Key.Address = netip.Addr{}
	r.bound(wild)
	r.bound(plain("a", port)) // another address of the same port: nothing to inherit
	dial(t, port).hears(t, "a plain open")
}

func TestASocketThatStaysIsNeverTouched(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	certificate := certified(t, "a.example.com")
	r.bound(plain("a", port))
	s := r.l.sockets[plain("a", port).Key]
	c := dial(t, port)
	c.hears(t, "a plain open")
	for range 20 {
		changed := plain("a", port)
		changed.Listeners[0].Hosts = []snapshot.Host{{Name: "x"}}
		r.bound(changed)
	}
	c.hears(t, "a plain open")

	r.bound(secure("a", port, listener("a", "https", "", certificate)))
	if !c.ended() {
		t.Error("a connection in the clear lives on where TLS is spoken now")
	}
	c, err := dialTLS(t, port, "a.example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.hears(t, "a https open")
	r.bound(plain("a", port))
	if !c.ended() {
		t.Error("a TLS connection lives on where HTTP is spoken now")
	}
	dial(t, port).hears(t, "a plain open")
	if r.l.sockets[plain("a", port).Key] != s {
		t.Error("the socket was moved")
	}
}

func TestASocketThatLeftIsClosedAndItsConnectionsFinish(t *testing.T) {
	r := start(t, nil)
	a, b := plain("a", freePort(t)), plain("b", freePort(t))
	r.bound(a, b)
	busy, idle := dial(t, a.Key.Port), dial(t, a.Key.Port)
	idle.hears(t, "a plain open")
	busy.hears(t, "a plain open")
	fmt.Fprintln(busy, "wait")
	r.waiting()
	r.bound(b)
	if !idle.ended() {
		t.Error("an idle connection stays")
	}
	if c, err := net.Dial("tcp", address(a.Key.Port)); err == nil {
		c.Close()
		t.Error("the socket still accepts")
	}
	close(r.engine.letGo)
	if got, err := busy.in.ReadString('\n'); err != nil || got != "a plain close\n" {
		t.Errorf("what was under way: %q, %v", got, err)
	}
}

// waiting waits until a request is under way.
func (r *rig) waiting() {
	r.t.Helper()
	eventually(r.t, "a request is under way", func() bool { return r.engine.waits.Load() == 1 })
}

func TestMoreConnectionsThanAllowedAreClosedAndCounted(t *testing.T) {
	r := start(t, func(o *Options) { o.MaxConnections = 2 })
	s := plain("a", freePort(t))
	r.bound(s)
	first, second := dial(t, s.Key.Port), dial(t, s.Key.Port)
	first.hears(t, "a plain open")
	second.hears(t, "a plain open")
	if !dial(t, s.Key.Port).ended() {
		t.Error("a third connection is served")
	}
	r.counted(`gatehouse_connections_refused_total{gateway="infra/a",reason="limit"} 1`)
	r.counted(`gatehouse_connections_open{gateway="infra/a"} 2`)
	first.Close()
	eventually(t, "one has left", func() bool { return r.l.Open() == 1 })
	dial(t, s.Key.Port).hears(t, "a plain open")
}

func TestDrainingTellsWaitsAndThenCuts(t *testing.T) {
	r := start(t, nil)
	s := plain("a", freePort(t))
	r.bound(s)
	told, idle, busy := dial(t, s.Key.Port), dial(t, s.Key.Port), dial(t, s.Key.Port)
	for _, c := range []*client{told, idle, busy} {
		c.hears(t, "a plain open")
	}
	r.l.Leave()
	told.hears(t, "a plain close")
	dial(t, s.Key.Port).hears(t, "a plain close") // it still accepts
	fmt.Fprintln(busy, "wait")
	r.waiting()

	done := make(chan error)
	go func() { done <- r.shutdown(10 * time.Second) }()
	if !idle.ended() {
		t.Error("an idle connection stays")
	}
	if c, err := net.Dial("tcp", address(s.Key.Port)); err == nil {
		c.Close()
		t.Error("it still accepts")
	}
	select {
	case err := <-done:
		t.Errorf("Shutdown did not wait: %v", err)
	default:
	}
	close(r.engine.letGo)
	if got, err := busy.in.ReadString('\n'); err != nil || got != "a plain close\n" {
		t.Errorf("what was under way: %q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, state := range r.apply(s) {
		if !errors.Is(state.Err, net.ErrClosed) {
			t.Errorf("bound after Shutdown: %v", state.Err)
		}
	}
}

func TestWhatDoesNotEndInTimeIsCut(t *testing.T) {
	r := start(t, nil)
	s := plain("a", freePort(t))
	r.bound(s)
	stuck := dial(t, s.Key.Port)
	fmt.Fprintln(stuck, "wait")
	r.waiting()
	if err := r.shutdown(50 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown says %v", err)
	}
	if !stuck.ended() {
		t.Error("it lives on")
	}
}

func TestConnectionsGetAChanceToEndAtAnAnswer(t *testing.T) {
	r := start(t, func(o *Options) { o.LeaveFirst = 5 * time.Second })
	s := plain("a", freePort(t))
	r.bound(s)
	c := dial(t, s.Key.Port)
	c.hears(t, "a plain open")
	done := make(chan error)
	go func() { done <- r.shutdown(20 * time.Second) }()
	eventually(t, "the drain began", r.l.draining.Load)
	c.hears(t, "a plain close")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestALoopThatCannotAcceptDoesNotSpin(t *testing.T) {
	if os.Getenv("LISTEN_FEW_FILES") != "" {
		acceptWithoutFiles(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self, "-test.run=^TestALoopThatCannotAcceptDoesNotSpin$", "-test.v")
	child.Env = append(os.Environ(), "LISTEN_FEW_FILES=1")
	if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "accepted after all") {
		t.Errorf("%v\n%s", err, out)
	}
}

// acceptWithoutFiles runs in a process of its own, and takes all its descriptors away.
func acceptWithoutFiles(t *testing.T) {
	r := start(t, nil)
	s := plain("a", freePort(t))
	r.bound(s)
	client, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
		t.Fatal(err)
	}
	var taken []int
	for {
		fd, err := syscall.Dup(0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	if err := syscall.Connect(client, &syscall.SockaddrInet4{Port: int(s.Key.Port), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // long enough to spin a million times
	for _, fd := range taken {
		syscall.Close(fd)
	}
	<-r.engine.conns
	syscall.Close(client)
	for line := range strings.Lines(r.page()) {
		var n int
		if _, err := fmt.Sscanf(line, `gatehouse_accept_errors_total{gateway="infra/a"} %d`, &n); err == nil {
			if n < 1 || n > 10 {
				t.Errorf("%d tries in 0.3 s", n)
			}
			t.Log("accepted after all")
			return
		}
	}
	t.Error("no failure was counted")
}

func TestWhatHoldsAndWhatDoesNot(t *testing.T) {
	r := start(t, nil)
	key := snapshot.SocketKey{Gateway: gateway("a"), Address: loopback, Port: 1}
	l1 := listener("a", "one", "", certified(t, "x"))
	round := r.store.Begin()
	p := r.l.Prepare(round, nil, []snapshot.Socket{secure("a", 1, l1), plain("a", 2)})
	strict := listener("a", "one", "", l1.TLS.Certificates...)
	strict.TLS.MinVersion = 0x0304
	q := r.l.Prepare(round, nil, []snapshot.Socket{secure("a", 1, strict)})
	renewed := r.l.Prepare(round, nil, []snapshot.Socket{secure("a", 1, listener("a", "one", "", certified(t, "x")))})
	round.End()
	proof := p.Fingerprint(key, l1.Key)
	conn := func(listener any, proof string) *message.Conn {
		return &message.Conn{Socket: key, Listener: listener, TLS: &message.TLSState{Fingerprint: proof}}
	}
	for _, c := range []struct {
		sentence string
		plan     *Plan
		conn     *message.Conn
		want     bool
	}{
		{"as it was made", p, conn(l1.Key, proof), true},
		{"its certificate was renewed", renewed, conn(l1.Key, proof), true},
		{"another least version", q, conn(l1.Key, proof), false},
		{"a listener that is gone", p, conn(snapshot.ListenerKey{Gateway: gateway("a"), Section: "two"}, ""), false},
		{"the same section of another Gateway", p, conn(snapshot.ListenerKey{Gateway: gateway("b"), Section: "one"}, proof), false},
		{"in the clear on a socket with TLS", p, &message.Conn{Socket: key}, false},
		{"a socket that is gone", q, &message.Conn{Socket: snapshot.SocketKey{Gateway: gateway("a"), Address: loopback, Port: 2}}, false},
		{"no plan at all", nil, conn(l1.Key, proof), false},
		{"of no socket", p, &message.Conn{}, false},
	} {
		if got := c.plan.Holds(c.conn); got != c.want {
			t.Errorf("%s: %v", c.sentence, got)
		}
	}
}
