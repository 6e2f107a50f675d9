package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/expr"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/basic"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// FilterName is "auth".
func (Config) FilterName() string { return "auth" }

// Join makes one filter of two that stand in one chain, as an AuthPolicy's and an ExternalAuth filter of the route do: credentials are
// stripped when the last policy has looked at them.
func (c Config) Join(next snapshot.Filter) (snapshot.Filter, bool) {
	other, ok := next.(Config)
	return Config{Policies: slices.Concat(c.Policies, other.Policies)}, ok
}

// Build makes the filter. Whatever is not understood is an error, and fails the rule: what is left out would let everybody in.
func (c Config) Build(env filter.Env) (filter.Faces, error) {
	g, err := newGuard(c, env, Method.build)
	if err != nil {
		return filter.Faces{}, err
	}
	return filter.Faces{Request: g.request, Response: g.response}, nil
}

// settings are what each method's Config can do.
type settings interface {
	String() string
	Build(filter.Env) (method.Method, error)
}

// settings is the one of a method that is set.
func (m Method) settings() (settings, error) {
	var set []settings
	if m.JWT != nil {
		set = append(set, m.JWT)
	}
	if m.APIKey != nil {
		set = append(set, m.APIKey)
	}
	if m.Basic != nil {
		set = append(set, m.Basic)
	}
	if m.OIDC != nil {
		set = append(set, m.OIDC)
	}
	if m.Certificate != nil {
		set = append(set, m.Certificate)
	}
	if m.External != nil {
		set = append(set, m.External)
	}
	if len(set) != 1 {
		return nil, errors.New("not exactly one way to prove an identity")
	}
	return set[0], nil
}

// built is what became of a method's settings.
type built struct {
	method method.Method
	err    error
}

type builtKey struct{ text string }

// build makes the method. One that calls nobody is the same for all rules and snapshots: ten thousand keys are one table, however many
// rules ask for them.
func (m Method) build(env filter.Env) (method.Method, error) {
	s, err := m.settings()
	if err != nil {
		return nil, err
	}
	fresh := func() built {
		made, err := s.Build(env)
		if err == nil && made == nil {
			err = errors.New("nothing was built")
		}
		return built{made, err}
	}
	if m.Basic != nil {
		basic.Share(env)
	}
	var b built
	if m.APIKey != nil || m.Basic != nil {
		b = keep.Get(env.Keep, builtKey{m.String()}, fresh)
	} else {
		b = fresh()
	}
	return b.method, b.err
}

// places are where a method's credential stands, if that is for a policy to say.
func (m Method) places() method.Places {
	switch {
	case m.JWT != nil:
		return m.JWT.Places()
	case m.APIKey != nil:
		return m.APIKey.From
	}
	return nil
}

