package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

const broken = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nnonsense: true\n"

func value(t *testing.T, result Result, name string) string {
	t.Helper()
	return get[*corev1.ConfigMap](t, result, name).Data["key"]
}

func TestABrokenFileKeepsItsLastGoodObjects(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "a.yaml", configMap("a", "1")+configMap("b", "1"))
	write(t, folder, "other.yaml", configMap("other", "1"))
	l := NewLoader([]string{folder})
	good := l.Load()

	for name, text := range map[string]string{
		"syntax":     "a: [",
		"validation": configMap("b", "2") + broken,
	} {
		write(t, folder, "a.yaml", text)
		write(t, folder, "other.yaml", configMap("other", name))
		result := l.Load()
		if !result.Failed() {
			t.Errorf("%s: no problem is said", name)
		}
		if value(t, result, "a") != "1" || value(t, result, "b") != "1" {
			t.Errorf("%s: not the last good objects: %v", name, names(result))
		}
		if get[*corev1.ConfigMap](t, result, "a") != get[*corev1.ConfigMap](t, good, "a") {
			t.Errorf("%s: not the same object", name)
		}
		if value(t, result, "other") != name {
			t.Errorf("%s: another file was held back", name)
		}
		if again := l.Load(); len(again.Problems) != len(result.Problems) {
			t.Errorf("%s: the problem is forgotten: %v", name, again.Problems)
		}
	}

	write(t, folder, "a.yaml", configMap("b", "3"))
	result := l.Load()
	if result.Failed() || value(t, result, "b") != "3" || slices.Contains(names(result), "ConfigMap default/a") {
		t.Errorf("after it was mended: %v %v", names(result), result.Problems)
	}
}

func TestAtFirstABrokenFileGivesWhatIsRightInIt(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "a.yaml", configMap("good", "1")+broken)
	l := NewLoader([]string{folder})
	first := l.Load()
	if !first.Failed() || value(t, first, "good") != "1" {
		t.Fatalf("first: %v %v", names(first), first.Problems)
	}
	write(t, folder, "new.yaml", configMap("new", "1")+broken)
	if later := l.Load(); slices.Contains(names(later), "ConfigMap default/new") {
		t.Errorf("a file that came later and was never right: %v", names(later))
	}
}

func TestWhatDidNotChangeIsTheSameObject(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "a.yaml", configMap("a", "1")+configMap("b", "1"))
	write(t, folder, "c.yaml", configMap("c", "1"))
	l := NewLoader([]string{folder})
	before := l.Load()
	write(t, folder, "a.yaml", "# a comment\n"+configMap("a", "1")+configMap("b", "2"))
	after := l.Load()
	for name, same := range map[string]bool{"a": true, "b": false, "c": true} {
		if (get[*corev1.ConfigMap](t, before, name) == get[*corev1.ConfigMap](t, after, name)) != same {
			t.Errorf("%s: same object: %v, want %v", name, !same, same)
		}
	}
	if _, line := after.Origin("ConfigMap", "default", "a"); line != 2 {
		t.Errorf("a moved to line 2, Origin says %d", line)
	}
	if get[*corev1.Namespace](t, before, "default") != get[*corev1.Namespace](t, after, "default") {
		t.Error("the implied namespace is another object")
	}
}

func TestAnObjectThatMovesIsCopiedNotChanged(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, "b.yaml", configMap("b", "1")+configMap("b", "1"))
	l := NewLoader([]string{folder})
	before := get[*corev1.ConfigMap](t, l.Load(), "b")
	age := before.CreationTimestamp
	write(t, folder, "a.yaml", configMap("a", "1")) // is now the first file
	after := get[*corev1.ConfigMap](t, l.Load(), "b")
	if !before.CreationTimestamp.Equal(&age) {
		t.Error("an object that was given away has changed")
	}
	if !age.Before(&after.CreationTimestamp) {
		t.Errorf("it was made at %v, and is now the second: %v", age, after.CreationTimestamp)
	}
}

func TestAFileThatIsDeletedTakesItsObjectsWithIt(t *testing.T) {
	folder := t.TempDir()
	file := write(t, folder, "a.yaml", configMap("a", "1"))
	write(t, folder, "b.yaml", configMap("b", "1"))
	l := NewLoader([]string{folder})
	l.Load()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if result := l.Load(); slices.Contains(names(result), "ConfigMap default/a") || result.Failed() {
		t.Errorf("%v %v", names(result), result.Problems)
	}
}

