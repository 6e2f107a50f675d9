package jwt

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Threats 29: what others fell for.

func TestAttackAlgNone(t *testing.T) {
	m := newWorld(t).build(remoteConfig())
	body := fmt.Sprintf(`{"iss":%q,"sub":"joe","aud":"api","exp":%d}`, issuerName, start.Add(time.Hour).Unix())
	good := esPair("a").sign(claims())
	signature := good[strings.LastIndexByte(good, '.')+1:]
	for _, alg := range []string{`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `""`, `null`, `"es256"`, `"ES256 "`, `0`, `["ES256"]`} {
		for _, sig := range []string{"", "AA", signature} {
			signed := byHand(`{"alg":`+alg+`,"kid":"a"}`, body, func([]byte) []byte { return nil })
			expect(t, m, bearer(signed+sig), method.Refused, "")
		}
	}
	expect(t, m, bearer(byHand(`{"kid":"a"}`, body, signES(p256()))), method.Refused, "algorithm")
	for _, list := range [][]string{{"none"}, {"ES256", "none"}, {""}, {}, nil} {
		c := remoteConfig()
		c.Algorithms = list
		if err := c.Check(); err == nil {
			t.Errorf("a policy may list %q", list)
		}
	}
}

func TestAttackHSWithThePublicKeyOfRS(t *testing.T) {
	rs, es := pair{"r", jose.RS256, rsaKey()}, esPair("a")
	w := newWorld(t)
	w.publish(setOf(rs, es))
	m := w.build(remoteConfig())
	body := fmt.Sprintf(`{"iss":%q,"sub":"joe","aud":"api","exp":%d}`, issuerName, start.Add(time.Hour).Unix())
	der, _ := x509.MarshalPKIXPublicKey(rsaKey().Public())
	for _, known := range [][]byte{
		der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey),
		rsaKey().N.Bytes(), setOf(rs, es), must(es.public().MarshalJSON()), {},
	} {
		for _, alg := range []string{"HS256", "HS384", "HS512"} {
			sign := func(signed []byte) []byte {
				mac := hmac.New(algorithmOf(alg).hash.New, known)
				mac.Write(signed)
				return mac.Sum(nil)
			}
			for _, kid := range []string{"r", "a"} {
				expect(t, m, bearer(byHand(`{"alg":"`+alg+`","kid":"`+kid+`"}`, body, sign)), method.Refused, "algorithm")
			}
		}
	}
	// Nor can a policy be written that would fall for it, by any way.
	for _, c := range []Config{
		inlineConfig([]string{"RS256", "HS256"}, rs),
		inlineConfig([]string{"HS256"}, rs),
		inlineConfig([]string{"RS256"}, pair{"h", jose.HS256, secret}),
		inlineConfig([]string{"HS256"}, rs, pair{"h", jose.HS256, secret}),
		func() Config { c := remoteConfig(); c.Algorithms = []string{"HS256"}; return c }(),
	} {
		if err := c.Check(); err == nil {
			t.Errorf("%s is let pass", c)
		}
	}
	// A secret that an issuer publishes among its keys is none.
	w = newWorld(t)
	w.publish(setOf(pair{"h", jose.HS256, secret}, es))
	m = w.build(remoteConfig())
	expect(t, m, bearer(pair{"h", jose.HS256, secret}.sign(claims())), method.Refused, "algorithm")
	expect(t, m, bearer(es.sign(claims())), method.Accepted, "")
}

func TestAttackAnotherAlgorithmOfTheSameKey(t *testing.T) {
	// The key is bound to RS256, the policy lists PS256 too.
	m := newWorld(t).build(inlineConfig([]string{"RS256", "PS256"}, pair{"r", jose.RS256, rsaKey()}))
	expect(t, m, bearer(pair{"r", jose.RS256, rsaKey()}.sign(claims())), method.Accepted, "")
	expect(t, m, bearer(pair{"r", jose.PS256, rsaKey()}.sign(claims())), method.Refused, "no key")
	// The key is bound to nothing, the policy to RS256.
	m = newWorld(t).build(inlineConfig([]string{"RS256"}, pair{"r", "", rsaKey()}))
	expect(t, m, bearer(pair{"r", jose.RS512, rsaKey()}.sign(claims())), method.Refused, "algorithm")
	expect(t, m, bearer(pair{"r", jose.RS256, rsaKey()}.sign(claims())), method.Accepted, "")
}

func TestAttackKidInjection(t *testing.T) {
	w := newWorld(t)
	m := w.build(remoteConfig())
	for _, kid := range []string{
		"../../../../dev/null", "/dev/null", "a' OR '1'='1", "a\x00b", "a\nb", "; rm -rf /", "| id", "http://169.254.169.254/", "a/../a", "A", "a ", " a",
		strings.Repeat("a", 2000), "${jndi:ldap://x}", "%61", "\u0430",
	} {
		got := expect(t, m, bearer(pair{kid, jose.ES256, p256()}.sign(claims())), method.Refused, "no key named")
		if strings.ContainsAny(got.Detail, "\n\x00") || len(got.Detail) > 200 {
			t.Errorf("in the log: %q", got.Detail)
		}
	}
	if n := w.called(); n != 1 {
		t.Errorf("%d calls: names that nobody knows make us ask at most once in %s", n, renewEvery)
	}
	// Names of other types.
	for _, kid := range []string{`["a"]`, `{"a":1}`, `1`, `true`} {
		expect(t, m, bearer(byHand(`{"alg":"ES256","kid":`+kid+`}`, `{}`, signES(p256()))), method.Refused, "header")
	}
	// The right name, and a signature by another key.
	expect(t, m, bearer(pair{"a", jose.ES256, other()}.sign(claims())), method.Refused, "signature")
}

func TestAttackAKeyThatTheTokenBrings(t *testing.T) {
	w := newWorld(t)
	m := w.build(remoteConfig())
	expect(t, m, bearer(esPair("a").sign(claims())), method.Accepted, "")
	mine := pair{"a", jose.ES256, other()}
	jwk := mine.public()
	cert := base64.StdEncoding.EncodeToString(selfSigned(t))
	for _, kid := range []string{"a", "mine", ""} {
		mine.kid = kid
		for name, value := range map[string]any{
			"jwk": jwk, "jku": "https://evil.example.com/keys", "x5u": "https://evil.example.com/cert", "x5c": []string{cert},
			"x5t": "AAAA", "x5t#S256": "AAAA",
		} {
			expect(t, m, bearer(mine.sign(claims(), name, value)), method.Refused, "")
		}
	}
	if n := w.called(); n != 1 {
		t.Errorf("%d calls, and the issuer's keys were there", n)
	}
}

func selfSigned(t *testing.T) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	return must(x509.CreateCertificate(nil, template, template, other().Public(), other()))
}

func TestAttackAnExpiredToken(t *testing.T) {
	w := newWorld(t)
	m := w.build(remoteConfig())
	token := esPair("a").sign(claims("exp", start.Add(time.Minute).Unix()))
	got := expect(t, m, bearer(token), method.Accepted, "")
	if want := start.Add(time.Minute + 30*time.Second); !got.Identity.Expires.Equal(want) {
		t.Errorf("expires %s, want %s: with the skew", got.Identity.Expires, want)
	}
	w.Pass(time.Minute + 29*time.Second)
	expect(t, m, bearer(token), method.Accepted, "") // remembered, and within the skew
	w.Pass(time.Second)
	got = expect(t, m, bearer(token), method.Refused, "expired")
	if !strings.Contains(got.Challenge, `error="invalid_token", error_description="the token has expired"`) {
		t.Errorf("challenge %s", got.Challenge)
	}
	for _, exp := range []any{nil, "9999999999", -1, 1e300, []int{1}, true, map[string]any{}} {
		expect(t, m, bearer(esPair("a").sign(claims("exp", exp))), method.Refused, "exp is not there, or no date")
	}
	expect(t, m, bearer(esPair("a").sign(claims("exp", float64(w.Clock().Unix())+0.5))), method.Accepted, "")
}

func TestAttackATokenThatIsNotYetValid(t *testing.T) {
	m := newWorld(t).build(remoteConfig())
	for _, claim := range []string{"nbf", "iat"} {
		expect(t, m, bearer(esPair("a").sign(claims(claim, start.Add(31*time.Second).Unix()))), method.Refused, "not yet valid ("+claim+")")
		expect(t, m, bearer(esPair("a").sign(claims(claim, start.Add(30*time.Second).Unix()))), method.Accepted, "")
		expect(t, m, bearer(esPair("a").sign(claims(claim, "now"))), method.Refused, claim+" is no date")
		expect(t, m, bearer(esPair("a").sign(claims(claim, nil))), method.Accepted, "")
	}
}

func TestAttackAnotherAudience(t *testing.T) {
	w := newWorld(t)
	c := remoteConfig()
	c.Audiences = []string{"api", "admin"}
	m := w.build(c)
	for _, aud := range []any{nil, "", "API", "api2", "ap", " api", []string{}, []string{"x", "y"}, []any{1, true, nil}, map[string]any{"api": 1}, 1, [][]string{{"api"}}} {
		expect(t, m, bearer(esPair("a").sign(claims("aud", aud))), method.Refused, "another audience")
	}
	for _, aud := range []any{"admin", []string{"x", "api"}, []any{1, "api"}} {
		expect(t, m, bearer(esPair("a").sign(claims("aud", aud))), method.Accepted, "")
	}
	c.Audiences = nil
	expect(t, w.build(c), bearer(esPair("a").sign(claims("aud", "other"))), method.Accepted, "")
	// What was verified for one audience was not verified for another.
	c.Audiences = []string{"other"}
	token := esPair("a").sign(claims("aud", "api"))
	expect(t, m, bearer(token), method.Accepted, "")
	expect(t, w.build(c), bearer(token), method.Refused, "another audience")
}

func TestAttackAnotherIssuer(t *testing.T) {
	w := newWorld(t)
	w.goDown()
	m := w.build(remoteConfig())
	for _, iss := range []any{nil, "", issuerName + "/", "https://LOGIN.example.com", "https://login.example.com.evil.example", []string{issuerName}, 1} {
		expect(t, m, bearer(esPair("a").sign(claims("iss", iss))), method.Refused, "another issuer") // although there are no keys
	}
}

func TestAttackOversizedTokens(t *testing.T) {
	w := newWorld(t)
	m := w.build(remoteConfig())
	expect(t, m, bearer(esPair("a").sign(claims("pad", strings.Repeat("x", 11<<10)))), method.Accepted, "")
	expect(t, m, bearer(esPair("a").sign(claims("pad", strings.Repeat("x", 16<<10)))), method.Refused, "longer than 16384 bytes")
	expect(t, m, bearer(esPair("a").sign(claims(), "pad", strings.Repeat("x", 4<<10))), method.Refused, "header is longer")
	expect(t, m, bearer(strings.Repeat("a", 1<<20)), method.Refused, "longer than")
	expect(t, m, bearer(strings.Repeat(".", MaxToken)), method.Refused, "three parts") // golang-jwt CVE-2025-30204
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	expect(t, m, bearer(byHand(`{"alg":"ES256","kid":"a"}`, deep, signES(p256()))), method.Refused, "too deep")
	deep = strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	expect(t, m, bearer(byHand(`{"alg":"ES256","kid":"a"}`, `{"a":`+deep+`}`, signES(p256()))), method.Refused, "too deep")
	expect(t, m, bearer(byHand(`{"alg":"ES256","kid":`+strings.Repeat("[", 1500)+strings.Repeat("]", 1500)+`}`, `{}`, signES(p256()))), method.Refused, "header")
}

func TestAttackDuplicatedAuthorization(t *testing.T) {
	w := newWorld(t)
	m := w.build(remoteConfig())
	good, bad := esPair("a").sign(claims()), pair{"a", jose.ES256, other()}.sign(claims("sub", "admin"))
	for _, tokens := range [][]string{{good, bad}, {bad, good}, {good, good}} {
		got := expect(t, m, bearer(tokens...), method.Refused, "several tokens")
		if !strings.Contains(got.Challenge, `error="invalid_request"`) {
			t.Errorf("challenge %s", got.Challenge)
		}
	}
	ex := bearer(good)
	ex.Request.Header.Add("authorization", "Basic am9lOmpvZQ==")
	expect(t, m, ex, method.Refused, "several tokens")
	ex = bearer(good + ", Bearer " + good)
	expect(t, m, ex, method.Refused, "")

	// In several places.
	c := remoteConfig()
	c.From = method.Places{{Header: "Authorization", Prefix: "Bearer "}, {Query: "access_token"}, {Cookie: "token"}, {Header: "X-Token"}}
	m = w.build(c)
	ex = bearer(good)
	expect(t, m, ex, method.Accepted, "")
	for _, also := range []func(r *message.Request){
		func(r *message.Request) { r.Target.Query = "access_token=" + good },
		func(r *message.Request) { r.Header.Add("Cookie", "a=b; token="+bad) },
		func(r *message.Request) { r.Header.Add("x-token", bad) },
	} {
		ex := bearer(good)
		also(&ex.Request)
		expect(t, m, ex, method.Refused, "several tokens")
		ex = &message.Exchange{}
		also(&ex.Request)
		also(&ex.Request)
		if ex.Request.Target.Query != "" {
			ex.Request.Target.Query += "&" + ex.Request.Target.Query
		}
		expect(t, m, ex, method.Refused, "several tokens")
	}
}

func TestAttackCriticalExtensions(t *testing.T) {
	m := newWorld(t).build(remoteConfig())
	body := fmt.Sprintf(`{"iss":%q,"sub":"joe","aud":"api","exp":%d}`, issuerName, start.Add(time.Hour).Unix())
	for _, crit := range []string{`["b64"],"b64":false`, `["exp"]`, `[]`, `null`, `"exp"`, `["urn:x"],"urn:x":1`} {
		expect(t, m, bearer(byHand(`{"alg":"ES256","kid":"a","crit":`+crit+`}`, body, signES(p256()))), method.Refused, "critical")
	}
	expect(t, m, bearer(byHand(`{"alg":"ES256","kid":"a"}`, body, signES(p256()))), method.Accepted, "")
}

func TestAttackTwoWaysToReadAToken(t *testing.T) {
	m := newWorld(t).build(remoteConfig())
	exp := start.Add(time.Hour).Unix()
	body := fmt.Sprintf(`{"iss":%q,"sub":"joe","aud":"api","exp":%d}`, issuerName, exp)
	for _, c := range [][2]string{
		{`{"alg":"ES256","kid":"a","alg":"none"}`, body},
		{`{"alg":"none","kid":"a","alg":"ES256"}`, body},
		{`{"alg":"ES256","kid":"a","\u0061lg":"ES256"}`, body},
		{`{"alg":"ES256","kid":"a"} `, strings.Replace(body, `"sub"`, `"sub":"admin","sub"`, 1)},
		{`{"alg":"ES256","kid":"a"}`, strings.Replace(body, `"sub"`, `"a":{"b":1,"b":2},"sub"`, 1)},
		{`{"alg":"ES256","kid":"a"}`, body + `{"sub":"admin"}`},
		{`{"alg":"ES256","kid":"a"}`, body + `x`},
		{`{"alg":"ES256","kid":"a"}`, strings.Replace(body, "joe", "jo\xff", 1)},
		{`{"alg":"ES256","kid":"a"}`, `[` + body + `]`},
		{`{"alg":"ES256","kid":"a"}`, `null`},
		{`{"alg":"ES256","kid":"a"}`, ``},
		{`{"alg":"ES256","kid":"a"}x`, body},
		{`["ES256"]`, body},
		{``, body},
	} {
		expect(t, m, bearer(byHand(c[0], c[1], signES(p256()))), method.Refused, "")
	}
	// Names are read with their case.
	expect(t, m, bearer(byHand(`{"ALG":"ES256","kid":"a"}`, body, signES(p256()))), method.Refused, "algorithm")
	expect(t, m, bearer(byHand(`{"alg":"ES256","kid":"a"}`, strings.Replace(body, `"exp"`, `"EXP"`, 1), signES(p256()))), method.Refused, "exp is not there")

	good := esPair("a").sign(claims())
	parts := strings.Split(good, ".")
	for _, text := range []string{
		good + "=", good + ".", "." + good, good + "\n", strings.Replace(good, ".", ".\r\n", 1), parts[0] + "=." + parts[1] + "." + parts[2],
		parts[0] + "." + parts[1] + "." + parts[2] + "==", parts[0] + "." + parts[1], parts[0] + ".." + parts[2], parts[0] + "." + parts[1] + ".",
		strings.Join(append(slices.Clone(parts), "AA", "AA"), "."), // the form of a JWE
		`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		" " + good + " x", strings.ReplaceAll(good, "_", "/") + "+",
	} {
		expect(t, m, bearer(text), method.Refused, "")
	}
	// The last character of 64 bytes has four bits that mean nothing.
	last := parts[2][len(parts[2])-1]
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		want := method.Refused
		if byte(c) == last {
			want = method.Accepted
		}
		expect(t, m, bearer(good[:len(good)-1]+string(c)), want, "")
	}
	if sum := sha256.Sum256([]byte(good)); m.(*verifier).verified.len() != 1 {
		t.Errorf("more than %x is remembered", sum[:4])
	}
}

