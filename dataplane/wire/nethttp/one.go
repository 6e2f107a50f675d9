package nethttp

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// one speaks HTTP/1.1 to an endpoint, in the clear or over TLS. Each attempt is one request on one connection: nothing is ever sent twice here.
type one struct {
	key     message.ConnKey
	options message.TransportOptions
	dialer  dialer

	mu      sync.Mutex // guards what follows
	idle    []*link    // the one used last is last, and taken first
	retired bool
	timer   *time.Timer // closes what has been idle for too long; nil when none is set
}

func newOne(key message.ConnKey, options message.TransportOptions) *one {
	return &one{key: key, options: options, dialer: newDialer(key, options, protocolOne)}
}

// call is one attempt: request, answer and its body.
type call struct {
	l  *link
	at *message.Attempt

	res  message.Response
	body message.Body
	src  download

	sending chan struct{} // closed when the request body is no longer read; nil when its sender never ran
	sendErr atomic.Pointer[error]
	sent    int64 // bytes of the request body; of the sender until sending is closed
	begun   atomic.Bool
	whole   bool        // the request went out whole without a sender
	last    atomic.Bool // its sender has begun the last write

	mu      sync.Mutex // guards what follows: answer and sender may end in any order
	ended   bool       // the sender has ended
	sentAll bool       // with all of the request sent
	handed  bool       // the answer has ended first: the sender gives the connection back
}

// RoundTrip makes one attempt.
func (t *one) RoundTrip(ctx context.Context, at *message.Attempt) error {
	at.Response, at.Sent, at.Reused, at.Replays, at.Join = nil, message.SentNothing, false, 0, nil
	l, err := t.take(ctx)
	if err != nil {
		return err
	}
	at.Reused = l.used
	c := &call{l: l, at: at}

	stop := func() bool { return true }
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, l.cut)
	}
	err = c.exchange()
	if !stop() {
		err = message.ContextError(ctx)
	}
	if c.begun.Load() && at.Sent == message.SentHead {
		at.Sent = message.SentBody
	}
	if err != nil {
		l.Close()
		at.Response = nil
		return err
	}
	if c.res.Body == nil && c.res.Tunnel == nil {
		c.src.finish() // not before ctx has let go of the connection
	}
	return nil
}

// exchange sends the request and reads heads until the final one.
func (c *call) exchange() error {
	at, l := c.at, c.l
	body := at.Request.Body
	// A body that has been pulled already has made the client send it: nothing to ask the backend for.
	expect := at.Request.ExpectContinue && body != nil && body.Passed() == 0

	out, err := appendHead(l.out[:0], &at.Request, expect)
	if err != nil {
		return err
	}
	if body != nil && !expect {
		if out, err = c.appendBody(out, body); err != nil {
			return bodyError(err)
		}
	} else if body == nil {
		c.whole = true
	}
	l.keep(out)

	n, writeErr := l.Write(out)
	if n > 0 {
		at.Sent = message.SentHead
	}
	if writeErr == nil && body != nil && !c.whole && !expect {
		c.start()
	}
	if expect {
		l.readUntil(time.Now().Add(continueTimeout))
	}
	err = c.answer(expect)
	if err != nil && writeErr != nil {
		err = &message.Error{Reason: message.ReasonUpstreamReset, Err: writeErr}
	}
	if p := c.sendErr.Load(); err != nil && p != nil {
		err = *p
	}
	return err
}

// answer reads heads until the final one. While waiting, the body is held back.
func (c *call) answer(waiting bool) error {
	informed := 0
	for {
		h, err := c.l.readHead(c.at.Request.Method, int(c.l.t.options.MaxHeadBytes))
		if err != nil {
			if waiting && errors.Is(err, os.ErrDeadlineExceeded) && !c.l.dead.Load() {
				waiting = false
				c.l.readUntil(time.Time{})
				c.start()
				continue // what has come of a head is still there
			}
			return err
		}
		if h.status >= 200 {
			if waiting {
				c.l.readUntil(time.Time{})
			}
			c.final(h)
			return nil
		}
		if h.status == 101 {
			return c.switched(h)
		}
		if informed++; informed > c.l.t.options.MaxInformations && c.l.t.options.MaxInformations > 0 {
			return protocolError("too many 1xx answers")
		}
		switch {
		case h.status != 100:
			if ex := c.at.Exchange; ex != nil {
				ex.Inform(h.status, &h.header)
			}
		case waiting:
			waiting = false
			c.l.readUntil(time.Time{})
			c.start()
		}
	}
}

