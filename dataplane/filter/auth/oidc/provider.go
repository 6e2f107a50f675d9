package oidc

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/outbound"
)

const (
	callLimit    = 10 * time.Second // one call of the provider
	maxDocument  = 256 << 10        // bytes of an answer of the provider: a document, keys, tokens
	believedFor  = 15 * time.Minute // a discovery document, and with it the keys, before they are looked up again
	retryAtFirst = time.Second      // after a discovery that failed, doubled with each further one
	retryAtMost  = 30 * time.Second
)

// algorithms of ID tokens that are accepted, where the provider announces them. None of them is symmetric: a public key is never taken
// for a secret. Without an announcement it is RS256 (OpenID Connect Core 1.0, 3.1.3.7).
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// provider is an OpenID provider as its discovery document says. It is looked up when it is first needed, and again from time to time: one
// that was down when we started heals by itself, and one that goes down later is known from before.
type provider struct {
	issuer string
	now    func() time.Time
	ways   map[string]*way // by origin

	mu      sync.Mutex // guards what follows
	known   *metadata
	current *flight[*metadata] // the last look-up
	failed  int                // look-ups since the last that succeeded
}

// way is how one origin is called. Its caller is that of the newest plan; the client outlives them.
type way struct {
	caller atomic.Pointer[filter.Caller]
	lend   func(context.Context) context.Context // lends libraries the client
}

func newProvider(issuer string, origins map[string]filter.Caller, now func() time.Time) *provider {
	p := &provider{issuer: issuer, now: now, ways: map[string]*way{}}
	for at := range origins {
		w := &way{}
		client := outbound.Client(w, outbound.Options{Timeout: callLimit, MaxBytes: maxDocument})
		w.lend = func(ctx context.Context) context.Context { return oidc.ClientContext(ctx, client) }
		p.ways[at] = w
	}
	return p
}

// use makes calls go by these from now on.
func (p *provider) use(origins map[string]filter.Caller) {
	for at, c := range origins {
		p.ways[at].caller.Store(&c)
	}
}

func (w *way) Do(ctx context.Context, ex *message.Exchange) error {
	return (*w.caller.Load()).Do(ctx, ex)
}

// metadata is what is used of a discovery document.
type metadata struct {
	authorization string
	token         string
	endSession    string // "" not announced
	issReturned   bool   // the provider names itself when it sends a browser back (RFC 9207)
	inHeader      bool   // a client's secret goes by Basic, else in the form
	algorithms    []string
	keys          oidc.KeySet
	at            time.Time
}

