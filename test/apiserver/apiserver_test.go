// Package apiserver holds no code but a test: our CRDs and the Gateway API's stand in a real API server, and it says of
// each sample what controllers/source says of it without one. Samples are the files in controllers/source/testdata.
package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/hack/kube"
)

const (
	samples = "../../controllers/source/testdata"
	ourCRDs = "../../config/crd"
)

// TestTheAPIServerAndTheFilesAgree starts one API server for all that is asked of it; the parts do not change it but for
// the valid samples, which are created once.
func TestTheAPIServerAndTheFilesAgree(t *testing.T) {
	server := newServer(t)
	t.Run("AnInvalidSampleIsRefusedByBothWithTheSameMessage", server.refusesInvalidSamples)
	t.Run("AValidSampleIsTakenByBothWithTheSameDefaults", func(t *testing.T) { server.takes(t, samples+"/valid") })
	t.Run("TheSamplesOfTheReadmeCanBeApplied", func(t *testing.T) { server.takes(t, glob(t, "../../config/samples/*.yaml")...) })
	t.Run("TheSamplesOfAuthPoliciesCanBeApplied", func(t *testing.T) { server.takes(t, glob(t, "../../config/samples/auth/*.yaml")...) })
	t.Run("EveryRuleOfOurCRDsHasASampleThatBreaksIt", everyRuleHasASample)
	t.Run("KubectlShowsThePolicysColumns", server.showsColumns)
}

// server is an API server with all CRDs.
type server struct {
	*kube.Control
	client *http.Client
}

