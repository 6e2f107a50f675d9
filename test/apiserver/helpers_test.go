package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/controllers/source"
)

// call returns status and body of an answer.
func (s *server) call(t *testing.T, method, path string, body []byte) (int, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.Host+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	return s.do(t, request)
}

func (s *server) do(t *testing.T, request *http.Request) (int, []byte) {
	t.Helper()
	response, err := s.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, text
}

func (s *server) mustCreate(t *testing.T, object []byte) {
	t.Helper()
	if status, body := s.create(t, object, ""); status != http.StatusCreated {
		t.Fatalf("creating %s %s: %d %s", parse(t, object).Kind, parse(t, object).Name, status, body)
	}
}

func (s *server) create(t *testing.T, object []byte, query string) (int, []byte) {
	t.Helper()
	o := parse(t, object)
	root := "/apis/" + o.APIVersion
	if !strings.Contains(o.APIVersion, "/") {
		root = "/api/" + o.APIVersion
	}
	_, body := s.call(t, http.MethodGet, root, nil)
	var resources metav1.APIResourceList
	if err := json.Unmarshal(body, &resources); err != nil {
		t.Fatal(err)
	}
	for _, r := range resources.APIResources {
		if r.Kind != o.Kind || strings.Contains(r.Name, "/") {
			continue
		}
		if r.Namespaced {
			root += "/namespaces/default"
		}
		return s.call(t, http.MethodPost, root+"/"+r.Name+query, object)
	}
	t.Fatalf("%s has no kind %s", root, o.Kind)
	return 0, nil
}

func parse(t *testing.T, object []byte) metav1.PartialObjectMetadata {
	t.Helper()
	var o metav1.PartialObjectMetadata
	if err := json.Unmarshal(object, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func readJSON(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		text, err = yaml.YAMLToJSON(text)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return text
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files at %s: %v", pattern, err)
	}
	return files
}

// want is the message that a sample is to be refused with: its first line says it.
func want(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	message, ok := strings.CutPrefix(line, "# want: ")
	if !ok {
		t.Fatalf("%s does not say what is wanted", file)
	}
	return message
}

func itemsOf(object map[string]any) []map[string]any {
	list, ok := object["items"].([]any)
	if !ok {
		return []map[string]any{object}
	}
	var items []map[string]any
	for _, item := range list {
		items = append(items, item.(map[string]any))
	}
	return items
}

func name(object map[string]any) string {
	meta := object["metadata"].(map[string]any)
	return fmt.Sprintf("%v %v/%v", object["kind"], meta["namespace"], meta["name"])
}

func asMap(t *testing.T, obj any) map[string]any {
	t.Helper()
	var m map[string]any
	text, err := json.Marshal(obj)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func isCustom(obj source.Object) bool {
	group := obj.GetObjectKind().GroupVersionKind().Group
	return group == "gatehouse.dev" || group == "gateway.networking.k8s.io"
}

// sameType passes an object through the Go type of another one, which drops what that type does not write.
func sameType(t *testing.T, object map[string]any, as source.Object) map[string]any {
	t.Helper()
	typed := reflect.New(reflect.TypeOf(as).Elem()).Interface()
	text, err := json.Marshal(object)
	if err == nil {
		err = json.Unmarshal(text, typed)
	}
	if err != nil {
		t.Fatal(err)
	}
	return asMap(t, typed)
}

// dropServersOwn removes what a server counts for itself.
func dropServersOwn(object map[string]any) {
	delete(object, "status")
	meta := object["metadata"].(map[string]any)
	for _, field := range []string{"uid", "generation", "creationTimestamp", "resourceVersion", "managedFields"} {
		delete(meta, field)
	}
}

// notIn lists what of mine the other does not have, or has otherwise: the server may add (addresses, families), but it
// must not differ.
func notIn(other, mine any, path string) []string {
	switch mine := mine.(type) {
	case map[string]any:
		others, _ := other.(map[string]any)
		var missing []string
		for key, value := range mine {
			missing = append(missing, notIn(others[key], value, path+"."+key)...)
		}
		return missing
	case []any:
		others, _ := other.([]any)
		if len(others) != len(mine) {
			return []string{fmt.Sprintf("%s: the API server has %v, source %v", path, other, mine)}
		}
		var missing []string
		for i, value := range mine {
			missing = append(missing, notIn(others[i], value, fmt.Sprintf("%s[%d]", path, i))...)
		}
		return missing
	}
	if !reflect.DeepEqual(other, mine) {
		return []string{fmt.Sprintf("%s: the API server has %v, source %v", path, other, mine)}
	}
	return nil
}
