package jwt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/racetest"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// pairFor is a key pair of that algorithm.
func pairFor(alg string) pair {
	private := map[string]any{
		"RS": rsaKey(), "PS": rsaKey(), "ES256": p256(), "ES384": p384(), "ES512": p521(), "Ed": edKey(), "HS": secret,
	}
	for prefix, k := range private {
		if strings.HasPrefix(alg, prefix) {
			return pair{"k-" + alg, jose.SignatureAlgorithm(alg), k}
		}
	}
	panic(alg)
}

func TestWhatAnotherLibrarySignsIsAccepted(t *testing.T) {
	for _, alg := range Algorithms() {
		p := pairFor(alg)
		c := inlineConfig([]string{alg}, p)
		if alg == "Ed25519" { // go-jose knows it by its older name
			p.alg = "EdDSA"
			c = inlineConfig([]string{alg, "EdDSA"}, p)
		}
		m := newWorld(t).build(c)
		token := p.sign(claims())
		got := expect(t, m, bearer(token), method.Accepted, "")
		if got.Identity == nil || got.Identity.Subject != "joe" {
			t.Fatalf("%s: %v", alg, got.Identity)
		}
		if again := expect(t, m, bearer(token), method.Accepted, ""); again.Identity != got.Identity {
			t.Errorf("%s: verified twice", alg)
		}
		// Each byte of the signature counts.
		dot := strings.LastIndexByte(token, '.')
		for _, i := range []int{dot + 1, dot + 20, len(token) - 6} {
			b := []byte(token)
			if b[i]++; b[i] > 'y' || b[i] == '{' || b[i] == ':' || b[i] == '[' || b[i] == '`' || b[i] == '.' {
				b[i] = 'A'
			}
			expect(t, m, bearer(string(b)), method.Refused, "")
		}
		expect(t, m, bearer(strings.Replace(token, ".", ".e", 1)), method.Refused, "")
	}
}

func TestATokenIsLookedForWhereThePolicySays(t *testing.T) {
	good := esPair("a").sign(claims())
	c := inlineConfig([]string{"ES256"}, esPair("a"))
	m := newWorld(t).build(c)
	for value, want := range map[string]method.Outcome{
		"Bearer " + good: method.Accepted, "bearer " + good: method.Accepted, "BEARER   " + good: method.Accepted,
		"": method.Absent, "Basic am9lOmpvZQ==": method.Absent, good: method.Absent, "Bearer": method.Absent, "Bearer x": method.Refused,
		"Bearer " + good + " x": method.Refused, "Bearer " + good + ",x=y": method.Refused,
	} {
		ex := &message.Exchange{}
		ex.Request.Header.Add("authorization", value)
		got := expect(t, m, ex, want, "")
		if want != method.Accepted && !strings.HasPrefix(got.Challenge, "Bearer realm=") {
			t.Errorf("%.20q: challenge %q", value, got.Challenge)
		}
	}
	got := expect(t, m, &message.Exchange{}, method.Absent, "")
	if strings.Contains(got.Challenge, "error") {
		t.Errorf("who presents nothing has made no error: %s", got.Challenge)
	}

	c.From = method.Places{{Header: "X-Token"}, {Query: "access_token"}, {Cookie: "token"}}
	m = newWorld(t).build(c)
	for name, put := range map[string]func(r *message.Request){
		"header": func(r *message.Request) { r.Header.Add("x-token", good) },
		"query":  func(r *message.Request) { r.Target.Query, r.Target.HasQuery = "a=b&access_token="+good+"&c=%zz", true },
		"cookie": func(r *message.Request) { r.Header.Add("Cookie", "a=b; token="+good+"; c=d") },
	} {
		ex := &message.Exchange{}
		put(&ex.Request)
		expect(t, m, ex, method.Accepted, "")
		m.Strip(&ex.Request)
		if expect(t, m, ex, method.Absent, ""); strings.Contains(fmt.Sprint(ex.Request), good) {
			t.Errorf("%s: what is forwarded still has the token", name)
		}
		if name == "query" && ex.Request.Target.Query != "a=b&c=%zz" {
			t.Errorf("query %s", ex.Request.Target.Query)
		}
	}
	expect(t, m, bearer(good), method.Absent, "") // not where this policy looks
}

