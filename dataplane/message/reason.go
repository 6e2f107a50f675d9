package message

// Reason is why a request was not answered by a backend. Each has one row in the table below: its word in logs and metric labels, its
// HTTP status, and its gRPC status. Nothing else in the house maps failures to statuses.
type Reason uint8

// The reasons. A Reason is at the same time what the access log shows and what a filter fails with.
const (
	ReasonNone Reason = iota

	// What the engine or the proxy refuses before any route.
	ReasonBadFraming
	ReasonBadHead
	ReasonBadHost
	ReasonBadTarget
	ReasonBadMethod
	ReasonBadUpgrade
	ReasonURITooLong
	ReasonHeadTooLarge
	ReasonHeadTimeout
	ReasonBodyTooLarge
	ReasonBodyTimeout
	ReasonMisdirected
	ReasonNoRoute
	ReasonTooManyForks

	// What a route says, or what its configuration lacks.
	ReasonRouteInvalid
	ReasonNoBackend
	ReasonBackendInvalid
	ReasonPolicyInvalid

	// What happens on the way to a backend.
	ReasonNoEndpoint
	ReasonEndpointsPending
	ReasonConnectFailed
	ReasonConnectTimeout
	ReasonTLSFailed
	ReasonUpstreamReset
	ReasonUpstreamProtocol
	ReasonAttemptTimeout
	ReasonRequestTimeout
	ReasonResponseTruncated
	ReasonBufferBudget

	// What filters say.
	ReasonRateLimited
	ReasonConcurrencyLimited
	ReasonDenied
	ReasonUnauthenticated
	ReasonBadCredential
	ReasonAuthUnavailable
	ReasonIdentityExpired
	ReasonLimitUnavailable
	ReasonFilterFailed
	ReasonPanic

	// What the client or the process does.
	ReasonClientLeft
	ReasonWriteTimeout
	ReasonShutdown
	ReasonOverload
	ReasonRuleGone
	ReasonInternal

	reasonCount
)

// gRPC status codes (grpc/grpc doc/statuscodes.md); those that reasons use.
const (
	GRPCOK                 = 0
	GRPCCancelled          = 1
	GRPCUnknown            = 2
	GRPCInvalidArgument    = 3
	GRPCDeadlineExceeded   = 4
	GRPCPermissionDenied   = 7
	GRPCResourceExhausted  = 8
	GRPCFailedPrecondition = 9
	GRPCUnimplemented      = 12
	GRPCInternal           = 13
	GRPCUnavailable        = 14
	GRPCUnauthenticated    = 16
)

type reasonRow struct {
	word   string
	status int
	grpc   int
	text   string // what the client is told: one sentence that betrays nothing of the inside
}

