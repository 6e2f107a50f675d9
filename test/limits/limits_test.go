//go:build limits

package limits

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/store/storetest"
	"github.com/gatehouse-dev/gatehouse/test/process"
)

// What the policies of these tests admit.
const (
	requests = 200 // in a second
	burst    = 50
)

const sharedRate = `
scope: Shared
limits: [{name: all, rates: [{requests: 200, window: 1s, burst: 50}]}]
`

// slow is a timeout for a machine that runs all of this at once.
const slow = "--store-timeout=1s"

func peers(n int) string { return fmt.Sprint("--peers=", n) }

func TestReplicasTogetherAdmitWhatTheLimitSays(t *testing.T) {
	for _, n := range []int{1, 3, 8} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			server := storetest.Start(t)
			f := newFleet(t, sharedRate, "--store", server.Address(), slow)
			var prepared []*replica
			var dirs, addresses []string
			for range n + 2 {
				r, dir := f.prepare()
				prepared, dirs, addresses = append(prepared, r), append(dirs, dir), append(addresses, r.Health)
			}
			list := "--peers=" + strings.Join(addresses, ",")
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() { f.launch(prepared[i], dirs[i], list) })
			}
			all.Wait()

			l := f.load(clients)
			first := l.now()
			time.Sleep(4 * time.Second)
			admitted, seconds := l.since(first)
			// One whole counter, and what came back since.
			want := requests + burst + requests*seconds
			says, tooFew := l.tooFew(nil, requests)
			if admitted > want*1.01+1 || tooFew {
				t.Errorf("quiet: %.0f were admitted in %.2fs, want %.0f; %s", admitted, seconds, want, says)
			}
			t.Logf("quiet: %.0f were admitted in %.2fs, want %.0f; %s", admitted, seconds, want, says)

			before := l.now()
			f.launch(prepared[n], dirs[n], list)
			f.remove(f.some(0), syscall.SIGKILL)
			f.launch(prepared[n+1], dirs[n+1], list)
			f.remove(f.some(0), syscall.SIGTERM)
			server.Kill()
			time.Sleep(time.Second)
			server.Start()
			eventually(t, "all replicas ask the store again", func() bool {
				for i := range len(f.replicas) {
					if f.some(i).Metric("gatehouse_store_up", "") != 1 {
						return false
					}
				}
				return true
			})
			admitted, seconds = l.since(before)
			most := requests*seconds + requests + burst // one fresh counter for the restart
			if admitted > most*1.01+1 {
				t.Errorf("coming and going: %.0f were admitted in %.2fs, at most %.0f are promised", admitted, seconds, most)
			}
			t.Logf("coming and going: %.0f were admitted in %.2fs, at most %.0f are promised", admitted, seconds, most)

			time.Sleep(500 * time.Millisecond)
			before = l.now()
			l.again()
			time.Sleep(2 * time.Second)
			admitted, seconds = l.since(before)
			says, tooFew = l.tooFew(nil, requests)
			if want := requests * seconds; admitted == 0 || tooFew || admitted > want*1.01+burst+requests {
				t.Errorf("afterwards: %.0f were admitted in %.2fs, want %.0f; %s", admitted, seconds, want, says)
			}
			l.end()
			t.Logf("afterwards: %.0f were admitted in %.2fs; in all %v", admitted, seconds, l)
		})
	}
}

func TestReplicasAdmitTheirSharesTogether(t *testing.T) {
	for _, n := range []int{1, 3, 8} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			f := newFleet(t, strings.Replace(sharedRate, "Shared", "Divided", 1))
			const spare = 1
			var prepared []*replica
			var dirs, addresses []string
			for range n + spare {
				r, dir := f.prepare()
				prepared, dirs, addresses = append(prepared, r), append(dirs, dir), append(addresses, r.Health)
			}
			list := "--peers=" + strings.Join(addresses, ",")
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() { f.launch(prepared[i], dirs[i], list) })
			}
			all.Wait()
			knows := func(live int) {
				eventually(t, fmt.Sprint("all know that they are ", live), func() bool {
					for i := range len(f.replicas) {
						if !strings.HasSuffix(lastLine(f.some(i).Said(), "replicas that share"), fmt.Sprintf("live=%d listed=%d", live, n+spare)) {
							return false
						}
					}
					return true
				})
			}
			knows(n)

			l := f.load(clients)
			first := l.now()
			time.Sleep(4 * time.Second)
			admitted, seconds := l.since(first)
			want := requests + burst + requests*seconds
			if admitted > want+float64(n)+1 {
				t.Errorf("quiet: %.0f were admitted in %.2fs, want %.0f and at most %d more", admitted, seconds, want, n)
			}
			shares := func(when string) {
				for i := range n {
					if says, tooFew := l.tooFew(f.some(i), requests/float64(n)); tooFew {
						t.Errorf("%s, replica %d: %s", when, i, says)
					}
				}
			}
			shares("quiet")
			t.Logf("quiet: %.0f were admitted in %.2fs, want %.0f", admitted, seconds, want)

			before := l.now()
			f.launch(prepared[n], dirs[n], list)
			knows(n + 1)
			joinTook := time.Since(before.at).Seconds()
			f.remove(f.some(0), syscall.SIGKILL)
			knows(n)
			admitted, seconds = l.since(before)
			// README: requests/window × (time + lag of joins) + (joins + leaves) × (share + 2 × members) + members
			share := float64((requests+burst+n-1)/n) + 2*float64(n+1)
			most := requests*(seconds+joinTook) + 2*share + float64(n+1)
			if admitted > most {
				t.Errorf("coming and going: %.0f were admitted in %.2fs, at most %.0f are promised", admitted, seconds, most)
			}
			t.Logf("coming and going: %.0f were admitted in %.2fs, at most %.0f are promised", admitted, seconds, most)

			time.Sleep(500 * time.Millisecond)
			before = l.now()
			l.again()
			time.Sleep(2 * time.Second)
			admitted, seconds = l.since(before)
			shares("afterwards")
			if want := requests * seconds; admitted == 0 || admitted > want*1.01+share {
				t.Errorf("afterwards: %.0f were admitted in %.2fs, want %.0f", admitted, seconds, want)
			}
			l.end()
			t.Logf("afterwards: %.0f were admitted in %.2fs; in all %v", admitted, seconds, l)
		})
	}
}

