package redirect

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// exchange is a request for that URL on a listener of that port.
func exchange(t *testing.T, url string, listener uint16, prefix string) *message.Exchange {
	t.Helper()
	scheme, rest, _ := strings.Cut(url, "://")
	i := strings.IndexByte(rest, '/')
	host, ok := message.ParseHost(rest[:i])
	if !ok {
		t.Fatalf("%s: bad host", url)
	}
	target, reason, detail := message.ParseTarget(rest[i:], message.PathRules{KeepDoubleSlash: true})
	if reason != message.ReasonNone {
		t.Fatalf("%s: %s", url, detail)
	}
	conn := &message.Conn{}
	if scheme == "https" {
		conn.TLS = &message.TLSState{}
	}
	return &message.Exchange{
		Request: message.Request{Method: "GET", Scheme: scheme, Host: host, Target: target},
		Conn:    conn, ListenerPort: listener, MatchedPrefix: prefix,
	}
}

func run(t *testing.T, c Config, ex *message.Exchange) filter.Verdict {
	t.Helper()
	f, err := c.Build(filter.Env{})
	if err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	return f.Request(ex)
}

func TestTheLocationIsAsTheGatewayAPIDerivesIt(t *testing.T) {
	for _, c := range []struct {
		config   Config
		url      string
		listener uint16
		prefix   string
		want     string
	}{
		// Hosts and schemes.
		{Config{Hostname: "example.org"}, "http://old.org/a", 80, "", "http://example.org/a"},
		{Config{Hostname: "example.org"}, "http://old.org:80/a?b=%zz&c", 80, "", "http://example.org/a?b=%zz&c"},
		{Config{Hostname: "example.org"}, "http://old.org/a?", 80, "", "http://example.org/a?"},
		{Config{Scheme: "https"}, "http://example.org/", 80, "", "https://example.org/"},
		{Config{Scheme: "https"}, "http://Example.ORG.:8080/", 8080, "", "https://example.org/"},
		{Config{Scheme: "https"}, "http://[::1]:8080/a", 8080, "", "https://[::1]/a"},

		// Ports: HTTPRouteRedirectPortAndScheme on listeners at 80, 8080 and 443.
		{Config{}, "http://example.org/p", 80, "", "http://example.org/p"},
		{Config{Port: 80}, "http://example.org/p", 80, "", "http://example.org/p"},
		{Config{Port: 8080}, "http://example.org/p", 80, "", "http://example.org:8080/p"},
		{Config{Scheme: "https"}, "http://example.org/p", 80, "", "https://example.org/p"},
		{Config{Scheme: "https", Port: 443}, "http://example.org/p", 80, "", "https://example.org/p"},
		{Config{Scheme: "https", Port: 8443}, "http://example.org/p", 80, "", "https://example.org:8443/p"},
		{Config{}, "http://example.org/p", 8080, "", "http://example.org:8080/p"},
		{Config{Port: 80}, "http://example.org/p", 8080, "", "http://example.org/p"},
		{Config{Scheme: "https"}, "http://example.org/p", 8080, "", "https://example.org/p"},
		{Config{}, "https://example.org/p", 443, "", "https://example.org/p"},
		{Config{Port: 443}, "https://example.org/p", 443, "", "https://example.org/p"},
		{Config{Port: 8443}, "https://example.org/p", 443, "", "https://example.org:8443/p"},
		{Config{Scheme: "http"}, "https://example.org/p", 443, "", "http://example.org/p"},
		{Config{Scheme: "http", Port: 80}, "https://example.org/p", 443, "", "http://example.org/p"},
		{Config{Scheme: "http", Port: 8080}, "https://example.org/p", 443, "", "http://example.org:8080/p"},
		{Config{Port: 443}, "http://example.org/p", 80, "", "http://example.org:443/p"},
		// The listener's port counts, not the one that the client wrote or that is bound.
		{Config{}, "http://example.org:31080/p", 80, "", "http://example.org/p"},

		// Paths.
		{Config{Path: Path{Kind: FullPath, Value: "/new"}}, "http://example.org/a/b?q=1", 80, "", "http://example.org/new?q=1"},
		{Config{Path: Path{Kind: PrefixMatch, Value: "/new"}}, "http://example.org/a/b?q=1", 80, "/a", "http://example.org/new/b?q=1"},
		{Config{Path: Path{Kind: PrefixMatch, Value: "/"}}, "http://example.org/a", 80, "/a", "http://example.org/"},
		{Config{Path: Path{Kind: PrefixMatch, Value: ""}}, "http://example.org/a/b", 80, "/a", "http://example.org/b"},

		// No path becomes a host.
		{Config{}, "http://example.org//evil.example/x", 80, "", "http://example.org//evil.example/x"},
		{Config{Path: Path{Kind: PrefixMatch, Value: "/"}}, "http://example.org/a//evil.example", 80, "/a", "http://example.org//evil.example"},
		{Config{Path: Path{Kind: FullPath, Value: "//evil.example"}}, "http://example.org/", 80, "", "http://example.org//evil.example"},
	} {
		ex := exchange(t, c.url, c.listener, c.prefix)
		if v := run(t, c.config, ex); !v.Answered() {
			t.Errorf("%s on %s: %+v", c.config, c.url, v)
			continue
		}
		if got := ex.Response.Header.Get("Location"); got != c.want {
			t.Errorf("%s on %s at %d: %s, want %s", c.config, c.url, c.listener, got, c.want)
		}
		if ex.Response.Origin != message.OriginFilter || ex.Response.Body != nil {
			t.Errorf("%s: %+v", c.config, ex.Response)
		}
	}
}

