//go:build chart

package chart

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// rights flattens what a rendering grants to our ServiceAccount: "scope resource.group [names]: verbs".
func rights(t *testing.T, r rendering) []string {
	t.Helper()
	account := r.pod(t).text("spec", "serviceAccountName")
	rules := map[string]object{}
	for _, kind := range []string{"ClusterRole", "Role"} {
		for _, o := range r.of(kind) {
			rules[kind+" "+o.namespace()+"/"+o.name()] = o
		}
	}
	var all []string
	for _, kind := range []string{"ClusterRoleBinding", "RoleBinding"} {
		for _, b := range r.of(kind) {
			scope, role := "cluster", "ClusterRole /"+b.text("roleRef", "name")
			if kind == "RoleBinding" {
				scope, role = b.namespace(), "Role "+b.namespace()+"/"+b.text("roleRef", "name")
			}
			if diff := cmp.Diff([]any{map[string]any{"kind": "ServiceAccount", "name": account, "namespace": namespace}}, b.at("subjects")); diff != "" {
				t.Errorf("%s %s grants to others:\n%s", kind, b.name(), diff)
			}
			list, _ := rules[role].at("rules").([]any)
			if len(list) == 0 {
				t.Errorf("%s %s grants nothing", kind, b.name())
			}
			delete(rules, role)
			for _, one := range list {
				all = append(all, rows(scope, object(one.(map[string]any)))...)
			}
		}
	}
	for role := range maps.Keys(rules) {
		t.Errorf("%s is bound to nobody", role)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// rows are a rule, one for each resource.
func rows(scope string, rule object) (all []string) {
	strs := func(key string) (out []string) {
		list, _ := rule.at(key).([]any)
		for _, s := range list {
			out = append(out, s.(string))
		}
		return out
	}
	for _, group := range strs("apiGroups") {
		for _, resource := range strs("resources") {
			row := scope + " " + strings.TrimSuffix(resource+"."+group, ".")
			if names := strs("resourceNames"); len(names) > 0 {
				row += " [" + strings.Join(names, " ") + "]"
			}
			verbs := strs("verbs")
			slices.Sort(verbs)
			all = append(all, row+": "+strings.Join(verbs, " "))
		}
	}
	return all
}

// What the code uses, and nothing else. Reads: controllers/kinds.go (another test compares) and the pools of Secrets and ConfigMaps.
var wantRights = map[string][]string{
	"everywhere": {
		"cluster authpolicies.gatehouse.dev: get list watch",
		"cluster backendtlspolicies.gateway.networking.k8s.io: get list watch",
		"cluster configmaps: get list watch",
		"cluster customresourcedefinitions.apiextensions.k8s.io: get list watch",
		"cluster endpointslices.discovery.k8s.io: get list watch",
		"cluster gatewayclasses.gateway.networking.k8s.io: get list watch",
		"cluster gateways.gateway.networking.k8s.io: get list watch",
		"cluster grpcroutes.gateway.networking.k8s.io: get list watch",
		"cluster httproutes.gateway.networking.k8s.io: get list watch",
		"cluster namespaces: get list watch",
		"cluster ratelimitpolicies.gatehouse.dev: get list watch",
		"cluster referencegrants.gateway.networking.k8s.io: get list watch",
		"cluster secrets: get list watch",
		"cluster services: get list watch",

		// controllers/status
		"cluster authpolicies/status.gatehouse.dev: patch",
		"cluster backendtlspolicies/status.gateway.networking.k8s.io: patch",
		"cluster gatewayclasses/status.gateway.networking.k8s.io: patch",
		"cluster gateways/status.gateway.networking.k8s.io: patch",
		"cluster grpcroutes/status.gateway.networking.k8s.io: patch",
		"cluster httproutes/status.gateway.networking.k8s.io: patch",
		"cluster ratelimitpolicies/status.gatehouse.dev: patch",
		"cluster events.events.k8s.io: create patch",

		// controllers/members; delete is demanded of who sets an owner by the admission plugin OwnerReferencesPermissionEnforcement
		"gatehouse-system leases.coordination.k8s.io: create delete get list patch watch",
		"gatehouse-system leases.coordination.k8s.io [gatehouse-leader]: update", // controllers/lease
		"gatehouse-system secrets [gatehouse-keys]: create get list patch watch", // by server-side apply
	},
	"service": {
		// controllers/infra
		"cluster services: create delete patch", // aliases
		"gatehouse-system services: create delete patch",
		"gatehouse-system configmaps: create get list watch",
		"gatehouse-system configmaps [gatehouse-pod-ports]: delete update",
	},
	"host": {
		// controllers/infra: what exposure service made before
		"cluster services: delete",
		"gatehouse-system services: delete",
		"gatehouse-system configmaps: get list watch",
	},
}

func TestTheRightsAreTheTableOfWhatTheCodeUses(t *testing.T) {
	for _, exposure := range []string{"service", "host"} {
		want := append(slices.Clone(wantRights["everywhere"]), wantRights[exposure]...)
		slices.Sort(want)
		if diff := cmp.Diff(want, rights(t, render(t, "exposure: "+exposure))); diff != "" {
			t.Errorf("exposure %s: -table +chart\n%s", exposure, diff)
		}
	}
}

// plural is how RBAC calls a kind. (apimachinery's guess makes "gatewaies" of Gateway.)
func plural(kind string) string {
	name := strings.ToLower(kind)
	if stem, ok := strings.CutSuffix(name, "y"); ok && !strings.HasSuffix(stem, "a") {
		return stem + "ies"
	}
	if strings.HasSuffix(name, "s") {
		return name + "es"
	}
	return name + "s"
}

var kindInTable = regexp.MustCompile(`&(\w+)\.(\w+)\{\}`)

// What is watched in all namespaces may be read there, and nothing else but Secrets and ConfigMaps (which have settings of their own).
func TestWhatIsWatchedMayBeReadAndNothingElse(t *testing.T) {
	_, table, ok := strings.Cut(string(read(t, root+"/controllers/kinds.go")), "func kinds(")
	if !ok {
		t.Fatal("where did the table of kinds go?")
	}
	table, _, _ = strings.Cut(table, "\n}\n")
	groups := map[string]string{"gwv1": ".gateway.networking.k8s.io", "corev1": "", "discoveryv1": ".discovery.k8s.io", "coordinationv1": ".coordination.k8s.io"}
	want := []string{
		"cluster customresourcedefinitions.apiextensions.k8s.io", "cluster authpolicies.gatehouse.dev", "cluster ratelimitpolicies.gatehouse.dev", // definitions, Policies
		"cluster configmaps", "cluster secrets", "gatehouse-system secrets [gatehouse-keys]",
	}
	for line := range strings.SplitSeq(table, "\n") {
		for _, m := range kindInTable.FindAllStringSubmatch(line, -1) {
			group, known := groups[m[1]]
			if !known {
				t.Errorf("controllers/kinds.go has %s.%s, whose group this test does not know", m[1], m[2])
			}
			scope := "cluster "
			if strings.Contains(line, "own: true") {
				scope = "gatehouse-system "
			}
			want = append(want, scope+plural(m[2])+group)
		}
	}
	slices.Sort(want)
	var have []string
	for _, row := range rights(t, render(t, "service: {type: NodePort}")) { // with nodes
		if what, verbs, _ := strings.Cut(row, ": "); strings.Contains(verbs, "watch") {
			have = append(have, what)
		}
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("-watched +may be read\n%s", diff)
	}
}

var secretsOfCluster = "cluster secrets: get list watch"

func TestEachWayOfRbacSecretsGrantsWhatItSays(t *testing.T) {
	without := func(r rendering) []string {
		return slices.DeleteFunc(rights(t, r), func(row string) bool {
			return !strings.Contains(row, " secrets") || strings.Contains(row, "gatehouse-keys")
		})
	}
	for values, want := range map[string][]string{
		"":                         {secretsOfCluster},
		"rbac: {secrets: null}":    {secretsOfCluster},
		"rbac: {secrets: cluster}": {secretsOfCluster},
		"rbac: {secrets: {namespaces: [infra, web]}}":                            {"infra secrets: get list watch", "web secrets: get list watch"},
		"rbac: {secrets: {names: [web/b, infra/shop-tls, web/a, web/a]}}":        {"infra secrets [shop-tls]: get list watch", "web secrets [a b]: get list watch"},
		"rbac: {secrets: {namespaces: [infra], names: [infra/shop-tls, web/a]}}": {"infra secrets: get list watch", "web secrets [a]: get list watch"},
		"rbac: {secrets: {names: [gatehouse-system/shop-tls]}}":                  {"gatehouse-system secrets [shop-tls]: get list watch"},
		"rbac: {secrets: {namespaces: []}}":                                      nil,
	} {
		if diff := cmp.Diff(want, without(render(t, values)), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: -want +have\n%s", values, diff)
		}
	}
}

func TestConfigMapsAreGrantedInTheSameWords(t *testing.T) {
	rows := rights(t, render(t, "rbac: {configMaps: {namespaces: [infra], names: [web/ca]}}"))
	if slices.Contains(rows, "cluster configmaps: get list watch") || !slices.Contains(rows, "infra configmaps: get list watch") ||
		!slices.Contains(rows, "web configmaps [ca]: get list watch") || !slices.Contains(rows, secretsOfCluster) {
		t.Errorf("%q", rows)
	}
}

func TestNodesAreReadOnlyWhereTheyAreTheAddresses(t *testing.T) {
	reads := func(values string) bool {
		return slices.Contains(rights(t, render(t, values)), "cluster nodes: get list watch")
	}
	if reads("") || reads("service: {type: NodePort}\nexposure: host") || !reads("service: {type: NodePort}") {
		t.Error("service type NodePort, and it alone, needs the nodes' addresses")
	}
}

func TestWithoutAliasesNoServiceOfOthersCanBeWritten(t *testing.T) {
	for _, row := range rights(t, render(t, "rbac: {aliases: false}")) {
		if strings.HasPrefix(row, "cluster services:") && row != "cluster services: get list watch" {
			t.Error(row)
		}
	}
}

func TestNoRightIsDangerous(t *testing.T) {
	dangerous := regexp.MustCompile(`\*|pods|impersonate|escalate|bind|tokenreviews|subjectaccessreviews|webhook|deletecollection|serviceaccounts`)
	for _, values := range shapes {
		for _, row := range rights(t, render(t, values)) {
			if dangerous.MatchString(row) {
				t.Error(row)
			}
		}
	}
}

const account = "system:serviceaccount:" + namespace + ":gatehouse"

// holdsRights asks the API server what the ServiceAccount may do in its own and in another namespace, and compares it with the rendering.
func (s *server) holdsRights(t *testing.T) {
	granted := rights(t, render(t, ""))
	for _, where := range []string{namespace, "web"} {
		var want []string
		for _, row := range granted {
			if scope, rest, _ := strings.Cut(row, " "); scope == "cluster" || scope == where {
				want = append(want, rest)
			}
		}
		slices.Sort(want)
		_, review := s.do(t, request{http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", account, object{
			"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": map[string]any{"namespace": where},
		}})
		if incomplete := review.at("status", "incomplete"); incomplete != false {
			t.Fatalf("the answer is not complete: %v", review)
		}
		var have []string
		list, _ := review.at("status", "resourceRules").([]any)
		for _, one := range list {
			for _, row := range rows("", object(one.(map[string]any))) {
				// Everybody may ask the first (system:basic-user), every ServiceAccount the second.
				if !strings.HasPrefix(row, " selfsubject") && !strings.HasPrefix(row, " clustertrustbundles.") {
					have = append(have, strings.TrimSpace(row))
				}
			}
		}
		slices.Sort(have)
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("in namespace %s: -granted by the chart +granted in fact\n%s", where, diff)
		}
	}
}

