package contracts

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane"
)

// served are the fields of specs that are acted on, a line for each struct.
const served = `
Gateway: gatewayClassName
Gateway.listeners[]: name hostname port protocol
Gateway.listeners[].tls: mode
Gateway.listeners[].tls.certificateRefs[]: group kind name namespace
Gateway.listeners[].allowedRoutes.namespaces: from selector
Gateway.listeners[].allowedRoutes.kinds[]: group kind
Gateway.tls.frontend.default.validation: mode
Gateway.tls.frontend.default.validation.caCertificateRefs[]: group kind name namespace
Gateway.tls.frontend.perPort[]: port
Gateway.tls.frontend.perPort[].tls.validation: mode
Gateway.tls.frontend.perPort[].tls.validation.caCertificateRefs[]: group kind name namespace
Gateway.addresses[]: type value
Gateway.infrastructure: labels annotations
ROUTE.parentRefs[]: group kind namespace name sectionName port
ROUTE: hostnames[]
ROUTE.rules[]: name
HTTPRoute.rules[].matches[].path: type value
ROUTE.rules[].matches[].headers[]: type name value
HTTPRoute.rules[].matches[].queryParams[]: type name value
HTTPRoute.rules[].matches[]: method
GRPCRoute.rules[].matches[].method: type service method
FILTERS: type
FILTERS.requestHeaderModifier.set[]: name value
FILTERS.requestHeaderModifier.add[]: name value
FILTERS.requestHeaderModifier: remove[]
FILTERS.responseHeaderModifier.set[]: name value
FILTERS.responseHeaderModifier.add[]: name value
FILTERS.responseHeaderModifier: remove[]
ROUTE.rules[].filters[].requestMirror: percent
ROUTE.rules[].filters[].requestMirror.backendRef: group kind name namespace port
ROUTE.rules[].filters[].requestMirror.fraction: numerator denominator
HTTPRoute.rules[].filters[].requestRedirect: scheme hostname port statusCode
HTTPRoute.rules[].filters[].requestRedirect.path: type replaceFullPath replacePrefixMatch
HTTPFILTERS.urlRewrite: hostname
HTTPFILTERS.urlRewrite.path: type replaceFullPath replacePrefixMatch
HTTPRoute.rules[].filters[].cors: allowOrigins[] allowCredentials allowMethods[] allowHeaders[] exposeHeaders[] maxAge
HTTPRoute.rules[].filters[].externalAuth: protocol
HTTPRoute.rules[].filters[].externalAuth.backendRef: group kind name namespace port
HTTPRoute.rules[].filters[].externalAuth.grpc: allowedHeaders[]
HTTPRoute.rules[].filters[].externalAuth.http: path allowedHeaders[] allowedResponseHeaders[]
HTTPRoute.rules[].filters[].externalAuth.forwardBody: maxSize
ROUTE.rules[].backendRefs[]: group kind name namespace port weight
HTTPRoute.rules[].timeouts: request backendRequest
HTTPRoute.rules[].retry: codes[] attempts backoff
`

