package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
)

// doorPolicy is one of a kind of which a target has one, that may replace others of its kind, and fails closed.
type doorPolicy struct {
	fakePolicy
	inherits policy.Inheritance
	asks     []ask
}

var doorKind = func() policy.Kind {
	k := policy.Of(func() *doorPolicy { return new(doorPolicy) }, func(p *doorPolicy) []policy.Target { return p.targets },
		everywhere, addUp, compileDoor)
	k.FailClosed, k.Exclusive = true, true
	k.Inheritance = func(o policy.Object) policy.Inheritance { return o.(*doorPolicy).inherits }
	return k
}()

// door makes a policy; words of its name say how it stands to others: "replace" and "mayreplace".
func door(name string, targets ...string) *doorPolicy {
	d := &doorPolicy{fakePolicy: *fake(name, targets...)}
	d.inherits.Replace = slices.Contains(strings.Split(name, "-"), "replace")
	d.inherits.MayReplace = slices.Contains(strings.Split(name, "-"), "mayreplace")
	return d
}

func (p *doorPolicy) broken() *doorPolicy { p.fakePolicy.broken(); return p }

func doors(objects ...policy.Object) *policy.Attached {
	return policy.Attach(policy.Input{Kinds: append(slices.Clone(kinds), doorKind), Objects: objects, Targets: world()})
}

func invalid(name string) string {
	return "fail(policy_invalid: doorPolicy ns/" + name + " is not valid)"
}

func TestAPolicyReplacesThoseAboveItThatLetThemselvesBeReplaced(t *testing.T) {
	tests := []struct {
		name     string
		policies []policy.Object
		want     []string // gw/http: rules 0, 1, 2, default
	}{
		{"without a word both hold", []policy.Object{door("gw-mayreplace", "Gateway gw"), door("api", "HTTPRoute api")},
			[]string{"gw-mayreplace+api", "gw-mayreplace+api", "gw-mayreplace+api", "gw-mayreplace"}},
		{"what matches no rule keeps its policy", []policy.Object{door("gw-mayreplace", "Gateway gw"), door("api-replace", "HTTPRoute api")},
			[]string{"api-replace", "api-replace", "api-replace", "gw-mayreplace"}},
		{"a parent that does not let itself be replaced stays", []policy.Object{door("gw", "Gateway gw"), door("api-replace", "HTTPRoute api")},
			[]string{"gw+api-replace", "gw+api-replace", "gw+api-replace", "gw"}},
		{"so it does beside one that does", []policy.Object{door("gw", "Gateway gw"), door("http-mayreplace", "Gateway gw/http"), door("api-replace", "HTTPRoute api")},
			[]string{"gw+api-replace", "gw+api-replace", "gw+api-replace", "gw+http-mayreplace"}},
		{"one rule", []policy.Object{door("gw-mayreplace", "Gateway gw"), door("api-mayreplace", "HTTPRoute api"), door("first-replace", "HTTPRoute api/first")},
			[]string{"first-replace", "gw-mayreplace+api-mayreplace", "gw-mayreplace+api-mayreplace", "gw-mayreplace"}},
		{"a listener", []policy.Object{door("gw-mayreplace", "Gateway gw"), door("http-replace", "Gateway gw/http")},
			[]string{"http-replace", "http-replace", "http-replace", "http-replace"}},
		{"not what is further down", []policy.Object{door("gw-replace", "Gateway gw"), door("api-mayreplace", "HTTPRoute api")},
			[]string{"gw-replace+api-mayreplace", "gw-replace+api-mayreplace", "gw-replace+api-mayreplace", "gw-replace"}},
		{"not other kinds", []policy.Object{fake("limit", "Gateway gw"), door("api-replace", "HTTPRoute api")},
			[]string{"limit api-replace", "limit api-replace", "limit api-replace", "limit"}},
		{"a broken parent refuses all the same", []policy.Object{door("gw-mayreplace", "Gateway gw").broken(), door("api-replace", "HTTPRoute api")},
			[]string{"api-replace " + invalid("gw-mayreplace"), "api-replace " + invalid("gw-mayreplace"), "api-replace " + invalid("gw-mayreplace"), invalid("gw-mayreplace")}},
		{"a broken child replaces nothing, and refuses", []policy.Object{door("gw-mayreplace", "Gateway gw"), door("api-replace", "HTTPRoute api/first").broken()},
			[]string{"gw-mayreplace " + invalid("api-replace"), "gw-mayreplace", "gw-mayreplace", "gw-mayreplace"}},
		{"a policy does not replace itself", []policy.Object{door("all-replace-mayreplace", "Gateway gw", "HTTPRoute api")},
			[]string{"all-replace-mayreplace", "all-replace-mayreplace", "all-replace-mayreplace", "all-replace-mayreplace"}},
		{"one that stands further down too acts there", []policy.Object{door("both-mayreplace", "Gateway gw", "HTTPRoute api/first"), door("api-replace", "HTTPRoute api")},
			[]string{"api-replace+both-mayreplace", "api-replace", "api-replace", "both-mayreplace"}},
		{"two that replace each other's parent", []policy.Object{door("gw-mayreplace", "Gateway gw"), door("http-replace-mayreplace", "Gateway gw/http"), door("api-replace", "HTTPRoute api")},
			[]string{"api-replace", "api-replace", "api-replace", "http-replace-mayreplace"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // the order of the objects does not matter
				if got := everyRule(doors(tt.policies...)); !slices.Equal(got, tt.want) {
					t.Errorf("got  %q\nwant %q", got, tt.want)
				}
				slices.Reverse(tt.policies)
			}
		})
	}
}

