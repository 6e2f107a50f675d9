// Package endpoints turns EndpointSlices into one table, backend → endpoints: the short way from the cluster to the data plane, which
// no Build is part of. A pod that comes or goes changes the endpoints of its Service's backends and nothing else.
//
// A backend is a Service and one of its TCP ports. Its endpoints are those of all slices that carry the Service's name in the label
// kubernetes.io/service-name, whoever wrote them (so Services without a selector and headless ones work the same), joined by the
// *name* of the port: the Service says that 80 is called "http", and each slice says which number "http" has there.
//
// As in kube-proxy: only the first address of an endpoint counts, an endpoint that says nothing about itself is ready, one that
// terminates and still serves is kept as draining (the data plane uses it when no other is there), ports without a number are
// passed over. One address may stand in two slices; ready wins.
//
// An address that leads back into the machine or its link (127.0.0.1, the cloud's metadata at 169.254.169.254) is refused unless
// the process allows it, and named for the route's status: whoever may write a slice could otherwise reach what only the gateway can.
//
// Limits: a Service with two IP families has each pod twice, once per family. An address is refused by its kind only; other networks
// that a gateway ought not to reach are a NetworkPolicy's matter. Slices of names (FQDN) are refused.
package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Options of a table.
type Options struct {
	// AllowLocal lets loopback and link-local addresses be endpoints. Multicast and unspecified addresses never are.
	AllowLocal bool
}

// Table is backend → endpoints. It is for one goroutine.
type Table struct {
	options  Options
	services map[snapshot.Name]*service
	owner    map[snapshot.Name]snapshot.Name // slice → the Service that it was last of
	dirty    map[snapshot.Name]bool          // Services to look at again
}

// service is what is known about one Service. It exists as soon as a slice names it.
type service struct {
	ports  []port // TCP only, by number; nil while there is no Service
	slices map[snapshot.Name]slice
	told   map[uint16]joined // by port number: what Changes said last
}

type port struct {
	number uint16
	name   string
}

// Refused is a backend some of whose addresses are not used.
type Refused struct {
	Backend snapshot.BackendRef
	Count   int      // of addresses
	Some    []string // the first few, in order: "127.0.0.1", or a name
}

// String is for the status of a route: "web/shop:80: 127.0.0.1, ::1 and 3 more are local, multicast or no addresses".
func (r Refused) String() string {
	text := r.Backend.String() + ": " + strings.Join(r.Some, ", ")
	if more := r.Count - len(r.Some); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if r.Count == 1 {
		return text + " is a local, multicast or no address"
	}
	return text + " are local, multicast or no addresses"
}

// maxSome is how many refused addresses are named; the rest is counted.
const maxSome = 3

// New makes an empty table.
func New(o Options) *Table {
	return &Table{
		options:  o,
		services: map[snapshot.Name]*service{},
		owner:    map[snapshot.Name]snapshot.Name{},
		dirty:    map[snapshot.Name]bool{},
	}
}

// SetService tells of a Service, new or changed.
func (t *Table) SetService(s *corev1.Service) {
	name := snapshot.Name{Namespace: s.Namespace, Name: s.Name}
	ports := []port{}
	if s.Spec.Type != corev1.ServiceTypeExternalName {
		for _, p := range s.Spec.Ports {
			if p.Protocol == corev1.ProtocolTCP || p.Protocol == "" {
				ports = append(ports, port{uint16(p.Port), p.Name})
			}
		}
	}
	slices.SortFunc(ports, func(x, y port) int { return cmp.Compare(x.number, y.number) })
	if known := t.service(name); known.ports == nil || !slices.Equal(known.ports, ports) {
		known.ports = ports
		t.dirty[name] = true
	}
}

// DeleteService tells that a Service is gone. Its slices stay: a Service that comes back finds its endpoints.
func (t *Table) DeleteService(name snapshot.Name) {
	if s := t.services[name]; s != nil {
		s.ports = nil
		t.dirty[name] = true
	}
}

// SetSlice tells of a slice, new or changed. A slice without the label of a Service is nobody's.
func (t *Table) SetSlice(s *discoveryv1.EndpointSlice) {
	name := snapshot.Name{Namespace: s.Namespace, Name: s.Name}
	of := snapshot.Name{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
	if was, ok := t.owner[name]; ok && was != of {
		t.DeleteSlice(name)
	}
	if of.Name == "" {
		return
	}
	t.owner[name] = of
	t.service(of).slices[name] = t.read(s)
	t.dirty[of] = true
}

// DeleteSlice tells that a slice is gone.
func (t *Table) DeleteSlice(name snapshot.Name) {
	of, ok := t.owner[name]
	if !ok {
		return
	}
	delete(t.owner, name)
	delete(t.services[of].slices, name)
	t.dirty[of] = true
}

func (t *Table) service(name snapshot.Name) *service {
	s := t.services[name]
	if s == nil {
		s = &service{slices: map[snapshot.Name]slice{}, told: map[uint16]joined{}}
		t.services[name] = s
	}
	return s
}

// Changes is what differs from the last call, sorted by backend: the whole set of each backend that changed, empty for a Service that
// has no endpoints; and the backends that are gone, which ought to be told as empty only when no plan names them any more. The slices
// are the caller's to read, not to change.
func (t *Table) Changes() (changed []snapshot.Endpoints, gone []snapshot.BackendRef) {
	for _, name := range slices.SortedFunc(maps.Keys(t.dirty), compareNames) {
		s := t.services[name]
		for _, p := range s.ports {
			now := s.join(p.name)
			was, told := s.told[p.number]
			s.told[p.number] = now
			if !told || !slices.Equal(was.endpoints, now.endpoints) {
				changed = append(changed, snapshot.Endpoints{Backend: backend(name, p.number), Endpoints: now.endpoints})
			}
		}
		for _, number := range slices.Sorted(maps.Keys(s.told)) {
			if !slices.ContainsFunc(s.ports, func(p port) bool { return p.number == number }) {
				delete(s.told, number)
				gone = append(gone, backend(name, number))
			}
		}
		if s.ports == nil && len(s.slices) == 0 {
			delete(t.services, name)
		}
	}
	clear(t.dirty)
	return changed, gone
}

// Refused lists the backends some of whose addresses were refused, as of the last call of Changes, sorted by backend.
func (t *Table) Refused() (all []Refused) {
	for _, name := range slices.SortedFunc(maps.Keys(t.services), compareNames) {
		for _, number := range slices.Sorted(maps.Keys(t.services[name].told)) {
			if r := t.services[name].told[number].refused; len(r) > 0 {
				all = append(all, Refused{Backend: backend(name, number), Count: len(r), Some: r[:min(len(r), maxSome)]})
			}
		}
	}
	return all
}

func backend(service snapshot.Name, port uint16) snapshot.BackendRef {
	return snapshot.BackendRef{Service: service, Port: port}
}

func compareNames(x, y snapshot.Name) int {
	return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
}

func compareAddresses(x, y snapshot.Endpoint) int {
	return netip.AddrPort.Compare(x.Address, y.Address)
}
