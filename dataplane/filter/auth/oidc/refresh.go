package oidc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

const (
	renewedFor   = 2 * time.Minute // how long the new session is remembered for requests that still bring the old one
	unrenewedFor = 5 * time.Second // how long the provider is left alone after it could not be asked
	patience     = 2 * time.Second // for a refresh, while the old tokens are still good
	maxHops      = 4               // refreshes that one request follows: tokens may live shorter than renewedFor
)

// refreshed is the result for a session whose tokens end soon, or have ended. While they have not, a refresh that fails does no harm: it is
// tried again, and another replica may have been faster.
func (g *gate) refreshed(ex *message.Exchange, v visit, s *session, old parts) method.Result {
	ttl, next := g.config.SessionTTL, s
	var err error
	for range maxHops {
		if now := g.now(); !next.refreshable(now, ttl) || !next.due(now) {
			break
		}
		renewed, failed := g.renew(ex.Context(), next)
		if err = failed; err != nil {
			break
		}
		next = renewed
	}
	if !g.now().Before(next.ends(ttl)) {
		if err == nil || errors.Is(err, errRefused) {
			return g.stranger(ex, v, errEnded)
		}
		return method.Result{Outcome: method.Unavailable, Challenge: challenge, Detail: "refresh: " + err.Error()}
	}
	result := g.accepted(next)
	if next == s {
		return result
	}
	result.OnResponse = func(r *message.Response) {
		if _, out := g.memory.ended.get(next.id); out {
			return // logged out meanwhile: this answer must not log in again
		}
		if err := g.write(&r.Header, v, next, old); err != nil {
			ex.Note("oidc_session", err.Error())
		}
	}
	return result
}

// renew is the session with new tokens. Whoever brings the same refresh token at the same time, or a little later, gets the same: many
// providers take one only once, and end the session of who shows it again.
func (g *gate) renew(ctx context.Context, s *session) (*session, error) {
	now := g.now()
	good := func(f *flight[*session]) bool {
		switch {
		case !f.over():
			return true
		case f.err == nil || errors.Is(f.err, errRefused):
			return now.Sub(f.ended) < renewedFor
		}
		return now.Sub(f.ended) < unrenewedFor
	}
	f := g.memory.refreshes.getOr(hashOf(s.refresh), good, func() *flight[*session] {
		return fly(2*callLimit, g.now, func(ctx context.Context) (*session, error) { return g.refresh(ctx, s) })
	})
	limit := 2 * callLimit
	if now.Before(s.expires) {
		limit = patience
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return f.wait(ctx)
}

// refresh asks the provider.
func (g *gate) refresh(ctx context.Context, s *session) (*session, error) {
	next, err := g.ask(ctx, s)
	switch {
	case err == nil:
		g.count.refreshed.Add(1)
	case errors.Is(err, errRefused):
		g.count.refused.Add(1)
	default:
		g.count.unavailable.Add(1)
	}
	return next, err
}

func (g *gate) ask(ctx context.Context, s *session) (*session, error) {
	m, err := g.provider.metadata(ctx)
	if err != nil {
		return nil, err
	}
	t, err := g.provider.refresh(ctx, m, &g.config, s.refresh)
	if err != nil {
		return nil, err
	}
	next := *s
	if t.refresh != "" {
		next.refresh = t.refresh
	}
	if t.id != "" {
		// OpenID Connect Core 1.0, 12.2: the same subject; a nonce need not be there, but if it is, it is the one of the login.
		token, err := g.provider.verify(ctx, m, g.config.ClientID, t.id, t.access, "")
		if err != nil {
			return nil, fmt.Errorf("ID token: %w", err)
		}
		nonce, _ := s.identity.Claims["nonce"].(string)
		if token.Subject != s.identity.Subject || token.Nonce != "" && token.Nonce != nonce {
			return nil, fmt.Errorf("%w: the new ID token is not of this login", errRefused)
		}
		if err := next.setToken(t.id); err != nil {
			return nil, err
		}
		next.expires = token.Expiry
	} else {
		next.expires = g.now().Add(t.lives)
	}
	return &next, g.take(&next, t)
}

// take sets what both a login and a refresh set: when the tokens were given, and the access token where backends get it.
func (g *gate) take(s *session, t tokens) error {
	s.issued = g.now()
	s.access = ""
	if g.config.ForwardAccessToken {
		s.access = t.access
		if end := s.issued.Add(t.lives); t.lives > 0 && end.Before(s.expires) {
			s.expires = end
		}
		if !message.ValidValue(s.access) {
			return errors.New("the access token cannot stand in a header")
		}
	}
	if !s.expires.After(s.issued) {
		return errors.New("the tokens have already ended")
	}
	return nil
}
