package message

import (
	"iter"
	"slices"
	"strings"
)

// Field is one header field line.
type Field struct{ Name, Value string }

// Header is an ordered multimap of field lines. Names compare without case (RFC 9110 5.1); spelling and order survive where the
// engine knows them, and no filter may depend on either. The insides are private, so that nobody can index a map and miss a second
// line: security decisions use Values or Only, never Get.
//
// Fields that frame a message or belong to one hop are never in it: see Framing.
//
// The zero value is empty and ready to use. Assigning a Header copies it only shallowly: use Share (cheap, copy-on-write) or Clone.
type Header struct {
	fields []Field
	shared bool // the slice is seen by another Header too: copy before the first write
}

// NewHeader returns a Header of the given lines; the slice becomes the Header's own.
func NewHeader(fields ...Field) Header { return Header{fields: fields} }

// Get returns the first value of name, or "" when there is none. For display, logs and fields that cannot be listed; what decides
// about access uses Only or Values.
func (h *Header) Get(name string) string {
	for i := range h.fields {
		if equalFold(h.fields[i].Name, name) {
			return h.fields[i].Value
		}
	}
	return ""
}

// Has reports whether there is at least one line of that name.
func (h *Header) Has(name string) bool {
	for i := range h.fields {
		if equalFold(h.fields[i].Name, name) {
			return true
		}
	}
	return false
}

// Only returns the value of the one line of that name; ok is false when there is none, or more than one.
func (h *Header) Only(name string) (value string, ok bool) {
	n := 0
	for i := range h.fields {
		if equalFold(h.fields[i].Name, name) {
			value, n = h.fields[i].Value, n+1
		}
	}
	if n != 1 {
		return "", false
	}
	return value, true
}

// Values returns the values of all lines of that name, in order; nil when there is none.
func (h *Header) Values(name string) []string {
	var out []string
	for i := range h.fields {
		if equalFold(h.fields[i].Name, name) {
			out = append(out, h.fields[i].Value)
		}
	}
	return out
}

// Joined returns all values of that name as one, joined by "," as RFC 9110 5.3 allows; ok is false when there is no line. It
// allocates only when there are several lines.
func (h *Header) Joined(name string) (value string, ok bool) {
	for i := range h.fields {
		if !equalFold(h.fields[i].Name, name) {
			continue
		}
		if !ok {
			value, ok = h.fields[i].Value, true
			continue
		}
		value += "," + h.fields[i].Value
	}
	return value, ok
}

// Set replaces all lines of that name by one, at the place of the first.
func (h *Header) Set(name, value string) {
	h.own()
	for i := range h.fields {
		if equalFold(h.fields[i].Name, name) {
			h.fields[i] = Field{name, value}
			h.delFrom(i+1, name)
			return
		}
	}
	h.fields = append(h.fields, Field{name, value})
}

// Add appends a line.
func (h *Header) Add(name, value string) {
	h.own()
	h.fields = append(h.fields, Field{name, value})
}

// Del removes all lines of that name.
func (h *Header) Del(name string) {
	for i := range h.fields {
		if equalFold(h.fields[i].Name, name) {
			h.own()
			h.delFrom(i, name)
			return
		}
	}
}

// DelFunc removes the lines for which drop is true.
func (h *Header) DelFunc(drop func(name, value string) bool) {
	for i := range h.fields {
		if drop(h.fields[i].Name, h.fields[i].Value) {
			h.own()
			h.fields = slices.DeleteFunc(h.fields, func(f Field) bool { return drop(f.Name, f.Value) })
			return
		}
	}
}

// All yields every line in order. The Header must not be changed meanwhile.
func (h *Header) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range h.fields {
			if !yield(h.fields[i].Name, h.fields[i].Value) {
				return
			}
		}
	}
}

// Len is the number of lines.
func (h *Header) Len() int { return len(h.fields) }

// At returns line i, 0 ≤ i < Len: All without a closure, for engines.
func (h *Header) At(i int) Field { return h.fields[i] }

// Size is the number of bytes of all names and values.
func (h *Header) Size() int {
	n := 0
	for i := range h.fields {
		n += len(h.fields[i].Name) + len(h.fields[i].Value)
	}
	return n
}

// Share returns a Header with the same lines; whichever of the two is written first copies them. So an attempt can have a head of
// its own, and costs nothing when no filter touches it.
func (h *Header) Share() Header {
	h.shared = true
	return Header{fields: h.fields, shared: true}
}

// Clone returns an independent copy.
func (h *Header) Clone() Header { return Header{fields: slices.Clone(h.fields)} }

// Reset makes it empty and keeps its room, for engines that reuse an Exchange.
func (h *Header) Reset() {
	if h.shared {
		h.fields, h.shared = nil, false
		return
	}
	clear(h.fields)
	h.fields = h.fields[:0]
}

// own makes the lines the Header's own, with room for the few that a proxy adds.
func (h *Header) own() {
	if h.shared {
		h.fields, h.shared = append(make([]Field, 0, len(h.fields)+8), h.fields...), false
	}
}

// delFrom removes the lines of that name from index i on; the Header is already its own.
func (h *Header) delFrom(i int, name string) {
	out := h.fields[:i]
	for _, f := range h.fields[i:] {
		if !equalFold(f.Name, name) {
			out = append(out, f)
		}
	}
	clear(h.fields[len(out):])
	h.fields = out
}

// equalFold compares field names: ASCII only, so that no Unicode fold (the Kelvin sign) equals a letter.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// framing are the fields that frame a message or belong to one hop (RFC 9110 7.6.1, RFC 9113 8.2.2). They are typed fields of Request
// and Response, or made anew by the engine.
var framing = []string{
	"Host", "Connection", "Content-Length", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Expect", "Keep-Alive", "Proxy-Connection",
	"HTTP2-Settings",
}

// Framing reports whether a field of that name frames a message or belongs to one hop, and so is never in a Header.
func Framing(name string) bool {
	for _, f := range framing {
		if equalFold(f, name) {
			return true
		}
	}
	return false
}

// EqualName reports whether two field names are the same (RFC 9110 5.1): without case, ASCII only.
func EqualName(a, b string) bool { return equalFold(a, b) }

// AliasName reports whether many servers would take one name for the other: without case, and with "_" read as "-" (CGI's variables
// do, RFC 3875 4.1.18).
func AliasName(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if a[i] != b[i] && dashed(a[i]) != dashed(b[i]) {
			return false
		}
	}
	return true
}

func dashed(c byte) byte {
	if c == '_' {
		return '-'
	}
	return lower(c)
}

// ValidName reports whether name is a token (RFC 9110 5.6.2), the only thing that a field name may be.
func ValidName(name string) bool {
	if name == "" {
		return false
	}
	for i := 0; i < len(name); i++ {
		if !tokenByte(name[i]) {
			return false
		}
	}
	return true
}

// ValidValue reports whether value can stand in a field line: no control bytes but tab, no leading or trailing white space
// (RFC 9110 5.5).
func ValidValue(value string) bool {
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return value == strings.Trim(value, " \t")
}

func tokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
