package oidc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// changes are one for each field of Config.
var changes = map[string]func(*Config){
	"Policy":  func(c *Config) { c.Policy = "shop/b" },
	"Issuer":  func(c *Config) { c.Issuer = "https://b.example" },
	"Backend": func(c *Config) { c.Backend.Port = 8443 },
	"Origins": func(c *Config) { c.Origins = []Origin{{URL: "https://b.example"}} },
	"Origins' backend": func(c *Config) {
		c.Origins = []Origin{{URL: "https://b.example", Backend: snapshot.BackendRef{Port: 1}}}
	},
	"ClientID":           func(c *Config) { c.ClientID = "b" },
	"ClientSecret":       func(c *Config) { c.ClientSecret.Data = []byte("other") },
	"no ClientSecret":    func(c *Config) { c.ClientSecret.Data = nil },
	"Scopes":             func(c *Config) { c.Scopes = []string{"openid"} },
	"Scopes in one":      func(c *Config) { c.Scopes = []string{"openid groups"} },
	"CallbackPath":       func(c *Config) { c.CallbackPath = "/b" },
	"LogoutPath":         func(c *Config) { c.LogoutPath = "/b" },
	"AfterLogout":        func(c *Config) { c.AfterLogout = "/b" },
	"CookieName":         func(c *Config) { c.CookieName = "b" },
	"SessionTTL":         func(c *Config) { c.SessionTTL = time.Minute },
	"Extra":              func(c *Config) { c.Extra = []Param{{"prompt", "login"}} },
	"ForwardAccessToken": func(c *Config) { c.ForwardAccessToken = true },
}

func TestTheTextFormIsCompleteAndShowsNoSecret(t *testing.T) {
	seen := map[string]string{settings().String(): "nothing"}
	for name, change := range changes {
		text := settings(change).String()
		if before, ok := seen[text]; ok {
			t.Errorf("changing %s and changing %s is the same: %s", name, before, text)
		}
		seen[text] = name
	}
	for _, text := range []string{settings().String(), fmt.Sprintf("%v %+v %#v", settings(), settings(), settings())} {
		if strings.Contains(text, "s3cret") {
			t.Errorf("%s", text)
		}
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	for says, change := range map[string]func(*Config){
		"no absolute http or https URL": func(c *Config) { c.Issuer = "sso.example.com" },
		`"ftp://x" is no absolute`:      func(c *Config) { c.Issuer = "ftp://x" },
		"issuer has a query":            func(c *Config) { c.Issuer = issuer + "?tenant=a" },
		"there is no policy":            func(c *Config) { c.Policy = "" },
		"clientID is empty":             func(c *Config) { c.ClientID = "" },
		`scopes lack "openid"`:          func(c *Config) { c.Scopes = []string{"profile"} },
		`scope "a b" is none`:           func(c *Config) { c.Scopes = []string{"openid", "a b"} },
		"sessionTTL is negative":        func(c *Config) { c.SessionTTL = -1 },
		"cookieName is longer":          func(c *Config) { c.CookieName = "a;b" },
		"cookieName is longer than 32":  func(c *Config) { c.CookieName = strings.Repeat("x", 33) },
		"two underscores":               func(c *Config) { c.CookieName = "__Host-a" },
		`callbackPath "/" is not`:       func(c *Config) { c.CallbackPath = "/" },
		"callbackPath":                  func(c *Config) { c.CallbackPath = "/a/../b" },
		`callbackPath "/a?b" is not`:    func(c *Config) { c.CallbackPath = "/a?b" },
		`logoutPath ""`:                 func(c *Config) { c.LogoutPath = "logout"; c.CallbackPath = "/x" },
		"are the same":                  func(c *Config) { c.LogoutPath = c.CallbackPath },
		"neither a path nor a URL":      func(c *Config) { c.AfterLogout = "javascript:alert(1)" },
		`afterLogout "/a\nb"`:           func(c *Config) { c.AfterLogout = "/a\nb" },
		`parameter "state" is set`:      func(c *Config) { c.Extra = []Param{{"state", "x"}} },
		`parameter "redirect_uri"`:      func(c *Config) { c.Extra = []Param{{"redirect_uri", "https://evil.example"}} },
		`origin "x" is no`:              func(c *Config) { c.Origins = []Origin{{URL: "x"}} },
		"is not https, and the issuer":  func(c *Config) { c.Origins = []Origin{{URL: "http://x"}} },
	} {
		h := newHouse(t)
		r := h.Store.Begin()
		_, err := settings(change).Build(h.env(r))
		r.End()
		if err == nil || !strings.Contains(err.Error(), strings.Replace(says, `logoutPath ""`, "logoutPath", 1)) {
			t.Errorf("%q: %v", says, err)
		}
	}
	for name, change := range changes {
		if name == "Scopes in one" {
			continue
		}
		if err := settings(change).Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestABackendThatIsNotThereFailsTheBuild(t *testing.T) {
	h := newHouse(t)
	r := h.Store.Begin()
	defer r.End()
	env := h.env(r)
	env.Call = func(ref snapshot.BackendRef) (filter.Caller, error) {
		if ref.Port == 1 {
			return nil, errors.New("no such backend")
		}
		return h, nil
	}
	if _, err := settings(changes["Origins' backend"]).Build(env); err == nil || !strings.Contains(err.Error(), "backend of https://b.example: no such backend") {
		t.Errorf("%v", err)
	}
}
