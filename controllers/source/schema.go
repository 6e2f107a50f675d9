package source

import (
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// schemaFiles are made by `make generate` out of the CRDs; see hack/generate.
//
//go:embed schemas/*.json
var schemaFiles embed.FS

// definition is what a file in schemas/ holds; hack/generate writes the same shape.
type definition struct {
	Versions []struct {
		Name   string                           `json:"name"`
		Served bool                             `json:"served"`
		SameAs string                           `json:"sameAs"`
		Schema *apiextensionsv1.JSONSchemaProps `json:"schema"`
	} `json:"versions"`
}

// schemas are the versions of one CRD, read and compiled when first asked for: compiling the CEL rules of all kinds
// takes longer than starting the rest of the program.
type schemas struct {
	file   string
	read   func() definition
	mu     sync.Mutex // guards byName
	byName map[string]*versionSchema
}

// versionSchema is one version of a CRD, ready to be used.
type versionSchema struct {
	structure *structural.Structural
	values    validation.SchemaValidator
	rules     *cel.Validator // nil if there are none
}

func schemasOf(plural, group string) *schemas {
	s := &schemas{file: "schemas/" + plural + "." + group + ".json", byName: map[string]*versionSchema{}}
	s.read = sync.OnceValue(func() definition {
		text, err := schemaFiles.ReadFile(s.file)
		var def definition
		if err == nil {
			err = json.Unmarshal(text, &def)
		}
		if err != nil {
			panic(fmt.Sprintf("source: embedded schema %s: %v", s.file, err)) // generated, and tested
		}
		return def
	})
	return s
}

// versions are the names of what is served, v1 before v1beta1.
func (s *schemas) versions() []string {
	var served []string
	for _, v := range s.read().Versions {
		if v.Served {
			served = append(served, v.Name)
		}
	}
	slices.Sort(served)
	return served
}

// of returns the schema of a served version.
func (s *schemas) of(version string) *versionSchema {
	for _, v := range s.read().Versions {
		if v.Name == version && v.SameAs != "" {
			version = v.SameAs
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if compiled, ok := s.byName[version]; ok {
		return compiled
	}
	for _, v := range s.read().Versions {
		if v.Name == version {
			compiled, err := compile(v.Schema)
			if err != nil {
				panic(fmt.Sprintf("source: embedded schema %s %s: %v", s.file, version, err)) // generated, and tested
			}
			s.byName[version] = compiled
			return compiled
		}
	}
	panic(fmt.Sprintf("source: embedded schema %s has no version %s", s.file, version))
}

// compile makes what the API server makes of a CRD's schema when the CRD is created.
func compile(props *apiextensionsv1.JSONSchemaProps) (*versionSchema, error) {
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, &internal, nil); err != nil {
		return nil, err
	}
	structure, err := structural.NewStructural(&internal)
	if err != nil {
		return nil, err
	}
	values, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		return nil, err
	}
	return &versionSchema{structure: structure, values: values, rules: cel.NewValidator(structure, true, celconfig.PerCallLimit)}, nil
}

// fieldsAt are the names of the fields that an object may have at a path, as the schema has them.
func (s *versionSchema) fieldsAt(path string) []string {
	at := s.structure
	for path != "" && at != nil {
		if strings.HasPrefix(path, "[") {
			_, path, _ = strings.Cut(path, "]")
			at = at.Items
			continue
		}
		path = strings.TrimPrefix(path, ".")
		end := len(path)
		if i := strings.IndexAny(path, ".["); i >= 0 {
			end = i
		}
		child, ok := at.Properties[path[:end]]
		if !ok {
			return nil
		}
		at, path = &child, path[end:]
	}
	if at == nil {
		return nil
	}
	var names []string
	for name := range at.Properties {
		names = append(names, name)
	}
	return names
}

// splitField cuts a path into the path of what holds the field and the field's own name: "spec.a[0]", "b".
func splitField(path string) (parent, name string) {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}
