package translate_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/policy/ratelimit"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// conditionsOf are all conditions of a status, by what they are of: "GatewayClass", "Gateway", "Listener http", "Route 0" or "Policy 0".
func conditionsOf(s translate.Status) (lists map[string][]metav1.Condition) {
	lists = map[string][]metav1.Condition{}
	switch v := s.Value.(type) {
	case gwv1.GatewayClassStatus:
		lists["GatewayClass"] = v.Conditions
	case gwv1.GatewayStatus:
		lists["Gateway"] = v.Conditions
		for _, l := range v.Listeners {
			lists["Listener "+string(l.Name)] = l.Conditions
		}
	case gwv1.RouteStatus:
		for i, p := range v.Parents {
			lists[fmt.Sprintf("Route %d", i)] = p.Conditions
		}
	case gwv1.PolicyStatus:
		for i, a := range v.Ancestors {
			lists[fmt.Sprintf("Policy %d", i)] = a.Conditions
		}
	}
	return lists
}

// checkConditions demands of a status what the API server and the conformance suite do.
func checkConditions(t *testing.T, s translate.Status) {
	t.Helper()
	for where, list := range conditionsOf(s) {
		types := map[string]bool{}
		for _, c := range list {
			switch {
			case c.ObservedGeneration != s.Generation:
				t.Errorf("%s %s, %s: %s is of generation %d, the object of %d", s.Kind, s.Name, where, c.Type, c.ObservedGeneration, s.Generation)
			case types[c.Type]:
				t.Errorf("%s %s, %s: %s stands twice", s.Kind, s.Name, where, c.Type)
			case !goodReason.MatchString(c.Reason):
				t.Errorf("%s %s, %s: %s has the reason %q", s.Kind, s.Name, where, c.Type, c.Reason)
			case c.Status != metav1.ConditionTrue && c.Message == "":
				t.Errorf("%s %s, %s: %s=%s says nothing", s.Kind, s.Name, where, c.Type, c.Status)
			case len(c.Message) > 32768 || !c.LastTransitionTime.IsZero():
				t.Errorf("%s %s, %s: %s cannot be written", s.Kind, s.Name, where, c.Type)
			}
			types[c.Type] = true
		}
		if len(list) > 5 { // of eight: others need room, too
			t.Errorf("%s %s, %s has %d conditions", s.Kind, s.Name, where, len(list))
		}
	}
}

var goodReason = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`)

func goldens(t *testing.T) map[string]golden {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]golden{}
	for _, p := range paths {
		all[filepath.Base(p)] = readGolden(t, p)
	}
	return all
}

func TestConditionsAreWhole(t *testing.T) {
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			_, statuses := g.build(t)
			for _, s := range statuses {
				checkConditions(t, s)
			}
		})
	}
}

// reasonName tells in whose conditions a constant belongs, and its value: "ListenerReasonInvalid" is Invalid, of listeners.
var reasonName = regexp.MustCompile(`^(GatewayClass|Gateway|Listener|Route|Policy|)Reason([A-Z]\w*)$`)

func TestEveryReasonThatIsWrittenIsShownByAGolden(t *testing.T) {
	shown := map[string]bool{}
	for _, g := range goldens(t) {
		result, _ := g.build(t)
		for _, s := range result.Statuses(g.facts(t, result)) {
			for where, list := range conditionsOf(s) {
				owner, _, _ := strings.Cut(where, " ")
				for _, c := range list {
					shown[owner+" "+c.Reason], shown[" "+c.Reason] = true, true
				}
			}
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no source", err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok || fmt.Sprint(selector.X) == "message" { // why a request failed is not a condition
				return true
			}
			if m := reasonName.FindStringSubmatch(selector.Sel.Name); m != nil {
				found++
				if !shown[m[1]+" "+m[2]] {
					t.Errorf("%s writes %s, and no golden shows it", file, selector.Sel.Name)
				}
			}
			return true
		})
	}
	if found < 40 {
		t.Errorf("only %d reasons were found in the source: the test looks at the wrong place", found)
	}
}

// parse makes an Input of YAML with the class and Gateway that stand around goldens.
func parse(t *testing.T, yaml string) translate.Input {
	t.Helper()
	in := translate.Input{Kinds: kinds, FilterOrder: filterOrder}
	in.Objects, _ = objectsOf(t, yaml, "")
	return in
}

const twoListeners = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: one, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: two, port: 8081, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: web}
spec:
  parentRefs: [{name: gw, namespace: infra}]
  hostnames: [a.example.com, b.example.com]
  rules: [{name: all, matches: [{path: {value: /a}}, {path: {value: /b}}], backendRefs: [{name: cart, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: web}
spec: {ports: [{port: 80}]}
`

