// Package router finds what serves a request: by host, path, method, headers and query, in the one order that the Gateway API gives.
//
// It is generic over what is found and knows neither filters nor snapshots. A Table is made once of all entries of a listener, never
// changes, and is read by all at once without a lock; a match of fixed paths, prefixes, methods and single header lines allocates
// nothing.
//
// # The order
//
// Hosts come first, from the most specific down: the name itself, then wildcards by their number of labels, then the entries for any
// host. When no entry of a host matches, the next host is asked (GEP-1709's "hostname intersection precedence"). Within a host the first
// difference decides:
//
//  1. A fixed path (Exact; a gRPC service with its method) comes before a regular expression of HTTP, and that before all others. The
//     place of regular expressions is ours to choose: whoever writes one means to say more than a prefix says.
//  2. A longer prefix before a shorter one. For gRPC: more characters in the service. A gRPC service without a method is the prefix
//     "/service", so that both kinds of route have one order on a shared host.
//  3. More characters in the gRPC method. A regular expression of gRPC counts the characters of its pattern, [^/]+ counts none.
//  4. One with a method before one without.
//  5. More header matches.
//  6. More query matches.
//  7. Position: whoever made the list put the oldest route first, then namespace/name, rule and match.
//
// # What matches
//
// Paths are compared as message.ParseTarget normalised them, with case, and an entry's path is normalised by the same code. A prefix
// matches whole segments; its trailing slash means nothing. A regular expression (RE2) must match the whole path, header or parameter.
//
// A header has one value, whatever its spelling: all lines of that name, joined by commas, white space around commas without meaning
// (RFC 9110 5.3). So "x: a" and "x: b" is the same as "x: a, b", and neither is "a": a client cannot satisfy or dodge a match by adding a
// line. A regular expression is tried on both spellings, with "," and with ", ". What frames a message (Host, Connection, …) is
// in no Header, and a match on it never holds.
//
// Of a query parameter the first one counts (the Gateway API recommends it). Names and values are compared decoded, %XX and "+";
// a malformed escape matches nothing. Only "&" separates.
//
// Of several matches on the same header or parameter the first counts and the others are ignored, as the Gateway API says.
package router

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Kind is how a path is matched.
type Kind uint8

const (
	Prefix Kind = iota
	Exact
	Regex
)

// Path matches a path. The zero value matches each.
type Path struct {
	Kind  Kind
	Value string
	// GRPC says that the path is "/service/method", a part of it, or a regular expression of that form, and that only gRPC matches: a
	// GRPCRoute without matches must not swallow the plain requests of a host that it shares with an HTTPRoute.
	GRPC bool
}

// Value matches a header or a query parameter.
type Value struct {
	Name  string
	Value string
	Regex bool
}

// Entry is one condition and what is found by it. All of it must hold.
type Entry[P any] struct {
	Path    Path
	Method  string // with case; "" any
	Headers []Value
	Queries []Value
	Payload P
}

// Host is the entries for one name: "" any, "*.example.com" (one or more labels in front), or a name.
type Host[P any] struct {
	Name    string
	Entries []Entry[P]
}

// Table is what New made.
type Table[P any] struct {
	hosts *Names[*host[P]]
}

// New makes a table. Hosts that stand twice are one, in order. An entry that cannot match anything (a regular expression that does not
// compile, a path that no request can have) is left out and named in the errors; the rest of the table is good.
func New[P any](hosts []Host[P]) (*Table[P], []error) {
	var problems []error
	byName := map[string][]*entry[P]{}
	for _, h := range hosts {
		name := canonicalName(h.Name)
		for _, e := range h.Entries {
			compiled, err := compile(e, len(byName[name]))
			if err != nil {
				problems = append(problems, fmt.Errorf("host %q: %w", h.Name, err))
				continue
			}
			byName[name] = append(byName[name], compiled)
		}
	}

	built := make(map[string]*host[P], len(byName))
	for name, entries := range byName {
		built[name] = newHost(entries)
	}
	return &Table[P]{hosts: NewNames(built)}, problems
}

// Match returns the entry that serves the request, nil when there is none. Its Path.Value is normalised, and a prefix has no
// trailing slash ("" for "/"): what a filter replaces that replaces the matched prefix.
func (t *Table[P]) Match(r *message.Request) *Entry[P] { return t.MatchMethod(r, r.Method) }

// MatchMethod is Match as if the request had that method: for a CORS preflight, which asks for the request that will follow.
func (t *Table[P]) MatchMethod(r *message.Request, method string) *Entry[P] {
	if path := r.Target.Path; path == "" || path[0] != '/' {
		return nil // OPTIONS *
	}
	for h := range t.hosts.All(r.Host.Name) {
		if e := h.match(r, method); e != nil {
			return &e.Entry
		}
	}
	return nil
}

