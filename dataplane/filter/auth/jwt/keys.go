package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
)

// Bounds of a JWK Set and its keys.
const (
	MaxKeys = 100 // in a set
	// What RSA keys may have, in bits: less is too weak (RFC 7518 3.3), more takes too long to verify with.
	minRSABits, maxRSABits = 2048, 8192
)

// key is one key that can verify, and what it is bound to.
type key struct {
	kid    string // "" none
	kty    string
	alg    string // "" any that fits kty and curve
	curve  string
	public any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey; []byte of kty oct
}

// keySet is an issuer's keys. It is immutable: its address is its version.
type keySet struct {
	keys    []key
	skipped []string          // what cannot be used, and why
	sum     [sha256.Size]byte // of the text
}

// candidates are the keys that may have signed a token with that kid and algorithm: the one of the name, or else those that have none.
// Named is false when a token names a key that is not in the set.
func (s *keySet) candidates(kid string, a *algorithm) (keys []*key, named bool) {
	var nameless []*key
	for i := range s.keys {
		k := &s.keys[i]
		switch {
		case kid != "" && k.kid == kid:
			named = true
			if a.fits(k) {
				keys = append(keys, k)
			}
		case (k.kid == "" || kid == "") && a.fits(k):
			nameless = append(nameless, k)
		}
	}
	if named {
		return keys, true
	}
	return nameless, kid == ""
}

// jwk is a JSON Web Key, as far as it is read: certificates and their addresses are not.
type jwk struct {
	Kty    string   `json:"kty"`
	Kid    string   `json:"kid"`
	Alg    string   `json:"alg"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Crv    string   `json:"crv"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	K      string   `json:"k"`
	D      string   `json:"d"`
}

// parseSet reads a JWK Set (RFC 7517 5). A key that cannot be used is skipped, as the RFC says: issuers publish keys for encryption, and of
// kinds that come later. An error is that it is no such set.
func parseSet(text []byte, symmetric bool) (*keySet, error) {
	var set struct {
		Keys *[]jsontext.Value `json:"keys"`
	}
	switch err := json.Unmarshal(text, &set); {
	case err != nil:
		return nil, fmt.Errorf("no JWK Set: %.200w", oneLine(err))
	case set.Keys == nil:
		return nil, errors.New(`no JWK Set: there is no member "keys"`)
	case len(*set.Keys) > MaxKeys:
		return nil, fmt.Errorf("%d keys, more than %d", len(*set.Keys), MaxKeys)
	}
	out := &keySet{sum: sha256.Sum256(text)}
	for i, raw := range *set.Keys {
		k, err := parseKey(raw)
		if err == nil && symmetric != (k.kty == "oct") {
			if symmetric {
				return nil, errors.New("public keys among shared secrets: nobody could tell which of the two is meant")
			}
			err = errors.New("a shared secret, where public keys are expected")
		}
		if err != nil {
			out.skipped = append(out.skipped, fmt.Sprintf("keys[%d]: %v", i, err))
			continue
		}
		out.keys = append(out.keys, k)
	}
	out.dropAmbiguous()
	return out, nil
}

// dropAmbiguous drops keys of one name and use that differ: nobody can say which of them the name means (RFC 7517 4.5).
func (s *keySet) dropAmbiguous() {
	type meaning struct{ kid, kty, curve, alg string }
	first := map[meaning]int{}
	drop := map[int]string{}
	for i, k := range s.keys {
		if k.kid == "" {
			continue
		}
		m := meaning{k.kid, k.kty, k.curve, k.alg}
		j, seen := first[m]
		switch {
		case !seen:
			first[m] = i
		case reflect.DeepEqual(s.keys[j].public, k.public):
			drop[i] = ""
		default:
			why := fmt.Sprintf("two keys are named %.40q", k.kid)
			drop[i], drop[j] = why, why
		}
	}
	var kept []key
	for i, k := range s.keys {
		why, dropped := drop[i]
		if !dropped {
			kept = append(kept, k)
		} else if why != "" && !slices.Contains(s.skipped, why) {
			s.skipped = append(s.skipped, why)
		}
	}
	s.keys = kept
}

