package admin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// pages are a filter's: "panic" panics, and all others say what they were asked.
type pages struct {
	done atomic.Int64
	last atomic.Value // the reason that the last one ended with
}

func (p *pages) Serve(ex *message.Exchange) {
	switch ex.Request.Target.Path {
	case "/filters/ratelimit/panic":
		panic("a bug")
	case "/filters/ratelimit/silent":
	default:
		ex.Response = message.Respond(message.OriginFilter, 200, "text/plain", ex.Request.Method+" "+ex.Request.Target.String())
		ex.Response.Header.Set("X-Filter", "ratelimit")
	}
}

func (p *pages) Done(ex *message.Exchange) {
	p.last.Store(ex.Outcome.Reason)
	p.done.Add(1)
}

func started(t *testing.T, o Options) (public, local string) {
	t.Helper()
	a, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := a.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	p, l := a.Addresses()
	if p != nil {
		public = p.String()
	}
	if l != nil {
		local = l.String()
	}
	return public, local
}

func everything(t *testing.T) (Options, *pages, *atomic.Pointer[error]) {
	t.Helper()
	tel, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, why := &pages{}, &atomic.Pointer[error]{}
	return Options{
		Public: "127.0.0.1:0", Local: "127.0.0.1:0", Telemetry: tel, Pprof: true, Hosts: []string{"metrics.example.com"},
		Ready: func() error {
			if e := why.Load(); e != nil {
				return *e
			}
			return nil
		},
		Snapshot: func() string { return "listener infra/gw/http :8080 HTTP\n" },
		Page: func(path string) message.Handler {
			if strings.HasPrefix(path, "ratelimit/") {
				return p
			}
			return nil
		},
	}, p, why
}

// ask sends a request with these field lines ("Name: value"); Host is the address unless given.
func ask(t *testing.T, address, method, path string, fields ...string) (int, http.Header, string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	host := "Host: " + address
	if len(fields) > 0 && strings.HasPrefix(fields[0], "Host:") {
		host, fields = fields[0], fields[1:]
	}
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\n%s\r\nConnection: close\r\n", method, path, host)
	for _, f := range fields {
		fmt.Fprintf(c, "%s\r\n", f)
	}
	fmt.Fprint(c, "\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(body)
}

func TestEachPortServesItsPagesAndNothingElse(t *testing.T) {
	o, _, _ := everything(t)
	public, local := started(t, o)
	for _, c := range []struct {
		port, path string
		status     int
		says       string
	}{
		{public, "/healthz", 200, "ok"},
		{public, "/readyz", 200, "ok"},
		{public, "/metrics", 200, "gatehouse_build_info"},
		{public, "/snapshot", 404, ""},
		{public, "/filters/ratelimit/x", 404, ""},
		{public, "/debug/pprof/heap", 404, ""},
		{public, "/debug/pprof/", 404, ""},
		{public, "/debug/vars", 404, ""},
		{public, "/", 404, ""},
		{public, "/metrics/", 404, ""},
		{local, "/snapshot", 200, "listener infra/gw/http"},
		{local, "/filters/ratelimit/x?a=b", 200, "GET /filters/ratelimit/x?a=b"},
		{local, "/filters/cors/x", 404, ""},
		{local, "/filters/", 404, ""},
		{local, "/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{local, "/debug/pprof/cmdline", 404, ""},
		{local, "/debug/pprof/", 404, ""},
		{local, "/metrics", 404, ""},
		{local, "/", 404, ""},
	} {
		status, head, body := ask(t, c.port, "GET", c.path)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %q, want %d %q", c.path, status, body, c.status, c.says)
		}
		if head.Get("X-Content-Type-Options") != "nosniff" || head.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: without the fields that keep browsers from interpreting it: %v", c.path, head)
		}
	}
}

func TestOnlyGETIsAnswered(t *testing.T) {
	o, _, _ := everything(t)
	public, local := started(t, o)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "JUNK"} {
		for port, path := range map[string]string{public: "/metrics", local: "/snapshot"} {
			if status, head, _ := ask(t, port, method, path, "Content-Length: 0"); status != 405 || head.Get("Allow") != "GET" {
				t.Errorf("%s %s: %d", method, path, status)
			}
		}
	}
}

