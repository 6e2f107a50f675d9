package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// ask is a question of a doorPolicy: "secret NAME", "secrets LABEL", "backend NAME".
type ask string

// compileDoor makes a filter of the policy's name and the answers to its questions.
func compileDoor(p *doorPolicy, l policy.Lookup) (policy.Effect, []policy.Problem) {
	word := p.Name
	problems := slices.Clone(p.wrong)
	note := func(problem *policy.Problem) {
		if problem != nil {
			problems = append(problems, *problem)
		}
	}
	for _, a := range p.asks {
		kind, name, _ := strings.Cut(string(a), " ")
		switch kind {
		case "secret":
			s, problem := l.Secret("spec.secret", gwv1.SecretObjectReference{Name: gwv1.ObjectName(name)})
			note(problem)
			word += ":" + string(s.Data["key"])
		case "secrets":
			all, problem := l.Secrets("spec.selector", metav1.LabelSelector{MatchLabels: map[string]string{name: ""}})
			note(problem)
			for _, s := range all {
				word += ":" + string(s.Data["key"])
			}
		case "backend":
			b, problem := l.Backend("spec.backend", gwv1.BackendObjectReference{Name: gwv1.ObjectName(name)})
			note(problem)
			word += ":" + b.Service.Name
		}
	}
	return policy.Effect{Filters: []snapshot.Filter{words{word}}}, problems
}

// shelf answers by name: a value, "" for one that is missing, and what is not in it is pending.
type shelf map[string]string

func (s shelf) find(field, name string) (string, *policy.Problem) {
	value, known := s[name]
	switch {
	case !known:
		return "", &policy.Problem{FieldPath: field, Message: "who knows", Pending: true}
	case value == "":
		return "", &policy.Problem{FieldPath: field, Reason: "InvalidSecretRef", Message: "there is no " + name, Reference: true}
	}
	return value, nil
}

func (s shelf) Secret(field string, ref gwv1.SecretObjectReference) (policy.Secret, *policy.Problem) {
	value, p := s.find(field, string(ref.Name))
	return policy.Secret{Name: name(string(ref.Name)), Data: map[string][]byte{"key": []byte(value)}}, p
}

func (s shelf) Secrets(field string, selector metav1.LabelSelector) ([]policy.Secret, *policy.Problem) {
	for label := range selector.MatchLabels {
		one, p := s.Secret(field, gwv1.SecretObjectReference{Name: gwv1.ObjectName(label)})
		return []policy.Secret{one}, p
	}
	return nil, nil
}

func (s shelf) Backend(field string, ref gwv1.BackendObjectReference) (snapshot.BackendRef, *policy.Problem) {
	_, p := s.find(field, string(ref.Name))
	return snapshot.BackendRef{Service: name(string(ref.Name)), Port: 80}, p
}

// asking makes a door that asks.
func asking(name, target string, asks ...ask) *doorPolicy {
	d := door(name, target)
	d.asks, d.UID = asks, types.UID("uid-"+name)
	return d
}

func look(last *policy.LastGood, s shelf, objects ...policy.Object) *policy.Attached {
	return policy.Attach(policy.Input{
		Kinds: append(slices.Clone(kinds), doorKind), Objects: objects, Targets: world(), LastGood: last,
		Lookup: func(policy.Kind, policy.Object) policy.Lookup { return s },
	})
}

const unknown = "fail(policy_invalid: doorPolicy ns/door waits for an answer about what it refers to)"

func TestWhatAPolicyRefersToIsInItsEffect(t *testing.T) {
	a := look(nil, shelf{"a": "A", "b": "B", "authz": "yes"}, asking("door", "HTTPRoute api", "secret a", "secrets b", "backend authz"))
	e := a.Rule(name("gw"), "http", api, 0)
	if got := text(e); got != "door:A:B:authz" {
		t.Errorf("it does %q", got)
	}
	want := []snapshot.Backend{{Ref: snapshot.BackendRef{Service: name("authz"), Port: 80}}}
	if diff := cmp.Diff(want, e.Backends); diff != "" {
		t.Errorf("backends, want (-), got (+):\n%s", diff)
	}
	if got := statuses(a, all)[0]; !strings.HasSuffix(got, "| ResolvedRefs=True/ResolvedRefs ") {
		t.Errorf("it says %s", got)
	}
}

