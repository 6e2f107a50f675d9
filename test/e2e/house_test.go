//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority signs the certificates of these tests.
type authority struct {
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	roots *x509.CertPool
}

var newAuthority = sync.OnceValues(makeAuthority)

func makeAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &authority{key, cert, roots}, nil
}

func certificates(t *testing.T) *authority {
	t.Helper()
	a, err := newAuthority()
	must(t, err)
	return a
}

// secret is YAML of a new certificate for a host, of a serial number of its own.
func (a *authority) secret(t *testing.T, namespace, name, host string) (text string, serial *big.Int) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serial, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	encode := func(kind string, der []byte) string {
		var b bytes.Buffer
		must(t, pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}))
		return base64.StdEncoding.EncodeToString(b.Bytes())
	}
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: %s\n  tls.key: %s\n",
		name, namespace, encode("CERTIFICATE", der), encode("PRIVATE KEY", private)), serial
}

// backend is YAML of a Deployment and its Service. A pod that is told to go serves on for a while, as an application ought to: nobody
// can stop sending to it before having heard of it.
func backend(namespace, name string, replicas int) string {
	return strings.NewReplacer("NAMESPACE", namespace, "NAME", name, "REPLICAS", fmt.Sprint(replicas)).Replace(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app.kubernetes.io/name: NAME}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app.kubernetes.io/name: NAME}}
    spec:
      terminationGracePeriodSeconds: 15
      containers:
      - name: backend
        image: gatehouse-dev/backend:dev
        imagePullPolicy: Never
        args: ["-name=$(POD)", "-listen=:8080"]
        env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 5}}}
---
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  selector: {app.kubernetes.io/name: NAME}
  ports: [{port: 80, targetPort: 8080}]
`)
}

// gatewayText is YAML of a Gateway with an HTTP listener at 80 and, if there is a Secret, an HTTPS one at 443.
func gatewayText(namespace, name, secret string) string {
	text := fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, namespace: %s}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: http, protocol: HTTP, port: 80}
`, name, namespace)
	if secret != "" {
		text += fmt.Sprintf("  - {name: https, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: %s}]}}\n", secret)
	}
	return text
}

// routeText is YAML of an HTTPRoute with one rule for a path and one backend.
func routeText(namespace, name, gateway, host, path, backend string) string {
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: %s}
spec:
  parentRefs: [{name: %s}]
  hostnames: [%s]
  rules:
  - matches: [{path: {type: PathPrefix, value: %s}}]
    backendRefs: [{name: %s, port: 80}]
`, name, namespace, gateway, host, path, backend)
}

const (
	front    = "front"        // the Gateway that is under load
	loadHost = "load.example" // and the host of its route "load"
)

var frontMade sync.Once

// house makes, once for all tests, the backends "blue" and "green", a Gateway and a route to them. It is left in the cluster, to be looked
// at. Its route and certificate are made anew for each test, as tests change them.
func house(t *testing.T) target {
	t.Helper()
	a := certificates(t)
	secret, _ := a.secret(t, shop, "front-tls", loadHost)
	route := strings.Replace(routeText(shop, "load", front, loadHost, "/load", "blue"),
		"backendRefs: [{name: blue, port: 80}]", "backendRefs: [{name: blue, port: 80}, {name: green, port: 80}]", 1)
	frontMade.Do(func() {
		apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: e2e}\n"+backend(shop, "blue", 2)+backend(shop, "green", 2))
	})
	apply(t, secret+gatewayText(shop, front, "front-tls")+route)
	rolled(t, shop, "blue", "green")
	rolled(t, system, "gatehouse")
	address := programmed(t, shop, front)
	g := target{
		host: loadHost, http: net.JoinHostPort(address, "80"), https: net.JoinHostPort(address, "443"), roots: a.roots,
		path: "/load/", backends: []string{"blue-", "green-"},
	}
	answers(t, g, 30*time.Second)
	return g
}

// answers waits until each kind of client gets a right answer, several times in a row. What was tried before kube-proxy had heard of the
// Service has left entries in conntrack that lead nowhere for two minutes: a later connection that happens to come from the same port would
// fail ("no route to host") before any replica saw it. They go.
func answers(t *testing.T, g target, within time.Duration) {
	t.Helper()
	clients := g.clients()
	for _, c := range clients {
		defer c.CloseIdleConnections()
	}
	until(t, within, "connections for "+g.host, g.probe)
	until(t, within, "answers for "+g.host, func() error {
		for i := range 3 {
			for _, c := range clients {
				if err := ask(c, g, fmt.Sprintf("%sready?%d", g.path, i)); err != nil {
					return fmt.Errorf("%s: %w", c.kind, err)
				}
			}
		}
		return nil
	})
	for _, address := range []string{g.http, g.https} {
		if host, port, err := net.SplitHostPort(address); err == nil {
			// It fails when there is none.
			_ = exec.CommandContext(t.Context(), "conntrack", "-D", "-p", "tcp", "--orig-dst", host, "--dport", port, "--state", "SYN_SENT").Run()
		}
	}
}
