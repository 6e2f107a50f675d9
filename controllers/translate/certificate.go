package translate

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// keyPair is a certificate that serves, and the names that it is for.
type keyPair struct {
	secret snapshot.Secret
	names  []string
}

// loadCertificates resolves what certificateRefs name. A listener serves with those that can be used; while an answer is missing, with
// the last good ones.
func (g *graph) loadCertificates(l *listenerNode) {
	if l.spec.TLS == nil || len(l.spec.TLS.CertificateRefs) == 0 {
		l.unserved = wrong(l.field+".tls.certificateRefs", v1alpha1.ReasonInvalidTLSConfig, "an HTTPS listener needs a certificate; name a Secret of type kubernetes.io/tls")
		return
	}
	for i, ref := range l.spec.TLS.CertificateRefs {
		field := fmt.Sprintf("%s.tls.certificateRefs[%d]", l.field, i)
		pair, answer, p := g.certificate(l.gateway.name.Namespace, ref, field)
		switch {
		case answer == Pending:
			l.waits = true
		case p != nil:
			l.refs.add(p)
		default:
			l.keyPairs = append(l.keyPairs, pair)
		}
	}
	if l.waits {
		l.keyPairs = g.lastKeyPairs(l)
	}
	g.good.listeners[l.key] = l.keyPairs
}

// lastKeyPairs are those that served last, less what may not be used any more.
func (g *graph) lastKeyPairs(l *listenerNode) []keyPair {
	return slices.DeleteFunc(slices.Clone(g.in.LastGood.keyPairs(l.key)), func(p keyPair) bool {
		return !g.grants.allow(gatewayAPI("Gateway", l.gateway.name.Namespace), "", "Secret", p.secret.Name)
	})
}

func (g *graph) certificate(namespace string, ref gwv1.SecretObjectReference, field string) (keyPair, Answer, *problem) {
	if group, kind := value(ref.Group, ""), value(ref.Kind, "Secret"); group != "" || kind != "Secret" {
		return keyPair{}, Found, wrong(field, gwv1.ListenerReasonInvalidCertificateRef, "certificates are read from Secrets, not from %s", kind)
	}
	secret, answer, p := g.secret(gatewayAPI("Gateway", namespace), ref, field, string(gwv1.ListenerReasonInvalidCertificateRef))
	switch {
	case answer == Absent:
		p.message += "; create it with type kubernetes.io/tls"
		fallthrough
	case answer == Pending, p != nil:
		return keyPair{}, answer, p
	}
	if pair, known := g.in.LastGood.pair(secret); known {
		g.good.pairs[secret] = pair
		return pair, Found, nil
	}
	pair, p := readKeyPair(secret, field)
	if p == nil {
		g.good.pairs[secret] = pair
	}
	return pair, Found, p
}

// secret looks at the Secret behind a reference: may the referrer use it, is it there, may we read it.
func (g *graph) secret(from referrer, ref gwv1.SecretObjectReference, field, invalid string) (*corev1.Secret, Answer, *problem) {
	name := snapshot.Name{Namespace: string(value(ref.Namespace, gwv1.Namespace(from.namespace))), Name: string(ref.Name)}
	if !g.grants.allow(from, "", "Secret", name) {
		return nil, Found, wrong(field, gwv1.ListenerReasonRefNotPermitted, "no ReferenceGrant in namespace %s allows %s to use Secret %s", name.Namespace, from, name)
	}
	secret, answer := g.refs.secret(name)
	switch answer {
	case Absent:
		return nil, Absent, wrong(field, invalid, "there is no Secret %s", name)
	case Forbidden:
		return nil, Forbidden, wrong(field, invalid,
			"Gatehouse may not read Secret %s; grant its ServiceAccount get, list and watch on secrets in namespace %s (chart value rbac.secrets)", name, name.Namespace)
	}
	return secret, answer, nil
}

// readKeyPair takes what a TLS server can use. That a certificate has expired is a matter for a metric: there is no time here, and a
// client that doesn't check goes on.
func readKeyPair(secret *corev1.Secret, field string) (keyPair, *problem) {
	name := nameOf(secret)
	bad := func(format string, args ...any) *problem {
		return wrong(field, gwv1.ListenerReasonInvalidCertificateRef, "Secret %s "+format, append([]any{name}, args...)...)
	}
	certificate, key := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	if len(certificate) == 0 || len(key) == 0 {
		return keyPair{}, bad("has no %s and %s", corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	parsed, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return keyPair{}, bad("cannot be used: %s", strings.TrimPrefix(err.Error(), "tls: "))
	}
	pair := keyPair{secret: snapshot.Secret{Name: name, Certificate: certificate, Key: key}}
	for _, n := range parsed.Leaf.DNSNames {
		pair.names = append(pair.names, strings.ToLower(n))
	}
	return pair, nil
}

// certificatesOverlap reports whether a client would take certificates of both for one name.
func certificatesOverlap(a, b []keyPair) bool {
	for _, x := range a {
		for _, y := range b {
			if slices.ContainsFunc(x.names, func(name string) bool { return covers(y.names, name) }) {
				return true
			}
		}
	}
	return false
}

// covers reports whether one of the names of a certificate has a name in common with another. A wildcard there stands for exactly one
// label (RFC 9525 6.3).
func covers(names []string, name string) bool {
	for _, n := range names {
		if n == name || sameParent(n, name) && (strings.HasPrefix(n, "*.") || strings.HasPrefix(name, "*.")) {
			return true
		}
	}
	return false
}

func sameParent(a, b string) bool {
	_, pa, oka := strings.Cut(a, ".")
	_, pb, okb := strings.Cut(b, ".")
	return oka && okb && pa == pb
}

func secretsOf(pairs []keyPair) []snapshot.Secret {
	var secrets []snapshot.Secret
	for _, p := range pairs {
		same := func(s snapshot.Secret) bool { return s.Name == p.secret.Name }
		if !slices.ContainsFunc(secrets, same) {
			secrets = append(secrets, p.secret)
		}
	}
	return secrets
}
