package external

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	authpb "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func TestSettingsThatMakeNoSenseAreRefused(t *testing.T) {
	for want, c := range map[string]Config{
		"none of HTTP and GRPC":  {},
		"for protocol HTTP":      {Protocol: GRPC, Path: "/a"},
		"response headers are":   {Protocol: GRPC, AllowedResponseHeaders: []string{"X-A"}},
		"largest body":           {Protocol: HTTP, MaxBody: -1},
		"between 0 and":          {Protocol: HTTP, MaxBody: MaxMaxBody + 1},
		"negative":               {Protocol: HTTP, CacheFor: -1},
		"no name of a header":    {Protocol: HTTP, AllowedRequestHeaders: []string{"X A"}},
		"cannot be taken over":   {Protocol: HTTP, AllowedResponseHeaders: []string{"Host"}},
		"is Gatehouse's":         {Protocol: HTTP, AllowedResponseHeaders: []string{"x_forwarded_for"}},
		"path: it has a query":   {Protocol: HTTP, Path: "/a?b"},
		"normal form":            {Protocol: HTTP, Path: "/a/../b"},
		"path: the path has %2F": {Protocol: HTTP, Path: "/a%2fb"},
		"path: the target has a": {Protocol: HTTP, Path: "/a#b"},
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
		if _, err := c.Build(filter.Env{Call: func(snapshot.BackendRef) (filter.Caller, error) { return nil, nil }}); err == nil {
			t.Errorf("%+v was built", c)
		}
	}
	for path, want := range map[string]string{"": "", "/": "", "/a": "/a", "a/b/": "/a/b", "/a%20b": "/a%20b"} {
		if got, err := prefix(path); got != want || err != nil {
			t.Errorf("%q: %q, %v", path, got, err)
		}
	}
}

func TestAServiceThatCannotBeCalledIsNotBuilt(t *testing.T) {
	c := Config{Protocol: HTTP}
	if _, err := c.Build(filter.Env{}); err == nil {
		t.Error("without anybody who calls")
	}
	if _, err := c.Build(filter.Env{Call: func(snapshot.BackendRef) (filter.Caller, error) { return nil, errors.New("no such backend") }}); err == nil {
		t.Error("without a backend")
	}
}

// Two with the same text share what is remembered, so each field is in it.
func TestEachSettingIsInTheText(t *testing.T) {
	base := Config{Protocol: HTTP}
	seen := map[string]string{base.String(): "nothing"}
	for i := range reflect.TypeFor[Config]().NumField() {
		c := base
		f := reflect.ValueOf(&c).Elem().Field(i)
		switch f.Interface().(type) {
		case string, Protocol:
			f.SetString("x")
		case int, time.Duration:
			f.SetInt(7)
		case []string:
			f.Set(reflect.ValueOf([]string{"x", "y"}))
		case snapshot.BackendRef:
			f.Set(reflect.ValueOf(snapshot.BackendRef{Port: 7}))
		default:
			t.Fatalf("a field of type %s", f.Type())
		}
		name := reflect.TypeFor[Config]().Field(i).Name
		if other, ok := seen[c.String()]; ok {
			t.Errorf("%s shows like %s: %s", name, other, c)
		}
		seen[c.String()] = name
	}
	one, two := Config{AllowedRequestHeaders: []string{"a b"}}, Config{AllowedRequestHeaders: []string{"a", "b"}}
	if one.String() == two.String() {
		t.Error("a list shows like one of its kind")
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	c, now := newCache(), time.Unix(0, 0)
	key := func(i int) (f fingerprint) { binary.BigEndian.PutUint64(f[:], uint64(i)); return f }
	for i := range 10 * halfEntries {
		c.put(key(i), &allowed{size: 10}, now.Add(time.Minute), now)
		if c.get(key(0), now) == nil { // what is asked for all the time stays
			t.Fatal("forgotten at", i)
		}
	}
	if n := len(c.young) + len(c.old); n > 2*halfEntries {
		t.Errorf("%d are remembered", n)
	}
	for i := range 100 {
		c.put(key(i), &allowed{size: halfBytes / 10}, now.Add(time.Minute), now)
		if c.bytes > halfBytes+halfBytes/10 {
			t.Fatalf("%d bytes of %d", c.bytes, len(c.young))
		}
	}
	c.put(key(1), &allowed{}, now, now)
	c.put(key(-1), &allowed{}, now.Add(-time.Second), now)
	if c.get(key(-1), now) != nil {
		t.Error("remembered beyond its time")
	}
	if c.get(key(99), now.Add(time.Minute)) != nil {
		t.Error("an answer is used beyond its time")
	}
}

// canned is a caller that has its answer at hand.
type canned func(*message.Exchange)

func (c canned) Do(_ context.Context, ex *message.Exchange) error { c(ex); return nil }

func BenchmarkAuthenticate(b *testing.B) {
	check, err := proto.Marshal(&authpb.CheckResponse{Status: &statuspb.Status{}, HttpResponse: &authpb.CheckResponse_OkResponse{OkResponse: &authpb.OkHttpResponse{}}})
	if err != nil {
		b.Fatal(err)
	}
	frame := append([]byte{0, 0, 0, 0, byte(len(check))}, check...)
	answers := map[Protocol]canned{
		HTTP: func(ex *message.Exchange) {
			ex.Response = &message.Response{Status: 200, Header: message.NewHeader(message.Field{Name: "X-User", Value: "ada"})}
		},
		GRPC: func(ex *message.Exchange) {
			ex.Response = &message.Response{Status: 200, Header: message.NewHeader(message.Field{Name: "Content-Type", Value: "application/grpc"})}
			ex.Response.Body = message.NewBody(&withTrailer{rest: frame}, -1, nil)
		},
	}
	for _, c := range []Config{{Protocol: HTTP}, {Protocol: GRPC}, {Protocol: HTTP, CacheFor: time.Hour}, {Protocol: GRPC, CacheFor: time.Hour}} {
		name := string(c.Protocol)
		if c.CacheFor > 0 {
			name += " remembered"
		}
		b.Run(name, func(b *testing.B) {
			store := keep.New(time.Now)
			round := store.Begin()
			m, err := c.Build(filter.Env{Keep: round, Clock: time.Now, Call: func(snapshot.BackendRef) (filter.Caller, error) { return answers[c.Protocol], nil }})
			round.End()
			if err != nil {
				b.Fatal(err)
			}
			ex := &message.Exchange{ID: "7", ClientIP: netip.MustParseAddr("192.0.2.1"), Conn: &message.Conn{}}
			ex.Request.Method, ex.Request.Target.Path, ex.Request.Host.Raw = "GET", "/cart", "shop.example"
			for i := range 10 {
				ex.Request.Header.Add(fmt.Sprintf("X-Field-%d", i), "a value of some length")
			}
			ex.Request.Header.Add("Authorization", "Bearer 0123456789abcdef")
			b.ReportAllocs()
			for b.Loop() {
				if r := m.Authenticate(ex); r.Outcome != method.Accepted {
					b.Fatal(r.Detail)
				}
			}
		})
	}
}

// withTrailer is a body of gRPC's that went well.
type withTrailer struct{ rest []byte }

func (s *withTrailer) Next() ([]byte, error) {
	p := s.rest
	if s.rest = nil; p == nil {
		return nil, io.EOF
	}
	return p, nil
}
func (s *withTrailer) More() bool { return true }
func (s *withTrailer) Trailer() *message.Header {
	h := message.NewHeader(message.Field{Name: "Grpc-Status", Value: "0"})
	return &h
}
func (s *withTrailer) Abort(error) {}
