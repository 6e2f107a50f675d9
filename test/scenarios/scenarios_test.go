// Package scenarios shows what users would notice, in the whole house without a cluster: YAML goes through controllers/source and the
// loop to a data plane that listens on loopback, and real clients ask real backends through it. One behaviour per file, a sentence on
// top. What a script cannot say (streams, tunnels, gRPC) is said in Go beside it, with the same house.
package scenarios

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/dataplane"
)

// around is what stands around the objects of a scenario that does not say otherwise.
const (
	aroundClass = `---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway-controller}
`
	aroundGateway = `---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: gatehouse
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
`
)

// A scenario is a sentence, and then files:
//
//	settings       lines such as "HeadTimeout 200ms", fields of dataplane.Settings
//	certificates   lines such as "infra/cert: *.example.com example.com", Secrets with a key pair
//	backends       lines such as "shop/cart: blue green(draining) grey(unready) dead", Services with port 8080 and where their endpoints
//	               are; without a colon: a Service with one backend of its name. "h2c blue" gives the port an appProtocol. Backends are
//	               started as they are named; one whose name begins with "dead" refuses connections
//	objects.yaml   the other objects. ${blue} is the port of a backend
//	*.yaml         objects for "apply"
//	requests       the script; see paragraph
//	wires          the wires that it is for, when not for all; raw bytes and TLS are left out in memory by themselves
type scenario struct {
	sentence string
	settings dataplane.Settings
	files    map[string]string
}

func TestScenarios(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, path := range paths {
		for _, w := range wires {
			name := strings.TrimSuffix(filepath.Base(path), ".txtar")
			t.Run(name+"/"+w.name, func(t *testing.T) {
				t.Parallel()
				s := readScenario(t, path)
				if only := s.files["wires"]; only != "" && !strings.Contains(only, w.name) {
					t.Skip("not on this wire: " + only)
				}
				s.play(t, w)
			})
		}
	}
}

func readScenario(t *testing.T, path string) *scenario {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &scenario{sentence: strings.TrimSpace(string(archive.Comment)), files: map[string]string{}}
	for _, f := range archive.Files {
		if s.files[f.Name] != "" {
			t.Fatalf("%s stands twice", f.Name)
		}
		s.files[f.Name] = string(f.Data)
	}
	if !strings.HasSuffix(s.sentence, ".") {
		t.Fatal("a sentence stands on top, with a full stop")
	}
	s.settings = settingsOf(t, s.files["settings"])
	return s
}

// open makes a house that serves the objects of the files.
func (s *scenario) open(t testing.TB, w wire) *house {
	h := openHouse(t, w, s.settings)
	services, slices := h.services(s.files["backends"])
	yaml := s.files["objects.yaml"] + services
	if !strings.Contains(yaml, "kind: GatewayClass") {
		yaml += aroundClass
	}
	if !regexp.MustCompile(`(?m)^kind: Gateway$`).MatchString(yaml) {
		yaml += aroundGateway
	}
	for line := range strings.Lines(s.files["certificates"]) {
		name, hosts, _ := strings.Cut(strings.TrimSpace(line), ": ")
		yaml += secret(t, name, strings.Fields(hosts)...)
	}
	objects := h.read(yaml)
	for name, text := range s.files {
		if name != "objects.yaml" && strings.HasSuffix(name, ".yaml") {
			h.know(h.read(text))
		}
	}
	h.know(objects)
	h.set(append(objects, slices...))
	return h
}

var placeholder = regexp.MustCompile(`\$\{([\w-]+)\}`)

// read reads objects in which ${blue} is the port of that backend.
func (h *house) read(yaml string) []controllers.Object {
	return read(h.t, placeholder.ReplaceAllStringFunc(yaml, func(word string) string {
		return strconv.Itoa(int(h.backend(word[2 : len(word)-1]).address.Port()))
	}))
}

// services are the Services of backends, as YAML, and their slices.
func (h *house) services(text string) (yaml string, slices []controllers.Object) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		protocol := ""
		for _, p := range []string{"h2c", "ws"} {
			if rest, ok := strings.CutPrefix(line, p+" "); ok {
				line, protocol = rest, ", appProtocol: kubernetes.io/"+p
			}
		}
		if line == "" {
			continue
		}
		namespace, service, words := serviceLine(line)
		if !strings.Contains(line, ":") {
			words = []string{service}
		}
		yaml += fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: %s}\nspec: {ports: [{name: http, port: 8080%s}]}\n",
			service, namespace, protocol)
		slices = append(slices, h.slices(namespace, service, words)...)
	}
	return yaml, slices
}

func (s *scenario) play(t *testing.T, w wire) {
	h := s.open(t, w)
	for _, p := range paragraphs(s.files["requests"]) {
		st := &step{T: t, h: h, s: s, p: p, wire: w}
		if !st.play() {
			t.Fatalf("served was:\n%s\ntold was:\n%s", h.plane.Text(), h.status())
		}
	}
}

