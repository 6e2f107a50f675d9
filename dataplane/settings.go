package dataplane

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Settings are the process-wide settings of the data plane until a ListenerPolicy can say them per listener. This is the one page that
// lists every default and what each timer covers; `gatehouse run --help` and the keys of --config follow it.
//
// # Timers, in the order in which an exchange meets them
//
//	TLSHandshake     from accept to the end of the TLS handshake
//	HeadTimeout      from accept, or from the first byte of a further head, to the end of the head (408, close)
//	IdleTimeout      between two requests on a client's connection
//	BodyTimeout      between two pieces of a request body (408)
//	RequestTimeout   from the head to the end of the answer's head, all attempts together (504); a route's timeouts.request replaces it
//	ConnectTimeout   for a TCP connection to an endpoint, and again for its TLS handshake (tried elsewhere, then 504)
//	AttemptTimeout   one attempt, to the end of the answer's head (504); a route's timeouts.backendRequest replaces it
//	StreamIdle       between two pieces of an answer's body or a tunnel, either way (the connection is cut)
//	WriteTimeout     a write to the client that makes no progress (the connection is cut)
//	UpstreamIdle     an idle connection to an endpoint is closed after it
//	StreamGrace      how long a stream lives whose rule is gone or whose access rules changed
//	DrainDelay       after SIGTERM, while listeners still accept, until others have noticed
//	DrainTimeout     for what is under way, after that
type Settings struct {
	TLSHandshake   time.Duration // 10s
	HeadTimeout    time.Duration // 10s
	IdleTimeout    time.Duration // 180s: longer than the 60s of usual balancers in front
	BodyTimeout    time.Duration // 60s
	RequestTimeout time.Duration // 0: none, as gRPC streams and long polls want
	ConnectTimeout time.Duration // 2s
	AttemptTimeout time.Duration // 0: none
	StreamIdle     time.Duration // 1h
	WriteTimeout   time.Duration // 60s
	UpstreamIdle   time.Duration // 50s: shorter than the 60s of usual servers behind
	StreamGrace    time.Duration // 30s
	DrainDelay     time.Duration // 10s
	DrainTimeout   time.Duration // 60s

	MaxHeadBytes       int   // 64 KiB: request line and all fields (431); an answer's head has the same limit (502)
	MaxFields          int   // 200 field lines (431)
	MaxURIBytes        int   // 16 KiB (414)
	MaxBodyBytes       int64 // 0: no limit (413)
	MaxStreams         int   // 250 HTTP/2 streams at once on a client's connection
	MaxConnections     int   // 0: no limit but file descriptors; more are closed at once and counted
	MaxIdlePerEndpoint int   // 128 idle connections
	MaxInformations    int   // 16 1xx answers per exchange are passed on
	RetryBodyBytes     int   // 64 KiB of a request body are held for another attempt or a mirror
	BodyBudget         int64 // 64 MiB in all for held bodies; beyond it no retries with bodies, no mirrors of them, no buffering

	ConnectRetries int // 2: extra attempts on other endpoints when no byte has been sent; a route's retry may say more

	// TrustedProxies are the peers whose X-Forwarded-* and Forwarded fields are believed, and continued; from all others they are
	// dropped and made anew. The client is the first address from the right that is not trusted.
	TrustedProxies []netip.Prefix
	// Forwarded adds the field of RFC 7239 beside X-Forwarded-*.
	Forwarded bool
	Paths     message.PathRules
	// ServerName is what Server says in answers of ours; "" is nothing.
	ServerName string
	// LocalEndpoints lets endpoints on loopback and link-local addresses be used: right without a cluster, never in one (threats 38).
	LocalEndpoints bool
	Zone           string // our own topology zone
}

