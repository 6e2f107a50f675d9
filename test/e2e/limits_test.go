//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// limitText is YAML of a RateLimitPolicy of a route that allows so many requests to each x-client. The window is so long that none comes back
// while a test runs.
func limitText(name, route, scope string, requests int) string {
	return fmt.Sprintf(`---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: %s, namespace: e2e}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: %s}]
  %s
  limits: [{name: clients, key: ['request.headers["x-client"]'], rates: [{requests: %d, window: 100h}]}]
`, name, route, scope, requests)
}

// spend asks a replica for a client until it refuses, and says how often it has admitted.
func spend(address string, q question, client string) (int, error) {
	for n := 0; ; n++ {
		a, err := q.with("X-Client", client).at(address)
		switch {
		case err != nil:
			return n, err
		case a.status == 429:
			return n, nil
		case a.status != 200:
			return n, fmt.Errorf("%d %.200q", a.status, a.body)
		}
	}
}

// spendAll does so at all replicas, one after the other.
func spendAll(t *testing.T, at map[string]string, q question, client string) (sum int, each map[string]int) {
	t.Helper()
	each = map[string]int{}
	for pod, address := range at {
		n, err := spend(address, q, client)
		must(t, err)
		each[pod] = n
		sum += n
	}
	return sum, each
}

func TestADividedLimitHoldsForAllReplicasTogetherAlsoWhenTheyBecomeMoreOrFewer(t *testing.T) {
	_, g := guarded(t, "guarded")
	const limit = 120
	applied(t, limitText("divided", "guarded-closed", "scope: Divided", limit))
	inForce(t, "the limit", rateLimitPolicy(t, shop, "divided"))
	q := question{host: "closed.example", path: "/"}
	keys := 0
	// settled waits until each of n replicas admits its share to a client that nobody knows yet.
	settled := func(n int) map[string]string {
		t.Helper()
		at := each(t, shop, "guarded", 80)
		until(t, time.Minute, fmt.Sprintf("each of %d replicas admits its share", n), func() error {
			keys++
			sum, shares := spendAll(t, at, q, fmt.Sprintf("fresh-%d", keys))
			for pod, share := range shares {
				if share != (limit+n-1)/n {
					return fmt.Errorf("%s admitted %d", pod, share)
				}
			}
			if len(shares) != n || sum < limit || sum > limit+n {
				return fmt.Errorf("%d in all: %v", sum, shares)
			}
			t.Logf("%d replicas: %d in all, %v", n, sum, shares)
			return nil
		})
		return at
	}
	at := settled(2)
	known, _ := spendAll(t, at, q, "known")
	// Whoever comes by the Service's address, a connection for each request, gets the same.
	served := 0
	for n := 0; n < 10*limit; n++ {
		a, err := q.with("X-Client", "spread").at(g.http)
		must(t, err)
		if a.status == 200 {
			served++
		}
	}
	t.Logf("through kube-proxy: %d of %d requests were admitted by a limit of %d", served, 10*limit, limit)
	if served < limit || served > limit+2 {
		t.Errorf("two replicas together admitted %d, want %d to %d", served, limit, limit+2)
	}

	l := begin(t, g, *rate)
	restored := false
	t.Cleanup(func() {
		if !restored {
			upgrade(t)
		}
	})
	upgrade(t, "--set", "replicas=3")
	at = settled(3)
	more, _ := spendAll(t, at, q, "known")
	upgrade(t)
	restored = true
	at = settled(2)
	again, _ := spendAll(t, at, q, "known")
	// requests + n + (joined + left) × (share + 2n), as the README of the filter says.
	bound := limit + 3 + 2*(limit/2+2*3)
	t.Logf("a client that had spent all (%d) was admitted %d times more when a replica joined, and %d times when one left; the bound is %d", known, more, again, bound)
	if known+more > limit+3+limit/2+2*3 || known+more+again > bound {
		t.Errorf("%d, %d and %d were admitted", known, more, again)
	}
	l.endsClean()
}

// redis is a store, until its input ends: with the test, or with this process.
type redis struct {
	address string
	in      io.Closer
	cmd     *exec.Cmd
}

const storePassword = "s3cret of the store"

