package status_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/status"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

// FuzzMerge merges what Build could want into whatever could be stored, and stores it as the API server would.
func FuzzMerge(f *testing.F) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 9))
		data := make([]byte, 50+r.IntN(1500))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		f.Add(byte(seed), data)
	}
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		d := &dice{data}
		switch kind % 4 {
		case 0:
			check(t, d, gwv1.GatewayClassStatus{Conditions: d.stored()}, gwv1.GatewayClassStatus{Conditions: d.wanted()})
		case 1:
			check(t, d, d.gateway(d.stored), d.gateway(d.wanted))
		case 2:
			check(t, d, gwv1.RouteStatus{Parents: d.storedEntries(32)}, gwv1.RouteStatus{Parents: d.wantedEntries()})
		case 3:
			check(t, d, ancestors(d.storedEntries(16)), ancestors(d.wantedEntries()))
		}
	})
}

func check[V status.Value](t *testing.T, d *dice, stored, wanted V) {
	storedBefore, wantedBefore := encode(t, stored), encode(t, wanted)
	now := time.Unix(1000+int64(d.n(5)), int64(d.n(2))*12345)
	m := status.Merge(stored, wanted, generation, now)

	if encode(t, stored) != storedBefore || encode(t, wanted) != wantedBefore {
		t.Fatal("the arguments were changed")
	}
	if m.Newer != speaksOf(stored, generation+1) {
		t.Fatalf("newer %v", m.Newer)
	}
	if m.Newer || !m.Changed {
		if m.Changed || encode(t, m.Status) != storedBefore {
			t.Fatalf("what is not to be written differs from what is stored:\n%s", gocmp.Diff(stored, m.Status))
		}
	}
	if m.Newer {
		return
	}
	if encode(t, m.Status) == storedBefore && m.Changed {
		t.Fatal("what is the same is to be written")
	}
	othersStay(t, stored, m.Status)
	oursAreThere(t, stored, wanted, m.Status, m.LeftOut, metav1.Unix(now.Unix(), 0))
	patchLeadsThere(t, stored, m.Status)

	kept := m.Status
	if m.Changed {
		kept = serverOf(t, m.Status).store(t, m.Status)
	}
	again := status.Merge(kept, wanted, generation, now.Add(time.Hour))
	if again.Changed || again.Newer || !slices.Equal(again.LeftOut, m.LeftOut) {
		t.Fatalf("the same again is a change:\n%s\nleft out %q, then %q", gocmp.Diff(kept, again.Status), m.LeftOut, again.LeftOut)
	}
}

// view is an object itself, or an entry of its status.
type view struct {
	name       string
	foreign    bool
	conditions []metav1.Condition
	whole      any
	limit      int // of the list that it stands in; 0: it stands in none
}

func views(s any) (all []view) {
	switch s := s.(type) {
	case gwv1.GatewayClassStatus:
		all = append(all, view{conditions: s.Conditions})
	case gwv1.GatewayStatus:
		all = append(all, view{conditions: s.Conditions})
		for _, l := range s.Listeners {
			all = append(all, view{name: string(l.Name), conditions: l.Conditions, whole: l, limit: 64})
		}
	case gwv1.RouteStatus:
		for _, p := range s.Parents {
			all = append(all, view{string(p.ParentRef.Name), p.ControllerName != v1alpha1.ControllerName, p.Conditions, p, 32})
		}
	case gwv1.PolicyStatus:
		for _, a := range s.Ancestors {
			all = append(all, view{string(a.AncestorRef.Name), a.ControllerName != v1alpha1.ControllerName, a.Conditions, a, 16})
		}
	}
	return all
}

func isForeign(c metav1.Condition) bool { return !slices.Contains(translate.Conditions, c.Type) }
func isOurs(c metav1.Condition) bool    { return !isForeign(c) }

func speaksOf(s any, generation int64) bool {
	return slices.ContainsFunc(views(s), func(v view) bool {
		return !v.foreign && slices.ContainsFunc(v.conditions, func(c metav1.Condition) bool { return isOurs(c) && c.ObservedGeneration >= generation })
	})
}

