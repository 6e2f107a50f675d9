package upstream

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// secure is how a backend is verified; nil: it is spoken to in the clear. Roots that cannot be read break the backend: they never
// become the system's.
func secure(s snapshot.Backend) (*message.TLSConfig, *message.Error) {
	t := s.TLS
	if o := s.Outside; o != nil && o.TLS {
		t = &snapshot.BackendTLS{ServerName: s.Ref.Outside, Roots: o.Roots}
	}
	switch {
	case t == nil:
		return nil, nil
	case t.ServerName == "":
		return nil, &message.Error{Reason: message.ReasonTLSFailed, Err: errors.New("TLS to a backend without a name to verify")}
	}
	out := &message.TLSConfig{ServerName: t.ServerName}
	if t.Roots != nil {
		out.Roots = x509.NewCertPool()
		if !out.Roots.AppendCertsFromPEM(t.Roots) {
			return nil, &message.Error{Reason: message.ReasonTLSFailed, Err: errors.New("no certificate in the roots of " + s.Ref.String())}
		}
		sum := sha256.Sum256(t.Roots)
		out.Fingerprint = hex.EncodeToString(sum[:])
	}
	return out, nil
}
