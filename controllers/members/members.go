// Package members knows which replicas of Gatehouse there are, and which sockets each of them has bound.
//
// Two sources tell it. Who is ready stands in the EndpointSlices of a headless Service over our pods: the same that lets the rest of
// the cluster send to them. What a replica has bound stands in annotations of a Lease of its own, named after its pod and owned by it,
// which it writes itself whenever that changes (see Announcer). So the leader can publish a port when every ready replica serves on it,
// and name the one that cannot.
//
// A Lease and not a ConfigMap or the pod: replicas need no right on pods, the owner takes it along when the pod goes, and our namespace's
// Leases are watched anyway.
//
// Limits: pod ports are told apart by number only, as no TCP port and UDP port share one in the record of pod ports. A replica's word
// is as old as its last write that arrived; while the API server is away, so is every answer here.
package members

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Members is what is known of the replicas.
type Members struct {
	Ready []Pod // by name; those that may get new connections
}

// Pod is a replica, with what it said last.
type Pod struct {
	Name      string
	UID       types.UID
	Node      string
	Addresses []string // of all families, sorted
	Said      Said
}

// Of finds the members in the EndpointSlices of the headless Service over our pods and in Leases, of which those that are no replica's
// are passed over. A Lease that belongs to another pod than the one that is ready under its name says nothing.
func Of(endpoints []*discoveryv1.EndpointSlice, leases []*coordinationv1.Lease) Members {
	said := map[string]*coordinationv1.Lease{}
	for _, l := range leases {
		if IsReplica(l) {
			said[l.Name] = l
		}
	}
	pods := map[string]*Pod{}
	for _, slice := range endpoints {
		for _, e := range slice.Endpoints {
			if e.TargetRef == nil || e.TargetRef.Kind != "Pod" || e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			p := pods[e.TargetRef.Name]
			if p == nil {
				p = &Pod{Name: e.TargetRef.Name, UID: e.TargetRef.UID}
				if l := said[p.Name]; l != nil && ownedBy(l, p.UID) {
					p.Said = read(l)
				}
				pods[p.Name] = p
			}
			if e.NodeName != nil {
				p.Node = *e.NodeName
			}
			p.Addresses = append(p.Addresses, e.Addresses...) // the slices of the other family have the same pods
		}
	}
	var m Members
	for _, p := range pods {
		slices.Sort(p.Addresses)
		p.Addresses = slices.Compact(p.Addresses)
		m.Ready = append(m.Ready, *p)
	}
	slices.SortFunc(m.Ready, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
	return m
}

// ownedBy reports whether a Lease is that of the pod; a UID that is not known fits all.
func ownedBy(l *coordinationv1.Lease, pod types.UID) bool {
	for _, o := range l.OwnerReferences {
		if o.Kind == "Pod" {
			return pod == "" || o.UID == pod
		}
	}
	return false
}

// Live is how many share the traffic: those that are ready, and the one that asks, which serves though it may not be ready yet or any more.
func (m Members) Live(self string) int {
	n := len(m.Ready)
	if !slices.ContainsFunc(m.Ready, func(p Pod) bool { return p.Name == self }) {
		n++
	}
	return n
}

// With returns the members with what one of them says now: it knows itself better than what it wrote last.
func (m Members) With(pod string, said Said) Members {
	out := Members{Ready: slices.Clone(m.Ready)}
	for i := range out.Ready {
		if out.Ready[i].Name == pod {
			out.Ready[i].Said = said
		}
	}
	return out
}

// Answer is what the replicas together say of a socket.
type Answer uint8

// The answers.
const (
	// Pending: one that is ready has not spoken of it yet, or none is ready.
	Pending Answer = iota
	// Bound: all that are ready have.
	Bound
	// Failed: one that is ready cannot; which and why is told.
	Failed
)

const maxNamed = 3 // replicas in one message; the rest is counted

// Answer sums up what the ready replicas say of a socket. What failed is told before what is pending.
func (m Members) Answer(s Socket) (Answer, string) {
	bound, failed := 0, []string(nil)
	for _, p := range m.Ready {
		if why, is := p.Said.Failed[s]; is {
			failed = append(failed, fmt.Sprintf("pod %s: %s", p.Name, why))
		} else if p.Said.Bound[s] {
			bound++
		}
	}
	if n := len(failed); n > maxNamed {
		failed = append(failed[:maxNamed], fmt.Sprintf("and %d more", n-maxNamed))
	}
	switch {
	case len(failed) > 0:
		return Failed, strings.Join(failed, "; ")
	case len(m.Ready) > 0 && bound == len(m.Ready):
		return Bound, ""
	}
	return Pending, ""
}

// Somewhere reports whether a ready replica has bound the socket: all that one can ask of an address that is one node's.
func (m Members) Somewhere(s Socket) bool {
	return slices.ContainsFunc(m.Ready, func(p Pod) bool { return p.Said.Bound[s] })
}
