package status_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/status"
)

// The tables write a condition as Type=Status:Reason/generation@seconds, and merge for generation 2 at second 100.
const generation = 2

var now = time.Unix(100, 999)

func parse(t *testing.T, line string) (all []metav1.Condition) {
	t.Helper()
	for _, word := range strings.Fields(line) {
		c := metav1.Condition{Reason: "R"}
		word, at, _ := strings.Cut(word, "@")
		i := strings.LastIndex(word, "/")
		if i < strings.Index(word, "=") {
			i = len(word)
		}
		kind, rest, ok := strings.Cut(word[:i], "=")
		if !ok {
			t.Fatalf("%q is not a condition", word)
		}
		state, reason, given := strings.Cut(rest, ":")
		if given {
			c.Reason = reason
		}
		c.Type, c.Status = kind, metav1.ConditionStatus(state)
		c.ObservedGeneration, _ = strconv.ParseInt(strings.TrimPrefix(word[i:], "/"), 10, 64)
		if at != "" {
			seconds, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			c.LastTransitionTime = metav1.Unix(seconds, 0)
		}
		all = append(all, c)
	}
	return all
}

func text(conditions []metav1.Condition) string {
	var words []string
	for _, c := range conditions {
		words = append(words, fmt.Sprintf("%s=%s:%s/%d@%d", c.Type, c.Status, c.Reason, c.ObservedGeneration, c.LastTransitionTime.Unix()))
	}
	return strings.Join(words, " ")
}

// outcome is Merged without its type.
type outcome struct {
	conditions     []metav1.Condition
	changed, newer bool
	leftOut        []string
}

// places are where conditions stand; they are merged in the same way in each.
var places = map[string]func(stored, wanted []metav1.Condition) outcome{
	"class": func(stored, wanted []metav1.Condition) outcome {
		m := status.Merge(gwv1.GatewayClassStatus{Conditions: stored}, gwv1.GatewayClassStatus{Conditions: wanted}, generation, now)
		return outcome{m.Status.Conditions, m.Changed, m.Newer, m.LeftOut}
	},
	"gateway": func(stored, wanted []metav1.Condition) outcome {
		m := status.Merge(gwv1.GatewayStatus{Conditions: stored}, gwv1.GatewayStatus{Conditions: wanted}, generation, now)
		return outcome{m.Status.Conditions, m.Changed, m.Newer, m.LeftOut}
	},
	"listener": func(stored, wanted []metav1.Condition) outcome {
		of := func(c []metav1.Condition) gwv1.GatewayStatus {
			return gwv1.GatewayStatus{Listeners: []gwv1.ListenerStatus{{Name: "http", Conditions: c}}}
		}
		m := status.Merge(of(stored), of(wanted), generation, now)
		return outcome{m.Status.Listeners[0].Conditions, m.Changed, m.Newer, m.LeftOut}
	},
	"parent": func(stored, wanted []metav1.Condition) outcome {
		of := func(c []metav1.Condition) gwv1.RouteStatus {
			return gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{{ParentRef: ref("gw"), ControllerName: v1alpha1.ControllerName, Conditions: c}}}
		}
		m := status.Merge(of(stored), of(wanted), generation, now)
		return outcome{m.Status.Parents[0].Conditions, m.Changed, m.Newer, m.LeftOut}
	},
	"ancestor": func(stored, wanted []metav1.Condition) outcome {
		of := func(c []metav1.Condition) gwv1.PolicyStatus {
			return gwv1.PolicyStatus{Ancestors: []gwv1.PolicyAncestorStatus{{AncestorRef: ref("gw"), ControllerName: v1alpha1.ControllerName, Conditions: c}}}
		}
		m := status.Merge(of(stored), of(wanted), generation, now)
		return outcome{m.Status.Ancestors[0].Conditions, m.Changed, m.Newer, m.LeftOut}
	},
}

