// Package telemetry tells what the data plane does: metrics, one access-log line per exchange, and traces.
//
// Nothing in it slows a request down: metric handles are resolved when a plan is built, a log line is encoded by appending and goes
// into a bounded queue that drops and counts, spans go into the bounded batch of the OpenTelemetry SDK. A nil *Telemetry, and every
// nil handle, works and keeps nothing, so tests and rooms need no second way.
//
// # Metrics
//
// They live in a registry of our own, begin with gatehouse_, and have bounded cardinality: a label is the name of an object that an
// operator made (gateway, route, rule, backend, listener, secret), or a word of a closed list (code, reason, result, state). Never a
// path, a host, an HTTP method or an address of a client. Handles are asked for in a Round, once per Apply; what no round asked for is
// removed after Grace, and earlier when there is much of it. A series appears when it first counts: a route without traffic costs a
// few words of memory.
//
// # The access log
//
// One JSON object per line, in UTF-8. A field that is empty or does not apply is left out, except status, duration_ms, bytes_in,
// bytes_out and attempts. All bytes that a client chose are escaped: whatever does not print is \uXXXX, bytes that are not UTF-8 are
// U+FFFD, and strings longer than Options.MaxField are cut and end in "…".
//
//	time         RFC 3339 with microseconds, UTC: when the head of the request was complete
//	id           request id, as in X-Request-Id
//	client       IP address of the client, behind proxies that are trusted
//	peer         address and port at the other end of the connection
//	method       as received, before any filter
//	scheme       "http" or "https", as the client reached us
//	host         as received, with its port
//	path         as received, still escaped, without query
//	query        as received; the values of parameters that are known to carry credentials, and of those in which a policy looks for them,
//	             read REDACTED (Options.HideQuery: left out)
//	version      "HTTP/1.1", "HTTP/2"
//	status       of the answer; when the client left before there was one, 499
//	reason       a word of message.Reason: why it is not a backend's answer, or why the answer did not reach its end
//	detail       the cause behind reason, for us
//	origin       "upstream" (a backend's answer), "filter", "gateway"
//	route        kind, namespace/name and rule that served
//	backend      namespace/service:port
//	upstream     address and port of the endpoint of the last attempt
//	attempts     number of tries
//	bytes_in     of the request body; of a tunnel, from the client
//	bytes_out    of the response body; of a tunnel, to the client
//	duration_ms  from the head to the last byte, with three decimals
//	subject      who the client has proven to be
//	auth_policy  namespace/name of the policy that asked for it
//	auth_method  the method, by its name in that policy
//	user_agent   as received
//	trace        W3C trace id
//	tls          "1.2" or "1.3"
//	sni          server name of the handshake
//	notes        object: what filters say, string to string
//
// Authorization, Cookie and all other request and response fields are never logged.
//
// # Traces
//
// Without an exporter traceparent and tracestate pass through untouched, and nothing is created. With one there is a server span per
// exchange and a client span per attempt; the backend sees the span of its attempt. Sampling follows the caller's decision, and a
// ratio where there is none. A traceparent that is malformed or doubled is replaced.
package telemetry
