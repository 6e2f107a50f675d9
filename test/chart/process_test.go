//go:build chart

package chart

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// livesUnderItsRights runs the process with the chart's flags and the ServiceAccount's token: what it does for a Gateway it may do, and
// the API server refuses nothing of what it asks.
func (s *server) livesUnderItsRights(t *testing.T) {
	before := s.refusals(t)
	if before == 0 {
		t.Fatal("refusals are not counted: there were some already")
	}
	p := s.startProcess(t)
	eventually(t, "it is ready", p.ready)

	s.applyText(t, members)
	s.applyText(t, gatewayWithoutCertificate)
	gateway := object{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": map[string]any{"name": "front", "namespace": "web"}}
	var uid string
	eventually(t, "the Gateway has a status, and nothing to serve", func() bool {
		g, _ := s.get(t, s.path(t, gateway))
		uid = g.text("metadata", "uid")
		return condition(g, "Programmed") == "False"
	})
	s.recordPort(t, uid)
	s.applyText(t, firstGateway)
	eventually(t, "the Gateway is accepted", func() bool {
		g, _ := s.get(t, s.path(t, gateway))
		return condition(g, "Accepted") == "True" && g.at("status", "listeners", 0, "attachedRoutes") != nil
	})
	owner, _ := s.get(t, "/api/v1/namespaces/"+namespace+"/configmaps/gatehouse-owner")
	var service object
	eventually(t, "it has a Service", func() bool {
		service = s.byUID(t, namespace, uid)
		return service != nil
	})
	if got := service.text("metadata", "ownerReferences", 0, "uid"); got != owner.text("metadata", "uid") {
		t.Errorf("helm uninstall would leave it behind: its owner is %q", got)
	}
	if service.text("spec", "type") != "NodePort" || service.text("metadata", "annotations", "cloud.example.com/kind") != "a=b,c" ||
		service.text("spec", "externalTrafficPolicy") != "Local" {
		t.Errorf("it is not as the values say: %v", service)
	}
	if selector, _ := service.at("spec", "selector").(map[string]any); len(selector) != 2 || selector["app.kubernetes.io/instance"] != release {
		t.Errorf("it selects %v", selector)
	}
	eventually(t, "it has an alias", func() bool { return s.byUID(t, "web", uid) != nil })
	eventually(t, "an Event tells of it", func() bool {
		events, _ := s.get(t, "/apis/events.k8s.io/v1/namespaces/web/events")
		items, _ := events.at("items").([]any)
		return slices.ContainsFunc(items, func(e any) bool { return object(e.(map[string]any)).text("regarding", "uid") == uid })
	})
	if record, found := s.get(t, "/api/v1/namespaces/"+namespace+"/configmaps/gatehouse-pod-ports"); !found || record.at("data", uid) == nil {
		t.Errorf("the record of pod ports: %v", record)
	}
	for _, lease := range []string{"gatehouse-leader", "gatehouse-0"} {
		if _, found := s.get(t, "/apis/coordination.k8s.io/v1/namespaces/"+namespace+"/leases/"+lease); !found {
			t.Errorf("there is no Lease %s", lease)
		}
	}

	if status, _ := s.do(t, request{method: http.MethodDelete, path: s.path(t, gateway)}); status != http.StatusOK {
		t.Fatal(status)
	}
	eventually(t, "the Service of a Gateway that is gone is removed", func() bool { return s.byUID(t, namespace, uid) == nil })
	if n := s.refusals(t) - before; n != 0 {
		t.Errorf("the API server refused %d requests", n)
	}
	p.stop(t)
	if text := p.log.String(); regexp.MustCompile(`(?i)forbidden|cannot (get|list|watch|patch|create|update)`).MatchString(text) {
		t.Errorf("it complains:\n%s", text)
	}
}

// What a kubelet and the EndpointSlice controller would say of the pod.
const members = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: gatehouse-members-0, namespace: gatehouse-system, labels: {kubernetes.io/service-name: gatehouse-members}}
addressType: IPv4
endpoints:
- addresses: [192.0.2.1]
  conditions: {ready: true, serving: true}
  targetRef: {kind: Pod, name: gatehouse-0, namespace: gatehouse-system, uid: 11111111-1111-1111-1111-111111111111}
`

const gatewayWithoutCertificate = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: web}
spec: {gatewayClassName: gatehouse, listeners: [{name: http, protocol: HTTPS, port: 80, tls: {certificateRefs: [{name: none}]}}]}
`

