package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// page is a log that can be read while it is written.
type page struct {
	mu   sync.Mutex
	text bytes.Buffer
	err  error
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func logging(t *testing.T, o Options) *Telemetry {
	t.Helper()
	tel, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := tel.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return tel
}

// logged runs exchanges through Begin, change and End, and returns the lines.
func logged(t *testing.T, o Options, change func(*message.Exchange), exchanges ...*message.Exchange) []map[string]any {
	t.Helper()
	var to page
	o.Log = &to
	tel, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, ex := range exchanges {
		tel.Begin(ex)
		if change != nil {
			change(ex)
		}
		tel.End(ex)
	}
	if err := tel.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var out []map[string]any
	for line := range strings.Lines(to.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		out = append(out, m)
	}
	return out
}

func TestALineSaysWhatHappened(t *testing.T) {
	now := time.Unix(1_700_000_000, 123_456_789)
	ex := exchange(now, nil)
	ex.Request.Header.Add("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	ex.Note("ratelimit", "first")
	ex.Note("ratelimit", "shadow:per-client")
	got := logged(t, Options{Clock: func() time.Time { return now }}, func(ex *message.Exchange) {
		// What filters make of the request is not what the client sent.
		ex.Request.Host.Raw, ex.Request.Target.Raw, ex.Request.Method = "inner", "/rewritten", "POST"
	}, ex)
	want := []map[string]any{{
		"time": "2023-11-14T22:13:20.103456Z", "id": "r-1", "client": "192.0.2.7", "peer": "192.0.2.7:4711", "method": "GET",
		"scheme": "https", "host": "shop.example.com", "path": "/cart", "query": "id=7&access_token=REDACTED", "version": "HTTP/2",
		"status": 200.0, "origin": "upstream", "route": "HTTPRoute shop/cart rule 0", "backend": "shop/cart:8080",
		"upstream": "10.0.0.1:8080", "attempts": 1.0, "bytes_in": 3.0, "bytes_out": 100.0, "duration_ms": 20.0, "user_agent": "curl/8",
		"trace": "0af7651916cd43dd8448eb211c80319c", "tls": "1.3", "sni": "shop.example.com",
		"notes": map[string]any{"ratelimit": "shadow:per-client"},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAFailureSaysWhyAndFromWhom(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	at := func(response *message.Response, outcome message.Outcome) *message.Exchange {
		return &message.Exchange{Response: response, Outcome: outcome, Received: now}
	}
	for _, c := range []struct {
		sentence                       string
		ex                             *message.Exchange
		status                         float64
		reason, detail, origin, absent any
	}{
		{"the proxy answered", at(&message.Response{Status: 503, Origin: message.OriginProxy, Reason: message.ReasonNoEndpoint, Detail: "none of 3"}, message.Outcome{}),
			503, "no_endpoint", "none of 3", "gateway", nil},
		{"the answer broke off", at(&message.Response{Status: 200}, message.Outcome{Reason: message.ReasonResponseTruncated, Err: errors.New("reset")}),
			200, "response_truncated", "reset", "upstream", nil},
		{"the client left before an answer", at(nil, message.Outcome{Reason: message.ReasonClientLeft}), 499, "client_left", nil, nil, nil},
		{"a handler without an answer", at(nil, message.Outcome{}), 500, nil, nil, nil, nil},
	} {
		got := logged(t, Options{Clock: func() time.Time { return now }}, nil, c.ex)[0]
		for k, want := range map[string]any{"status": c.status, "reason": c.reason, "detail": c.detail, "origin": c.origin} {
			if got[k] != want {
				t.Errorf("%s: %s is %v, want %v", c.sentence, k, got[k], want)
			}
		}
	}
}

func TestCredentialsAreNeverLogged(t *testing.T) {
	now := time.Now()
	var to page
	tel := logging(t, Options{Log: &to})
	for _, query := range []string{
		"access_token=hunter2", "a=1&ACCESS_TOKEN=hunter2&b=2", "acc%65ss_token=hunter2", "x=1;api_key=hunter2", "sig=hunter2&sig=hunter2",
		"token=hunter2=hunter2",
	} {
		ex := exchange(now, nil)
		ex.Request.Target.Raw = "/x?" + query
		tel.Begin(ex)
		tel.End(ex)
	}
	if err := tel.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(to.String(), "\n"); n != 6 {
		t.Errorf("%d lines, want 6", n)
	}
	if strings.Contains(to.String(), "hunter2") {
		t.Errorf("logged: %s", to.String())
	}
	if !strings.Contains(to.String(), `"query":"a=1&ACCESS_TOKEN=REDACTED&b=2"`) {
		t.Errorf("what is no credential is hidden too: %s", to.String())
	}
}

// Where a policy looks for a key is not in any list that we could know before.
func TestAParameterInWhichAPolicyLooksForACredentialIsNeverLogged(t *testing.T) {
	ex := exchange(time.Now(), nil)
	ex.Request.Target.Raw = "/x?a=1&Partner=hunter2&par%74ner=hunter2&my+key=hunter2&partner2=seen"
	ex.HiddenQuery = []string{"partner", "my key"}
	got := logged(t, Options{}, nil, ex)[0]["query"]
	if want := "a=1&Partner=REDACTED&par%74ner=REDACTED&my+key=REDACTED&partner2=seen"; got != want {
		t.Errorf("logged %v, want %s", got, want)
	}
}

func TestALineSaysWhoTheClientHasProvenToBe(t *testing.T) {
	ex := exchange(time.Now(), nil)
	ex.Identity = &message.Identity{Subject: "bo\nb", Policy: "shop/api", Method: "partners"}
	got := logged(t, Options{}, nil, ex)[0]
	if got["subject"] != "bo\nb" || got["auth_policy"] != "shop/api" || got["auth_method"] != "partners" {
		t.Errorf("%v", got)
	}
}

func TestQueriesCanBeLeftOut(t *testing.T) {
	got := logged(t, Options{HideQuery: true}, nil, exchange(time.Now(), nil))
	if _, has := got[0]["query"]; has || got[0]["path"] != "/cart" {
		t.Errorf("%v", got[0])
	}
}

func TestALongFieldIsCutAtACharacter(t *testing.T) {
	ex := exchange(time.Now(), nil)
	ex.Request.Header.Set("User-Agent", strings.Repeat("ü", 3000))
	ua := logged(t, Options{MaxField: 101}, nil, ex)[0]["user_agent"]
	if ua != strings.Repeat("ü", 50)+"…" {
		t.Errorf("user agent %q", ua)
	}
}

// FuzzALogLineIsOneJSONObjectWhateverAClientSends has encoding/json as its judge (threats 40).
func FuzzALogLineIsOneJSONObjectWhateverAClientSends(f *testing.F) {
	for _, s := range []string{
		"", "a", "\n\",\"x\":\"", "\x1b[31m", "\xff\xfe", "\u202e\u009b", "\U000e0001", "\u2028", "\\", "\x7f", strings.Repeat("é", 70), "\xed\xa0\x80", "\ufffd",
	} {
		f.Add(s, "k", s)
	}
	f.Fuzz(func(t *testing.T, s, key, note string) {
		ex := exchange(time.Now(), nil)
		ex.Request.Method, ex.Request.Host.Raw, ex.Request.Target.Raw = s, s, s
		ex.Conn.TLS.ServerName, ex.ID = s, s
		ex.Request.Header.Set("User-Agent", s)
		ex.Note(key, note)
		const most = 128
		d := ending{ex: ex, method: s, host: s, target: s, scheme: s}
		line := lineStyle{maxField: most}.append(nil, &d)

		if !json.Valid(line) || !utf8.Valid(line) || bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("not one line of JSON: %q", line)
		}
		for _, r := range strings.TrimSuffix(string(line), "\n") {
			if !unicode.IsPrint(r) {
				t.Fatalf("%U does not print in %q", r, line)
			}
		}
		var got struct {
			Method string            `json:"method"`
			Agent  string            `json:"user_agent"`
			Notes  map[string]string `json:"notes"`
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		for _, have := range []struct{ in, out string }{{s, got.Method}, {s, got.Agent}} {
			if len(have.in) <= most && have.out != escapedBytes(have.in) {
				t.Errorf("%q became %q", have.in, have.out)
			}
		}
		if len(got.Notes) != 1 {
			t.Errorf("notes %v", got.Notes)
		}
	})
}

// escapedBytes replaces each byte that is not UTF-8.
func escapedBytes(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(r)
	}
	return b.String()
}

// stuck is a log whose reader has stopped.
type stuck struct{ free chan struct{} }

func (s stuck) Write(b []byte) (int, error) {
	<-s.free
	return len(b), nil
}

func TestALogThatIsStuckHoldsNobodyAndDrops(t *testing.T) {
	to := stuck{make(chan struct{})}
	tel, err := New(Options{Log: to, LogQueue: 8})
	if err != nil {
		t.Fatal(err)
	}
	const n = 3000 // more than a flush and the queue take
	for range n {
		ex := exchange(time.Now(), nil)
		tel.Begin(ex)
		tel.End(ex)
	}
	if value(t, tel, "gatehouse_access_log_dropped_lines_total") == 0 {
		t.Error("nothing was dropped")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tel.Close(ctx); err == nil {
		t.Error("Close waited for a stuck log")
	}
	close(to.free)
	if err := tel.Close(t.Context()); err != nil {
		t.Error(err)
	}
	written, dropped := value(t, tel, "gatehouse_access_log_lines_total"), value(t, tel, "gatehouse_access_log_dropped_lines_total")
	if written+dropped != n {
		t.Errorf("%v written and %v dropped, of %d", written, dropped, n)
	}
}

func TestALineIsWrittenWithinASecondOrSo(t *testing.T) {
	var to page
	tel := logging(t, Options{Log: &to})
	ex := exchange(time.Now(), nil)
	tel.Begin(ex)
	tel.End(ex)
	for deadline := time.Now().Add(5 * time.Second); to.String() == ""; {
		if time.Now().After(deadline) {
			t.Fatal("no line after five seconds")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestLinesThatCannotBeWrittenAreCounted(t *testing.T) {
	tel, err := New(Options{Log: &page{err: errors.New("no space left")}})
	if err != nil {
		t.Fatal(err)
	}
	ex := exchange(time.Now(), nil)
	tel.Begin(ex)
	tel.End(ex)
	if err := tel.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := value(t, tel, "gatehouse_access_log_dropped_lines_total"); got != 1 {
		t.Errorf("%v dropped", got)
	}
}

func TestLoggingAllocatesAlmostNothing(t *testing.T) {
	tel, err := New(Options{Log: &page{}, HideQuery: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close(t.Context())
	ex := exchange(time.Now(), nil)
	// The writer gives lines back when it runs.
	if got := testing.AllocsPerRun(500, func() { tel.Begin(ex); tel.End(ex); runtime.Gosched() }); got > 1 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkAnExchangeCountedAndLogged(b *testing.B) {
	tel, err := New(Options{Log: nowhere{}})
	if err != nil {
		b.Fatal(err)
	}
	defer tel.Close(b.Context())
	r := tel.Round()
	ex := exchange(time.Now(), r.Route(RouteLabels{Gateway: "infra/gw", Route: "shop/cart"}))
	r.End()
	b.ReportAllocs()
	for b.Loop() {
		tel.Begin(ex)
		tel.End(ex)
	}
}

type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
