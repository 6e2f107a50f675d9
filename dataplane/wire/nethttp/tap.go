package nethttp

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// tap reads along with net/http on an HTTP/1 connection. It changes no byte, but it knows where each head and body begins and ends by
// a grammar that leaves no second reading, and so it can do four things that net/http hides: give filters the head as it was written,
// refuse what net/http tolerates (Content-Length beside Transfer-Encoding, bare line feeds, folded lines, a Host beside an
// absolute-form target), tell when a body is wholly buffered, and count what net/http refuses by itself.
//
// Once it finds a fault it looks no further: the connection ends with the exchange that has it.
type tap struct {
	limits *message.Limits

	// For the goroutine that reads.
	where where
	buf   []byte // of the head, or of the line, that is not complete yet
	line  int    // where in buf the current line begins
	lines int    // field lines so far
	left  int64  // bytes to come, in inBody, inChunk and afterChunk

	bad    atomic.Bool // the body is malformed: its exchange must not end well
	begun  atomic.Bool // a head has begun and is not complete
	headed atomic.Bool // a first head was complete

	mu    sync.Mutex // guards what follows
	heads []*head    // complete or refused, not taken yet
	seen  int        // heads so far
	ended int        // bodies that have come to their end
	free  *head
}

type where uint8

const (
	atHead     where = iota
	inBody           // framed by length
	atSize           // of a chunk
	inChunk          // its data
	afterChunk       // its line end
	atTrailer
	lost // a fault was found, or the connection is no longer HTTP
)

// maxChunkLine bounds the size line of a chunk with its extensions, which nobody needs.
const maxChunkLine = 256

// maxTrailer bounds the trailer of a request, in bytes: net/http has the same limit by the size of its buffer.
const maxTrailer = 4 << 10

// feed sees bytes on their way to net/http.
func (t *tap) feed(p []byte) {
	for len(p) > 0 {
		switch t.where {
		case atHead:
			p = t.head(p)
		case inBody, inChunk:
			n := min(int64(len(p)), t.left)
			p = p[n:]
			if t.left -= n; t.left == 0 {
				t.endOfData()
			}
		case afterChunk:
			if want := "\r\n"[2-t.left]; p[0] != want {
				t.fault()
				return
			}
			p = p[1:]
			if t.left--; t.left == 0 {
				t.where = atSize
			}
		case atSize, atTrailer:
			p = t.bodyLine(p)
		default:
			return
		}
	}
}

func (t *tap) endOfData() {
	if t.where == inChunk {
		t.where, t.left = afterChunk, 2
		return
	}
	t.endOfBody()
}

func (t *tap) endOfBody() {
	t.where = atHead
	t.mu.Lock()
	t.ended++
	t.mu.Unlock()
}

func (t *tap) fault() {
	t.where = lost
	t.bad.Store(true)
}

// head takes one line of a head.
func (t *tap) head(p []byte) []byte {
	i := bytes.IndexByte(p, '\n')
	n := i + 1
	if i < 0 {
		n = len(p)
	}
	t.buf = append(t.buf, p[:n]...)
	line := t.buf[t.line:]
	switch {
	case t.limits.MaxHeadBytes > 0 && len(t.buf) > t.limits.MaxHeadBytes:
		if t.line == 0 {
			t.refuse(message.ReasonURITooLong, "no end of the request line within the limit of the head")
		} else {
			t.refuse(message.ReasonHeadTooLarge, "too many bytes")
		}
	case i < 0:
		t.begun.Store(true)
	case len(line) < 2 || line[len(line)-2] != '\r':
		t.refuse(message.ReasonBadHead, "a line ends without a carriage return")
	case len(line) == 2 && t.line == 0:
		t.buf = t.buf[:0] // RFC 9112 2.2: an empty line before the request line says nothing; net/http judges how many
	case len(line) == 2:
		t.complete()
	case t.line > 0 && t.limits.MaxFields > 0 && t.lines >= t.limits.MaxFields:
		t.refuse(message.ReasonHeadTooLarge, "too many field lines")
	default:
		t.begun.Store(true)
		if t.line > 0 {
			t.lines++
		}
		t.line = len(t.buf)
	}
	return p[n:]
}

