// Package dataplane serves a snapshot. It knows no Kubernetes: its input is plain data (snapshot.Snapshot, snapshot.Endpoints), its
// output answers to clients.
//
// # The way of a request
//
//	listen    accept; TLS (certificate by SNI from the plan); ALPN → wire
//	wire      read the head → message.Exchange                     … copy the body, flush, trailers
//	proxy     match; request filters; forward; response filters; done
//	upstream  pick an endpoint; connection from the pool; write the head; read the head of the answer
//
// # The way of a change
//
// SetEndpoints replaces one backend's picker. Apply builds a plan beside the one that serves, binds the sockets that are new, stores
// one pointer, and then lets go of what left. A request loads that pointer once and finishes on what it found. Route changes never
// touch a listening socket.
package dataplane
