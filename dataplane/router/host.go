package router

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// host is the entries of one name, laid out for finding: fixed paths by hash, prefixes in a tree of segments, and the regular
// expressions, which are the only ones that are tried one after the other. Each list is in the order.
type host[P any] struct {
	exact   map[string][]*entry[P]
	regexes []*entry[P]
	root    node[P]
}

// node is a segment of the tree of prefixes.
type node[P any] struct {
	parent  *node[P]
	next    map[string]*node[P]
	entries []*entry[P] // whose prefix ends here
}

func newHost[P any](entries []*entry[P]) *host[P] {
	sortEntries(entries)
	h := &host[P]{exact: map[string][]*entry[P]{}}
	for _, e := range entries {
		switch e.Path.Kind {
		case Exact:
			h.exact[e.Path.Value] = append(h.exact[e.Path.Value], e)
		case Regex:
			h.regexes = append(h.regexes, e)
		default:
			n := h.root.at(e.Path.Value)
			n.entries = append(n.entries, e)
		}
	}
	return h
}

// at is the node of a prefix, made when it is not there.
func (n *node[P]) at(prefix string) *node[P] {
	if prefix == "" {
		return n
	}
	for segment := range strings.SplitSeq(prefix[1:], "/") {
		child := n.next[segment]
		if child == nil {
			child = &node[P]{parent: n}
			if n.next == nil {
				n.next = map[string]*node[P]{}
			}
			n.next[segment] = child
		}
		n = child
	}
	return n
}

// match returns the first in the order that matches, nil when none does.
func (h *host[P]) match(r *message.Request, method string) *entry[P] {
	if e := first(h.exact[r.Target.Path], r, method); e != nil {
		return e
	}
	best := h.longestPrefix(r, method)
	for _, e := range h.regexes {
		if best != nil && best.rank < e.rank {
			break
		}
		if strings.HasPrefix(r.Target.Path, e.literal) && e.serves(r, method) && e.path.MatchString(r.Target.Path) {
			return e
		}
	}
	return best
}

// longestPrefix goes down the tree as far as the path goes, and back up until an entry matches.
func (h *host[P]) longestPrefix(r *message.Request, method string) *entry[P] {
	n := &h.root
	for rest, more := r.Target.Path[1:], true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		child := n.next[segment]
		if child == nil {
			break
		}
		n = child
	}
	for ; n != nil; n = n.parent {
		if e := first(n.entries, r, method); e != nil {
			return e
		}
	}
	return nil
}

func first[P any](entries []*entry[P], r *message.Request, method string) *entry[P] {
	for _, e := range entries {
		if e.serves(r, method) {
			return e
		}
	}
	return nil
}
