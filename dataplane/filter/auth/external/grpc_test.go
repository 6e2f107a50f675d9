package external_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authpb "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/external"
)

func overGRPC() external.Config {
	return external.Config{Name: "check", Protocol: external.GRPC, Timeout: 2 * time.Second}
}

// yes is an answer that allows.
func yes(change func(*authpb.OkHttpResponse)) *authpb.CheckResponse {
	ok := &authpb.OkHttpResponse{}
	if change != nil {
		change(ok)
	}
	return &authpb.CheckResponse{Status: &statuspb.Status{}, HttpResponse: &authpb.CheckResponse_OkResponse{OkResponse: ok}}
}

// no is one that denies.
func no(code typepb.StatusCode, body string, headers ...*core.HeaderValueOption) *authpb.CheckResponse {
	return &authpb.CheckResponse{
		Status: &statuspb.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authpb.CheckResponse_DeniedResponse{DeniedResponse: &authpb.DeniedHttpResponse{
			Status: &typepb.HttpStatus{Code: code}, Headers: headers, Body: body,
		}},
	}
}

func header(name, value string) *core.HeaderValueOption {
	return &core.HeaderValueOption{Header: &core.HeaderValue{Key: name, Value: value}}
}

func appended(name, value string) *core.HeaderValueOption {
	o := header(name, value)
	//lint:ignore SA1019 deprecated, and what services set
	o.Append = wrapperspb.Bool(true)
	return o
}

func by(action core.HeaderValueOption_HeaderAppendAction, name, value string) *core.HeaderValueOption {
	o := header(name, value)
	o.AppendAction = action
	return o
}

func constant(r *authpb.CheckResponse, err error) check {
	return func(context.Context, *authpb.CheckRequest) (*authpb.CheckResponse, error) { return r, err }
}

func TestAnEnvoyServiceIsToldTheAttributesOfTheRequest(t *testing.T) {
	var mu sync.Mutex
	var told *authpb.AttributeContext
	for _, all := range []bool{true, false} {
		c := overGRPC()
		c.MaxBody = 100
		if !all {
			c.AllowedRequestHeaders = []string{"x-tenant"}
		}
		h := newHouse(t, serveGRPC(t, func(_ context.Context, r *authpb.CheckRequest) (*authpb.CheckResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			told = r.Attributes
			return yes(nil), nil
		}), c)
		res, _ := h.ask("POST", "/a//b?x=%zz", "h\xffllo", "Authorization", "Bearer t", "Cookie", "a=1", "Cookie", "b=2",
			"X-Tenant", "one", "X-Tenant", "two\xff", "X-Forwarded-For", "6.6.6.6")
		mu.Lock()
		r := told.Request.Http
		if res.StatusCode != 200 || r.Method != "POST" || r.Path != "/a/b?x=%zz" || r.Host != "shop.example" || r.Scheme != "http" || r.Protocol != "HTTP/1.1" ||
			r.Id == "" || r.Size != 5 || string(r.RawBody) != "h\xffllo" || r.Body != "" || told.Request.Time == nil {
			t.Errorf("%d, told %v", res.StatusCode, told)
		}
		if a := told.Source.Address.GetSocketAddress(); a.Address != "127.0.0.1" || a.GetPortValue() == 0 || told.Destination.Address.GetSocketAddress().GetPortValue() == 0 {
			t.Errorf("addresses %v, %v", told.Source, told.Destination)
		}
		want := "one,two!"
		if r.Headers["x-tenant"] != want {
			t.Errorf("x-tenant %q, want %q", r.Headers["x-tenant"], want)
		}
		if all && (r.Headers["cookie"] != "a=1; b=2" || r.Headers["authorization"] != "Bearer t" || r.Headers["x-forwarded-for"] != "127.0.0.1") ||
			!all && len(r.Headers) != 1 {
			t.Errorf("all %v: told %v", all, r.Headers)
		}
		mu.Unlock()
	}
	c := overGRPC()
	c.MaxBody = 4
	h := newHouse(t, serveGRPC(t, constant(yes(nil), nil)), c)
	if res, _ := h.ask("POST", "/", "hello"); res.StatusCode != 413 {
		t.Errorf("a body over the limit: %d", res.StatusCode)
	}
}

