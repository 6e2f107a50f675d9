package method

import (
	"slices"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func request(target string, fields ...message.Field) *message.Request {
	r := &message.Request{Method: "GET", Header: message.NewHeader(fields...)}
	r.Target, _, _ = message.ParseTarget(target, message.PathRules{})
	return r
}

func cookie(v string) message.Field { return message.Field{Name: "Cookie", Value: v} }

func bearer(name, v string) message.Field { return message.Field{Name: name, Value: v} }

var places = Places{{Header: "Authorization", Prefix: "Bearer "}, {Header: "X-Key"}, {Query: "my key"}, {Cookie: "key"}}

func TestACredentialIsFoundWhereItStands(t *testing.T) {
	for _, c := range []struct {
		sentence string
		r        *message.Request
		value    string
		n        int
	}{
		{"nowhere", request("/"), "", 0},
		{"after a prefix", request("/", bearer("authorization", "Bearer a b")), "a b", 1},
		{"after a prefix in another case", request("/", bearer("Authorization", "bEARER a")), "a", 1},
		{"after several spaces", request("/", bearer("Authorization", "Bearer   a")), "a", 1},
		{"after another scheme", request("/", bearer("Authorization", "Basic a")), "", 0},
		{"after no space", request("/", bearer("Authorization", "Bearera")), "", 0},
		{"a scheme alone", request("/", bearer("Authorization", "Bearer")), "", 0},
		{"an empty header", request("/", bearer("X-Key", "")), "", 1},
		{"another spelling is another header", request("/", bearer("X_Key", "a")), "", 0},
		{"in the query", request("/?a=1&my+key=x%20y&b"), "x y", 1},
		{"in the query, the name escaped", request("/?%6dy%20key=x"), "x", 1},
		{"in the query, with another case", request("/?My+key=x"), "", 0},
		{"in the query, without a value", request("/?my+key"), "", 1},
		{"in the query, malformed", request("/?my+key=%zz"), "", 1},
		{"in the query, a malformed name", request("/?my%2key=a"), "", 0},
		{"in a cookie", request("/", cookie("a=1; key=x=y; b")), "x=y", 1},
		{"in a cookie, with another case", request("/", cookie("Key=x")), "", 0},
		{"in a cookie whose name ends so", request("/", cookie("my-key=x")), "", 0},

		{"two headers", request("/", bearer("X-Key", "a"), bearer("x-key", "a")), "a", 2},
		{"a header with, and one without a credential", request("/", bearer("Authorization", "Basic x"), bearer("Authorization", "Bearer a")), "a", 2},
		{"two without", request("/", bearer("Authorization", "Basic x"), bearer("Authorization", "Basic x")), "", 0},
		{"two parameters", request("/?my+key=a&my%20key=b"), "a", 2},
		{"two crumbs", request("/", cookie("key=a; key=b")), "a", 2},
		{"two cookie fields", request("/", cookie("key=a"), cookie("key=b")), "a", 2},
		{"two places", request("/?my+key=a", cookie("key=b")), "a", 2},
	} {
		if value, n := places.Find(c.r); value != c.value || n != c.n {
			t.Errorf("%s: %q %d, want %q %d", c.sentence, value, n, c.value, c.n)
		}
	}
}

func TestStrippingLeavesEverythingElseByteForByte(t *testing.T) {
	for _, c := range []struct {
		sentence string
		r        *message.Request
		target   string
		lines    []string
	}{
		{"nothing to strip", request("/a?x=%7e&&", cookie("a=1;b=2"), bearer("Authorization", "Basic x")), "/a?x=%7e&&", []string{"Cookie: a=1;b=2", "Authorization: Basic x"}},
		{"headers, in every spelling", request("/", bearer("AUTHORIZATION", "bearer a"), bearer("X_key", "a"), bearer("x-Key", "b"), bearer("X-Keys", "c")), "/", []string{"X-Keys: c"}},
		{"of one name only what has the prefix", request("/", bearer("Authorization", "Basic x"), bearer("Authorization", "Bearer a")), "/", []string{"Authorization: Basic x"}},
		{"a parameter, all of them", request("/a?x=%7e&my+key=1&&y=+&%6dy%20key=2"), "/a?x=%7e&&y=+", nil},
		{"the only parameter", request("/a?my+key=1"), "/a", nil},
		{"an empty query stays", request("/a?"), "/a?", nil},
		{"a crumb", request("/", cookie("a=1;  key=x ; b=\"q\";key=y")), "/", []string{`Cookie: a=1; b="q"`}},
		{"the only crumb", request("/", cookie("key=x"), cookie("b=1")), "/", []string{"Cookie: b=1"}},
	} {
		places.Strip(c.r)
		var lines []string
		for name, value := range c.r.Header.All() {
			lines = append(lines, name+": "+value)
		}
		if got := c.r.Target.String(); got != c.target || !slices.Equal(lines, c.lines) {
			t.Errorf("%s: %s %q, want %s %q", c.sentence, got, lines, c.target, c.lines)
		}
		if _, n := places.Find(c.r); n != 0 {
			t.Errorf("%s: %d are still there", c.sentence, n)
		}
	}
}

// FuzzNothingIsLeftAndNothingElseIsLost strips whatever a client sends.
func FuzzNothingIsLeftAndNothingElseIsLost(f *testing.F) {
	f.Add("a=1&my+key=2", "key=1; b=2")
	f.Add("my%20key&&&=", ";;key;=;  key=")
	f.Fuzz(func(t *testing.T, query, cookies string) {
		r := &message.Request{Header: message.NewHeader(cookie(cookies))}
		r.Target.Query, r.Target.HasQuery = query, true
		_, before := places.Find(r)
		places.Strip(r)
		if _, n := places.Find(r); n != 0 {
			t.Fatalf("%q and %q are left", r.Target.Query, r.Header.Get("Cookie"))
		}
		if before == 0 && (r.Target.Query != query || r.Header.Get("Cookie") != cookies) {
			t.Fatalf("%q became %q, %q became %q", query, r.Target.Query, cookies, r.Header.Get("Cookie"))
		}
	})
}
