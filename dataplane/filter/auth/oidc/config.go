// Package oidc logs browsers in with an OpenID provider: the code flow with PKCE (OpenID Connect Core 1.0, RFC 7636).
package oidc

import (
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Config says with whom to log in, and what is kept of it.
type Config struct {
	Policy       string // UID or name of the policy: what sets cookies of two apart
	Issuer       string // https://sso.example.com: its discovery document stands below it
	Backend      snapshot.BackendRef
	ClientID     string
	ClientSecret snapshot.Sensitive // empty: a public client
	Scopes       []string           // "openid" is among them
	// CallbackPath and LogoutPath are on the host that is asked for; requests for them never reach a backend.
	CallbackPath string
	LogoutPath   string
	// AfterLogout is a path on the same host, or an absolute URL that the policy's author wrote; "" "/".
	AfterLogout string
	CookieName  string        // prefix of the cookies' names
	SessionTTL  time.Duration // a session ends at it at the latest, 0: with the tokens
	Extra       []Param       // of the request to the authorization endpoint, such as prompt
}

// Param is a query parameter.
type Param struct{ Name, Value string }
