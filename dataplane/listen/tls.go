package listen

import (
	"crypto/tls"
	"strconv"
	"sync"

	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/keyring"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// terminator is how one listener terminates TLS. It lives in keep by its fingerprint, so a listener that stays keeps its tls.Config.
type terminator struct {
	listener     snapshot.ListenerKey
	fingerprint  string // of all settings: who has another one is told to leave
	proof        string // of those that decide about access: who has another one is not served
	certificates []tls.Certificate
	problems     []Problem

	clients *clients // nil: they are not asked for certificates
	config  *tls.Config
	keys    *keyring.Ring
	mu      sync.Mutex // guards keysOf
	keysOf  uint64     // the round of keys of which config's ticket keys are
}

// Keys of what this room keeps.
type (
	terminatorKey  struct{ fingerprint string }
	certificateKey struct{ secret, hash string }
)

func (l *Listen) terminator(p *Plan, round *keep.Round, metrics *telemetry.Round, listener *snapshot.Listener) *terminator {
	settings := listener.TLS
	if settings == nil {
		settings = &snapshot.TLS{} // an HTTPS listener without certificates: its handshakes fail
	}
	least := max(settings.MinVersion, tls.VersionTLS12)
	proves := []string{listener.Key.Gateway.Namespace, listener.Key.Gateway.Name, listener.Key.Section, strconv.Itoa(int(least))}
	if c := settings.Clients; c != nil {
		proves = append(proves, string(c.Roots), strconv.FormatBool(c.Optional))
	}
	proof := digest(proves...)
	words := []string{proof}
	for _, s := range settings.Certificates {
		words = append(words, s.Name.Namespace, s.Name.Name, s.Hash())
	}
	fingerprint := digest(words...)

	parsed := make([]*certificate, len(settings.Certificates))
	for i, s := range settings.Certificates {
		parsed[i] = keep.Get(round, certificateKey{s.Name.String(), s.Hash()}, func() *certificate { return parse(s) })
		if parsed[i].err == nil {
			metrics.Certificate(listener.Key.Gateway.String(), listener.Key.Section, s.Name.String(), parsed[i].Leaf.NotAfter)
		}
	}
	made := false
	t := keep.Get(round, terminatorKey{fingerprint}, func() *terminator {
		made = true
		t := newTerminator(listener.Key, fingerprint, proof, least, settings.Certificates, parsed, l.options.Keys)
		t.ask(settings.Clients)
		return t
	})
	for _, problem := range t.problems {
		problem.New = made
		p.Problems = append(p.Problems, problem)
	}
	return t
}

func newTerminator(key snapshot.ListenerKey, fingerprint, proof string, least uint16, secrets []snapshot.Secret, parsed []*certificate, keys *keyring.Ring) *terminator {
	t := &terminator{listener: key, fingerprint: fingerprint, proof: proof, keys: keys}
	for i, c := range parsed {
		if c.err != nil {
			t.problems = append(t.problems, Problem{Listener: key, Secret: secrets[i].Name, Err: c.err})
			continue
		}
		t.certificates = append(t.certificates, c.Certificate)
	}
	t.config = &tls.Config{
		MinVersion:     least,
		CipherSuites:   suites,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: t.certificate,
	}
	return t
}

// suites of TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 4.2). Those of TLS 1.3 are all so.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// certificate is a secret that was parsed, or why it could not be.
type certificate struct {
	tls.Certificate
	err error
}

func parse(s snapshot.Secret) *certificate {
	pair, err := tls.X509KeyPair(s.Certificate, s.Key)
	return &certificate{pair, err}
}

// certificate picks the first one that fits the server name and what the client understands; else the first that the client
// understands, for a client that does not check names.
func (t *terminator) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for i := range t.certificates {
		if hello.SupportsCertificate(&t.certificates[i]) == nil {
			return &t.certificates[i], nil
		}
	}
	nameless := *hello
	nameless.ServerName = ""
	for i := range t.certificates {
		if nameless.SupportsCertificate(&t.certificates[i]) == nil {
			return &t.certificates[i], nil
		}
	}
	return &t.certificates[0], nil // choose has seen that there is one; the handshake says what does not fit
}

// ready gives the config the ticket keys of the hour: derived alike on all replicas, for what the handshake proves and nothing else. They
// are set before the first use: a config without keys of its own would use those of the config that all listeners share, and a ticket of
// one would open another (contracts 20).
func (t *terminator) ready() *tls.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	if round := t.keys.Round(); round != t.keysOf {
		var keys [][32]byte
		for _, k := range t.keys.Derive("tickets " + t.proof) {
			keys = append(keys, [32]byte(k))
		}
		t.config.SetSessionTicketKeys(keys)
		t.keysOf = round
	}
	return t.config
}

// hello is what a handshake chose. It travels in the handshake's context.
type hello struct {
	names   *names
	chosen  *terminator
	refused string // why there is none, as a metric's word
}

type helloKey struct{}

// refusal has no certificate and no keys that anything was sealed with: crypto/tls answers unrecognized_name (RFC 6066 3).
var refusal = &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}

// choose finds the listener by server name, and gives its settings.
func choose(info *tls.ClientHelloInfo) (*tls.Config, error) {
	h := info.Context().Value(helloKey{}).(*hello)
	t := h.names.find(info.ServerName)
	switch {
	case t == nil:
		h.refused = "no_listener"
		return refusal, nil
	case len(t.certificates) == 0:
		h.refused = "no_certificate"
		return refusal, nil
	}
	h.chosen = t
	return t.ready(), nil
}
