package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// AuthPolicy says who may come in: by which methods a client proves who it is, what is allowed to whom, and what the
// backend learns of it.
//
// Policies add up. Those of a Gateway, of its listeners, of a route and of its rules all have to let a request in; a
// policy further down that says `replace: true` takes the place of those above it that say `children: MayReplace`, and
// adds to the others. Of two policies on one target the older one wins; the other is Conflicted and does nothing. A
// policy of a Gateway or a listener holds for requests that match no route, too.
//
// A policy that cannot be used (a Secret that is missing, an expression that does not compile) lets nobody in, in
// shadow neither: its target, and nothing else, answers 500, and the condition Accepted says why. `gatehouse check` says
// it before.
//
// Methods, rules and headers read a request as it is matched and forwarded: the path is normalised, and there is only
// one spelling of it. Secrets and Services in other namespaces need a ReferenceGrant there, from group gatehouse.dev and
// kind AuthPolicy.
//
// Answers to CORS preflights and redirects to HTTPS come before any policy: neither can carry a credential.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:categories={gateway-api,gatehouse},shortName=authp
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Inherited"
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.targetRefs[*].name`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AuthPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says who may come in.
	// +required
	Spec AuthPolicySpec `json:"spec,omitzero"`

	// Status says, per Gateway, whether the policy is in force there.
	// +optional
	Status gwv1.PolicyStatus `json:"status,omitzero"`
}

// AuthPolicyList is a list of AuthPolicies.
//
// +kubebuilder:object:root=true
type AuthPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AuthPolicy `json:"items"`
}

// AuthMode says what happens to a request that may not come in.
//
// +kubebuilder:validation:Enum=Enforce;Shadow
type AuthMode string

const (
	// AuthModeEnforce refuses the request.
	AuthModeEnforce AuthMode = "Enforce"

	// AuthModeShadow lets the request pass. It is counted and logged as if it had been refused, so that a policy can be
	// tried on real traffic before it bites. Whoever proves an identity has it; credentials are forwarded as they came.
	AuthModeShadow AuthMode = "Shadow"
)

// AuthRequirement says how many methods have to accept a request.
//
// +kubebuilder:validation:Enum=Any;All;Optional
type AuthRequirement string

const (
	// AuthRequireAny wants one of the methods. They are asked in order, and the first that accepts gives the identity.
	AuthRequireAny AuthRequirement = "Any"

	// AuthRequireAll wants each of the methods. The identity is that of the first in the list.
	AuthRequireAll AuthRequirement = "All"

	// AuthRequireOptional wants one of the methods if anything is presented; a credential that is wrong is refused. A
	// request that presents nothing is anonymous, and the rules of authorize decide: one that they refuse is asked to
	// prove who it is.
	AuthRequireOptional AuthRequirement = "Optional"
)

// ChildPolicies says what policies further down may do.
//
// +kubebuilder:validation:Enum=MayAdd;MayReplace
type ChildPolicies string

const (
	// ChildrenMayAdd lets policies further down ask for more, never for less.
	ChildrenMayAdd ChildPolicies = "MayAdd"

	// ChildrenMayReplace lets a policy further down take this one's place, if it says `replace: true`.
	ChildrenMayReplace ChildPolicies = "MayReplace"
)

// AuthPolicySpec says who may come in.
//
// +kubebuilder:validation:XValidation:message="a policy needs methods or authorize, or both",rule="has(self.methods) || has(self.authorize)"
// +kubebuilder:validation:XValidation:message="require: All and require: Optional need methods",rule="self.require == 'Any' || has(self.methods)"
type AuthPolicySpec struct {
	// TargetRefs names what the policy is attached to, in its own namespace: Gateways, ListenerSets, HTTPRoutes or
	// GRPCRoutes. A sectionName narrows a Gateway or ListenerSet to one listener, and a route to one named rule.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:message="targetRefs must be Gateway, ListenerSet, HTTPRoute or GRPCRoute of gateway.networking.k8s.io",rule="self.all(r, r.group == 'gateway.networking.k8s.io' && r.kind in ['Gateway','ListenerSet','HTTPRoute','GRPCRoute'])"
	// +kubebuilder:validation:XValidation:message="sectionName must be specified when targetRefs includes 2 or more references to the same target",rule="self.all(p1, self.all(p2, p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name ? ((!has(p1.sectionName) || p1.sectionName == '') == (!has(p2.sectionName) || p2.sectionName == '')) : true))"
	// +kubebuilder:validation:XValidation:message="sectionName must be unique when targetRefs includes 2 or more references to the same target",rule="self.all(p1, self.exists_one(p2, p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name && (((!has(p1.sectionName) || p1.sectionName == '') && (!has(p2.sectionName) || p2.sectionName == '')) || (has(p1.sectionName) && has(p2.sectionName) && p1.sectionName == p2.sectionName))))"
	TargetRefs []gwv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs,omitempty"`

	// Mode is Enforce (who may not come in is refused) or Shadow (everybody passes, and what would have been refused is
	// counted and logged).
	//
	// +optional
	// +kubebuilder:default=Enforce
	Mode AuthMode `json:"mode,omitempty"`

	// Require is how many of the methods have to accept a request: Any (one of them), All (each of them, such as a
	// client certificate and a token), or Optional (one of them if anything is presented).
	//
	// A request that is not accepted gets 401 with the challenges of all methods in WWW-Authenticate (RFC 9110 11.6.1),
	// or the redirect to a login; gRPC calls get UNAUTHENTICATED. If a method could not tell (an issuer's keys were
	// never fetched, a service does not answer) and no other accepts, it is 503 or UNAVAILABLE.
	//
	// +optional
	// +kubebuilder:default=Any
	Require AuthRequirement `json:"require,omitempty"`

	// Methods are the ways to prove an identity, in the order in which they are asked. Absent: nobody has to prove
	// anything, and authorize alone decides.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Methods []AuthMethod `json:"methods,omitempty"`

	// Authorize says what is allowed to whom, once the methods are content. Absent: everything.
	//
	// +optional
	Authorize *Authorization `json:"authorize,omitempty"`

	// Forward says what the backend learns of the identity and of the credential.
	//
	// +optional
	// +kubebuilder:default={}
	Forward AuthForwarding `json:"forward,omitzero"`

	// Children says whether a policy further down (of a listener, a route or a rule) may replace this one: MayAdd (it
	// may only ask for more) or MayReplace.
	//
	// +optional
	// +kubebuilder:default=MayAdd
	Children ChildPolicies `json:"children,omitempty"`

	// Replace takes the place of those policies further up that say `children: MayReplace`. To others, and to one that is
	// in error, the policy adds, and its condition Accepted says so.
	//
	// +optional
	// +kubebuilder:default=false
	Replace bool `json:"replace,omitempty"`
}

