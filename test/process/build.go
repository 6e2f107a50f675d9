package process

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Root is the checkout, as tests in a folder of test/ see it.
const Root = "../.."

var builtIn string // made and removed by Main

// Main runs a package's tests, and removes what was built for them. It returns the status to exit with.
func Main(m *testing.M) int {
	var err error
	if builtIn, err = os.MkdirTemp("", "gatehouse-test-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(builtIn)
	return m.Run()
}

var programs = map[string]func() error{
	"gatehouse": sync.OnceValue(func() error { return build("cmd/gatehouse") }),
	"backend":   sync.OnceValue(func() error { return build("hack/backend") }),
}

// Binary is the path of a program, gatehouse or the samples' backend, built once from this checkout.
func Binary(t testing.TB, name string) string {
	t.Helper()
	if builtIn == "" {
		t.Fatal("TestMain does not call process.Main")
	}
	if err := programs[name](); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(builtIn, name)
}

// build also opens every source file, which tells go test that results are stale when one changes.
func build(folder string) error {
	for _, sources := range []string{"api", "controllers", "dataplane", folder} {
		err := filepath.WalkDir(filepath.Join(Root, sources), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.Contains(path, "testdata") && !strings.HasSuffix(path, "_test.go") {
				_, err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	c := exec.Command("go", "build", "-o", builtIn+"/", "./"+folder)
	c.Dir = Root
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// firstPort is another one in each process: several packages' tests run at once.
var firstPort = rand.Uint32N(8000)

var portsGiven atomic.Uint32

// FreePort is one that nobody has and that the kernel does not give out by itself, so that nobody gets it meanwhile.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 11000 + int((firstPort+portsGiven.Add(1))%8000)
		if l, err := net.Listen("tcp", ":"+strconv.Itoa(port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