// refused are fields that nobody acts on: each with all below it, an example, and what of the object then serves no more.
var refused = []struct {
	field   string
	example string // YAML of a spec, on top of the plain object's
	parts   string // words of the lines of status that must not be whole; what follows is the field that they name
	named   string
	closed  string // what the snapshot must not have any more, or must have instead
}{
	{"Gateway.listeners[].tls.options", `listeners: [{name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}], options: {a.example.com/x: y}}}]`,
		"listener https: Accepted=False", "spec.listeners[0].tls.options", "!:8443"},
	{"Gateway.listeners[].filters", `listeners: [{name: http, port: 8080, protocol: HTTP, filters: {requests: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: auth, port: 80}}}]}}]`,
		"listener http: Accepted=False", "spec.listeners[0].filters", "!:8080"},
	{"Gateway.addresses[].routability", `addresses: [{type: IPAddress, value: 127.0.0.1, routability: Cluster}]`, "Gateway infra/gw: Accepted=False", "routability", ""},
	{"Gateway.infrastructure.parametersRef", `infrastructure: {parametersRef: {group: a.example.com, kind: X, name: x}}`, "Gateway infra/gw: Accepted=False", "spec.infrastructure.parametersRef", ""},
	{"Gateway.allowedListeners", `allowedListeners: {namespaces: {from: All}}`, "Gateway infra/gw: Accepted", "spec.allowedListeners", ""},
	{"Gateway.tls.backend.clientCertificateRef", `tls: {backend: {clientCertificateRef: {name: cert}}}`, "ResolvedRefs=False", "spec.tls.backend.clientCertificateRef", ""},
	{"HTTPRoute.rules[].filters[].extensionRef", `rules: [{filters: [{type: ExtensionRef, extensionRef: {group: a.example.com, kind: Auth, name: x}}], backendRefs: [{name: cart, port: 80}]}]`,
		"HTTPRoute web/r @infra/gw: Accepted=False", "spec.rules[0].filters[0].extensionRef", "fail(route_invalid)"},
	{"HTTPRoute.rules[].backendRefs[].filters[].requestMirror", `rules: [{backendRefs: [{name: cart, port: 80, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: cart, port: 80}}}]}]}]`,
		"HTTPRoute web/r @infra/gw: Accepted=False", "spec.rules[0].backendRefs[0].filters[0]", "fail(route_invalid)"},
	{"HTTPRoute.rules[].backendRefs[].filters[].requestRedirect", `rules: [{backendRefs: [{name: cart, port: 80, filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}]}]`,
		"HTTPRoute web/r @infra/gw: Accepted=False", "spec.rules[0].backendRefs[0].filters[0]", "fail(route_invalid)"},
	{"HTTPRoute.rules[].backendRefs[].filters[].cors", `rules: [{backendRefs: [{name: cart, port: 80, filters: [{type: CORS, cors: {allowOrigins: ["https://a.example.com"]}}]}]}]`,
		"HTTPRoute web/r @infra/gw: Accepted=False", "spec.rules[0].backendRefs[0].filters[0]", "fail(route_invalid)"},
	{"HTTPRoute.rules[].backendRefs[].filters[].externalAuth", `rules: [{backendRefs: [{name: cart, port: 80, filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: auth, port: 80}}}]}]}]`,
		"HTTPRoute web/r @infra/gw: Accepted=False", "spec.rules[0].backendRefs[0].filters[0]", "fail(route_invalid)"},
	{"HTTPRoute.rules[].backendRefs[].filters[].extensionRef", `rules: [{backendRefs: [{name: cart, port: 80, filters: [{type: ExtensionRef, extensionRef: {group: a.example.com, kind: Auth, name: x}}]}]}]`,
		"HTTPRoute web/r @infra/gw: Accepted=False", "spec.rules[0].backendRefs[0].filters[0].extensionRef", "fail(route_invalid)"},
	{"HTTPRoute.rules[].sessionPersistence", `rules: [{sessionPersistence: {type: Cookie}, backendRefs: [{name: cart, port: 80}]}]`,
		"HTTPRoute web/r @infra/gw: Accepted=False", "spec.rules[0].sessionPersistence", "fail(route_invalid)"},
	{"GRPCRoute.rules[].filters[].extensionRef", `rules: [{filters: [{type: ExtensionRef, extensionRef: {group: a.example.com, kind: Auth, name: x}}], backendRefs: [{name: cart, port: 80}]}]`,
		"GRPCRoute web/r @infra/gw: Accepted=False", "spec.rules[0].filters[0].extensionRef", "fail(route_invalid)"},
	{"GRPCRoute.rules[].backendRefs[].filters[].requestMirror", `rules: [{backendRefs: [{name: cart, port: 80, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: cart, port: 80}}}]}]}]`,
		"GRPCRoute web/r @infra/gw: Accepted=False", "spec.rules[0].backendRefs[0].filters[0]", "fail(route_invalid)"},
	{"GRPCRoute.rules[].backendRefs[].filters[].extensionRef", `rules: [{backendRefs: [{name: cart, port: 80, filters: [{type: ExtensionRef, extensionRef: {group: a.example.com, kind: Auth, name: x}}]}]}]`,
		"GRPCRoute web/r @infra/gw: Accepted=False", "spec.rules[0].backendRefs[0].filters[0].extensionRef", "fail(route_invalid)"},
	{"GRPCRoute.rules[].sessionPersistence", `rules: [{sessionPersistence: {type: Cookie}, backendRefs: [{name: cart, port: 80}]}]`,
		"GRPCRoute web/r @infra/gw: Accepted=False", "spec.rules[0].sessionPersistence", "fail(route_invalid)"},
}