// queries are the parameters in which a method's credential may stand.
func (m Method) queries() (names []string) {
	for _, p := range m.places() {
		names = append(names, p.Query)
	}
	if m.OIDC != nil {
		names = append(names, "code") // with which a browser comes back from the provider
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// headers are those in which a method's credential may stand.
func (m Method) headers() []string {
	names := []string{"Authorization", "Cookie"}
	for _, p := range m.places() {
		names = append(names, p.Header)
	}
	return names
}

// judges are the headers by which a method decides.
func (m Method) judges() []string {
	if m.External != nil {
		return m.External.AllowedRequestHeaders
	}
	return m.headers()
}

// leaves reports whether a request that comes in by the method may have its credential in Authorization on the way to the backend.
func (m Method) leaves(p Policy) bool {
	if m.External != nil {
		return true // which says itself what it wants removed
	}
	inAuthorization := func(p method.Place) bool { return message.EqualName(p.Header, "Authorization") }
	return p.Forward.KeepCredential && (m.Basic != nil || slices.ContainsFunc(m.places(), inAuthorization))
}

func newGuard(c Config, env filter.Env, build func(Method, filter.Env) (method.Method, error)) (*guard, error) {
	if len(c.Policies) == 0 {
		return nil, errors.New("no policy")
	}
	g := &guard{slot: env.Slot()}
	seen := map[string]bool{}
	var once []Policy
	for _, p := range c.Policies {
		text := p.text()
		if seen[text] { // attached twice on the way: its methods are asked once
			continue
		}
		seen[text] = true
		once = append(once, p)
		if err := g.add(p, env, build); err != nil {
			return nil, fmt.Errorf("policy %s: %w", p.Name, err)
		}
	}
	g.names(once)
	return g, nil
}

// names collects what the filter must know of all policies.
func (g *guard) names(policies []Policy) {
	var credentials []string
	sets, leaves := false, false // an access token of ours in Authorization; what stands there
	for i, p := range policies {
		for _, m := range p.Methods {
			credentials = append(credentials, m.headers()...)
			g.hidden = append(g.hidden, m.queries()...)
			if m.External != nil {
				g.late = append(g.late, m.External.AllowedResponseHeaders...)
			}
			if !p.Shadow {
				g.policies[i].judged = append(g.policies[i].judged, m.judges()...)
				sets = sets || m.OIDC != nil && m.OIDC.ForwardAccessToken
			}
			leaves = leaves || m.leaves(p)
		}
		oneSpelling := func(name string) bool { return !strings.ContainsAny(name, "-_") }
		g.policies[i].judged = slices.DeleteFunc(g.policies[i].judged, oneSpelling)
	}
	if sets && !leaves {
		g.late = append(g.late, "Authorization")
	}
	for i, p := range policies {
		for _, h := range p.Forward.Headers {
			g.late = append(g.late, h.Name)
			if !slices.ContainsFunc(credentials, func(name string) bool { return message.AliasName(name, h.Name) }) {
				g.policies[i].early = append(g.policies[i].early, h.Name)
			}
		}
	}
}

func (g *guard) add(p Policy, env filter.Env, build func(Method, filter.Env) (method.Method, error)) error {
	name := p.Name.String()
	count := func(method, result string) filter.Counter {
		return env.Counter("auth_requests_total", "policy", name, "method", method, "result", result)
	}
	out := policy{
		title: name, namespace: p.Name.Namespace, shadow: p.Shadow, all: p.Require == All, optional: p.Require == Optional, strip: !p.Shadow && !p.Forward.KeepCredential,
		allowed: count("", "allowed"), anonymous: count("", "anonymous"), answered: count("", "answered"), shadowed: count("", "shadow"),
		refused: map[message.Reason]filter.Counter{},
		failed:  env.Counter("auth_expression_errors_total", "policy", name),
	}
	for _, r := range refusals {
		out.refused[r] = count("", r.String())
	}
	switch {
	case p.Name.Name == "":
		return errors.New("it has no name")
	case !slices.Contains([]Require{"", Any, All, Optional}, p.Require):
		return fmt.Errorf("require %q is not known", p.Require)
	case len(p.Methods) == 0 && (out.all || out.optional):
		return fmt.Errorf("require %s without a method", p.Require)
	}
	for _, m := range p.Methods {
		if m.Name == "" || slices.ContainsFunc(out.methods, func(other asked) bool { return other.name == m.Name }) {
			return fmt.Errorf("method %q has no name of its own", m.Name)
		}
		built, err := build(m, env)
		if err != nil {
			return fmt.Errorf("method %s: %w", m.Name, err)
		}
		out.methods = append(out.methods, asked{name: m.Name, method: built, tells: m.External != nil, allowed: count(m.Name, "allowed")})
	}
	var err error
	if out.rules, err = newRules(p.Authorize); err != nil {
		return err
	}
	if out.forward, err = newForward(p.Forward); err != nil {
		return err
	}
	for i := range g.policies {
		if outer := &g.policies[i]; outer.strip && outer.namespace != out.namespace {
			for j := range outer.methods {
				out.hides = append(out.hides, outer.methods[j].method)
			}
		}
	}
	g.policies = append(g.policies, out)
	return nil
}

func newRules(a Authorize) (rules, error) {
	out := rules{deny: a.Deny}
	for _, r := range a.Rules {
		built := rule{name: r.Name, deny: r.Deny, methods: r.Methods}
		if r.Name == "" {
			return rules{}, errors.New("a rule without a name")
		}
		for _, p := range r.Sources {
			if !p.IsValid() || p.Addr().Is4In6() {
				return rules{}, fmt.Errorf("rule %s: %s is no network; IPv4 is written in its own form", r.Name, p)
			}
			built.sources = append(built.sources, netip.PrefixFrom(p.Addr().WithZone(""), p.Bits()))
		}
		if r.When != "" {
			var err error
			if built.when, err = expr.Compile(r.When, expr.Bool); err != nil {
				return rules{}, fmt.Errorf("rule %s: %w", r.Name, err)
			}
		}
		out.list = append(out.list, built)
	}
	return out, nil
}

func newForward(f Forward) ([]forwarded, error) {
	var out []forwarded
	for _, h := range f.Headers {
		if !message.ValidName(h.Name) || message.Framing(h.Name) {
			return nil, fmt.Errorf("header %q cannot be set", h.Name)
		}
		value, err := expr.Compile(h.Value, expr.String)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.Name, err)
		}
		out = append(out, forwarded{h.Name, value})
	}
	return out, nil
}
