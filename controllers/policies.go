package controllers

import (
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/policy/auth"
	"github.com/gatehouse-dev/gatehouse/controllers/policy/ratelimit"
)

// Policies are the kinds of policies that are served, one line each.
var Policies = []policy.Kind{
	auth.Kind,
	ratelimit.Kind,
}