// step is a paragraph that is played.
type step struct {
	*testing.T
	h      *house
	s      *scenario
	p      paragraph
	wire   wire
	failed bool

	from    map[string]int // requests of backends before
	answers []answer
}

func (st *step) wrong(format string, args ...any) {
	st.Helper()
	st.failed = true
	st.Errorf("requests, line %d: %s: %s", st.p.line, st.p.first, fmt.Sprintf(format, args...))
}

// play reports whether all was as expected.
func (st *step) play() bool {
	verb, rest, _ := strings.Cut(st.p.first, " ")
	switch verb {
	case "apply":
		text, ok := st.s.files[rest]
		if !ok {
			st.Fatalf("there is no file %s", rest)
		}
		st.h.apply(st.h.read(text))
	case "delete":
		st.h.delete(rest)
	case "endpoints":
		st.h.endpoints(rest)
	case "status":
		for _, line := range append([]string{rest}, st.p.more...) {
			st.expectStatus(strings.TrimPrefix(line, "status "))
		}
	default:
		st.request()
	}
	return !st.failed
}

func (st *step) expectStatus(want string) {
	object, part, _ := strings.Cut(want, ": ")
	for line := range strings.Lines(st.h.status()) {
		if strings.HasPrefix(line, object+": ") && strings.Contains(line, part) {
			return
		}
	}
	st.wrong("no status %q", want)
}

func (st *step) request() {
	r, err := parseRequest(st.p)
	if err != nil {
		st.Fatalf("line %d: %v", st.p.line, err)
	}
	if r.wires != "" && r.wires != st.wire.name || st.wire.name == inMemory.name && (r.raw != nil || r.how == "tls" || r.how == "h2") {
		return
	}
	st.from = map[string]int{}
	for name, b := range st.h.backends {
		st.from[name] = b.count()
	}
	if r.raw != nil {
		st.sendRaw(r)
	} else {
		st.send(r)
	}
	for _, line := range r.expect {
		if !st.failed {
			st.expect(line, r)
		}
	}
}

func (st *step) send(r *request) {
	c := st.h.open(r)
	defer c.close()
	for range r.times {
		a, err := c.send(r)
		if err != nil {
			st.wrong("%v", err)
			return
		}
		st.answers = append(st.answers, a)
	}
}

// sendRaw takes the lines "< 400 close" for itself.
func (st *step) sendRaw(r *request) {
	address := "127.0.0.1:" + strconv.Itoa(int(st.h.port(r.gateway, r.port)))
	answers, closed, err := exchangeRaw(address, r.raw)
	if err != nil {
		st.wrong("%v", err)
		return
	}
	var got, rest []string
	for _, a := range answers {
		got = append(got, strconv.Itoa(a.status))
	}
	if closed {
		got = append(got, "close")
	}
	for _, line := range r.expect {
		if !rawLine.MatchString(line) {
			rest = append(rest, line)
			continue
		}
		if want := line[2:]; want != strings.Join(got, " ") {
			st.wrong("got %q, want %q", strings.Join(got, " "), want)
		}
	}
	r.expect, st.answers = rest, answers
}

var (
	rawLine   = regexp.MustCompile(`^<( \d\d\d)*( close)?$`)
	shareLine = regexp.MustCompile(`^< (\d+)% (?:from ([\w-]+)|(\d\d\d))(?: ±(\d+))?$`)
	plainLine = regexp.MustCompile(`^< (\d\d\d)(?: from ([\w-]+))?$`)
	countLine = regexp.MustCompile(`^reached ([\w-]+) (\d+)(%)?(?: ±(\d+))?$`)
	seenLine  = regexp.MustCompile(`^(?:([\w-]+) )?saw (.*)$`)
)

func (st *step) expect(line string, r *request) {
	st.Helper()
	if m := shareLine.FindStringSubmatch(line); m != nil {
		st.expectShare(m)
		return
	}
	if line == "reached nobody" {
		st.expectNobody()
		return
	}
	if m := countLine.FindStringSubmatch(line); m != nil {
		st.expectCount(m, r)
		return
	}
	if m := seenLine.FindStringSubmatch(line); m != nil && !strings.HasPrefix(line, "<") {
		st.expectSeen(m[1], m[2])
		return
	}
	if len(st.answers) == 0 {
		st.wrong("no answer, so %q does not hold", line)
	}
	for i, a := range st.answers {
		if problem := a.differs(line); problem != "" {
			st.wrong("%s (answer %d: %d %v %q)", problem, i+1, a.status, a.header, short(a.body))
			return
		}
	}
}

// differs says in what an answer is not as the line says.
func (a answer) differs(line string) string {
	if m := plainLine.FindStringSubmatch(line); m != nil {
		if got := strconv.Itoa(a.status); got != m[1] {
			return "status " + got + ", want " + m[1]
		}
		if from, _ := a.get("x-backend"); m[2] != "" && from != m[2] {
			return fmt.Sprintf("from %q, want %s", from, m[2])
		}
		return ""
	}
	return compare(line[2:], a.get, map[string]string{"body": a.body})
}