// AuthorizationAction is what becomes of a request.
//
// +kubebuilder:validation:Enum=Allow;Deny
type AuthorizationAction string

const (
	// AuthorizationAllow lets the request in.
	AuthorizationAllow AuthorizationAction = "Allow"

	// AuthorizationDeny refuses it: HTTP 403, gRPC PERMISSION_DENIED.
	AuthorizationDeny AuthorizationAction = "Deny"
)

// Authorization is rules in order: the first that fits a request decides.
type Authorization struct {
	// Default is what becomes of a request that fits no rule. It has to be spelled out.
	//
	// +required
	Default AuthorizationAction `json:"default,omitempty"`

	// Rules in order: the first that fits decides.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Rules []AuthorizationRule `json:"rules,omitempty"`
}

// AuthorizationRule fits a request that fits all that it says.
//
// +kubebuilder:validation:XValidation:message="a rule needs at least one of when, sources and methods; what becomes of all other requests is said by default",rule="has(self.when) || has(self.sources) || has(self.methods)"
type AuthorizationRule struct {
	// Name of the rule, unique in the policy. It stands in the access log where the rule has refused a request.
	//
	// +required
	Name gwv1.SectionName `json:"name,omitempty"`

	// Action is Allow or Deny.
	//
	// +required
	Action AuthorizationAction `json:"action,omitempty"`

	// When is a CEL expression over request, source and identity that has to hold, e.g.
	// `"ops" in identity.list("groups") && request.path.startsWith("/admin/")`.
	//
	// If it cannot be evaluated for a request, a rule that denies fits, and one that allows does not.
	//
	// A header is whatever the client sends: several lines are joined by commas, so `request.headers["x-role"] == "guest"`
	// in a rule that denies is escaped by a second line. Say in rules what lets in, and by identity.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	When string `json:"when,omitempty"`

	// Sources are networks (RFC 4632, RFC 4291 2.3), one of which the client's address has to be in. The address is the
	// one that trusted proxies tell, or else that of the connection; an IPv4 address that comes mapped into IPv6 is an
	// IPv4 address.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Sources []CIDR `json:"sources,omitempty"`

	// Methods are HTTP methods (RFC 9110 9.1), one of which the request has to have. They are compared with case; HEAD
	// is not GET. gRPC calls are POST.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Methods []HTTPMethodName `json:"methods,omitempty"`
}

