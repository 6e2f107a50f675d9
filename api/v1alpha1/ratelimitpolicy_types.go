package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// RateLimitPolicy says how many requests may pass: per time, at once, for everybody together or for each client.
//
// Policies add up. Those of a Gateway, of its listeners, of a route and of its rules, and several on one target, all
// have to admit a request; a policy further down can tighten what stands above it and never loosens it. So there is no
// merge strategy, and two policies on one target do not conflict.
//
// A policy that cannot be used (a target that does not exist, an expression that does not compile) limits nothing and
// says so in its condition Accepted.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:categories={gateway-api,gatehouse},shortName=rlp
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Inherited"
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.targetRefs[*].name`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Scope",type=string,JSONPath=`.spec.scope`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RateLimitPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what is limited, and how much.
	// +required
	Spec RateLimitPolicySpec `json:"spec,omitzero"`

	// Status says, per Gateway, whether the limits are in force there.
	// +optional
	Status gwv1.PolicyStatus `json:"status,omitzero"`
}

// RateLimitPolicyList is a list of RateLimitPolicies.
//
// +kubebuilder:object:root=true
type RateLimitPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RateLimitPolicy `json:"items"`
}

// RateLimitMode says what happens to a request that a limit does not admit.
//
// +kubebuilder:validation:Enum=Enforce;Shadow
type RateLimitMode string

const (
	// RateLimitModeEnforce refuses the request: HTTP 429 with Retry-After, gRPC RESOURCE_EXHAUSTED.
	RateLimitModeEnforce RateLimitMode = "Enforce"

	// RateLimitModeShadow lets the request pass. It is counted and logged as if it had been refused, so that a limit
	// can be tried on real traffic before it bites.
	RateLimitModeShadow RateLimitMode = "Shadow"
)

// RateLimitScope says whose requests a counter counts.
//
// +kubebuilder:validation:Enum=Local;Divided;Shared
type RateLimitScope string

const (
	// RateLimitScopeLocal counts in each replica alone: with three replicas, a client that reaches all of them is admitted
	// three times as often. Nothing is needed for it, and nothing is faster.
	RateLimitScopeLocal RateLimitScope = "Local"

	// RateLimitScopeDivided lets each replica admit its share: the limit, divided by the replicas that are ready, rounded
	// up to at least 1. Nothing is needed for it. It is right for traffic that is spread evenly; a client that reaches one
	// of n replicas only (one connection) gets one share. Of n replicas, those requests together are admitted that one
	// counter would admit, and at most n more. Whenever a replica joins or leaves, one share more may be admitted, as a
	// new one starts with a full counter. So quotas of days are for Shared. A request whose `cost` is larger than a share
	// is admitted when the replica's counter is full, and takes as long to come back.
	RateLimitScopeDivided RateLimitScope = "Divided"

	// RateLimitScopeShared counts in a store (Redis or Valkey) that all replicas share, and that the operator has
	// configured: exactly, on the clock of the store, at the price of a round trip to it for each request.
	RateLimitScopeShared RateLimitScope = "Shared"
)

// RateLimitStoreFailure says what becomes of requests when the store gives no answer in time.
//
// +kubebuilder:validation:Enum=Local;Allow;Deny
type RateLimitStoreFailure string

const (
	// RateLimitStoreFailureLocal goes on counting in each replica, as with scope Divided, from what it has seen last of
	// each counter.
	RateLimitStoreFailureLocal RateLimitStoreFailure = "Local"

	// RateLimitStoreFailureAllow admits all requests, uncounted.
	RateLimitStoreFailureAllow RateLimitStoreFailure = "Allow"

	// RateLimitStoreFailureDeny refuses all requests: HTTP 503, gRPC UNAVAILABLE.
	RateLimitStoreFailureDeny RateLimitStoreFailure = "Deny"
)

// RateLimitCostFrom says when the cost of a request is known.
//
// +kubebuilder:validation:Enum=Request;Response
type RateLimitCostFrom string

const (
	// RateLimitCostFromRequest evaluates the cost before the request is admitted.
	RateLimitCostFromRequest RateLimitCostFrom = "Request"

	// RateLimitCostFromResponse evaluates the cost when the head of the answer is there, which `response` then names, as
	// in `int(response.headers["x-tokens-used"])`. The request is admitted if anything is left and takes 1; the rest is
	// taken when the answer is there, into debt if need be, but for no more than another full counter. A request without
	// an answer has cost 1.
	RateLimitCostFromResponse RateLimitCostFrom = "Response"
)

// RateLimitPolicySpec says what is limited, and how much.
//
// +kubebuilder:validation:XValidation:message="onStoreFailure is for scope Shared",rule="!has(self.onStoreFailure) || self.scope == 'Shared'"
type RateLimitPolicySpec struct {
	// TargetRefs names what the policy is attached to, in its own namespace: Gateways, ListenerSets, HTTPRoutes or
	// GRPCRoutes. A sectionName narrows a Gateway or ListenerSet to one listener, and a route to one named rule.
	//
	// A limit on a Gateway is one counter for the whole Gateway, not one for each of its routes.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:message="targetRefs must be Gateway, ListenerSet, HTTPRoute or GRPCRoute of gateway.networking.k8s.io",rule="self.all(r, r.group == 'gateway.networking.k8s.io' && r.kind in ['Gateway','ListenerSet','HTTPRoute','GRPCRoute'])"
	// +kubebuilder:validation:XValidation:message="sectionName must be specified when targetRefs includes 2 or more references to the same target",rule="self.all(p1, self.all(p2, p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name ? ((!has(p1.sectionName) || p1.sectionName == '') == (!has(p2.sectionName) || p2.sectionName == '')) : true))"
	// +kubebuilder:validation:XValidation:message="sectionName must be unique when targetRefs includes 2 or more references to the same target",rule="self.all(p1, self.exists_one(p2, p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name && (((!has(p1.sectionName) || p1.sectionName == '') && (!has(p2.sectionName) || p2.sectionName == '')) || (has(p1.sectionName) && has(p2.sectionName) && p1.sectionName == p2.sectionName))))"
	TargetRefs []gwv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs,omitempty"`

	// Mode is Enforce (requests over a limit are refused) or Shadow (they pass, but are counted and logged).
	//
	// +optional
	// +kubebuilder:default=Enforce
	Mode RateLimitMode `json:"mode,omitempty"`

	// Scope says whose requests a counter counts: Local (each replica its own, the default), Divided (each replica admits
	// its share) or Shared (all replicas together, in a store that the operator has configured).
	//
	// +optional
	// +kubebuilder:default=Local
	Scope RateLimitScope `json:"scope,omitempty"`

	// OnStoreFailure says, for scope Shared, what becomes of requests when the store gives no answer: Local (the default:
	// each replica goes on counting, as with Divided), Allow (all pass, uncounted) or Deny (all are refused with 503).
	//
	// +optional
	OnStoreFailure RateLimitStoreFailure `json:"onStoreFailure,omitempty"`

	// Limits that a request has to pass, all of them. A request that one refuses takes nothing from the others.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Limits []RateLimit `json:"limits,omitempty"`
}

