package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// provider issues tokens.
type provider struct {
	issuer, secret string

	mu    sync.Mutex // guards what follows
	keys  []key      // the last one signs; all are published
	made  int        // keys ever
	codes map[string]url.Values
}

type key struct {
	id      string
	private *ecdsa.PrivateKey
}

func newProvider(issuer, secret string) (*provider, error) {
	p := &provider{issuer: issuer, secret: secret, codes: map[string]url.Values{}}
	return p, p.add()
}

// add makes another key, by which is signed from now on.
func (p *provider) add() error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made++
	p.keys = append(p.keys, key{fmt.Sprintf("%s-%d", rand.Text()[:6], p.made), private})
	return nil
}

// rotate makes another key; ?only=yes takes the ones before it back.
func (p *provider) rotate(w http.ResponseWriter, r *http.Request) {
	if err := p.add(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if r.URL.Query().Get("only") != "" {
		p.mu.Lock()
		p.keys = p.keys[len(p.keys)-1:]
		p.mu.Unlock()
	}
}

func (p *provider) keySet(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, k := range p.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: "ES256", Use: "sig"})
	}
	w.Header().Set("Cache-Control", "max-age=60")
	answer(w, set)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func (p *provider) sign(claims map[string]any) (string, error) {
	p.mu.Lock()
	k := p.keys[len(p.keys)-1]
	p.mu.Unlock()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.private, KeyID: k.id}}, nil)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// claims are those of a token that is good for a quarter of an hour, with more.
func (p *provider) claims(more map[string]any) map[string]any {
	now := time.Now()
	all := map[string]any{"iss": p.issuer, "iat": now.Unix(), "exp": now.Add(15 * time.Minute).Unix()}
	maps.Copy(all, more)
	return all
}

// mint signs whatever claims the test wants.
func (p *provider) mint(w http.ResponseWriter, r *http.Request) {
	var more map[string]any
	err := json.NewDecoder(r.Body).Decode(&more)
	if err == nil {
		var token string
		if token, err = p.sign(p.claims(more)); err == nil {
			io.WriteString(w, token)
			return
		}
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
}

// --- OpenID

func (p *provider) document(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"issuer": p.issuer, "authorization_endpoint": p.issuer + "/authorize", "token_endpoint": p.issuer + "/token", "jwks_uri": p.issuer + "/keys",
		"id_token_signing_alg_values_supported": []string{"ES256"}, "response_types_supported": []string{"code"},
		"subject_types_supported": []string{"public"}, "authorization_response_iss_parameter_supported": true,
	})
}

// authorize asks nobody for a password.
func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("client_id") != "gatehouse" || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" {
		http.Error(w, "that is no authorization request", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	p.mu.Lock()
	p.codes[code] = q
	p.mu.Unlock()
	back.RawQuery = url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.issuer}}.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// redeem gives tokens for a code, once, to whoever has begun the login and knows the client's secret.
func (p *provider) redeem(w http.ResponseWriter, r *http.Request) {
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	p.mu.Lock()
	login := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	p.mu.Unlock()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	switch {
	case id != "gatehouse" || secret != p.secret:
		w.WriteHeader(http.StatusUnauthorized)
		answer(w, map[string]string{"error": "invalid_client"})
	case login == nil || login.Get("redirect_uri") != r.PostFormValue("redirect_uri") ||
		login.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]):
		w.WriteHeader(http.StatusBadRequest)
		answer(w, map[string]string{"error": "invalid_grant"})
	default:
		token, err := p.sign(p.claims(map[string]any{
			"aud": "gatehouse", "sub": "ada", "nonce": login.Get("nonce"), "groups": []string{"staff"}, "email": "ada@example.com",
		}))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 900, "id_token": token})
	}
}