var reasons = [reasonCount]reasonRow{
	ReasonNone: {"", 200, GRPCOK, ""},

	ReasonBadFraming:   {"bad_framing", 400, GRPCInternal, "the message framing is ambiguous"},
	ReasonBadHead:      {"bad_head", 400, GRPCInternal, "the request head is malformed"},
	ReasonBadHost:      {"bad_host", 400, GRPCInvalidArgument, "the host is missing, doubled or malformed"},
	ReasonBadTarget:    {"bad_target", 400, GRPCInvalidArgument, "the request target is malformed or ambiguous"},
	ReasonBadMethod:    {"bad_method", 405, GRPCUnimplemented, "the method is not served here"},
	ReasonBadUpgrade:   {"bad_upgrade", 400, GRPCInvalidArgument, "the upgrade is malformed"},
	ReasonURITooLong:   {"uri_too_long", 414, GRPCInvalidArgument, "the request target is too long"},
	ReasonHeadTooLarge: {"head_too_large", 431, GRPCResourceExhausted, "the request head is too large"},
	ReasonHeadTimeout:  {"head_timeout", 408, GRPCCancelled, "the request head came too slowly"},
	ReasonBodyTooLarge: {"body_too_large", 413, GRPCResourceExhausted, "the request body is too large"},
	ReasonBodyTimeout:  {"body_timeout", 408, GRPCCancelled, "the request body came too slowly"},
	ReasonMisdirected:  {"misdirected", 421, GRPCUnavailable, "the connection was made for another host"},
	ReasonNoRoute:      {"no_route", 404, GRPCUnimplemented, "no route matches"},
	ReasonTooManyForks: {"too_many_forks", 508, GRPCInternal, "the request calls itself"},

	ReasonRouteInvalid:   {"route_invalid", 500, GRPCInternal, "the route is not valid; its status says why"},
	ReasonNoBackend:      {"no_backend", 500, GRPCUnavailable, "the route has no backend"},
	ReasonBackendInvalid: {"backend_invalid", 500, GRPCUnavailable, "the route's backend is not valid; the route's status says why"},
	ReasonPolicyInvalid:  {"policy_invalid", 500, GRPCInternal, "a policy of the route is not valid; its status says why"},

	ReasonNoEndpoint:        {"no_endpoint", 503, GRPCUnavailable, "no endpoint is ready"},
	ReasonEndpointsPending:  {"endpoints_pending", 503, GRPCUnavailable, "the endpoints are not known yet"},
	ReasonConnectFailed:     {"connect_failed", 502, GRPCUnavailable, "no connection to the backend"},
	ReasonConnectTimeout:    {"connect_timeout", 504, GRPCUnavailable, "no connection to the backend in time"},
	ReasonTLSFailed:         {"tls_failed", 502, GRPCUnavailable, "no secure connection to the backend"},
	ReasonUpstreamReset:     {"upstream_reset", 502, GRPCUnavailable, "the backend closed the connection"},
	ReasonUpstreamProtocol:  {"upstream_protocol", 502, GRPCInternal, "the backend's answer is malformed"},
	ReasonAttemptTimeout:    {"attempt_timeout", 504, GRPCDeadlineExceeded, "the backend did not answer in time"},
	ReasonRequestTimeout:    {"request_timeout", 504, GRPCDeadlineExceeded, "no answer in time"},
	ReasonResponseTruncated: {"response_truncated", 502, GRPCUnavailable, "the backend's answer broke off"},
	ReasonBufferBudget:      {"buffer_budget", 503, GRPCResourceExhausted, "no memory for the body now"},

	ReasonRateLimited:        {"rate_limited", 429, GRPCResourceExhausted, "too many requests"},
	ReasonConcurrencyLimited: {"concurrency_limited", 429, GRPCResourceExhausted, "too many requests at once"},
	ReasonDenied:             {"denied", 403, GRPCPermissionDenied, "not allowed"},
	ReasonUnauthenticated:    {"unauthenticated", 401, GRPCUnauthenticated, "authentication is required"},
	ReasonBadCredential:      {"bad_credential", 401, GRPCUnauthenticated, "the credential is not accepted"},
	ReasonAuthUnavailable:    {"auth_unavailable", 503, GRPCUnavailable, "authentication is not possible now"},
	ReasonIdentityExpired:    {"identity_expired", 401, GRPCUnauthenticated, "the credential of this stream has expired"},
	ReasonLimitUnavailable:   {"limit_unavailable", 503, GRPCUnavailable, "the limit cannot be checked now"},
	ReasonFilterFailed:       {"filter_failed", 500, GRPCInternal, "the request could not be handled"},
	ReasonPanic:              {"panic", 500, GRPCInternal, "the request could not be handled"},

	ReasonClientLeft:   {"client_left", 499, GRPCCancelled, "the client left"},
	ReasonWriteTimeout: {"write_timeout", 499, GRPCCancelled, "the client did not read in time"},
	ReasonShutdown:     {"shutdown", 503, GRPCUnavailable, "the gateway is shutting down"},
	ReasonOverload:     {"overload", 503, GRPCUnavailable, "the gateway is overloaded"},
	ReasonRuleGone:     {"rule_gone", 503, GRPCUnavailable, "the route of this stream is gone"},
	ReasonInternal:     {"internal", 500, GRPCInternal, "the request could not be handled"},
}

// String is the word of the reason in logs and metric labels; "" for ReasonNone.
func (r Reason) String() string { return r.row().word }

// Status is the HTTP status that a client gets.
func (r Reason) Status() int { return r.row().status }

// GRPC is the status code that a gRPC client gets in its trailers.
func (r Reason) GRPC() int { return r.row().grpc }

// Text is a sentence for the client; it betrays nothing of the inside.
func (r Reason) Text() string { return r.row().text }

func (r Reason) row() reasonRow {
	if r >= reasonCount {
		return reasons[ReasonInternal]
	}
	return reasons[r]
}

// Reasons yields all reasons but ReasonNone, for tables in tests, docs and metrics.
func Reasons() []Reason {
	out := make([]Reason, 0, reasonCount-1)
	for r := ReasonNone + 1; r < reasonCount; r++ {
		out = append(out, r)
	}
	return out
}

// Error makes a reason an error with its cause, so that a transport can say both what happened and what it means.
type Error struct {
	Reason Reason
	Err    error // nil: the reason says it all
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reason.String()
	}
	return e.Reason.String() + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }
