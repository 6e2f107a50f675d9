// Package external asks a service of the user's whether a request may pass: over HTTP, or over gRPC as Envoy's ext_authz does.
package external

import (
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Protocol is what the service speaks.
type Protocol string

const (
	HTTP Protocol = "HTTP"
	GRPC Protocol = "GRPC" // envoy.service.auth.v3.Authorization
)

// Config says whom to ask, what is told, and what is taken over from the answer. The Gateway API's ExternalAuth filter (GEP-1494) has
// the same.
type Config struct {
	Name     string // for the log and for metrics
	Backend  snapshot.BackendRef
	Protocol Protocol
	Path     string // HTTP: put before the path of the request
	// AllowedRequestHeaders are told beside what is always told (HTTP: Host, Method, Path, Content-Length, Authorization; GRPC: none given
	// means all).
	AllowedRequestHeaders []string
	// AllowedResponseHeaders are taken over from an answer that allows, into the request that is forwarded (HTTP; none given means all
	// but those that frame).
	AllowedResponseHeaders []string
	MaxBody                int           // bytes of the request's body that are told; 0: none
	Timeout                time.Duration // of one call
	CacheFor               time.Duration // how long an answer that allows is remembered, at most; 0: not at all
}
