package translate

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Ref names an object that another one refers to.
type Ref struct {
	Kind string // Service, Secret, ConfigMap
	Name snapshot.Name
	// Selector, when set, makes it all objects of Name.Namespace whose labels it takes (labels.Selector's text); Name.Name is empty then.
	Selector string
}

func (r Ref) String() string {
	if r.Selector != "" {
		return fmt.Sprintf("%ss of namespace %s with labels %s", r.Kind, r.Name.Namespace, r.Selector)
	}
	return r.Kind + " " + r.Name.String()
}

// Answer is what is known about a reference. Watches of different kinds have no common order, so "it is not here" can mean "not yet".
type Answer uint8

// The answers.
const (
	Found Answer = iota
	Absent
	Pending // nobody has looked yet: the last good node serves on, and nothing is said about it
	// Forbidden: we may not look. It is an answer: to wait for a right that nobody grants would leave the author without a word.
	Forbidden
)

// Answers is what has been looked up of what is not among the objects: Absent says that it does not exist, Forbidden that we may not
// know; Pending, or no entry, that this is not known yet. Of a Ref with a Selector, Found and Absent say that all of it that there is is
// among the objects. Nil: what is not among the objects is absent, as with files.
type Answers map[Ref]Answer

// references answers what refers to something outside its own object, and remembers what it was asked.
type references struct {
	services map[snapshot.Name]*corev1.Service
	secrets  map[snapshot.Name]*corev1.Secret
	configs  map[snapshot.Name]*corev1.ConfigMap
	answers  Answers
	asked    map[Ref]Answer
}

func newReferences(in Input) *references {
	return &references{
		services: named(in.Objects.Services),
		secrets:  named(in.Objects.Secrets),
		configs:  named(in.Objects.ConfigMaps),
		answers:  in.Answers,
		asked:    map[Ref]Answer{},
	}
}

func (r *references) service(name snapshot.Name) (*corev1.Service, Answer) {
	s := r.services[name]
	return s, r.answer(Ref{Kind: "Service", Name: name}, s != nil)
}

func (r *references) secret(name snapshot.Name) (*corev1.Secret, Answer) {
	s := r.secrets[name]
	return s, r.answer(Ref{Kind: "Secret", Name: name}, s != nil)
}

func (r *references) configMap(name snapshot.Name) (*corev1.ConfigMap, Answer) {
	m := r.configs[name]
	return m, r.answer(Ref{Kind: "ConfigMap", Name: name}, m != nil)
}

// secretsIn are the Secrets of a namespace that the selector takes, by name.
func (r *references) secretsIn(namespace string, selector labels.Selector) ([]*corev1.Secret, Answer) {
	ref := Ref{Kind: "Secret", Name: snapshot.Name{Namespace: namespace}, Selector: selector.String()}
	answer, known := r.answers[ref]
	switch {
	case r.answers == nil, known && answer == Absent:
		answer = Found
	case !known:
		answer = Pending
	}
	r.asked[ref] = answer
	if answer != Found {
		return nil, answer
	}
	var all []*corev1.Secret
	for name, s := range r.secrets {
		if name.Namespace == namespace && selector.Matches(labels.Set(s.Labels)) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *corev1.Secret) int { return cmp.Compare(a.Name, b.Name) })
	return all, Found
}

func (r *references) answer(ref Ref, here bool) Answer {
	a := Pending
	switch {
	case here:
		a = Found
	case r.answers == nil:
		a = Absent
	case r.answers[ref] == Absent, r.answers[ref] == Forbidden:
		a = r.answers[ref]
	}
	r.asked[ref] = a
	return a
}

// list returns what was asked for and got one of these answers, sorted.
func (r *references) list(answers ...Answer) []Ref {
	var refs []Ref
	for ref, a := range r.asked {
		if slices.Contains(answers, a) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b Ref) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), compareNames(a.Name, b.Name), cmp.Compare(a.Selector, b.Selector))
	})
	return refs
}
