package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// zone is a resolver that answers what it is told.
type zone struct {
	mu    sync.Mutex
	addrs map[string][]string
	err   error
	asked []string
	hold  chan struct{} // closed: it answers; nil: at once
}

func (z *zone) LookupNetIP(ctx context.Context, _, host string) (out []netip.Addr, err error) {
	z.mu.Lock()
	z.asked = append(z.asked, host)
	hold := z.hold
	z.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err != nil {
		return nil, z.err
	}
	for _, a := range z.addrs[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return out, nil
}

func (z *zone) set(host string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs[host] = addrs
}

func (z *zone) count() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.asked)
}

type watch struct {
	mu  sync.Mutex
	now time.Time
}

func (w *watch) time() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }
func (w *watch) add(d time.Duration) {
	w.mu.Lock()
	w.now = w.now.Add(d)
	w.mu.Unlock()
}

func abroad(local bool) (*zone, *watch, *network, *Backends) {
	z := &zone{addrs: map[string][]string{}}
	w := &watch{now: time.Unix(1e9, 0)}
	n := &network{made: map[message.ConnKey]*fake{}}
	return z, w, n, New(Options{
		Transport: n.transport, Resolver: z, Clock: w.time,
		Allowed: func(a netip.AddrPort) bool { return local || !a.Addr().IsLoopback() },
	})
}

func login(private bool) snapshot.Backend {
	return snapshot.Backend{
		Ref:     snapshot.BackendRef{Outside: "login.example.com", Port: 443},
		Outside: &snapshot.Outside{TLS: true, Private: private},
	}
}

const loginName = "login.example.com." // absolute: never below a search domain

func TestAHostOutsideIsCalledAtTheAddressThatWasLookedAt(t *testing.T) {
	z, _, n, b := abroad(false)
	z.set(loginName, "203.0.113.7")
	be := b.Use(login(false), nil)
	at := &message.Attempt{}
	if err := be.Do(context.Background(), at); err != nil {
		t.Fatal(err)
	}
	at.Finished(nil)
	want := message.ConnKey{
		Endpoint: netip.MustParseAddrPort("203.0.113.7:443"), Protocol: message.ProtocolHTTPS, TLS: message.TLSKey{ServerName: "login.example.com"},
	}
	if at.Conn != want || n.made[want] == nil {
		t.Errorf("spoke to %+v, want %+v", at.Conn, want)
	}
	if !slices.Equal(z.asked, []string{loginName}) {
		t.Errorf("asked for %q", z.asked)
	}
}

func TestAnAddressThatLeadsInsideIsRefused(t *testing.T) {
	for _, c := range []struct {
		addr           string
		always, unless bool // refused, whatever is set; refused unless private
	}{
		{"203.0.113.7", false, false}, {"2606:4700::1", false, false},
		{"169.254.169.254", true, true}, {"fe80::1", true, true}, {"::ffff:169.254.169.254", true, true},
		{"127.0.0.1", true, true}, {"127.8.8.8", true, true}, {"::1", true, true}, {"::ffff:127.0.0.1", true, true},
		{"0.0.0.0", true, true}, {"0.1.2.3", true, true}, {"::", true, true}, {"224.0.0.1", true, true}, {"ff02::1", true, true}, {"255.255.255.255", true, true},
		{"240.0.0.1", true, true}, {"2001::1", true, true},
		{"64:ff9b::a9fe:a9fe", true, true}, {"64:ff9b::7f00:1", true, true}, {"2002:7f00:1::1", true, true}, {"2002:a9fe:a9fe::", true, true}, {"::127.0.0.1", true, true},
		{"::ffff:0:127.0.0.1", true, true}, {"::ffff:0:169.254.169.254", true, true}, {"::ffff:0:10.0.0.1", false, true}, {"::ffff:0:8.8.8.8", false, false},
		{"10.0.0.1", false, true}, {"172.16.0.1", false, true}, {"192.168.1.1", false, true}, {"100.64.0.1", false, true}, {"fd00::1", false, true},
		{"198.18.0.1", false, true}, {"::ffff:10.0.0.1", false, true}, {"64:ff9b::a00:1", false, true}, {"2002:a00:1::", false, true}, {"64:ff9b:1::1", false, true},
		{"64:ff9b::808:808", false, false},
	} {
		for _, private := range []bool{false, true} {
			z, _, _, b := abroad(false)
			z.set(loginName, c.addr)
			_, err := attempt(t, b.Use(login(private), nil))
			if refused := c.always || c.unless && !private; refused != (err != nil) {
				t.Errorf("%s, private %v: %v", c.addr, private, err)
			} else if refused {
				reasonIs(t, err, message.ReasonNoEndpoint)
				if !strings.Contains(err.Error(), "login.example.com may not be called") {
					t.Errorf("%s: %v", c.addr, err)
				}
			}
		}
	}
}

