package auth

import (
	"github.com/gatehouse-dev/gatehouse/dataplane/expr"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// forwarded is a header that backends can trust.
type forwarded struct {
	name  string
	value *expr.Program
}

// setHeaders sets what backends learn, the outermost policy's first: of two that set the same header the innermost counts. Nothing that a
// client sent is left under such a name, in any spelling (threats 8), whether or not there is a value.
func (g *guard) setHeaders(ex *message.Exchange, v *visit) {
	h := &ex.Request.Header
	drop(h, g.late)
	for _, f := range v.set {
		if message.ValidName(f.Name) && !message.Framing(f.Name) {
			set(h, f.Name, f.Value)
		}
	}
	for _, change := range v.on {
		change(&ex.Request)
	}
	for i := range g.policies {
		p := &g.policies[i]
		for j := range p.forward {
			value, err := p.forward[j].value.Value(ex)
			if err != nil {
				p.failed.Add(1)
				value = ""
			}
			set(h, p.forward[j].name, value)
		}
	}
}

// set replaces a header in every spelling. A value that cannot stand in a field is none: an issuer's user may be called anything.
func set(h *message.Header, name, value string) {
	h.DelFunc(func(sent, _ string) bool { return message.AliasName(sent, name) })
	if value != "" && message.ValidValue(value) {
		h.Add(name, value)
	}
}

// drop removes these headers in every spelling: case, and "_" for "-".
func drop(h *message.Header, names []string) {
	if len(names) == 0 {
		return
	}
	h.DelFunc(func(sent, _ string) bool {
		for _, name := range names {
			if message.AliasName(sent, name) {
				return true
			}
		}
		return false
	})
}
