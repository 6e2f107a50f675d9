// Package oidc logs browsers in with an OpenID provider: the code flow with PKCE (OpenID Connect Core 1.0, RFC 7636, RFC 9207), and keeps
// who they are in sealed cookies. There is no store: what a browser brings is all that there is, so any replica serves any request, and a
// restart logs nobody out.
//
// What a provider says is believed only as far as it is checked: its discovery document must name the issuer that was configured, its
// endpoints that we call must stand on hosts that were configured, ID tokens are held to algorithm, issuer, audience, party, nonce, hash of
// the access token and time. What a browser says is believed only when it was sealed by us, for this policy, client and host.
//
// Limits: a session cannot be ended from afar but by its lifetime (logout tells this process and the provider; other replicas believe a
// copied cookie until its tokens end), claims come from the ID token alone (no userinfo), and refreshes are joined per process.
package oidc

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Config says with whom to log in, and what is kept of it.
type Config struct {
	Policy       string // UID or name of the policy: what sets cookies of two apart
	Issuer       string // https://sso.example.com: its discovery document stands below it
	Backend      snapshot.BackendRef
	Origins      []Origin // further ones of the provider
	ClientID     string
	ClientSecret snapshot.Sensitive // empty: a public client
	Scopes       []string           // "openid" is among them; many providers want "offline_access" for a refresh token
	// CallbackPath and LogoutPath are on the host that is asked for, and never reach a backend (but for a callback that names the login of
	// another policy: policies one inside the other may share the path). LogoutPath may be "": there is no logout.
	CallbackPath string
	LogoutPath   string
	// AfterLogout is a path on the same host, or an absolute URL that the policy's author wrote. The provider must know it as a
	// post-logout redirect URI. "": the provider's own page, or a page of ours.
	AfterLogout string
	CookieName  string        // prefix of the cookies' names, at most 32 bytes of a token (RFC 6265 4.1.1); "" "gatehouse"
	SessionTTL  time.Duration // a session ends at it at the latest, 0: with the tokens
	Extra       []Param       // of the request to the authorization endpoint, such as prompt
	// ForwardAccessToken keeps the access token in the session, and sends it to backends as Authorization: Bearer.
	ForwardAccessToken bool
}

// Origin is where the provider's token endpoint or keys may stand beside the issuer's own scheme, host and port (Google's do). An
// endpoint that discovery puts anywhere else is not called.
type Origin struct {
	URL     string // https://oauth2.example.net
	Backend snapshot.BackendRef
}

// Param is a query parameter.
type Param struct{ Name, Value string }

// reserved are parameters that the flow sets itself.
var reserved = []string{
	"client_id", "client_secret", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "code_challenge",
	"code_challenge_method", "request", "request_uri",
}

// String is the text form: Configs with the same text do the same. Secrets are in it by hash.
func (c Config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "oidc(%q of %q by %s client %q", c.Policy, c.Issuer, c.Backend, c.ClientID)
	if len(c.ClientSecret.Data) > 0 {
		b.WriteString(" secret " + c.ClientSecret.String())
	}
	for _, o := range c.Origins {
		fmt.Fprintf(&b, " also %q by %s", o.URL, o.Backend)
	}
	fmt.Fprintf(&b, " scopes %q callback %q logout %q then %q cookie %q", c.Scopes, c.CallbackPath, c.LogoutPath, c.AfterLogout, c.CookieName)
	if c.SessionTTL > 0 {
		b.WriteString(" ttl " + c.SessionTTL.String())
	}
	for _, p := range c.Extra {
		fmt.Fprintf(&b, " %q=%q", p.Name, p.Value)
	}
	if c.ForwardAccessToken {
		b.WriteString(" access-token")
	}
	b.WriteString(")")
	return b.String()
}