// ref has the group and the kind that the API server fills in.
func ref(name string) gwv1.ParentReference {
	group, kind := gwv1.Group(gwv1.GroupName), gwv1.Kind("Gateway")
	return gwv1.ParentReference{Group: &group, Kind: &kind, Name: gwv1.ObjectName(name)}
}

func TestConditionsAreMergedWhereverTheyStand(t *testing.T) {
	const seven = "a/1=True:R/0@1 a/2=True:R/0@1 a/3=True:R/0@1 a/4=True:R/0@1 a/5=True:R/0@1 a/6=True:R/0@1 a/7=True:R/0@1"
	tests := []struct {
		sentence       string
		stored, wanted string
		want           string // "": what was stored, and nothing is written
		leftOut        int
		newer          bool
	}{
		{
			sentence: "the defaults of the CRDs are replaced",
			stored:   "Accepted=Unknown:Pending/0@0 Programmed=Unknown:Pending/0@0",
			wanted:   "Accepted=True Programmed=False",
			want:     "Accepted=True:R/2@100 Programmed=False:R/2@100",
		},
		{
			sentence: "a status that is Unknown is not so since 1970",
			stored:   "Accepted=Unknown:Pending/0@0",
			wanted:   "Accepted=Unknown:Pending",
			want:     "Accepted=Unknown:Pending/2@100",
		},
		{
			sentence: "a new generation and another reason leave the time as it was",
			stored:   "Accepted=False:R/1@50",
			wanted:   "Accepted=False:Other",
			want:     "Accepted=False:Other/2@50",
		},
		{
			sentence: "a time moves with the status",
			stored:   "Accepted=False:R/2@50",
			wanted:   "Accepted=True",
			want:     "Accepted=True:R/2@100",
		},
		{
			sentence: "what says the same is not written",
			stored:   "Programmed=True:R/2@50 Accepted=True:R/2@40",
			wanted:   "Accepted=True Programmed=True",
		},
		{
			sentence: "conditions of others stay where and as they are, whatever they observed",
			stored:   "a.example/X=False:Q/0@1 Accepted=False:R/1@50 Ready=True:R/77@2 b.example/Y=True:R/1@3",
			wanted:   "Accepted=True ResolvedRefs=True",
			want:     "a.example/X=False:Q/0@1 Accepted=True:R/2@100 Ready=True:R/77@2 b.example/Y=True:R/1@3 ResolvedRefs=True:R/2@100",
		},
		{
			sentence: "a condition of ours that is not wanted any more goes",
			stored:   "Conflicted=True:R/2@50 a.example/X=True:R/1@1 Accepted=True:R/2@50",
			wanted:   "Accepted=True",
			want:     "a.example/X=True:R/1@1 Accepted=True:R/2@50",
		},
		{
			sentence: "a condition that Build is not known to write is written once",
			stored:   "gatehouse.dev/New=True:R/1@50",
			wanted:   "gatehouse.dev/New=True",
			want:     "gatehouse.dev/New=True:R/2@50",
		},
		{
			sentence: "what is stored of a newer generation stays, though it be of one condition",
			stored:   "Accepted=False:R/1@50 Programmed=True:R/3@50",
			wanted:   "Accepted=True Programmed=True",
			newer:    true,
		},
		{
			sentence: "a condition that would go stays if it is of a newer generation",
			stored:   "Conflicted=True:R/3@50",
			wanted:   "Accepted=True",
			newer:    true,
		},
		{
			sentence: "others that leave no room are not pushed out",
			stored:   seven,
			wanted:   "Accepted=True Programmed=True ResolvedRefs=True",
			want:     seven + " Accepted=True:R/2@100",
			leftOut:  2,
		},
		{
			sentence: "what comes first in ours has the room, not what was there first",
			stored:   "ResolvedRefs=True:R/2@50 " + seven,
			wanted:   "Accepted=True ResolvedRefs=True",
			want:     seven + " Accepted=True:R/2@100",
			leftOut:  1,
		},
		{
			sentence: "what is left out is told also when nothing is written",
			stored:   seven + " Accepted=True:R/2@50",
			wanted:   "Accepted=True Programmed=True",
			leftOut:  1,
		},
		{
			sentence: "others that fill the list keep all of ours out",
			stored:   seven + " a/8=True:R/0@1",
			wanted:   "Accepted=True Programmed=True",
			leftOut:  2,
		},
	}
	for place, merge := range places {
		for _, test := range tests {
			t.Run(place+"/"+test.sentence, func(t *testing.T) {
				stored := parse(t, test.stored)
				got := merge(stored, parse(t, test.wanted))
				want, changed := test.want, test.want != ""
				if !changed {
					want = text(stored)
				}
				if diff := gocmp.Diff(want, text(got.conditions)); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
				if got.changed != changed || got.newer != test.newer || len(got.leftOut) != test.leftOut {
					t.Errorf("changed %v, newer %v, left out %q; want %v, %v, %d", got.changed, got.newer, got.leftOut, changed, test.newer, test.leftOut)
				}
			})
		}
	}
}

