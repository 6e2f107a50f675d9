package expr

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/racetest"
)

func exchange() *message.Exchange {
	ex := &message.Exchange{
		ClientIP: netip.MustParseAddr("10.1.2.3"),
		Conn:     &message.Conn{Remote: netip.MustParseAddrPort("192.0.2.9:4711")},
		Received: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC),
	}
	r := &ex.Request
	r.Method, r.Scheme = "GET", "https"
	r.Host, _ = message.ParseHost("Shop.Example.com:8443")
	r.Target, _, _ = message.ParseTarget("/v1/%7Ejoe//cart%20s?user=a%20b&tag=1&tag=2&empty=&bad=%zz&a%2Bb=plus&c+d=space&flag", message.PathRules{})
	r.Header = message.NewHeader(message.Field{Name: "X-Tenant", Value: "blue"}, message.Field{Name: "Accept", Value: "a"},
		message.Field{Name: "accept", Value: "b"})
	return ex
}

func TestAVariableSaysWhatTheExchangeHas(t *testing.T) {
	for text, want := range map[string]string{
		`request.method`:                        "GET",
		`request.scheme`:                        "https",
		`request.host`:                          "shop.example.com",
		`request.path`:                          "/v1/~joe/cart%20s",
		`source.ip`:                             "10.1.2.3",
		`source.port`:                           "4711",
		`"p" + string(source.port)`:             "p4711",
		`string(request.time)`:                  "2026-05-06T07:08:09Z",
		`request.time.getHours()`:               "7",
		`request.time.getHours("Asia/Kolkata")`: "12",

		`request.headers["x-tenant"]`:   "blue",
		`request.headers["X-TENANT"]`:   "blue",
		`request.headers.accept`:        "a,b",
		`request.headers["absent"]`:     "",
		`"x-tenant" in request.headers`: "true",
		`"absent" in request.headers`:   "false",
		`size(request.headers)`:         "2",

		`request.query["user"]`:   "a b",
		`request.query.tag`:       "1,2",
		`request.query["empty"]`:  "",
		`request.query["User"]`:   "",
		`request.query["bad"]`:    "%zz",
		`request.query["a+b"]`:    "plus",
		`request.query["c d"]`:    "space",
		`request.query["c+d"]`:    "",
		`"flag" in request.query`: "true",
		`"nope" in request.query`: "false",

		`"const"`:               "const",
		`7`:                     "7",
		`1.5`:                   "1.5",
		`7u`:                    "7",
		`true`:                  "true",
		`["a", request.method]`: "a,GET",
		`request.headers.exists(h, h == "x-tenant")`:                                               "true",
		`request.headers.filter(h, request.headers[h] != "").map(h, h + "=" + request.headers[h])`: "accept=a,b,x-tenant=blue",
		`request.query.all(q, q != "absent")`:                                                      "true",
		`request.path.split("/")[1]`:                                                               "v1",
		`request.host.lowerAscii().replace("shop", "x").substring(0, 3)`:                           "x.e",
		`request.path.matches("^/v[0-9]+/")`:                                                       "true",

		`source.ip.inCIDR("10.0.0.0/8")`:                      "true",
		`source.ip.inCIDR(["192.168.0.0/16", "10.1.2.3/32"])`: "true",
		`source.ip.inCIDR("2001:db8::/32")`:                   "false",
		`request.headers["absent"].inCIDR("0.0.0.0/0")`:       "false",
		`source.ip.network(24, 64)`:                           "10.1.2.0/24",
		`"2001:db8:1:2:3::4".network(24, 64)`:                 "2001:db8:1:2::/64",
		`request.method.network(24, 64)`:                      "",
	} {
		p, err := Compile(text, String)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := p.Value(exchange()); got != want || err != nil {
			t.Errorf("%s = %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestManyLookupsSayTheSameAsFew(t *testing.T) {
	ex := exchange()
	for _, m := range []string{"headers", "query"} {
		for _, name := range []string{"X-Tenant", "accept", "tag", "Tag", "a+b", "absent", "flag"} {
			few := fmt.Sprintf("request.%s[%q]", m, name)
			many := fmt.Sprintf(`request.%[1]s["1"] + request.%[1]s["2"] + request.%[1]s["3"] + request.%[1]s["4"] + request.%[1]s[%[2]q]`, m, name)
			if a, b := value(t, few, ex), value(t, many, ex); a != b {
				t.Errorf("%s[%s] = %q, and among many %q", m, name, a, b)
			}
		}
	}
}

func value(t testing.TB, text string, ex *message.Exchange) string {
	t.Helper()
	p, err := Compile(text, String)
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.Value(ex)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAMappedAddressIsTheSameClient(t *testing.T) {
	ex := exchange()
	ex.ClientIP = netip.MustParseAddr("fe80::1%eth0")
	if got := value(t, `source.ip`, ex); got != "fe80::1" {
		t.Errorf("source.ip = %q: a zone is ours, and not the client's", got)
	}
	ex.ClientIP = netip.MustParseAddr("::ffff:10.1.2.3")
	if got := value(t, `source.ip`, ex); got != "10.1.2.3" {
		t.Errorf("source.ip = %q", got)
	}
	if got := value(t, `"" + source.ip`, ex); got != "10.1.2.3" {
		t.Errorf("by CEL source.ip = %q", got)
	}
}

func TestARefusalNamesThePlaceAndWhatToChange(t *testing.T) {
	for _, c := range []struct {
		text string
		want Kind
		err  string
	}{
		{"", Bool, "line 1, column 1: the expression is empty"},
		{"identity.user", String, `line 1, column 1: identity.user is not there; there are identity.subject, identity.method, identity.claims, identity.labels, identity.list("groups")`},
		{"identity == null", Bool, `identity is not there; there are identity.subject, identity.method, identity.claims, identity.labels, identity.list("groups")`},
		{`request.method == "GET" && identity.list(7).size() > 0`, Bool, `line 1, column 42: identity.list wants the name of a claim, such as "groups"`},
		{`identity.list("a", "b").size() > 0`, Bool, `line 1, column 1: identity.list is not there; there are identity.subject`},
		{`request.list("a").size() > 0`, Bool, `line 1, column 1: request.list is not there; there are request.method`},
		{`has(identity.claims)`, String, "line 1, column 13: has wants a map and a name in it, such as has(identity.claims.email)"},
		{`has(request)`, Bool, "line 1, column 5: has wants a map and a name in it, such as has(identity.claims.email)"},
		{`identity.claims.admin`, Bool, "gives something whose type is not known before it runs, but must give true or false; compare it with something, for example"},
		{`identity.claims`, String, "gives map(string, dyn), but must give a string, number, bool or list of strings"},
		{`identity.labels.tier`, Int, "line 1, column 16: gives string, but must give a whole number; int(...) converts strings and doubles"},
		{`1.5`, Int, "line 1, column 1: gives double, but must give a whole number"},
		{`-1`, Int, "line 1, column 1: is less than 0"},
		{"response.code == 500", Bool, "line 1, column 1: response is not there: the expression is evaluated before there is an answer; use request, source or identity"},
		{`identity.claims.groups.all(a, identity.claims.groups.all(b, a == b))`, Bool, "takes too long on a large request"},
		{`request.verb == "GET"`, Bool, "line 1, column 1: request.verb is not there; there are request.method, request.scheme, request.host, request.path, request.headers, request.query, request.time"},
		{`true &&` + "\n" + `  source.addr == ""`, Bool, "line 2, column 3: source.addr is not there; there are source.ip, source.port"},
		{`foo`, Bool, "line 1, column 1: foo is not there; there are request, source and identity"},
		{`request.method`, Bool, "line 1, column 8: gives string, but must give true or false; compare it with something, for example"},
		{`request.time`, String, "line 1, column 8: gives timestamp, but must give a string, number, bool or list of strings; string(...) converts times and bytes"},
		{`request.headers`, String, "line 1, column 8: gives map(string, string), but must give a string, number, bool or list of strings; string(...) converts times and bytes"},
		{`source.port == "80"`, Bool, `line 1, column 13: == cannot be applied to (int, string); convert one side with string(...) or int(...)`},
		{`request.path.startsWith(1)`, Bool, `line 1, column 24: startsWith cannot be applied to string.(int)`},
		{`request.method ==`, Bool, `line 1, column 18: syntax error: mismatched input '<EOF>'`},
		{`request.path.matches("(")`, Bool, "line 1, column 22: invalid matches argument"},
		{`request.path.matches(request.method)`, Bool, "line 1, column 29: the pattern of matches must be a constant string"},
		{`request.time.getHours(request.method) > 3`, Bool, "line 1, column 30: the time zone of getHours must be a constant string"},
		{`source.ip.inCIDR("10.0.0.0")`, Bool, `line 1, column 18: "10.0.0.0" is no prefix; write it as "10.0.0.0/8" or "2001:db8::/32"`},
		{`source.ip.inCIDR(["10.0.0.0/8", request.method])`, Bool, `line 1, column 40: the prefix of inCIDR must be a constant string such as "10.0.0.0/8", or a list of them`},
		{`source.ip.network(33, 64)`, String, "line 1, column 19: the bits of network must be constant numbers: up to 32 for IPv4, up to 128 for IPv6"},
		{`"%s".format([request.method])`, String, "line 1, column 12: format is not available: its result has no bound; use + to put strings together"},
		{`request.path.split("").map(a, request.path).join()`, String, "line 1, column 49: join is not available: its result has no bound; use + to put strings together"},
		{`[1].all(a, [2].all(b, [3].all(c, a == b + c)))`, Bool, "all, exists, filter and map cannot stand three deep inside each other"},
		{`request.headers.all(a, request.headers.all(b, a == b))`, Bool, "takes too long on a large request"},
		{`request.query.all(a, request.query[a].matches("^(a|b|c|d|e|f|g)+(a|b|c|d|e|f|g)+$"))`, Bool, "takes too long on a large request"},
		{`request.path.replace("", request.path) == ""`, Bool, "takes too long on a large request"},
		{`dyn(request.method)`, Bool, "gives something whose type is not known before it runs"},
		{`"` + strings.Repeat("x", MaxText) + `"`, String, "expression code point size exceeds limit"},
		{strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200), String, "recursion"},
	} {
		p, err := Compile(c.text, c.want)
		if err == nil {
			t.Errorf("%.60s compiled: %v", c.text, p)
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%.60s: %#v is no *Error of one line with a place", c.text, err)
		}
		if !strings.Contains(err.Error(), c.err) {
			t.Errorf("%.60s:\n got %s\nwant %s", c.text, err, c.err)
		}
	}
}

// What is evaluated by us says what CEL says.
func TestTheNativeFormsSayWhatCELSays(t *testing.T) {
	texts := []string{
		"request.method", "request.scheme", "request.host", "request.path", "source.ip", `"const"`, `request.headers["x-tenant"]`,
		`request.headers.accept`, `request.headers["absent"]`, `request.query["tag"]`, `request.query.user`, `request.query["a+b"]`, `request.query["absent"]`,
	}
	v6, unknown, mapped := exchange(), exchange(), exchange()
	v6.ClientIP = netip.MustParseAddr("fe80::1%eth0")
	unknown.ClientIP = netip.Addr{}
	mapped.ClientIP = netip.MustParseAddr("::ffff:1.2.3.4")
	exchanges := []*message.Exchange{exchange(), v6, unknown, mapped, {}}
	for _, text := range texts {
		p, err := Compile(text, String)
		if err != nil || p.part == nil {
			t.Fatalf("%s: %v; native %v", text, err, p != nil && p.part != nil)
		}
		for i, ex := range exchanges {
			ours, _ := p.Append([]byte("k:"), ex)
			theirs, err := p.celAppend([]byte("k:"), ex)
			if string(ours) != string(theirs) || err != nil {
				t.Errorf("%s of exchange %d: we say %q, CEL says %q, %v", text, i, ours, theirs, err)
			}
			for _, to := range []string{"", "GET", "10.1.2.3", "blue", "a,b", "fe80::1", "1.2.3.4"} {
				for _, form := range []string{"%s == %q", "%s != %q", "%[2]q == %[1]s", "%[2]q != %[1]s"} {
					cond := fmt.Sprintf(form, text, to)
					c, err := Compile(cond, Bool)
					if err != nil || c.condition == nil {
						t.Fatalf("%s: %v; native %v", cond, err, c != nil && c.condition != nil)
					}
					ours, _ := c.Holds(ex)
					theirs, err := c.celHolds(ex)
					if ours != theirs || err != nil {
						t.Errorf("%s of exchange %d: we say %v, CEL says %v, %v", cond, i, ours, theirs, err)
					}
				}
			}
		}
	}
	for _, text := range []string{"true", "false"} {
		c, err := Compile(text, Bool)
		if err != nil || c.condition == nil {
			t.Fatal(text, err)
		}
		ours, _ := c.Holds(exchange())
		theirs, err := c.celHolds(exchange())
		if ours != theirs || err != nil {
			t.Errorf("%s: we say %v, CEL says %v, %v", text, ours, theirs, err)
		}
	}
}

func TestWhatCostsTooMuchFailsWhileItRuns(t *testing.T) {
	p, err := Compile(`request.headers["a"].split("").all(c, c != "b")`, Bool)
	if err != nil {
		t.Fatal(err)
	}
	ex := exchange()
	ex.Request.Header.Set("a", "xyz")
	if ok, err := p.Holds(ex); !ok || err != nil {
		t.Fatalf("a small header: %v, %v", ok, err)
	}
	ex.Request.Header.Set("a", strings.Repeat("x", 60<<10))
	if ok, err := p.Holds(ex); err == nil {
		t.Fatalf("a header of 60 KiB, letter by letter: %v, and no error", ok)
	}
}

func TestAnEvaluationThatFailsIsAnError(t *testing.T) {
	for text, want := range map[string]Kind{
		`int(request.method) > 1`:      Bool,
		`request.path.split("/")[99]`:  String,
		`1 / (source.port - 4711) > 0`: Bool,
	} {
		p, err := Compile(text, want)
		if err != nil {
			t.Fatal(text, err)
		}
		if want == Bool {
			_, err = p.Holds(exchange())
		} else {
			var out []byte
			out, err = p.Append([]byte("kept"), exchange())
			if string(out) != "kept" {
				t.Errorf("%s: what was there became %q", text, out)
			}
		}
		if err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

func TestATextIsCompiledOnceAndTheMemoryHasABound(t *testing.T) {
	a, _ := Compile(`request.path == "/once"`, Bool)
	if b, _ := Compile(`request.path == "/once"`, Bool); a != b {
		t.Error("compiled twice")
	}
	if p, err := Compile(`request.path`, Bool); p != nil || err == nil {
		t.Error("the kind is part of the key")
	}
	_, err1 := Compile(`request.`, Bool)
	if _, err2 := Compile(`request.`, Bool); err1 == nil || err1 != err2 {
		t.Error("a refusal is remembered too")
	}
	for i := range maxPrograms + 10 {
		Compile(fmt.Sprintf("%d", i), String)
	}
	memo.Lock()
	defer memo.Unlock()
	if len(memo.results) > maxPrograms {
		t.Errorf("%d programs are remembered", len(memo.results))
	}
}

func TestTheCommonFormsDoNotAllocate(t *testing.T) {
	racetest.SkipsAllocations(t)
	ex := exchange()
	buf := make([]byte, 0, 256)
	for text, c := range map[string]struct {
		want Kind
		most float64
	}{
		`request.method != "OPTIONS"`:                   {Bool, 0},
		`source.ip`:                                     {String, 0},
		`request.headers["x-tenant"]`:                   {String, 0},
		`request.path.startsWith("/v1")`:                {Bool, 1}, // CEL boxes each string
		`source.ip.network(32, 64)`:                     {String, 5},
		`source.ip + request.headers["x-tenant"]`:       {String, 5},
		`source.ip.inCIDR("10.0.0.0/8")`:                {Bool, 2},
		`request.method in ["GET", "HEAD", "PROPFIND"]`: {Bool, 2},
	} {
		p, err := Compile(text, c.want)
		if err != nil {
			t.Fatal(err)
		}
		n := testing.AllocsPerRun(200, func() {
			if c.want == Bool {
				_, err = p.Holds(ex)
			} else {
				_, err = p.Append(buf, ex)
			}
		})
		if n > c.most || err != nil {
			t.Errorf("%s: %v allocations (%v), want at most %v", text, n, err, c.most)
		}
	}
}

func BenchmarkExpressions(b *testing.B) {
	ex := exchange()
	for _, text := range []string{`request.method != "OPTIONS"`, `request.path.startsWith("/v1")`, `request.path.matches("^/v[0-9]+/")`, `source.ip.inCIDR("10.0.0.0/8")`} {
		p, err := Compile(text, Bool)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Holds(ex)
			}
		})
	}
	for _, text := range []string{`source.ip`, `request.headers["x-tenant"]`, `source.ip + request.headers["x-tenant"]`, `source.ip.network(32, 64)`} {
		p, err := Compile(text, String)
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 0, 256)
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Append(buf, ex)
			}
		})
	}
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			compile(memoKey{text: `request.method != "OPTIONS"`})
		}
	})
}
