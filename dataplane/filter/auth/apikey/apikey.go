package apikey

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// MaxKey is the longest key that is accepted, in bytes.
const MaxKey = 4096

const hashed = "sha256:"

// Check reports what is wrong, in words for whoever wrote the policy or the Secrets. It names keys by their subjects.
func (c Config) Check() error {
	if err := c.checkPlaces(); err != nil {
		return err
	}
	_, err := c.identities()
	return err
}

// Build makes the method. The error is Check's.
func (c Config) Build(filter.Env) (method.Method, error) {
	if err := c.checkPlaces(); err != nil {
		return nil, err
	}
	identities, err := c.identities()
	if err != nil {
		return nil, err
	}
	return &keys{places: c.From, identities: identities, challenge: c.challenge(), hash: sumOf}, nil
}

func (c Config) checkPlaces() error {
	if len(c.From) == 0 {
		return errors.New("no place where a key is looked for")
	}
	for i, p := range c.From {
		if err := checkPlace(p); err != nil {
			return err
		}
		for _, before := range c.From[:i] {
			if overlap(before, p) {
				return fmt.Errorf("a key in %s would be found twice, and refused", p)
			}
		}
	}
	return nil
}

func checkPlace(s method.Place) error {
	set := 0
	for _, name := range []string{s.Header, s.Query, s.Cookie} {
		if name != "" {
			set++
		}
	}
	switch {
	case set != 1:
		return errors.New("a place must be exactly one of header, query and cookie")
	case s.Prefix != "" && s.Header == "":
		return errors.New("only a header can have a prefix")
	case s.Header != "" && (!message.ValidName(s.Header) || message.Framing(s.Header)):
		return fmt.Errorf("a key cannot stand in the header %q", s.Header)
	case s.Cookie != "" && !message.ValidName(s.Cookie):
		return fmt.Errorf("%q is no name of a cookie", s.Cookie)
	}
	return nil
}

// overlap reports whether one credential could stand in both places.
func overlap(a, b method.Place) bool {
	if a.Header == "" || !message.EqualName(a.Header, b.Header) {
		return a == b
	}
	short, long := message.Lower(a.Prefix), message.Lower(b.Prefix)
	return strings.HasPrefix(long, short) || strings.HasPrefix(short, long)
}

// identities are the clients by the SHA-256 of their keys.
func (c Config) identities() (map[[sha256.Size]byte]*message.Identity, error) {
	out := make(map[[sha256.Size]byte]*message.Identity, len(c.Keys))
	for _, k := range c.Keys {
		sum, err := k.hash()
		if err != nil {
			return nil, err
		}
		id := &message.Identity{Subject: k.Subject, Labels: map[string]string{}}
		for _, l := range k.Labels {
			id.Labels[l.Name] = l.Value
		}
		// A Secret that is being moved may be named twice for a while. But nobody can say who comes with a key of two clients.
		if other := out[sum]; other != nil && (other.Subject != id.Subject || !maps.Equal(other.Labels, id.Labels)) {
			return nil, fmt.Errorf("%s and %s have the same key", other.Subject, id.Subject)
		}
		out[sum] = id
	}
	return out, nil
}

func (k Key) hash() (sum [sha256.Size]byte, err error) {
	if k.Subject == "" {
		return sum, errors.New("a key without a subject")
	}
	if sum, err = Sum(k.Value.Data); err != nil {
		return sum, fmt.Errorf("the key of %s %w", k.Subject, err)
	}
	return sum, nil
}

// ErrNoHash is that of a value that begins as a hash does, and is none.
var ErrNoHash = errors.New("is not " + hashed + " and 64 hexadecimal digits")

// Sum is the SHA-256 of the key that a value is, or is the hash of (Key.Value). The error says of the key what is wrong: "is empty".
func Sum(value []byte) (sum [sha256.Size]byte, err error) {
	switch text, isHash := strings.CutPrefix(string(value), hashed); {
	case len(value) == 0:
		return sum, errors.New("is empty")
	case isHash:
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != len(sum) {
			return sum, ErrNoHash
		}
		return [sha256.Size]byte(b), nil
	case len(value) > MaxKey:
		return sum, fmt.Errorf("is longer than %d bytes", MaxKey)
	case !message.ValidValue(string(value)):
		return sum, errors.New("has a control character, or a space at an end: no client could send it")
	}
	return sumOf(string(value)), nil
}

// challenge names the place where a key may be sent; "ApiKey" is no registered scheme, but RFC 9110 15.5.2 wants one with every 401.
func (c Config) challenge() string {
	for _, s := range c.From {
		if message.EqualName(s.Header, "Authorization") && message.EqualName(s.Prefix, "Bearer ") {
			return `Bearer realm="api"`
		}
	}
	return `ApiKey realm="api"`
}

// keys is the method.
type keys struct {
	places     method.Places
	identities map[[sha256.Size]byte]*message.Identity
	challenge  string
	hash       func(string) [sha256.Size]byte
}

func sumOf(key string) [sha256.Size]byte {
	var room [128]byte
	return sha256.Sum256(append(room[:0], key...))
}

// Authenticate looks the SHA-256 of what is presented up. How long that takes tells nothing about any key: whoever measures it learns at
// most how far two hashes agree, and cannot choose keys by their hashes.
func (k *keys) Authenticate(ex *message.Exchange) method.Result {
	value, n := k.places.Find(&ex.Request)
	switch {
	case n == 0:
		return method.Result{Challenge: k.challenge}
	case n > 1:
		return k.refused("several keys, or several headers where one may stand")
	case value == "" || len(value) > MaxKey:
		return k.refused("no key can be so short or so long")
	}
	id := k.identities[k.hash(value)]
	if id == nil {
		return k.refused("unknown key")
	}
	return method.Result{Outcome: method.Accepted, Identity: id}
}

func (k *keys) refused(why string) method.Result {
	r := method.Result{Outcome: method.Refused, Challenge: k.challenge, Detail: why}
	if strings.HasPrefix(r.Challenge, "Bearer") {
		r.Challenge += `, error="invalid_token"` // RFC 6750 3.1
	}
	return r
}

// Strip takes the key out of every place.
func (k *keys) Strip(r *message.Request) { k.places.Strip(r) }

// String is such as "apikey(header X-API-Key, query key; 2 keys #1c3f…)": the hash is of all subjects, labels and keys.
func (c Config) String() string {
	var b strings.Builder
	b.WriteString("apikey(")
	for i, s := range c.From {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.String())
	}
	fmt.Fprintf(&b, "; %d keys #%s)", len(c.Keys), c.fingerprint())
	return b.String()
}

// fingerprint tells two sets of keys apart. It is a hash of them all together, of no help against a key that cannot be guessed anyway.
func (c Config) fingerprint() string {
	h := sha256.New()
	part := func(s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }
	for _, k := range c.Keys {
		part(k.Subject)
		part(string(k.Value.Data))
		fmt.Fprintf(h, "%d labels", len(k.Labels))
		for _, l := range k.Labels {
			part(l.Name)
			part(l.Value)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
