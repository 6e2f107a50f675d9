package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// fakePolicy is a policy that does nothing but stand in a list.
type fakePolicy struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	targets []policy.Target
	wrong   []policy.Problem
}

func (p *fakePolicy) DeepCopyObject() runtime.Object { c := *p; return &c }

// guardPolicy is one of a kind that fails closed.
type guardPolicy struct{ fakePolicy }

// words is a filter that is a list of the policies that came together in it.
type words []string

func (words) FilterName() string { return "words" }
func (w words) String() string   { return strings.Join(w, "+") }

var everywhere = policy.AttachTo{policy.Gateway, policy.Listener, policy.ListenerSet, policy.HTTPRoute, policy.GRPCRoute, policy.Rule}

func addUp(effects []policy.Effect) policy.Effect {
	var all words
	for _, e := range effects {
		all = append(all, e.Filters[0].(words)...)
	}
	return policy.Effect{Filters: []snapshot.Filter{all}}
}

func fakeKind(attachTo policy.AttachTo) policy.Kind {
	return policy.Of(func() *fakePolicy { return new(fakePolicy) }, func(p *fakePolicy) []policy.Target { return p.targets },
		attachTo, addUp, compileFake)
}

func compileFake(p *fakePolicy, _ policy.Lookup) (policy.Effect, []policy.Problem) {
	return policy.Effect{Filters: []snapshot.Filter{words{p.Name}}}, p.wrong
}

func guardKind(attachTo policy.AttachTo) policy.Kind {
	k := policy.Of(func() *guardPolicy { return new(guardPolicy) }, func(p *guardPolicy) []policy.Target { return p.targets },
		attachTo, addUp, func(p *guardPolicy, l policy.Lookup) (policy.Effect, []policy.Problem) {
			return compileFake(&p.fakePolicy, l)
		})
	k.FailClosed = true
	return k
}

var kinds = []policy.Kind{fakeKind(everywhere), guardKind(everywhere)}

// made is the age of the next policy: each is younger than the one before.
var made = time.Unix(1000, 0)

// target reads "Gateway gw", "Gateway gw/http", "HTTPRoute api/checkout".
func target(text string) policy.Target {
	kind, rest, _ := strings.Cut(text, " ")
	name, section, has := strings.Cut(rest, "/")
	t := policy.Target{}
	t.Group, t.Kind, t.Name = gwv1.GroupName, gwv1.Kind(kind), gwv1.ObjectName(name)
	if has {
		s := gwv1.SectionName(section)
		t.SectionName = &s
	}
	return t
}

func fake(name string, targets ...string) *fakePolicy {
	made = made.Add(time.Second)
	p := &fakePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Generation: 7, CreationTimestamp: metav1.NewTime(made)}}
	for _, t := range targets {
		p.targets = append(p.targets, target(t))
	}
	return p
}

func guard(name string, targets ...string) *guardPolicy { return &guardPolicy{*fake(name, targets...)} }

func (p *fakePolicy) broken() *fakePolicy {
	p.wrong = []policy.Problem{{FieldPath: "spec.when", Message: "1:7: syntax error"}}
	return p
}

func (p *guardPolicy) broken() *guardPolicy { p.fakePolicy.broken(); return p }

func name(n string) snapshot.Name { return snapshot.Name{Namespace: "ns", Name: n} }

func key(gateway, section string) snapshot.ListenerKey {
	return snapshot.ListenerKey{Gateway: name(gateway), Section: section}
}

var api = policy.RouteID{Kind: "HTTPRoute", Name: snapshot.Name{Namespace: "ns", Name: "api"}}

// world has a Gateway gw with listeners http and alt, a Gateway other, a Gateway of somebody else, a route api with rules "first",
// unnamed and "third" on gw/http and other/http, a route that nobody accepted, one that names no Gateway, and one of somebody else.
func world() policy.Targets {
	return policy.Targets{
		Gateways: []policy.GatewayTarget{
			{Name: name("gw"), Listeners: []string{"http", "alt"}},
			{Name: name("other"), Listeners: []string{"http"}},
			{Name: name("theirs"), Listeners: []string{"http"}, Foreign: true},
		},
		Routes: []policy.RouteTarget{
			{ID: api, Rules: []string{"first", "", "third"}, Parents: []snapshot.Name{name("gw"), name("other")},
				Attached: []snapshot.ListenerKey{key("gw", "http"), key("other", "http")}},
			{ID: policy.RouteID{Kind: "GRPCRoute", Name: name("api")}, Rules: []string{""}, Parents: []snapshot.Name{name("gw")},
				Attached: []snapshot.ListenerKey{key("gw", "http")}},
			{ID: policy.RouteID{Kind: "HTTPRoute", Name: name("refused")}, Rules: []string{""}, Parents: []snapshot.Name{name("gw")}},
			{ID: policy.RouteID{Kind: "HTTPRoute", Name: name("alone")}, Rules: []string{""}},
			{ID: policy.RouteID{Kind: "HTTPRoute", Name: name("theirs")}, Rules: []string{""}, Foreign: true},
		},
	}
}

