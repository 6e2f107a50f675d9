package controller

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/gatehouse-dev/gatehouse/controllers"
)

// account is the replica's ServiceAccount, which may read everything of the Gateway API, and ConfigMaps, but what a test leaves out (in the
// release's namespace ConfigMaps are its own), and no Secret.
func (w *world) account(without string) func(*controllers.ClusterOptions) {
	w.t.Helper()
	may := func(group string, resources ...string) string {
		resources = slices.DeleteFunc(resources, func(r string) bool { return r == without })
		if len(resources) == 0 {
			return ""
		}
		return fmt.Sprintf("- {apiGroups: [%s], resources: [%s], verbs: [get, list, watch]}\n", group, strings.Join(resources, ", "))
	}
	w.create(strings.ReplaceAll(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: RELEASE}
rules:
MAY- {apiGroups: [gateway.networking.k8s.io, gatehouse.dev], resources: ["*/status"], verbs: [patch]}
- {apiGroups: [""], resources: [services], verbs: [create, patch, delete]}
- {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get, list, watch]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list, watch, create, patch, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: RELEASE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: RELEASE}
subjects: [{kind: ServiceAccount, name: gatehouse, namespace: RELEASE}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: gatehouse, namespace: RELEASE}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list, watch, create, update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: gatehouse, namespace: RELEASE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: gatehouse}
subjects: [{kind: ServiceAccount, name: gatehouse, namespace: RELEASE}]
`, "MAY", may(`""`, "services", "namespaces", "configmaps")+may("discovery.k8s.io", "endpointslices")+
		may("gateway.networking.k8s.io, gatehouse.dev",
			"gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants", "backendtlspolicies", "authpolicies", "ratelimitpolicies")))
	return func(o *controllers.ClusterOptions) {
		o.Config.Impersonate = rest.ImpersonationConfig{
			UserName: "system:serviceaccount:" + w.release + ":gatehouse",
			Groups:   []string{"system:serviceaccounts", "system:authenticated"},
		}
	}
}

// secret makes a Secret with a certificate for a name.
func (w *world) secret(name, host string) string {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		w.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	block := func(kind string, bytes []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: %s, namespace: SHOP}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
`, name, block("CERTIFICATE", der), block("PRIVATE KEY", private))
}

// tlsGateway has an HTTPS listener with the certificate of a Secret, beside the plain one.
const tlsGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: SHOP}
spec:
  gatewayClassName: CLASS
  listeners:
  - {name: http, protocol: HTTP, port: 80}
  - {name: https, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: SECRET}]}}
`

// named is the common name of the certificate that a listener shows.
func named(address string) string {
	c, err := tls.Dial("tcp4", address, &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true}) //nolint:gosec // it is looked at
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func (w *world) shows(address, want string) {
	w.t.Helper()
	w.eventually("certificate", func() string {
		if got := named(address); got != want {
			return got + ", want " + want
		}
		return ""
	})
}

// mayReadOne is the right to read one Secret or ConfigMap, by its name.
func mayReadOne(resource, name string) string {
	return strings.NewReplacer("RESOURCE", resource, "NAME", name).Replace(`
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: NAME, namespace: SHOP}
rules: [{apiGroups: [""], resources: [RESOURCE], resourceNames: [NAME], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: NAME, namespace: SHOP}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: NAME}
subjects: [{kind: ServiceAccount, name: gatehouse, namespace: RELEASE}]
`)
}

func TestASecretThatMayNotBeReadHurtsItsListenerAloneAndNamesTheRule(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	w.create(w.secret("secret-one", "shop.example"))
	r := w.start(w.account(""))
	r.applied()
	w.apply(strings.Replace(tlsGateway, "SECRET", "secret-one", 1))
	got := w.listener("gw", "https", "ResolvedRefs", "False InvalidCertificateRef")
	if want := "may not read Secret " + w.shop + "/secret-one; grant its ServiceAccount get, list and watch on secrets in namespace " + w.shop; !strings.Contains(got, want) {
		t.Errorf("told: %s", got)
	}
	w.answers(w.address("gw", 80), "/", "200 cart")
	if err := r.cluster.Waiting(); err != nil {
		t.Errorf("not ready: %v", err)
	}

	// A right to this one by its name is all that is needed.
	w.create(mayReadOne("secrets", "secret-one"))
	w.listener("gw", "https", "ResolvedRefs", "True ResolvedRefs")
	w.shows(w.address("gw", 443), "secret-one")
}

func TestAPendingSecretKeepsTheLastGood(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	w.create(w.secret("secret-one", "shop.example"))
	w.create(w.secret("secret-two", "shop.example"))
	w.create(mayReadOne("secrets", "secret-one"))
	w.apply(strings.Replace(tlsGateway, "SECRET", "secret-one", 1))
	w.start(w.account(""), func(o *controllers.ClusterOptions) { o.Patience = 4 * time.Second }).applied()
	at := w.address("gw", 443)
	w.shows(at, "secret-one")
	w.condition("Gateway", "gw", "Programmed", "True Programmed")

	// The API server refuses, and may have its reasons for a moment: nothing changes, and nothing is said.
	changed := time.Now()
	w.apply(strings.Replace(tlsGateway, "SECRET", "secret-two", 1))
	for time.Since(changed) < 3*time.Second {
		if got := named(at); got != "secret-one" {
			t.Fatalf("after %s it shows %s", time.Since(changed), got)
		}
		time.Sleep(20 * time.Millisecond)
	}
	// Then this is its answer.
	w.listener("gw", "https", "ResolvedRefs", "False InvalidCertificateRef")
	w.create(mayReadOne("secrets", "secret-two"))
	w.shows(at, "secret-two")
}

func TestASecretIsRotatedWithoutAFailure(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	first := w.secret("secret-one", "shop.example")
	w.create(first)
	w.apply(strings.Replace(tlsGateway, "SECRET", "secret-one", 1))
	w.start().applied()
	at := w.address("gw", 443)
	w.shows(at, "secret-one")
	stop := make(chan struct{})
	failed := make(chan string, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if got := named(at); !strings.HasPrefix(got, "secret-") {
				failed <- got
				return
			}
		}
	}()
	w.apply(w.secret("secret-one", "shop.example"))
	// Some tools replace by deleting: for a moment there is none.
	second := strings.Replace(w.secret("secret-two", "shop.example"), "name: secret-two", "name: secret-one", 1)
	w.delete(first)
	time.Sleep(50 * time.Millisecond) // longer than it takes to notice
	w.create(second)
	w.shows(at, "secret-two")
	close(stop)
	if got, bad := <-failed; bad {
		t.Errorf("meanwhile: %s", got)
	}
}

func TestAGrantThatIsRemovedActsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.start().applied()
	const grant = `
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: from-release, namespace: SHOP}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: RELEASE}]
  to: [{group: "", kind: Service}]
