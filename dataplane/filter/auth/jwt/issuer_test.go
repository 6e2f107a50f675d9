package jwt

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/filtertest"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

const (
	issuerName = "https://login.example.com"
	keysURL    = issuerName + "/keys"
)

var start = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

// pair is a key pair of a test's issuer; go-jose signs, so that what we verify is what someone else has written.
type pair struct {
	kid     string
	alg     jose.SignatureAlgorithm
	private any
}

// The keys are made once: an RSA key takes a while.
var (
	rsaKey  = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	rsaWeak = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
	p256    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p521    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	other   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	edKey   = sync.OnceValue(func() ed25519.PrivateKey {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return must(k, err)
	})
	secret = []byte(strings.Repeat("0123456789abcdef", 4))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func esPair(kid string) pair { return pair{kid, jose.ES256, p256()} }

// public is the pair's key as an issuer publishes it.
func (p pair) public() jose.JSONWebKey {
	k := jose.JSONWebKey{Key: p.private, KeyID: p.kid, Algorithm: string(p.alg), Use: "sig"}
	if s, ok := p.private.(crypto.Signer); ok {
		k.Key = s.Public()
	}
	return k
}

func setOf(pairs ...pair) []byte {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, p := range pairs {
		set.Keys = append(set.Keys, p.public())
	}
	return must(json.Marshal(set))
}

// claims are those of a good token, changed by pairs of name and value; a nil value takes one away.
func claims(change ...any) map[string]any {
	c := map[string]any{"iss": issuerName, "sub": "joe", "aud": "api", "exp": start.Add(time.Hour).Unix(), "iat": start.Unix()}
	for i := 0; i < len(change); i += 2 {
		if c[change[i].(string)] = change[i+1]; change[i+1] == nil {
			delete(c, change[i].(string))
		}
	}
	return c
}

// sign signs claims, with fields of the header on top.
func (p pair) sign(c map[string]any, header ...any) string {
	o := &jose.SignerOptions{}
	for i := 0; i < len(header); i += 2 {
		o.WithHeader(jose.HeaderKey(header[i].(string)), header[i+1])
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: p.alg, Key: jose.JSONWebKey{Key: p.private, KeyID: p.kid}}, o))
	return must(must(signer.Sign(must(json.Marshal(c)))).CompactSerialize())
}

// by hand: a token of any header and claims, with any signature.
func byHand(header, claims string, sign func(signed []byte) []byte) string {
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	return signed + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(signed)))
}

// signES is the signature of the pair by the standard library alone.
func signES(key *ecdsa.PrivateKey) func([]byte) []byte {
	return func(signed []byte) []byte {
		r, s, err := ecdsa.Sign(rand.Reader, key, algorithmOf("ES256").sum(signed))
		if err != nil {
			panic(err)
		}
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out
	}
}

// world is what a method is built in, with an issuer that can be asked for its keys.
type world struct {
	*filtertest.House
	t    testing.TB
	work sync.WaitGroup

	mu     sync.Mutex                                            // guards what follows
	answer func(ctx context.Context, ex *message.Exchange) error // of the issuer
	calls  int
}

func newWorld(t testing.TB) *world {
	w := &world{House: filtertest.New(start), t: t}
	w.publish(setOf(esPair("a")))
	t.Cleanup(w.work.Wait)
	return w
}

// issuerAnswers says what the issuer does from now on.
func (w *world) issuerAnswers(answer func(ctx context.Context, ex *message.Exchange) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

func (w *world) publish(keys []byte, fields ...message.Field) {
	w.issuerAnswers(func(_ context.Context, ex *message.Exchange) error {
		ex.Response = &message.Response{Status: 200, Length: -1, Header: message.NewHeader(fields...), Body: message.BodyOf(keys)}
		return nil
	})
}

func (w *world) goDown() {
	w.issuerAnswers(func(context.Context, *message.Exchange) error { return errors.New("connection refused") })
}

// Do is the way to the issuer.
func (w *world) Do(ctx context.Context, ex *message.Exchange) error {
	w.mu.Lock()
	w.calls++
	answer := w.answer
	w.mu.Unlock()
	if ex.Request.Scheme+"://"+ex.Request.Host.Name+ex.Request.Target.Path != keysURL {
		w.t.Errorf("the issuer is asked for %s", ex.Request.Target.Path)
	}
	return answer(ctx, ex)
}

func (w *world) called() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls
}

func (w *world) counted(result string) float64 {
	return w.Counted("jwks_fetches_total", "result", result)
}

func (w *world) env(r *keep.Round) filter.Env {
	env := w.Env(r)
	env.Call = func(snapshot.BackendRef) (filter.Caller, error) { return w, nil }
	env.Async = func(work func()) bool {
		w.work.Go(work)
		return true
	}
	return env
}

// build applies a snapshot with that method in it.
func (w *world) build(c Config) method.Method {
	w.t.Helper()
	r := w.Store.Begin()
	defer r.End()
	m, err := c.Build(w.env(r))
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// remote and inlined are settings of an issuer whose keys are fetched, or stand in the policy.
func remoteConfig() Config {
	return Config{
		Issuer: issuerName, Audiences: []string{"api"}, Algorithms: []string{"ES256", "RS256"}, ClockSkew: 30 * time.Second,
		Keys: Keys{URL: keysURL, Backend: snapshot.BackendRef{Outside: "login.example.com", Port: 443}},
	}
}

func inlineConfig(algorithms []string, pairs ...pair) Config {
	c := remoteConfig()
	c.Algorithms, c.Keys = algorithms, Keys{Inline: setOf(pairs...)}
	return c
}

func bearer(tokens ...string) *message.Exchange {
	ex := &message.Exchange{}
	for _, t := range tokens {
		ex.Request.Header.Add("Authorization", "Bearer "+t)
	}
	return ex
}

// expect demands an outcome, and of a refusal that the log is told why.
func expect(t testing.TB, m method.Method, ex *message.Exchange, want method.Outcome, why string) method.Result {
	t.Helper()
	got := m.Authenticate(ex)
	if got.Outcome != want || !strings.Contains(got.Detail, why) {
		t.Errorf("outcome %v (%s), want %v (%s)", got.Outcome, got.Detail, want, why)
	}
	if (got.Identity != nil) != (want == method.Accepted) {
		t.Errorf("identity %v", got.Identity)
	}
	return got
}