// othersStay: entries of others, and conditions of others in entries that stay, are the same bytes in the same order.
func othersStay(t *testing.T, stored, merged any) {
	t.Helper()
	foreign := func(s any) string {
		var b strings.Builder
		for _, v := range views(s) {
			if v.foreign {
				fmt.Fprintln(&b, encode(t, v.whole))
			}
		}
		return b.String()
	}
	if diff := gocmp.Diff(foreign(stored), foreign(merged)); diff != "" {
		t.Fatalf("entries of others:\n%s", diff)
	}
	for _, v := range views(merged) {
		if was := ownNamed(stored, v.name); !v.foreign {
			before, after := encode(t, only(was.conditions, isForeign)), encode(t, only(v.conditions, isForeign))
			if before != after {
				t.Fatalf("conditions of others in %q:\nbefore %s\nafter  %s", v.name, before, after)
			}
		}
	}
}

func oursAreThere(t *testing.T, stored, wanted, merged any, leftOut []string, now metav1.Time) {
	t.Helper()
	missing := 0
	for _, w := range views(wanted) {
		got, count := ownNamed(merged, w.name), 0
		for _, v := range views(merged) {
			if !v.foreign && v.name == w.name {
				count++
			}
		}
		if count > 1 {
			t.Fatalf("%q stands there %d times", w.name, count)
		}
		if count == 0 {
			missing++
			if n := len(views(merged)); n != w.limit {
				t.Fatalf("%q is left out, though there are only %d", w.name, n)
			}
			continue
		}
		missing += conditionsAreThere(t, w.name, ownNamed(stored, w.name).conditions, w.conditions, got.conditions, now)
	}
	if missing != len(leftOut) {
		t.Fatalf("%d are missing, and %q is what is said to be left out", missing, leftOut)
	}
	for _, v := range views(merged) {
		if !v.foreign && !slices.ContainsFunc(views(wanted), func(w view) bool { return w.name == v.name }) {
			t.Fatalf("nobody wants %q", v.name)
		}
	}
}

// conditionsAreThere counts those that are missing for want of room.
func conditionsAreThere(t *testing.T, name string, stored, wanted, merged []metav1.Condition, now metav1.Time) (missing int) {
	t.Helper()
	var order []string // what stays, in its order
	for _, s := range stored {
		if slices.ContainsFunc(merged, is(s.Type)) {
			order = append(order, s.Type)
		}
	}
	for i, kind := range order {
		if merged[i].Type != kind {
			t.Fatalf("%q: the order of %s became that of %s", name, text(stored), text(merged))
		}
	}
	for _, m := range only(merged, isOurs) {
		w := slices.IndexFunc(wanted, is(m.Type))
		if w < 0 {
			t.Fatalf("%q: nobody wants %s", name, m.Type)
		}
		want := wanted[w]
		want.ObservedGeneration, want.LastTransitionTime = generation, now
		if s := slices.IndexFunc(stored, is(m.Type)); s >= 0 && stored[s].Status == m.Status && stored[s].LastTransitionTime.Unix() != 0 {
			want.LastTransitionTime = stored[s].LastTransitionTime
		}
		if !gocmp.Equal(m, want) {
			t.Fatalf("%q: %s, want %s; stored %s", name, text([]metav1.Condition{m}), text([]metav1.Condition{want}), text(stored))
		}
	}
	missing = len(wanted) - len(only(merged, isOurs))
	if missing > 0 && len(merged) != 8 {
		t.Fatalf("%q: %d are left out of %s", name, missing, text(merged))
	}
	return missing
}

func is(kind string) func(metav1.Condition) bool {
	return func(c metav1.Condition) bool { return c.Type == kind }
}

func only(all []metav1.Condition, keep func(metav1.Condition) bool) []metav1.Condition {
	return slices.DeleteFunc(append([]metav1.Condition{}, all...), func(c metav1.Condition) bool { return !keep(c) })
}

