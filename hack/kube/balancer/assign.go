package main

import (
	"net/netip"
	"slices"
	"strings"
)

// service is what of a Service says whether and which address it gets.
type service struct {
	Metadata struct {
		Namespace         string `json:"namespace"`
		Name              string `json:"name"`
		UID               string `json:"uid"`
		ResourceVersion   string `json:"resourceVersion"`
		CreationTimestamp string `json:"creationTimestamp"` // RFC 3339, so its order is that of time
	} `json:"metadata"`
	Spec struct {
		Type              string  `json:"type"`
		LoadBalancerIP    string  `json:"loadBalancerIP"`
		LoadBalancerClass *string `json:"loadBalancerClass"` // set: another balancer's
	} `json:"spec"`
	Status struct {
		LoadBalancer struct {
			Ingress []ingress `json:"ingress"`
		} `json:"loadBalancer"`
	} `json:"status"`
}

type ingress struct {
	IP string `json:"ip"`
}

func (s *service) balanced() bool {
	return s.Spec.Type == "LoadBalancer" && s.Spec.LoadBalancerClass == nil
}

// address is the one that the status shows, if it shows exactly one.
func (s *service) address() (netip.Addr, bool) {
	if len(s.Status.LoadBalancer.Ingress) != 1 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s.Status.LoadBalancer.Ingress[0].IP)
	return a, err == nil
}

// wants is the address that it asks for. A nonsensical one is none of the pool's, so it stays without any.
func (s *service) wants() (address netip.Addr, asks bool) {
	a, _ := netip.ParseAddr(s.Spec.LoadBalancerIP)
	return a, s.Spec.LoadBalancerIP != ""
}

// change is a status to write. The zero address takes away what there is.
type change struct {
	of *service
	to netip.Addr
}

// assign says whose status has to change. What the statuses say is all that it remembers, so the address of a Service that is deleted or is no
// balancer's any more is free at once. A Service keeps an address that it has; one that asks for an address gets this or none: outside the pool
// or another's, it waits. Of two who want the same, the older one gets it.
func assign(services []*service, pool netip.Prefix) []change {
	services = slices.Clone(services)
	slices.SortFunc(services, older)
	taken := map[netip.Addr]bool{}
	var waiting []*service
	var changes []change

	for _, s := range services {
		has, shown := s.address()
		asked, asks := s.wants()
		switch {
		case !s.balanced():
			if s.Spec.Type != "LoadBalancer" && len(s.Status.LoadBalancer.Ingress) > 0 {
				changes = append(changes, change{of: s})
			}
		case shown && usable(has, pool) && !taken[has] && (!asks || has == asked):
			taken[has] = true
		default:
			waiting = append(waiting, s)
		}
	}

	// Those who ask come first: the others take any.
	slices.SortStableFunc(waiting, func(a, b *service) int { return strings.Compare(b.Spec.LoadBalancerIP, a.Spec.LoadBalancerIP) })
	for _, s := range waiting {
		to, asks := s.wants()
		if !asks {
			to = lowest(pool, taken)
		} else if !usable(to, pool) || taken[to] {
			to = netip.Addr{}
		}
		taken[to] = true
		if to.IsValid() || len(s.Status.LoadBalancer.Ingress) > 0 {
			changes = append(changes, change{s, to})
		}
	}
	return changes
}

func older(a, b *service) int {
	if c := strings.Compare(a.Metadata.CreationTimestamp, b.Metadata.CreationTimestamp); c != 0 {
		return c
	}
	return strings.Compare(a.Metadata.UID, b.Metadata.UID)
}

// usable leaves out the first address of a pool, which looks like a network's.
func usable(a netip.Addr, pool netip.Prefix) bool {
	return a.IsValid() && pool.Contains(a) && a != pool.Masked().Addr()
}

// lowest is the first free address of the pool; the zero one when all are taken.
func lowest(pool netip.Prefix, taken map[netip.Addr]bool) netip.Addr {
	for a := pool.Masked().Addr().Next(); pool.Contains(a); a = a.Next() {
		if !taken[a] {
			return a
		}
	}
	return netip.Addr{}
}