func TestTheOldestPolicyHasATargetToItself(t *testing.T) {
	tests := []struct {
		name     string
		policies []policy.Object
		want     []string // gw/http: rules 0, 1, 2, default
	}{
		{"on a route", []policy.Object{door("older", "HTTPRoute api"), door("younger", "HTTPRoute api")}, []string{"older", "older", "older", ""}},
		{"a rule is another target", []policy.Object{door("older", "HTTPRoute api"), door("younger", "HTTPRoute api/first")},
			[]string{"older+younger", "older", "older", ""}},
		{"the other targets of the younger one are its own", []policy.Object{door("older", "HTTPRoute api"), door("younger", "HTTPRoute api", "Gateway gw")},
			[]string{"younger+older", "younger+older", "younger+older", "younger"}},
		{"a younger one that is broken refuses nothing there", []policy.Object{door("older", "HTTPRoute api"), door("younger", "HTTPRoute api").broken()},
			[]string{"older", "older", "older", ""}},
		{"an older one that is broken holds its place", []policy.Object{door("older", "HTTPRoute api").broken(), door("younger", "HTTPRoute api")},
			[]string{invalid("older"), invalid("older"), invalid("older"), ""}},
		{"kinds of which there may be several are not touched", []policy.Object{fake("older", "HTTPRoute api"), fake("younger", "HTTPRoute api")},
			[]string{"older+younger", "older+younger", "older+younger", ""}},
		{"a target that is named twice is no conflict", []policy.Object{door("one", "HTTPRoute api", "HTTPRoute api")}, []string{"one", "one", "one", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 {
				if got := everyRule(doors(tt.policies...)); !slices.Equal(got, tt.want) {
					t.Errorf("got  %q\nwant %q", got, tt.want)
				}
				slices.Reverse(tt.policies)
			}
		})
	}
}

