package run

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/process"
)

// edition is one of the many contents of a file: rules come, go and change places, weights change, and the rule that is asked for all
// the time stays. Each carries the edition's number in a header of the request and of the answer: whoever sees two has seen two snapshots.
func edition(n int, r *rand.Rand) string {
	modify := fmt.Sprintf("[{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Edition, value: \"%d\"}]}}, "+
		"{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Edition, value: \"%d\"}]}}]", n, n)
	rule := func(name, match, backends string) string {
		return fmt.Sprintf("  - name: %s\n    matches: [%s]\n    filters: %s\n    backendRefs: %s\n", name, match, modify, backends)
	}
	weights := fmt.Sprintf("[{name: shop, port: 8080, weight: %d}, {name: shop-green, port: 8080, weight: %d}]", 1+r.IntN(5), r.IntN(5))
	rules := []string{
		rule("stay", "{path: {value: /stay}}", weights),
		rule("canary", `{path: {value: /stay}, headers: [{name: x-canary, value: "1"}]}`, "[{name: shop-green, port: 8080}]"),
	}
	for i := range 10 {
		if r.IntN(2) == 0 {
			rules = append(rules, rule(fmt.Sprintf("come-%d", i), fmt.Sprintf("{path: {value: /come/%d}}", i), "[{name: shop, port: 8080}]"))
		}
	}
	r.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: edited}\nspec:\n  parentRefs: [{name: public}]\n  rules:\n" +
		strings.Join(rules, "")
}

func TestAThousandEditsUnderLoadFailNoRequest(t *testing.T) {
	edits := 1000
	if testing.Short() {
		edits = 50
	}
	w := samples(t)
	r := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	w.write(t, "edited.yaml", edition(0, r))
	p := start(t, "-f", w.dir)

	l := &load{t: t, w: w, path: "/stay/here", stop: make(chan struct{}), check: func(r reply) string {
		a, b := r.Header.Get("X-Edition"), r.header.Get("X-Edition")
		switch {
		case r.status != 200 || r.Backend != "blue" && r.Backend != "green" || r.Target != "/stay/here":
			return "not what was asked for"
		case a == "" || a != b:
			return fmt.Sprintf("saw two snapshots: edition %q on the way in, %q on the way out", a, b)
		}
		return ""
	}}
	l.start(2)
	began := time.Now()
	for n := 1; n <= edits; n++ {
		text := edition(n, r)
		// A file that became shorter is believed only after a while, so most editions are as long as the longest.
		if n%100 != 0 {
			text += "# " + strings.Repeat("-", max(0, 6000-len(text))) + "\n"
		}
		if n%2 == 0 {
			w.write(t, "edited.yaml", text)
		} else if err := os.WriteFile(filepath.Join(w.dir, "edited.yaml"), []byte(text), 0o644); err != nil { // emptied first, as many editors do
			t.Fatal(err)
		}
		want := fmt.Sprint(n)
		process.Until(t, "edition "+want+" serves", func() bool {
			got := ask(t, noRedirects, w.url("/stay"), "x-canary", "1")
			if got.status != 200 || got.Backend != "green" {
				t.Fatalf("the canary: %+v", got)
			}
			return got.Header.Get("X-Edition") == want
		})
		if t.Failed() {
			break
		}
	}
	took := time.Since(began)
	l.end()
	t.Logf("%d edits in %v, %d requests, 0 failed", edits, took.Round(time.Millisecond), l.requests.Load())

	// Retries hide nothing.
	if n := p.Metric("gatehouse_retries_total", "") + p.Metric("gatehouse_attempt_replays_total", ""); n != 0 {
		t.Errorf("%v attempts were repeated", n)
	}
	if n := p.Metric("gatehouse_request_failures_total", ""); n != 0 {
		t.Errorf("%v failures were counted: %s", n, p.Series("gatehouse_request_failures_total"))
	}
	p.Signal(syscall.SIGTERM)
}
