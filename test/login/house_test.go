//go:build login

package login

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// house is Gatehouse in front of one page, which only who has logged in may see.
type house struct {
	t        testing.TB
	provider *provider
	dir      string
	health   string
	process  *exec.Cmd
	log      *lines

	https, http string // where the page is
	evil        string // another site
}

// built is the program: that of GATEHOUSE, or else made of this checkout.
var built = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("GATEHOUSE"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "gatehouse-login-")
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-o", dir+"/", "./cmd/gatehouse")
	c.Dir = "../.."
	c.Env = append(os.Environ(), "GOWORK=off")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return filepath.Join(dir, "gatehouse"), nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := built(); err == nil && path != os.Getenv("GATEHOUSE") {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func newHouse(t testing.TB) *house {
	t.Helper()
	secure, plain := freePort(t), freePort(t)
	h := &house{
		t: t, dir: t.TempDir(), health: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		https: fmt.Sprintf("https://shop.example.test:%d", secure), http: fmt.Sprintf("http://shop.example.test:%d", plain),
	}
	h.provider = newProvider(t, []string{h.https + "/oauth2/callback", h.http + "/oauth2/callback"}, h.https+"/bye", h.http+"/bye")
	backend := httptest.NewServer(http.HandlerFunc(page))
	t.Cleanup(backend.Close)
	other := httptest.NewServer(http.HandlerFunc(h.otherSite))
	t.Cleanup(other.Close)
	h.evil = other.URL
	h.objects(secure, plain, backend.Listener.Addr().(*net.TCPAddr).Port)
	h.start()
	return h
}

// page is the backend. It shows what it was sent, and leaves a cookie of its own.
func page(w http.ResponseWriter, r *http.Request) {
	seen := map[string]any{"path": r.URL.RequestURI(), "user": r.Header.Get("X-User"), "mail": r.Header.Get("X-Mail"), "cookie": r.Header.Values("Cookie")}
	text, _ := json.Marshal(seen)
	if strings.HasPrefix(r.URL.Path, "/api") {
		w.Header().Set("Content-Type", "application/json")
		w.Write(text)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark", Path: "/"})
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html><title>The page</title><link rel="icon" href="data:,"><pre id="seen">%s</pre><a id="out" href="/oauth2/logout">Log out</a>`, html.EscapeString(string(text)))
}

// otherSite has links to ours that its visitors should not have followed.
func (h *house) otherSite(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html><title>Elsewhere</title><a id="out" href="%s/oauth2/logout">Win a prize</a><a id="page" href="%s/linked">A page</a>`, h.https, h.https)
}

// objects writes the Gateway, its routes and the policy.
func (h *house) objects(secure, plain, backend int) {
	cert, key := certificate(h.t)
	indent := func(text string) string { return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") }
	objects := fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: https, protocol: HTTPS, port: %d, tls: {certificateRefs: [{name: cert}]}}
  - {name: http, protocol: HTTP, port: %d}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {name: cert}
stringData:
  tls.crt: |
    %s
  tls.key: |
    %s
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: %d}]
endpoints: [{addresses: [127.0.0.1]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: public}]
  hostnames: [shop.example.test]
  rules: [{backendRefs: [{name: shop, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bye}
spec:
  parentRefs: [{name: public}]
  hostnames: [shop.example.test]
  rules: [{matches: [{path: {type: Exact, value: /bye}}], backendRefs: [{name: shop, port: 80}]}]
---
apiVersion: v1
kind: Secret
metadata: {name: sso}
stringData: {client-secret: %q}
---
apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: staff}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
  methods:
  - name: staff
    oidc:
      issuer: %s
      clientID: %s
      clientSecretRef: {name: sso}
      scopes: [openid, profile, email, offline_access]
      afterLogout: /bye
  forward:
    headers: [{name: X-User, value: identity.subject}, {name: X-Mail, value: identity.claims.email}]
`, secure, plain, indent(cert), indent(key), backend, secret, h.provider.issuer, clientID)
	keys := make([]byte, 32)
	rand.Read(keys)
	for name, text := range map[string]string{"objects/all.yaml": objects, "keys": base64.StdEncoding.EncodeToString(keys) + "\n"} {
		path := filepath.Join(h.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
}

// lines are what a process has written.
type lines struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs Gatehouse and waits until it is ready.
func (h *house) start() {
	h.t.Helper()
	path, err := built()
	if err != nil {
		h.t.Fatal(err)
	}
	h.log = &lines{}
	h.process = exec.Command(path, "run", "-f", filepath.Join(h.dir, "objects"), "--keys", filepath.Join(h.dir, "keys"),
		"--health-address", h.health, "--admin-address=", "--access-log=-", "--drain-delay=0s")
	h.process.Stdout, h.process.Stderr = h.log, h.log
	if err := h.process.Start(); err != nil {
		h.t.Fatal(err)
	}
	process, log := h.process, h.log
	h.t.Cleanup(func() {
		process.Process.Kill()
		process.Wait()
		if text := log.String(); h.t.Failed() {
			h.t.Logf("gatehouse said:\n%s", text[max(0, len(text)-8000):])
		}
	})
	until(h.t, "gatehouse is ready", func() bool {
		resp, err := http.Get("http://" + h.health + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
}

func (h *house) stop() {
	h.process.Process.Kill()
	h.process.Wait()
}

func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.example.test"}, DNSNames: []string{"shop.example.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", inside)
}
