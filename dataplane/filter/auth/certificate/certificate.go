package certificate

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// The places of a certificate from which a subject is taken.
const (
	URI        = "URI"
	DNS        = "DNS"
	Email      = "Email"
	CommonName = "CommonName"
)

// String is the text form.
func (c Config) String() string {
	if c.SubjectFrom == "" {
		return "certificate"
	}
	return "certificate(" + c.SubjectFrom + ")"
}

// Build makes the method.
func (c Config) Build(env filter.Env) (method.Method, error) {
	m := certificates{clock: env.Clock}
	switch c.SubjectFrom {
	case "":
		m.from = []string{URI, DNS, Email, CommonName}
	case URI, DNS, Email, CommonName:
		m.from = []string{c.SubjectFrom}
	default:
		return nil, fmt.Errorf("a subject cannot be taken from %q", c.SubjectFrom)
	}
	return m, nil
}

type certificates struct {
	clock func() time.Time
	from  []string
}

// Authenticate looks at the certificate that the handshake has verified. A connection may live longer than it.
func (m certificates) Authenticate(ex *message.Exchange) method.Result {
	if ex.Conn == nil || ex.Conn.TLS == nil || len(ex.Conn.TLS.Certificates) == 0 {
		return method.Result{Outcome: method.Absent, Detail: "no client certificate that the listener has verified"}
	}
	leaf := ex.Conn.TLS.Certificates[0]
	now := m.clock()
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return method.Result{Outcome: method.Refused, Detail: "the client certificate is not valid now"}
	}
	subject := m.subject(leaf)
	if subject == "" {
		return method.Result{Outcome: method.Refused, Detail: fmt.Sprintf("the client certificate names nobody in %v", m.from)}
	}
	return method.Result{Outcome: method.Accepted, Identity: &message.Identity{
		Subject: subject, Claims: claims(leaf), Expires: leaf.NotAfter,
	}}
}

// Strip has nothing to strip: a certificate goes no further than the handshake.
func (certificates) Strip(*message.Request) {}

func (m certificates) subject(c *x509.Certificate) string {
	for _, place := range m.from {
		switch {
		case place == URI && len(c.URIs) > 0:
			return c.URIs[0].String()
		case place == DNS && len(c.DNSNames) > 0:
			return c.DNSNames[0]
		case place == Email && len(c.EmailAddresses) > 0:
			return c.EmailAddresses[0]
		case place == CommonName && c.Subject.CommonName != "":
			return c.Subject.CommonName
		}
	}
	return ""
}

// claims are what rules may ask about a certificate; README.md lists them.
func claims(c *x509.Certificate) map[string]any {
	print := sha256.Sum256(c.Raw)
	uris := make([]any, len(c.URIs))
	for i, u := range c.URIs {
		uris[i] = u.String()
	}
	return map[string]any{
		"subject":     c.Subject.String(),
		"issuer":      c.Issuer.String(),
		"cn":          c.Subject.CommonName,
		"o":           list(c.Subject.Organization),
		"ou":          list(c.Subject.OrganizationalUnit),
		"uri":         uris,
		"dns":         list(c.DNSNames),
		"email":       list(c.EmailAddresses),
		"serial":      hex.EncodeToString(c.SerialNumber.Bytes()),
		"fingerprint": hex.EncodeToString(print[:]),
	}
}

func list(values []string) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}
