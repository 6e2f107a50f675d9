package message

import (
	"net/netip"
	"strings"
)

// Target is what a request asks for. Path is the one that is matched, authorized and forwarded: there is no second spelling that a
// rule could be walked around with.
type Target struct {
	Raw   string // as the client wrote it, for logs
	Path  string // normalised, still escaped; begins with "/", or is "*" for OPTIONS *
	Query string // without "?", never decoded, never re-encoded
	// HasQuery tells "/a?" from "/a".
	HasQuery bool
}

// String is the target in origin form (RFC 9112 3.2.1), as it is forwarded.
func (t Target) String() string {
	if !t.HasQuery {
		return t.Path
	}
	return t.Path + "?" + t.Query
}

// PathRules are the two choices that an operator has over the normalisation of paths.
type PathRules struct {
	KeepDoubleSlash   bool // keep "//" as it is; by default it is merged
	AllowEncodedSlash bool // let %2F through, undecoded; by default it is refused
}

// ParseTarget reads an origin-form target (or "*" for OPTIONS) and normalises its path: unreserved characters are decoded, other
// escapes kept with upper-case digits, dot segments resolved, "//" merged. Refused, because servers disagree on what they mean:
// %2F, %5C, backslash, %00, control and raw 8-bit bytes, "#", a parameter on a dot segment ("/..;/"), a double escape that decodes to
// dot, slash, backslash or percent, UTF-8 that is longer than it need be, and a path that climbs above the root.
//
// The reason is ReasonNone when the target is fine; detail then is empty, else says what was wrong and how to allow it.
func ParseTarget(raw string, rules PathRules) (t Target, reason Reason, detail string) {
	t.Raw = raw
	path, query, has := strings.Cut(raw, "?")
	t.Query, t.HasQuery = query, has
	if raw == "*" {
		t.Path = "*"
		return t, ReasonNone, ""
	}
	if d := badBytes(raw); d != "" {
		return t, ReasonBadTarget, d
	}
	if path == "" || path[0] != '/' {
		return t, ReasonBadTarget, "the target does not begin with a slash"
	}
	if cleanPath(path) {
		t.Path = path
		return t, ReasonNone, ""
	}
	t.Path, detail = normalise(path, rules)
	if detail != "" {
		return t, ReasonBadTarget, detail
	}
	return t, ReasonNone, ""
}

// badBytes finds what may stand nowhere in a target: RFC 3986 knows only visible ASCII, and no fragment is ever sent.
func badBytes(raw string) string {
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c <= ' ' || c == 0x7f:
			return "the target has a control character or a space"
		case c >= 0x80:
			return "the target has a raw byte over 127; escape it as %XX"
		case c == '#':
			return "the target has a fragment (#)"
		}
	}
	return ""
}

// cleanPath reports whether nothing in path needs a look: the usual case, without a copy.
func cleanPath(path string) bool {
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '%', '\\':
			return false
		case '/':
			if i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
				return false
			}
		}
	}
	return true
}

// normalise is ParseTarget's slow path.
func normalise(path string, rules PathRules) (string, string) {
	decoded, detail := decodeUnreserved(path, rules)
	if detail != "" {
		return "", detail
	}
	return resolveDots(decoded, rules)
}

// decodeUnreserved decodes what needs no escape (RFC 3986 6.2.2.2), and refuses escapes that hide a delimiter.
func decodeUnreserved(path string, rules PathRules) (string, string) {
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '\\' {
			return "", "the path has a backslash"
		}
		if c != '%' {
			b.WriteByte(c)
			continue
		}
		v, ok := unhex2(path, i+1)
		if !ok {
			return "", "the path has an escape that is not % and two hexadecimal digits"
		}
		switch {
		case v == 0:
			return "", "the path has %00"
		case v < ' ' || v == 0x7f:
			return "", "the path has an escaped control character"
		case v == '/' && !rules.AllowEncodedSlash:
			return "", "the path has %2F (an operator can let it through: --allow-encoded-slash)"
		case v == '\\':
			return "", "the path has %5C"
		case overlong(v, path, i+3):
			return "", "the path has a character in more bytes of UTF-8 than it needs"
		case unreserved(v):
			b.WriteByte(v)
		default:
			b.WriteByte('%')
			b.WriteByte(upperHex[v>>4])
			b.WriteByte(upperHex[v&15])
		}
		i += 2
	}
	out := b.String()
	// Of what came of it: %252%65 becomes %252e.
	for i := range len(out) {
		if strings.HasPrefix(out[i:], "%25") && doubleEscape(out, i+len("%25")) {
			return "", "the path has a double escape of a dot, slash, backslash or percent sign"
		}
	}
	return out, ""
}

