package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Cluster is a whole Kubernetes on this machine: a control plane with all its controllers, and one node with kubelet, containerd and
// kube-proxy, and a load balancer whose addresses are in 10.97.0.0/24. It needs root and lives on after the process that started it, until [Cluster.Down].
//
// It has a network of its own. What shall reach its API server, pods and Services has to run inside: by [Cluster.Command], or a whole
// test by [Enter].
type Cluster struct {
	Name       string
	Kubeconfig string // path; its server's address, 127.0.0.1, is that inside

	dir    string // of its state
	script string // path of cluster.sh
}

// Up starts the cluster of that name, unless it runs already; then it starts those of its programs again that have ended. "" is the one that the
// variable CLUSTER names, or else "gatehouse". Some ten seconds; minutes where programs are to be built first. Progress goes to stderr.
//
// The package's sources must be there: it looks for them in the working directory and above, as tests have it.
func Up(ctx context.Context, name string) (*Cluster, error) {
	c, err := newCluster(name)
	if err != nil {
		return nil, err
	}
	return c, c.run(ctx, "up")
}

func newCluster(name string) (*Cluster, error) {
	if name == "" {
		name = os.Getenv("CLUSTER")
	}
	if name == "" {
		name = "gatehouse"
	}
	script, err := findScript()
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir() // as the script has it: XDG_CACHE_HOME or ~/.cache
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "gatehouse", "clusters", name)
	return &Cluster{name, filepath.Join(dir, "kubeconfig"), dir, script}, nil
}

func findScript() (string, error) {
	from, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := from; ; dir = filepath.Dir(dir) {
		script := filepath.Join(dir, "hack", "kube", "cluster.sh")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no hack/kube/cluster.sh in %s or above it", from)
		}
	}
}

// Enter is for a TestMain, before anything else: it starts the cluster as Up does and then begins the whole process anew inside the cluster's
// network. The second time it returns. What a test finds there: 127.0.0.1 is the node's, there is no way out into the world, and files and
// processes are the machine's.
func Enter(ctx context.Context) (*Cluster, error) {
	c, err := newCluster("")
	if err != nil {
		return nil, err
	}
	if inside, _ := c.inside(); inside {
		return c, nil
	}
	if err := c.run(ctx, "up"); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := append([]string{c.script, "exec", self}, os.Args[1:]...)
	return nil, fmt.Errorf("enter the cluster: %w", syscall.Exec(c.script, command, c.environment()))
}

// inside says whether this process is in the cluster's network. The first number of the file init is that of the cluster's first process.
func (c *Cluster) inside() (bool, error) {
	text, err := os.ReadFile(filepath.Join(c.dir, "init"))
	if err != nil {
		return false, err
	}
	pid, _, _ := strings.Cut(string(text), " ")
	its, err := os.Readlink("/proc/" + pid + "/ns/net")
	if err != nil {
		return false, err
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	return err == nil && its == ours, err
}

// Down ends the cluster and removes all that it made. Without one it does nothing.
func (c *Cluster) Down(ctx context.Context) error { return c.run(ctx, "down") }

// Import loads image tarballs, such as `make image` writes, into the node.
func (c *Cluster) Import(ctx context.Context, tarballs ...string) error {
	return c.run(ctx, "import", tarballs...)
}

// StopProgram kills programs of the cluster, such as kube-apiserver or kubelet, and returns when they are gone. Pods go on.
func (c *Cluster) StopProgram(ctx context.Context, names ...string) error {
	return c.run(ctx, "stop", names...)
}

// StartProgram starts programs again. It doesn't wait until they are ready.
func (c *Cluster) StartProgram(ctx context.Context, names ...string) error {
	return c.run(ctx, "start", names...)
}

// Command runs inside the cluster's network, with kubectl and helm in the PATH and KUBECONFIG set. It isn't run yet.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return c.command(ctx, "exec", append([]string{name}, args...)...)
}

// Kubectl is kubectl as the administrator, not yet run.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return c.Command(ctx, "kubectl", args...)
}

func (c *Cluster) command(ctx context.Context, does string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.script, append([]string{does}, args...)...)
	cmd.Env = c.environment()
	return cmd
}

func (c *Cluster) environment() []string { return append(os.Environ(), "CLUSTER="+c.Name) }

func (c *Cluster) run(ctx context.Context, does string, args ...string) error {
	cmd := c.command(ctx, does, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(terminate) } // the script then takes away what it has begun
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cluster.sh %s (it said why on stderr): %w", does, errors.Join(err, context.Cause(ctx)))
	}
	return nil
}
