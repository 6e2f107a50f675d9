// Package storetest starts real Redis servers for tests, alone, as a cluster, or watched by sentinels, on free ports of the loopback
// address, and stops them with the test. Where there is no redis-server, hack/redis.sh installs one.
package storetest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// folder is where redis-server is.
var folder = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(here), "..", "..", "..", "hack", "redis.sh")
	out, err := exec.Command(script).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", script, err)
	}
	return strings.TrimSpace(string(out)), nil
})

// Server is one redis-server (or sentinel), which can be stopped, frozen and started again on its port.
type Server struct {
	t       testing.TB
	port    int
	args    []string
	program string
	process *exec.Cmd
	output  *bytes.Buffer
}

// Start starts one with further arguments, such as "--requirepass", "x".
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, "redis-server", FreePort(t), append([]string{"--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...))
}

func start(t testing.TB, program string, port int, args []string) *Server {
	t.Helper()
	bin, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, port: port, args: args, program: filepath.Join(bin, program)}
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// FreePort is one that nobody listens on, now.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if port < 55000 { // a cluster's bus is on a port 10000 higher
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// Address is where it listens.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Start starts it (again), and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.output = new(bytes.Buffer)
	args := s.args
	if !strings.HasSuffix(s.program, "sentinel") {
		args = append([]string{"--port", fmt.Sprint(s.port), "--bind", "127.0.0.1"}, s.args...)
	}
	s.process = exec.Command(s.program, args...)
	s.process.Stdout, s.process.Stderr = s.output, s.output
	dieWithUs(s.process)
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	Eventually(s.t, 10*time.Second, "redis answers", func() bool {
		answer, err := s.try("PING")
		return err == nil && (strings.HasPrefix(answer, "+PONG") || strings.HasPrefix(answer, "-NOAUTH"))
	})
}

// Kill ends it at once.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	s.process.Process.Kill()
	s.process.Wait()
	s.process = nil
}

// Do runs a command and returns the first line of its answer.
func (s *Server) Do(words ...string) string {
	s.t.Helper()
	answer, err := s.try(words...)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer
}

// Says is Do, or "" while there is no answer.
func (s *Server) Says(words ...string) string {
	answer, _ := s.try(words...)
	return answer
}

func (s *Server) try(words ...string) (string, error) {
	c, err := net.DialTimeout("tcp", s.Address(), time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := c.Write([]byte(b.String())); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err == nil && strings.HasPrefix(line, "$") && line != "$-1\r\n" {
		line, err = r.ReadString('\n')
	}
	return strings.TrimSpace(line), err
}

// Cluster starts that many nodes with a share of the slots each.
func Cluster(t testing.TB, nodes int) []*Server {
	t.Helper()
	const slots = 16384
	var all []*Server
	for i := range nodes {
		s := Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
		from, to := i*slots/nodes, (i+1)*slots/nodes-1
		if got := s.Do("CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(from), fmt.Sprint(to)); got != "+OK" {
			t.Fatal(got)
		}
		all = append(all, s)
	}
	for i, s := range all[1:] {
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+2))
		if got := s.Do("CLUSTER", "MEET", "127.0.0.1", fmt.Sprint(all[0].port)); got != "+OK" {
			t.Fatal(got)
		}
	}
	for _, s := range all {
		Eventually(t, 20*time.Second, "the cluster is whole", func() bool {
			bin, _ := folder()
			out, err := exec.Command(filepath.Join(bin, "redis-cli"), "-p", fmt.Sprint(s.port), "CLUSTER", "INFO").Output()
			return err == nil && bytes.Contains(out, []byte("cluster_state:ok")) &&
				bytes.Contains(out, fmt.Appendf(nil, "cluster_known_nodes:%d", nodes))
		})
	}
	return all
}

// Watched is a primary, a replica of it, and the sentinels that watch them.
type Watched struct {
	Primary, Replica *Server
	Sentinels        []*Server
}

// PrimaryName is what the sentinels call the primary.
const PrimaryName = "limits"

// Sentinels starts a primary with a replica and three sentinels, who give a primary up after half a second.
func Sentinels(t testing.TB) Watched {
	t.Helper()
	w := Watched{Primary: Start(t)}
	w.Replica = Start(t, "--replicaof", "127.0.0.1", fmt.Sprint(w.Primary.port), "--repl-diskless-sync-delay", "0")
	Eventually(t, 10*time.Second, "the replica follows", func() bool {
		return strings.Contains(w.Replica.cli("INFO", "replication"), "master_link_status:up")
	})
	for range 3 {
		port := FreePort(t)
		file := filepath.Join(t.TempDir(), "sentinel.conf")
		text := fmt.Sprintf("port %d\nbind 127.0.0.1\nsentinel monitor %[2]s 127.0.0.1 %[3]d 2\nsentinel down-after-milliseconds %[2]s 500\n"+
			"sentinel failover-timeout %[2]s 3000\n", port, PrimaryName, w.Primary.port)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.Sentinels = append(w.Sentinels, start(t, "redis-sentinel", port, []string{file}))
	}
	for _, s := range w.Sentinels {
		Eventually(t, 20*time.Second, "sentinels know each other and the replica", func() bool {
			info := s.cli("INFO", "sentinel")
			return strings.Contains(info, "sentinels=3") && strings.Contains(info, "slaves=1")
		})
	}
	return w
}

func (s *Server) cli(words ...string) string {
	bin, _ := folder()
	out, _ := exec.Command(filepath.Join(bin, "redis-cli"), append([]string{"-p", fmt.Sprint(s.port)}, words...)...).Output()
	return string(out)
}

// Eventually waits for a condition, or fails the test.
func Eventually(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
