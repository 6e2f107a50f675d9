package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// sitePolicy is one of a kind whose filters answer the path /back.
type sitePolicy struct{ doorPolicy }

var siteKind = func() policy.Kind {
	k := policy.Of(func() *sitePolicy { return new(sitePolicy) }, func(p *sitePolicy) []policy.Target { return p.targets },
		everywhere, addUp, func(p *sitePolicy, l policy.Lookup) (policy.Effect, []policy.Problem) {
			e, problems := compileDoor(&p.doorPolicy, l)
			e.Paths = []policy.Path{{Path: "/back", Field: "spec.back", Otherwise: "nobody comes back"}}
			return e, problems
		})
	k.FailClosed, k.Exclusive = true, true
	k.Inheritance = func(o policy.Object) policy.Inheritance { return o.(*sitePolicy).inherits }
	return k
}()

func site(name string, targets ...string) *sitePolicy { return &sitePolicy{*door(name, targets...)} }

// taking gives a route its rules by name, "-" for none; those that take /back are in capitals, and "+": "first - THIRD +".
func taking(route *policy.RouteTarget, rules string) {
	words := strings.Fields(rules)
	route.Rules = nil
	for _, w := range words {
		route.Rules = append(route.Rules, strings.Trim(strings.ToLower(w), "-+"))
	}
	route.Takes = func(rule int, path string) bool {
		return path == "/back" && (words[rule] == "+" || words[rule] != strings.ToLower(words[rule]))
	}
}

