// Package layout holds the house's walls: which package may import which, as a table. It parses the files itself (a test that shells
// out to go list is cached, and passes on code it never saw).
package layout

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gatehouse-dev/gatehouse/"

// may says what of ours each room may import, besides itself. A trailing /... stands for all below. The most specific row counts.
// Only direct imports of non-test files are looked at; tests may import more, but never across the two houses (see crossing).
var may = map[string][]string{
	"api/v1alpha1":                 {},
	"cmd/gatehouse":                {"api/...", "controllers/...", "dataplane", "dataplane/store", "dataplane/wire/...", "dataplane/snapshot", "dataplane/message", "dataplane/telemetry", "dataplane/admin"},
	"controllers":                  {"api/...", "controllers/...", "dataplane/snapshot"},
	"controllers/translate":        {"api/...", "controllers/policy", "dataplane/snapshot", "dataplane/filter/*", "dataplane/filter/auth/*", "dataplane/message"}, // message: the one normalisation of paths
	"controllers/policy":           {"api/...", "dataplane/snapshot"},
	"controllers/policy/*":         {"api/...", "controllers/policy", "dataplane/snapshot", "dataplane/expr", "dataplane/message", "dataplane/filter/*", "dataplane/filter/auth/*"}, // message: names of headers, hosts, paths
	"controllers/endpoints":        {"dataplane/snapshot"},
	"controllers/source":           {"api/...", "controllers/translate"},
	"controllers/status":           {"api/...", "controllers/translate", "dataplane/snapshot"},
	"controllers/infra":            {"api/...", "controllers/translate", "controllers/members", "dataplane/snapshot"},
	"controllers/members":          {},
	"controllers/watch":            {},
	"controllers/lease":            {},
	"controllers/keys":             {"controllers/watch"},
	"dataplane":                    {"dataplane/..."},
	"dataplane/snapshot":           {},
	"dataplane/message":            {},
	"dataplane/expr":               {"dataplane/message"},
	"dataplane/keep":               {},
	"dataplane/racetest":           {},
	"dataplane/keyring":            {},
	"dataplane/store":              {},
	"dataplane/store/storetest":    {},
	"dataplane/filter":             {"dataplane/message", "dataplane/snapshot", "dataplane/keep", "dataplane/expr", "dataplane/store"},
	"dataplane/filter/*":           {"dataplane/filter", "dataplane/message", "dataplane/snapshot", "dataplane/expr", "dataplane/keep", "dataplane/outbound", "dataplane/store"},
	"dataplane/filter/auth":        {"dataplane/filter", "dataplane/message", "dataplane/snapshot", "dataplane/expr", "dataplane/keep", "dataplane/filter/auth/*"},
	"dataplane/filter/auth/*":      {"dataplane/filter", "dataplane/filter/auth/method", "dataplane/message", "dataplane/snapshot", "dataplane/expr", "dataplane/keep", "dataplane/outbound"},
	"dataplane/filter/auth/method": {"dataplane/message"},
	"dataplane/outbound":           {"dataplane/filter", "dataplane/message"},
	"dataplane/router":             {"dataplane/message"},
	"dataplane/balance":            {},
	"dataplane/upstream":           {"dataplane/balance", "dataplane/message", "dataplane/snapshot", "dataplane/keep", "dataplane/telemetry"},
	"dataplane/proxy":              {"dataplane/filter", "dataplane/message", "dataplane/router", "dataplane/snapshot", "dataplane/balance", "dataplane/upstream", "dataplane/outbound", "dataplane/stream", "dataplane/keep", "dataplane/telemetry"},
	"dataplane/listen":             {"dataplane/message", "dataplane/stream", "dataplane/snapshot", "dataplane/keep", "dataplane/keyring", "dataplane/telemetry"},
	"dataplane/admin":              {"dataplane/message", "dataplane/telemetry", "dataplane/admin"},
	"dataplane/wire/*":             {"dataplane/message"},
	"dataplane/telemetry":          {"dataplane/message"},
	"hack/...":                     {},
}

// never says which other modules a part of the tree keeps out, and why.
var never = []struct{ tree, path, why string }{
	{"dataplane", "k8s.io/", "the data plane knows no Kubernetes: it could be lifted out and sold alone"},
	{"dataplane", "sigs.k8s.io/", "the data plane knows no Kubernetes"},
	{"controllers/translate", "k8s.io/client-go", "Build is pure"},
	{"controllers/translate", "sigs.k8s.io/controller-runtime", "Build is pure"},
	{"controllers/translate", "net/http", "Build is pure"},
	{"controllers/translate", "net", "Build is pure"},
	{"controllers/translate", "time.Now", "Build reads no clock"},
	{"dataplane/filter", "net/http", "filters see message, whatever the wire; libraries that want a client get one from outbound"},
	{"dataplane/proxy", "net/http", "proxy does not know the wire"},
	{"dataplane/router", "net/http", "the router sees message"},
	{"dataplane/message", "net/http", "message is neutral"},
	{"dataplane/snapshot", "net/http", "a snapshot is data"},
}

