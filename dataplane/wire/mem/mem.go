// Package mem is an engine without sockets: it runs exchanges through a Handler in memory, and lets Go functions be the backends. The
// tests of filters, proxy and aggregation use it; it keeps the same contract as the engines that face clients, and wiretest holds it
// to that.
//
// A Runner uses its memory again and allocates next to nothing for a plain exchange, so that what a test measures is the handler. Not
// here: bytes. A Request is given as its parts, so nothing can be framed wrong, and its Header is taken as it is, without what frames.
package mem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Name is what exchanges of this engine carry as their Wire.
const Name = "mem"

// Request is what a client sends. The zero value is GET http://example.com/ over HTTP/1.1.
type Request struct {
	Method  string // "" GET
	Scheme  string // "" http
	Host    string // "" example.com; "-" none
	Target  string // "" /
	Version message.Version
	Old     bool // HTTP/1.0, which is Version's zero value
	Header  message.Header

	Content [][]byte // the body, in the pieces in which it comes
	Length  int64    // what is announced: 0 the length of Content, −1 nothing
	Body    message.Source
	Trailer *message.Header

	Upgrade        string
	ExpectContinue bool
	TETrailers     bool

	// Leave, when closed, makes the client go away, whatever is under way.
	Leave <-chan struct{}
	// LeaveAfter makes it go away after that many bytes of the answer's body; 0 never.
	LeaveAfter int
	// Tunnel is the client's side of a tunnel.
	Tunnel func(message.Tunnel)
	// Discard drops the body of the answer instead of keeping it.
	Discard bool
}

// Response is what the client got. Its slices are good until the next Do of the Runner.
type Response struct {
	Status    int
	Header    *message.Header
	Length    int64 // as announced; −1 when it is not
	Body      []byte
	Trailer   *message.Header
	Informed  []Information
	Continued bool // 100 Continue was sent: the body was pulled
	Broken    bool // the answer broke off, and the client could tell
	Outcome   message.Outcome
	Reason    message.Reason
}

// Information is a 1xx answer.
type Information struct {
	Code   int
	Header message.Header
}

// Runner runs exchanges, one at a time.
type Runner struct {
	Handler message.Handler
	Conn    *message.Conn // nil: one from loopback
	Limits  message.Limits

	own  *message.Conn
	ex   message.Exchange
	body message.Body
	src  source
	req  *Request
	res  Response
	left atomic.Bool // the client has gone

	informMu sync.Mutex // guards res.Informed and over: 1xx answers may come from another goroutine
	over     bool
	informer func(int, *message.Header) error
}

// Do runs one exchange through h. For many, a Runner is cheaper.
func Do(h message.Handler, conn *message.Conn, req Request) Response {
	r := Runner{Handler: h, Conn: conn}
	return r.Do(&req)
}

var errLeft = &message.Error{Reason: message.ReasonClientLeft}

// Do runs one exchange, from head to Done.
func (r *Runner) Do(req *Request) Response {
	r.prepare(req)
	stop := r.watch()
	r.run()
	stop()
	return r.res
}

func (r *Runner) prepare(req *Request) {
	r.req = req
	r.ex.Reset()
	r.res = Response{Body: r.res.Body[:0], Informed: r.res.Informed[:0]}
	r.src = source{r: r, rest: req.Content, inner: req.Body}
	r.left.Store(false)
	r.over = false
	if r.informer == nil {
		r.informer = r.inform
	}
	ex := &r.ex
	ex.Conn, ex.Wire, ex.Received = r.Conn, Name, time.Now()
	if ex.Conn == nil {
		if r.own == nil {
			r.own = &message.Conn{Remote: netip.MustParseAddrPort("127.0.0.1:40000"), Local: netip.MustParseAddrPort("127.0.0.1:80")}
		}
		ex.Conn = r.own
	}
	ex.Request.Method = or(req.Method, "GET")
	ex.Request.Scheme = or(req.Scheme, "http")
	ex.Request.Version = req.Version
	if req.Version == message.HTTP10 && !req.Old {
		ex.Request.Version = message.HTTP11
	}
	if ex.Request.Version != message.HTTP10 {
		ex.Informer, ex.MaxInform = r.informer, r.Limits.MaxInform
	}
	ex.Request.Header = req.Header.Share()
	ex.Request.Header.DelFunc(func(name, _ string) bool { return message.Framing(name) })
	if several(&ex.Request.Header, "Cookie") {
		ex.Request.Header.Set("Cookie", strings.Join(ex.Request.Header.Values("Cookie"), "; "))
	}
	ex.Request.Upgrade, ex.Request.ExpectContinue, ex.Request.TETrailers = req.Upgrade, req.ExpectContinue, req.TETrailers
}

