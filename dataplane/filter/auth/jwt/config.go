// Package jwt proves identities by JSON Web Tokens (RFC 7519) of issuers whose keys are fetched ahead and kept.
package jwt

import (
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Config says which tokens are accepted.
type Config struct {
	Issuer     string   // the claim iss, exactly
	Audiences  []string // one of them must be in aud; none: aud is not looked at
	Algorithms []string // of JWS (RFC 7518 3.1); at least one, never "none", symmetric and asymmetric never together
	ClockSkew  time.Duration
	Keys       Keys
	From       []Source // where tokens stand, all of them are looked at; none: Authorization: Bearer
}

// Keys is where the issuer's keys (RFC 7517) come from: an address, or Inline.
type Keys struct {
	Backend snapshot.BackendRef // of URL
	URL     string              // https://login.example.com/keys
	Inline  []byte              // a JWK Set
}

// Source is a place where a token may stand; one of the names is set.
type Source struct {
	Header string
	Prefix string // what stands before the token in the header, "Bearer "
	Query  string
	Cookie string
}
