package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
)

// load reads a text as if it were a file.
func load(t *testing.T, text string) Result {
	t.Helper()
	return NewLoader([]string{write(t, t.TempDir(), "a.yaml", text)}).Load()
}

func write(t *testing.T, folder, name, text string) string {
	t.Helper()
	file := filepath.Join(folder, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// get returns the object of a type and name.
func get[T Object](t *testing.T, result Result, name string) T {
	t.Helper()
	for _, obj := range result.Objects {
		if o, ok := obj.(T); ok && o.GetName() == name {
			return o
		}
	}
	var none T
	t.Fatalf("no %T %s; problems: %v", none, name, result.Problems)
	return none
}

func names(result Result) (list []string) {
	for _, obj := range result.Objects {
		list = append(list, identityOf(obj).String())
	}
	return list
}

func messages(result Result) (list []string) {
	for _, p := range result.Problems {
		p.File = filepath.Base(p.File)
		list = append(list, p.String())
	}
	return list
}

func configMap(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {key: \"" + value + "\"}\n---\n"
}

func TestDefaultsAreThoseOfTheCRDs(t *testing.T) {
	result := NewLoader([]string{"testdata/valid"}).Load()

	rule := get[*gwv1.HTTPRoute](t, result, "shop").Spec.Rules[1]
	if w := rule.BackendRefs[0].Weight; w == nil || *w != 9 {
		t.Errorf("a weight that is written: %v", w)
	}
	if w := rule.BackendRefs[1].Weight; w == nil || *w != 1 {
		t.Errorf("a weight that is not written: %v", w)
	}
	if m := rule.Matches; len(m) != 1 || *m[0].Path.Value != "/" || *m[0].Path.Type != gwv1.PathMatchPathPrefix {
		t.Errorf("matches that are not written: %v", m)
	}
	listener := get[*gwv1.Gateway](t, result, "public").Spec.Listeners[0]
	if from := listener.AllowedRoutes.Namespaces.From; *from != gwv1.NamespacesFromSame {
		t.Errorf("routes are allowed from %s", *from)
	}
	policy := get[*v1alpha1.RateLimitPolicy](t, result, "api-limits")
	if policy.Spec.Mode != v1alpha1.RateLimitModeEnforce {
		t.Errorf("mode %q", policy.Spec.Mode)
	}
	service := get[*corev1.Service](t, result, "cart")
	if p := service.Spec.Ports[0]; p.Protocol != corev1.ProtocolTCP || p.TargetPort.IntVal != 80 {
		t.Errorf("port %v", p)
	}
	if p := service.Spec.Ports[1]; p.TargetPort.StrVal != "grpc" {
		t.Errorf("port %v", p)
	}
	slice := get[*discoveryv1.EndpointSlice](t, result, "cart-2")
	if p := slice.Ports[0]; *p.Name != "" || *p.Protocol != corev1.ProtocolTCP || p.Port != nil {
		t.Errorf("port %v", p)
	}
	secret := get[*corev1.Secret](t, result, "example-com")
	if string(secret.Data["tls.crt"]) != "none" || string(secret.Data["tls.key"]) != "none" || secret.StringData != nil {
		t.Errorf("secret %v", secret.Data)
	}
	if s := get[*corev1.Secret](t, result, "plain"); s.Type != corev1.SecretTypeOpaque {
		t.Errorf("secret of type %q", s.Type)
	}
	if ns := get[*corev1.Namespace](t, result, "shop"); ns.Labels["kubernetes.io/metadata.name"] != "shop" || ns.Labels["team"] != "shop" {
		t.Errorf("labels %v", ns.Labels)
	}
	if c := get[*corev1.ConfigMap](t, result, "merged"); c.Labels["a"] != "b" || c.Labels["c"] != "d" {
		t.Errorf("labels %v", c.Labels)
	}
}

func TestEveryObjectHasTheVersionThatItsTypeHas(t *testing.T) {
	result := NewLoader([]string{"testdata/valid"}).Load()
	for _, obj := range result.Objects {
		gvk := obj.GetObjectKind().GroupVersionKind()
		if gvk.Version != "v1" && gvk.Group != v1alpha1.GroupName {
			t.Errorf("%v has %v", identityOf(obj), gvk)
		}
	}
}

func TestAnImpliedNamespaceHasTheLabelThatKubernetesGivesIt(t *testing.T) {
	result := NewLoader([]string{"testdata/valid"}).Load()
	ns := get[*corev1.Namespace](t, result, "web")
	if ns.Labels[corev1.LabelMetadataName] != "web" || ns.UID == "" || ns.Generation == 0 {
		t.Errorf("implied: %v", ns)
	}
	if file, _ := result.Origin("Namespace", "", "web"); file == "" {
		t.Error("it has no origin")
	}
}

func TestIdentityIsAFunctionOfNameAndContent(t *testing.T) {
	a := get[*corev1.ConfigMap](t, load(t, configMap("a", "1")), "a")
	same := get[*corev1.ConfigMap](t, load(t, "# moved\n\n"+configMap("b", "1")+configMap("a", "1")), "a")
	other := get[*corev1.ConfigMap](t, load(t, configMap("a", "2")), "a")
	if a.UID != same.UID || a.Generation != same.Generation {
		t.Errorf("the same object elsewhere: %s %d, %s %d", a.UID, a.Generation, same.UID, same.Generation)
	}
	if a.UID != other.UID || a.Generation == other.Generation {
		t.Errorf("another content: %s %d, %s %d", a.UID, a.Generation, other.UID, other.Generation)
	}
	if a.Generation <= 0 {
		t.Errorf("generation %d", a.Generation)
	}
	if b := get[*corev1.ConfigMap](t, load(t, configMap("b", "1")), "b"); b.UID == a.UID {
		t.Error("two names, one UID")
	}
}

func TestStatusAndWhatOnlyTheServerSetsAreDropped(t *testing.T) {
	const plain = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\n"
	const exported = plain + `  uid: 1-2-3
  resourceVersion: "7"
  generation: 9
  creationTimestamp: "2020-01-01T00:00:00Z"
  managedFields: [{manager: kubectl}]
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
spec: {}
status:
  parents: []
`
	a := get[*gwv1.HTTPRoute](t, load(t, plain+"  annotations: {}\nspec: {}\n"), "a")
	b := get[*gwv1.HTTPRoute](t, load(t, exported), "a")
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("an exported object differs from the one that was applied:\n%s", diff)
	}
}

func TestTheOldestIsTheFirstInTheFiles(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "b.yaml", configMap("b1", "x")+configMap("b2", "x"))
	write(t, folder, "c.yml", configMap("c", "x"))
	write(t, folder, "a.txt", configMap("no", "x"))
	write(t, folder, ".hidden.yaml", configMap("no", "x"))
	if err := os.MkdirAll(filepath.Join(folder, "a/deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, folder, "a/deep/z.yaml", configMap("a", "x"))
	first := write(t, t.TempDir(), "z.json", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "first"}}`)

	result := NewLoader([]string{first, folder, first, folder + "/b.yaml"}).Load()
	want := []string{"first", "a", "b1", "b2", "c"}
	for i, name := range want {
		if got := result.Objects[i].GetName(); got != name {
			t.Fatalf("order %v, want %v", names(result), want)
		}
		if i > 0 && !result.Objects[i-1].GetCreationTimestamp().Time.Before(result.Objects[i].GetCreationTimestamp().Time) {
			t.Errorf("%s is not younger than %s", name, want[i-1])
		}
	}
	if len(result.Problems) > 0 || len(result.Objects) != len(want)+1 { // and the namespace
		t.Errorf("objects %v, problems %v", names(result), result.Problems)
	}
	if age := result.Objects[0].GetCreationTimestamp(); !age.Time.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("the first was made at %v", age)
	}
}

func TestOfTwoObjectsWithOneNameTheFirstIsUsedAndBothPlacesAreNamed(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "a.yaml", "\n"+configMap("a", "first"))
	write(t, folder, "b.yaml", configMap("b", "x")+configMap("a", "second"))
	result := NewLoader([]string{folder}).Load()
	if got := get[*corev1.ConfigMap](t, result, "a").Data["key"]; got != "first" {
		t.Errorf("the %s is used", got)
	}
	want := []string{"b.yaml:6: ConfigMap default/a: is already in " + folder + "/a.yaml:2; the first one is used"}
	if diff := cmp.Diff(want, messages(result)); diff != "" {
		t.Error(diff)
	}
}

func TestAFieldPathLeadsToItsLine(t *testing.T) {
	result := load(t, `---
# a comment
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: a
  annotations:
    example.com/owner: me
spec:
  rules:
  - name: one
    backendRefs: &refs
    - name: x
      port: 80
    - {name: z, port: 80}
  - backendRefs: *refs
    name: two
`)
	route := get[*gwv1.HTTPRoute](t, result, "a")
	for path, want := range map[string]int{
		"":              3,
		"metadata.name": 6,
		"metadata.annotations[example.com/owner]": 8,
		"metadata.annotations.example.com/owner":  8,
		"spec":                                    9,
		"spec.rules":                              10,
		"spec.rules[0]":                           11,
		"spec.rules[0].name":                      11,
		"spec.rules[0].backendRefs[0].port":       14,
		"spec.rules[0].backendRefs[1].port":       15,
		"spec.rules[1].name":                      17,
		"spec.rules[1].backendRefs":               16,
		"spec.rules[1].backendRefs[0].port":       14, // where the anchor stands
		"spec.rules[0].backendRefs[0].weight":     13, // a default has no line of its own
		"spec.rules[7].name":                      10,
		"spec.rules[x].name":                      10,
		"nonsense":                                3,
	} {
		if _, line := result.Where(route, path); line != want {
			t.Errorf("%s is in line %d, want %d", path, line, want)
		}
	}
	if file, line := result.Origin("HTTPRoute", "default", "a"); filepath.Base(file) != "a.yaml" || line != 3 {
		t.Errorf("origin %s:%d", file, line)
	}
	if file, line := result.Origin("HTTPRoute", "default", "b"); file != "" || line != 0 {
		t.Errorf("origin of nothing: %s:%d", file, line)
	}
}

func TestProblemsAreSaidAsInTheStyleGuide(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{
			"an unknown field and its neighbour",
			"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n  rules:\n  - backendref: []\n",
			`a.yaml:6: HTTPRoute default/a: spec.rules[0].backendref: unknown field; did you mean "backendRefs"?`,
		},
		{
			"nothing is like it",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nspecification: {}\n",
			`a.yaml:4: ConfigMap default/a: specification: unknown field`,
		},
		{
			"a word that YAML does not read as text",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {debug: on}\n",
			`a.yaml:4: ConfigMap default/a: data[debug]: must be a string, not a boolean; YAML does not read on as text unless it is quoted`,
		},
		{
			"a kind of Kubernetes that is none of ours",
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
			`a.yaml:2: warning: Deployment a: kind: Deployment of apps/v1 is nothing that Gatehouse reads: ignored`,
		},
		{
			"a name with a line break",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"a\\nb\"}\n",
			`a.yaml:3: ConfigMap default/a b: metadata.name: Invalid value: "a\nb"`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			result := load(t, c.text)
			if len(result.Problems) != 1 || !strings.HasPrefix(messages(result)[0], c.want) {
				t.Errorf("said %q\nwant %q", messages(result), c.want)
			}
		})
	}
}

func TestAWarningIsNoFailure(t *testing.T) {
	result := load(t, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n"+configMap("a", "x"))
	if result.Failed() || len(result.Problems) != 1 {
		t.Errorf("problems %v", result.Problems)
	}
	get[*corev1.ConfigMap](t, result, "a")
}

func TestASecretsValueIsNeverShown(t *testing.T) {
	for _, data := range []string{"data: {a: hunter2!}", "data: {a: [hunter2]}", "data: hunter2", "stringData: {a: {hunter2: x}, b: 1}", "type: kubernetes.io/tls\nstringData: {a b: hunter2}"} {
		result := load(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"+data+"\n")
		if !result.Failed() {
			t.Errorf("%s is not refused", data)
		}
		for _, p := range result.Problems {
			if strings.Contains(p.Message, "hunter2") {
				t.Errorf("%s: %s", data, p)
			}
		}
	}
}

func TestLoopbackEndpointsAreAllowedInFiles(t *testing.T) {
	result := load(t, "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints: [{addresses: [127.0.0.1]}]\n")
	get[*discoveryv1.EndpointSlice](t, result, "a")
}

func TestTheEmbeddedSchemasAreThoseOfTheKinds(t *testing.T) {
	files, err := schemaFiles.ReadDir("schemas")
	if err != nil {
		t.Fatal(err)
	}
	custom := 0
	for _, k := range kinds {
		c, ok := k.admit.(customKind)
		if !ok {
			continue
		}
		custom++
		for _, version := range c.versions() {
			if s := c.of(version); s.structure == nil {
				t.Errorf("%s %s has no structure", k.name, version)
			}
		}
	}
	if custom != len(files) {
		t.Errorf("%d kinds and %d schemas", custom, len(files))
	}
}

func TestTheSamplesOfTheProjectHaveNoProblems(t *testing.T) {
	result := NewLoader([]string{"../../config/samples"}).Load()
	for _, p := range result.Problems {
		t.Error(p)
	}
	if len(result.Objects) == 0 {
		t.Error("there are no objects in them")
	}
}

func TestDocumentsAreCutWhereYAMLCutsThem(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []part
	}{
		{"none", "", []part{{0, []byte{}}}},
		{"one", "a: b\n", []part{{0, []byte("a: b\n")}}},
		{"two", "a: b\n---\nc: d", []part{{0, []byte("a: b\n")}, {1, []byte("---\nc: d")}}},
		{"content behind the dashes", "--- a\n--- b\n", []part{{0, []byte{}}, {0, []byte("--- a\n")}, {1, []byte("--- b\n")}}},
		{"carriage returns", "a: b\r\n---\r\nc: d\r\n", []part{{0, []byte("a: b\r\n")}, {1, []byte("---\r\nc: d\r\n")}}},
		{"no marker", "a: |\n  ---\nb: ----\n---x\n", []part{{0, []byte("a: |\n  ---\nb: ----\n---x\n")}}},
		{"dots", "a: b\n...\nc: d\n", []part{{0, []byte("a: b\n")}, {2, []byte("c: d\n")}}},
		{"byte order mark", "\xef\xbb\xbfa: b", []part{{0, []byte("a: b")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, splitDocuments([]byte(c.text)), cmp.AllowUnexported(part{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzNoFilePanics(f *testing.F) {
	for _, pattern := range []string{"testdata/valid/*.yaml", "testdata/invalid/*.yaml", "testdata/unread/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: &a [*a]\n"))
	f.Add([]byte("a: &a {<<: *a}\napiVersion: v1\nkind: ConfigMap\nmetadata: *a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		v := readVersion("a.yaml", text, nil)
		lines := 1 // as YAML counts them
		for _, lineBreak := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
			lines += strings.Count(string(text), lineBreak)
		}
		for _, p := range v.problems {
			if p.Line < 1 || p.Line > lines {
				t.Errorf("line %d of %d: %s", p.Line, lines, p)
			}
		}
		for _, item := range v.items {
			if item.object.GetName() == "" || item.object.GetUID() == "" || item.object.GetGeneration() <= 0 {
				t.Errorf("an object without identity: %v", item.object)
			}
		}
	})
}
