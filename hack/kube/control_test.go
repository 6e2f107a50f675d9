//go:build linux

package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		beVictim()
	}
	if os.Getenv(insideEnv) != "" {
		beInside()
	}
	os.Exit(m.Run())
}

func TestAControlPlaneServesAndLeavesNothingBehind(t *testing.T) {
	control, err := Start(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer control.Stop()

	if status, body := call(t, control.Client(), "GET", control.Host+"/readyz", ""); status != 200 || body != "ok" {
		t.Errorf("/readyz answered %d %q", status, body)
	}
	namespaces := control.Host + "/api/v1/namespaces"
	namespace := `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "made-by-hand"}}`
	if status, body := call(t, control.Client(), "POST", namespaces, namespace); status != 201 {
		t.Errorf("creating a namespace answered %d %s", status, body)
	}
	if status, _ := call(t, control.Client(), "GET", namespaces+"/made-by-hand", ""); status != 200 {
		t.Errorf("reading the namespace answered %d", status)
	}

	out, err := control.Kubectl(t.Context(), "get", "namespace", "made-by-hand", "-o", "name").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "namespace/made-by-hand" {
		t.Errorf("kubectl with the kubeconfig: %v %s", err, out)
	}

	if err := control.Stop(); err != nil {
		t.Error(err)
	}
	for _, p := range []*process{control.etcd, control.apiServer} {
		if alive(p.pid) {
			t.Errorf("%s is still there as process %d", p.name, p.pid)
		}
	}
	if _, err := os.Stat(control.state.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if _, err := control.Client().Get(control.Host + "/readyz"); err == nil {
		t.Error("somebody still answers at " + control.Host)
	}
	if err := control.Stop(); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func TestOnlyTheTokenMakesAnAdministrator(t *testing.T) {
	control := ForTest(t)
	stranger := control.Client()
	stranger.Transport = stranger.Transport.(administrator).next
	for _, c := range []struct {
		path string
		want int
	}{
		{"/readyz", 200}, // RBAC's own public-info rule
		{"/api/v1/namespaces", 403},
		{"/api/v1/secrets", 403},
	} {
		if status, body := call(t, stranger, "GET", control.Host+c.path, ""); status != c.want {
			t.Errorf("%s without a token answered %d, not %d: %s", c.path, status, c.want, body)
		}
	}

	// A directory in use is nobody's to sweep, however old.
	sweep(filepath.Dir(control.state.dir), time.Now().Add(time.Hour))
	if _, err := os.Stat(control.Kubeconfig); err != nil {
		t.Errorf("a sweep took what is in use: %v", err)
	}
}

const victimEnv = "GATEHOUSE_KUBE_VICTIM"

// beVictim starts a control plane, tells about it, and waits to be killed.
func beVictim() {
	control, err := Start(context.Background(), "")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(victim{control.state.dir, []int{control.etcd.pid, control.apiServer.pid}})
	select {}
}

type victim struct {
	Dir  string
	Pids []int
}

const insideEnv = "GATEHOUSE_KUBE_INSIDE"

// beInside enters the cluster and tells whether it is there.
func beInside() {
	c, err := Enter(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	inside, err := c.inside()
	fmt.Println(c.Name, inside, err, os.Getenv("KUBECONFIG") == c.Kubeconfig, os.Args[1:])
	os.Exit(0)
}

func TestAControlPlaneDiesWithTheProcessThatStartedIt(t *testing.T) {
	Need(t)
	temporary := shortTemporary(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), victimEnv+"=1", "TMPDIR="+temporary)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var v victim
	if err := json.NewDecoder(bufio.NewReader(stdout)).Decode(&v); err != nil {
		t.Fatalf("the process that was to start it: %v, %v", err, cmd.Wait())
	}
	t.Cleanup(func() {
		for _, pid := range v.Pids {
			if alive(pid) { // the test has failed
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	for _, pid := range v.Pids {
		if !alive(pid) {
			t.Fatalf("process %d isn't there before the end of its parent: the test would prove nothing", pid)
		}
	}

	cmd.Process.Kill()
	cmd.Wait()

	eventually(t, "both programs are gone", func() bool { return !alive(v.Pids[0]) && !alive(v.Pids[1]) })
	if _, err := os.Stat(v.Dir); err != nil {
		t.Fatalf("the directory: %v", err)
	}
	sweep(temporary, time.Now())
	if _, err := os.Stat(v.Dir); err != nil {
		t.Errorf("a young directory was swept, whose owner may not have locked it yet: %v", err)
	}
	sweep(temporary, time.Now().Add(2*sweepAge))
	if _, err := os.Stat(v.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left behind wasn't swept: %v", err)
	}
}

func TestAFailedStartTellsTheLastLinesOfTheLog(t *testing.T) {
	const sleeps = "echo $$ >>$PIDS; exec sleep 600"
	for name, c := range map[string]struct {
		etcd, apiServer string   // scripts; "" is a missing program
		want            []string // what the error says
		starts          int      // how many times the API server was started; 0: it may or may not have been
		cancelled       bool     // once both are there
	}{
		"it ends": {
			etcd:      sleeps,
			apiServer: "echo $$ >>$PIDS; echo start >>$STARTS; echo 'unknown flag: --sesame' >&2; exit 3",
			want:      []string{"kube-apiserver ended before it was ready", "exit status 3", "unknown flag: --sesame"},
			starts:    1,
		},
		"it ends as if all were well": {
			etcd:      sleeps,
			apiServer: "echo $$ >>$PIDS; echo start >>$STARTS; echo goodbye",
			want:      []string{"kube-apiserver ended before it was ready", "exit status 0", "goodbye"},
			starts:    1,
		},
		"its port is taken each time": {
			etcd:      sleeps,
			apiServer: "echo $$ >>$PIDS; echo start >>$STARTS; echo 'bind: address already in use'; exit 1",
			want:      []string{"bind: address already in use"},
			starts:    3,
		},
		"it is never ready": {
			etcd:      sleeps,
			apiServer: "echo 'waiting for Godot'; echo start >>$STARTS; " + sleeps,
			want:      []string{"kube-apiserver is not ready", "context canceled", "waiting for Godot"},
			starts:    1,
			cancelled: true,
		},
		"etcd ends": {
			etcd:      "echo $$ >>$PIDS; echo 'no space left on device'; exit 1",
			apiServer: sleeps,
			want:      []string{"etcd ended before", "no space left on device"},
		},
		"it isn't there": {
			etcd: sleeps,
			want: []string{"start kube-apiserver", "no such file or directory"},
		},
		"etcd isn't there": {
			want: []string{"start etcd", "no such file or directory"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			notes, temporary, bin := t.TempDir(), shortTemporary(t), t.TempDir()
			pids, starts := filepath.Join(notes, "pids"), filepath.Join(notes, "starts")
			t.Setenv("PIDS", pids)
			t.Setenv("STARTS", starts)
			t.Setenv("TMPDIR", temporary)
			writeScript(t, bin, "etcd", c.etcd)
			writeScript(t, bin, "kube-apiserver", c.apiServer)

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.cancelled {
				go func() {
					for len(lines(pids)) < 2 && ctx.Err() == nil {
						time.Sleep(time.Millisecond)
					}
					cancel()
				}()
			}
			control, err := Start(ctx, bin)
			if err == nil {
				control.Stop()
				t.Fatal("it started")
			}

			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error doesn't say %q:\n%v", want, err)
				}
			}
			if got := len(lines(starts)); got != c.starts && c.starts > 0 {
				t.Errorf("the API server was started %d times, not %d", got, c.starts)
			}
			for _, pid := range lines(pids) {
				var n int
				if fmt.Sscan(pid, &n); n == 0 || alive(n) {
					t.Errorf("process %q was left behind", pid)
				}
			}
			if left, _ := os.ReadDir(temporary); len(left) > 0 {
				t.Errorf("directories were left behind: %v", left)
			}
		})
	}
}

func TestATooLongPathForASocketIsToldAtOnce(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	_, err := Start(t.Context(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("the error doesn't name TMPDIR: %v", err)
	}
	if left, _ := os.ReadDir(long); len(left) > 0 {
		t.Errorf("directories were left behind: %v", left)
	}
}

func TestATailIsTheLastWholeLines(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit int64
		want  string
	}{
		{"", 10, ""},
		{"one\ntwo\n", 100, "one\ntwo"},
		{"one\ntwo\n", 8, "one\ntwo"},
		{"one\ntwo\n", 7, "two"},
		{"one\ntwo\nthree", 10, "two\nthree"},
		{"one\ntwo\nthree", 7, "three"},
	} {
		file := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := string(tail(file, c.limit)); got != c.want {
			t.Errorf("the tail of %q within %d bytes is %q, not %q", c.text, c.limit, got, c.want)
		}
	}
}

func call(t *testing.T, client *http.Client, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// alive doesn't count a zombie: who has lost its parent may wait for a reaper that isn't ours.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// shortTemporary is for sockets: t.TempDir's path has the test's name in it and is too long.
func shortTemporary(t *testing.T) string {
	dir, err := os.MkdirTemp("", "gh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func writeScript(t *testing.T, dir, name, text string) {
	if text == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func lines(file string) []string {
	text, _ := os.ReadFile(file)
	return strings.Fields(string(text))
}
