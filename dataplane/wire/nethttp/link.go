package nethttp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// link is a connection to an endpoint over HTTP/1.
type link struct {
	net.Conn
	t         *one
	raw       syscall.RawConn // to look whether it still stands; nil when it cannot be told
	used      bool
	idleSince time.Time
	broken    atomic.Bool // a write failed
	dead      atomic.Bool // cut

	out  []byte // what is about to be written
	in   []byte // what was read and not yet taken is in[r:w]
	r, w int

	peek  func(fd uintptr) bool
	alive bool
}

const (
	linkBuffer = 4 << 10  // what an idle connection holds for reading, in bytes
	keepBuffer = 20 << 10 // the most that it keeps of a larger one
)

func newLink(t *one, nc net.Conn) *link {
	l := &link{Conn: nc, t: t, in: make([]byte, linkBuffer)}
	socket := nc
	if s, ok := nc.(*secured); ok {
		socket = s.NetConn()
	}
	if sc, ok := socket.(syscall.Conn); ok {
		l.raw, _ = sc.SyscallConn()
	}
	l.peek = func(fd uintptr) bool {
		l.alive = nothingToRead(fd)
		return true
	}
	return l
}

// standing reports whether an idle connection is fit for a request: not closed by the backend, and no byte sent without a request for
// it, which would become the answer to somebody else's (threats 6).
func (l *link) standing() bool {
	if d := l.t.options.IdleTimeout; d > 0 && time.Since(l.idleSince) >= d {
		return false
	}
	if s, ok := l.Conn.(*secured); ok && !s.silent() {
		return false
	}
	if l.raw == nil {
		return true
	}
	return l.raw.Read(l.peek) == nil && l.alive
}

// cut wakes whoever reads or writes, for good.
func (l *link) cut() {
	l.dead.Store(true)
	l.SetDeadline(time.Unix(1, 0))
}

// readUntil sets the read deadline, but never undoes cut.
func (l *link) readUntil(t time.Time) {
	l.SetReadDeadline(t)
	if l.dead.Load() {
		l.SetDeadline(time.Unix(1, 0))
	}
}

// quiet reports whether nothing of an answer has come.
func (l *link) quiet() bool { return l.r == l.w }

// keep holds on to a buffer for the next head, if it isn't too large.
func (l *link) keep(out []byte) {
	if cap(out) <= keepBuffer {
		l.out = out[:0]
	}
}

