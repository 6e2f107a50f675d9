package contracts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// selfSigned makes a certificate for these names.
func selfSigned(t testing.TB, names ...string) snapshot.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot.Secret{
		Name:        snapshot.Name{Namespace: "infra", Name: names[0]},
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

func secure(l *snapshot.Listener, least uint16, certs ...snapshot.Secret) *snapshot.Listener {
	l.TLS = &snapshot.TLS{Certificates: certs, MinVersion: least}
	return l
}

// secureClient connects to the house whatever a URL says, by that server name.
func (h *house) secureClient(serverName string, h2 bool, cache tls.ClientSessionCache) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{ServerName: serverName, InsecureSkipVerify: true, ClientSessionCache: cache}}
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, h.address())
	}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetHTTP2(h2)
	h.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// ask asks for a host over the connection of another one's name.
func ask(t testing.TB, c *http.Client, host, path string) *http.Response {
	t.Helper()
	req, _ := http.NewRequest("GET", "https://connection.example.com"+path, nil)
	req.Host = host
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res
}

// A connection speaks to the listener whose settings its handshake met, and to no other, whatever Host its requests name.
func TestContract20_AConnectionIsHeldToTheListenerOfItsHandshake(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	h.apply(
		secure(listener("shop", "shop.example.com", rule("a", "a")), 0, selfSigned(t, "shop.example.com")),
		secure(listener("admin", "admin.example.com", rule("a", "a")), tls.VersionTLS13, selfSigned(t, "admin.example.com")),
		secure(listener("rest", "*.example.com", rule("a", "a")), 0, selfSigned(t, "*.example.com")),
	)
	for _, h2 := range []bool{false, true} {
		c := h.secureClient("shop.example.com", h2, nil)
		for host, want := range map[string]int{"shop.example.com": 200, "admin.example.com": 421, "other.example.com": 421, "nowhere.org": 421, "SHOP.example.com.": 200} {
			if res := ask(t, c, host, "/a"); res.StatusCode != want {
				t.Errorf("h2 %v, %s: %d, want %d", h2, host, res.StatusCode, want)
			}
		}
	}
	h.tally.last(t, 10)
}

// When the listener demands more of clients than the connection has proved, its requests are refused, and it ends.
func TestContract20_AConnectionThatProvedTooLittleIsNotServed(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	cert := selfSigned(t, "shop.example.com")
	apply := func(least uint16) {
		h.apply(secure(listener("shop", "shop.example.com", rule("a", "a")), least, cert))
	}
	apply(tls.VersionTLS12)
	nc, err := tls.Dial("tcp", h.address(), &tls.Config{ServerName: "shop.example.com", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	c := h.secureClient("shop.example.com", true, nil)
	ask(t, c, "shop.example.com", "/a")

	apply(tls.VersionTLS13)
	io.WriteString(nc, "GET /a HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")
	all, _ := io.ReadAll(nc) // to the end of the connection
	if len(all) < 12 || string(all[9:12]) != "421" {
		t.Errorf("the old connection gets %q", all)
	}
	if res := ask(t, c, "shop.example.com", "/a"); res.StatusCode != 200 && res.StatusCode != 421 {
		t.Errorf("HTTP/2: %d", res.StatusCode)
	}
	if res := ask(t, c, "shop.example.com", "/a"); res.StatusCode != 200 { // by a new connection, at the latest now
		t.Errorf("HTTP/2 afterwards: %d", res.StatusCode)
	}
	if n := h.figure("connections_accepted_total"); n != 3 {
		t.Errorf("%v connections, want a third one", n)
	}
}

// HTTP that becomes HTTPS on a socket, or the other way, leaves no connection that speaks as it did.
func TestContract20_AConnectionInTheClearIsNotServedByHTTPS(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	h.serve(rule("a", "a"))
	c := h.dial()
	defer c.close()
	if status, _ := c.ask("GET", "/a", ""); status != 200 {
		t.Fatal(status)
	}
	h.apply(secure(listener("http", "", rule("a", "a")), 0, selfSigned(t, "shop.example.com")))
	if status, _ := c.ask("GET", "/a", ""); status != 421 && status != 0 {
		t.Errorf("over the old connection: %d", status)
	}
	if !c.ended() {
		t.Error("the old connection stays")
	}
	if res := ask(t, h.secureClient("shop.example.com", false, nil), "shop.example.com", "/a"); res.StatusCode != 200 {
		t.Error(res.StatusCode)
	}
}

// Tickets outlive an Apply and a new certificate, and open no other listener.
func TestContract20_TicketsSurviveAnApplyAndStayWithTheirListener(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	apply := func() {
		h.apply(
			secure(listener("shop", "shop.example.com", rule("a", "a")), 0, selfSigned(t, "shop.example.com")),
			secure(listener("admin", "admin.example.com", rule("a", "a")), 0, selfSigned(t, "admin.example.com")),
		)
	}
	apply()
	cache := &oneSession{}
	visit := func(name string) bool {
		c := h.secureClient(name, false, cache)
		res := ask(t, c, name, "/a")
		c.CloseIdleConnections()
		if res.StatusCode != 200 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
		return res.TLS.DidResume
	}
	if visit("shop.example.com") {
		t.Error("resumed from nothing")
	}
	apply()
	if !visit("shop.example.com") {
		t.Error("an Apply with another certificate cost the sessions")
	}
	if visit("admin.example.com") {
		t.Error("a ticket of shop opened admin")
	}
	if reason := h.tally.last(t, 3).reason; reason != message.ReasonNone {
		t.Errorf("the last ended with %v", reason)
	}
}

// oneSession offers its one session to everybody: a client that tries tickets where they do not belong.
type oneSession struct{ session *tls.ClientSessionState }

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.session, o.session != nil }
func (o *oneSession) Put(_ string, s *tls.ClientSessionState)    { o.session = s }