func limit(kind, namespace, target string) string {
	return fmt.Sprintf(`---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limit, namespace: %s}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: %s, name: %s}]
  limits: [{name: all, rates: [{requests: 1, window: 1m}]}]
`, namespace, kind, target)
}

func rules(s *snapshot.Snapshot) map[*snapshot.Rule]int {
	all := map[*snapshot.Rule]int{}
	for _, socket := range s.Sockets {
		for _, l := range socket.Listeners {
			for _, h := range l.Hosts {
				for _, m := range h.Matches {
					all[m.Rule]++
				}
			}
		}
	}
	return all
}

func TestARuleIsOneWhereverItIsTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		more string
		want int
	}{
		"no policy":               {"", 1},
		"a policy of the route":   {limit("HTTPRoute", "web", "shop"), 1},
		"a policy of the Gateway": {limit("Gateway", "infra", "gw"), 1},
		"a policy of a listener":  {strings.Replace(limit("Gateway", "infra", "gw"), "name: gw}", "name: gw, sectionName: one}", 1), 2},
	} {
		t.Run(name, func(t *testing.T) {
			all := rules(translate.Build(parse(t, twoListeners+c.more)).Snapshot)
			if len(all) != c.want {
				t.Errorf("%d rules, want %d", len(all), c.want)
			}
			uses := 0
			for _, n := range all {
				uses += n
			}
			if uses != 8 {
				t.Errorf("%d matches, want 2 listeners × 2 hostnames × 2 paths", uses)
			}
		})
	}
}

func TestAPolicyThatFailsClosedClosesItsTargetAndNothingElse(t *testing.T) {
	const broken = `---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limit, namespace: %s}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: %s, name: %s%s}]
  limits: [{name: all, when: "no such thing", rates: [{requests: 1, window: 1m}]}]
`
	const other = `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: other, namespace: web}
spec:
  parentRefs: [{name: gw, namespace: infra}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
`
	closed := ratelimit.Kind
	closed.FailClosed = true
	for name, c := range map[string]struct {
		policy string
		deny   []bool          // of listeners one and two
		fails  map[string]bool // of the rules' routes
	}{
		"a route":    {fmt.Sprintf(broken, "web", "HTTPRoute", "shop", ""), []bool{false, false}, map[string]bool{"shop": true, "other": false}},
		"a rule":     {fmt.Sprintf(broken, "web", "HTTPRoute", "shop", ", sectionName: all"), []bool{false, false}, map[string]bool{"shop": true, "other": false}},
		"a listener": {fmt.Sprintf(broken, "infra", "Gateway", "gw", ", sectionName: one"), []bool{true, false}, nil},
		"a Gateway":  {fmt.Sprintf(broken, "infra", "Gateway", "gw", ""), []bool{true, true}, map[string]bool{"shop": true, "other": true}},
	} {
		t.Run(name, func(t *testing.T) {
			in := parse(t, twoListeners+other+c.policy)
			in.Kinds = []policy.Kind{closed}
			s := translate.Build(in).Snapshot
			for i, socket := range s.Sockets {
				if got := socket.Listeners[0].Deny != nil; got != c.deny[i] {
					t.Errorf("listener %s is closed: %v", socket.Listeners[0].Key, got)
				}
			}
			for rule := range rules(s) {
				fails := rule.Failure != nil && rule.Failure.Reason == "policy_invalid"
				if want, known := c.fails[rule.Key.Route.Name]; known && fails != want {
					t.Errorf("%s fails: %v", rule.Key, fails)
				}
			}
		})
	}
}

