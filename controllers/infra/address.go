package infra

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/members"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

// addressesOf are those under which a Service is reached. Until a load balancer has given it one it has none: a ClusterIP in the meantime
// would be published in DNS.
func addressesOf(s *corev1.Service, nodes []*corev1.Node, m members.Members) []gwv1.GatewayStatusAddress {
	var out []gwv1.GatewayStatusAddress
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		for _, i := range s.Status.LoadBalancer.Ingress {
			out = appendAddress(out, gwv1.IPAddressType, i.IP)
			out = appendAddress(out, gwv1.HostnameAddressType, i.Hostname)
		}
	case corev1.ServiceTypeClusterIP:
		for _, ip := range s.Spec.ClusterIPs {
			if ip != corev1.ClusterIPNone {
				out = appendAddress(out, gwv1.IPAddressType, ip)
			}
		}
	case corev1.ServiceTypeNodePort:
		for _, ip := range nodeAddresses(serving(s, nodes, m)) {
			out = appendAddress(out, gwv1.IPAddressType, ip)
		}
	}
	return out
}

func appendAddress(all []gwv1.GatewayStatusAddress, kind gwv1.AddressType, value string) []gwv1.GatewayStatusAddress {
	if value == "" {
		return all
	}
	return append(all, gwv1.GatewayStatusAddress{Type: &kind, Value: value})
}

// serving are the nodes that take what comes for a Service: with externalTrafficPolicy Local, those on which a replica is ready.
func serving(s *corev1.Service, nodes []*corev1.Node, m members.Members) []*corev1.Node {
	if s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return nodes
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n *corev1.Node) bool {
		return !slices.ContainsFunc(m.Ready, func(p members.Pod) bool { return p.Node == n.Name })
	})
}

// nodeAddresses are the external addresses of the nodes that are ready, or their internal ones if none has an external one.
func nodeAddresses(nodes []*corev1.Node) []string {
	byType := map[corev1.NodeAddressType]map[string]bool{corev1.NodeExternalIP: {}, corev1.NodeInternalIP: {}}
	for _, n := range nodes {
		if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; excluded || !nodeReady(n) {
			continue
		}
		for _, a := range n.Status.Addresses {
			if set := byType[a.Type]; set != nil {
				set[a.Address] = true
			}
		}
	}
	found := byType[corev1.NodeExternalIP]
	if len(found) == 0 {
		found = byType[corev1.NodeInternalIP]
	}
	return slices.SortedFunc(maps.Keys(found), compareAddresses)
}

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// compareAddresses puts IPv4 before IPv6.
func compareAddresses(a, b string) int {
	x, _ := netip.ParseAddr(a)
	y, _ := netip.ParseAddr(b)
	return x.Compare(y)
}

// hostAddresses are those of the nodes on which all ports of a Gateway are bound; of those that it asks for, the ones that are.
func hostAddresses(g translate.Infra, m members.Members) []gwv1.GatewayStatusAddress {
	bound := func(p members.Pod, addr netip.Addr) bool {
		return len(g.Ports) > 0 && !slices.ContainsFunc(g.Ports, func(port uint16) bool { return !p.Said.Bound[members.Socket{Address: addr, Port: port}] })
	}
	var texts []string
	if len(g.Addresses) == 0 {
		for _, p := range m.Ready {
			if bound(p, netip.Addr{}) {
				texts = append(texts, p.Addresses...)
			}
		}
	}
	for _, text := range g.Addresses {
		addr, err := netip.ParseAddr(text)
		if err == nil && slices.ContainsFunc(m.Ready, func(p members.Pod) bool { return bound(p, addr) }) {
			texts = append(texts, text)
		}
	}
	slices.SortFunc(texts, compareAddresses)
	var out []gwv1.GatewayStatusAddress
	for _, text := range slices.Compact(texts) {
		out = appendAddress(out, gwv1.IPAddressType, text)
	}
	return out
}