func TestClaimsAreAsTheyWereWritten(t *testing.T) {
	m := newWorld(t).build(inlineConfig([]string{"ES256"}, esPair("a")))
	body := `{"iss":"` + issuerName + `","sub":"joe","aud":"api","exp":` + fmt.Sprint(start.Add(time.Hour).Unix()) +
		`,"big":9007199254740993,"ratio":1.50,"groups":["a",1,null,{}],"deep":{"a":{"b":true}},"text":"\u00e9\"","none":null,"empty":[]}`
	got := expect(t, m, bearer(byHand(`{"alg":"ES256","kid":"a"}`, body, signES(p256()))), method.Accepted, "")
	c := got.Identity.Claims
	delete(c, "exp")
	want := map[string]any{
		"iss": issuerName, "sub": "joe", "aud": "api", "big": json.Number("9007199254740993"), "ratio": json.Number("1.50"),
		"groups": []any{"a", json.Number("1"), nil, map[string]any{}}, "deep": map[string]any{"a": map[string]any{"b": true}}, "text": "é\"",
		"none": nil, "empty": []any{},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%#v\nwant %#v", c, want)
	}
}

func TestAnotherClaimMayNameTheSubject(t *testing.T) {
	c := inlineConfig([]string{"ES256"}, esPair("a"))
	c.Subject = "email"
	m := newWorld(t).build(c)
	got := expect(t, m, bearer(esPair("a").sign(claims("email", "joe@example.com"))), method.Accepted, "")
	if got.Identity.Subject != "joe@example.com" {
		t.Errorf("%v", got.Identity)
	}
	expect(t, m, bearer(esPair("a").sign(claims())), method.Refused, "email is not there")
}

func TestKeysWithoutANameAreTried(t *testing.T) {
	nameless, second := pair{"", jose.ES256, p256()}, pair{"", jose.ES256, other()}
	m := newWorld(t).build(inlineConfig([]string{"ES256"}, nameless, second))
	expect(t, m, bearer(nameless.sign(claims())), method.Accepted, "")
	expect(t, m, bearer(second.sign(claims())), method.Accepted, "")
	expect(t, m, bearer(esPair("any").sign(claims())), method.Accepted, "") // the token names a key, the issuer none
	// A token without a name is tried with all that fit, but not with hundreds.
	var many []pair
	for i := range maxTries {
		many = append(many, pair{fmt.Sprint(i), jose.ES256, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))})
	}
	m = newWorld(t).build(inlineConfig([]string{"ES256"}, append(slices.Clone(many), esPair("last"))...))
	expect(t, m, bearer(pair{"", jose.ES256, many[maxTries-1].private}.sign(claims())), method.Accepted, "")
	expect(t, m, bearer(pair{"", jose.ES256, p256()}.sign(claims())), method.Refused, "signature")
	expect(t, m, bearer(esPair("last").sign(claims())), method.Accepted, "")
}

