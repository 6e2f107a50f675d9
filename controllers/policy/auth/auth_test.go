package auth_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/policy/auth"
	filter "github.com/gatehouse-dev/gatehouse/dataplane/filter/auth"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/apikey"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/basic"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/certificate"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/external"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/jwt"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/oidc"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

var gw = snapshot.Name{Namespace: "shop", Name: "gw"}

// targets is a Gateway gw with a listener http, and a route api with an unnamed rule.
var targets = policy.Targets{
	Gateways: []policy.GatewayTarget{{Name: gw, Listeners: []string{"http"}}},
	Routes: []policy.RouteTarget{{ID: route, Rules: []string{""}, Parents: []snapshot.Name{gw},
		Attached: []snapshot.ListenerKey{{Gateway: gw, Section: "http"}}}},
}

var route = policy.RouteID{Kind: "HTTPRoute", Name: snapshot.Name{Namespace: "shop", Name: "api"}}

// there is what policies can refer to: Secrets by name, and Services in any namespace but "closed".
type there map[string]policy.Secret

func (w there) Secret(field string, ref gwv1.SecretObjectReference) (policy.Secret, *policy.Problem) {
	s, ok := w[string(ref.Name)]
	if !ok {
		return s, &policy.Problem{FieldPath: field, Reason: "InvalidSecretRef", Reference: true, Message: "there is no Secret shop/" + string(ref.Name)}
	}
	return s, nil
}

func (w there) Secrets(_ string, selector metav1.LabelSelector) (all []policy.Secret, _ *policy.Problem) {
	s, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		return nil, &policy.Problem{Message: err.Error()}
	}
	for _, name := range []string{"a", "b", "c", "gold", "silver"} {
		if secret, ok := w[name]; ok && s.Matches(labels.Set(secret.Labels)) {
			all = append(all, secret)
		}
	}
	return all, nil
}

func (w there) Backend(field string, ref gwv1.BackendObjectReference) (snapshot.BackendRef, *policy.Problem) {
	namespace := "shop"
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	if namespace == "closed" {
		return snapshot.BackendRef{}, &policy.Problem{FieldPath: field, Reason: "RefNotPermitted", Reference: true, Message: "no ReferenceGrant"}
	}
	return snapshot.BackendRef{Service: snapshot.Name{Namespace: namespace, Name: string(ref.Name)}, Port: uint16(*ref.Port)}, nil
}

// secret makes one of its entries: "alice: key".
func secret(name string, labels map[string]string, entries ...string) policy.Secret {
	s := policy.Secret{Name: snapshot.Name{Namespace: "shop", Name: name}, Labels: labels, Annotations: map[string]string{}, Data: map[string][]byte{}}
	for i := 0; i < len(entries); i += 2 {
		s.Data[entries[i]] = []byte(entries[i+1])
	}
	return s
}

// read makes a policy of the YAML of its spec, without targetRefs.
func read(t *testing.T, name, target, spec string) *v1alpha1.AuthPolicy {
	t.Helper()
	p := auth.Kind.New().(*v1alpha1.AuthPolicy)
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	kind, targetName, _ := strings.Cut(target, " ")
	ref := policy.Target{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
		Group: gwv1.GroupName, Kind: gwv1.Kind(kind), Name: gwv1.ObjectName(targetName)}}
	p.Namespace, p.Name, p.UID, p.Spec.TargetRefs = "shop", name, "1234", []policy.Target{ref}
	return p
}

var kinds = []policy.Kind{auth.Kind}

func attach(world there, policies ...policy.Object) *policy.Attached {
	return policy.Attach(policy.Input{Kinds: kinds, Objects: policies, Targets: targets,
		Lookup: func(policy.Kind, policy.Object) policy.Lookup { return world }})
}

func onRule(a *policy.Attached) policy.Effect { return a.Rule(gw, "http", route, 0) }

