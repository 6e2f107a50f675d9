package cors

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func faces(t *testing.T, c Config) filter.Faces {
	t.Helper()
	f, err := c.Build(filter.Env{})
	if err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	return f
}

// exchange is a request with "name: value" lines.
func exchange(method string, fields ...string) *message.Exchange {
	ex := &message.Exchange{Request: message.Request{Method: method}}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		ex.Request.Header.Add(name, value)
	}
	return ex
}

// corsLines is what an answer says of CORS, and Vary.
func corsLines(h *message.Header) string {
	var out []string
	for name, value := range h.All() {
		name = strings.ToLower(name)
		if name == "vary" || strings.HasPrefix(name, "access-control-") {
			out = append(out, strings.TrimPrefix(name, "access-control-")+": "+value)
		}
	}
	return strings.Join(out, "|")
}

// The routes of the conformance test HTTPRouteCORS.
var (
	cors1 = Config{
		AllowOrigins: []string{"https://www.foo.com", "https://*.bar.com"}, AllowMethods: []string{"GET", "OPTIONS"},
		AllowHeaders: []string{"x-header-1", "x-header-2"}, ExposeHeaders: []string{"x-header-3", "x-header-4"}, AllowCredentials: true, MaxAge: 3600,
	}
	cors2      = Config{AllowOrigins: []string{"https://www.foo.com"}, AllowMethods: []string{"*"}}
	wildOrigin = Config{AllowOrigins: []string{"*"}, AllowMethods: []string{"PUT"}}
	all        = Config{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, AllowCredentials: true}
	allUnauth  = Config{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}}
)

func TestPreflightsAreAnswered(t *testing.T) {
	const ofCORS1 = "|allow-credentials: true|expose-headers: x-header-3, x-header-4|vary: Origin|allow-methods: GET, OPTIONS|allow-headers: x-header-1, x-header-2|max-age: 3600"
	for _, c := range []struct {
		name   string
		config Config
		fields string
		status int
		want   string
	}{
		{"exact origin", cors1, "Origin: https://www.foo.com|access-control-request-method: GET|access-control-request-headers: x-header-1, x-header-2", 200, "allow-origin: https://www.foo.com" + ofCORS1},
		{"wildcard origin", cors1, "Origin: https://www.bar.com|access-control-request-method: GET", 200, "allow-origin: https://www.bar.com" + ofCORS1},
		{"wildcard over two labels", cors1, "Origin: https://xpto.www.bar.com|access-control-request-method: GET", 200, "allow-origin: https://xpto.www.bar.com" + ofCORS1},
		{"method that is not allowed", cors1, "Origin: https://www.foo.com|access-control-request-method: DELETE", 200, "allow-origin: https://www.foo.com" + ofCORS1},
		{"origin that does not match", cors1, "Origin: https://foobar.com|access-control-request-method: GET", 403, "vary: Origin"},
		{"all methods", cors2, "Origin: https://www.foo.com|access-control-request-method: POST", 200, "allow-origin: https://www.foo.com|vary: Origin|allow-methods: POST|max-age: 5"},
		{"any origin", wildOrigin, "Origin: https://foobar.com|access-control-request-method: PUT", 200, "allow-origin: https://foobar.com|vary: Origin|allow-methods: PUT|max-age: 5"},
		{"any origin with a port", wildOrigin, "Origin: https://foobar.com:12345|access-control-request-method: PUT", 200, "allow-origin: https://foobar.com:12345|vary: Origin|allow-methods: PUT|max-age: 5"},
		{"all of all with credentials", all, "Origin: https://other.foo.com|access-control-request-method: PUT|access-control-request-headers: x-header-1, x-header-2", 200,
			"allow-origin: https://other.foo.com|allow-credentials: true|vary: Origin|allow-methods: PUT|allow-headers: x-header-1, x-header-2|max-age: 5"},
		{"all of all without credentials", allUnauth, "Origin: https://other.foo.com|access-control-request-method: PUT|access-control-request-headers: x-header-1, x-header-2", 200,
			"allow-origin: https://other.foo.com|vary: Origin|allow-methods: PUT|allow-headers: x-header-1, x-header-2|max-age: 5"},
		{"no headers asked for", all, "Origin: https://other.foo.com|access-control-request-method: PUT", 200, "allow-origin: https://other.foo.com|allow-credentials: true|vary: Origin|allow-methods: PUT|max-age: 5"},
		{"garbage is not echoed", all, "Origin: https://other.foo.com|access-control-request-method: P UT|access-control-request-headers: x-a, b c", 200, "allow-origin: https://other.foo.com|allow-credentials: true|vary: Origin|max-age: 5"},
		{"two origins", cors1, "Origin: https://www.foo.com|Origin: https://www.bar.com|access-control-request-method: GET", 403, "vary: Origin"},
		{"no origin is allowed", Config{}, "Origin: https://www.foo.com|access-control-request-method: GET", 403, "vary: Origin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ex := exchange("OPTIONS", strings.Split(c.fields, "|")...)
			if v := faces(t, c.config).Request(ex); !v.Answered() {
				t.Fatalf("%+v", v)
			}
			if got := corsLines(&ex.Response.Header); ex.Response.Status != c.status || got != c.want {
				t.Errorf("%d %s\nwant %d %s", ex.Response.Status, got, c.status, c.want)
			}
			if ex.Response.Origin != message.OriginFilter {
				t.Errorf("made by %v", ex.Response.Origin)
			}
			if c.status == 200 && ex.Response.Body != nil {
				t.Error("a body")
			}
		})
	}
}

