package external_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	authpb "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// A service that judges uploads by their size must not be asked about a small one, and be taken at its word for a large one.
func TestAttackALargeBodyBehindARememberedSmallOne(t *testing.T) {
	var mu sync.Mutex
	var sizes []int64
	c := overGRPC()
	c.CacheFor = 10 * time.Second
	h := newHouse(t, serveGRPC(t, func(_ context.Context, r *authpb.CheckRequest) (*authpb.CheckResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		sizes = append(sizes, r.Attributes.Request.Http.Size)
		return yes(nil), nil
	}), c)
	h.ask("POST", "/", "x")
	h.ask("POST", "/", strings.Repeat("x", 5000))
	h.ask("POST", "/", "y")
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(sizes) != "[1 5000]" {
		t.Errorf("told the sizes %v", sizes)
	}
}

// A service that knows hosts as they are usually written must not be told of admin.example as of a host that it does not know (threats 14).
func TestAttackAHostInAnotherSpelling(t *testing.T) {
	var s record
	overHTTP := newHouse(t, serve(t, s.handler(func(http.ResponseWriter, *http.Request) {})), overHTTP())
	told := ""
	overEnvoy := newHouse(t, serveGRPC(t, func(_ context.Context, r *authpb.CheckRequest) (*authpb.CheckResponse, error) {
		told = r.Attributes.Request.Http.Host + " " + r.Attributes.Request.Http.Headers["x-forwarded-host"]
		return yes(nil), nil
	}), overGRPC())
	for host, want := range map[string]string{
		"admin.example": "admin.example", "ADMIN.example": "admin.example", "admin.example.": "admin.example", "Admin.Example.:8080": "admin.example:8080",
		"[2001:DB8:0::1]": "[2001:db8::1]", "[2001:DB8:0::1]:080": "[2001:db8::1]:80",
	} {
		if res, _ := overHTTP.askHost(host); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
		if got := s.last.Host + " " + s.last.Header.Get("X-Forwarded-Host"); got != want+" "+want {
			t.Errorf("%s: over HTTP the service is told of %s", host, got)
		}
		if res, _ := overEnvoy.askHost(host); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
		if told != want+" "+want {
			t.Errorf("%s: over gRPC the service is told of %s", host, told)
		}
	}
	_, r, _ := overHTTP.reached()
	if r.Host == "" || r.Host != r.Header.Get("X-Forwarded-Host") {
		t.Errorf("the backend gets %s, and %s as what was asked for", r.Host, r.Header.Get("X-Forwarded-Host"))
	}
}

// Which of two a service looks at, and which of them the backend, nobody knows.
func TestAttackDuplicatedAuthorizationHeaders(t *testing.T) {
	var s record
	h := newHouse(t, serve(t, s.handler(func(http.ResponseWriter, *http.Request) {})), overHTTP())
	told := 0
	g := newHouse(t, serveGRPC(t, func(context.Context, *authpb.CheckRequest) (*authpb.CheckResponse, error) {
		told++
		return yes(nil), nil
	}), overGRPC())
	for _, at := range []*house{h, g} {
		if res, _ := at.ask("GET", "/", "", "Authorization", "Bearer mine", "authorization", "Bearer another's"); res.StatusCode != 403 {
			t.Error(res.Status)
		}
		if n, _, _ := at.reached(); n != 0 {
			t.Errorf("%d requests reached the backend", n)
		}
		if res, _ := at.ask("GET", "/", "", "Authorization", "Bearer mine"); res.StatusCode != 200 {
			t.Error(res.Status)
		}
	}
	if s.count() != 1 || told != 1 {
		t.Errorf("asked %d and %d times", s.count(), told)
	}
}