func TestStatusesSayWhoWon(t *testing.T) {
	tests := []struct {
		name     string
		policies []policy.Object
		want     []string
	}{
		{"in part", []policy.Object{door("gw-mayreplace", "Gateway gw"), door("first-replace", "HTTPRoute api/first")}, []string{
			"gw-mayreplace: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw" +
				" | Programmed=True/PartiallyProgrammed replaced by doorPolicy ns/first-replace (HTTPRoute ns/api, rule first)" +
				" | Overridden=True/PartiallyOverridden replaced by doorPolicy ns/first-replace (HTTPRoute ns/api, rule first)",
			"first-replace: Gateway ns/gw | Accepted=True/Accepted attached to HTTPRoute ns/api, rule first | Programmed=True/Programmed in force",
			"first-replace: Gateway ns/other | Accepted=True/Accepted attached to HTTPRoute ns/api, rule first | Programmed=True/Programmed in force",
		}},
		{"everywhere under one Gateway, and not under another", []policy.Object{
			door("route-mayreplace", "GRPCRoute api", "HTTPRoute api/first"), door("deep-replace", "HTTPRoute api/third"),
			door("http-replace", "Gateway gw/http"), door("g-replace", "GRPCRoute api"),
		}, []string{
			"route-mayreplace: Gateway ns/gw | Accepted=True/Accepted attached to GRPCRoute ns/api; HTTPRoute ns/api, rule first | Programmed=True/Programmed in force",
			"route-mayreplace: Gateway ns/other | Accepted=True/Accepted attached to HTTPRoute ns/api, rule first | Programmed=True/Programmed in force",
			"deep-replace: Gateway ns/gw | Accepted=True/Accepted attached to HTTPRoute ns/api, rule third; it adds to doorPolicy ns/http-replace (Gateway ns/gw, listener http), which does not let itself be replaced | Programmed=True/Programmed in force",
			"deep-replace: Gateway ns/other | Accepted=True/Accepted attached to HTTPRoute ns/api, rule third | Programmed=True/Programmed in force",
			"http-replace: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw, listener http | Programmed=True/Programmed in force",
			"g-replace: Gateway ns/gw | Accepted=False/Conflicted GRPCRoute ns/api has doorPolicy ns/route-mayreplace already, which is older, and one is all that it can have" +
				" | Programmed=False/Conflicted the policy does nothing here",
		}},
		{"everywhere", []policy.Object{door("gw-mayreplace", "Gateway gw"), door("http-replace", "Gateway gw/http"), door("alt-replace", "Gateway gw/alt")}, []string{
			"gw-mayreplace: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw" +
				" | Programmed=False/Overridden replaced by doorPolicy ns/http-replace (Gateway ns/gw, listener http), doorPolicy ns/alt-replace (Gateway ns/gw, listener alt)" +
				" | Overridden=True/Overridden replaced by doorPolicy ns/http-replace (Gateway ns/gw, listener http), doorPolicy ns/alt-replace (Gateway ns/gw, listener alt)",
			"http-replace: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw, listener http | Programmed=True/Programmed in force",
			"alt-replace: Gateway ns/gw | Accepted=True/Accepted attached to Gateway ns/gw, listener alt | Programmed=True/Programmed in force",
		}},
		{"a parent that is in error is told as that", []policy.Object{door("gw-mayreplace", "Gateway gw").broken(), door("g-replace", "GRPCRoute api")}, []string{
			"gw-mayreplace: Gateway ns/gw | Accepted=False/Invalid spec.when: 1:7: syntax error | Programmed=False/Invalid requests are refused here with 500 until the policy is mended",
			"g-replace: Gateway ns/gw | Accepted=True/Accepted attached to GRPCRoute ns/api; it adds to doorPolicy ns/gw-mayreplace (Gateway ns/gw), which is not valid or not known yet | Programmed=True/Programmed in force",
		}},
		{"a conflict on one target of two", []policy.Object{door("older", "HTTPRoute api"), door("younger", "HTTPRoute api", "GRPCRoute api").broken()}, []string{
			"older: Gateway ns/gw | Accepted=True/Accepted attached to HTTPRoute ns/api | Programmed=True/Programmed in force",
			"older: Gateway ns/other | Accepted=True/Accepted attached to HTTPRoute ns/api | Programmed=True/Programmed in force",
			"younger: Gateway ns/gw | Accepted=False/Invalid spec.when: 1:7: syntax error | Programmed=False/Invalid requests are refused here with 500 until the policy is mended",
			"younger: Gateway ns/other | Accepted=False/Conflicted HTTPRoute ns/api has doorPolicy ns/older already, which is older, and one is all that it can have; spec.when: 1:7: syntax error" +
				" | Programmed=False/Conflicted the policy does nothing here",
		}},
		{"and when it is valid", []policy.Object{door("older", "HTTPRoute api/first"), door("younger", "HTTPRoute api/first", "GRPCRoute api")}, []string{
			"older: Gateway ns/gw | Accepted=True/Accepted attached to HTTPRoute ns/api, rule first | Programmed=True/Programmed in force",
			"older: Gateway ns/other | Accepted=True/Accepted attached to HTTPRoute ns/api, rule first | Programmed=True/Programmed in force",
			"younger: Gateway ns/gw | Accepted=True/Accepted attached to GRPCRoute ns/api; HTTPRoute ns/api, rule first has doorPolicy ns/older already, which is older, and one is all that it can have" +
				" | Programmed=True/PartiallyProgrammed not in force on HTTPRoute ns/api, rule first",
			"younger: Gateway ns/other | Accepted=False/Conflicted HTTPRoute ns/api, rule first has doorPolicy ns/older already, which is older, and one is all that it can have | Programmed=False/Conflicted the policy does nothing here",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 3 { // nor does the order of any map
				if diff := cmp.Diff(tt.want, statuses(doors(tt.policies...), all)); diff != "" {
					t.Fatalf("want (-), got (+):\n%s", diff)
				}
			}
		})
	}
}