// fill reads more. The bytes that were there stay where in[r:w] says.
func (l *link) fill() error {
	if l.r == l.w {
		l.r, l.w = 0, 0
	}
	if l.w == len(l.in) {
		if l.r > 0 {
			l.w = copy(l.in, l.in[l.r:l.w])
			l.r = 0
		} else {
			l.in = append(l.in, make([]byte, len(l.in))...)
		}
	}
	for {
		n, err := l.Read(l.in[l.w:])
		l.w += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end finds the first line end behind skip bytes and returns the index in in behind it; limit is the most that may be looked at.
func (l *link) end(skip, limit int) (int, error) {
	for {
		if i := bytes.IndexByte(l.in[l.r+skip:l.w], '\n'); i >= 0 {
			return l.r + skip + i + 1, nil
		}
		skip = l.w - l.r
		if limit > 0 && skip > limit {
			return 0, protocolError("a head or line over the limit")
		}
		if err := l.fill(); err != nil {
			return 0, err
		}
	}
}

// answerHead is the head of an answer, read by the strict grammar.
type answerHead struct {
	status    int
	header    message.Header
	framing   bodyFraming
	length    int64 // −1: not given
	upgrade   string
	trailer   []string
	keepAlive bool
}

type bodyFraming uint8

const (
	noBody   bodyFraming = iota // HEAD, 1xx, 204, 304
	byLength                    // Content-Length
	byChunks                    // Transfer-Encoding: chunked
	byClose                     // until the connection ends
)

// readHead reads the next head. Method is that of the request; limit is in bytes, 0: none.
func (l *link) readHead(method string, limit int) (*answerHead, error) {
	size, lines := 0, 0
	for {
		e, err := l.end(size, limit)
		if err != nil {
			return nil, headError(err, l.w > l.r)
		}
		n := e - l.r - size
		if n < 2 || l.in[e-2] != '\r' {
			return nil, protocolError("a line ends without a carriage return")
		}
		size += n
		if limit > 0 && size > limit {
			return nil, protocolError("the head is over the limit")
		}
		if n == 2 {
			break
		}
		lines++
	}
	raw := string(l.in[l.r : l.r+size])
	l.r += size
	return parseAnswer(raw, lines-1, method)
}

// headError tells a backend that went away from one that talks nonsense. A deadline passes as it is.
func headError(err error, some bool) error {
	var known *message.Error
	if errors.As(err, &known) {
		return err
	}
	if err == io.EOF && some {
		err = io.ErrUnexpectedEOF
	}
	return &message.Error{Reason: message.ReasonUpstreamReset, Err: err}
}

func parseAnswer(raw string, lines int, method string) (*answerHead, error) {
	h := &answerHead{length: -1}
	line, rest := cutLine(raw)
	if len(line) < 12 || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return nil, protocolError("the status line is malformed")
	}
	status, err := strconv.ParseUint(line[9:12], 10, 16)
	if err != nil || status < 100 {
		return nil, protocolError("the status is no number from 100 to 999")
	}
	h.status = int(status)
	h.keepAlive = line[7] == '1'

	fields := make([]message.Field, 0, max(lines, 0))
	var f framing
	for {
		if line, rest = cutLine(rest); line == "" {
			break
		}
		name, value, fault := field(line)
		if fault != "" {
			return nil, protocolError(fault)
		}
		if !message.Framing(name) {
			fields = append(fields, message.Field{Name: name, Value: value})
			continue
		}
		h.typed(name, value, &f)
	}
	for _, list := range f.connection {
		if hasToken(list, "close") {
			h.keepAlive = false
		}
		for token := range strings.SplitSeq(list, ",") {
			if token = strings.Trim(token, " \t"); token != "" && !message.EqualName(token, "Set-Cookie") {
				fields = deleteField(fields, token)
			}
		}
	}
	h.header = message.NewHeader(fields...)
	return h, h.frame(&f, method, raw[7] == '1')
}

func (h *answerHead) typed(name, value string, f *framing) {
	switch {
	case message.EqualName(name, "Content-Length"):
		f.lengths++
		f.length = value
	case message.EqualName(name, "Transfer-Encoding"):
		f.codings++
		f.coding = value
	case message.EqualName(name, "Connection"):
		f.connection = append(f.connection, value)
	case message.EqualName(name, "Upgrade"):
		h.upgrade = value
	case message.EqualName(name, "Trailer"):
		for n := range strings.SplitSeq(value, ",") {
			if n = strings.Trim(n, " \t"); message.ValidName(n) && !forbiddenTrailer(n) {
				h.trailer = append(h.trailer, n)
			}
		}
	}
}

// frame decides where the body of an answer ends (RFC 9112 6.3); what allows two readings is refused, since the next answer on the
// connection would depend on which one we chose.
func (h *answerHead) frame(f *framing, method string, one1 bool) error {
	if f.lengths > 1 {
		return protocolError("Content-Length more than once")
	}
	if f.lengths == 1 {
		n, ok := parseLength(f.length)
		if !ok {
			return protocolError("a Content-Length that is no number")
		}
		h.length = n
	}
	if method == "HEAD" || h.status < 200 || h.status == 204 || h.status == 304 {
		h.framing = noBody
		return nil
	}
	switch {
	case f.codings > 0 && f.lengths > 0:
		return protocolError("Content-Length beside Transfer-Encoding")
	case f.codings > 1 || f.codings == 1 && (!message.EqualName(f.coding, "chunked") || !one1):
		return protocolError("a Transfer-Encoding that is not chunked alone, or in HTTP/1.0")
	case f.codings == 1:
		h.framing = byChunks
	case f.lengths == 1:
		h.framing = byLength
	default:
		h.framing = byClose
		h.keepAlive = false
	}
	return nil
}

// appendHead writes the head of a request. Nothing is invented but what frames it.
func appendHead(b []byte, req *message.Request, expect bool) ([]byte, error) {
	target, host := req.Target.String(), req.Host.Raw
	if !message.ValidName(req.Method) || !visible(target) || !visible(host) {
		return b, &message.Error{Reason: message.ReasonInternal, Err: errors.New("method, target or host cannot be sent")}
	}
	b = append(b, req.Method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	for i := range req.Header.Len() {
		f := req.Header.At(i)
		if message.Framing(f.Name) {
			continue
		}
		if !message.ValidName(f.Name) || !plainValue(f.Value) {
			return b, &message.Error{Reason: message.ReasonInternal, Err: errors.New("a field cannot be sent: " + strconv.Quote(f.Name))}
		}
		b = appendField(b, f.Name, f.Value)
	}
	switch n := req.Body.Len(); {
	case n > 0 || n == 0 && (req.Method == "POST" || req.Method == "PUT" || req.Method == "PATCH"):
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, n, 10)
		b = append(b, "\r\n"...)
	case n < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if expect {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	if req.Upgrade != "" && visible(req.Upgrade) {
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, req.Upgrade...)
		b = append(b, "\r\n"...)
	}
	if req.TETrailers {
		b = append(b, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// visible reports whether s is not empty and has visible ASCII only.
func visible(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

func appendChunk(b, p []byte) []byte {
	b = strconv.AppendInt(b, int64(len(p)), 16)
	b = append(b, "\r\n"...)
	b = append(b, p...)
	return append(b, "\r\n"...)
}

func appendTrailer(b []byte, t *message.Header) []byte {
	if t != nil {
		for i := range t.Len() {
			if f := t.At(i); !forbiddenTrailer(f.Name) && message.ValidName(f.Name) && plainValue(f.Value) {
				b = appendField(b, f.Name, f.Value)
			}
		}
	}
	return append(b, "\r\n"...)
}
