package apikey

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/racetest"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func sensitive(text string) snapshot.Sensitive { return snapshot.Sensitive{Data: []byte(text)} }

func atRest(key string) snapshot.Sensitive {
	sum := sha256.Sum256([]byte(key))
	return sensitive("sha256:" + strings.ToUpper(hex.EncodeToString(sum[:])))
}

func config(from ...method.Place) Config {
	return Config{From: from, Keys: []Key{
		{Subject: "red", Value: sensitive("key of red"), Labels: []Label{{"tier", "gold"}, {"team", "a"}}},
		{Subject: "red", Value: sensitive("second key of red")},
		{Subject: "blue", Value: atRest("key of blue")},
	}}
}

func build(t testing.TB, c Config) *keys {
	t.Helper()
	m, err := c.Build(filter.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return m.(*keys)
}

func with(fields ...message.Field) *message.Exchange {
	return &message.Exchange{Request: message.Request{Method: "GET", Header: message.NewHeader(fields...)}}
}

func key(value string) message.Field { return message.Field{Name: "X-API-Key", Value: value} }

func TestAKeyProvesItsClient(t *testing.T) {
	k := build(t, config(method.Place{Header: "X-API-Key"}))
	for _, c := range []struct {
		sentence string
		ex       *message.Exchange
		outcome  method.Outcome
		subject  string
	}{
		{"a key", with(key("key of red")), method.Accepted, "red"},
		{"another of the same client, for while one is rotated", with(key("second key of red")), method.Accepted, "red"},
		{"a key that is hashed at rest", with(key("key of blue")), method.Accepted, "blue"},
		{"none", with(), method.Absent, ""},
		{"an unknown one", with(key("key of nobody")), method.Refused, ""},
		{"a part of one", with(key("key of re")), method.Refused, ""},
		{"more than one", with(key("key of red ")), method.Refused, ""},
		{"another case", with(key("KEY OF RED")), method.Refused, ""},
		{"an empty one", with(key("")), method.Refused, ""},
		{"a very long one", with(key(strings.Repeat("x", MaxKey+1))), method.Refused, ""},
		{"two of them", with(key("key of red"), key("key of red")), method.Refused, ""},
		{"two, the first wrong", with(key("x"), key("key of red")), method.Refused, ""},
		{"what stands at rest is no key", with(key(string(atRest("key of blue").Data))), method.Refused, ""},
		{"the hash itself is no key", with(key(strings.TrimPrefix(string(atRest("key of blue").Data), hashed))), method.Refused, ""},
	} {
		r := k.Authenticate(c.ex)
		subject := ""
		if r.Identity != nil {
			subject = r.Identity.Subject
		}
		if r.Outcome != c.outcome || subject != c.subject {
			t.Errorf("%s: %v %q (%s)", c.sentence, r.Outcome, subject, r.Detail)
		}
		if value, _ := c.ex.Request.Header.Only("X-API-Key"); value != "" && strings.Contains(r.Detail, value) {
			t.Errorf("%s: the key is in the log: %s", c.sentence, r.Detail)
		}
	}
}

func TestAnIdentityHasTheLabelsOfItsKey(t *testing.T) {
	k := build(t, config(method.Place{Header: "X-API-Key"}))
	want := &message.Identity{Subject: "red", Labels: map[string]string{"tier": "gold", "team": "a"}}
	if d := cmp.Diff(want, k.Authenticate(with(key("key of red"))).Identity); d != "" {
		t.Error(d)
	}
}

// Timing of key compare: not by a clock, which would prove nothing on a busy machine, but by what is done. A key is hashed once and looked
// up once, whether it is known, nearly right or wrong, and nothing ever compares a key with a key.
func TestAttackTimingOfKeyCompare(t *testing.T) {
	k := build(t, config(method.Place{Header: "X-API-Key"}))
	var sizes []int
	k.hash = func(key string) [sha256.Size]byte {
		sizes = append(sizes, len(key))
		return sumOf(key)
	}
	for _, v := range []string{"key of red", "key of reX", "Xey of red", "no key at "} {
		sizes = nil
		k.Authenticate(with(key(v)))
		if !slices.Equal(sizes, []int{10}) {
			t.Errorf("%q: hashed %v", v, sizes)
		}
	}
	for sum, id := range k.identities {
		if strings.Contains(string(sum[:]), "key of") || id.Subject == "" {
			t.Error("a key is kept as it is")
		}
	}
}

func TestKeysAreTakenFromEveryPlaceAndStripped(t *testing.T) {
	k := build(t, config(method.Place{Header: "Authorization", Prefix: "Bearer "}, method.Place{Query: "key"}, method.Place{Cookie: "key"}))
	ask := func(ex *message.Exchange, query string) method.Outcome {
		ex.Request.Target = message.Target{Path: "/", Query: query, HasQuery: query != ""}
		o := k.Authenticate(ex).Outcome
		k.Strip(&ex.Request)
		if ex.Request.Header.Len() != 0 || strings.Contains(ex.Request.Target.Query, "key") {
			t.Errorf("left: %v %s", ex.Request.Header, ex.Request.Target)
		}
		return o
	}
	bearer, cookie := message.Field{Name: "Authorization", Value: "bearer key of red"}, message.Field{Name: "Cookie", Value: "key=key of red"}
	if got := ask(with(bearer), ""); got != method.Accepted {
		t.Errorf("header: %v", got)
	}
	if got := ask(with(), "a=1&key=key+of%20red"); got != method.Accepted {
		t.Errorf("query: %v", got)
	}
	if got := ask(with(cookie), ""); got != method.Accepted {
		t.Errorf("cookie: %v", got)
	}
	if got := ask(with(bearer, cookie), ""); got != method.Refused {
		t.Errorf("two places: %v", got)
	}
}

func TestWhatIsWrongIsSaidAndNeverWithAKey(t *testing.T) {
	good := config(method.Place{Header: "X-API-Key"})
	keys := func(k ...Key) Config { return Config{From: good.From, Keys: k} }
	for want, c := range map[string]Config{
		"no place":                      {Keys: good.Keys},
		"exactly one of":                config(method.Place{}),
		"exactly one of header":         config(method.Place{Header: "a", Query: "b"}),
		"only a header can":             config(method.Place{Query: "b", Prefix: "Bearer "}),
		"cannot stand in the header":    config(method.Place{Header: "Content-Length"}),
		"no name of a cookie":           config(method.Place{Cookie: "a=b"}),
		"would be found twice":          config(method.Place{Query: "a"}, method.Place{Query: "a"}),
		"found twice, and":              config(method.Place{Header: "A"}, method.Place{Header: "a", Prefix: "Bearer "}),
		"without a subject":             keys(Key{Value: sensitive("hunter2")}),
		"key of red is empty":           keys(Key{Subject: "red"}),
		"64 hexadecimal digits":         keys(Key{Subject: "red", Value: sensitive("sha256:hunter2")}),
		"longer than":                   keys(Key{Subject: "red", Value: sensitive(strings.Repeat("hunter2", 1000))}),
		"no client could send it":       keys(Key{Subject: "red", Value: sensitive("hunter2\n")}),
		"red and blue have the same":    keys(Key{Subject: "red", Value: sensitive("hunter2")}, Key{Subject: "blue", Value: sensitive("hunter2")}),
		"red and green have the same":   keys(Key{Subject: "red", Value: sensitive("hunter2")}, Key{Subject: "green", Value: atRest("hunter2")}),
		"red and red have the same key": keys(Key{Subject: "red", Value: sensitive("hunter2")}, Key{Subject: "red", Value: atRest("hunter2"), Labels: []Label{{"a", "b"}}}),
	} {
		err := c.Check()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("want %s: %v", want, err)
		}
		if m, berr := c.Build(filter.Env{}); m != nil || berr == nil {
			t.Errorf("%s: it is built", want)
		}
	}
	for _, c := range []Config{good, keys(), keys(good.Keys[0], good.Keys[0]), config(method.Place{Header: "A", Prefix: "Bearer "}, method.Place{Header: "a", Prefix: "Key "})} {
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestTheTextTellsSettingsApartAndNoKey(t *testing.T) {
	seen := map[string]bool{}
	for _, change := range []func(*Config){
		func(*Config) {},
		func(c *Config) { c.From[0].Header = "X-Other" },
		func(c *Config) { c.From[0].Prefix = "Key " },
		func(c *Config) { c.From = append(c.From, method.Place{Query: "key"}) },
		func(c *Config) { c.From = append(c.From, method.Place{Cookie: "key"}) },
		func(c *Config) { c.Keys[0].Value = sensitive("other") },
		func(c *Config) { c.Keys[0].Subject = "r" },
		func(c *Config) { c.Keys[0].Labels = c.Keys[0].Labels[:1] },
		func(c *Config) { c.Keys[0].Labels[1].Value = "b" },
		func(c *Config) { c.Keys = c.Keys[:2] },
	} {
		c := config(method.Place{Header: "X-API-Key"})
		change(&c)
		text := c.String()
		if seen[text] || strings.Contains(text, "key of") {
			t.Errorf("%s", text)
		}
		seen[text] = true
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	k := build(b, config(method.Place{Header: "X-API-Key"}))
	for name, ex := range map[string]*message.Exchange{"known": with(key("key of blue")), "unknown": with(key("key of nobody"))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.Authenticate(ex)
			}
		})
	}
}

func TestAKeyIsCheckedWithoutAnAllocation(t *testing.T) {
	racetest.SkipsAllocations(t)
	k := build(t, config(method.Place{Header: "X-API-Key"}))
	ex := with(key("key of blue"))
	if n := testing.AllocsPerRun(500, func() { k.Authenticate(ex) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