// A literal address in the policy is looked at like one that was resolved.
func TestALiteralAddressIsLookedAtToo(t *testing.T) {
	_, _, _, b := abroad(false)
	for _, host := range []string{"169.254.169.254", "127.0.0.1", "10.0.0.1", "::1"} {
		be := b.Use(snapshot.Backend{Ref: snapshot.BackendRef{Outside: host, Port: 80}, Outside: &snapshot.Outside{}}, nil)
		_, err := attempt(t, be)
		reasonIs(t, err, message.ReasonNoEndpoint)
	}
}

// RFC 6761 6.3.
func TestLocalhostIsThisMachineWhateverAResolverSays(t *testing.T) {
	for _, local := range []bool{false, true} {
		z, _, _, b := abroad(local)
		z.set("localhost.", "203.0.113.7")
		be := b.Use(snapshot.Backend{Ref: snapshot.BackendRef{Outside: "localhost", Port: 80}, Outside: &snapshot.Outside{}}, nil)
		a, err := attempt(t, be)
		if local != (err == nil) || err == nil && !a.Addr().IsLoopback() || z.count() != 0 {
			t.Errorf("local %v: %v %v, asked %d times", local, a, err, z.count())
		}
	}
}

func TestOfSeveralAddressesOnlyThoseThatMayBeAreUsed(t *testing.T) {
	z, _, _, b := abroad(false)
	z.set(loginName, "169.254.169.254", "203.0.113.7", "127.0.0.1")
	be := b.Use(login(false), nil)
	for range 20 {
		if a, err := attempt(t, be); err != nil || a.Addr().String() != "203.0.113.7" {
			t.Fatal(a, err)
		}
	}
}

// DNS rebinding: a name that turned out well is looked at again each time that it is resolved.
func TestANameThatTurnsInsideIsNoLongerCalled(t *testing.T) {
	z, w, _, b := abroad(false)
	z.set(loginName, "203.0.113.7")
	be := b.Use(login(false), nil)
	if _, err := attempt(t, be); err != nil {
		t.Fatal(err)
	}
	z.set(loginName, "127.0.0.1")
	w.add(believed)
	until(t, func() bool { _, err := attempt(t, be); return err != nil })
	for range 10 {
		_, err := attempt(t, be)
		reasonIs(t, err, message.ReasonNoEndpoint)
	}
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to pass")
		}
	}
}

func TestManyCallsAreOneLookup(t *testing.T) {
	z, _, _, b := abroad(false)
	z.set(loginName, "203.0.113.7")
	z.hold = make(chan struct{})
	be := b.Use(login(false), nil)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := attempt(t, be); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, func() bool { return z.count() > 0 })
	close(z.hold)
	wg.Wait()
	if n := z.count(); n != 1 {
		t.Errorf("%d lookups", n)
	}
}

