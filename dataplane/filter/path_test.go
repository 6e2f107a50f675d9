package filter

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

func target(t *testing.T, raw string) message.Target {
	t.Helper()
	out, reason, detail := message.ParseTarget(raw, vetted)
	if reason != message.ReasonNone {
		t.Fatalf("%s: %s", raw, detail)
	}
	return out
}

func TestPathsAreReplacedAsTheGatewayAPISays(t *testing.T) {
	for _, c := range []struct {
		change       PathChange
		raw, matched string
		want         string // the target; "" when the matched prefix is not there
	}{
		// The table of HTTPPathModifier.
		{PathChange{PrefixMatch, "/xyz"}, "/foo/bar", "/foo", "/xyz/bar"},
		{PathChange{PrefixMatch, "/xyz/"}, "/foo/bar", "/foo", "/xyz/bar"},
		{PathChange{PrefixMatch, "/xyz"}, "/foo/bar", "/foo/", "/xyz/bar"},
		{PathChange{PrefixMatch, "/xyz/"}, "/foo/bar", "/foo/", "/xyz/bar"},
		{PathChange{PrefixMatch, "/xyz"}, "/foo", "/foo", "/xyz"},
		{PathChange{PrefixMatch, "/xyz"}, "/foo/", "/foo", "/xyz/"},
		{PathChange{PrefixMatch, ""}, "/foo/bar", "/foo", "/bar"},
		{PathChange{PrefixMatch, ""}, "/foo/", "/foo", "/"},
		{PathChange{PrefixMatch, ""}, "/foo", "/foo", "/"},
		{PathChange{PrefixMatch, "/"}, "/foo/", "/foo", "/"},
		{PathChange{PrefixMatch, "/"}, "/foo", "/foo", "/"},

		{PathChange{PrefixMatch, "/xyz"}, "/", "", "/xyz/"},
		{PathChange{PrefixMatch, "/xyz"}, "/a/b", "/", "/xyz/a/b"},
		{PathChange{PrefixMatch, "/xyz"}, "/foo/a%2Fb?x=%zz&y", "/foo", "/xyz/a%2Fb?x=%zz&y"},
		{PathChange{PrefixMatch, "/x/../%7ey"}, "/foo/a", "/foo", "/~y/a"},
		{PathChange{PrefixMatch, "/x"}, "/foo?", "/foo", "/x?"},
		{PathChange{PrefixMatch, "/x"}, "/foobar", "/foo", ""},
		{PathChange{PrefixMatch, "/x"}, "/other", "/foo", ""},
		{PathChange{FullPath, "/new"}, "/foo/bar?q=1", "/foo", "/new?q=1"},
		{PathChange{FullPath, "/"}, "/foo", "", "/"},
		{PathChange{FullPath, "/a/./b/../c"}, "/foo", "", "/a/c"},
		{PathChange{}, "/foo?q", "", "/foo?q"},
	} {
		before := target(t, c.raw)
		got, ok := c.change.Apply(before, c.matched)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("%v on %s with prefix %q: %s %v, want %q", c.change, c.raw, c.matched, got, ok, c.want)
		}
		if got.Raw != c.raw {
			t.Errorf("%v changed what the log shows: %s", c.change, got.Raw)
		}
	}
}

func TestAWrongReplacementIsNamed(t *testing.T) {
	for value, says := range map[string]string{
		"":          "does not begin with a slash",
		"a":         "does not begin with a slash",
		"/a?b=c":    "question mark",
		"/a#b":      "fragment",
		"/a b":      "space",
		"/é":        "escape it",
		"/%zz":      "hexadecimal",
		"/../a":     "climbs above the root",
		"/a%00":     "%00",
		"/a\nb":     "control",
		"/..;/a":    "dot segment",
		"/a%252e/b": "double escape",
	} {
		err := PathChange{FullPath, value}.Check()
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", value, err, says)
		}
	}
	for _, good := range []PathChange{{}, {PrefixMatch, ""}, {PrefixMatch, "/"}, {FullPath, "/a/b%20c;x=1"}} {
		if err := good.Check(); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
}

// FuzzNoDotSegmentComesFromAReplacement: whatever the parts, the result is a path that ParseTarget would not change.
func FuzzNoDotSegmentComesFromAReplacement(f *testing.F) {
	f.Add("/x/..", "/foo/bar", "/foo", true)
	f.Add("/x/.", "/foo/./%2e", "/foo", true)
	f.Add("/%25", "/foo/2e", "/foo", false)
	f.Fuzz(func(t *testing.T, value, raw, matched string, full bool) {
		change := PathChange{PrefixMatch, value}
		if full {
			change.Kind = FullPath
		}
		before, reason, _ := message.ParseTarget(raw, message.PathRules{})
		if reason != message.ReasonNone || change.Check() != nil {
			return
		}
		got, ok := change.Apply(before, matched)
		if !ok {
			return
		}
		again, reason, detail := message.ParseTarget(got.Path, vetted)
		if reason != message.ReasonNone || again.Path != got.Path {
			t.Errorf("%v on %q: %q is not normal: %q %s", change, raw, got.Path, again.Path, detail)
		}
	})
}
