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
	// Ports are those of the spec on which something is served, ascending. None: what there is stays, so as not to lose an address.
	Ports []uint16
	// Labels and Annotations are those of spec.infrastructure.
	Labels, Annotations map[string]string
	// Addresses are the IP addresses that were asked for; none: any.
	Addresses []string
}

// infra is the graph as the infrastructure sees it. A Gateway that is refused as a whole has nothing.
func (g *graph) infra() []Infra {
	var all []Infra
	for _, n := range g.gateways {
		if n.problem != nil {
			continue
		}
		out := Infra{Gateway: n.name, UID: n.object.UID, Ports: n.servedPorts()}
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
