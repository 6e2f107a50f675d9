package cors

import (
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// origin is scheme, host and port (RFC 6454), in lower case, the port always there.
type origin struct {
	scheme string // "http", "https"; or another one, which only "*" allows
	host   string
	port   uint16 // 0: a scheme without a well-known one
}

// parseOrigin reads the Origin of a request. It takes nothing but scheme://host[:port]: what is echoed into an answer has this form.
func parseOrigin(s string) (origin, bool) {
	scheme, rest, ok := strings.Cut(message.Lower(s), "://")
	if !ok || !schemeBytes(scheme) {
		return origin{}, false
	}
	h, ok := message.ParseHost(rest)
	if !ok || strings.HasSuffix(rest, ":") {
		return origin{}, false
	}
	return origin{scheme, h.Name, portOr(h.Port, scheme)}, true
}

// pattern is an allowed origin.
type pattern struct {
	origin
	any  bool // "*"
	wild bool // one label or more, then host; all hosts when that is empty
}

// parsePattern reads an origin as routes write it (CORSOrigin).
func parsePattern(s string) (pattern, bool) {
	if s == "*" {
		return pattern{any: true}, true
	}
	scheme, rest, _ := strings.Cut(message.Lower(s), "://")
	if scheme != "http" && scheme != "https" {
		return pattern{}, false
	}
	if rest == "*" || strings.HasPrefix(rest, "*:") {
		port := uint64(0)
		if text, has := strings.CutPrefix(rest, "*:"); has {
			var err error
			if port, err = strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
				return pattern{}, false
			}
		}
		return pattern{origin: origin{scheme, "", portOr(uint16(port), scheme)}, wild: true}, true
	}
	rest, wild := strings.CutPrefix(rest, "*.")
	o, ok := parseOrigin(scheme + "://" + rest)
	return pattern{origin: o, wild: wild}, ok
}

func (p *pattern) matches(o origin) bool {
	switch {
	case p.any:
		return true
	case p.scheme != o.scheme || p.port != o.port:
		return false
	case !p.wild:
		return p.host == o.host
	case p.host == "":
		return true
	}
	// The dot belongs to the wildcard: evilbar.com is not under bar.com.
	front, ok := strings.CutSuffix(o.host, p.host)
	return ok && len(front) > 1 && front[len(front)-1] == '.'
}

func portOr(port uint16, scheme string) uint16 {
	switch {
	case port != 0:
		return port
	case scheme == "http":
		return 80
	case scheme == "https":
		return 443
	}
	return 0
}

// schemeBytes reports whether s is a scheme (RFC 3986 3.1), in lower case. Extensions of browsers have their own.
func schemeBytes(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || i > 0 && ('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.')) {
			return false
		}
	}
	return s != ""
}
