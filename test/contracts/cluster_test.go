package contracts

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// While nobody knows whether a Service is there, its route goes on as it was; once it is known to be gone, the route fails.
func TestCluster13_PendingIsNotAbsent(t *testing.T) {
	class, gw, route, service := &gwv1.GatewayClass{}, &gwv1.Gateway{}, &gwv1.HTTPRoute{}, &corev1.Service{}
	for text, into := range map[string]any{
		`{metadata: {name: gatehouse, uid: c}, spec: {controllerName: gatehouse.dev/gateway-controller}}`:                                                                                       class,
		`{metadata: {name: gw, namespace: web, uid: g}, spec: {gatewayClassName: gatehouse, listeners: [{name: http, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: Same}}}]}}`: gw,
		`{metadata: {name: r, namespace: web, uid: r}, spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: cart, port: 80}]}]}}`:                                                     route,
		`{metadata: {name: cart, namespace: web, uid: s}, spec: {ports: [{port: 80}]}}`:                                                                                                         service,
	} {
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	in := translate.Input{Kinds: controllers.Policies, FilterOrder: dataplane.FilterOrder()}
	step := func(answer translate.Answer, objects ...controllers.Object) (snap, status string) {
		in.Objects = controllers.Sorted(objects)
		in.Answers = translate.Answers{{Kind: "Service", Name: snapshot.Name{Namespace: "web", Name: "cart"}}: answer}
		built := translate.Build(in)
		in.LastGood = built.LastGood
		return built.Snapshot.String(), translate.Text(built.Statuses(translate.AllBound(built.Snapshot)))
	}
	good, told := step(translate.Found, class, gw, route, service)
	if !strings.Contains(good, "→ web/cart:80") || !strings.Contains(told, "HTTPRoute web/r @web/gw: Accepted, ResolvedRefs") {
		t.Fatalf("%s\n%s", good, told)
	}
	if now, told := step(translate.Pending, class, gw, route); now != good || strings.Contains(told, "HTTPRoute") {
		t.Errorf("while it is pending:\n%s\n%s", now, told)
	}
	if now, told := step(translate.Absent, class, gw, route); !strings.Contains(now, "fail(backend_invalid)") || !strings.Contains(told, "BackendNotFound") {
		t.Errorf("once it is absent:\n%s\n%s", now, told)
	}
}

// Build does not see endpoints, so the refusal of addresses that lead back to us lives where they come in: in the controllers, and once
// more in the data plane.
func TestCluster15_LoopbackAndLinkLocalAreRefusedAtTheDoorOfTheDataPlane(t *testing.T) {
	b := serveHTTP(t, ok)
	mapped := netip.AddrPortFrom(netip.AddrFrom16(b.address.Addr().As16()), b.address.Port())
	for _, local := range []bool{true, false} {
		h := open(t, options{settings: func(s *dataplane.Settings) { s.LocalEndpoints = local }})
		h.serve(rule("a", "a"))
		for i, address := range []netip.AddrPort{b.address, mapped} {
			h.endpoints("a", address)
			status, _ := h.get("/a")
			if want := map[bool]int{true: 200, false: 503}[local]; status != want {
				t.Errorf("local %v, %s: %d, want %d", local, address, status, want)
			}
			if reason := h.tally.last(t, i+1).reason; !local && reason != message.ReasonNoEndpoint {
				t.Errorf("%s: %v", address, reason)
			}
		}
		for _, never := range []string{"0.0.0.0:80", "[::]:80", "224.0.0.1:80", "[ff02::1]:80"} {
			h.endpoints("a", netip.MustParseAddrPort(never))
			if status, _ := h.get("/a"); status != 503 {
				t.Errorf("local %v, %s: %d", local, never, status)
			}
		}
	}
}

// Endpoints that drain serve only when no other is there.
func TestCluster15_DrainingEndpointsServeWhenNoOtherIsThere(t *testing.T) {
	name := func(n string) *backend {
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, n) })
	}
	ready, draining := name("ready"), name("draining")
	h := open(t, options{})
	h.serve(rule("a", "a"))
	tell := func(all ...snapshot.Endpoint) {
		h.plane.SetEndpoints([]snapshot.Endpoints{{Backend: ref("a"), Endpoints: all}})
	}
	tell(snapshot.Endpoint{Address: draining.address, Draining: true}, snapshot.Endpoint{Address: ready.address})
	for range 20 {
		if _, who := h.get("/a"); who != "ready" {
			t.Fatal(who)
		}
	}
	tell(snapshot.Endpoint{Address: draining.address, Draining: true})
	if status, who := h.get("/a"); who != "draining" {
		t.Error(status, who)
	}
}

