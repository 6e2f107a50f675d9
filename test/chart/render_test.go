//go:build chart

package chart

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

func TestHelmLintFindsNothing(t *testing.T) {
	if out, err := helm(t, "", "lint", "--strict", chartPath); err != nil {
		t.Error(err, out)
	}
}

var helmsLabels = regexp.MustCompile(`(?m)^ +(app.kubernetes.io/managed-by|helm.sh/chart): .*\n`)

// config/rbac and config/default are the golden of the default rendering, and what users without helm apply.
func TestConfigIsWhatTheChartsDefaultsAre(t *testing.T) {
	text, err := template(t, "crds: {install: false}\n")
	if err != nil {
		t.Fatal(err)
	}
	var rbac, rest []string
	for doc := range strings.SplitSeq(strings.TrimPrefix(text, "---\n"), "\n---\n") {
		doc = helmsLabels.ReplaceAllString(doc, "")
		source, doc, _ := strings.Cut(doc, "\n")
		doc = strings.TrimSpace(doc) + "\n"
		name := filepath.Base(source)
		if strings.HasPrefix(name, "rbac") || name == "serviceaccount.yaml" || name == "admission.yaml" {
			rbac = append(rbac, doc)
		} else {
			rest = append(rest, doc)
		}
	}
	const head = "# Made from charts/gatehouse by hack/chart.sh, with the chart's defaults. Don't edit.\n"
	same(t, root+"/config/rbac/rbac.yaml", []byte(head+strings.Join(rbac, "---\n")))
	same(t, root+"/config/default/gatehouse.yaml", []byte(head+strings.Join(rest, "---\n")))
}

func TestATypoIsAnError(t *testing.T) {
	for values, want := range map[string]string{
		"replics: 3":                                `additional properties 'replics' not allowed`,
		"service: {typ: NodePort}":                  `at '/service': additional properties 'typ' not allowed`,
		"service: {type: Loadbalancer}":             `at '/service/type'`,
		"kind: Daemonset":                           `at '/kind'`,
		"replicas: two":                             `at '/replicas'`,
		"settings: {headTimeuot: 5s}":               `additional properties 'headTimeuot' not allowed`,
		"settings: {headTimeout: 5}":                `at '/settings/headTimeout'`,
		"settings: {headTimeout: soon}":             `at '/settings/headTimeout'`,
		"settings: {drainDelay: 5s}":                `additional properties 'drainDelay' not allowed`,
		"settings: {trustedProxies: [proxy.local]}": `at '/settings/trustedProxies/0'`,
		"rbac: {secrets: all}":                      `at '/rbac/secrets'`,
		"rbac: {secrets: {}}":                       `at '/rbac/secrets'`,
		"rbac: {secrets: {names: [shop-tls]}}":      `at '/rbac/secrets/names/0'`,
		"rbac: {secrets: {namespace: [infra]}}":     `additional properties 'namespace' not allowed`,
		"resources: {limit: {memory: 1Gi}}":         `additional properties 'limit' not allowed`,
		"ports: {health: 10000}":                    `at '/ports/health'`, // within the range of listeners
		"gateway: {create: true, listeners: []}":    `at '/gateway/listeners'`,
		"tracing: {endpoint: collector:4317}":       `at '/tracing/endpoint'`,
		"nodeSelector: {a: 1}":                      `at '/nodeSelector/a'`,
		"store: {address: ['a:1']}":                 `additional properties 'address' not allowed`,
		"store: {addresses: [redis.infra]}":         `at '/store/addresses/0'`,
		"store: {passwordSecret: {key: password}}":  `at '/store/passwordSecret'`,
	} {
		_, err := template(t, values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", values, err, want)
		}
	}
}

