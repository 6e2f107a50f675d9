package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/jwt"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/oidc"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

const defaultClockSkew = 30 * time.Second

// algorithms are those of tokens; true: the key is secret, and the same signs and verifies.
var algorithms = map[v1alpha1.JWTAlgorithm]bool{
	"RS256": false, "RS384": false, "RS512": false, "PS256": false, "PS384": false, "PS512": false,
	"ES256": false, "ES384": false, "ES512": false, "EdDSA": false, "HS256": true, "HS384": true, "HS512": true,
}

func (c *compilation) jwt(field string, m v1alpha1.JWTMethod) *jwt.Config {
	out := &jwt.Config{Issuer: m.Issuer, Subject: m.SubjectClaim, ClockSkew: c.duration(field+".clockSkew", m.ClockSkew, defaultClockSkew, 0, jwt.MaxClockSkew)}
	if m.Issuer == "" {
		c.wrong(field+".issuer", "must be the claim iss that tokens have")
	}
	for _, a := range m.Audiences {
		out.Audiences = append(out.Audiences, string(a))
	}
	symmetric := 0
	for i, a := range m.Algorithms {
		secret, known := algorithms[a]
		if !known {
			c.wrong(fmt.Sprintf("%s.algorithms[%d]", field, i), "%.20q is no algorithm that this version of Gatehouse accepts", a)
		}
		if secret {
			symmetric++
		}
		out.Algorithms = append(out.Algorithms, string(a))
	}
	switch {
	case len(m.Algorithms) == 0:
		c.wrong(field+".algorithms", "must name at least one algorithm, such as ES256")
	case symmetric > 0 && symmetric < len(m.Algorithms):
		c.wrong(field+".algorithms", "HS256, HS384 and HS512 cannot stand beside algorithms whose keys are public")
	case symmetric > 0 && m.JWKS.SecretRef == nil:
		c.wrong(field+".jwks", "HS256, HS384 and HS512 need jwks.secretRef: who can read such a key can sign tokens")
	}
	out.From = c.places(field+".from", m.From)
	out.Keys = c.keySet(field+".jwks", m.JWKS)
	return out
}

// keySet is where an issuer's keys come from.
func (c *compilation) keySet(field string, s v1alpha1.JSONWebKeySet) (out jwt.Keys) {
	switch {
	case s.URL != "" && s.Inline == "" && s.SecretRef == nil:
		out.URL, out.Backend = s.URL, c.outside(field+".url", field+".connection", s.URL, s.Connection)
	case s.URL == "" && s.Inline != "" && s.SecretRef == nil:
		out.Inline = []byte(s.Inline)
	case s.URL == "" && s.Inline == "" && s.SecretRef != nil:
		field := field + ".secretRef"
		if secret, p := c.lookup.Secret(field, *s.SecretRef); c.found(p) {
			entry, p := secret.Entry(field, "jwks.json")
			c.found(p)
			out.Inline = entry.Data
		}
	default:
		c.wrong(field, "must be exactly one of url, inline and secretRef")
	}
	if s.Connection != nil && s.URL == "" {
		c.wrong(field+".connection", "belongs to url")
	}
	return out
}

const minSession, maxSession, defaultSession = time.Minute, 744 * time.Hour, 12 * time.Hour

