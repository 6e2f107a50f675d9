package translate

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// BackendTLSPolicies are read so far as to refuse the backends that they are about: plain text to a backend that asks for TLS would be
// the one wrong answer.

// securedServices are the policies by the Service that they target.
func securedServices(all []*gwv1.BackendTLSPolicy) map[snapshot.Name][]*gwv1.BackendTLSPolicy {
	m := map[snapshot.Name][]*gwv1.BackendTLSPolicy{}
	for _, p := range byAge(all) {
		for _, t := range p.Spec.TargetRefs {
			name := snapshot.Name{Namespace: p.Namespace, Name: string(t.Name)}
			if t.Group == "" && t.Kind == "Service" && !slices.Contains(m[name], p) {
				m[name] = append(m[name], p)
			}
		}
	}
	return m
}

// securedBy finds a policy that asks for TLS to a port of a Service; its name is that of the port.
func (g *graph) securedBy(service snapshot.Name, port string) *gwv1.BackendTLSPolicy {
	for _, p := range g.secured[service] {
		for _, t := range p.Spec.TargetRefs {
			section := string(value(t.SectionName, ""))
			if t.Group == "" && t.Kind == "Service" && string(t.Name) == service.Name && (section == "" || section == port) {
				return p
			}
		}
	}
	return nil
}

func refuseTLS(p *gwv1.BackendTLSPolicy, ref snapshot.BackendRef, field string) *problem {
	return wrong(field, v1alpha1.ReasonInvalidBackend,
		"BackendTLSPolicy %s asks for TLS to Service %s, which is not served by this version of Gatehouse; plain text is never sent instead", nameOf(p), ref.Service)
}

// backendTLSStatus tells the policies that routes of ours meet that they are not served; the ancestors are the Gateways.
func (g *graph) backendTLSStatus() []Status {
	met := map[*gwv1.BackendTLSPolicy][]*gatewayNode{}
	for _, r := range g.routes {
		for _, service := range r.services {
			for _, p := range g.secured[service] {
				for _, n := range r.gateways() {
					if !slices.Contains(met[p], n) {
						met[p] = append(met[p], n)
					}
				}
			}
		}
	}
	var out []Status
	for _, p := range byAge(g.in.Objects.BackendTLSPolicies) {
		if len(met[p]) == 0 {
			continue
		}
		status := gwv1.PolicyStatus{Ancestors: []gwv1.PolicyAncestorStatus{}}
		for _, n := range met[p] {
			c := condition(gwv1.PolicyConditionAccepted, metav1.ConditionFalse, gwv1.PolicyReasonInvalid,
				"TLS to backends is not served by this version of Gatehouse; requests for the targets are answered with 500")
			status.Ancestors = append(status.Ancestors, gwv1.PolicyAncestorStatus{
				AncestorRef:    gatewayRef(n.name),
				ControllerName: controllerName,
				Conditions:     conditions(p.Generation, c),
			})
		}
		out = append(out, Status{Kind: "BackendTLSPolicy", Name: nameOf(p), Generation: p.Generation, Value: status})
	}
	return out
}