// entries are written a line each: "us gw: Accepted=True:R/2@50", "other gw: …".
func entries(t *testing.T, written string) (all []gwv1.RouteParentStatus) {
	t.Helper()
	for line := range strings.Lines(written) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		head, rest, ok := strings.Cut(line, ": ")
		who, name, okToo := strings.Cut(head, " ")
		if !ok || !okToo {
			t.Fatalf("%q is not an entry", line)
		}
		controller := gwv1.GatewayController(v1alpha1.ControllerName)
		if who != "us" {
			controller = gwv1.GatewayController(who + ".example/controller")
		}
		all = append(all, gwv1.RouteParentStatus{ParentRef: ref(name), ControllerName: controller, Conditions: parse(t, rest)})
	}
	return all
}

func lines(all []gwv1.RouteParentStatus) string {
	var b strings.Builder
	for _, e := range all {
		who := strings.TrimSuffix(string(e.ControllerName), ".example/controller")
		if who == v1alpha1.ControllerName {
			who = "us"
		}
		fmt.Fprintf(&b, "%s %s: %s\n", who, e.ParentRef.Name, text(e.Conditions))
	}
	return b.String()
}

func ancestors(parents []gwv1.RouteParentStatus) gwv1.PolicyStatus {
	var s gwv1.PolicyStatus
	for _, p := range parents {
		s.Ancestors = append(s.Ancestors, gwv1.PolicyAncestorStatus{AncestorRef: p.ParentRef, ControllerName: p.ControllerName, Conditions: p.Conditions})
	}
	return s
}

func parents(s gwv1.PolicyStatus) (all []gwv1.RouteParentStatus) {
	for _, a := range s.Ancestors {
		all = append(all, gwv1.RouteParentStatus{ParentRef: a.AncestorRef, ControllerName: a.ControllerName, Conditions: a.Conditions})
	}
	return all
}

