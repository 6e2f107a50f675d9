package auth_test

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
)

// hash is bcrypt's of "s3cr3t" with the least cost, as htpasswd makes it.
const hash = "$2y$04$QXmkKSVB2WU0zvZkhdGYL.q1Kmqb3rOAg0hmTB8cvs3OpWtGRhMGy"

// authority is a certificate in PEM.
const authority = `-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUNAOuMS4pI77eqyVuO9oVRj9qSFgwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQyMzE1NDhaGA8yMTI2MTAzMTIzMTU0
OFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDnF
41IL7fXrzczAGoZLufjgSlid/SsAyXwnHhoUmiUgJuapG04SjIuQHChOxyijENBX
ha66ooRpZPPC34zwyeyjUzBRMB0GA1UdDgQWBBSj7Zs88MpSVi4bwynfCT1tRjV6
PjAfBgNVHSMEGDAWgBSj7Zs88MpSVi4bwynfCT1tRjV6PjAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQDlyOq/IoGHCMlmdztdMrsCr/pMYtPkecSK
gHiRgga1cgIhAJrzzlB3U/aSqo7FdPskj2gildFPCi8EXPAtm/H3+lMO
-----END CERTIFICATE-----
`

const sumOfAuthority = "be724166a951075deedbe6ac91e69f59" // the first half of its SHA-256

// broken is a world of Secrets with something wrong in each, but "keys" and "users".
var broken = there{
	"keys":         secret("keys", nil, "alice", "s3cr3t-key"),
	"users":        secret("users", nil, "auth", "alice:"+hash),
	"empty":        secret("empty", nil, "alice", "\n"),
	"copy":         secret("copy", nil, "bob", "s3cr3t-key\n"),
	"hashed":       secret("hashed", nil, "bob", "sha256:"+sumOfKey),
	"short":        secret("short", nil, "bob", "sha256:abc"),
	"binary":       secret("binary", nil, "bob", "s3cr3t\x00"),
	"spaced":       secret("spaced", nil, "bob", " s3cr3t"),
	"long":         secret("long", nil, "bob", strings.Repeat("s3cr3t", 1000)),
	"annotated":    annotated(secret("annotated", nil, "bob", "s3cr3t"), "gatehouse.dev/labels.bob", "tier"),
	"both":         secret("both", nil, "auth", "alice:"+hash, ".htpasswd", "alice:"+hash),
	"neither":      secret("neither", nil, "users", "alice:"+hash),
	"md5":          secret("md5", nil, "auth", "# made by htpasswd\nalice:"+hash+"\nbob:$apr1$s3cr3t$a"),
	"clear":        secret("clear", nil, ".htpasswd", "alice:s3cr3t"),
	"colon":        secret("colon", nil, "auth", "alice"),
	"nobody":       secret("nobody", nil, "auth", ":"+hash),
	"twice":        secret("twice", nil, "auth", "alice:"+hash+"\nbob:"+hash+"\nalice:"+hash),
	"costly":       secret("costly", nil, "auth", "alice:$2y$31$QXmkKSVB2WU0zvZkhdGYL.q1Kmqb3rOAg0hmTB8cvs3OpWtGRhMGy"),
	"truncated":    secret("truncated", nil, "auth", "alice:"+hash[:50]),
	"blank-secret": secret("blank-secret", nil, "client-secret", "\n"),
	"no-secret":    secret("no-secret", nil, "clientSecret", "s3cr3t"),
	"no-ca":        secret("no-ca", nil, "ca.crt", "nonsense"),
}

// sumOfKey is the SHA-256 of "s3cr3t-key".
const sumOfKey = "99ab9660c4e55f77fd420904b46180434242e63be70f6bb54084c9a4abccc941"

func annotated(s policy.Secret, name, value string) policy.Secret {
	s.Annotations[name] = value
	return s
}

func apiKey(refs string) string {
	return "methods: [{name: a, apiKey: {from: [{header: X-API-Key}], secretRefs: [" + refs + "]}}]"
}

