package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// conn is a client's connection. It is the socket itself, for whoever can make use of that (NetConn gets to the bare one), and knows
// its end.
type conn struct {
	*net.TCPConn
	listen   *Listen
	info     *message.Conn
	metrics  *telemetry.Gateway
	group    atomic.Pointer[group] // nil until the handshake is done
	entering atomic.Bool           // it has a group, whose server may not know it yet
	gone     atomic.Bool           // set before the last look at group: whoever joins after that finds it
	once     sync.Once
}

// NetConn is the bare socket, as tls.Conn.NetConn is: for splice, which looks for a *net.TCPConn.
func (c *conn) NetConn() net.Conn { return c.TCPConn }

// Read notices that the server has taken the connection: Serve may not return before the connection's end.
func (c *conn) Read(b []byte) (int, error) {
	if c.entering.Load() {
		c.entered()
	}
	return c.TCPConn.Read(b)
}

// entered lets a server be shut down that waited for this connection to reach it.
func (c *conn) entered() {
	if c.entering.CompareAndSwap(true, false) {
		c.group.Load().entering.Done()
	}
}

// Close ends the connection, and its place in all books.
func (c *conn) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() { c.listen.ended(c) })
	return err
}

func (l *Listen) ended(c *conn) {
	l.mu.Lock()
	delete(l.shaking, c)
	l.mu.Unlock()
	c.gone.Store(true)
	c.entered()
	if g := c.group.Load(); g != nil {
		g.remove(c)
	}
	c.metrics.Closed()
	if l.open.Add(-1) == 0 {
		select {
		case l.quiet <- struct{}{}:
		default:
		}
	}
}

// take makes a connection of what a socket accepted, or closes it. It returns at once.
func (l *Listen) take(s *socket, raw *net.TCPConn) {
	p := s.planned(l.options.Current())
	if p == nil { // its socket is just leaving the plan
		raw.Close()
		return
	}
	if most := int64(l.options.MaxConnections); l.open.Add(1) > most && most > 0 {
		l.open.Add(-1)
		p.metrics.Refused("limit")
		raw.Close()
		return
	}
	c := &conn{TCPConn: raw, listen: l, metrics: p.metrics, info: &message.Conn{
		ID: l.ids.Add(1), Socket: p.key, Remote: addrPort(raw.RemoteAddr()), Local: addrPort(raw.LocalAddr()), Opened: time.Now(),
	}}
	p.metrics.Opened()
	l.mu.Lock()
	l.shaking[c] = struct{}{}
	l.mu.Unlock()
	if l.draining.Load() { // asked after it can be found: Leave sets it before it looks
		c.info.Leave()
	}
	l.tasks.Go(func() { l.serve(s, c, p) })
}

// addrPort is an address as everything compares it: IPv4 is IPv4, whatever the socket, and no zone (threats 42).
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// serve brings a connection to its engine.
func (l *Listen) serve(s *socket, c *conn, p *planned) {
	fate, proof := fate{socket: p.key}, ""
	var speaks net.Conn = c
	if p.tls {
		t, secure, err := l.handshake(c, p)
		if err != nil {
			c.Close()
			return
		}
		speaks = secure
		fate.fingerprint, proof = t.fingerprint, t.proof
	}
	g := s.join(c, fate, proof)
	l.mu.Lock()
	delete(l.shaking, c)
	l.mu.Unlock()
	g.server.Serve(speaks, c.info)
	c.entered()
}

func (l *Listen) handshake(c *conn, p *planned) (*terminator, *tls.Conn, error) {
	begun := time.Now()
	h := &hello{names: &p.names}
	secure := tls.Server(c, l.base)
	if d := l.options.Handshake; d > 0 {
		c.SetDeadline(begun.Add(d))
	}
	// A context that never ends costs no goroutine; the deadline does the work.
	if err := secure.HandshakeContext(context.WithValue(context.Background(), helloKey{}, h)); err != nil {
		p.metrics.HandshakeFailed(failureOf(err, h))
		return nil, nil, err
	}
	c.SetDeadline(time.Time{})
	state := secure.ConnectionState()
	p.metrics.Handshake(state.Version, state.DidResume, time.Since(begun))
	c.info.Listener = h.chosen.listener
	c.info.TLS = &message.TLSState{
		ServerName: message.Lower(state.ServerName), Version: state.Version, CipherSuite: state.CipherSuite, ALPN: state.NegotiatedProtocol,
		Resumed: state.DidResume, Fingerprint: h.chosen.proof, Certificates: h.chosen.clients.proven(&state),
	}
	return h.chosen, secure, nil
}

// failureOf is a word for why a handshake failed; there are these, and no others.
func failureOf(err error, h *hello) string {
	var header tls.RecordHeaderError
	var op *net.OpError
	switch {
	case h.refused != "":
		return h.refused
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.As(err, &header):
		return "not_tls"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.As(err, &op) && op.Op == "remote error":
		return "alert"
	}
	return "protocol"
}