func TestAnEnvoyServiceChangesTheRequestAndTheAnswer(t *testing.T) {
	answer := yes(func(ok *authpb.OkHttpResponse) {
		ok.Headers = []*core.HeaderValueOption{
			header("X-User", "ada"), appended("X-Trail", "authz"), by(core.HeaderValueOption_ADD_IF_ABSENT, "X-There", "new"),
			by(core.HeaderValueOption_ADD_IF_ABSENT, "X-Absent", "new"), by(core.HeaderValueOption_OVERWRITE_IF_EXISTS, "X-There", "over"),
			by(core.HeaderValueOption_OVERWRITE_IF_EXISTS, "X-Nowhere", "over"), by(core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, "X-Or", "or"),
			{Header: &core.HeaderValue{Key: "X-Raw", RawValue: []byte("raw")}},
			header("Host", "evil.example"), header(":path", "/evil"), header("Content-Length", "0"), header("X-Forwarded-For", "6.6.6.6"),
			header("x_forwarded_proto", "https"), header("Transfer-Encoding", "chunked"),
		}
		ok.HeadersToRemove = []string{"authorization", "Host", ":method", "X-Forwarded-For", "x-secret"}
		ok.QueryParametersToSet = []*core.QueryParameter{{Key: "user", Value: "a&b=c d"}, {Key: "new", Value: "1"}}
		ok.QueryParametersToRemove = []string{"token"}
		ok.ResponseHeadersToAdd = []*core.HeaderValueOption{
			header("X-Checked", "yes"), appended("Set-Cookie", "a=1"), appended("Set-Cookie", "b=2"), header("Content-Length", "3"), header("Connection", "close"),
		}
	})
	metadata, err := structpb.NewStruct(map[string]any{"sub": "ada@example", "groups": []any{"ops"}})
	if err != nil {
		t.Fatal(err)
	}
	answer.DynamicMetadata = metadata
	h := newHouse(t, serveGRPC(t, constant(answer, nil)), overGRPC())
	res, body := h.ask("GET", "/a?x=%7e&token=1&t%6fken=2&user=root&z&%zz", "",
		"Authorization", "Bearer t", "X_Secret", "1", "x_user", "root", "X-Trail", "client", "X-There", "old")
	_, r, _ := h.reached()
	if res.StatusCode != 200 || body != "let in" {
		t.Fatal(res.Status, body)
	}
	if r.Host != "shop.example" || r.RequestURI != "/a?x=%7e&z&%zz&user="+url.QueryEscape("a&b=c d")+"&new=1" {
		t.Errorf("the backend was asked for %s at %s", r.RequestURI, r.Host)
	}
	got := r.Header
	if s := fmt.Sprint(got["X-User"], got["X_user"], got["X-Trail"], got["X-There"], got["X-Absent"], got["X-Nowhere"], got["X-Or"], got["X-Raw"], got["Authorization"],
		got["X_secret"], got["X-Forwarded-For"], got["X-Forwarded-Proto"], got["X-Subject"]); s !=
		"[ada] [] [client authz] [over] [new] [] [or] [raw] [] [] [127.0.0.1] [http] [ada@example]" {
		t.Errorf("the backend got %s\n%v", s, got)
	}
	if s := fmt.Sprint(res.Header["X-Checked"], res.Header["Set-Cookie"]); s != "[yes] [a=1 b=2]" || res.ContentLength != int64(len("let in")) {
		t.Errorf("the client got %v", res.Header)
	}
}

