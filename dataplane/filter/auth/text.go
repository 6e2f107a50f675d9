package auth

import (
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// String is the text form: "auth(shop/api#0b1c2d3e any[customers=jwt(…) partners=apikey(…)] rules[allow ops when `…` from 10.0.0.0/8
// methods GET,POST] else deny, forward[X-User=`identity.subject`]; …)". Configs with the same text do the same; secrets show as hashes.
func (c Config) String() string {
	var b strings.Builder
	b.WriteString("auth(")
	for i, p := range c.Policies {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.text())
	}
	b.WriteString(")")
	return b.String()
}

func (p Policy) text() string {
	var b strings.Builder
	b.WriteString(p.Name.String())
	if p.UID != "" {
		b.WriteString("#" + snapshot.UIDWord(p.UID))
	}
	if p.Shadow {
		b.WriteString(" shadow")
	}
	if len(p.Methods) > 0 || p.Require == All || p.Require == Optional {
		b.WriteString(" " + strings.ToLower(string(p.Require)) + "[")
		for i, m := range p.Methods {
			b.WriteString([]string{"", " "}[min(i, 1)])
			b.WriteString(m.String())
		}
		b.WriteString("]")
	}
	p.Authorize.text(&b)
	p.Forward.text(&b)
	return b.String()
}

// Settle returns the same settings, which know their text. A snapshot's text asks for it with every match, and it takes a hash of all
// keys and passwords. They must not be changed afterwards.
func (c Config) Settle() Config {
	c.Policies = slices.Clone(c.Policies)
	for i := range c.Policies {
		p := &c.Policies[i]
		p.Methods = slices.Clone(p.Methods)
		for j := range p.Methods {
			p.Methods[j].text = p.Methods[j].String()
		}
	}
	return c
}

// String is the text form, "customers=jwt(…)".
func (m Method) String() string {
	if m.text != "" {
		return m.text
	}
	s, err := m.settings()
	if err != nil {
		return m.Name + "=unknown"
	}
	return m.Name + "=" + s.String()
}

func (a Authorize) text(b *strings.Builder) {
	if len(a.Rules) == 0 && !a.Deny {
		return
	}
	b.WriteString(" rules[")
	for i, r := range a.Rules {
		b.WriteString([]string{"", ", "}[min(i, 1)])
		b.WriteString(action(r.Deny) + " " + r.Name)
		if r.When != "" {
			b.WriteString(" when " + snapshot.Quote(r.When))
		}
		for j, s := range r.Sources {
			b.WriteString([]string{" from ", ","}[min(j, 1)] + s.String())
		}
		for j, m := range r.Methods {
			b.WriteString([]string{" methods ", ","}[min(j, 1)] + m)
		}
	}
	b.WriteString("] else " + action(a.Deny))
}

func action(deny bool) string {
	if deny {
		return "deny"
	}
	return "allow"
}

func (f Forward) text(b *strings.Builder) {
	for i, h := range f.Headers {
		b.WriteString([]string{" forward[", " "}[min(i, 1)] + h.Name + "=" + snapshot.Quote(h.Value))
	}
	if len(f.Headers) > 0 {
		b.WriteString("]")
	}
	if f.KeepCredential {
		b.WriteString(" keep credential")
	}
}
