package router

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// This is the slow, obvious matcher that the table is held against: it looks at each entry, by the words of the Gateway API, and shares no
// code with the table.

func referenceMatch(hosts []Host[string], r *message.Request) string {
	type found struct {
		key     []int
		payload string
	}
	var all []found
	for _, h := range hosts {
		specific, ok := referenceHost(strings.ToLower(h.Name), r.Host.Name)
		if !ok {
			continue
		}
		for _, e := range h.Entries {
			if e.Path.GRPC && !strings.HasPrefix(r.Header.Get("content-type"), "application/grpc") {
				continue
			}
			if !referencePath(e.Path, r.Target.Path) || e.Method != "" && e.Method != r.Method {
				continue
			}
			if !referenceHeaders(e.Headers, r) || !referenceQueries(e.Queries, r) {
				continue
			}
			// Stable sorting leaves the order of positions, which is the order of the input within one host.
			all = append(all, found{append([]int{specific}, referenceKey(e)...), e.Payload})
		}
	}
	if len(all) == 0 {
		return "-"
	}
	slices.SortStableFunc(all, func(a, b found) int { return slices.Compare(b.key, a.key) })
	return all[0].payload
}

func referenceHost(pattern, host string) (specific int, ok bool) {
	switch {
	case pattern == "":
		return 0, true
	case pattern == host:
		return 1000, true
	case strings.HasPrefix(pattern, "*."):
		labels, wanted := strings.Split(host, "."), strings.Split(pattern, ".")[1:]
		if len(labels) > len(wanted) && slices.Equal(labels[len(labels)-len(wanted):], wanted) {
			return len(wanted), true
		}
	}
	return 0, false
}

func referencePath(p Path, path string) bool {
	switch p.Kind {
	case Exact:
		return path == p.Value
	case Regex:
		return referenceRegex(p.Value, path)
	}
	want, have := strings.Split(strings.TrimSuffix(p.Value, "/"), "/"), strings.Split(path, "/")
	return len(have) >= len(want) && slices.Equal(have[:len(want)], want)
}

// referenceRegex takes the longest match and looks whether it is all.
func referenceRegex(pattern, text string) bool {
	re := regexp.MustCompilePOSIX(pattern)
	at := re.FindStringIndex(text)
	return at != nil && at[0] == 0 && at[1] == len(text)
}

func referenceHeaders(values []Value, r *message.Request) bool {
	for _, v := range values {
		var list []string
		for name, value := range r.Header.All() {
			if strings.EqualFold(name, v.Name) {
				for part := range strings.SplitSeq(value, ",") {
					list = append(list, strings.TrimSpace(part))
				}
			}
		}
		got := strings.Join(list, ",")
		if len(list) == 0 || !v.Regex && got != v.Value || v.Regex && !referenceRegex(v.Value, got) {
			return false
		}
	}
	return true
}

func referenceQueries(values []Value, r *message.Request) bool {
	for _, v := range values {
		held := false
		for pair := range strings.SplitSeq(r.Target.Query, "&") {
			name, value, _ := strings.Cut(pair, "=")
			if name, err := url.QueryUnescape(name); err != nil || name != v.Name {
				continue
			}
			value, err := url.QueryUnescape(value)
			held = err == nil && (!v.Regex && value == v.Value || v.Regex && referenceRegex(v.Value, value))
			break
		}
		if !held {
			return false
		}
	}
	return true
}

func referenceKey(e Entry[string]) []int {
	class, length, callee := 0, 0, 0
	switch {
	case e.Path.Kind == Exact:
		class = 2
	case e.Path.Kind == Prefix:
		length = len(strings.TrimSuffix(e.Path.Value, "/"))
	case !e.Path.GRPC:
		class = 1
	default: // the generator writes "/service/[^/]+" and "/[^/]+/method"
		callee = len(strings.TrimPrefix(e.Path.Value, "/[^/]+/"))
	}
	method := 0
	if e.Method != "" {
		method = 1
	}
	return []int{class, length, callee, method, len(e.Headers), len(e.Queries)}
}

// world is where random hosts, entries and requests come from: few words, so that they meet often.
type world struct{ *rand.Rand }

func pick[T any](w world, of ...T) T { return of[w.IntN(len(of))] }

func (w world) path() string {
	var b strings.Builder
	for range w.IntN(4) {
		b.WriteString("/" + pick(w, "a", "b", "ab", "c.d", "A"))
	}
	if b.Len() == 0 || w.IntN(4) == 0 {
		b.WriteString("/")
	}
	return b.String()
}

