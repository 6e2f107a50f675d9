// Package cors tells browsers which other sites' scripts may call a route: the CORS filter of the Gateway API (GEP-1767), by the Fetch
// standard (https://fetch.spec.whatwg.org/#http-cors-protocol).
//
// It answers preflights itself and says on every other answer who may read it. What a backend says of CORS is taken away: there is one
// word, and it is the route's. Nothing is refused but a preflight: CORS protects browsers' users, not the backend.
package cors

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Config is what is allowed. Lists may hold "*" alone: all.
type Config struct {
	AllowOrigins     []string // "*", or scheme://host[:port]; the host may be "*" or begin with "*.", which stands for one label or more
	AllowCredentials bool
	AllowMethods     []string
	AllowHeaders     []string
	ExposeHeaders    []string // with credentials "*" is of no effect: browsers would take it for a name
	MaxAge           int      // seconds for which a browser may keep the answer to a preflight; 0: 5
}

// FilterName is "cors".
func (Config) FilterName() string { return "cors" }

// String is such as "cors(https://*.example.org credentials methods=GET,PUT headers=x-a expose=x-b maxage=5)".
func (c Config) String() string {
	words := append([]string(nil), c.AllowOrigins...)
	if c.AllowCredentials {
		words = append(words, "credentials")
	}
	for _, list := range []struct {
		name   string
		values []string
	}{{"methods", c.AllowMethods}, {"headers", c.AllowHeaders}, {"expose", c.ExposeHeaders}} {
		if len(list.values) > 0 {
			words = append(words, list.name+"="+strings.Join(list.values, ","))
		}
	}
	return "cors(" + strings.Join(append(words, "maxage="+c.maxAge()), " ") + ")"
}

func (c Config) maxAge() string {
	if c.MaxAge == 0 {
		return "5"
	}
	return strconv.Itoa(c.MaxAge)
}

// Check says what is wrong, in words for whoever wrote it.
func (c Config) Check() error {
	for _, o := range c.AllowOrigins {
		if _, ok := parsePattern(o); !ok {
			return fmt.Errorf("%q is no origin: scheme://host[:port], or *", o)
		}
	}
	for _, list := range [][]string{c.AllowMethods, c.AllowHeaders, c.ExposeHeaders} {
		for _, v := range list {
			if !message.ValidName(v) {
				return fmt.Errorf("%q is neither a method nor a header name", v)
			}
		}
	}
	if c.MaxAge < 0 {
		return errors.New("the maximum age is negative")
	}
	return nil
}

// Build makes the filter. The error is Check's.
func (c Config) Build(filter.Env) (filter.Faces, error) {
	if err := c.Check(); err != nil {
		return filter.Faces{}, err
	}
	p := &policy{
		credentials: c.AllowCredentials,
		methods:     newList(c.AllowMethods),
		headers:     newList(c.AllowHeaders),
		expose:      newList(c.ExposeHeaders),
		maxAge:      c.maxAge(),
	}
	for _, o := range c.AllowOrigins {
		pattern, _ := parsePattern(o)
		p.origins = append(p.origins, pattern)
	}
	return filter.Faces{Request: p.request, Response: p.response}, nil
}

// policy is a Config, ready.
type policy struct {
	origins     []pattern
	credentials bool
	methods     list
	headers     list
	expose      list
	maxAge      string
}

// list is a list of names as it is sent.
type list struct {
	text string // "" none
	all  bool   // "*"
}

func newList(names []string) list {
	l := list{text: strings.Join(names, ", ")}
	for _, n := range names {
		l.all = l.all || n == "*"
	}
	return l
}

// request answers a preflight.
func (p *policy) request(ex *message.Exchange) filter.Verdict {
	method, ok := ex.Request.Preflight()
	if !ok {
		return filter.Continue
	}
	origin, ok := p.allowed(&ex.Request.Header)
	if !ok {
		ex.Response = message.Respond(message.OriginFilter, 403, "text/plain; charset=utf-8", "the origin is not allowed\n")
		vary(&ex.Response.Header)
		return filter.Answer
	}

	// 200 and not 204: some servers and browsers of old take no other status for a success, and the suite demands it in places.
	ex.Response = message.Respond(message.OriginFilter, 200, "", "")
	h := &ex.Response.Header
	p.allow(h, origin)
	set(h, "Access-Control-Allow-Methods", p.methods.answer(method, message.ValidName(method)))
	names, ok := ex.Request.Header.Joined("Access-Control-Request-Headers")
	set(h, "Access-Control-Allow-Headers", p.headers.answer(names, ok && fieldNames(names)))
	set(h, "Access-Control-Max-Age", p.maxAge)
	return filter.Answer
}

// answer is the list, or what was asked for when all is allowed: "*" itself would be a mere name for a request with credentials, and
// echoing is right for both.
func (l list) answer(asked string, valid bool) string {
	switch {
	case !l.all:
		return l.text
	case valid:
		return asked
	}
	return ""
}

// response marks an answer, whoever made it.
func (p *policy) response(ex *message.Exchange) filter.Verdict {
	h := &ex.Response.Header
	h.DelFunc(func(name, _ string) bool { return isCORS(name) })
	if origin, ok := p.allowed(&ex.Request.Header); ok {
		p.allow(h, origin)
	} else {
		vary(h)
	}
	return filter.Continue
}

// allow writes what preflights and other answers have in common. The origin is named, never "*": then credentials work too, and what a
// cache must know stands in Vary.
func (p *policy) allow(h *message.Header, origin string) {
	h.Set("Access-Control-Allow-Origin", origin)
	if p.credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if !p.expose.all || !p.credentials {
		set(h, "Access-Control-Expose-Headers", p.expose.text)
	}
	vary(h)
}

// allowed returns the origin of the request if it may. Of several Origin lines none counts.
func (p *policy) allowed(h *message.Header) (string, bool) {
	value, ok := h.Only("Origin")
	if !ok {
		return "", false
	}
	if value == "null" {
		return value, p.allowsOpaque()
	}
	o, ok := parseOrigin(value)
	if !ok {
		return "", false
	}
	for i := range p.origins {
		if p.origins[i].matches(o) {
			return value, true
		}
	}
	return "", false
}

// allowsOpaque reports whether an opaque origin ("null": a sandboxed frame, a file) may. Anybody can have one, so it never gets
// credentials, whatever "*" says.
func (p *policy) allowsOpaque() bool {
	return !p.credentials && len(p.origins) > 0 && p.origins[0].any
}

func set(h *message.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// vary says that the answer depends on the origin, also where there was none: a cache would else give a script the answer without
// Access-Control-Allow-Origin that a navigation got.
func vary(h *message.Header) {
	for _, line := range h.Values("Vary") {
		for part := range strings.SplitSeq(line, ",") {
			if part = strings.Trim(part, " \t"); part == "*" || message.Lower(part) == "origin" {
				return
			}
		}
	}
	h.Add("Vary", "Origin")
}

// isCORS reports whether a response field belongs to the CORS protocol.
func isCORS(name string) bool {
	const prefix = "access-control-"
	return len(name) > len(prefix) && message.Lower(name[:len(prefix)]) == prefix
}

// fieldNames reports whether it is a list of header names.
func fieldNames(s string) bool {
	for part := range strings.SplitSeq(s, ",") {
		if !message.ValidName(strings.Trim(part, " \t")) {
			return false
		}
	}
	return true
}
