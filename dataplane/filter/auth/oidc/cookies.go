package oidc

import (
	"errors"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// A session is split into parts, each a cookie of its own: browsers keep 4,096 bytes of one.
const (
	maxParts  = 6
	maxCookie = 3800 // bytes of a Set-Cookie line
)

// names are the cookies of one policy and client, over http or https. Over https they have the prefix __Host- (RFC 6265bis 4.1.3.2), so
// that no other host, and nobody on the way in the clear, can set them.
type names struct {
	prefix string // of all of them
	secure bool
}

func namesOf(cookieName, tag string) (plain, secure names) {
	if cookieName == "" {
		cookieName = "gatehouse"
	}
	prefix := cookieName + "-" + tag + "-"
	return names{prefix, false}, names{"__Host-" + prefix, true}
}

func (n names) part(i int) string      { return n.prefix + strconv.Itoa(i) }
func (n names) login(id string) string { return n.prefix + "login-" + id }
func (n names) marker() string         { return n.prefix + "again" }

// cookies yields what a request brings, as it stands there. Names may come twice.
func cookies(h *message.Header) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range h.Len() {
			f := h.At(i)
			if !message.EqualName(f.Name, "Cookie") {
				continue
			}
			for rest, more := f.Value, true; more; {
				var pair string
				pair, rest, more = strings.Cut(rest, ";")
				name, value, _ := strings.Cut(pair, "=")
				if !yield(strings.Trim(name, " \t"), strings.Trim(value, " \t")) {
					return
				}
			}
		}
	}
}

// only is the value of the one cookie of that name; ok is false when there is none, or more than one.
func only(h *message.Header, name string) (value string, ok bool) {
	n := 0
	for k, v := range cookies(h) {
		if k == name {
			value, n = v, n+1
		}
	}
	return value, n == 1
}

// parts are the cookies of a session that a request brings.
type parts struct {
	values  [maxParts]string
	there   [maxParts]bool
	doubled bool
}

func (n names) parts(h *message.Header) (p parts) {
	for name, value := range cookies(h) {
		digit, ok := strings.CutPrefix(name, n.prefix)
		if !ok || len(digit) != 1 || digit[0] < '0' || digit[0] >= '0'+maxParts {
			continue
		}
		i := digit[0] - '0'
		p.doubled = p.doubled || p.there[i]
		p.values[i], p.there[i] = value, true
	}
	return p
}

var errParts = errors.New("the parts of the session do not belong together")

// joined is the text that was split; "" when there is none. The first part says how many there are, so that what is left of a longer
// session does no harm.
func (p *parts) joined() (string, error) {
	if p.there == [maxParts]bool{} {
		return "", nil
	}
	first := p.values[0]
	if p.doubled || len(first) < 3 || first[1] != '.' || first[0] < '1' || first[0] > '0'+maxParts {
		return "", errParts
	}
	n := int(first[0] - '0')
	if n == 1 {
		return first[2:], nil
	}
	var b strings.Builder
	b.WriteString(first[2:])
	for i := 1; i < n; i++ {
		if !p.there[i] {
			return "", errParts
		}
		b.WriteString(p.values[i])
	}
	return b.String(), nil
}

var errTooLarge = errors.New("the session does not fit into cookies")

// split returns the Set-Cookie lines of a session, and those that remove parts of an older one that the request brought. A life of 0 is
// as long as the browser runs.
func (n names) split(text string, life time.Duration, old parts) (lines []string, err error) {
	room := maxCookie - len(n.set(n.part(0), "", life)) - len("1.")
	count := (len(text) + room - 1) / room
	if count > maxParts {
		return nil, errTooLarge
	}
	for i := range count {
		piece := text[i*room : min(len(text), (i+1)*room)]
		if i == 0 {
			piece = strconv.Itoa(count) + "." + piece
		}
		lines = append(lines, n.set(n.part(i), piece, life))
	}
	for i := count; i < maxParts; i++ {
		if old.there[i] {
			lines = append(lines, n.remove(n.part(i)))
		}
	}
	return lines, nil
}

// clear removes every part that the request brought.
func (n names) clear(h *message.Header, old parts) {
	for i, there := range old.there {
		if there {
			h.Add("Set-Cookie", n.remove(n.part(i)))
		}
	}
}

// set is a Set-Cookie line (RFC 6265 4.1). SameSite=Lax: the return from the provider is a navigation from another site.
func (n names) set(name, value string, life time.Duration) string {
	line := name + "=" + value + "; Path=/"
	if life > 0 {
		line += "; Max-Age=" + strconv.FormatInt(int64((life+time.Second-1)/time.Second), 10)
	}
	return line + n.attributes()
}

func (n names) remove(name string) string {
	return name + "=; Path=/; Max-Age=0" + n.attributes()
}

func (n names) attributes() string {
	if n.secure {
		return "; Secure; HttpOnly; SameSite=Lax"
	}
	return "; HttpOnly; SameSite=Lax"
}

// strip takes the cookies whose names begin with one of the prefixes out of a request. All others stay byte for byte.
func strip(h *message.Header, prefixes ...string) {
	ours := false
	for name := range cookies(h) {
		ours = ours || begins(name, prefixes)
	}
	if !ours {
		return
	}
	var kept []string
	for _, line := range h.Values("Cookie") {
		var b strings.Builder
		for i, pair := range strings.Split(line, ";") {
			name, _, _ := strings.Cut(pair, "=")
			if begins(strings.Trim(name, " \t"), prefixes) {
				continue
			}
			if b.Len() > 0 {
				b.WriteByte(';')
			} else if i > 0 {
				pair = strings.TrimLeft(pair, " \t") // what stood before it is gone
			}
			b.WriteString(pair)
		}
		if b.Len() > 0 {
			kept = append(kept, b.String())
		}
	}
	h.Del("Cookie")
	for _, line := range kept {
		h.Add("Cookie", line)
	}
}

func begins(name string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
