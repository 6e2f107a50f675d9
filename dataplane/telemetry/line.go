package telemetry

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// lineStyle is what an operator may choose about log lines.
type lineStyle struct {
	maxField  int // bytes of a string
	hideQuery bool
}

// append adds the line of an exchange, with its newline. The fields are listed in the package's comment.
func (s lineStyle) append(b []byte, d *ending) []byte {
	o := object{b: append(b, '{'), max: s.maxField}
	ex := d.ex
	o.time("time", received(d))
	o.text("id", ex.ID)
	o.addr("client", ex.ClientIP)
	if ex.Conn != nil {
		o.addrPort("peer", ex.Conn.Remote)
	}
	o.text("method", d.method)
	o.text("scheme", d.scheme)
	o.text("host", d.host)
	path, query, has := strings.Cut(d.target, "?")
	o.text("path", path)
	if has && !s.hideQuery {
		o.query("query", query, ex.HiddenQuery)
	}
	o.text("version", ex.Request.Version.String())
	o.number("status", int64(d.status))
	o.text("reason", d.reason.String())
	o.text("detail", d.detail())
	if ex.Response != nil {
		o.text("origin", ex.Response.Origin.String())
	}
	o.text("route", ex.Route)
	o.text("backend", ex.BackendName)
	o.addrPort("upstream", ex.Upstream)
	o.number("attempts", int64(ex.Attempts))
	o.number("bytes_in", ex.Outcome.BytesIn)
	o.number("bytes_out", ex.Outcome.BytesOut)
	o.milliseconds("duration_ms", d.took)
	if who := ex.Identity; who != nil {
		o.text("subject", who.Subject)
		o.text("auth_policy", who.Policy)
		o.text("auth_method", who.Method)
	}
	o.text("user_agent", ex.Request.Header.Get("User-Agent"))
	o.text("trace", traceID(ex.Trace.Traceparent))
	if ex.Conn != nil && ex.Conn.TLS != nil {
		o.text("tls", tlsWord(ex.Conn.TLS.Version))
		o.text("sni", ex.Conn.TLS.ServerName)
	}
	o.notes("notes", ex.Notes)
	return append(o.b, '}', '\n')
}

func received(d *ending) time.Time {
	if d.ex.Received.IsZero() {
		return d.now
	}
	return d.ex.Received
}

// object appends the members of a JSON object. Names are ours and need no escapes.
type object struct {
	b   []byte
	max int // bytes of a string
}

func (o *object) name(name string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(o.b, '"')
	o.b = append(o.b, name...)
	o.b = append(o.b, '"', ':')
}

func (o *object) text(name, value string) {
	if value == "" {
		return
	}
	o.name(name)
	o.b = appendQuoted(o.b, value, o.max)
}

func (o *object) number(name string, n int64) {
	o.name(name)
	o.b = strconv.AppendInt(o.b, n, 10)
}

func (o *object) time(name string, t time.Time) {
	o.name(name)
	o.b = append(o.b, '"')
	o.b = t.UTC().AppendFormat(o.b, "2006-01-02T15:04:05.000000Z07:00")
	o.b = append(o.b, '"')
}

func (o *object) milliseconds(name string, d time.Duration) {
	o.name(name)
	o.b = strconv.AppendFloat(o.b, float64(d.Microseconds())/1000, 'f', 3, 64)
}

func (o *object) addr(name string, a netip.Addr) {
	if !a.IsValid() {
		return
	}
	o.name(name)
	o.b = append(o.b, '"')
	o.b = a.Unmap().WithZone("").AppendTo(o.b)
	o.b = append(o.b, '"')
}

func (o *object) addrPort(name string, a netip.AddrPort) {
	if !a.IsValid() {
		return
	}
	o.name(name)
	o.b = append(o.b, '"')
	o.b = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()).AppendTo(o.b)
	o.b = append(o.b, '"')
}

// query is text with the values of credentials hidden.
func (o *object) query(name, query string, hidden []string) {
	if query == "" {
		return
	}
	o.text(name, redacted(query, hidden))
}

// notes is an object; of several notes with one key the last counts.
func (o *object) notes(name string, notes []message.Note) {
	if len(notes) == 0 {
		return
	}
	o.name(name)
	o.b = append(o.b, '{')
	first := true
	for i, n := range notes {
		if overwritten(notes[i+1:], n.Key) {
			continue
		}
		if !first {
			o.b = append(o.b, ',')
		}
		first = false
		o.b = appendQuoted(o.b, n.Key, o.max)
		o.b = append(o.b, ':')
		o.b = appendQuoted(o.b, n.Value, o.max)
	}
	o.b = append(o.b, '}')
}

func overwritten(later []message.Note, key string) bool {
	for _, n := range later {
		if n.Key == key {
			return true
		}
	}
	return false
}

// credentials are names of query parameters whose values get whoever reads the log in (RFC 6750 2.3, RFC 6749, signed URLs).
var credentials = []string{
	"access_token", "id_token", "refresh_token", "token", "auth", "authorization", "api_key", "apikey", "api-key", "key", "password",
	"passwd", "secret", "client_secret", "client_assertion", "code", "jwt", "sig", "signature", "x-amz-signature", "x-amz-security-token",
	"x-goog-signature",
}

// redacted hides the values of credentials, and of the parameters that are named. A query without any, as most are, is returned as it is.
func redacted(query string, hidden []string) string {
	var out []byte
	copied := 0
	for start := 0; start < len(query); {
		end := len(query)
		if n := strings.IndexAny(query[start:], "&;"); n >= 0 {
			end = start + n
		}
		name, value, _ := strings.Cut(query[start:end], "=")
		if value != "" && credential(name, hidden) {
			out = append(out, query[copied:start+len(name)+1]...)
			out = append(out, "REDACTED"...)
			copied = end
		}
		start = end + 1
	}
	if out == nil {
		return query
	}
	return string(append(out, query[copied:]...))
}

// credential compares without case, and with escapes undone, as the reader of the query would.
func credential(name string, hidden []string) bool {
	if strings.ContainsAny(name, "%+") {
		name = unescaped(name)
	}
	for _, h := range hidden {
		if strings.EqualFold(name, h) {
			return true
		}
	}
	for _, c := range credentials {
		if strings.EqualFold(name, c) {
			return true
		}
	}
	return false
}

func unescaped(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(n))
				i += 2
				continue
			}
		}
		if s[i] == '+' {
			b = append(b, ' ')
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

const hex = "0123456789abcdef"

// appendQuoted appends s as a JSON string of at most max bytes of s. Everything that does not print is escaped (a log is read in
// terminals, and by people: no ESC, no C1 controls, no bidirectional marks), and what is not UTF-8 becomes U+FFFD.
func appendQuoted(b []byte, s string, max int) []byte {
	s, cut := shortened(s, max)
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError && unicode.IsPrint(r) {
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		b = appendRune(b, r)
		i += size
		start = i
	}
	b = append(b, s[start:]...)
	if cut {
		b = append(b, "…"...)
	}
	return append(b, '"')
}

// shortened cuts s at the end of a character.
func shortened(s string, max int) (string, bool) {
	if len(s) <= max {
		return s, false
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max], true
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}

// appendRune appends \uXXXX, twice for what lies beyond (RFC 8259 7).
func appendRune(b []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		b = appendRune(b, 0xd800+r>>10)
		return appendRune(b, 0xdc00+r&0x3ff)
	}
	return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}
