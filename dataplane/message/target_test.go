package message

import (
	"strings"
	"testing"
)

func TestAPathHasOneSpelling(t *testing.T) {
	for _, c := range []struct{ raw, path, query string }{
		{"/", "/", ""},
		{"/a/b", "/a/b", ""},
		{"/a//b///c", "/a/b/c", ""},
		{"//evil/x", "/evil/x", ""},
		{"/a/./b", "/a/b", ""},
		{"/a/.", "/a/", ""},
		{"/a/b/..", "/a/", ""},
		{"/a/b/../", "/a/", ""},
		{"/a/../b", "/b", ""},
		{"/%61%2e%2E/x", "/a../x", ""},
		{"/a/%2e%2e/b", "/b", ""},
		{"/a/%2E/b", "/a/b", ""},
		{"/caf%c3%a9", "/caf%C3%A9", ""},
		{"/caf%e9/%c0/%c0%20/%e0%a4%85/%f0%9f%98%80/%ff%fe", "/caf%E9/%C0/%C0%20/%E0%A4%85/%F0%9F%98%80/%FF%FE", ""},
		{"/a%20b", "/a%20b", ""},
		{"/a;v=1/b", "/a;v=1/b", ""},
		{"/a%3Bb", "/a%3Bb", ""},
		{"/%7euser", "/~user", ""},
		{"/100%25", "/100%25", ""},
		{"/100%25zz", "/100%25zz", ""},
		{"/a?x=/../%2f", "/a", "x=/../%2f"},
		{"/a?", "/a", ""},
		{"/...", "/...", ""},
		{"/.hidden", "/.hidden", ""},
		{"/a/..b", "/a/..b", ""},
		{"*", "*", ""},
	} {
		got, reason, detail := ParseTarget(c.raw, PathRules{})
		if reason != ReasonNone || got.Path != c.path || got.Query != c.query {
			t.Errorf("%q: path %q query %q %v %s, want %q %q", c.raw, got.Path, got.Query, reason, detail, c.path, c.query)
		}
	}
}

func TestAnAmbiguousPathIsRefused(t *testing.T) {
	for _, raw := range []string{
		"", "a", "http://x/", "/a%2fb", "/a%2Fb", `/a\b`, "/a%5cb", "/a%00b", "/a%0ab", "/a b", "/a\x00", "/a\x7f", "/caf\xc3\xa9", "/a#b",
		"/..", "/../a", "/a/../../b", "/..;/a", "/a/..;x=1/b", "/.;/a", "/a/%2e%2e;/b", "/%252e%252e/a", "/a%252fb", "/a%255cb", "/a%2525",
		"/%", "/%4", "/%zz", "/%u002e",
		"/%252%65%252%45/a", "/a%25%32fb", "/a%25%35%43b", "/%252%35",
		"/a/%c0%ae%c0%ae/b", "/%C0%AFa", "/%c1%a1dmin", "/%e0%80%af", "/%e0%81%9c", "/%f0%80%80%af", "/%f8%80%80%80%af", "/%fc%80%80%80%80%af",
	} {
		if got, reason, detail := ParseTarget(raw, PathRules{}); reason != ReasonBadTarget || detail == "" {
			t.Errorf("%q passes as %q (%v, %q)", raw, got.Path, reason, detail)
		}
	}
}

func TestAnOperatorMayKeepSlashes(t *testing.T) {
	rules := PathRules{KeepDoubleSlash: true, AllowEncodedSlash: true}
	for raw, want := range map[string]string{"/a//b": "/a//b", "/a%2fb": "/a%2Fb", "//a/../b": "//b", "/a//../b": "/a/b"} {
		if got, reason, detail := ParseTarget(raw, rules); got.Path != want || reason != ReasonNone {
			t.Errorf("%q: %q, want %q (%s)", raw, got.Path, want, detail)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e/", "/a;b", "//", "/%25", "/a?b#c", "/..;/", "/%2561", "/%252%65", "/%c0%ae"} {
		f.Add(s, false, false)
		f.Add(s, true, true)
	}
	f.Fuzz(func(t *testing.T, raw string, keep, encoded bool) {
		rules := PathRules{KeepDoubleSlash: keep, AllowEncodedSlash: encoded}
		got, reason, _ := ParseTarget(raw, rules)
		if reason != ReasonNone || got.Path == "*" {
			return
		}
		again, reason, detail := ParseTarget(got.Path, rules)
		if reason != ReasonNone || again.Path != got.Path {
			t.Fatalf("%q → %q is not stable: %q, %s", raw, got.Path, again.Path, detail)
		}
		for _, s := range strings.Split(got.Path, "/") {
			if s == "." || s == ".." {
				t.Fatalf("%q → %q has a dot segment", raw, got.Path)
			}
		}
		if got.Path[0] != '/' || strings.ContainsAny(got.Path, "\\#? \x00") || !keep && strings.Contains(got.Path, "//") {
			t.Fatalf("%q → %q", raw, got.Path)
		}
		if !encoded && strings.Contains(got.Path, "%2F") {
			t.Fatalf("%q → %q hides a slash", raw, got.Path)
		}
	})
}

func TestAHostIsReadInOneWay(t *testing.T) {
	for raw, want := range map[string]Host{
		"example.com":       {Name: "example.com"},
		"ExAmPle.COM.":      {Name: "example.com"},
		"example.com:8080":  {Name: "example.com", Port: 8080},
		"example.com:":      {Name: "example.com"},
		"[::1]":             {Name: "::1"},
		"[2001:DB8::1]:443": {Name: "2001:db8::1", Port: 443},
		"127.0.0.1:80":      {Name: "127.0.0.1", Port: 80},
		"my_host":           {Name: "my_host"},
		"xn--bcher-kva.de":  {Name: "xn--bcher-kva.de"},
	} {
		want.Raw = raw
		if got, ok := ParseHost(raw); !ok || got != want {
			t.Errorf("%q: %+v %v, want %+v", raw, got, ok, want)
		}
	}
	for _, raw := range []string{
		"", ".", "a,b", "u@a", "a:99x", "a:0", "a:65536", "a:+80", "a: 80", "[::1%25eth0]", "[x]:80", "[::1", "[::1]x", "a b", "a/b", "a..b", ".a", "[127.0.0.1]",
		strings.Repeat("a", 254), "a:80:90", "a\x00", "::1",
	} {
		if got, ok := ParseHost(raw); ok {
			t.Errorf("%q passes as %+v", raw, got)
		}
	}
}
