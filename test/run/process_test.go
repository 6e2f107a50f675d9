// Package run tests the binary as a user has it: gatehouse run and gatehouse check on files, with the samples' small backends. Each test
// has a process of its own, on ports that nobody else has.
package run

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long we wait for what must come.
const patience = 30 * time.Second

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

var lastPort = sync.OnceValue(func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32N(8000))
	return n
})

// freePort is one that nobody has and that the kernel does not give out by itself, so that nobody gets it meanwhile.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 11000 + int(lastPort().Add(1)%8000)
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

var (
	root    = "../.."
	buildIn string // made and removed by TestMain
)

func TestMain(m *testing.M) {
	var err error
	if buildIn, err = os.MkdirTemp("", "gatehouse-run-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(buildIn)
	os.Exit(code)
}

// built is where the binaries are. It also opens every source file, which tells go test that results are stale when one changes.
var built = sync.OnceValues(func() (string, error) {
	for _, folder := range []string{"api", "cmd", "controllers", "dataplane", "hack/backend"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.Contains(path, "testdata") && !strings.HasSuffix(path, "_test.go") {
				_, err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	c := exec.Command("go", "build", "-o", buildIn+"/", "./cmd/gatehouse", "./hack/backend")
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return buildIn, nil
})

func binary(t testing.TB, name string) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// command runs gatehouse to its end.
func command(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, binary(t, "gatehouse"), args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("gatehouse %v: %v\n%s", args, err, errs.String())
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// process is a gatehouse that runs.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	health string
	admin  string
	ended  chan struct{} // closed when it has ended
	lines  chan struct{} // closed when stderr is at its end

	mu     sync.Mutex // guards what follows
	stderr strings.Builder
}

// start runs gatehouse on files, and waits until it is ready.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	p := &process{
		t: t, ended: make(chan struct{}), lines: make(chan struct{}),
		health: fmt.Sprintf("127.0.0.1:%d", freePort(t)), admin: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
	}
	given := append([]string{"run", "--health-address", p.health, "--admin-address", p.admin, "--access-log="}, args...)
	p.cmd = exec.Command(binary(t, "gatehouse"), given...)
	pipe, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.follow(pipe)
	t.Cleanup(p.kill)
	until(t, "gatehouse is ready", func() bool {
		select {
		case <-p.ended:
			t.Fatalf("gatehouse has ended:\n%s", p.said())
		default:
		}
		resp, err := http.Get("http://" + p.health + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
	return p
}

func (p *process) follow(pipe io.Reader) {
	r := bufio.NewReader(pipe)
	for {
		line, err := r.ReadString('\n')
		p.mu.Lock()
		p.stderr.WriteString(line)
		p.mu.Unlock()
		if err != nil {
			break
		}
	}
	close(p.lines)
	p.cmd.Wait()
	close(p.ended)
}

// said is what it wrote to stderr so far.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// says waits for a line on stderr.
func (p *process) says(pattern string) {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.Now().Add(patience)
	for !re.MatchString(p.said()) {
		if time.Now().After(deadline) {
			p.t.Fatalf("it never said %s, but:\n%s", pattern, p.said())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (p *process) terminate() { p.cmd.Process.Signal(syscall.SIGTERM) }

// exits waits for the end and returns the exit status.
func (p *process) exits() int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("it does not end; it said\n%s", p.said())
		return 0
	}
}

func (p *process) kill() {
	select {
	case <-p.ended:
	default:
		p.cmd.Process.Kill()
		<-p.ended
	}
	if p.t.Failed() {
		p.t.Logf("gatehouse said:\n%s", last(p.said(), 8000))
	}
	if strings.Contains(p.said(), "panic") {
		p.t.Errorf("a panic:\n%s", last(p.said(), 8000))
	}
}

func last(text string, n int) string {
	if len(text) > n {
		return "…" + text[len(text)-n:]
	}
	return text
}

// series are the lines of a metric.
func (p *process) series(name string) (lines []string) {
	p.t.Helper()
	resp, err := http.Get("http://" + p.health + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		p.t.Fatal(resp.Status, err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// metric is the sum of all series of a name whose labels contain a text.
func (p *process) metric(name, labels string) (sum float64) {
	p.t.Helper()
	for _, line := range p.series(name) {
		if strings.Contains(line, labels) {
			n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				p.t.Fatal(line, err)
			}
			sum += n
		}
	}
	return sum
}

// backend starts one of the samples' backends.
func backend(t testing.TB, name string) (port int) {
	t.Helper()
	port = freePort(t)
	c := exec.Command(binary(t, "backend"), "-name", name, "-listen", fmt.Sprintf("127.0.0.1:%d", port))
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	until(t, "backend "+name+" listens", func() bool {
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
	w := world{t.TempDir(), freePort(t)}
	ports := map[string][]string{
		"gateway.yaml":         {"port: 8080", fmt.Sprintf("port: %d", w.port)},
		"local/endpoints.yaml": {"port: 9001", fmt.Sprintf("port: %d", backend(t, "blue")), "port: 9002", fmt.Sprintf("port: %d", backend(t, "green"))},
	}
	from := filepath.Join(root, "config", "samples")
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
