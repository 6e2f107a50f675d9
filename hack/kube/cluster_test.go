//go:build linux && cluster

// These tests need root, and minutes where Kubernetes isn't built: make cluster-test.

package kube

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pods are two replicas behind a Service that asks for an address. The image is this repository's hack/backend, and the pods are
// as restricted as pods can be.
const pods = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: backend
        image: gatehouse-dev/backend:dev
        args: [-name, %[1]s, -listen, ":8080"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {type: LoadBalancer, loadBalancerIP: %[2]s, selector: {app: %[1]s}, ports: [{port: 80, targetPort: 8080}]}
`

func TestAClusterRunsPodsServesServicesAndLeavesNothingBehind(t *testing.T) {
	before := machine()
	c := newTestCluster(t, "self-test")
	if got := machine(); got != before {
		t.Errorf("the machine has changed while it runs:\n%s\nand was\n%s", got, before)
	}

	deploy(t, c, "shop", "10.97.0.77")
	cluster := strings.TrimSpace(kubectl(t, c, "get", "service", "shop", "-o", "jsonpath={.spec.clusterIP}"))
	answers(t, c, cluster, "shop")
	answers(t, c, "10.97.0.77", "shop")
	if names := kubectl(t, c, "get", "endpointslices", "-l", "kubernetes.io/service-name=shop", "-o", "jsonpath={.items[*].endpoints[*].conditions.ready}"); names != "true true" {
		t.Errorf("ready in EndpointSlices: %q", names)
	}

	t.Run("up again changes nothing", func(t *testing.T) {
		first := read(t, filepath.Join(c.dir, "init"))
		if _, err := Up(t.Context(), c.Name); err != nil {
			t.Fatal(err)
		}
		if second := read(t, filepath.Join(c.dir, "init")); first != second {
			t.Errorf("the first process is %q, and was %q", second, first)
		}
		answers(t, c, "10.97.0.77", "shop")
	})

	t.Run("a test can enter it", func(t *testing.T) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), self, "two words")
		cmd.Env = append(c.environment(), insideEnv+"=1")
		out, err := cmd.Output()
		if want := c.Name + " true <nil> true [two words]\n"; err != nil || string(out) != want {
			t.Errorf("it said %q, not %q: %v", out, want, err)
		}
	})

	t.Run("an address comes back when its Service is gone or something else", func(t *testing.T) {
		expose := func(name string) {
			kubectl(t, c, "create", "service", "loadbalancer", name, "--tcp=80:8080")
			eventually(t, name+" has the lowest address", func() bool { return ingress(t, c, name) == "10.97.0.1" })
		}
		expose("first")
		kubectl(t, c, "delete", "service", "first")
		expose("second")
		kubectl(t, c, "patch", "service", "second", "-p", `{"spec": {"type": "ClusterIP"}}`)
		expose("third")
		if got := ingress(t, c, "second"); got != "" {
			t.Errorf("what is no load balancer any more still shows %s", got)
		}
	})

	t.Run("programs can be stopped and started while pods serve", func(t *testing.T) {
		if err := c.StopProgram(t.Context(), "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		if out, err := c.Kubectl(t.Context(), "get", "--raw", "/readyz").CombinedOutput(); err == nil {
			t.Errorf("the API server still answers: %s", out)
		}
		answers(t, c, "10.97.0.77", "shop")
		if err := c.StartProgram(t.Context(), "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the API server is ready again", func() bool { return c.Kubectl(t.Context(), "get", "--raw", "/readyz").Run() == nil })
	})

	t.Run("another cluster beside it is apart", func(t *testing.T) {
		other := newTestCluster(t, "self-test-2")
		deploy(t, other, "library", "10.97.0.77") // the same address, of another pool
		answers(t, other, "10.97.0.77", "library")
		answers(t, c, "10.97.0.77", "shop")
		if err := other.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone(t, other)
		answers(t, c, "10.97.0.77", "shop")
	})

	if err := c.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, c)
	if got := machine(); got != before {
		t.Errorf("the machine is\n%s\nand was\n%s", got, before)
	}
	if err := c.Down(t.Context()); err != nil {
		t.Errorf("down, where there is none: %v", err)
	}
}

// A kill -9 of what others see of a cluster stands for a crash and for a reboot.
func TestWhatACrashLeftOfAClusterIsReplaced(t *testing.T) {
	c := newTestCluster(t, "self-test-3")
	pid, _, _ := strings.Cut(read(t, filepath.Join(c.dir, "init")), " ")
	if out, err := exec.Command("kill", "-9", pid).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := c.Kubectl(t.Context(), "get", "nodes").Run(); err == nil {
		t.Error("it answers though it was killed")
	}
	if _, err := Up(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	kubectl(t, c, "get", "serviceaccount", "default")
	if err := c.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone(t, c)
}

func newTestCluster(t *testing.T, name string) *Cluster {
	t.Helper()
	c, err := Up(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd := exec.Command(c.script, "down") // the test's context is over
		cmd.Env = c.environment()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return c
}

func deploy(t *testing.T, c *Cluster, name, address string) {
	t.Helper()
	apply := c.Kubectl(t.Context(), "apply", "-f", "-")
	apply.Stdin = strings.NewReader(fmt.Sprintf(pods, name, address))
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	kubectl(t, c, "rollout", "status", "deployment", name, "--timeout=60s")
	eventually(t, name+" has its address", func() bool { return ingress(t, c, name) == address })
}

func ingress(t *testing.T, c *Cluster, name string) string {
	return kubectl(t, c, "get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}")
}

func kubectl(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %v: %v: %s", args, err, out)
	}
	return string(out)
}

// answers waits until the backend of that name answers at the address: kube-proxy is a second behind.
func answers(t *testing.T, c *Cluster, address, name string) {
	t.Helper()
	eventually(t, name+" answers at "+address, func() bool {
		get := c.Command(t.Context(), "bash", "-c", `exec 3<>"/dev/tcp/$1/80"; printf 'GET / HTTP/1.0\r\n\r\n' >&3; timeout 2 cat <&3`, "bash", address)
		out, err := get.Output()
		_, body, _ := strings.Cut(string(out), "\r\n\r\n")
		var answer struct{ Backend string }
		return err == nil && json.Unmarshal([]byte(body), &answer) == nil && answer.Backend == name
	})
}

// gone holds when neither files nor cgroups nor processes of a cluster are left.
func gone(t *testing.T, c *Cluster) {
	t.Helper()
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", c.dir, err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*" + c.Name, "/sys/fs/cgroup/*/*" + c.Name} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("cgroups are left: %v", left)
		}
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, command := range commands {
		if text, _ := os.ReadFile(command); strings.Contains(string(text), c.dir+"/") {
			t.Errorf("a process is left: %q", text)
		}
	}
	for _, mount := range strings.Split(read(t, "/proc/self/mounts"), "\n") {
		if strings.Contains(mount, c.dir+"/") {
			t.Errorf("a mount is left: %s", mount)
		}
	}
}

// machine is what a kubelet and its friends would change outside of their files, as text.
func machine() string {
	var b strings.Builder
	for _, setting := range []string{"vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max"} {
		value, _ := os.ReadFile("/proc/sys/" + setting)
		fmt.Fprintf(&b, "%s=%s\n", setting, strings.TrimSpace(string(value)))
	}
	for _, place := range []string{
		"/run/netns/*", "/run/containerd", "/opt/containerd", "/opt/cni", "/etc/cni/*", "/var/lib/kubelet", "/var/lib/cni", "/var/lib/containerd/*",
		"/var/lib/kube-proxy", "/var/run/kubernetes", "/var/log/pods", "/var/log/containers", "/usr/libexec/kubernetes",
	} {
		found, _ := filepath.Glob(place)
		fmt.Fprintln(&b, place, found)
	}
	links, _ := filepath.Glob("/sys/class/net/*")
	fmt.Fprintln(&b, links)
	rules, _ := exec.Command("nft", "list", "ruleset").Output()
	fmt.Fprintf(&b, "%s\n", rules)
	mounts := strings.Split(readOr("/proc/self/mounts"), "\n")
	mounts = slices.DeleteFunc(mounts, func(m string) bool { return !strings.Contains(m, "gatehouse") && !strings.Contains(m, "netns") })
	fmt.Fprintln(&b, mounts)
	return b.String()
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readOr(file string) string {
	text, _ := os.ReadFile(file)
	return string(text)
}
