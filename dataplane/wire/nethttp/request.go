package nethttp

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// read makes the exchange from what net/http and, for HTTP/1, the tap have read. A reason other than ReasonNone refuses it.
func (x *exchange) read() (message.Reason, string) {
	x.ex.Conn, x.ex.Wire, x.ex.Received = x.c.info, Name, time.Now()
	x.ex.WithParent(x.r.Context())
	x.ex.Request.Scheme = x.c.scheme()
	if x.one {
		return x.readOne()
	}
	return x.readTwo()
}

// readOne reads a request of HTTP/1. Its head is the tap's; net/http's says where the body is.
func (x *exchange) readOne() (message.Reason, string) {
	h, number := x.c.tap.next()
	if h == nil {
		return message.ReasonBadFraming, "the connection has lost its place"
	}
	defer x.c.tap.release(h)
	x.number = number
	h.fill(&x.ex)
	if h.reason != message.ReasonNone {
		return h.reason, h.detail
	}
	if h.method != x.r.Method || h.target != x.r.RequestURI || (h.length < 0) != (x.r.ContentLength < 0) {
		return message.ReasonBadFraming, "two readings of one head"
	}
	x.ex.Request.ExpectContinue = hasToken(h.expect, "100-continue")
	if h.version == message.HTTP11 {
		x.ex.Informer, x.ex.MaxInform = x.informer, x.srv.limits.MaxInform
	}
	if reason, detail := x.where(h.target, h.host, h.hosts); reason != message.ReasonNone {
		return reason, detail
	}
	if h.upgrade != "" && h.version == message.HTTP11 {
		if h.upgrade == "websocket" {
			if h.length != 0 || h.method != http.MethodGet {
				return message.ReasonBadUpgrade, "a websocket is asked for by GET without a body"
			}
			x.ex.Request.Upgrade = h.upgrade
		} // every other upgrade, h2c too, is not ours to grant: RFC 9110 7.8 lets us pass over it
	}
	return x.readBody(h.length)
}

// fill gives the exchange what the head says, refused or not.
func (h *head) fill(ex *message.Exchange) {
	req := &ex.Request
	req.Method, req.Version = h.method, h.version
	req.Target.Raw, req.Host.Raw = h.target, h.host
	req.Header = message.NewHeader(h.fields...)
	req.TETrailers = h.teTrailers
	h.fields = nil
}

// readTwo reads a request of HTTP/2. net/http gives it as a map: spelling and order are lost.
func (x *exchange) readTwo() (message.Reason, string) {
	req, r := &x.ex.Request, x.r
	req.Method, req.Version = r.Method, message.HTTP2
	req.Target.Raw, req.Host.Raw = r.RequestURI, r.Host
	size := len(r.Method) + len(r.RequestURI) + len(r.Host)
	lines := 1
	fields := make([]message.Field, 0, len(r.Header)+2)
	for name, values := range r.Header {
		for _, value := range values {
			lines++
			size += len(name) + len(value) + len(": \r\n")
			if !plainValue(value) {
				return message.ReasonBadHead, "a field value has a control character"
			}
			if !message.Framing(name) {
				fields = append(fields, message.Field{Name: name, Value: value})
			}
		}
	}
	req.Header = message.NewHeader(fields...)
	req.TETrailers = len(r.Header["Te"]) > 0 && r.Header["Te"][0] == "trailers"
	x.ex.Informer, x.ex.MaxInform = x.informer, x.srv.limits.MaxInform

	limits := &x.srv.limits
	switch {
	case limits.MaxURIBytes > 0 && len(r.RequestURI) > limits.MaxURIBytes:
		return message.ReasonURITooLong, ""
	case limits.MaxHeadBytes > 0 && size > limits.MaxHeadBytes:
		return message.ReasonHeadTooLarge, "too many bytes"
	case limits.MaxFields > 0 && lines > limits.MaxFields:
		return message.ReasonHeadTooLarge, "too many field lines"
	}
	hosts := r.Header["Host"]
	if len(hosts) > 1 || len(hosts) == 1 && hosts[0] != r.Host {
		return message.ReasonBadHost, "Host beside another :authority"
	}
	if reason, detail := x.where(r.RequestURI, r.Host, 1); reason != message.ReasonNone {
		return reason, detail
	}
	return x.readBody(r.ContentLength)
}

