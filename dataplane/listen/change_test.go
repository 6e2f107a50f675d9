package listen

import (
	"bufio"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func TestCertificatesChangeUnderTrafficWithoutAFailedHandshake(t *testing.T) {
	r := start(t, func(o *Options) { o.Spread, o.LeaveFirst = 20*time.Millisecond, 200*time.Millisecond })
	port := freePort(t)
	two := [2]snapshot.Secret{certified(t, "a.example.com"), certified(t, "a.example.com")}
	with := func(i int) snapshot.Socket {
		return secure("gw", port, listener("gw", "https", "a.example.com", two[i%2]))
	}
	r.bound(with(0))
	stop := make(chan struct{})
	var served, told atomic.Int64
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := dialTLS(t, port, "a.example.com", nil)
				if err != nil {
					t.Error(err)
					return
				}
				for range 20 {
					answer, err := c.say("hello")
					if err != nil {
						t.Error(err)
						return
					}
					served.Add(1)
					if answer == "gw https close" {
						told.Add(1)
						break
					}
				}
				c.Close()
			}
		})
	}
	for i := range 60 {
		r.bound(with(i + 1))
		before := served.Load()
		eventually(t, "clients were served", func() bool { return served.Load() > before+5 || t.Failed() })
	}
	close(stop)
	clients.Wait()
	if served.Load() < 300 || told.Load() == 0 {
		t.Errorf("%d answers, %d clients told to leave", served.Load(), told.Load())
	}
}

func TestAConnectionWithAnOldCertificateIsToldToLeaveAndOneWithoutListenerEnds(t *testing.T) {
	r := start(t, func(o *Options) { o.Spread, o.LeaveFirst = 30*time.Millisecond, time.Minute })
	port := freePort(t)
	old, kept := certified(t, "a.example.com"), certified(t, "b.example.com")
	b := listener("gw", "b", "b.example.com", kept)
	r.bound(secure("gw", port, listener("gw", "a", "a.example.com", old), b))
	first, err := dialTLS(t, port, "a.example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	first.hears(t, "gw a open")
	info := <-r.engine.conns
	other, err := dialTLS(t, port, "b.example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	other.hears(t, "gw b open")
	bystander := <-r.engine.conns

	r.bound(secure("gw", port, listener("gw", "a", "a.example.com", certified(t, "a.example.com")), b))
	eventually(t, "it is told", info.Leaving)
	if !r.current.Load().Holds(info) {
		t.Error("a new certificate makes an old connection misdirected")
	}
	first.hears(t, "gw a close")

	second, err := dialTLS(t, port, "a.example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	second.hears(t, "gw a open")
	gone := <-r.engine.conns
	r.bound(secure("gw", port, b))
	if r.current.Load().Holds(gone) {
		t.Error("a listener that is gone holds")
	}
	if !second.ended() {
		t.Error("its connection lives on")
	}
	other.hears(t, "gw b open")
	if bystander.Leaving() {
		t.Error("a listener that did not change lost a connection")
	}
}

// gated holds back what is written after the ClientHello until it may pass.
type gated struct {
	net.Conn
	hello chan struct{} // closed when the ClientHello is out
	pass  chan struct{}
	n     *int
}

func (g gated) Write(b []byte) (int, error) {
	*g.n++
	if *g.n > 1 {
		<-g.pass
	}
	n, err := g.Conn.Write(b)
	if *g.n == 1 {
		close(g.hello)
	}
	return n, err
}

func TestAHandshakeThatAnApplyOvertakesHasItsAnswerAndLeaves(t *testing.T) {
	r := start(t, nil)
	// Its server may be shut down before it has taken the connection: give that the time to happen.
	r.engine.entering = func() { time.Sleep(50 * time.Millisecond) }
	port := freePort(t)
	r.bound(secure("gw", port, listener("gw", "https", "a.example.com", certified(t, "a.example.com"))))
	raw, err := net.Dial("tcp", address(port))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	g := gated{raw, make(chan struct{}), make(chan struct{}), new(int)}
	secured := tls.Client(g, &tls.Config{ServerName: "a.example.com", RootCAs: authority().roots})
	done := make(chan error)
	go func() { done <- secured.Handshake() }()
	<-g.hello
	eventually(t, "the server has the ClientHello", func() bool {
		for _, s := range r.l.sockets {
			for _, term := range s.planned(r.current.Load()).names.exact {
				term.mu.Lock()
				ready := term.keysOf > 0
				term.mu.Unlock()
				if ready {
					return true
				}
			}
		}
		return false
	})
	r.bound(secure("gw", port, listener("gw", "https", "a.example.com", certified(t, "a.example.com"))))
	close(g.pass)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	(&client{secured, bufio.NewReader(secured)}).hears(t, "gw https close")
}

func TestAStormOfAppliesLeaksNothing(t *testing.T) {
	r := start(t, func(o *Options) { o.Spread, o.LeaveFirst = 5*time.Millisecond, 5*time.Millisecond })
	ports := []uint16{freePort(t), freePort(t), freePort(t), freePort(t)}
	secrets := []snapshot.Secret{certified(t, "a.example.com"), certified(t, "a.example.com")}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func() (out []snapshot.Socket) {
		for _, port := range ports {
			gw := []string{"a", "b"}[random.IntN(2)]
			switch random.IntN(3) {
			case 0:
				out = append(out, plain(gw, port))
			case 1:
				out = append(out, secure(gw, port, listener(gw, "https", "", secrets[random.IntN(2)])))
			}
		}
		return out
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				raw, err := net.Dial("tcp", address(ports[(n+i)%len(ports)]))
				if err != nil {
					continue
				}
				raw.SetDeadline(time.Now().Add(time.Second))
				if n%2 == 0 {
					io.WriteString(raw, "hello\n")
					io.ReadFull(raw, make([]byte, 1))
				} else {
					tls.Client(raw, &tls.Config{InsecureSkipVerify: true}).Handshake()
				}
				raw.Close()
			}
		})
	}
	for range 300 {
		for _, s := range r.apply(pick()...) {
			if s.Err != nil {
				t.Errorf("%v: %v", s.Key, s.Err)
			}
		}
	}
	r.bound(plain("a", ports[0]))
	close(stop)
	clients.Wait()
	dial(t, ports[0]).hears(t, "a plain open")
	eventually(t, "only the last connection is there, and no group leaves any more", func() bool {
		r.l.mu.Lock()
		defer r.l.mu.Unlock()
		return r.l.Open() <= 1 && len(r.l.leaving) == 0
	})
}
