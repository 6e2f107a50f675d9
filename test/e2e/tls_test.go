//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pem is the authority as clients and listeners are told of it.
func (a *authority) pem(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	must(t, pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	return b.String()
}

// client is a certificate of a client with a URI for its name.
func (a *authority) client(t *testing.T, uri string) tls.Certificate {
	t.Helper()
	name, err := url.Parse(uri)
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "machine"}, URIs: []*url.URL{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// machines is YAML of a Gateway that demands certificates of the authorities in a ConfigMap; mode is "" or one of the Gateway API.
func machines(mode string) string {
	validation := `caCertificateRefs: [{group: "", kind: ConfigMap, name: machines-ca}]`
	if mode != "" {
		validation += ", mode: " + mode
	}
	return strings.Replace(gatewayText(shop, "machines", "front-tls"), "  listeners:", "  tls: {frontend: {default: {validation: {"+validation+"}}}}\n  listeners:", 1)
}

func authorities(t *testing.T, all ...*authority) string {
	t.Helper()
	var text strings.Builder
	for _, a := range all {
		text.WriteString(a.pem(t))
	}
	return "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: machines-ca, namespace: e2e}\ndata:\n  ca.crt: |\n    " +
		strings.ReplaceAll(strings.TrimSpace(text.String()), "\n", "\n    ") + "\n"
}

// secure is a question over TLS; without a certificate the client has none.
func (q question) secure(t *testing.T, certificate ...tls.Certificate) question {
	q.tls = &tls.Config{RootCAs: certificates(t).roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(certificate) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certificate[0], nil // whatever authorities the server names
	}}
	return q
}

// refusedByEach waits until no handshake comes about at any replica.
func refusedByEach(t *testing.T, at map[string]string, q question) {
	t.Helper()
	until(t, time.Minute, "no replica lets the client in", func() error {
		for pod, address := range at {
			if a, err := q.at(address); err == nil {
				return fmt.Errorf("%s: %d", pod, a.status)
			} else if e := new(tls.AlertError); !errors.As(err, e) && !strings.Contains(err.Error(), "remote error: tls") {
				return fmt.Errorf("%s: not refused, but %w", pod, err)
			}
		}
		return nil
	})
}

func TestClientsProveThemselvesByCertificateOnEachReplica(t *testing.T) {
	house(t)
	ours, err := makeAuthority()
	must(t, err)
	others, err := makeAuthority()
	must(t, err)
	robot, stranger := ours.client(t, "spiffe://example.com/robot"), ours.client(t, "spiffe://elsewhere.example/robot")
	forged := others.client(t, "spiffe://example.com/robot")

	applied(t, machines("")+routeText(shop, "machines", "machines", loadHost, "/", "blue"))
	says(t, time.Minute, "a listener whose authorities are missing", listenerConditionsOf(t, shop, "machines", "https"),
		"Accepted", metav1.ConditionFalse, "NoValidCACertificate", "closed")
	says(t, time.Minute, "the authorities that are missing", listenerConditionsOf(t, shop, "machines", "https"),
		"ResolvedRefs", metav1.ConditionFalse, "InvalidCACertificateRef", "there is no ConfigMap e2e/machines-ca")
	applied(t, authorities(t, ours)+"---\napiVersion: v1\nkind: Secret\nmetadata: {name: machine-tokens, namespace: e2e}\nstringData: {robot: t-robot}\n"+
		policyText("machines", "kind: HTTPRoute, name: machines", "require: All", "methods:", "- {name: machine, clientCertificate: {subjectFrom: URI}}",
			`- {name: token, apiKey: {from: [{header: Authorization, prefix: "Bearer "}], secretRefs: [{name: machine-tokens}]}}`,
			"authorize:", "  default: Deny", `  rules: [{name: ours, action: Allow, when: 'identity.subject.startsWith("spiffe://example.com/")'}]`,
			"forward: {headers: [{name: X-Machine, value: identity.subject}]}"))
	programmed(t, shop, "machines")
	inForce(t, "the policy of machines", authPolicy(t, shop, "machines"))
	at := each(t, shop, "machines", 443)

	q := question{host: loadHost, path: "/"}
	bearer := q.with("Authorization", "Bearer t-robot")
	for pod, a := range eachSays(t, time.Minute, at, bearer.secure(t, robot), 200) {
		if got := a.seen.Header.Get("X-Machine"); got != "spiffe://example.com/robot" {
			t.Errorf("%s: the backend was told it is %q", pod, got)
		}
	}
	is(t, at, q.secure(t, robot), 401)
	is(t, at, bearer.secure(t, stranger), 403)
	refusedByEach(t, at, bearer.secure(t))
	refusedByEach(t, at, bearer.secure(t, forged))

	// Let in by the listener whoever they are, and stopped by the policy.
	apply(t, machines("AllowInsecureFallback"))
	says(t, time.Minute, "the Gateway that lets everybody in", conditionsOf(t, shop, "machines"), "InsecureFrontendValidationMode", metav1.ConditionTrue)
	eachSays(t, time.Minute, at, bearer.secure(t), 403) // there is no challenge for what is missing
	eachSays(t, time.Minute, at, bearer.secure(t, forged), 403)
	eachSays(t, time.Minute, at, bearer.secure(t, robot), 200)
	apply(t, machines(""))
	refusedByEach(t, at, bearer.secure(t))

	// Other authorities, and none.
	apply(t, authorities(t, others))
	eachSays(t, time.Minute, at, bearer.secure(t, forged), 200)
	refusedByEach(t, at, bearer.secure(t, robot))
	remove(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "machines-ca"}})
	says(t, time.Minute, "the listener without its authorities", listenerConditionsOf(t, shop, "machines", "https"), "Accepted", metav1.ConditionFalse, "NoValidCACertificate")
	until(t, time.Minute, "nobody comes in", func() error {
		for pod, address := range at {
			if a, err := bearer.secure(t, forged).at(address); err == nil {
				return fmt.Errorf("%s: %d", pod, a.status)
			}
		}
		return nil
	})
	is(t, each(t, shop, "machines", 80), bearer, 403) // in the clear nobody has a certificate
}

