package translate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// everyPath is what a match without a path matches.
var everyPath = snapshot.PathMatch{Kind: snapshot.PathPrefix, Value: "/"}

// httpMatch compiles one match of an HTTPRoute. A match that no request could meet is a mistake, and refused.
func (g *graph) httpMatch(m gwv1.HTTPRouteMatch, field string) (snapshot.Match, *problem) {
	out := snapshot.Match{Path: everyPath, Method: string(value(m.Method, ""))}
	var p *problem
	if m.Path != nil {
		if out.Path, p = g.pathMatch(*m.Path, field+".path"); p != nil {
			return out, p
		}
	}
	if out.Method != "" && !slices.Contains(methods, gwv1.HTTPMethod(out.Method)) {
		return out, wrong(field+".method", gwv1.RouteReasonUnsupportedValue, "%s is not served; use one of %s", out.Method, join(methods))
	}
	for i, h := range m.Headers {
		kind, at := string(value(h.Type, gwv1.HeaderMatchExact)), fmt.Sprintf("%s.headers[%d]", field, i)
		if out.Headers, p = addHeaderMatch(out.Headers, kind, string(h.Name), h.Value, at); p != nil {
			return out, p
		}
	}
	for i, q := range m.QueryParams {
		kind, at := string(value(q.Type, gwv1.QueryParamMatchExact)), fmt.Sprintf("%s.queryParams[%d]", field, i)
		v, p := valueMatch(kind, string(q.Name), q.Value, at)
		if p != nil {
			return out, p
		}
		if !slices.ContainsFunc(out.Queries, func(o snapshot.ValueMatch) bool { return o.Name == v.Name }) {
			out.Queries = append(out.Queries, v) // of equal names the first counts
		}
	}
	return out, nil
}

// methods are those of the Gateway API, but for CONNECT, which a reverse proxy does not serve.
var methods = []gwv1.HTTPMethod{
	gwv1.HTTPMethodGet, gwv1.HTTPMethodHead, gwv1.HTTPMethodPost, gwv1.HTTPMethodPut, gwv1.HTTPMethodDelete, gwv1.HTTPMethodOptions,
	gwv1.HTTPMethodTrace, gwv1.HTTPMethodPatch,
}

func join[T ~string](words []T) string { return strings.Join(strs(words), ", ") }

func strs[T ~string](words []T) []string {
	var texts []string
	for _, w := range words {
		texts = append(texts, string(w))
	}
	return texts
}

func (g *graph) pathMatch(m gwv1.HTTPPathMatch, field string) (snapshot.PathMatch, *problem) {
	text := value(m.Value, "/")
	switch kind := value(m.Type, gwv1.PathMatchPathPrefix); kind {
	case gwv1.PathMatchExact:
		return g.fixedPath(snapshot.PathExact, text, field)
	case gwv1.PathMatchPathPrefix:
		return g.fixedPath(snapshot.PathPrefix, text, field)
	case gwv1.PathMatchRegularExpression:
		return snapshot.PathMatch{Kind: snapshot.PathRegex, Value: text}, checkExpression(text, field+".value")
	default:
		return snapshot.PathMatch{}, wrong(field+".type", gwv1.RouteReasonUnsupportedValue, "%s is not served; use Exact, PathPrefix or RegularExpression", kind)
	}
}

// fixedPath is a path as requests have it when they are matched: normalised by the one code that normalises theirs.
func (g *graph) fixedPath(kind snapshot.PathKind, text, field string) (snapshot.PathMatch, *problem) {
	t, reason, detail := message.ParseTarget(text, g.in.Paths)
	switch {
	case reason != message.ReasonNone:
		return snapshot.PathMatch{}, wrong(field+".value", gwv1.RouteReasonUnsupportedValue, "no request can have the path %q: %s", text, detail)
	case t.HasQuery || t.Path == "*":
		return snapshot.PathMatch{}, wrong(field+".value", gwv1.RouteReasonUnsupportedValue, "%q is not a path; queries are matched by queryParams", text)
	}
	path := t.Path
	if kind == snapshot.PathPrefix && path != "/" {
		path = strings.TrimSuffix(path, "/")
	}
	return snapshot.PathMatch{Kind: kind, Value: path}, nil
}

// takes reports whether the rule takes GET of a path whatever else the request has: a match that asks for headers or parameters does not
// count. The path is as requests have it when they are matched.
func (r *ruleNode) takes(path string) bool {
	return slices.ContainsFunc(r.matches, func(m snapshot.Match) bool {
		return (m.Method == "" || m.Method == string(gwv1.HTTPMethodGet)) && len(m.Headers) == 0 && len(m.Queries) == 0 && pathMatches(m.Path, path)
	})
}

