package nethttp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// two speaks HTTP/2 to an endpoint, with prior knowledge in the clear or over TLS, by net/http's Transport. That one sends a request again only when the backend
// has said that it did not look at it (GOAWAY, REFUSED_STREAM).
type two struct {
	key     message.ConnKey
	options message.TransportOptions
	rt      *http.Transport
	scheme  string
	retired atomic.Bool
}

func newTwo(key message.ConnKey, options message.TransportOptions) *two {
	dialer := newDialer(key, options, protocolTwo)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		nc, err := dialer.dial(ctx)
		if err != nil {
			return nil, &noConnection{err}
		}
		if s, ok := nc.(*secured); ok {
			return s.Conn, nil // net/http looks for ALPN's choice in it
		}
		return nc, nil
	}
	rt := &http.Transport{
		DialContext:            dial,
		DialTLSContext:         dial,
		DisableCompression:     true,
		IdleConnTimeout:        options.IdleTimeout,
		MaxResponseHeaderBytes: options.MaxHeadBytes,
		ExpectContinueTimeout:  continueTimeout,
		Protocols:              new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			// A backend that vanished without a word must not hold requests for ever.
			SendPingTimeout:  options.IdleTimeout,
			PingTimeout:      options.ConnectTimeout,
			WriteByteTimeout: options.IdleTimeout,
		},
	}
	t := &two{key: key, options: options, rt: rt, scheme: "http"}
	if options.TLS != nil {
		t.scheme = "https"
		rt.Protocols.SetHTTP2(true)
	} else {
		rt.Protocols.SetUnencryptedHTTP2(true)
	}
	return t
}

// noConnection marks errors of the dialer.
type noConnection struct{ err error }

func (e *noConnection) Error() string { return e.err.Error() }
func (e *noConnection) Unwrap() error { return e.err }

// stream is one attempt over HTTP/2.
type stream struct {
	t  *two
	at *message.Attempt

	body outgoing
	infs informations

	conns  atomic.Int32 // connections got: one, and one for each replay
	reused atomic.Bool
	head   atomic.Bool // the head has left
}

// RoundTrip makes one attempt.
func (t *two) RoundTrip(ctx context.Context, at *message.Attempt) error {
	at.Response, at.Sent, at.Reused, at.Replays, at.Join = nil, message.SentNothing, false, 0, nil
	if at.Request.Upgrade != "" {
		return &message.Error{Reason: message.ReasonBadUpgrade, Err: errors.New("an upgrade over HTTP/2")}
	}
	if ctx.Err() != nil {
		return message.ContextError(ctx)
	}
	s := &stream{t: t, at: at}
	s.infs.ex, s.infs.limit = at.Exchange, t.options.MaxInformations

	// The body of the answer must outlive ctx, so the request runs in a context of its own.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	req := s.request(own)
	res, err := t.rt.RoundTrip(req)
	stopped := stop()
	s.infs.end()
	s.account()
	if err == nil && !stopped {
		go res.Body.Close() // it waits until the request body is not read any more
	}
	if !stopped {
		cancel()
		return message.ContextError(ctx)
	}
	if err != nil {
		cancel()
		return s.reason(err)
	}
	at.Response = s.response(res, cancel)
	return nil
}

// request makes net/http's form of the request. What it would invent is told not to be.
func (s *stream) request(ctx context.Context) *http.Request {
	in := &s.at.Request
	h := make(http.Header, in.Header.Len()+3)
	fill(h, &in.Header)
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil
	}
	if in.TETrailers {
		h["Te"] = []string{"trailers"}
	}
	target := in.Target.String()
	if strings.HasPrefix(target, "//") {
		target = s.t.scheme + "://" + in.Host.Raw + target // net/http takes the front off again
	}
	req := (&http.Request{
		Method: in.Method,
		URL:    &url.URL{Scheme: s.t.scheme, Host: s.t.key.Endpoint.String(), Opaque: target},
		Host:   in.Host.Raw,
		Header: h,
	}).WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			s.conns.Add(1)
			s.reused.Store(info.Reused)
		},
		WroteHeaders:   func() { s.head.Store(true) },
		Got1xxResponse: s.infs.got,
	}))
	if in.Body != nil && in.Body.Len() != 0 {
		if in.ExpectContinue && in.Body.Passed() == 0 {
			h["Expect"] = []string{"100-continue"}
		}
		s.body.body = in.Body
		s.body.idle = sync.NewCond(&s.body.mu)
		s.at.Join = s.body.join
		req.Body, req.ContentLength = &s.body, in.Body.Len()
	}
	return req
}

