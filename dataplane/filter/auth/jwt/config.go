package jwt

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Config says which tokens are accepted.
type Config struct {
	Issuer     string   // the claim iss, exactly
	Audiences  []string // one of them must be in aud; none: aud is not looked at
	Algorithms []string // of JWS (RFC 7518 3.1); at least one, never "none", symmetric and asymmetric never together
	ClockSkew  time.Duration
	Keys       Keys
	From       method.Places // where tokens stand; none: Authorization: Bearer
	Subject    string        // the claim that names the subject; "": sub
}

// Keys is where the issuer's keys (RFC 7517) come from: an address, or Inline.
type Keys struct {
	Backend snapshot.BackendRef // of URL
	URL     string              // https://login.example.com/keys
	Inline  []byte              // a JWK Set
}

// MaxClockSkew is the most that the clocks of an issuer and ours may be apart: a token is accepted so much longer than its issuer said.
const MaxClockSkew = 10 * time.Minute

// String is the text form. Inline keys show as a hash: those of HMAC are secrets.
func (c Config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "jwt(issuer=%q aud=%q alg=%s skew=%s", c.Issuer, c.Audiences, strings.Join(c.Algorithms, ","), c.ClockSkew)
	if c.Keys.URL != "" {
		fmt.Fprintf(&b, " keys=%q via %s", c.Keys.URL, c.Keys.Backend)
	} else {
		sum := sha256.Sum256(c.Keys.Inline)
		fmt.Fprintf(&b, " keys=inline#%s", hex.EncodeToString(sum[:]))
	}
	for _, s := range c.From {
		fmt.Fprintf(&b, " from(header=%q prefix=%q query=%q cookie=%q)", s.Header, s.Prefix, s.Query, s.Cookie)
	}
	if c.Subject != "" {
		fmt.Fprintf(&b, " subject=%q", c.Subject)
	}
	return b.String() + ")"
}

// Check says what is wrong, in words for whoever wrote it.
func (c Config) Check() error {
	switch {
	case c.Issuer == "":
		return errors.New("issuer is empty")
	case c.ClockSkew < 0 || c.ClockSkew > MaxClockSkew:
		return fmt.Errorf("the clock skew must be between 0 and %s", MaxClockSkew)
	case slices.Contains(c.Audiences, ""):
		return errors.New("an audience is empty")
	}
	for _, s := range c.From {
		if n := howMany(s.Header != "", s.Query != "", s.Cookie != ""); n != 1 || s.Header == "" && s.Prefix != "" {
			return errors.New("a place for tokens must be one of header (with a prefix), query and cookie")
		}
	}
	symmetric, err := c.symmetric()
	if err != nil {
		return err
	}
	return c.Keys.check(symmetric)
}

func howMany(all ...bool) (n int) {
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

// symmetric reports whether the algorithms are those of shared secrets.
func (c Config) symmetric() (bool, error) {
	if len(c.Algorithms) == 0 {
		return false, errors.New("no algorithm is listed")
	}
	n := 0
	for _, name := range c.Algorithms {
		a := algorithmOf(name)
		if a == nil {
			return false, fmt.Errorf("the algorithm %.20q is not one of %s", name, strings.Join(Algorithms(), ", "))
		}
		if a.kty == "oct" {
			n++
		}
	}
	if n > 0 && n < len(c.Algorithms) {
		return false, errors.New("algorithms of shared secrets (HS256) and of public keys cannot be listed together: a public key would be taken for a secret")
	}
	return n > 0, nil
}

func (k Keys) check(symmetric bool) error {
	switch {
	case (k.URL == "") == (len(k.Inline) == 0):
		return errors.New("keys come from one of url and inline")
	case k.URL == "":
		set, err := parseSet(k.Inline, symmetric)
		if err == nil && len(set.keys) == 0 {
			err = fmt.Errorf("no key can be used: %s", strings.Join(set.skipped, "; "))
		}
		return err
	case symmetric:
		return errors.New("algorithms of shared secrets (HS256) need inline keys: what is published at a URL is no secret")
	}
	u, err := url.Parse(k.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("%.100q is no http or https URL of a JWK Set", k.URL)
	}
	return nil
}

// Places are where tokens stand.
func (c Config) Places() method.Places {
	if len(c.From) == 0 {
		return method.Places{{Header: "Authorization", Prefix: "Bearer "}}
	}
	return c.From
}