func TestAPathThatIsGoneKeepsItsObjectsAndIsAProblem(t *testing.T) {
	for _, isFolder := range []bool{false, true} {
		folder := filepath.Join(t.TempDir(), "given")
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		path := write(t, folder, "a.yaml", configMap("a", "1"))
		if isFolder {
			path = folder
		}
		l := NewLoader([]string{path})
		l.Load()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		result := l.Load()
		if value(t, result, "a") != "1" {
			t.Error("its object is gone")
		}
		want := []string{filepath.Base(path) + ": stat: no such file or directory"}
		if diff := cmp.Diff(want, messages(result)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestAPathThatNeverWasIsAProblem(t *testing.T) {
	result := NewLoader([]string{"testdata/none"}).Load()
	want := []string{"none: stat: no such file or directory"}
	if diff := cmp.Diff(want, messages(result)); diff != "" || !result.Failed() {
		t.Error(diff)
	}
}

func TestLinksToFilesAreReadAndLinksToFoldersOnlyWhereGiven(t *testing.T) {
	real, folder := t.TempDir(), t.TempDir()
	write(t, real, "a.yaml", configMap("a", "1"))
	for link, to := range map[string]string{"linked.yaml": filepath.Join(real, "a.yaml"), "folder": real, "broken.yaml": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]int{folder: 1, filepath.Join(folder, "folder"): 1, filepath.Join(folder, "linked.yaml"): 1} {
		result := NewLoader([]string{path}).Load()
		if len(result.Problems) > 0 || len(result.Objects) != want+1 { // and the namespace
			t.Errorf("%s: %v %v", path, names(result), result.Problems)
		}
	}
}

// TestWhatLooksUnfinishedIsBelievedWhenItStands sets the clock by hand.
func TestWhatLooksUnfinishedIsBelievedWhenItStands(t *testing.T) {
	now := time.Unix(0, 0)
	folder := t.TempDir()
	full := configMap("a", "1") + configMap("b", "1")
	file := write(t, folder, "a.yaml", full)
	l := NewLoader([]string{folder})
	l.now = func() time.Time { return now }
	l.Load()
	l.settle = patience

	for name, unfinish := range map[string]func(){
		"emptied":         func() { write(t, folder, "a.yaml", "") },
		"an object less":  func() { write(t, folder, "a.yaml", configMap("a", "a longer one, so that the size is no hint")) },
		"shorter":         func() { write(t, folder, "a.yaml", configMap("a", "1")+configMap("b", "")) },
		"in error":        func() { write(t, folder, "a.yaml", full+broken) },
		"gone":            func() { _ = os.Remove(file) },
		"the folder gone": func() { _ = os.Rename(folder, folder+"-") },
	} {
		unfinish()
		result := l.Load()
		if len(result.Problems) > 0 || value(t, result, "b") != "1" || !l.unsure() {
			t.Errorf("%s: believed at once: %v %v", name, names(result), result.Problems)
		}
		wait := patience
		if name == "emptied" {
			wait = emptyPatience * patience
		}
		now = now.Add(wait - 1)
		if l.Load(); !l.unsure() {
			t.Errorf("%s: believed too early", name)
		}
		now = now.Add(1)
		if _, changed := l.load(); l.unsure() || !changed {
			t.Errorf("%s: not believed after %v", name, wait)
		}

		_ = os.Rename(folder+"-", folder)
		write(t, folder, "a.yaml", full)
		if result := l.Load(); l.unsure() || result.Failed() || value(t, result, "b") != "1" {
			t.Errorf("%s: not well again: %v", name, result.Problems)
		}
	}

	write(t, folder, "a.yaml", configMap("a", "2")+configMap("b", "2"))
	if result := l.Load(); value(t, result, "b") != "2" {
		t.Error("a plain change was held back")
	}
}

func TestAFileThatNeverStandsStillIsBelievedInTheEnd(t *testing.T) {
	now := time.Unix(0, 0)
	folder := t.TempDir()
	write(t, folder, "a.yaml", configMap("a", "first")+configMap("b", "1"))
	l := NewLoader([]string{folder})
	l.now = func() time.Time { return now }
	l.Load()
	l.settle = patience
	for i := range 100 {
		write(t, folder, "a.yaml", configMap("a", fmt.Sprint(i)))
		if value(t, l.Load(), "a") != "first" {
			if i < 10 {
				t.Errorf("believed after %d changes", i)
			}
			return
		}
		now = now.Add(patience / 2)
	}
	t.Error("never believed")
}

func BenchmarkOneEditInAFolderOfAThousandFiles(b *testing.B) {
	folder := b.TempDir()
	text := func(i, j int) []byte {
		return fmt.Appendf(nil, "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r%d}\nspec:\n  parentRefs: [{name: a}]\n  rules: [{backendRefs: [{name: b, port: %d}]}]\n", i, 1000+j)
	}
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%04d.yaml", i)), text(i, 0), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	l := NewLoader([]string{folder})
	if l.Load().Failed() {
		b.Fatal("problems")
	}
	for i := 0; b.Loop(); i++ {
		if err := os.WriteFile(filepath.Join(folder, "0500.yaml"), text(500, i%1000), 0o600); err != nil {
			b.Fatal(err)
		}
		l.Load()
	}
}
