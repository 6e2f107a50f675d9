package nethttp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/wiretest"
)

// secure is an engine behind TLS, as listen puts it there: the handshake is done before Serve.
type secure struct {
	message.Engine
	config *tls.Config
}

type secureServer struct {
	message.Server
	config *tls.Config
}

func (s secure) Open(h message.Handler, limits message.Limits) message.Server {
	return &secureServer{s.Engine.Open(h, limits), s.config}
}

func (s *secureServer) Serve(nc net.Conn, info *message.Conn) {
	tc := tls.Server(nc, s.config)
	if tc.Handshake() != nil {
		nc.Close()
		return
	}
	state := tc.ConnectionState()
	info.TLS = &message.TLSState{ServerName: state.ServerName, ALPN: state.NegotiatedProtocol}
	s.Server.Serve(tc, info)
}

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestALPNDecidesTheProtocolBehindTLS(t *testing.T) {
	e := secure{nethttp.New(), &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"h2", "http/1.1"}}}
	for _, h2 := range []bool{false, true} {
		var seen []string
		spy := wiretest.NewSpy(func(ex *message.Exchange) {
			seen = append(seen, ex.Request.Version.String()+" "+ex.Conn.TLS.ServerName+" "+wiretest.Dump(ex))
			ex.Response = wiretest.Text(200, "ok")
		})
		addr, _ := wiretest.Listen(t, e, spy, wiretest.Limits())
		rt := &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "example.com"}, DisableCompression: true, Protocols: new(http.Protocols),
		}
		rt.Protocols.SetHTTP1(!h2)
		rt.Protocols.SetHTTP2(h2)
		t.Cleanup(rt.CloseIdleConnections)
		version := map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[h2]
		for range 2 {
			req, _ := http.NewRequest("POST", "https://"+addr+"/", strings.NewReader("hello"))
			req.Host, req.Header = "example.com", http.Header{"User-Agent": nil}
			res, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			content, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(content) != "ok" {
				t.Errorf("%q", content)
			}
		}
		spy.Ends(t, 2)
		want := version + " example.com POST https://example.com[example.com:0] / path=/\nbody 5 \"hello\"\n"
		if seen[0] != want || seen[1] != want {
			t.Errorf("seen\n%swant\n%s", strings.Join(seen, ""), want)
		}
	}
}

func TestABadHeadBehindTLSIsAnsweredToo(t *testing.T) {
	e := secure{nethttp.New(), &tls.Config{Certificates: []tls.Certificate{certificate(t)}}}
	spy := wiretest.NewSpy(nil)
	addr, _ := wiretest.Listen(t, e, spy, wiretest.Limits())
	tc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	tc.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(tc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	all, err := io.ReadAll(tc)
	if err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 400 ") {
		t.Errorf("%q, %v", all, err)
	}
	if end := spy.Ends(t, 1)[0]; end.Reason != message.ReasonBadFraming {
		t.Errorf("end %+v", end)
	}
}
