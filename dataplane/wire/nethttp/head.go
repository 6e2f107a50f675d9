package nethttp

import (
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// head is the head of an HTTP/1 request as the client wrote it: order and spelling kept, read by the strict grammar of RFC 9112. What
// allows two readings gets a reason, and is never given to a filter.
type head struct {
	method, target string
	version        message.Version
	fields         []message.Field // without what frames, and without what Connection names
	host           string
	hosts          int
	upgrade        string // lower case
	expect         string
	teTrailers     bool
	length         int64 // of the body; −1 when chunked
	reason         message.Reason
	detail         string
}

func (h *head) refuse(reason message.Reason, format string, args ...any) {
	if h.reason == message.ReasonNone {
		h.reason = reason
		h.detail = fmt.Sprintf(format, args...)
	}
}

// parse reads a whole head, its last empty line included. Lines is the number of field lines, known from the search for the end. The
// strings of h are parts of raw.
func (h *head) parse(raw string, lines int, limits *message.Limits) {
	*h = head{}
	line, rest := cutLine(raw)
	if !h.requestLine(line, limits) {
		return
	}
	h.fields = make([]message.Field, 0, lines)
	var f framing
	for {
		line, rest = cutLine(rest)
		if line == "" {
			break
		}
		name, value, fault := field(line)
		if fault != "" {
			h.refuse(message.ReasonBadHead, "%s", fault)
			return
		}
		if message.Framing(name) {
			h.typed(name, value, &f)
		} else {
			h.fields = append(h.fields, message.Field{Name: name, Value: value})
		}
	}
	h.length = f.decide(h)
	h.dropNamed(f.connection)
	h.fields = joinCookies(h.fields)
}

// requestLine reads "GET /path HTTP/1.1".
func (h *head) requestLine(line string, limits *message.Limits) bool {
	method, rest, _ := strings.Cut(line, " ")
	target, version, ok := strings.Cut(rest, " ")
	h.method, h.target = method, target
	switch {
	case limits.MaxURIBytes > 0 && len(target) > limits.MaxURIBytes:
		h.refuse(message.ReasonURITooLong, "%d bytes", len(target))
	case !ok || target == "" || !message.ValidName(method):
		h.refuse(message.ReasonBadHead, "the request line is malformed")
	case version == "HTTP/1.1":
		h.version = message.HTTP11
	case version == "HTTP/1.0":
		h.version = message.HTTP10
	default:
		h.refuse(message.ReasonBadHead, "the version is neither HTTP/1.0 nor HTTP/1.1")
	}
	return h.reason == message.ReasonNone
}

// typed takes a field that is not for filters.
func (h *head) typed(name, value string, f *framing) {
	switch {
	case message.EqualName(name, "Host"):
		h.host = value
		h.hosts++
	case message.EqualName(name, "Content-Length"):
		f.lengths++
		f.length = value
	case message.EqualName(name, "Transfer-Encoding"):
		f.codings++
		f.coding = value
	case message.EqualName(name, "Connection"):
		f.connection = append(f.connection, value)
	case message.EqualName(name, "Upgrade"):
		h.upgrade = message.Lower(value)
	case message.EqualName(name, "Expect"):
		h.expect = value
	case message.EqualName(name, "TE"):
		h.teTrailers = h.teTrailers || hasToken(value, "trailers")
	}
}

// dropNamed removes the fields that Connection names: they were for us (RFC 9110 7.6.1). But a client must not name away what says
// who it is, since a proxy in front may have set it (threats 7).
func (h *head) dropNamed(connection []string) {
	for _, list := range connection {
		for token := range strings.SplitSeq(list, ",") {
			token = strings.Trim(token, " \t")
			if token == "" || message.EqualName(token, "close") || message.EqualName(token, "keep-alive") || identity(token) {
				continue
			}
			h.fields = deleteField(h.fields, token)
		}
	}
	if h.upgrade != "" && !namesUpgrade(connection) {
		h.upgrade = "" // RFC 9110 7.8: without the connection option it says nothing
	}
}

func namesUpgrade(connection []string) bool {
	for _, list := range connection {
		if hasToken(list, "upgrade") {
			return true
		}
	}
	return false
}

func deleteField(fields []message.Field, name string) []message.Field {
	out := fields[:0]
	for _, f := range fields {
		if !message.EqualName(f.Name, name) {
			out = append(out, f)
		}
	}
	return out
}

// identity reports whether a field tells who the client is or what it may: Connection cannot name it away.
func identity(name string) bool {
	const forwarded = "X-Forwarded-"
	if len(name) > len(forwarded) && message.EqualName(name[:len(forwarded)], forwarded) {
		return true
	}
	for _, n := range []string{"Forwarded", "X-Real-Ip", "Authorization", "Proxy-Authorization", "Cookie", "Via"} {
		if message.EqualName(name, n) {
			return true
		}
	}
	return false
}

// joinCookies makes one line of several (RFC 6265 5.4 allows a client one; HTTP/2 lets it cut that in crumbs).
func joinCookies(fields []message.Field) []message.Field {
	first, n := -1, 0
	for i := range fields {
		if message.EqualName(fields[i].Name, "Cookie") {
			if n++; n == 1 {
				first = i
			}
		}
	}
	if n < 2 {
		return fields
	}
	values := make([]string, 0, n)
	out := fields[:first+1]
	for i := first; i < len(fields); i++ {
		if message.EqualName(fields[i].Name, "Cookie") {
			values = append(values, fields[i].Value)
		} else {
			out = append(out, fields[i])
		}
	}
	out[first].Value = strings.Join(values, "; ")
	return out
}

// framing gathers what says where the body ends.
type framing struct {
	lengths, codings int
	length, coding   string
	connection       []string
}

// decide is the one place where the end of a request is decided (RFC 9112 6.3), and stricter than the RFC must be: no field twice, not
// both, no coding but chunked, none in HTTP/1.0.
func (f *framing) decide(h *head) int64 {
	switch {
	case f.codings > 0 && f.lengths > 0:
		h.refuse(message.ReasonBadFraming, "Content-Length beside Transfer-Encoding")
	case f.codings > 1 || f.codings == 1 && !message.EqualName(f.coding, "chunked"):
		h.refuse(message.ReasonBadFraming, "a Transfer-Encoding that is not chunked alone")
	case f.codings == 1 && h.version == message.HTTP10:
		h.refuse(message.ReasonBadFraming, "Transfer-Encoding in HTTP/1.0")
	case f.codings == 1:
		return -1
	case f.lengths > 1:
		h.refuse(message.ReasonBadFraming, "Content-Length more than once")
	case f.lengths == 1:
		n, ok := parseLength(f.length)
		if !ok {
			h.refuse(message.ReasonBadFraming, "a Content-Length that is no number")
		}
		return n
	}
	return 0
}

// parseLength reads a Content-Length: digits and nothing else, below 2⁶³.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// cutLine returns the first line of raw without its end, and what follows. Every line of raw ends in CRLF.
func cutLine(raw string) (line, rest string) {
	i := strings.IndexByte(raw, '\n')
	if i < 1 {
		return "", ""
	}
	return raw[:i-1], raw[i+1:]
}

// field reads "Name: value"; fault says what is wrong with it.
func field(line string) (name, value, fault string) {
	i := strings.IndexByte(line, ':')
	if i <= 0 {
		if line[0] == ' ' || line[0] == '\t' {
			return "", "", "a field line is folded"
		}
		return "", "", "a field line has no name"
	}
	name = line[:i]
	if !message.ValidName(name) {
		if name[0] == ' ' || name[0] == '\t' {
			return "", "", "a field line is folded"
		}
		return "", "", "a field name has a character that none may have"
	}
	value = strings.Trim(line[i+1:], " \t")
	if !plainValue(value) {
		return "", "", "a field value has a control character"
	}
	return name, value, ""
}

// plainValue reports whether a value has no control byte but tab.
func plainValue(value string) bool {
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// hasToken reports whether a comma-separated list has the token, parameters aside.
func hasToken(list, token string) bool {
	for t := range strings.SplitSeq(list, ",") {
		t, _, _ = strings.Cut(t, ";")
		if message.EqualName(strings.Trim(t, " \t"), token) {
			return true
		}
	}
	return false
}
