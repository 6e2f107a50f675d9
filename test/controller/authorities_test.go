package controller

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

// authority signs certificates of clients.
type authority struct {
	pem    string
	client tls.Certificate // one that it has signed
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(template, parent *x509.Certificate, of *ecdsa.PrivateKey, by *ecdsa.PrivateKey) []byte {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &of.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	caKey, clientKey := key(), key()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := sign(ca, ca, caKey, caKey)
	leaf := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "client of " + name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, clientKey, caKey)
	return authority{
		pem:    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		client: tls.Certificate{Certificate: [][]byte{leaf}, PrivateKey: clientKey},
	}
}

// configMap is one with authorities.
func configMap(name string, all ...authority) string {
	var text strings.Builder
	for _, a := range all {
		text.WriteString(a.pem)
	}
	return fmt.Sprintf("\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: SHOP}\ndata:\n  other: \"not to be looked at\"\n  ca.crt: |\n    %s\n",
		name, strings.ReplaceAll(strings.TrimSpace(text.String()), "\n", "\n    "))
}

// checking is tlsGateway with authorities for its clients.
func checking(config string) string {
	return strings.Replace(strings.Replace(tlsGateway, "SECRET", "cert", 1), "  listeners:",
		`  tls: {frontend: {default: {validation: {caCertificateRefs: [{group: "", kind: ConfigMap, name: `+config+`}]}}}}`+"\n  listeners:", 1)
}

// asClient has connections of its own, with a client certificate if there is one.
func asClient(t *testing.T, certificate ...tls.Certificate) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		ServerName: "shop.example", InsecureSkipVerify: true, //nolint:gosec // the server's certificates here are of tests
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // whatever authorities the server names
			if len(certificate) == 0 {
				return &tls.Certificate{}, nil
			}
			return &certificate[0], nil
		},
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: 5 * time.Second, Transport: transport}
}

// over asks and says how it ended: "200 cart", or "not in" where TLS did not come about.
func over(c *http.Client, address string) string {
	response, err := c.Get("https://" + address + "/")
	if err != nil {
		return "not in"
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", response.StatusCode, body)
}

// fresh is over with a connection of its own.
func fresh(t *testing.T, address string, certificate ...tls.Certificate) string {
	c := asClient(t, certificate...)
	defer c.CloseIdleConnections()
	return over(c, address)
}

func (w *world) comesIn(address string, certificate tls.Certificate, want string) {
	w.t.Helper()
	w.eventually("a client of the authority", func() string {
		if got := fresh(w.t, address, certificate); got != want {
			return got + ", want " + want
		}
		return ""
	})
}

func TestAConfigMapOfAuthoritiesThatMayNotBeReadClosesItsListenerAloneAndNamesTheRule(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	w.create(w.secret("cert", "shop.example"))
	one := newAuthority(t, "one")
	w.create(configMap("authorities", one))
	w.create(mayReadOne("secrets", "cert"))
	r := w.start(w.account("configmaps"))
	r.applied()
	w.apply(checking("authorities"))
	got := w.listener("gw", "https", "ResolvedRefs", "False InvalidCACertificateRef")
	want := "may not read ConfigMap " + w.shop + "/authorities; grant its ServiceAccount get, list and watch on configmaps in namespace " + w.shop +
		" (chart value rbac.configMaps)"
	if !strings.Contains(got, want) {
		t.Errorf("told: %s", got)
	}
	w.listener("gw", "https", "Accepted", "False NoValidCACertificate")
	w.answers(w.address("gw", 80), "/", "200 cart")
	if err := r.cluster.Waiting(); err != nil {
		t.Errorf("not ready: %v", err)
	}

	// A right to this one by its name is all that is needed.
	w.create(mayReadOne("configmaps", "authorities"))
	w.listener("gw", "https", "ResolvedRefs", "True ResolvedRefs")
	at := w.address("gw", 443)
	w.comesIn(at, one.client, "200 cart")
	if got := fresh(t, at); got != "not in" {
		t.Errorf("without a certificate: %s", got)
	}

	// It is a right to this one only.
	w.create(configMap("others", one))
	w.apply(checking("others"))
	w.listener("gw", "https", "Accepted", "False NoValidCACertificate")
	w.comesIn(at, one.client, "not in")
}

func TestAuthoritiesFollowTheirConfigMapAndWithoutItNobodyComesIn(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	w.create(w.secret("cert", "shop.example"))
	one, two := newAuthority(t, "one"), newAuthority(t, "two")
	w.apply(checking("authorities"))
	w.start().applied()

	// There is none yet.
	got := w.listener("gw", "https", "ResolvedRefs", "False InvalidCACertificateRef")
	if want := "there is no ConfigMap " + w.shop + "/authorities"; !strings.Contains(got, want) {
		t.Errorf("told: %s", got)
	}
	w.answers(w.address("gw", 80), "/", "200 cart")
	w.create(configMap("authorities", one))
	at := w.address("gw", 443)
	w.comesIn(at, one.client, "200 cart")
	w.listener("gw", "https", "Programmed", "True Programmed")
	if got := fresh(t, at, two.client); got != "not in" {
		t.Errorf("a client of an authority that is not trusted: %s", got)
	}

	// One is added, and the first goes; who came in under it is out, also on a connection that was made before.
	kept := asClient(t, one.client)
	w.apply(configMap("authorities", one, two))
	w.comesIn(at, two.client, "200 cart")
	if got := over(kept, at); got != "200 cart" {
		t.Errorf("a client of the first: %s", got)
	}
	w.apply(configMap("authorities", two))
	w.comesIn(at, one.client, "not in")
	w.comesIn(at, two.client, "200 cart")
	if got := over(kept, at); strings.HasPrefix(got, "200") {
		t.Errorf("on a connection that was made under the first authority: %s", got)
	}

	// Some tools replace by deleting: nobody is locked out for that moment.
	w.delete(configMap("authorities"))
	gone := time.Now()
	for time.Since(gone) < 50*time.Millisecond { // longer than it takes to notice
		if got := fresh(t, at, two.client); got != "200 cart" {
			t.Fatalf("%s after it went: %s", time.Since(gone), got)
		}
	}
	w.create(configMap("authorities", two, one))
	w.comesIn(at, one.client, "200 cart")

	// What cannot be used opens nothing.
	w.apply(strings.Replace(configMap("authorities", two), "-----END CERTIFICATE-----", "", 1))
	if got := w.listener("gw", "https", "ResolvedRefs", "False InvalidCACertificateRef"); !strings.Contains(got, "cannot be used") {
		t.Errorf("told: %s", got)
	}
	w.comesIn(at, two.client, "not in")
	w.apply(configMap("authorities", two))
	w.comesIn(at, two.client, "200 cart")

	// Without any, the listener is closed, and says so.
	kept = asClient(t, two.client)
	if got := over(kept, at); got != "200 cart" {
		t.Fatal(got)
	}
	w.delete(configMap("authorities"))
	w.listener("gw", "https", "Accepted", "False NoValidCACertificate")
	for what, got := range map[string]string{
		"with a certificate":    fresh(t, at, two.client),
		"without one":           fresh(t, at),
		"on an open connection": over(kept, at),
	} {
		if strings.HasPrefix(got, "200") {
			t.Errorf("%s: %s", what, got)
		}
	}
	w.answers(w.address("gw", 80), "/", "200 cart")
}
