package translate

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// lookup answers what a policy refers to, by the same rules as for routes and Gateways.
type lookup struct {
	graph *graph
	from  referrer
}

var _ policy.Lookup = lookup{}

func (g *graph) lookup(k policy.Kind, o policy.Object) policy.Lookup {
	return lookup{g, referrer{v1alpha1.GroupVersion.Group, k.Name, o.GetNamespace()}}
}

func (l lookup) Secret(field string, ref gwv1.SecretObjectReference) (policy.Secret, *policy.Problem) {
	if group, kind := value(ref.Group, ""), value(ref.Kind, "Secret"); group != "" || kind != "Secret" {
		return policy.Secret{}, misses(wrong(field, v1alpha1.PolicyReasonInvalidSecretRef, "only Secrets can be referred to here, not %s", groupKind(string(group), string(kind))))
	}
	secret, answer, p := l.graph.secret(l.from, ref, field, v1alpha1.PolicyReasonInvalidSecretRef)
	switch {
	case answer == Pending:
		return policy.Secret{}, pending(field)
	case p != nil:
		return policy.Secret{}, misses(p)
	}
	return secretOf(secret), nil
}

func (l lookup) Secrets(field string, selector metav1.LabelSelector) ([]policy.Secret, *policy.Problem) {
	s, err := metav1.LabelSelectorAsSelector(&selector)
	switch {
	case err != nil:
		return nil, &policy.Problem{FieldPath: field, Message: err.Error()}
	case s.Empty():
		return nil, &policy.Problem{FieldPath: field, Message: "a selector without labels would take every Secret of the namespace; name some"}
	}
	secrets, answer := l.graph.refs.secretsIn(l.from.namespace, s)
	switch answer {
	case Pending:
		return nil, pending(field)
	case Forbidden:
		return nil, misses(wrong(field, v1alpha1.PolicyReasonInvalidSecretRef, "Gatehouse may not list the Secrets of namespace %s; "+
			"grant its ServiceAccount get, list and watch on all of them (chart value rbac.secrets.namespaces), or name the Secrets instead", l.from.namespace))
	}
	var all []policy.Secret
	for _, secret := range secrets {
		all = append(all, secretOf(secret))
	}
	return all, nil
}

func (l lookup) Backend(field string, ref gwv1.BackendObjectReference) (snapshot.BackendRef, *policy.Problem) {
	target, p := backendRefOf(l.from.namespace, ref, field)
	if p != nil {
		return target, misses(p)
	}
	backend, answer, p := l.graph.backend(l.from, target, field)
	switch {
	case p != nil:
		return target, misses(p)
	case answer == Pending:
		l.graph.good.keepBackend(l.graph.in.LastGood, target)
		return target, pending(field)
	}
	l.graph.good.backends[target] = backend
	return target, nil
}

// secretOf leaves out the annotations of others: one of them is the whole Secret as it was applied.
func secretOf(s *corev1.Secret) policy.Secret {
	annotations := maps.Clone(s.Annotations)
	maps.DeleteFunc(annotations, func(key, _ string) bool { return !strings.HasPrefix(key, v1alpha1.GroupVersion.Group+"/") })
	return policy.Secret{Name: nameOf(s), Labels: s.Labels, Annotations: annotations, Data: s.Data}
}

func pending(field string) *policy.Problem {
	return &policy.Problem{FieldPath: field, Message: "it is not known yet whether this is there", Pending: true}
}

// misses makes a policy's problem of one with what it refers to.
func misses(p *problem) *policy.Problem {
	return &policy.Problem{FieldPath: p.field, Reason: p.reason, Message: p.message, Reference: true}
}

// call takes over what an effect calls. Of a Service only the name is in it: how it is spoken to is known from looking it up.
func (g *graph) call(e policy.Effect) {
	for _, b := range e.Backends {
		if known, ok := g.good.backends[b.Ref]; ok {
			b = known
		}
		g.called[b.Ref] = b
	}
}
