//go:build linux

package kube

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fakeGo stands in for the go command, so that the script is tested without minutes of compiling. It
// keeps the module files and notes what it builds; while the file $NOTES/hold is there it doesn't get done.
const fakeGo = `
case "$1 $2" in
"mod download") ;;
"env GOMODCACHE") echo "$NOTES/modules" ;;
"mod tidy") cp go.mod "$NOTES/$(basename "$PWD")" ;;
"build "*)
	while [ "$1" != -o ]; do shift; done
	echo $$ >"$NOTES/pid"
	echo "$3" >>"$NOTES/built"
	while [ -e "$NOTES/hold" ]; do sleep 0.01; done
	echo "half of it" >"$2"
	if [ -e "$NOTES/fail" ]; then echo "no such package" >&2; exit 1; fi
	chmod +x "$2" ;;
*) echo "unexpected: go $*" >&2; exit 1 ;;
esac`

// scriptRoom gives the script a cache of its own and the fake go. It returns where that takes notes.
func scriptRoom(t *testing.T) (notes string) {
	notes = t.TempDir()
	tools := t.TempDir()
	writeScript(t, tools, "go", fakeGo)
	t.Setenv("NOTES", notes)
	t.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	t.Setenv("XDG_CACHE_HOME", filepath.Join(notes, "cache"))
	return notes
}

func TestWhatIsThereIsNotBuiltAgain(t *testing.T) {
	notes := scriptRoom(t)
	first, err := Binaries(t.Context(), "etcd")
	if err != nil {
		t.Fatal(err)
	}
	second, err := Binaries(t.Context(), "etcd")
	if err != nil || second != first {
		t.Errorf("the second time: %q, %v, not %q", second, err, first)
	}
	if got := lines(filepath.Join(notes, "built")); !slices.Equal(got, []string{"go.etcd.io/etcd/server/v3"}) {
		t.Errorf("built: %q", got)
	}
	if !strings.HasPrefix(first, filepath.Join(notes, "cache", "gatehouse", "kube")) {
		t.Errorf("the cache is not where the user wants it, but in %s", first)
	}
}

func TestTwoWhoNeedItBuildItOnce(t *testing.T) {
	notes := scriptRoom(t)
	hold := filepath.Join(notes, "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first, second := newCaller(t), newCaller(t)
	first.start(t)
	eventually(t, "the first caller builds", func() bool { return len(lines(filepath.Join(notes, "built"))) == 1 })
	second.start(t)
	eventually(t, "the second caller waits", func() bool { return second.said("another build") })

	os.Remove(hold)
	for _, c := range []*caller{first, second} {
		if err := c.cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, c.stderr.String())
		}
	}

	if first.stdout.String() == "" || first.stdout.String() != second.stdout.String() {
		t.Errorf("they were told %q and %q", first.stdout.String(), second.stdout.String())
	}
	if got := lines(filepath.Join(notes, "built")); len(got) != 1 {
		t.Errorf("built: %q", got)
	}
}