// harmless are fields that are passed over, with why nobody is let in by that.
var harmless = map[string]string{
	"Gateway.defaultScope":         "a Gateway that is nobody's default serves less, not more; the field is not in the standard channel",
	"HTTPRoute.useDefaultGateways": "as defaultScope: the route attaches where its parentRefs say",
	"GRPCRoute.useDefaultGateways": "as defaultScope: the route attaches where its parentRefs say",
}

// Each field that the API has is acted on, refused, or harmless. One that a new version of the API brings is none of them until somebody
// has decided; the test fails until then.
func TestContract24_EachFieldOfTheAPIIsServedOrRefused(t *testing.T) {
	known := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(served), "\n") {
		parent, names, _ := strings.Cut(line, ": ")
		for _, p := range expand(parent) {
			for _, n := range strings.Fields(names) {
				known[p+"."+n] = "served"
			}
		}
	}
	for field := range harmless {
		known[field] = "harmless"
	}
	used := map[string]bool{}
	for _, o := range []any{gwv1.Gateway{}, gwv1.HTTPRoute{}, gwv1.GRPCRoute{}} {
		kind := reflect.TypeOf(o)
		spec, _ := kind.FieldByName("Spec")
		for _, field := range leaves(kind.Name(), spec.Type) {
			is := known[field]
			used[field] = true
			for _, r := range refused {
				if field == r.field || strings.HasPrefix(field, r.field+".") || strings.HasPrefix(field, r.field+"[]") {
					used[r.field] = true
					if is != "" {
						t.Errorf("%s is %s and refused", field, is)
					}
					is = "refused"
				}
			}
			if is == "" {
				t.Errorf("nobody has decided what becomes of %s: serve it, refuse it, or say why it is harmless", field)
			}
		}
	}
	for field := range known {
		if !used[field] {
			t.Errorf("the API has no field %s", field)
		}
	}
	for _, r := range refused {
		if !used[r.field] {
			t.Errorf("the API has no field %s", r.field)
		}
	}
}

func expand(parent string) []string {
	for short, long := range map[string][]string{
		"HTTPFILTERS": {"HTTPRoute.rules[].filters[]", "HTTPRoute.rules[].backendRefs[].filters[]"},
		"FILTERS": {"HTTPRoute.rules[].filters[]", "HTTPRoute.rules[].backendRefs[].filters[]",
			"GRPCRoute.rules[].filters[]", "GRPCRoute.rules[].backendRefs[].filters[]"},
		"ROUTE": {"HTTPRoute", "GRPCRoute"},
	} {
		if rest, ok := strings.CutPrefix(parent, short); ok {
			var out []string
			for _, l := range long {
				out = append(out, l+rest)
			}
			return out
		}
	}
	return []string{parent}
}

// leaves are the paths of all fields of the API below a type.
func leaves(path string, t reflect.Type) (all []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		if t.Kind() == reflect.Slice {
			path += "[]"
		}
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || !strings.Contains(t.PkgPath(), "gateway-api") {
		return []string{path}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			all = append(all, leaves(path+"."+name, f.Type)...)
		} else {
			all = append(all, leaves(path, f.Type)...)
		}
	}
	return all
}

