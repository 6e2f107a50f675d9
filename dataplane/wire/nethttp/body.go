package nethttp

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// pieceSize is how much of a body is read at once, in bytes.
const pieceSize = 32 << 10

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// upload is a request body as a Source. A body that the connection has wholly given to net/http, and every body of HTTP/2, is read by
// whoever pulls. Else, on HTTP/1, a pump reads ahead by two pieces: net/http notices that a client has left only while the body is
// being read, and the upstream may be silent (contracts 3).
type upload struct {
	x *exchange
	r io.ReadCloser

	started bool
	direct  bool
	buf     *[pieceSize]byte
	moved   time.Time   // when the read deadline of an HTTP/2 stream was set
	armed   atomic.Bool // it is set
	err     error
	passed  atomic.Int64

	killed bool // a read was broken off

	mu      sync.Mutex // guards what Abort may meet
	pump    *pump
	aborted bool
}

// pump reads ahead.
type pump struct {
	full  chan piece
	free  chan *[pieceSize]byte
	stop  chan struct{}
	once  sync.Once
	done  chan struct{} // closed when its goroutine has ended
	ended atomic.Bool   // it will, without another Read
	given *[pieceSize]byte
	timer *time.Timer
}

type piece struct {
	buf *[pieceSize]byte
	n   int
	err error
}

var errGivenUp = errors.New("the body was given up")

func (u *upload) Next() ([]byte, error) {
	if u.err != nil {
		return nil, u.err
	}
	if !u.started && !u.start() {
		return nil, u.err
	}
	var p []byte
	var err error
	if u.direct {
		p, err = u.read()
	} else {
		p, err = u.pump.next(u.timeout)
	}
	n := u.passed.Add(int64(len(p)))
	if limit := u.x.srv.limits.MaxBodyBytes; limit > 0 && n > limit {
		p, err = nil, &message.Error{Reason: message.ReasonBodyTooLarge}
	}
	if u.x.one && u.x.c.tap.bad.Load() {
		p, err = nil, &message.Error{Reason: message.ReasonBadFraming}
	}
	if err != nil {
		u.err = u.mean(err)
		return nil, u.err
	}
	return p, nil
}

// start chooses how the body is read; false when it was given up before.
func (u *upload) start() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.aborted {
		u.err = u.mean(errGivenUp)
		return false
	}
	u.started = true
	if u.x.one && u.x.ex.Request.ExpectContinue && u.x.ex.Request.Version == message.HTTP11 {
		u.x.sendContinue()
	}
	u.direct = !u.x.one || u.x.c.tap.atHand(u.x.number)
	if !u.direct {
		u.pump = startPump(u.r)
	}
	return true
}

// timeout is how long the next piece may take: without bound once the final head is out, since a client that listens to a stream may
// have nothing to say. The stream's own idleness bounds both ways then.
func (u *upload) timeout() time.Duration {
	if u.x.headed.Load() {
		return 0
	}
	return u.x.srv.limits.BodyTimeout
}

// relax takes the deadline of an HTTP/2 stream away when the final head is out.
func (u *upload) relax() {
	if u.armed.Load() {
		http.NewResponseController(u.x.w).SetReadDeadline(time.Time{})
	}
}

// read gets a piece on the caller's goroutine.
func (u *upload) read() ([]byte, error) {
	if u.buf == nil {
		u.buf = pieces.Get().(*[pieceSize]byte)
	}
	if d := u.timeout(); d > 0 && !u.x.one {
		if now := time.Now(); now.Sub(u.moved) > min(d/4, time.Second) {
			u.moved = now
			u.armed.Store(true)
			http.NewResponseController(u.x.w).SetReadDeadline(now.Add(d))
			if u.x.headed.Load() { // it went out meanwhile, and relax may not have seen us
				u.relax()
			}
		}
	}
	for {
		n, err := u.r.Read(u.buf[:])
		if n > 0 {
			return u.buf[:n], nil // the error, if any, comes again
		}
		if err != nil {
			return nil, err
		}
	}
}

// mean gives an error of net/http its reason.
func (u *upload) mean(err error) error {
	var known *message.Error
	var timeout net.Error
	switch {
	case err == io.EOF || errors.As(err, &known):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return &message.Error{Reason: message.ReasonBodyTimeout, Err: err}
	case u.x.one && err != errGivenUp && !errors.Is(err, io.ErrUnexpectedEOF) && u.x.r.Context().Err() == nil:
		return &message.Error{Reason: message.ReasonBadFraming, Err: err} // net/http's words for a malformed chunk
	}
	return &message.Error{Reason: message.ReasonClientLeft, Err: err}
}

