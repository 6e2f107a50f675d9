package status

import (
	"fmt"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// list says how a list is merged: conditions, listeners, parents and ancestors are all lists of named items, some of which are ours.
type list[K comparable, T any] struct {
	limit int
	key   func(T) K
	ours  func(stored T) bool
	join  func(stored, wanted T) T // stored is the zero T if it is new
	left  func(wanted T)           // is told what finds no room
}

// merge leaves what is not ours in its order, and keeps what is ours in its place; what is new comes last. The room that others leave is
// for the first of ours, so what is left out does not depend on what was stored of ours before. An item of ours that stands there twice
// is there once afterwards. The list is never nil: the CRDs demand that there is one, even an empty one.
func (l list[K, T]) merge(stored, wanted []T) []T {
	todo := make(map[K]T, len(wanted))
	var order []K
	for _, w := range wanted {
		k := l.key(w)
		if _, twice := todo[k]; !twice {
			todo[k] = w
			order = append(order, k)
		}
	}
	room := min(l.roomBeside(stored), len(order))
	for _, k := range order[room:] {
		l.left(todo[k])
		delete(todo, k)
	}

	merged := make([]T, 0, len(stored)+room)
	for _, s := range stored {
		if !l.ours(s) {
			merged = append(merged, s)
			continue
		}
		if w, ok := todo[l.key(s)]; ok {
			merged = append(merged, l.join(s, w))
			delete(todo, l.key(s))
		}
	}
	for _, k := range order[:room] {
		if w, ok := todo[k]; ok {
			var none T
			merged = append(merged, l.join(none, w))
		}
	}
	return merged
}

func (l list[K, T]) roomBeside(stored []T) int {
	room := l.limit
	for _, s := range stored {
		if !l.ours(s) {
			room--
		}
	}
	return max(room, 0)
}

// filled is a reference as the API server stores it. Without that, ours would differ from what is stored for ever.
func filled(ref gwv1.ParentReference) gwv1.ParentReference {
	ref.Group = or(ref.Group, gwv1.GroupName)
	ref.Kind = or(ref.Kind, "Gateway")
	return ref
}

// refText tells references apart, and reads well: "Gateway infra/gw section http port 80". One without a namespace is another than one
// that names the object's own, since entries repeat what the spec says.
func refText(ref gwv1.ParentReference) string {
	ref = filled(ref)
	text := string(*ref.Kind)
	if *ref.Group != gwv1.GroupName {
		text += "." + string(*ref.Group)
	}
	text += " "
	if ref.Namespace != nil {
		text += string(*ref.Namespace) + "/"
	}
	text += string(ref.Name)
	if ref.SectionName != nil {
		text += " section " + string(*ref.SectionName)
	}
	if ref.Port != nil {
		text += fmt.Sprintf(" port %d", *ref.Port)
	}
	return text
}

func or[T any](given *T, otherwise T) *T {
	if given != nil {
		return given
	}
	return &otherwise
}
