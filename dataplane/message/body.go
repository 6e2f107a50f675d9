package message

import (
	"errors"
	"io"
	"sync/atomic"
)

// Source is where the bytes of a body come from. It is pulled by whoever needs the next piece.
type Source interface {
	// Next returns a piece that is valid until the next call, or io.EOF after the last one. A piece is never empty without an error.
	Next() ([]byte, error)
	// More reports whether a piece is at hand without waiting. False tells a writer to flush what it has (server-sent events, gRPC).
	More() bool
	// Trailer returns the trailer fields, after io.EOF; nil when there are none.
	Trailer() *Header
	// Abort gives the rest up: a blocked Next returns soon, and err tells the other side's end why. It may be called from another
	// goroutine, more than once, and after io.EOF.
	Abort(err error)
}

// ErrTooLarge is returned by Body.Buffer when the body is longer than was asked for. Nothing is lost: what was read stays in front.
var ErrTooLarge = errors.New("body is larger than the buffer that was asked for")

// ErrNoBudget is returned by Body.Buffer when the process has no memory left for bodies (see Budget). Nothing is lost.
var ErrNoBudget = errors.New("the memory for buffered bodies is spent")

// Budget bounds the bytes of all bodies that a process holds back, for retries, mirrors and buffering. The zero Budget refuses
// everything; a nil one is without bound.
type Budget struct {
	left    atomic.Int64
	refused atomic.Int64
}

// NewBudget returns a budget of that many bytes.
func NewBudget(bytes int64) *Budget {
	b := &Budget{}
	b.left.Store(bytes)
	return b
}

// Take takes n bytes, or nothing.
func (b *Budget) Take(n int64) bool {
	if b == nil || n == 0 {
		return true
	}
	if b.left.Add(-n) < 0 {
		b.left.Add(n)
		b.refused.Add(1)
		return false
	}
	return true
}

// Give returns n bytes.
func (b *Budget) Give(n int64) {
	if b != nil {
		b.left.Add(n)
	}
}

// Left is what can still be taken, in bytes; Refused counts the takings that were refused. For metrics.
func (b *Budget) Left() int64    { return b.left.Load() }
func (b *Budget) Refused() int64 { return b.refused.Load() }

// Body is a message's content. It is pulled like its Source, can be buffered once for all who ask, and can keep a prefix while it
// streams, so that another attempt or a mirror can read it again. One goroutine at a time uses a Body; Abort and Ended alone may come
// from another one.
type Body struct {
	src    Source
	length int64
	budget *Budget

	kept    []byte // the first bytes, when they are held
	keeping int    // how many bytes may be held in all; 0: none
	held    bool   // all that was pulled from src so far is in kept
	pos     int    // what of kept has been read in this pass
	passed  int64  // bytes pulled from src
	taken   int64  // bytes taken from the budget
	end     error  // what src ended with
	ended   uint32 // 1: src has come to io.EOF; atomic, and no atomic.Bool since bodies are moved before their use
	inner   *Body  // what was wrapped, whose memory is given back with this one's
	touched bool   // wrapped or buffered: its bytes need not be src's
}

// NewBody returns a body over src. Length is the number of bytes that were announced, −1 when unknown.
func NewBody(src Source, length int64, budget *Budget) *Body {
	return &Body{src: src, length: length, budget: budget, held: true}
}

// BodyOf returns a body of these bytes; they must not change any more. An empty one is nil: no body.
func BodyOf(content []byte) *Body {
	if len(content) == 0 {
		return nil
	}
	return NewBody(&bytesSource{content}, int64(len(content)), nil)
}

// Len is the announced number of bytes; −1 when unknown. A nil body has 0.
func (b *Body) Len() int64 {
	if b == nil {
		return 0
	}
	return b.length
}

// Passed is the number of bytes that were pulled from the source so far, replays not counted.
func (b *Body) Passed() int64 {
	if b == nil {
		return 0
	}
	return b.passed
}

// Ended reports whether the source has come to its end, with io.EOF. Any goroutine may ask: one who hears yes sees all that was read.
func (b *Body) Ended() bool { return b == nil || atomic.LoadUint32(&b.ended) == 1 }

// over notes what the source ended with.
func (b *Body) over(err error) {
	b.end = err
	if err == io.EOF {
		atomic.StoreUint32(&b.ended, 1)
	}
}

// Next, More, Trailer and Abort make a Body a Source.
func (b *Body) Next() ([]byte, error) {
	if b.pos < len(b.kept) {
		p := b.kept[b.pos:]
		b.pos = len(b.kept)
		return p, nil
	}
	return b.pull()
}

func (b *Body) pull() ([]byte, error) {
	if b.end != nil {
		return nil, b.end
	}
	p, err := b.src.Next()
	if err != nil {
		b.over(err)
		return nil, err
	}
	b.passed += int64(len(p))
	b.hold(p)
	return p, nil
}

// hold appends p to the kept prefix while it fits; the moment that it doesn't, the prefix is of no more use and is dropped.
func (b *Body) hold(p []byte) {
	if !b.held {
		return
	}
	if b.keeping == 0 || len(b.kept)+len(p) > b.keeping || !b.take(int64(len(p))) {
		b.held = false
		b.dropKept()
		return
	}
	b.kept = append(b.kept, p...)
	b.pos = len(b.kept)
}