// aService is one as Gatehouse makes them, before a case changes it.
func aService(namespace, name string, change func(spec map[string]any, metadata map[string]any)) object {
	metadata := map[string]any{"name": name, "namespace": namespace, "labels": map[string]any{"gatehouse.dev/gateway-uid": "1"}}
	spec := map[string]any{}
	change(spec, metadata)
	return object{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
}

func alias(target string) func(spec, metadata map[string]any) {
	return func(spec, _ map[string]any) { spec["type"], spec["externalName"] = "ExternalName", target }
}

func balancer(spec, _ map[string]any) {
	spec["type"] = "LoadBalancer"
	spec["ports"] = []any{map[string]any{"name": "tcp-80", "port": 80, "targetPort": 10000}}
}

// holdsServices: the right on Services of all namespaces goes no further than what is ours.
func (s *server) holdsServices(t *testing.T) {
	const target = "infra-gw-0a1b2c3d." + namespace + ".svc.cluster.local"
	foreign := aService("web", "foreign", func(spec, metadata map[string]any) {
		balancer(spec, metadata)
		delete(metadata, "labels")
	})
	s.mustApply(t, foreign)
	ownForeign := aService(namespace, "foreign", func(spec, metadata map[string]any) {
		balancer(spec, metadata)
		delete(metadata, "labels")
	})
	s.mustApply(t, ownForeign)
	const denied = "ValidatingAdmissionPolicy"
	eventually(t, "the policy is in force", func() bool {
		status, _ := s.apply(t, account, aService("web", "probe", balancer), "&dryRun=All")
		return status >= 300
	})
	for name, c := range map[string]struct {
		o    object
		want string // part of the refusal; "": it is taken
	}{
		"an alias of one of ours":                   {aService("web", "gw-gatehouse", alias(target)), ""},
		"a Service of a Gateway":                    {aService(namespace, "infra-gw-0a1b2c3d", balancer), ""},
		"an alias without our label":                {aService("web", "other", func(spec, m map[string]any) { alias(target)(spec, m); delete(m, "labels") }), denied},
		"a Service without our label":               {aService(namespace, "other", func(spec, m map[string]any) { balancer(spec, m); delete(m, "labels") }), denied},
		"a load balancer in another namespace":      {aService("web", "other", balancer), denied},
		"an alias of something else":                {aService("web", "other", alias("kubernetes.default.svc.cluster.local")), denied},
		"an alias that only looks like one of ours": {aService("web", "other", alias("a."+namespace+".svc.evil.example.com.")), ""}, // the domain is the cluster's own choice
		"an alias of a longer name":                 {aService("web", "other", alias("a.b."+namespace+".svc.cluster.local")), denied},
		"an alias with ports":                       {aService("web", "other", func(spec, m map[string]any) { balancer(spec, m); alias(target)(spec, m) }), denied},
		"externalIPs":                               {aService(namespace, "other", func(spec, m map[string]any) { balancer(spec, m); spec["externalIPs"] = []any{"192.0.2.1"} }), denied},
		"our label on a Service of somebody else":   {aService("web", "foreign", alias(target)), denied},
		"our label on one in our own namespace":     {aService(namespace, "foreign", balancer), denied},
	} {
		status, answer := s.apply(t, account, c.o, "&dryRun=All")
		if c.want == "" && status >= 300 || c.want != "" && !strings.Contains(answer.text("message"), c.want) {
			t.Errorf("%s: %d %s", name, status, answer.text("message"))
		}
	}
	for _, o := range []object{foreign, ownForeign} {
		status, answer := s.do(t, request{method: http.MethodDelete, path: s.path(t, o) + "?dryRun=All", as: account})
		if status != http.StatusUnprocessableEntity && status != http.StatusForbidden || !strings.Contains(answer.text("message"), denied) {
			t.Errorf("deleting %s/%s: %d %s", o.namespace(), o.name(), status, answer.text("message"))
		}
		if status, _ := s.do(t, request{method: http.MethodDelete, path: s.path(t, o)}); status != http.StatusOK {
			t.Errorf("the policy is in the way of the administrator: %d", status)
		}
	}
	s.holdsKeys(t)
}

// holdsKeys: a Secret is made by its name and by no other.
func (s *server) holdsKeys(t *testing.T) {
	secret := func(name string) object {
		return object{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name, "namespace": namespace}, "stringData": map[string]any{"a": "b"}}
	}
	if status, answer := s.apply(t, account, secret("gatehouse-keys"), "&dryRun=All"); status >= 300 {
		t.Errorf("the keys can't be made by server-side apply: %d %s", status, answer.text("message"))
	}
	if status, _ := s.apply(t, account, secret("other"), "&dryRun=All"); status != http.StatusForbidden {
		t.Errorf("another Secret can be made: %d", status)
	}
}