func attach(objects ...policy.Object) *policy.Attached {
	return policy.Attach(policy.Input{Kinds: kinds, Objects: objects, Targets: world()})
}

func text(e policy.Effect) string {
	var parts []string
	for _, f := range e.Filters {
		parts = append(parts, f.String())
	}
	if e.Failure != nil {
		parts = append(parts, "fail("+e.Failure.Reason+": "+e.Failure.Detail+")")
	}
	return strings.Join(parts, " ")
}

func TestAKindIsNamedAsItsType(t *testing.T) {
	if k := kinds[0]; k.Name != "fakePolicy" {
		t.Errorf("the kind of fakePolicy is %q", k.Name)
	}
	if _, ok := kinds[0].New().(*fakePolicy); !ok {
		t.Errorf("New makes a %T", kinds[0].New())
	}
}

func TestARuleHasThePoliciesOfAllThatIsAboveIt(t *testing.T) {
	policies := []policy.Object{
		fake("on-first", "HTTPRoute api/first"),
		fake("on-route", "HTTPRoute api"),
		fake("on-listener", "Gateway gw/http"),
		fake("on-gateway", "Gateway gw"),
		fake("on-other", "Gateway other"),
		fake("on-grpc", "GRPCRoute api"),
		fake("twice", "Gateway gw", "HTTPRoute api", "HTTPRoute api/first"),
		guard("guard", "HTTPRoute api/third"),
	}
	tests := []struct {
		gateway, section string
		route            policy.RouteID
		rule             int
		want             string
	}{
		{"gw", "http", api, 0, "on-gateway+twice+on-listener+on-route+on-first"},
		{"gw", "http", api, 1, "on-gateway+twice+on-listener+on-route"},
		{"gw", "http", api, 2, "on-gateway+twice+on-listener+on-route guard"},
		{"gw", "alt", api, 1, "on-gateway+twice+on-route"},
		{"other", "http", api, 0, "on-other+on-route+twice+on-first"},
		{"gw", "http", policy.RouteID{Kind: "GRPCRoute", Name: name("api")}, 0, "on-gateway+twice+on-listener+on-grpc"},
		{"gw", "http", policy.RouteID{Kind: "HTTPRoute", Name: snapshot.Name{Namespace: "elsewhere", Name: "api"}}, 0, "on-gateway+twice+on-listener"},
		{"none", "http", policy.RouteID{Kind: "HTTPRoute", Name: name("none")}, 0, ""},
	}
	for range 2 { // the order of the objects does not matter
		a := attach(policies...)
		for _, tt := range tests {
			if got := text(a.Rule(name(tt.gateway), tt.section, tt.route, tt.rule)); got != tt.want {
				t.Errorf("rule %d of %v through %s/%s:\n got %s\nwant %s", tt.rule, tt.route, tt.gateway, tt.section, got, tt.want)
			}
		}
		if got, want := text(a.Default(name("gw"), "http")), "on-gateway+twice+on-listener"; got != want {
			t.Errorf("what matches no rule on gw/http: got %s, want %s", got, want)
		}
		if got, want := text(a.Default(name("gw"), "alt")), "on-gateway+twice"; got != want {
			t.Errorf("what matches no rule on gw/alt: got %s, want %s", got, want)
		}
		slices.Reverse(policies)
	}
}

func TestEqualSetsOfPoliciesGiveTheSameSlices(t *testing.T) {
	a := attach(fake("on-gateway", "Gateway gw"), fake("on-first", "HTTPRoute api/first"))
	second, third := a.Rule(name("gw"), "http", api, 1), a.Rule(name("gw"), "alt", api, 2)
	if &second.Filters[0] != &third.Filters[0] {
		t.Error("two rules with the same policies have different slices")
	}
	first := a.Rule(name("gw"), "http", api, 0)
	if &first.Filters[0] == &second.Filters[0] {
		t.Error("two rules with different policies share a slice")
	}
	_ = append(second.Filters, words{"mine"})
	if got := text(third); got != "on-gateway" || cap(second.Filters) != len(second.Filters) {
		t.Errorf("appending to one effect can reach another: %s, cap %d", got, cap(second.Filters))
	}
}

