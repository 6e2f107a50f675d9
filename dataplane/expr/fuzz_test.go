package expr

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Any text compiles or is refused with a place in one line; what compiles evaluates on any request; and nothing panics.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{
		`request.method != "OPTIONS"`, `source.ip`, `request.headers["x-tenant"]`, `request.query.a`, `request.time.getHours("UTC")`, `source.port + 1`,
		`request.headers.exists(h, h.startsWith("x-"))`, `request.path.split("/").map(p, p + "x")`, `source.ip.inCIDR(["10.0.0.0/8"])`,
		`source.ip.network(24, 64)`, `request.query.filter(q, q in request.headers)`, `has(request.headers.a) ? "a" : "b"`, `request.headers == request.headers`,
		`type(request.headers) == map`, `string(request.headers)`, `{"a": request.headers}["a"]["x"]`, `[request.query][0].a`, `dyn(request.query).a.b`,
		`request.headers[1]`, `dyn(request.headers)[1]`, `1 in dyn(request.query)`, `"%d".format([1])`, "a\n+b", "\x00", `"` + "\xff" + `"`, `request . method`,
		`request.headers == {"x": "y"}`, `size(request.query) > 1`, `bytes(request.path)`, `google.protobuf.Int32Value{value: 1}`, `identity`, `!request.method`,
		`identity.claims.a.b == null`, `"ops" in identity.list("groups")`, `identity.list(request.method).map(g, g + "x")`, `identity.labels.tier in ["a"] || !true`,
		`has(identity.claims.a.b)`, `identity.claims.groups[0]`, `identity.claims == identity.claims`, `[identity.claims.x][0].y`, `dyn(identity.claims.x).y`,
		`response.code`, `int(response.headers.a)`, `identity.claims.age + 1`, `string(identity.claims)`, `identity.claims.groups + identity.claims.absent`,
	} {
		f.Add(s, "x-tenant", "blue", "/a?b=c&b=%zz", []byte{10, 0, 0, 1})
	}
	f.Fuzz(func(t *testing.T, text, name, header, target string, ip []byte) {
		ex := exchange()
		ex.Request.Header.Add(name, header)
		ex.Request.Method, ex.Request.Host.Name = header, name
		ex.ClientIP, _ = netip.AddrFromSlice(ip)
		ex.Request.Target.Path, ex.Request.Target.Query, _ = strings.Cut(target, "?")
		known := identified()
		known.Identity.Claims[name], known.Identity.Labels[name], known.Identity.Subject = header, header, header
		for _, key := range []memoKey{{text, Bool, false}, {text, String, false}, {text, Bool, true}, {text, String, true}, {text, Int, true}} {
			p, problem := compile(key)
			if (p == nil) == (problem == nil) {
				t.Fatalf("%q: program %v, problem %v", text, p, problem)
			}
			if problem != nil {
				if problem.Line < 1 || problem.Column < 1 || problem.Message == "" || strings.ContainsAny(problem.Message, "\n\r") {
					t.Fatalf("%q: %#v", text, problem)
				}
				if _, err := remembered(key); !errors.As(err, new(*Error)) {
					t.Fatalf("%q: %#v", text, err)
				}
				continue
			}
			for _, ex := range []*message.Exchange{ex, known, {}} {
				holds, err1 := p.celHolds(ex)
				value, err2 := p.celAppend(nil, ex)
				count, err3 := p.celNumber(ex)
				if err3 == nil && (count < 0 || p.count != nil && p.count(ex) != count) {
					t.Fatalf("%q: CEL says %d", text, count)
				}
				if key.want == Bool && p.condition != nil && (err1 != nil || p.condition(ex) != holds) {
					t.Fatalf("%q: %v, CEL says %v, %v", text, p.condition(ex), holds, err1)
				}
				if key.want == String && p.part != nil && (err2 != nil || string(p.part.append(nil, ex)) != string(value)) {
					t.Fatalf("%q: %q, CEL says %q, %v", text, p.part.append(nil, ex), value, err2)
				}
			}
		}
	})
}
