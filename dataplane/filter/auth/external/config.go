// Package external asks a service of the user's whether a request may pass: over HTTP, or over gRPC as Envoy's ext_authz does
// (envoy.service.auth.v3). The Gateway API's ExternalAuth filter (GEP-1494) is the same code.
//
// Only an answer that clearly allows lets in. A service that is down, slow, breaks off, talks nonsense or talks too much is not an answer:
// the method is then Unavailable, and the filter answers 503. What the service is told of a request's origin is what Gatehouse knows, not
// what the client says: X-Forwarded-* are ours.
package external

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/outbound"
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
	Policy   string // UID of the policy, or the route of an ExternalAuth filter: two never share what is remembered
	Name     string // for the log and for metrics
	Backend  snapshot.BackendRef
	Protocol Protocol
	Path     string // HTTP: put before the path of the request
	// AllowedRequestHeaders are told beside what is always told (HTTP: Host, Method, Path, Content-Length, Authorization; GRPC: none given
	// means all).
	AllowedRequestHeaders []string
	// AllowedResponseHeaders are taken over from an answer that allows, into the request that is forwarded (HTTP; none given means all
	// but those that frame or describe the answer itself). What the client sent under the names given here is dropped.
	AllowedResponseHeaders []string
	// Subject is the field of an answer that allows which names the subject: a header (HTTP), a header or a key of the dynamic metadata
	// (GRPC). "": over HTTP nobody is named; over GRPC the dynamic metadata's "subject" or "sub" does.
	Subject  string
	MaxBody  int           // bytes of the request's body that are told; 0: none. A larger body is refused with 413
	Timeout  time.Duration // of one call; 0: DefaultTimeout
	CacheFor time.Duration // how long an answer that allows is remembered, at most; 0: not at all
}

// Bounds.
const (
	DefaultTimeout = 5 * time.Second
	MaxMaxBody     = 1 << 20   // the largest MaxBody, in bytes: each request holds that much while the service thinks
	maxAnswer      = 64 << 10  // bytes of an HTTP answer's body
	maxCheck       = 128 << 10 // bytes of a CheckResponse
	maxChanges     = 200       // fields that an answer changes
)

// Check reports what is wrong, in words for whoever wrote the policy.
func (c Config) Check() error {
	switch {
	case c.Protocol != HTTP && c.Protocol != GRPC:
		return fmt.Errorf("protocol %q is none of HTTP and GRPC", c.Protocol)
	case c.Protocol == GRPC && (c.Path != "" || len(c.AllowedResponseHeaders) > 0):
		return errors.New("a path and allowed response headers are for protocol HTTP")
	case c.MaxBody < 0 || c.MaxBody > MaxMaxBody:
		return fmt.Errorf("the largest body that is forwarded is between 0 and %d bytes", MaxMaxBody)
	case c.Timeout < 0 || c.CacheFor < 0:
		return errors.New("a time is negative")
	}
	for _, name := range slices.Concat(c.AllowedRequestHeaders, c.AllowedResponseHeaders) {
		if !message.ValidName(name) {
			return fmt.Errorf("%q is no name of a header", name)
		}
	}
	for _, name := range c.AllowedResponseHeaders {
		if protected(name) {
			return fmt.Errorf("header %s cannot be taken over from the service: it is Gatehouse's, or frames the request", name)
		}
	}
	_, err := prefix(c.Path)
	return err
}

// prefix is a path that others are put behind: without a final slash, "" for none.
func prefix(path string) (string, error) {
	path = "/" + strings.Trim(path, "/")
	t, reason, detail := message.ParseTarget(path, message.PathRules{})
	switch {
	case reason != message.ReasonNone:
		return "", fmt.Errorf("path: %s", detail)
	case t.HasQuery:
		return "", errors.New("path: it has a query")
	case t.Path != path:
		return "", fmt.Errorf("path: it is not in its normal form, which is %s", t.Path)
	}
	return strings.TrimSuffix(path, "/"), nil
}

// String is complete: two with the same text do the same.
func (c Config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "external(%s %s", c.Protocol, c.Backend)
	for _, w := range []struct{ name, value string }{{"policy", c.Policy}, {"name", c.Name}, {"path", c.Path}, {"subject", c.Subject}} {
		if w.value != "" {
			fmt.Fprintf(&b, " %s=%q", w.name, w.value)
		}
	}
	for _, l := range []struct {
		name  string
		names []string
	}{{"tell", c.AllowedRequestHeaders}, {"take", c.AllowedResponseHeaders}} {
		if len(l.names) > 0 {
			fmt.Fprintf(&b, " %s=%q", l.name, l.names)
		}
	}
	if c.MaxBody > 0 {
		fmt.Fprintf(&b, " body=%d", c.MaxBody)
	}
	if c.Timeout > 0 {
		fmt.Fprintf(&b, " timeout=%s", c.Timeout)
	}
	if c.CacheFor > 0 {
		fmt.Fprintf(&b, " cache=%s", c.CacheFor)
	}
	return b.String() + ")"
}

// cacheKey is the key of what is remembered, in keep.
type cacheKey struct{ config string }

// Build makes the method. The error is Check's, or that the snapshot does not name the backend.
func (c Config) Build(env filter.Env) (method.Method, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if env.Call == nil {
		return nil, errors.New("nobody makes calls here")
	}
	call, err := env.Call(c.Backend)
	if err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	m := &asker{config: c, clock: env.Clock}
	if m.clock == nil {
		m.clock = time.Now
	}
	if c.Protocol == HTTP {
		path, _ := prefix(c.Path)
		m.service = &overHTTP{config: &m.config, call: call, prefix: path}
	} else {
		m.service = overGRPC(&m.config, outbound.Conn(call, outbound.Options{Timeout: c.Timeout, MaxBytes: maxCheck}))
	}
	switch {
	case c.CacheFor > 0 && env.Keep != nil:
		m.cache = keep.Get(env.Keep, cacheKey{c.String()}, newCache)
	case c.CacheFor > 0:
		m.cache = newCache()
	}
	return m, nil
}