// RateLimit is one named limit: which requests it counts, by what it tells them apart, and how many may pass.
//
// +kubebuilder:validation:XValidation:message="a limit needs rates or concurrency, or both",rule="has(self.rates) || has(self.concurrency)"
// +kubebuilder:validation:XValidation:message="cost is for rates; concurrency counts requests",rule="!has(self.cost) || has(self.rates)"
// +kubebuilder:validation:XValidation:message="costFrom needs a cost",rule="!has(self.costFrom) || has(self.cost)"
type RateLimit struct {
	// Name of the limit, unique in the policy. It stands in metrics, in the access log and in the RateLimit fields of
	// answers. A counter belongs to a policy and a limit's name: changing `requests` keeps what was counted, a new
	// name starts anew.
	//
	// +required
	Name gwv1.SectionName `json:"name,omitempty"`

	// When is a CEL expression that says which requests the limit counts, e.g. `request.method != "OPTIONS"`.
	// Absent: all. If it cannot be evaluated for a request, the limit applies.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	When string `json:"when,omitempty"`

	// Key is a list of CEL expressions; there is one counter for each distinct list of their values, e.g.
	// `source.ip`, `identity.subject` or `request.headers["x-tenant"]`. Absent: one counter for all that the limit counts.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Key []KeyExpression `json:"key,omitempty"`

	// Rates that a request has to pass, all of them, e.g. 100 in a minute and 1000 in an hour.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:message="windows must be unique in a limit (60s and 1m are the same window)",rule="self.all(a, self.exists_one(b, duration(a.window) == duration(b.window)))"
	Rates []Rate `json:"rates,omitempty"`

	// Cost is a CEL expression that gives a whole number: what a request counts as in the rates, e.g.
	// `request.path.startsWith("/export") ? 10 : 1`. Absent: 1. A request that costs 0 is admitted and takes nothing; one
	// that costs more than a full counter has is never admitted. If it cannot be evaluated, the cost is 1.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Cost string `json:"cost,omitempty"`

	// CostFrom says when the cost is known: Request (the default) or Response, where the expression may name `response`.
	//
	// +optional
	CostFrom RateLimitCostFrom `json:"costFrom,omitempty"`

	// Concurrency is how many of the requests that the limit counts may be under way at once, per counter.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	Concurrency *int32 `json:"concurrency,omitempty"`
}

// KeyExpression is a CEL expression whose value tells one counter from another.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
type KeyExpression string

// Rate admits Requests at once from a fresh counter, which then refills evenly over Window. Burst comes on top.
type Rate struct {
	// Requests per window.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	Requests int32 `json:"requests,omitempty"`

	// Window is the time over which a counter refills: a duration as in GEP-2257 (`10s`, `1m`, `1h30m`), from one
	// second to 31 days (`744h`).
	//
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=28
	// +kubebuilder:validation:XValidation:message="window must be from 1s to 744h (31 days)",rule="duration(self) >= duration('1s') && duration(self) <= duration('744h')"
	Window gwv1.Duration `json:"window,omitempty"`

	// Burst is how many requests more than Requests a full counter admits at once.
	//
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000000
	Burst int32 `json:"burst,omitempty"`
}
