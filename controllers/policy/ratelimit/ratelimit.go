// Package ratelimit compiles RateLimitPolicies: it checks all that a user can get wrong, so that what it gives can be built, and makes
// the limits of all policies that meet on a rule into one filter.
//
// Limits add up: there is nothing to merge but lists. A policy in error limits nothing, which its status says; to refuse requests
// because a limit is misspelt would be the worse of two outages.
package ratelimit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/expr"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/ratelimit"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Kind is RateLimitPolicy.
var Kind = With(true)

// With is RateLimitPolicy for a process that has, or has not, a store for what replicas share.
func With(store bool) policy.Kind {
	return policy.Of(
		func() *v1alpha1.RateLimitPolicy { return new(v1alpha1.RateLimitPolicy) },
		func(p *v1alpha1.RateLimitPolicy) []policy.Target { return p.Spec.TargetRefs },
		policy.AttachTo{policy.Gateway, policy.Listener, policy.ListenerSet, policy.HTTPRoute, policy.GRPCRoute, policy.Rule},
		merge,
		func(p *v1alpha1.RateLimitPolicy, _ policy.Lookup) (policy.Effect, []policy.Problem) {
			return compile(p, store)
		})
}

// merge lets every limit of every policy hold.
func merge(effects []policy.Effect) policy.Effect {
	var all ratelimit.Config
	for _, e := range effects {
		for _, f := range e.Filters {
			all.Limits = append(all.Limits, f.(ratelimit.Config).Limits...)
		}
	}
	return policy.Effect{Filters: []snapshot.Filter{all}}
}

// The bounds of a window, as in the CRD.
const (
	minWindow = time.Second
	maxWindow = 744 * time.Hour
)

// compile is one policy as a filter. Without a store one that is shared does what it says for the case that the store fails.
func compile(p *v1alpha1.RateLimitPolicy, store bool) (policy.Effect, []policy.Problem) {
	c := compilation{policy: ratelimit.Policy{UID: string(p.UID), Name: snapshot.Name{Namespace: p.Namespace, Name: p.Name}}}
	c.shadow = choose(&c, "spec.mode", p.Spec.Mode, modes)
	c.scope = choose(&c, "spec.scope", p.Spec.Scope, scopes)
	c.failure = choose(&c, "spec.onStoreFailure", p.Spec.OnStoreFailure, failures)
	if p.Spec.OnStoreFailure != "" && c.scope != ratelimit.Shared {
		c.wrong("spec.onStoreFailure", "is for scope Shared; this policy asks no store")
	}
	if len(p.Spec.Limits) == 0 {
		c.wrong("spec.limits", "a policy needs at least one limit")
	}
	var config ratelimit.Config
	for i, l := range p.Spec.Limits {
		field := fmt.Sprintf("spec.limits[%d]", i)
		if slices.ContainsFunc(p.Spec.Limits[:i], func(other v1alpha1.RateLimit) bool { return other.Name == l.Name }) {
			c.wrong(field+".name", "another limit is named %q; its counters could not be told from this one's", l.Name)
		}
		config.Limits = append(config.Limits, c.limit(field, l))
	}
	if len(c.problems) > 0 {
		return policy.Effect{}, c.problems
	}
	var lessened []policy.Problem
	if c.scope == ratelimit.Shared && !store {
		lessened = []policy.Problem{{
			FieldPath: "spec.scope", Reason: v1alpha1.PolicyReasonNoStore, Lessened: true,
			Message: "no store is configured, so " + withoutStore[c.failure] + "; the operator names one with --store, or the chart's store.addresses",
		}}
	}
	return policy.Effect{Filters: []snapshot.Filter{config}}, lessened
}

// withoutStore says what a policy does that is shared with nobody.
var withoutStore = map[ratelimit.OnStoreFailure]string{
	ratelimit.CountLocally: "each replica admits its share of the limits by itself (onStoreFailure: Local)",
	ratelimit.Allow:        "all requests are admitted (onStoreFailure: Allow)",
	ratelimit.Deny:         "all requests are refused with 503 (onStoreFailure: Deny)",
}

// What the words of the API are for the filter. Each has a default, the empty word.
var (
	modes = map[v1alpha1.RateLimitMode]bool{
		"": false, v1alpha1.RateLimitModeEnforce: false, v1alpha1.RateLimitModeShadow: true,
	}
	scopes = map[v1alpha1.RateLimitScope]ratelimit.Scope{
		"": ratelimit.Local, v1alpha1.RateLimitScopeLocal: ratelimit.Local,
		v1alpha1.RateLimitScopeDivided: ratelimit.Divided, v1alpha1.RateLimitScopeShared: ratelimit.Shared,
	}
	failures = map[v1alpha1.RateLimitStoreFailure]ratelimit.OnStoreFailure{
		"": ratelimit.CountLocally, v1alpha1.RateLimitStoreFailureLocal: ratelimit.CountLocally,
		v1alpha1.RateLimitStoreFailureAllow: ratelimit.Allow, v1alpha1.RateLimitStoreFailureDeny: ratelimit.Deny,
	}
	costFroms = map[v1alpha1.RateLimitCostFrom]bool{
		"": false, v1alpha1.RateLimitCostFromRequest: false, v1alpha1.RateLimitCostFromResponse: true,
	}
)