// Check says what is wrong with the settings, in words for whoever wrote them.
func (c Config) Check() error {
	issuer, err := originOf(c.Issuer)
	if err != nil {
		return fmt.Errorf("issuer %w", err)
	}
	switch {
	case strings.ContainsAny(c.Issuer, "?#"):
		return errors.New("issuer has a query or a fragment (OpenID Connect Discovery 1.0, 3)")
	case c.Policy == "":
		return errors.New("there is no policy to set cookies apart by")
	case c.ClientID == "":
		return errors.New("clientID is empty")
	case !slices.Contains(c.Scopes, "openid"):
		return errors.New(`scopes lack "openid"`)
	case c.SessionTTL < 0:
		return errors.New("sessionTTL is negative")
	case len(c.CookieName) > 32 || c.CookieName != "" && !message.ValidName(c.CookieName):
		return errors.New("cookieName is longer than 32 bytes, or has a character that no cookie's name may have")
	case strings.HasPrefix(c.CookieName, "__"):
		return errors.New("cookieName begins with two underscores; __Host- comes by itself")
	}
	for _, s := range c.Scopes {
		if s == "" || strings.ContainsAny(s, " \"\\") {
			return fmt.Errorf("scope %q is none (RFC 6749 3.3)", s)
		}
	}
	for _, o := range c.Origins {
		own, err := originOf(o.URL)
		if err != nil {
			return fmt.Errorf("origin %w", err)
		}
		if strings.HasPrefix(issuer, "https:") && !strings.HasPrefix(own, "https:") {
			return fmt.Errorf("origin %q is not https, and the issuer is", o.URL)
		}
	}
	for _, p := range c.Extra {
		if slices.Contains(reserved, p.Name) || p.Name == "" {
			return fmt.Errorf("parameter %q is set by the login itself", p.Name)
		}
	}
	return c.checkPaths()
}

func (c Config) checkPaths() error {
	if err := plainPath(c.CallbackPath); err != nil {
		return fmt.Errorf("callbackPath %w", err)
	}
	if c.LogoutPath != "" {
		if err := plainPath(c.LogoutPath); err != nil {
			return fmt.Errorf("logoutPath %w", err)
		}
	}
	if c.CallbackPath == c.LogoutPath {
		return errors.New("callbackPath and logoutPath are the same")
	}
	switch {
	case c.AfterLogout == "":
	case strings.HasPrefix(c.AfterLogout, "/"):
		if _, reason, detail := message.ParseTarget(c.AfterLogout, message.PathRules{KeepDoubleSlash: true}); reason != message.ReasonNone {
			return fmt.Errorf("afterLogout %q: %s", c.AfterLogout, detail)
		}
	default:
		if _, err := originOf(c.AfterLogout); err != nil || !message.ValidValue(c.AfterLogout) {
			return fmt.Errorf("afterLogout %q is neither a path nor a URL", c.AfterLogout)
		}
	}
	return nil
}

// plainPath: the path is compared with the normalised one of requests, so it must be normal itself.
func plainPath(path string) error {
	t, reason, detail := message.ParseTarget(path, message.PathRules{})
	switch {
	case reason != message.ReasonNone:
		return fmt.Errorf("%q: %s", path, detail)
	case t.HasQuery || t.Path != path || path == "/" || path == "*":
		return fmt.Errorf("%q is not a plain path below the root", path)
	}
	return nil
}

// originOf is scheme, host and port of an absolute http or https URL, the port only when it is not the scheme's own.
func originOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("%q is no URL", raw)
	}
	host, ok := message.ParseHost(u.Host)
	if u.Scheme != "https" && u.Scheme != "http" || !ok || u.User != nil {
		return "", fmt.Errorf("%q is no absolute http or https URL", raw)
	}
	return origin(u.Scheme, host), nil
}

// origin is a web origin (RFC 6454 6.2).
func origin(scheme string, host message.Host) string {
	name := host.Name
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if host.Port == 0 || scheme == "https" && host.Port == 443 || scheme == "http" && host.Port == 80 {
		return scheme + "://" + name
	}
	return scheme + "://" + name + ":" + strconv.Itoa(int(host.Port))
}

// callers resolves the backends of all origins.
func (c Config) callers(env filter.Env) (map[string]filter.Caller, error) {
	out := map[string]filter.Caller{}
	for _, o := range append([]Origin{{c.Issuer, c.Backend}}, c.Origins...) {
		at, err := originOf(o.URL)
		if err != nil {
			return nil, err
		}
		if out[at] != nil {
			continue // the issuer's own, or the first
		}
		if out[at], err = env.Call(o.Backend); err != nil {
			return nil, fmt.Errorf("backend of %s: %w", at, err)
		}
	}
	return out, nil
}

// tag sets cookies and states of this policy and client apart from all others on a host.
func (c Config) tag() string {
	sum := digest("tag", c.Policy, c.Issuer, c.ClientID)
	return hex.EncodeToString(sum[:4])
}
