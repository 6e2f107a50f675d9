//go:build chart

package chart

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// The parts share an API server and come one after the other: the life of a release in a cluster.
func TestTheLifeOfARelease(t *testing.T) {
	s := newServer(t)
	s.namespace(t, namespace, "restricted")
	s.namespace(t, "edge", "privileged")
	s.namespace(t, "infra", "restricted")
	s.namespace(t, "web", "restricted")

	t.Run("WithoutTheGatewayAPINothingIsInstalledAndTheCommandIsSaid", s.needsGatewayAPI)
	t.Run("AGatewayAPIThatIsTooOldIsRefusedAndNamed", s.refusesOldGatewayAPI)
	s.addGatewayAPI(t, "")
	t.Run("TheAPIServerTakesEachObjectOfAnyValues", s.takesAllRenderings)
	t.Run("PodSecurityRestrictedTakesThePodAndRefusesTheHostsNetwork", s.admitsPod)
	t.Run("AnUpgradeBringsNewFieldsOfOurCRDs", s.upgradesCRDs)
	t.Run("NotesSayTheNextCommands", s.saysNotes)
	t.Run("TheServiceAccountMayDoWhatTheTableSaysAndNoMore", s.holdsRights)
	t.Run("TheServiceAccountIsHeldToItsOwnServices", s.holdsServices)
	t.Run("TheProcessLivesUnderTheseRights", s.livesUnderItsRights)
	t.Run("TheOwnerIsTheSameAfterAnUpgradeToAnotherShape", s.keepsOwner)
	t.Run("UninstallLeavesTheCRDsAndNothingElse", s.uninstalls)
}

// nothingInstalled: neither helm nor the cluster knows of a release.
func (s *server) nothingInstalled(t *testing.T) {
	t.Helper()
	if have := s.ours(t); len(have) > 0 {
		t.Errorf("there is %v", have)
	}
	if out := s.mustHelm(t, "", "list", "--short", "--pending", "--failed", "--deployed"); out != "" {
		t.Errorf("helm has a release: %s", out)
	}
}

