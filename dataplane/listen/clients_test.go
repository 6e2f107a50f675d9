package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// card is a certificate for a client, good for that usage.
func (ca *issuer) card(t *testing.T, name string, usage x509.ExtKeyUsage) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(100 + serial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (ca *issuer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw})
}

// asking makes a listener ask its clients for certificates.
func asking(l *snapshot.Listener, roots []byte, optional bool) *snapshot.Listener {
	l.TLS.Clients = &snapshot.Clients{Roots: roots, Optional: optional}
	return l
}

// enters connects with that certificate (nil: none), whatever the server says that it wants. It reports whether the server asked for one,
// and what it knows of the connection; nil: it did not let it in.
func enters(t *testing.T, r *rig, port uint16, version uint16, card *tls.Certificate) (asked bool, info *message.Conn) {
	t.Helper()
	c, err := dialTLS(t, port, "a.example.com", &tls.Config{MinVersion: version, MaxVersion: version,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			if card == nil {
				return &tls.Certificate{}, nil
			}
			return card, nil
		}})
	if err != nil {
		return asked, nil
	}
	if _, err := c.say("hello"); err != nil { // in TLS 1.3 the client's handshake ends before the server has looked
		return asked, nil
	}
	return asked, <-r.engine.conns
}

func TestAClientProvesWhatTheListenerDemands(t *testing.T) {
	ours, theirs := newIssuer(), newIssuer()
	cards := map[string]*tls.Certificate{
		"right": ours.card(t, "alice", x509.ExtKeyUsageClientAuth), "none": nil, "of another authority": theirs.card(t, "alice", x509.ExtKeyUsageClientAuth),
		"for servers": ours.card(t, "alice", x509.ExtKeyUsageServerAuth),
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, optional := range []bool{false, true} {
			r := start(t, nil)
			port := freePort(t)
			r.bound(secure("gw", port,
				asking(listener("gw", "a", "a.example.com", certified(t, "a.example.com")), ours.pem(), optional),
				listener("gw", "b", "b.example.com", certified(t, "b.example.com"))))
			for name, card := range cards {
				asked, info := enters(t, r, port, version, card)
				if !asked {
					t.Errorf("%x, optional %v: nobody asked for a certificate", version, optional)
				}
				if let := info != nil; let != (optional || name == "right") {
					t.Errorf("%x, optional %v, %s: let in %v", version, optional, name, let)
				}
				if info == nil {
					continue
				}
				if proven := len(info.TLS.Certificates) > 0; proven != (name == "right") {
					t.Errorf("%x, optional %v, %s: proven %v", version, optional, name, proven)
				}
			}
			c, err := dialTLS(t, port, "b.example.com", nil)
			if err != nil {
				t.Fatalf("another listener of the socket asks too: %v", err)
			}
			c.hears(t, "gw b open")
			r.shutdown(5 * time.Second)
		}
	}
}

func TestWithoutAnAuthorityNobodyIsLetIn(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	r.bound(secure("gw", port, asking(listener("gw", "a", "a.example.com", certified(t, "a.example.com")), []byte("no certificate"), false)))
	if _, info := enters(t, r, port, tls.VersionTLS13, newIssuer().card(t, "alice", x509.ExtKeyUsageClientAuth)); info != nil {
		t.Error("a client was let in that nothing was known of")
	}
}

// Contracts 20: what was proven before is good for nothing when something else is demanded, by connection or by ticket.
func TestAChangedAuthorityEndsWhatWasProvenBefore(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		old, fresh := newIssuer(), newIssuer()
		r := start(t, nil)
		port := freePort(t)
		certificate := certified(t, "a.example.com")
		with := func(ca *issuer) snapshot.Socket {
			return secure("gw", port, asking(listener("gw", "a", "a.example.com", certificate), ca.pem(), false))
		}
		card := old.card(t, "alice", x509.ExtKeyUsageClientAuth)
		var p pocket
		connect := func() (*client, bool) {
			c, err := dialTLS(t, port, "a.example.com", &tls.Config{
				ClientSessionCache: &p, MinVersion: version, MaxVersion: version, Certificates: []tls.Certificate{*card},
			})
			if err != nil {
				return nil, false
			}
			if _, err := c.say("hello"); err != nil {
				return nil, false
			}
			return c, c.Conn.(*tls.Conn).ConnectionState().DidResume
		}
		r.bound(with(old))
		if c, _ := connect(); c == nil {
			t.Fatalf("%x: not let in", version)
		}
		info := <-r.engine.conns
		c, resumed := connect()
		if c == nil || !resumed {
			t.Fatalf("%x: the ticket is of no use", version)
		}
		if again := <-r.engine.conns; len(again.TLS.Certificates) != 1 || again.TLS.Certificates[0].Subject.CommonName != "alice" {
			t.Errorf("%x: a resumed connection has forgotten who it is", version)
		}
		r.bound(with(fresh))
		if r.current.Load().Holds(info) {
			t.Errorf("%x: a connection that proved something else is served", version)
		}
		if c, _ := connect(); c != nil {
			t.Errorf("%x: a ticket, or a certificate, of the old authority opens the listener", version)
		}
	}
}
