package proxy

import (
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// streams is the registry of answers under way: what can outlive the plan that it began on. One goroutine looks at it once a second,
// so that no timer is armed per answer; a stream that idles, whose grace is over, or whose client's proof of identity has ended, is cut.
type streams struct {
	shards [16]shard
	next   atomic.Uint32
	plan   atomic.Pointer[Plan] // that serves; nil before the first
	clock  func() time.Time
	idle   time.Duration
	grace  time.Duration
	once   sync.Once
	quit   chan struct{}
	gone   chan struct{}
}

type shard struct {
	mu   sync.Mutex // guards the list
	head *stream
}

// stream is one answer under way: a body that is still pulled, or a tunnel.
type stream struct {
	shard      *shard
	prev, next *stream // guarded by shard.mu

	live     liveKey
	security string
	touched  atomic.Int64 // when the last piece passed, in nanoseconds
	doomed   atomic.Int64 // when the grace is over; 0: the rule is as it was
	expires  int64        // when the identity ends by which the client came in, in nanoseconds; 0: never
	grpc     bool         // the client is told why in trailers
	last     *message.Error
	trailer  *message.Header
	cut      func(error) // ends it; may be called more than once
	inner    message.Source
	clock    func() time.Time
}

func (s *stream) registered() bool { return s.shard != nil }

func (r *streams) start(clock func() time.Time, idle, grace time.Duration) {
	r.clock, r.idle, r.grace = clock, idle, grace
	r.quit, r.gone = make(chan struct{}), make(chan struct{})
	go r.run()
}

func (r *streams) stop() {
	r.once.Do(func() { close(r.quit) })
	<-r.gone
}

func (r *streams) run() {
	defer close(r.gone)
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.expire()
		case <-r.quit:
			return
		}
	}
}

// expire cuts what idles or is doomed.
func (r *streams) expire() {
	now := r.clock().UnixNano()
	r.sweep(func(s *stream) {
		switch doomed := s.doomed.Load(); {
		case s.expires != 0 && now >= s.expires:
			s.cut(errIdentityExpired)
		case doomed != 0 && now >= doomed:
			s.cut(errRuleGone)
		case r.idle > 0 && now-s.touched.Load() > int64(r.idle):
			s.cut(errIdle)
		}
	})
}

// sweep visits all streams. The visit must not block: a shard's lock is held.
func (r *streams) sweep(visit func(*stream)) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		for s := sh.head; s != nil; s = s.next {
			visit(s)
		}
		sh.mu.Unlock()
	}
}

func (r *streams) add(s *stream) {
	sh := &r.shards[r.next.Add(1)%uint32(len(r.shards))]
	s.touched.Store(r.clock().UnixNano())
	sh.mu.Lock()
	s.shard, s.next = sh, sh.head
	if sh.head != nil {
		sh.head.prev = s
	}
	sh.head = s
	// The plan may have changed while the head was awaited. Under the lock: either this sees the new plan, or its sweep the stream.
	if now := r.plan.Load(); now != nil {
		r.judge(s, now)
	}
	sh.mu.Unlock()
}

// judge gives a stream its grace if the plan does not let it stay, and takes it back if it does again.
func (r *streams) judge(s *stream, now *Plan) {
	if now.has(s.live, s.security) {
		s.doomed.Store(0)
		return
	}
	s.doomed.CompareAndSwap(0, r.clock().Add(r.grace).UnixNano())
}

// remove takes the stream out; after it returns, cut is not called any more.
func (r *streams) remove(s *stream) {
	sh := s.shard
	sh.mu.Lock()
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		sh.head = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
	sh.mu.Unlock()
}

// Count is the number of answers under way, for metrics.
func (p *Proxy) Count() (n int) {
	p.streams.sweep(func(*stream) { n++ })
	return n
}

// watch registers the answer when its end is not at hand yet. A backend's body is seen through the stream, which notes each piece.
func (l *life) watch() {
	r := l.ex.Response
	if l.rule == nil || r.Origin != message.OriginUpstream || r.Body == nil && r.Tunnel == nil {
		return
	}
	s := &l.stream
	s.live, s.security, s.clock = l.rule.live, l.rule.security, l.p.options.Clock
	s.expires, s.grpc = l.identityExpires(), l.ex.Request.GRPC()
	if r.Tunnel != nil {
		l.watchTunnel(r)
	} else {
		s.inner = r.Body.Watch(s)
		s.cut = s.inner.Abort
	}
	l.p.streams.add(s)
}