func TestAttackATokenMadeForSomethingElse(t *testing.T) {
	m := newWorld(t).build(remoteConfig())
	for _, typ := range []string{"logout+jwt", "secevent+jwt", "dpop+jwt", "application/logout+jwt", "JOSE", "JWE", "oauth-authz-req+jwt", "JWT2"} {
		expect(t, m, bearer(esPair("a").sign(claims(), "typ", typ)), method.Refused, "its type")
	}
	for _, typ := range []string{"JWT", "jwt", "at+jwt", "application/at+JWT"} {
		expect(t, m, bearer(esPair("a").sign(claims(), "typ", typ)), method.Accepted, "")
	}
}

func TestAttackASubjectThatIsNobody(t *testing.T) {
	m := newWorld(t).build(remoteConfig())
	for _, sub := range []any{nil, "", 7, true, []string{"joe"}, map[string]any{"joe": 1}} {
		expect(t, m, bearer(esPair("a").sign(claims("sub", sub, "client_id", "joe"))), method.Refused, "sub is not there")
	}
}

func TestAttackWeakKeys(t *testing.T) {
	weak := pair{"w", jose.RS256, rsaWeak()}
	w := newWorld(t)
	w.publish(setOf(weak, esPair("a")))
	m := w.build(remoteConfig())
	expect(t, m, bearer(esPair("a").sign(claims())), method.Accepted, "")
	header := `{"alg":"RS256","kid":"w"}`
	expect(t, m, bearer(byHand(header, `{"iss":"`+issuerName+`"}`, func([]byte) []byte { return make([]byte, 128) })), method.Refused, "no key named")
	err := inlineConfig([]string{"RS256"}, weak).Check()
	if err == nil || !strings.Contains(err.Error(), "an RSA key of 1024 bits") {
		t.Errorf("%v", err)
	}
}
