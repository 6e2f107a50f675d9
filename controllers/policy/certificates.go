package policy

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
)

// CAKey is the entry of a ConfigMap or Secret that holds certificate authorities in PEM.
const CAKey = "ca.crt"

// NotCertificates is why a text is not certificates in PEM and nothing else. A bundle that is cut off in the middle would trust fewer than
// its author thinks.
type NotCertificates struct {
	Read  int    // certificates before that
	Block string // the type of a block that is no certificate; "" it is no block, or one that cannot be read
	Err   error  // why a certificate cannot be read; nil with Block "": there is no PEM where some is expected
}

// CheckCertificates reads a text in PEM; nil: it is certificates, one at least, and nothing else.
func CheckCertificates(text []byte) *NotCertificates {
	n := 0
	for rest := text; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 || n == 0 {
				return &NotCertificates{Read: n}
			}
			return nil
		}
		if block.Type != "CERTIFICATE" {
			return &NotCertificates{Read: n, Block: block.Type}
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return &NotCertificates{Read: n, Err: err}
		}
	}
}
