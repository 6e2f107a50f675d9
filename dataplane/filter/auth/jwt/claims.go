package jwt

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// errExpired is told to clients, so that they fetch a new token.
var errExpired = errors.New("the token has expired")

// identity checks the claims of a token that was verified (RFC 7519 4.1), and says who it is. The issuer was checked before.
func (c *Config) identity(claims map[string]any, now time.Time) (*message.Identity, error) {
	expires, ok := date(claims, "exp")
	if !ok {
		return nil, errors.New("exp is not there, or no date") // a token without an end could never be taken back
	}
	expires = expires.Add(c.ClockSkew)
	if !now.Before(expires) {
		return nil, errExpired
	}
	for _, name := range []string{"nbf", "iat"} {
		if _, there := claims[name]; !there {
			continue
		}
		from, ok := date(claims, name)
		if !ok {
			return nil, errors.New(name + " is no date")
		}
		if now.Before(from.Add(-c.ClockSkew)) {
			return nil, errors.New("the token is not yet valid (" + name + ")")
		}
	}
	if !c.audience(claims["aud"]) {
		return nil, errors.New("the token is for another audience")
	}
	name := c.Subject
	if name == "" {
		name = "sub"
	}
	subject, _ := claims[name].(string)
	if subject == "" {
		return nil, errors.New(name + " is not there, or no text")
	}
	return &message.Identity{Subject: subject, Claims: claims, Expires: expires}, nil
}

// audience reports whether the token is for one of ours: aud is a text or a list of them.
func (c *Config) audience(aud any) bool {
	if len(c.Audiences) == 0 {
		return true
	}
	switch aud := aud.(type) {
	case string:
		return slices.Contains(c.Audiences, aud)
	case []any:
		return slices.ContainsFunc(aud, func(a any) bool {
			s, ok := a.(string)
			return ok && slices.Contains(c.Audiences, s)
		})
	}
	return false
}

// lastDate is the end of the year 9999, in seconds: later dates overflow somewhere.
const lastDate = 253402300799

// date reads a NumericDate: seconds since 1970, which may have a fraction.
func date(claims map[string]any, name string) (time.Time, bool) {
	n, ok := claims[name].(json.Number)
	if !ok {
		return time.Time{}, false
	}
	f, err := n.Float64()
	if err != nil || f < 0 || f > lastDate {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(f)
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}
