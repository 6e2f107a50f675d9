package status_test

import (
	"encoding/json"
	"os"
	"sync"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/status"
)

// server does with a status what the API server does when it is written, by the schema of a CRD.
type server[V status.Value] struct {
	schema    *structural.Structural
	validator validation.SchemaValidator
}

// store refuses what the API server would refuse, and returns what one reads afterwards.
func (s server[V]) store(t *testing.T, v V) (stored V) {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(encode(t, v)), &fields); err != nil {
		t.Fatal(err)
	}
	pruning.Prune(fields, s.schema, false)
	defaulting.Default(fields, s.schema)
	errs := append(validation.ValidateCustomResource(nil, fields, s.validator), listtype.ValidateListSetsAndMaps(nil, s.schema, fields)...)
	if len(errs) > 0 {
		t.Fatalf("the API server refuses %s: %v", encode(t, v), errs.ToAggregate())
	}
	if err := json.Unmarshal([]byte(encode(t, fields)), &stored); err != nil {
		t.Fatal(err)
	}
	return stored
}

func serverOf[V status.Value](t *testing.T, v V) server[V] {
	t.Helper()
	var file string
	switch any(v).(type) {
	case gwv1.GatewayClassStatus:
		file = "gatewayclasses.gateway.networking.k8s.io"
	case gwv1.GatewayStatus:
		file = "gateways.gateway.networking.k8s.io"
	case gwv1.RouteStatus:
		file = "httproutes.gateway.networking.k8s.io"
	case gwv1.PolicyStatus:
		file = "ratelimitpolicies.gatehouse.dev"
	}
	if s, ok := servers.Load(file); ok {
		return s.(server[V])
	}
	s := server[V]{}
	s.schema, s.validator = readSchema(t, "../source/schemas/"+file+".json")
	servers.Store(file, s)
	return s
}

var servers sync.Map

func readSchema(t *testing.T, file string) (*structural.Structural, validation.SchemaValidator) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Versions []struct {
			Schema apiextensionsv1.JSONSchemaProps
		}
	}
	if err := json.Unmarshal(data, &crd); err != nil {
		t.Fatal(err)
	}
	props := crd.Versions[0].Schema.Properties["status"]
	props.Default = nil // of a status that is not there at all
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&props, &internal, nil); err != nil {
		t.Fatal(err)
	}
	schema, err := structural.NewStructural(&internal)
	if err != nil {
		t.Fatal(err)
	}
	validator, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		t.Fatal(err)
	}
	return schema, validator
}