// choose is what a word means. One of a later version of the API is a problem: to take it for the default could be anything.
func choose[W ~string, V any](c *compilation, field string, word W, meanings map[W]V) V {
	v, known := meanings[word]
	if !known {
		var words []string
		for w := range meanings {
			if w != "" {
				words = append(words, string(w))
			}
		}
		slices.Sort(words)
		c.wrong(field, "this version of Gatehouse knows no %s %q; use %s", field[strings.LastIndexByte(field, '.')+1:], word, strings.Join(words, " or "))
	}
	return v
}

// compilation is what is known and found while a policy is compiled.
type compilation struct {
	policy   ratelimit.Policy
	shadow   bool
	scope    ratelimit.Scope
	failure  ratelimit.OnStoreFailure
	problems []policy.Problem
}

func (c *compilation) wrong(field, format string, args ...any) {
	c.problems = append(c.problems, policy.Problem{FieldPath: field, Message: fmt.Sprintf(format, args...)})
}

func (c *compilation) limit(field string, l v1alpha1.RateLimit) ratelimit.Limit {
	out := ratelimit.Limit{
		Policy: c.policy, Name: string(l.Name), Shadow: c.shadow, When: l.When, Cost: l.Cost, Scope: c.scope, OnStoreFailure: c.failure,
	}
	if l.Name == "" {
		c.wrong(field+".name", "a limit needs a name")
	}
	if l.When != "" {
		c.expression(field+".when", l.When, expr.Bool)
	}
	for i, k := range l.Key {
		c.expression(fmt.Sprintf("%s.key[%d]", field, i), string(k), expr.String)
		out.Key = append(out.Key, string(k))
	}
	for i, r := range l.Rates {
		if rate, ok := c.rate(fmt.Sprintf("%s.rates[%d]", field, i), r, out.Rates); ok {
			out.Rates = append(out.Rates, rate)
		}
	}
	c.cost(field, l, &out)
	switch {
	case l.Concurrency != nil && *l.Concurrency < 1:
		c.wrong(field+".concurrency", "must be at least 1")
	case l.Concurrency != nil:
		out.Concurrency = int64(*l.Concurrency)
	case len(l.Rates) == 0:
		c.wrong(field, "a limit needs rates or concurrency, or both")
	}
	return out
}

// cost checks what a request counts as.
func (c *compilation) cost(field string, l v1alpha1.RateLimit, out *ratelimit.Limit) {
	out.CostFromResponse = choose(c, field+".costFrom", l.CostFrom, costFroms)
	switch {
	case l.Cost == "" && l.CostFrom != "":
		c.wrong(field+".costFrom", "there is no cost")
	case l.Cost == "":
	case len(l.Rates) == 0:
		c.wrong(field+".cost", "is for rates; concurrency counts requests")
	case out.CostFromResponse:
		if _, err := expr.CompileResponse(l.Cost, expr.Int); err != nil {
			c.wrong(field+".cost", "%v", err)
		}
	default:
		c.expression(field+".cost", l.Cost, expr.Int)
	}
}

// expression compiles a text; the filter will find it compiled.
func (c *compilation) expression(field, text string, want expr.Kind) {
	if _, err := expr.Compile(text, want); err != nil {
		c.wrong(field, "%v", err)
	}
}

// rate reads one rate; earlier are those before it in the limit.
func (c *compilation) rate(field string, r v1alpha1.Rate, earlier []ratelimit.Rate) (rate ratelimit.Rate, ok bool) {
	window, err := policy.ParseDuration(r.Window)
	switch {
	case err != nil:
		c.wrong(field+".window", "%v", err)
		return rate, false
	case window < minWindow || window > maxWindow:
		c.wrong(field+".window", "must be from 1s to 744h (31 days)")
		return rate, false
	case slices.ContainsFunc(earlier, func(e ratelimit.Rate) bool { return e.Window == window }):
		c.wrong(field+".window", "windows must be unique in a limit, and there is another of %s", r.Window)
		return rate, false
	}
	rate = ratelimit.Rate{Requests: int64(r.Requests), Window: window, Burst: int64(r.Burst)}
	if err := rate.Check(); err != nil {
		c.wrong(field, "%v", err)
		return rate, false
	}
	return rate, true
}