func TestAKeyThatMustNotVerifyIsSkipped(t *testing.T) {
	es := string(must(pair{"a", "", p256()}.public().MarshalJSON()))
	rs := string(must(pair{"a", "", rsaKey()}.public().MarshalJSON()))
	ed := string(must(pair{"a", "", edKey()}.public().MarshalJSON()))
	change := func(text string, pairs ...any) string {
		var m map[string]any
		json.Unmarshal([]byte(text), &m)
		for i := 0; i < len(pairs); i += 2 {
			if m[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
				delete(m, pairs[i].(string))
			}
		}
		return string(must(json.Marshal(m)))
	}
	for text, why := range map[string]string{
		es: "", rs: "", ed: "",
		change(es, "use", nil):                                                             "",
		change(es, "use", nil, "key_ops", []string{"verify"}):                              "",
		change(es, "x5c", []string{"garbage"}, "x5u", "http://169.254.169.254/", "x5t", 7): "",
		change(rs, "alg", "PS384"):                                                         "",
		change(ed, "alg", "EdDSA"):                                                         "",

		change(es, "use", "enc"):                            "use",
		change(es, "key_ops", []string{"sign"}):             "key_ops",
		change(es, "key_ops", []string{}):                   "key_ops",
		change(es, "d", "AAAA"):                             "private part",
		change(es, "alg", "ES384"):                          "no key for ES384",
		change(es, "alg", "RS256"):                          "no key for RS256",
		change(es, "alg", "HS256"):                          "no key for HS256",
		change(es, "alg", "ECDH-ES"):                        "not supported",
		change(es, "alg", "none"):                           "not supported",
		change(es, "kty", "RSA"):                            "RSA key",
		change(es, "kty", "oct"):                            "shared secret",
		change(es, "kty", "AKP"):                            "not supported",
		change(es, "kty", nil):                              "not supported",
		change(es, "crv", "P-384"):                          "48 bytes",
		change(es, "crv", "secp256k1"):                      "not supported",
		change(es, "x", ""):                                 "32 bytes",
		change(es, "x", strings.Repeat("A", 43)):            "no point",
		change(es, "x", 7):                                  "",
		change(es, "kid", 7):                                "",
		change(ed, "crv", "X25519"):                         "no Ed25519 key",
		change(ed, "x", "AAAA"):                             "no Ed25519 key",
		change(rs, "e", "AQ"):                               "exponent",
		change(rs, "e", "AAAA"):                             "exponent",
		change(rs, "e", "BA"):                               "exponent",
		change(rs, "e", "_____w"):                           "exponent",
		change(rs, "n", strings.Repeat("f", 1400)):          "bits",
		change(rs, "n", strings.Repeat("f", 99999)):         "no number",
		change(rs, "n", "_"+strings.Repeat("A", 341)):       "even",
		change(rs, "n", "!"):                                "no number",
		strings.Replace(es, `"kty"`, `"kty":"EC","kty"`, 1): "duplicate",
		`7`: "", `null`: "not supported", `[]`: "",
	} {
		set, err := parseSet([]byte(`{"keys":[`+text+`]}`), false)
		if err != nil {
			if why != "duplicate" {
				t.Errorf("%.300s: %v", text, err)
			}
			continue
		}
		good := text == es || text == rs || text == ed || why == "" && len(set.skipped) == 0
		if good != (len(set.keys) == 1) || !good && !strings.Contains(strings.Join(set.skipped, ""), why) {
			t.Errorf("%.300s: %d keys, skipped %q, want %q", text, len(set.keys), set.skipped, why)
		}
	}
}

func TestTwoKeysOfOneNameAreNone(t *testing.T) {
	a, b := pair{"k", jose.ES256, p256()}, pair{"k", jose.ES256, other()}
	for _, c := range []struct {
		keys []pair
		want int
	}{
		{[]pair{a, b}, 0}, {[]pair{a, a}, 1}, {[]pair{a, b, a}, 0}, {[]pair{a, {"k", jose.RS256, rsaKey()}}, 2}, {[]pair{a, {"k2", jose.ES256, other()}}, 2},
		{[]pair{{"k", jose.RS256, rsaKey()}, {"k", jose.PS256, rsaKey()}}, 2}, {[]pair{{"", jose.ES256, p256()}, {"", jose.ES256, other()}}, 2},
	} {
		set, err := parseSet(setOf(c.keys...), false)
		if err != nil || len(set.keys) != c.want {
			t.Errorf("%d keys of %d, want %d: %v %v", len(set.keys), len(c.keys), c.want, set.skipped, err)
		}
	}
}

