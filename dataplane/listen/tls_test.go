package listen

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/keyring"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func TestTheServerNameChoosesTheListener(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	all := certified(t, "a.example.com", "b.example.com", "x.b.example.com", "deep.x.example.com", "example.com")
	r.bound(secure("gw", port,
		listener("gw", "wild", "*.example.com", all),
		listener("gw", "exact", "a.example.com", all),
		listener("gw", "deeper", "*.b.example.com", all)))
	for name, want := range map[string]string{
		"a.example.com":      "gw exact open",
		"A.EXAMPLE.com":      "gw exact open",
		"b.example.com":      "gw wild open",
		"x.b.example.com":    "gw deeper open",
		"deep.x.example.com": "gw wild open",
	} {
		c, err := dialTLS(t, port, name, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.hears(t, want)
		if info := <-r.engine.conns; info.TLS.ServerName != strings.ToLower(name) || info.TLS.Fingerprint == "" || info.TLS.Version != tls.VersionTLS13 ||
			info.TLS.Fingerprint != r.current.Load().Fingerprint(info.Socket.(snapshot.SocketKey), info.Listener.(snapshot.ListenerKey)) {
			t.Errorf("%s: %+v", name, info.TLS)
		}
	}
	for _, name := range []string{"example.com", "other.org", ""} {
		_, err := dialTLS(t, port, name, nil)
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: %v, want unrecognized_name", name, err)
		}
	}
	r.counted(`gatehouse_tls_handshake_failures_total{gateway="infra/gw",reason="no_listener"} 3`)
	r.counted(`gatehouse_tls_handshakes_total{gateway="infra/gw",resumed="false",version="1.3"} 5`)

	r.bound(secure("gw", port, listener("gw", "any", "", all), listener("gw", "exact", "a.example.com", all)))
	c, err := dialTLS(t, port, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.hears(t, "gw any open")
}

// FuzzTheMostSpecificHostnameServes compares with the slow, obvious way.
func FuzzTheMostSpecificHostnameServes(f *testing.F) {
	f.Add("a.b.c", "a.b.c *.b.c *.c b.c")
	f.Add("A.B.", "*.b")
	f.Add(".b", "*.b")
	f.Add("", "a")
	f.Fuzz(func(t *testing.T, name, hostnames string) {
		var n names
		all := map[string]*terminator{}
		for h := range strings.FieldsSeq(strings.ToLower(hostnames)) {
			if all[h] == nil {
				all[h] = &terminator{fingerprint: h}
				n.add(h, all[h])
			}
		}
		want, length := (*terminator)(nil), -1
		plain := strings.TrimSuffix(message.Lower(name), ".")
		for h, t := range all {
			score := -1
			if plain != "" && h == plain && !strings.HasPrefix(h, "*.") {
				score = 1 << 20
			} else if s, ok := strings.CutPrefix(h, "*."); ok && strings.HasSuffix(plain, "."+s) && len(plain) > len(s)+1 && !strings.HasSuffix(strings.TrimSuffix(plain, "."+s), ".") {
				score = len(h)
			}
			if score > length {
				want, length = t, score
			}
		}
		if got := n.find(name); got != want {
			t.Errorf("%q among %q: %v, want %v", name, hostnames, got, want)
		}
	})
}

func TestTheCertificateFitsTheNameAndTheClient(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	r.bound(secure("gw", port, listener("gw", "https", "",
		certifiedRSA(t, "a.example.com"), certified(t, "a.example.com"), certified(t, "b.example.com"))))
	only := func(suite uint16) *tls.Config {
		return &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}
	}
	for _, c := range []struct {
		name   string
		config *tls.Config
		want   string // type of key and name
	}{
		{"b.example.com", nil, "ECDSA b.example.com"},
		{"a.example.com", nil, "RSA a.example.com"},
		{"a.example.com", only(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), "ECDSA a.example.com"},
		{"a.example.com", only(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), "RSA a.example.com"},
		{"", only(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), "ECDSA a.example.com"},
	} {
		conn, err := dialTLS(t, port, c.name, c.config)
		if err != nil {
			t.Errorf("%s: %v", c.want, err)
			continue
		}
		leaf := conn.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
		if got := fmt.Sprintf("%s %s", leaf.PublicKeyAlgorithm, leaf.DNSNames[0]); got != c.want {
			t.Errorf("%q got %s, want %s", c.name, got, c.want)
		}
	}
	// A name that no certificate is for gets one all the same: it is the client that checks.
	if _, err := dialTLS(t, port, "c.example.com", nil); err == nil || !strings.Contains(err.Error(), "not c.example.com") {
		t.Errorf("%v", err)
	}
}

