package certificate

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

var now = time.Unix(1_800_000_000, 0)

func build(t testing.TB, c Config) method.Method {
	t.Helper()
	m, err := c.Build(filter.Env{Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func presenting(c *x509.Certificate) *message.Exchange {
	ex := &message.Exchange{Conn: &message.Conn{TLS: &message.TLSState{}}}
	if c != nil {
		ex.Conn.TLS.Certificates = []*x509.Certificate{c}
	}
	return ex
}

func valid(change func(*x509.Certificate)) *x509.Certificate {
	c := &x509.Certificate{
		Raw: []byte("der"), SerialNumber: big.NewInt(0x1234), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		Subject: pkix.Name{CommonName: "alice", Organization: []string{"shop"}},
	}
	if change != nil {
		change(c)
	}
	return c
}

func TestTheCertificateSaysWhoItIs(t *testing.T) {
	all := func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/cart"}}
		c.DNSNames, c.EmailAddresses = []string{"cart.example.org"}, []string{"cart@example.org"}
	}
	for _, c := range []struct {
		from   string
		change func(*x509.Certificate)
		want   string // "": refused
	}{
		{"", all, "spiffe://example.org/cart"},
		{"", func(c *x509.Certificate) { all(c); c.URIs = nil }, "cart.example.org"},
		{"", func(c *x509.Certificate) { all(c); c.URIs, c.DNSNames = nil, nil }, "cart@example.org"},
		{"", nil, "alice"},
		{"", func(c *x509.Certificate) { c.Subject = pkix.Name{} }, ""},
		{DNS, all, "cart.example.org"},
		{Email, all, "cart@example.org"},
		{CommonName, all, "alice"},
		{URI, nil, ""}, // never something else than was asked for
		{DNS, nil, ""},
	} {
		got := build(t, Config{SubjectFrom: c.from}).Authenticate(presenting(valid(c.change)))
		switch {
		case c.want == "" && got.Outcome == method.Refused && got.Identity == nil:
		case c.want != "" && got.Outcome == method.Accepted && got.Identity.Subject == c.want && got.Identity.Expires.Equal(now.Add(time.Hour)):
		default:
			t.Errorf("from %q: %+v, want %q", c.from, got, c.want)
		}
	}
}

func TestNobodyIsProvenWithoutAVerifiedCertificate(t *testing.T) {
	m := build(t, Config{})
	plain := &message.Exchange{Conn: &message.Conn{}}
	for name, ex := range map[string]*message.Exchange{"no connection": {}, "in the clear": plain, "no certificate": presenting(nil)} {
		ex.Request.Header.Set("X-Forwarded-Client-Cert", "Subject=CN=alice") // which is nobody's word
		if got := m.Authenticate(ex); got.Outcome != method.Absent || got.Challenge != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestACertificateThatHasExpiredOnALivingConnectionIsRefused(t *testing.T) {
	m := build(t, Config{})
	for name, change := range map[string]func(*x509.Certificate){
		"expired":       func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) },
		"not valid yet": func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) },
	} {
		if got := m.Authenticate(presenting(valid(change))); got.Outcome != method.Refused {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAnUnknownPlaceIsNotBuilt(t *testing.T) {
	if m, err := (Config{SubjectFrom: "Serial"}).Build(filter.Env{}); err == nil {
		t.Errorf("%v", m)
	}
}

func TestClaimsAreListsAndStrings(t *testing.T) {
	got := build(t, Config{}).Authenticate(presenting(valid(nil))).Identity.Claims
	if got["cn"] != "alice" || got["serial"] != "1234" || len(got["fingerprint"].(string)) != 64 {
		t.Errorf("%v", got)
	}
	if o := got["o"].([]any); len(o) != 1 || o[0] != "shop" {
		t.Errorf("%v", got)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	m, ex := build(b, Config{}), presenting(valid(nil))
	b.ReportAllocs()
	for b.Loop() {
		m.Authenticate(ex)
	}
}
