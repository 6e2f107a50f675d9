package jwt

import (
	"encoding/base64"
	stdjson "encoding/json"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of a token.
const (
	MaxToken  = 16 << 10 // bytes, as it is presented
	maxHeader = 4 << 10  // bytes of the JOSE header
	maxDepth  = 32       // objects and lists inside each other in the claims
)

// token is a JWS in compact form (RFC 7515 7.1), taken apart and not yet verified.
type token struct {
	header    header
	claims    map[string]any
	signed    []byte // what the signature is of: header and payload as they stand
	signature []byte
}

// header is what of the JOSE header is read. What else a token says about its key (jwk, jku, x5c, x5u) is never looked at: it comes from
// whoever made the token.
type header struct {
	Algorithm string         `json:"alg"`
	KeyID     string         `json:"kid"`
	Type      string         `json:"typ"`
	Critical  jsontext.Value `json:"crit"`
}

// parse takes a token apart. Its texts must be base64url without padding or stray bits, and JSON without a name that stands twice: there
// must be no two ways to read what was signed.
func parse(text string) (*token, error) {
	rawHeader, rest, ok1 := strings.Cut(text, ".")
	rawClaims, rawSignature, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || strings.IndexByte(rawSignature, '.') >= 0 {
		return nil, errors.New("it does not have three parts")
	}
	if len(rawHeader) > base64.RawURLEncoding.EncodedLen(maxHeader) {
		return nil, fmt.Errorf("its header is longer than %d bytes", maxHeader)
	}
	t := &token{signed: []byte(text[:len(rawHeader)+1+len(rawClaims)])}
	h, err1 := decode(rawHeader)
	c, err2 := decode(rawClaims)
	var err3 error
	t.signature, err3 = decode(rawSignature)
	if err1 != nil || err2 != nil || err3 != nil {
		return nil, errors.New("a part is no base64url")
	}
	if err := json.Unmarshal(h, &t.header); err != nil {
		return nil, errors.New("its header is no JSON object")
	}
	if err := t.header.check(); err != nil {
		return nil, err
	}
	var err error
	if t.claims, err = parseClaims(c); err != nil {
		return nil, fmt.Errorf("its claims are no JSON object: %w", err)
	}
	return t, nil
}

func (h *header) check() error {
	if h.Critical != nil {
		return errors.New("it has critical extensions") // RFC 7515 4.1.11: we understand none
	}
	typ := strings.ToLower(h.Type)
	switch strings.TrimPrefix(typ, "application/") {
	case "", "jwt", "at+jwt":
		return nil
	}
	// RFC 8725 3.11: what was made for something else (a logout, an event, a proof of possession) is no proof of identity.
	return fmt.Errorf("its type is %.40q", h.Type)
}

var strict = base64.RawURLEncoding.Strict()

// decode reads base64url. Go's skips line breaks; RFC 7515 has none.
func decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("a line break")
	}
	return strict.DecodeString(s)
}

// parseClaims reads an object; numbers stay as they are written.
func parseClaims(text []byte) (map[string]any, error) {
	d := jsontext.NewDecoder(strings.NewReader(string(text)))
	v, err := value(d, 0)
	if err != nil {
		return nil, oneLine(err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("something else")
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, errors.New("something follows it")
	}
	return m, nil
}

// value reads the next value. The decoder refuses names that stand twice, and text that is not UTF-8.
func value(d *jsontext.Decoder, depth int) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errors.New("too deep")
	}
	switch t.Kind() {
	case '"':
		return t.String(), nil
	case '0':
		return stdjson.Number(t.String()), nil
	case 't', 'f':
		return t.Bool(), nil
	case '[':
		return list(d, depth)
	case '{':
		return object(d, depth)
	}
	return nil, nil
}

func list(d *jsontext.Decoder, depth int) (any, error) {
	out := []any{}
	for d.PeekKind() != ']' {
		v, err := value(d, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	_, err := d.ReadToken()
	return out, err
}

func object(d *jsontext.Decoder, depth int) (any, error) {
	out := map[string]any{}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		n := name.String()
		v, err := value(d, depth+1)
		if err != nil {
			return nil, err
		}
		out[n] = v
	}
	_, err := d.ReadToken()
	return out, err
}

// oneLine keeps what a text says out of the log's lines.
func oneLine(err error) error {
	return errors.New(strings.ToValidUTF8(strings.Join(strings.Fields(err.Error()), " "), "?"))
}
