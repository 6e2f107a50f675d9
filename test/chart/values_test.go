// Package chart holds no code but tests of charts/gatehouse. Those in this file read files alone; the others run a real helm and a real
// API server (`make chart-test`: build tag chart).
//
// What is made from something else in the tree (the table in the chart's README, its copies of our CRDs, config/rbac and config/default)
// is rewritten by `hack/chart.sh`, that is, by these tests with -update.
package chart

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite what is generated")

const (
	root      = "../.."
	chartPath = root + "/charts/gatehouse"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// same holds a file to what it is made from, and makes it with -update.
func same(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), string(read(t, path))); diff != "" {
		t.Errorf("%s is not what it ought to be; run hack/chart.sh and read the diff (-want +have):\n%s", path, diff)
	}
}

// value is one row of the README's table: a key of values.yaml with its comment.
type value struct{ key, fallback, means string }

// values are the keys of values.yaml that have a comment "# --". A mapping without one holds more keys.
func values(t *testing.T) []value {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(read(t, chartPath+"/values.yaml"), &doc); err != nil {
		t.Fatal(err)
	}
	var rows []value
	var walk func(prefix string, m *yaml.Node)
	walk = func(prefix string, m *yaml.Node) {
		for i := 0; i+1 < len(m.Content); i += 2 {
			key, v := m.Content[i], m.Content[i+1]
			name := prefix + key.Value
			if means, ok := comment(key.HeadComment); ok {
				rows = append(rows, value{name, inline(t, v), means})
				continue
			}
			if v.Kind != yaml.MappingNode || len(v.Content) == 0 {
				t.Errorf("values.yaml:%d: %s has no comment that begins with \"# --\"", key.Line, name)
				continue
			}
			walk(name+".", v)
		}
	}
	walk("", doc.Content[0])
	return rows
}

func comment(head string) (string, bool) {
	for line := range strings.SplitSeq(head, "\n") {
		if means, ok := strings.CutPrefix(line, "# -- "); ok {
			return means, true
		}
	}
	return "", false
}

