package source

import (
	"encoding/json"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// coreKind admits objects of Kubernetes' own kinds, whose rules are code in the API server that cannot be had without
// all of it. The checks are those that decide about what Gatehouse reads.
type coreKind struct {
	namespaced bool
	defaults   func(Object)
	check      func(Object) field.ErrorList
	nameRule   apivalidation.ValidateNameFunc
}

func core[T Object](group, name string, namespaced bool, defaults func(T), check func(T) field.ErrorList) kind {
	k := coreKind{namespaced: namespaced, nameRule: apivalidation.NameIsDNSSubdomain}
	k.check = func(obj Object) field.ErrorList { return check(obj.(T)) }
	k.defaults = func(obj Object) {
		if defaults != nil {
			defaults(obj.(T))
		}
	}
	if name == "Namespace" || name == "Service" { // names of these become DNS labels
		k.nameRule = apivalidation.NameIsDNSLabel
	}
	typ := reflect.TypeFor[T]().Elem()
	return kind{group, name, namespaced, func() Object { return reflect.New(typ).Interface().(Object) }, k}
}

func (coreKind) versions() []string { return []string{"v1"} }

func (c coreKind) admit(_ string, value map[string]any, empty Object) (Object, []finding) {
	delete(value, "status")
	if problems := checkShape(nil, value, reflect.TypeOf(empty).Elem()); len(problems) > 0 {
		return nil, problems
	}
	text, err := json.Marshal(value)
	if err == nil {
		err = utiljson.Unmarshal(text, empty)
	}
	if err != nil {
		return nil, []finding{{"", err.Error()}}
	}
	c.defaults(empty)
	meta := objectMeta(empty)
	errs := apivalidation.ValidateObjectMeta(&meta, c.namespaced, c.nameRule, field.NewPath("metadata"))
	return empty, findings(append(errs, c.check(empty)...))
}

func defaultNamespace(ns *corev1.Namespace) {
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}

func checkNamespace(*corev1.Namespace) field.ErrorList { return nil }

// defaultSecret merges stringData into data, where it wins.
func defaultSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = map[string][]byte{}
	}
	for key, text := range s.StringData {
		s.Data[key] = []byte(text)
	}
	s.StringData = nil
}

// checkSecret never shows a value.
func checkSecret(s *corev1.Secret) field.ErrorList {
	data := field.NewPath("data")
	errs, size := checkKeys(s.Data, data)
	for _, key := range secretKeys[s.Type] {
		if _, ok := s.Data[key]; !ok {
			errs = append(errs, field.Required(data.Key(key), "a Secret of type "+string(s.Type)+" has it"))
		}
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(data, "", corev1.MaxSecretSize))
	}
	return errs
}

// secretKeys are the keys that a Secret must have because of its type.
var secretKeys = map[corev1.SecretType][]string{
	corev1.SecretTypeTLS:              {corev1.TLSCertKey, corev1.TLSPrivateKeyKey},
	corev1.SecretTypeSSHAuth:          {corev1.SSHAuthPrivateKey},
	corev1.SecretTypeDockercfg:        {corev1.DockerConfigKey},
	corev1.SecretTypeDockerConfigJson: {corev1.DockerConfigJsonKey},
}

func checkConfigMap(c *corev1.ConfigMap) field.ErrorList {
	errs, size := checkKeys(c.Data, field.NewPath("data"))
	binaryErrs, binarySize := checkKeys(c.BinaryData, field.NewPath("binaryData"))
	errs = append(errs, binaryErrs...)
	for _, key := range sortedKeys(c.Data) {
		if _, twice := c.BinaryData[key]; twice {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, "duplicate of key present in binaryData"))
		}
	}
	if size+binarySize > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath("data"), "", corev1.MaxSecretSize))
	}
	return errs
}

// checkKeys checks the keys of a Secret or ConfigMap, and returns the size of their values in bytes.
func checkKeys[V string | []byte](data map[string]V, path *field.Path) (errs field.ErrorList, size int) {
	for _, key := range sortedKeys(data) {
		for _, message := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(path.Key(key), key, message))
		}
		size += len(data[key])
	}
	return errs, size
}

var protocols = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}

func checkProtocol(p corev1.Protocol, path *field.Path) field.ErrorList {
	if !slices.Contains(protocols, p) {
		return field.ErrorList{field.NotSupported(path, p, protocols)}
	}
	return nil
}

func checkPortNumber(port int32, path *field.Path) field.ErrorList {
	return invalid(path, port, validation.IsValidPortNum(int(port)))
}

func checkAppProtocol(p *string, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	return invalid(path, *p, validation.IsQualifiedName(*p))
}

// invalid makes errors of what apimachinery's validation functions say.
func invalid(path *field.Path, value any, messages []string) (errs field.ErrorList) {
	for _, message := range messages {
		errs = append(errs, field.Invalid(path, value, message))
	}
	return errs
}