// lastLine is the last line with a word in it.
func lastLine(text, word string) string {
	for _, line := range slices.Backward(strings.Split(text, "\n")) {
		if strings.Contains(line, word) {
			return line
		}
	}
	return ""
}

func TestPlacesAreSharedAndThoseOfACrashedReplicaEnd(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	f := newFleet(t, "scope: Shared\nlimits: [{name: at-once, concurrency: 6}]", "--store", server.Address(), slow, peers(3))
	for range 3 {
		f.add()
	}
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			for k := range 6 {
				status(f.some(i+k).url + "/limited?delay=50ms")
			}
		})
	}
	all.Wait()
	if most := f.backend.most.Load(); most > 6 || most < 3 {
		t.Errorf("%d were under way at once, of 6", most)
	}

	// One dies with four under way.
	dying := f.some(0)
	for range 4 {
		go status(dying.url + "/limited?delay=60s")
	}
	eventually(t, "four are under way", func() bool { return f.backend.now.Load() == 4 })
	f.remove(dying, syscall.SIGKILL)
	free := func() (n int) { // how many places the others get
		var codes [8]int
		var asking sync.WaitGroup
		for i := range codes {
			asking.Go(func() { codes[i] = status(f.some(i).url + "/limited?delay=300ms") })
		}
		asking.Wait()
		for _, c := range codes {
			if c == 200 {
				n++
			}
		}
		return n
	}
	if n := free(); n != 2 {
		t.Errorf("%d places are free at once, want 2", n)
	}
	began := time.Now()
	eventually(t, "all places are free again", func() bool { return free() == 6 })
	t.Logf("the places of the dead were free after %v", time.Since(began).Round(time.Second))
}

func TestEachPolicyDoesWhatItSaysWhenTheStoreIsAway(t *testing.T) {
	t.Parallel()
	for failure, want := range map[string]int{"Deny": 503, "Allow": 200, "Local": 429} {
		t.Run(failure, func(t *testing.T) {
			server := storetest.Start(t)
			f := newFleet(t, fmt.Sprintf("scope: Shared\nonStoreFailure: %s\nlimits: [{name: all, key: [source.ip], rates: [{requests: 2, window: 10s}]}]", failure),
				"--store", server.Address(), slow)
			r := f.add()
			for i, want := range []int{200, 200, 429} {
				if got := status(r.url + "/limited"); got != want {
					t.Errorf("request %d: %d, want %d", i, got, want)
				}
			}
			page := f.page(r.Admin + "/filters/ratelimit")
			if !strings.Contains(page, "/all 2/10s by source.ip shared or "+strings.ToLower(failure)) || !strings.Contains(page, `0 of 2 left, all in `) {
				t.Errorf("the admin page says\n%s", page)
			}
			if used := r.Metric("gatehouse_filter_ratelimit_used_ratio", `limit="all"`); used < 0.5 {
				t.Errorf("the metric says that %v is used", used)
			}
			server.Kill()
			eventually(t, fmt.Sprint("the answer is ", want), func() bool { return status(r.url+"/limited") == want })
			eventually(t, "the metric says that the store is down", func() bool {
				return status(r.url+"/limited") == want && r.Metric("gatehouse_store_up", "") == 0
			})
			if status(r.url+"/free") != 200 {
				t.Error("what has no limit is not served")
			}
			server.Start()
			eventually(t, "it counts and admits again", func() bool {
				return r.Metric("gatehouse_store_up", "") == 1 && status(r.url+"/limited") == 200
			})
			if failures := r.Metric("gatehouse_filter_ratelimit_store_failures_total", ""); failures == 0 {
				t.Error("no failure was counted")
			}
		})
	}
}

