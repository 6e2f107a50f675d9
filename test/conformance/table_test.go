package conformance

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// coreTests is how many there are in each profile of v1.7.0: a test that the suite left out for whatever reason is missed by it.
var coreTests = map[string]uint32{"GATEWAY-HTTP": 40, "GATEWAY-GRPC": 17}

// promised are features beside those of HTTPRoute that the class has to claim, and whose tests have to pass: somebody's safety hangs on them.
var promised = []features.FeatureName{
	features.SupportGatewayFrontendClientCertificateValidation,
	features.SupportGatewayFrontendClientCertificateValidationInsecureFallback,
}

// promisedTests is how many tests there are of those in v1.7.0.
const promisedTests = 4

// table is what became of each test.
type table struct {
	mu    sync.Mutex // guards rows and began
	began time.Time
	rows  map[string]row
	tests map[string]suite.ConformanceTest
}

type row struct {
	result string        // passed, failed, skipped
	after  time.Duration // from the first test's begin to this one's end
}

func newTable(all []suite.ConformanceTest) *table {
	t := &table{rows: map[string]row{}, tests: map[string]suite.ConformanceTest{}, began: time.Now()}
	for _, test := range all {
		t.tests[test.ShortName] = test
	}
	return t
}

func (t *table) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began = time.Now()
}

func (t *table) add(of *testing.T, test suite.ConformanceTest) {
	result := "passed"
	switch {
	case of.Failed():
		result = "failed"
	case of.Skipped():
		result = "skipped"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows[test.ShortName] = row{result, time.Since(t.began)}
}

// text is the table: tests by name, and skipped ones only where a feature that they need isn't claimed.
func (t *table) text(report *confv1.ConformanceReport, claimed []features.FeatureName) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	count := map[string]int{}
	unclaimed := map[string]int{} // feature: tests that were skipped for it
	fmt.Fprintf(&b, "%-7s %-82s %s\n", "RESULT", "TEST", "ENDED AFTER")
	for _, name := range sorted(t.rows) {
		r := t.rows[name]
		count[r.result]++
		if r.result == "skipped" {
			for _, f := range t.tests[name].Features {
				if !slices.Contains(claimed, f) {
					unclaimed[string(f)]++
				}
			}
			continue
		}
		kind := ""
		if t.tests[name].Provisional {
			kind = "provisional"
		}
		fmt.Fprintf(&b, "%-7s %-82s %7.1f s  %s\n", r.result, name, r.after.Seconds(), kind)
	}
	fmt.Fprintf(&b, "\n%d passed, %d failed, %d skipped for features that are not claimed:", count["passed"], count["failed"], count["skipped"])
	for _, f := range sorted(unclaimed) {
		fmt.Fprintf(&b, " %s (%d)", f, unclaimed[f])
	}
	b.WriteString("\n\n")
	for _, p := range report.ProfileReports {
		profileText(&b, p)
	}
	return b.String()
}

func profileText(b *strings.Builder, p confv1.ProfileReport) {
	fmt.Fprintf(b, "%s: core %d of %d", p.Name, p.Core.Passed, coreTests[p.Name])
	for _, name := range p.Core.FailedTests {
		fmt.Fprintf(b, "\n  failed: %s", name)
	}
	if e := p.Extended; e != nil {
		fmt.Fprintf(b, "; extended %d of %d tests, %d of %d features", e.Passed, e.Passed+e.Failed+e.Skipped,
			len(e.SupportedFeatures), len(e.SupportedFeatures)+len(e.UnsupportedFeatures))
		for _, name := range e.FailedTests {
			fmt.Fprintf(b, "\n  failed: %s", name)
		}
		fmt.Fprintf(b, "\n  claimed: %s\n  not claimed: %s", strings.Join(e.SupportedFeatures, " "), strings.Join(e.UnsupportedFeatures, " "))
	}
	b.WriteString("\n")
}

// missing says what of the promise isn't kept: each core test passes, the extended features of HTTPRoute in the standard channel and those promised
// are claimed, and the tests of those promised were run and passed. Which other tests failed is told by the suite itself.
func (t *table) missing(report *confv1.ConformanceReport, claimed []features.FeatureName) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for name, want := range coreTests {
		i := slices.IndexFunc(report.ProfileReports, func(p confv1.ProfileReport) bool { return p.Name == name })
		if i < 0 {
			out = append(out, "no result for profile "+name)
			continue
		}
		if got := report.ProfileReports[i].Core.Passed; got != want {
			out = append(out, fmt.Sprintf("%s: %d core tests of %d passed", name, got, want))
		}
	}
	for f := range features.HTTPRouteExtendedFeatures {
		if f.Channel == features.FeatureChannelStandard && !slices.Contains(claimed, f.Name) {
			out = append(out, fmt.Sprintf("the GatewayClass doesn't claim %s", f.Name))
		}
	}
	for _, f := range promised {
		if !slices.Contains(claimed, f) {
			out = append(out, fmt.Sprintf("the GatewayClass doesn't claim %s", f))
		}
	}
	passed := 0
	for name, test := range t.tests {
		if !slices.ContainsFunc(promised, func(f features.FeatureName) bool { return slices.Contains(test.Features, f) }) {
			continue
		}
		if result := t.rows[name].result; result == "passed" {
			passed++
		} else {
			out = append(out, fmt.Sprintf("%s %s, and has to pass", name, cmp.Or(result, "did not run")))
		}
	}
	if passed != promisedTests {
		out = append(out, fmt.Sprintf("%d tests of %v passed, of %d", passed, promised, promisedTests))
	}
	sort.Strings(out)
	return out
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