func TestAnEnvoyServiceDenies(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer *authpb.CheckResponse
		status int
		body   string
	}{
		{"with a status alone", &authpb.CheckResponse{Status: &statuspb.Status{Code: 16}}, 403, "not allowed\n"},
		{"with nothing of HTTP's", no(0, ""), 403, "not allowed\n"},
		{"with 401", no(401, "who?", header("WWW-Authenticate", "Basic"), header("Set-Cookie", "a=1"), header("Set-Cookie", "b=2"), header("Content-Length", "99"), header("Server", "x")), 401, "who?"},
		{"with a redirect", no(302, "", header("Location", "https://login.example/")), 302, ""},
		{"with 200", no(200, "a page"), 200, "a page"},
		{"with 503", no(503, "later"), 503, "later"},
		{"with a status that is none", no(7, "odd"), 403, "odd"},
		{"with 100", no(100, "odd"), 403, "odd"},
		{"and says OK", func() *authpb.CheckResponse { r := no(401, "who?"); r.Status = &statuspb.Status{}; return r }(), 401, "who?"},
		{"beside a response that allows", func() *authpb.CheckResponse { r := yes(nil); r.Status.Code = 7; return r }(), 403, "not allowed\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, serveGRPC(t, constant(c.answer, nil)), overGRPC())
			res, body := h.ask("GET", "/", "")
			if n, _, _ := h.reached(); res.StatusCode != c.status || body != c.body || n != 0 {
				t.Errorf("%d %q, %d requests reached the backend", res.StatusCode, body, n)
			}
			if c.status == 401 && c.name == "with 401" && (len(res.Header["Set-Cookie"]) != 2 || res.Header.Get("Server") != "" || res.Header.Get("Www-Authenticate") != "Basic") {
				t.Errorf("fields %v", res.Header)
			}
		})
	}
}

func TestAnEnvoyServiceThatIsDownSlowBrokenOrTalkativeLetsNobodyIn(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		name    string
		service func(testing.TB) string
	}{
		{"down", nobody},
		{"slow", func(t testing.TB) string {
			return serveGRPC(t, func(context.Context, *authpb.CheckRequest) (*authpb.CheckResponse, error) {
				<-t.Context().Done() // not the call's: its yes at the last moment may come in time
				return yes(nil), nil
			})
		}},
		{"an error", func(t testing.TB) string {
			return serveGRPC(t, constant(nil, status.Error(codes.PermissionDenied, "no")))
		}},
		{"a panic's error", func(t testing.TB) string { return serveGRPC(t, constant(nil, status.Error(codes.Internal, "panic"))) }},
		{"an answer that says nothing", func(t testing.TB) string { return serveGRPC(t, constant(&authpb.CheckResponse{}, nil)) }},
		{"an error of its own", func(t testing.TB) string {
			return serveGRPC(t, constant(&authpb.CheckResponse{Status: &statuspb.Status{}, HttpResponse: &authpb.CheckResponse_ErrorResponse{}}, nil))
		}},
		{"a field that cannot be sent", func(t testing.TB) string {
			return serveGRPC(t, constant(yes(func(ok *authpb.OkHttpResponse) {
				ok.Headers = []*core.HeaderValueOption{header("X-A", "b\r\nX-Evil: 1")}
			}), nil))
		}},
		{"a name that is none", func(t testing.TB) string {
			return serveGRPC(t, constant(yes(func(ok *authpb.OkHttpResponse) {
				ok.ResponseHeadersToAdd = []*core.HeaderValueOption{header("X A", "b")}
			}), nil))
		}},
		{"a denial that cannot be sent", func(t testing.TB) string { return serveGRPC(t, constant(no(401, "", header("X-A", "b\nc")), nil)) }},
		{"too much", func(t testing.TB) string {
			return serveGRPC(t, constant(yes(func(ok *authpb.OkHttpResponse) { ok.Headers = []*core.HeaderValueOption{header("X-A", big)} }), nil))
		}},
		{"too many fields", func(t testing.TB) string {
			return serveGRPC(t, constant(yes(func(ok *authpb.OkHttpResponse) {
				for i := range 1000 {
					ok.Headers = append(ok.Headers, header(fmt.Sprint("X-", i), "b"))
				}
			}), nil))
		}},
		{"a denial of a megabyte", func(t testing.TB) string { return serveGRPC(t, constant(no(403, big), nil)) }},
		{"a gigabyte", func(t testing.TB) string {
			return cleartext2(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				w.Write([]byte{0, 0x40, 0, 0, 0})
				for range 1 << 10 {
					if _, err := io.WriteString(w, big); err != nil {
						return
					}
				}
			})
		}},
		{"a web server", func(t testing.TB) string { return serve(t, func(http.ResponseWriter, *http.Request) {}) }},
		{"a web server of HTTP/2", func(t testing.TB) string { return cleartext2(t, func(http.ResponseWriter, *http.Request) {}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := overGRPC()
			config.Timeout = 300 * time.Millisecond
			h := newHouse(t, c.service(t), config)
			res, _ := h.ask("GET", "/", "")
			if n, _, _ := h.reached(); res.StatusCode != 503 || n != 0 {
				t.Errorf("the client got %d, %d requests reached the backend", res.StatusCode, n)
			}
		})
	}
}

