package admin

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// page shows a page of a filter, which is a message.Handler: filters know nothing of net/http.
func (a *Admin) page(w http.ResponseWriter, r *http.Request) {
	handler := a.options.Page(strings.TrimPrefix(r.URL.Path, "/filters/"))
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	ex := exchange(r)
	defer func() {
		if recover() != nil {
			ex.Outcome.Reason = message.ReasonPanic
			text(w, http.StatusInternalServerError, message.ReasonPanic.Text()+"\n")
		}
		handler.Done(ex)
		ex.Cancel(errors.New("the page was shown"))
	}()
	handler.Serve(ex)
	show(w, ex)
}

// exchange is the request as filters see any. It has no body: only GET comes here.
func exchange(r *http.Request) *message.Exchange {
	ex := &message.Exchange{Received: time.Now(), Wire: "admin"}
	ex.WithParent(r.Context())
	if remote, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		ex.ClientIP = remote.Addr().Unmap()
	}
	ex.Request.Method, ex.Request.Scheme, ex.Request.Version = r.Method, "http", message.HTTP11
	ex.Request.Host, _ = message.ParseHost(r.Host)
	ex.Request.Target = message.Target{
		Raw: r.RequestURI, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, HasQuery: r.URL.RawQuery != "" || r.URL.ForceQuery,
	}
	for name, values := range r.Header {
		for _, v := range values {
			if !message.Framing(name) {
				ex.Request.Header.Add(name, v)
			}
		}
	}
	return ex
}

// show writes the answer. A tunnel makes no sense here.
func show(w http.ResponseWriter, ex *message.Exchange) {
	answer := ex.Response
	if answer == nil || answer.Tunnel != nil || answer.Status < 200 {
		ex.Outcome.Reason = message.ReasonInternal
		text(w, http.StatusInternalServerError, "the page cannot be shown\n")
		return
	}
	for name, value := range answer.Header.All() {
		w.Header().Add(name, value)
	}
	w.WriteHeader(answer.Status)
	if answer.Body == nil {
		return
	}
	defer answer.Body.Release()
	for {
		piece, err := answer.Body.Next()
		if err != nil {
			return
		}
		n, err := w.Write(piece)
		ex.Outcome.BytesOut += int64(n)
		if err != nil {
			answer.Body.Abort(err)
			ex.Outcome.Reason, ex.Outcome.Err = message.ReasonClientLeft, err
			return
		}
	}
}
