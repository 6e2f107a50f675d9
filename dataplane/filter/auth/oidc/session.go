package oidc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// session is what a login has proven, as it stands in the cookies. It is immutable.
type session struct {
	id      string    // random, the same through all refreshes
	started time.Time // of the login
	issued  time.Time // of the tokens
	expires time.Time // of the tokens
	claims  string    // the payload of the ID token, JSON
	// header and signature are the rest of the ID token, for a logout at the provider. Both are "" where there was no room.
	header, signature string
	refresh           string // the refresh token; "" none
	access            string // the access token, where backends get it

	identity message.Identity // of the claims; its Expires is not set
	until    time.Time        // looked up anew after it, in case that keys are gone
}

// sessionFormat is the first byte of a session, so that what another version has sealed is not misread.
const sessionFormat = 1

func (s *session) pack() []byte {
	p := packer{sessionFormat}
	p.number(s.started.Unix())
	p.number(s.issued.Unix())
	p.number(s.expires.Unix())
	for _, t := range []string{s.id, s.claims, s.header, s.signature, s.refresh, s.access} {
		p.text(t)
	}
	return p
}

func unpackSession(packed []byte) (*session, error) {
	if len(packed) == 0 || packed[0] != sessionFormat {
		return nil, errors.New("the session is of another version")
	}
	u := unpacker{rest: packed[1:]}
	s := &session{started: time.Unix(u.number(), 0), issued: time.Unix(u.number(), 0), expires: time.Unix(u.number(), 0)}
	for _, t := range []*string{&s.id, &s.claims, &s.header, &s.signature, &s.refresh, &s.access} {
		*t = u.text()
	}
	if !u.ended() {
		return nil, errors.New("the session is cut off")
	}
	return s, s.identify()
}

// identify makes the identity of the claims.
func (s *session) identify() error {
	decoder := json.NewDecoder(strings.NewReader(s.claims))
	decoder.UseNumber()
	var claims map[string]any
	if err := decoder.Decode(&claims); err != nil {
		return fmt.Errorf("claims: %w", err)
	}
	subject, _ := claims["sub"].(string)
	if subject == "" {
		return errors.New("the ID token has no subject")
	}
	s.identity = message.Identity{Subject: subject, Claims: claims}
	return nil
}

// setToken takes over the parts of an ID token that was verified.
func (s *session) setToken(raw string) error {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return errors.New("the ID token has not three parts")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("the ID token: %w", err)
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return fmt.Errorf("the ID token: %w", err)
	}
	s.header, s.claims, s.signature = parts[0], string(payload), string(signature)
	if s.token() != raw {
		s.header, s.signature = "", "" // written in another way than we would: as a hint it would not verify
	}
	return s.identify()
}

// token is the ID token; "" when there was no room for it.
func (s *session) token() string {
	if s.header == "" {
		return ""
	}
	var b bytes.Buffer
	b.WriteString(s.header)
	for _, part := range []string{s.claims, s.signature} {
		b.WriteByte('.')
		b.WriteString(base64.RawURLEncoding.EncodeToString([]byte(part)))
	}
	return b.String()
}

// withoutToken is the session without what only a logout at the provider needs.
func (s *session) withoutToken() *session {
	short := *s
	short.header, short.signature = "", ""
	return &short
}

// ends is when the session is over unless it is refreshed: with its tokens, and at its age of ttl (0: any).
func (s *session) ends(ttl time.Duration) time.Time {
	if dead := s.dies(ttl); !dead.IsZero() && dead.Before(s.expires) {
		return dead
	}
	return s.expires
}

// dies is when no refresh helps any more; the zero time: never.
func (s *session) dies(ttl time.Duration) time.Time {
	if ttl == 0 {
		return time.Time{}
	}
	return s.started.Add(ttl)
}

// maxAhead is how long before the end of its tokens a session is refreshed, at most; those that live short are at a quarter of it.
const maxAhead = time.Minute

// refreshable reports whether a refresh would help, and due whether it is time for one.
func (s *session) refreshable(now time.Time, ttl time.Duration) bool {
	dead := s.dies(ttl)
	return s.refresh != "" && (dead.IsZero() || now.Before(dead) && s.expires.Before(dead))
}

func (s *session) due(now time.Time) bool {
	ahead := min(maxAhead, s.expires.Sub(s.issued)/4)
	return !now.Before(s.expires.Add(-ahead))
}
