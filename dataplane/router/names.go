package router

import (
	"iter"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Names finds what stands for a host name: the name itself, else the wildcard with the most labels, else what stands for any name.
// "*.example.com" is for one or more labels in front of it, and never for example.com itself. It never changes after it was made.
type Names[P any] struct {
	exact map[string]P
	wild  map[string]P // by what follows the star: ".example.com"
	any   P
	isAny bool // there is one for any
}

// NewNames makes it of names as users write them: "", "*.example.com", "www.example.com".
func NewNames[P any](byName map[string]P) *Names[P] {
	n := &Names[P]{exact: map[string]P{}, wild: map[string]P{}}
	for name, payload := range byName {
		switch name = canonicalName(name); {
		case name == "":
			n.any, n.isAny = payload, true
		case strings.HasPrefix(name, "*."):
			n.wild[name[1:]] = payload
		default:
			n.exact[name] = payload
		}
	}
	return n
}

// Match returns the most specific one. The name is as message.Host.Name has it: lower case, no trailing dot; "" finds only what stands
// for any name (a handshake without a server name).
func (n *Names[P]) Match(name string) (payload P, ok bool) {
	for p := range n.All(name) {
		return p, true
	}
	return payload, false
}

// All yields all that stand for the name, the most specific first.
func (n *Names[P]) All(name string) iter.Seq[P] {
	return func(yield func(P) bool) {
		if p, ok := n.exact[name]; ok && !yield(p) {
			return
		}
		if len(n.wild) > 0 {
			for i := 1; i < len(name); i++ { // from 1: a star stands for one label at least
				if name[i] != '.' {
					continue
				}
				if p, ok := n.wild[name[i:]]; ok && !yield(p) {
					return
				}
			}
		}
		if n.isAny {
			yield(n.any)
		}
	}
}

// canonicalName is a name in the spelling in which requests are looked up.
func canonicalName(name string) string { return message.Lower(strings.TrimSuffix(name, ".")) }