func TestWhatIsNoPreflightGoesOn(t *testing.T) {
	for _, ex := range []*message.Exchange{
		exchange("GET", "Origin: https://www.foo.com", "Access-Control-Request-Method: GET"),
		exchange("OPTIONS", "Origin: https://www.foo.com"),
		exchange("OPTIONS", "Access-Control-Request-Method: GET"),
		exchange("OPTIONS", "Origin: https://www.foo.com", "Access-Control-Request-Method: "),
		exchange("OPTIONS"),
		exchange("GET"),
	} {
		if v := faces(t, cors1).Request(ex); v != filter.Continue || ex.Response != nil {
			t.Errorf("%s %v: %+v", ex.Request.Method, ex.Request.Header, v)
		}
	}
}

func TestOtherAnswersSayWhoMayReadThem(t *testing.T) {
	const exposed = "|allow-credentials: true|expose-headers: x-header-3, x-header-4|vary: Origin"
	for _, c := range []struct {
		name   string
		config Config
		fields string
		want   string
	}{
		{"exact origin", cors1, "Origin: https://www.foo.com", "allow-origin: https://www.foo.com" + exposed},
		{"wildcard origin", cors1, "Origin: https://www.bar.com", "allow-origin: https://www.bar.com" + exposed},
		{"origin that does not match", cors1, "Origin: https://foobar.com", "vary: Origin"},
		{"no origin", cors1, "X: y", "vary: Origin"},
		{"two origins", cors1, "Origin: https://www.foo.com|Origin: https://www.foo.com", "vary: Origin"},
		{"any origin with a port", wildOrigin, "Origin: https://foobar.com:12345", "allow-origin: https://foobar.com:12345|vary: Origin"},
		{"all with credentials", all, "Origin: https://other.foo.com|Authorization: Bearer test", "allow-origin: https://other.foo.com|allow-credentials: true|vary: Origin"},
		{"all without credentials", allUnauth, "Origin: https://other.foo.com|Authorization: Bearer test", "allow-origin: https://other.foo.com|vary: Origin"},
		{"all exposed", Config{AllowOrigins: []string{"*"}, ExposeHeaders: []string{"*"}}, "Origin: https://a.org", "allow-origin: https://a.org|expose-headers: *|vary: Origin"},
		{"all exposed with credentials", Config{AllowOrigins: []string{"*"}, ExposeHeaders: []string{"*"}, AllowCredentials: true}, "Origin: https://a.org", "allow-origin: https://a.org|allow-credentials: true|vary: Origin"},
		{"opaque origin", allUnauth, "Origin: null", "allow-origin: null|vary: Origin"},
		{"opaque origin with credentials", all, "Origin: null", "vary: Origin"},
		{"opaque origin that is not allowed", cors2, "Origin: null", "vary: Origin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ex := exchange("GET", strings.Split(c.fields, "|")...)
			ex.Response = &message.Response{Status: 200}
			if v := faces(t, c.config).Response(ex); v != filter.Continue {
				t.Fatalf("%+v", v)
			}
			if got := corsLines(&ex.Response.Header); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

func TestWhatTheBackendSaysOfCORSIsTakenAway(t *testing.T) {
	for origin, want := range map[string]string{
		"https://www.foo.com": "x: y|vary: Accept-Encoding|access-control-allow-origin: https://www.foo.com|vary: Origin",
		"https://evil.com":    "x: y|vary: Accept-Encoding|vary: Origin",
	} {
		ex := exchange("GET", "Origin: "+origin)
		ex.Response = &message.Response{Header: message.NewHeader(
			message.Field{Name: "access-control-allow-origin", Value: "*"}, message.Field{Name: "X", Value: "y"},
			message.Field{Name: "Access-Control-Allow-Origin", Value: "https://evil.com"}, message.Field{Name: "ACCESS-CONTROL-ALLOW-CREDENTIALS", Value: "true"},
			message.Field{Name: "Vary", Value: "Accept-Encoding"}, message.Field{Name: "Access-Control-Expose-Headers", Value: "secret"},
		)}
		faces(t, cors2).Response(ex)
		var got []string
		for name, value := range ex.Response.Header.All() {
			got = append(got, strings.ToLower(name)+": "+value)
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%s: %s, want %s", origin, strings.Join(got, "|"), want)
		}
	}
}

func TestVaryIsNotSaidTwice(t *testing.T) {
	for _, before := range []string{"Origin", "accept, origin", "*"} {
		ex := exchange("GET", "Origin: https://www.foo.com")
		ex.Response = &message.Response{Header: message.NewHeader(message.Field{Name: "Vary", Value: before})}
		faces(t, cors2).Response(ex)
		if got := ex.Response.Header.Values("Vary"); len(got) != 1 || got[0] != before {
			t.Errorf("%q became %q", before, got)
		}
	}
}

func TestOriginsMatchBySchemeHostAndPort(t *testing.T) {
	for _, c := range []struct{ pattern, yes, no string }{
		{"https://foo.com", "https://foo.com https://FOO.com https://foo.com:443", "http://foo.com https://foo.com:8443 https://www.foo.com https://foo.com.evil.org https://foo.com@evil.org"},
		{"http://foo.com", "http://foo.com http://foo.com:80", "https://foo.com http://foo.com:443"},
		{"https://Foo.com:8443", "https://foo.com:8443", "https://foo.com"},
		{"https://*.bar.com", "https://a.bar.com https://a.b.c.bar.com https://a.bar.com:443", "https://bar.com https://evilbar.com https://.bar.com http://a.bar.com https://a.bar.com:1 https://a.bar.com.evil.org https://evil.org/.bar.com https://evil.org#.bar.com"},
		{"https://*.bar.com:8443", "https://a.bar.com:8443", "https://a.bar.com"},
		{"https://*", "https://a https://a.b.org https://1.2.3.4", "http://a https://a:8443"},
		{"https://*:8443", "https://a:8443", "https://a"},
		{"*", "https://a http://b:123 https://[::1]:3000 moz-extension://abc", "https://a/b https://a, https://a: a.org https:// 1x://a"},
		{"http://localhost:3000", "http://localhost:3000", "http://localhost"},
	} {
		p, ok := parsePattern(c.pattern)
		if !ok {
			t.Errorf("%s is refused", c.pattern)
			continue
		}
		match := func(s string) bool {
			o, ok := parseOrigin(s)
			return ok && p.matches(o)
		}
		for _, s := range strings.Fields(c.yes) {
			if !match(s) {
				t.Errorf("%s does not allow %s", c.pattern, s)
			}
		}
		for _, s := range strings.Fields(c.no) {
			if match(s) {
				t.Errorf("%s allows %s", c.pattern, s)
			}
		}
	}
}

func TestWhatCannotBeIsNamed(t *testing.T) {
	for _, c := range []struct {
		config Config
		says   string
	}{
		{Config{AllowOrigins: []string{"foo.com"}}, "no origin"},
		{Config{AllowOrigins: []string{"ftp://foo.com"}}, "no origin"},
		{Config{AllowOrigins: []string{"https://foo.com/path"}}, "no origin"},
		{Config{AllowOrigins: []string{"https://*:0"}}, "no origin"},
		{Config{AllowOrigins: []string{"https://a.*.com"}}, "no origin"},
		{Config{AllowOrigins: []string{""}}, "no origin"},
		{Config{AllowMethods: []string{"GET, PUT"}}, "neither a method"},
		{Config{ExposeHeaders: []string{"a\r\nb"}}, "nor a header name"},
		{Config{MaxAge: -1}, "negative"},
	} {
		if err := c.config.Check(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.config, err, c.says)
		}
		if _, err := c.config.Build(filter.Env{}); err == nil {
			t.Errorf("%s was built", c.config)
		}
	}
}

func TestTheText(t *testing.T) {
	for want, c := range map[string]Config{
		"cors(https://www.foo.com https://*.bar.com credentials methods=GET,OPTIONS headers=x-header-1,x-header-2 expose=x-header-3,x-header-4 maxage=3600)": cors1,
		"cors(* methods=PUT maxage=5)": wildOrigin,
	} {
		if got := c.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// FuzzWhatIsEchoedIsAnOrigin: no request gets an Access-Control-Allow-Origin that is not one origin, and none under a wildcard that is not
// below it.
func FuzzWhatIsEchoedIsAnOrigin(f *testing.F) {
	f.Add("https://a.bar.com")
	f.Add("https://a.bar.com:443")
	f.Add("https://evil.org\\.bar.com")
	f.Fuzz(func(t *testing.T, value string) {
		ex := exchange("GET")
		ex.Request.Header.Set("Origin", value)
		ex.Response = &message.Response{}
		faces(t, Config{AllowOrigins: []string{"https://*.bar.com"}}).Response(ex)
		got, ok := ex.Response.Header.Only("Access-Control-Allow-Origin")
		if !ok {
			return
		}
		host := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(got), "https://"), ":443"), ".")
		if got != value || !strings.HasSuffix(host, ".bar.com") || strings.ContainsAny(host, "/\\@#?:, ") {
			t.Errorf("%q was echoed", got)
		}
	})
}