func users(name string) string {
	return "methods: [{name: a, basic: {secretRef: {name: " + name + "}}}]"
}

func tokens(rest string) string {
	return "methods: [{name: a, jwt: {issuer: a, " + rest + "}}]"
}

func keySet(jwks string) string { return tokens("algorithms: [ES256], jwks: " + jwks) }

func login(rest string) string { return "methods: [{name: a, oidc: {clientID: a, " + rest + "}}]" }

func service(rest string) string {
	return "methods: [{name: a, external: {backendRef: {name: authz, port: 9000}, " + rest + "}}]"
}

func rule(rest string) string {
	return "authorize: {default: Deny, rules: [{name: a, action: Allow, " + rest + "}]}"
}

func header(name string) string {
	return "{authorize: {default: Deny}, forward: {headers: [{name: " + name + ", value: identity.subject}]}}"
}

// problems are mistakes with what is said of them. No message holds "s3cr3t".
var problems = []struct{ name, spec, want string }{
	{"a mode of another version", "{mode: Audit, authorize: {default: Deny}}", `spec.mode: this version of Gatehouse knows no mode "Audit"; use Enforce or Shadow`},
	{"a requirement of another version", "{require: Two, authorize: {default: Deny}}", `spec.require: this version of Gatehouse knows no requirement "Two"`},
	{"children of another version", "{children: MayRemove, authorize: {default: Deny}}", `spec.children: this version of Gatehouse does not know "MayRemove"`},
	{"a policy of nothing", "{}", "spec: a policy needs methods or authorize, or both"},
	{"all of no methods", "{require: All, authorize: {default: Deny}}", "spec.require: All needs methods"},
	{"a method without a name", "methods: [{clientCertificate: {}}]", "spec.methods[0].name: a method needs a name"},
	{"a method's name twice", "methods: [{name: a, clientCertificate: {}}, {name: a, clientCertificate: {}}]", `spec.methods[1].name: another method is named "a"`},
	{"a method of nothing", "methods: [{name: a}]", "spec.methods[0]: must be exactly one of jwt, apiKey"},
	{"a method of two", "methods: [{name: a, clientCertificate: {}, basic: {secretRef: {name: users}}}]", "spec.methods[0]: must be exactly one of jwt, apiKey"},

	{"a default that is not spelled out", "authorize: {}", "spec.authorize.default: must be spelled out: Allow or Deny"},
	{"an action of another version", "authorize: {default: Ask}", `spec.authorize.default: this version of Gatehouse knows no action "Ask"`},
	{"a rule that fits everything", "authorize: {default: Deny, rules: [{name: a, action: Allow}]}", "spec.authorize.rules[0]: a rule needs at least one of when"},
	{"a rule without an action", "authorize: {default: Deny, rules: [{name: a, methods: [GET]}]}", "spec.authorize.rules[0].action: must be spelled out"},
	{"a rule without a name", "authorize: {default: Deny, rules: [{action: Deny, methods: [GET]}]}", "spec.authorize.rules[0].name: a rule needs a name"},
	{"a rule's name twice", "authorize: {default: Deny, rules: [{name: a, action: Deny, methods: [GET]}, {name: a, action: Deny, methods: [PUT]}]}",
		`spec.authorize.rules[1].name: another rule is named "a"`},
	{"an expression that does not compile", rule("when: identity.groups"), "spec.authorize.rules[0].when: line 1, column 1: identity.groups is not there"},
	{"an expression that is no condition", rule("when: identity.subject"), "spec.authorize.rules[0].when: line 1, column"},
	{"an address for a network", rule("sources: [192.0.2.7]"), "spec.authorize.rules[0].sources[0]: 192.0.2.7 is an address and no network; write 192.0.2.7/32"},
	{"one of IPv6", rule(`sources: ["2001:db8::1"]`), "write 2001:db8::1/128"},
	{"a network with bits beyond its prefix", rule("sources: [10.1.2.3/8]"), "10.1.2.3/8 has bits beyond the prefix; write 10.0.0.0/8, or 10.1.2.3/32 for the one address"},
	{"IPv4 in the clothes of IPv6", rule(`sources: ["::ffff:10.0.0.0/104"]`), "is IPv4 mapped into IPv6; write it as IPv4"},
	{"a network that is none", rule("sources: [10.0.0.0/8, office]"), `spec.authorize.rules[0].sources[1]: "office" is no network`},
	{"a method that is none", rule(`methods: ["GET /"]`), `spec.authorize.rules[0].methods[0]: "GET /" is no HTTP method`},

	{"a header that frames", header("Transfer-Encoding"), "spec.forward.headers[0].name: Transfer-Encoding frames the message"},
	{"one in another spelling", header("content_length"), "spec.forward.headers[0].name: content_length frames the message"},
	{"the Host", header("host"), "spec.forward.headers[0].name: host frames the message"},
	{"a credential", header("AUTHORIZATION"), "carries credentials"},
	{"a header of ours", header("x_forwarded-For"), "is set by Gatehouse itself"},
	{"a header that is none", header(`"X User"`), `"X User" is no name of a header`},
	{"a header twice, as servers see it", "{authorize: {default: Deny}, forward: {headers: [{name: X-User, value: '\"a\"'}, {name: x_user, value: '\"b\"'}]}}",
		"spec.forward.headers[1].name: another header is named x_user, as many servers see it"},
	{"a value that does not compile", "{authorize: {default: Deny}, forward: {headers: [{name: X-User, value: identity}]}}", "spec.forward.headers[0].value: line 1, column 1"},
	{"a credential of another version", "{authorize: {default: Deny}, forward: {credential: Hash}}", `spec.forward.credential: this version of Gatehouse does not know "Hash"`},

	{"keys from nowhere", "methods: [{name: a, apiKey: {secretRefs: [{name: keys}]}}]", "spec.methods[0].apiKey.from: must name at least one place"},
	{"a place of nothing", "methods: [{name: a, apiKey: {from: [{}], secretRefs: [{name: keys}]}}]", "spec.methods[0].apiKey.from[0]: must be exactly one of header, query and cookie"},
	{"a place of two", "methods: [{name: a, apiKey: {from: [{query: a, cookie: b}], secretRefs: [{name: keys}]}}]", "spec.methods[0].apiKey.from[0]: must be exactly one"},
	{"a prefix of a cookie", "methods: [{name: a, apiKey: {from: [{cookie: b, prefix: c}], secretRefs: [{name: keys}]}}]", "spec.methods[0].apiKey.from[0].prefix: belongs to header"},
	{"the header Cookie", "methods: [{name: a, apiKey: {from: [{header: cookie}], secretRefs: [{name: keys}]}}]", "name the cookie with cookie, not the header Cookie"},
	{"a header that no filter sees", "methods: [{name: a, apiKey: {from: [{header: X_Forwarded_Key}], secretRefs: [{name: keys}]}}]", "X_Forwarded_Key frames the message or is set by Gatehouse itself"},
	{"a place that is in another", "methods: [{name: a, apiKey: {from: [{header: X-Key}, {header: x-key, prefix: a}], secretRefs: [{name: keys}]}}]", "spec.methods[0].apiKey: a key in"},
	{"no Secrets", "methods: [{name: a, apiKey: {from: [{header: X-API-Key}]}}]", "spec.methods[0].apiKey: needs secretRefs or secretSelector"},
	{"all Secrets", "methods: [{name: a, apiKey: {from: [{header: X-API-Key}], secretSelector: {}}}]", "spec.methods[0].apiKey.secretSelector: must not be empty"},
	{"a Secret that is not there", apiKey("{name: keys}, {name: gone}"), "spec.methods[0].apiKey.secretRefs[1]: there is no Secret shop/gone"},
	{"an empty key", apiKey("{name: empty}"), "spec.methods[0].apiKey.secretRefs[0]: Secret shop/empty, entry alice: the key is empty"},
	{"one key of two clients", apiKey("{name: keys}, {name: copy}"), "spec.methods[0].apiKey.secretRefs[1]: Secret shop/copy, entry bob holds the same key as Secret shop/keys, entry alice"},
	{"one key of two clients, once by its hash", apiKey("{name: hashed}, {name: keys}"), "Secret shop/keys, entry alice holds the same key as Secret shop/hashed, entry bob"},
	{"a hash that is none", apiKey("{name: short}"), "entry bob: sha256: must be followed by 64 hexadecimal digits"},
	{"a key that cannot be sent", apiKey("{name: binary}"), "entry bob: the key has a control character"},
	{"a key with a space before it", apiKey("{name: spaced}"), "entry bob: the key has a control character, or a space at an end"},
	{"a key that is too long", apiKey("{name: long}"), "entry bob: the key is longer than 4096 bytes"},
	{"labels that are none", apiKey("{name: annotated}"), `Secret shop/annotated, annotation gatehouse.dev/labels.bob: "tier" is no label; write them like tier=gold,team=a`},

	{"two files of users", users("both"), "spec.methods[0].basic.secretRef: Secret shop/both has both entries auth and .htpasswd"},
	{"no file of users", users("neither"), `spec.methods[0].basic.secretRef: Secret shop/neither has no entry "auth"`},
	{"another hash than bcrypt's", users("md5"), "Secret shop/md5, entry auth, line 3: the password is not hashed by bcrypt"},
	{"no hash", users("clear"), "Secret shop/clear, entry .htpasswd, line 1: the password is not hashed by bcrypt"},
	{"half a hash", users("truncated"), "line 1: the password is not hashed by bcrypt"},
	{"a hash that takes minutes", users("costly"), "line 1: the cost of the hash is 31, and must be from 4 to 14"},
	{"a line without a colon", users("colon"), "line 1: there is no colon"},
	{"a line without a user", users("nobody"), "line 1: there is no user before the colon"},
	{"a user twice", users("twice"), "line 3: the user stands in line 1 already"},
	{"a realm that would end its quotes", `methods: [{name: a, basic: {secretRef: {name: users}, realm: 'a"b'}}]`, "spec.methods[0].basic.realm: must be printable ASCII"},
	{"a name of certificates that there is not", "methods: [{name: a, clientCertificate: {subjectFrom: IP}}]", `spec.methods[0].clientCertificate.subjectFrom: this version of Gatehouse does not know "IP"`},

	{"no algorithm", tokens("jwks: {url: 'https://a.example/k'}"), "spec.methods[0].jwt.algorithms: must name at least one algorithm"},
	{"the algorithm none", tokens("jwks: {url: 'https://a.example/k'}, algorithms: [none]"), `spec.methods[0].jwt.algorithms[0]: "none" is no algorithm`},
	{"an algorithm in another case", tokens("jwks: {url: 'https://a.example/k'}, algorithms: [ES256, rs256]"), `spec.methods[0].jwt.algorithms[1]: "rs256" is no algorithm`},
	{"public and secret keys together", tokens("jwks: {secretRef: {name: keys}}, algorithms: [RS256, HS256]"), "HS256, HS384 and HS512 cannot stand beside algorithms whose keys are public"},
	{"a secret key for everybody to read", tokens("jwks: {inline: '{}'}, algorithms: [HS256]"), "spec.methods[0].jwt.jwks: HS256, HS384 and HS512 need jwks.secretRef"},
	{"a clock that is off", tokens("jwks: {url: 'https://a.example/k'}, algorithms: [ES256], clockSkew: 11m"), "spec.methods[0].jwt.clockSkew: must be from 0s to 10m"},
	{"a duration that is Go's, but not GEP-2257's", tokens("jwks: {url: 'https://a.example/k'}, algorithms: [ES256], clockSkew: 1.5m"), `"1.5m" is not a duration`},
	{"a duration that is none", tokens("jwks: {url: 'https://a.example/k'}, algorithms: [ES256], clockSkew: 1 minute"), `"1 minute" is not a duration`},
	{"no issuer", "methods: [{name: a, jwt: {jwks: {url: 'https://a.example/k'}, algorithms: [ES256]}}]", "spec.methods[0].jwt.issuer: must be the claim iss"},
	{"no keys", keySet("{}"), "spec.methods[0].jwt.jwks: must be exactly one of url, inline and secretRef"},
	{"two sets of keys", keySet("{inline: '{}', secretRef: {name: keys}}"), "spec.methods[0].jwt.jwks: must be exactly one of url, inline and secretRef"},
	{"a connection to nowhere", keySet("{inline: '{}', connection: {}}"), "spec.methods[0].jwt.jwks.connection: belongs to url"},
	{"keys in a Secret that has none", keySet("{secretRef: {name: keys}}"), `spec.methods[0].jwt.jwks.secretRef: Secret shop/keys has no entry "jwks.json"`},
	{"keys that are none", keySet("{inline: 'keys'}"), "spec.methods[0].jwt"},
	{"keys in the clear", keySet("{url: 'http://a.example/k'}"), "spec.methods[0].jwt.jwks.url: must be https://; http:// only to loopback, or through connection.backendRef"},
	{"a URL that is none", keySet("{url: 'https://%zz'}"), "spec.methods[0].jwt.jwks.url: \"https://%zz\" is no URL"},
	{"a URL of a file", keySet("{url: 'file:///etc/keys'}"), `spec.methods[0].jwt.jwks.url: "file:///etc/keys" is no https:// URL`},
	{"a URL with a password", keySet("{url: 'https://a:s3cr3t@a.example/k'}"), "spec.methods[0].jwt.jwks.url: must not hold a user or a password"},
	{"a URL with a fragment", keySet("{url: 'https://a.example/k#'}"), "spec.methods[0].jwt.jwks.url: must not have a fragment"},
	{"a URL with a space", keySet("{url: 'https://a.example/k k'}"), "spec.methods[0].jwt.jwks.url: must not have spaces"},
	{"the metadata of the cloud", keySet("{url: 'https://169.254.169.254/k', connection: {allowPrivateAddresses: true}}"), "169.254.169.254 is never spoken to"},
	{"it in the clothes of IPv6", keySet("{url: 'https://[::ffff:169.254.169.254]/k'}"), "169.254.169.254 is never spoken to"},
	{"a private address", keySet("{url: 'https://10.0.0.1/k'}"), "10.0.0.1 is a private address; say connection.allowPrivateAddresses: true if it is meant"},
	{"authorities that are none", keySet("{url: 'https://a.example/k', connection: {caCertificates: nonsense}}"), "spec.methods[0].jwt.jwks.connection.caCertificates: must be certificates in PEM"},
	{"authorities in a Secret that are none", keySet("{url: 'https://a.example/k', connection: {caSecretRef: {name: no-ca}}}"), "spec.methods[0].jwt.jwks.connection.caSecretRef: must be certificates in PEM"},
	{"authorities in a Secret that is not there", keySet("{url: 'https://a.example/k', connection: {caSecretRef: {name: gone}}}"), "spec.methods[0].jwt.jwks.connection.caSecretRef: there is no Secret shop/gone"},
	{"authorities twice", keySet("{url: 'https://a.example/k', connection: {caCertificates: a, caSecretRef: {name: no-ca}}}"), "caCertificates and caSecretRef exclude each other"},
	{"a Service and authorities", keySet("{url: 'https://a.example/k', connection: {backendRef: {name: sso, port: 443}, caCertificates: a}}"), "spec.methods[0].jwt.jwks.connection: caCertificates, caSecretRef and"},
	{"a Service that may not be used", keySet("{url: 'https://a.example/k', connection: {backendRef: {name: sso, namespace: closed, port: 443}}}"),
		"spec.methods[0].jwt.jwks.connection.backendRef: no ReferenceGrant"},

	{"an issuer in the clear", login("issuer: 'http://sso.example.com'"), "spec.methods[0].oidc.issuer: must be https://"},
	{"an issuer with a query", login("issuer: 'https://sso.example.com?a=b'"), "spec.methods[0].oidc.issuer: has a query"},
	{"a login without openid", login("issuer: 'https://sso.example.com', scopes: [groups]"), `spec.methods[0].oidc: scopes lack "openid"`},
	{"one path for two things", login("issuer: 'https://sso.example.com', callbackPath: /a, logoutPath: /a"), "spec.methods[0].oidc: callbackPath and logoutPath are the same"},
	{"a callback at a path that no request has", login("issuer: 'https://sso.example.com', callbackPath: /a/../b"), "spec.methods[0].oidc: callbackPath"},
	{"a way out to anywhere", login("issuer: 'https://sso.example.com', afterLogout: '//evil.example.com'"), "spec.methods[0].oidc.afterLogout: must be a path such as /bye, or an https:// URL"},
	{"a way out with a backslash", login(`issuer: 'https://sso.example.com', afterLogout: '/\evil.example.com'`), "spec.methods[0].oidc.afterLogout"},
	{"a way out in the clear", login("issuer: 'https://sso.example.com', afterLogout: 'http://a.example'"), "spec.methods[0].oidc.afterLogout"},
	{"a session for a year", login("issuer: 'https://sso.example.com', sessionTTL: 8760h"), "spec.methods[0].oidc.sessionTTL: must be from 1m to 744h"},
	{"a parameter of the login itself", login("issuer: 'https://sso.example.com', extraParams: [{name: redirect_uri, value: a}]"), "spec.methods[0].oidc: parameter \"redirect_uri\""},
	{"a client's secret that is empty", login("issuer: 'https://sso.example.com', clientSecretRef: {name: blank-secret}"), "spec.methods[0].oidc.clientSecretRef: Secret shop/blank-secret: the entry client-secret is empty"},
	{"a client's secret under another name", login("issuer: 'https://sso.example.com', clientSecretRef: {name: no-secret}"), `Secret shop/no-secret has no entry "client-secret"`},
	{"a further origin in the clear", login("issuer: 'https://sso.example.com', origins: [{url: 'http://a.example'}]"), "spec.methods[0].oidc.origins[0].url: must be https://"},
	{"no client", "methods: [{name: a, oidc: {issuer: 'https://sso.example.com'}}]", "spec.methods[0].oidc: clientID is empty"},

	{"a protocol of another version", service("protocol: TCP"), `spec.methods[0].external.protocol: this version of Gatehouse knows no protocol "TCP"`},
	{"a path over gRPC", service("protocol: GRPC, path: /a"), "spec.methods[0].external: path and allowedResponseHeaders belong to protocol HTTP"},
	{"a path with dots", service("protocol: HTTP, path: /a/../b"), `spec.methods[0].external.path: "/a/../b" is no plain path`},
	{"a path with a query", service("protocol: HTTP, path: '/a?b'"), `spec.methods[0].external.path: "/a?b" is no plain path`},
	{"a body that is too large", service("protocol: HTTP, forwardBody: {maxSize: 1048577}"), "spec.methods[0].external.forwardBody.maxSize: must be from 1 to 1048576 bytes"},
	{"a call that waits for ever", service("protocol: HTTP, timeout: 2m"), "spec.methods[0].external.timeout: must be from 1ms to 1m"},
	{"an answer that holds for a day", service("protocol: HTTP, cacheFor: 24h"), "spec.methods[0].external.cacheFor: must be from 0s to 1h"},
	{"a header that frames, out of an answer", service("protocol: HTTP, allowedResponseHeaders: [Content-Length]"), "spec.methods[0].external.allowedResponseHeaders[0]: Content-Length frames the message"},
	{"a service that may not be asked", "methods: [{name: a, external: {protocol: GRPC, backendRef: {name: authz, namespace: closed, port: 9000}}}]",
		"spec.methods[0].external.backendRef: no ReferenceGrant"},
	{"two mistakes", "{mode: Audit, authorize: {}}", "use Enforce or Shadow; spec.authorize.default: must be spelled out"},
}