// What is refused is named in a condition, and not served in that part.
func TestContract24_WhatIsNotServedIsRefusedByName(t *testing.T) {
	if _, text := build(t, nil, ""); strings.Contains(text, "=False") || !strings.Contains(text, "route") {
		t.Fatalf("the plain objects are not fine:\n%s", text)
	}
	for _, r := range refused {
		kind, _, _ := strings.Cut(r.field, ".")
		snap, text := build(t, &kind, r.example)
		named := slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
			return strings.Contains(line, r.parts) && strings.Contains(line, r.named)
		})
		if !named {
			t.Errorf("%s: no line with %q names %q in\n%s", r.field, r.parts, r.named, text)
		}
		switch not, has := strings.CutPrefix(r.closed, "!"); {
		case has && strings.Contains(snap, not):
			t.Errorf("%s: %s is served all the same:\n%s", r.field, not, snap)
		case !has && !strings.Contains(snap, r.closed):
			t.Errorf("%s: no %s in\n%s", r.field, r.closed, snap)
		}
	}
}

// build makes a Gateway, a route of each kind and a Service, with an example on top of one of them, and returns snapshot and statuses as text.
func build(t *testing.T, kind *string, example string) (snap, statuses string) {
	t.Helper()
	read := func(into any, text string) {
		t.Helper()
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	on := func(name string, spec any) {
		if kind != nil && *kind == name {
			read(spec, example)
		}
	}
	class := &gwv1.GatewayClass{}
	read(class, `{metadata: {name: gatehouse, uid: c}, spec: {controllerName: gatehouse.dev/gateway-controller}}`)
	gw := &gwv1.Gateway{}
	read(gw, `{metadata: {name: gw, namespace: infra, uid: g}, spec: {gatewayClassName: gatehouse, listeners: [{name: http, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}}`)
	on("Gateway", &gw.Spec)
	for i := range gw.Spec.Listeners {
		all := gwv1.NamespacesFromAll
		gw.Spec.Listeners[i].AllowedRoutes = &gwv1.AllowedRoutes{Namespaces: &gwv1.RouteNamespaces{From: &all}}
	}
	const route = `{metadata: {name: r, namespace: web, uid: u}, spec: {parentRefs: [{name: gw, namespace: infra}], hostnames: [HOST], rules: [{backendRefs: [{name: cart, port: 80}]}]}}`
	http, grpc := &gwv1.HTTPRoute{}, &gwv1.GRPCRoute{}
	read(http, strings.Replace(route, "HOST", "http.example.com", 1))
	read(grpc, strings.Replace(route, "HOST", "grpc.example.com", 1))
	on("HTTPRoute", &http.Spec)
	on("GRPCRoute", &grpc.Spec)
	grpc.UID = types.UID("v")
	service, ca, cert := &corev1.Service{}, &corev1.Namespace{}, &corev1.Secret{}
	read(service, `{metadata: {name: cart, namespace: web, uid: s}, spec: {ports: [{port: 80}]}}`)
	read(ca, `{metadata: {name: web, uid: n, labels: {kubernetes.io/metadata.name: web}}}`)
	pem := selfSigned(t, "shop.example.com")
	cert.Namespace, cert.Name, cert.UID, cert.Type = "infra", "cert", "t", corev1.SecretTypeTLS
	cert.Data = map[string][]byte{"tls.crt": pem.Certificate, "tls.key": pem.Key}

	built := translate.Build(translate.Input{
		Kinds: controllers.Policies, FilterOrder: dataplane.FilterOrder(),
		Objects: controllers.Sorted([]controllers.Object{class, gw, http, grpc, service, ca, cert}),
	})
	return built.Snapshot.String(), translate.Text(built.Statuses(translate.AllBound(built.Snapshot)))
}