func TestBackendsOfPoliciesThatMeetAreNamedOnce(t *testing.T) {
	a := look(nil, shelf{"authz": "yes", "other": "yes"},
		asking("one", "Gateway gw", "backend authz"), asking("two", "HTTPRoute api", "backend authz", "backend other"))
	var refs []string
	for _, b := range a.Rule(name("gw"), "http", api, 0).Backends {
		refs = append(refs, b.Ref.Service.Name)
	}
	if !slices.Equal(refs, []string{"authz", "other"}) {
		t.Errorf("backends %v", refs)
	}
	if e := a.Default(name("gw"), "http"); len(e.Backends) != 1 {
		t.Errorf("what matches no rule calls %v", e.Backends)
	}
}

func TestWhatIsPendingDoesWhatItDidLast(t *testing.T) {
	tests := []struct {
		name        string
		before, now *doorPolicy
		first, then shelf
		want        string // rule 0
	}{
		{"the same policy", asking("door", "HTTPRoute api", "secret a"), asking("door", "HTTPRoute api", "secret a"), shelf{"a": "A"}, shelf{}, "door:A"},
		{"one that asks for something new", asking("door", "HTTPRoute api", "secret a"), asking("door", "HTTPRoute api", "secret b"), shelf{"a": "A"}, shelf{"a": "A2"}, "door:A"},
		{"one that was in error stays in error", asking("door", "HTTPRoute api", "secret a"), asking("door", "HTTPRoute api", "secret a"), shelf{"a": ""}, shelf{}, invalid("door")},
		{"by label", asking("door", "HTTPRoute api", "secrets a"), asking("door", "HTTPRoute api", "secrets a"), shelf{"a": "A"}, shelf{}, "door:A"},
		{"a backend", asking("door", "HTTPRoute api", "backend a"), asking("door", "HTTPRoute api", "backend a"), shelf{"a": "A"}, shelf{}, "door:a"},
		{"an attachment acts at once", asking("door", "Gateway other", "secret a"), asking("door", "HTTPRoute api", "secret a"), shelf{"a": "A"}, shelf{}, "door:A"},
		{"not what it may not use any more", asking("door", "HTTPRoute api", "secret a"), asking("door", "HTTPRoute api", "secret b"), shelf{"a": "A"}, shelf{"a": ""}, unknown},
		{"not when it is wrong for certain", asking("door", "HTTPRoute api", "secret a"), asking("door", "HTTPRoute api", "secret a", "secret b"), shelf{"a": "A"}, shelf{"b": ""}, invalid("door")},
		{"not what another one of the name did", asking("door", "HTTPRoute api", "secret a"), func() *doorPolicy {
			d := asking("door", "HTTPRoute api", "secret a")
			d.UID = "another"
			return d
		}(), shelf{"a": "A"}, shelf{}, unknown},
		{"a new one refuses", asking("other", "Gateway other"), asking("door", "HTTPRoute api", "secret a"), shelf{}, shelf{}, unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			last := look(nil, tt.first, tt.before).LastGood()
			for range 2 { // it is remembered for as long as it takes
				a := look(last, tt.then, tt.now)
				if got := text(a.Rule(name("gw"), "http", api, 0)); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				last = a.LastGood()
			}
		})
	}
}

