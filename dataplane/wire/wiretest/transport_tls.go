package wiretest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// secure gives the backend a certificate for shop.example, and the transports the root for it.
func (b *backend) secure(t *testing.T) {
	certificate, root := Certificate(t, "shop.example")
	roots := x509.NewCertPool()
	roots.AddCert(root)
	b.tls = &message.TLSConfig{ServerName: "shop.example", Roots: roots, Fingerprint: "test"}
	b.config = &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}
	if !b.one() {
		b.config.NextProtos = []string{"h2"}
	}
}

// listen opens a socket on loopback, secured if the protocol is.
func (b backend) listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return b.over(l)
}

func (b backend) over(l net.Listener) net.Listener {
	if b.config == nil {
		return l
	}
	return tls.NewListener(l, b.config)
}

// protocols is what a backend by net/http speaks.
func (b backend) protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(b.one())
	p.SetHTTP2(b.protocol == message.ProtocolH2)
	p.SetUnencryptedHTTP2(b.protocol == message.ProtocolH2C)
	return p
}

// socket is the one below a connection.
func socket(nc net.Conn) *net.TCPConn {
	if s, ok := nc.(*tls.Conn); ok {
		nc = s.NetConn()
	}
	return nc.(*net.TCPConn)
}

// Certificate returns one for these names (or addresses), good for an hour, and itself as the root that proves it.
func Certificate(t testing.TB, names ...string) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, root
}
