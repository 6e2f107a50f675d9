package run

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// issuer signs tokens, and serves its keys at /keys: in the clear, and over TLS with a certificate of its own authority.
type issuer struct {
	signer       jose.Signer
	clear, https *httptest.Server
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "one", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	serve := http.NewServeMux()
	serve.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) { w.Write(keys) })
	i := &issuer{signer, httptest.NewServer(serve), httptest.NewTLSServer(serve)}
	t.Cleanup(i.clear.Close)
	t.Cleanup(i.https.Close)
	return i
}

func (i *issuer) token(t *testing.T, audience string) string {
	t.Helper()
	claims := fmt.Sprintf(`{"iss": "https://login.example.com", "sub": "alice", "aud": %q, "exp": %d}`, audience, time.Now().Add(time.Hour).Unix())
	signed, err := i.signer.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// An issuer's keys are fetched from loopback, over TLS with an authority of its own, and through a Service; and not from where the
// certificate does not prove who answers.
func TestTokensAreJudgedByKeysFromWhereThePolicySays(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(i.clear.URL, "http://"), ":")
	authority := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.https.Certificate().Raw}))
	indented := strings.ReplaceAll(strings.TrimSpace(authority), "\n", "\n            ")
	for _, c := range []struct {
		name, jwks string
		status     int
	}{
		{"loopback", "{url: " + i.clear.URL + "/keys}", 200},
		{"an authority of its own", "\n        url: " + i.https.URL + "/keys\n        connection:\n          caCertificates: |\n            " + indented, 200},
		{"an authority in a Secret", "{url: " + i.https.URL + "/keys, connection: {caSecretRef: {name: ca}}}", 200},
		{"a Service", "{url: 'http://login.example.com/keys', connection: {backendRef: {name: issuer, port: 80}}}", 200},
		{"an authority that nobody knows", "{url: " + i.https.URL + "/keys}", 503},
		{"a set that is not there", "{url: " + i.clear.URL + "/nothing}", 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := samples(t)
			w.write(t, "auth/jwt.yaml", fmt.Sprintf(`apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
  methods:
  - name: tokens
    jwt:
      issuer: https://login.example.com
      audiences: [shop]
      algorithms: [ES256]
      jwks: %s
  forward: {headers: [{name: X-User, value: identity.subject}]}
---
apiVersion: v1
kind: Secret
metadata: {name: ca}
stringData: {ca.crt: %q}
---
apiVersion: v1
kind: Service
metadata: {name: issuer}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: issuer, labels: {kubernetes.io/service-name: issuer}}
addressType: IPv4
ports: [{name: http, port: %s}]
endpoints: [{addresses: [127.0.0.1]}]
`, c.jwks, authority, port))
			p := start(t, "-f", w.dir)
			r := ask(t, noRedirects, w.url("/"), "Authorization", "Bearer "+i.token(t, "shop"))
			if r.status != c.status {
				t.Fatalf("%d, want %d", r.status, c.status)
			}
			if r.status == 200 && (r.Header.Get("X-User") != "alice" || r.Header.Get("Authorization") != "") {
				t.Errorf("the backend saw %v", r.Header)
			}
			if r := ask(t, noRedirects, w.url("/"), "Authorization", "Bearer "+i.token(t, "other")); r.status == 200 {
				t.Error("a token for others came in")
			}
			p.Signal(syscall.SIGTERM)
		})
	}
}
