package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// AuthMethod is one way to prove an identity.
//
// +kubebuilder:validation:XValidation:message="a method must be exactly one of jwt, apiKey, oidc, basic, clientCertificate and external",rule="[has(self.jwt), has(self.apiKey), has(self.oidc), has(self.basic), has(self.clientCertificate), has(self.external)].filter(x, x).size() == 1"
type AuthMethod struct {
	// Name of the method, unique in the policy. It is `identity.method` in expressions, and stands in the access log
	// and in metrics.
	//
	// +required
	Name gwv1.SectionName `json:"name,omitempty"`

	// JWT accepts signed tokens (RFC 7519) of an issuer. For several issuers there are several methods.
	// +optional
	JWT *JWTMethod `json:"jwt,omitempty"`

	// APIKey accepts keys that stand in Secrets.
	// +optional
	APIKey *APIKeyMethod `json:"apiKey,omitempty"`

	// OIDC logs browsers in with an OpenID provider.
	// +optional
	OIDC *OIDCMethod `json:"oidc,omitempty"`

	// Basic accepts users and passwords (RFC 7617).
	// +optional
	Basic *BasicMethod `json:"basic,omitempty"`

	// ClientCertificate accepts the client certificate of the connection, if the listener has verified one (the
	// Gateway's spec.tls.frontend).
	// +optional
	ClientCertificate *ClientCertificateMethod `json:"clientCertificate,omitempty"`

	// External asks a service.
	// +optional
	External *ExternalMethod `json:"external,omitempty"`
}

// CredentialSource is a place in a request where a credential may stand.
//
// +kubebuilder:validation:XValidation:message="a place must be exactly one of header, query and cookie",rule="[has(self.header), has(self.query), has(self.cookie)].filter(x, x).size() == 1"
// +kubebuilder:validation:XValidation:message="prefix belongs to header",rule="!has(self.prefix) || has(self.header)"
// +kubebuilder:validation:XValidation:message="this header frames the message or is set by Gatehouse itself; choose another name",rule="!has(self.header) || !(self.header.lowerAscii().replace('_', '-') in ['host', 'connection', 'content-length', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'expect', 'keep-alive', 'proxy-connection', 'http2-settings', 'forwarded', 'x-real-ip', 'x-request-id']) && !self.header.lowerAscii().replace('_', '-').startsWith('x-forwarded-')"
// +kubebuilder:validation:XValidation:message="name the cookie with cookie, not the header Cookie",rule="!has(self.header) || self.header.lowerAscii() != 'cookie'"
type CredentialSource struct {
	// Header is a header whose only value is the credential. A request with several headers of the name is refused.
	// +optional
	Header gwv1.HTTPHeaderName `json:"header,omitempty"`

	// Prefix stands before the credential in the header, with the space if there is one: `Bearer `. It is compared
	// without case. A header without it is not looked at.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[!-~][ -~]*$`
	Prefix string `json:"prefix,omitempty"`

	// Query is a query parameter. Queries stand in logs and histories: prefer a header.
	//
	// +optional
	Query gwv1.HeaderName `json:"query,omitempty"`

	// Cookie is a cookie.
	//
	// +optional
	Cookie gwv1.CookieName `json:"cookie,omitempty"`
}

// JWTAlgorithm is an algorithm of JSON Web Signatures (RFC 7518 3.1, RFC 8037).
//
// +kubebuilder:validation:Enum=RS256;RS384;RS512;PS256;PS384;PS512;ES256;ES384;ES512;EdDSA;HS256;HS384;HS512
type JWTAlgorithm string

