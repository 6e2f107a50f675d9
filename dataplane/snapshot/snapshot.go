package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// Snapshot is everything that the data plane must do.
type Snapshot struct {
	Sockets  []Socket
	Backends []Backend // every backend that a rule or mirror of it names, each once
}

// Name is a namespaced name.
type Name struct{ Namespace, Name string }

func (n Name) String() string { return n.Namespace + "/" + n.Name }

// SocketKey names a listening socket: what accepted a connection decides which Gateway it speaks to (cluster 21).
type SocketKey struct {
	Gateway Name
	Address netip.Addr // the zero Addr: all addresses, both families
	Port    uint16     // the port that is bound
}

// Bind is the address to listen on, as net.Listen takes it.
func (k SocketKey) Bind() string {
	if !k.Address.IsValid() {
		return ":" + strconv.Itoa(int(k.Port))
	}
	return netip.AddrPortFrom(k.Address, k.Port).String()
}

// ListenerKey names one listener of a Gateway (or, later, of a ListenerSet).
type ListenerKey struct {
	Gateway Name
	Section string
}

func (k ListenerKey) String() string { return k.Gateway.String() + "/" + k.Section }

// Protocol is what is spoken on a socket.
type Protocol string

const (
	HTTP  Protocol = "HTTP"
	HTTPS Protocol = "HTTPS"
)

// Socket is one listening socket, and the listeners of one Gateway that share it. Tables of two Gateways are never merged.
type Socket struct {
	Key       SocketKey
	SpecPort  uint16 // the port in the Gateway's spec: what clients see, and redirects name
	Protocol  Protocol
	Listeners []*Listener // hostnames are distinct
}

// Listener is one listener. Among those of a socket, the one with the most specific hostname serves a request, and no other.
type Listener struct {
	Key      ListenerKey
	Hostname string   // "" any; "*.example.com": one or more labels in front; "example.com"
	TLS      *TLS     // nil in the clear
	Pre      []Filter // runs before the match, in the declared order (GEP-5224)
	Default  []Filter // the chain of what matches no rule: policies of the Gateway hold there too
	// Deny, when set, answers everything on this listener with this failure (a security policy of the Gateway in error).
	Deny  *Failure
	Hosts []Host
}

// TLS is how a listener terminates TLS. Several certificates: the one that fits the server name and the client's algorithms serves.
type TLS struct {
	Certificates []Secret
	MinVersion   uint16 // as crypto/tls numbers it; 0: the default, TLS 1.2
	Clients      *Clients
}

// Clients says how certificates of clients are checked; they are asked for in each handshake.
type Clients struct {
	Roots []byte // PEM of certificate authorities; none of use: nobody is let in (but Optional)
	// Optional lets a client in that has none, or one that does not verify: it has proven nothing then (GEP-91, AllowInsecureFallback).
	Optional bool
}

// Host is what is routed for one hostname of routes. Name is the route's own hostname, before it was intersected with the listener's
// ("" when the route has none): a request is matched against the hosts from the most specific down, and falls through when no rule
// matches.
type Host struct {
	Name    string
	Matches []Match // in order of age: oldest route first, then namespace/name, then rule, then match: what decides between equals
}

// Match is one condition under which a rule serves.
type Match struct {
	Path    PathMatch
	Method  string // "" any
	Headers []ValueMatch
	Queries []ValueMatch
	Rule    *Rule
}

// PathKind is how a path is matched. Exact wins over RegularExpression, that over Prefix; a longer prefix over a shorter one.
type PathKind string

const (
	PathPrefix PathKind = "Prefix" // segment-wise; a trailing slash is ignored
	PathExact  PathKind = "Exact"
	PathRegex  PathKind = "Regex" // RE2, the whole path
)

// PathMatch matches the normalised path. The zero value matches every path.
type PathMatch struct {
	Kind  PathKind
	Value string
	// GRPC marks a match on service and method, so that precedence counts characters of each (GRPCRoute).
	GRPC bool
}

// ValueMatch matches a header (name without case) or a query parameter (name with case).
type ValueMatch struct {
	Name  string
	Value string
	Regex bool // RE2, the whole value
}

// RuleKey names a rule: what keeps its identity over snapshots.
type RuleKey struct {
	Kind  string // HTTPRoute, GRPCRoute
	Route Name
	Rule  int    // index in the route
	Name  string // the rule's own name; "" none
}

func (k RuleKey) String() string { return k.Kind + " " + k.Route.String() + " rule " + k.RuleName() }

// RuleName is the rule's name, or its index.
func (k RuleKey) RuleName() string {
	if k.Name != "" {
		return k.Name
	}
	return strconv.Itoa(k.Rule)
}

// Rule is what is done with a request. One Rule may serve several matches, hosts and listeners.
type Rule struct {
	Key      RuleKey
	Filters  []Filter // in the order in which a request meets them (dataplane/filters.go sorts; Build keeps equals as declared)
	Security string   // fingerprint of what decides about access; a stream that outlives a change of it is closed
	Failure  *Failure // set: the rule answers with it after its filters; nothing is forwarded
	Backends []WeightedBackend
	Mirrors  []Mirror
	Timeouts Timeouts
	Retry    Retry
}

