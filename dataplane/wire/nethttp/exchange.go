package nethttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// exchange is what the engine needs for one exchange; its memory is used again.
type exchange struct {
	srv *server
	c   *conn
	w   http.ResponseWriter
	r   *http.Request

	ex   message.Exchange
	body message.Body
	src  upload // what body reads from

	one    bool // HTTP/1
	number int  // of the head on its connection

	wmu       sync.Mutex  // guards what writes heads: 1xx may come while the request body is pulled elsewhere
	committed bool        // the final head is out, or nothing more may be written
	headed    atomic.Bool // the final head is out
	hijacked  bool
	broken    bool // the answer must not look whole
	whole     bool // all of it was handed on

	stall    stall // of an HTTP/2 stream's writes
	written  func()
	informer func(int, *message.Header) error
}

func newExchange(s *server) *exchange {
	x := &exchange{srv: s}
	x.informer, x.written = x.inform, x.stall.end
	return x
}

// ServeHTTP is what net/http calls.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*conn)
	if r.ProtoMajor == 1 && c.spoiled.Load() {
		panic(http.ErrAbortHandler) // what net/http takes for a request may be anything
	}
	x := s.exchanges.Get().(*exchange)
	x.c, x.w, x.r, x.one = c, w, r, r.ProtoMajor == 1
	broken := x.run()
	x.recycle()
	if broken {
		panic(http.ErrAbortHandler) // net/http's way to break off
	}
}

// run is an exchange from head to Done.
func (x *exchange) run() (broken bool) {
	if x.one {
		x.c.serving.Store(true)
		x.c.idle.Store(false)
		x.c.linger.Store(false)
	}
	defer func() {
		if p := recover(); p != nil { // of a source that was pulled, or of a tunnel
			x.broke(message.ReasonPanic, fmt.Errorf("%v\n%s", p, debug.Stack()))
		}
		x.finish()
		broken = x.broken
	}()

	if reason, detail := x.read(); reason != message.ReasonNone {
		x.refuse(reason, detail)
	} else {
		x.serve()
		if x.r.Context().Err() != nil {
			x.note(message.ReasonClientLeft, nil) // nobody may be there to hear the answer
		}
	}
	x.respond()
	return false
}

// refuse answers without the handler, which learns of it in Done.
func (x *exchange) refuse(reason message.Reason, detail string) {
	x.ex.Response = failure(reason, detail)
	if x.one {
		x.c.spoil()
	}
}

// spoil makes this exchange the last of its connection: what follows on it cannot be trusted.
func (c *conn) spoil() {
	c.last.Store(true)
	c.spoiled.Store(true)
	c.linger.Store(true)
}

// serve asks the handler for an answer. A panic of it fails this exchange and no other.
func (x *exchange) serve() {
	defer func() {
		if p := recover(); p != nil {
			x.ex.Response = failure(message.ReasonPanic, fmt.Sprintf("%v\n%s", p, debug.Stack()))
		}
	}()
	x.srv.handler.Serve(&x.ex)
	if res := x.ex.Response; res == nil {
		x.ex.Response = failure(message.ReasonInternal, "Serve gave no answer")
	} else if res.Tunnel == nil && (res.Status < 200 || res.Status > 999) {
		x.ex.Response = failure(message.ReasonInternal, fmt.Sprintf("Serve gave the status %d", res.Status))
	}
}

// failure is an answer of ours with the words of a reason.
func failure(reason message.Reason, detail string) *message.Response {
	res := message.Failure(reason, detail)
	if reason == message.ReasonBadMethod {
		res.Header.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS") // RFC 9110 15.5.6
	}
	return res
}

// broke notes the first thing that went wrong with an answer that is on its way, and has the engine break it off.
func (x *exchange) broke(reason message.Reason, err error) {
	x.broken = true
	x.note(reason, err)
}

func (x *exchange) note(reason message.Reason, err error) {
	if x.ex.Outcome.Reason == message.ReasonNone {
		x.ex.Outcome.Reason, x.ex.Outcome.Err = reason, err
	}
}

// finish ends the exchange: nothing of it runs after Done.
func (x *exchange) finish() {
	x.wmu.Lock()
	x.committed = true
	x.wmu.Unlock()

	if x.ex.Outcome.BytesIn == 0 {
		x.ex.Outcome.BytesIn = x.src.passed.Load()
	}
	if !x.hijacked && !x.whole && x.r.Context().Err() != nil {
		x.note(message.ReasonClientLeft, nil)
	}
	if res := x.ex.Response; res != nil && x.broken {
		res.Body.Abort(x.ex.Outcome.Err)
	}
	x.src.Abort(nil) // so that a transport which still sends it ends, and Done can join it
	x.srv.handler.Done(&x.ex)
	x.ex.Cancel(context.Canceled)
	x.src.end()
	x.ex.Request.Body.Release()
	if x.ex.Response != nil {
		x.ex.Response.Body.Release()
	}
	if x.hijacked {
		x.c.Close()
	} else if x.one {
		x.drain()
	}
}

// drain lets net/http read what is left of a request body after an early answer, so that the connection can go on, but not for long.
func (x *exchange) drain() {
	switch {
	case x.src.killed || x.c.tap.bad.Load():
		x.c.spoil()
	case !x.c.tap.atHand(x.number):
		d := x.srv.limits.DrainDuration
		if d <= 0 {
			d = time.Second
		}
		x.c.Conn.SetReadDeadline(time.Now().Add(d))
		x.c.linger.Store(true)
	}
}

func (x *exchange) recycle() {
	x.c, x.w, x.r = nil, nil, nil
	x.ex.Reset()
	x.body = message.Body{}
	x.src.reset()
	x.one, x.number = false, 0
	x.committed, x.hijacked, x.broken, x.whole = false, false, false, false
	x.headed.Store(false)
	x.stall.stalled()
	x.srv.exchanges.Put(x)
}

// inform passes a 1xx answer on. 100 is the engine's own, sent when the body is first pulled; 101 is an answer.
func (x *exchange) inform(code int, h *message.Header) error {
	if code <= http.StatusSwitchingProtocols || code > 199 {
		return nil
	}
	x.wmu.Lock()
	defer x.wmu.Unlock()
	if x.committed {
		return nil
	}
	m := x.w.Header()
	fill(m, h)
	x.w.WriteHeader(code)
	clear(m)
	return nil
}

// sendContinue asks an HTTP/1 client for the body that it holds back. net/http would do so at the first Read, but that happens in the
// pump and could meet another head that is being written.
func (x *exchange) sendContinue() {
	x.wmu.Lock()
	defer x.wmu.Unlock()
	if !x.committed {
		x.w.WriteHeader(http.StatusContinue)
	}
}

// writeReason tells why a write to the client failed.
func (x *exchange) writeReason(err error) message.Reason {
	if errors.Is(err, os.ErrDeadlineExceeded) || x.stall.stalled() {
		return message.ReasonWriteTimeout
	}
	return message.ReasonClientLeft
}
