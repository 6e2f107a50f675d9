//go:build chart

package chart

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

// helmPath is where hack/helm.sh says that helm is; it builds it where it is missing.
var helmPath = sync.OnceValues(func() (string, error) {
	cmd := exec.Command(root + "/hack/helm.sh")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
})

// helm runs it, with a home of its own, and returns what it wrote.
func helm(t *testing.T, stdin string, args ...string) (stdout string, err error) {
	t.Helper()
	path, err := helmPath()
	if err != nil {
		t.Fatalf("hack/helm.sh: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+os.DevNull)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	if errs.Len() > 0 {
		return out.String(), fmt.Errorf("helm %s: complains\n%s", strings.Join(args, " "), errs.String())
	}
	return out.String(), nil
}

const (
	release   = "gatehouse"
	namespace = "gatehouse-system"
)

// template renders the chart with values (YAML).
func template(t *testing.T, values string, more ...string) (string, error) {
	t.Helper()
	args := []string{"template", release, chartPath, "--namespace", namespace, "--values", "-"}
	return helm(t, values, append(args, more...)...)
}

// object is an object as JSON has it.
type object map[string]any

// at follows a path of keys, and indices of lists, and returns nil where there is nothing.
func (o object) at(path ...any) any {
	var v any = map[string]any(o)
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[s]
		case int:
			l, _ := v.([]any)
			if s >= len(l) {
				return nil
			}
			v = l[s]
		}
	}
	return v
}

func (o object) text(path ...any) string {
	s, _ := o.at(path...).(string)
	return s
}

func (o object) kind() string      { return o.text("kind") }
func (o object) name() string      { return o.text("metadata", "name") }
func (o object) namespace() string { return o.text("metadata", "namespace") }

// rendering is what helm template made.
type rendering []object

// render is template for values that are right.
func render(t *testing.T, values string, more ...string) rendering {
	t.Helper()
	text, err := template(t, values, more...)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, text)
}

func parse(t *testing.T, text string) rendering {
	t.Helper()
	var all rendering
	for doc := range strings.SplitSeq("\n"+text, "\n---\n") {
		var o object
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if len(o) > 0 {
			all = append(all, o)
		}
	}
	return all
}

// of returns the objects of a kind.
func (r rendering) of(kind string) rendering {
	return slices.DeleteFunc(slices.Clone(r), func(o object) bool { return o.kind() != kind })
}

// one returns the only object of a kind.
func (r rendering) one(t *testing.T, kind string) object {
	t.Helper()
	all := r.of(kind)
	if len(all) != 1 {
		t.Fatalf("there are %d objects of kind %s", len(all), kind)
	}
	return all[0]
}

// workload is the Deployment or DaemonSet.
func (r rendering) workload(t *testing.T) object {
	t.Helper()
	if d := r.of("DaemonSet"); len(d) > 0 {
		return r.one(t, "DaemonSet")
	}
	return r.one(t, "Deployment")
}

// pod is its template, as a Pod.
func (r rendering) pod(t *testing.T) object {
	t.Helper()
	template, _ := r.workload(t).at("spec", "template").(map[string]any)
	metadata, _ := template["metadata"].(map[string]any)
	metadata["name"], metadata["namespace"] = "gatehouse-0", namespace
	return object{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
}

// args are the flags of the process.
func (r rendering) args(t *testing.T) []string {
	t.Helper()
	var out []string
	list, _ := r.workload(t).at("spec", "template", "spec", "containers", 0, "args").([]any)
	for _, a := range list {
		out = append(out, a.(string))
	}
	return out
}
