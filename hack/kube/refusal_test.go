//go:build linux

package kube

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestWhereNoClusterCanBeOneIsToldWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		program, text string   // a program of the machine that answers otherwise
		variable      string   // of the environment
		args          []string // of cluster.sh
		want          []string
	}{
		"another system":          {program: "uname", text: "echo Darwin", args: []string{"up"}, want: []string{"needs Linux", "this is Darwin", "virtual machine"}},
		"not root":                {program: "id", text: "echo 1000", args: []string{"up"}, want: []string{"needs root", "sudo"}},
		"root who may not":        {program: "unshare", text: "exit 1", args: []string{"up"}, want: []string{"--privileged"}},
		"not root, asked before":  {program: "id", text: "echo 1000", args: []string{"needs"}, want: []string{"needs root", "sudo"}},
		"a name with a way out":   {variable: "CLUSTER=../x", args: []string{"down"}, want: []string{"CLUSTER=../x", "small letters"}},
		"nothing runs, for exec":  {args: []string{"exec", "true"}, want: []string{"doesn't run", "make cluster-up"}},
		"nothing runs, for stop":  {args: []string{"stop", "kubelet"}, want: []string{"doesn't run", "make cluster-up"}},
		"nothing runs, for logs":  {args: []string{"logs", "there"}, want: []string{"doesn't run", "make cluster-up"}},
		"nothing runs, for files": {args: []string{"import", "a.tar"}, want: []string{"doesn't run", "make cluster-up"}},
		"nothing is asked for":    {args: nil, want: []string{"up ", "down ", "exec "}},
		"nobody knows it":         {args: []string{"sideways"}, want: []string{"up ", "down ", "exec "}},
	} {
		t.Run(name, func(t *testing.T) {
			tools := t.TempDir()
			if c.program != "" {
				writeScript(t, tools, c.program, c.text)
			}
			cache := t.TempDir()
			cmd := exec.CommandContext(t.Context(), "./cluster.sh", c.args...)
			cmd.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "XDG_CACHE_HOME="+cache, "CLUSTER=none-here", c.variable)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Error("it succeeded")
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("it doesn't say %q: %s", want, out)
				}
			}
			if left, _ := os.ReadDir(cache); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
}
