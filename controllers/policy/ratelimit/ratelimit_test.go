package ratelimit_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/policy/ratelimit"
	filter "github.com/gatehouse-dev/gatehouse/dataplane/filter/ratelimit"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

var gw = snapshot.Name{Namespace: "shop", Name: "gw"}

// world is a Gateway gw with a listener http, and a route api with an unnamed rule.
var world = policy.Targets{
	Gateways: []policy.GatewayTarget{{Name: gw, Listeners: []string{"http"}}},
	Routes: []policy.RouteTarget{{ID: route, Rules: []string{""}, Parents: []snapshot.Name{gw},
		Attached: []snapshot.ListenerKey{{Gateway: gw, Section: "http"}}}},
}

var route = policy.RouteID{Kind: "HTTPRoute", Name: snapshot.Name{Namespace: "shop", Name: "api"}}

// read makes a policy of the YAML of its spec, without targetRefs.
func read(t *testing.T, name, target, spec string) *v1alpha1.RateLimitPolicy {
	t.Helper()
	p := ratelimit.Kind.New().(*v1alpha1.RateLimitPolicy)
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	kind, targetName, _ := strings.Cut(target, " ")
	ref := policy.Target{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
		Group: gwv1.GroupName, Kind: gwv1.Kind(kind), Name: gwv1.ObjectName(targetName)}}
	p.Namespace, p.Name, p.UID, p.Spec.TargetRefs = "shop", name, "1234", []policy.Target{ref}
	return p
}

func attach(policies ...policy.Object) *policy.Attached {
	return policy.Attach(policy.Input{Kinds: []policy.Kind{ratelimit.Kind}, Objects: policies, Targets: world})
}

func onRule(a *policy.Attached) policy.Effect { return a.Rule(gw, "http", route, 0) }