func TestOldVersionsAndSuitesAreRefused(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	strict := listener("gw", "strict", "s.example.com", certified(t, "s.example.com"))
	strict.TLS.MinVersion = tls.VersionTLS13
	lax := listener("gw", "lax", "a.example.com", certifiedRSA(t, "a.example.com"))
	lax.TLS.MinVersion = tls.VersionTLS10 // below our own floor
	r.bound(secure("gw", port, strict, lax))
	for sentence, c := range map[string]struct {
		name   string
		config *tls.Config
		ok     bool
	}{
		"TLS 1.1":                        {"a.example.com", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		"TLS 1.2":                        {"a.example.com", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		"TLS 1.2 where 1.3 is the least": {"s.example.com", &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		"CBC":                            {"a.example.com", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}}, false},
		"no forward secrecy":             {"a.example.com", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false},
	} {
		if _, err := dialTLS(t, port, c.name, c.config); (err == nil) != c.ok {
			t.Errorf("%s: %v", sentence, err)
		}
	}
}

func TestTheProtocolIsAgreedOn(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	r.bound(secure("gw", port, listener("gw", "https", "", certified(t, "a.example.com"))))
	for _, c := range []struct {
		offers []string
		want   string
	}{{[]string{"http/1.1", "h2"}, "h2"}, {[]string{"http/1.1"}, "http/1.1"}, {nil, ""}} {
		if _, err := dialTLS(t, port, "a.example.com", &tls.Config{NextProtos: c.offers}); err != nil {
			t.Error(err)
			continue
		}
		if info := <-r.engine.conns; info.TLS.ALPN != c.want {
			t.Errorf("offered %v, got %q", c.offers, info.TLS.ALPN)
		}
	}
	if _, err := dialTLS(t, port, "a.example.com", &tls.Config{NextProtos: []string{"acme-tls/1"}}); err == nil {
		t.Error("an unknown protocol is agreed on")
	}
}

func TestABadCertificateHurtsItsListenerOnly(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	broken := snapshot.Secret{Name: snapshot.Name{Namespace: "infra", Name: "broken"}, Certificate: []byte("no PEM"), Key: []byte("no key")}
	r.bound(secure("gw", port,
		listener("gw", "broken", "broken.example.com", broken),
		listener("gw", "half", "half.example.com", broken, certified(t, "half.example.com")),
		listener("gw", "good", "good.example.com", certified(t, "good.example.com"))))
	if _, err := dialTLS(t, port, "broken.example.com", nil); err == nil {
		t.Error("a handshake without a certificate succeeded")
	}
	r.counted(`gatehouse_tls_handshake_failures_total{gateway="infra/gw",reason="no_certificate"} 1`)
	for _, name := range []string{"half", "good"} {
		c, err := dialTLS(t, port, name+".example.com", nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.hears(t, "gw "+name+" open")
	}
	problems := r.current.Load().Problems
	if len(problems) != 2 || problems[0].Listener.Section != "broken" || problems[0].Secret.Name != "broken" || problems[0].Err == nil || !problems[0].New {
		t.Errorf("problems %v", problems)
	}
	r.counted(`gatehouse_certificate_expiry_timestamp_seconds{gateway="infra/gw",listener="good",secret="` +
		lastCertificate(r, "good") + `"} ` + strconv.FormatFloat(float64(expiry(r, "good")), 'g', -1, 64))
}

func TestAProblemIsNewOnce(t *testing.T) {
	r := start(t, nil)
	s := secure("gw", freePort(t), listener("gw", "broken", "", snapshot.Secret{Certificate: []byte("no PEM")}))
	for n, want := range []bool{true, false} {
		r.bound(s)
		if got := r.current.Load().Problems; len(got) != 1 || got[0].New != want {
			t.Errorf("Apply %d: %+v", n, got)
		}
	}
}

func lastCertificate(r *rig, section string) string {
	for line := range strings.Lines(r.page()) {
		if strings.Contains(line, `listener="`+section+`"`) {
			_, after, _ := strings.Cut(line, `secret="`)
			name, _, _ := strings.Cut(after, `"`)
			return name
		}
	}
	return ""
}

func expiry(r *rig, section string) int64 {
	for _, s := range r.current.Load().order {
		for _, t := range s.names.exact {
			if t.listener.Section == section {
				return t.certificates[0].Leaf.NotAfter.Unix()
			}
		}
	}
	return 0
}

// splitting cuts what is written into TLS records of one byte each, while it is handshake.
type splitting struct {
	net.Conn
	pause func()
}

func (s splitting) Write(b []byte) (int, error) {
	rest := b
	for len(rest) >= 5 && rest[0] == 22 {
		n := int(rest[3])<<8 | int(rest[4])
		for _, c := range rest[5 : 5+n] {
			if _, err := s.Conn.Write([]byte{22, rest[1], rest[2], 0, 1, c}); err != nil {
				return 0, err
			}
			if s.pause != nil {
				s.pause()
			}
		}
		rest = rest[5+n:]
	}
	if len(rest) > 0 {
		if _, err := s.Conn.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func TestAClientHelloInRecordsOfOneByteMeetsTheSameListener(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	r.bound(secure("gw", port,
		listener("gw", "any", "", certified(t, "any")), listener("gw", "strict", "a.example.com", certified(t, "a.example.com"))))
	raw, err := net.Dial("tcp", address(port))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(splitting{Conn: raw}, &tls.Config{ServerName: "a.example.com", RootCAs: authority().roots})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if info := <-r.engine.conns; info.Listener.(snapshot.ListenerKey).Section != "strict" {
		t.Errorf("met %v", info.Listener)
	}
}

func TestAHandshakeThatTakesTooLongIsEnded(t *testing.T) {
	r := start(t, func(o *Options) { o.Handshake = 100 * time.Millisecond })
	port := freePort(t)
	r.bound(secure("gw", port, listener("gw", "https", "", certified(t, "a.example.com"))))
	silent := dial(t, port)
	if !silent.ended() {
		t.Error("silence is borne")
	}
	raw, err := net.Dial("tcp", address(port))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	begun := time.Now()
	drip := tls.Client(splitting{raw, func() { time.Sleep(5 * time.Millisecond) }}, &tls.Config{ServerName: "a.example.com", RootCAs: authority().roots})
	if err := drip.Handshake(); err == nil || time.Since(begun) > 5*time.Second {
		t.Errorf("a byte now and then keeps it open: %v after %s", err, time.Since(begun))
	}
	r.counted(`gatehouse_tls_handshake_failures_total{gateway="infra/gw",reason="timeout"} 2`)
	eventually(t, "all are gone", func() bool { return r.l.Open() == 0 })
}

func TestFailedHandshakesAreCountedByKind(t *testing.T) {
	r := start(t, nil)
	port := freePort(t)
	r.bound(secure("gw", port, listener("gw", "https", "", certified(t, "a.example.com"))))
	c := dial(t, port)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
	if !c.ended() {
		t.Error("plain HTTP is answered on a TLS port")
	}
	r.counted(`gatehouse_tls_handshake_failures_total{gateway="infra/gw",reason="not_tls"} 1`)
	dial(t, port).Close()
	r.counted(`gatehouse_tls_handshake_failures_total{gateway="infra/gw",reason="closed"} 1`)
	raw, err := net.Dial("tcp", address(port))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := tls.Client(raw, &tls.Config{ServerName: "a.example.com"}).Handshake(); err == nil { // it does not know the authority
		t.Error("the client trusts everybody")
	}
	r.counted(`gatehouse_tls_handshake_failures_total{gateway="infra/gw",reason="alert"} 1`)
	if _, err := dialTLS(t, port, "a.example.com", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1")
	}
	r.counted(`gatehouse_tls_handshake_failures_total{gateway="infra/gw",reason="protocol"} 1`)
}

// pocket is a session cache with one session, which it offers to everybody.
type pocket struct {
	mu      sync.Mutex
	session *tls.ClientSessionState
}

func (p *pocket) Get(string) (*tls.ClientSessionState, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session, p.session != nil
}

func (p *pocket) Put(_ string, s *tls.ClientSessionState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s != nil {
		p.session = s
	}
}

// resumes connects with what is in the pocket, and fills an empty one.
func resumes(t *testing.T, port uint16, name string, version uint16, p *pocket) bool {
	t.Helper()
	c, err := dialTLS(t, port, name, &tls.Config{ClientSessionCache: p, MaxVersion: version, MinVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.say("hello"); err != nil { // TLS 1.3 sends tickets after the handshake
		t.Fatal(err)
	}
	return c.Conn.(*tls.Conn).ConnectionState().DidResume
}

func TestATicketOpensTheListenerThatSealedItAndNoOther(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var clock atomic.Pointer[time.Time]
		now := time.Now()
		clock.Store(&now)
		r := start(t, func(o *Options) { o.Keys = keyring.New(time.Hour, func() time.Time { return *clock.Load() }) })
		port, elsewhere := freePort(t), freePort(t)
		// The same certificate everywhere: nothing but the listener's keys keeps them apart.
		both := certified(t, "a.example.com", "b.example.com")
		a, b := listener("gw", "a", "a.example.com", both), listener("gw", "b", "b.example.com", both)
		sockets := func(a *snapshot.Listener) []snapshot.Socket {
			return []snapshot.Socket{secure("gw", port, a, b), secure("other", elsewhere, listener("other", "a", "a.example.com", both))}
		}
		r.bound(sockets(a)...)

		var p pocket
		if resumes(t, port, "a.example.com", version, &p) {
			t.Error("resumed from nothing")
		}
		taken := p.session
		again := func(port uint16, name string) bool {
			return resumes(t, port, name, version, &pocket{session: taken})
		}
		if !again(port, "a.example.com") {
			t.Errorf("%x: its own listener refuses the ticket", version)
		}
		if again(port, "b.example.com") {
			t.Errorf("%x: another listener of the socket takes it", version)
		}
		if again(elsewhere, "a.example.com") {
			t.Errorf("%x: the listener of another Gateway takes it", version)
		}
		r.bound(sockets(a)...)
		if !again(port, "a.example.com") {
			t.Errorf("%x: lost by an Apply", version)
		}
		renewed := listener("gw", "a", "a.example.com", certified(t, "a.example.com"))
		r.bound(sockets(renewed)...)
		if !again(port, "a.example.com") {
			t.Errorf("%x: lost by a new certificate", version)
		}
		strict := listener("gw", "a", "a.example.com", both)
		strict.TLS.MinVersion = tls.VersionTLS13
		if version == tls.VersionTLS13 {
			r.bound(sockets(strict)...)
			if again(port, "a.example.com") {
				t.Errorf("%x: taken by a listener that demands more", version)
			}
			r.bound(sockets(a)...)
		}
		for hours, want := range []bool{true, true, true, false} { // sealed with the first of three keys
			later := now.Add(time.Duration(hours) * time.Hour)
			clock.Store(&later)
			if got := again(port, "a.example.com"); got != want {
				t.Errorf("%x: after %d rotations %v", version, hours, got)
			}
		}
		r.shutdown(5 * time.Second)
	}
}
