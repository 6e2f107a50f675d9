package conformance

import (
	"cmp"
	"context"
	"flag"
	"os"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

var tablePath = flag.String("table", "", "file for the table of results; empty: only the log has it")

func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	options.Implementation = confv1.Implementation{
		Organization: "gatehouse-dev", Project: "gatehouse", URL: "https://github.com/gatehouse-dev/gatehouse",
		Version: cmp.Or(options.Implementation.Version, "dev"), Contact: []string{"https://github.com/gatehouse-dev/gatehouse/issues"},
	}
	claimed := claims(t, options.Client, options.GatewayClassName)
	single := options.RunTest != ""
	if single {
		// The suite asks the class only where no test is chosen.
		options.SupportedFeatures = claimed
	}

	outcome := newTable(tests.ConformanceTests)
	options.Hook = func(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) { outcome.add(t, test) }
	s, err := suite.NewConformanceTestSuite(options)
	if err != nil {
		t.Fatalf("the suite can't begin: %v", err)
	}
	// Run returns before its parallel tests, so what comes after them is a cleanup. It stands above Run's own, and so runs later.
	t.Cleanup(func() { tell(t, s, outcome, claimed, options.ReportOutputPath, single) })
	s.Setup(t, tests.ConformanceTests)
	outcome.begin()
	if err := s.Run(t, tests.ConformanceTests); err != nil {
		t.Fatalf("the suite can't run: %v", err)
	}
}

// claims are the features that the GatewayClass says it supports.
func claims(t *testing.T, c client.Client, class string) []features.FeatureName {
	var object gwv1.GatewayClass
	if err := c.Get(context.Background(), client.ObjectKey{Name: class}, &object); err != nil {
		t.Fatalf("read the GatewayClass: %v", err)
	}
	var names []features.FeatureName
	for _, f := range object.Status.SupportedFeatures {
		names = append(names, features.FeatureName(f.Name))
	}
	return names
}

// tell writes the table and the report, and fails when a core test is missing or a promised feature isn't claimed.
func tell(t *testing.T, s *suite.ConformanceTestSuite, outcome *table, claimed []features.FeatureName, reportPath string, single bool) {
	report, err := s.Report()
	if err != nil {
		t.Errorf("no report: %v", err)
		return
	}
	text := outcome.text(report, claimed)
	t.Log("\n" + text)
	if *tablePath != "" {
		if err := os.WriteFile(*tablePath, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
	if reportPath != "" {
		raw, err := yaml.Marshal(report)
		if err != nil {
			t.Errorf("marshal the report: %v", err)
		} else if err := os.WriteFile(reportPath, raw, 0o644); err != nil {
			t.Error(err)
		}
	}
	if single {
		return
	}
	for _, missing := range outcome.missing(report, claimed) {
		t.Error(missing)
	}
}
