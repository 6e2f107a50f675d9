package basic

import (
	"bytes"
	"encoding/base64"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
)

// place is where the credential stands (RFC 7617 2). The scheme is without case; one space or more follows.
var place = method.Places{{Header: "Authorization", Prefix: "Basic "}}

const (
	maxCredential = 512 // of user:password, in bytes
	maxPassword   = 72  // bcrypt ignores what comes after it: a password that differs there would be accepted
)

// credential is user:password. The user ends at the first colon, so no user has one: what follows is the password, colons and all.
type credential struct {
	text  []byte
	colon int
}

func (c credential) user() []byte     { return c.text[:c.colon] }
func (c credential) password() []byte { return c.text[c.colon+1:] }

// parse decodes a credential into room; ok is false for what RFC 7617 does not know, and for what bcrypt would not see wholly.
func parse(room []byte, encoded string) (c credential, ok bool) {
	var raw [maxCredential * 4 / 3]byte
	if base64.StdEncoding.DecodedLen(len(encoded)) > maxCredential || len(encoded) > len(raw) {
		return c, false
	}
	text, err := base64.StdEncoding.AppendDecode(room, append(raw[:0], encoded...))
	if err != nil || control(text) {
		return c, false
	}
	c = credential{text, bytes.IndexByte(text, ':')}
	return c, c.colon > 0 && len(c.password()) <= maxPassword
}

// control reports a character that neither a user nor a password may have.
func control[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}
