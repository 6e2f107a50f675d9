package translate

import (
	"bytes"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// authorities is one object with certificate authorities.
type authorities struct {
	ref Ref
	pem []byte
}

// clientValidation is how the clients of this listener are to be checked, and the field that says so; nil: they are not. An entry for
// the port replaces the default.
func (l *listenerNode) clientValidation() (*gwv1.FrontendTLSValidation, string) {
	t := l.gateway.object.Spec.TLS
	if t == nil || t.Frontend == nil {
		return nil, ""
	}
	for i, p := range t.Frontend.PerPort {
		if p.Port == l.spec.Port {
			return p.TLS.Validation, fmt.Sprintf("spec.tls.frontend.perPort[%d].tls.validation", i)
		}
	}
	return t.Frontend.Default.Validation, "spec.tls.frontend.default.validation"
}

// loadAuthorities resolves whom the listener trusts about its clients. It never falls back to checking nobody: without a single authority
// it is closed. While an answer about one is missing it goes on with what that one was before.
func (g *graph) loadAuthorities(l *listenerNode) {
	v, field := l.clientValidation()
	if v == nil {
		return
	}
	l.clients = &snapshot.Clients{Optional: v.Mode == gwv1.AllowInsecureFallback}
	var found []authorities
	waits := false
	for i, ref := range v.CACertificateRefs {
		a, answer, p := g.authority(l.gateway.name.Namespace, ref, fmt.Sprintf("%s.caCertificateRefs[%d]", field, i))
		switch {
		case answer == Pending:
			waits = true
			if last, known := g.lastAuthority(l, a.ref); known {
				found = append(found, last)
			}
		case p != nil:
			l.refs.add(p)
		default:
			found = append(found, a)
		}
	}
	l.waits = l.waits || waits
	g.good.authorities[l.key] = found
	for _, a := range found {
		l.clients.Roots = append(l.clients.Roots, a.pem...)
	}
	if len(found) == 0 && !waits {
		l.problem = wrong(field+".caCertificateRefs", gwv1.ListenerReasonNoValidCACertificate,
			"no certificate authority can be used, so clients cannot be checked and the listener is closed; ResolvedRefs says what is wrong with each")
	}
}

// lastAuthority is what was trusted last by that reference. Others are not taken over: what is not named any more, or is known to be gone,
// is not trusted because something else is awaited.
func (g *graph) lastAuthority(l *listenerNode, ref Ref) (authorities, bool) {
	if g.in.LastGood == nil {
		return authorities{}, false
	}
	last := g.in.LastGood.authorities[l.key]
	i := slices.IndexFunc(last, func(a authorities) bool { return a.ref == ref })
	if i < 0 {
		return authorities{}, false
	}
	return last[i], true
}

// authority looks at one reference. ConfigMaps are what the Gateway API demands; a Secret with the same entry, as cert-manager writes it,
// will do too.
func (g *graph) authority(namespace string, ref gwv1.ObjectReference, field string) (authorities, Answer, *problem) {
	kind := string(ref.Kind)
	if ref.Group != "" || kind != "ConfigMap" && kind != "Secret" {
		return authorities{}, Found, wrong(field, gwv1.ListenerReasonInvalidCACertificateKind,
			"certificate authorities are read from ConfigMaps and Secrets, not from %s", groupKind(string(ref.Group), kind))
	}
	name := snapshot.Name{Namespace: string(value(ref.Namespace, gwv1.Namespace(namespace))), Name: string(ref.Name)}
	if !g.grants.allow(gatewayAPI("Gateway", namespace), "", kind, name) {
		return authorities{}, Found, wrong(field, gwv1.ListenerReasonRefNotPermitted,
			"no ReferenceGrant in namespace %s allows Gateways from %s to use %s %s", name.Namespace, namespace, kind, name)
	}
	text, answer := g.caText(kind, name)
	bad := func(format string, args ...any) (authorities, Answer, *problem) {
		return authorities{}, answer, wrong(field, gwv1.ListenerReasonInvalidCACertificateRef, format, args...)
	}
	switch answer {
	case Pending:
		return authorities{ref: Ref{Kind: kind, Name: name}}, Pending, nil
	case Absent:
		return bad("there is no %s %s; create it with the authorities in PEM as %s", kind, name, policy.CAKey)
	case Forbidden:
		resource, chart := "configmaps", "rbac.configMaps"
		if kind == "Secret" {
			resource, chart = "secrets", "rbac.secrets"
		}
		return bad("Gatehouse may not read %s %s; grant its ServiceAccount get, list and watch on %s in namespace %s (chart value %s)",
			kind, name, resource, name.Namespace, chart)
	}
	if len(text) == 0 {
		return bad("%s %s has no %s", kind, name, policy.CAKey)
	}
	if err := checkAuthorities(text); err != nil {
		return bad("%s of %s %s cannot be used: %v", policy.CAKey, kind, name, err)
	}
	return authorities{Ref{Kind: kind, Name: name}, text}, Found, nil
}

// caText is the entry of a ConfigMap or Secret, with a line end, so that texts can follow one another.
func (g *graph) caText(kind string, name snapshot.Name) ([]byte, Answer) {
	var text []byte
	var answer Answer
	switch kind {
	case "ConfigMap":
		m, a := g.refs.configMap(name)
		if answer = a; m != nil {
			text = []byte(m.Data[policy.CAKey])
			if len(text) == 0 {
				text = m.BinaryData[policy.CAKey]
			}
		}
	default:
		s, a := g.refs.secret(name)
		if answer = a; s != nil {
			text = s.Data[policy.CAKey]
		}
	}
	if len(text) > 0 {
		text = append(bytes.TrimRight(slices.Clone(text), "\n"), '\n')
	}
	return text, answer
}

// checkAuthorities demands certificates, and nothing but them.
func checkAuthorities(text []byte) error {
	switch bad := policy.CheckCertificates(text); {
	case bad == nil:
		return nil
	case bad.Block != "":
		return fmt.Errorf("a %s stands among the certificates", bad.Block)
	case bad.Err != nil:
		return fmt.Errorf("certificate %d: %w", bad.Read+1, bad.Err)
	default:
		return fmt.Errorf("not PEM after %d certificates", bad.Read)
	}
}

// insecureFallback is the condition of a Gateway that lets clients in that prove nothing (GEP-91); none: it doesn't.
func (n *gatewayNode) insecureFallback() []metav1.Condition {
	var open []string
	for _, l := range n.listeners {
		if l.clients != nil && l.clients.Optional {
			open = append(open, l.key.Section)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return []metav1.Condition{condition(gwv1.GatewayConditionInsecureFrontendValidationMode, metav1.ConditionTrue, gwv1.GatewayReasonConfigurationChanged,
		fmt.Sprintf("clients without a certificate that verifies are let in on %s; whatever stands behind must not take the connection for proof", join(open)))}
}
