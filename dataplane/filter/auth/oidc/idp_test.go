package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// idp is an OpenID provider that logs everybody in at once, and can be made to misbehave.
type idp struct {
	t      testing.TB
	issuer string
	now    func() time.Time
	key    *ecdsa.PrivateKey
	kid    string

	mu       sync.Mutex // guards what follows
	codes    map[string]url.Values
	refresh  map[string]map[string]any // claims by refresh token, which is good once
	serial   int
	calls    map[string]int // by path
	redeemed []url.Values   // requests to the token endpoint
	basic    bool           // the last of them came with Basic

	// What a test may set before it begins, or under mu.
	secret    string // of the client
	lives     time.Duration
	noRefresh bool
	claims    map[string]any                  // into each ID token
	document  func(d map[string]any)          // changes the discovery document
	token     func(claims map[string]any)     // changes an ID token before it is signed
	sign      func(payload []byte) string     // signs it, instead of the key
	answer    func(path string) (int, string) // answers instead; status 0: does not
	grant     func(answer map[string]any)     // changes what the token endpoint says
	sendBack  func(q url.Values)              // changes what a browser comes back with
	hold      chan struct{}                   // what the token endpoint waits for; nil: nothing
}

func newIDP(t testing.TB, issuer string, now func() time.Time) *idp {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &idp{
		t: t, issuer: issuer, now: now, key: key, kid: "k", secret: "s3cret", codes: map[string]url.Values{}, refresh: map[string]map[string]any{},
		calls: map[string]int{}, lives: time.Hour, claims: map[string]any{"sub": "ada", "groups": []string{"ops", "dev"}},
	}
}

// set changes the provider while it runs.
func (p *idp) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *idp) called(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[path]
}

func (p *idp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.calls[r.URL.Path]++
	answer, hold := p.answer, p.hold
	p.mu.Unlock()
	if answer != nil {
		if status, text := answer(r.URL.Path); status != 0 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			io.WriteString(w, text)
			return
		}
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		d := map[string]any{
			"issuer": p.issuer, "authorization_endpoint": p.issuer + "/authorize", "token_endpoint": p.issuer + "/token",
			"jwks_uri": p.issuer + "/keys", "end_session_endpoint": p.issuer + "/end", "id_token_signing_alg_values_supported": []string{"ES256", "none", "HS256"},
			"authorization_response_iss_parameter_supported": true, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		}
		if p.document != nil {
			p.document(d)
		}
		p.json(w, 200, d)
	case "/keys":
		p.json(w, 200, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: p.kid, Algorithm: "ES256", Use: "sig"}}})
	case "/authorize":
		p.authorize(w, r)
	case "/token":
		if hold != nil {
			<-hold
		}
		p.giveTokens(w, r)
	default:
		p.t.Errorf("the provider was asked for %s", r.URL)
		w.WriteHeader(404)
	}
}

func (p *idp) json(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (p *idp) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != "gatehouse" || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" ||
		q.Get("state") == "" || q.Get("nonce") == "" || !strings.HasSuffix(q.Get("redirect_uri"), "/oauth2/callback") {
		p.t.Errorf("authorization request %v", q)
	}
	p.mu.Lock()
	p.serial++
	code := "code-" + strconv.Itoa(p.serial)
	p.codes[code] = q
	p.mu.Unlock()
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.issuer}}
	if p.sendBack != nil {
		p.sendBack(back)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (p *idp) giveTokens(w http.ResponseWriter, r *http.Request) {
	err := r.ParseForm()
	user, password := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	name, word, basic := r.BasicAuth()
	if basic { // RFC 6749 2.3.1: encoded as in a form
		user, _ = url.QueryUnescape(name)
		password, _ = url.QueryUnescape(word)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.basic = basic; err != nil || r.Method != "POST" || user != "gatehouse" || password != p.secret {
		p.json(w, 401, map[string]string{"error": "invalid_client"})
		return
	}
	p.redeemed = append(p.redeemed, r.Form)
	var claims map[string]any
	switch r.Form.Get("grant_type") {
	case "authorization_code":
		begun, ok := p.codes[r.Form.Get("code")]
		delete(p.codes, r.Form.Get("code"))
		sum := sha256.Sum256([]byte(r.Form.Get("code_verifier")))
		if !ok || begun.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || begun.Get("redirect_uri") != r.Form.Get("redirect_uri") {
			p.json(w, 400, map[string]string{"error": "invalid_grant", "error_description": "s3cret details"})
			return
		}
		claims = maps.Clone(p.claims)
		claims["nonce"] = begun.Get("nonce")
	case "refresh_token":
		old, ok := p.refresh[r.Form.Get("refresh_token")]
		delete(p.refresh, r.Form.Get("refresh_token"))
		if !ok {
			p.json(w, 400, map[string]string{"error": "invalid_grant"})
			return
		}
		claims = maps.Clone(old)
		delete(claims, "nonce")
	}
	p.serial++
	n := strconv.Itoa(p.serial)
	access := "access-" + n
	sum := sha256.Sum256([]byte(access))
	maps.Copy(claims, map[string]any{
		"iss": p.issuer, "aud": "gatehouse", "iat": p.now().Unix(), "exp": p.now().Add(p.lives).Unix(), "jti": n,
		"at_hash": base64.RawURLEncoding.EncodeToString(sum[:16]),
	})
	out := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(p.lives / time.Second)}
	if !p.noRefresh {
		out["refresh_token"] = "refresh-" + n
		p.refresh["refresh-"+n] = maps.Clone(claims)
	}
	if p.token != nil {
		p.token(claims)
	}
	payload, _ := json.Marshal(claims)
	if p.sign != nil {
		out["id_token"] = p.sign(payload)
	} else {
		out["id_token"] = signed(p.t, jose.ES256, p.key, p.kid, payload)
	}
	if p.grant != nil {
		p.grant(out)
	}
	p.json(w, 200, out)
}

func signed(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, payload []byte) string {
	t.Helper()
	if k, ok := key.(crypto.Signer); ok {
		key = k
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := token.CompactSerialize()
	return text
}