func TestBehindAProxyThatEndedTLSOurPortIsNotNamed(t *testing.T) {
	ex := exchange(t, "https://example.org/a", 80, "")
	ex.Conn.TLS = nil
	run(t, Config{Hostname: "new.org"}, ex)
	if got, want := ex.Response.Header.Get("Location"), "https://new.org/a"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestTheStatusIsTheOneThatWasSet(t *testing.T) {
	for status, want := range map[int]int{0: 302, 301: 301, 302: 302, 303: 303, 307: 307, 308: 308} {
		ex := exchange(t, "http://example.org/", 80, "")
		run(t, Config{Hostname: "new.org", Status: status}, ex)
		if ex.Response.Status != want {
			t.Errorf("%d: %d", status, ex.Response.Status)
		}
	}
}

func TestAPathThatHasLostItsPrefixFails(t *testing.T) {
	ex := exchange(t, "http://example.org/other", 80, "/a")
	v := run(t, Config{Path: Path{Kind: PrefixMatch, Value: "/b"}}, ex)
	if reason, _, failed := v.Failed(); !failed || reason != message.ReasonFilterFailed || ex.Response != nil {
		t.Errorf("%+v", v)
	}
}

func TestWhatCannotBeIsNamed(t *testing.T) {
	for _, c := range []struct {
		config Config
		says   string
	}{
		{Config{Scheme: "ftp"}, `scheme "ftp"`},
		{Config{Status: 200}, "status 200"},
		{Config{Status: 304}, "status 304"},
		{Config{Hostname: "a b"}, "no host name"},
		{Config{Hostname: "a.org:80"}, "no host name"},
		{Config{Hostname: "u@a.org"}, "no host name"},
		{Config{Path: Path{Kind: FullPath, Value: "new"}}, "does not begin with a slash"},
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
		"redirect(302)": {},
		"redirect(301 scheme=https host=example.org port=8443 prefix=/new)": {Scheme: "https", Hostname: "example.org", Port: 8443, Status: 301, Path: Path{Kind: PrefixMatch, Value: "/new"}},
		"redirect(308 path=/new)": {Status: 308, Path: Path{Kind: FullPath, Value: "/new"}},
		"redirect(302 prefix=)":   {Path: Path{Kind: PrefixMatch}},
	} {
		if got := c.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
