package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// trust decides whose word about a request's origin is believed.
type trust struct{ proxies []netip.Prefix }

func (t trust) of(a netip.Addr) bool {
	for _, p := range t.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// prepare finds out who asks and how, and makes the forwarded fields ours: continued when the peer is trusted, made anew otherwise.
// Nothing that a stranger says about X-Forwarded-*, Forwarded or X-Real-IP passes, in any spelling (threats 7, 8, 9).
func (p *Proxy) prepare(ex *message.Exchange) {
	r := &ex.Request
	peer := ex.Conn.Remote.Addr().Unmap()
	trusted := p.trust.of(peer)

	var chain, host, port, forwarded string
	if trusted {
		chain = strings.Join(r.Header.Values("X-Forwarded-For"), ", ")
		host, _ = r.Header.Only("X-Forwarded-Host")
		port, _ = r.Header.Only("X-Forwarded-Port")
		forwarded = strings.Join(r.Header.Values("Forwarded"), ", ")
		if proto, ok := r.Header.Only("X-Forwarded-Proto"); ok && (proto == "http" || proto == "https") {
			r.Scheme = proto
		}
		if id, ok := r.Header.Only("X-Request-Id"); ok && saneID(id) {
			ex.ID = id
		}
	}
	r.Header.DelFunc(ours)

	ex.ClientIP = p.client(peer, trusted, chain)
	if ex.ID == "" {
		ex.ID = newID()
	}
	if chain != "" {
		chain += ", "
	}
	if host == "" {
		host = r.Host.Raw
	}
	if port == "" {
		port = defaultPort(r)
	}
	peerText := peer.String()
	r.Header.Add("X-Forwarded-For", chain+peerText)
	r.Header.Add("X-Forwarded-Proto", r.Scheme)
	r.Header.Add("X-Forwarded-Host", host)
	r.Header.Add("X-Forwarded-Port", port)
	r.Header.Add("X-Request-Id", ex.ID)
	if p.options.Forwarded {
		if forwarded != "" {
			forwarded += ", "
		}
		r.Header.Add("Forwarded", forwarded+forwardedElement(peer, r))
	}
}

// client is the first address from the right of the chain that is not a trusted proxy (RFC 7239 8.1 on why not the leftmost).
func (p *Proxy) client(peer netip.Addr, trusted bool, chain string) netip.Addr {
	client := peer
	for trusted && chain != "" {
		var last string
		if i := strings.LastIndexByte(chain, ','); i >= 0 {
			chain, last = chain[:i], chain[i+1:]
		} else {
			chain, last = "", chain
		}
		a, err := netip.ParseAddr(strings.TrimSpace(last))
		if err != nil {
			return client
		}
		client = a.Unmap().WithZone("")
		trusted = p.trust.of(client)
	}
	return client
}

// ours reports whether a request field is one that only Gatehouse sets, in whatever spelling: "_" reads as "-" to many servers.
func ours(name, _ string) bool {
	const forwarded = "x-forwarded-"
	if len(name) < len("proxy") {
		return false
	}
	switch name[0] {
	case 'x', 'X':
		return len(name) > len(forwarded) && message.AliasName(name[:len(forwarded)], forwarded) || message.AliasName(name, "x-real-ip") || message.AliasName(name, "x-request-id")
	case 'f', 'F':
		return message.AliasName(name, "forwarded")
	case 'p', 'P':
		return message.AliasName(name, "proxy") // httpoxy, CVE-2016-5385
	}
	return false
}

func defaultPort(r *message.Request) string {
	if i := strings.LastIndexByte(r.Host.Raw, ':'); i >= 0 && r.Host.Port != 0 {
		return r.Host.Raw[i+1:]
	}
	if r.Scheme == "https" {
		return "443"
	}
	return "80"
}

// forwardedElement is what we add to Forwarded (RFC 7239 4).
func forwardedElement(peer netip.Addr, r *message.Request) string {
	node := peer.String()
	if peer.Is6() {
		node = `"[` + node + `]"`
	}
	return "for=" + node + `;host="` + r.Host.Raw + `";proto=` + r.Scheme
}

func saneID(id string) bool {
	return id != "" && len(id) <= 128 && message.ValidName(id)
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