func TestABrowserIsNoWayIn(t *testing.T) {
	o, _, _ := everything(t)
	public, local := started(t, o)
	for _, c := range []struct {
		sentence, port, path string
		fields               []string
		status               int
	}{
		{"a page of somebody else", local, "/snapshot", []string{"Origin: http://evil.example"}, 403},
		{"the same on the other port", public, "/healthz", []string{"Origin: null"}, 403},
		{"a link from somewhere else", local, "/snapshot", []string{"Sec-Fetch-Site: cross-site"}, 403},
		{"typed by hand", local, "/snapshot", []string{"Sec-Fetch-Site: none"}, 200},
		{"DNS rebinding", local, "/snapshot", []string{"Host: evil.example"}, 403},
		{"DNS rebinding of metrics", public, "/metrics", []string{"Host: evil.example:8081"}, 403},
		{"a name that looks like a Service's", public, "/metrics", []string{"Host: x.svc.evil.example"}, 403},
		{"no host at all", local, "/snapshot", []string{"Host: "}, 403},
		{"a balancer asks for health by any name", public, "/readyz", []string{"Host: lb.example"}, 200},
		{"by the name of the Service", public, "/metrics", []string{"Host: gatehouse-metrics.gatehouse.svc:8081"}, 200},
		{"by a name that was allowed", public, "/metrics", []string{"Host: METRICS.example.com"}, 200},
		{"localhost", local, "/snapshot", []string{"Host: localhost:8082"}, 200},
		{"by an IPv6 address", public, "/metrics", []string{"Host: [fd00::1]:8081"}, 200},
	} {
		if status, _, _ := ask(t, c.port, "GET", c.path, c.fields...); status != c.status {
			t.Errorf("%s: %d, want %d", c.sentence, status, c.status)
		}
	}
}

func TestReadySaysWhyNot(t *testing.T) {
	o, _, why := everything(t)
	public, _ := started(t, o)
	err := errors.New("shutting down")
	why.Store(&err)
	if status, _, body := ask(t, public, "GET", "/readyz"); status != 503 || body != "shutting down\n" {
		t.Errorf("%d %q", status, body)
	}
	if status, _, _ := ask(t, public, "GET", "/healthz"); status != 200 {
		t.Error("what is not ready is dead")
	}
}

func TestAPageOfAFilterEndsOnceWhateverHappens(t *testing.T) {
	o, p, _ := everything(t)
	_, local := started(t, o)
	if status, head, _ := ask(t, local, "GET", "/filters/ratelimit/x"); status != 200 || head.Get("X-Filter") != "ratelimit" {
		t.Errorf("%d %v", status, head)
	}
	for path, want := range map[string]message.Reason{"panic": message.ReasonPanic, "silent": message.ReasonInternal} {
		if status, _, _ := ask(t, local, "GET", "/filters/ratelimit/"+path); status != 500 || p.last.Load() != want {
			t.Errorf("%s: %d, %v", path, status, p.last.Load())
		}
	}
	if got := p.done.Load(); got != 3 {
		t.Errorf("Done ran %d times for 3 pages", got)
	}
}

func TestTheInsideIsForThisMachine(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		if a, err := Start(Options{Public: "127.0.0.1:0", Local: address}); err == nil {
			a.Shutdown(t.Context())
			t.Errorf("%s is taken", address)
		} else if !strings.Contains(err.Error(), "not a loopback address") {
			t.Error(err)
		}
	}
	_, local := started(t, Options{Local: "0.0.0.0:0", AnyAddress: true, Snapshot: func() string { return "x" }})
	_, port, _ := net.SplitHostPort(local)
	if status, _, _ := ask(t, "127.0.0.1:"+port, "GET", "/snapshot"); status != 200 {
		t.Errorf("told to, and yet %d", status)
	}
}

func TestProfilesAreThereOnlyWhenAsked(t *testing.T) {
	o, _, _ := everything(t)
	_, local := started(t, o)
	for _, path := range []string{"/debug/pprof/heap", "/debug/pprof/profile?seconds=0.05", "/debug/pprof/trace?seconds=0.05"} {
		status, _, body := ask(t, local, "GET", path)
		if status != 200 || len(body) < 10 {
			t.Errorf("%s: %d, %d bytes", path, status, len(body))
		}
		if strings.Contains(path, "heap") && !bytes.HasPrefix([]byte(body), []byte{0x1f, 0x8b}) {
			t.Errorf("%s is not what pprof reads", path)
		}
	}
	o.Pprof = false
	_, local = started(t, o)
	if status, _, _ := ask(t, local, "GET", "/debug/pprof/heap"); status != 404 {
		t.Errorf("profiles are there: %d", status)
	}
}

func TestAnAddressThatIsTakenIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Start(Options{Public: l.Addr().String()}); err == nil || !strings.Contains(err.Error(), "health and metrics") {
		t.Error(err)
	}
	if _, err := Start(Options{Public: "127.0.0.1:0", Local: l.Addr().String()}); err == nil || !strings.Contains(err.Error(), "admin port") {
		t.Error(err)
	}
}
