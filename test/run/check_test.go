package run

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/process"
)

func TestTheSamplesPassCheck(t *testing.T) {
	t.Parallel()
	out, errs, code := process.Command(t, "check", "-f", filepath.Join(process.Root, "config", "samples"))
	if code != 0 || errs != "" {
		t.Errorf("exit status %d:\n%s%s", code, out, errs)
	}
	for _, want := range []string{
		"GatewayClass gatehouse: Accepted",
		"Gateway default/public: Accepted, Programmed",
		"HTTPRoute default/shop @default/public: Accepted, ResolvedRefs",
		"AuthPolicy default/partners @default/public: Accepted \"attached to HTTPRoute default/partners\", Programmed \"in force\", ResolvedRefs",
		"AuthPolicy default/inside @default/public: Accepted \"attached to HTTPRoute default/status, rule metrics\", Programmed \"in force\"",
		"RateLimitPolicy default/checkout @default/public: Accepted",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "=False") {
		t.Errorf("something is not well:\n%s", out)
	}
}

func TestCheckSaysWhatWouldBeServed(t *testing.T) {
	t.Parallel()
	out, _, code := process.Command(t, "check", "--snapshot", "-f", filepath.Join(process.Root, "config", "samples"))
	if code != 0 || !regexp.MustCompile(`(?m)^listener default/public/http :8080`).MatchString(out) {
		t.Errorf("exit status %d:\n%s", code, out)
	}
}

const route = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: more}
spec:
  parentRefs: [{name: public}]
  rules:
  - matches: [{path: {value: /more}}]
    backendRefs: [{name: shop, port: 8080}]