// pathMatches is what the data plane's router will do, for one path of a match that httpMatch made.
func pathMatches(m snapshot.PathMatch, path string) bool {
	switch m.Kind {
	case snapshot.PathExact:
		return path == m.Value
	case snapshot.PathRegex:
		whole, err := regexp.Compile(`\A(?:` + m.Value + `)\z`)
		return err == nil && whole.MatchString(path)
	}
	below, ok := strings.CutPrefix(path, strings.TrimSuffix(m.Value, "/"))
	return ok && (below == "" || below[0] == '/')
}

// checkExpression compiles what the data plane will compile, so that it does not fail there.
func checkExpression(pattern, field string) *problem {
	if _, err := regexp.Compile(pattern); err != nil {
		return wrong(field, gwv1.RouteReasonUnsupportedValue, "not a regular expression of RE2: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}

// addHeaderMatch adds a match on a header. Names compare without case, and of equal ones the first counts.
func addHeaderMatch(all []snapshot.ValueMatch, kind, name, text, field string) ([]snapshot.ValueMatch, *problem) {
	name = strings.ToLower(name)
	switch {
	case name == "host":
		return nil, wrong(field+".name", gwv1.RouteReasonUnsupportedValue, "Host is matched by spec.hostnames")
	case message.Framing(name):
		return nil, wrong(field+".name", gwv1.RouteReasonUnsupportedValue, "%s belongs to one connection and is not matched", name)
	case !message.ValidName(name):
		return nil, wrong(field+".name", gwv1.RouteReasonUnsupportedValue, "%q is not the name of a header", name)
	}
	v, p := valueMatch(kind, name, text, field)
	if p != nil {
		return nil, p
	}
	if slices.ContainsFunc(all, func(o snapshot.ValueMatch) bool { return o.Name == v.Name }) {
		return all, nil
	}
	return append(all, v), nil
}

// valueMatch serves headers and query parameters, of HTTPRoutes and GRPCRoutes: their types have the same two words.
func valueMatch(kind, name, text, field string) (snapshot.ValueMatch, *problem) {
	switch kind {
	case string(gwv1.HeaderMatchExact):
		return snapshot.ValueMatch{Name: name, Value: text}, nil
	case string(gwv1.HeaderMatchRegularExpression):
		return snapshot.ValueMatch{Name: name, Value: text, Regex: true}, checkExpression(text, field+".value")
	}
	return snapshot.ValueMatch{}, wrong(field+".type", gwv1.RouteReasonUnsupportedValue, "%s is not served; use Exact or RegularExpression", kind)
}

// grpcMatch compiles one match of a GRPCRoute: a gRPC call is a POST to /service/method.
func (g *graph) grpcMatch(m gwv1.GRPCRouteMatch, field string) (snapshot.Match, *problem) {
	out := snapshot.Match{Path: everyPath}
	var p *problem
	if m.Method != nil {
		if out.Path, p = g.callMatch(*m.Method, field+".method"); p != nil {
			return out, p
		}
	}
	out.Path.GRPC = true
	for i, h := range m.Headers {
		kind, at := string(value(h.Type, gwv1.GRPCHeaderMatchExact)), fmt.Sprintf("%s.headers[%d]", field, i)
		if out.Headers, p = addHeaderMatch(out.Headers, kind, string(h.Name), h.Value, at); p != nil {
			return out, p
		}
	}
	return out, nil
}

const anySegment = "[^/]+"

func (g *graph) callMatch(m gwv1.GRPCMethodMatch, field string) (snapshot.PathMatch, *problem) {
	service, method := value(m.Service, ""), value(m.Method, "")
	switch kind := value(m.Type, gwv1.GRPCMethodMatchExact); {
	case service == "" && method == "":
		return everyPath, nil
	case kind == gwv1.GRPCMethodMatchRegularExpression:
		return callExpression(service, method, field)
	case kind != gwv1.GRPCMethodMatchExact:
		return snapshot.PathMatch{}, wrong(field+".type", gwv1.RouteReasonUnsupportedValue, "%s is not served; use Exact or RegularExpression", kind)
	case service == "":
		return snapshot.PathMatch{Kind: snapshot.PathRegex, Value: "/" + anySegment + "/" + regexp.QuoteMeta(method)}, nil
	case method == "":
		return g.fixedPath(snapshot.PathPrefix, "/"+service, field)
	}
	return g.fixedPath(snapshot.PathExact, "/"+service+"/"+method, field)
}

func callExpression(service, method, field string) (snapshot.PathMatch, *problem) {
	for _, part := range []struct{ text, name string }{{service, ".service"}, {method, ".method"}} {
		if p := checkExpression(part.text, field+part.name); p != nil {
			return snapshot.PathMatch{}, p
		}
	}
	group := func(part string) string {
		if part == "" {
			return anySegment
		}
		return "(?:" + part + ")"
	}
	return snapshot.PathMatch{Kind: snapshot.PathRegex, Value: "/" + group(service) + "/" + group(method)}, nil
}
