package nethttp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// conn is a client's connection on its way through net/http. For HTTP/1 a tap reads along; what net/http refuses by itself is seen
// here, answered in our words, and told to Done.
type conn struct {
	net.Conn
	srv     *server
	info    *message.Conn
	pre     []byte // read by sniff, not yet by net/http
	tap     *tap   // nil for HTTP/2
	firstBy time.Time
	armed   time.Time // when the write deadline was set

	serving atomic.Bool // an exchange is under way: from the handler until net/http has written its last byte
	idle    atomic.Bool // nothing is under way, and no byte of a next head has come
	last    atomic.Bool // no further head is read
	spoiled atomic.Bool // what follows is not to be trusted, even when it has been read
	linger  atomic.Bool // the client may still be sending: let it read our last words first
	refused *head       // what net/http refused by itself; of the goroutine that serves
	status  int         // of net/http's own answer, when we had none
	closing atomic.Bool
	shut    sync.Once
}

type connKey struct{}

// connOf finds our part of a net.Conn that we gave to net/http.
func connOf(nc net.Conn) *conn {
	if s, ok := nc.(*secureConn); ok {
		return s.conn
	}
	return nc.(*conn)
}

// secureConn shows net/http the handshake; it wants it to see "h2".
type secureConn struct {
	*conn
	stater interface{ ConnectionState() tls.ConnectionState }
}

func (s *secureConn) ConnectionState() tls.ConnectionState { return s.stater.ConnectionState() }

func (c *conn) Read(p []byte) (int, error) {
	if len(c.pre) > 0 {
		n := copy(p, c.pre)
		c.pre = c.pre[n:]
		c.see(p[:n])
		return n, nil
	}
	if c.last.Load() && !c.serving.Load() {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p)
	c.see(p[:n])
	if err != nil && c.tap != nil && c.tap.begun.Load() && !c.serving.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		c.tooSlow()
	}
	return n, err
}

func (c *conn) see(p []byte) {
	if c.tap == nil || len(p) == 0 {
		return
	}
	c.idle.Store(false)
	c.tap.feed(p)
}

// SetReadDeadline keeps the first head within the time that began with accept, whatever net/http asks for.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.tap != nil && !c.firstBy.IsZero() && !c.tap.headed.Load() && (t.IsZero() || t.After(c.firstBy)) {
		t = c.firstBy
	}
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline does nothing for HTTP/1, where Write arms it.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.tap != nil {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) SetDeadline(t time.Time) error {
	c.SetWriteDeadline(t)
	return c.SetReadDeadline(t)
}

func (c *conn) Write(p []byte) (int, error) {
	if c.tap == nil {
		return c.Conn.Write(p)
	}
	c.arm()
	if !c.serving.Load() {
		return c.refuse(p)
	}
	return c.Conn.Write(p)
}

// arm moves the write deadline, but not for every write: a timer's move costs, and a second more or less says nothing.
func (c *conn) arm() {
	d := c.srv.limits.WriteTimeout
	if d <= 0 {
		return
	}
	if now := time.Now(); now.Sub(c.armed) > min(d/4, time.Second) {
		c.armed = now
		c.Conn.SetWriteDeadline(now.Add(d))
	}
}

// refuse is called for what net/http writes between exchanges: it refuses a head by itself. Where we know why, the answer is ours.
func (c *conn) refuse(p []byte) (int, error) {
	if c.refused != nil {
		return len(p), nil // our own answer is out
	}
	c.linger.Store(true)
	c.last.Store(true)
	h := c.tap.blame(&c.srv.limits)
	c.refused = h
	if h.reason == message.ReasonNone { // Expect, or a rule of net/http that we do not know
		h.reason, h.detail = message.ReasonBadHead, "refused by net/http"
		if len(p) > 12 {
			c.status, _ = strconv.Atoi(string(p[9:12]))
		}
		return c.Conn.Write(p)
	}
	if _, err := io.WriteString(c.Conn, refusal(h.reason)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// tooSlow answers a head that did not end in time.
func (c *conn) tooSlow() {
	c.tap.refuse(message.ReasonHeadTimeout, "the head did not end in time")
	c.refused = c.tap.blame(&c.srv.limits)
	c.arm()
	io.WriteString(c.Conn, refusal(message.ReasonHeadTimeout))
}

// refusal is an answer of ours on a connection that ends with it.
func refusal(reason message.Reason) string {
	text := reason.Text() + "\n"
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		reason.Status(), http.StatusText(reason.Status()), len(text), text)
}

// stateChanged follows the states of an HTTP/1 connection.
func (c *conn) stateChanged(state http.ConnState) {
	if state == http.StateNew || state == http.StateIdle {
		c.serving.Store(false)
		c.idle.Store(true)
	}
}

// Close ends the connection: what net/http refused is told to Done, and a client that is still sending gets to read its answer.
func (c *conn) Close() error {
	if !c.closing.CompareAndSwap(false, true) {
		return net.ErrClosed
	}
	c.reportRefused()
	if c.linger.Load() {
		c.lingering()
	}
	err := c.kill()
	c.srv.untrack(c)
	return err
}

// kill closes at once. What runs on the connection finds out, and calls Close.
func (c *conn) kill() (err error) {
	c.shut.Do(func() { err = c.Conn.Close() })
	return err
}

// lingering reads on for a while behind our last byte: closing a socket with unread bytes resets it, and the client would lose the
// answer (RFC 9112 9.6).
func (c *conn) lingering() {
	if c.CloseWrite() != nil {
		return
	}
	d := c.srv.limits.DrainDuration
	if d <= 0 || d > 2*time.Second {
		d = 2 * time.Second
	}
	c.Conn.SetReadDeadline(time.Now().Add(d))
	io.CopyN(io.Discard, c.Conn, max(c.srv.limits.DrainBytes, 1))
}

// CloseWrite ends our direction.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// reset makes the close that follows a TCP reset, where a plain one would look like a whole answer.
func (c *conn) reset() {
	nc := c.Conn
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = t.NetConn()
	}
	if t, ok := nc.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
}

// reportRefused tells Done of a head that net/http refused by itself.
func (c *conn) reportRefused() {
	h := c.refused
	if h == nil {
		return
	}
	ex := &message.Exchange{Conn: c.info, Received: time.Now(), Wire: Name}
	h.fill(ex)
	ex.Request.Scheme = c.scheme()
	ex.Response = failure(h.reason, h.detail)
	if c.status != 0 {
		ex.Response.Status = c.status
	}
	c.srv.handler.Done(ex)
}

func (c *conn) scheme() string {
	if c.info != nil && c.info.TLS != nil {
		return "https"
	}
	if _, ok := c.Conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return "https"
	}
	return "http"
}