func (c *compilation) oidc(field string, m v1alpha1.OIDCMethod) *oidc.Config {
	out := &oidc.Config{
		Policy:             c.id(),
		Issuer:             m.Issuer,
		Backend:            c.outside(field+".issuer", field+".connection", m.Issuer, m.Connection),
		ClientID:           m.ClientID,
		CallbackPath:       orElse(m.CallbackPath, "/oauth2/callback"),
		LogoutPath:         orElse(m.LogoutPath, "/oauth2/logout"),
		AfterLogout:        m.AfterLogout,
		CookieName:         orElse(m.CookieName, "gatehouse"),
		SessionTTL:         c.duration(field+".sessionTTL", m.SessionTTL, defaultSession, minSession, maxSession),
		ForwardAccessToken: m.ForwardAccessToken,
	}
	c.paths = append(c.paths,
		policy.Path{Path: out.CallbackPath, Field: field + ".callbackPath", Otherwise: "logins cannot complete"},
		policy.Path{Path: out.LogoutPath, Field: field + ".logoutPath", Otherwise: "nobody can log out"})
	if strings.ContainsAny(m.Issuer, "?") {
		c.wrong(field+".issuer", "has a query; the discovery document stands below it (OpenID Connect Discovery 1.0, 3)")
	}
	if m.AfterLogout != "" && !afterLogout(m.AfterLogout) {
		c.wrong(field+".afterLogout", "must be a path such as /bye, or an https:// URL")
	}
	for _, s := range m.Scopes {
		out.Scopes = append(out.Scopes, string(s))
	}
	if len(m.Scopes) == 0 {
		out.Scopes = []string{"openid"}
	}
	for i, o := range m.Origins {
		field := fmt.Sprintf("%s.origins[%d]", field, i)
		out.Origins = append(out.Origins, oidc.Origin{URL: o.URL, Backend: c.outside(field+".url", field+".connection", o.URL, o.Connection)})
	}
	for _, p := range m.ExtraParams {
		out.Extra = append(out.Extra, oidc.Param{Name: p.Name, Value: p.Value})
	}
	if ref := m.ClientSecretRef; ref != nil {
		field := field + ".clientSecretRef"
		if s, p := c.lookup.Secret(field, *ref); c.found(p) {
			secret, p := s.Entry(field, "client-secret")
			if secret.Data = trimNewline(secret.Data); c.found(p) && len(secret.Data) == 0 {
				c.wrongSecret(field, "Secret %s: the entry client-secret is empty", s.Name)
			}
			out.ClientSecret = secret
		}
	}
	return out
}