// entry is an Entry, ready.
type entry[P any] struct {
	Entry[P]
	path    *regexp.Regexp // of a Regex path
	literal string         // what each path begins with that path matches: spares most of them
	headers []condition
	queries []condition
	place   place
	rank    int // its place among all of its host, 0 first
}

func compile[P any](e Entry[P], position int) (*entry[P], error) {
	out := &entry[P]{Entry: e}
	var err error
	if e.Path.Kind == Regex {
		out.path, out.literal, err = wholePath(e.Path.Value)
	} else {
		out.Path.Value, err = fixedPath(e.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", e.Path.Value, err)
	}
	if out.headers, err = conditions(e.Headers, message.Lower); err != nil {
		return nil, fmt.Errorf("header %w", err)
	}
	if out.queries, err = conditions(e.Queries, func(name string) string { return name }); err != nil {
		return nil, fmt.Errorf("query %w", err)
	}
	out.place = placeOf(out, position)
	return out, nil
}

// fixedPath is the path as requests have it. What the path rules of the process would let through is let through here: those are for
// clients.
func fixedPath(p Path) (string, error) {
	if p.Kind == Prefix && p.Value == "" {
		return "", nil
	}
	t, reason, detail := message.ParseTarget(p.Value, message.PathRules{KeepDoubleSlash: true, AllowEncodedSlash: true})
	switch {
	case reason != message.ReasonNone:
		return "", fmt.Errorf("no request has it: %s", detail)
	case t.HasQuery:
		return "", fmt.Errorf("no request has it: a path has no question mark")
	case t.Path == "*":
		return "", fmt.Errorf("no request has it: a path begins with a slash")
	case p.Kind == Prefix:
		return strings.TrimRight(t.Path, "/"), nil
	}
	return t.Path, nil
}

// wholePath compiles an expression for whole paths.
func wholePath(pattern string) (re *regexp.Regexp, literal string, err error) {
	free, err := regexp.Compile(pattern)
	if err != nil {
		return nil, "", err
	}
	literal, _ = free.LiteralPrefix()
	re, err = whole(pattern)
	return re, literal, err
}

// serves reports whether all but the path holds.
func (e *entry[P]) serves(r *message.Request, method string) bool {
	if e.Method != "" && e.Method != method || e.Path.GRPC && !r.GRPC() {
		return false
	}
	for i := range e.headers {
		if !e.headers[i].header(&r.Header) {
			return false
		}
	}
	for i := range e.queries {
		if !e.queries[i].query(r.Target.Query) {
			return false
		}
	}
	return true
}

// place is what the order of entries is made of; see the package comment.
type place struct {
	class    int // 2 a fixed path, 1 a regular expression of HTTP, 0 all others
	length   int // of a prefix in bytes; of a gRPC service and its slash
	callee   int // characters of a gRPC method that is no part of a fixed path
	method   int // 1 with a method
	headers  int
	queries  int
	position int
}

func placeOf[P any](e *entry[P], position int) place {
	p := place{headers: len(e.headers), queries: len(e.queries), position: position}
	if e.Method != "" {
		p.method = 1
	}
	switch {
	case e.Path.Kind == Exact:
		p.class = 2
	case e.Path.Kind == Prefix:
		p.length = len(e.Path.Value)
	case e.Path.GRPC:
		p.length, p.callee = grpcLengths(e.Path.Value)
	default:
		p.class = 1
	}
	return p
}

// compare is below zero when p comes before q.
func (p place) compare(q place) int {
	return cmp.Or(
		cmp.Compare(q.class, p.class), cmp.Compare(q.length, p.length), cmp.Compare(q.callee, p.callee), cmp.Compare(q.method, p.method),
		cmp.Compare(q.headers, p.headers), cmp.Compare(q.queries, p.queries), cmp.Compare(p.position, q.position),
	)
}

// grpcLengths counts the characters of service (with its slash, as in a prefix) and method of an expression "/service/method".
func grpcLengths(pattern string) (service, method int) {
	const any = "[^/]+"
	pattern = strings.TrimPrefix(pattern, "/")
	s, m := pattern, ""
	switch i := strings.LastIndexByte(pattern, '/'); {
	case strings.HasSuffix(pattern, "/"+any):
		s, m = strings.TrimSuffix(pattern, "/"+any), any
	case strings.HasPrefix(pattern, any+"/"):
		s, m = any, strings.TrimPrefix(pattern, any+"/")
	case i >= 0:
		s, m = pattern[:i], pattern[i+1:]
	}
	count := func(part string) int {
		if inner, ok := strings.CutPrefix(part, "(?:"); ok {
			part = strings.TrimSuffix(inner, ")")
		}
		if part == any {
			return 0
		}
		return len(part)
	}
	if service = count(s); service > 0 {
		service++
	}
	return service, count(m)
}

// sortEntries puts entries in the order and numbers them.
func sortEntries[P any](entries []*entry[P]) {
	slices.SortFunc(entries, func(a, b *entry[P]) int { return a.place.compare(b.place) })
	for i, e := range entries {
		e.rank = i
	}
}
