package status_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/status"
)

// patchLeadsThere patches what is stored as the API server does, with a field in each foreign entry and condition that our types do not
// have, and wants to find it again.
func patchLeadsThere[V status.Value](t *testing.T, stored, merged V) {
	t.Helper()
	raw := fields(t, stored)
	signForeign(raw)
	stay := signForeign(fields(t, merged)) // what stood in an entry of ours that is gone is gone with it
	if reflect.ValueOf(stored).IsZero() {
		raw = nil
	}
	object := map[string]any{"metadata": map[string]any{"resourceVersion": "7"}}
	if raw != nil {
		object["status"] = raw
	}
	after := patched(t, encode(t, object), "7", stored, merged)["status"].(map[string]any)
	if got := unsign(after); got != stay {
		t.Fatalf("of %d things of others that stay, %d are what they were", stay, got)
	}
	if diff := gocmp.Diff(fields(t, merged), after); diff != "" {
		t.Fatalf("patched, it is something else (-want +got):\n%s", diff)
	}
}

func patched[V status.Value](t *testing.T, object, version string, stored, merged V) (after map[string]any) {
	t.Helper()
	text, err := status.Patch(version, stored, merged)
	if err != nil {
		t.Fatal(err)
	}
	p, err := jsonpatch.DecodePatch(text)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Apply([]byte(object))
	if err != nil {
		t.Fatalf("%v: %s\non %s", err, text, object)
	}
	if err := json.Unmarshal(out, &after); err != nil {
		t.Fatal(err)
	}
	return after
}

func fields(t *testing.T, v any) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(encode(t, v)), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// foreign calls f with all entries and conditions that are not ours.
func foreign(v any, f func(map[string]any)) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			foreign(item, f)
		}
	case map[string]any:
		if c, ok := v["controllerName"]; ok && c != "gatehouse.dev/gateway-controller" {
			f(v)
			return
		}
		if kind, ok := v["type"].(string); ok && v["lastTransitionTime"] != nil && isForeign(metav1.Condition{Type: kind}) {
			f(v)
		}
		for _, item := range v {
			foreign(item, f)
		}
	}
}

func signForeign(v any) (n int) {
	foreign(v, func(m map[string]any) { m["fromTheFuture"] = "1.5"; n++ })
	return n
}

func unsign(v any) (n int) {
	foreign(v, func(m map[string]any) {
		if m["fromTheFuture"] == "1.5" {
			n++
		}
		delete(m, "fromTheFuture")
	})
	return n
}

func TestAPatchNamesOnlyWhatChanges(t *testing.T) {
	object := `{"metadata":{"resourceVersion":"7"},"status":{"parents":[
		{"controllerName":"example.com/other","parentRef":{"name":"a"},"conditions":[{"type":"Odd","status":"True","lastTransitionTime":"2026-01-01T00:00:00.123456Z"}],"new":1},
		{"controllerName":"gatehouse.dev/gateway-controller","parentRef":{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"gone"},"conditions":[]},
		{"controllerName":"gatehouse.dev/gateway-controller","parentRef":{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"gw"},"conditions":[
			{"type":"Odd","status":"True","lastTransitionTime":"2026-01-01T00:00:00.5Z","reason":"R","message":"m"},
			{"type":"Accepted","status":"False","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"R","message":"m","observedGeneration":1}]}]}}`
	var stored struct{ Status gwv1.RouteStatus }
	if err := json.Unmarshal([]byte(object), &stored); err != nil {
		t.Fatal(err)
	}
	wanted := gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{{
		ParentRef: ref("gw"), ControllerName: "gatehouse.dev/gateway-controller", Conditions: parse(t, "Accepted=True ResolvedRefs=True"),
	}}}
	m := status.Merge(stored.Status, wanted, generation, now)

	after := encode(t, patched(t, object, "7", stored.Status, m.Status))
	for _, stays := range []string{`"2026-01-01T00:00:00.123456Z"`, `"2026-01-01T00:00:00.5Z"`, `"new":1`} {
		if !strings.Contains(after, stays) {
			t.Errorf("%s is lost: %s", stays, after)
		}
	}
	if strings.Contains(after, `"gone"`) {
		t.Errorf("our old entry is there: %s", after)
	}
}