// Defaults returns the settings of a process that was told nothing.
func Defaults() Settings {
	return Settings{
		TLSHandshake:   10 * time.Second,
		HeadTimeout:    10 * time.Second,
		IdleTimeout:    180 * time.Second,
		BodyTimeout:    60 * time.Second,
		ConnectTimeout: 2 * time.Second,
		StreamIdle:     time.Hour,
		WriteTimeout:   60 * time.Second,
		UpstreamIdle:   50 * time.Second,
		StreamGrace:    30 * time.Second,
		DrainDelay:     10 * time.Second,
		DrainTimeout:   60 * time.Second,

		MaxHeadBytes:       64 << 10,
		MaxFields:          200,
		MaxURIBytes:        16 << 10,
		MaxStreams:         250,
		MaxIdlePerEndpoint: 128,
		MaxInformations:    16,
		RetryBodyBytes:     64 << 10,
		BodyBudget:         64 << 20,
		ConnectRetries:     2,
	}
}

// Check says what of the settings makes no sense. A data plane without a head timeout, say, is a data plane that anyone can stop.
func (s Settings) Check() error {
	for _, d := range []struct {
		name string
		got  time.Duration
		min  time.Duration
	}{
		{"tlsHandshakeTimeout", s.TLSHandshake, time.Millisecond}, {"headTimeout", s.HeadTimeout, time.Millisecond},
		{"idleTimeout", s.IdleTimeout, time.Millisecond}, {"bodyTimeout", s.BodyTimeout, time.Millisecond},
		{"requestTimeout", s.RequestTimeout, 0}, {"connectTimeout", s.ConnectTimeout, time.Millisecond}, {"attemptTimeout", s.AttemptTimeout, 0},
		{"streamIdleTimeout", s.StreamIdle, time.Second}, {"writeTimeout", s.WriteTimeout, time.Millisecond},
		{"upstreamIdleTimeout", s.UpstreamIdle, time.Millisecond}, {"streamGrace", s.StreamGrace, 0}, {"drainDelay", s.DrainDelay, 0},
		{"drainTimeout", s.DrainTimeout, 0},
	} {
		if d.got < d.min {
			return fmt.Errorf("%s is %v; it is at least %v", d.name, d.got, d.min)
		}
	}
	for _, n := range []struct {
		name     string
		got, min int64
	}{
		{"maxHeadBytes", int64(s.MaxHeadBytes), 1 << 10}, {"maxFields", int64(s.MaxFields), 8}, {"maxURIBytes", int64(s.MaxURIBytes), 16},
		{"maxBodyBytes", s.MaxBodyBytes, 0}, {"maxStreams", int64(s.MaxStreams), 1}, {"maxConnections", int64(s.MaxConnections), 0},
		{"maxIdlePerEndpoint", int64(s.MaxIdlePerEndpoint), 0}, {"maxInformations", int64(s.MaxInformations), 0},
		{"retryBodyBytes", int64(s.RetryBodyBytes), 0}, {"bodyBudgetBytes", s.BodyBudget, 0}, {"connectRetries", int64(s.ConnectRetries), 0},
	} {
		if n.got < n.min {
			return fmt.Errorf("%s is %d; it is at least %d", n.name, n.got, n.min)
		}
	}
	return nil
}

// Limits is what an engine holds clients to.
func (s Settings) Limits() message.Limits {
	return message.Limits{
		HeadTimeout: s.HeadTimeout, IdleTimeout: s.IdleTimeout, BodyTimeout: s.BodyTimeout, WriteTimeout: s.WriteTimeout,
		MaxHeadBytes: s.MaxHeadBytes, MaxFields: s.MaxFields, MaxURIBytes: s.MaxURIBytes, MaxBodyBytes: s.MaxBodyBytes,
		MaxStreams: s.MaxStreams, Paths: s.Paths, BodyBudget: message.NewBudget(s.BodyBudget), MaxInform: s.MaxInformations,
		DrainBytes: 64 << 10, DrainDuration: time.Second,
	}
}

// Transport is what a connection to an endpoint is held to.
func (s Settings) Transport() message.TransportOptions {
	return message.TransportOptions{
		ConnectTimeout: s.ConnectTimeout, IdleTimeout: s.UpstreamIdle, MaxIdle: s.MaxIdlePerEndpoint,
		MaxHeadBytes: int64(s.MaxHeadBytes), MaxInformations: s.MaxInformations,
	}
}