// startRedis starts one at the node, where pods reach it. It keeps nothing on disk.
func startRedis(t *testing.T, address string) *redis {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	must(t, err)
	dir := os.Getenv("GATEHOUSE_REDIS")
	if dir == "" {
		t.Fatal("GATEHOUSE_REDIS is not set: run hack/e2e.sh e2e, which says where redis-server is")
	}
	cmd := exec.Command("sh", "-c", `"$@" & read _; kill -9 $!; wait $!`, "sh", filepath.Join(dir, "redis-server"),
		"--bind", host, "--port", port, "--requirepass", storePassword, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	r := &redis{address, in, cmd}
	t.Cleanup(r.stop)
	until(t, 10*time.Second, "the store answers", func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
	return r
}

// stop ends it, as a crash does.
func (r *redis) stop() {
	r.in.Close()
	r.cmd.Wait()
}

// counted is the sum of a replica's metric over all its labels that have the words.
func counted(t *testing.T, p corev1.Pod, name string, words ...string) float64 {
	t.Helper()
	a, err := question{host: p.Status.PodIP, path: "/metrics"}.at(net.JoinHostPort(p.Status.PodIP, "8081"))
	must(t, err)
	if a.status != 200 {
		t.Fatalf("metrics of %s: %d %s", p.Name, a.status, a.body)
	}
	sum := 0.0
	for lines := bufio.NewScanner(strings.NewReader(a.body)); lines.Scan(); {
		labels, value, _ := strings.Cut(lines.Text(), "} ")
		has := strings.HasPrefix(labels, name+"{")
		for _, w := range words {
			has = has && strings.Contains(labels, w)
		}
		if has {
			v, err := strconv.ParseFloat(value, 64)
			must(t, err)
			sum += v
		}
	}
	return sum
}

func TestASharedLimitIsOneForAllReplicasAndDoesWhatItSaysWithoutItsStore(t *testing.T) {
	at, g := guarded(t, "guarded")
	const limit = 100
	host := map[string]string{}
	for _, choice := range []string{"Deny", "Allow", "Local"} {
		name := "shared-" + strings.ToLower(choice)
		host[choice] = name + ".example"
		applied(t, routeText(shop, name, "guarded", host[choice], "/", "blue")+limitText(name, name, "scope: Shared\n  onStoreFailure: "+choice, limit))
	}
	deny, allow, local := question{host: host["Deny"], path: "/"}, question{host: host["Allow"], path: "/"}, question{host: host["Local"], path: "/"}

	// Nobody has configured a store: it is said, and they do as they say.
	for choice, words := range map[string][]string{"deny": {"503"}, "allow": {"admitted"}, "local": {"share"}} {
		says(t, time.Minute, "a shared limit ("+choice+") without a store", rateLimitPolicy(t, shop, "shared-"+choice), "Programmed", metav1.ConditionFalse,
			append(words, "NoStore", "store.addresses")...)
	}
	for _, row := range table(t, "ratelimitpolicies", "--namespace", shop) {
		if row["ACCEPTED"] != "True" || row["PROGRAMMED"] != "False" || row["SCOPE"] != "Shared" {
			t.Errorf("kubectl says %v", row)
		}
	}
	eachSays(t, time.Minute, at, deny, 503)
	eachSays(t, time.Minute, at, allow, 200)

	l := begin(t, g, *rate)
	address := net.JoinHostPort(nodeAddress(t), "7379")
	store := startRedis(t, address)
	applied(t, fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: store, namespace: %s}\nstringData: {password: %q}\n", system, storePassword))
	t.Cleanup(func() { upgrade(t) })
	// Patience with the store, as this machine may stand still for longer than the default of 50 ms.
	upgrade(t, "--set-json", `store={"addresses":["`+address+`"],"passwordSecret":{"name":"store"},"timeout":"2s"}`)
	rolled(t, system, "gatehouse")
	for choice := range host {
		inForce(t, "the shared limit "+choice, rateLimitPolicy(t, shop, "shared-"+strings.ToLower(choice)))
	}
	at = each(t, shop, "guarded", 80)
	eachSays(t, time.Minute, at, deny, 200)

	t.Run("one counter", func(t *testing.T) {
		sum, shares := spendAll(t, at, deny, "one-after-the-other")
		t.Logf("%d in all: %v", sum, shares)
		if sum != limit {
			t.Errorf("%d were admitted, want %d", sum, limit)
		}
		var admitted, refused atomic.Int64
		var all sync.WaitGroup
		for pod, address := range at {
			for range 4 {
				all.Go(func() {
					for range 50 {
						a, err := deny.with("X-Client", "all-at-once").at(address)
						switch {
						case err != nil:
							t.Errorf("%s: %v", pod, err)
						case a.status == 200:
							admitted.Add(1)
						case a.status == 429:
							refused.Add(1)
						default:
							t.Errorf("%s: %d %q", pod, a.status, a.body)
						}
					}
				})
			}
		}
		all.Wait()
		t.Logf("of %d at once, %d were admitted by a limit of %d", admitted.Load()+refused.Load(), admitted.Load(), limit)
		if admitted.Load() != limit {
			t.Errorf("%d were admitted, want %d", admitted.Load(), limit)
		}
	})
	spendAll(t, at, local, "spent")
	is(t, at, local.with("X-Client", "spent"), 429) // now both replicas have seen it
	is(t, at, deny.with("X-Client", "one-after-the-other"), 429)

	were := replicas(t)
	store.stop()
	gone := time.Now()
	eachSays(t, 30*time.Second, at, deny, 503)
	t.Logf("%.2f s after the store was gone, each replica refused what is not to be admitted without it", time.Since(gone).Seconds())
	for range 2 * limit {
		is(t, at, allow.with("X-Client", "anybody"), 200)
	}
	is(t, at, local.with("X-Client", "spent"), 429)
	sum, shares := spendAll(t, at, local, "new")
	t.Logf("without a store, a new client was admitted %d times: %v", sum, shares)
	if sum < limit || sum > limit+2 {
		t.Errorf("%d were admitted, want the shares of a limit of %d", sum, limit)
	}
	for _, p := range were {
		for _, choice := range []string{"deny", "allow", "local"} {
			if n := counted(t, p, "gatehouse_filter_ratelimit_store_failures_total", "shared-"+choice); n == 0 {
				t.Errorf("%s counted no failures of the store for shared-%s", p.Name, choice)
			}
		}
	}

	// Another one, that has lost everything.
	startRedis(t, address)
	back := time.Now()
	eachSays(t, 30*time.Second, at, deny.with("X-Client", "another"), 200)
	t.Logf("%.2f s after the store was back, it was asked again", time.Since(back).Seconds())
	is(t, at, local.with("X-Client", "spent"), 429)
	is(t, at, deny.with("X-Client", "one-after-the-other"), 429)
	until(t, 30*time.Second, "nobody is locked out", func() error {
		sum, shares := spendAll(t, at, deny, fmt.Sprintf("later-%d", time.Now().UnixNano()))
		if sum != limit {
			return fmt.Errorf("%d in all: %v", sum, shares)
		}
		return nil
	})
	unharmed(t, were)
	l.endsClean()
}