func TestABuildThatFailsLeavesNoProgram(t *testing.T) {
	notes := scriptRoom(t)
	fail := filepath.Join(notes, "fail")
	if err := os.WriteFile(fail, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if bin, err := Binaries(t.Context(), "etcd"); err == nil {
		t.Errorf("no error, but %s", bin)
	}
	if left := cached(t, notes); !slices.Equal(left, []string{"bin", "lock"}) {
		t.Errorf("it left %q", left)
	}

	os.Remove(fail)
	bin, err := Binaries(t.Context(), "etcd")
	if err != nil {
		t.Fatalf("after the reason is gone: %v", err)
	}
	if _, err := os.Stat(filepath.Join(bin, "etcd")); err != nil {
		t.Error(err)
	}
}

func TestACancelledBuildEndsItsCompiler(t *testing.T) {
	notes := scriptRoom(t)
	if err := os.WriteFile(filepath.Join(notes, "hold"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() {
		_, err := Binaries(ctx, "etcd")
		ended <- err
	}()
	eventually(t, "it builds", func() bool { return len(lines(filepath.Join(notes, "built"))) == 1 })
	cancel()

	if err := <-ended; err == nil {
		t.Error("no error")
	}
	pid, err := strconv.Atoi(lines(filepath.Join(notes, "pid"))[0])
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the compiler is gone", func() bool { return !alive(pid) })
	if left := cached(t, notes); !slices.Equal(left, []string{"bin", "lock"}) {
		t.Errorf("it left %q", left)
	}
}

func TestStagingModulesComeFromWhereTheyArePublished(t *testing.T) {
	notes := scriptRoom(t)
	version, _, _ := strings.Cut(strings.SplitN(script, "KUBERNETES=", 2)[1], "\n")
	upstream := filepath.Join(notes, "modules/cache/download/k8s.io/kubernetes/@v")
	if err := os.MkdirAll(upstream, 0o700); err != nil {
		t.Fatal(err)
	}
	gomod := "module k8s.io/kubernetes\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tk8s.io/kubelet => ./staging/src/k8s.io/kubelet\n)\n"
	if err := os.WriteFile(filepath.Join(upstream, version+".mod"), []byte(gomod), 0o600); err != nil {
		t.Fatal(err)
	}

	if _, err := Binaries(t.Context(), "kubectl"); err != nil {
		t.Fatal(err)
	}

	written, err := os.ReadFile(filepath.Join(notes, "kubernetes_module"))
	if err != nil {
		t.Fatal(err)
	}
	published := "v0." + strings.TrimPrefix(version, "v1.")
	for _, want := range []string{
		"require k8s.io/kubernetes " + version,
		"replace k8s.io/api => k8s.io/api " + published,
		"replace k8s.io/kubelet => k8s.io/kubelet " + published,
	} {
		if !strings.Contains(string(written), want+"\n") {
			t.Errorf("go.mod lacks %q:\n%s", want, written)
		}
	}
}

func TestAClusterIsBuiltOfThreeModules(t *testing.T) {
	notes := scriptRoom(t)
	version, _, _ := strings.Cut(strings.SplitN(script, "KUBERNETES=", 2)[1], "\n")
	upstream := filepath.Join(notes, "modules/cache/download/k8s.io/kubernetes/@v")
	gomod := "module k8s.io/kubernetes\nreplace k8s.io/api => ./staging/src/k8s.io/api\n"
	if err := errors.Join(os.MkdirAll(upstream, 0o700), os.WriteFile(filepath.Join(upstream, version+".mod"), []byte(gomod), 0o600)); err != nil {
		t.Fatal(err)
	}
	bin, err := Binaries(t.Context(), "cluster")
	if err != nil {
		t.Fatal(err)
	}
	echo, _, _ := strings.Cut(strings.SplitN(script, "ECHO=", 2)[1], "\n")
	for _, name := range []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl", "echo-basic-" + echo,
	} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Error(err)
		}
	}
	if got := lines(filepath.Join(notes, "built")); len(got) != 8 {
		t.Errorf("built: %q", got)
	}
	for _, module := range []string{"etcd_module", "echo_module", "kubernetes_module"} {
		if _, err := os.Stat(filepath.Join(notes, module)); err != nil {
			t.Error(err)
		}
	}
}

func TestAModuleThatCannotBeMadeIsAnError(t *testing.T) {
	notes := scriptRoom(t) // without the upstream go.mod
	if bin, err := Binaries(t.Context(), "kubelet"); err == nil {
		t.Errorf("no error, but %s", bin)
	}
	if got := lines(filepath.Join(notes, "built")); len(got) > 0 {
		t.Errorf("built all the same: %q", got)
	}
}

func TestAnUnknownProgramIsRefused(t *testing.T) {
	notes := scriptRoom(t)
	if bin, err := Binaries(t.Context(), "etcd", "kube-sorcerer"); err == nil {
		t.Errorf("no error, but %s", bin)
	}
	if got := lines(filepath.Join(notes, "built")); len(got) > 0 {
		t.Errorf("built all the same: %q", got)
	}
}

// cached is what lies in the cache beside the programs.
func cached(t *testing.T, notes string) []string {
	files, err := filepath.Glob(filepath.Join(notes, "cache/gatehouse/kube/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	return files
}

// caller is the script, run as by another process.
type caller struct {
	cmd            *exec.Cmd
	stdout, stderr text
}

func newCaller(t *testing.T) *caller {
	c := &caller{cmd: exec.CommandContext(t.Context(), "bash", "-c", script, "build.sh", "etcd")}
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, io.MultiWriter(&c.stderr, os.Stderr)
	return c
}

func (c *caller) start(t *testing.T) {
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (c *caller) said(what string) bool { return strings.Contains(c.stderr.String(), what) }

// text is read while it is written.
type text struct {
	mu sync.Mutex // guards is
	is bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.is.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.is.String()
}