// recordPort gives the Gateway a pod port that is free on this machine, where the process of another test may have the first ones.
func (s *server) recordPort(t *testing.T, uid string) {
	t.Helper()
	const record = "/api/v1/namespaces/" + namespace + "/configmaps/gatehouse-pod-ports"
	eventually(t, "there is a record of pod ports", func() bool { _, found := s.get(t, record); return found })
	for {
		port := 15000 + rand.IntN(15000)
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		l.Close()
		data := object{"data": map[string]any{uid: "80=" + strconv.Itoa(port)}}
		if status, answer := s.do(t, request{method: http.MethodPatch, path: record, body: data}); status != http.StatusOK {
			t.Fatal(answer.text("message"))
		}
		return
	}
}

const firstGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: web}
spec: {gatewayClassName: gatehouse, listeners: [{name: http, protocol: HTTP, port: 80}]}
`

func (s *server) applyText(t *testing.T, text string) {
	t.Helper()
	for _, o := range parse(t, text) {
		s.mustApply(t, o)
	}
}

func condition(o object, kind string) string {
	list, _ := o.at("status", "conditions").([]any)
	for _, one := range list {
		if c := object(one.(map[string]any)); c.text("type") == kind {
			return c.text("status")
		}
	}
	return ""
}

// byUID is the Service that was made for a Gateway in a namespace, or nil.
func (s *server) byUID(t *testing.T, in, uid string) object {
	t.Helper()
	list, _ := s.get(t, "/api/v1/namespaces/"+in+"/services?labelSelector=gatehouse.dev%2Fgateway-uid%3D"+uid)
	items, _ := list.at("items").([]any)
	if len(items) == 0 {
		return nil
	}
	return items[0].(map[string]any)
}

var refused = regexp.MustCompile(`^apiserver_request_total\{.*code="(403|422)".*\} (\d+)`)

// refusals are the answers 403 and 422 (admission policies) so far.
func (s *server) refusals(t *testing.T) (n int) {
	t.Helper()
	response, err := s.client.Get(s.Host + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines, all := bufio.NewScanner(response.Body), 0
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "apiserver_request_total{") {
			all++
		}
		if m := refused.FindStringSubmatch(lines.Text()); m != nil {
			var one int
			fmt.Sscan(m[2], &one)
			n += one
		}
	}
	if err := lines.Err(); err != nil || all == 0 {
		t.Fatalf("the API server's metrics: %d lines, %v", all, err)
	}
	return n
}

// process is a replica.
type process struct {
	cmd    *exec.Cmd
	health string
	log    bytes.Buffer // read it after stop
}

func (s *server) startProcess(t *testing.T) *process {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "gatehouse")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, "./cmd/gatehouse")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	values := "service: {type: NodePort, externalTrafficPolicy: Local, annotations: {cloud.example.com/kind: 'a=b,c'}}\nports: {admin: 0}\ndrain: {delaySeconds: 0, timeoutSeconds: 1}"
	s.mustHelm(t, values, "upgrade", release, chartPath, "--values", "-") // with the right on nodes
	p := &process{health: freeAddress(t)}
	args := append(render(t, values).args(t), "--health-address="+p.health, "--kubeconfig="+s.kubeconfigOf(t, dir), "--zone=")
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), "POD_NAME=gatehouse-0", "POD_NAMESPACE="+namespace, "POD_UID=11111111-1111-1111-1111-111111111111", "POD_IP=192.0.2.1")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(t) })
	return p
}

// kubeconfigOf is that of the ServiceAccount, with a token as pods get it.
func (s *server) kubeconfigOf(t *testing.T, dir string) string {
	t.Helper()
	_, review := s.do(t, request{method: http.MethodPost, path: "/api/v1/namespaces/" + namespace + "/serviceaccounts/gatehouse/token", body: object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": 3600},
	}})
	token := review.text("status", "token")
	if token == "" {
		t.Fatalf("no token: %v", review)
	}
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": s.Host, "certificate-authority-data": base64.StdEncoding.EncodeToString(s.CA)}}},
		"users":    []any{map[string]any{"name": "c", "user": map[string]any{"token": token}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "user": "c"}}},
	})
	path := filepath.Join(dir, "kubeconfig")
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (p *process) ready() bool {
	client := &http.Client{Timeout: time.Second}
	response, err := client.Get("http://" + p.health + "/readyz")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// stop lets it end as a pod does. It may be called twice.
func (p *process) stop(t *testing.T) {
	if p.cmd.ProcessState != nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { p.cmd.Process.Kill() })
	err := p.cmd.Wait()
	if !kill.Stop() || err != nil {
		t.Errorf("it did not end well: %v\n%s", err, p.log.String())
	}
	if t.Failed() {
		t.Logf("its log:\n%s", tail(p.log.String()))
	}
}

func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}
