package conformance

import (
	"slices"
	"strings"
	"testing"

	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/pkg/features"
)

func TestWhatIsPromisedAndDoesNotPassIsMissed(t *testing.T) {
	report := &confv1.ConformanceReport{}
	for name, n := range coreTests {
		report.ProfileReports = append(report.ProfileReports, confv1.ProfileReport{
			Name: name, Core: confv1.Status{Statistics: confv1.Statistics{Passed: n}},
		})
	}
	claimed := slices.Clone(promised)
	for f := range features.HTTPRouteExtendedFeatures {
		claimed = append(claimed, f.Name)
	}
	all := newTable(tests.ConformanceTests)
	for name := range all.tests {
		all.rows[name] = row{result: "passed"}
	}
	if got := all.missing(report, claimed); len(got) != 0 {
		t.Errorf("nothing is missing, but %q", got)
	}
	for what, change := range map[string]func() (result string, claimed []features.FeatureName){
		"skipped":     func() (string, []features.FeatureName) { return "skipped", claimed },
		"failed":      func() (string, []features.FeatureName) { return "failed", claimed },
		"did not run": func() (string, []features.FeatureName) { return "", claimed },
		"doesn't claim GatewayFrontendClientCertificateValidation": func() (string, []features.FeatureName) { return "passed", claimed[1:] },
	} {
		result, claims := change()
		all.rows["GatewayFrontendClientCertificateValidation"] = row{result: result}
		if got := all.missing(report, claims); !slices.ContainsFunc(got, func(m string) bool { return strings.Contains(m, what) }) {
			t.Errorf("%s: missing is %q", what, got)
		}
	}
}
