package oidc

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/outbound"
)

// returned is what a browser comes back with from the provider.
type returned struct{ code, state, iss, failure string }

var errTwice = errors.New("a parameter stands twice, or the query is malformed")

// parse reads the query. No parameter that counts may stand twice: the provider and we might read different ones.
func (b *returned) parse(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errTwice
	}
	for name, to := range map[string]*string{"code": &b.code, "state": &b.state, "iss": &b.iss, "error": &b.failure} {
		if len(values[name]) > 1 {
			return errTwice
		}
		*to = values.Get(name)
	}
	return nil
}

// callback answers the return from the provider. It is not ours when it names the login of another policy.
func (g *gate) callback(ex *message.Exchange, v visit) (result method.Result, ours bool) {
	r := &ex.Request
	if r.Method != "GET" {
		page := g.fail(ex, 405, "This is not a page", "Only a provider of logins sends browsers here, by GET.", "", "callback by "+r.Method)
		page.Header.Set("Allow", "GET")
		return answered(page), true
	}
	var b returned
	if err := b.parse(r.Target.Query); err != nil {
		return answered(g.fail(ex, 400, "This login cannot be read", textUnknown, v.origin+"/", err.Error())), true
	}
	tag, _, ok := strings.Cut(b.state, ".")
	if ok && len(tag) == len(g.tag) && tag != g.tag {
		return method.Result{}, false
	}
	l, name, ok := g.begun(r, v, b.state)
	if len(b.state) > stateBytes || !ok {
		return answered(g.unknown(ex, v)), true
	}
	if !g.memory.used.first(hashOf(b.state), struct{}{}) {
		return answered(g.fail(ex, 400, "This login was used before", textUsed, v.origin+l.back, "the state was used before")), true
	}
	res := g.complete(ex, v, l, b)
	if res.Status >= 400 {
		g.count.failed.Add(1)
	}
	res.Header.Add("Set-Cookie", v.remove(name))
	return answered(res), true
}

// unknown answers a return that this browser has not begun: cookies are blocked, it took too long, or somebody else has begun it (CSRF).
// Who is logged in all the same has pressed Back, or had another tab that was faster.
func (g *gate) unknown(ex *message.Exchange, v visit) *message.Response {
	old := v.parts(&ex.Request.Header)
	if s, _ := g.session(v, &old); s != nil && g.now().Before(s.ends(g.config.SessionTTL)) {
		return redirect(302, v.origin+"/")
	}
	return g.fail(ex, 400, "This login is not known to your browser", textUnknown, v.origin+"/", "no cookie of a login with that state")
}

// complete ends a login that this browser has begun.
func (g *gate) complete(ex *message.Exchange, v visit, l *login, b returned) *message.Response {
	again := v.origin + l.back
	ctx, cancel := context.WithTimeout(outbound.For(ex), 2*callLimit)
	defer cancel()
	m, err := g.provider.metadata(ctx)
	if err != nil {
		return g.fail(ex, 503, "The login cannot be completed now", textAway, again, err.Error())
	}
	// RFC 9207 2.4, before anything that came with it is used or sent anywhere: another provider may have made this answer (mix-up).
	if b.iss != g.config.Issuer && (m.issReturned || b.iss != "") {
		return g.fail(ex, 400, "This login is not of the right provider", textAgain, again, "iss is not the issuer")
	}
	if b.failure != "" {
		return g.denied(ex, again, plainWord(b.failure))
	}
	if b.code == "" {
		return g.fail(ex, 400, "The login was not completed", textAgain, again, "neither code nor error")
	}
	t, err := g.provider.redeem(ctx, m, &g.config, b.code, l.verifier, v.origin+g.config.CallbackPath)
	switch {
	case errors.Is(err, errRefused):
		return g.fail(ex, 400, "The login was not completed", textAgain, again, err.Error())
	case err != nil:
		return g.fail(ex, 503, "The login cannot be completed now", textAway, again, err.Error())
	}
	s, err := g.begin(ctx, m, l, t)
	switch {
	case errors.Is(err, errAway):
		return g.fail(ex, 503, "The login cannot be completed now", textAway, again, err.Error())
	case err != nil:
		return g.fail(ex, 502, "The login cannot be trusted", textAgain, again, "ID token: "+err.Error())
	}
	res := redirect(302, again)
	if err := g.write(&res.Header, v, s, v.parts(&ex.Request.Header)); err != nil {
		return g.fail(ex, 502, "The login cannot be kept", textLarge, "", err.Error())
	}
	res.Header.Add("Set-Cookie", v.set(v.marker(), g.nextMark(&ex.Request, v), againTTL))
	g.count.completed.Add(1)
	return res
}

// begin makes the session of a login.
func (g *gate) begin(ctx context.Context, m *metadata, l *login, t tokens) (*session, error) {
	if t.id == "" {
		return nil, errors.New("there is none")
	}
	token, err := g.provider.verify(ctx, m, g.config.ClientID, t.id, t.access, l.nonce)
	if err != nil {
		return nil, err
	}
	s := &session{id: rand.Text(), started: g.now(), expires: token.Expiry, refresh: t.refresh}
	if err := s.setToken(t.id); err != nil {
		return nil, err
	}
	return s, g.take(s, t)
}

// nextMark counts logins of a browser that come soon after one another: it is looked at when the next begins, and gone after againTTL.
func (g *gate) nextMark(r *message.Request, v visit) string {
	mark, _ := only(&r.Header, v.marker())
	if len(mark) != 1 || mark[0] < '1' || mark[0] > '8' {
		return "1"
	}
	return string(mark[0] + 1)
}

// denied answers a provider's error (RFC 6749 4.1.2.1, OpenID Connect Core 1.0, 3.1.2.6). Its description is not shown: whoever makes the
// link writes it.
func (g *gate) denied(ex *message.Exchange, again, word string) *message.Response {
	detail := "the provider says " + word
	switch word {
	case "access_denied":
		return g.fail(ex, 403, "The login was refused", "The provider did not let you in, or you did not agree.", again, detail)
	case "temporarily_unavailable", "server_error":
		return g.fail(ex, 503, "The login cannot be completed now", textAway, again, detail)
	}
	return g.fail(ex, 400, "The login was not completed", "The provider says: "+word, again, detail)
}