func (w world) entryPath() Path {
	switch w.IntN(10) {
	case 0, 1:
		return exact(w.path())
	case 2:
		return regex(pick(w, "/a.*", "/[ab]+", "/.*/b", "/a|/b", "/(a|b)/.*", ".*", "/A/.+", "/a/b/?"))
	case 3:
		return grpc(exact("/" + pick(w, "a", "b") + "/" + pick(w, "a", "b", "ab")))
	case 4:
		return grpc(prefix("/" + pick(w, "a", "b", "ab") + "/"))
	case 5:
		return grpc(regex("/[^/]+/" + pick(w, "a", "b", "ab")))
	}
	return prefix(w.path())
}

func (w world) values(names ...string) []Value {
	var out []Value
	for _, n := range names {
		switch w.IntN(6) {
		case 0:
			out = append(out, Value{Name: n, Value: pick(w, "1", "2", "1,2", "x y")})
		case 1:
			out = append(out, Value{Name: n, Value: pick(w, "[0-9]+", "1.*", "(1|2|x).*"), Regex: true})
		}
	}
	return out
}

func (w world) hosts(entries int) []Host[string] {
	names := []string{"", "*.org", "*.b.org", "a.b.org", "*.a.b.org", "b.org", "c.b.org"}
	hosts := make([]Host[string], len(names))
	for i, n := range names {
		hosts[i].Name = n
	}
	for i := range entries {
		e := Entry[string]{Path: w.entryPath(), Headers: w.values("x-a", "X-B"), Queries: w.values("q", "p"), Payload: fmt.Sprint(i)}
		if w.IntN(4) == 0 {
			e.Method = pick(w, "GET", "POST")
		}
		h := &hosts[w.IntN(len(hosts))]
		h.Entries = append(h.Entries, e)
	}
	return hosts
}

func (w world) request(t testing.TB) *message.Request {
	line := pick(w, "GET", "POST", "PUT") + " " + pick(w, "a.b.org", "b.org", "c.b.org", "x.a.b.org", "org", "other") + w.path()
	var params []string
	for range w.IntN(3) {
		params = append(params, pick(w, "q", "p", "%71", "r")+"="+pick(w, "1", "2", "1%2C2", "x+y", "%zz", ""))
	}
	if len(params) > 0 {
		line += "?" + strings.Join(params, "&")
	}
	var fields []string
	for range w.IntN(4) {
		fields = append(fields, pick(w, "X-A", "x-b", "x-c")+": "+pick(w, "1", "2", "1, 2", "x y"))
	}
	if w.IntN(2) == 0 {
		fields = append(fields, "content-type: application/grpc")
	}
	return request(t, line, fields...)
}

func TestTheTableAgreesWithTheObviousMatcher(t *testing.T) {
	hits := 0
	for seed := range uint64(20) {
		w := world{rand.New(rand.NewPCG(seed, 9))}
		hosts := w.hosts(200)
		tab, errs := New(hosts)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		for range 1000 {
			r := w.request(t)
			got, want := found(tab, r), referenceMatch(hosts, r)
			if got != want {
				t.Fatalf("seed %d: %s %s%s: found %s, the obvious matcher %s", seed, r.Method, r.Host.Name, r.Target, got, want)
			}
			if got != "-" {
				hits++
			}
		}
	}
	if hits < 10_000 || hits > 19_900 {
		t.Errorf("%d of 20000 requests were found: the generator does not try both", hits)
	}
}

func FuzzTheTableAgreesWithTheObviousMatcher(f *testing.F) {
	f.Add(uint64(1), "a.b.org", "/a/b", "q=1&p=2", "1, 2", "GET")
	f.Add(uint64(2), "x.y.org", "/a/../b;x/%41", "q=%71&&p", "x", "POST")
	f.Fuzz(func(t *testing.T, seed uint64, host, path, query, field, method string) {
		w := world{rand.New(rand.NewPCG(seed, 1))}
		hosts := w.hosts(40)
		// What the fuzzer found out becomes part of the table too.
		own := Entry[string]{Path: exact(path), Payload: "own"}
		hosts[0].Entries = append(hosts[0].Entries, own)
		target, reason, _ := message.ParseTarget(path+"?"+query, message.PathRules{AllowEncodedSlash: true})
		h, ok := message.ParseHost(host)
		if reason != message.ReasonNone || !ok || target.Path == "*" || target.Path != path || !message.ValidValue(field) {
			return
		}
		r := &message.Request{Method: method, Host: h, Target: target, Header: message.NewHeader(message.Field{Name: "X-A", Value: field})}
		tab, errs := New(hosts)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		if got, want := found(tab, r), referenceMatch(hosts, r); got != want {
			t.Errorf("%s %s%s x-a: %q: found %s, the obvious matcher %s", method, h.Name, target, field, got, want)
		}
	})
}
