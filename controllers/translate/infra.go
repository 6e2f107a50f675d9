package translate

import (
	"cmp"

	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Infra is what a Gateway should have outside of the data plane: what the infrastructure writer makes Services of.
type Infra struct {
	Gateway snapshot.Name
	UID     types.UID
	Class   string // the name of its GatewayClass
	// Ports are those of the spec on which something is served, ascending. None: what there is stays, so as not to lose an address.
	Ports []uint16
	// Named are all that the spec names, ascending. One that is not served now, for want of a certificate, is not given away.
	Named []uint16
	// Labels and Annotations are those of spec.infrastructure.
	Labels, Annotations map[string]string
	// Addresses are the IP addresses that were asked for; none: any.
	Addresses []string
}

// infra is the graph as the infrastructure sees it. A Gateway that is refused as a whole is not in it: what it has stays.
func (g *graph) infra() []Infra {
	var all []Infra
	for _, n := range g.gateways {
		if n.problem != nil {
			continue
		}
		out := Infra{
			Gateway: n.name,
			UID:     n.object.UID,
			Class:   string(n.object.Spec.GatewayClassName),
			Ports:   n.servedPorts(),
			Named:   portsOf(n.listeners, func(*listenerNode) bool { return true }),
		}
		if i := n.object.Spec.Infrastructure; i != nil {
			out.Labels, out.Annotations = plain(i.Labels), plain(i.Annotations)
		}
		for _, a := range n.object.Spec.Addresses {
			if a.Value != "" {
				out.Addresses = append(out.Addresses, a.Value)
			}
		}
		all = append(all, out)
	}
	return all
}

// gatewayUIDs are those of all Gateways but the ones of another controller's class. One whose class is not there, or is to come again, is
// still ours if it ever was.
func (g *graph) gatewayUIDs() map[types.UID]bool {
	others := map[string]bool{}
	for _, c := range g.in.Objects.GatewayClasses {
		others[c.Name] = c.Spec.ControllerName != controllerName
	}
	all := map[types.UID]bool{}
	for _, o := range g.in.Objects.Gateways {
		if !others[string(o.Spec.GatewayClassName)] {
			all[o.UID] = true
		}
	}
	return all
}

func plain[K, V ~string](m map[K]V) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[string(k)] = string(v)
	}
	return out
}

func compareBackends(a, b snapshot.BackendRef) int {
	return cmp.Or(compareNames(a.Service, b.Service), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Owner, b.Owner))
}
