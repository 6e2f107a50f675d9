package contracts

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is where the module begins, seen from here.
const root = "../../"

// row is a line of the table in the package comment.
type row struct {
	contract string // "01", "Cluster13"
	where    string // a package's folder, "scenario", "golden", or "" with a reason
	names    []string
	reason   string // why there is nothing to test yet
}

// needed are the numbers that the table must have.
func needed() (all []string) {
	for i := 1; i <= 24; i++ {
		all = append(all, fmt.Sprintf("%02d", i))
	}
	for i := 1; i <= 23; i++ {
		all = append(all, fmt.Sprintf("Cluster%02d", i))
	}
	return all
}

var contract = regexp.MustCompile(`^\t(\d\d|Cluster\d\d)\s+(.*)$`)

func table(t *testing.T) (rows []row) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(f.Doc.Text(), "\n") {
		m := contract.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		r := row{contract: m[1]}
		if reason, ok := strings.CutPrefix(m[2], "not built: "); ok {
			r.reason = reason
		} else {
			words := strings.Fields(m[2])
			r.where, r.names = words[0], words[1:]
		}
		rows = append(rows, r)
	}
	return rows
}

var numbered = regexp.MustCompile(`^Test(Contract|Cluster)\d\d_`)

var tests = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)

// testsIn are the tests of a package, without those that are not kept yet.
func testsIn(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(root + dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, f := range files {
		if filepath.Base(f) == "open_test.go" {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range tests.FindAllSubmatch(text, -1) {
			all[string(m[1])] = true
		}
	}
	return all
}

// The table in the package comment names tests that are there, and leaves no contract out.
func TestTheTableIsTrueAndComplete(t *testing.T) {
	own, listed := testsIn(t, "test/contracts"), map[string]bool{}
	has := map[string]bool{}
	for _, r := range table(t) {
		has[r.contract] = true
		switch {
		case r.reason != "":
			if len(r.reason) < 10 {
				t.Errorf("%s: %q is no reason", r.contract, r.reason)
			}
		case len(r.names) == 0:
			t.Errorf("%s: %s without a test", r.contract, r.where)
		case r.where == "scenario" || r.where == "golden":
			dir := map[string]string{"scenario": "test/scenarios/testdata/", "golden": "controllers/translate/testdata/"}[r.where]
			for _, n := range r.names {
				if _, err := os.Stat(root + dir + n + ".txtar"); err != nil {
					t.Errorf("%s: %v", r.contract, err)
				}
			}
		default:
			there := testsIn(t, r.where)
			for _, n := range r.names {
				if !there[n] {
					t.Errorf("%s: %s has no test %s", r.contract, r.where, n)
				}
				if r.where == "test/contracts" {
					listed[n] = true
				}
			}
		}
	}
	for _, n := range needed() {
		if !has[n] {
			t.Errorf("contract %s has neither a test nor a reason", n)
		}
	}
	for n := range own {
		if numbered.MatchString(n) && !listed[n] {
			t.Errorf("the table does not have %s", n)
		}
	}
}
