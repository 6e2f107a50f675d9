package controllers

import (
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// serving is the snapshot that the data plane was given last, and what it said to it.
type serving struct {
	snapshot *snapshot.Snapshot
	binds    snapshot.BindResult
	text     string
	names    string // what the text leaves out, and logs and metrics show
}

func newServing(s *snapshot.Snapshot) serving {
	return serving{snapshot: s, text: s.String(), names: namesIn(s)}
}

// failed counts the sockets that could not be bound.
func (s serving) failed() (n int) {
	for _, b := range s.binds.Sockets {
		if b.Err != nil {
			n++
		}
	}
	return n
}

// difference is how two snapshots differ, in lines of their text: a line is a listener, a hostname, a match, or a backend's settings.
type difference struct {
	any            bool
	added, removed int
}

func (s serving) differs(before serving) difference {
	d := difference{any: s.text != before.text || s.names != before.names}
	if s.text == before.text {
		return d
	}
	count := map[string]int{}
	for line := range strings.Lines(before.text) {
		count[line]--
	}
	for line := range strings.Lines(s.text) {
		count[line]++
	}
	for _, n := range count {
		d.added += max(n, 0)
		d.removed += max(-n, 0)
	}
	return d
}

// namesIn is of each match which rule it belongs to, by what its streams may go on, and with what detail it fails: two routes may do the
// same, and still one of them must not be served under the other's name.
func namesIn(s *snapshot.Snapshot) string {
	var b strings.Builder
	for _, socket := range s.Sockets {
		for _, l := range socket.Listeners {
			if l.Deny != nil {
				fmt.Fprintln(&b, l.Deny.Detail)
			}
			for _, h := range l.Hosts {
				for _, m := range h.Matches {
					nameRule(&b, m.Rule)
				}
			}
		}
	}
	return b.String()
}

func nameRule(b *strings.Builder, r *snapshot.Rule) {
	fmt.Fprintln(b, r.Key, r.Key.Rule, r.Security)
	if r.Failure != nil {
		fmt.Fprintln(b, r.Failure.Detail)
	}
	for _, w := range r.Backends {
		if w.Failure != nil {
			fmt.Fprintln(b, w.Failure.Detail)
		}
	}
}
