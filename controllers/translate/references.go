package translate

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Ref names an object that another one refers to.
type Ref struct {
	Kind string // Service, Secret
	Name snapshot.Name
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
// know; Pending, or no entry, that this is not known yet. Nil: what is not among the objects is absent, as with files.
type Answers map[Ref]Answer

// references answers what refers to something outside its own object, and remembers what it was asked.
type references struct {
	services map[snapshot.Name]*corev1.Service
	secrets  map[snapshot.Name]*corev1.Secret
	answers  Answers
	asked    map[Ref]Answer
}

func newReferences(in Input) *references {
	return &references{
		services: named(in.Objects.Services),
		secrets:  named(in.Objects.Secrets),
		answers:  in.Answers,
		asked:    map[Ref]Answer{},
	}
}

func (r *references) service(name snapshot.Name) (*corev1.Service, Answer) {
	s := r.services[name]
	return s, r.answer(Ref{"Service", name}, s != nil)
}

func (r *references) secret(name snapshot.Name) (*corev1.Secret, Answer) {
	s := r.secrets[name]
	return s, r.answer(Ref{"Secret", name}, s != nil)
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
	slices.SortFunc(refs, func(a, b Ref) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), compareNames(a.Name, b.Name)) })
	return refs
}
