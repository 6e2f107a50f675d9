//go:build login

package login

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// provider is zitadel's OpenID provider with its example's login page and store, on loopback.
type provider struct {
	issuer    string
	lives     atomic.Int64 // seconds of an ID token
	refreshes atomic.Int64
	refused   atomic.Int64 // answers of the token endpoint that are errors

	mu     sync.Mutex // guards what follows
	logins []string   // redirect URIs, in the order of logins
}

const (
	clientID = "gatehouse"
	secret   = "s3cret&=+%"
	password = "verysecure"
)

// users are who can log in. Dora has a name that no single cookie holds.
type users map[string]*storage.User

func (u users) GetUserByID(id string) *storage.User         { return u[id] }
func (u users) GetUserByUsername(name string) *storage.User { return u[name] }
func (u users) ExampleClientID() string                     { return storage.ServiceUserID }

// store is the example's, with clients whose tokens live as long as a test wants.
type store struct {
	*storage.Storage
	provider *provider
	after    []string
}

type client struct {
	op.Client
	store *store
}

func (s *store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c, s}, nil
}

func (c client) IDTokenLifetime() time.Duration {
	return time.Duration(c.store.provider.lives.Load()) * time.Second
}
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c client) PostLogoutRedirectURIs() []string     { return c.store.after }

// newProvider serves a provider that knows one client, by where it may be sent back to.
func newProvider(t testing.TB, callbacks []string, after ...string) *provider {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{issuer: "http://" + l.Addr().String()}
	p.lives.Store(3600)
	storage.RegisterClients(storage.WebClient(clientID, secret, callbacks...))
	people := users{}
	for name, first := range map[string]string{"ada": "Ada", "dora": strings.Repeat("Dora the long-named ", 400)} {
		people[name] = &storage.User{ID: name, Username: name, Password: password, FirstName: first, LastName: "Test", Email: name + "@example.test"}
	}
	s := &store{storage.NewStorage(people), p, after}
	handler := exampleop.SetupServer(p.issuer, s, slog.New(slog.NewTextHandler(io.Discard, nil)), false)
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: p.watch(handler)}}
	server.Start()
	t.Cleanup(server.Close)
	return p
}

// watch counts what comes.
func (p *provider) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/oauth/token" {
			next.ServeHTTP(w, r)
			return
		}
		if r.FormValue("grant_type") == "refresh_token" {
			p.refreshes.Add(1)
		}
		seen := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(seen, r)
		if seen.status >= 400 {
			p.refused.Add(1)
		}
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
