package nethttp_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/wiretest"
)

func TestTheTransportKeepsTheContract(t *testing.T) {
	wiretest.RunTransport(t, "http1", nethttp.NewTransport, message.ProtocolHTTP1)
	wiretest.RunTransport(t, "h2c", nethttp.NewTransport, message.ProtocolH2C)
	wiretest.RunTransport(t, "https", nethttp.NewTransport, message.ProtocolHTTPS)
	wiretest.RunTransport(t, "h2", nethttp.NewTransport, message.ProtocolH2)
}

// One half of TLS is never taken for the whole: no key without its settings, no settings without their key, nothing in the clear.
func TestAKeyThatDisagreesWithItsTLSSettingsIsRefused(t *testing.T) {
	a := message.TLSKey{ServerName: "a"}
	for _, c := range []struct {
		key message.ConnKey
		tls *message.TLSConfig
	}{
		{message.ConnKey{Protocol: message.ProtocolHTTPS}, nil},
		{message.ConnKey{Protocol: message.ProtocolH2}, nil},
		{message.ConnKey{Protocol: message.ProtocolHTTPS}, &message.TLSConfig{}},
		{message.ConnKey{Protocol: message.ProtocolHTTPS, TLS: a}, nil},
		{message.ConnKey{Protocol: message.ProtocolH2, TLS: a}, &message.TLSConfig{ServerName: "b"}},
		{message.ConnKey{Protocol: message.ProtocolH2, TLS: a}, &message.TLSConfig{ServerName: "a", Fingerprint: "other"}},
		{message.ConnKey{Protocol: message.ProtocolHTTP1, TLS: a}, &message.TLSConfig{ServerName: "a"}},
		{message.ConnKey{Protocol: message.ProtocolH2C, TLS: a}, &message.TLSConfig{ServerName: "a"}},
	} {
		err := nethttp.NewTransport(c.key, message.TransportOptions{TLS: c.tls}).RoundTrip(context.Background(), &message.Attempt{})
		wantReason(t, err, message.ReasonTLSFailed)
	}
}

func wantReason(t *testing.T, err error, reason message.Reason) {
	t.Helper()
	var known *message.Error
	if !errors.As(err, &known) || known.Reason != reason {
		t.Errorf("error %v, want %s", err, reason)
	}
}

// A backend that cannot prove its name gets no byte of a request.
func TestABackendThatCannotProveItsNameGetsNothing(t *testing.T) {
	good, root := wiretest.Certificate(t, "login.example", "127.0.0.1")
	_, stranger := wiretest.Certificate(t, "login.example")
	pool := func(c *x509.Certificate) *x509.CertPool {
		p := x509.NewCertPool()
		p.AddCert(c)
		return p
	}
	for _, c := range []struct {
		name   string
		tls    message.TLSConfig
		reason message.Reason
	}{
		{"right", message.TLSConfig{ServerName: "login.example", Roots: pool(root)}, message.ReasonNone},
		{"right by address", message.TLSConfig{ServerName: "127.0.0.1", Roots: pool(root)}, message.ReasonNone},
		{"another name", message.TLSConfig{ServerName: "other.example", Roots: pool(root)}, message.ReasonTLSFailed},
		{"another address", message.TLSConfig{ServerName: "127.0.0.2", Roots: pool(root)}, message.ReasonTLSFailed},
		{"another root", message.TLSConfig{ServerName: "login.example", Roots: pool(stranger)}, message.ReasonTLSFailed},
		{"the system's roots", message.TLSConfig{ServerName: "login.example"}, message.ReasonTLSFailed},
	} {
		for _, protocol := range []message.Protocol{message.ProtocolHTTPS, message.ProtocolH2} {
			t.Run(c.name+" "+protocol.String(), func(t *testing.T) {
				var asked atomic.Int32
				var names atomic.Value
				addr := serveTLS(t, good, &names, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); io.WriteString(w, "ok") })
				at, err := ask(t, protocol, addr, &c.tls)
				if c.reason != message.ReasonNone {
					wantReason(t, err, c.reason)
					if asked.Load() != 0 || at.Sent != message.SentNothing {
						t.Errorf("asked %d times, sent %d", asked.Load(), at.Sent)
					}
					return
				}
				if err != nil || asked.Load() != 1 {
					t.Fatalf("%v, asked %d times", err, asked.Load())
				}
				sni := c.tls.ServerName
				if net.ParseIP(sni) != nil {
					sni = ""
				}
				if names.Load() != sni {
					t.Errorf("SNI %q, want %q", names.Load(), sni)
				}
			})
		}
	}
}

// A server that speaks HTTP/1.1 only is not spoken to in HTTP/2, and one that never answers the handshake is left in time.
func TestAHandshakeThatLeadsNowhereFailsInTime(t *testing.T) {
	certificate, root := wiretest.Certificate(t, "login.example")
	roots := x509.NewCertPool()
	roots.AddCert(root)
	settings := &message.TLSConfig{ServerName: "login.example", Roots: roots}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	const soon = 200 * time.Millisecond
	_, err = askWithin(t, soon, message.ProtocolHTTPS, l.Addr().String(), settings) // the kernel accepts, and nobody speaks
	wantReason(t, err, message.ReasonConnectTimeout)
	_, err = askWithin(t, soon, message.ProtocolH2, l.Addr().String(), settings)
	wantReason(t, err, message.ReasonConnectTimeout)

	one, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ErrorLog: quiet}
	go srv.Serve(tls.NewListener(one, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	t.Cleanup(func() { srv.Close() })
	_, err = ask(t, message.ProtocolH2, one.Addr().String(), settings)
	wantReason(t, err, message.ReasonTLSFailed)
	if _, err = ask(t, message.ProtocolHTTPS, one.Addr().String(), settings); err != nil {
		t.Error(err)
	}

	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	clear := &http.Server{ErrorLog: quiet}
	go clear.Serve(plain)
	t.Cleanup(func() { clear.Close() })
	_, err = ask(t, message.ProtocolHTTPS, plain.Addr().String(), settings)
	wantReason(t, err, message.ReasonTLSFailed)
}

var quiet = log.New(io.Discard, "", 0)

func serveTLS(t *testing.T, certificate tls.Certificate, name *atomic.Value, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols), ErrorLog: quiet}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	go srv.Serve(tls.NewListener(l, &tls.Config{
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name.Store(hello.ServerName)
			return &certificate, nil
		},
	}))
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

func ask(t *testing.T, protocol message.Protocol, addr string, settings *message.TLSConfig) (*message.Attempt, error) {
	t.Helper()
	return askWithin(t, 10*time.Second, protocol, addr, settings)
}

func askWithin(t *testing.T, connect time.Duration, protocol message.Protocol, addr string, settings *message.TLSConfig) (*message.Attempt, error) {
	t.Helper()
	tr := nethttp.NewTransport(
		message.ConnKey{Endpoint: netip.MustParseAddrPort(addr), Protocol: protocol, TLS: settings.Key()},
		message.TransportOptions{ConnectTimeout: connect, IdleTimeout: time.Second, MaxIdle: 1, TLS: settings},
	)
	t.Cleanup(tr.Retire)
	at := &message.Attempt{Exchange: &message.Exchange{}, Request: message.Request{
		Method: "GET", Scheme: "https", Host: message.Host{Raw: "login.example"}, Target: message.Target{Path: "/"},
	}}
	err := tr.RoundTrip(context.Background(), at)
	if err == nil {
		_, err = wiretest.ReadAll(at.Response.Body)
	}
	return at, err
}