type document struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Keys          string   `json:"jwks_uri"`
	EndSession    string   `json:"end_session_endpoint"`
	IssReturned   bool     `json:"authorization_response_iss_parameter_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
}

// metadata returns what is known, looking it up where nothing is. What has grown old is still used while it is looked up again.
func (p *provider) metadata(ctx context.Context) (*metadata, error) {
	p.mu.Lock()
	known, now := p.known, p.now()
	if known != nil && now.Sub(known.at) < believedFor {
		p.mu.Unlock()
		return known, nil
	}
	if p.current == nil || p.current.over() && now.Sub(p.current.ended) >= p.pause() {
		p.current = fly(2*callLimit, p.now, p.lookUp)
	}
	current := p.current
	p.mu.Unlock()
	if known != nil {
		return known, nil
	}
	return current.wait(ctx)
}

// pause is how long after a failure the next look-up may begin.
func (p *provider) pause() time.Duration {
	if p.failed == 0 {
		return 0
	}
	return min(retryAtFirst<<min(p.failed-1, 10), retryAtMost)
}

func (p *provider) lookUp(ctx context.Context) (*metadata, error) {
	found, err := p.discover(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed++
		return nil, err
	}
	p.known, p.failed = found, 0
	return found, nil
}

func (p *provider) discover(ctx context.Context) (*metadata, error) {
	home, err := p.way(p.issuer)
	if err != nil {
		return nil, err
	}
	found, err := oidc.NewProvider(home.lend(ctx), p.issuer) // which demands that the document names the issuer exactly
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", brief(err))
	}
	var d document
	if err := found.Claims(&d); err != nil {
		return nil, fmt.Errorf("discovery: %w", brief(err))
	}
	if _, err := p.way(d.Token); err != nil {
		return nil, fmt.Errorf("discovery: token_endpoint: %w", err)
	}
	keys, err := p.way(d.Keys)
	if err != nil {
		return nil, fmt.Errorf("discovery: jwks_uri: %w", err)
	}
	if err := p.visitable(d.Authorization); err != nil {
		return nil, fmt.Errorf("discovery: authorization_endpoint: %w", err)
	}
	if d.EndSession != "" {
		if err := p.visitable(d.EndSession); err != nil {
			return nil, fmt.Errorf("discovery: end_session_endpoint: %w", err)
		}
	}
	m := &metadata{
		authorization: d.Authorization, token: d.Token, endSession: d.EndSession, issReturned: d.IssReturned,
		inHeader: len(d.AuthMethods) == 0 || slices.Contains(d.AuthMethods, "client_secret_basic"),
		keys:     oidc.NewRemoteKeySet(keys.lend(context.WithoutCancel(ctx)), d.Keys), at: p.now(),
	}
	for _, a := range algorithms {
		if slices.Contains(d.Algorithms, a) {
			m.algorithms = append(m.algorithms, a)
		}
	}
	switch {
	case len(d.Algorithms) == 0:
		m.algorithms = []string{oidc.RS256}
	case len(m.algorithms) == 0:
		return nil, fmt.Errorf("discovery: none of the algorithms %q is accepted", d.Algorithms)
	}
	return m, nil
}

// way is how a URL of the provider is called.
func (p *provider) way(raw string) (*way, error) {
	at, err := originOf(raw)
	if err != nil {
		return nil, err
	}
	if w := p.ways[at]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("%q is neither on the issuer's origin nor on one that the policy names", at)
}

// visitable: a browser may be sent there. It may be any host, but never in the clear where the issuer is not.
func (p *provider) visitable(raw string) error {
	at, err := originOf(raw)
	switch {
	case err != nil:
		return err
	case strings.ContainsAny(raw, "# ") || !message.ValidValue(raw):
		return fmt.Errorf("%q has a fragment, or what no Location may have", raw)
	case strings.HasPrefix(p.issuer, "https:") && !strings.HasPrefix(at, "https:"):
		return fmt.Errorf("%q is not https, and the issuer is", raw)
	}
	return nil
}

var (
	errRefused = errors.New("the provider refuses")         // it has answered, and says no
	errAway    = errors.New("the provider does not answer") // so nothing is known
)

// tokens are what the token endpoint gives.
type tokens struct {
	id      string // raw; "" a refresh without one
	access  string
	refresh string
	lives   time.Duration // of the access token; 0 not said
}

// redeem changes a code for tokens; refresh a refresh token. Errors are errRefused, or the provider could not be asked, or is not content
// with how we ask.
func (p *provider) redeem(ctx context.Context, m *metadata, c *Config, code, verifier, redirect string) (tokens, error) {
	config := m.client(c)
	config.RedirectURL = redirect
	w, err := p.way(m.token)
	if err != nil {
		return tokens{}, err
	}
	return gave(config.Exchange(w.lend(ctx), code, oauth2.VerifierOption(verifier)))
}

func (p *provider) refresh(ctx context.Context, m *metadata, c *Config, token string) (tokens, error) {
	w, err := p.way(m.token)
	if err != nil {
		return tokens{}, err
	}
	config := m.client(c)
	return gave(config.TokenSource(w.lend(ctx), &oauth2.Token{RefreshToken: token}).Token())
}

// client is how the provider knows us. The way of authentication is chosen by what is announced: trying one after the other would present
// a code twice.
func (m *metadata) client(c *Config) *oauth2.Config {
	style := oauth2.AuthStyleInParams
	if m.inHeader && len(c.ClientSecret.Data) > 0 {
		style = oauth2.AuthStyleInHeader
	}
	return &oauth2.Config{
		ClientID: c.ClientID, ClientSecret: string(c.ClientSecret.Data), Scopes: c.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: m.authorization, TokenURL: m.token, AuthStyle: style},
	}
}

func gave(t *oauth2.Token, err error) (tokens, error) {
	var answer *oauth2.RetrieveError
	if errors.As(err, &answer) {
		err = fmt.Errorf("token endpoint: status %d, %q", answer.Response.StatusCode, plainWord(answer.ErrorCode))
		switch status := answer.Response.StatusCode; {
		case answer.ErrorCode == "invalid_client" || answer.ErrorCode == "unauthorized_client": // whoever wrote the policy must see to it
		case status >= 400 && status < 500 && status != 408 && status != 429:
			err = fmt.Errorf("%w: %w", errRefused, err)
		}
		return tokens{}, err
	}
	if err != nil {
		return tokens{}, fmt.Errorf("token endpoint: %w", brief(err))
	}
	id, _ := t.Extra("id_token").(string)
	return tokens{id, t.AccessToken, t.RefreshToken, time.Duration(t.ExpiresIn) * time.Second}, nil
}

// verify holds an ID token to OpenID Connect Core 1.0, 3.1.3.7; access is the token that came with it. Nonce "" is not looked at: tokens of
// a refresh have none.
func (p *provider) verify(ctx context.Context, m *metadata, clientID, raw, access, nonce string) (*oidc.IDToken, error) {
	verifier := oidc.NewVerifier(p.issuer, m.keys, &oidc.Config{ClientID: clientID, SupportedSigningAlgs: m.algorithms, Now: p.now})
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	token, err := verifier.Verify(ctx, raw)
	if err != nil && strings.Contains(err.Error(), ": fetching keys ") { // all that Verify leaves of the cause
		return nil, fmt.Errorf("%w: %w", errAway, brief(err))
	}
	if err != nil {
		return nil, brief(err)
	}
	var claims struct {
		Party json.RawMessage `json:"azp"`
	}
	if err := token.Claims(&claims); err != nil {
		return nil, brief(err)
	}
	var party string
	if len(claims.Party) > 0 && json.Unmarshal(claims.Party, &party) != nil {
		return nil, errors.New("azp is no text")
	}
	switch {
	case len(token.Audience) > 1 && party == "":
		return nil, errors.New("the token is for several, and azp does not say for whom")
	case party != "" && party != clientID:
		return nil, errors.New("azp names another client")
	case nonce != "" && subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(nonce)) != 1:
		return nil, errors.New("the nonce is not the one of this login")
	case token.AccessTokenHash != "" && token.VerifyAccessToken(access) != nil:
		return nil, errors.New("at_hash is not that of the access token")
	}
	return token, nil
}

// authorizationURL is where a browser goes to log in.
func (m *metadata) authorizationURL(c *Config, redirect string, l *login) string {
	config := m.client(c)
	config.RedirectURL = redirect
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(l.verifier), oidc.Nonce(l.nonce)}
	for _, p := range c.Extra {
		options = append(options, oauth2.SetAuthURLParam(p.Name, p.Value))
	}
	return config.AuthCodeURL(l.state, options...)
}

// logoutURL is where a browser goes to log out (OpenID Connect RP-Initiated Logout 1.0, 2).
func (m *metadata) logoutURL(clientID, hint, after string) string {
	q := url.Values{"client_id": {clientID}}
	if hint != "" {
		q.Set("id_token_hint", hint)
	}
	if after != "" {
		q.Set("post_logout_redirect_uri", after)
	}
	if strings.Contains(m.endSession, "?") {
		return m.endSession + "&" + q.Encode()
	}
	return m.endSession + "?" + q.Encode()
}

// brief is an error that may hold an answer's whole body, for the log.
func brief(err error) error {
	if text := err.Error(); len(text) > 300 {
		return fmt.Errorf("%s… %w", text[:300], errLong)
	}
	return err
}

var errLong = errors.New("(cut)")

// plainWord is a word of a provider or a browser that may stand in a log or a page: "" when it is not one.
func plainWord(s string) string {
	if len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
		return ""
	}
	return s
}