func newServer(t *testing.T) *server {
	s := &server{Control: kube.ForTest(t)}
	s.client = s.Client()
	t.Cleanup(s.client.CloseIdleConnections)
	for _, pattern := range []string{filepath.Join(gatewayAPI(t), "config/crd/standard/gateway.networking.k8s.io_*s.yaml"), ourCRDs + "/*.yaml"} {
		for _, file := range glob(t, pattern) {
			s.addCRD(t, file)
		}
	}
	for _, name := range []string{"infra", "web"} { // what the samples use and do not declare
		s.mustCreate(t, []byte(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "`+name+`"}}`))
	}
	return s
}

// gatewayAPI is where the module that go.mod names lies.
func gatewayAPI(t *testing.T) string {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatalf("where is the Gateway API module? %v", err)
	}
	return strings.TrimSpace(string(out))
}

// addCRD returns when the kind is served.
func (s *server) addCRD(t *testing.T, file string) {
	t.Helper()
	text := readJSON(t, file)
	if crd := parse(t, text); crd.Kind != "CustomResourceDefinition" {
		return
	}
	s.mustCreate(t, text)
	path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + parse(t, text).Name
	for {
		var crd struct {
			Status struct {
				Conditions []metav1.Condition `json:"conditions"`
			} `json:"status"`
		}
		_, body := s.call(t, http.MethodGet, path, nil)
		if err := json.Unmarshal(body, &crd); err != nil {
			t.Fatal(err)
		}
		for _, c := range crd.Status.Conditions {
			if c.Type == "Established" && c.Status == "True" {
				return
			}
			if c.Status == "False" && c.Type != "Established" {
				t.Fatalf("%s: %s: %s", file, c.Reason, c.Message)
			}
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s was never served", file)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *server) refusesInvalidSamples(t *testing.T) {
	for _, file := range glob(t, samples+"/invalid/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			message := want(t, file)
			status, body := s.create(t, readJSON(t, file), "?dryRun=All&fieldValidation=Strict")
			if status < 400 {
				t.Fatalf("the API server takes it (%d)", status)
			}
			var said metav1.Status
			if err := json.Unmarshal(body, &said); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(said.Message, message) {
				t.Errorf("want %q; the API server says: %s", message, said.Message)
			}
			var ours []string
			for _, p := range source.NewLoader([]string{file}).Load().Problems {
				ours = append(ours, p.String())
			}
			if !strings.Contains(strings.Join(ours, "\n"), message) {
				t.Errorf("want %q; source says:\n%s", message, strings.Join(ours, "\n"))
			}
		})
	}
}

// takes applies files or folders as a user would, with kubectl, and compares what becomes of them with what source makes of them.
func (s *server) takes(t *testing.T, paths ...string) {
	command := s.Kubectl(t.Context(), "apply", "--server-side", "--validate=strict", "-o", "json", "-f", strings.Join(paths, ","))
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, stderr.String())
	}
	theirs := map[string]map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var object map[string]any
		if err := decoder.Decode(&object); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, item := range itemsOf(object) {
			theirs[name(item)] = item
		}
	}

	result := source.NewLoader(paths).Load()
	for _, p := range result.Problems {
		t.Error(p)
	}
	compared := 0
	for _, obj := range result.Objects {
		if file, line := result.Origin(obj.GetObjectKind().GroupVersionKind().Kind, obj.GetNamespace(), obj.GetName()); file == "" {
			t.Errorf("%s has no origin (line %d)", obj.GetName(), line)
		}
		mine := asMap(t, obj)
		other, ok := theirs[name(mine)]
		if !ok {
			if mine["kind"] == "Namespace" { // implied
				continue
			}
			t.Errorf("the API server did not return %s", name(mine))
			continue
		}
		compared++
		if isCustom(obj) {
			other = sameType(t, other, obj)
			other["apiVersion"] = mine["apiVersion"] // v1beta1 is returned as it was asked for
			dropServersOwn(mine)
			dropServersOwn(other)
			if diff := cmp.Diff(other, mine); diff != "" {
				t.Errorf("%s (-API server +source):\n%s", name(mine), diff)
			}
			continue
		}
		dropServersOwn(mine)
		for _, missing := range notIn(other, mine, "") {
			t.Errorf("%s: %s", name(mine), missing)
		}
	}
	if compared != len(theirs) {
		t.Errorf("compared %d objects of %d", compared, len(theirs))
	}
}

// everyRuleHasASample reads the rules out of the CRDs themselves: a new rule without a sample fails here.
func everyRuleHasASample(t *testing.T) {
	var wanted []string
	for _, file := range glob(t, samples+"/invalid/*.yaml") {
		wanted = append(wanted, want(t, file))
	}
	all := strings.Join(wanted, "\n")
	rules := 0
	for _, file := range glob(t, ourCRDs+"/*.yaml") {
		var crd any
		if err := json.Unmarshal(readJSON(t, file), &crd); err != nil {
			t.Fatal(err)
		}
		eachRule(crd, func(message string) {
			rules++
			if message == "" || !strings.Contains(all, message) {
				t.Errorf("%s: no sample is refused with %q", filepath.Base(file), message)
			}
		})
	}
	if rules == 0 {
		t.Error("no rules found")
	}
}

func eachRule(x any, visit func(message string)) {
	switch x := x.(type) {
	case map[string]any:
		if rules, ok := x["x-kubernetes-validations"].([]any); ok {
			for _, rule := range rules {
				message, _ := rule.(map[string]any)["message"].(string)
				visit(message)
			}
		}
		for _, value := range x {
			eachRule(value, visit)
		}
	case []any:
		for _, value := range x {
			eachRule(value, visit)
		}
	}
}

func (s *server) showsColumns(t *testing.T) {
	for _, p := range []struct{ resource, short, name, mode, columns string }{
		{"ratelimitpolicies", "rlp", "api-limits", "Enforce", "NAME TARGET ACCEPTED PROGRAMMED MODE SCOPE AGE"},
		{"authpolicies", "authp", "everything", "Shadow", "NAME TARGET ACCEPTED PROGRAMMED MODE AGE"},
	} {
		t.Run(p.resource, func(t *testing.T) { s.showsColumnsOf(t, p.resource, p.short, p.name, p.mode, p.columns) })
	}
}

func (s *server) showsColumnsOf(t *testing.T, resource, short, name, mode, columns string) {
	path := "/apis/gatehouse.dev/v1alpha1/namespaces/web/" + resource + "/" + name
	condition := `{"type": %q, "status": %q, "reason": "Because", "message": "", "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}`
	status := fmt.Sprintf(`{"status": {"ancestors": [{"ancestorRef": {"name": "public"}, "controllerName": "gatehouse.dev/gateway-controller",
		"conditions": [`+condition+`, `+condition+`]}]}}`, "Accepted", "True", "Programmed", "False")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, s.Host+path+"/status", strings.NewReader(status))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/merge-patch+json")
	if code, body := s.do(t, request); code != http.StatusOK {
		t.Fatalf("writing a status: %d %s", code, body)
	}
	out, err := s.Kubectl(t.Context(), "get", short, "-n", "web", name).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 {
		t.Fatalf("want a head and a line:\n%s", out)
	}
	if got := strings.Join(strings.Fields(lines[0]), " "); got != columns {
		t.Errorf("columns are %s, want %s", got, columns)
	}
	if got := strings.Fields(lines[1]); len(got) < 5 || got[0] != name || !strings.Contains(lines[1], "True") || !strings.Contains(lines[1], "False") || !strings.Contains(lines[1], mode) {
		t.Errorf("the line is %q", lines[1])
	}
}
