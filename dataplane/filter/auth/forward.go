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

// setHeaders sets what backends learn, the outermost policy's first: of two that set the same header the innermost counts. Each speaks of
// the identity that it has proven itself, so that no policy further down makes it say something else, or else of the exchange's. Nothing that a
// client sent is left under such a name, in any spelling (threats 8), whether or not there is a value, nor behind the body.
func (g *guard) setHeaders(ex *message.Exchange, v *visit) {
	h := &ex.Request.Header
	drop(h, g.late)
	if b := ex.Request.Body; b.Len() < 0 && len(g.late) > 0 {
		t := &trailing{names: g.late}
		t.Source = b.Watch(t)
	}
	for _, f := range v.set {
		if message.ValidName(f.Name) && !message.Framing(f.Name) {
			set(h, f.Name, f.Value)
		}
	}
	for _, change := range v.on {
		change(&ex.Request)
	}
	last := ex.Identity
	for i := range g.policies {
		p := &g.policies[i]
		if ex.Identity = last; v.own != nil && v.own[i] != nil {
			ex.Identity = v.own[i]
		}
		for j := range p.forward {
			value, err := p.forward[j].value.Value(ex)
			if err != nil {
				p.failed.Add(1)
				value = ""
			}
			set(h, p.forward[j].name, value)
		}
	}
	ex.Identity = last
}

// trailing is a request's body without these names behind it: some servers add what stands there to the head.
type trailing struct {
	message.Source
	names []string
}

func (t *trailing) Trailer() *message.Header {
	sent := t.Source.Trailer()
	if sent == nil {
		return nil
	}
	out := sent.Clone()
	drop(&out, t.names)
	return &out
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

// dropOtherSpellings removes headers that many servers would take for one of these, and that are spelled otherwise than by case.
func dropOtherSpellings(h *message.Header, names []string) {
	if len(names) == 0 {
		return
	}
	h.DelFunc(func(sent, _ string) bool {
		for _, name := range names {
			if message.AliasName(sent, name) && !message.EqualName(sent, name) {
				return true
			}
		}
		return false
	})
}
