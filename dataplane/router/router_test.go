package router

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// request makes one of "METHOD host/path?query" and header lines "name: value".
func request(t testing.TB, line string, fields ...string) *message.Request {
	t.Helper()
	method, rest, _ := strings.Cut(line, " ")
	host, target := rest, "/"
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, target = rest[:i], rest[i:]
	}
	r := &message.Request{Method: method}
	r.Host, _ = message.ParseHost(host)
	parsed, reason, detail := message.ParseTarget(target, message.PathRules{AllowEncodedSlash: true})
	if reason != message.ReasonNone {
		t.Fatalf("%s: %s", line, detail)
	}
	r.Target = parsed
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		r.Header.Add(name, strings.TrimSpace(value))
	}
	return r
}

func prefix(v string) Path { return Path{Kind: Prefix, Value: v} }
func exact(v string) Path  { return Path{Kind: Exact, Value: v} }
func regex(v string) Path  { return Path{Kind: Regex, Value: v} }
func grpc(p Path) Path     { p.GRPC = true; return p }

// table makes one of entries for any host whose payload is what they are called.
func table(t testing.TB, entries ...Entry[string]) *Table[string] {
	t.Helper()
	tab, errs := New([]Host[string]{{Entries: entries}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return tab
}

// found is the payload that serves the request, "-" for none.
func found(tab *Table[string], r *message.Request) string {
	if e := tab.Match(r); e != nil {
		return e.Payload
	}
	return "-"
}

func TestPathsMatchAsTheGatewayAPISays(t *testing.T) {
	for _, c := range []struct {
		path    Path
		matches string // request paths
		not     string
	}{
		{prefix("/"), "/ /a /a/b", ""},
		{prefix(""), "/ /a", ""},
		{prefix("/foo"), "/foo /foo/ /foo/bar /foo/bar/", "/ /foobar /Foo /fo"},
		{prefix("/foo/"), "/foo /foo/ /foo/bar", "/foobar"},
		{prefix("/a/b"), "/a/b /a/b/c", "/a /a/bc /a/c/b"},
		{prefix("/%7euser"), "/~user /%7Euser/x", "/user"},
		{prefix("/caf%c3%a9"), "/caf%C3%A9 /caf%c3%a9/x", "/cafe"},
		{exact("/foo"), "/foo", "/foo/ /Foo /foo/bar /"},
		{exact("/foo/"), "/foo/", "/foo"},
		{exact("/"), "/", "/a"},
		{exact("/a%2fb"), "/a%2Fb /a%2fb", "/a/b"},
		{regex("/v[0-9]+/.*"), "/v1/ /v22/x", "/v/x /a/v1/x /v1"},
		{regex("/a|/b"), "/a /b", "/ab /a/b /c"},
		{regex("/foo"), "/foo", "/foo/ /foobar /x/foo"},
		{regex("(?i)/foo"), "/foo /FOO", "/fo"},
		{regex("(?m)^/a$"), "/a", "/ab"},
	} {
		tab := table(t, Entry[string]{Path: c.path, Payload: "it"})
		for _, p := range strings.Fields(c.matches) {
			if found(tab, request(t, "GET h"+p)) != "it" {
				t.Errorf("%+v does not match %s", c.path, p)
			}
		}
		for _, p := range strings.Fields(c.not) {
			if found(tab, request(t, "GET h"+p)) != "-" {
				t.Errorf("%+v matches %s", c.path, p)
			}
		}
	}
}

func TestHeadersMatchOnAllOfTheirLines(t *testing.T) {
	role := func(value string) []Value { return []Value{{Name: "X-Role", Value: value}} }
	pattern := func(value string) []Value { return []Value{{Name: "X-Role", Value: value, Regex: true}} }
	for _, c := range []struct {
		headers []Value
		fields  string // separated by "|"
		want    bool
	}{
		{role("user"), "x-role: user", true},
		{role("user"), "X-ROLE: user", true},
		{role("user"), "X-Role: User", false},
		{role("user"), "", false},
		{role("user"), "x-role: user, admin", false},
		{role("user"), "x-role: user|x-role: admin", false},
		{role("admin"), "x-role: user|x-role: admin", false},
		{role("user,admin"), "x-role: user|x-role: admin", true},
		{role("user,admin"), "x-role: user, admin", true},
		{role("user, admin"), "x-role: user,admin", true},
		{role("user, admin"), "x-role: user|x-other: x|X-Role: admin", true},
		{role("admin,user"), "x-role: user, admin", false},
		{pattern("us.r"), "x-role: user", true},
		{pattern("us"), "x-role: user", false},
		{pattern("ser"), "x-role: user", false},
		{pattern("user|x"), "x-role: userx", false},
		{pattern("[^,]*"), "x-role: user|x-role: admin", false},
		{pattern("user,admin"), "x-role: user,  admin", true},
		{pattern("user, admin"), "x-role: user|x-role: admin", true},
		{pattern("user, ?admin"), "x-role: user,admin", true},
		{pattern(".*like Gecko.*"), "x-role: (KHTML, like Gecko)", true},
		{pattern("a.b"), "x-role: a\xe9b", true},
		{append(role("user"), Value{Name: "x-role", Value: "other"}), "x-role: user", true}, // the first of a name counts
		{append(role("user"), Value{Name: "X-B", Value: "1"}), "x-role: user", false},
		{append(role("user"), Value{Name: "X-B", Value: "1"}), "x-role: user|x-b: 1", true},
	} {
		tab := table(t, Entry[string]{Headers: c.headers, Payload: "it"})
		var fields []string
		if c.fields != "" {
			fields = strings.Split(c.fields, "|")
		}
		if got := found(tab, request(t, "GET h/", fields...)) == "it"; got != c.want {
			t.Errorf("%+v on %q: %v", c.headers, c.fields, got)
		}
	}
}

func TestEverySpellingOfAHeaderHasOneVerdict(t *testing.T) {
	spellings := [][]string{
		{"x-role: user", "x-role: admin"},
		{"X-Role: user", "x-ROLE: admin"},
		{"x-role: user,admin"},
		{"x-role: user, admin"},
		{"x-role: user ,\tadmin"},
	}
	for _, v := range []Value{
		{"x-role", "user", false}, {"x-role", "admin", false}, {"x-role", "user,admin", false}, {"x-role", "user, admin", false},
		{"x-role", "user", true}, {"x-role", "user,admin", true}, {"x-role", "user, admin", true}, {"x-role", "user.*", true},
		{"x-role", ".*admin", true}, {"x-role", `user,\s+admin`, true}, {"x-role", "[a-z]+", true},
	} {
		tab := table(t, Entry[string]{Headers: []Value{v}, Payload: "it"})
		first := found(tab, request(t, "GET h/", spellings[0]...))
		for _, s := range spellings[1:] {
			if got := found(tab, request(t, "GET h/", s...)); got != first {
				t.Errorf("%+v: %q says %s, and %q says %s", v, spellings[0], first, s, got)
			}
		}
	}
}

func TestTheFirstQueryParameterCountsDecoded(t *testing.T) {
	is := func(name, value string) []Value { return []Value{{Name: name, Value: value}} }
	like := func(name, value string) []Value { return []Value{{Name: name, Value: value, Regex: true}} }
	for _, c := range []struct {
		queries []Value
		query   string
		want    bool
	}{
		{is("a", "1"), "a=1", true},
		{is("a", "1"), "b=2&a=1", true},
		{is("a", "1"), "a=1&a=2", true},
		{is("a", "2"), "a=1&a=2", false},
		{is("a", "1"), "A=1", false},
		{is("a", "x"), "a=X", false},
		{is("a", "1"), "aa=1", false},
		{is("a", "1"), "a=12", false},
		{is("a", "12"), "a=1", false},
		{is("a", ""), "a", true},
		{is("a", ""), "a=", true},
		{is("a", ""), "b", false},
		{is("a", "b=c"), "a=b=c", true},
		{is("a", "x y"), "a=x+y", true},
		{is("a", "x y"), "a=x%20y", true},
		{is("a", "x+y"), "a=x%2by", true},
		{is("a", "x+y"), "a=x+y", false},
		{is("a b", "1"), "a+b=1", true},
		{is("a", "1"), "%61=%31", true},
		{is("a", "&"), "a=%26", true},
		{is("a", "1"), "%zz=1&a=1", true},
		{is("a", "%zz"), "a=%zz", false},
		{is("a", "1"), "a=%3", false},
		{is("a", "1"), "a=%zz&a=1", false}, // the first one counts, and it is malformed
		{is("a", "1"), "&&a=1&", true},
		{is("b", "2"), "a=1;b=2", false},
		{is("a", "1;b=2"), "a=1;b=2", true},
		{is("a", "1"), "", false},
		{like("a", "[0-9]+"), "a=42", true},
		{like("a", "[0-9]+"), "a=%34%32", true},
		{like("a", "[0-9]+"), "a=42x", false},
		{like("a", ".*"), "a=%zz", false},
		{like("a", ".*"), "b=1", false},
		{append(is("a", "1"), is("b", "2")...), "a=1&b=2", true},
		{append(is("a", "1"), is("b", "2")...), "a=1", false},
		{append(is("a", "1"), is("a", "2")...), "a=1", true}, // the first of a name counts
	} {
		tab := table(t, Entry[string]{Queries: c.queries, Payload: "it"})
		if got := found(tab, request(t, "GET h/?"+c.query)) == "it"; got != c.want {
			t.Errorf("%+v on %q: %v", c.queries, c.query, got)
		}
	}
}

func TestTheOrderOfEntries(t *testing.T) {
	h := func(n int) (out []Value) {
		for i := range n {
			out = append(out, Value{Name: fmt.Sprint("x-", i), Value: "1"})
		}
		return out
	}
	q := func(n int) (out []Value) {
		for i := range n {
			out = append(out, Value{Name: fmt.Sprint("q", i), Value: "1"})
		}
		return out
	}
	// Each list is from the first to the last in the order; all match the request. Any two of them in any position must be decided so.
	for name, entries := range map[string][]Entry[string]{
		"HTTP": {
			{Path: exact("/a/b/c"), Method: "GET", Headers: h(1)},
			{Path: exact("/a/b/c"), Headers: h(3), Queries: q(3)},
			{Path: exact("/a/b/c")},
			{Path: regex("/.*"), Method: "GET"},
			{Path: regex("/a/.*"), Headers: h(2)},
			{Path: regex("/a/.+"), Queries: q(1)},
			{Path: prefix("/a/b/c"), Method: "GET"},
			{Path: prefix("/a/b/c/"), Headers: h(1)},
			{Path: prefix("/a/b"), Method: "GET", Headers: h(2)},
			{Path: prefix("/a/b"), Method: "GET", Headers: h(1), Queries: q(2)},
			{Path: prefix("/a/b"), Headers: h(3)},
			{Path: prefix("/a"), Queries: q(2)},
			{Path: prefix("/a"), Queries: q(1)},
			{Path: prefix("/"), Method: "GET"},
			{Path: prefix("/"), Headers: h(1)},
			{Path: prefix("")},
		},
		"GRPC": {
			{Path: grpc(exact("/a/b/c")), Headers: h(1)},
			{Path: grpc(exact("/a/b/c"))},
			{Path: grpc(regex("/(?:a/b)/[^/]+")), Headers: h(1)},
			{Path: grpc(prefix("/a/"))},
			{Path: grpc(regex("/[^/]+/(?:b/c|xx)"))},
			{Path: grpc(regex("/[^/]+/b/c")), Headers: h(3)},
			{Path: grpc(prefix("")), Headers: h(1)},
			{Path: grpc(prefix("/"))},
		},
		"both": {
			{Path: exact("/a/b/c"), Method: "GET"},
			{Path: grpc(exact("/a/b/c")), Headers: h(1)},
			{Path: regex("/a.*")},
			{Path: prefix("/a/b")},
			{Path: grpc(prefix("/a/")), Headers: h(1)},
			{Path: prefix("/a")},
			{Path: grpc(regex("/[^/]+/b/c"))},
			{Path: prefix("/"), Headers: h(2)},
			{Path: grpc(prefix("/")), Headers: h(1)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, "GET h/a/b/c?q0=1&q1=1&q2=1", "x-0: 1", "x-1: 1", "x-2: 1", "content-type: application/grpc")
			for i := range entries {
				entries[i].Payload = fmt.Sprint(i)
				if found(table(t, entries[i]), r) == "-" {
					t.Fatalf("%+v does not match", entries[i])
				}
			}
			for i := range entries {
				for j := i + 1; j < len(entries); j++ {
					want := entries[i].Payload
					for _, both := range [][]Entry[string]{{entries[i], entries[j]}, {entries[j], entries[i]}} {
						if got := found(table(t, both...), r); got != want {
							t.Errorf("%+v must come before %+v", entries[i], entries[j])
						}
					}
				}
			}
		})
	}
}

func TestOfEqualsTheFirstServes(t *testing.T) {
	for _, p := range []Path{prefix("/a"), exact("/a"), regex("/a"), grpc(regex("/[^/]+/a"))} {
		path := "/a"
		if p.GRPC {
			path = "/s/a"
		}
		tab := table(t, Entry[string]{Path: p, Payload: "old"}, Entry[string]{Path: p, Payload: "new"})
		if got := found(tab, request(t, "GET h"+path, "content-type: application/grpc")); got != "old" {
			t.Errorf("%+v: %s", p, got)
		}
	}
}

func TestOnlyGRPCMatchesAGRPCEntry(t *testing.T) {
	tab := table(t, Entry[string]{Path: grpc(prefix("")), Payload: "grpc"}, Entry[string]{Path: prefix("/"), Payload: "http"})
	for contentType, want := range map[string]string{
		"application/grpc": "grpc", "application/grpc+proto": "grpc", "application/grpc-web": "http", "application/json": "http", "": "http",
	} {
		r := request(t, "POST h/s/m", "content-type: "+contentType)
		if got := found(tab, r); got != want {
			t.Errorf("%q: %s, want %s", contentType, got, want)
		}
	}
}

func TestWhatDoesNotMatchFallsThroughToTheNextInTheOrder(t *testing.T) {
	tab := table(t,
		Entry[string]{Path: exact("/a/b"), Method: "POST", Payload: "exact"},
		Entry[string]{Path: prefix("/a/b"), Headers: []Value{{Name: "x", Value: "1"}}, Payload: "long"},
		Entry[string]{Path: prefix("/a"), Queries: []Value{{Name: "q", Value: "1"}}, Payload: "short"},
		Entry[string]{Path: prefix("/"), Payload: "all"},
	)
	for line, want := range map[string]string{
		"POST h/a/b":    "exact",
		"GET h/a/b":     "all",
		"GET h/a/b?q=1": "short",
		"GET h/":        "all",
	} {
		if got := found(tab, request(t, line)); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
	if got := found(tab, request(t, "GET h/a/b?q=1", "x: 1")); got != "long" {
		t.Errorf("with header: %s", got)
	}
}

func TestHostsAreAskedFromTheMostSpecificDown(t *testing.T) {
	host := func(name string, paths ...string) Host[string] {
		h := Host[string]{Name: name}
		for _, p := range paths {
			h.Entries = append(h.Entries, Entry[string]{Path: prefix(p), Payload: name + p})
		}
		return h
	}
	tab, errs := New([]Host[string]{
		host("", "/any", "/x"), host("*.com", "/com"), host("*.Example.com", "/wild", "/x"), host("*.a.example.com", "/deep"),
		host("a.example.com", "/own"), host("www.a.example.com.", "/www", "/x/y"),
	})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for line, want := range map[string]string{
		"a.example.com/own":              "a.example.com/own",
		"A.EXAMPLE.com.:8080/own":        "a.example.com/own",
		"a.example.com/wild":             "*.Example.com/wild",
		"a.example.com/com":              "*.com/com",
		"a.example.com/any":              "/any",
		"a.example.com/deep":             "-",
		"a.example.com/none":             "-",
		"www.a.example.com/deep":         "*.a.example.com/deep",
		"www.a.example.com/x/y":          "www.a.example.com./x/y",
		"www.a.example.com/x":            "*.Example.com/x",
		"b.c.example.com/wild":           "*.Example.com/wild",
		"example.com/wild":               "-",
		"example.com/com":                "*.com/com",
		"com/com":                        "-",
		"com/x":                          "/x",
		"notexample.com/wild":            "-",
		"[::1]:80/any":                   "/any",
		"www.a.example.com.evil.org/own": "-",
	} {
		if got := found(tab, request(t, "GET "+line)); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func TestAHostThatStandsTwiceIsOne(t *testing.T) {
	tab, _ := New([]Host[string]{
		{Name: "h.org", Entries: []Entry[string]{{Path: prefix("/a"), Payload: "first"}}},
		{Name: "H.org", Entries: []Entry[string]{{Path: prefix("/a"), Payload: "second"}, {Path: prefix("/b"), Payload: "third"}}},
	})
	if a, b := found(tab, request(t, "GET h.org/a")), found(tab, request(t, "GET h.org/b")); a != "first" || b != "third" {
		t.Errorf("found %s and %s", a, b)
	}
}

func TestAnEntryThatCannotMatchIsNamedAndTheOthersServe(t *testing.T) {
	good := Entry[string]{Path: prefix("/"), Payload: "good"}
	for _, c := range []struct {
		bad  Entry[string]
		says string
	}{
		{Entry[string]{Path: regex("/(")}, `host "h.org": path "/(": error parsing regexp`},
		{Entry[string]{Path: regex("/a)|(?:/")}, "error parsing regexp"},
		{Entry[string]{Headers: []Value{{"X-A", "[", true}}}, "header X-A: error parsing regexp"},
		{Entry[string]{Headers: []Value{{"X-A", "a)|(?:b", true}}}, "header X-A: error parsing regexp"},
		{Entry[string]{Queries: []Value{{"q", "*", true}}}, "query q: error parsing regexp"},
		{Entry[string]{Path: exact("")}, "no request has it"},
		{Entry[string]{Path: exact("a")}, "no request has it"},
		{Entry[string]{Path: exact("/a?b")}, "no request has it"},
		{Entry[string]{Path: prefix("/a b")}, "no request has it"},
		{Entry[string]{Path: prefix("*")}, "no request has it"},
	} {
		c.bad.Payload = "bad"
		tab, errs := New([]Host[string]{{Name: "h.org", Entries: []Entry[string]{c.bad, good}}})
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), c.says) {
			t.Errorf("%+v: reported as %v, want %q", c.bad, errs, c.says)
		}
		if got := found(tab, request(t, "GET h.org/a?q=*", "x-a: b")); got != "good" {
			t.Errorf("%+v: found %s", c.bad, got)
		}
	}
}

func TestTheMatchedPrefixHasNoTrailingSlash(t *testing.T) {
	for value, want := range map[string]string{"/": "", "": "", "/a/": "/a", "/a/b": "/a/b", "/%7ea/": "/~a"} {
		tab := table(t, Entry[string]{Path: prefix(value)})
		e := tab.Match(request(t, "GET h"+"/"+strings.TrimPrefix(want, "/")))
		if e == nil || e.Path.Value != want {
			t.Errorf("%q: %+v, want %q", value, e, want)
		}
	}
}

func TestAPreflightFindsTheRequestThatWillFollow(t *testing.T) {
	tab := table(t, Entry[string]{Method: "PUT", Payload: "put"}, Entry[string]{Method: "GET", Payload: "get"})
	r := request(t, "OPTIONS h/")
	if e := tab.Match(r); e != nil {
		t.Errorf("OPTIONS found %s", e.Payload)
	}
	if e := tab.MatchMethod(r, "PUT"); e == nil || e.Payload != "put" {
		t.Errorf("PUT found %v", e)
	}
}

func TestOptionsStarMatchesNothing(t *testing.T) {
	tab := table(t, Entry[string]{Path: prefix("/")}, Entry[string]{Path: regex(".*")})
	r := &message.Request{Method: "OPTIONS", Target: message.Target{Raw: "*", Path: "*"}}
	if e := tab.Match(r); e != nil {
		t.Errorf("found %+v", e)
	}
}

func TestAnEmptyTableFindsNothing(t *testing.T) {
	if got := found(table(t), request(t, "GET h/")); got != "-" {
		t.Errorf("found %s", got)
	}
}

func TestNamesFindTheMostSpecific(t *testing.T) {
	n := NewNames(map[string]int{"": 1, "*.org": 2, "*.example.ORG": 3, "www.example.org": 4, "::1": 5})
	for name, want := range map[string][]int{
		"www.example.org": {4, 3, 2, 1},
		"a.b.example.org": {3, 2, 1},
		"example.org":     {2, 1},
		"org":             {1},
		"":                {1},
		"::1":             {5, 1},
		"evilexample.org": {2, 1},
	} {
		var got []int
		for v := range n.All(name) {
			got = append(got, v)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
		if v, ok := n.Match(name); !ok || v != want[0] {
			t.Errorf("%q: %v %v, want %v", name, v, ok, want[0])
		}
	}
	if v, ok := NewNames(map[string]int{"a.org": 1}).Match("b.org"); ok {
		t.Errorf("found %v", v)
	}
}
