package status

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// operation is one of a JSON Patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patch is how a stored status becomes the merged one. It names only what changes: so entries of others stay byte for byte what they are,
// with what our types know nothing of. It holds for that version of the object alone: places in lists are those of that version, and the
// API server refuses it for any other.
func patch(resourceVersion string, stored, merged any) ([]byte, error) {
	old, err := asFields(stored)
	if err != nil {
		return nil, err
	}
	now, err := asFields(merged)
	if err != nil {
		return nil, err
	}
	operations := []operation{
		// The lock: should another write come first, even while the API server stores this one, it answers 422.
		{"test", "/metadata/resourceVersion", resourceVersion},
	}
	if reflect.ValueOf(stored).IsZero() { // it may be that there is none at all
		operations = append(operations, operation{"add", "/status", now})
	} else {
		operations = append(operations, differences("/status", "", old, now)...)
	}
	return json.Marshal(operations)
}

func asFields(status any) (fields map[string]any, err error) {
	text, err := json.Marshal(status)
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	return fields, err
}

// differences lead from one value to another; field is its name.
func differences(path, field string, old, now any) []operation {
	if reflect.DeepEqual(old, now) {
		return nil
	}
	switch now := now.(type) {
	case map[string]any:
		if old, ok := old.(map[string]any); ok {
			return fieldsDiffer(path, old, now)
		}
	case []any:
		if old, ok := old.([]any); ok && keyOf[field] != nil {
			return listsDiffer(path, keyOf[field], old, now)
		}
	}
	return []operation{{"add", path, now}} // which replaces what is there
}

func fieldsDiffer(path string, old, now map[string]any) (ops []operation) {
	for _, name := range slices.Sorted(maps.Keys(now)) {
		ops = append(ops, differences(path+"/"+name, name, old[name], now[name])...)
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if _, stays := now[name]; !stays {
			ops = append(ops, operation{Op: "remove", Path: path + "/" + name})
		}
	}
	return ops
}

// keyOf says by what the items of a list are told apart.
var keyOf = map[string]func(item map[string]any) string{
	"conditions": func(item map[string]any) string { return fmt.Sprint(item["type"]) },
	"listeners":  func(item map[string]any) string { return fmt.Sprint(item["name"]) },
	"parents":    func(item map[string]any) string { return fmt.Sprint(item["controllerName"], item["parentRef"]) },
	"ancestors":  func(item map[string]any) string { return fmt.Sprint(item["controllerName"], item["ancestorRef"]) },
}

// listsDiffer takes away what is gone, changes in its place what stays, and puts what is new to the end: as Merge does.
func listsDiffer(path string, keyOf func(map[string]any) string, old, now []any) (ops []operation) {
	key := func(item any) string {
		fields, _ := item.(map[string]any)
		return keyOf(fields)
	}
	var kept []any
	var gone []int
	for i, item := range old {
		if len(kept) < len(now) && key(item) == key(now[len(kept)]) {
			kept = append(kept, item)
		} else {
			gone = append(gone, i)
		}
	}
	for _, i := range slices.Backward(gone) {
		ops = append(ops, operation{Op: "remove", Path: fmt.Sprintf("%s/%d", path, i)})
	}
	for i, item := range kept {
		ops = append(ops, differences(fmt.Sprintf("%s/%d", path, i), "", item, now[i])...)
	}
	for _, item := range now[len(kept):] {
		ops = append(ops, operation{"add", path + "/-", item})
	}
	return ops
}