// final makes the answer.
func (c *call) final(h *answerHead) {
	c.res = message.Response{Status: h.status, Header: h.header, Length: -1, Origin: message.OriginUpstream, Trailer: h.trailer}
	c.src = download{c: c, l: c.l, keepAlive: h.keepAlive, framing: h.framing, left: h.length}
	switch {
	case h.framing == noBody:
		c.res.Length = h.length
	case h.framing == byLength && h.length == 0:
	default:
		length := h.length
		if h.framing != byLength {
			length = -1
		}
		c.body = *message.NewBody(&c.src, length, nil)
		c.res.Body = &c.body
	}
	c.at.Response = &c.res
}

// switched makes an answer of a 101, if the request asked for it.
func (c *call) switched(h *answerHead) error {
	want := c.at.Request.Upgrade
	if want == "" || !message.EqualName(h.upgrade, want) {
		return protocolError("an unasked 101")
	}
	c.res = message.Response{Status: 101, Header: h.header, Length: -1, Origin: message.OriginUpstream, Upgrade: want}
	c.res.Tunnel = spliceWith(c.l, c.at.Exchange)
	c.at.Response = &c.res
	return nil
}

// inlineBody is the most that is put behind a head in one write, in bytes.
const inlineBody = 16 << 10

// appendBody puts a short body that is at hand behind the head.
func (c *call) appendBody(out []byte, body *message.Body) ([]byte, error) {
	n := body.Len()
	if n == 0 {
		c.whole = true
		return out, nil
	}
	if n < 0 || n > inlineBody {
		return out, nil
	}
	for c.sent < n && body.More() {
		p, err := body.Next()
		if err != nil {
			return out, short(err)
		}
		c.begun.Store(true)
		c.sent += int64(len(p))
		out = append(out, p...)
	}
	if c.sent < n {
		return out, nil
	}
	c.whole = true
	return out, atEnd(body)
}

// short says that a body of announced length has ended before.
func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// atEnd pulls the end of a body all of whose bytes have been read.
func atEnd(body *message.Body) error {
	if _, err := body.Next(); err != io.EOF {
		if err == nil {
			err = errors.New("the request body is longer than announced")
		}
		return err
	}
	return nil
}

// start sends the rest of the body on a goroutine of its own: the backend may answer before it has read it all, or never read it.
func (c *call) start() {
	c.sending = make(chan struct{})
	c.at.Join = func() { <-c.sending }
	go c.send()
}

func (c *call) send() {
	defer close(c.sending)
	err := c.sendBody()
	if err != nil {
		c.sendErr.CompareAndSwap(nil, &err)
		c.l.cut() // an answer may never come
	}
	c.mu.Lock()
	c.ended, c.sentAll = true, err == nil && !c.l.broken.Load()
	handed := c.handed
	c.mu.Unlock()
	switch {
	case !handed:
	case c.sentAll:
		c.l.SetWriteDeadline(time.Time{})
		c.l.t.put(c.l)
	default:
		c.l.Close()
	}
}

