package listen

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// socket is a listening socket.
type socket struct {
	listen *Listen
	bound  *net.TCPListener
	// keys are who it belongs to. Next differs from now while it is handed over: from the moment that the plan doesn't know now.
	keys atomic.Pointer[handover]

	quit chan struct{} // closed to end the accept loop
	done chan struct{} // closed when it has ended; nil before it began

	mu     sync.Mutex // guards what follows
	groups map[fate]*group
	wanted map[fate]string // of the plan that serves; nil when the socket has left it
}

type handover struct{ now, next snapshot.SocketKey }

// Probes of a silent connection: a client that has vanished is noticed after a minute and a half.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 45 * time.Second, Interval: 15 * time.Second, Count: 3}

// bind opens a listening socket. Without an address it takes both families; net sets SO_REUSEADDR on it, and TCP_NODELAY on what it
// accepts.
func (l *Listen) bind(key snapshot.SocketKey) (*socket, error) {
	network := "tcp"
	switch {
	case key.Address.Is4():
		network = "tcp4"
	case key.Address.IsValid():
		network = "tcp6"
	}
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	bound, err := config.Listen(context.Background(), network, key.Bind())
	if err != nil {
		return nil, err
	}
	s := &socket{listen: l, bound: bound.(*net.TCPListener), quit: make(chan struct{}), groups: map[fate]*group{}}
	s.keys.Store(&handover{key, key})
	return s, nil
}

func (s *socket) key() snapshot.SocketKey { return s.keys.Load().now }

// planned is what the plan says of this socket; nil when it doesn't know it.
func (s *socket) planned(p *Plan) *planned {
	k := s.keys.Load()
	if found := p.socket(k.now); found != nil {
		return found
	}
	return p.socket(k.next)
}

// accept begins to accept.
func (s *socket) accept() {
	s.done = make(chan struct{})
	s.listen.tasks.Go(func() {
		defer close(s.done)
		s.run()
	})
}

// run accepts until the socket is closed. A failure (no file descriptors left, a client that was gone already) is waited out: spinning
// would take the time from those who could free some.
func (s *socket) run() {
	var pause time.Duration
	for {
		raw, err := s.bound.AcceptTCP()
		if err == nil {
			pause = 0
			s.listen.take(s, raw)
			continue
		}
		select {
		case <-s.quit:
			return
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.failed(err)
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-s.quit:
			t.Stop()
			return
		}
	}
}

func (s *socket) failed(err error) {
	if p := s.planned(s.listen.options.Current()); p != nil {
		p.metrics.AcceptFailed()
	}
	s.listen.options.Log.Debug("a connection cannot be accepted", "address", s.bound.Addr().String(), "error", err)
}

// lastCall ends accepting after a moment: closing a socket resets what waits in the kernel's queue.
func (s *socket) lastCall(moment time.Duration) {
	close(s.quit)
	s.bound.SetDeadline(time.Now().Add(moment))
}

// close ends accepting at once, unless lastCall has ended it, and returns when the address is free.
func (s *socket) close() {
	select {
	case <-s.quit:
		if s.done != nil {
			<-s.done
		}
	default:
		close(s.quit)
	}
	s.bound.Close()
	if s.done != nil {
		<-s.done
	}
}

// join puts a connection into the group of its fate.
func (s *socket) join(c *conn, f fate, proof string) *group {
	for {
		s.mu.Lock()
		g, found := s.groups[f]
		if !found {
			g = &group{fate: f, proof: proof, server: s.listen.options.Engine.Open(s.listen.options.Handler, s.listen.options.Limits), conns: map[*conn]struct{}{}}
			if _, wanted := s.wanted[f]; wanted {
				s.groups[f] = g
			} else {
				// The plan changed during the handshake: it may have one answer, and leaves.
				g.add(c)
				c.info.Leave()
				s.mu.Unlock()
				s.listen.dismiss(g, manner{first: s.listen.options.LeaveFirst})
				return g
			}
		}
		s.mu.Unlock()
		if g.add(c) {
			return g
		}
		// It was shut in this very moment, and is not in groups any more.
	}
}

// settle lets only those groups live on that the plan knows; p is nil when the socket has left it. Others leave: in waves when nothing
// changed but a certificate, else at once.
func (s *socket) settle(p *planned) {
	s.mu.Lock()
	s.wanted = nil
	proofs := map[string]bool{}
	if p != nil {
		s.wanted = p.fates
		for _, proof := range p.fates {
			proofs[proof] = true
		}
	}
	var gone []*group
	for f, g := range s.groups {
		if _, wanted := s.wanted[f]; !wanted {
			delete(s.groups, f)
			gone = append(gone, g)
		}
	}
	s.mu.Unlock()
	o := s.listen.options
	for _, g := range gone {
		if g.fate.fingerprint != "" && proofs[g.proof] {
			s.listen.dismiss(g, manner{spread: o.Spread, first: o.LeaveFirst})
		} else { // their next request would get a 421: better a closed connection
			s.listen.dismiss(g, manner{})
		}
	}
}