// doubleEscape reports whether the two characters at i, behind a "%25", make an escape of a character that some server decodes twice
// to walk around a rule.
func doubleEscape(path string, i int) bool {
	v, ok := unhex2(path, i)
	return ok && (v == '.' || v == '/' || v == '\\' || v == '%')
}

// overlong reports whether v and the escape at i begin a character in more bytes than it needs, as %C0%AE for a dot: UTF-8 forbids that
// (RFC 3629 3), and some servers decode it all the same. Other bytes that are no UTF-8 are somebody's Latin-1.
func overlong(v byte, path string, i int) bool {
	if v < 0xc0 || i >= len(path) || path[i] != '%' {
		return false
	}
	next, ok := unhex2(path, i+1)
	if !ok || next < 0x80 || next > 0xbf {
		return false
	}
	return v <= 0xc1 || v == 0xe0 && next < 0xa0 || v == 0xf0 && next < 0x90 || v >= 0xf8 && v <= 0xfd
}

// resolveDots removes dot segments (RFC 3986 5.2.4) and merges slashes.
func resolveDots(path string, rules PathRules) (string, string) {
	segments := strings.Split(path[1:], "/")
	out := make([]string, 0, len(segments))
	for i, s := range segments {
		last := i == len(segments)-1
		if name, _, has := strings.Cut(s, ";"); has && (name == "." || name == "..") {
			return "", "the path has a parameter on a dot segment (/..;/)"
		}
		switch {
		case s == "" && !last && !rules.KeepDoubleSlash:
		case s == ".":
			if last {
				out = append(out, "")
			}
		case s == "..":
			if len(out) == 0 {
				return "", "the path climbs above the root"
			}
			out = out[:len(out)-1]
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/"), ""
}

const upperHex = "0123456789ABCDEF"

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex2(s string, i int) (byte, bool) {
	if i+2 > len(s) {
		return 0, false
	}
	hi, ok1 := unhex(s[i])
	lo, ok2 := unhex(s[i+1])
	return hi<<4 | lo, ok1 && ok2
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// Host is the authority that a request names.
type Host struct {
	Raw  string // as sent, with its port: what the backend sees unless a filter rewrites it
	Name string // lower case, no port, no trailing dot; an IPv6 address without brackets: what is matched
	Port uint16 // 0 when none was sent
}

// ParseHost reads a Host field or :authority (RFC 9110 7.2). There is one parser for routing, TLS, logs and the upstream. It refuses
// userinfo, lists, zone identifiers, empty names and ports that are no number.
func ParseHost(raw string) (Host, bool) {
	h := Host{Raw: raw}
	name, port := raw, ""
	if strings.HasPrefix(raw, "[") {
		end := strings.IndexByte(raw, ']')
		if end < 0 {
			return h, false
		}
		addr, err := netip.ParseAddr(raw[1:end])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return h, false
		}
		name, port = addr.String(), raw[end+1:]
		if port != "" && port[0] != ':' {
			return h, false
		}
		h.Name = name
		h.Port, port = parsePort(strings.TrimPrefix(port, ":"), port != "")
		return h, port == ""
	}
	if i := strings.IndexByte(raw, ':'); i >= 0 {
		name, port = raw[:i], raw[i+1:]
		var bad string
		if h.Port, bad = parsePort(port, true); bad != "" {
			return h, false
		}
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 || !hostBytes(name) {
		return h, false
	}
	h.Name = Lower(name)
	return h, true
}

// parsePort returns what is wrong as its second result; an absent port is 0, an empty one ("host:") too (RFC 3986 3.2.3).
func parsePort(s string, present bool) (uint16, string) {
	if !present || s == "" {
		return 0, ""
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' || i >= 5 {
			return 0, "port"
		}
		n = n*10 + int(s[i]-'0')
	}
	if n == 0 || n > 65535 {
		return 0, "port"
	}
	return uint16(n), ""
}

func hostBytes(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
		if c == '.' && (i == 0 || name[i-1] == '.') {
			return false
		}
	}
	return true
}

// Lower is s in ASCII lower case, without a copy when it already is.
func Lower(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}