// CIDR is a network such as `10.0.0.0/8` or `2001:db8::/32`. A single address is written with all of its bits,
// `192.0.2.7/32`.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:message="must be a network in CIDR notation whose address has no bits beyond the prefix, such as 10.0.0.0/8 or 192.0.2.7/32",rule="isCIDR(self) && cidr(self) == cidr(self).masked()"
type CIDR string

// HTTPMethodName is an HTTP method, a registered one or any other.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^[A-Z]+(-[A-Z]+)*$`
type HTTPMethodName string

// CredentialForwarding says what becomes of the credential that a request presents.
//
// +kubebuilder:validation:Enum=Strip;Forward
type CredentialForwarding string

const (
	// CredentialStrip removes credentials from every place where a method of the policy looks for them.
	CredentialStrip CredentialForwarding = "Strip"

	// CredentialForward leaves them in the request.
	CredentialForward CredentialForwarding = "Forward"
)

// AuthForwarding says what the backend learns.
type AuthForwarding struct {
	// Headers are set on each request that is forwarded. What a client sent under such a name is dropped in every
	// spelling (case, `_` for `-`), whether or not there is an identity.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Headers []ForwardedHeader `json:"headers,omitempty"`

	// Credential is Strip (backends never see tokens, keys, passwords and session cookies) or Forward.
	//
	// +optional
	// +kubebuilder:default=Strip
	Credential CredentialForwarding `json:"credential,omitempty"`
}

// ForwardedHeader is a header that backends can trust.
//
// +kubebuilder:validation:XValidation:message="this header frames the message, carries credentials or is set by Gatehouse itself; choose another name",rule="!(self.name.lowerAscii().replace('_', '-') in ['host', 'connection', 'content-length', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'expect', 'keep-alive', 'proxy-connection', 'http2-settings', 'authorization', 'proxy-authorization', 'proxy-authenticate', 'www-authenticate', 'cookie', 'set-cookie', 'forwarded', 'via', 'x-real-ip', 'x-request-id', 'traceparent', 'tracestate', 'baggage']) && !self.name.lowerAscii().replace('_', '-').startsWith('x-forwarded-')"
type ForwardedHeader struct {
	// Name of the header. It must not be one that frames the message, carries credentials or is set by Gatehouse itself
	// (`X-Forwarded-…`).
	//
	// +required
	Name gwv1.HTTPHeaderName `json:"name,omitempty"`

	// Value is a CEL expression over identity, request and source, e.g. `identity.subject` or `identity.list("groups")`
	// (whose parts are joined by commas). Where it gives "" or cannot be evaluated, there is no header.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Value string `json:"value,omitempty"`
}
