package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// watching runs Watch until the test ends.
type watching struct {
	t       *testing.T
	results chan Result
	last    Result
}

func watch(t *testing.T, paths ...string) *watching {
	t.Helper()
	return watchWith(t, NewLoader(paths))
}

func watchWith(t *testing.T, l *Loader) *watching {
	t.Helper()
	w := &watching{t: t, results: make(chan Result, 10_000), last: l.Load()}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := l.Watch(ctx, func(r Result) { w.results <- r }); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return w
}

// until returns when a result is as wanted, and calls each with all on the way.
func (w *watching) until(what string, wanted func(Result) bool, each ...func(Result)) {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	for !wanted(w.last) {
		select {
		case w.last = <-w.results:
			for _, f := range each {
				f(w.last)
			}
		case <-deadline:
			w.t.Fatalf("never: %s; last: %v %v", what, names(w.last), w.last.Problems)
		}
	}
}

// has says whether a result has a ConfigMap with a value; "" for none of that name.
func has(name, value string) func(Result) bool {
	return func(r Result) bool {
		for _, obj := range r.Objects {
			if c, ok := obj.(*corev1.ConfigMap); ok && c.Name == name {
				return c.Data["key"] == value
			}
		}
		return value == ""
	}
}

func TestWatchSeesEachWayInWhichFilesChange(t *testing.T) {
	folder := t.TempDir()
	file := write(t, folder, "a.yaml", configMap("a", "1"))
	w := watch(t, folder)

	write(t, folder, "a.yaml", configMap("a", "2"))
	w.until("a file is written", has("a", "2"))

	write(t, folder, "a.yaml.tmp", configMap("a", "3"))
	if err := os.Rename(file+".tmp", file); err != nil {
		t.Fatal(err)
	}
	w.until("a file is replaced by renaming", has("a", "3"))

	write(t, folder, "b.yaml", configMap("b", "1"))
	w.until("a file is new", has("b", "1"))

	if err := os.MkdirAll(filepath.Join(folder, "new/deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, folder, "new/deep/c.yaml", configMap("c", "1"))
	w.until("a folder is new", has("c", "1"))
	write(t, folder, "new/deep/c.yaml", configMap("c", "2"))
	w.until("a file in a new folder is written", has("c", "2"))

	if err := os.Rename(filepath.Join(folder, "new"), filepath.Join(folder, "newer")); err != nil {
		t.Fatal(err)
	}
	write(t, folder, "newer/deep/c.yaml", configMap("c", "3"))
	w.until("a folder has another name", has("c", "3"))

	write(t, folder, "b.yaml", broken)
	w.until("a file is broken", func(r Result) bool { return r.Failed() && has("b", "1")(r) })
	write(t, folder, "b.yaml", configMap("b", "2"))
	w.until("a file is mended", func(r Result) bool { return !r.Failed() && has("b", "2")(r) })

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	w.until("a file is deleted", has("a", ""))
	if err := os.RemoveAll(filepath.Join(folder, "newer")); err != nil {
		t.Fatal(err)
	}
	w.until("a folder is deleted", has("c", ""))
}

func TestWatchFollowsASingleFile(t *testing.T) {
	folder := t.TempDir()
	file := write(t, folder, "a.yaml", configMap("a", "1"))
	w := watch(t, file)
	write(t, folder, "other.yaml", configMap("other", "1"))

	// As vim writes: the file is moved away, and written anew.
	if err := os.Rename(file, file+"~"); err != nil {
		t.Fatal(err)
	}
	write(t, folder, "a.yaml", configMap("a", "2"))
	w.until("an editor replaced it", has("a", "2"), func(r Result) {
		if !has("other", "")(r) {
			t.Error("another file of the folder was read")
		}
		if r.Failed() || len(r.Objects) == 0 {
			t.Errorf("in between: %v %v", names(r), r.Problems)
		}
	})
}

func TestWatchFollowsAVolumeOfKubernetes(t *testing.T) {
	for _, given := range []string{"", "a.yaml"} {
		// volume/a.yaml → ..data/a.yaml, volume/..data → ..2026_1
		volume := t.TempDir()
		fill := func(generation int) {
			t.Helper()
			real := filepath.Join(volume, fmt.Sprintf("..2026_%d", generation))
			if err := os.Mkdir(real, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, real, "a.yaml", configMap("a", fmt.Sprint(generation)))
			link := filepath.Join(volume, "..data_tmp")
			if err := os.Symlink(filepath.Base(real), link); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(link, filepath.Join(volume, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		fill(1)
		if err := os.Symlink("..data/a.yaml", filepath.Join(volume, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		w := watch(t, filepath.Join(volume, given))
		for generation := range 3 {
			fill(generation + 2)
			w.until("the volume is updated", has("a", fmt.Sprint(generation+2)))
		}
	}
}

// TestNoObjectVanishesWhileItsFileIsWritten writes a file in the ways that programs do, many times; each of the results
// in between must have all objects.
func TestNoObjectVanishesWhileItsFileIsWritten(t *testing.T) {
	folder := t.TempDir()
	const edits = 300
	text := func(i int) string {
		if i == edits {
			i = i*1_000_000_000 + 1 // the longest, so that it is believed at once
		}
		// of changing size, so that a shorter version follows a longer one
		return configMap("a", fmt.Sprint(i)) + configMap("b", fmt.Sprintf("%0*d", 1+i%7, i)) + configMap("c", fmt.Sprint(i))
	}
	file := write(t, folder, "a.yaml", text(0))
	l := NewLoader([]string{folder})
	l.patience = 10 * time.Second // the machine may be busy; the writer is not to be held up that long
	w := watchWith(t, l)

	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() {
		for i := 1; i <= edits; i++ {
			switch i % 3 {
			case 0: // at once
				_ = os.WriteFile(file, []byte(text(i)), 0o600)
			case 1: // in two parts
				half := len(text(i)) / 2
				if f, err := os.Create(file); err == nil {
					_, _ = f.WriteString(text(i)[:half])
					_, _ = f.WriteString(text(i)[half:])
					_ = f.Close()
				}
			case 2: // aside, and renamed
				_ = os.WriteFile(file+".tmp", []byte(text(i)), 0o600)
				_ = os.Rename(file+".tmp", file)
			}
		}
	})

	seen := 0
	w.until("the last edit", has("c", fmt.Sprint(edits*1_000_000_000+1)), func(r Result) {
		seen++
		for _, want := range []string{"ConfigMap default/a", "ConfigMap default/b", "ConfigMap default/c"} {
			if !slices.Contains(names(r), want) {
				t.Fatalf("%s vanished: %v %v", want, names(r), r.Problems)
			}
		}
		if r.Failed() {
			t.Fatalf("a problem on the way: %v", r.Problems)
		}
	})
	if seen == 0 {
		t.Error("no result")
	}
}