// JWTMethod accepts signed tokens. Their claims are `identity.claims` in expressions.
//
// +kubebuilder:validation:XValidation:message="HS256, HS384 and HS512 need jwks.secretRef: who can read such a key can sign tokens",rule="!self.algorithms.exists(a, a.startsWith('HS')) || has(self.jwks.secretRef)"
type JWTMethod struct {
	// Issuer is the claim `iss` that a token must have, compared as it is.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Issuer string `json:"issuer,omitempty"`

	// Audiences: a token must name one of them in its claim `aud`. Absent: `aud` is not looked at, so that tokens which
	// the issuer made for others are accepted, too (RFC 8725 3.9 advises against it).
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Audiences []Audience `json:"audiences,omitempty"`

	// JWKS is where the issuer's keys are (RFC 7517).
	//
	// +required
	JWKS JSONWebKeySet `json:"jwks,omitzero"`

	// Algorithms are those that are accepted; a key is never used with another (RFC 8725 3.1). HS256, HS384 and HS512
	// stand alone: the keys of other algorithms are public, and must not pass for secret ones.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=13
	// +kubebuilder:validation:XValidation:message="HS256, HS384 and HS512 cannot stand beside algorithms whose keys are public",rule="self.all(a, a.startsWith('HS')) || !self.exists(a, a.startsWith('HS'))"
	Algorithms []JWTAlgorithm `json:"algorithms,omitempty"`

	// ClockSkew is how far the issuer's clock may be from ours when `exp`, `nbf` and `iat` are judged: a duration as in
	// GEP-2257, up to 10 minutes.
	//
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=28
	// +kubebuilder:validation:XValidation:message="clockSkew must be from 0s to 10m",rule="duration(self) <= duration('10m')"
	ClockSkew *gwv1.Duration `json:"clockSkew,omitempty"`

	// SubjectClaim is the claim that is identity.subject. A token without it is refused.
	//
	// +optional
	// +kubebuilder:default=sub
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	SubjectClaim string `json:"subjectClaim,omitempty"`

	// From are the places where tokens are looked for. A request with several tokens is refused. Absent: the header
	// Authorization with the prefix `Bearer ` (RFC 6750 2.1).
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	From []CredentialSource `json:"from,omitempty"`
}

// Audience is for whom a token was made.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
type Audience string

// JSONWebKeySet is where an issuer's keys are: behind a URL, in the policy, or in a Secret.
//
// +kubebuilder:validation:XValidation:message="jwks must be exactly one of url, inline and secretRef",rule="[has(self.url), has(self.inline), has(self.secretRef)].filter(x, x).size() == 1"
// +kubebuilder:validation:XValidation:message="jwks.connection belongs to url",rule="!has(self.connection) || has(self.url)"
// +kubebuilder:validation:XValidation:message="url must be https://, without user, fragment or spaces; http:// only to loopback, or through connection.backendRef",rule="!has(self.url) || isURL(self.url) && !self.url.contains('@') && !self.url.contains('#') && (url(self.url).getScheme() == 'https' || url(self.url).getScheme() == 'http' && (url(self.url).getHostname() in ['localhost', '127.0.0.1', '::1'] || has(self.connection) && has(self.connection.backendRef)))"
type JSONWebKeySet struct {
	// URL of the key set. It is fetched ahead of need and kept for as long as the issuer does not answer; redirects are
	// not followed.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`

	// Connection says how the URL is reached. Absent: by its host, over the internet, with the system's certificate
	// authorities.
	//
	// +optional
	Connection *OutsideConnection `json:"connection,omitempty"`

	// Inline is the key set itself, in JSON. It must hold public keys only.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Inline string `json:"inline,omitempty"`

	// SecretRef is a Secret whose entry `jwks.json` is the key set. In another namespace it needs a ReferenceGrant.
	//
	// +optional
	SecretRef *gwv1.SecretObjectReference `json:"secretRef,omitempty"`
}

// OutsideConnection says how a host that is no backend of a route is reached.
//
// +kubebuilder:validation:XValidation:message="caCertificates, caSecretRef and allowPrivateAddresses do not go with backendRef; a BackendTLSPolicy of the Service says how it is spoken to",rule="!has(self.backendRef) || !has(self.caCertificates) && !has(self.caSecretRef) && !self.allowPrivateAddresses"
// +kubebuilder:validation:XValidation:message="caCertificates and caSecretRef exclude each other",rule="!has(self.caCertificates) || !has(self.caSecretRef)"
type OutsideConnection struct {
	// BackendRef is a Service inside the cluster that is spoken to in place of the URL's host, with TLS if a
	// BackendTLSPolicy says so. The URL goes on to say which host and path are asked for. In another namespace it needs
	// a ReferenceGrant.
	//
	// +optional
	BackendRef *gwv1.BackendObjectReference `json:"backendRef,omitempty"`

	// CACertificates are the certificate authorities in PEM that are trusted in place of the system's.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	CACertificates string `json:"caCertificates,omitempty"`

	// CASecretRef is a Secret whose entry `ca.crt` are the certificate authorities in PEM that are trusted in place of
	// the system's. In another namespace it needs a ReferenceGrant.
	//
	// +optional
	CASecretRef *gwv1.SecretObjectReference `json:"caSecretRef,omitempty"`

	// AllowPrivateAddresses lets the host have an address in a private network (RFC 1918, RFC 4193). Otherwise a name
	// that points into one is not spoken to. Link-local addresses are never spoken to.
	//
	// +optional
	// +kubebuilder:default=false
	AllowPrivateAddresses bool `json:"allowPrivateAddresses,omitempty"`
}

