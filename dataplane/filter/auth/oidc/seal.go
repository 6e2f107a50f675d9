package oidc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
)

// box seals what a browser keeps for us, with AES-256-GCM under the keys of one purpose: the first seals, each of them opens. Nonces are
// random, which is good for some 2³² sealings of a key; the keys of the process rotate long before.
type box struct {
	keys func() [][]byte
	made atomic.Pointer[[]aead] // of the keys that were seen last
}

type aead struct {
	key [32]byte
	cipher.AEAD
}

var errNoKeys = errors.New("there are no keys to seal cookies with")

// seal returns plain as text for a cookie. It can be opened only with the same bound.
func (b *box) seal(plain, bound []byte) (string, error) {
	ciphers := b.ciphers()
	if len(ciphers) == 0 {
		return "", errNoKeys
	}
	return base64.RawURLEncoding.EncodeToString(ciphers[0].Seal(nil, nil, plain, bound)), nil
}

// open returns what was sealed; ok is false when that is not ours, not for this bound, changed, or under keys that are gone.
func (b *box) open(text string, bound []byte) (plain []byte, ok bool) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") { // which DecodeString skips
		return nil, false
	}
	for _, c := range b.ciphers() {
		if plain, err := c.Open(nil, nil, sealed, bound); err == nil {
			return plain, true
		}
	}
	return nil, false
}

// ciphers are those of the keys as they are now.
func (b *box) ciphers() []aead {
	keys := b.keys()
	if made := b.made.Load(); made != nil && slices.EqualFunc(*made, keys, func(a aead, k []byte) bool { return string(a.key[:]) == string(k) }) {
		return *made
	}
	made := make([]aead, 0, len(keys))
	for _, k := range keys {
		block, err := aes.NewCipher(k)
		if err != nil || len(k) != 32 {
			continue // a key of another length is a bug of whoever gave it; the others still open
		}
		c, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			continue
		}
		made = append(made, aead{[32]byte(k), c})
	}
	b.made.Store(&made)
	return made
}

// digest is a hash of the texts in that order, none of which runs into the next.
func digest(texts ...string) [32]byte {
	var p packer
	for _, t := range texts {
		p.text(t)
	}
	return sha256.Sum256(p)
}

// packer and unpacker write and read numbers and texts one after the other, each text with its length: JSON would double the size of what
// is binary, and cookies are short of room.
type packer []byte

func (p *packer) number(n int64) { *p = binary.AppendVarint(*p, n) }

func (p *packer) text(s string) {
	*p = binary.AppendUvarint(*p, uint64(len(s)))
	*p = append(*p, s...)
}

type unpacker struct {
	rest []byte
	bad  bool // something was not there
}

func (u *unpacker) number() int64 {
	n, size := binary.Varint(u.rest)
	if size <= 0 {
		u.bad, u.rest = true, nil
		return 0
	}
	u.rest = u.rest[size:]
	return n
}

func (u *unpacker) text() string {
	n, size := binary.Uvarint(u.rest)
	if size <= 0 || n > uint64(len(u.rest)-size) {
		u.bad, u.rest = true, nil
		return ""
	}
	s := u.rest[size : size+int(n)]
	u.rest = u.rest[size+int(n):]
	return string(s)
}

// ended reports whether all was there, and nothing more.
func (u *unpacker) ended() bool { return !u.bad && len(u.rest) == 0 }
