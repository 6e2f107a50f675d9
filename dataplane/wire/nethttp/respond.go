package nethttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// respond sends ex.Response: head, body, trailer.
func (x *exchange) respond() {
	res := x.ex.Response
	if res.Tunnel != nil {
		x.tunnel(res)
		return
	}
	bodyless := x.ex.Request.Method == http.MethodHead || res.Status == http.StatusNoContent || res.Status == http.StatusNotModified
	x.writeHead(res, bodyless)
	switch {
	case res.Body == nil:
	case bodyless:
		res.Body.Abort(nil)
	default:
		x.pull(res)
	}
	if x.one && !x.broken && (bodyless || res.Body.Len() >= 0) {
		x.flush() // Done shall know whether the last byte got away; without a length net/http ends the answer behind us
	}
	x.whole = !x.broken // a client that leaves from here on has what it asked for
}

func (x *exchange) writeHead(res *message.Response, bodyless bool) {
	h := x.w.Header()
	fill(h, &res.Header)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // keeps net/http from guessing one
	}
	length := res.Body.Len()
	if bodyless && (length <= 0 || res.Length >= 0) {
		length = res.Length
	}
	if length > 0 || length == 0 && (!bodyless || res.Length >= 0) && res.Status != http.StatusNoContent {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	if len(res.Trailer) > 0 && length < 0 {
		h["Trailer"] = res.Trailer
	}
	if x.c.info.Leaving() || x.one && (x.c.last.Load() || x.c.tap.bad.Load() || x.muchUnread()) {
		h["Connection"] = []string{"close"} // for HTTP/2 net/http makes a GOAWAY of it
	}
	x.wmu.Lock()
	x.committed = true
	x.w.WriteHeader(res.Status)
	x.wmu.Unlock()
	x.headed.Store(true)
	x.src.relax()
}

// muchUnread reports whether more of the request body is announced than we would read to save the connection.
func (x *exchange) muchUnread() bool {
	body := x.ex.Request.Body
	if x.src.r == nil {
		return x.r.ContentLength > 0 && !x.c.tap.atHand(x.number) // refused before it had a body
	}
	return body.Len()-x.src.passed.Load() > x.srv.limits.DrainBytes && !x.c.tap.atHand(x.number)
}

// pull copies the body until its end.
func (x *exchange) pull(res *message.Response) {
	body := res.Body
	left := body.Len()
	unwatch := func() {}
	defer func() { unwatch() }()
	watched := false
	for {
		if !body.More() {
			if !x.flush() {
				return
			}
			if !watched { // a client that leaves while the source has nothing to say
				watched = true
				unwatch = x.whenClientLeaves(body)
			}
		}
		p, err := body.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			x.sourceBroke(err)
			return
		}
		if left >= 0 {
			if left -= int64(len(p)); left < 0 {
				x.broke(message.ReasonInternal, errors.New("the body is longer than announced"))
				body.Abort(nil)
				return
			}
		}
		if !x.write(p) {
			body.Abort(x.ex.Outcome.Err)
			return
		}
	}
	if left > 0 {
		x.broke(message.ReasonResponseTruncated, io.ErrUnexpectedEOF)
		return
	}
	if t := body.Trailer(); t != nil && t.Len() > 0 && (!x.one || body.Len() < 0) {
		x.trailer(t)
	}
}

// whenClientLeaves aborts the body when the client goes, until stop is called; after stop has returned, the body is not touched any more:
// its memory is used for another answer.
func (x *exchange) whenClientLeaves(body *message.Body) (stop func()) {
	aborted := make(chan struct{})
	unwatch := context.AfterFunc(x.r.Context(), func() {
		defer close(aborted)
		body.Abort(&message.Error{Reason: message.ReasonClientLeft})
	})
	return func() {
		if !unwatch() {
			<-aborted
		}
	}
}

// sourceBroke ends an answer whose source failed: the client must not take what it got for the whole.
func (x *exchange) sourceBroke(err error) {
	reason := message.ReasonResponseTruncated
	var known *message.Error
	if errors.As(err, &known) {
		reason = known.Reason
	}
	if x.r.Context().Err() != nil {
		reason = message.ReasonClientLeft
	}
	if x.one && x.ex.Request.Version == message.HTTP10 {
		x.c.reset() // a body that ends with the connection would look whole
	}
	x.broke(reason, err)
}

func (x *exchange) write(p []byte) bool {
	written := x.watchWrite()
	n, err := x.w.Write(p)
	written()
	x.ex.Outcome.BytesOut += int64(n)
	if err != nil {
		x.broke(x.writeReason(err), err)
		return false
	}
	return true
}

func (x *exchange) flush() bool {
	written := x.watchWrite()
	err := x.w.(interface{ FlushError() error }).FlushError()
	written()
	if err != nil {
		x.broke(x.writeReason(err), err)
		return false
	}
	return true
}

// watchWrite bounds a write of an HTTP/2 stream, whose window the client may never open; a connection of HTTP/1 has a deadline of its
// own. What it returns is called behind the write.
func (x *exchange) watchWrite() (written func()) {
	d := x.srv.limits.WriteTimeout
	if x.one || d <= 0 {
		return func() {}
	}
	x.stall.begin(x.w, d)
	return x.written
}

// trailer sends fields behind the body. The head must be out before, or net/http would frame a short body by its length.
func (x *exchange) trailer(t *message.Header) {
	if x.one && (!x.flush() || x.ex.Request.Version == message.HTTP10) {
		return
	}
	h := x.w.Header()
	for i := range t.Len() {
		if f := t.At(i); !message.Framing(f.Name) {
			h.Add(http.TrailerPrefix+f.Name, f.Value)
		}
	}
}

// tunnel sends the 101 and lets the two sides talk.
func (x *exchange) tunnel(res *message.Response) {
	if !x.one || x.ex.Request.Upgrade == "" {
		res.Tunnel(nil)
		x.ex.Response = failure(message.ReasonInternal, "a tunnel that the client had not asked for")
		x.respond()
		return
	}
	h := x.w.Header()
	fill(h, &res.Header)
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = []string{res.Upgrade}
	x.wmu.Lock()
	x.committed = true
	x.w.WriteHeader(http.StatusSwitchingProtocols)
	x.wmu.Unlock()
	nc, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		res.Tunnel(nil)
		x.broke(message.ReasonClientLeft, err)
		return
	}
	x.hijacked = true
	x.c.tap.off()
	x.ex.Outcome = res.Tunnel(&clientTunnel{Conn: nc, c: x.c, early: buffered.Reader})
}