// account tells what is known of the sending.
func (s *stream) account() {
	n := int(s.conns.Load())
	s.at.Replays = max(n-1, 0)
	s.at.Reused = s.reused.Load()
	switch {
	case s.body.begun.Load():
		s.at.Sent = message.SentBody
	case s.head.Load():
		s.at.Sent = message.SentHead
	case n > 0:
		s.at.Sent = message.SentUnknown
	}
}

// reason finds what an error of net/http means.
func (s *stream) reason(err error) error {
	if p := s.body.failed(); p != nil {
		return bodyError(p)
	}
	var dial *noConnection
	switch {
	case errors.As(err, &dial):
		s.at.Sent = message.SentNothing
		return dialError(context.Background(), err)
	case s.infs.tooMany.Load():
		return protocolError("too many 1xx answers")
	}
	for _, words := range []string{"PROTOCOL_ERROR", "malformed", "invalid", "COMPRESSION_ERROR", "FLOW_CONTROL", "header list", "1xx", "pseudo"} {
		if strings.Contains(err.Error(), words) {
			return &message.Error{Reason: message.ReasonUpstreamProtocol, Err: err}
		}
	}
	return &message.Error{Reason: message.ReasonUpstreamReset, Err: err}
}

func (s *stream) response(res *http.Response, cancel func()) *message.Response {
	out := &message.Response{Status: res.StatusCode, Length: -1, Origin: message.OriginUpstream}
	fields := make([]message.Field, 0, len(res.Header)+2)
	for name, values := range res.Header {
		if message.Framing(name) {
			continue
		}
		for _, v := range values {
			fields = append(fields, message.Field{Name: name, Value: v})
		}
	}
	out.Header = message.NewHeader(fields...)
	for name := range res.Trailer {
		if !forbiddenTrailer(name) {
			out.Trailer = append(out.Trailer, name)
		}
	}
	src := &incoming{s: s, res: res, cancel: cancel}
	if res.Body == http.NoBody || s.at.Request.Method == http.MethodHead || res.StatusCode == 204 || res.StatusCode == 304 {
		out.Length = res.ContentLength
		src.close(false)
		return out
	}
	length := res.ContentLength
	if len(res.Trailer) > 0 {
		length = -1 // HTTP/1 has trailers only behind chunks
	}
	out.Body = message.NewBody(src, length, nil)
	return out
}

// outgoing is a request body as net/http reads it.
type outgoing struct {
	body  *message.Body
	rest  []byte // of the last piece
	begun atomic.Bool

	mu      sync.Mutex // guards what follows
	idle    *sync.Cond
	reading bool
	closed  bool
	err     error // what the body broke off with
}

func (o *outgoing) Read(p []byte) (int, error) {
	if !o.enter() {
		return 0, errGivenUp
	}
	var err error
	if len(o.rest) == 0 {
		o.rest, err = o.body.Next()
	}
	n := copy(p, o.rest)
	o.rest = o.rest[n:]
	if n > 0 {
		o.begun.Store(true)
	}
	o.leave(err)
	return n, err
}

func (o *outgoing) enter() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reading = !o.closed
	return o.reading
}

func (o *outgoing) leave(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reading = false
	if err != nil && err != io.EOF {
		o.err = err
	}
	if o.closed {
		o.rest = nil
		o.idle.Broadcast()
	}
}

// Close says that net/http starts no further Read; one may still be under way.
func (o *outgoing) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.idle.Broadcast()
	return nil
}