func TestAPathThatNoRuleOfThePolicyTakesIsTold(t *testing.T) {
	const stray = "nobody comes back: no rule of HTTPRoute ns/api that this policy holds for takes GET /back; add a match for it, or choose a path that one takes"
	inForce, lost := "True/Programmed in force", "True/PartiallyProgrammed "+stray
	tests := []struct {
		name         string
		rules, login string // of the routes api and login, which are both on gw/http
		hosts        string // "hosts of api | hosts of login"
		policies     []policy.Object
		want         string // Programmed of the first policy
	}{
		{"no rule takes it", "first -", "-", "", []policy.Object{site("p", "HTTPRoute api")}, lost},
		{"one does", "first +", "-", "", []policy.Object{site("p", "HTTPRoute api")}, inForce},
		{"the policy's own rule does", "FIRST -", "-", "", []policy.Object{site("p", "HTTPRoute api/first")}, inForce},
		{"a rule does that the policy does not hold for", "first +", "-", "", []policy.Object{site("p", "HTTPRoute api/first")}, lost},
		{"two rules that share a policy help each other", "first THIRD -", "-", "", []policy.Object{site("p", "HTTPRoute api/first", "HTTPRoute api/third")}, inForce},
		{"and are told once when they cannot", "first third +", "-", "", []policy.Object{site("p", "HTTPRoute api/first", "HTTPRoute api/third")}, lost},
		{"what no rule takes meets the policies of a Gateway", "first -", "-", "", []policy.Object{site("p", "Gateway gw")}, inForce},
		{"of a listener", "first -", "-", "", []policy.Object{site("p", "Gateway gw/http")}, inForce},
		{"and if they are on a route, too", "first -", "-", "", []policy.Object{site("p", "Gateway gw/http", "HTTPRoute api")}, inForce},
		{"but not those of another listener", "first -", "-", "", []policy.Object{site("p", "Gateway gw/alt", "HTTPRoute api")}, lost},
		{"another route of the policy takes it", "first -", "+", "", []policy.Object{site("p", "HTTPRoute api", "HTTPRoute login")}, inForce},
		{"a route does that is not the policy's", "first -", "+", "", []policy.Object{site("p", "HTTPRoute api")}, lost},
		{"another route takes it for the same hosts", "first -", "+", "a.com b.com | b.com c.com a.com", []policy.Object{site("p", "HTTPRoute api", "HTTPRoute login")}, inForce},
		{"for all hosts", "first -", "+", "a.com | ", []policy.Object{site("p", "HTTPRoute api", "HTTPRoute login")}, inForce},
		{"for hosts under a name", "first -", "+", "a.b.com *.b.com | *.b.com", []policy.Object{site("p", "HTTPRoute api", "HTTPRoute login")}, inForce},
		{"for another host", "first -", "+", "a.com b.com | a.com", []policy.Object{site("p", "HTTPRoute api", "HTTPRoute login")}, lost},
		{"for one host of all", "first -", "+", " | a.com", []policy.Object{site("p", "HTTPRoute api", "HTTPRoute login")}, lost},
		{"for hosts under another name", "first -", "+", "b.com | *.b.com", []policy.Object{site("p", "HTTPRoute api", "HTTPRoute login")}, lost},
		{"the rule that does has a policy of its own instead", "first LAST", "-", "",
			[]policy.Object{site("p-mayreplace", "HTTPRoute api"), site("q-replace", "HTTPRoute api/last")},
			"True/PartiallyProgrammed replaced by sitePolicy ns/q-replace (HTTPRoute ns/api, rule last); " + stray},
		{"one whose place others have everywhere needs no path", "first", "-", "",
			[]policy.Object{site("p-mayreplace", "HTTPRoute api"), site("q-replace", "HTTPRoute api/first")},
			"False/Overridden replaced by sitePolicy ns/q-replace (HTTPRoute ns/api, rule first)"},
		{"one that is not valid has worse to tell", "first -", "-", "", []policy.Object{func() policy.Object { p := site("p", "HTTPRoute api"); p.broken(); return p }()},
			"False/Invalid requests are refused here with 500 until the policy is mended"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := world()
			onHTTP := []snapshot.ListenerKey{key("gw", "http")}
			gw := []snapshot.Name{name("gw")}
			w.Routes = []policy.RouteTarget{
				{ID: api, Parents: gw, Attached: onHTTP},
				{ID: policy.RouteID{Kind: "HTTPRoute", Name: name("login")}, Parents: gw, Attached: onHTTP},
			}
			taking(&w.Routes[0], tt.rules)
			taking(&w.Routes[1], tt.login)
			of, ofLogin, _ := strings.Cut(tt.hosts, "|")
			w.Routes[0].Hostnames, w.Routes[1].Hostnames = strings.Fields(of), strings.Fields(ofLogin)
			s := policy.Attach(policy.Input{Kinds: []policy.Kind{siteKind}, Objects: tt.policies, Targets: w}).Statuses(all)[0]
			c := s.Status.Ancestors[0].Conditions[1]
			if got := string(c.Status) + "/" + c.Reason + " " + c.Message; got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			var want []policy.Problem
			if strings.HasSuffix(tt.want, stray) {
				want = []policy.Problem{{FieldPath: "spec.back", Reason: "PartiallyProgrammed", Message: stray, Lessened: true}}
			}
			got := slices.DeleteFunc(s.Problems, func(p policy.Problem) bool { return p.FieldPath != "spec.back" })
			if diff := cmp.Diff(want, got); len(want)+len(got) > 0 && diff != "" {
				t.Errorf("problems: want (-), got (+):\n%s", diff)
			}
		})
	}
}

func TestWhereAPathIsTakenIsAMatterOfTheListener(t *testing.T) {
	w := world()
	taking(&w.Routes[0], "first - -")
	w.Routes = append(w.Routes, policy.RouteTarget{
		ID: policy.RouteID{Kind: "HTTPRoute", Name: name("login")}, Parents: []snapshot.Name{name("gw")}, Attached: []snapshot.ListenerKey{key("gw", "http")},
	})
	taking(&w.Routes[len(w.Routes)-1], "+")
	a := policy.Attach(policy.Input{Kinds: []policy.Kind{siteKind}, Objects: []policy.Object{site("p", "HTTPRoute api", "HTTPRoute login")}, Targets: w})
	var got []string
	for _, e := range a.Statuses(all)[0].Status.Ancestors {
		got = append(got, string(e.AncestorRef.Name)+" "+e.Conditions[1].Reason)
	}
	if want := []string{"gw Programmed", "other PartiallyProgrammed"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhereNoBrowserComesPathsAreNotMissed(t *testing.T) {
	a := policy.Attach(policy.Input{Kinds: []policy.Kind{siteKind}, Objects: []policy.Object{site("p", "GRPCRoute api")}, Targets: world()})
	s := a.Statuses(all)[0]
	if c := s.Status.Ancestors[0].Conditions[1]; c.Reason != "Programmed" || len(s.Problems) > 0 {
		t.Errorf("%+v, %+v", c, s.Problems)
	}
}