func TestEqualTextsOfSettingsDoTheSame(t *testing.T) {
	base := remoteConfig
	seen := map[string]string{}
	for name, change := range map[string]func(*Config){
		"base":      func(*Config) {},
		"issuer":    func(c *Config) { c.Issuer = "x" },
		"audience":  func(c *Config) { c.Audiences = []string{"api", "b"} },
		"audience2": func(c *Config) { c.Audiences = []string{`api" "b`} },
		"algorithm": func(c *Config) { c.Algorithms = []string{"ES256"} },
		"skew":      func(c *Config) { c.ClockSkew = time.Second },
		"url":       func(c *Config) { c.Keys.URL += "2" },
		"backend":   func(c *Config) { c.Keys.Backend = snapshot.BackendRef{Outside: "x", Port: 443} },
		"inline":    func(c *Config) { c.Keys = Keys{Inline: []byte("a")} },
		"inline2":   func(c *Config) { c.Keys = Keys{Inline: []byte("b")} },
		"header":    func(c *Config) { c.From = method.Places{{Header: "X"}} },
		"prefix":    func(c *Config) { c.From = method.Places{{Header: "X", Prefix: "Y"}} },
		"query":     func(c *Config) { c.From = method.Places{{Query: "X"}} },
		"cookie":    func(c *Config) { c.From = method.Places{{Cookie: "X"}} },
		"both":      func(c *Config) { c.From = method.Places{{Header: "X"}, {Cookie: "X"}} },
		"subject":   func(c *Config) { c.Subject = "email" },
	} {
		c := base()
		change(&c)
		if other, found := seen[c.String()]; found {
			t.Errorf("%s and %s: %s", name, other, c)
		}
		seen[c.String()] = name
	}
	if s := inlineConfig([]string{"HS256"}, pair{"h", jose.HS256, secret}).String(); strings.Contains(s, "MDEyMz") || strings.Contains(s, "kty") {
		t.Errorf("a secret shows: %s", s)
	}
	// Each field has its case above.
	if n := reflect.TypeFor[Config]().NumField(); n != 7 {
		t.Errorf("%d fields: has String all of them?", n)
	}
}

func TestAMistakeIsNamed(t *testing.T) {
	for says, change := range map[string]func(*Config){
		"issuer is empty":                     func(c *Config) { c.Issuer = "" },
		"clock skew":                          func(c *Config) { c.ClockSkew = time.Hour },
		"an audience is empty":                func(c *Config) { c.Audiences = []string{""} },
		"no algorithm is listed":              func(c *Config) { c.Algorithms = nil },
		`the algorithm "none" is not one of`:  func(c *Config) { c.Algorithms = []string{"none"} },
		"cannot be listed together":           func(c *Config) { c.Algorithms = []string{"HS256", "RS256"} },
		"need inline keys":                    func(c *Config) { c.Algorithms = []string{"HS256"} },
		"one of url and inline":               func(c *Config) { c.Keys.URL = "" },
		`"ftp://x/" is no http or https URL`:  func(c *Config) { c.Keys.URL = "ftp://x/" },
		`"https://" is no http or https URL`:  func(c *Config) { c.Keys.URL = "https://" },
		`"https://u:p@x/" is no http or http`: func(c *Config) { c.Keys.URL = "https://u:p@x/" },
		"no JWK Set":                          func(c *Config) { c.Keys = Keys{Inline: []byte("x")} },
		"no key can be used: keys[0]: an RSA": func(c *Config) { c.Keys = Keys{Inline: setOf(pair{"w", jose.RS256, rsaWeak()})} },
		"one of header":                       func(c *Config) { c.From = method.Places{{Query: "a", Prefix: "b"}} },
	} {
		c := remoteConfig()
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %s", err, says)
		}
		w := newWorld(t)
		r := w.Store.Begin()
		if m, err := c.Build(w.env(r)); err == nil {
			t.Errorf("%s: built all the same: %v", says, m)
		}
		r.End()
	}
	if err := remoteConfig().Check(); err != nil {
		t.Error(err)
	}
}