func (s *server) needsGatewayAPI(t *testing.T) {
	_, err := s.helm(t, "", "install", release, chartPath)
	for _, want := range []string{"lacks the CRDs of the Gateway API", "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.7.0/standard-install.yaml"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	s.nothingInstalled(t)
}

func (s *server) refusesOldGatewayAPI(t *testing.T) {
	s.addGatewayAPI(t, "v1.2.1")
	_, err := s.helm(t, "", "install", release, chartPath)
	if err == nil || !strings.Contains(err.Error(), "are v1.2.1; this version of Gatehouse needs v1.6 or newer") {
		t.Error(err)
	}
	s.nothingInstalled(t)
	out, err := s.helm(t, "gatewayAPI: {check: false}", "install", release, chartPath, "--dry-run=server", "--values", "-")
	if err != nil || !strings.Contains(out, "kind: GatewayClass") {
		t.Errorf("the check can't be turned off: %v", err)
	}
}

// shapes are values that render differently.
var shapes = map[string]string{
	"the defaults":                     "",
	"all flags":                        allFlags,
	"a DaemonSet":                      "kind: DaemonSet",
	"the host's network":               "kind: DaemonSet\nexposure: host",
	"high ports of the host's network": "exposure: host\nhost: {privilegedPorts: false}",
	"one pod":                          "replicas: 1",
	"node ports":                       "service: {type: NodePort}",
	"an autoscaler":                    "autoscaling: {enabled: true, targetMemoryUtilization: 80, metrics: [{type: Pods, pods: {metric: {name: gatehouse_requests_in_flight}, target: {type: AverageValue, averageValue: '100'}}}]}",
	"a budget in per cent":             "podDisruptionBudget: {maxUnavailable: 25%}",
	"Secrets by namespace":             "rbac: {secrets: {namespaces: [infra, web]}}",
	"Secrets by name":                  "rbac: {secrets: {names: [infra/shop-tls, infra/blog-tls, web/a]}, aliases: false}",
	"no roles":                         "rbac: {create: false}\nadmissionPolicy: false\nserviceAccount: {create: false, name: mine}",
	"a Gateway":                        "gateway: {create: true, namespace: infra, annotations: {a: b}, addresses: [{type: IPAddress, value: 192.0.2.1}], infrastructure: {labels: {team: edge}}}",
	"monitoring":                       "serviceMonitor: {enabled: true, labels: {release: prometheus}, relabelings: [{action: labeldrop, regex: pod}], metricRelabelings: [{action: drop, regex: a}]}\ndashboard: {enabled: true, annotations: {folder: Edge}}",
	"a strict network":                 "networkPolicy: {metricsFrom: [{namespaceSelector: {matchLabels: {a: b}}}], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}",
	"no egress":                        "networkPolicy: {egress: []}",
	"names":                            "nameOverride: front\ncommonLabels: {team: edge}\nimage: {registry: images.example.com, digest: 'sha256:" + strings.Repeat("0", 64) + "'}\nimagePullSecrets: [{name: pull}]",
	"the user's own": `
extraArgs: ["--server-name=front"]
env: [{name: HTTPS_PROXY, value: http://proxy:3128}]
envFrom: [{secretRef: {name: more, optional: true}}]
volumes: [{name: ca, configMap: {name: ca}}]
volumeMounts: [{name: ca, mountPath: /ca, readOnly: true}]
podLabels: {sidecar.istio.io/inject: "false"}
podAnnotations: {a: b}
annotations: {c: d}
priorityClassName: system-cluster-critical
runtimeClassName: gvisor
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: edge, operator: Exists}]}]}}}
tolerations: [{key: edge, operator: Exists}]
nodeSelector: {kubernetes.io/os: linux}
topologySpreadConstraints: [{maxSkew: 2, topologyKey: rack, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}]
resources: {requests: {cpu: 2, memory: 1Gi}, limits: {cpu: "4", memory: 4Gi}}
serviceAccount: {annotations: {cloud: role}}
settings: {trustedProxies: [10.0.0.0/8], headTimeout: 5s, maxBodyBytes: 10485760, forwarded: true}
`,
}

// A ServiceMonitor's CRD, as far as we use it: closed, so that an unknown field is refused.
const serviceMonitors = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: ServiceMonitor, plural: servicemonitors}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [selector, endpoints]
            properties:
              selector: {type: object, properties: {matchLabels: {type: object, additionalProperties: {type: string}}}}
              endpoints:
                type: array
                items:
                  type: object
                  properties:
                    port: {type: string}
                    path: {type: string}
                    interval: {type: string}
                    relabelings: &relabel {type: array, items: {type: object, properties: {action: {type: string}, regex: {type: string}}}}
                    metricRelabelings: *relabel