func (b *Body) dropKept() {
	b.kept, b.pos = nil, 0
	b.give()
}

func (b *Body) take(n int64) bool {
	if !b.budget.Take(n) {
		return false
	}
	b.taken += n
	return true
}

func (b *Body) give() {
	b.budget.Give(b.taken)
	b.taken = 0
}

func (b *Body) More() bool {
	if b.pos < len(b.kept) {
		return true
	}
	return b.end == nil && b.src.More()
}

func (b *Body) Trailer() *Header {
	if b == nil || b.src == nil {
		return nil
	}
	return b.src.Trailer()
}

func (b *Body) Abort(err error) {
	if b != nil {
		b.src.Abort(err)
	}
}

// Release gives the memory of the body back to the budget. The engine calls it once, after Done.
func (b *Body) Release() {
	for ; b != nil; b = b.inner {
		b.held = false
		b.dropKept()
	}
}

// Keep asks that the first limit bytes be held while they stream, so that Rewind can start again. The largest limit of all who ask
// counts. It must be called before the first Next to be of use.
func (b *Body) Keep(limit int) {
	if b != nil && b.passed == 0 {
		b.keeping = max(b.keeping, limit)
	}
}

// Held returns the whole body when it has ended and is held, so that a mirror can send it again; ok is false otherwise.
func (b *Body) Held() (content []byte, ok bool) {
	if b == nil {
		return nil, true
	}
	if b.end != io.EOF || !b.held {
		return nil, b.end == io.EOF && b.passed == 0
	}
	return b.kept, true
}

// Rewind starts again from the first byte. It reports false, and does nothing, when a byte that was pulled is not held any more.
func (b *Body) Rewind() bool {
	if !b.Rewindable() {
		return false
	}
	if b != nil {
		b.pos = 0
	}
	return true
}

// Rewindable reports what Rewind would.
func (b *Body) Rewindable() bool { return b == nil || b.held || b.passed == 0 }

// Buffer reads all of the body, once, and returns it; all who ask share the same bytes and must not change them. With ErrTooLarge or
// ErrNoBudget nothing is lost: the body then streams on, what was read in front. Limit is in bytes. A nil body is empty.
func (b *Body) Buffer(limit int) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	if b.length > int64(limit) {
		return nil, ErrTooLarge
	}
	if b.passed == 0 {
		b.keeping = max(b.keeping, limit)
	}
	if !b.held {
		return nil, ErrTooLarge
	}
	pos := b.pos
	for b.end == nil {
		p, err := b.src.Next()
		if err != nil {
			b.over(err)
			break
		}
		b.passed += int64(len(p))
		if !b.take(int64(len(p))) {
			b.front(p)
			b.pos = pos
			return nil, ErrNoBudget
		}
		b.kept = append(b.kept, p...)
		if len(b.kept) > limit {
			b.pos = pos
			b.keeping = max(b.keeping, len(b.kept))
			return nil, ErrTooLarge
		}
	}
	b.pos = pos
	if b.end != io.EOF {
		return nil, b.end
	}
	return b.kept, nil
}

// front puts a piece for which there was no budget in front of what follows: it was read and must not be lost.
func (b *Body) front(p []byte) {
	b.kept = append(b.kept, p...)
	b.keeping = len(b.kept)
}

// Replace makes the body these bytes; what is left of the old one is given up.
func (b *Body) Replace(content []byte) {
	b.src.Abort(nil)
	b.Release()
	*b = Body{src: &bytesSource{content}, length: int64(len(content)), budget: b.budget, held: true, touched: true}
}

// Wrap puts f around the source; length is the new one in bytes, −1 when unknown. It must be called before the first Next, and after
// any Buffer (whose bytes then pass through f).
func (b *Body) Wrap(f func(Source) Source, length int64) {
	inner := new(Body)
	*inner = *b
	inner.pos = 0
	inner.keeping = len(inner.kept) // who wants to read again keeps what comes out of f, and it is not held twice
	*b = Body{src: f(inner), length: length, budget: b.budget, held: true, keeping: b.keeping, inner: inner, touched: true}
}

// Watch puts w between the body and its source, which it returns: w passes every piece on as it is, and only looks. Before the first
// Next.
func (b *Body) Watch(w Source) Source {
	inner := b.src
	b.src = w
	return inner
}

// Raw returns the source itself when nobody has touched or read the body and its length is known, so that an engine may splice.
func (b *Body) Raw() (Source, bool) {
	if b == nil || b.touched || b.passed > 0 || b.keeping > 0 || b.length < 0 {
		return nil, false
	}
	return b.src, true
}

// bytesSource is a body that is at hand.
type bytesSource struct{ rest []byte }

func (s *bytesSource) Next() ([]byte, error) {
	if len(s.rest) == 0 {
		return nil, io.EOF
	}
	p := s.rest
	s.rest = nil
	return p, nil
}
func (s *bytesSource) More() bool       { return len(s.rest) > 0 }
func (s *bytesSource) Trailer() *Header { return nil }
func (s *bytesSource) Abort(error)      {} // nothing waits, and another goroutine may call it