func TestAConflictIsAProblemOfItsTarget(t *testing.T) {
	got := doors(door("older", "HTTPRoute api"), door("younger", "Gateway gw", "HTTPRoute api")).Statuses(all)
	want := []policy.Problem{{FieldPath: "spec.targetRefs[1]", Reason: "Conflicted",
		Message: "HTTPRoute ns/api has doorPolicy ns/older already, which is older, and one is all that it can have"}}
	if diff := cmp.Diff(want, got[1].Problems); diff != "" || got[0].Problems != nil {
		t.Errorf("want (-), got (+):\n%s\nand of the older %v", diff, got[0].Problems)
	}
}

func TestTheFingerprintOfSecurityIsOfWhatDecidesAboutAccess(t *testing.T) {
	of := func(objects ...policy.Object) string {
		return doors(objects...).Rule(name("gw"), "http", api, 0).Security
	}
	one := of(door("door", "HTTPRoute api"))
	if one == "" || of(fake("limit", "HTTPRoute api")) != "" {
		t.Errorf("of a policy about access %q, of another %q", one, of(fake("limit", "HTTPRoute api")))
	}
	if of(door("door", "HTTPRoute api"), fake("limit", "Gateway gw")) != one {
		t.Error("a limit ends streams")
	}
	for what, other := range map[string]string{
		"another policy":  of(door("other", "HTTPRoute api")),
		"one more":        of(door("door", "HTTPRoute api"), door("gw", "Gateway gw")),
		"one in error":    of(door("door", "HTTPRoute api").broken()),
		"none any more":   of(),
		"one of any kind": of(guard("guard", "HTTPRoute api")),
	} {
		if other == one {
			t.Errorf("%s has the same fingerprint", what)
		}
	}
	if a, b := of(door("a", "HTTPRoute api").broken()), of(door("b", "HTTPRoute api").broken()); a == b || a == "" {
		t.Errorf("two that are in error: %q and %q", a, b)
	}
}

func TestManyReplacementsAreToldInPart(t *testing.T) {
	w := world()
	route := &w.Routes[0]
	route.Rules = nil
	objects := []policy.Object{door("gw-mayreplace", "Gateway gw")}
	for i := range 40 {
		route.Rules = append(route.Rules, fmt.Sprint("r", i))
		objects = append(objects, door(fmt.Sprintf("r%d-replace", i), fmt.Sprintf("HTTPRoute api/r%d", i)))
	}
	a := policy.Attach(policy.Input{Kinds: []policy.Kind{doorKind}, Objects: objects, Targets: w})
	for _, c := range a.Statuses(all)[0].Status.Ancestors[0].Conditions {
		if c.Type != "Accepted" && !strings.HasSuffix(c.Message, "doorPolicy ns/r4-replace (HTTPRoute ns/api, rule r4), and 35 more") {
			t.Errorf("%s says %s", c.Type, c.Message)
		}
	}
}
