//go:build chart

package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/hack/kube"
)

// server is a real API server, without controllers: what is created stays as it was created.
type server struct {
	*kube.Control
	client *http.Client
	paths  map[string]string // apiVersion/kind → path, with %s for the namespace where there is one
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{Control: kube.ForTest(t), paths: map[string]string{}}
	s.client = s.Client()
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// request is one to the API server; as is whom to impersonate, "" the administrator.
type request struct {
	method, path, as string
	body             any
}

// do returns status and body of the answer.
func (s *server) do(t *testing.T, r request) (int, object) {
	t.Helper()
	var body bytes.Buffer
	if r.body != nil {
		if err := json.NewEncoder(&body).Encode(r.body); err != nil {
			t.Fatal(err)
		}
	}
	q, err := http.NewRequestWithContext(t.Context(), r.method, s.Host+r.path, &body)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	if r.method == http.MethodPatch {
		q.Header.Set("Content-Type", "application/merge-patch+json")
		if strings.Contains(r.path, "fieldManager=") {
			q.Header.Set("Content-Type", "application/apply-patch+yaml")
		}
	}
	if r.as != "" {
		q.Header.Set("Impersonate-User", r.as)
		for _, group := range []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"} {
			q.Header.Add("Impersonate-Group", group)
		}
	}
	response, err := s.client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		o = object{"message": string(text)}
	}
	return response.StatusCode, o
}

// path is where an object is, or would be.
func (s *server) path(t *testing.T, o object) string {
	t.Helper()
	return s.list(t, o) + "/" + url.PathEscape(o.name())
}

// list is where the objects of its kind are, in its namespace.
func (s *server) list(t *testing.T, o object) string {
	t.Helper()
	version := o.text("apiVersion")
	format, ok := s.paths[version+"/"+o.kind()]
	if !ok {
		base := "/apis/" + version
		if !strings.Contains(version, "/") {
			base = "/api/" + version
		}
		_, resources := s.do(t, request{method: http.MethodGet, path: base})
		list, _ := resources.at("resources").([]any)
		for _, one := range list {
			r := object(one.(map[string]any))
			if r.kind() != o.kind() || strings.Contains(r.text("name"), "/") {
				continue
			}
			format = base + "/" + r.text("name")
			if r.at("namespaced") == true {
				format = base + "/namespaces/%s/" + r.text("name")
			}
		}
		if format == "" {
			t.Fatalf("the API server has no %s of %s", o.kind(), version)
		}
		s.paths[version+"/"+o.kind()] = format
	}
	if !strings.Contains(format, "%s") {
		return format
	}
	if o.namespace() == "" {
		return fmt.Sprintf(format, "default")
	}
	return fmt.Sprintf(format, o.namespace())
}

// apply is a server-side apply that refuses unknown fields.
func (s *server) apply(t *testing.T, as string, o object, more string) (int, object) {
	t.Helper()
	return s.do(t, request{http.MethodPatch, s.path(t, o) + "?fieldManager=test&force=true&fieldValidation=Strict" + more, as, o})
}

func (s *server) mustApply(t *testing.T, o object) {
	t.Helper()
	if status, answer := s.apply(t, "", o, ""); status >= 300 {
		t.Fatalf("%s %s: %d %s", o.kind(), o.name(), status, answer.text("message"))
	}
}

func (s *server) get(t *testing.T, path string) (object, bool) {
	t.Helper()
	status, o := s.do(t, request{method: http.MethodGet, path: path})
	if status != http.StatusOK && status != http.StatusNotFound {
		t.Fatalf("%s: %d %s", path, status, o.text("message"))
	}
	return o, status == http.StatusOK
}

func (s *server) namespace(t *testing.T, name, podSecurity string) {
	t.Helper()
	s.mustApply(t, object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{
		"name": name, "labels": map[string]any{"pod-security.kubernetes.io/enforce": podSecurity},
	}})
}

// eventually waits until is says so; what the API server does by itself takes it a moment.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// addGatewayAPI installs the CRDs of the Gateway API as those of a release.
func (s *server) addGatewayAPI(t *testing.T, bundle string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatalf("where is the Gateway API module? %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "config/crd/standard/gateway.networking.k8s.io_*s.yaml"))
	if len(files) == 0 {
		t.Fatal("the Gateway API module has no CRDs")
	}
	for _, file := range files {
		var crd object
		if err := yaml.Unmarshal(read(t, file), &crd); err != nil {
			t.Fatal(err)
		}
		if crd.kind() != "CustomResourceDefinition" {
			continue
		}
		annotations := crd.at("metadata", "annotations").(map[string]any)
		if bundle != "" {
			annotations["gateway.networking.k8s.io/bundle-version"] = bundle
		}
		s.addCRD(t, crd)
	}
}

func (s *server) addCRD(t *testing.T, crd object) {
	t.Helper()
	delete(crd, "status")
	s.mustApply(t, crd)
	versions := crd.at("spec", "versions").([]any)
	served := object(versions[0].(map[string]any)).text("name")
	eventually(t, crd.name()+" is served", func() bool {
		// 404 at first, 429 while its storage is made
		status, _ := s.do(t, request{method: http.MethodGet, path: "/apis/" + crd.text("spec", "group") + "/" + served + "/" + crd.text("spec", "names", "plural")})
		return status == http.StatusOK
	})
}

// helm runs it against this server.
func (s *server) helm(t *testing.T, values string, args ...string) (string, error) {
	t.Helper()
	return helm(t, values, append(args, "--kubeconfig", s.Kubeconfig, "--namespace", namespace)...)
}

func (s *server) mustHelm(t *testing.T, values string, args ...string) string {
	t.Helper()
	out, err := s.helm(t, values, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ours are the objects of the release that are there, as kind and name.
func (s *server) ours(t *testing.T) []string {
	t.Helper()
	out, err := s.Kubectl(t.Context(), "get", "--all-namespaces", "-o", "name", "-l", "app.kubernetes.io/instance="+release,
		"configmaps,services,serviceaccounts,deployments,daemonsets,roles,rolebindings,clusterroles,clusterrolebindings,poddisruptionbudgets,"+
			"networkpolicies,validatingadmissionpolicies,validatingadmissionpolicybindings,horizontalpodautoscalers,customresourcedefinitions").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Fields(string(out))
}