// ownNamed is the first entry of ours with that name.
func ownNamed(s any, name string) view {
	for _, v := range views(s) {
		if !v.foreign && v.name == name {
			return v
		}
	}
	return view{}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// dice makes values out of bytes, so that the fuzzer can steer; when there are none left, all is the first choice.
type dice struct{ data []byte }

func (d *dice) n(limit int) int {
	if len(d.data) == 0 || limit == 0 {
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return int(b) % limit
}

// condition has a time, which counts only where it is stored.
func (d *dice) condition(kind string) metav1.Condition {
	return metav1.Condition{
		Type:               kind,
		Status:             []metav1.ConditionStatus{"True", "False", "Unknown"}[d.n(3)],
		Reason:             []string{"Accepted", "Pending"}[d.n(2)],
		Message:            []string{"", "<said> & done"}[d.n(2)],
		ObservedGeneration: int64(d.n(generation + 1)),
		LastTransitionTime: metav1.Unix(int64(d.n(3))*10, 0),
	}
}

func (d *dice) some(kinds []string, limit int) (all []metav1.Condition) {
	kinds = slices.Clone(kinds)
	for range d.n(limit + 1) {
		i := d.n(len(kinds))
		all = append(all, d.condition(kinds[i]))
		kinds = slices.Delete(kinds, i, i+1)
	}
	return all
}

// stored are up to 8 conditions of us and of others, as old as the hills or newer than what we know.
func (d *dice) stored() []metav1.Condition {
	others := []string{"Ready", "a.example/x", "b.example/y", "b.example/z", "Scheduled", "conformance.example/Stale", "Attached"}
	if d.n(3) == 0 {
		others = nil
	}
	all := d.some(append(others, translate.Conditions...), min(8, len(others)+len(translate.Conditions)))
	for i := range all {
		switch {
		case isForeign(all[i]) && d.n(4) == 0:
			all[i].ObservedGeneration = 77
		case isOurs(all[i]) && d.n(100) == 99:
			all[i].ObservedGeneration = generation + 1
		}
	}
	return all
}

// wanted is never nothing: Build says at least whether an object is accepted.
func (d *dice) wanted() []metav1.Condition {
	if all := d.some(translate.Conditions, 5); len(all) > 0 {
		return all
	}
	return []metav1.Condition{d.condition("Accepted")}
}

func (d *dice) gateway(conditions func() []metav1.Condition) (s gwv1.GatewayStatus) {
	s.Conditions = conditions()
	for i := range d.n(4) {
		kind := gwv1.IPAddressType
		a := gwv1.GatewayStatusAddress{Type: &kind, Value: fmt.Sprintf("192.0.2.%d", i+d.n(2))}
		if d.n(2) == 0 {
			a.Type = nil
		}
		s.Addresses = append(s.Addresses, a)
	}
	names := []gwv1.SectionName{"http", "https", "x", "y"}
	for range d.n(5) {
		i := d.n(len(names))
		l := gwv1.ListenerStatus{Name: names[i], AttachedRoutes: int32(d.n(3)), Conditions: conditions()}
		names = slices.Delete(names, i, i+1)
		if d.n(2) == 0 {
			l.SupportedKinds = []gwv1.RouteGroupKind{{Kind: "HTTPRoute"}}[:d.n(2)]
		}
		s.Listeners = append(s.Listeners, l)
	}
	return s
}

// storedEntries are of us and of others; nothing keeps one from standing there twice.
func (d *dice) storedEntries(limit int) (all []gwv1.RouteParentStatus) {
	for range d.few(limit) {
		controller := []gwv1.GatewayController{v1alpha1.ControllerName, "a.example/c", "b.example/c"}[d.n(3)]
		e := gwv1.RouteParentStatus{ParentRef: ref(d.name()), ControllerName: controller, Conditions: d.stored()}
		if len(e.Conditions) == 0 {
			e.Conditions = []metav1.Condition{d.condition("Accepted")}
		}
		all = append(all, e)
	}
	return all
}

func (d *dice) wantedEntries() (all []gwv1.RouteParentStatus) {
	for range d.few(40) {
		e := gwv1.RouteParentStatus{ParentRef: ref(d.name()), ControllerName: v1alpha1.ControllerName, Conditions: d.wanted()}
		if d.n(2) == 0 {
			e.ParentRef.Group, e.ParentRef.Kind = nil, nil
		}
		if !slices.ContainsFunc(all, func(o gwv1.RouteParentStatus) bool { return o.ParentRef.Name == e.ParentRef.Name }) {
			all = append(all, e)
		}
	}
	return all
}

// few is small most of the time, and up to the limit else.
func (d *dice) few(limit int) int {
	if d.n(2) == 0 {
		return d.n(5)
	}
	return d.n(limit + 1)
}

func (d *dice) name() string { return fmt.Sprintf("gw%d", d.n(60)) }
