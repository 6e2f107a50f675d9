package v1alpha1

// The conditions and reasons that Gatehouse writes beside the Gateway API's own (gwv1.GatewayReason…, ListenerReason…,
// RouteReason…, PolicyReason…). They are plain strings since one reason may stand in conditions of several kinds.
//
// A reason is part of the API: people alert on it. Once released, its text does not change.

// Conditions of policies. Accepted is the Gateway API's (gwv1.PolicyConditionAccepted), with its reasons Accepted,
// Conflicted, Invalid and TargetNotFound.
const (
	// PolicyConditionProgrammed says whether the policy is in force in the data plane of the ancestor.
	//
	// Reasons for True: Programmed, PartiallyProgrammed. For False: Pending, Overridden, TargetNotAttached, and the reason of
	// Accepted where that is False (Invalid, Conflicted, TargetNotFound, TargetNotSupported, InvalidSecretRef, and those of routes
	// for what they refer to: RefNotPermitted, BackendNotFound, …).
	PolicyConditionProgrammed = "Programmed"

	// PolicyConditionOverridden is True when policies further down have replaced this one, everywhere under the ancestor
	// (reason Overridden) or in a part of it (PartiallyOverridden); the message names them and says where. It is absent
	// otherwise. Only kinds that replace each other have it; limits add up and never do.
	PolicyConditionOverridden = "Overridden"

	// PolicyConditionResolvedRefs says whether what the policy refers to (Secrets, Services) exists and is permitted.
	PolicyConditionResolvedRefs = "ResolvedRefs"
)

// Reasons of policies.
const (
	// PolicyReasonProgrammed: the policy is in force wherever it is attached under this ancestor.
	PolicyReasonProgrammed = "Programmed"

	// PolicyReasonPartiallyProgrammed: the policy is in force for some of its targets, or lacks a rule that leads to a path which it
	// answers itself (the callback of logins); the message says where, or which.
	PolicyReasonPartiallyProgrammed = "PartiallyProgrammed"

	// PolicyReasonPending: the policy is accepted, but not yet in force.
	PolicyReasonPending = "Pending"

	// PolicyReasonOverridden: other policies have replaced this one; the message names them.
	PolicyReasonOverridden = "Overridden"

	// PolicyReasonPartiallyOverridden: other policies have replaced this one in a part of what it reaches.
	PolicyReasonPartiallyOverridden = "PartiallyOverridden"

	// PolicyReasonInvalidSecretRef: a Secret that the policy refers to does not exist, may not be read, or lacks an entry; the
	// message says which, and what to change.
	PolicyReasonInvalidSecretRef = "InvalidSecretRef"

	// PolicyReasonNoStore: the policy shares its counters among replicas, and the operator has configured no store for that. It is in
	// force as it says it is when the store gives no answer.
	PolicyReasonNoStore = "NoStore"

	// PolicyReasonResolvedRefs: all that the policy refers to exists and is permitted.
	PolicyReasonResolvedRefs = "ResolvedRefs"

	// PolicyReasonTargetNotAttached: the target exists, but no Gateway of ours serves it, so there is nothing to limit.
	PolicyReasonTargetNotAttached = "TargetNotAttached"

	// PolicyReasonTargetNotSupported: the API allows this kind of target, this version of Gatehouse does not serve it.
	PolicyReasonTargetNotSupported = "TargetNotSupported"
)

// Reasons of Gateways, listeners and routes.
const (
	// ReasonUnsupportedField: the object uses a field that this version of Gatehouse does not serve, and which must not
	// be ignored, since somebody's safety may hang on it. The message names the field.
	ReasonUnsupportedField = "UnsupportedField"

	// ReasonInvalidTLSConfig: a listener's TLS settings contradict each other or its protocol; the message says how.
	ReasonInvalidTLSConfig = "InvalidTLSConfig"

	// ReasonInvalidBackend: a backend exists, but cannot be used as it is (a port without a name that matches, an
	// unknown appProtocol); the message says what to change.
	ReasonInvalidBackend = "InvalidBackend"
)