// keysSecret is what replicas derive the keys of tickets and cookies from.
func keysSecret(t *testing.T) (*corev1.Secret, error) {
	s := &corev1.Secret{}
	err := api.Get(t.Context(), client.ObjectKey{Namespace: system, Name: "gatehouse-keys"}, s)
	return s, err
}

func TestATicketOfOneReplicaIsGoodAtTheOthers(t *testing.T) {
	house(t)
	s, err := keysSecret(t)
	must(t, err)
	for _, entry := range []string{"current", "next", "previous"} {
		if len(s.Data[entry]) < 32 {
			t.Errorf("%s has %d bytes", entry, len(s.Data[entry]))
		}
	}
	if o := s.OwnerReferences; len(o) != 1 || o[0].Kind != "ConfigMap" || o[0].Name != "gatehouse-owner" {
		t.Errorf("owned by %v", o)
	}
	ours, err := makeAuthority()
	must(t, err)
	applied(t, authorities(t, ours)+machines("")+routeText(shop, "machines", "machines", loadHost, "/", "blue"))
	programmed(t, shop, "machines")

	at := each(t, shop, front, 443)
	q := question{host: loadHost, path: "/load/"}.secure(t)
	q.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	all := slices.Sorted(maps.Keys(at))
	for n, pod := range slices.Concat(all, all) {
		a, err := q.at(at[pod])
		must(t, err)
		if a.status != 200 || a.resumed != (n > 0) {
			t.Errorf("connection %d, to %s: %d, resumed: %v", n, pod, a.status, a.resumed)
		}
	}
	// What was proven to one listener is no proof for another.
	q.path = "/"
	for pod, address := range each(t, shop, "machines", 443) {
		if a, err := q.at(address); err == nil {
			t.Errorf("%s let in somebody by a ticket of another Gateway: %d, resumed: %v", pod, a.status, a.resumed)
		}
	}
	robot := question{host: loadHost, path: "/"}.secure(t, ours.client(t, "spiffe://example.com/robot"))
	robot.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for n, address := range slices.Sorted(maps.Values(each(t, shop, "machines", 443))) {
		a, err := robot.at(address)
		must(t, err)
		if a.status != 200 || a.resumed != (n > 0) {
			t.Errorf("with a certificate, connection %d: %d, resumed: %v", n, a.status, a.resumed)
		}
	}

	// Whoever deletes the keys gets new ones.
	must(t, api.Delete(t.Context(), s.DeepCopy())) // and another one comes at once
	until(t, 30*time.Second, "new keys", func() error {
		fresh, err := keysSecret(t)
		if err == nil && (fresh.UID == s.UID || bytes.Equal(fresh.Data["current"], s.Data["current"])) {
			err = errors.New("they are the old ones")
		}
		return err
	})
	q = question{host: loadHost, path: "/load/"}.secure(t)
	until(t, 30*time.Second, "tickets by the new keys are good on all replicas", func() error {
		q.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for n, pod := range all {
			a, err := q.at(at[pod])
			if err != nil {
				return err
			}
			if a.status != 200 || a.resumed != (n > 0) {
				return fmt.Errorf("connection %d, to %s: %d, resumed: %v", n, pod, a.status, a.resumed)
			}
		}
		return nil
	})
}
