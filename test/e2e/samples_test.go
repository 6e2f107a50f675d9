//go:build e2e

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// samples is a namespace with all that config/samples has of who may come in, and with the services that they call.
const samples = "samples"

// providerText is YAML of a Deployment of test/e2e/provider. Its Service is made by whoever needs one.
func providerText(namespace, app, issuer string) string {
	return strings.NewReplacer("NAMESPACE", namespace, "APP", app, "ISSUER", issuer).Replace(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: APP, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: APP}}
  template:
    metadata: {labels: {app: APP, app.kubernetes.io/name: APP}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: provider
        image: gatehouse-dev/provider:dev
        imagePullPolicy: Never
        args: ["-issuer=ISSUER"]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
`)
}

// provider is where the pod of a provider is reached.
func provider(t *testing.T, namespace, app string) string {
	t.Helper()
	all, err := pods(t, namespace, app)
	must(t, err)
	if len(all) != 1 {
		t.Fatalf("%d pods of %s", len(all), app)
	}
	return all[0].Status.PodIP + ":8080"
}

// mint makes a provider sign a token.
func mint(t *testing.T, at string, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	must(t, err)
	a, err := question{method: http.MethodPost, host: "provider", path: "/test/mint", body: string(body)}.at(at)
	must(t, err)
	if a.status != 200 {
		t.Fatalf("no token: %d %s", a.status, a.body)
	}
	return a.body
}

// sampled makes the samples' world for the time of the test, and returns where the replicas serve it.
func sampled(t *testing.T) map[string]string {
	t.Helper()
	house(t)
	namespaces(t, samples)
	files, err := filepath.Glob("../../config/samples/auth/*.yaml")
	must(t, err)
	if len(files) < 8 {
		t.Fatalf("%d samples", len(files))
	}
	var text strings.Builder
	for _, name := range append(files, "../../config/samples/gateway.yaml", "../../config/samples/shop.yaml", "../../config/samples/ratelimit.yaml") {
		raw, err := os.ReadFile(name)
		must(t, err)
		for doc := range strings.SplitSeq(string(raw), "\n---\n") {
			if !strings.Contains(doc, "kind: GatewayClass\n") { // the chart's
				text.WriteString("---\n" + strings.Replace(doc, "metadata:\n", "metadata:\n  namespace: "+samples+"\n", 1) + "\n")
			}
		}
	}
	shopPods := strings.Replace(strings.Split(backend(samples, "shop", 1), "---\napiVersion: v1\nkind: Service")[0],
		"labels: {app.kubernetes.io/name: shop}}\n    spec:", "labels: {app.kubernetes.io/name: shop, app: shop, colour: green}}\n    spec:", 1)
	shopPods = strings.Replace(shopPods, "{containerPort: 8080}", "{name: http, containerPort: 8080}", 1)
	apply(t, text.String()+shopPods+providerText(samples, "authz", "https://authz.example.com")+
		providerText(samples, "login", "https://login.example.com")+providerText(samples, "sso", "https://sso.example.com"))
	rolled(t, samples, "shop", "authz", "login", "sso")
	programmed(t, samples, "public")
	at := each(t, samples, "public", 8080)
	// EndpointSlices may be a second behind their pods.
	eachSays(t, time.Minute, at, question{host: "shop.example.com", path: "/"}, 200)
	return at
}

func TestTheSamplesLetInWhomTheySay(t *testing.T) {
	at := sampled(t)
	policies := []string{"api", "inside", "intranet", "machines", "maps", "orders", "partners", "wiki"}
	for _, name := range policies {
		inForce(t, "AuthPolicy "+name, authPolicy(t, samples, name))
	}
	inForce(t, "RateLimitPolicy maps", rateLimitPolicy(t, samples, "maps"))
	inForce(t, "RateLimitPolicy checkout", rateLimitPolicy(t, samples, "checkout"))

	t.Run("kubectl", func(t *testing.T) {
		var names []string
		for _, row := range table(t, "authpolicies,ratelimitpolicies", "--namespace", samples) {
			name, isAuth := strings.CutPrefix(row["NAME"], "authpolicy.gatehouse.dev/")
			if isAuth {
				names = append(names, name)
			}
			if row["TARGET"] == "" || row["ACCEPTED"] != "True" || row["PROGRAMMED"] != "True" || row["MODE"] != "Enforce" || row["AGE"] == "" {
				t.Errorf("columns %v", row)
			}
			if !isAuth && row["SCOPE"] != "Local" {
				t.Errorf("columns %v", row)
			}
		}
		if !slices.Equal(names, policies) {
			t.Errorf("AuthPolicies %v", names)
		}
	})
	t.Run("api-keys", func(t *testing.T) { samplePartners(t, at) })
	t.Run("basic", func(t *testing.T) {
		q := question{host: "wiki.example.com", path: "/"}
		for pod, a := range is(t, at, q, 401) {
			if got := a.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Basic ") || !strings.Contains(got, `realm="wiki"`) {
				t.Errorf("%s: challenge %q", pod, got)
			}
		}
		is(t, at, q.with("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("alice:open-sesame"))), 200)
		is(t, at, q.with("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("alice:guessed"))), 401)
		is(t, at, q.with("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("nobody:open-sesame"))), 401)
	})
	t.Run("client-certificates", func(t *testing.T) { // in the clear nobody has one
		q := question{host: "machines.example.com", path: "/"}
		is(t, at, q, 403) // a certificate that is missing has no challenge
		is(t, at, q.with("Authorization", "Bearer token-for-the-sample"), 403)
	})
	t.Run("external", func(t *testing.T) { sampleOrders(t, at) })
	t.Run("jwt", func(t *testing.T) { sampleAPI(t, at) })
	t.Run("networks", func(t *testing.T) {
		q := question{host: "status.example.com", path: "/metrics"}
		is(t, at, q, 200) // we come from within
		q.method = http.MethodPost
		is(t, at, q, 403)
		q.path = "/"
		is(t, at, q, 200)
	})
	t.Run("oidc", func(t *testing.T) { sampleIntranet(t, at) })
	t.Run("tiers", func(t *testing.T) {
		q := question{host: "maps.example.com", path: "/"}
		is(t, at, q, 401)
		for n := range 15 { // replicas count by themselves
			status := map[bool]int{true: 200, false: 429}[n < 10]
			is(t, at, q.with("X-API-Key", "hooli-key-for-the-sample"), status)
			is(t, at, q.with("X-API-Key", "initech-key-for-the-sample"), 200)
		}
		is(t, at, q.with("X-API-Key", "umbrella-key-for-the-sample"), 200)
	})
}

func samplePartners(t *testing.T, at map[string]string) {
	q := question{host: "partners.example.com", path: "/"}
	for pod, a := range is(t, at, q, 401) {
		if a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", pod)
		}
	}
	is(t, at, q.with("X-API-Key", "acme-key-for-the-sampl"), 401)
	for key, who := range map[string]string{"acme-key-for-the-sample": "acme", "globex-key-for-the-sample": "globex"} {
		for pod, a := range is(t, at, q.with("X-API-Key", key, "X-Partner", "somebody", "X_Partner", "somebody"), 200) {
			if got := a.seen.Header["X-Partner"]; !slices.Equal(got, []string{who}) {
				t.Errorf("%s: the backend was told %q", pod, got)
			}
			for name := range a.seen.Header {
				if strings.EqualFold(name, "x_partner") || strings.EqualFold(name, "X-API-Key") {
					t.Errorf("%s: the backend got %s", pod, name)
				}
			}
		}
	}
}

func sampleOrders(t *testing.T, at map[string]string) {
	q := question{method: http.MethodPost, host: "orders.example.com", path: "/new", body: "one of each"}
	for pod, a := range eachSays(t, time.Minute, at, q.with("X-Ticket", "bad"), 403) {
		if a.body != "not with that ticket" {
			t.Errorf("%s: %q", pod, a.body)
		}
	}
	is(t, at, q.with("X-Ticket", "good"), 200)
	q.body = "poison"
	is(t, at, q.with("X-Ticket", "good"), 403)
	q.body = strings.Repeat("x", 8193)
	is(t, at, q.with("X-Ticket", "good"), 413)

	// Without the service nobody gets in whose answer is not remembered, and with it everybody does again.
	scale(t, samples, "authz", 0)
	q.body = "another"
	eachSays(t, time.Minute, at, q.with("X-Ticket", "good"), 503)
	q.body = "one of each"
	scale(t, samples, "authz", 1)
	eachSays(t, time.Minute, at, q.with("X-Ticket", "good"), 200)
}

// scale changes the number of pods, and waits until they are.
func scale(t *testing.T, namespace, name string, n int) {
	t.Helper()
	_, err := run(t, "kubectl", "--namespace", namespace, "scale", "deployment", name, fmt.Sprintf("--replicas=%d", n))
	must(t, err)
	rolled(t, namespace, name)
}

func sampleAPI(t *testing.T, at map[string]string) {
	issuer := provider(t, samples, "login")
	token := func(more map[string]any) string {
		claims := map[string]any{"iss": "https://login.example.com", "aud": "api", "sub": "u-1"}
		for name, value := range more {
			claims[name] = value
		}
		return "Bearer " + mint(t, issuer, claims)
	}
	q := question{host: "api.example.com", path: "/"}
	for pod, a := range is(t, at, q, 401) {
		if got := a.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
			t.Errorf("%s: challenge %q", pod, got)
		}
	}
	reader := token(map[string]any{"roles": []string{"reader", "guest"}})
	for pod, a := range eachSays(t, time.Minute, at, q.with("Authorization", reader), 200) {
		if h := a.seen.Header; h.Get("X-User") != "u-1" || h.Get("X-Roles") != "reader,guest" || h.Get("Authorization") != "" {
			t.Errorf("%s: the backend was told %v", pod, h)
		}
	}
	for what, bad := range map[string]map[string]any{
		"for others": {"aud": "shop"}, "of others": {"iss": "https://evil.example.com"},
		"expired": {"exp": time.Now().Add(-time.Hour).Unix()}, "not yet valid": {"nbf": time.Now().Add(time.Hour).Unix()},
	} {
		t.Run(what, func(t *testing.T) { is(t, at, q.with("Authorization", token(bad)), 401) })
	}
	q.method = http.MethodPost
	is(t, at, q.with("Authorization", reader), 403)
	is(t, at, q.with("Authorization", token(map[string]any{"roles": []string{"editor"}})), 200)

	// Another key: tokens that it has signed are good within the ten seconds in which nobody can make us ask twice.
	began := time.Now()
	rotate := question{method: http.MethodPost, host: "provider", path: "/test/rotate"}
	if a, err := rotate.at(issuer); err != nil || a.status != 200 {
		t.Fatalf("rotate: %v %v", a, err)
	}
	fresh := token(map[string]any{"roles": "editor", "sub": "u-2"})
	eachSays(t, 20*time.Second, at, q.with("Authorization", fresh), 200)
	t.Logf("a token by a new key was good on each replica %.1f s after the key was made", time.Since(began).Seconds())
	is(t, at, q.with("Authorization", token(map[string]any{"roles": "editor", "sub": "u-3"})), 200)

	// An issuer that is away holds nobody up.
	more := token(map[string]any{"roles": "editor", "sub": "u-4"})
	scale(t, samples, "login", 0)
	is(t, at, q.with("Authorization", fresh), 200)
	is(t, at, q.with("Authorization", more), 200)
}

// cookies are those of an answer, as a browser sends them.
func cookies(a *reply, before map[string]string) map[string]string {
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		if c.MaxAge < 0 || c.Value == "" {
			delete(before, c.Name)
		} else {
			before[c.Name] = c.Value
		}
	}
	return before
}

func sent(jar map[string]string) string {
	var all []string
	for name, value := range jar {
		all = append(all, name+"="+value)
	}
	return strings.Join(all, "; ")
}

// sampleIntranet logs in, each step at another replica than the one before.
func sampleIntranet(t *testing.T, at map[string]string) {
	var addresses []string
	for _, a := range at {
		addresses = append(addresses, a)
	}
	n := 0
	jar := map[string]string{}
	next := func(path string) *reply {
		t.Helper()
		n++
		q := question{host: "intranet.example.com", path: path}.with("Accept", "text/html", "Sec-Fetch-Mode", "navigate", "Cookie", sent(jar))
		a, err := q.at(addresses[n%len(addresses)])
		must(t, err)
		cookies(a, jar)
		return a
	}
	location := func(a *reply) *url.URL {
		t.Helper()
		u, err := url.Parse(a.header.Get("Location"))
		if err != nil || a.status != 302 {
			t.Fatalf("%d to %q (%v), want to be sent on", a.status, u, err)
		}
		return u
	}
	is(t, at, question{host: "intranet.example.com", path: "/"}, 401) // a script

	eachSays(t, time.Minute, at, question{host: "intranet.example.com", path: "/"}.with("Accept", "text/html", "Sec-Fetch-Mode", "navigate"), 302)

	to := location(next("/page?a=b"))
	if to.Scheme+"://"+to.Host+to.Path != "https://sso.example.com/authorize" {
		t.Fatalf("sent to %s", to)
	}
	said, err := question{host: to.Host, path: to.RequestURI()}.at(provider(t, samples, "sso"))
	must(t, err)
	back := location(said)
	if back.Scheme+"://"+back.Host+back.Path != "http://intranet.example.com/oauth2/callback" {
		t.Fatalf("sent back to %s", back)
	}
	if home := location(next(back.RequestURI())); home.RequestURI() != "/page?a=b" {
		t.Errorf("sent home to %s", home)
	}
	if len(jar) == 0 {
		t.Fatal("no session")
	}
	for pod, a := range is(t, at, question{host: "intranet.example.com", path: "/page"}.with("Cookie", sent(jar)+"; theme=dark"), 200) {
		if h := a.seen.Header; h.Get("X-User") != "ada@example.com" || h.Get("Cookie") != "theme=dark" {
			t.Errorf("%s: the backend was told %v", pod, h)
		}
	}

	// What was changed, or comes twice, is no session.
	for name, value := range jar {
		i := len(value) / 2
		other := "A"
		if value[i] == 'A' {
			other = "B"
		}
		changed := value[:i] + other + value[i+1:]
		is(t, at, question{host: "intranet.example.com", path: "/page"}.with("Cookie", name+"="+changed), 401)
	}
	clear(jar)
	if a := next(back.RequestURI()); a.status == 200 || len(jar) > 0 {
		t.Errorf("the same login a second time, by somebody else: %d with %d cookies", a.status, len(jar))
	}
}