// sendBody returns an error only when the body broke off: a backend that does not read on may have answered.
func (c *call) sendBody() error {
	body := c.at.Request.Body
	n := body.Len()
	var frame []byte
	for n < 0 || c.sent < n {
		p, err := body.Next()
		if err == io.EOF && n < 0 {
			break
		}
		if err != nil {
			return bodyError(short(err))
		}
		c.begun.Store(true)
		if c.sent += int64(len(p)); n >= 0 && c.sent > n {
			return bodyError(errors.New("the request body is longer than announced"))
		}
		if n < 0 {
			frame = appendChunk(frame[:0], p)
			p = frame
		}
		c.last.Store(c.sent == n)
		if _, err := c.l.Write(p); err != nil {
			c.l.broken.Store(true)
			return nil
		}
	}
	if n >= 0 {
		if err := atEnd(body); err != nil {
			return bodyError(err)
		}
		return nil
	}
	c.last.Store(true)
	if _, err := c.l.Write(appendTrailer(append(frame[:0], "0\r\n"...), body.Trailer())); err != nil {
		c.l.broken.Store(true)
	}
	return nil
}

// lastWrite is how long the last write of a request may take once its answer has ended.
const lastWrite = 100 * time.Millisecond

// release gives the connection back once its answer has ended, if the request has left us to its last byte. An answer often overtakes
// the return of the last write: then it is left to the sender. One that came early, with more to send, costs the connection.
func (c *call) release() {
	if c.sending == nil {
		if c.whole {
			c.l.t.put(c.l)
		} else {
			c.l.Close()
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.sentAll:
		c.l.t.put(c.l)
	case c.last.Load() && !c.ended:
		c.handed = true
		c.l.SetWriteDeadline(time.Now().Add(lastWrite))
	default:
		c.l.Close()
	}
}

// take returns an idle connection that still stands, or a new one.
func (t *one) take(ctx context.Context) (*link, error) {
	if ctx.Err() != nil {
		return nil, message.ContextError(ctx)
	}
	for {
		l := t.pop()
		if l == nil {
			break
		}
		if l.standing() {
			return l, nil
		}
		l.Close()
	}
	nc, err := t.dialer.dial(ctx)
	if err != nil {
		return nil, dialError(ctx, err)
	}
	return newLink(t, nc), nil
}

func (t *one) pop() *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.idle) - 1
	if n < 0 {
		return nil
	}
	l := t.idle[n]
	t.idle[n] = nil
	t.idle = t.idle[:n]
	return l
}

// put keeps a connection for the next attempt, or closes it.
func (t *one) put(l *link) {
	l.used, l.idleSince = true, time.Now()
	if len(l.in) > keepBuffer {
		l.in, l.r, l.w = make([]byte, linkBuffer), 0, 0
	}
	t.mu.Lock()
	if t.retired || t.options.MaxIdle <= 0 {
		t.mu.Unlock()
		l.Close()
		return
	}
	var over *link
	if len(t.idle) >= t.options.MaxIdle {
		over = t.idle[0]
		t.idle = append(t.idle[:0], t.idle[1:]...)
	}
	t.idle = append(t.idle, l)
	if t.timer == nil && t.options.IdleTimeout > 0 {
		t.timer = time.AfterFunc(t.options.IdleTimeout, t.sweep)
	}
	t.mu.Unlock()
	if over != nil {
		over.Close()
	}
}

// sweep closes what has been idle for too long, and sets the timer for the next.
func (t *one) sweep() {
	t.mu.Lock()
	now, n := time.Now(), 0
	for n < len(t.idle) && now.Sub(t.idle[n].idleSince) >= t.options.IdleTimeout {
		n++
	}
	old := append([]*link(nil), t.idle[:n]...)
	t.idle = append(t.idle[:0], t.idle[n:]...)
	t.timer = nil
	if len(t.idle) > 0 {
		t.timer = time.AfterFunc(t.options.IdleTimeout-now.Sub(t.idle[0].idleSince), t.sweep)
	}
	t.mu.Unlock()
	for _, l := range old {
		l.Close()
	}
}

// Retire closes what is idle, and each used connection as it comes back.
func (t *one) Retire() {
	t.mu.Lock()
	t.retired = true
	old := t.idle
	t.idle = nil
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.mu.Unlock()
	for _, l := range old {
		l.Close()
	}
}

// Revive ends Retire.
func (t *one) Revive() {
	t.mu.Lock()
	t.retired = false
	t.mu.Unlock()
}