func TestValuesThatContradictEachOtherAreAnError(t *testing.T) {
	for values, want := range map[string]string{
		"terminationGracePeriodSeconds: 70":                                                                "must be more than drain.delaySeconds + drain.timeoutSeconds = 70",
		"kind: DaemonSet\nautoscaling: {enabled: true}":                                                    "autoscaling scales a Deployment",
		"autoscaling: {enabled: true, minReplicas: 11}":                                                    "autoscaling.minReplicas is greater",
		"autoscaling: {enabled: true}\nresources: {requests: {cpu: null}}":                                 "resources.requests.cpu, which is not set",
		"autoscaling: {enabled: true, targetCPUUtilization: null}":                                         "autoscaling looks at nothing",
		"autoscaling: {enabled: true, targetMemoryUtilization: 80}\nresources: {requests: {memory: null}}": "resources.requests.memory, which is not set",
		"rbac: {create: false, secrets: {namespaces: [infra]}}":                                            "no role is made",
		"store: {addresses: ['a:1', 'b:1']}":                                                               "names several servers",
		"store: {addresses: ['a:1'], mode: sentinel}":                                                      "store.primary must say",
		"store: {addresses: ['a:1'], tls: {caSecret: {name: ca}}}":                                         "the connection would be plain",
	} {
		_, err := template(t, values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", values, err, want)
		}
	}
}

func TestTheKubeletWaitsLongerThanTheDrain(t *testing.T) {
	for _, c := range []struct {
		values string
		want   float64
		args   []string
	}{
		{"", 85, []string{"--drain-delay=10s", "--drain-timeout=60s"}},
		{"drain: {delaySeconds: 30, timeoutSeconds: 300}", 345, []string{"--drain-delay=30s", "--drain-timeout=300s"}},
		{"terminationGracePeriodSeconds: 71", 71, []string{"--drain-delay=10s", "--drain-timeout=60s"}},
	} {
		r := render(t, c.values)
		if got := r.pod(t).at("spec", "terminationGracePeriodSeconds"); got != c.want {
			t.Errorf("%s: %v, want %v", c.values, got, c.want)
		}
		for _, arg := range c.args {
			if !slices.Contains(r.args(t), arg) {
				t.Errorf("%s: %s is not among %v", c.values, arg, r.args(t))
			}
		}
	}
}

func TestNoPodIsTakenAwayBeforeItsSuccessorServes(t *testing.T) {
	surge, swap := map[string]any{"maxUnavailable": 0.0, "maxSurge": 1.0}, map[string]any{"maxUnavailable": 1.0, "maxSurge": 0.0}
	for values, want := range map[string]map[string]any{
		"kind: Deployment":                 surge,
		"kind: DaemonSet":                  surge,
		"kind: Deployment\nexposure: host": swap, // but on a node's own ports it can't serve before
		"kind: DaemonSet\nexposure: host":  swap,
	} {
		w := render(t, values).workload(t)
		strategy := map[string]string{"Deployment": "strategy", "DaemonSet": "updateStrategy"}[w.kind()]
		if diff := cmp.Diff(want, w.at("spec", strategy, "rollingUpdate")); diff != "" {
			t.Errorf("%s:\n%s", values, diff)
		}
		if got := w.at("spec", "minReadySeconds"); got != 10.0 {
			t.Errorf("%s: minReadySeconds %v", values, got)
		}
	}
}

func TestADisruptionBudgetIsThereForSeveralPodsOnly(t *testing.T) {
	for values, want := range map[string]int{
		"":            1,
		"replicas: 1": 0,
		"replicas: 1\nautoscaling: {enabled: true}": 1,
		"kind: DaemonSet":                       0, // its pods are never evicted
		"podDisruptionBudget: {enabled: false}": 0,
	} {
		if got := len(render(t, values).of("PodDisruptionBudget")); got != want {
			t.Errorf("%s: %d, want %d", values, got, want)
		}
	}
}

func TestWithAnAutoscalerTheDeploymentSaysNoNumber(t *testing.T) {
	if got := render(t, "autoscaling: {enabled: true}").one(t, "Deployment").at("spec", "replicas"); got != nil {
		t.Errorf("replicas: %v: each helm upgrade would undo what the autoscaler did", got)
	}
	if got := render(t, "").one(t, "Deployment").at("spec", "replicas"); got != 2.0 {
		t.Errorf("replicas: %v", got)
	}
}

