package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384, SHA512
	"math/big"
)

// algorithm is a way to sign (RFC 7518 3, RFC 8037 3.1, RFC 9864 2). It fixes the kind of key: which one verifies a token never depends on
// more than the name that the policy lists.
type algorithm struct {
	name   string
	kty    string
	curve  string // of EC and OKP keys
	hash   crypto.Hash
	length int // of a signature, in bytes; 0: that of the key
	verify func(a *algorithm, public any, signed, signature []byte) bool
}

var algorithms = []algorithm{
	{name: "RS256", kty: "RSA", hash: crypto.SHA256, verify: verifyPKCS1},
	{name: "RS384", kty: "RSA", hash: crypto.SHA384, verify: verifyPKCS1},
	{name: "RS512", kty: "RSA", hash: crypto.SHA512, verify: verifyPKCS1},
	{name: "PS256", kty: "RSA", hash: crypto.SHA256, verify: verifyPSS},
	{name: "PS384", kty: "RSA", hash: crypto.SHA384, verify: verifyPSS},
	{name: "PS512", kty: "RSA", hash: crypto.SHA512, verify: verifyPSS},
	{name: "ES256", kty: "EC", curve: "P-256", hash: crypto.SHA256, length: 64, verify: verifyECDSA},
	{name: "ES384", kty: "EC", curve: "P-384", hash: crypto.SHA384, length: 96, verify: verifyECDSA},
	{name: "ES512", kty: "EC", curve: "P-521", hash: crypto.SHA512, length: 132, verify: verifyECDSA},
	{name: "EdDSA", kty: "OKP", curve: "Ed25519", length: ed25519.SignatureSize, verify: verifyEd25519},
	{name: "Ed25519", kty: "OKP", curve: "Ed25519", length: ed25519.SignatureSize, verify: verifyEd25519},
	{name: "HS256", kty: "oct", hash: crypto.SHA256, length: 32, verify: verifyHMAC},
	{name: "HS384", kty: "oct", hash: crypto.SHA384, length: 48, verify: verifyHMAC},
	{name: "HS512", kty: "oct", hash: crypto.SHA512, length: 64, verify: verifyHMAC},
}

// Algorithms are the names that Config.Algorithms may have.
func Algorithms() (names []string) {
	for _, a := range algorithms {
		names = append(names, a.name)
	}
	return names
}

// algorithmOf returns nil for what is not in the list: "none" is not.
func algorithmOf(name string) *algorithm {
	for i := range algorithms {
		if algorithms[i].name == name {
			return &algorithms[i]
		}
	}
	return nil
}

// fits reports whether the key is one for this algorithm.
func (a *algorithm) fits(k *key) bool {
	if k.kty != a.kty || k.curve != a.curve {
		return false
	}
	if secret, ok := k.public.([]byte); ok && len(secret) < a.hash.Size() {
		return false // RFC 7518 3.2: a key of the size of the hash or larger must be used
	}
	return k.alg == "" || k.alg == a.name || a.kty == "OKP" // EdDSA and Ed25519 are two names of one
}

// holds reports whether it is the key's signature.
func (a *algorithm) holds(k *key, signed, signature []byte) bool {
	if !a.fits(k) || a.length > 0 && len(signature) != a.length {
		return false
	}
	return a.verify(a, k.public, signed, signature)
}

func (a *algorithm) sum(signed []byte) []byte {
	h := a.hash.New()
	h.Write(signed)
	return h.Sum(nil)
}

func verifyPKCS1(a *algorithm, public any, signed, signature []byte) bool {
	k, ok := public.(*rsa.PublicKey)
	return ok && rsa.VerifyPKCS1v15(k, a.hash, a.sum(signed), signature) == nil
}

// verifyPSS wants a salt as long as the hash (RFC 7518 3.5).
func verifyPSS(a *algorithm, public any, signed, signature []byte) bool {
	k, ok := public.(*rsa.PublicKey)
	return ok && rsa.VerifyPSS(k, a.hash, a.sum(signed), signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
}

// verifyECDSA wants R and S, each of half the length (RFC 7518 3.4).
func verifyECDSA(a *algorithm, public any, signed, signature []byte) bool {
	k, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return false
	}
	half := len(signature) / 2
	r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
	return ecdsa.Verify(k, a.sum(signed), r, s)
}

func verifyEd25519(_ *algorithm, public any, signed, signature []byte) bool {
	k, ok := public.(ed25519.PublicKey)
	return ok && ed25519.Verify(k, signed, signature)
}

func verifyHMAC(a *algorithm, public any, signed, signature []byte) bool {
	k, ok := public.([]byte)
	if !ok {
		return false
	}
	mac := hmac.New(a.hash.New, k)
	mac.Write(signed)
	return hmac.Equal(mac.Sum(nil), signature)
}