func several(h *message.Header, name string) bool {
	_, one := h.Only(name)
	return !one && h.Has(name)
}

// watch has the client go away when Leave is closed.
func (r *Runner) watch() (stop func()) {
	if r.req.Leave == nil && r.req.LeaveAfter == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	r.ex.WithParent(ctx)
	r.src.gone = ctx.Done()
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-r.req.Leave:
			r.left.Store(true)
			cancel(errLeft)
			r.src.wake()
		case <-done:
		}
	}()
	return func() {
		close(done)
		<-ended
		cancel(context.Canceled)
	}
}

func (r *Runner) run() {
	defer func() {
		if p := recover(); p != nil {
			r.broke(message.ReasonPanic, fmt.Errorf("%v", p))
		}
		r.finish()
	}()
	if reason, detail := r.read(); reason != message.ReasonNone {
		r.ex.Response = message.Failure(reason, detail)
	} else {
		r.serve()
	}
	r.respond()
}

// read does what an engine does with a head.
func (r *Runner) read() (message.Reason, string) {
	req, limits := &r.ex.Request, &r.Limits
	target, host := or(r.req.Target, "/"), or(r.req.Host, "example.com")
	if host == "-" {
		host = ""
	}
	req.Target.Raw, req.Host.Raw = target, host
	size := len(req.Method) + len(target) + len(host) + req.Header.Size() + 4*req.Header.Len()
	switch {
	case limits.MaxURIBytes > 0 && len(target) > limits.MaxURIBytes:
		return message.ReasonURITooLong, ""
	case limits.MaxHeadBytes > 0 && size > limits.MaxHeadBytes, limits.MaxFields > 0 && req.Header.Len()+1 > limits.MaxFields:
		return message.ReasonHeadTooLarge, ""
	case req.Method == "CONNECT" || req.Method == "TRACE":
		return message.ReasonBadMethod, ""
	case req.Upgrade != "" && req.Upgrade != "websocket":
		req.Upgrade = ""
	}
	var ok bool
	if req.Host, ok = message.ParseHost(host); !ok {
		return message.ReasonBadHost, ""
	}
	if target == "*" && req.Method != "OPTIONS" {
		return message.ReasonBadTarget, ""
	}
	var reason message.Reason
	var detail string
	if req.Target, reason, detail = message.ParseTarget(target, limits.Paths); reason != message.ReasonNone {
		return reason, detail
	}
	return r.readBody()
}

func (r *Runner) readBody() (message.Reason, string) {
	length := r.req.Length
	if length == 0 {
		for _, p := range r.req.Content {
			length += int64(len(p))
		}
	}
	if length == 0 && r.req.Body == nil {
		return message.ReasonNone, ""
	}
	if limit := r.Limits.MaxBodyBytes; limit > 0 && length > limit {
		return message.ReasonBodyTooLarge, ""
	}
	r.body = *message.NewBody(&r.src, length, r.Limits.BodyBudget)
	r.ex.Request.Body = &r.body
	return message.ReasonNone, ""
}

func (r *Runner) serve() {
	defer func() {
		if p := recover(); p != nil {
			r.ex.Response = message.Failure(message.ReasonPanic, fmt.Sprintf("%v\n%s", p, debug.Stack()))
		}
	}()
	r.Handler.Serve(&r.ex)
	if r.ex.Response == nil {
		r.ex.Response = message.Failure(message.ReasonInternal, "Serve gave no answer")
	}
}

func (r *Runner) respond() {
	res := r.ex.Response
	r.informMu.Lock()
	r.over = true
	r.informMu.Unlock()
	if res.Tunnel != nil {
		r.tunnel(res)
		return
	}
	r.res.Status, r.res.Header, r.res.Reason = res.Status, &res.Header, res.Reason
	r.res.Length = res.Body.Len()
	bodyless := r.ex.Request.Method == "HEAD" || res.Status == 204 || res.Status == 304
	if bodyless && (res.Length >= 0 || res.Body == nil) {
		r.res.Length = res.Length
	}
	switch {
	case res.Body == nil:
	case bodyless:
		res.Body.Abort(nil)
	default:
		r.pull(res.Body)
	}
}

