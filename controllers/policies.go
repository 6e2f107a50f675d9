package controllers

import (
	"slices"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/policy/auth"
	"github.com/gatehouse-dev/gatehouse/controllers/policy/ratelimit"
)

// Policies are the kinds of policies that are served, one line each.
var Policies = []policy.Kind{
	auth.Kind,
	ratelimit.Kind,
}

// PoliciesWith are Policies for a process that has, or has not, a store for what replicas share.
func PoliciesWith(store bool) []policy.Kind {
	kinds := slices.Clone(Policies)
	for i := range kinds {
		if kinds[i].Name == ratelimit.Kind.Name {
			kinds[i] = ratelimit.With(store)
		}
	}
	return kinds
}