`
	const elsewhere = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: elsewhere, namespace: RELEASE}
spec:
  parentRefs: [{name: gw, namespace: SHOP}]
  hostnames: [elsewhere.example]
  rules: [{backendRefs: [{name: cart, namespace: SHOP, port: 80}]}]
`
	w.create(basics)
	w.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: SHOP}
spec:
  gatewayClassName: CLASS
  listeners: [{name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}]
`)
	w.create(grant)
	w.create(elsewhere)
	at := w.address("gw", 80)
	served := func(want string) time.Duration {
		began := time.Now()
		w.eventually("elsewhere.example", func() string {
			if got := get(at, "elsewhere.example", "/"); !strings.HasPrefix(got, want) {
				return got
			}
			return ""
		})
		return time.Since(began)
	}
	served("200 cart")
	w.delete(grant)
	t.Logf("%s after its removal", served("500").Round(time.Millisecond))
	w.create(grant)
	served("200 cart")
}

func TestAKindThatMayNotBeReadIsAnAnswerAndToldToTheOperator(t *testing.T) {
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	w.start(w.account("grpcroutes")).applied()
	w.answers(w.address("gw", 80), "/", "200 cart")
	got := w.condition("GatewayClass", "", "Accepted", "True Accepted")
	if !strings.Contains(got, "may not read grpcroutes.gateway.networking.k8s.io; grant") {
		t.Errorf("told: %s", got)
	}
}

func TestAReplicaThatMayNotReadWhatItServesIsNotReadyAndNamesTheRight(t *testing.T) {
	for _, resource := range []string{"gatewayclasses", "gateways", "httproutes", "services", "endpointslices"} {
		t.Run(resource, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.backend("cart")
			w.create(basics)
			r := w.start(w.account(resource))
			want := "grant its ServiceAccount get, list and watch on " + resource
			w.eventually("which right is missing", func() string {
				if err := r.cluster.Waiting(); err == nil || !strings.Contains(err.Error(), want) {
					return fmt.Sprint(err)
				}
				return ""
			})
			if !strings.Contains(r.log.text(), "not ready, since a right is missing") {
				t.Error("the log does not say it")
			}
			select {
			case <-r.cluster.Applied():
				t.Error("it is ready all the same, with nothing to serve")
			case <-time.After(500 * time.Millisecond): // many times longer than it takes once everything is answered
			}
			w.create(strings.ReplaceAll(mayRead, "RESOURCE", resource))
			r.applied()
			w.answers(w.address("gw", 80), "/", "200 cart")

			// It serves on when a right is taken away that it had.
			w.delete(strings.ReplaceAll(mayRead, "RESOURCE", resource))
			if err := r.cluster.Waiting(); err != nil {
				t.Errorf("not ready: %v", err)
			}
		})
	}
}

// mayRead is the right to read a kind.
const mayRead = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: RELEASE-RESOURCE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: RELEASE-RESOURCE}
subjects: [{kind: ServiceAccount, name: gatehouse, namespace: RELEASE}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: RELEASE-RESOURCE}
rules:
- apiGroups: ["", discovery.k8s.io, gateway.networking.k8s.io]
  resources: [RESOURCE]
  verbs: [get, list, watch]
`
