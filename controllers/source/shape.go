package source

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkShape compares a value with the Go type that it is to be decoded into: unknown fields, and values of another
// type. A strict decoder would say the same, but stops at the first, and does not say which item of a list it was.
func checkShape(path *field.Path, value any, t reflect.Type) []finding {
	if value == nil {
		return nil
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return checkOwnDecoding(path, value, t)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return checkShape(path, value, t.Elem())
	case reflect.Struct:
		return checkStruct(path, value, t)
	case reflect.Map:
		return checkMap(path, value, t)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return checkBase64(path, value)
		}
		return checkList(path, value, t)
	}
	return checkScalar(path, value, t)
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// checkOwnDecoding asks a type that decodes itself, as times and port names do.
func checkOwnDecoding(path *field.Path, value any, t reflect.Type) []finding {
	text, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(text, reflect.New(t).Interface())
	}
	if err != nil {
		return []finding{{path.String(), err.Error()}}
	}
	return nil
}

func checkStruct(path *field.Path, value any, t reflect.Type) []finding {
	object, ok := value.(map[string]any)
	if !ok {
		return wrongType(path, value, "an object")
	}
	known := map[string]reflect.Type{}
	collectFields(t, known)
	var problems []finding
	for _, name := range sortedKeys(object) {
		if fieldType, ok := known[name]; ok {
			problems = append(problems, checkShape(path.Child(name), object[name], fieldType)...)
		} else {
			problems = append(problems, unknownField(path.Child(name).String(), name, sortedKeys(known)))
		}
	}
	return problems
}

// collectFields gathers a struct's fields by their names in JSON, those of embedded structs included.
func collectFields(t reflect.Type, into map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && (name == "" || strings.Contains(options, "inline")):
			collectFields(f.Type, into)
		case name != "" && name != "-":
			into[name] = f.Type
		}
	}
}

func checkMap(path *field.Path, value any, t reflect.Type) []finding {
	object, ok := value.(map[string]any)
	if !ok {
		return wrongType(path, value, "an object")
	}
	var problems []finding
	for _, key := range sortedKeys(object) {
		problems = append(problems, checkShape(path.Key(key), object[key], t.Elem())...)
	}
	return problems
}

func checkList(path *field.Path, value any, t reflect.Type) []finding {
	list, ok := value.([]any)
	if !ok {
		return wrongType(path, value, "a list")
	}
	var problems []finding
	for i, item := range list {
		problems = append(problems, checkShape(path.Index(i), item, t.Elem())...)
	}
	return problems
}

// checkBase64 never shows the value: it may be a key.
func checkBase64(path *field.Path, value any) []finding {
	text, ok := value.(string)
	if !ok {
		return wrongType(path, value, "a string")
	}
	if _, err := base64.StdEncoding.DecodeString(text); err != nil {
		return []finding{{path.String(), "must be base64 (plain text goes into stringData): " + err.Error()}}
	}
	return nil
}

func checkScalar(path *field.Path, value any, t reflect.Type) []finding {
	switch t.Kind() {
	case reflect.String:
		if _, ok := value.(string); !ok {
			return wrongType(path, value, "a string")
		}
	case reflect.Bool:
		if _, ok := value.(bool); !ok {
			return wrongType(path, value, "true or false")
		}
	case reflect.Int, reflect.Int64, reflect.Int32:
		n, ok := value.(int64)
		if !ok {
			return wrongType(path, value, "an integer")
		}
		if t.Kind() == reflect.Int32 && (n < math.MinInt32 || n > math.MaxInt32) {
			return []finding{{path.String(), fmt.Sprintf("%d does not fit into 32 bits", n)}}
		}
	}
	return nil
}

func wrongType(path *field.Path, value any, want string) []finding {
	is := "a string"
	switch value.(type) {
	case int64:
		is = "an integer"
	case float64:
		is = "a number"
	case bool:
		is = "a boolean"
	case []any:
		is = "a list"
	case map[string]any:
		is = "an object"
	}
	return []finding{{path.String(), fmt.Sprintf("must be %s, not %s", want, is)}}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
