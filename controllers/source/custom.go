package source

import (
	"context"
	"reflect"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// customKind admits objects whose kind is a CRD.
type customKind struct {
	*schemas
	namespaced bool
}

func crd(group, name, plural string, namespaced bool, empty func() Object) kind {
	return kind{group, name, namespaced, empty, customKind{schemasOf(plural, group), namespaced}}
}

// admit follows the API server's order (apiextensions-apiserver: customresource_handler.go, registry/customresource):
// strict decoding, pruning, defaults; then the status is dropped; then metadata, values, list types, and CEL rules.
func (c customKind) admit(version string, value map[string]any, empty Object) (Object, []finding) {
	schema := c.of(version)
	problems := checkShape(field.NewPath("metadata"), value["metadata"], reflect.TypeFor[metav1.ObjectMeta]())
	problems = append(problems, schema.prune(value)...)
	defaulting.Default(value, schema.structure)
	delete(value, "status")
	problems = append(problems, schema.check(value)...)

	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(value, empty); err != nil {
		if len(problems) == 0 {
			problems = append(problems, finding{"", err.Error()})
		}
		return nil, problems
	}
	meta := objectMeta(empty)
	return empty, append(problems, findings(apivalidation.ValidateObjectMeta(&meta, c.namespaced, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata")))...)
}

// prune removes what the schema does not know, and names it.
func (s *versionSchema) prune(value map[string]any) []finding {
	var problems []finding
	unknown := pruning.PruneWithOptions(value, s.structure, true, structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range unknown {
		parent, name := splitField(path)
		problems = append(problems, unknownField(path, name, s.fieldsAt(parent)))
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(value, s.structure)
	return problems
}

func unknownField(path, name string, known []string) finding {
	return finding{path, "unknown field" + didYouMean(name, known)}
}

// check validates a value that has its defaults.
func (s *versionSchema) check(value map[string]any) []finding {
	ctx := context.Background()
	errs := validation.ValidateCustomResource(nil, value, s.values)
	errs = append(errs, objectmeta.Validate(ctx, nil, value, s.structure, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.structure, value)...)
	if s.rules == nil {
		return findings(errs)
	}
	if blocksRules(errs) {
		return append(findings(errs), finding{"", "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"})
	}
	broken, _ := s.rules.Validate(ctx, nil, s.structure, value, nil, celconfig.RuntimeCELCostBudget)
	return findings(append(errs, broken...))
}

// blocksRules says whether an object is so wrong that its rules would fail for that reason alone; the API server has
// the same list (registry/customresource: hasBlockingErr).
func blocksRules(errs field.ErrorList) bool {
	for _, err := range errs {
		switch err.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}

// objectMeta copies what the validation of metadata looks at.
func objectMeta(obj Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:            obj.GetName(),
		Namespace:       obj.GetNamespace(),
		Labels:          obj.GetLabels(),
		Annotations:     obj.GetAnnotations(),
		OwnerReferences: obj.GetOwnerReferences(),
		Finalizers:      obj.GetFinalizers(),
	}
}