// where reads method, target and host.
func (x *exchange) where(target, host string, hosts int) (message.Reason, string) {
	req := &x.ex.Request
	if req.Method == http.MethodConnect || req.Method == http.MethodTrace {
		return message.ReasonBadMethod, req.Method
	}
	if hosts != 1 {
		return message.ReasonBadHost, "there must be one Host"
	}
	var ok bool
	if req.Host, ok = message.ParseHost(host); !ok {
		return message.ReasonBadHost, host
	}
	path := target
	switch {
	case target == "*" && req.Method != http.MethodOptions:
		return message.ReasonBadTarget, "* without OPTIONS"
	case target != "*" && target[0] != '/':
		var authority string
		if authority, path, ok = absolute(target); !ok {
			return message.ReasonBadTarget, "neither a path nor an http URI"
		}
		// RFC 9112 3.2.2 lets the target win over Host. Servers differ there, so both must say the same (threats 4).
		if other, ok := message.ParseHost(authority); !ok || other.Name != req.Host.Name || other.Port != req.Host.Port {
			return message.ReasonBadHost, "the target names another host than Host"
		}
	}
	t, reason, detail := message.ParseTarget(path, x.srv.limits.Paths)
	t.Raw = target
	req.Target = t
	return reason, detail
}

// absolute takes an absolute-form target apart (RFC 9112 3.2.2).
func absolute(target string) (authority, path string, ok bool) {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", "", false
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		return rest, "/", true
	}
	authority, path = rest[:end], rest[end:]
	if path[0] != '/' {
		path = "/" + path
	}
	return authority, path, true
}

// readBody makes the body of the request, −1 long when that is not announced.
func (x *exchange) readBody(length int64) (message.Reason, string) {
	if limit := x.srv.limits.MaxBodyBytes; limit > 0 && length > limit {
		return message.ReasonBodyTooLarge, "as announced"
	}
	if length == 0 {
		return message.ReasonNone, ""
	}
	if x.one {
		if fd, ok := x.w.(interface{ EnableFullDuplex() error }); ok {
			fd.EnableFullDuplex() // or net/http reads up to 256 KiB of the body before it writes the head of an answer
		}
	}
	x.src.x, x.src.r = x, x.r.Body
	x.body = *message.NewBody(&x.src, length, x.srv.limits.BodyBudget)
	x.ex.Request.Body = &x.body
	return message.ReasonNone, ""
}

// trailerOf makes a Header of trailer fields, without what must not stand there (RFC 9110 6.5.1).
func trailerOf(m http.Header) *message.Header {
	var fields []message.Field
	for name, values := range m {
		if forbiddenTrailer(name) {
			continue
		}
		for _, value := range values {
			if plainValue(value) {
				fields = append(fields, message.Field{Name: name, Value: value})
			}
		}
	}
	if len(fields) == 0 {
		return nil
	}
	slices.SortStableFunc(fields, func(a, b message.Field) int { return strings.Compare(a.Name, b.Name) })
	h := message.NewHeader(fields...)
	return &h
}

// forbiddenTrailer reports whether a field could change, once merged into a head, how a message is framed, routed or authorized.
func forbiddenTrailer(name string) bool {
	if message.Framing(name) || identity(name) {
		return true
	}
	for _, n := range []string{"Set-Cookie", "Content-Encoding", "Content-Type", "Content-Range", "Cache-Control", "Www-Authenticate"} {
		if message.EqualName(name, n) {
			return true
		}
	}
	return false
}

// fill puts fields in net/http's map. One array holds the values of all names that have one.
func fill(m http.Header, h *message.Header) {
	n := h.Len()
	if n == 0 {
		return
	}
	values := make([]string, n)
	for i := range n {
		f := h.At(i)
		if message.Framing(f.Name) {
			continue
		}
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if have, ok := m[name]; ok {
			m[name] = append(have, f.Value)
			continue
		}
		values[i] = f.Value
		m[name] = values[i : i+1 : i+1]
	}
}
