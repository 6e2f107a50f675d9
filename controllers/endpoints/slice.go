package endpoints

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// slice is what an EndpointSlice says, read once.
type slice struct {
	ports     []port // TCP, with a number
	addresses []address
	refused   []string
}

// address is an endpoint before it has a port.
type address struct {
	ip       netip.Addr
	zone     string
	draining bool
}

// read takes from a slice what counts. Endpoints that neither serve nor will are left out.
func (t *Table) read(s *discoveryv1.EndpointSlice) slice {
	var r slice
	for _, p := range s.Ports {
		if p.Port != nil && *p.Port > 0 && *p.Port <= 65535 && value(p.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP {
			r.ports = append(r.ports, port{uint16(*p.Port), value(p.Name, "")})
		}
	}
	for _, e := range s.Endpoints {
		usable, draining := state(e.Conditions)
		if !usable || len(e.Addresses) == 0 {
			continue
		}
		ip, err := netip.ParseAddr(e.Addresses[0])
		ip = ip.Unmap() // ::ffff:127.0.0.1 is 127.0.0.1
		if err != nil || ip.Zone() != "" || s.AddressType == discoveryv1.AddressTypeFQDN || t.forbidden(ip) {
			r.refused = append(r.refused, e.Addresses[0])
			continue
		}
		r.addresses = append(r.addresses, address{ip, value(e.Zone, ""), draining})
	}
	return r
}

// state reads the conditions as kube-proxy does: what is not said is ready, and what is not said about serving is as ready.
func state(c discoveryv1.EndpointConditions) (usable, draining bool) {
	ready := value(c.Ready, true)
	draining = !ready && value(c.Serving, ready) && value(c.Terminating, false)
	return ready || draining, draining
}

func (t *Table) forbidden(ip netip.Addr) bool {
	switch {
	case ip.IsUnspecified(), ip.IsMulticast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return true
	case ip.IsLoopback(), ip.IsLinkLocalUnicast():
		return !t.options.AllowLocal
	}
	return false
}

// joined is the endpoints of one port of a Service, by address.
type joined struct {
	endpoints []snapshot.Endpoint
	refused   []string
}

// join merges all slices for the port of that name. Where two say different things about one address, ready wins, then the slice
// whose name comes first.
func (s *service) join(name string) joined {
	var j joined
	at := map[netip.AddrPort]int{}
	for _, key := range slices.SortedFunc(maps.Keys(s.slices), compareNames) {
		sl := s.slices[key]
		for _, p := range sl.ports {
			if p.name != name {
				continue
			}
			for _, a := range sl.addresses {
				e := snapshot.Endpoint{Address: netip.AddrPortFrom(a.ip, p.number), Zone: a.zone, Draining: a.draining}
				i, twice := at[e.Address]
				if !twice {
					at[e.Address] = len(j.endpoints)
					j.endpoints = append(j.endpoints, e)
					continue
				}
				was := &j.endpoints[i]
				was.Draining = was.Draining && e.Draining
				was.Zone = cmp.Or(was.Zone, e.Zone)
			}
		}
		// A slice of names has nothing that can be joined, and still has to be told.
		if len(sl.refused) > 0 && (len(sl.ports) == 0 || slices.ContainsFunc(sl.ports, func(p port) bool { return p.name == name })) {
			j.refused = append(j.refused, sl.refused...)
		}
	}
	slices.SortFunc(j.endpoints, compareAddresses)
	slices.Sort(j.refused)
	j.refused = slices.Compact(j.refused)
	return j
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
