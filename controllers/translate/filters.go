package translate

import (
	"fmt"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/headers"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/redirect"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/rewrite"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// addFilters compiles the filters of a rule: filters of the data plane, and mirrors, which are a setting. A filter that is not served
// makes its rule invalid; leaving it out could be authentication that fails open.
func (g *graph) addFilters(r *routeNode, rule *ruleNode, filters []gwv1.HTTPRouteFilter, field string) {
	seen := map[gwv1.HTTPRouteFilterType]bool{}
	for i, f := range filters {
		at := fmt.Sprintf("%s.filters[%d]", field, i)
		if p := incompatible(seen, f.Type, at); p != nil {
			rule.invalid.add(p)
			continue
		}
		seen[f.Type] = true
		if f.Type == gwv1.HTTPRouteFilterRequestMirror && f.RequestMirror != nil {
			g.addMirror(r, rule, *f.RequestMirror, at+".requestMirror")
			continue
		}
		if f.Type == gwv1.HTTPRouteFilterExternalAuth && f.ExternalAuth != nil {
			g.addExternalAuth(r, rule, *f.ExternalAuth, at+".externalAuth")
			continue
		}
		config, p := rule.ruleFilter(f, at)
		if p != nil {
			rule.invalid.add(p)
			continue
		}
		rule.rule.Filters = append(rule.rule.Filters, config)
	}
}

// incompatible: only mirrors may stand more than once, and redirects and rewrites exclude each other.
func incompatible(seen map[gwv1.HTTPRouteFilterType]bool, kind gwv1.HTTPRouteFilterType, field string) *problem {
	switch {
	case seen[kind] && kind != gwv1.HTTPRouteFilterRequestMirror:
		return wrong(field, gwv1.RouteReasonIncompatibleFilters, "%s stands twice; make one of the two", kind)
	case kind == gwv1.HTTPRouteFilterRequestRedirect && seen[gwv1.HTTPRouteFilterURLRewrite],
		kind == gwv1.HTTPRouteFilterURLRewrite && seen[gwv1.HTTPRouteFilterRequestRedirect]:
		return wrong(field, gwv1.RouteReasonIncompatibleFilters, "RequestRedirect and URLRewrite exclude each other; remove one of the two")
	}
	return nil
}

// checked is a Config that can say what is wrong with it.
type checked interface {
	snapshot.Filter
	Check() error
}

// ruleFilter compiles one filter of a rule.
func (r *ruleNode) ruleFilter(f gwv1.HTTPRouteFilter, field string) (snapshot.Filter, *problem) {
	switch {
	case f.Type == gwv1.HTTPRouteFilterRequestRedirect && f.RequestRedirect != nil:
		return r.redirect(*f.RequestRedirect, field+".requestRedirect")
	case f.Type == gwv1.HTTPRouteFilterCORS && f.CORS != nil:
		return corsFilter(*f.CORS, field+".cors")
	}
	return r.anyFilter(f, false, field)
}

// attemptFilters compiles the filters of a backendRef.
func (g *graph) attemptFilters(rule *ruleNode, filters []gwv1.HTTPRouteFilter, field string) []snapshot.Filter {
	seen := map[gwv1.HTTPRouteFilterType]bool{}
	var out []snapshot.Filter
	for i, f := range filters {
		at := fmt.Sprintf("%s.filters[%d]", field, i)
		p := incompatible(seen, f.Type, at)
		seen[f.Type] = true
		var config snapshot.Filter
		if p == nil {
			config, p = rule.anyFilter(f, true, at)
		}
		if p != nil {
			rule.invalid.add(p)
			continue
		}
		out = append(out, config)
	}
	return g.inOrder(out)
}

// anyFilter compiles what may stand on rules and on backendRefs.
func (r *ruleNode) anyFilter(f gwv1.HTTPRouteFilter, onBackend bool, field string) (snapshot.Filter, *problem) {
	switch {
	case f.Type == gwv1.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
		m := f.RequestHeaderModifier
		return check(field+".requestHeaderModifier", headers.Config{
			OnBackend: onBackend, SetRequest: fields(m.Set), AddRequest: fields(m.Add), RemoveRequest: m.Remove,
		})
	case f.Type == gwv1.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
		m := f.ResponseHeaderModifier
		return check(field+".responseHeaderModifier", headers.Config{
			OnBackend: onBackend, SetResponse: fields(m.Set), AddResponse: fields(m.Add), RemoveResponse: m.Remove,
		})
	case f.Type == gwv1.HTTPRouteFilterURLRewrite && f.URLRewrite != nil:
		path, p := r.pathChange(f.URLRewrite.Path, field+".urlRewrite.path")
		if p != nil {
			return nil, p
		}
		return check(field+".urlRewrite", rewrite.Config{OnBackend: onBackend, Hostname: string(value(f.URLRewrite.Hostname, "")), Path: path})
	case f.Type == gwv1.HTTPRouteFilterExtensionRef && f.ExtensionRef != nil:
		return nil, wrong(field+".extensionRef", gwv1.RouteReasonUnsupportedValue, "%s %s is not a filter here; Gatehouse has policies instead", f.ExtensionRef.Kind, f.ExtensionRef.Name)
	case f.Type == gwv1.HTTPRouteFilterRequestHeaderModifier, f.Type == gwv1.HTTPRouteFilterResponseHeaderModifier,
		f.Type == gwv1.HTTPRouteFilterURLRewrite, f.Type == gwv1.HTTPRouteFilterRequestRedirect, f.Type == gwv1.HTTPRouteFilterCORS,
		f.Type == gwv1.HTTPRouteFilterExternalAuth && r.rule.Key.Kind == "HTTPRoute":
		if !onBackend {
			return nil, wrong(field, gwv1.RouteReasonUnsupportedValue, "a filter of type %s has no settings here; give it some, or remove it", f.Type)
		}
		fallthrough
	case onBackend:
		return nil, wrong(field, gwv1.RouteReasonUnsupportedValue, "a filter of type %s is not served on a backendRef; use it on the rule, or remove it", f.Type)
	}
	return nil, wrong(field, gwv1.RouteReasonUnsupportedValue, "filters of type %s are not served by this version of Gatehouse; remove the filter", f.Type)
}

// check asks the filter itself what is wrong with its settings.
func check(field string, c checked) (snapshot.Filter, *problem) {
	if err := c.Check(); err != nil {
		return nil, wrong(field, gwv1.RouteReasonUnsupportedValue, "%s", err)
	}
	return c, nil
}

func fields(all []gwv1.HTTPHeader) []headers.Field {
	var out []headers.Field
	for _, h := range all {
		out = append(out, headers.Field{Name: string(h.Name), Value: h.Value})
	}
	return out
}

func (r *ruleNode) redirect(f gwv1.HTTPRequestRedirectFilter, field string) (snapshot.Filter, *problem) {
	path, p := r.pathChange(f.Path, field+".path")
	if p != nil {
		return nil, p
	}
	if port := value(f.Port, 1); port < 1 || port > 65535 {
		return nil, wrong(field+".port", gwv1.RouteReasonUnsupportedValue, "%d is not a port", port)
	}
	return check(field, redirect.Config{
		Scheme:   value(f.Scheme, ""),
		Hostname: string(value(f.Hostname, "")),
		Port:     uint16(value(f.Port, 0)),
		Path:     path,
		Status:   value(f.StatusCode, 302),
	})
}

// pathChange compiles what redirects and rewrites do to paths. A prefix can be replaced only where each match of the rule has one.
func (r *ruleNode) pathChange(m *gwv1.HTTPPathModifier, field string) (rewrite.Path, *problem) {
	switch {
	case m == nil:
		return rewrite.Path{}, nil
	case m.Type == gwv1.FullPathHTTPPathModifier:
		return rewrite.Path{Kind: rewrite.FullPath, Value: value(m.ReplaceFullPath, "")}, nil
	case m.Type != gwv1.PrefixMatchHTTPPathModifier:
		return rewrite.Path{}, wrong(field+".type", gwv1.RouteReasonUnsupportedValue, "%s is not served; use ReplaceFullPath or ReplacePrefixMatch", m.Type)
	}
	for _, match := range r.matches {
		if match.Path.Kind != snapshot.PathPrefix {
			return rewrite.Path{}, wrong(field, gwv1.RouteReasonUnsupportedValue, "ReplacePrefixMatch needs a match of type PathPrefix, and no other in the rule")
		}
	}
	return rewrite.Path{Kind: rewrite.PrefixMatch, Value: value(m.ReplacePrefixMatch, "")}, nil
}