// APIKeyMethod accepts keys that stand in Secrets.
//
// Each entry of a Secret is a client: the entry's name is identity.subject, its value the key, or `sha256:` and the
// SHA-256 of the key in hexadecimal (`printf %s "$key" | sha256sum`); a newline at the end is not part of it. The
// Secret's labels are `identity.labels` of all its clients. An annotation `gatehouse.dev/labels.<entry>` with a value such
// as `tier=gold,team=a` adds labels to one of them.
//
// +kubebuilder:validation:XValidation:message="apiKey needs secretRefs or secretSelector, or both",rule="has(self.secretRefs) || has(self.secretSelector)"
type APIKeyMethod struct {
	// From are the places where keys are looked for, e.g. `{header: X-API-Key}`. A request with several keys is refused.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	From []CredentialSource `json:"from,omitempty"`

	// SecretRefs are the Secrets, by name. In another namespace they need a ReferenceGrant.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	SecretRefs []gwv1.SecretObjectReference `json:"secretRefs,omitempty"`

	// SecretSelector takes all Secrets of the policy's namespace that have the labels. Gatehouse has to be allowed to
	// list Secrets there (chart value rbac.secrets).
	//
	// +optional
	// +kubebuilder:validation:XValidation:message="secretSelector must not be empty: every Secret of the namespace would hold keys",rule="has(self.matchLabels) && size(self.matchLabels) > 0 || has(self.matchExpressions) && size(self.matchExpressions) > 0"
	SecretSelector *metav1.LabelSelector `json:"secretSelector,omitempty"`
}

