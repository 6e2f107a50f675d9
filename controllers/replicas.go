package controllers

import (
	"maps"
	"slices"
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/members"
)

// replicas counts those that share the traffic, for limits that are divided among them. An API server that is away changes nothing.
type replicas struct {
	self string    // our pod
	told func(int) // nil: nobody wants to know
	own  func(*discoveryv1.EndpointSlice) bool

	mu     sync.Mutex // guards slices, and that told hears in the order of changes
	slices map[string]*discoveryv1.EndpointSlice
}

func (r *replicas) set(objects []Object)    { r.change(objects, false) }
func (r *replicas) delete(objects []Object) { r.change(objects, true) }

func (r *replicas) change(objects []Object, gone bool) {
	if r.told == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := false
	for _, o := range objects {
		s, ok := o.(*discoveryv1.EndpointSlice)
		if !ok || !r.own(s) {
			continue
		}
		changed = true
		if r.slices == nil {
			r.slices = map[string]*discoveryv1.EndpointSlice{}
		}
		if gone {
			delete(r.slices, s.Name)
		} else {
			r.slices[s.Name] = s
		}
	}
	if changed {
		r.told(members.Of(slices.Collect(maps.Values(r.slices)), nil).Live(r.self))
	}
}
