package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestTheProcessStaysWithinItsContainer(t *testing.T) {
	memory, threads := debug.SetMemoryLimit(-1), runtime.GOMAXPROCS(0)
	t.Cleanup(func() { debug.SetMemoryLimit(memory); runtime.GOMAXPROCS(threads) })
	for name, c := range map[string]struct {
		file, text  string
		environment string // GOMEMLIMIT, which the runtime itself has read at its start
		want        int64
	}{
		"cgroup v2":                {file: "memory.max", text: "1000000000\n", want: 900000000},
		"cgroup v2, no limit":      {file: "memory.max", text: "max\n", want: math.MaxInt64},
		"cgroup v1":                {file: "memory/memory.limit_in_bytes", text: "500000000\n", want: 450000000},
		"cgroup v1, no limit":      {file: "memory/memory.limit_in_bytes", text: "9223372036854771712\n", want: math.MaxInt64},
		"no cgroup":                {file: "something", want: math.MaxInt64},
		"the environment has said": {file: "memory.max", text: "1000000000\n", environment: "300MiB", want: math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, c.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("GOMEMLIMIT", c.environment)
			t.Setenv("GOMAXPROCS", "")
			debug.SetMemoryLimit(math.MaxInt64)
			runtime.GOMAXPROCS(1)
			fitIn(root)
			if got := debug.SetMemoryLimit(-1); got != c.want {
				t.Errorf("the memory limit is %d, want %d", got, c.want)
			}
			if got := runtime.GOMAXPROCS(0); got != 2 {
				t.Errorf("%d threads, want 2", got)
			}
		})
	}
}
