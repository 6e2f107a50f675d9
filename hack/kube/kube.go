// Package kube runs a real Kubernetes from source, for tests that a fake would only flatter: CRDs
// whose CEL rules must refuse, defaults, server-side apply, watches, leases.
//
// Nothing but Go and a few tools of every Linux is needed: build.sh compiles the upstream programs
// out of the module proxy into the user's cache, once per version. There is the control plane alone (etcd
// and kube-apiserver, see [Control]), in three seconds and for anybody: no controllers and no nodes, so no pod ever runs,
// no EndpointSlice appears by itself, and a deleted namespace stays in Terminating. And there is a whole
// [Cluster], which needs root.
//
// The package knows the standard library only. What it gives (host, CA, token, kubeconfig) fits any client.
package kube

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The script owns the versions and the place in the cache; it is embedded so that it is found from
// whatever directory a test runs in, and so that a new version makes cached test results stale.
//
//go:embed build.sh
var script string

// Binaries returns the directory that holds the named programs, and builds those that are missing:
// minutes the first time, milliseconds after. Progress goes to stderr. Without names it is those of
// a control plane: etcd, kube-apiserver, kubectl. It waits when another process builds already.
func Binaries(ctx context.Context, names ...string) (string, error) {
	if err := hostFits(); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "bash", append([]string{"-c", script, "build.sh"}, names...)...)
	cmd.SysProcAttr = endsWithUs(terminate)
	cmd.Cancel = func() error { return cmd.Process.Signal(terminate) } // the script then ends its compiler
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = os.Stderr

	// endsWithUs is bound to the thread: see process.run.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build Kubernetes (build.sh said why on stderr): %w", err)
	}
	return filepath.Clean(strings.TrimSpace(string(out))), nil
}

// Need is Binaries for a test. It fails the test where they can't be had, and never skips it: a
// test that is silently absent proves nothing.
func Need(t testing.TB, names ...string) string {
	t.Helper()
	bin, err := Binaries(t.Context(), names...)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// ForTest starts a control plane and stops it when the test ends. It takes about three seconds: a
// package with many tests may rather share one, by Start and Stop in its TestMain.
func ForTest(t testing.TB) *Control {
	t.Helper()
	control, err := Start(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := control.Stop(); err != nil {
			t.Error(err)
		}
	})
	return control
}
