package members

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// The annotations of a replica's Lease.
const (
	// BoundAnnotation are the sockets that it has bound: "10000-10004 10007 192.0.2.1:80".
	BoundAnnotation = "gatehouse.dev/bound"
	// FailedAnnotation are those that it could not, and why, a line for each reason: "10005-10006: address already in use".
	FailedAnnotation = "gatehouse.dev/failed"
)

// IsReplica reports whether a Lease is one in which a replica says what it has bound.
func IsReplica(l *coordinationv1.Lease) bool {
	_, is := l.Annotations[BoundAnnotation]
	return is
}

// Socket is where a replica listens: a port, on all addresses of the pod or on one.
type Socket struct {
	Address netip.Addr // the zero Addr: all
	Port    uint16
}

func (s Socket) String() string {
	if !s.Address.IsValid() {
		return strconv.Itoa(int(s.Port))
	}
	return netip.AddrPortFrom(s.Address, s.Port).String()
}

func compareSockets(a, b Socket) int {
	return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Port, b.Port))
}

// Said is what a replica says of its sockets. One that stands in neither is not tried yet.
type Said struct {
	Bound  map[Socket]bool
	Failed map[Socket]string // why
}

// A Lease's annotations may have 256 KiB together. The failures get a small part of it: with more reasons than that, the words are
// cut, never the ports.
const (
	maxReasons = 50
	maxReason  = 200 // bytes
)

// annotations are what read reads.
func (s Said) annotations() map[string]string {
	byReason := map[string][]Socket{}
	for _, socket := range slices.SortedFunc(maps.Keys(s.Failed), compareSockets) {
		why := oneLine(s.Failed[socket])
		if byReason[why] == nil && len(byReason) >= maxReasons {
			why = "cannot be bound, as others before"
		}
		byReason[why] = append(byReason[why], socket)
	}
	var lines []string
	for why, sockets := range byReason {
		lines = append(lines, ranges(sockets)+": "+why)
	}
	slices.Sort(lines)
	return map[string]string{
		BoundAnnotation:  ranges(slices.SortedFunc(maps.Keys(s.Bound), compareSockets)),
		FailedAnnotation: strings.Join(lines, "\n"),
	}
}

func oneLine(why string) string {
	why = strings.Join(strings.Fields(strings.ToValidUTF8(why, "?")), " ")
	if len(why) > maxReason {
		why = strings.ToValidUTF8(why[:maxReason-len("…")], "") + "…"
	}
	return why
}

// read takes what a replica said out of its Lease. What cannot be read was not said.
func read(l *coordinationv1.Lease) Said {
	s := Said{Bound: map[Socket]bool{}, Failed: map[Socket]string{}}
	for _, socket := range sockets(l.Annotations[BoundAnnotation]) {
		s.Bound[socket] = true
	}
	for line := range strings.SplitSeq(l.Annotations[FailedAnnotation], "\n") {
		which, why, _ := strings.Cut(line, ": ")
		for _, socket := range sockets(which) {
			s.Failed[socket] = why
		}
	}
	return s
}

// ranges writes sorted sockets, ports without an address as ranges.
func ranges(all []Socket) string {
	var words []string
	for i := 0; i < len(all); i++ {
		first, last := all[i], all[i]
		for !first.Address.IsValid() && i+1 < len(all) && all[i+1] == (Socket{Port: last.Port + 1}) {
			i++
			last = all[i]
		}
		if first == last {
			words = append(words, first.String())
		} else {
			words = append(words, fmt.Sprintf("%d-%d", first.Port, last.Port))
		}
	}
	return strings.Join(words, " ")
}

func sockets(text string) []Socket {
	var all []Socket
	for word := range strings.FieldsSeq(text) {
		if at, err := netip.ParseAddrPort(word); err == nil {
			all = append(all, Socket{at.Addr(), at.Port()})
			continue
		}
		from, to, isRange := strings.Cut(word, "-")
		first, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			continue
		}
		last := first
		if isRange {
			if last, err = strconv.ParseUint(to, 10, 16); err != nil {
				continue
			}
		}
		for port := first; port <= last; port++ {
			all = append(all, Socket{Port: uint16(port)})
		}
	}
	return all
}