func (u *upload) More() bool {
	switch {
	case u.err != nil:
		return true
	case !u.started:
		return u.x.one && u.x.c.tap.atHand(u.x.number)
	case u.direct:
		return u.x.one
	}
	return len(u.pump.full) > 0
}

func (u *upload) Trailer() *message.Header {
	if u.err != io.EOF {
		return nil
	}
	return trailerOf(u.x.r.Trailer)
}

func (u *upload) Abort(error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.aborted = true
	switch {
	case u.r == nil:
	case !u.x.one:
		u.r.Close() // may be called while Read is blocked, and frees it
	case u.pump != nil:
		u.pump.abort()
	}
}

// end lets go of everything; nothing reads the body after it. A pump that is stuck in Read is freed at the cost of the connection.
func (u *upload) end() {
	if p := u.pump; p != nil {
		p.abort()
		select {
		case <-p.done:
		default:
			if p.ended.Load() {
				<-p.done
				break
			}
			u.killed = true
			u.x.c.Conn.SetReadDeadline(time.Unix(1, 0))
			<-p.done
		}
		p.release()
	}
	if u.buf != nil {
		pieces.Put(u.buf)
		u.buf = nil
	}
}

// reset makes it fit for the next exchange.
func (u *upload) reset() {
	u.x, u.r, u.err, u.pump = nil, nil, nil, nil
	u.armed.Store(false)
	u.started, u.direct, u.killed, u.aborted = false, false, false, false
	u.moved = time.Time{}
	u.passed.Store(0)
}

func startPump(r io.Reader) *pump {
	p := &pump{
		full: make(chan piece, 2), free: make(chan *[pieceSize]byte, 2),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	p.free <- pieces.Get().(*[pieceSize]byte)
	p.free <- pieces.Get().(*[pieceSize]byte)
	go p.run(r)
	return p
}

func (p *pump) run(r io.Reader) {
	defer close(p.done)
	for {
		var buf *[pieceSize]byte
		select {
		case buf = <-p.free:
		case <-p.stop:
			return
		}
		n, err := r.Read(buf[:])
		p.ended.Store(err != nil)
		p.full <- piece{buf, n, err} // never blocks: there are as many places as buffers
		if err != nil {
			return
		}
	}
}

// next waits for a piece, as long as timeout says: it is asked again when it has passed, and 0 is without bound.
func (p *pump) next(timeout func() time.Duration) ([]byte, error) {
	for {
		if p.given != nil {
			p.free <- p.given
			p.given = nil
		}
		got, err := p.wait(timeout)
		if err != nil {
			return nil, err
		}
		p.given = got.buf
		if got.n > 0 {
			if got.err != nil {
				p.full <- piece{nil, 0, got.err}
			}
			return got.buf[:got.n], nil
		}
		if got.err != nil {
			return nil, got.err
		}
	}
}

func (p *pump) wait(timeout func() time.Duration) (piece, error) {
	select {
	case <-p.stop:
		return piece{}, errGivenUp
	case got := <-p.full:
		return got, nil
	default:
	}
	var late <-chan time.Time
	if d := timeout(); d > 0 {
		if p.timer == nil {
			p.timer = time.NewTimer(d)
		} else {
			p.timer.Reset(d)
		}
		late = p.timer.C
		defer p.timer.Stop()
	}
	select {
	case <-p.stop:
		return piece{}, errGivenUp
	case got := <-p.full:
		return got, nil
	case <-late:
		if timeout() == 0 {
			return p.wait(timeout)
		}
		return piece{}, &message.Error{Reason: message.ReasonBodyTimeout}
	}
}

func (p *pump) abort() { p.once.Do(func() { close(p.stop) }) }

// release gives the buffers back, once its goroutine has ended.
func (p *pump) release() {
	if p.given != nil {
		pieces.Put(p.given)
	}
	for {
		select {
		case buf := <-p.free:
			pieces.Put(buf)
		case got := <-p.full:
			if got.buf != nil {
				pieces.Put(got.buf)
			}
		default:
			return
		}
	}
}
