package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// String is the text form: a line per socket with its listeners' names, then a line per match. Two snapshots with the same text do
// the same, but for the bytes of certificates, which show as a hash.
func (s *Snapshot) String() string {
	var b strings.Builder
	for i := range s.Sockets {
		s.Sockets[i].text(&b)
	}
	for _, be := range s.Backends {
		if line := be.text(); line != "" {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (s *Socket) text(b *strings.Builder) {
	for _, l := range s.Listeners {
		fmt.Fprintf(b, "listener %s %s %s", l.Key, s.Key.Bind(), s.Protocol)
		if s.SpecPort != s.Key.Port {
			fmt.Fprintf(b, " port=%d", s.SpecPort)
		}
		if l.Hostname != "" {
			fmt.Fprintf(b, " host=%s", l.Hostname)
		}
		if l.TLS != nil {
			l.TLS.text(b)
		}
		writeFilters(b, " pre:", l.Pre)
		writeFilters(b, " default:", l.Default)
		if l.Deny != nil {
			fmt.Fprintf(b, " deny(%s)", l.Deny.Reason)
		}
		b.WriteString("\n")
		for _, h := range l.Hosts {
			h.text(b)
		}
	}
}

func (t *TLS) text(b *strings.Builder) {
	b.WriteString(" tls(")
	for i, c := range t.Certificates {
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(c.String())
	}
	if c := t.Clients; c != nil {
		sum := sha256.Sum256(c.Roots)
		fmt.Fprintf(b, " clients#%x", sum[:6])
		if c.Optional {
			b.WriteString(" or none")
		}
	}
	b.WriteString(")")
}

func (h *Host) text(b *strings.Builder) {
	name := h.Name
	if name == "" {
		name = "*"
	}
	fmt.Fprintf(b, "  %s\n", name)
	for _, m := range h.Matches {
		fmt.Fprintf(b, "    %s%s\n", m, m.Rule.text())
	}
}

// String is the condition as one reads it: "GET /cart header(x-canary=1)".
func (m Match) String() string {
	var b strings.Builder
	if m.Method != "" {
		b.WriteString(m.Method + " ")
	}
	switch m.Path.Kind {
	case PathExact:
		b.WriteString("=" + m.Path.Value)
	case PathRegex:
		b.WriteString("~" + m.Path.Value)
	default:
		if m.Path.Value == "" {
			b.WriteString("/")
		}
		b.WriteString(m.Path.Value)
	}
	for _, v := range m.Headers {
		fmt.Fprintf(&b, " header(%s)", v)
	}
	for _, v := range m.Queries {
		fmt.Fprintf(&b, " query(%s)", v)
	}
	return b.String()
}

func (v ValueMatch) String() string {
	if v.Regex {
		return v.Name + "~" + v.Value
	}
	return v.Name + "=" + v.Value
}

// text is what is done: filters, settings, and where it goes.
func (r *Rule) text() string {
	var b strings.Builder
	writeFilters(&b, "", r.Filters)
	r.Timeouts.text(&b)
	r.Retry.text(&b)
	for _, m := range r.Mirrors {
		fmt.Fprintf(&b, " mirror(%s %d/%d)", m.Ref, m.Numerator, m.Denominator)
	}
	switch {
	case r.Failure != nil:
		fmt.Fprintf(&b, " → fail(%s)", r.Failure.Reason)
	case len(r.Backends) > 0:
		b.WriteString(" → ")
		for i, w := range r.Backends {
			if i > 0 {
				b.WriteString(", ")
			}
			w.text(&b, len(r.Backends) > 1)
		}
	}
	return b.String()
}

func (w *WeightedBackend) text(b *strings.Builder, several bool) {
	if w.Failure != nil {
		fmt.Fprintf(b, "fail(%s)", w.Failure.Reason)
	} else {
		b.WriteString(w.Ref.String())
	}
	if several || w.Weight != 1 {
		fmt.Fprintf(b, " ×%d", w.Weight)
	}
	writeFilters(b, "", w.Filters)
}

func (t Timeouts) text(b *strings.Builder) {
	for _, v := range []struct {
		name string
		d    time.Duration
	}{{"timeout", t.Request}, {"attempt", t.Backend}} {
		if v.d < 0 {
			fmt.Fprintf(b, " %s=none", v.name)
		} else if v.d > 0 {
			fmt.Fprintf(b, " %s=%s", v.name, v.d)
		}
	}
}

func (r Retry) text(b *strings.Builder) {
	if !r.Set {
		return
	}
	fmt.Fprintf(b, " retry(%d", r.Attempts)
	for _, c := range r.Codes {
		fmt.Fprintf(b, " %d", c)
	}
	if r.Backoff > 0 {
		fmt.Fprintf(b, " backoff=%s", r.Backoff)
	}
	b.WriteString(")")
}

// text is empty for a backend with nothing special.
func (be Backend) text() string {
	var words []string
	if be.Protocol != BackendHTTP {
		words = append(words, string(be.Protocol))
	}
	if be.Algorithm != "" {
		words = append(words, be.Algorithm)
	}
	if t := be.TLS; t != nil {
		words = append(words, "tls("+t.ServerName+roots(t.Roots)+")")
	}
	if o := be.Outside; o != nil {
		words = append(words, o.text()...)
	}
	if len(words) == 0 {
		return ""
	}
	return "backend " + be.Ref.String() + " " + strings.Join(words, " ") + "\n"
}

func (o *Outside) text() (words []string) {
	if o.TLS {
		words = append(words, "tls"+roots(o.Roots))
	} else {
		words = append(words, "clear")
	}
	if o.Private {
		words = append(words, "private")
	}
	return words
}

// roots are trusted certificates in the text form: public, but long.
func roots(pem []byte) string {
	if pem == nil {
		return ""
	}
	sum := sha256.Sum256(pem)
	return " roots#" + hex.EncodeToString(sum[:6])
}

func writeFilters(b *strings.Builder, label string, filters []Filter) {
	if len(filters) == 0 {
		return
	}
	b.WriteString(label)
	for _, f := range filters {
		b.WriteString(" " + f.String())
	}
}

// Text is what a rule does, in one line, for logs and comparisons.
func (r *Rule) Text() string { return strings.TrimSpace(r.text()) }