func TestTheMemoryOfTokensHasABound(t *testing.T) {
	c := newCache()
	id := func(i int) tokenID { return sha256.Sum256([]byte(fmt.Sprint(i))) }
	for i := range 3 * maxVerified {
		c.add(id(i), verified{size: 100})
		c.get(id(0)) // in use
	}
	if n := c.len(); n > 2*maxVerified {
		t.Errorf("%d tokens", n)
	}
	if _, found := c.get(id(0)); !found {
		t.Error("what is in use is forgotten")
	}
	if _, found := c.get(id(1)); found {
		t.Error("what is not in use is remembered")
	}
	c = newCache()
	for i := range 3 * maxVerified {
		c.add(id(i), verified{size: MaxToken})
	}
	if n := c.len(); n > 2*maxVerifiedBytes/MaxToken {
		t.Errorf("%d tokens of the largest size", n)
	}
	c.remove(id(3*maxVerified - 1))
	if _, found := c.get(id(3*maxVerified - 1)); found {
		t.Error("what was removed is there")
	}
}

func TestTheMemoryOutlivesASnapshotAndIsNotSharedByOtherSettings(t *testing.T) {
	w := newWorld(t)
	c := remoteConfig()
	a := w.build(c).(*verifier)
	token := esPair("a").sign(claims())
	expect(t, a, bearer(token), method.Accepted, "")
	b := w.build(c).(*verifier)
	if b.verified != a.verified || b.verified.len() != 1 {
		t.Error("the next snapshot begins anew")
	}
	c.ClockSkew = time.Second
	if d := w.build(c).(*verifier); d.verified == a.verified {
		t.Error("other settings share what was verified")
	}
	inlined := inlineConfig([]string{"ES256"}, esPair("a"))
	expect(t, w.build(inlined), bearer(token), method.Accepted, "")
	again := w.build(inlined).(*verifier)
	if _, found := again.remembered(bearer(token), sha256.Sum256([]byte(token))); !found {
		t.Error("inline keys are another version in the next snapshot")
	}
}

func TestARememberedTokenCostsLittle(t *testing.T) {
	racetest.SkipsAllocations(t)
	m := newWorld(t).build(remoteConfig())
	ex := bearer(esPair("a").sign(claims()))
	expect(t, m, ex, method.Accepted, "")
	if n := testing.AllocsPerRun(100, func() { m.Authenticate(ex) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever is presented, it is refused unless the issuer has signed it, and nothing panics.
func FuzzToken(f *testing.F) {
	good := esPair("a").sign(claims())
	for _, s := range []string{good, "", ".", "..", "a.b.c", "e30.e30.", good[:len(good)-1], strings.Repeat("a.", 100)} {
		f.Add(s)
	}
	f.Add(byHand(`{"alg":"ES256"}`, `{"exp":1e400}`, signES(p256())))
	m := newWorld(f).build(inlineConfig([]string{"ES256"}, esPair("a")))
	f.Fuzz(func(t *testing.T, text string) {
		if got := m.Authenticate(bearer(text)); got.Outcome == method.Accepted && strings.TrimLeft(text, " ") != good {
			t.Errorf("%q is accepted", text)
		}
		if strings.ContainsAny(m.Authenticate(bearer(text)).Detail, "\r\n") {
			t.Errorf("%q: a line break in the log", text)
		}
		parseSet([]byte(text), false)
		parseSet([]byte(text), true)
		parseClaims([]byte(text))
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	for _, alg := range []string{"ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA", "HS256"} {
		p := pairFor(alg)
		m := newWorld(b).build(inlineConfig([]string{alg}, p)).(*verifier)
		text := p.sign(claims("groups", []string{"ops", "dev", "admin"}, "email", "joe@example.com", "name", "Joe", "jti", strings.Repeat("x", 36)))
		ex := bearer(text)
		if alg == "ES256" {
			b.Run("remembered", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if m.Authenticate(ex).Outcome != method.Accepted {
						b.Fatal("refused")
					}
				}
			})
		}
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.verified.remove(sha256.Sum256([]byte(text)))
				if m.Authenticate(ex).Outcome != method.Accepted {
					b.Fatal("refused")
				}
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		m := newWorld(b).build(inlineConfig([]string{"ES256"}, esPair("a")))
		ex := bearer(pair{"a", jose.ES256, other()}.sign(claims()))
		b.ReportAllocs()
		for b.Loop() {
			m.Authenticate(ex)
		}
	})
}