func (r *Runner) pull(body *message.Body) {
	if r.src.gone != nil {
		aborted := make(chan struct{})
		stop := context.AfterFunc(r.ex.Context(), func() { body.Abort(errLeft); close(aborted) })
		defer func() { // after Done nobody touches the body
			if !stop() {
				<-aborted
			}
		}()
	}
	left := body.Len()
	for {
		p, err := body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			r.broke(reasonOf(err, message.ReasonResponseTruncated), err)
			return
		}
		if left >= 0 {
			if left -= int64(len(p)); left < 0 {
				r.broke(message.ReasonInternal, errors.New("the body is longer than announced"))
				return
			}
		}
		r.ex.Outcome.BytesOut += int64(len(p))
		if !r.req.Discard {
			r.res.Body = append(r.res.Body, p...)
		}
		if n := r.req.LeaveAfter; n > 0 && r.ex.Outcome.BytesOut >= int64(n) {
			r.left.Store(true)
		}
		if r.left.Load() {
			r.broke(message.ReasonClientLeft, errLeft)
			return
		}
	}
	if left > 0 {
		r.broke(message.ReasonResponseTruncated, io.ErrUnexpectedEOF)
		return
	}
	r.res.Trailer = body.Trailer()
}

func reasonOf(err error, other message.Reason) message.Reason {
	var known *message.Error
	if errors.As(err, &known) {
		return known.Reason
	}
	return other
}

func (r *Runner) broke(reason message.Reason, err error) {
	r.res.Broken = true
	if r.ex.Outcome.Reason == message.ReasonNone {
		r.ex.Outcome.Reason, r.ex.Outcome.Err = reason, err
	}
	if res := r.ex.Response; res != nil {
		res.Body.Abort(err)
	}
}

// finish ends the exchange as every engine does.
func (r *Runner) finish() {
	if r.ex.Outcome.BytesIn == 0 {
		r.ex.Outcome.BytesIn = r.src.passed
	}
	if r.left.Load() && r.ex.Outcome.Reason == message.ReasonNone {
		r.ex.Outcome.Reason = message.ReasonClientLeft
	}
	r.src.Abort(nil)
	r.Handler.Done(&r.ex)
	r.ex.Cancel(context.Canceled)
	r.ex.Request.Body.Release()
	if r.ex.Response != nil {
		r.ex.Response.Body.Release()
	}
	r.res.Outcome = r.ex.Outcome
}

func (r *Runner) inform(code int, h *message.Header) error {
	r.informMu.Lock()
	defer r.informMu.Unlock()
	if !r.over && code > 101 && code < 200 {
		r.res.Informed = append(r.res.Informed, Information{code, h.Clone()})
	}
	return nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// source is the request body.
type source struct {
	r       *Runner
	inner   message.Source // nil: rest
	rest    [][]byte
	passed  int64
	gone    <-chan struct{} // nil: the client stays
	aborted atomic.Bool
	ended   bool
}

func (s *source) Next() ([]byte, error) {
	if s.aborted.Load() || s.r.left.Load() {
		return nil, errLeft
	}
	s.r.res.Continued = s.r.res.Continued || s.r.req.ExpectContinue
	p, err := s.piece()
	if err != nil {
		s.ended = err == io.EOF
		return nil, err
	}
	s.passed += int64(len(p))
	if limit := s.r.Limits.MaxBodyBytes; limit > 0 && s.passed > limit {
		return nil, &message.Error{Reason: message.ReasonBodyTooLarge}
	}
	return p, nil
}

func (s *source) piece() ([]byte, error) {
	if s.inner != nil {
		return s.inner.Next()
	}
	if len(s.rest) == 0 {
		return nil, io.EOF
	}
	p := s.rest[0]
	s.rest = s.rest[1:]
	return p, nil
}

func (s *source) More() bool {
	if s.inner != nil {
		return s.inner.More()
	}
	return true // neither a piece nor the end is waited for
}

func (s *source) Trailer() *message.Header {
	if !s.ended {
		return nil
	}
	return s.r.req.Trailer
}

func (s *source) Abort(error) {
	s.aborted.Store(true)
	s.wake()
}

// wake frees a Next that waits for a source of the test's own.
func (s *source) wake() {
	if s.inner != nil {
		s.inner.Abort(errLeft)
	}
}
