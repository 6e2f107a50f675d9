// Package process runs our programs for tests, as a user runs them: it builds them once for each package of tests, starts gatehouse at
// addresses that nobody else has, waits until it is ready, keeps what it says, and ends it with its test.
//
// A package of tests that uses it stands in a folder of test/, and has a TestMain that calls Main, which removes what was built.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long we wait for what must come.
const Patience = 40 * time.Second

// Until waits for a condition, or fails the test.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// Command runs gatehouse to its end.
func Command(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	c := exec.CommandContext(ctx, Binary(t, "gatehouse"), args...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("gatehouse %v: %v\n%s", args, err, errs.String())
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// Process is a gatehouse that runs.
type Process struct {
	Health, Admin string // the addresses of its pages

	t     testing.TB
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended, and all is read that it said
	said  transcript
}

// transcript is what a process has written so far, to whatever output.
type transcript struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// New is one that is not started yet, but has its addresses.
func New(t testing.TB) *Process {
	t.Helper()
	return &Process{
		t: t, ended: make(chan struct{}),
		Health: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), Admin: fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
	}
}

// Start runs "gatehouse run" or "gatehouse controller", without an access log if args do not ask for one, and waits until it is ready. It
// ends with the test, which fails if it panicked.
func (p *Process) Start(verb string, args ...string) {
	p.t.Helper()
	given := append([]string{verb, "--health-address", p.Health, "--admin-address", p.Admin, "--access-log="}, args...)
	p.cmd = exec.Command(Binary(p.t, "gatehouse"), given...)
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	endsWithUs(p.cmd)
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	p.t.Cleanup(p.close)
	Until(p.t, "gatehouse is ready", func() bool {
		select {
		case <-p.ended:
			p.t.Fatalf("gatehouse has ended:\n%s", p.Said())
		default:
		}
		return p.Ready()
	})
}

// Ready reports whether it says that it is.
func (p *Process) Ready() bool {
	resp, err := http.Get("http://" + p.Health + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Said is what it has written so far.
func (p *Process) Said() string { return p.said.String() }

// Says waits for what fits a pattern.
func (p *Process) Says(pattern string) {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(Patience); !re.MatchString(p.Said()); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("it never said %s, but:\n%s", pattern, p.Said())
		}
	}
}

// Signal sends it a signal: SIGTERM asks it to leave, SIGKILL ends it at once.
func (p *Process) Signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// Exits waits for its end and returns the exit status.
func (p *Process) Exits() int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(Patience):
		p.t.Fatalf("it does not end; it said\n%s", p.Said())
		return 0
	}
}

func (p *Process) close() {
	p.cmd.Process.Kill()
	<-p.ended
	if p.t.Failed() {
		p.t.Logf("gatehouse said:\n%s", last(p.Said(), 8000))
	}
	if strings.Contains(p.Said(), "panic") {
		p.t.Errorf("a panic:\n%s", last(p.Said(), 8000))
	}
}

func last(text string, n int) string {
	if len(text) > n {
		return "…" + text[len(text)-n:]
	}
	return text
}

// Series are the lines of a metric.
func (p *Process) Series(name string) (lines []string) {
	p.t.Helper()
	resp, err := http.Get("http://" + p.Health + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatal(resp.Status, err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// Metric is the sum of all series of a name whose labels contain a text.
func (p *Process) Metric(name, labels string) (sum float64) {
	p.t.Helper()
	for _, line := range p.Series(name) {
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
