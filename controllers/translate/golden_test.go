package translate_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

var update = flag.Bool("update", false, "rewrite the goldens; read the diff, it is the review")

// filterOrder is dataplane.FilterOrder's, which this house cannot import; test/layout has both in view.
var filterOrder = []string{"cors", "redirect", "auth", "ratelimit", "rewrite", "headers"}

// around is what stands around the objects of a golden that does not say otherwise. Its statuses are not shown.
const around = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: gatehouse
  listeners: [{name: http, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
`

// A golden is a sentence, and then files:
//
//	objects.yaml    what users wrote, as the API server would have taken it; with CERTIFICATE(name…) and KEY(0) for Secrets
//	unchecked.yaml  what it would not have taken, or a newer one would
//	before.yaml     the objects of a Build before, whose LastGood is used; before-unchecked.yaml beside it
//	answers         "Service web/shop pending": references that are not among the objects; "Secret web/?tier=gold forbidden": by label,
//	                "+" for a space
//	facts           "bind 127.0.0.1:80 permission denied", "crd NAME v1.7.0", "address infra/gw 192.0.2.1", "unprovided infra/gw quota",
//	                "endpoint web/shop:80 127.0.0.1 is loopback", "pods infra/gw 80 10000" (a pod port), "idle" (nothing applied)
//	snapshot        what the data plane must do
//	status          what users get told
type golden struct {
	*txtar.Archive
	path string
}

func TestGoldens(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no goldens", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			g := readGolden(t, path)
			result, statuses := g.build(t)
			g.expect(t, "snapshot", result.Snapshot.String())
			g.expect(t, "status", translate.Text(statuses))
			if *update {
				if err := os.WriteFile(path, txtar.Format(g.Archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func readGolden(t *testing.T, path string) golden {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(a.Comment)) == "" {
		t.Fatalf("%s does not begin with a sentence", path)
	}
	return golden{a, path}
}

func (g golden) file(name string) string {
	for _, f := range g.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

func (g golden) expect(t *testing.T, name, got string) {
	t.Helper()
	for i := range g.Files {
		if g.Files[i].Name != name {
			continue
		}
		if *update {
			g.Files[i].Data = []byte(got)
		} else if diff := gocmp.Diff(string(g.Files[i].Data), got); diff != "" {
			t.Errorf("the %s differs (-want +got), rewrite it with -update:\n%s", name, diff)
		}
		return
	}
	if *update {
		g.Archive.Files = append(g.Archive.Files, txtar.File{Name: name, Data: []byte(got)})
		return
	}
	t.Errorf("the golden has no %s", name)
}

// build runs the golden, and returns the statuses of the objects that it names.
func (g golden) build(t *testing.T) (translate.Result, []translate.Status) {
	t.Helper()
	in, shown := g.input(t)
	if before := g.file("before.yaml"); before != "" {
		first := in
		first.Objects, _ = objectsOf(t, before, g.file("before-unchecked.yaml"))
		first.Answers = nil
		in.LastGood = translate.Build(first).LastGood
	}
	result := translate.Build(in)
	statuses := result.Statuses(g.facts(t, result))
	statuses = slices.DeleteFunc(statuses, func(s translate.Status) bool { return !shown[s.Kind+" "+s.Name.String()] })
	return result, statuses
}

func (g golden) input(t *testing.T) (translate.Input, map[string]bool) {
	t.Helper()
	in := translate.Input{Kinds: kinds, FilterOrder: filterOrder}
	var shown map[string]bool
	in.Objects, shown = objectsOf(t, g.file("objects.yaml"), g.file("unchecked.yaml"))
	for words := range lines(g.file("answers")) {
		if in.Answers == nil {
			in.Answers = translate.Answers{}
		}
		answer, ok := map[string]translate.Answer{
			"found": translate.Found, "absent": translate.Absent, "pending": translate.Pending, "forbidden": translate.Forbidden,
		}[words[2]]
		if !ok {
			t.Fatalf("answer %q", words)
		}
		named, selector, _ := strings.Cut(words[1], "?")
		in.Answers[translate.Ref{Kind: words[0], Name: name(named), Selector: strings.ReplaceAll(selector, "+", " ")}] = answer
	}
	for words := range lines(g.file("facts")) {
		if words[0] != "pods" {
			continue
		}
		if in.PodPorts == nil {
			in.PodPorts = map[translate.PodPort]uint16{}
		}
		for _, o := range in.Objects.Gateways {
			if len(words) == 4 && o.Namespace+"/"+o.Name == words[1] {
				in.PodPorts[translate.PodPort{Gateway: o.UID, Port: number(t, words[2])}] = number(t, words[3])
			}
		}
	}
	return in, shown
}

func (g golden) facts(t *testing.T, r translate.Result) translate.Facts {
	t.Helper()
	f := translate.AllBound(r.Snapshot)
	for words := range lines(g.file("facts")) {
		rest := strings.Join(words[min(2, len(words)):], " ")
		switch words[0] {
		case "pods":
		case "idle":
			f = translate.Facts{}
		case "bind":
			for key := range f.Binds {
				if key.Bind() == words[1] {
					f.Binds[key] = errors.New(rest)
				}
			}
		case "crd":
			if f.CRDs == nil {
				f.CRDs = map[string]string{}
			}
			f.CRDs[words[1]] = rest
		case "address":
			if f.Addresses == nil {
				f.Addresses = map[snapshot.Name][]gwv1.GatewayStatusAddress{}
			}
			var all []gwv1.GatewayStatusAddress
			for _, a := range words[2:] {
				all = append(all, gwv1.GatewayStatusAddress{Value: a})
			}
			f.Addresses[name(words[1])] = all
		case "unprovided":
			f.Unprovided = map[snapshot.Name]string{name(words[1]): rest}
		case "unusable":
			f.Unusable = map[snapshot.Name]string{name(words[1]): rest}
		case "remark":
			f.Remarks = map[snapshot.Name]string{name(words[1]): rest}
		case "endpoint":
			service, port, _ := strings.Cut(words[1], ":")
			f.RefusedEndpoints = map[snapshot.BackendRef][]string{{Service: name(service), Port: number(t, port)}: {rest}}
		default:
			t.Fatalf("fact %q", words)
		}
	}
	return f
}

func lines(text string) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		for line := range strings.Lines(text) {
			if words := strings.Fields(line); len(words) > 0 && !yield(words) {
				return
			}
		}
	}
}

func name(text string) snapshot.Name {
	namespace, n, _ := strings.Cut(text, "/")
	return snapshot.Name{Namespace: namespace, Name: n}
}

func number(t *testing.T, text string) uint16 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(n)
}

// objectsOf reads objects, and tells which of them were written rather than put around them.
func objectsOf(t *testing.T, checked, unchecked string) (translate.Objects, map[string]bool) {
	t.Helper()
	var all []policy.Object
	has := map[string]bool{}
	shown := map[string]bool{}
	add := func(o policy.Object) {
		kind := cmp.Or(o.GetObjectKind().GroupVersionKind().Kind, fmt.Sprintf("%T", o))
		has[kind] = true
		shown[kind+" "+o.GetNamespace()+"/"+o.GetName()] = true
		all = append(all, o)
	}
	for _, o := range load(t, checked) {
		add(o)
	}
	for _, o := range decode(t, unchecked) {
		add(o)
	}
	for _, o := range load(t, around) {
		if kind := o.GetObjectKind().GroupVersionKind().Kind; !has[kind] {
			all = append(all, o)
		}
	}
	var objects translate.Objects
	seen := map[string]bool{}
	for _, o := range all {
		kind := o.GetObjectKind().GroupVersionKind().Kind
		if id := kind + o.GetNamespace() + "/" + o.GetName(); !seen[id] { // Namespaces are implied by several
			seen[id] = true
			objects.Add(o)
		}
	}
	return objects, shown
}

// load reads YAML as the API server would: strictly, with defaults.
func load(t *testing.T, text string) []source.Object {
	t.Helper()
	if text == "" {
		return nil
	}
	path := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(path, []byte(withCertificates(t, text)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := source.NewLoader([]string{path}).Load()
	for _, p := range r.Problems {
		t.Fatalf("objects.yaml: %s", p)
	}
	return r.Objects
}

// decode reads YAML as it stands.
func decode(t *testing.T, text string) []policy.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{gwv1.Install, gwv1beta1.Install, corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme).UniversalDeserializer()
	var out []policy.Object
	for _, part := range strings.Split(text, "\n---\n") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		o, _, err := decoder.Decode([]byte(part), nil, nil)
		if err != nil {
			t.Fatalf("unchecked.yaml: %v", err)
		}
		object := o.(policy.Object)
		object.SetGeneration(1)
		out = append(out, object)
	}
	return out
}
