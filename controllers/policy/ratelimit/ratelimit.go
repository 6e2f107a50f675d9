// Package ratelimit compiles RateLimitPolicies: it checks all that a user can get wrong, so that what it gives can be built, and makes
// the limits of all policies that meet on a rule into one filter.
//
// Limits add up: there is nothing to merge but lists. A policy in error limits nothing, which its status says; to refuse requests
// because a limit is misspelt would be the worse of two outages.
package ratelimit

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/expr"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/ratelimit"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Kind is RateLimitPolicy.
var Kind = policy.Of(
	func() *v1alpha1.RateLimitPolicy { return new(v1alpha1.RateLimitPolicy) },
	func(p *v1alpha1.RateLimitPolicy) []policy.Target { return p.Spec.TargetRefs },
	policy.AttachTo{policy.Gateway, policy.Listener, policy.ListenerSet, policy.HTTPRoute, policy.GRPCRoute, policy.Rule},
	merge,
	compile)

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

// compile is one policy as a filter.
func compile(p *v1alpha1.RateLimitPolicy, _ policy.Lookup) (policy.Effect, []policy.Problem) {
	c := compilation{policy: ratelimit.Policy{UID: string(p.UID), Name: snapshot.Name{Namespace: p.Namespace, Name: p.Name}}}
	switch p.Spec.Mode {
	case v1alpha1.RateLimitModeEnforce, "":
	case v1alpha1.RateLimitModeShadow:
		c.shadow = true
	default:
		c.wrong("spec.mode", "this version of Gatehouse knows no mode %q; use Enforce or Shadow", p.Spec.Mode)
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
	return policy.Effect{Filters: []snapshot.Filter{config}}, nil
}

// compilation is what is known and found while a policy is compiled.
type compilation struct {
	policy   ratelimit.Policy
	shadow   bool
	problems []policy.Problem
}

func (c *compilation) wrong(field, format string, args ...any) {
	c.problems = append(c.problems, policy.Problem{FieldPath: field, Message: fmt.Sprintf(format, args...)})
}

func (c *compilation) limit(field string, l v1alpha1.RateLimit) ratelimit.Limit {
	out := ratelimit.Limit{Policy: c.policy, Name: string(l.Name), Shadow: c.shadow, When: l.When}
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

// expression compiles a text; the filter will find it compiled.
func (c *compilation) expression(field, text string, want expr.Kind) {
	if _, err := expr.Compile(text, want); err != nil {
		c.wrong(field, "%v", err)
	}
}

// rate reads one rate; earlier are those before it in the limit.
func (c *compilation) rate(field string, r v1alpha1.Rate, earlier []ratelimit.Rate) (rate ratelimit.Rate, ok bool) {
	window, err := parseDuration(r.Window)
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

// durations are those of GEP-2257, a subset of Go's.
var durations = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

func parseDuration(text gwv1.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(string(text))
	if err != nil || !durations.MatchString(string(text)) {
		return 0, fmt.Errorf("%q is not a duration; write it like 10s, 1m or 1h30m", text)
	}
	return d, nil
}