`

func (s *server) takesAllRenderings(t *testing.T) {
	var crd object
	if err := yaml.Unmarshal([]byte(serviceMonitors), &crd); err != nil {
		t.Fatal(err)
	}
	s.addCRD(t, crd)
	if out, err := s.Kubectl(t.Context(), "kustomize", root+"/config/default").Output(); err != nil {
		t.Errorf("config/default: %v", err)
	} else {
		for _, o := range parse(t, string(out)) {
			if status, answer := s.apply(t, "", o, "&dryRun=All"); status >= 300 {
				t.Errorf("config/default: %s %s: %d %s", o.kind(), o.name(), status, answer.text("message"))
			}
		}
	}
	crds := map[string]bool{} // they are the same in each shape
	for name, values := range shapes {
		for _, o := range render(t, values) {
			if o.kind() == "CustomResourceDefinition" {
				if crds[o.name()] {
					continue
				}
				crds[o.name()] = true
			}
			if status, answer := s.apply(t, "", o, "&dryRun=All"); status >= 300 {
				t.Errorf("%s: %s %s: %d %s", name, o.kind(), o.name(), status, answer.text("message"))
			}
		}
	}
}

func (s *server) admitsPod(t *testing.T) {
	for name, values := range shapes {
		r := render(t, values)
		pod := r.pod(t)
		delete(pod["spec"].(map[string]any), "runtimeClassName") // there is none here
		metadata := pod["metadata"].(map[string]any)
		host := slices.Contains(r.args(t), "--exposure=host")
		for in, want := range map[string]bool{namespace: !host, "edge": true} {
			metadata["namespace"] = in
			status, answer := s.do(t, request{method: http.MethodPost, path: s.list(t, pod) + "?dryRun=All&fieldValidation=Strict", body: pod})
			if got := status < 300; got != want {
				t.Errorf("%s in namespace %s: %d %s", name, in, status, answer.text("message"))
			}
			if !want && !strings.Contains(answer.text("message"), "PodSecurity") {
				t.Errorf("%s is refused for another reason: %s", name, answer.text("message"))
			}
		}
	}
}

// older copies the chart, with a CRD that lacks a field.
func older(t *testing.T) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "gatehouse")
	if err := os.CopyFS(to, os.DirFS(chartPath)); err != nil {
		t.Fatal(err)
	}
	path := to + "/files/crds/gatehouse.dev_ratelimitpolicies.yaml"
	var crd object
	if err := yaml.Unmarshal(read(t, path), &crd); err != nil {
		t.Fatal(err)
	}
	delete(specSchema(crd), "mode")
	columns := crd.at("spec", "versions", 0).(map[string]any)
	delete(columns, "additionalPrinterColumns")
	text, err := yaml.Marshal(crd)
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// specSchema are the properties of a CRD's spec.
func specSchema(crd object) map[string]any {
	p, _ := crd.at("spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "spec", "properties").(map[string]any)
	return p
}

const policyCRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ratelimitpolicies.gatehouse.dev"

func (s *server) upgradesCRDs(t *testing.T) {
	s.mustHelm(t, "", "install", release, older(t))
	before, _ := s.get(t, policyCRD)
	if specSchema(before) == nil || specSchema(before)["mode"] != nil {
		t.Fatal("the older CRD is not what is meant")
	}
	s.mustHelm(t, "", "upgrade", release, chartPath)
	after, _ := s.get(t, policyCRD)
	if specSchema(after)["mode"] == nil {
		t.Error("the CRD is still the older one")
	}
}

func (s *server) saysNotes(t *testing.T) {
	for _, c := range []struct{ values, want, never string }{
		{"", "kubectl -n gatehouse-system port-forward", "WARNING"},
		{"", "--set kind=DaemonSet --set exposure=host", "WARNING"},
		{"", "gatewayClassName: gatehouse", "WARNING"},
		{"", "status still says Programmed=True", "WARNING"}, // after an uninstallation
		{"gateway: {create: true, name: front, namespace: infra}", "kubectl -n infra wait --for=condition=Programmed --timeout=5m gateway/front", "apply -f"},
		{"replicas: 1", "WARNING: with one pod", "<no value>"},
		{"kind: DaemonSet\nexposure: host", "pod-security.kubernetes.io/enforce=privileged", "port-forward"},
	} {
		out := s.mustHelm(t, c.values, "upgrade", release, chartPath, "--dry-run=server", "--values", "-")
		_, notes, _ := strings.Cut(out, "NOTES:")
		if !strings.Contains(notes, c.want) || strings.Contains(notes, c.never) {
			t.Errorf("%s: want %q and never %q:\n%s", c.values, c.want, c.never, notes)
		}
	}

	out := s.mustHelm(t, "", "upgrade", release, chartPath, "--dry-run=server")
	_, gateway, _ := strings.Cut(out, "echo '")
	gateway, _, _ = strings.Cut(gateway, "' | kubectl apply -f -")
	s.mustApply(t, parse(t, gateway).one(t, "Gateway"))

	path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.gateway.networking.k8s.io"
	crd, _ := s.get(t, path)
	was := crd.text("metadata", "annotations", "gateway.networking.k8s.io/bundle-version")
	for version, want := range map[string]string{"v1.9.0": "the cluster's Gateway API is v1.9.0, newer than", "main": "is not known", "v1.7.9": ""} {
		s.annotate(t, path, version)
		out := s.mustHelm(t, "", "upgrade", release, chartPath, "--dry-run=server")
		if _, notes, _ := strings.Cut(out, "NOTES:"); !strings.Contains(notes, want) || want == "" && strings.Contains(notes, "WARNING") {
			t.Errorf("with Gateway API %s: want %q\n%s", version, want, notes)
		}
	}
	s.annotate(t, path, was)
}

func (s *server) annotate(t *testing.T, path, bundle string) {
	t.Helper()
	patch := object{"metadata": map[string]any{"annotations": map[string]any{"gateway.networking.k8s.io/bundle-version": bundle}}}
	if status, answer := s.do(t, request{method: http.MethodPatch, path: path, body: patch}); status != http.StatusOK {
		t.Fatal(status, answer.text("message"))
	}
}

func (s *server) keepsOwner(t *testing.T) {
	const owner = "/api/v1/namespaces/" + namespace + "/configmaps/gatehouse-owner"
	before, _ := s.get(t, owner)
	s.mustHelm(t, "kind: DaemonSet\nservice: {type: NodePort}\nrbac: {secrets: {names: [infra/a]}}", "upgrade", release, chartPath, "--values", "-")
	have := s.ours(t)
	if slices.Contains(have, "deployment.apps/gatehouse") || !slices.Contains(have, "daemonset.apps/gatehouse") {
		t.Errorf("the shape is not the new one: %v", have)
	}
	for name, want := range map[string]int{"a": http.StatusOK, "b": http.StatusForbidden} {
		path := "/api/v1/namespaces/infra/secrets?fieldSelector=metadata.name%3D" + name
		eventually(t, "the right on Secrets goes by name", func() bool {
			status, _ := s.do(t, request{method: http.MethodGet, path: path, as: account})
			return status == want
		})
	}
	after, found := s.get(t, owner)
	if !found || before.text("metadata", "uid") == "" || after.text("metadata", "uid") != before.text("metadata", "uid") {
		t.Error("it is another owner now: all load balancers would have gone with the old one")
	}
	s.mustHelm(t, "", "upgrade", release, chartPath)
}

func (s *server) uninstalls(t *testing.T) {
	s.mustHelm(t, "", "uninstall", release)
	if diff := cmp.Diff([]string{"customresourcedefinition.apiextensions.k8s.io/authpolicies.gatehouse.dev",
		"customresourcedefinition.apiextensions.k8s.io/ratelimitpolicies.gatehouse.dev"}, s.ours(t)); diff != "" {
		t.Errorf("-want +left:\n%s", diff)
	}
	if _, found := s.get(t, "/apis/gateway.networking.k8s.io/v1/gatewayclasses/gatehouse"); found {
		t.Error("the GatewayClass is still there")
	}
	if _, found := s.get(t, "/apis/gateway.networking.k8s.io/v1/gateways"); !found {
		t.Error("the Gateway API is gone")
	}
	s.mustHelm(t, "", "install", release, chartPath) // takes the CRDs over
	s.mustHelm(t, "", "uninstall", release)
}

// A chart that is packed has all that it needs.
func TestThePackedChartIsTheSame(t *testing.T) {
	to := t.TempDir()
	if _, err := helm(t, "", "package", chartPath, "--destination", to); err != nil {
		t.Fatal(err)
	}
	packed, err := fs.Glob(os.DirFS(to), "*.tgz")
	if err != nil || len(packed) != 1 {
		t.Fatal(packed, err)
	}
	want, err := template(t, "dashboard: {enabled: true}")
	if err != nil {
		t.Fatal(err)
	}
	got, err := helm(t, "dashboard: {enabled: true}", "template", release, filepath.Join(to, packed[0]), "--namespace", namespace, "--values", "-")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