func cleartext2(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

func TestAnAllowOfAnEnvoyServiceIsRemembered(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	c := overGRPC()
	c.CacheFor, c.AllowedRequestHeaders = 10*time.Second, []string{"x-tenant", "x-request-id"}
	h := newHouse(t, serveGRPC(t, func(context.Context, *authpb.CheckRequest) (*authpb.CheckResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return yes(func(ok *authpb.OkHttpResponse) { ok.Headers = []*core.HeaderValueOption{header("X-User", "ada")} }), nil
	}), c)
	for range 3 { // each has an id, a time and a port of its own
		h.ask("GET", "/", "", "X-Tenant", "one")
	}
	h.ask("GET", "/", "", "X-Tenant", "two")
	n, r, _ := h.reached()
	if asked != 2 || n != 4 || r.Header.Get("X-User") != "ada" {
		t.Errorf("asked %d times for %d requests: %v", asked, n, r.Header)
	}
}

func TestASubjectIsNamedByMetadataOrByAHeader(t *testing.T) {
	for _, c := range []struct {
		name, subject string
		metadata      map[string]any
		headers       []*core.HeaderValueOption
		want          string
	}{
		{"nothing", "", nil, nil, ""},
		{"a header that nobody named", "", nil, []*core.HeaderValueOption{header("X-User", "ada")}, ""},
		{"a header", "x-user", nil, []*core.HeaderValueOption{header("X-User", "ada")}, "ada"},
		{"subject before sub", "", map[string]any{"subject": "ada", "sub": "bob"}, nil, "ada"},
		{"sub", "", map[string]any{"sub": "bob"}, nil, "bob"},
		{"a key of the metadata", "login", map[string]any{"login": "eve", "sub": "bob"}, nil, "eve"},
		{"a key that is not there", "login", map[string]any{"sub": "bob"}, nil, "external"},
		{"no text", "", map[string]any{"sub": 7}, nil, "external"},
		{"claims of nobody", "", map[string]any{"tier": "gold"}, nil, "external"},
	} {
		answer := yes(func(ok *authpb.OkHttpResponse) { ok.Headers = c.headers })
		if c.metadata != nil {
			answer.DynamicMetadata, _ = structpb.NewStruct(c.metadata)
		}
		config := overGRPC()
		config.Subject = c.subject
		h := newHouse(t, serveGRPC(t, constant(answer, nil)), config)
		res, _ := h.ask("GET", "/", "", "X-Subject", "root")
		if _, r, _ := h.reached(); res.StatusCode != 200 || r.Header.Get("X-Subject") != c.want {
			t.Errorf("%s: %d, subject %q, want %q", c.name, res.StatusCode, r.Header.Get("X-Subject"), c.want)
		}
	}
}