// join waits until nothing reads the body.
func (o *outgoing) join() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed || o.reading {
		o.idle.Wait()
	}
}

func (o *outgoing) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// informations passes 1xx answers on. net/http tells of them where it reads the whole connection, and a slow client must not hold up
// the streams of others: the first one starts a goroutine.
type informations struct {
	ex      *message.Exchange
	limit   int
	tooMany atomic.Bool

	mu    sync.Mutex // guards what follows
	n     int
	queue chan information
	done  chan struct{}
	over  bool
}

type information struct {
	code   int
	header message.Header
}

func (i *informations) got(code int, h textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.n++; i.limit > 0 && i.n > i.limit {
		i.tooMany.Store(true)
		return errors.New("too many 1xx answers")
	}
	if code == http.StatusContinue || i.over || i.ex == nil {
		return nil
	}
	if i.queue == nil {
		i.queue, i.done = make(chan information, max(i.limit, 16)), make(chan struct{})
		go i.pass()
	}
	inf := information{code: code}
	for name, values := range h {
		for _, v := range values {
			inf.header.Add(name, v)
		}
	}
	select {
	case i.queue <- inf:
	default:
	}
	return nil
}

func (i *informations) pass() {
	defer close(i.done)
	for inf := range i.queue {
		i.ex.Inform(inf.code, &inf.header)
	}
}

// end waits until the last one is passed on: nothing informs behind the answer.
func (i *informations) end() {
	i.mu.Lock()
	i.over = true
	queue := i.queue
	i.mu.Unlock()
	if queue != nil {
		close(queue)
		<-i.done
	}
}

// incoming is the body of an HTTP/2 answer as a Source.
type incoming struct {
	s      *stream
	res    *http.Response
	cancel func()
	buf    *[pieceSize]byte
	err    error

	mu    sync.Mutex // guards what follows
	over  bool
	given error
}

func (i *incoming) Next() ([]byte, error) {
	if i.err != nil {
		return nil, i.err
	}
	if i.buf == nil {
		i.buf = pieces.Get().(*[pieceSize]byte)
	}
	for {
		n, err := i.res.Body.Read(i.buf[:])
		if n > 0 {
			return i.buf[:n], nil // the error, if any, comes again
		}
		if err != nil {
			i.err = i.mean(err)
			pieces.Put(i.buf)
			i.buf = nil
			i.close(err != io.EOF)
			return nil, i.err
		}
	}
}

func (i *incoming) mean(err error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case err == io.EOF:
		return err
	case i.given != nil:
		return i.given
	}
	if p := i.s.body.failed(); p != nil {
		return bodyError(p)
	}
	return &message.Error{Reason: message.ReasonResponseTruncated, Err: err}
}

func (i *incoming) More() bool { return i.err != nil }

func (i *incoming) Trailer() *message.Header {
	if i.err != io.EOF {
		return nil
	}
	return trailerOf(i.res.Trailer)
}

func (i *incoming) Abort(err error) {
	i.mu.Lock()
	if i.given == nil && !i.over {
		if err == nil {
			err = errGivenUp
		}
		i.given = bodyError(err)
	}
	i.mu.Unlock()
	i.close(true)
}

// close ends the stream. net/http's Close waits until the request body is not read any more, which may take until its client goes on,
// so an early one is left to itself: cancel has ended the stream before.
func (i *incoming) close(early bool) {
	i.mu.Lock()
	over := i.over
	i.over = true
	i.mu.Unlock()
	if over {
		return
	}
	if early || i.s.at.Join != nil {
		i.cancel()
		go i.res.Body.Close()
	} else {
		i.res.Body.Close()
		i.cancel()
	}
	if i.s.t.retired.Load() {
		i.s.t.rt.CloseIdleConnections()
	}
}

// Retire closes what is idle, and each used connection as it comes back.
func (t *two) Retire() {
	t.retired.Store(true)
	t.rt.CloseIdleConnections()
}

// Revive ends Retire.
func (t *two) Revive() { t.retired.Store(false) }