func TestEntriesOfRoutesAndPoliciesAreMerged(t *testing.T) {
	tests := []struct {
		sentence       string
		stored, wanted string
		want           string // lines; "same": what was stored, and nothing is written
		newer          bool
	}{
		{
			sentence: "a first entry comes into an empty status",
			wanted:   "us gw: Accepted=True",
			want:     "us gw: Accepted=True:R/2@100\n",
		},
		{
			sentence: "an object that is none of our business is not written",
			wanted:   "",
			want:     "same",
		},
		{
			sentence: "entries of others stay where they are, those for the same Gateway too",
			stored: `a gw: Accepted=False:R/9@1
				us gw: Accepted=False:R/1@50
				b other: Accepted=True:R/1@1 Whatever=True:R/1@1`,
			wanted: `us gw: Accepted=True
				us new: Accepted=True`,
			want: `a gw: Accepted=False:R/9@1
us gw: Accepted=True:R/2@100
b other: Accepted=True:R/1@1 Whatever=True:R/1@1
us new: Accepted=True:R/2@100
`,
		},
		{
			sentence: "entries of ours that are not wanted go, with what others wrote in them",
			stored: `us old: Accepted=True:R/1@50 x.example/X=True:R/1@1
				a gw: Accepted=True:R/1@1
				us gw: Accepted=True:R/2@50`,
			wanted: "us gw: Accepted=True",
			want: `a gw: Accepted=True:R/1@1
us gw: Accepted=True:R/2@50
`,
		},
		{
			sentence: "the last of ours goes, and an empty list stays",
			stored:   "us gw: Accepted=True:R/2@50",
			wanted:   "",
			want:     "",
		},
		{
			sentence: "an entry of ours that stands there twice stands there once afterwards",
			stored: `us gw: Accepted=True:R/2@50
				us gw: Accepted=False:R/1@40`,
			wanted: "us gw: Accepted=True",
			want:   "us gw: Accepted=True:R/2@50\n",
		},
		{
			sentence: "another order of ours is nothing new",
			stored: `us b: Accepted=True:R/2@50
				us a: Accepted=True:R/2@50`,
			wanted: `us a: Accepted=True
				us b: Accepted=True`,
			want: "same",
		},
		{
			sentence: "an entry that would go stays if it is of a newer generation",
			stored:   "us old: Accepted=True:R/3@50",
			wanted:   "us gw: Accepted=True",
			want:     "same",
			newer:    true,
		},
	}
	for _, test := range tests {
		stored, wanted := entries(t, test.stored), entries(t, test.wanted)
		want := test.want
		if want == "same" {
			want = lines(stored)
		}
		check := func(t *testing.T, got []gwv1.RouteParentStatus, changed, newer bool) {
			if diff := gocmp.Diff(want, lines(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if changed != (test.want != "same") || newer != test.newer {
				t.Errorf("changed %v, newer %v", changed, newer)
			}
		}
		t.Run("route/"+test.sentence, func(t *testing.T) {
			m := status.Merge(gwv1.RouteStatus{Parents: stored}, gwv1.RouteStatus{Parents: wanted}, generation, now)
			check(t, m.Status.Parents, m.Changed, m.Newer)
		})
		t.Run("policy/"+test.sentence, func(t *testing.T) {
			m := status.Merge(ancestors(stored), ancestors(wanted), generation, now)
			check(t, parents(m.Status), m.Changed, m.Newer)
		})
	}
}

func TestAnEmptyListIsNotNullSinceTheCRDsDemandOne(t *testing.T) {
	stored := entries(t, "us gw: Accepted=True:R/1@50")
	if m := status.Merge(gwv1.RouteStatus{Parents: stored}, gwv1.RouteStatus{}, generation, now); m.Status.Parents == nil || !m.Changed {
		t.Errorf("parents %#v, changed %v", m.Status.Parents, m.Changed)
	}
	if m := status.Merge(ancestors(stored), gwv1.PolicyStatus{}, generation, now); m.Status.Ancestors == nil || !m.Changed {
		t.Errorf("ancestors %#v, changed %v", m.Status.Ancestors, m.Changed)
	}
}

func TestWhatFindsNoRoomIsNamed(t *testing.T) {
	var stored, wanted []gwv1.RouteParentStatus
	for i := range 31 {
		stored = append(stored, entries(t, fmt.Sprintf("other gw%d: Accepted=True:R/1@1", i))...)
	}
	section, namespace, port := gwv1.SectionName("http"), gwv1.Namespace("infra"), gwv1.PortNumber(80)
	for _, name := range []string{"first", "second"} {
		p := entries(t, "us "+name+": Accepted=True")[0]
		p.ParentRef.Namespace, p.ParentRef.SectionName, p.ParentRef.Port = &namespace, &section, &port
		wanted = append(wanted, p)
	}
	route := status.Merge(gwv1.RouteStatus{Parents: stored}, gwv1.RouteStatus{Parents: wanted}, generation, now)
	if len(route.Status.Parents) != 32 || route.Status.Parents[31].ParentRef.Name != "first" {
		t.Errorf("%d parents, the last one is %s", len(route.Status.Parents), route.Status.Parents[len(route.Status.Parents)-1].ParentRef.Name)
	}
	if want := []string{"parent Gateway infra/second section http port 80"}; !slices.Equal(route.LeftOut, want) {
		t.Errorf("left out %q, want %q", route.LeftOut, want)
	}

	policy := status.Merge(ancestors(stored[:16]), ancestors(wanted), generation, now)
	if policy.Changed || len(policy.Status.Ancestors) != 16 {
		t.Errorf("a full status was changed: %d ancestors", len(policy.Status.Ancestors))
	}
	if want := []string{"ancestor Gateway infra/first section http port 80", "ancestor Gateway infra/second section http port 80"}; !slices.Equal(policy.LeftOut, want) {
		t.Errorf("left out %q, want %q", policy.LeftOut, want)
	}
}

func TestReferencesThatDifferInOnePartAreDifferentEntries(t *testing.T) {
	gateway, service := gwv1.Kind("Gateway"), gwv1.Kind("Service")
	section, namespace, core, port := gwv1.SectionName("b"), gwv1.Namespace("a"), gwv1.Group(""), gwv1.PortNumber(80)
	refs := []gwv1.ParentReference{
		{Name: "b"},
		{Name: "a", SectionName: &section},
		{Namespace: &namespace, Name: "b"},
		{Namespace: &namespace, Name: "b", Port: &port},
		{Namespace: &namespace, Name: "b", SectionName: &section},
		{Group: &core, Kind: &service, Name: "b"},
		{Kind: &service, Name: "b"},
		{Kind: &gateway, Name: "c"},
	}
	var wanted gwv1.RouteStatus
	for _, r := range refs {
		wanted.Parents = append(wanted.Parents, gwv1.RouteParentStatus{ParentRef: r, ControllerName: v1alpha1.ControllerName, Conditions: parse(t, "Accepted=True")})
	}
	m := status.Merge(gwv1.RouteStatus{}, wanted, generation, now)
	if len(m.Status.Parents) != len(refs) {
		t.Errorf("%d references became %d entries", len(refs), len(m.Status.Parents))
	}
	if again := status.Merge(m.Status, wanted, generation, now); again.Changed {
		t.Error("the same again is a change")
	}
}

func TestWhatTheAPIServerFillsInIsNoChange(t *testing.T) {
	ours := gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{{ParentRef: gwv1.ParentReference{Name: "gw"}, Conditions: parse(t, "Accepted=True")}}}
	if m := status.Merge(gwv1.RouteStatus{Parents: entries(t, "us gw: Accepted=True:R/2@50")}, ours, generation, now); m.Changed {
		t.Error("a parentRef without group and kind is another than one with the defaults")
	}

	group, kind := gwv1.Group(gwv1.GroupName), gwv1.IPAddressType
	gateway := func(group *gwv1.Group, kind *gwv1.AddressType) gwv1.GatewayStatus {
		return gwv1.GatewayStatus{
			Addresses: []gwv1.GatewayStatusAddress{{Type: kind, Value: "192.0.2.1"}},
			Listeners: []gwv1.ListenerStatus{{Name: "http", SupportedKinds: []gwv1.RouteGroupKind{{Group: group, Kind: "HTTPRoute"}}}},
		}
	}
	wanted := gateway(nil, nil)
	if m := status.Merge(gateway(&group, &kind), wanted, generation, now); m.Changed {
		t.Error("addresses and kinds without their defaults are others than those with them")
	}
	if wanted.Listeners[0].SupportedKinds[0].Group != nil || wanted.Addresses[0].Type != nil {
		t.Error("what was wanted has been changed; Build's result is shared")
	}
}

func TestAGatewayTakesItsListenersAddressesAndCountsFromBuild(t *testing.T) {
	kind, none := gwv1.IPAddressType, int32(0)
	stored := gwv1.GatewayStatus{
		Addresses: []gwv1.GatewayStatusAddress{{Type: &kind, Value: "192.0.2.1"}},
		Listeners: []gwv1.ListenerStatus{
			{Name: "old", AttachedRoutes: 3, Conditions: parse(t, "Accepted=True:R/1@50")},
			{Name: "http", AttachedRoutes: 3, Conditions: parse(t, "x.example/X=True:R/1@1 Accepted=True:R/1@50")},
		},
	}
	wanted := gwv1.GatewayStatus{
		Addresses:            []gwv1.GatewayStatusAddress{{Type: &kind, Value: "192.0.2.2"}},
		AttachedListenerSets: &none,
		Listeners: []gwv1.ListenerStatus{
			{Name: "https", SupportedKinds: []gwv1.RouteGroupKind{}, Conditions: parse(t, "Accepted=False")},
			{Name: "http", AttachedRoutes: 4, SupportedKinds: []gwv1.RouteGroupKind{}, Conditions: parse(t, "Accepted=True")},
		},
	}
	want := gwv1.GatewayStatus{
		Conditions:           []metav1.Condition{},
		Addresses:            wanted.Addresses,
		AttachedListenerSets: &none,
		Listeners: []gwv1.ListenerStatus{
			{Name: "http", AttachedRoutes: 4, SupportedKinds: []gwv1.RouteGroupKind{}, Conditions: parse(t, "x.example/X=True:R/1@1 Accepted=True:R/2@50")},
			{Name: "https", SupportedKinds: []gwv1.RouteGroupKind{}, Conditions: parse(t, "Accepted=False:R/2@100")},
		},
	}
	m := status.Merge(stored, wanted, generation, now)
	if diff := gocmp.Diff(want, m.Status); diff != "" || !m.Changed {
		t.Errorf("changed %v (-want +got)\n%s", m.Changed, diff)
	}
}

func TestMoreAddressesThanFitAreCut(t *testing.T) {
	var wanted gwv1.GatewayStatus
	for i := range 18 {
		wanted.Addresses = append(wanted.Addresses, gwv1.GatewayStatusAddress{Value: fmt.Sprintf("192.0.2.%d", i)})
	}
	m := status.Merge(gwv1.GatewayStatus{}, wanted, generation, now)
	if want := []string{"address 192.0.2.16", "address 192.0.2.17"}; len(m.Status.Addresses) != 16 || !slices.Equal(m.LeftOut, want) {
		t.Errorf("%d addresses, left out %q", len(m.Status.Addresses), m.LeftOut)
	}
}

func TestMessagesAreOnesThatTheAPIServerTakes(t *testing.T) {
	tests := map[string]struct {
		message, want string
	}{
		"a usual one":              {"no ReferenceGrant", "no ReferenceGrant"},
		"bytes that are no text":   {"open \xff\xfe: no", "open \uFFFD: no"},
		"one of the longest":       {strings.Repeat("x", 32768), strings.Repeat("x", 32768)},
		"too long":                 {strings.Repeat("x", 32769), strings.Repeat("x", 32765) + "…"},
		"cut in a character":       {strings.Repeat("é", 20000), strings.Repeat("é", 16382) + "…"},
		"long, with bytes no text": {strings.Repeat("x", 32764) + "\xffabcd", strings.Repeat("x", 32764) + "…"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			wanted := gwv1.GatewayClassStatus{Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "R", Message: test.message}}}
			m := status.Merge(gwv1.GatewayClassStatus{}, wanted, generation, now)
			got := m.Status.Conditions[0].Message
			if got != test.want || !utf8.ValidString(got) {
				t.Errorf("%d bytes, ends with %q", len(got), got[max(0, len(got)-20):])
			}
			if status.Merge(m.Status, wanted, generation, now).Changed {
				t.Error("the same again is a change")
			}
		})
	}
}
