package translate_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/policy/auth"
	"github.com/gatehouse-dev/gatehouse/controllers/policy/ratelimit"
)

var kinds = []policy.Kind{auth.Kind, ratelimit.Kind}

var (
	certificateWord = regexp.MustCompile(`CERTIFICATE\(([^)]*)\)`)
	keyWord         = regexp.MustCompile(`KEY\(([0-9])\)`)
)

// withCertificates puts certificates and keys where a golden says CERTIFICATE(a.example.com b.example.com) and KEY(0), in base64. They
// are always the same: Ed25519 signs without chance. All certificates are for KEY(0).
func withCertificates(t *testing.T, text string) string {
	t.Helper()
	text = certificateWord.ReplaceAllStringFunc(text, func(word string) string {
		return certificate(t, strings.Fields(certificateWord.FindStringSubmatch(word)[1]))
	})
	return keyWord.ReplaceAllStringFunc(text, func(word string) string {
		der, err := x509.MarshalPKCS8PrivateKey(key(keyWord.FindStringSubmatch(word)[1]))
		if err != nil {
			t.Fatal(err)
		}
		return encode("PRIVATE KEY", der)
	})
}

func key(number string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(number, ed25519.SeedSize)))
}

func certificate(t *testing.T, names []string) string {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "golden"},
		NotBefore:    time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), // expired: that is not Build's business
		DNSNames:     names,
	}
	k := key("0")
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", der)
}

func encode(kind string, der []byte) string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
