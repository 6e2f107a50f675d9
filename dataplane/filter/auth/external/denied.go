package external

import (
	"slices"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// denial is the answer that the client gets from the service, by way of us. Fields are those that may pass.
func denial(status int, fields []message.Field, content []byte) *message.Response {
	r := &message.Response{Status: status, Header: message.NewHeader(fields...), Body: message.BodyOf(content), Length: -1, Origin: message.OriginFilter}
	r.Reason = message.ReasonDenied
	if status == 401 || status >= 300 && status < 400 {
		r.Reason = message.ReasonUnauthenticated
	}
	r.Detail = "by the external service"
	return r
}

// ours are fields of an answer that whoever sends it to the client says himself.
var ours = []string{"Date", "Server", "Alt-Svc"}

// fieldsOf are the fields of an answer that reach the client. What frames it never was among them.
func fieldsOf(h *message.Header) (out []message.Field) {
	for i := range h.Len() {
		if f := h.At(i); passes(f.Name) {
			out = append(out, f)
		}
	}
	return out
}

func passes(name string) bool {
	return name != "" && name[0] != ':' && !message.Framing(name) &&
		!slices.ContainsFunc(ours, func(n string) bool { return message.EqualName(n, name) })
}
