// Package jwt proves identities by JSON Web Tokens (RFC 7519) of issuers whose keys are fetched ahead and kept. README.md says what a
// user can rely on; hack/decisions/0006-jwt.md why tokens are read and verified here, and not by a library.
//
// A token is refused as soon as something is wrong with it, in the order of what that costs: its size, its form, its algorithm and issuer,
// then its signature, then what it claims. Nothing that it says chooses a key but its kid, and that only among the keys of the issuer
// that the policy names. What was verified is remembered until it expires or the issuer's keys change.
//
// Keys and verified tokens live in keep, and so outlive snapshots; the filter itself is immutable.
package jwt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Build makes the method. Keys are fetched from now on, in the background: an issuer that is down keeps nobody from starting.
func (c Config) Build(env filter.Env) (method.Method, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	keys, err := c.source(env)
	if err != nil {
		return nil, err
	}
	return &verifier{
		config: c, places: c.Places(), clock: env.Clock, keys: keys,
		verified: keep.Get(env.Keep, cacheKey{c.String()}, newCache),
	}, nil
}

// cacheKey is the settings: what was verified with others was not verified for these.
type cacheKey struct{ config string }

func (c Config) source(env filter.Env) (source, error) {
	if c.Keys.URL != "" {
		return keptRemote(c.Keys, env)
	}
	symmetric, err := c.symmetric()
	if err != nil {
		return nil, err
	}
	set, err := parseSet(c.Keys.Inline, symmetric)
	if err != nil {
		return nil, err
	}
	return keep.Get(env.Keep, inlineKey{set.sum, symmetric}, func() inline { return inline{set} }), nil // one address, one version
}

// source is where an issuer's keys are.
type source interface {
	// current returns the keys that hold now, waiting for the first at most maxWait.
	current(ex *message.Exchange) (*keySet, error)
	// renewed returns keys newer than those, if there are any: a token names one that is not among them.
	renewed(ex *message.Exchange, than *keySet) *keySet
}

// inline are keys that stand in the policy.
type inline struct{ set *keySet }

type inlineKey struct {
	sum       [sha256.Size]byte
	symmetric bool
}

func (i inline) current(*message.Exchange) (*keySet, error)     { return i.set, nil }
func (i inline) renewed(_ *message.Exchange, _ *keySet) *keySet { return nil }

// verifier is the method.
type verifier struct {
	config   Config
	places   method.Places
	clock    func() time.Time
	keys     source
	verified *cache
}

// Strip takes the token out of the request, wherever one may stand.
func (v *verifier) Strip(r *message.Request) { v.places.Strip(r) }

// Challenges (RFC 6750 3). The scheme must have a parameter; what the realm is called is of no consequence.
const (
	challenge        = `Bearer realm="api"`
	challengeRequest = challenge + `, error="invalid_request"`
	challengeToken   = challenge + `, error="invalid_token"`
	challengeExpired = challengeToken + `, error_description="the token has expired"`
)

// Authenticate looks for one token and verifies it.
func (v *verifier) Authenticate(ex *message.Exchange) method.Result {
	text, n := v.places.Find(&ex.Request)
	switch {
	case n == 0:
		return method.Result{Outcome: method.Absent, Challenge: challenge}
	case n > 1:
		// Which of them a backend would take is unknown (RFC 6750 2).
		return method.Result{Outcome: method.Refused, Challenge: challengeRequest, Detail: "several tokens are presented"}
	case len(text) > MaxToken:
		return refused(fmt.Errorf("it is longer than %d bytes", MaxToken))
	}
	id := sha256.Sum256([]byte(text))
	if identity, ok := v.remembered(ex, id); ok {
		return method.Result{Outcome: method.Accepted, Identity: identity}
	}
	return v.verify(ex, text, id)
}

func refused(err error) method.Result {
	c := challengeToken
	if errors.Is(err, errExpired) {
		c = challengeExpired
	}
	return method.Result{Outcome: method.Refused, Challenge: c, Detail: "token: " + err.Error()}
}

// remembered returns the identity of a token that was verified with the keys that hold now, and has not expired.
func (v *verifier) remembered(ex *message.Exchange, id tokenID) (*message.Identity, bool) {
	m, found := v.verified.get(id)
	if !found {
		return nil, false
	}
	if keys, err := v.keys.current(ex); err != nil || keys != m.keys || !v.clock().Before(m.identity.Expires) {
		v.verified.remove(id)
		return nil, false
	}
	return m.identity, true
}

func (v *verifier) verify(ex *message.Exchange, text string, id tokenID) method.Result {
	t, err := parse(text)
	if err != nil {
		return refused(err)
	}
	if !slices.Contains(v.config.Algorithms, t.header.Algorithm) {
		return refused(fmt.Errorf("its algorithm %.20q is not among %v", t.header.Algorithm, v.config.Algorithms))
	}
	// Before its keys: whoever names another issuer makes us fetch nothing.
	if iss, ok := t.claims["iss"].(string); !ok || iss != v.config.Issuer {
		return refused(errors.New("it is of another issuer"))
	}
	keys, err := v.keys.current(ex)
	if err != nil {
		return method.Result{Outcome: method.Unavailable, Challenge: challenge, Detail: "keys of " + v.config.Issuer + ": " + err.Error()}
	}
	keys, err = v.verifySignature(ex, t, keys)
	if err != nil {
		return refused(err)
	}
	identity, err := v.config.identity(t.claims, v.clock())
	if err != nil {
		return refused(err)
	}
	v.verified.add(id, verified{identity, keys, len(text)})
	return method.Result{Outcome: method.Accepted, Identity: identity}
}

// maxTries is how many keys without a name are tried, at most.
const maxTries = 8

// verifySignature returns the keys by which the token is verified: those given, or newer ones if it names a key that is not among them.
func (v *verifier) verifySignature(ex *message.Exchange, t *token, keys *keySet) (*keySet, error) {
	a := algorithmOf(t.header.Algorithm)
	candidates, named := keys.candidates(t.header.KeyID, a)
	if !named && len(candidates) == 0 {
		newer := v.keys.renewed(ex, keys)
		if newer == nil {
			return nil, fmt.Errorf("the issuer has no key named %.60q", t.header.KeyID)
		}
		keys = newer
		candidates, _ = keys.candidates(t.header.KeyID, a)
	}
	if len(candidates) == 0 {
		return nil, fmt.Errorf("the issuer has no key named %.60q for %s", t.header.KeyID, a.name)
	}
	for _, k := range candidates[:min(len(candidates), maxTries)] {
		if a.holds(k, t.signed, t.signature) {
			return keys, nil
		}
	}
	return nil, errors.New("its signature is wrong")
}