// BasicMethod accepts users and passwords.
type BasicMethod struct {
	// SecretRef is a Secret whose entry `auth` or `.htpasswd` is a file as Apache's htpasswd makes it, with passwords
	// hashed by bcrypt (`htpasswd -nB alice`); other hashes are refused. The user is identity.subject. In another
	// namespace it needs a ReferenceGrant.
	//
	// +required
	SecretRef gwv1.SecretObjectReference `json:"secretRef,omitzero"`

	// Realm that the browser shows when it asks for the password (RFC 9110 11.5).
	//
	// +optional
	// +kubebuilder:default=restricted
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[ !#-\[\]-~]+$`
	Realm string `json:"realm,omitempty"`
}

// CertificateName is a name in a certificate.
//
// +kubebuilder:validation:Enum=URI;DNS;Email;CommonName
type CertificateName string

const (
	// CertificateURI is the first URI in the subject alternative names, such as a SPIFFE ID.
	CertificateURI CertificateName = "URI"

	// CertificateDNS is the first DNS name in the subject alternative names.
	CertificateDNS CertificateName = "DNS"

	// CertificateEmail is the first e-mail address in the subject alternative names.
	CertificateEmail CertificateName = "Email"

	// CertificateCommonName is the common name of the subject.
	CertificateCommonName CertificateName = "CommonName"
)

// ClientCertificateMethod accepts the client certificate of the connection.
type ClientCertificateMethod struct {
	// SubjectFrom is which name of the certificate is identity.subject: URI, DNS or Email of its subject alternative
	// names (RFC 5280 4.2.1.6), or CommonName. A certificate without it is refused. Absent: the first of these, in this
	// order, that the certificate has.
	//
	// +optional
	SubjectFrom CertificateName `json:"subjectFrom,omitempty"`
}

// OIDCMethod logs browsers in with an OpenID provider: the authorization code flow (OpenID Connect Core 1.0, 3.1) with
// PKCE (RFC 7636). The session lives in encrypted cookies. Claims of the ID token are `identity.claims` in expressions,
// `sub` is identity.subject.
//
// Only a request that a browser makes for a page is sent to the login; others get 401.
//
// +kubebuilder:validation:XValidation:message="issuer must be https://, without user, query, fragment or spaces; http:// only to loopback, or through connection.backendRef",rule="isURL(self.issuer) && !self.issuer.contains('@') && !self.issuer.contains('#') && !self.issuer.contains('?') && (url(self.issuer).getScheme() == 'https' || url(self.issuer).getScheme() == 'http' && (url(self.issuer).getHostname() in ['localhost', '127.0.0.1', '::1'] || has(self.connection) && has(self.connection.backendRef)))"
// +kubebuilder:validation:XValidation:message="callbackPath and logoutPath must differ",rule="self.callbackPath != self.logoutPath"
type OIDCMethod struct {
	// Issuer is the provider's name for itself: its discovery document stands at `/.well-known/openid-configuration`
	// below it, and it is the claim `iss` of its tokens, as it is.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Issuer string `json:"issuer,omitempty"`

	// Connection says how the issuer is reached. Absent: by its host, over the internet, with the system's certificate
	// authorities.
	//
	// +optional
	Connection *OutsideConnection `json:"connection,omitempty"`

	// Origins are where else the provider's token endpoint and keys may stand (`https://oauth2.example.net`), for
	// providers that spread them over several hosts. Endpoints anywhere else are not called.
	//
	// +optional
	// +listType=map
	// +listMapKey=url
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Origins []OIDCOrigin `json:"origins,omitempty"`

	// ClientID is how the provider knows Gatehouse. The provider has to know the address of the callback for each host
	// that is served, too: `https://<host><callbackPath>`.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[ -~]+$`
	ClientID string `json:"clientID,omitempty"`

	// ClientSecretRef is a Secret whose entry `client-secret` is the client's secret. In another namespace it needs a
	// ReferenceGrant. Absent: a public client, which proves itself by PKCE alone.
	//
	// +optional
	ClientSecretRef *gwv1.SecretObjectReference `json:"clientSecretRef,omitempty"`

	// Scopes that are asked for. `openid` has to be among them; `offline_access` makes most providers give a token by
	// which the session is refreshed.
	//
	// +optional
	// +listType=set
	// +kubebuilder:default={openid}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:message="openid must be among the scopes",rule="self.exists(s, s == 'openid')"
	Scopes []OIDCScope `json:"scopes,omitempty"`

	// CallbackPath is where the provider sends the browser after the login, on the host that was asked for. Requests for
	// it never reach a backend. If the policy is on a route or a rule, one of the rules that it holds for has to take
	// `GET` of this path (`/app/callback`, where they take `/app`); otherwise Programmed has the reason
	// PartiallyProgrammed and says so. On a Gateway or listener any path will do.
	//
	// +optional
	// +kubebuilder:default="/oauth2/callback"
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`
	CallbackPath string `json:"callbackPath,omitempty"`

	// LogoutPath ends the session, here and (if it says how) at the provider. Requests for it never reach a backend. A
	// rule has to take it, as with callbackPath.
	//
	// +optional
	// +kubebuilder:default="/oauth2/logout"
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`
	LogoutPath string `json:"logoutPath,omitempty"`

	// AfterLogout is where the browser goes after a logout: a path on the same host, or an https:// URL. The provider has
	// to know it as a post-logout redirect URI. Absent: the provider's own page, or one of ours.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:message="afterLogout must be a path such as /bye, or an https:// URL",rule="isURL(self) && !self.startsWith('//') && !self.contains('\\\\') && (self.startsWith('/') || url(self).getScheme() == 'https')"
	AfterLogout string `json:"afterLogout,omitempty"`

	// SessionTTL is when a session ends at the latest, however often it is refreshed: a duration as in GEP-2257, from one
	// minute to 31 days (`744h`).
	//
	// +optional
	// +kubebuilder:default="12h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=28
	// +kubebuilder:validation:XValidation:message="sessionTTL must be from 1m to 744h (31 days)",rule="duration(self) >= duration('1m') && duration(self) <= duration('744h')"
	SessionTTL *gwv1.Duration `json:"sessionTTL,omitempty"`

	// CookieName is what the names of the cookies begin with (`__Host-` is put before it by itself). Cookies of two
	// policies differ whatever it is.
	//
	// +optional
	// +kubebuilder:default=gatehouse
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_-]*$`
	CookieName string `json:"cookieName,omitempty"`

	// ExtraParams are added to the request that sends the browser to the provider, such as `prompt` or `acr_values`.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	ExtraParams []OIDCParam `json:"extraParams,omitempty"`

	// ForwardAccessToken sends the access token to backends as `Authorization: Bearer`. It is kept in the session, whose
	// cookies it makes larger.
	//
	// +optional
	// +kubebuilder:default=false
	ForwardAccessToken bool `json:"forwardAccessToken,omitempty"`
}

// OIDCOrigin is a further origin of a provider.
//
// +kubebuilder:validation:XValidation:message="an origin must be https://host or https://host:port; http:// only to loopback, or through connection.backendRef",rule="isURL(self.url) && !self.url.contains('@') && !self.url.contains('#') && !self.url.contains('?') && url(self.url).getEscapedPath().size() < 2 && (url(self.url).getScheme() == 'https' || url(self.url).getScheme() == 'http' && (url(self.url).getHostname() in ['localhost', '127.0.0.1', '::1'] || has(self.connection) && has(self.connection.backendRef)))"
type OIDCOrigin struct {
	// URL of the origin (RFC 6454): scheme, host and port, without a path.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	URL string `json:"url,omitempty"`

	// Connection says how the origin is reached. Absent: by its host, over the internet, with the system's certificate
	// authorities.
	//
	// +optional
	Connection *OutsideConnection `json:"connection,omitempty"`
}

// OIDCScope is a scope (RFC 6749 3.3).
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:Pattern=`^[!#-\[\]-~]+$`
type OIDCScope string

// OIDCParam is a query parameter.
//
// +kubebuilder:validation:XValidation:message="this parameter belongs to the login itself and cannot be set",rule="!(self.name in ['client_id', 'client_secret', 'redirect_uri', 'response_type', 'response_mode', 'scope', 'state', 'nonce', 'code_challenge', 'code_challenge_method', 'request', 'request_uri', 'registration'])"
type OIDCParam struct {
	// Name of the parameter.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._~-]+$`
	Name string `json:"name,omitempty"`

	// Value of the parameter, before it is encoded.
	//
	// +required
	// +kubebuilder:validation:MaxLength=1024
	Value string `json:"value"`
}

// ExternalProtocol is how an external service is asked.
//
// +kubebuilder:validation:Enum=HTTP;GRPC
type ExternalProtocol string

const (
	// ExternalHTTP sends the head of the request; an answer of 200 lets it in, any other is what the client gets.
	ExternalHTTP ExternalProtocol = "HTTP"

	// ExternalGRPC calls envoy.service.auth.v3.Authorization/Check.
	ExternalGRPC ExternalProtocol = "GRPC"
)

// ExternalMethod asks a service whether a request may come in. It does what the Gateway API's filter ExternalAuth does
// (GEP-1494), and its answers can be remembered.
//
// +kubebuilder:validation:XValidation:message="path and allowedResponseHeaders belong to protocol HTTP",rule="self.protocol == 'HTTP' || !has(self.path) && !has(self.allowedResponseHeaders)"
type ExternalMethod struct {
	// BackendRef is the Service that is asked, with TLS if a BackendTLSPolicy says so. In another namespace it needs a
	// ReferenceGrant.
	//
	// +required
	BackendRef gwv1.BackendObjectReference `json:"backendRef,omitzero"`

	// Protocol is HTTP, or GRPC for Envoy's ext_authz.
	//
	// +required
	Protocol ExternalProtocol `json:"protocol,omitempty"`

	// Path is put before the path of the request. Protocol HTTP only.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`
	Path string `json:"path,omitempty"`

	// AllowedRequestHeaders are the headers that the service is told. With HTTP, Host, the method, the path,
	// Content-Length and Authorization always are; with GRPC, none given means all.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	AllowedRequestHeaders []gwv1.HTTPHeaderName `json:"allowedRequestHeaders,omitempty"`

	// AllowedResponseHeaders are the headers that the backend gets out of an answer that lets the request in, in place
	// of what the client sent. Absent: all but those that frame it. Protocol HTTP only.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	AllowedResponseHeaders []gwv1.HTTPHeaderName `json:"allowedResponseHeaders,omitempty"`

	// SubjectFrom is the field of an answer which names identity.subject: a header with HTTP; a header that it adds to the
	// request, or a key of its dynamic metadata with GRPC. Absent: with HTTP the service names nobody, with GRPC `subject`
	// or `sub` of the dynamic metadata does.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.-]+$`
	SubjectFrom string `json:"subjectFrom,omitempty"`

	// ForwardBody tells the service the body, too. Absent: it is not told.
	//
	// +optional
	ForwardBody *ForwardBody `json:"forwardBody,omitempty"`

	// Timeout of one call: a duration as in GEP-2257, from 1ms to one minute. A service that does not answer lets nobody
	// in.
	//
	// +optional
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=28
	// +kubebuilder:validation:XValidation:message="timeout must be from 1ms to 1m",rule="duration(self) >= duration('1ms') && duration(self) <= duration('1m')"
	Timeout *gwv1.Duration `json:"timeout,omitempty"`

	// CacheFor is how long an answer that lets a request in holds for others of which the service would be told the
	// same: a duration as in GEP-2257, up to one hour. Absent: not at all.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=28
	// +kubebuilder:validation:XValidation:message="cacheFor must be at most 1h",rule="duration(self) <= duration('1h')"
	CacheFor *gwv1.Duration `json:"cacheFor,omitempty"`
}

// ForwardBody says how much of a body is forwarded.
type ForwardBody struct {
	// MaxSize in bytes, up to 1 MiB. A request with a larger body is refused with 413.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1048576
	MaxSize int32 `json:"maxSize,omitempty"`
}
