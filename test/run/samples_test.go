package run

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/process"
)

// reply is what a sample's backend says.
type reply struct {
	status  int
	header  http.Header
	Backend string      `json:"backend"`
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Target  string      `json:"target"`
	Header  http.Header `json:"header"`
}

var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func ask(t testing.TB, client *http.Client, url string, fields ...string) (r reply) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "Host" {
			req.Host = fields[i+1]
		} else {
			req.Header.Set(fields[i], fields[i+1])
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r.status, r.header = resp.StatusCode, resp.Header
	if resp.StatusCode == 200 {
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatalf("%v: %q", err, text)
		}
	}
	return r
}

// What README and "make run" promise.
func TestTheSamplesDoWhatTheReadmeSays(t *testing.T) {
	t.Parallel()
	w := samples(t)
	p := start(t, "-f", w.dir)

	counts := map[string]int{}
	for range 100 {
		r := ask(t, noRedirects, w.url("/"))
		if r.status != 200 || r.Target != "/" {
			t.Fatalf("%+v", r)
		}
		counts[r.Backend]++
	}
	if counts["blue"] < 20 || counts["green"] < 20 {
		t.Errorf("not balanced: %v", counts)
	}
	for range 20 {
		if r := ask(t, noRedirects, w.url("/"), "x-canary", "1"); r.Backend != "green" {
			t.Fatalf("the canary went to %s", r.Backend)
		}
	}
	r := ask(t, noRedirects, w.url("/basket/42"))
	if want := "http://127.0.0.1:" + strconv.Itoa(w.port) + "/cart/42"; r.status != 301 || r.header.Get("Location") != want {
		t.Errorf("%d to %q, want 301 to %q", r.status, r.header.Get("Location"), want)
	}
	for i := range 5 {
		if r := ask(t, noRedirects, w.url("/checkout")); r.status != 200 {
			t.Fatalf("checkout %d: %d", i+1, r.status)
		}
	}
	r = ask(t, noRedirects, w.url("/checkout"))
	if after, err := strconv.Atoi(r.header.Get("Retry-After")); r.status != 429 || err != nil || after < 1 || after > 60 {
		t.Errorf("the sixth checkout: %d, Retry-After %q", r.status, r.header.Get("Retry-After"))
	}

	for _, path := range []string{"/healthz", "/readyz"} {
		if resp, err := http.Get("http://" + p.Health + path); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %v %v", path, resp, err)
		} else {
			resp.Body.Close()
		}
	}
	if n := p.Metric("gatehouse_requests_total", `code="429"`); n != 1 {
		t.Errorf("metrics count %v refusals", n)
	}
	resp, err := http.Get("http://" + p.Admin + "/snapshot")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); !strings.Contains(string(text), "listener default/public/http") {
		t.Errorf("the snapshot is %q", text)
	}
	p.Signal(syscall.SIGTERM)
}

// What the comments of config/samples/auth promise.
func TestTheSamplesOfAuthPoliciesLetInWhomTheySay(t *testing.T) {
	t.Parallel()
	w := samples(t)
	p := start(t, "-f", w.dir)
	for _, c := range []struct {
		host, path string
		fields     []string
		status     int
	}{
		{"partners.example.com", "/", nil, 401},
		{"partners.example.com", "/", []string{"X-API-Key", "acme-key-for-the-sample"}, 200},
		{"partners.example.com", "/", []string{"X-API-Key", "globex-key-for-the-sample"}, 200},
		{"partners.example.com", "/", []string{"X-API-Key", "hooli-key-for-the-sample"}, 401},
		{"wiki.example.com", "/", nil, 401},
		{"wiki.example.com", "/", []string{"Authorization", "Basic YWxpY2U6b3Blbi1zZXNhbWU="}, 200}, // alice:open-sesame
		{"wiki.example.com", "/", []string{"Authorization", "Basic YWxpY2U6b3Blbi1zZXNhbQ=="}, 401},
		{"status.example.com", "/metrics", nil, 200}, // from loopback
		{"status.example.com", "/", nil, 200},
		{"machines.example.com", "/", []string{"Authorization", "Bearer token-for-the-sample"}, 403}, // no certificate, which no challenge can ask for
		{"api.example.com", "/", nil, 401},
		{"intranet.example.com", "/", nil, 401},                             // no browser that could be sent to a login
		{"intranet.example.com", "/", []string{"Accept", "text/html"}, 503}, // the provider is not there
		{"orders.example.com", "/", nil, 503},                               // nor is the service
	} {
		if r := ask(t, noRedirects, w.url(c.path), append(c.fields, "Host", c.host)...); r.status != c.status {
			t.Errorf("%s%s with %v: %d, want %d", c.host, c.path, c.fields, r.status, c.status)
		}
	}
	r := ask(t, noRedirects, w.url("/"), "Host", "partners.example.com", "X-API-Key", "acme-key-for-the-sample", "X-Partner", "globex")
	if got := r.Header.Values("X-Partner"); len(got) != 1 || got[0] != "acme" || r.Header.Get("X-API-Key") != "" {
		t.Errorf("the backend saw %v", r.Header)
	}
	p.Signal(syscall.SIGTERM)
}