// compiled is the one policy that acts on the rule.
func compiled(t *testing.T, world there, spec string) (filter.Policy, policy.Effect) {
	t.Helper()
	a := attach(world, read(t, "auth", "HTTPRoute api", spec))
	e := onRule(a)
	if len(e.Filters) != 1 || e.Failure != nil {
		t.Fatalf("%+v: %s", e, accepted(a).Message)
	}
	return e.Filters[0].(filter.Config).Policies[0], e
}

func accepted(a *policy.Attached) metav1.Condition {
	return a.Statuses(func(snapshot.ListenerKey) string { return "" })[0].Status.Ancestors[0].Conditions[0]
}

// same compares settings, the bytes of what is secret included.
func same(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}), cmpopts.IgnoreUnexported(filter.Method{})); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

func TestAPolicyBecomesTheSettingsOfAFilter(t *testing.T) {
	got, _ := compiled(t, nil, `
mode: Shadow
require: Optional
methods: [{name: machines, clientCertificate: {subjectFrom: URI}}]
authorize:
  default: Deny
  rules:
  - {name: ops, action: Allow, when: '"ops" in identity.list("groups")', sources: [10.0.0.0/8, "2001:db8::/32"], methods: [GET, POST]}
  - {name: abroad, action: Deny, sources: [192.0.2.7/32]}
forward: {headers: [{name: X-User, value: identity.subject}], credential: Forward}
`)
	same(t, filter.Policy{
		Name: snapshot.Name{Namespace: "shop", Name: "auth"}, UID: "1234", Shadow: true, Require: filter.Optional,
		Methods: []filter.Method{{Name: "machines", Certificate: &certificate.Config{SubjectFrom: "URI"}}},
		Authorize: filter.Authorize{Deny: true, Rules: []filter.Rule{
			{Name: "ops", When: `"ops" in identity.list("groups")`, Methods: []string{"GET", "POST"},
				Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}},
			{Name: "abroad", Deny: true, Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}},
		}},
		Forward: filter.Forward{Headers: []filter.Header{{Name: "X-User", Value: "identity.subject"}}, KeepCredential: true},
	}, got)
}

func TestWhatIsAbsentIsTheDefault(t *testing.T) {
	got, _ := compiled(t, nil, "methods: [{name: machines, clientCertificate: {}}]")
	if got.Shadow || got.Require != filter.Any || got.Authorize.Deny || got.Forward.KeepCredential {
		t.Errorf("%+v", got)
	}
}

func TestAPolicyWithoutMethodsHasItsRules(t *testing.T) {
	got, _ := compiled(t, nil, "authorize: {default: Deny}")
	if len(got.Methods) != 0 || !got.Authorize.Deny {
		t.Errorf("%+v", got)
	}
}

func ref(name string, port uint16) snapshot.BackendRef {
	return snapshot.BackendRef{Service: snapshot.Name{Namespace: "shop", Name: name}, Port: port}
}

