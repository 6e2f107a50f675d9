package translate_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// asked runs a Build in which a policy of namespace web on route shop asks one question, with the Secrets of the YAML around it.
func asked(t *testing.T, secrets string, answers translate.Answers, question func(policy.Lookup)) translate.Result {
	t.Helper()
	in := parse(t, twoListeners+limit("HTTPRoute", "web", "shop")+secrets)
	in.Answers = answers
	runs := 0
	in.Kinds = []policy.Kind{policy.Of(func() *v1alpha1.RateLimitPolicy { return new(v1alpha1.RateLimitPolicy) },
		func(p *v1alpha1.RateLimitPolicy) []policy.Target { return p.Spec.TargetRefs }, policy.AttachTo{policy.HTTPRoute},
		func(e []policy.Effect) policy.Effect { return e[0] },
		func(_ *v1alpha1.RateLimitPolicy, l policy.Lookup) (policy.Effect, []policy.Problem) {
			runs++
			question(l)
			return policy.Effect{}, nil
		})}
	r := translate.Build(in)
	if runs != 1 {
		t.Fatalf("the policy was compiled %d times", runs)
	}
	return r
}

const someSecrets = `---
apiVersion: v1
kind: Secret
metadata:
  name: one
  namespace: web
  labels: {tier: gold}
  annotations: {gatehouse.dev/labels.alice: tier=silver, example.com/applied: "all of it"}
data: {alice: aw==}
---
apiVersion: v1
kind: Secret
metadata: {name: another, namespace: web, labels: {tier: gold}}
---
apiVersion: v1
kind: Secret
metadata: {name: third, namespace: web, labels: {tier: tin}}
---
apiVersion: v1
kind: Secret
metadata: {name: one, namespace: infra, labels: {tier: gold}}
`

func TestASelectorTakesTheSecretsOfItsOwnNamespace(t *testing.T) {
	ref := translate.Ref{Kind: "Secret", Name: snapshot.Name{Namespace: "web"}, Selector: "tier=gold"}
	tests := []struct {
		name     string
		selector metav1.LabelSelector
		answers  translate.Answers
		want     string
	}{
		{"from files", metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}, nil, "web/another web/one"},
		{"when all was read", metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}, translate.Answers{ref: translate.Found}, "web/another web/one"},
		{"when there is no more", metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}, translate.Answers{ref: translate.Absent}, "web/another web/one"},
		{"before that", metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}, translate.Answers{}, "pending"},
		{"when we may not", metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}, translate.Answers{ref: translate.Forbidden}, "may not list the Secrets of namespace web"},
		{"none", metav1.LabelSelector{MatchLabels: map[string]string{"tier": "lead"}}, nil, ""},
		{"all of them", metav1.LabelSelector{}, nil, "would take every Secret"},
		{"by an operator that there is not", metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Is"}}}, nil, "not a valid label selector operator"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var names []string
			var problem *policy.Problem
			asked(t, someSecrets, tt.answers, func(l policy.Lookup) {
				all, p := l.Secrets("spec.x", tt.selector)
				problem = p
				for _, s := range all {
					names = append(names, s.Name.String())
				}
			})
			switch {
			case problem != nil && problem.Pending:
				names = []string{"pending"}
			case problem != nil && problem.FieldPath == "spec.x":
				names = []string{problem.Message}
			}
			if got := strings.Join(names, " "); got != tt.want && (problem == nil || !strings.Contains(got, tt.want) || tt.want == "") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAPolicySeesOfASecretWhatIsForIt(t *testing.T) {
	asked(t, someSecrets, nil, func(l policy.Lookup) {
		all, p := l.Secrets("spec.x", metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}})
		if p != nil || len(all) != 2 {
			t.Fatalf("%v, problem %v", all, p)
		}
		one := all[1]
		if keys := slices.Collect(maps.Keys(one.Annotations)); !slices.Equal(keys, []string{"gatehouse.dev/labels.alice"}) {
			t.Errorf("annotations %v", one.Annotations)
		}
		if one.Labels["tier"] != "gold" || string(one.Data["alice"]) != "k" {
			t.Errorf("labels %v, %d entries", one.Labels, len(one.Data))
		}
	})
}

func TestWhatASelectorTakesIsAReference(t *testing.T) {
	r := asked(t, "", translate.Answers{}, func(l policy.Lookup) {
		l.Secrets("spec.x", metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}})
	})
	if got, want := fmt.Sprint(r.Wants), "[Secrets of namespace web with labels tier=gold]"; got != want {
		t.Errorf("wants %s, want %s", got, want)
	}
	want := translate.Ref{Kind: "RateLimitPolicy", Name: name("web/limit")}
	if !slices.Contains(r.Waiting(), want) {
		t.Errorf("waiting are %v", r.Waiting())
	}
}

func TestARuleHasTheFingerprintOfWhatDecidesAboutAccess(t *testing.T) {
	access := func(when string) string {
		return `---
apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: access, namespace: web}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
  authorize: {default: Deny, rules: [{name: x, action: Allow, when: '` + when + `'}]}
`
	}
	of := func(yaml string) (print string) {
		t.Helper()
		for rule := range rules(translate.Build(parse(t, twoListeners+yaml)).Snapshot) {
			print = rule.Security
		}
		return print
	}
	none, one := of(""), of(access("true"))
	if none != "" || one == "" {
		t.Fatalf("without a policy %q, with one %q", none, one)
	}
	if got := of(access("true") + limit("HTTPRoute", "web", "shop")); got != one {
		t.Error("a limit changes it")
	}
	if of(access("false")) == one || of(access("nonsense")) == one || of(access("nonsense")) == "" {
		t.Error("a policy that changed, or broke, does not change it")
	}
}
