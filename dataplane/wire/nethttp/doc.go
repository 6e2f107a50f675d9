// Package nethttp speaks HTTP by way of Go's net/http: an engine that faces clients (New), and transports that face backends
// (NewTransport).
//
// The engine gives net/http each connection, by protocol, and reads along (tap.go) where net/http would tolerate, lose or hide
// something: what filters see of an HTTP/1 head is what the client wrote. Backends are spoken to over HTTP/1 by a client of our own
// (one.go), since net/http's replays requests in silence, hands a connection with unread bytes to the next request, and cannot tell
// how much of a request was sent; HTTP/2 goes by net/http's Transport (two.go). Either may be secured by TLS (dial.go).
//
// # What net/http still hides
//
// Of HTTP/1:
//
//   - A client that closes its sending direction behind a request has left, for net/http: the exchange is cancelled.
//   - Between one and three bytes of a next head count as idle time, not as head time.
//   - An unread request body is drained up to 256 KiB, not DrainBytes, but not for longer than DrainDuration.
//   - A 304 answer loses Content-Type and Content-Length; answer fields get Go's spelling and are sorted by name.
//   - Without a known length the end of an answer is written after Done.
//   - Expect with anything but 100-continue is answered 417 by net/http (Done is told).
//   - A malformed escape in a path is refused by net/http's parser, before ours (Done is told, with our reason).
//
// Of HTTP/2, where nothing can read along:
//
//   - Spelling and order of fields, and the order of trailer fields.
//   - Cookie crumbs are joined, and counted, before we see them; Expect is taken out: ExpectContinue is never set, but the first pull
//     of the body sends the 100.
//   - Malformed requests are answered with a stream error, connection fields with 400, a head far over the limits with 431, without a
//     word to us (Engine.CountError hears of the stream errors).
//   - Trailer fields of a request that its Trailer field did not announce are dropped. Request trailers are not sent to HTTP/2
//     backends, since net/http wants their names first.
//   - Body.More is always false: net/http does not tell what it has at hand.
//   - Extended CONNECT (RFC 8441) is refused by net/http.
package nethttp