func TestEachSettingBecomesItsFlag(t *testing.T) {
	var values strings.Builder
	want := map[string]string{}
	for name, s := range valuesSchema(t).Properties["settings"].Properties {
		given, flag := `"1h30m"`, "1h30m"
		switch {
		case s.Type == "integer":
			given, flag = "123456789", "123456789" // large enough for helm to write it as 1.23456789e+08
		case s.Type == "boolean":
			given, flag = "true", "true"
		case s.Type == "array":
			given, flag = "[10.0.0.0/8, 192.0.2.1]", "10.0.0.0/8,192.0.2.1"
		}
		fmt.Fprintf(&values, "  %s: %s\n", name, given)
		want["--"+kebab(name)] = flag
	}
	args := render(t, "settings:\n"+values.String()).args(t)
	for flag, value := range want {
		if !slices.Contains(args, flag+"="+value) {
			t.Errorf("%s=%s is not among the flags\n%s", flag, value, strings.Join(args, "\n"))
		}
	}
}

// Values that switch on all flags of templates/_args.tpl.
const allFlags = `
service:
  type: NodePort
  annotations: {cloud.example.com/kind: "a=b,c"}
  labels: {team: edge}
  externalTrafficPolicy: Local
  loadBalancerClass: example.com/nlb
  ipFamilyPolicy: PreferDualStack
  addressPool: [192.0.2.0/28, "2001:db8::/64"]
  addressAnnotations: {metallb.io/loadBalancerIPs: $(ADDRESSES)}
clusterDomain: example.internal
verbosity: 2
accessLog: {hideQuery: true}
tracing: {endpoint: "http://collector:4317", ratio: 0.25}
pprof: true
store:
  addresses: ["a.redis:26379", "b.redis:26379"]
  mode: sentinel
  primary: mymaster
  database: 3
  username: gate
  passwordSecret: {name: store}
  sentinelUsername: watch
  sentinelPasswordSecret: {name: sentinels, key: secret}
  tls: {enabled: true, serverName: redis.example.com, caSecret: {name: store}, certificateSecret: gate-tls}
`