// Failure is an answer that a rule gives because its configuration lacks something. Reason is one of message's words.
type Failure struct {
	Reason string // a word of message.Reason, such as "backend_invalid"
	Detail string // for the access log
}

// WeightedBackend is a share of a rule's requests.
type WeightedBackend struct {
	Ref     BackendRef
	Weight  uint32   // of the sum of all weights; 0: nothing
	Filters []Filter // those of the backendRef: they act on the attempt
	Failure *Failure // the reference cannot be resolved: its share is answered with this
}

// Mirror sends a copy of a share of the requests to a backend, and drops the answers.
type Mirror struct {
	Ref         BackendRef
	Numerator   uint32 // of Denominator requests
	Denominator uint32
}

// Timeouts of a rule; 0: not set (the process default holds), negative: none at all ("0s" in the route).
type Timeouts struct {
	Request time.Duration // from the request's head to the end of the answer's head, all attempts together
	Backend time.Duration // of one attempt, to the end of the answer's head
}

// Retry says what is tried again, and how often.
type Retry struct {
	Set      bool          // the route says so itself; else the process default holds
	Attempts int           // extra attempts, 0: none
	Codes    []int         // answers of a backend that are tried again, ascending
	Backoff  time.Duration // the least time between two attempts; 0: none
}

// BackendRef names a backend; it is comparable and a key.
type BackendRef struct {
	Service Name
	Port    uint16 // of the Service, or of Outside
	Owner   string // the policy that gives it settings of its own; "" none
	// Outside is a host outside of the cluster (an issuer of tokens); Service is empty then. See Backend.Outside.
	Outside string
}

func (r BackendRef) String() string {
	s := r.Service.String() + ":" + strconv.Itoa(int(r.Port))
	if r.Outside != "" {
		s = "outside/" + net.JoinHostPort(r.Outside, strconv.Itoa(int(r.Port)))
	}
	if r.Owner != "" {
		s += "@" + r.Owner
	}
	return s
}

// BackendProtocol is what a backend speaks.
type BackendProtocol string

const (
	BackendHTTP BackendProtocol = ""    // HTTP/1.1; gRPC requests go as h2c
	BackendH2C  BackendProtocol = "h2c" // appProtocol kubernetes.io/h2c
	BackendWS   BackendProtocol = "ws"  // appProtocol kubernetes.io/ws: HTTP/1.1
)

// Backend is a group of endpoints and how it is spoken to. Its endpoints come by the short way (SetEndpoints).
type Backend struct {
	Ref       BackendRef
	Protocol  BackendProtocol
	Algorithm string // a name of balance.Algorithms; "" the default
	TLS       *BackendTLS
	Outside   *Outside // its TLS says for itself how it is verified
}

// BackendTLS says that a backend is spoken to over TLS, and how it is verified.
type BackendTLS struct {
	ServerName string // sent as SNI, and what the certificate must be valid for; never ""
	Roots      []byte // PEM; nil: the system's
}

// Outside says how a host outside of the cluster is spoken to, for calls of our own. Its endpoints are what DNS says: addresses on
// loopback, link-local and private ranges are refused unless Private (threats 29, 38). Nothing that it answers is followed elsewhere.
type Outside struct {
	TLS     bool
	Roots   []byte // PEM; nil: the system's
	Private bool   // private addresses (RFC 1918, RFC 4193) may be spoken to; loopback only where endpoints may be on it
}

// Endpoint is one address of a backend.
type Endpoint struct {
	Address netip.AddrPort
	Zone    string
	// Draining endpoints are terminating and still serve: they are used only when no other is there, as kube-proxy does.
	Draining bool
}

// Endpoints is the whole set of one backend: what isn't named any more is gone. A backend that never was told differs from one that
// was told of none.
type Endpoints struct {
	Backend   BackendRef
	Endpoints []Endpoint
}

// Filter is the settings of one filter, as data: String is its text form, and equality is by text. Configs use ordered slices, no
// maps.
type Filter interface {
	FilterName() string
	String() string
}

// Secret is a certificate chain and its key in PEM. It prints and marshals as a hash.
type Secret struct {
	Name        Name // of the Kubernetes Secret
	Certificate []byte
	Key         []byte
}

// Hash is a fingerprint of both parts.
func (s Secret) Hash() string {
	h := sha256.New()
	h.Write(s.Certificate)
	h.Write([]byte{0})
	h.Write(s.Key)
	return hex.EncodeToString(h.Sum(nil)[:6])
}

func (s Secret) String() string               { return s.Name.String() + "#" + s.Hash() }
func (s Secret) GoString() string             { return s.String() }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Sensitive is bytes that nobody may read: an API key, the hash of a password, a client's secret. It prints and marshals as a hash.
type Sensitive struct {
	Name Name   // of the Kubernetes Secret
	Key  string // the entry in it
	Data []byte
}

func (s Sensitive) String() string {
	sum := sha256.Sum256(s.Data)
	return s.Name.String() + "/" + s.Key + "#" + hex.EncodeToString(sum[:6])
}
func (s Sensitive) GoString() string             { return s.String() }
func (s Sensitive) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// BindResult is what became of each socket of a snapshot.
type BindResult struct {
	Sockets []BindState // in the snapshot's order
}

// BindState is one socket: bound, or failed and why.
type BindState struct {
	Key SocketKey
	Err error // nil: bound
}