func TestALoginMissesThePathsThatItAnswers(t *testing.T) {
	routeThatTakes := func(paths ...string) policy.Targets {
		w := targets
		w.Routes = slices.Clone(targets.Routes)
		w.Routes[0].Takes = func(_ int, path string) bool { return slices.Contains(paths, path) }
		return w
	}
	const login = "issuer: 'https://sso.example.com', clientID: gatehouse"
	tests := []struct {
		name, spec string
		takes      []string
		want       []string
	}{
		{"both are there", "methods: [{name: m, oidc: {" + login + "}}]", []string{"/oauth2/callback", "/oauth2/logout"}, nil},
		{"neither is", "methods: [{name: m, oidc: {" + login + "}}]", nil, []string{
			"spec.methods[0].oidc.callbackPath: logins cannot complete: no rule of HTTPRoute shop/api that this policy holds for takes GET /oauth2/callback",
			"spec.methods[0].oidc.logoutPath: nobody can log out: no rule of HTTPRoute shop/api that this policy holds for takes GET /oauth2/logout"}},
		{"those of a second method", "methods: [{name: m, clientCertificate: {}}, {name: n, oidc: {" + login + ", callbackPath: /in, logoutPath: /out}}]",
			[]string{"/oauth2/callback", "/oauth2/logout", "/in"}, []string{
				"spec.methods[1].oidc.logoutPath: nobody can log out: no rule of HTTPRoute shop/api that this policy holds for takes GET /out"}},
		{"other methods have none", "methods: [{name: m, clientCertificate: {}}]", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := policy.Attach(policy.Input{Kinds: kinds, Objects: []policy.Object{read(t, "auth", "HTTPRoute api", tt.spec)}, Targets: routeThatTakes(tt.takes...)})
			var got []string
			for _, p := range a.Statuses(func(snapshot.ListenerKey) string { return "" })[0].Problems {
				got = append(got, strings.TrimSuffix(p.String(), "; add a match for it, or choose a path that one takes"))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEachMethodBecomesItsSettings(t *testing.T) {
	sensitive := func(name, key, data string) snapshot.Sensitive {
		return snapshot.Sensitive{Name: snapshot.Name{Namespace: "shop", Name: name}, Key: key, Data: []byte(data)}
	}
	world := there{
		"keys":     secret("keys", map[string]string{"tier": "gold"}, "alice", "key-of-alice\n", "bob", "sha256:"+strings.Repeat("ab", 32)),
		"htpasswd": secret("htpasswd", nil, "auth", "# staff\n\nalice:"+hash+"\r\nbob:"+hash+"\n"),
		"sso":      secret("sso", nil, "client-secret", "hush\n"),
		"hmac":     secret("hmac", nil, "jwks.json", `{"keys": []}`),
	}
	tests := []struct {
		name, method string
		want         filter.Method
	}{
		{"API keys", "apiKey: {from: [{header: Authorization, prefix: 'ApiKey '}, {query: key}, {cookie: key}], secretRefs: [{name: keys}]}",
			filter.Method{APIKey: &apikey.Config{
				From: method.Places{{Header: "Authorization", Prefix: "ApiKey "}, {Query: "key"}, {Cookie: "key"}},
				Keys: []apikey.Key{
					{Subject: "alice", Labels: []apikey.Label{{Name: "tier", Value: "gold"}}, Value: sensitive("keys", "alice", "key-of-alice")},
					{Subject: "bob", Labels: []apikey.Label{{Name: "tier", Value: "gold"}}, Value: sensitive("keys", "bob", "sha256:"+strings.Repeat("ab", 32))},
				},
			}}},
		{"users and passwords", "basic: {secretRef: {name: htpasswd}}",
			filter.Method{Basic: &basic.Config{Realm: "restricted", Users: []basic.User{
				{Name: "alice", Hash: sensitive("htpasswd", "auth", hash)}, {Name: "bob", Hash: sensitive("htpasswd", "auth", hash)}}}}},
		{"a realm", "basic: {realm: the shop, secretRef: {name: htpasswd}}",
			filter.Method{Basic: &basic.Config{Realm: "the shop", Users: []basic.User{
				{Name: "alice", Hash: sensitive("htpasswd", "auth", hash)}, {Name: "bob", Hash: sensitive("htpasswd", "auth", hash)}}}}},
		{"certificates", "clientCertificate: {}", filter.Method{Certificate: &certificate.Config{}}},
		{"an external service over gRPC", "external: {backendRef: {name: authz, port: 9000}, protocol: GRPC, forwardBody: {maxSize: 8192}, cacheFor: 10s}",
			filter.Method{External: &external.Config{Policy: "1234", Name: "shop/auth/m", Backend: ref("authz", 9000), Protocol: external.GRPC, MaxBody: 8192,
				Timeout: time.Second, CacheFor: 10 * time.Second}}},
		{"an external service over HTTP", `external: {backendRef: {name: authz, port: 9001}, protocol: HTTP, path: /check, timeout: 250ms, subjectFrom: X-User,
    allowedRequestHeaders: [Cookie], allowedResponseHeaders: [X-User]}`,
			filter.Method{External: &external.Config{Policy: "1234", Name: "shop/auth/m", Backend: ref("authz", 9001), Protocol: external.HTTP, Path: "/check",
				Subject:               "X-User",
				AllowedRequestHeaders: []string{"Cookie"}, AllowedResponseHeaders: []string{"X-User"}, Timeout: 250 * time.Millisecond}}},
		{"a login", "oidc: {issuer: 'https://sso.example.com', clientID: gatehouse, clientSecretRef: {name: sso}}",
			filter.Method{OIDC: &oidc.Config{Policy: "1234", Issuer: "https://sso.example.com", Backend: snapshot.BackendRef{Outside: "sso.example.com", Port: 443},
				ClientID: "gatehouse", ClientSecret: sensitive("sso", "client-secret", "hush"), Scopes: []string{"openid"},
				CallbackPath: "/oauth2/callback", LogoutPath: "/oauth2/logout", CookieName: "gatehouse", SessionTTL: 12 * time.Hour}}},
		{"a login with all that can be said", `oidc: {issuer: 'http://sso.shop.svc/realms/shop', connection: {backendRef: {name: sso, port: 8080}}, clientID: shop,
    scopes: [openid, groups], callbackPath: /in, logoutPath: /out, afterLogout: 'https://www.example.com/bye', sessionTTL: 1h30m, cookieName: s,
    origins: [{url: 'https://oauth2.example.net'}], extraParams: [{name: prompt, value: login}], forwardAccessToken: true}`,
			filter.Method{OIDC: &oidc.Config{Policy: "1234", Issuer: "http://sso.shop.svc/realms/shop", Backend: ref("sso", 8080),
				Origins:  []oidc.Origin{{URL: "https://oauth2.example.net", Backend: snapshot.BackendRef{Outside: "oauth2.example.net", Port: 443}}},
				ClientID: "shop", Scopes: []string{"openid", "groups"}, CallbackPath: "/in", LogoutPath: "/out", AfterLogout: "https://www.example.com/bye",
				CookieName: "s", SessionTTL: 90 * time.Minute, Extra: []oidc.Param{{Name: "prompt", Value: "login"}}, ForwardAccessToken: true}}},
		{"tokens of an issuer outside", "jwt: {issuer: 'https://login.example.com', audiences: [api], jwks: {url: 'https://login.example.com/keys'}, algorithms: [ES256, RS256]}",
			filter.Method{JWT: &jwt.Config{Issuer: "https://login.example.com", Audiences: []string{"api"}, Algorithms: []string{"ES256", "RS256"}, ClockSkew: 30 * time.Second,
				Keys: jwt.Keys{URL: "https://login.example.com/keys", Backend: snapshot.BackendRef{Outside: "login.example.com", Port: 443}}}}},
		{"tokens of an issuer inside", `jwt: {issuer: inside, jwks: {url: 'http://sso.shop.svc/keys', connection: {backendRef: {name: sso, port: 80}}}, algorithms: [EdDSA],
    clockSkew: 0s, from: [{header: Authorization, prefix: 'Bearer '}, {query: t}, {cookie: t}]}`,
			filter.Method{JWT: &jwt.Config{Issuer: "inside", Algorithms: []string{"EdDSA"}, Keys: jwt.Keys{URL: "http://sso.shop.svc/keys", Backend: ref("sso", 80)},
				From: method.Places{{Header: "Authorization", Prefix: "Bearer "}, {Query: "t"}, {Cookie: "t"}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := compiled(t, world, "methods:\n- name: m\n  "+tt.method)
			tt.want.Name = "m"
			same(t, []filter.Method{tt.want}, got.Methods)
		})
	}
}

func TestPoliciesOfAllLevelsHoldOutermostFirst(t *testing.T) {
	one := "authorize: {default: Deny}"
	a := attach(nil, read(t, "on-route", "HTTPRoute api", one), read(t, "on-gateway", "Gateway gw", one))
	names := func(e policy.Effect) (names []string) {
		for _, p := range e.Filters[0].(filter.Config).Policies {
			names = append(names, p.Name.Name)
		}
		return names
	}
	same(t, []string{"on-gateway", "on-route"}, names(onRule(a)))
	same(t, []string{"on-gateway"}, names(a.Default(gw, "http")))
}

func TestAPolicyReplacesItsParentOnlyIfBothSaySo(t *testing.T) {
	for _, tt := range []struct{ parent, child, want string }{
		{"children: MayReplace", "replace: true", "on-route"},
		{"children: MayReplace", "replace: false", "on-gateway on-route"},
		{"children: MayAdd", "replace: true", "on-gateway on-route"},
		{"mode: Enforce", "replace: true", "on-gateway on-route"},
	} {
		a := attach(nil, read(t, "on-gateway", "Gateway gw", "{"+tt.parent+", authorize: {default: Deny}}"),
			read(t, "on-route", "HTTPRoute api", "{"+tt.child+", authorize: {default: Deny}}"))
		var names []string
		for _, p := range onRule(a).Filters[0].(filter.Config).Policies {
			names = append(names, p.Name.Name)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s, %s: %s, want %s", tt.parent, tt.child, got, tt.want)
		}
	}
}

func TestOfTwoPoliciesOnOneTargetTheOlderWins(t *testing.T) {
	young := read(t, "a-young", "HTTPRoute api", "authorize: {default: Allow}")
	young.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	a := attach(nil, young, read(t, "old", "HTTPRoute api", "authorize: {default: Deny}"))
	policies := onRule(a).Filters[0].(filter.Config).Policies
	if len(policies) != 1 || policies[0].Name.Name != "old" {
		t.Errorf("%+v", policies)
	}
}

// TestAPolicyInErrorRefusesItsTarget: what is wrong is told, and nobody comes in.
func TestAPolicyInErrorRefusesItsTarget(t *testing.T) {
	for _, tt := range problems {
		t.Run(tt.name, func(t *testing.T) {
			a := attach(broken, read(t, "auth", "HTTPRoute api", tt.spec))
			c := accepted(a)
			if c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, tt.want) {
				t.Errorf("Accepted=%s/%s %q, want False with %q", c.Status, c.Reason, c.Message, tt.want)
			}
			if strings.Contains(c.Message, "s3cr3t") {
				t.Errorf("it tells a secret: %s", c.Message)
			}
			e := onRule(a)
			if e.Failure == nil || e.Failure.Reason != "policy_invalid" {
				t.Errorf("it lets in: %+v", e)
			}
			if e := a.Default(gw, "http"); e.Failure != nil || len(e.Filters) > 0 {
				t.Errorf("it acts elsewhere: %+v", e)
			}
		})
	}
}

// TestWhatIsSecretPrintsAsAHash: settings are logged and compared as texts.
func TestWhatIsSecretPrintsAsAHash(t *testing.T) {
	world := there{
		"keys": secret("keys", nil, "alice", "s3cr3t-key"), "htpasswd": secret("htpasswd", nil, ".htpasswd", "alice:"+hash), "sso": secret("sso", nil, "client-secret", "s3cr3t"),
		"hmac": secret("hmac", nil, "jwks.json", `{"keys":[{"kty":"oct","kid":"a","alg":"HS256","k":"czNjcjN0LXMzY3IzdC1zM2NyM3QtczNjcjN0LXMzY3IzdA"}]}`),
	}
	a := attach(world, read(t, "auth", "HTTPRoute api", `methods:
- {name: a, apiKey: {from: [{header: X-API-Key}], secretRefs: [{name: keys}]}}
- {name: b, basic: {secretRef: {name: htpasswd}}}
- {name: c, oidc: {issuer: "https://sso.example.com", clientID: a, clientSecretRef: {name: sso}}}
- {name: d, jwt: {issuer: a, algorithms: [HS256], jwks: {secretRef: {name: hmac}}}}
`))
	e := onRule(a)
	if len(e.Filters) != 1 {
		t.Fatal(accepted(a).Message)
	}
	for _, text := range []string{e.Filters[0].String(), fmt.Sprint(e.Filters[0]), fmt.Sprintf("%v", e)} {
		for _, secret := range []string{"s3cr3t", hash[7:], "czNjcjN0"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s", secret, text)
			}
		}
	}
}
