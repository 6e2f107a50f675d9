// Command generate makes the schemas that controllers/source embeds, out of CRDs: those of the Gateway API's module
// (standard channel) and our own. It keeps what decides about an object (types, bounds, defaults, CEL rules) and drops
// the descriptions, which are nine tenths of the text.
//
//	go run ./hack/generate -out controllers/source/schemas FOLDER...
//
// One JSON file per kind, keys sorted: running it twice gives the same bytes.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"sigs.k8s.io/yaml"
)

// definition is the part of a CRD that is kept. controllers/source reads the same shape.
type definition struct {
	Group    string    `json:"group"`
	Kind     string    `json:"kind"`
	Plural   string    `json:"plural"`
	Scope    string    `json:"scope"`
	Versions []version `json:"versions"`
}

// version is one version of a kind. A version that is not served has no schema; one whose schema equals that of an
// earlier version names it instead.
type version struct {
	Name   string         `json:"name"`
	Served bool           `json:"served"`
	SameAs string         `json:"sameAs,omitempty"`
	Schema map[string]any `json:"schema,omitempty"`
}

func main() {
	out := flag.String("out", "", "folder that the schemas are written to; other *.json files in it are removed")
	flag.Parse()
	if err := run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(out string, folders []string) error {
	if out == "" || len(folders) == 0 {
		return errors.New("want -out FOLDER and folders with CRDs")
	}
	written := map[string]bool{}
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
		if err != nil {
			return err
		}
		for _, file := range files {
			def, err := read(file)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if def == nil {
				continue
			}
			name := filepath.Join(out, def.Plural+"."+def.Group+".json")
			if err := write(name, def); err != nil {
				return err
			}
			written[name] = true
		}
	}
	if len(written) == 0 {
		return fmt.Errorf("no CRDs in %s", strings.Join(folders, ", "))
	}
	return removeOthers(out, written)
}

// read returns nil for a file that holds no CRD (the Gateway API has an admission policy beside its CRDs).
func read(file string) (*definition, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var crd struct {
		Kind string `json:"kind"`
		Spec struct {
			Group string `json:"group"`
			Names struct {
				Kind   string `json:"kind"`
				Plural string `json:"plural"`
			} `json:"names"`
			Scope    string `json:"scope"`
			Versions []struct {
				Name   string `json:"name"`
				Served bool   `json:"served"`
				Schema struct {
					OpenAPIV3Schema map[string]any `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return nil, err
	}
	if crd.Kind != "CustomResourceDefinition" {
		return nil, nil
	}
	def := &definition{Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind, Plural: crd.Spec.Names.Plural, Scope: crd.Spec.Scope}
	for _, v := range crd.Spec.Versions {
		kept := version{Name: v.Name, Served: v.Served}
		if v.Served {
			kept.Schema = v.Schema.OpenAPIV3Schema
			dropDescriptions(kept.Schema)
			kept = sameAsEarlier(kept, def.Versions)
		}
		def.Versions = append(def.Versions, kept)
	}
	return def, nil
}

func sameAsEarlier(v version, earlier []version) version {
	for _, e := range earlier {
		if e.Schema != nil && reflect.DeepEqual(e.Schema, v.Schema) {
			return version{Name: v.Name, Served: v.Served, SameAs: e.Name}
		}
	}
	return v
}

// dropDescriptions removes descriptions from a schema, in place. A property that is itself called "description" stays.
func dropDescriptions(schema map[string]any) {
	delete(schema, "description")
	for key, value := range schema {
		switch value := value.(type) {
		case map[string]any:
			if key != "properties" {
				dropDescriptions(value)
				continue
			}
			for _, property := range value {
				dropDescriptions(property.(map[string]any))
			}
		case []any: // allOf, anyOf, oneOf; and lists of strings
			for _, item := range value {
				if item, ok := item.(map[string]any); ok {
					dropDescriptions(item)
				}
			}
		}
	}
}

func write(name string, def *definition) error {
	text, err := json.MarshalIndent(def, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}

// removeOthers removes the schema of a kind that is no more.
func removeOthers(folder string, written map[string]bool) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if !written[file] {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	return nil
}