func TestAClusterDecidesForReplicas(t *testing.T) {
	t.Parallel()
	nodes := storetest.Cluster(t, 3)
	f := newFleet(t, "scope: Shared\nlimits: [{name: all, key: ['request.query[\"k\"]'], rates: [{requests: 10, window: 1h}, {requests: 50, window: 24h}]}]",
		"--store", nodes[0].Address()+","+nodes[1].Address(), "--store-mode=cluster", slow)
	f.add()
	f.add()
	for k := range 5 {
		got := 0
		for i := range 15 {
			if status(fmt.Sprintf("%s/limited?k=%d", f.some(i).url, k)) == 200 {
				got++
			}
		}
		if got != 10 {
			t.Errorf("key %d: %d were admitted, want 10", k, got)
		}
	}
}

func TestAFailoverOfSentinelsLocksNobodyOutAndIsAtMostAFreshStart(t *testing.T) {
	t.Parallel()
	w := storetest.Sentinels(t)
	var sentinels []string
	for _, s := range w.Sentinels {
		sentinels = append(sentinels, s.Address())
	}
	f := newFleet(t, sharedRate, "--store", strings.Join(sentinels, ","), "--store-mode=sentinel", "--store-primary", storetest.PrimaryName, slow, peers(2))
	f.add()
	f.add()
	l := f.load(6)
	first := l.now()
	time.Sleep(time.Second)
	w.Primary.Kill()
	eventually(t, "the replica is the primary, and asked", func() bool {
		return w.Replica.Says("ROLE") == "*3" && f.some(0).Metric("gatehouse_store_up", "") == 1 && f.some(1).Metric("gatehouse_store_up", "") == 1
	})
	time.Sleep(time.Second)
	admitted, seconds := l.since(first)
	l.end()
	most := requests*seconds + 2*(requests+burst)
	if admitted > most*1.01 || admitted < requests*seconds*0.6 {
		t.Errorf("%.0f were admitted in %.2fs, at most %.0f are promised", admitted, seconds, most)
	}
	t.Logf("%.0f were admitted in %.2fs, at most %.0f are promised; %v", admitted, seconds, most, l)
}

func TestACostThatTheAnswerTellsIsSharedToo(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	f := newFleet(t, `
scope: Shared
limits: [{name: tokens, rates: [{requests: 100, window: 1h}], cost: 'int(response.headers["x-tokens-used"])', costFrom: Response}]`,
		"--store", server.Address(), slow)
	a, b := f.add(), f.add()
	if got := status(a.url + "/limited?tokens=99"); got != 200 {
		t.Fatal(got)
	}
	eventually(t, "the other one has one left, and then none", func() bool { return strings.HasPrefix(left(b.url+"/limited?tokens=0"), `"tokens";r=0`) })
	if got := status(b.url + "/limited?tokens=50"); got != 200 {
		t.Error("the last one was refused")
	}
	eventually(t, "both refuse", func() bool { return status(a.url+"/limited") == 429 && status(b.url+"/limited") == 429 })
}

func left(url string) string {
	answer, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	answer.Body.Close()
	return answer.Header.Get("RateLimit")
}

// TestTheLatencyThatAStoreAdds prints it; what is held is only that it is no disaster.
func TestTheLatencyThatAStoreAdds(t *testing.T) {
	server := storetest.Start(t)
	spec := func(scope string) string {
		return "scope: " + scope + "\nlimits: [{name: all, key: [source.ip], rates: [{requests: 1000000000, window: 1s}, {requests: 1000000000, window: 1h}]}]"
	}
	measure := func(f *fleet, path string) (p50, p99 time.Duration) {
		r := f.some(0)
		var took []time.Duration
		for range 3000 {
			began := time.Now()
			if got := status(r.url + path); got != 200 {
				t.Fatal(got)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took[len(took)/2], took[len(took)*99/100]
	}
	local, shared := newFleet(t, spec("Local")), newFleet(t, spec("Shared"), "--store", server.Address(), slow)
	local.add()
	shared.add()
	measure(local, "/free") // warm
	measure(shared, "/limited")
	f50, f99 := measure(shared, "/free")
	l50, l99 := measure(local, "/limited")
	s50, s99 := measure(shared, "/limited")
	t.Logf("without a limit p50 %v p99 %v; Local p50 %v p99 %v; Shared p50 %v p99 %v (added %v and %v)", f50, f99, l50, l99, s50, s99, s50-f50, s99-f99)
	if s50-f50 > 5*time.Millisecond {
		t.Errorf("the store adds %v", s50-f50)
	}
}

func TestCheckTellsThatAStoreIsMissing(t *testing.T) {
	files := []string{"check", "-f", filepath.Join(process.Root, "config", "samples"), "-f", filepath.Join(process.Root, "config", "shared")}
	out, errs, code := process.Command(t, files...)
	if code == 0 || !strings.Contains(out+errs, "shared/ratelimit.yaml:16: RateLimitPolicy default/models: spec.scope: no store is configured") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	if out, errs, code := process.Command(t, append(files, "--with-store")...); code != 0 || strings.Contains(out+errs, "=False") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
}