func TestAPolicyBecomesTheSettingsOfAFilter(t *testing.T) {
	a := attach(read(t, "limits", "HTTPRoute api", `
mode: Shadow
limits:
- name: per-client
  when: request.method != "OPTIONS"
  key: [source.ip, 'request.headers["x-tenant"]']
  rates: [{requests: 100, window: 1m, burst: 20}, {requests: 1000, window: 1h30m}]
- name: at-once
  concurrency: 50
`))
	by := filter.Policy{UID: "1234", Name: snapshot.Name{Namespace: "shop", Name: "limits"}}
	want := filter.Config{Limits: []filter.Limit{
		{Policy: by, Name: "per-client", Shadow: true, When: `request.method != "OPTIONS"`, Key: []string{"source.ip", `request.headers["x-tenant"]`},
			Rates: []filter.Rate{{Requests: 100, Window: time.Minute, Burst: 20}, {Requests: 1000, Window: 90 * time.Minute}}},
		{Policy: by, Name: "at-once", Shadow: true, Concurrency: 50},
	}}
	got := onRule(a)
	if len(got.Filters) != 1 || got.Failure != nil {
		t.Fatalf("effect: %+v", got)
	}
	if diff := cmp.Diff(want, got.Filters[0]); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

func TestScopeAndCostAreSettingsOfTheFilter(t *testing.T) {
	for _, q := range []struct {
		spec string
		want filter.Limit
	}{
		{"scope: Local", filter.Limit{}},
		{"scope: Divided", filter.Limit{Scope: filter.Divided}},
		{"scope: Shared", filter.Limit{Scope: filter.Shared, OnStoreFailure: filter.CountLocally}},
		{"scope: Shared, onStoreFailure: Local", filter.Limit{Scope: filter.Shared, OnStoreFailure: filter.CountLocally}},
		{"scope: Shared, onStoreFailure: Allow", filter.Limit{Scope: filter.Shared, OnStoreFailure: filter.Allow}},
		{"scope: Shared, onStoreFailure: Deny", filter.Limit{Scope: filter.Shared, OnStoreFailure: filter.Deny}},
	} {
		for cost, want := range map[string]filter.Limit{
			"": {}, `, cost: 'request.method == "GET" ? 1 : 5'`: {Cost: `request.method == "GET" ? 1 : 5`},
			`, cost: 'int(response.headers["x-tokens"])', costFrom: Response`: {Cost: `int(response.headers["x-tokens"])`, CostFromResponse: true},
		} {
			a := attach(read(t, "limits", "HTTPRoute api", fmt.Sprintf("{%s, limits: [{name: a, rates: [{requests: 5, window: 1m}]%s}]}", q.spec, cost)))
			want.Policy, want.Name = filter.Policy{UID: "1234", Name: snapshot.Name{Namespace: "shop", Name: "limits"}}, "a"
			want.Rates = []filter.Rate{{Requests: 5, Window: time.Minute}}
			want.Scope, want.OnStoreFailure = q.want.Scope, q.want.OnStoreFailure
			got := onRule(a)
			if len(got.Filters) != 1 {
				t.Errorf("%s%s: %+v", q.spec, cost, a.Statuses(func(snapshot.ListenerKey) string { return "" }))
				continue
			}
			if diff := cmp.Diff(filter.Config{Limits: []filter.Limit{want}}, got.Filters[0]); diff != "" {
				t.Errorf("%s%s: want (-), got (+):\n%s", q.spec, cost, diff)
			}
		}
	}
}

func TestWithoutAStoreASharedPolicyActsAndSaysHow(t *testing.T) {
	for failure, says := range map[string]string{
		"Local": "each replica admits its share", "Allow": "all requests are admitted", "Deny": "all requests are refused with 503",
	} {
		p := read(t, "limits", "HTTPRoute api", fmt.Sprintf("{scope: Shared, onStoreFailure: %s, limits: [{name: a, concurrency: 1}]}", failure))
		a := policy.Attach(policy.Input{Kinds: []policy.Kind{ratelimit.With(false)}, Objects: []policy.Object{p}, Targets: world})
		if len(onRule(a).Filters) != 1 {
			t.Error("it does not act")
		}
		s := a.Statuses(func(snapshot.ListenerKey) string { return "" })[0]
		accepted, programmed := s.Status.Ancestors[0].Conditions[0], s.Status.Ancestors[0].Conditions[1]
		if accepted.Status != metav1.ConditionTrue || programmed.Status != metav1.ConditionFalse || programmed.Reason != "NoStore" ||
			!strings.Contains(programmed.Message, says) || !strings.Contains(programmed.Message, "--store") {
			t.Errorf("%+v %+v", accepted, programmed)
		}
		if len(s.Problems) != 1 || s.Problems[0].FieldPath != "spec.scope" {
			t.Errorf("%+v", s.Problems)
		}
	}
}

func TestLimitsOfAllPoliciesAddUpToOneFilter(t *testing.T) {
	one := "limits: [{name: one, concurrency: 1}]"
	young := read(t, "young", "HTTPRoute api", one)
	young.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	a := attach(young, read(t, "on-gateway", "Gateway gw", one), read(t, "old", "HTTPRoute api", one))

	var names []string
	got := onRule(a)
	if len(got.Filters) != 1 {
		t.Fatalf("%d filters", len(got.Filters))
	}
	for _, l := range got.Filters[0].(filter.Config).Limits {
		names = append(names, l.Policy.Name.Name)
	}
	if diff := cmp.Diff([]string{"on-gateway", "old", "young"}, names); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if got := len(a.Default(gw, "http").Filters[0].(filter.Config).Limits); got != 1 {
		t.Errorf("what matches no rule has %d limits", got)
	}
}

func TestWhatIsWrongIsToldWithItsField(t *testing.T) {
	tests := []struct{ name, spec, want string }{
		{"an expression that does not parse", "limits: [{name: a, concurrency: 1, when: 'request.method =='}]", "spec.limits[0].when: line 1, column"},
		{"one of several lines", "limits: [{name: a, concurrency: 1, when: \"true &&\\n  nope\"}]", "spec.limits[0].when: line 2, column 3: nope is not there"},
		{"a condition that is none", "limits: [{name: a, concurrency: 1, when: source.ip}]", "gives string, but must give true or false"},
		{"a key that names nothing", "limits: [{name: a, concurrency: 1}, {name: b, concurrency: 1, key: [source.ip, source.mac]}]",
			"spec.limits[1].key[1]: line 1, column 1: source.mac is not there"},
		{"a window that is no duration", "limits: [{name: a, rates: [{requests: 1, window: 1 day}]}]",
			`spec.limits[0].rates[0].window: "1 day" is not a duration; write it like 10s, 1m or 1h30m`},
		{"one that is Go's, but not GEP-2257's", "limits: [{name: a, rates: [{requests: 1, window: 1.5h}]}]", `spec.limits[0].rates[0].window: "1.5h" is not a duration`},
		{"a window that is too short", "limits: [{name: a, rates: [{requests: 1, window: 999ms}]}]", "spec.limits[0].rates[0].window: must be from 1s to 744h"},
		{"a window that is too long", "limits: [{name: a, rates: [{requests: 1, window: 744h1s}]}]", "spec.limits[0].rates[0].window: must be from 1s to 744h"},
		{"one window twice", "limits: [{name: a, rates: [{requests: 1, window: 60s}, {requests: 2, window: 1m}]}]",
			"spec.limits[0].rates[1].window: windows must be unique in a limit, and there is another of 1m"},
		{"a rate of nothing", "limits: [{name: a, rates: [{requests: 0, window: 1s}]}]", "spec.limits[0].rates[0]: requests must be from 1"},
		{"a burst below zero", "limits: [{name: a, rates: [{requests: 1, window: 1s, burst: -1}]}]", "spec.limits[0].rates[0]: burst must be from 0"},
		{"a debt for decades", "limits: [{name: a, rates: [{requests: 1, window: 744h, burst: 1000000000}]}]", "spec.limits[0].rates[0]: burst 1000000000 is too large"},
		{"a concurrency of nothing", "limits: [{name: a, concurrency: 0}]", "spec.limits[0].concurrency: must be at least 1"},
		{"a limit of nothing", "limits: [{name: a}]", "spec.limits[0]: a limit needs rates or concurrency, or both"},
		{"a limit without a name", "limits: [{concurrency: 1}]", "spec.limits[0].name: a limit needs a name"},
		{"a name twice", "limits: [{name: a, concurrency: 1}, {name: a, concurrency: 2}]", `spec.limits[1].name: another limit is named "a"`},
		{"no limits", "mode: Enforce", "spec.limits: a policy needs at least one limit"},
		{"a mode of another version", "{mode: Divide, limits: [{name: a, concurrency: 1}]}", `spec.mode: this version of Gatehouse knows no mode "Divide"`},
		{"a scope of another version", "{scope: Gossip, limits: [{name: a, concurrency: 1}]}", `spec.scope: this version of Gatehouse knows no scope "Gossip"; use Divided or Local or Shared`},
		{"a failure of another version", "{scope: Shared, onStoreFailure: Wait, limits: [{name: a, concurrency: 1}]}", `knows no onStoreFailure "Wait"; use Allow or Deny or Local`},
		{"a failure of a store that is not asked", "{onStoreFailure: Deny, limits: [{name: a, concurrency: 1}]}", "spec.onStoreFailure: is for scope Shared"},
		{"a cost of no number", "limits: [{name: a, rates: [{requests: 1, window: 1s}], cost: source.ip}]", "spec.limits[0].cost: line 1, column 7: gives string, but must give a whole number"},
		{"a cost of the answer beforehand", "limits: [{name: a, rates: [{requests: 1, window: 1s}], cost: response.code}]", "spec.limits[0].cost: line 1, column 1: response is not there"},
		{"a cost of what is not in answers either", "limits: [{name: a, rates: [{requests: 1, window: 1s}], cost: response.body, costFrom: Response}]", "spec.limits[0].cost: line 1, column 1: response.body is not there"},
		{"a cost from elsewhere", "limits: [{name: a, rates: [{requests: 1, window: 1s}], cost: '1', costFrom: Trailer}]", `spec.limits[0].costFrom: this version of Gatehouse knows no costFrom "Trailer"`},
		{"no cost, from the answer", "limits: [{name: a, rates: [{requests: 1, window: 1s}], costFrom: Response}]", "spec.limits[0].costFrom: there is no cost"},
		{"a cost of places", "limits: [{name: a, concurrency: 1, cost: '2'}]", "spec.limits[0].cost: is for rates"},
		{"two mistakes", "{mode: Divide, limits: [{name: a}]}", "use Enforce or Shadow; spec.limits[0]: a limit needs"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := attach(read(t, "limits", "HTTPRoute api", tt.spec))
			accepted := a.Statuses(func(snapshot.ListenerKey) string { return "" })[0].Status.Ancestors[0].Conditions[0]
			if accepted.Status != metav1.ConditionFalse || accepted.Reason != "Invalid" || !strings.Contains(accepted.Message, tt.want) {
				t.Errorf("Accepted=%s/%s %q, want False/Invalid with %q", accepted.Status, accepted.Reason, accepted.Message, tt.want)
			}
			if e := onRule(a); len(e.Filters) > 0 || e.Failure != nil {
				t.Errorf("it has an effect all the same: %+v", e)
			}
		})
	}
}

// TestTheEdgesOfTheCRDCompile: the filter's own check of rates agrees with ours at the edges that the CRD allows.
func TestTheEdgesOfTheCRDCompile(t *testing.T) {
	for _, rate := range []string{
		"requests: 1, window: 1s", "requests: 1000000000, window: 1s", "requests: 1, window: 744h", "requests: 1000000000, window: 744h",
		"requests: 1000000000, window: 1s, burst: 1000000000", "requests: 1, window: 0h0m1s0ms", "requests: 1, window: 00001s",
	} {
		a := attach(read(t, "limits", "HTTPRoute api", fmt.Sprintf("limits: [{name: a, rates: [{%s}]}]", rate)))
		if e := onRule(a); len(e.Filters) != 1 {
			t.Errorf("%s: %v", rate, a.Statuses(func(snapshot.ListenerKey) string { return "" })[0].Status.Ancestors[0].Conditions[0].Message)
		}
	}
}