// inline is a value as JSON, which YAML contains.
func inline(t *testing.T, n *yaml.Node) string {
	t.Helper()
	var v any
	if err := n.Decode(&v); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

func TestTheReadmesTableIsValuesYAML(t *testing.T) {
	const begin, end = "<!-- values: begin -->\n", "<!-- values: end -->\n"
	var table strings.Builder
	table.WriteString("| value | default | what it is |\n|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`)
	for _, v := range values(t) {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", v.key, cell.Replace(v.fallback), cell.Replace(v.means))
	}
	path := chartPath + "/README.md"
	before, rest, ok := strings.Cut(string(read(t, path)), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table: %q … %q", path, begin, end)
	}
	same(t, path, []byte(before+begin+table.String()+end+after))
}

// schema is what we use of a JSON schema.
type schema struct {
	Ref        string            `json:"$ref"`
	Type       any               `json:"type"`
	Properties map[string]schema `json:"properties"`
	Additional any               `json:"additionalProperties"`
	Items      *schema           `json:"items"`
	OneOf      []schema          `json:"oneOf"`
	AnyOf      []schema          `json:"anyOf"`
	Defs       map[string]schema `json:"$defs"`
}

func valuesSchema(t *testing.T) schema {
	t.Helper()
	var s schema
	if err := json.Unmarshal(read(t, chartPath+"/values.schema.json"), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheSchemaIsClosedEverywhere(t *testing.T) {
	var walk func(path string, s schema)
	walk = func(path string, s schema) {
		if s.Properties != nil && s.Additional != false {
			t.Errorf("%s lets unknown keys through", path)
		}
		for name, p := range s.Properties {
			walk(path+"."+name, p)
		}
		if s.Items != nil {
			walk(path+"[]", *s.Items)
		}
		for _, one := range append(s.OneOf, s.AnyOf...) {
			walk(path, one)
		}
		if s.Properties == nil && s.Type == "object" && path != ".global" {
			t.Errorf("%s is an object without properties; use one of $defs, which say what it is for", path)
		}
	}
	walk("", valuesSchema(t))
}

func TestTheSchemaHasEachValueAndNoOther(t *testing.T) {
	var doc map[string]any
	if err := yaml.Unmarshal(read(t, chartPath+"/values.yaml"), &doc); err != nil {
		t.Fatal(err)
	}
	// What values.yaml doesn't list: helm's own; settings, as their defaults are the process's; shapes that are the user's.
	passed := []string{"global", "settings.", "resources.", "gateway.infrastructure."}
	var walk func(path string, s schema, v map[string]any)
	walk = func(path string, s schema, v map[string]any) {
		for key, inside := range v {
			p, ok := s.Properties[key]
			if !ok && s.Properties != nil {
				t.Errorf("values.yaml has %s%s, which the schema does not know", path, key)
			}
			if m, is := inside.(map[string]any); is && p.Properties != nil {
				walk(path+key+".", p, m)
			}
		}
		for key := range s.Properties {
			name := path + key
			if _, ok := v[key]; !ok && !slices.ContainsFunc(passed, func(p string) bool { return strings.HasPrefix(name, p) }) {
				t.Errorf("the schema has %s, which values.yaml does not list", name)
			}
		}
	}
	walk("", valuesSchema(t), doc)
}

// kebab is a key of values as a flag; helm's kebabcase is held to it in TestEachSettingBecomesItsFlag.
func kebab(camel string) string {
	var b strings.Builder
	for i, r := range camel {
		if unicode.IsUpper(r) {
			after := i > 0 && unicode.IsUpper(rune(camel[i-1]))
			before := i+1 < len(camel) && unicode.IsLower(rune(camel[i+1]))
			if i > 0 && (!after || before) {
				b.WriteByte('-')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

var flagDefinition = regexp.MustCompile(`Var(?:P|F)?\([^"\n]*?, "([a-z0-9-]+)"`)

// flagsIn are the flags that a file of cmd/gatehouse defines.
func flagsIn(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(root + "/cmd/gatehouse/" + pattern)
	if err != nil || len(files) == 0 {
		t.Fatal(pattern, err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range flagDefinition.FindAllSubmatch(read(t, file), -1) {
			seen[string(m[1])] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func TestTheSettingsAreThoseOfTheProcess(t *testing.T) {
	elsewhere := []string{"drain-delay", "drain-timeout"} // values.drain: the grace period is made from them
	var have []string
	for key := range valuesSchema(t).Properties["settings"].Properties {
		have = append(have, kebab(key))
	}
	slices.Sort(have)
	want := slices.DeleteFunc(flagsIn(t, "settings.go"), func(f string) bool { return slices.Contains(elsewhere, f) })
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("-flags of cmd/gatehouse/settings.go +settings of values.schema.json:\n%s", diff)
	}
}

func TestTheChartHasOurCRDs(t *testing.T) {
	ours, _ := filepath.Glob(root + "/config/crd/*.yaml")
	if len(ours) == 0 {
		t.Fatal("where are our CRDs?")
	}
	for _, path := range ours {
		same(t, chartPath+"/files/crds/"+filepath.Base(path), read(t, path))
	}
	copies, _ := filepath.Glob(chartPath + "/files/crds/*")
	for _, path := range copies {
		if _, err := os.Stat(root + "/config/crd/" + filepath.Base(path)); err != nil {
			t.Errorf("%s is a copy of nothing", path)
		}
	}
}

func TestTheChartAsksForTheGatewayAPIThatTheProcessServes(t *testing.T) {
	source := read(t, root+"/controllers/translate/gatewayclass.go")
	list := regexp.MustCompile(`supportedVersions = \[\]string\{([^}]*)\}`).FindSubmatch(source)
	if list == nil {
		t.Fatal("where did supportedVersions go?")
	}
	want := strings.NewReplacer(`"`, "", ",", "").Replace(string(list[1]))
	var c struct {
		Annotations map[string]string `yaml:"annotations"`
	}
	if err := yaml.Unmarshal(read(t, chartPath+"/Chart.yaml"), &c); err != nil {
		t.Fatal(err)
	}
	if have := c.Annotations["gatehouse.dev/gateway-api"]; have != want {
		t.Errorf("Chart.yaml says %q, controllers/translate %q", have, want)
	}
}

// metricNames are the families that the data plane has.
func metricNames(t *testing.T) []string {
	t.Helper()
	var names []string
	add := func(pattern string, find *regexp.Regexp, prefix, suffix string) {
		files, _ := filepath.Glob(root + "/" + pattern)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, m := range find.FindAllSubmatch(read(t, file), -1) {
				names = append(names, prefix+string(m[1])+suffix)
			}
		}
	}
	add("dataplane/telemetry/*.go", regexp.MustCompile(`m\.(?:counters?|gauges?|histograms?)\("([a-z_]+)"`), "gatehouse_", "")
	add("dataplane/telemetry/*.go", regexp.MustCompile(`Name: "(gatehouse_[a-z_]+)"[^+]`), "", "")
	add("dataplane/filter/*/*.go", regexp.MustCompile(`\.Counter\("([a-z_]+?)(?:_total)?"`), "gatehouse_filter_", "_total")
	add("controllers/*.go", regexp.MustCompile(`Name: "(gatehouse_[a-z_]+)"`), "", "")
	add("controllers/*/*.go", regexp.MustCompile(`Name: "(gatehouse_[a-z_]+)"`), "", "")
	slices.Sort(names)
	return slices.Compact(names)
}

func TestTheDashboardAsksForMetricsThatThereAre(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, chartPath+"/files/dashboard.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	known := metricNames(t)
	asked := map[string]bool{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, name := range regexp.MustCompile(`gatehouse_[a-z_]+`).FindAllString(target.Expr, -1) {
				family := strings.TrimSuffix(name, "_bucket")
				asked[family] = true
				if !slices.Contains(known, family) {
					t.Errorf("panel %q asks for %s, which there is not", p.Title, name)
				}
			}
		}
	}
	unseen := []string{
		"gatehouse_access_log_lines_total", "gatehouse_snapshot_sequence", // told better by others
		"gatehouse_void_total", // is never exported
	}
	for _, name := range known {
		if !asked[name] && !slices.Contains(unseen, name) && !strings.HasPrefix(name, "gatehouse_filter_") {
			t.Errorf("no panel shows %s", name)
		}
	}
}
