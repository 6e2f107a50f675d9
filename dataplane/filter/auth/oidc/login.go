package oidc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

const (
	loginTTL   = 10 * time.Minute // from the redirect to the return
	maxLogins  = 5                // under way in one browser
	maxLooked  = 20               // cookies of logins that are opened to find the oldest
	maxBack    = 1000             // bytes of the target to return to
	maxAgain   = 3                // logins that come to nothing, each within againTTL of the one before
	againTTL   = 30 * time.Second
	stateBytes = 100 // at most, of a state that we would make
)

// login is one login under way, as it stands in a cookie of its own: several tabs may log in at once.
type login struct {
	state    string // which the provider gives back; it begins with the policy's tag
	nonce    string // which the ID token must hold
	verifier string // of PKCE
	back     string // the target to return to: a path with its query on the same host, never a URL
	at       time.Time
}

func (l *login) pack() []byte {
	var p packer
	p.number(l.at.Unix())
	for _, t := range []string{l.state, l.nonce, l.verifier, l.back} {
		p.text(t)
	}
	return p
}

func unpackLogin(packed []byte) (*login, bool) {
	u := unpacker{rest: packed}
	l := &login{at: time.Unix(u.number(), 0)}
	for _, t := range []*string{&l.state, &l.nonce, &l.verifier, &l.back} {
		*t = u.text()
	}
	return l, u.ended()
}

// login sends a browser to the provider.
func (g *gate) login(ex *message.Exchange, v visit) (*message.Response, error) {
	r := &ex.Request
	if again, _ := only(&r.Header, v.marker()); len(again) == 1 && again[0] >= '0'+maxAgain && again[0] <= '9' {
		g.count.looped.Add(1)
		page := g.fail(ex, 400, "The login does not last", textLoop, v.origin+back(r.Target), "logins come to nothing: the browser does not keep the session")
		page.Header.Add("Set-Cookie", v.remove(v.marker()))
		return page, nil
	}
	ctx, cancel := context.WithTimeout(ex.Context(), callLimit)
	defer cancel()
	m, err := g.provider.metadata(ctx)
	if err != nil {
		return nil, err
	}
	l := &login{g.tag + "." + rand.Text(), rand.Text(), oauth2.GenerateVerifier(), back(r.Target), g.now()}
	text, err := g.logins.seal(l.pack(), g.bound("login", v))
	if err != nil {
		return nil, err
	}
	g.count.started.Add(1)
	res := redirect(302, m.authorizationURL(&g.config, v.origin+g.config.CallbackPath, l))
	for _, name := range g.crowd(r, v) {
		res.Header.Add("Set-Cookie", v.remove(name))
	}
	res.Header.Add("Set-Cookie", v.set(v.login(loginID(l.state)), text, loginTTL))
	return res, nil
}

// back is where a login returns to. The path begins with one slash or more, and the answer puts scheme and host before it: nothing in it
// can lead to another host.
func back(t message.Target) string {
	for _, s := range []string{t.String(), t.Path} {
		if len(s) <= maxBack && strings.HasPrefix(s, "/") && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			return s
		}
	}
	return "/"
}

// loginID names the cookie of a login.
func loginID(state string) string {
	sum := hashOf(state)
	return hex.EncodeToString(sum[:8])
}

// crowd names the cookies of logins that go when one more begins: those that are over, and the oldest of too many.
func (g *gate) crowd(r *message.Request, v visit) (gone []string) {
	type old struct {
		name string
		at   time.Time
	}
	var kept []old
	for name, text := range cookies(&r.Header) {
		if !strings.HasPrefix(name, v.login("")) {
			continue
		}
		if len(kept)+len(gone) >= maxLooked {
			gone = append(gone, name)
			continue
		}
		if l, ok := g.open(v, text); ok {
			kept = append(kept, old{name, l.at})
		} else {
			gone = append(gone, name)
		}
	}
	slices.SortStableFunc(kept, func(a, b old) int { return b.at.Compare(a.at) })
	for i := maxLogins - 1; i < len(kept); i++ {
		gone = append(gone, kept[i].name)
	}
	return gone[:min(len(gone), 2*maxLooked)]
}

// open returns the login that a cookie holds, if it is not over.
func (g *gate) open(v visit, text string) (*login, bool) {
	packed, ok := g.logins.open(text, g.bound("login", v))
	if !ok {
		return nil, false
	}
	l, ok := unpackLogin(packed)
	return l, ok && g.now().Sub(l.at) < loginTTL
}

// begun is the login of that state which this browser has begun, and the name of its cookie.
func (g *gate) begun(r *message.Request, v visit, state string) (l *login, name string, ok bool) {
	name = v.login(loginID(state))
	text, ok := only(&r.Header, name)
	if !ok {
		return nil, name, false
	}
	l, ok = g.open(v, text)
	return l, name, ok && subtle.ConstantTimeCompare([]byte(l.state), []byte(state)) == 1
}