// compare checks "name: value", "name ~ pattern", "no name", "has name", and "word text" for the words that are given.
func compare(want string, get func(string) (string, bool), words map[string]string) string {
	verb, rest, _ := strings.Cut(want, " ")
	if text, ok := words[verb]; ok {
		if verb == "body" && strings.Contains(text, rest) || text == rest {
			return ""
		}
		return fmt.Sprintf("%s %q, want %q", verb, short(text), rest)
	}
	switch verb {
	case "no":
		if got, ok := get(rest); ok {
			return fmt.Sprintf("%s: %s, want none", rest, got)
		}
		return ""
	case "has":
		if _, ok := get(rest); !ok {
			return "no " + rest
		}
		return ""
	}
	if name, pattern, ok := strings.Cut(want, " ~ "); ok {
		if got, _ := get(name); !regexp.MustCompile(pattern).MatchString(got) {
			return fmt.Sprintf("%s: %q, want what matches %s", name, got, pattern)
		}
		return ""
	}
	name, value, ok := strings.Cut(want, ":")
	if !ok {
		return fmt.Sprintf("%q is not an expectation", want)
	}
	if got, _ := get(name); got != strings.TrimSpace(value) {
		return fmt.Sprintf("%s: %q, want %q", name, got, strings.TrimSpace(value))
	}
	return ""
}

func short(text string) string {
	if len(text) > 300 {
		return text[:300] + "…"
	}
	return text
}

// expectShare checks "< 70% from blue ±5" over all answers.
func (st *step) expectShare(m []string) {
	n := 0
	for _, a := range st.answers {
		from, _ := a.get("x-backend")
		if m[2] != "" && from == m[2] || m[3] != "" && strconv.Itoa(a.status) == m[3] {
			n++
		}
	}
	st.near(100*float64(n)/float64(max(len(st.answers), 1)), m[1], m[4], m[0])
}

func (st *step) near(got float64, want, tolerance, line string) {
	w, _ := strconv.ParseFloat(want, 64)
	d, _ := strconv.ParseFloat(tolerance, 64)
	if math.Abs(got-w) > d {
		st.wrong("%q: it was %.1f%%", line, got)
	}
}

// came is how many requests came to a backend in this step.
func (st *step) came(name string) int {
	b := st.h.backends[name]
	if b == nil {
		st.Fatalf("there is no backend %s", name)
	}
	return b.count() - st.from[name]
}

func (st *step) expectNobody() {
	for name := range st.h.backends {
		if n := st.came(name); n > 0 {
			st.wrong("%d requests reached %s: %+v", n, name, st.h.backends[name].requests(st.from[name])[0])
		}
	}
}

// expectCount checks "reached grey 2" and "reached grey 20% ±6". Mirrored requests come when they come.
func (st *step) expectCount(m []string, r *request) {
	want, _ := strconv.Atoi(m[2])
	if m[3] == "" {
		deadline := time.Now().Add(patience)
		for st.came(m[1]) < want && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if got := st.came(m[1]); got != want {
			st.wrong("%d requests reached %s, want %d", got, m[1], want)
		}
		return
	}
	tolerance, _ := strconv.Atoi(m[4])
	deadline := time.Now().Add(patience)
	for 100*st.came(m[1]) < (want-tolerance)*r.times && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	st.near(100*float64(st.came(m[1]))/float64(r.times), m[2], m[4], m[0])
}

// expectSeen checks what a backend saw: the named one, or whoever was asked last.
func (st *step) expectSeen(name, want string) {
	var last seen
	if name != "" {
		until(st.T, name+" is asked", func() bool { return st.came(name) > 0 })
	}
	for n, b := range st.h.backends {
		if all := b.requests(st.from[n]); len(all) > 0 && (name == "" && !strings.HasPrefix(n, "mirror") || n == name) {
			last = all[len(all)-1]
		}
	}
	if last.Method == "" {
		st.wrong("nobody was asked, so %q does not hold", want)
		return
	}
	get := func(name string) (string, bool) {
		v := last.Header.Values(name)
		return strings.Join(v, ", "), len(v) > 0
	}
	words := map[string]string{"method": last.Method, "target": last.Target, "host": last.Host, "proto": last.Proto, "body": strings.TrimSpace(last.Body)}
	if problem := compare(want, get, words); problem != "" {
		st.wrong("%s saw %s (%+v)", last.Backend, problem, last)
	}
}

// Nothing that a scenario started is left when all are over.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before+5 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); code == 0 && n > before+5 {
		buf := make([]byte, 16<<10)
		fmt.Printf("%d goroutines are left, %d before:\n%s\n", n, before, buf[:runtime.Stack(buf, true)])
		code = 1
	}
	os.Exit(code)
}