func TestTheSampleOfTiersLimitsByCustomer(t *testing.T) {
	t.Parallel()
	w := samples(t)
	p := start(t, "-f", w.dir)
	times := func(key string, want int) (n int) {
		for n = 0; n < want; n++ {
			if r := ask(t, noRedirects, w.url("/"), "Host", "maps.example.com", "X-API-Key", key); r.status != 200 {
				return n
			}
		}
		return n
	}
	// A counter refills while it is asked: one more at most, each six seconds.
	for _, c := range []struct {
		key         string
		least, most int
	}{{"hooli-key-for-the-sample", 10, 14}, {"umbrella-key-for-the-sample", 10, 14}, {"initech-key-for-the-sample", 200, 200}} {
		if n := times(c.key, 200); n < c.least || n > c.most {
			t.Errorf("%s passed %d times, want %d to %d", c.key, n, c.least, c.most)
		}
	}
	p.Signal(syscall.SIGTERM)
}

func TestAnEditServes(t *testing.T) {
	t.Parallel()
	w := samples(t)
	start(t, "-f", w.dir)
	if r := ask(t, noRedirects, w.url("/basket")); r.status != 301 {
		t.Fatal(r.status)
	}
	w.write(t, "shop.yaml", strings.Replace(w.read(t, "shop.yaml"), "statusCode: 301", "statusCode: 302", 1))
	process.Until(t, "the new status serves", func() bool { return ask(t, noRedirects, w.url("/basket")).status == 302 })

	// A new file, and its end.
	w.write(t, "more/route.yaml", `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: more}
spec:
  parentRefs: [{name: public}]
  rules:
  - matches: [{path: {value: /more}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: more.example}}]
`)
	process.Until(t, "the new file serves", func() bool { return ask(t, noRedirects, w.url("/more")).status == 302 })
}

func TestABrokenFileLeavesTrafficAsItWasAndIsToldOf(t *testing.T) {
	t.Parallel()
	w := samples(t)
	p := start(t, "-f", w.dir)
	good := w.read(t, "shop.yaml")
	line := func(text, part string) string {
		before, _, found := strings.Cut(text, part)
		if !found {
			t.Fatalf("no %q", part)
		}
		return strconv.Itoa(1 + strings.Count(before, "\n"))
	}
	l := newLoad(t, w, "/", 4)
	for _, c := range []struct{ old, new, says string }{
		{"    matches:", "   matches: [", ""},                      // not YAML
		{"matches:", "matchs:", "matchs"},                          // an unknown field
		{"statusCode: 301", "statusCode: 3001", "statusCode"},      // out of range
		{"port: 8080, targetPort: http}", "port: 808080}", "port"}, // the same for a Service
		{"kind: HTTPRoute", "kind: HTTPRoutes", "HTTPRoute"},       // an unknown kind, with what was meant
		{"type: RequestRedirect", "type: Redirect", "filters"},     // an unknown filter
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Fatalf("no %q in the sample", c.old)
		}
		w.write(t, "shop.yaml", bad)
		p.Says(`shop\.yaml:` + `\d+: .*` + c.says)
		if c.says == "matchs" {
			p.Says(`shop\.yaml:` + line(bad, "matchs") + `:`)
		}
		if r := ask(t, noRedirects, w.url("/basket")); r.status != 301 {
			t.Errorf("with %q: %d", c.new, r.status)
		}
		w.write(t, "shop.yaml", good)
	}
	// A mistake that the API server would take is told of in the same way, and hurts its rule alone.
	bad := strings.Replace(good, "{name: shop-green, port: 8080}", "{name: shop-gren, port: 8080}", 1)
	w.write(t, "shop.yaml", bad)
	p.Says(`shop\.yaml:` + line(bad, "shop-gren, port") + `: HTTPRoute default/shop: spec\.rules\[0\]\.backendRefs\[0\]`)
	process.Until(t, "the rule in error answers 500", func() bool { return ask(t, noRedirects, w.url("/"), "x-canary", "1").status == 500 })
	w.write(t, "shop.yaml", good)
	process.Until(t, "all is well again", func() bool { return ask(t, noRedirects, w.url("/"), "x-canary", "1").Backend == "green" })
	l.end()

	// And it still listens to edits.
	w.write(t, "shop.yaml", strings.Replace(good, "statusCode: 301", "statusCode: 302", 1))
	process.Until(t, "an edit serves", func() bool { return ask(t, noRedirects, w.url("/basket")).status == 302 })
}

func TestAPortThatIsTakenIsToldOfAndOthersServe(t *testing.T) {
	t.Parallel()
	w := samples(t)
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	w.write(t, "gateway.yaml", w.read(t, "gateway.yaml")+"  - {name: taken, protocol: HTTP, port: "+strconv.Itoa(port)+"}\n")
	p := start(t, "-f", w.dir)
	if r := ask(t, noRedirects, w.url("/")); r.status != 200 {
		t.Errorf("the other port: %d", r.status)
	}
	p.Says(`gateway\.yaml:\d+: Gateway default/public: .*` + strconv.Itoa(port) + `.*address already in use`)

	// As soon as it is free, it serves.
	taken.Close()
	process.Until(t, "the port serves", func() bool {
		resp, err := http.Get("http://127.0.0.1:" + strconv.Itoa(port) + "/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
}