func TestAPolicyInErrorDoesNothingOrRefusesItsTargetOnly(t *testing.T) {
	const closed = "fail(policy_invalid: guardPolicy ns/guard is not valid)"
	tests := []struct {
		name   string
		policy policy.Object
		want   []string // gw/http: rules 0, 1, 2, default
	}{
		{"a valid one acts", fake("p", "HTTPRoute api"), []string{"p", "p", "p", ""}},
		{"one that need not fail closed does nothing", fake("p", "HTTPRoute api").broken(), []string{"", "", "", ""}},
		{"a guard of a rule refuses that rule", guard("guard", "HTTPRoute api/first").broken(), []string{closed, "", "", ""}},
		{"a guard of a route refuses its rules", guard("guard", "HTTPRoute api").broken(), []string{closed, closed, closed, ""}},
		{"a guard of a Gateway refuses all", guard("guard", "Gateway gw").broken(), []string{closed, closed, closed, closed}},
		{"a guard of another listener refuses nothing here", guard("guard", "Gateway gw/alt").broken(), []string{"", "", "", ""}},
		{"a guard of what is not there refuses nothing", guard("guard", "HTTPRoute api/fourth").broken(), []string{"", "", "", ""}},
		{"a guard of somebody else's refuses nothing", guard("guard", "HTTPRoute theirs").broken(), []string{"", "", "", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := everyRule(attach(tt.policy)); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func everyRule(a *policy.Attached) (got []string) {
	for rule := range 3 {
		got = append(got, text(a.Rule(name("gw"), "http", api, rule)))
	}
	return append(got, text(a.Default(name("gw"), "http")))
}

func TestAGuardThatCannotBeAttachedToAPlaceRefusesIt(t *testing.T) {
	rulesOnly := []policy.Kind{guardKind(policy.AttachTo{policy.HTTPRoute, policy.Rule})}
	a := policy.Attach(policy.Input{Kinds: rulesOnly, Objects: []policy.Object{guard("guard", "Gateway gw/alt")}, Targets: world()})
	if got := text(a.Default(name("gw"), "alt")); got != "fail(policy_invalid: guardPolicy ns/guard is not valid)" {
		t.Errorf("on the listener: %q", got)
	}
	if got := text(a.Default(name("gw"), "http")); got != "" {
		t.Errorf("on its neighbour: %q", got)
	}
}

func TestAValidGuardBesideABrokenOneStillRefuses(t *testing.T) {
	a := attach(guard("good", "HTTPRoute api"), guard("guard", "HTTPRoute api").broken(), fake("limit", "HTTPRoute api"))
	want := "limit good fail(policy_invalid: guardPolicy ns/guard is not valid)"
	if got := text(a.Rule(name("gw"), "http", api, 0)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// statuses is one line per entry: "ancestor: Accepted(message) Programmed=False/Reason(message)".
func statuses(a *policy.Attached, inForce policy.InForce) (lines []string) {
	for _, s := range a.Statuses(inForce) {
		for _, e := range s.Status.Ancestors {
			line := fmt.Sprintf("%s: %s %s/%s", s.Name.Name, *e.AncestorRef.Kind, *e.AncestorRef.Namespace, e.AncestorRef.Name)
			if e.AncestorRef.SectionName != nil {
				line += "/" + string(*e.AncestorRef.SectionName)
			}
			for _, c := range e.Conditions {
				line += fmt.Sprintf(" | %s=%s/%s %s", c.Type, c.Status, c.Reason, c.Message)
			}
			lines = append(lines, line)
		}
	}
	return lines
}

func all(snapshot.ListenerKey) string { return "" }

func onlyAlt(k snapshot.ListenerKey) string {
	if k.Section == "alt" {
		return ""
	}
	return "port 80 is in use"
}

func TestAPolicyIsToldPerAncestor(t *testing.T) {
	const idle = "the policy does nothing here until it is mended"
	tests := []struct {
		name    string
		policy  policy.Object
		inForce policy.InForce
		want    []string
	}{
		{"a Gateway is its own ancestor", fake("p", "Gateway gw"), all, []string{
			"p: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw | Programmed=True/Programmed in force"}},
		{"so it is of its listener", fake("p", "Gateway gw/http"), all, []string{
			"p: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw, listener http | Programmed=True/Programmed in force"}},
		{"a route has each Gateway that it names", fake("p", "HTTPRoute api/first"), all, []string{
			"p: Gateway ns/gw | Accepted=True/Accepted attached to HTTPRoute ns/api, rule first | Programmed=True/Programmed in force",
			"p: Gateway ns/other | Accepted=True/Accepted attached to HTTPRoute ns/api, rule first | Programmed=True/Programmed in force"}},
		{"several targets under one Gateway are one entry", fake("p", "Gateway gw", "GRPCRoute api"), all, []string{
			"p: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw; GRPCRoute ns/api | Programmed=True/Programmed in force"}},
		{"a target that is missing is named itself", fake("p", "HTTPRoute nope", "Gateway gw/http"), all, []string{
			"p: HTTPRoute ns/nope | Accepted=False/TargetNotFound there is no HTTPRoute ns/nope | Programmed=False/TargetNotFound " + idle,
			"p: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw, listener http | Programmed=True/Programmed in force"}},
		{"a Gateway that is missing", fake("p", "Gateway nope"), all, []string{
			"p: Gateway ns/nope | Accepted=False/TargetNotFound there is no Gateway ns/nope | Programmed=False/TargetNotFound " + idle}},
		{"a listener that is missing is told with those there are", fake("p", "Gateway gw/https"), all, []string{
			"p: Gateway ns/gw/https | Accepted=False/TargetNotFound Gateway ns/gw has no listener https; it has http, alt | Programmed=False/TargetNotFound " + idle}},
		{"so is a rule", fake("p", "HTTPRoute api/second"), all, []string{
			"p: HTTPRoute ns/api/second | Accepted=False/TargetNotFound HTTPRoute ns/api has no rule second; it has first, third | Programmed=False/TargetNotFound " + idle}},
		{"or that there are none", fake("p", "GRPCRoute api/second"), all, []string{
			"p: GRPCRoute ns/api/second | Accepted=False/TargetNotFound GRPCRoute ns/api has no rule second; it has none with a name | Programmed=False/TargetNotFound " + idle}},
		{"about somebody else's nothing is said", fake("p", "Gateway theirs", "HTTPRoute theirs", "Gateway theirs/nope"), all, nil},
		{"ListenerSets are refused", fake("p", "ListenerSet set"), all, []string{
			"p: ListenerSet ns/set | Accepted=False/TargetNotSupported this version of Gatehouse does not serve ListenerSets; attach the policy to their Gateway or to routes | Programmed=False/TargetNotSupported " + idle}},
		{"so are other kinds", fake("p", "Service shop"), all, []string{
			"p: Service ns/shop | Accepted=False/Invalid fakePolicy cannot be attached to Service; it can be attached to Gateway, listener, ListenerSet, HTTPRoute, GRPCRoute or rule | Programmed=False/Invalid " + idle}},
		{"what is wrong is told with its field", fake("p", "Gateway gw").broken(), all, []string{
			"p: Gateway ns/gw | Accepted=False/Invalid spec.when: 1:7: syntax error | Programmed=False/Invalid " + idle}},
		{"and what follows, if it fails closed", guard("p", "Gateway gw").broken(), all, []string{
			"p: Gateway ns/gw | Accepted=False/Invalid spec.when: 1:7: syntax error | Programmed=False/Invalid requests are refused here with 500 until the policy is mended"}},
		{"nothing is closed that is not there", guard("p", "Gateway nope"), all, []string{
			"p: Gateway ns/nope | Accepted=False/TargetNotFound there is no Gateway ns/nope | Programmed=False/TargetNotFound " + idle}},
		{"a route that its Gateway refused has nothing to act on", fake("p", "HTTPRoute refused"), all, []string{
			"p: Gateway ns/gw | Accepted=True/Accepted attached to HTTPRoute ns/refused | Programmed=False/TargetNotAttached no listener of this Gateway serves HTTPRoute ns/refused"}},
		{"nor has one that names none", fake("p", "HTTPRoute alone"), all, []string{
			"p: HTTPRoute ns/alone | Accepted=True/Accepted attached to HTTPRoute ns/alone | Programmed=False/TargetNotAttached no Gateway serves HTTPRoute ns/alone"}},
		{"beside one that is served it is in part", fake("p", "HTTPRoute refused", "GRPCRoute api"), all, []string{
			"p: Gateway ns/gw | Accepted=True/Accepted attached to HTTPRoute ns/refused; GRPCRoute ns/api | Programmed=True/PartiallyProgrammed no listener of this Gateway serves HTTPRoute ns/refused"}},
		{"a listener that is not bound yet is waited for", fake("p", "GRPCRoute api"), onlyAlt, []string{
			"p: Gateway ns/gw | Accepted=True/Accepted attached to GRPCRoute ns/api | Programmed=False/Pending not in force on listener http: port 80 is in use"}},
		{"the others are served", fake("p", "Gateway gw"), onlyAlt, []string{
			"p: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw | Programmed=True/PartiallyProgrammed not in force on listener http: port 80 is in use"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, statuses(attach(tt.policy), tt.inForce)); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

func TestATargetOfAnotherGroupIsRefused(t *testing.T) {
	p := fake("p", "Gateway gw")
	p.targets[0].Group = "example.com"
	want := []string{`p: Gateway ns/gw | Accepted=False/Invalid fakePolicy cannot be attached to Gateway of group "example.com"; it can be attached to ` +
		`Gateway, listener, ListenerSet, HTTPRoute, GRPCRoute or rule | Programmed=False/Invalid the policy does nothing here until it is mended`}
	a := attach(p)
	if diff := cmp.Diff(want, statuses(a, all)); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if group := *a.Statuses(all)[0].Status.Ancestors[0].AncestorRef.Group; group != "example.com" {
		t.Errorf("the entry is of group %q", group)
	}
}

func TestEveryPolicyHasAStatusOfItsGeneration(t *testing.T) {
	got := attach(fake("one", "Gateway gw"), fake("none", "Gateway theirs"), guard("two", "Gateway nope")).Statuses(all)
	if len(got) != 3 || got[1].Status.Ancestors == nil || len(got[1].Status.Ancestors) != 0 {
		t.Fatalf("an entry that is gone cannot be removed: %+v", got)
	}
	for _, s := range got {
		if s.Generation != 7 || s.Name.Namespace != "ns" {
			t.Errorf("status of %s has generation %d", s.Name, s.Generation)
		}
		for _, e := range s.Status.Ancestors {
			for _, c := range e.Conditions {
				if c.ObservedGeneration != 7 || !c.LastTransitionTime.IsZero() || string(e.ControllerName) != "gatehouse.dev/gateway-controller" {
					t.Errorf("entry of %s: %+v", s.Name, e)
				}
			}
		}
	}
}

func TestWhatDoesNotFitIntoAStatusIsCounted(t *testing.T) {
	w := world()
	route := &w.Routes[0]
	route.Parents, route.Attached = nil, nil
	for i := range 20 {
		gateway := name(fmt.Sprintf("gw-%02d", i))
		w.Gateways = append(w.Gateways, policy.GatewayTarget{Name: gateway, Listeners: []string{"http"}})
		route.Parents = append(route.Parents, gateway)
		if i != 18 {
			route.Attached = append(route.Attached, snapshot.ListenerKey{Gateway: gateway, Section: "http"})
		}
	}
	lines := statuses(policy.Attach(policy.Input{Kinds: kinds, Objects: []policy.Object{fake("p", "HTTPRoute api")}, Targets: w}), all)
	if len(lines) != 16 {
		t.Fatalf("%d entries", len(lines))
	}
	if !strings.Contains(lines[0], "gw-18") || !strings.Contains(lines[0], "TargetNotAttached") {
		t.Errorf("what is wrong was cut: %s", lines[0])
	}
	if !strings.Contains(lines[15], "there is no room here for 4 more Gateways") {
		t.Errorf("the cut is not told: %s", lines[15])
	}
}

func TestManyProblemsAreToldInPart(t *testing.T) {
	p := fake("p", "Gateway gw")
	for i := range 7 {
		p.wrong = append(p.wrong, policy.Problem{Message: fmt.Sprint("problem ", i), Reason: "Conflicted"})
	}
	got := attach(p).Statuses(all)[0].Status.Ancestors[0].Conditions[0]
	want := "problem 0; problem 1; problem 2; problem 3; problem 4; and 2 more"
	if got.Message != want || got.Reason != "Conflicted" {
		t.Errorf("got %s %q, want Conflicted %q", got.Reason, got.Message, want)
	}
}

func TestProblemsAreToldWithTheirFields(t *testing.T) {
	p := fake("p", "Gateway gw", "HTTPRoute nope", "Gateway theirs/nope").broken()
	want := []policy.Problem{
		{FieldPath: "spec.when", Message: "1:7: syntax error"},
		{FieldPath: "spec.targetRefs[1]", Reason: "TargetNotFound", Message: "there is no HTTPRoute ns/nope"},
	}
	if diff := cmp.Diff(want, attach(p).Statuses(all)[0].Problems); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}