func TestTheStoresFilesAreWhereItsFlagsSay(t *testing.T) {
	text, err := template(t, allFlags)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`--store=a.redis:26379,b.redis:26379`, `--store-password-file=/etc/gatehouse/store/password`, `--store-tls-ca=/etc/gatehouse/store/ca.crt`,
		`{name: store, mountPath: /etc/gatehouse/store, readOnly: true}`,
		`secret: {name: store, items: [{key: password, path: password}]}`,
		`secret: {name: sentinels, items: [{key: secret, path: sentinel-password}]}`,
		`secret: {name: store, items: [{key: ca.crt, path: ca.crt}]}`,
		`secret: {name: gate-tls, items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	for values, what := range map[string]string{
		"": "nothing is named", "store: {passwordSecret: {name: store}}": "there is no store", "store: {addresses: ['a:1']}": "no file is needed",
	} {
		if text, err := template(t, values); err != nil || strings.Contains(text, "/etc/gatehouse/store") {
			t.Errorf("%s, and yet files of the store are mounted (%v)", what, err)
		}
	}
}

func TestTheProcessKnowsEachFlag(t *testing.T) {
	known := flagsIn(t, "*.go")
	for _, values := range []string{"", allFlags, allFlags + "exposure: host\n", "accessLog: {enabled: false}\n", "ports: {admin: 0}\n"} {
		args := render(t, values).args(t)
		if args[0] != "controller" {
			t.Errorf("the subcommand is %s", args[0])
		}
		for _, arg := range args[1:] {
			name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			if !slices.Contains(known, name) {
				t.Errorf("cmd/gatehouse has no flag --%s", name)
			}
		}
	}
}

func TestAnnotationsOfAnyShapeReachTheProcess(t *testing.T) {
	want := map[string]string{
		"plain": "nlb", "empty": "", "commas": "a,b", "equals": "a=b,c=d", "json": `{"a": "b"}`, "quoted": `"x"`, "both": `a="b",c`,
		"lines": "a\nb", "variable": "$(ADDRESSES)", "example.com/key": "1",
	}
	text, err := yaml.Marshal(map[string]any{"service": map[string]any{"annotations": want, "labels": map[string]string{"a": "b"}, "addressAnnotations": want}})
	if err != nil {
		t.Fatal(err)
	}
	// What cmd/gatehouse parses them with.
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	annotations, addresses, labels := map[string]string{}, map[string]string{}, map[string]string{}
	flags.StringToStringVar(&annotations, "service-annotations", nil, "")
	flags.StringToStringVar(&addresses, "address-annotations", nil, "")
	flags.StringToStringVar(&labels, "service-labels", nil, "")
	for _, arg := range render(t, string(text)).args(t) {
		if name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "="); flags.Lookup(name) == nil {
			continue
		}
		if err := flags.Parse([]string{strings.ReplaceAll(arg, "$$(", "$(")}); err != nil { // as the kubelet does
			t.Error(arg, err)
		}
	}
	if diff := cmp.Diff(want, annotations); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, addresses); diff != "" {
		t.Error(diff)
	}
	if labels["a"] != "b" {
		t.Error(labels)
	}
}

func TestTheImageIsNamedAsItIsPulled(t *testing.T) {
	for values, want := range map[string]string{
		"": "gatehouse-dev/gatehouse:0.1.0",
		"image: {registry: images.example.com:5000, repository: edge/gatehouse, tag: v9}": "images.example.com:5000/edge/gatehouse:v9",
		"image: {tag: v9, digest: 'sha256:abc'}":                                          "gatehouse-dev/gatehouse@sha256:abc",
	} {
		if got := render(t, values).pod(t).text("spec", "containers", 0, "image"); got != want {
			t.Errorf("%s: %s, want %s", values, got, want)
		}
	}
}

func TestNamesStayWithinTheirLimits(t *testing.T) {
	long := strings.Repeat("very-long-", 9) + "name"
	for _, values := range []string{"fullnameOverride: " + long, "nameOverride: " + long} {
		for _, o := range render(t, values) {
			labels, _ := o.at("metadata", "labels").(map[string]any)
			for key, v := range labels {
				if len(v.(string)) > 63 {
					t.Errorf("%s %s: label %s has %d bytes", o.kind(), o.name(), key, len(v.(string)))
				}
			}
			if o.kind() == "Service" && len(o.name()) > 63 {
				t.Errorf("Service %s has %d bytes", o.name(), len(o.name()))
			}
		}
	}
}

func TestAllObjectsCarryTheCommonLabelsAndSelectorsDoNot(t *testing.T) {
	const all = `
commonLabels: {team: edge}
autoscaling: {enabled: true}
gateway: {create: true}
serviceMonitor: {enabled: true}
dashboard: {enabled: true}
rbac: {secrets: {namespaces: [infra], names: [web/a]}}
`
	r := render(t, all)
	for _, o := range r {
		if o.text("metadata", "labels", "team") != "edge" {
			t.Errorf("%s %s has no such label", o.kind(), o.name())
		}
	}
	if selector := r.workload(t).at("spec", "selector", "matchLabels").(map[string]any); len(selector) != 2 {
		t.Errorf("the selector can't be changed later, and is %v", selector)
	}
}

func TestOnlyPortsBelow1024OfANodeNeedUser0(t *testing.T) {
	for values, want := range map[string]struct {
		user, nonRoot any
		added         []any
	}{
		"":               {65532.0, true, nil},
		"exposure: host": {0.0, false, []any{"NET_BIND_SERVICE"}},
		"exposure: host\nhost: {privilegedPorts: false}": {65532.0, true, nil},
	} {
		pod := render(t, values).pod(t)
		added, _ := pod.at("spec", "containers", 0, "securityContext", "capabilities", "add").([]any)
		if pod.at("spec", "securityContext", "runAsUser") != want.user || pod.at("spec", "securityContext", "runAsNonRoot") != want.nonRoot || !slices.Equal(added, want.added) {
			t.Errorf("%s: %v, capabilities %v", values, pod.at("spec", "securityContext"), added)
		}
		if got := pod.at("spec", "containers", 0, "securityContext", "capabilities", "drop", 0); got != "ALL" {
			t.Errorf("%s: drops %v", values, got)
		}
	}
}

func TestPodsAreSpreadUnlessSaidOtherwise(t *testing.T) {
	for values, want := range map[string]int{
		"":                              2,
		"topologySpreadConstraints: []": 0,
		"topologySpreadConstraints: [{maxSkew: 1, topologyKey: rack, whenUnsatisfiable: DoNotSchedule}]": 1,
		"kind: DaemonSet": 0,
	} {
		got, _ := render(t, values).pod(t).at("spec", "topologySpreadConstraints").([]any)
		if len(got) != want {
			t.Errorf("%s: %v", values, got)
		}
	}
}

func TestTheNetworkPolicyOpensThePodPortsOfListeners(t *testing.T) {
	p := render(t, "networkPolicy: {metricsFrom: [{namespaceSelector: {}}]}").one(t, "NetworkPolicy")
	text, _ := yaml.Marshal(p.at("spec", "ingress"))
	want := `- ports:
  - endPort: 29999
    port: 10000
    protocol: TCP
  - endPort: 29999
    port: 10000
    protocol: UDP
- from:
  - namespaceSelector: {}
  ports:
  - port: 8081
    protocol: TCP
`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	if n := len(render(t, "exposure: host").of("NetworkPolicy")); n != 0 {
		t.Error("a NetworkPolicy does not see pods on the host's network")
	}
}

func TestMemoryAndThreadsAreTheProcesssOwnConcern(t *testing.T) {
	// cmd/gatehouse reads its cgroup. A variable here would fix the number (90 % of it can't be said by a resourceFieldRef).
	env, _ := render(t, "").pod(t).at("spec", "containers", 0, "env").([]any)
	for _, e := range env {
		if name := object(e.(map[string]any)).text("name"); strings.HasPrefix(name, "GO") {
			t.Errorf("%s is set", name)
		}
	}
	r := render(t, "env: [{name: GOMEMLIMIT, value: 300MiB}]").pod(t)
	env, _ = r.at("spec", "containers", 0, "env").([]any)
	if last := object(env[len(env)-1].(map[string]any)); last.text("name") != "GOMEMLIMIT" {
		t.Error("env is not passed on")
	}
}

func TestThePodKnowsItself(t *testing.T) {
	fields := map[string]string{}
	list, _ := render(t, "").pod(t).at("spec", "containers", 0, "env").([]any)
	for _, e := range list {
		fields[object(e.(map[string]any)).text("name")] = object(e.(map[string]any)).text("valueFrom", "fieldRef", "fieldPath")
	}
	want := map[string]string{
		"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid", "POD_IP": "status.podIP",
		"NODE_NAME": "spec.nodeName", "ZONE": "metadata.labels['topology.kubernetes.io/zone']",
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Error(diff)
	}
}

func TestTheHealthPortIsTheSameEverywhere(t *testing.T) {
	const port = 9090
	r := render(t, "ports: {health: "+strconv.Itoa(port)+"}\nserviceMonitor: {enabled: true}")
	if !slices.Contains(r.args(t), "--health-address=:9090") {
		t.Error("the process is not told")
	}
	for what, got := range map[string]any{
		"the container": r.pod(t).at("spec", "containers", 0, "ports", 0, "containerPort"),
		"the Service":   r.one(t, "Service").at("spec", "ports", 0, "port"),
		"the policy":    r.one(t, "NetworkPolicy").at("spec", "ingress", 1, "ports", 0, "port"),
	} {
		if got != float64(port) {
			t.Errorf("%s says %v", what, got)
		}
	}
}

func TestWithoutAClusterNothingIsAskedOfOne(t *testing.T) {
	// helm template and GitOps tools that use it: the Gateway API is not looked for, and the GatewayClass is there.
	if n := len(render(t, "").of("GatewayClass")); n != 1 {
		t.Errorf("%d GatewayClasses", n)
	}
	if _, err := template(t, "", "--api-versions", "apps/v1"); err != nil {
		t.Error(err)
	}
}

func TestOurCRDsArePartOfTheReleaseAndOutliveIt(t *testing.T) {
	crds := render(t, "").of("CustomResourceDefinition")
	ours, _ := filepath.Glob(root + "/config/crd/*.yaml")
	if len(crds) != len(ours) {
		t.Errorf("%d CRDs of %d", len(crds), len(ours))
	}
	for _, crd := range crds {
		if group := crd.text("spec", "group"); group != "gatehouse.dev" {
			t.Errorf("%s is not ours to install", group)
		}
		if crd.text("metadata", "annotations", "helm.sh/resource-policy") != "keep" {
			t.Errorf("%s goes with the release, and all its objects with it", crd.name())
		}
		if crd.text("metadata", "labels", "gateway.networking.k8s.io/policy") == "" {
			t.Errorf("%s lost labels of its own", crd.name())
		}
	}
	if n := len(render(t, "crds: {install: false}").of("CustomResourceDefinition")); n != 0 {
		t.Errorf("%d CRDs all the same", n)
	}
}