// What accepted a connection decides which Gateway it speaks to: tables of two are never merged, whatever Host says.
func TestCluster21_TheSocketThatAcceptedChoosesTheGateway(t *testing.T) {
	h := open(t, options{})
	other := snapshot.SocketKey{Gateway: snapshot.Name{Namespace: "infra", Name: "other"}, Address: h.key.Address, Port: freePort(t)}
	taken := snapshot.SocketKey{Gateway: snapshot.Name{Namespace: "infra", Name: "late"}, Address: h.key.Address, Port: h.key.Port}
	h.endpoints("a", serveHTTP(t, ok).address)
	s := h.snapshot(listener("http", "shop.example.com", rule("mine", "a")))
	for _, key := range []snapshot.SocketKey{other, taken} {
		l := listener("http", "shop.example.com", rule("theirs", "a"))
		l.Key.Gateway = key.Gateway
		s.Sockets = append(s.Sockets, snapshot.Socket{Key: key, SpecPort: 80, Protocol: snapshot.HTTP, Listeners: []*snapshot.Listener{l}})
	}
	binds := h.plane.Apply(s).Sockets
	if binds[0].Err != nil || binds[1].Err != nil || binds[2].Err == nil || !strings.Contains(binds[2].Err.Error(), "infra/gw") {
		t.Errorf("the first on an address wins, and the other is told by whom: %v", binds)
	}
	mine := h.key
	for key, want := range map[snapshot.SocketKey][2]int{mine: {200, 404}, other: {404, 200}} {
		h.key = key
		c := h.dial()
		for i, path := range []string{"/mine", "/theirs"} {
			if status, _ := c.ask("GET", path, ""); status != want[i] {
				t.Errorf("%s %s: %d, want %d", key.Gateway, path, status, want[i])
			}
		}
		c.close()
	}
	h.key = mine
}

// The page of settings tells the truth: what stands beside each field is its default.
func TestCluster23_TheDefaultsOfThePageAreTheDefaults(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), root+"dataplane/settings.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	defaults := reflect.ValueOf(dataplane.Defaults())
	checked := 0
	timers := ""
	ast.Inspect(f, func(n ast.Node) bool {
		if d, ok := n.(*ast.GenDecl); ok && d.Doc != nil {
			timers += d.Doc.Text()
		}
		field, ok := n.(*ast.Field)
		if !ok || field.Comment == nil || len(field.Names) != 1 {
			return true
		}
		name, says := field.Names[0].Name, field.Comment.Text()
		v := defaults.FieldByName(name)
		if !v.IsValid() || !v.CanInt() {
			return true
		}
		checked++
		if _, isTime := v.Interface().(time.Duration); isTime && !regexp.MustCompile(`(?m)^\s+`+name+` `).MatchString(timers) {
			t.Errorf("the list of timers does not say what %s covers", name)
		}
		if got := number(says, v); got != v.Int() {
			t.Errorf("%s: the page says %q, the default is %v", name, strings.TrimSpace(says), v)
		}
		return true
	})
	if checked < 20 {
		t.Errorf("%d defaults found: nothing was proved", checked)
	}
}

// number reads "10s", "64 KiB: …" or "250 HTTP/2 streams …".
func number(says string, like reflect.Value) int64 {
	word, rest, _ := strings.Cut(strings.NewReplacer(":", "", "\n", " ").Replace(says), " ")
	if _, ok := like.Interface().(time.Duration); ok && word != "0" {
		d, err := time.ParseDuration(word)
		if err != nil {
			return -1
		}
		return int64(d)
	}
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return -1
	}
	switch unit, _, _ := strings.Cut(rest, " "); unit {
	case "KiB":
		n <<= 10
	case "MiB":
		n <<= 20
	}
	return n
}