// afterLogout: browsers read "//" and "/\\" as the beginning of a host.
func afterLogout(text string) bool {
	if strings.HasPrefix(text, "/") {
		return !strings.HasPrefix(text, "//") && !strings.Contains(text, `\`)
	}
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && !strings.Contains(text, `\`)
}

// id tells the policy from all others, also from one of its name that was deleted.
func (c *compilation) id() string {
	if c.policy.UID != "" {
		return string(c.policy.UID)
	}
	return c.policy.Namespace + "/" + c.policy.Name
}

func orElse(text, absent string) string {
	if text == "" {
		return absent
	}
	return text
}

// outside is the backend of a URL: the Service that is named in its place, or the host itself.
func (c *compilation) outside(field, connection, raw string, via *v1alpha1.OutsideConnection) snapshot.BackendRef {
	u, host, ok := c.url(field, raw, via != nil && via.BackendRef != nil)
	if via == nil {
		via = &v1alpha1.OutsideConnection{}
	}
	if via.BackendRef != nil {
		if via.CACertificates != "" || via.CASecretRef != nil || via.AllowPrivateAddresses {
			c.wrong(connection, "caCertificates, caSecretRef and allowPrivateAddresses do not go with backendRef; a BackendTLSPolicy of the Service says how it is spoken to")
		}
		ref, p := c.lookup.Backend(connection+".backendRef", *via.BackendRef)
		c.found(p)
		return ref
	}
	settings := snapshot.Outside{TLS: u.Scheme == "https", Roots: c.roots(connection, *via), Private: via.AllowPrivateAddresses}
	if !ok || !c.reachable(field, host, &settings) {
		return snapshot.BackendRef{}
	}
	ref := snapshot.BackendRef{Outside: host.Name, Port: host.Port, Owner: owner(settings)}
	if ref.Port == 0 {
		ref.Port = map[bool]uint16{true: 443, false: 80}[settings.TLS]
	}
	if !slices.ContainsFunc(c.backends, func(b snapshot.Backend) bool { return b.Ref == ref }) {
		c.backends = append(c.backends, snapshot.Backend{Ref: ref, Outside: &settings})
	}
	return ref
}

// owner tells apart hosts that are spoken to in different ways: equal references have equal settings, whichever policy they come from.
func owner(s snapshot.Outside) string {
	var parts []string
	if !s.TLS {
		parts = append(parts, "clear")
	}
	if s.Private {
		parts = append(parts, "private")
	}
	if s.Roots != nil {
		sum := sha256.Sum256(s.Roots)
		parts = append(parts, "roots="+hex.EncodeToString(sum[:16]))
	}
	return strings.Join(parts, ",")
}

// url reads an address that we call. In the clear only to loopback, or through a Service.
func (c *compilation) url(field, raw string, service bool) (u *url.URL, host message.Host, ok bool) {
	u, err := url.Parse(raw)
	if err != nil {
		c.wrong(field, "%.80q is no URL", raw)
		return new(url.URL), host, false
	}
	host, valid := message.ParseHost(u.Host)
	switch {
	case u.Scheme != "https" && u.Scheme != "http" || !valid || u.Opaque != "":
		c.wrong(field, "%.80q is no https:// URL", raw)
	case u.User != nil:
		c.wrong(field, "must not hold a user or a password")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		c.wrong(field, "must not have a fragment")
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		c.wrong(field, "must not have spaces or characters that are not ASCII; escape them")
	case u.Scheme == "http" && !service && !loopback(host.Name):
		c.wrong(field, "must be https://; http:// only to loopback, or through connection.backendRef")
	default:
		return u, host, true
	}
	return u, host, false
}

// loopback reports whether a host is this machine by its name or address.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// reachable refuses addresses that the data plane will never speak to, as far as the URL itself names one.
func (c *compilation) reachable(field string, host message.Host, s *snapshot.Outside) bool {
	if loopback(host.Name) {
		s.Private = true // where endpoints may be on loopback at all
		return true
	}
	a, err := netip.ParseAddr(host.Name)
	switch a = a.Unmap(); {
	case err != nil: // a name: what it stands for is seen when it is resolved
	case a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified():
		c.wrong(field, "%s is never spoken to: link-local and multicast addresses belong to the node and its cloud", a)
		return false
	case a.IsPrivate() && !s.Private:
		c.wrong(field, "%s is a private address; say connection.allowPrivateAddresses: true if it is meant", a)
		return false
	}
	return true
}

// roots are the certificate authorities to trust; nil: the system's.
func (c *compilation) roots(field string, via v1alpha1.OutsideConnection) []byte {
	switch {
	case via.CACertificates != "" && via.CASecretRef != nil:
		c.wrong(field, "caCertificates and caSecretRef exclude each other")
	case via.CACertificates != "":
		c.certificates(field+".caCertificates", []byte(via.CACertificates))
		return []byte(via.CACertificates)
	case via.CASecretRef != nil:
		return c.rootsIn(field+".caSecretRef", *via.CASecretRef)
	}
	return nil
}

func (c *compilation) rootsIn(field string, ref gwv1.SecretObjectReference) []byte {
	s, p := c.lookup.Secret(field, ref)
	if !c.found(p) {
		return nil
	}
	entry, p := s.Entry(field, policy.CAKey)
	if c.found(p) {
		c.certificates(field, entry.Data)
	}
	return entry.Data
}

// certificates checks that a text is certificates in PEM and nothing else.
func (c *compilation) certificates(field string, text []byte) {
	switch bad := policy.CheckCertificates(text); {
	case bad == nil:
	case bad.Block != "":
		c.wrong(field, "must be certificates in PEM, and holds a %s", bad.Block)
	case bad.Err != nil:
		c.wrong(field, "certificate %d cannot be read: %v", bad.Read+1, bad.Err)
	default:
		c.wrong(field, "must be certificates in PEM and nothing else (after %d that could be read)", bad.Read)
	}
}