`

// Each is something that a user gets wrong, with the line that check must name and a word of what it must say.
var mistakes = []struct {
	name, old, new string
	line           int
	says           string
}{
	{"a service that is not there", "name: shop,", "name: shoq,", 8, "shoq"},
	{"a port that it has not", "port: 8080", "port: 8081", 8, "8081"},
	{"a gateway that is not there", "name: public", "name: pubic", 5, "pubic"},
	{"an unknown field", "matches:", "match:", 7, "match"},
	{"a path without its slash", "value: /more", "value: more", 7, "path"},
	{"an unknown version", "networking.k8s.io/v1", "networking.k8s.io/v7", 1, "v1"},
	{"no YAML at all", "metadata: {name: more}", "metadata: {name: more", 0, ""},
	{"a filter twice", "    backendRefs", "    filters: [{type: URLRewrite, urlRewrite: {hostname: a.b}}, {type: URLRewrite, urlRewrite: {hostname: a.b}}]\n    backendRefs", 8, "filters"},
}

// gatewayAndShop is a folder with these two samples.
func gatewayAndShop(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, sample := range []string{"gateway.yaml", "shop.yaml"} {
		text, err := os.ReadFile(filepath.Join(process.Root, "config", "samples", sample))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, sample), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCheckNamesFileAndLineOfEachMistake(t *testing.T) {
	t.Parallel()
	dir := gatewayAndShop(t)
	file := filepath.Join(dir, "z-more.yaml")
	for _, c := range append(mistakes, mistakes[0]) {
		text := strings.Replace(route, c.old, c.new, 1)
		if text == route {
			t.Fatalf("no %q", c.old)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, errs, code := process.Command(t, "check", "-f", dir)
		want := regexp.QuoteMeta(file) + `:\d+.*`
		if c.line > 0 {
			want = regexp.QuoteMeta(fmt.Sprintf("%s:%d", file, c.line)) + `:.*`
		}
		if code != 1 || !regexp.MustCompile(want+c.says).MatchString(out+errs) {
			t.Errorf("%s: exit status %d, want %s%s in:\n%s%s", c.name, code, want, c.says, out, errs)
		}
	}
	if err := os.WriteFile(file, []byte(route), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := process.Command(t, "check", "-f", dir); code != 0 {
		t.Errorf("when all is right: exit status %d\n%s%s", code, out, errs)
	}
}

const guard = `apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: guard}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
  methods:
  - name: keys
    apiKey:
      from: [{header: X-API-Key}]
      secretRefs: [{name: keys}]
  - name: staff
    basic:
      secretRef: {name: users}
  authorize:
    default: Deny
    rules:
    - name: staff
      action: Allow
      when: identity.subject == "alice"
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {alice: key-of-alice}
---
apiVersion: v1
kind: Secret
metadata: {name: users}
stringData: {auth: "alice:$2a$04$bFHw7QbI6pcq2cRfUInRjenwWW1Lqa8xpmK./reYJeu0AmVtqTA/."}
`

// Each is something that a user gets wrong in a policy or in its Secrets, with the line of the policy and what is said.
var guardMistakes = []struct {
	name, old, new string
	line           int
	says           string
}{
	{"a Secret that is not there", "[{name: keys}]", "[{name: kyes}]", 10, "there is no Secret default/kyes"},
	{"a Secret without the entry", "{auth: ", "{users: ", 13, `Secret default/users has no entry "auth"`},
	{"a password that is not hashed", "alice:$2a$04$bFHw7QbI6pcq2cRfUInRjenwWW1Lqa8xpmK./reYJeu0AmVtqTA/.", "alice:open-sesame", 13, "entry auth, line 1: the password is not hashed by bcrypt"},
	{"an empty key", "alice: key-of-alice", `alice: ""`, 10, "Secret default/keys, entry alice: the key is empty"},
	{"an expression that does not compile", "identity.subject ==", "identity.user ==", 19, "identity.user is not there"},
	{"a target that is not there", "kind: HTTPRoute, name: shop", "kind: HTTPRoute, name: shopp", 5, "there is no HTTPRoute default/shopp"},
	{"an action that there is not", "action: Allow", "action: Permit", 18, "Unsupported value"},
	{"two ways in one", "    basic:", "    clientCertificate: {}\n    basic:", 11, "a method must be exactly one of"},
}

func TestCheckNamesWhatIsWrongInAnAuthPolicy(t *testing.T) {
	t.Parallel()
	dir := gatewayAndShop(t)
	file := filepath.Join(dir, "z-guard.yaml")
	check := func(text string) (out string, code int) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, errs, code := process.Command(t, "check", "-f", dir)
		return out + errs, code
	}
	for _, c := range guardMistakes {
		text := strings.Replace(guard, c.old, c.new, 1)
		if text == guard {
			t.Fatalf("no %q", c.old)
		}
		out, code := check(text)
		if want := regexp.QuoteMeta(fmt.Sprintf("%s:%d: ", file, c.line)) + ".*" + regexp.QuoteMeta(c.says); code != 1 || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%s: exit status %d, want %s in:\n%s", c.name, code, want, out)
		}
		if strings.Contains(out, "key-of-alice") || strings.Contains(out, "open-sesame") {
			t.Errorf("%s: a secret is told:\n%s", c.name, out)
		}
	}
	if out, code := check(guard); code != 0 || !strings.Contains(out, `AuthPolicy default/guard @default/public: Accepted`) {
		t.Errorf("when all is right: exit status %d\n%s", code, out)
	}
}

func TestWrongFlagsAndSettingsAreErrorsThatNameThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := func(text string) string {
		file := filepath.Join(dir, fmt.Sprintf("%x.yaml", text))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	samples := filepath.Join(process.Root, "config", "samples")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"run", "--no-such-flag"}, "--no-such-flag"},
		{[]string{"run"}, "-f"},
		{[]string{"check"}, "-f"},
		{[]string{"serve"}, "serve"},
		{[]string{"run", "-f", filepath.Join(dir, "nowhere")}, "nowhere"},
		{[]string{"check", "-f", filepath.Join(dir, "nowhere")}, "nowhere"},
		{[]string{"run", "-f", samples, "--head-timeout", "soon"}, "head-timeout"},
		{[]string{"run", "-f", samples, "--trusted-proxies", "10.0.0.0/99"}, "10.0.0.0/99"},
		{[]string{"run", "-f", samples, "--config", filepath.Join(dir, "nowhere")}, "nowhere"},
		{[]string{"run", "-f", samples, "--config", config("idleTimeout: 5s\nheadTimout: 1s\n")}, `:2: .*headTimout`},
		{[]string{"run", "-f", samples, "--config", config("headTimeout: soon\n")}, `:1: headTimeout`},
		{[]string{"run", "-f", samples, "--config", config("- a\n")}, `:1: `},
		{[]string{"run", "-f", samples, "--config", config("trustedProxies:\n- 10.0.0.0/8\n- nobody\n")}, `nobody`},
		{[]string{"run", "-f", samples, "--admin-address", "0.0.0.0:1"}, "loopback"},
	} {
		out, errs, code := process.Command(t, c.args...)
		if code == 0 || !regexp.MustCompile(c.says).MatchString(errs+out) {
			t.Errorf("%v: exit status %d, want %s in:\n%s%s", c.args, code, c.says, out, errs)
		}
	}
}

func TestSettingsOfAFileHoldAndFlagsWin(t *testing.T) {
	t.Parallel()
	w := samples(t)
	file := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(file, []byte("serverName: from-file\nmaxURIBytes: 50\ntrustedProxies: [127.0.0.0/8, '::1']\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, "-f", w.dir, "--config", file, "--server-name", "from-flag")
	r := ask(t, noRedirects, w.url("/"+strings.Repeat("x", 60)))
	if r.status != 414 {
		t.Errorf("a long target: %d", r.status)
	}
	if r := ask(t, noRedirects, w.url("/basket")); r.header.Get("Server") != "from-flag" {
		t.Errorf("Server: %q", r.header.Get("Server"))
	}
	if r := ask(t, noRedirects, w.url("/"), "X-Forwarded-For", "192.0.2.7"); r.Header.Get("X-Forwarded-For") != "192.0.2.7, 127.0.0.1" {
		t.Errorf("X-Forwarded-For: %q", r.Header.Get("X-Forwarded-For"))
	}
}

func TestHelpNamesEachSetting(t *testing.T) {
	t.Parallel()
	out, _, code := process.Command(t, "run", "--help")
	for _, flag := range []string{"--filename", "--config", "--head-timeout", "--max-body-bytes", "--trusted-proxies", "--drain-delay"} {
		if code != 0 || !strings.Contains(out, flag) {
			t.Errorf("exit status %d, no %s in:\n%s", code, flag, out)
		}
	}
}
