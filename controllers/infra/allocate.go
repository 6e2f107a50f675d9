package infra

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Where pod ports come from: below the ports that the kernel takes for connections (32768 and up) and those of NodePorts (30000 and up),
// or a connection of our own to a backend could hold the port of a listener.
const (
	firstPodPort = 10000
	lastPodPort  = 29999
)

// rest is how long a pod port that was freed is given to nobody else: until no replica listens on it any more, and no node sends what
// was meant for the last one there.
const rest = 10 * time.Minute

// allocation is the record in the making.
type allocation struct {
	record Record
	// published is what Services of ours send where. A port that is published is not freed, and its pod port is given to nobody.
	published map[types.UID]map[Port]uint16
	used      map[uint16]bool
	recorded  map[uint16]bool // those of used that are in the record, for whomever
	next      uint16          // pod ports below are used
	last      uint16
	now       time.Time
}

func newAllocation(stored Record, published map[types.UID]map[Port]uint16, now time.Time, last uint16) *allocation {
	a := &allocation{
		record:    stored.clone(),
		published: published,
		used:      map[uint16]bool{},
		recorded:  map[uint16]bool{},
		next:      firstPodPort,
		last:      last,
		now:       now.UTC().Truncate(time.Second), // as it is stored
	}
	for _, ports := range published {
		for _, pod := range ports {
			a.used[pod] = true
		}
	}
	for uid, entries := range a.record {
		for p, e := range entries {
			if !e.held() && now.Sub(e.Freed) >= rest {
				delete(entries, p)
				continue
			}
			a.used[e.Pod], a.recorded[e.Pod] = true, true
		}
		if len(entries) == 0 {
			delete(a.record, uid)
		}
	}
	return a
}

// hold sees to it that a port has a pod port: the one that it has, or had until a short while ago, else one that is free.
func (a *allocation) hold(uid types.UID, p Port) error {
	if e, ok := a.record[uid][p]; ok {
		if !e.held() {
			a.record.set(uid, p, Entry{Pod: e.Pod})
		}
		return nil
	}
	for ; a.next <= a.last; a.next++ {
		if !a.used[a.next] {
			a.used[a.next], a.recorded[a.next] = true, true
			a.record.set(uid, p, Entry{Pod: a.next})
			return nil
		}
	}
	return fmt.Errorf("no port of the pods is left for port %d: %d-%d are taken, or were until less than %s ago; remove listeners that nobody needs",
		p.Number, firstPodPort, a.last, rest)
}

// keep takes up what a Service publishes and the record has freed or lost, unless the pod port is another's by now.
func (a *allocation) keep(uid types.UID, p Port) {
	pod := a.published[uid][p]
	e, known := a.record[uid][p]
	switch {
	case known && !e.held() && e.Pod == pod,
		!known && pod >= firstPodPort && pod <= a.last && !a.recorded[pod]:
		a.recorded[pod] = true
		a.record.set(uid, p, Entry{Pod: pod})
	}
}

// free lets go of a Gateway's ports that are not needed, unless they are published still.
func (a *allocation) free(uid types.UID, needed func(Port) bool) {
	for p, e := range a.record[uid] {
		if _, published := a.published[uid][p]; !e.held() || published || needed(p) {
			continue
		}
		a.record.set(uid, p, Entry{Pod: e.Pod, Freed: a.now})
	}
}

// rested is when the next freed port can be given away; zero: none is freed.
func (a *allocation) rested() time.Time {
	var first time.Time
	for _, entries := range a.record {
		for _, e := range entries {
			if t := e.Freed.Add(rest); !e.held() && (first.IsZero() || t.Before(first)) {
				first = t
			}
		}
	}
	return first
}
