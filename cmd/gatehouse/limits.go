package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// fitIn makes the Go runtime fit the machine or container: at least two threads, so that a Build never holds up traffic on a single one
// (GOMAXPROCS follows the CPU limit by itself), and a soft memory limit at 90 % of the container's, so that the garbage collector works
// harder before the kernel kills. What the environment sets (GOMAXPROCS, GOMEMLIMIT) stands. Root is where cgroups are.
func fitIn(root string) {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
	if limit := memoryLimit(root); os.Getenv("GOMEMLIMIT") == "" && limit > 0 {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

// memoryLimit is that of our cgroup in bytes, of either version; 0 when there is none.
func memoryLimit(root string) int64 {
	for _, name := range []string{"memory.max", "memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && n > 0 && n < math.MaxInt64/2 { // version 1 says "no limit" with a number of this size
			return n
		}
	}
	return 0
}
