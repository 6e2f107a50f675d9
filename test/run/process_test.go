// Package run tests the binary as a user has it: gatehouse run and gatehouse check on files, with the samples' small backends. Each test
// has a process of its own, on ports that nobody else has.
package run

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/process"
)

// patience is how long we wait for what must come.
const patience = process.Patience

func TestMain(m *testing.M) { os.Exit(process.Main(m)) }

// start runs gatehouse on files, and waits until it is ready.
func start(t testing.TB, args ...string) *process.Process {
	t.Helper()
	p := process.New(t)
	p.Start("run", args...)
	return p
}

// backend starts one of the samples' backends.
func backend(t testing.TB, name string) (port int) {
	t.Helper()
	port = process.FreePort(t)
	c := exec.Command(process.Binary(t, "backend"), "-name", name, "-listen", fmt.Sprintf("127.0.0.1:%d", port))
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	process.Until(t, "backend "+name+" listens", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return port
}

// world is the samples, copied, with ports of its own.
type world struct {
	dir  string
	port int
}

// samples copies config/samples and starts the two backends that they are about.
func samples(t testing.TB) world {
	t.Helper()
	w := world{t.TempDir(), process.FreePort(t)}
	ports := map[string][]string{
		"gateway.yaml":         {"port: 8080", fmt.Sprintf("port: %d", w.port)},
		"local/endpoints.yaml": {"port: 9001", fmt.Sprintf("port: %d", backend(t, "blue")), "port: 9002", fmt.Sprintf("port: %d", backend(t, "green"))},
	}
	from := filepath.Join(process.Root, "config", "samples")
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(from, path)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if change := ports[name]; change != nil {
			if !strings.Contains(string(text), change[0]) {
				return fmt.Errorf("%s has no %q any more", name, change[0])
			}
			text = []byte(strings.NewReplacer(change...).Replace(string(text)))
		}
		w.write(t, name, string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// write puts a file in the place of what was there, at once.
func (w world) write(t testing.TB, name, text string) {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func (w world) read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (w world) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", w.port, path) }
