package source

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is a typed Kubernetes object, e.g. *gwv1.HTTPRoute or *corev1.Service. Its apiVersion and kind are set.
type Object interface {
	metav1.Object
	runtime.Object
}

// Result is what the files say.
type Result struct {
	// Objects in the order of their age, then the implied Namespaces by name.
	Objects []Object

	// Problems in the order of the files and their lines.
	Problems []Problem

	places map[identity]place
}

// Problem is something in a file that the API server would not have taken, or that cannot be read.
type Problem struct {
	File   string
	Line   int    // from 1; 0: the file as a whole
	Column int    // from 1, in bytes; 0: unknown
	Object string // "HTTPRoute shop/cart"; "" where it is unknown
	Field  string // "spec.rules[0].matches"; "" for the object as a whole

	Message string

	// Warning says that this alone is no reason to refuse the file.
	Warning bool
}

// String is one line: `file:line: kind namespace/name: field: message`, without the parts that are unknown.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Warning {
		b.WriteString(": warning")
	}
	for _, part := range []string{p.Object, p.Field, p.Message} {
		if part != "" {
			b.WriteString(": ")
			b.WriteString(strings.ReplaceAll(part, "\n", " "))
		}
	}
	return b.String()
}

// Failed tells whether any of the problems is more than a warning.
func (r Result) Failed() bool {
	for _, p := range r.Problems {
		if !p.Warning {
			return true
		}
	}
	return false
}

// Origin tells where an object was written. Line is that of its first field; for an implied Namespace the place is that
// of the first object in it. An object that is not in the Result has no file.
func (r Result) Origin(kind, namespace, name string) (file string, line int) {
	p := r.places[identity{kind, namespace, name}]
	return p.file, p.line
}

// Where tells where a field of an object was written, or the nearest field around it that was (a default has no line of
// its own). The path is one as in problems and conditions: `spec.rules[0].backendRefs[1].port`.
func (r Result) Where(obj Object, fieldPath string) (file string, line int) {
	p := r.places[identityOf(obj)]
	if n := find(p.root, fieldPath); n != nil {
		return p.file, p.offset + n.Line
	}
	return p.file, p.line
}

// identity tells objects apart. No two kinds that we read share a name, so the group is not part of it.
type identity struct{ kind, namespace, name string }

func identityOf(obj Object) identity {
	return identity{obj.GetObjectKind().GroupVersionKind().Kind, obj.GetNamespace(), obj.GetName()}
}

func (id identity) String() string {
	if id.namespace == "" {
		return strings.TrimSuffix(id.kind+" "+id.name, " ")
	}
	return id.kind + " " + id.namespace + "/" + id.name
}