// parseKey reads a key, and refuses what must not verify.
func parseKey(raw []byte) (key, error) {
	var j jwk
	if err := json.Unmarshal(raw, &j); err != nil {
		return key{}, oneLine(err)
	}
	k := key{kid: j.Kid, kty: j.Kty, alg: j.Alg, curve: j.Crv}
	switch {
	case j.Use != "" && j.Use != "sig":
		return key{}, fmt.Errorf("its use is %.20q", j.Use)
	case j.KeyOps != nil && !slices.Contains(j.KeyOps, "verify"):
		return key{}, errors.New("its key_ops do not have verify")
	case j.D != "":
		return key{}, errors.New("it is published with its private part")
	case j.Alg != "" && algorithmOf(j.Alg) == nil:
		return key{}, fmt.Errorf("its algorithm %.20q is not supported", j.Alg)
	}
	var err error
	switch j.Kty {
	case "RSA":
		k.curve = ""
		k.public, err = j.rsa()
	case "EC":
		k.public, err = j.ec()
	case "OKP":
		k.public, err = j.okp()
	case "oct":
		k.curve = ""
		k.public, err = j.secret()
	default:
		err = fmt.Errorf("keys of type %.20q are not supported", j.Kty)
	}
	if err != nil {
		return key{}, err
	}
	if a := algorithmOf(j.Alg); a != nil && !a.fits(&k) {
		return key{}, fmt.Errorf("it is no key for %s", a.name)
	}
	return k, nil
}

// number reads base64url. Stray bits at the end are let pass: an issuer's key is not something that others may have changed.
func number(s string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(s) }

func (j *jwk) rsa() (any, error) {
	n, err1 := number(j.N)
	e, err2 := number(j.E)
	if err1 != nil || err2 != nil || len(n) > 2*maxRSABits/8 || len(e) > 8 {
		return nil, errors.New("n or e is no number")
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	switch bits := modulus.BitLen(); {
	case bits < minRSABits || bits > maxRSABits:
		return nil, fmt.Errorf("an RSA key of %d bits; it must have %d to %d", bits, minRSABits, maxRSABits)
	case modulus.Bit(0) == 0:
		return nil, errors.New("an RSA modulus that is even")
	case exponent.BitLen() > 31 || exponent.Bit(0) == 0 || exponent.Cmp(big.NewInt(3)) < 0:
		return nil, errors.New("an RSA exponent that is not an odd number between 3 and 2³¹")
	case roca(modulus):
		return nil, errors.New("an RSA key that can be factored (CVE-2017-15361)")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

func (j *jwk) ec() (any, error) {
	curve := curves[j.Crv]
	if curve == nil {
		return nil, fmt.Errorf("the curve %.20q is not supported", j.Crv)
	}
	x, err1 := number(j.X)
	y, err2 := number(j.Y)
	if size := (curve.Params().BitSize + 7) / 8; err1 != nil || err2 != nil || len(x) != size || len(y) != size {
		return nil, fmt.Errorf("x and y must have %d bytes each", size) // RFC 7518 6.2.1.2
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, errors.New("x and y are no point on the curve")
	}
	return public, nil
}

func (j *jwk) okp() (any, error) {
	x, err := number(j.X)
	if j.Crv != "Ed25519" || err != nil || len(x) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("no Ed25519 key (its curve is %.20q)", j.Crv)
	}
	return ed25519.PublicKey(x), nil
}

// secret wants what the weakest algorithm wants; algorithm.fits looks again.
func (j *jwk) secret() (any, error) {
	k, err := number(j.K)
	if err != nil || len(k) < 32 {
		return nil, errors.New("a shared secret must have at least 32 bytes")
	}
	return k, nil
}

// rocaPrimes and the powers of 65537 modulo each tell the keys of a broken generator: with a sound one all residues are powers by chance
// once in 2²⁷ or so (Nemec et al., The Return of Coppersmith's Attack, 2017, 2.2).
var rocaPrimes = []int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157}

func roca(n *big.Int) bool {
	residue := new(big.Int)
	for _, p := range rocaPrimes {
		r := residue.Mod(n, big.NewInt(p)).Int64()
		isPower := false
		for power, first := int64(1), true; first || power != 1; power, first = power*65537%p, false {
			if power == r {
				isPower = true
				break
			}
		}
		if !isPower {
			return false
		}
	}
	return true
}