func (l *life) watchTunnel(r *message.Response) {
	run, s := r.Tunnel, &l.stream
	var mu sync.Mutex // guards closer and reason
	var closer io.Closer
	var reason error
	var dropped bool
	s.cut = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if reason == nil {
			reason = err
			if closer != nil {
				go closer.Close() // not under the registry's lock
			}
		}
	}
	r.Tunnel = func(client message.Tunnel) message.Outcome {
		if client == nil { // by the engine, and then by done
			if dropped {
				return message.Outcome{}
			}
			dropped = true
			return run(nil)
		}
		mu.Lock()
		closer = client
		early := reason
		mu.Unlock()
		if early != nil {
			client.Close()
		}
		out := run(&watchedTunnel{client, s})
		mu.Lock()
		defer mu.Unlock()
		if e, ok := reason.(*message.Error); ok {
			out.Reason, out.Err = e.Reason, e
		}
		return out
	}
}

// watchedTunnel notes when bytes pass.
type watchedTunnel struct {
	message.Tunnel
	s *stream
}

func (t *watchedTunnel) Read(p []byte) (int, error) {
	n, err := t.Tunnel.Read(p)
	t.s.touch()
	return n, err
}

func (t *watchedTunnel) Write(p []byte) (int, error) {
	n, err := t.Tunnel.Write(p)
	t.s.touch()
	return n, err
}

func (s *stream) touch() { s.touched.Store(s.clock().UnixNano()) }

// Next and its friends make the stream the source of the body that it watches.
func (s *stream) Next() ([]byte, error) {
	p, err := s.inner.Next()
	if err == nil {
		s.touch()
		return p, nil
	}
	if s.grpc && s.ended(err) {
		return nil, io.EOF
	}
	return nil, err
}

// ended reports whether it was us who cut a gRPC stream, for a reason that its client can be told: then it ends in trailers, where a
// client finds whether it should come again with a new credential. The engine takes that for a good end; done puts it right.
func (s *stream) ended(err error) bool {
	var e *message.Error
	if !errors.As(err, &e) || e != errIdentityExpired && e != errRuleGone {
		return false
	}
	s.last, s.trailer = e, new(message.Header)
	s.trailer.Set("Grpc-Status", strconv.Itoa(e.Reason.GRPC()))
	s.trailer.Set("Grpc-Message", percentEncode(e.Reason.Text()))
	return true
}

func (s *stream) More() bool      { return s.inner.More() }
func (s *stream) Abort(err error) { s.inner.Abort(err) }

func (s *stream) Trailer() *message.Header {
	if s.trailer != nil {
		return s.trailer
	}
	return s.inner.Trailer()
}

// identityExpires is when the client's proof of identity ends, in nanoseconds; 0: never. Filter auth has made it the earliest of all.
func (l *life) identityExpires() int64 {
	if who := l.ex.Identity; who != nil && !who.Expires.IsZero() {
		return who.Expires.UnixNano()
	}
	return 0
}

// upload notes when a piece of the request body passes: a stream whose client alone speaks is under way, too. It is the body's source. A
// piece that comes when the client's identity has ended is not taken; a request that is whole by then is waited for, however long its
// answer takes, since the work is being done.
type upload struct {
	inner   message.Source
	clock   func() time.Time
	s       *stream
	expires int64
}

// watchUpload puts the upload between the request body and its source, before the first attempt.
func (l *life) watchUpload() {
	if b := l.ex.Request.Body; b != nil {
		l.upload = upload{clock: l.p.options.Clock, s: &l.stream, expires: l.identityExpires()}
		l.upload.inner = b.Watch(&l.upload)
	}
}

func (u *upload) Next() ([]byte, error) {
	p, err := u.inner.Next()
	now := u.clock().UnixNano()
	u.s.touched.Store(now)
	if err == nil && u.expires != 0 && now >= u.expires {
		return nil, errIdentityExpired
	}
	return p, err
}
func (u *upload) More() bool               { return u.inner.More() }
func (u *upload) Trailer() *message.Header { return u.inner.Trailer() }
func (u *upload) Abort(err error)          { u.inner.Abort(err) }
