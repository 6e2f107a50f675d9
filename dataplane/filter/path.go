package filter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// PathKind is what of a path is replaced.
type PathKind string

const (
	KeepPath    PathKind = ""       // nothing
	FullPath    PathKind = "Full"   // all of it
	PrefixMatch PathKind = "Prefix" // the prefix that the route matched, whole segments
)

// PathChange replaces the path of a target, as redirects and rewrites do it (HTTPPathModifier). The query stays as it is.
type PathChange struct {
	Kind  PathKind
	Value string // as in a target, escaped; "" for PrefixMatch takes the prefix away
}

// String is the text form; "" when nothing is replaced.
func (p PathChange) String() string {
	switch p.Kind {
	case KeepPath:
		return ""
	case FullPath:
		return "path=" + p.Value
	}
	return "prefix=" + p.Value
}

// Check says what is wrong with the value, in words for whoever wrote it.
func (p PathChange) Check() error {
	if p.Kind == KeepPath || p.Kind == PrefixMatch && p.Value == "" {
		return nil
	}
	if p.Value == "" || p.Value[0] != '/' {
		return fmt.Errorf("the path %q does not begin with a slash", p.Value)
	}
	if strings.IndexByte(p.Value, '?') >= 0 {
		return fmt.Errorf("the path %q has a question mark; a query cannot be set", p.Value)
	}
	if _, reason, detail := message.ParseTarget(p.Value, vetted); reason != message.ReasonNone {
		return errors.New(strings.Replace(detail, "target", "replacement", 1))
	}
	return nil
}

// vetted lets through what an operator may let through: the client's part of a path was held to the rules of the process before, and a
// route's part is the route owner's word.
var vetted = message.PathRules{KeepDoubleSlash: true, AllowEncodedSlash: true}

// Apply returns the target with its path replaced, normalised by the same code as the client's (threats 10: no dot segment comes into
// being where two parts meet). Matched is Exchange.MatchedPrefix. It reports false when the path does not begin with it, because another
// filter has changed the path since.
func (p PathChange) Apply(t message.Target, matched string) (message.Target, bool) {
	path := p.Value
	switch p.Kind {
	case KeepPath:
		return t, true
	case PrefixMatch:
		rest, ok := strings.CutPrefix(t.Path, strings.TrimRight(matched, "/"))
		if !ok || rest != "" && rest[0] != '/' {
			return t, false
		}
		if path = strings.TrimRight(p.Value, "/") + rest; path == "" {
			path = "/"
		}
	}
	changed, reason, _ := message.ParseTarget(path, vetted)
	if reason != message.ReasonNone {
		return t, false
	}
	t.Path = changed.Path
	return t, true
}