func TestWhatWasResolvedIsUsedWhileTheResolverFails(t *testing.T) {
	z, w, _, b := abroad(false)
	z.set(loginName, "203.0.113.7")
	be := b.Use(login(false), nil)
	if _, err := attempt(t, be); err != nil {
		t.Fatal(err)
	}
	z.mu.Lock()
	z.err = errors.New("servfail")
	z.mu.Unlock()
	for passed := time.Duration(0); passed < usedMeanwhile-time.Minute; passed += time.Minute {
		w.add(time.Minute)
		n := z.count()
		if _, err := attempt(t, be); err != nil {
			t.Fatalf("after %v: %v", passed, err)
		}
		until(t, func() bool { return z.count() > n && be.outside.idle() })
	}
	w.add(2 * time.Minute)
	_, err := attempt(t, be)
	reasonIs(t, err, message.ReasonNoEndpoint)
	n := z.count()
	for range 20 {
		attempt(t, be)
	}
	if z.count() != n {
		t.Error("a resolver that fails is asked with each call")
	}
	z.mu.Lock()
	z.err = nil
	z.mu.Unlock()
	w.add(pauseAfter)
	if _, err := attempt(t, be); err != nil {
		t.Errorf("after it recovered: %v", err)
	}
}

func (o *Outside) idle() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.flight == nil }

func TestALookupDoesNotOutliveThePatienceOfItsCaller(t *testing.T) {
	z, _, _, b := abroad(false)
	z.hold = make(chan struct{})
	defer close(z.hold)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	reasonIs(t, b.Use(login(false), nil).Do(ctx, &message.Attempt{}), message.ReasonAttemptTimeout)
}

func TestAHostThatNoPlanNamesHoldsNoConnectionsAndStillWorks(t *testing.T) {
	z, _, n, b := abroad(false)
	z.set(loginName, "203.0.113.7")
	be := b.Use(login(false), nil)
	if _, err := attempt(t, be); err != nil {
		t.Fatal(err)
	}
	be.Outside().Retire()
	for _, f := range n.made {
		if !f.retired {
			t.Error("its connections stay")
		}
	}
	if _, err := attempt(t, be); err != nil {
		t.Errorf("who holds it: %v", err)
	}
}

func TestRootsThatCannotBeReadAreNotTheSystems(t *testing.T) {
	z, _, n, b := abroad(false)
	z.set(loginName, "203.0.113.7")
	s := login(false)
	s.Outside.Roots = []byte("-----BEGIN NONSENSE-----")
	_, err := attempt(t, b.Use(s, nil))
	reasonIs(t, err, message.ReasonTLSFailed)
	_, err = attempt(t, b.Use(snapshot.Backend{Ref: shop, TLS: &snapshot.BackendTLS{}}, nil))
	reasonIs(t, err, message.ReasonTLSFailed)
	if len(n.made) != 0 {
		t.Error("a connection was made")
	}
}

func TestTLSToABackendChoosesTheProtocolByTheRequest(t *testing.T) {
	_, b := setup()
	b.SetEndpoints(told(shop, "10.0.0.1:443"))
	for _, c := range []struct {
		protocol snapshot.BackendProtocol
		request  message.Request
		want     message.Protocol
	}{
		{snapshot.BackendHTTP, message.Request{}, message.ProtocolHTTPS},
		{snapshot.BackendHTTP, message.Request{Header: message.NewHeader(message.Field{Name: "Content-Type", Value: "application/grpc"})}, message.ProtocolH2},
		{snapshot.BackendH2C, message.Request{}, message.ProtocolH2},
		{snapshot.BackendH2C, message.Request{Upgrade: "websocket"}, message.ProtocolHTTPS},
	} {
		be := b.Use(snapshot.Backend{Ref: shop, Protocol: c.protocol, TLS: &snapshot.BackendTLS{ServerName: "cart.shop"}}, nil)
		at := &message.Attempt{Request: c.request}
		if err := be.Do(context.Background(), at); err != nil || at.Conn.Protocol != c.want || at.Conn.TLS.ServerName != "cart.shop" {
			t.Errorf("%q %v: %+v, %v", c.protocol, c.request.Upgrade, at.Conn, err)
		} else {
			at.Finished(nil)
		}
	}
}
