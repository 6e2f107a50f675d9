package listen

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// clients is how the certificates of clients are checked.
type clients struct {
	roots    *x509.CertPool
	optional bool
}

// ask makes the handshake ask for a certificate, and demand one that verifies unless it is optional. What was proven is part of the
// terminator's proof: a connection, or a ticket, that was made under other authorities is good for nothing here.
func (t *terminator) ask(settings *snapshot.Clients) {
	if settings == nil {
		return
	}
	c := &clients{roots: x509.NewCertPool(), optional: settings.Optional}
	c.roots.AppendCertsFromPEM(settings.Roots) // none of use: the pool is empty, and nothing verifies
	t.clients = c
	t.config.ClientCAs = c.roots // told to the client too, so that it knows which of its certificates to send
	t.config.ClientAuth = tls.RequireAndVerifyClientCert
	if c.optional {
		t.config.ClientAuth = tls.RequestClientCert
	}
}

// proven are the certificates that a client has been verified by, its own first; nil: it has proven nothing.
func (c *clients) proven(state *tls.ConnectionState) []*x509.Certificate {
	switch {
	case c == nil || len(state.PeerCertificates) == 0:
		return nil
	case !c.optional:
		if len(state.VerifiedChains) == 0 {
			return nil // crypto/tls has ended the handshake already
		}
		return state.PeerCertificates
	}
	between := x509.NewCertPool()
	for _, p := range state.PeerCertificates[1:] {
		between.AddCert(p)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: c.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil
	}
	return state.PeerCertificates
}
