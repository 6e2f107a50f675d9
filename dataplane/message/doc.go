// Package message holds the words that the rooms of the data plane speak with each other: an exchange with its request and
// response, heads, bodies that are pulled, attempts, and the small interfaces between an HTTP engine ("wire"), the proxy and its
// transports.
//
// It imports nothing of ours and knows neither net/http nor Kubernetes: whatever reads bytes from a socket fills these types, and
// whatever acts on a request (a filter, the router, the balancer) sees nothing else. Two engines exist from the first day
// (wire/nethttp and wire/mem), so that no habit of one of them can become a promise.
//
// Promises that hold for all of it:
//
//   - Strings are immutable and belong to nobody: a filter may keep any header value. What is kept for long is cloned
//     (strings.Clone), since it may hold the chunk that it was cut from.
//   - Bytes that Source.Next returned are valid until the next call only.
//   - Header never holds what frames a message or speaks to the next hop: those are typed fields of Request and Response.
//   - Handler.Done runs exactly once for each Handler.Serve, whatever happens in between.
package message
