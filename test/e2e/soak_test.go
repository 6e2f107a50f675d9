//go:build e2e && soak

package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

var soak = flag.Duration("soak", 10*time.Minute, "how long")

// growth is how much larger a replica may be at the end than after the first round: what the collector has not collected yet, and no more.
const growth = 64 << 20

func TestSoakNoRequestFailsAndNoMemoryIsLost(t *testing.T) {
	g := house(t)
	were := replicas(t)
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	var first int64
	end := time.Now().Add(*soak)
	for round := 0; time.Now().Before(end); round++ {
		l := begin(t, g, *rate)
		extra := map[string]bool{}
		for n := range 200 {
			edit(t, func(route *gwv1.HTTPRoute) { change(route, random, n, extra) })
		}
		serves(t, g, extra)
		text, _ := certificates(t).secret(t, shop, "front-tls", loadHost)
		apply(t, text)
		roll(t, shop, "blue", "green")
		rolled(t, shop, "blue", "green")
		l.endsClean()
		unharmed(t, were)
		now := int64(0)
		for _, p := range were {
			numbers, err := processes(p)
			must(t, err)
			now = max(now, resident(t, numbers[0]))
		}
		if first == 0 {
			first = now
		}
		t.Logf("round %d: the larger replica has %d MiB", round, now>>20)
		if now > first+growth {
			t.Errorf("it had %d MiB after the first round", first>>20)
		}
		if t.Failed() {
			return
		}
		house(t) // the route as it was
	}
}

// resident is what a process has of the machine's memory, in bytes.
func resident(t *testing.T, process int) (bytes int64) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", process))
	must(t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			_, err := fmt.Sscanf(rest, "%d kB", &bytes)
			must(t, err)
			return bytes << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