// complete reads the head that buf holds and decides where its body ends.
func (t *tap) complete() {
	h := t.take()
	h.parse(string(t.buf), t.lines, t.limits)
	t.buf, t.line, t.lines = t.buf[:0], 0, 0
	t.begun.Store(false)
	t.headed.Store(true)

	bodyless := false
	switch {
	case h.reason != message.ReasonNone:
		t.where = lost
	case h.length > 0:
		t.where, t.left = inBody, h.length
	case h.length < 0:
		t.where = atSize
	default:
		bodyless = true
	}
	t.push(h, bodyless)
}

// refuse gives up a head before its end.
func (t *tap) refuse(reason message.Reason, detail string) {
	h := t.take()
	*h = head{}
	if line, _, found := bytes.Cut(t.buf, []byte("\r\n")); found {
		h.requestLine(string(line), t.limits)
	}
	h.reason, h.detail = reason, detail
	t.where, t.buf = lost, nil
	t.begun.Store(false)
	t.push(h, false)
}

func (t *tap) push(h *head, bodyless bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heads = append(t.heads, h)
	t.seen++
	if bodyless {
		t.ended++
	}
}

// take returns a head to fill.
func (t *tap) take() *head {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.free; h != nil {
		t.free = nil
		return h
	}
	return &head{}
}

// bodyLine takes one line of a chunked body: a size, or a trailer field.
func (t *tap) bodyLine(p []byte) []byte {
	i := bytes.IndexByte(p, '\n')
	n := i + 1
	if i < 0 {
		n = len(p)
	}
	limit := maxChunkLine
	if t.where == atTrailer {
		limit = maxTrailer
	}
	t.buf = append(t.buf, p[:n]...)
	line := t.buf[t.line:]
	switch {
	case len(t.buf) > limit:
		t.fault()
	case i < 0:
	case len(line) < 2 || line[len(line)-2] != '\r':
		t.fault()
	case t.where == atSize:
		t.size(line[:len(line)-2])
	case len(line) == 2:
		t.buf, t.line = t.buf[:0], 0
		t.endOfBody()
	default:
		if _, _, fault := field(string(line[:len(line)-2])); fault != "" {
			t.fault()
			return nil
		}
		t.line = len(t.buf)
	}
	return p[n:]
}

// size reads the size line of a chunk.
func (t *tap) size(line []byte) {
	t.buf = t.buf[:0]
	n, ok := chunkSize(line)
	switch {
	case !ok:
		t.fault()
	case n == 0:
		t.where = atTrailer
	default:
		t.where, t.left = inChunk, n
	}
}

// chunkSize reads the size line of a chunk, without its end: hexadecimal digits, and an extension that is not looked at
// (RFC 9112 7.1).
func chunkSize(line []byte) (int64, bool) {
	digits, _, _ := bytes.Cut(line, []byte(";"))
	if len(digits) == 0 || len(digits) > 15 || bytes.IndexByte(line, '\r') >= 0 {
		return 0, false
	}
	var n int64
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | int64(c)
	}
	return n, true
}

// next gives the head of the exchange that begins; nil when there is none, which only a fault of ours could bring about.
func (t *tap) next() (h *head, number int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.heads) == 0 {
		return nil, 0
	}
	h = t.heads[0]
	number = t.seen - len(t.heads) + 1
	t.heads = t.heads[:copy(t.heads, t.heads[1:])]
	return h, number
}

// blame returns the head that net/http has refused, with the reason if there is one that we know: the next one, or what there is of it.
func (t *tap) blame(limits *message.Limits) *head {
	h, _ := t.next()
	if h == nil {
		h = &head{}
		line, _, whole := bytes.Cut(t.buf, []byte("\r\n"))
		if whole && !h.requestLine(string(line), limits) {
			return h
		}
	} else if h.reason == message.ReasonNone && h.hosts != 1 {
		h.refuse(message.ReasonBadHost, "there must be one Host")
	} else if _, ok := message.ParseHost(h.host); !ok {
		h.refuse(message.ReasonBadHost, "%s", h.host)
	}
	if len(h.target) > 0 && h.target[0] == '/' {
		if _, reason, detail := message.ParseTarget(h.target, limits.Paths); reason != message.ReasonNone {
			h.refuse(reason, "%s", detail)
		}
	}
	return h
}

// release takes back a head that is not needed any more.
func (t *tap) release(h *head) {
	t.mu.Lock()
	t.free = h
	t.mu.Unlock()
}

// atHand reports whether all of the body of that head has been read from the connection, so that pulling it waits for nobody.
func (t *tap) atHand(number int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended >= number
}

// off ends the watch: the connection is no longer HTTP.
func (t *tap) off() {
	t.where = lost
}
