package nethttp

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Name is what exchanges of this engine carry as their Wire.
const Name = "nethttp"

// Engine is the engine built on net/http.
type Engine struct {
	// CountError, when set before Open, is told of each stream or connection that net/http's HTTP/2 refuses by itself, in its words
	// ("stream_PROTOCOL_ERROR_bad_path"): those never reach a Handler.
	CountError func(kind string)
}

// New returns the engine.
func New() *Engine { return &Engine{} }

var _ message.Engine = (*Engine)(nil)

// Open returns a server for connections that share their fate.
func (e *Engine) Open(h message.Handler, limits message.Limits) message.Server {
	s := &server{
		handler: h, limits: limits, conns: map[*conn]struct{}{}, ended: make(chan struct{}, 1),
		in1: newInlet(), in2: newInlet(),
	}
	s.exchanges.New = func() any { return newExchange(s) }
	s.h1, s.h2 = s.httpServer(), s.httpServer()
	s.h1.Protocols.SetHTTP1(true)
	s.h1.ConnState = func(nc net.Conn, state http.ConnState) { connOf(nc).stateChanged(state) }
	s.h2.Protocols.SetHTTP2(true)
	s.h2.Protocols.SetUnencryptedHTTP2(true)
	s.h2.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: limits.MaxStreams,
		WriteByteTimeout:     limits.WriteTimeout,
		// A ping finds peers that are gone, and those that began a head and never end it: they cannot answer in between.
		SendPingTimeout: limits.HeadTimeout,
		PingTimeout:     limits.HeadTimeout,
		CountError:      e.CountError,
	}
	go s.h1.Serve(s.in1)
	go s.h2.Serve(s.in2)
	return s
}

// A little more than the limits is left for net/http to refuse by itself, so that what is only just too large is refused by us and
// reaches Done.
const (
	slackBytes  = 4 << 10
	slackFields = 32
)

func (s *server) httpServer() *http.Server {
	hs := &http.Server{
		Handler:                      s,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            s.limits.HeadTimeout,
		IdleTimeout:                  s.limits.IdleTimeout,
		// The house counts instead of logging: what net/http has to say is about single connections, and clients could make it say it.
		ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, connOf(nc))
		},
		Protocols: new(http.Protocols),
	}
	if s.limits.MaxHeadBytes > 0 {
		hs.MaxHeaderBytes = s.limits.MaxHeadBytes + slackBytes
	}
	if s.limits.MaxFields > 0 {
		hs.MaxHeaderValueCount = s.limits.MaxFields + slackFields
	}
	return hs
}

// server is two http.Servers, since draining differs: GOAWAY tells an HTTP/2 client to leave at any time, an HTTP/1 client learns it
// from an answer (contracts 20).
type server struct {
	handler   message.Handler
	limits    message.Limits
	h1, h2    *http.Server
	in1, in2  *inlet
	exchanges sync.Pool

	mu      sync.Mutex // guards what follows
	conns   map[*conn]struct{}
	leaving bool
	closed  bool

	ended chan struct{} // a connection has ended
}

// Serve hands a connection to the http.Server that speaks its protocol, and returns at once.
func (s *server) Serve(nc net.Conn, info *message.Conn) {
	if info == nil {
		info = &message.Conn{}
	}
	c := &conn{Conn: nc, srv: s, info: info}
	c.idle.Store(true)
	if s.limits.HeadTimeout > 0 {
		c.firstBy = time.Now().Add(s.limits.HeadTimeout)
	}
	if !s.track(c) {
		nc.Close()
		return
	}
	stater, secure := nc.(interface{ ConnectionState() tls.ConnectionState })
	switch {
	case !secure:
		go s.sniff(c)
	case stater.ConnectionState().NegotiatedProtocol == "h2":
		c.idle.Store(false)
		s.give(c, s.in2, &secureConn{c, stater})
	default:
		c.tap = &tap{limits: &s.limits}
		s.give(c, s.in1, &secureConn{c, stater})
	}
}

// preface is what a client of HTTP/2 with prior knowledge sends first (RFC 9113 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// sniff tells HTTP/2 with prior knowledge from HTTP/1 by its first bytes, within the time for the first head (threats 21).
func (s *server) sniff(c *conn) {
	var buf [len(preface)]byte
	n := 0
	c.Conn.SetReadDeadline(c.firstBy)
	for n < len(buf) && string(buf[:n]) == preface[:n] {
		m, err := c.Conn.Read(buf[n:])
		n += m
		if err != nil && n == 0 || err != nil && string(buf[:n]) == preface[:n] {
			c.Close()
			return
		}
		if err != nil {
			break // HTTP/1 shall meet the error itself
		}
	}
	c.pre = append([]byte(nil), buf[:n]...)
	if string(buf[:n]) == preface {
		c.idle.Store(false)
		c.Conn.SetReadDeadline(time.Time{})
		s.give(c, s.in2, c)
		return
	}
	c.tap = &tap{limits: &s.limits}
	s.give(c, s.in1, c)
}

func (s *server) give(c *conn, in *inlet, nc net.Conn) {
	if !in.give(nc) {
		c.Close()
	}
}

func (s *server) track(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.leaving {
		c.info.Leave()
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *server) untrack(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	select {
	case s.ended <- struct{}{}:
	default:
	}
}

// inlet is the listener of an http.Server to which connections are given.
type inlet struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newInlet() *inlet { return &inlet{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (l *inlet) give(c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.closed:
		return false
	}
}

func (l *inlet) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *inlet) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *inlet) Addr() net.Addr { return &net.TCPAddr{} }
