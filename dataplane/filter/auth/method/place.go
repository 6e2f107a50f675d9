package method

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Place is where a credential may stand in a request; one of the names is set.
type Place struct {
	Header string
	Prefix string // what stands before the credential in the header, such as "Bearer ", without case; a line without it is not looked at
	Query  string // with case, decoded
	Cookie string // with case
}

// String is such as `header Authorization after "Bearer "`.
func (p Place) String() string {
	switch {
	case p.Header != "" && p.Prefix != "":
		return "header " + p.Header + " after " + strconv.Quote(p.Prefix)
	case p.Header != "":
		return "header " + p.Header
	case p.Query != "":
		return "query " + strconv.Quote(p.Query)
	}
	return "cookie " + p.Cookie
}

// Places are all places where a method looks.
type Places []Place

// Find returns the credential, and how often something stands in the places: 0 is none, and more than 1 nobody may choose from. A
// header that has several lines, one of them with a credential, counts each line: which of them another server would take is unknown.
// The value is decoded where it stood in the query; one that cannot be decoded is "".
func (p Places) Find(r *message.Request) (value string, n int) {
	for i := range p {
		v, found := p[i].find(r)
		if found > 0 && n == 0 {
			value = v
		}
		n += found
	}
	return value, n
}

func (p *Place) find(r *message.Request) (string, int) {
	switch {
	case p.Header != "":
		return p.inHeader(&r.Header)
	case p.Query != "":
		return p.inQuery(r.Target.Query)
	case p.Cookie != "":
		return p.inCookies(&r.Header)
	}
	return "", 0
}

func (p *Place) inHeader(h *message.Header) (value string, n int) {
	lines := 0
	for i := range h.Len() {
		f := h.At(i)
		if !message.EqualName(f.Name, p.Header) {
			continue
		}
		lines++
		if v, ok := p.cut(f.Value); ok && n == 0 {
			value, n = v, 1
		}
	}
	if n > 0 {
		n = lines
	}
	return value, n
}

// cut takes the prefix off a value; ok is false when it has another one.
func (p *Place) cut(value string) (rest string, ok bool) {
	k := len(p.Prefix)
	if k == 0 {
		return value, true
	}
	if len(value) < k || !message.EqualName(value[:k], p.Prefix) {
		return "", false
	}
	return strings.TrimLeft(value[k:], " "), true // RFC 9110 11.4: one space or more
}

func (p *Place) inQuery(query string) (value string, n int) {
	for rest := query; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		name, v, _ := strings.Cut(pair, "=")
		if !named(name, p.Query) {
			continue
		}
		if n++; n == 1 {
			value, _ = url.QueryUnescape(v)
		}
	}
	return value, n
}

// named reports whether a raw name of a query parameter is that one. What cannot be decoded has no name.
func named(raw, name string) bool {
	if raw == name {
		return true
	}
	if strings.IndexByte(raw, '%') < 0 && strings.IndexByte(raw, '+') < 0 {
		return false
	}
	decoded, err := url.QueryUnescape(raw)
	return err == nil && decoded == name
}

func (p *Place) inCookies(h *message.Header) (value string, n int) {
	for i := range h.Len() {
		f := h.At(i)
		if !message.EqualName(f.Name, "Cookie") {
			continue
		}
		for rest := f.Value; rest != ""; {
			var crumb string
			crumb, rest, _ = strings.Cut(rest, ";")
			name, v, _ := strings.Cut(strings.Trim(crumb, " \t"), "=")
			if name != p.Cookie {
				continue
			}
			if n++; n == 1 {
				value = v
			}
		}
	}
	return value, n
}

// Strip takes out whatever stands in the places. What stands beside it, in the query and among the cookies, is forwarded byte for byte.
// A header goes in every spelling that some server would take for it.
func (p Places) Strip(r *message.Request) {
	for i := range p {
		p[i].strip(r)
	}
}

func (p *Place) strip(r *message.Request) {
	switch {
	case p.Header != "":
		r.Header.DelFunc(func(name, value string) bool {
			_, ok := p.cut(value)
			return ok && message.AliasName(name, p.Header)
		})
	case p.Query != "":
		p.stripQuery(&r.Target)
	case p.Cookie != "":
		p.stripCookies(&r.Header)
	}
}

func (p *Place) stripQuery(t *message.Target) {
	if _, n := p.inQuery(t.Query); n == 0 {
		return
	}
	var kept []string
	for pair := range strings.SplitSeq(t.Query, "&") {
		if name, _, _ := strings.Cut(pair, "="); !named(name, p.Query) {
			kept = append(kept, pair)
		}
	}
	t.Query = strings.Join(kept, "&")
	t.HasQuery = len(kept) > 0
}

func (p *Place) stripCookies(h *message.Header) {
	if _, n := p.inCookies(h); n == 0 {
		return
	}
	lines := h.Values("Cookie")
	h.Del("Cookie")
	for _, line := range lines {
		var kept []string
		for crumb := range strings.SplitSeq(line, ";") {
			if name, _, _ := strings.Cut(strings.Trim(crumb, " \t"), "="); name != p.Cookie {
				kept = append(kept, crumb)
			}
		}
		if line = strings.Trim(strings.Join(kept, ";"), " \t"); line != "" {
			h.Add("Cookie", line)
		}
	}
}