// forbiddenNames are cupboards.
var forbiddenNames = []string{"util", "utils", "common", "core", "server", "manager", "helpers", "misc"}

type file struct {
	path, pkg string // relative to the root
	test      bool
	imports   []string
	now       bool // calls time.Now
	doc       bool
	init      bool
}

func TestEachRoomImportsOnlyWhatItMay(t *testing.T) {
	for _, f := range files(t) {
		if f.test {
			continue
		}
		allowed := rowFor(f.pkg)
		if allowed == nil && strings.HasPrefix(f.pkg, "test") {
			continue
		}
		if allowed == nil {
			t.Errorf("%s: package %s has no row in the table; add one, or find the room that it belongs to", f.path, f.pkg)
			continue
		}
		for _, imp := range f.imports {
			own, isOurs := strings.CutPrefix(imp, module)
			if isOurs && own != f.pkg && !slices.ContainsFunc(allowed, func(p string) bool { return matches(p, own) }) {
				t.Errorf("%s imports %s, which %s may not", f.path, own, f.pkg)
			}
		}
	}
}

func TestWallsAgainstOtherModulesStand(t *testing.T) {
	for _, f := range files(t) {
		for _, n := range never {
			if f.test || f.pkg != n.tree && !strings.HasPrefix(f.pkg, n.tree+"/") {
				continue
			}
			if n.path == "time.Now" && f.now {
				t.Errorf("%s calls time.Now: %s", f.path, n.why)
			}
			for _, imp := range f.imports {
				if imp == n.path || strings.HasSuffix(n.path, "/") && strings.HasPrefix(imp, n.path) || strings.HasPrefix(imp, n.path+"/") && n.path != "net" {
					t.Errorf("%s imports %s: %s", f.path, imp, n.why)
				}
			}
		}
	}
}

// Tests of one house do not reach into the other: only test/ and cmd/ know both.
func TestTestsStayInTheirHouse(t *testing.T) {
	for _, f := range files(t) {
		if !f.test {
			continue
		}
		for _, imp := range f.imports {
			if strings.HasPrefix(f.pkg, "dataplane") && (strings.HasPrefix(imp, module+"controllers") || strings.HasPrefix(imp, "k8s.io/")) {
				t.Errorf("%s imports %s: the data plane's tests know no Kubernetes", f.path, imp)
			}
			if strings.HasPrefix(f.pkg, "controllers/translate") && strings.HasPrefix(imp, module+"dataplane/proxy") {
				t.Errorf("%s imports %s", f.path, imp)
			}
		}
	}
}

func TestNoPackageIsACupboardAndEachHasAComment(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range files(t) {
		if slices.Contains(forbiddenNames, filepath.Base(f.pkg)) {
			t.Errorf("package %s: say what it is for", f.pkg)
		}
		if f.init && !f.test && !strings.Contains(f.path, "zz_generated") {
			t.Errorf("%s has an init function: registration is by explicit lists", f.path)
		}
		if !f.test || strings.HasPrefix(f.pkg, "test") {
			documented[f.pkg] = documented[f.pkg] || f.doc
		}
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

// A row of the table that no package uses is a map of a house that is not this one.
func TestEachRowOfTheTableNamesARoom(t *testing.T) {
	for row := range may {
		found := slices.ContainsFunc(files(t), func(f file) bool { return matches(row, f.pkg) })
		if !found {
			t.Errorf("the table has a row %s, and there is no such package", row)
		}
	}
}

func rowFor(pkg string) []string {
	best := ""
	for row := range may {
		if matches(row, pkg) && len(row) > len(best) && (best != pkg) {
			best = row
		}
		if row == pkg {
			best = row
		}
	}
	if best == "" {
		return nil
	}
	return may[best]
}

// matches: "a/..." is a and all below, "a/*" one level below.
func matches(pattern, pkg string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == tree || strings.HasPrefix(pkg, tree+"/")
	}
	if tree, ok := strings.CutSuffix(pattern, "/*"); ok {
		rest, below := strings.CutPrefix(pkg, tree+"/")
		return below && !strings.Contains(rest, "/")
	}
	return pattern == pkg
}

func files(t *testing.T) (out []file) {
	t.Helper()
	root := "../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if name := d.Name(); rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || nested(path, rel)) {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(path, ".go") {
			out = append(out, parse(t, path, filepath.ToSlash(rel)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// nested reports whether a folder is a module of its own.
func nested(path, rel string) bool {
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil && rel != "."
}

func parse(t *testing.T, path, rel string) file {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	f := file{path: rel, pkg: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"), doc: tree.Doc != nil}
	for _, i := range tree.Imports {
		f.imports = append(f.imports, strings.Trim(i.Path.Value, `"`))
	}
	f.now = strings.Contains(string(text), "time.Now(")
	f.init = strings.Contains(string(text), "\nfunc init()")
	return f
}
