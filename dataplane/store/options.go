package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Mode is how the servers hang together.
type Mode string

// The modes.
const (
	Standalone Mode = "standalone" // one server, or a proxy or balancer that looks like one
	Sentinel   Mode = "sentinel"   // Addresses are sentinels, who know which server is the primary
	Cluster    Mode = "cluster"    // Addresses are some nodes of a cluster
)

// Modes are all modes.
var Modes = []Mode{Standalone, Sentinel, Cluster}

// Options say where the store is, and how long it may take.
type Options struct {
	Addresses []string // host:port, at least one; more than one in modes Sentinel and Cluster only
	Mode      Mode     // "": Standalone
	Primary   string   // mode Sentinel: the name of the primary
	Database  int      // not in mode Cluster

	// Credentials are asked for when connections are made anew, so that what was rotated is read. Nil: none. A user "" is the default one.
	Credentials         func() (user, password string, err error)
	SentinelCredentials func() (user, password string, err error)
	TLS                 *tls.Config // nil: plain TCP; holds for sentinels too

	// Prefix stands before all keys, so that several installations can share one server. "": DefaultPrefix.
	Prefix string
	// Timeout is the longest that a request waits for an answer. 0: DefaultTimeout.
	Timeout time.Duration
	// LeaseTTL is how long a place is held for a replica that has died. 0: DefaultLeaseTTL.
	LeaseTTL time.Duration

	Log     *slog.Logger // nil: none
	Metrics Metrics      // nil: none
}

// Defaults of Options.
const (
	DefaultPrefix   = "gatehouse"
	DefaultTimeout  = 50 * time.Millisecond
	DefaultLeaseTTL = 30 * time.Second
)

// Metrics is told what happens. telemetry.Telemetry is one.
type Metrics interface {
	// StoreCall: one call is over; result is "ok" or a word of Result.
	StoreCall(result string, took time.Duration)
	// StoreUp: the store is asked, or is not.
	StoreUp(up bool)
	// StoreDropped: so many things that nobody waits for were given up.
	StoreDropped(n int)
}

// nobody is Metrics that nobody looks at.
type nobody struct{}

func (nobody) StoreCall(string, time.Duration) {}
func (nobody) StoreUp(bool)                    {}
func (nobody) StoreDropped(int)                {}

// Check says what makes no sense, in words for an operator.
func (o Options) Check() error {
	switch {
	case len(o.Addresses) == 0:
		return errors.New("the store needs an address such as redis.infra:6379")
	case o.Mode != "" && !slices.Contains(Modes, o.Mode):
		return fmt.Errorf("the store's mode %q is none of standalone, sentinel and cluster", o.Mode)
	case len(o.Addresses) > 1 && (o.Mode == "" || o.Mode == Standalone):
		return errors.New("a standalone store has one address; several are those of a cluster, or of sentinels: say so by the store's mode")
	case o.Mode == Sentinel && o.Primary == "":
		return errors.New("mode sentinel needs the name of the primary that the sentinels watch, such as mymaster")
	case o.Mode != Sentinel && o.Primary != "":
		return errors.New("the name of a primary is for mode sentinel")
	case o.Database < 0 || o.Mode == Cluster && o.Database != 0:
		return fmt.Errorf("database %d: a cluster has only number 0, and others none below it", o.Database)
	case o.Timeout < 0 || o.LeaseTTL < 0 || o.LeaseTTL > 0 && o.LeaseTTL < time.Second:
		return errors.New("the store's timeout must be positive, and leases last at least a second")
	case strings.ContainsAny(o.Prefix, "{}"):
		return fmt.Errorf("the prefix %q of keys must have no braces: a cluster finds the slot of a key by them", o.Prefix)
	}
	for _, a := range o.Addresses {
		host, port, err := net.SplitHostPort(a)
		if strings.Contains(a, "@") { // what is before it is not shown
			return fmt.Errorf("the store's address …%s names a user or password, which are no part of it", a[strings.LastIndex(a, "@"):])
		}
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("the store's address %q is not of the form host:port", a)
		}
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Mode == "" {
		o.Mode = Standalone
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.LeaseTTL == 0 {
		o.LeaseTTL = DefaultLeaseTTL
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = nobody{}
	}
	return o
}

// What a connection is held to. Requests wait for none of it: they have Options.Timeout.
const (
	dialTimeout = 3 * time.Second // for TCP, TLS and HELLO
	pingEvery   = 5 * time.Second // on a connection that is silent
	pingTimeout = 2 * time.Second // then it is closed
	reconcile   = 5 * time.Second // of the primary with what sentinels say, should their word have been lost
)

// client says how to connect. One connection for each server: all that comes at once is written to it in one go.
func (s *Store) clientOptions() (rueidis.ClientOption, error) {
	o := s.options
	c := rueidis.ClientOption{
		InitAddress: slices.Clone(o.Addresses), SelectDB: o.Database, TLSConfig: o.TLS, DialCtxFn: s.dial,
		Dialer: net.Dialer{Timeout: dialTimeout, KeepAlive: pingEvery}, ConnWriteTimeout: pingTimeout,
		ClientName: "gatehouse", ClientSetInfo: rueidis.DisableClientSetInfo,
		PipelineMultiplex: -1, AlwaysPipelining: true, BlockingPipeline: -1,
		DisableCache: true, DisableRetry: true, ForceSingleClient: o.Mode == Standalone,
		ReadBufferEachConn: 64 << 10, WriteBufferEachConn: 64 << 10,
	}
	var err error
	if o.Credentials != nil {
		if c.Username, c.Password, err = o.Credentials(); err != nil {
			return c, fmt.Errorf("the store's credentials: %w", err)
		}
	}
	if o.Mode != Sentinel {
		return c, nil
	}
	c.Sentinel = rueidis.SentinelOption{
		MasterSet: o.Primary, Dialer: c.Dialer, TLSConfig: o.TLS, ClientName: c.ClientName, TopologyRefreshInterval: reconcile,
	}
	if o.SentinelCredentials != nil {
		if c.Sentinel.Username, c.Sentinel.Password, err = o.SentinelCredentials(); err != nil {
			return c, fmt.Errorf("the sentinels' credentials: %w", err)
		}
	}
	return c, nil
}

// onBehalf marks the context of what requests wait for.
type onBehalf struct{}

// errNoConnection: a request does not wait for a connection to be made.
var errNoConnection = errors.New("there is no connection")

// dial connects for a probe, and for the client's own look at a cluster or at sentinels. On behalf of requests it does not: the client
// would let all of them wait for it, for as long as the network likes.
func (s *Store) dial(ctx context.Context, address string, d *net.Dialer, secure *tls.Config) (net.Conn, error) {
	if ctx.Value(onBehalf{}) != nil {
		s.lost(fmt.Errorf("%s: %w", address, errNoConnection))
		return nil, errNoConnection
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if secure == nil {
		return d.DialContext(ctx, "tcp", address)
	}
	if secure.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		secure = secure.Clone()
		secure.ServerName = host
	}
	return (&tls.Dialer{NetDialer: d, Config: secure}).DialContext(ctx, "tcp", address)
}
