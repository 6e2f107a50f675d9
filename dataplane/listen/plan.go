package listen

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// Plan is what connections need of a snapshot: which sockets there are, and who terminates TLS for which name. It is immutable.
type Plan struct {
	sockets map[snapshot.SocketKey]*planned
	order   []*planned // as in the snapshot

	// Problems are certificates that cannot be used. They hurt their listener only, whose handshakes fail when none is left.
	Problems []Problem
}

// Problem is a certificate that cannot be used, and why.
type Problem struct {
	Listener snapshot.ListenerKey
	Secret   snapshot.Name
	Err      error
	New      bool // found by this Prepare: an earlier plan did not have it
}

// planned is one socket.
type planned struct {
	key     snapshot.SocketKey
	tls     bool
	names   names
	metrics *telemetry.Gateway
	// fates are the groups that may live on: by fate, what they must have proved.
	fates map[fate]string
	// proofs are what handshakes of each listener prove now.
	proofs map[snapshot.ListenerKey]string
}

// fate is what connections share that are told to leave together.
type fate struct {
	socket      snapshot.SocketKey
	fingerprint string // of listener and TLS settings; "" in the clear
}

// Prepare makes a plan of a snapshot's sockets. What outlives it (certificates, TLS settings, ticket keys) is asked for in round, and
// figures in metrics, which may be nil.
func (l *Listen) Prepare(round *keep.Round, metrics *telemetry.Round, sockets []snapshot.Socket) *Plan {
	p := &Plan{sockets: make(map[snapshot.SocketKey]*planned, len(sockets))}
	for i := range sockets {
		s := &sockets[i]
		if _, doubled := p.sockets[s.Key]; doubled {
			continue // Build says each once
		}
		made := l.prepareSocket(p, round, metrics, s)
		p.sockets[s.Key] = made
		p.order = append(p.order, made)
	}
	return p
}

func (l *Listen) prepareSocket(p *Plan, round *keep.Round, metrics *telemetry.Round, s *snapshot.Socket) *planned {
	out := &planned{
		key: s.Key, tls: s.Protocol == snapshot.HTTPS, metrics: metrics.Gateway(s.Key.Gateway.String()),
		fates: map[fate]string{}, proofs: map[snapshot.ListenerKey]string{},
	}
	if !out.tls {
		out.fates[fate{socket: s.Key}] = ""
		return out
	}
	for _, listener := range s.Listeners {
		t := l.terminator(p, round, metrics, listener)
		out.names.add(listener.Hostname, t)
		out.fates[fate{s.Key, t.fingerprint}] = t.proof
		out.proofs[listener.Key] = t.proof
	}
	return out
}

// Fingerprint is what a handshake with that listener proves now (message.TLSState.Fingerprint): it covers listener, least version and
// client authentication, and not the listener's certificates. A connection with another one must not be served: 421. It is "" when the
// listener is not there, or not for TLS.
func (p *Plan) Fingerprint(socket snapshot.SocketKey, listener snapshot.ListenerKey) string {
	if s := p.socket(socket); s != nil {
		return s.proofs[listener]
	}
	return ""
}

// Holds reports whether what was decided when the connection was made still holds: its socket is there, speaks TLS or not as it did,
// and its handshake proved what the listener demands. The root asks per request, and answers 421 when it doesn't (contracts 20).
func (p *Plan) Holds(c *message.Conn) bool {
	key, _ := c.Socket.(snapshot.SocketKey)
	s := p.socket(key)
	if s == nil || s.tls != (c.TLS != nil) {
		return false
	}
	if c.TLS == nil {
		return true
	}
	listener, _ := c.Listener.(snapshot.ListenerKey)
	proof, found := s.proofs[listener]
	return found && proof == c.TLS.Fingerprint
}

func (p *Plan) socket(key snapshot.SocketKey) *planned {
	if p == nil {
		return nil
	}
	return p.sockets[key]
}

// names finds the listener for a server name: the most specific hostname wins.
type names struct {
	exact    map[string]*terminator
	suffixes map[string]*terminator // ".example.com" for "*.example.com": one or more labels in front
	any      *terminator
}

func (n *names) add(hostname string, t *terminator) {
	hostname = strings.ToLower(hostname)
	switch {
	case hostname == "":
		if n.any == nil {
			n.any = t
		}
	case strings.HasPrefix(hostname, "*."):
		n.suffixes = addTo(n.suffixes, hostname[1:], t)
	default:
		n.exact = addTo(n.exact, hostname, t)
	}
}

func addTo(m map[string]*terminator, name string, t *terminator) map[string]*terminator {
	if m == nil {
		m = map[string]*terminator{}
	}
	if _, taken := m[name]; !taken {
		m[name] = t
	}
	return m
}

// find returns nil when no listener is for that name. Without a name only the listener without hostname serves.
func (n *names) find(serverName string) *terminator {
	name := strings.TrimSuffix(message.Lower(serverName), ".")
	if name == "" {
		return n.any
	}
	if t := n.exact[name]; t != nil {
		return t
	}
	for rest := name; len(n.suffixes) > 0; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			break
		}
		if t := n.suffixes[rest[dot:]]; t != nil && dot > 0 {
			return t
		}
		rest = rest[dot+1:]
	}
	return n.any
}

// digest is a fingerprint of words, of which none can look like two.
func digest(words ...string) string {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintf(h, "%d:%s,", len(w), w)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
