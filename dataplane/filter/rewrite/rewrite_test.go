package rewrite

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func exchange(t *testing.T, host, target, prefix string) *message.Exchange {
	t.Helper()
	ex := &message.Exchange{MatchedPrefix: prefix}
	var reason message.Reason
	var detail string
	ex.Request.Host, _ = message.ParseHost(host)
	if ex.Request.Target, reason, detail = message.ParseTarget(target, message.PathRules{AllowEncodedSlash: true}); reason != message.ReasonNone {
		t.Fatal(detail)
	}
	return ex
}

func faces(t *testing.T, c Config) filter.Faces {
	t.Helper()
	f, err := c.Build(filter.Env{})
	if err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	return f
}

func TestHostAndPathAreRewritten(t *testing.T) {
	for _, c := range []struct {
		config       Config
		host, target string
		prefix       string
		want         string
	}{
		{Config{Hostname: "one.example.org"}, "rewrite.example:8080", "/a?b", "", "one.example.org /a?b"},
		{Config{Path: Path{Kind: FullPath, Value: "/one"}}, "h", "/full/rewrite/path?a=%zz", "", "h /one?a=%zz"},
		{Config{Path: Path{Kind: PrefixMatch, Value: "/prefix"}}, "h", "/strip-prefix/three", "/strip-prefix", "h /prefix/three"},
		{Config{Path: Path{Kind: PrefixMatch, Value: "/"}}, "h", "/strip-prefix", "/strip-prefix", "h /"},
		{Config{Path: Path{Kind: PrefixMatch, Value: ""}}, "h", "/strip-prefix/three", "/strip-prefix", "h /three"},
		{Config{Path: Path{Kind: PrefixMatch, Value: "/a/./b/../c"}}, "h", "/p/x", "/p", "h /a/c/x"},
		{Config{Hostname: "new", Path: Path{Kind: FullPath, Value: "/x"}}, "h", "/", "", "new /x"},
	} {
		ex := exchange(t, c.host, c.target, c.prefix)
		if v := faces(t, c.config).Request(ex); v != filter.Continue {
			t.Errorf("%s: %+v", c.config, v)
		}
		if got := ex.Request.Host.Raw + " " + ex.Request.Target.String(); got != c.want {
			t.Errorf("%s on %s%s: %s, want %s", c.config, c.host, c.target, got, c.want)
		}
	}
}

func TestTheHostThatIsMatchedIsRewrittenToo(t *testing.T) {
	ex := exchange(t, "old.org:8080", "/", "")
	faces(t, Config{Hostname: "New.org"}).Request(ex)
	if h := ex.Request.Host; h.Name != "new.org" || h.Port != 0 || h.Raw != "New.org" {
		t.Errorf("%+v", h)
	}
}

func TestOnABackendTheExchangeStaysAsItIs(t *testing.T) {
	ex := exchange(t, "old.org", "/a/b?q", "/a")
	f := faces(t, Config{OnBackend: true, Hostname: "new.org", Path: Path{Kind: PrefixMatch, Value: "/x"}})
	if f.Request != nil {
		t.Fatal("it acts on the exchange")
	}
	for try := range 2 {
		at := &message.Attempt{Exchange: ex, Request: ex.Request, N: try}
		if v := f.Attempt(at); v != filter.Continue {
			t.Errorf("try %d: %+v", try, v)
		}
		if got := at.Request.Host.Raw + at.Request.Target.String(); got != "new.org/x/b?q" {
			t.Errorf("try %d sends %s", try, got)
		}
	}
	if got := ex.Request.Host.Raw + ex.Request.Target.String(); got != "old.org/a/b?q" {
		t.Errorf("the exchange has %s", got)
	}
}

func TestAPathThatHasLostItsPrefixFails(t *testing.T) {
	ex := exchange(t, "h", "/other", "/a")
	v := faces(t, Config{Hostname: "new", Path: Path{Kind: PrefixMatch, Value: "/b"}}).Request(ex)
	if reason, _, failed := v.Failed(); !failed || reason != message.ReasonFilterFailed {
		t.Errorf("%+v", v)
	}
}

func TestWhatCannotBeIsNamed(t *testing.T) {
	for _, c := range []struct {
		config Config
		says   string
	}{
		{Config{Hostname: "a/b"}, "no host name"},
		{Config{Hostname: "a\r\nb"}, "no host name"},
		{Config{Path: Path{Kind: FullPath, Value: "/a?b"}}, "question mark"},
		{Config{Path: Path{Kind: PrefixMatch, Value: "/.."}}, "climbs above the root"},
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
		"rewrite(host=example.org path=/new)": {Hostname: "example.org", Path: Path{Kind: FullPath, Value: "/new"}},
		"rewrite(backend: prefix=/new)":       {OnBackend: true, Path: Path{Kind: PrefixMatch, Value: "/new"}},
	} {
		if got := c.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