func TestWhetherATargetExistsIsNotTold(t *testing.T) {
	const objects = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: gatehouse
  listeners: [{name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: vault}]}, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: web}
spec:
  parentRefs: [{name: gw, namespace: infra}]
  rules: [{backendRefs: [{name: cart, namespace: vault, port: 80}]}]
`
	const targets = `---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: vault}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: vault}
data: {tls.crt: CERTIFICATE(a.example.com), tls.key: KEY(0)}
`
	said := map[string]bool{}
	for _, yaml := range []string{objects, objects + targets} {
		for _, answers := range []translate.Answers{nil, {}} { // and neither is it asked for
			in := parse(t, yaml)
			in.Answers = answers
			r := translate.Build(in)
			said[translate.Text(r.Statuses(translate.AllBound(r.Snapshot)))+r.Snapshot.String()+fmt.Sprint(r.Refs)] = true
		}
	}
	if len(said) != 1 {
		t.Errorf("there are %d versions of the truth", len(said))
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, routes := range []int{100, 5000} {
		b.Run(fmt.Sprint(routes, " routes on one listener"), func(b *testing.B) {
			all := familyOf(snapshot.Name{Namespace: "infra", Name: "gw"}, 8080)
			for i := range routes {
				family := familyOf(snapshot.Name{Namespace: "infra", Name: fmt.Sprint("r", i)}, 8080)
				route := family[1].(*gwv1.HTTPRoute)
				route.Spec.ParentRefs[0].Name = "gw"
				route.Spec.Hostnames = []gwv1.Hostname{gwv1.Hostname(fmt.Sprintf("r%d.example.com", i))}
				all = append(all, route, family[2])
			}
			class := &gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "gatehouse"}}
			class.Spec.ControllerName = "gatehouse.dev/gateway-controller"
			in := inputOf(append(all, class))
			b.ReportAllocs()
			for b.Loop() {
				translate.Build(in)
			}
		})
	}
}

func TestSupportedFeaturesAreSortedAndKnown(t *testing.T) {
	in := parse(t, around)
	status := translate.Build(in).Statuses(translate.Facts{})[0].Value.(gwv1.GatewayClassStatus)
	var names []string
	for _, f := range status.SupportedFeatures {
		names = append(names, string(f.Name))
		if !features.AllFeatures.Has(features.Feature{Name: features.FeatureName(f.Name), Channel: features.FeatureChannelStandard}) {
			t.Errorf("%s is no feature of the standard channel", f.Name)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("not sorted: %v", names)
	}
	if len(names) > 64 || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("%d features, or one twice", len(names))
	}
}

func TestInfraIsWhatTheSpecAsksFor(t *testing.T) {
	in := parse(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: gatehouse
  infrastructure: {labels: {team: edge}, annotations: {example.com/a: b}}
  addresses: [{value: 192.0.2.1}]
  listeners:
  - {name: b, port: 8081, protocol: HTTP}
  - {name: a, port: 80, protocol: HTTP}
  - {name: c, port: 80, protocol: HTTP, hostname: a.example.com}
  - {name: bad, port: 443, protocol: HTTPS, hostname: a.example.com, tls: {certificateRefs: [{name: gone}]}}
`)
	got := fmt.Sprintf("%+v", translate.Build(in).Infra)
	want := fmt.Sprintf("[{Gateway:infra/gw UID:%s Class:gatehouse Ports:[80 8081] Named:[80 443 8081] Labels:map[team:edge] Annotations:map[example.com/a:b] Addresses:[192.0.2.1]}]", in.Objects.Gateways[0].UID)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWhatAGatewayHasOutsideStaysUnlessItIsAnotherControllers(t *testing.T) {
	in := parse(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: other}
spec: {controllerName: example.com/other}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ours, namespace: infra}
spec: {gatewayClassName: gatehouse, listeners: [{name: a, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: without-class, namespace: infra}
spec: {gatewayClassName: gone, listeners: [{name: a, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: others, namespace: infra}
spec: {gatewayClassName: other, listeners: [{name: a, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: refused, namespace: infra}
spec:
  gatewayClassName: gatehouse
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: x}}
  listeners: [{name: a, port: 80, protocol: HTTP}]
`)
	r := translate.Build(in)
	for _, o := range in.Objects.Gateways {
		if stays := o.Name != "others"; r.Gateways[o.UID] != stays {
			t.Errorf("%s stays: %v", o.Name, !stays)
		}
	}
	if len(r.Infra) != 1 || r.Infra[0].Gateway.Name != "ours" {
		t.Errorf("wanted: %+v", r.Infra)
	}
}

func TestWhatIsReferredToIsListedAndWhatHasNoAnswerIsWanted(t *testing.T) {
	in := parse(t, twoListeners+`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: more, namespace: web}
spec:
  parentRefs: [{name: gw, namespace: infra}]
  rules: [{backendRefs: [{name: unknown, port: 80}, {name: gone, port: 80}, {name: forbidden, namespace: vault, port: 80}]}]
`)
	in.Answers = translate.Answers{translate.Ref{Kind: "Service", Name: name("web/gone")}: translate.Absent}
	r := translate.Build(in)
	if got, want := fmt.Sprint(r.Refs), "[Service web/cart Service web/gone Service web/unknown]"; got != want {
		t.Errorf("refs %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(r.Wants), "[Service web/unknown]"; got != want {
		t.Errorf("wants %s, want %s", got, want)
	}
}

// Namespaces and names that are equal once they are joined by "-" or "/" in some way.
func TestNamesThatLookAlikeNeverMix(t *testing.T) {
	parts := []string{"a", "b", "a-b", "b-a", "a-a", "a--b", "a-b-a", "b-a-b", "a.b", "b.a", "aa"}
	pairs := 0
	for tries := 0; pairs < 10_000; {
		for _, n1 := range parts {
			for _, m1 := range parts {
				for _, n2 := range parts {
					m2 := parts[tries%len(parts)]
					tries++
					if (n1 == n2 && m1 == m2) || strings.Contains(n1+n2, ".") {
						continue // one object, or no name of a namespace
					}
					pairs++
					checkNeverMixed(t, snapshot.Name{Namespace: n1, Name: m1}, snapshot.Name{Namespace: n2, Name: m2})
				}
			}
		}
	}
}

// checkNeverMixed gives each of two names a Gateway, a route, a Service and a policy, and looks that they stay with each other.
func checkNeverMixed(t *testing.T, a, b snapshot.Name) {
	t.Helper()
	var objects translate.Objects
	class := &gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "gatehouse"}}
	class.Spec.ControllerName = "gatehouse.dev/gateway-controller"
	objects.Add(class)
	for i, n := range []snapshot.Name{a, b} {
		for _, o := range familyOf(n, int32(8080+i)) {
			objects.Add(o)
		}
	}
	r := translate.Build(translate.Input{Kinds: kinds, Objects: objects})
	for _, socket := range r.Snapshot.Sockets {
		own := socket.Key.Gateway
		all := rules(&snapshot.Snapshot{Sockets: []snapshot.Socket{socket}})
		if len(all) != 1 {
			t.Fatalf("%s and %s: %d rules on %s", a, b, len(all), own)
		}
		for rule := range all {
			if rule.Key.Route != own || rule.Backends[0].Ref.Service != own {
				t.Fatalf("%s and %s: on %s: %s → %s", a, b, own, rule.Key, rule.Backends[0].Ref)
			}
			if len(rule.Filters) != 1 || !strings.Contains(rule.Filters[0].String(), own.String()+"#") {
				t.Fatalf("%s and %s: on %s: %v", a, b, own, rule.Filters)
			}
		}
	}
	if len(r.Snapshot.Sockets) != 2 || len(r.Snapshot.Backends) != 2 || len(r.Infra) != 2 {
		t.Fatalf("%s and %s:\n%s", a, b, r.Snapshot)
	}
}