func TestOfWhatIsPendingNothingIsSaid(t *testing.T) {
	a := look(nil, shelf{}, asking("door", "HTTPRoute api", "secret a"), fake("limit", "HTTPRoute refused"))
	if got := statuses(a, all); len(got) != 1 || !strings.HasPrefix(got[0], "limit: ") {
		t.Errorf("said: %q", got)
	}
	if got := a.Waiting(); len(got) != 1 || got[0] != (policy.Waiting{Kind: "doorPolicy", Name: name("door")}) {
		t.Errorf("waiting: %v", got)
	}
	a = look(nil, shelf{"b": ""}, asking("door", "HTTPRoute api/first", "secret a", "secret b"))
	want := []string{
		"door: Gateway ns/gw | Accepted=False/InvalidSecretRef spec.secret: there is no b | Programmed=False/InvalidSecretRef requests are refused here with 500 until the policy is mended" +
			" | ResolvedRefs=False/InvalidSecretRef spec.secret: there is no b",
		"door: Gateway ns/other | Accepted=False/InvalidSecretRef spec.secret: there is no b | Programmed=False/InvalidSecretRef requests are refused here with 500 until the policy is mended" +
			" | ResolvedRefs=False/InvalidSecretRef spec.secret: there is no b",
	}
	if diff := cmp.Diff(want, statuses(a, all)); diff != "" || len(a.Waiting()) > 0 {
		t.Errorf("what is wrong for certain is told, want (-), got (+):\n%s\nwaiting %v", diff, a.Waiting())
	}
}

func TestAReplacementThatIsPendingIsNotBelieved(t *testing.T) {
	parent := func(mayReplace bool, asks ...ask) *doorPolicy {
		d := asking("parent", "Gateway gw", asks...)
		d.inherits.MayReplace = mayReplace
		return d
	}
	child := func(replace bool, asks ...ask) *doorPolicy {
		d := asking("child", "HTTPRoute api", asks...)
		d.inherits.Replace = replace
		return d
	}
	tests := []struct {
		name                                    string
		parent, child, parentBefore, childBefor *doorPolicy
		want                                    string
	}{
		{"it did and does", parent(true), child(true, "secret b"), parent(true), child(true), "child"},
		{"it begins to", parent(true), child(true, "secret b"), parent(true), child(false), "parent+child"},
		{"it has ended", parent(true), child(false, "secret b"), parent(true), child(true), "parent+child"},
		{"the parent begins to let it", parent(true, "secret b"), child(true), parent(false), child(true), "parent+child"},
		{"the parent has ended", parent(false, "secret b"), child(true), parent(true), child(true), "parent+child"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			last := look(nil, shelf{}, tt.parentBefore, tt.childBefor).LastGood()
			if got := text(look(last, shelf{}, tt.parent, tt.child).Rule(name("gw"), "http", api, 0)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestForAPolicyThatReachesNothingOfOursNothingIsLookedUp(t *testing.T) {
	for _, target := range []string{"Gateway theirs", "Gateway nope", "HTTPRoute theirs", "HTTPRoute alone", "HTTPRoute api/nope", "Gateway gw/nope"} {
		asked := false
		d := asking("door", target, "secret a")
		d.wrong = []policy.Problem{{FieldPath: "spec.when", Message: "syntax error"}}
		a := policy.Attach(policy.Input{Kinds: []policy.Kind{doorKind}, Objects: []policy.Object{d}, Targets: world(),
			Lookup: func(policy.Kind, policy.Object) policy.Lookup { asked = true; return shelf{} }})
		s := a.Statuses(all)
		if asked || len(s) != 1 || len(a.Waiting()) > 0 {
			t.Errorf("%s: looked up %t, statuses %v, waiting %v", target, asked, s, a.Waiting())
			continue
		}
		if p := s[0].Problems; len(p) == 0 || p[0].Message != "syntax error" {
			t.Errorf("%s: what is wrong with the policy itself is not told: %v", target, p)
		}
	}
	served := asking("door", "HTTPRoute api", "secret a")
	if got := statuses(look(nil, shelf{"a": "A"}, served), all); len(got) != 2 {
		t.Errorf("of one that is served: %q", got)
	}
}

func TestAnEntryThatIsMissingIsToldWithoutTheOthers(t *testing.T) {
	s := policy.Secret{Name: name("keys"), Data: map[string][]byte{"alice": []byte("k")}}
	if got, p := s.Entry("spec.x", "alice"); p != nil || got.Name != s.Name || got.Key != "alice" || string(got.Data) != "k" {
		t.Errorf("entry %s, problem %v", got, p)
	}
	_, p := s.Entry("spec.x", "bob")
	if p == nil || p.String() != `spec.x: Secret ns/keys has no entry "bob"` || p.Reason != "InvalidSecretRef" || !p.Reference {
		t.Errorf("problem %+v", p)
	}
}
