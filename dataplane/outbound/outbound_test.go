package outbound

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// backend is a filter.Caller that answers by a function.
type backend func(context.Context, *message.Exchange) error

func (b backend) Do(ctx context.Context, ex *message.Exchange) error { return b(ctx, ex) }

// pieces is a body that says how it ended.
type pieces struct {
	rest    []string
	endless bool
	mu      sync.Mutex
	aborted int
}

func (p *pieces) Next() ([]byte, error) {
	if p.endless {
		return make([]byte, 1<<10), nil
	}
	if len(p.rest) == 0 {
		return nil, io.EOF
	}
	b := []byte(p.rest[0])
	p.rest = p.rest[1:]
	return b, nil
}
func (p *pieces) More() bool               { return false }
func (p *pieces) Trailer() *message.Header { return nil }
func (p *pieces) Abort(error)              { p.mu.Lock(); p.aborted++; p.mu.Unlock() }

func answers(status int, length int64, p *pieces, fields ...message.Field) backend {
	return func(_ context.Context, ex *message.Exchange) error {
		ex.Response = &message.Response{Status: status, Length: -1, Header: message.NewHeader(fields...), Body: message.NewBody(p, length, nil)}
		return nil
	}
}

func wants(t *testing.T, err error, reason message.Reason) {
	t.Helper()
	var known *message.Error
	if !errors.As(err, &known) || known.Reason != reason {
		t.Errorf("error %v, want %s", err, reason)
	}
}

func TestARequestIsSentAsTheLibraryMeansIt(t *testing.T) {
	var got message.Request
	var body string
	client := Client(backend(func(_ context.Context, ex *message.Exchange) error {
		got = ex.Request
		for {
			p, err := got.Body.Next()
			if err != nil {
				break
			}
			body += string(p)
		}
		ex.Response = &message.Response{Status: 204, Length: -1}
		return nil
	}), Options{})
	req, _ := http.NewRequest("POST", "https://login.example:8443/a%2Fb//c?x=%zz&y", io.MultiReader(strings.NewReader("hel"), strings.NewReader("lo")))
	req.Header.Set("X-A", "1")
	req.Header.Add("X-A", "2")
	req.Header.Set("Connection", "close")
	res, err := client.Do(req)
	if err != nil || res.StatusCode != 204 {
		t.Fatal(err)
	}
	if got.Method != "POST" || got.Target.String() != "/a%2Fb//c?x=%zz&y" || got.Host.Raw != "login.example:8443" || got.Host.Port != 8443 || got.Scheme != "https" ||
		body != "hello" || got.Body.Len() != -1 || strings.Join(got.Header.Values("x-a"), " ") != "1 2" || got.Header.Has("Connection") || got.Header.Get("User-Agent") != "gatehouse" {
		t.Errorf("sent %+v with %q", got, body)
	}

	req, _ = http.NewRequest("POST", "https://user:secret@login.example?q", strings.NewReader("hello"))
	if _, err = client.Do(req); err != nil {
		t.Fatal(err)
	}
	if got.Target.String() != "/?q" || got.Body.Len() != 5 || got.Header.Get("Authorization") == "" || strings.Contains(got.Host.Raw, "secret") {
		t.Errorf("sent %+v", got)
	}
	req, _ = http.NewRequest("GET", "https://a/", nil)
	req.Host = "b c"
	_, err = client.Do(req)
	wants(t, err, message.ReasonBadHost)
}

func TestAnAnswerOverItsBoundIsAnError(t *testing.T) {
	endless := &pieces{endless: true}
	res, err := Client(answers(200, -1, endless), Options{MaxBytes: 10 << 10}).Get("http://a/")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(res.Body)
	if !errors.Is(err, message.ErrTooLarge) || len(got) != 10<<10 || endless.aborted != 1 {
		t.Errorf("%d bytes, %v, given up %d times", len(got), err, endless.aborted)
	}
	wants(t, err, message.ReasonUpstreamProtocol)

	announced := &pieces{endless: true}
	_, err = Client(answers(200, 1<<30, announced), Options{}).Get("http://a/")
	if !errors.Is(err, message.ErrTooLarge) || announced.aborted != 1 {
		t.Errorf("announced: %v, given up %d times", err, announced.aborted)
	}

	for max, want := range map[int64]error{5: nil, 4: message.ErrTooLarge} {
		body, header, err := Fetch(context.Background(), Client(answers(200, -1, &pieces{rest: []string{"he", "llo"}}, message.Field{Name: "X-A", Value: "b"}), Options{}), "http://a/", max)
		if !errors.Is(err, want) || want == nil && (string(body) != "hello" || header("x-a") != "b") {
			t.Errorf("at most %d: %q, %v", max, body, err)
		}
	}
}

func TestAnythingBut200IsNotFetched(t *testing.T) {
	for _, status := range []int{204, 206, 301, 302, 307, 304, 404, 500} {
		p := &pieces{rest: []string{"hello"}}
		_, _, err := Fetch(context.Background(), Client(answers(status, 5, p, message.Field{Name: "Location", Value: "http://169.254.169.254/"}), Options{}), "http://a/", 10)
		wants(t, err, message.ReasonUpstreamProtocol)
		if p.aborted != 1 {
			t.Errorf("%d: its body was not given up", status)
		}
	}
}

func TestACallHasATimeOfItsOwn(t *testing.T) {
	var deadline time.Time
	slow := backend(func(ctx context.Context, _ *message.Exchange) error {
		deadline, _ = ctx.Deadline()
		<-ctx.Done()
		return message.ContextError(ctx)
	})
	_, err := Client(slow, Options{Timeout: 10 * time.Millisecond}).Get("http://a/")
	wants(t, err, message.ReasonAttemptTimeout)
	_, err = healthpb.NewHealthClient(Conn(slow, Options{Timeout: 10 * time.Millisecond})).Check(context.Background(), &healthpb.HealthCheckRequest{})
	wants(t, err, message.ReasonAttemptTimeout)
	if status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err = Fetch(ctx, Client(slow, Options{}), "http://a/", 1)
	wants(t, err, message.ReasonClientLeft)
	if d := time.Until(deadline); d < DefaultTimeout-time.Second || d > DefaultTimeout {
		t.Errorf("without a word it has %v", d)
	}
}

// What is not known may be what guards the call.
func TestACallOptionThatIsNotKnownIsAnError(t *testing.T) {
	client := healthpb.NewHealthClient(Conn(backend(func(context.Context, *message.Exchange) error { t.Error("called"); return nil }), Options{}))
	if _, err := client.Check(context.Background(), &healthpb.HealthCheckRequest{}, grpc.UseCompressor("gzip")); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	if _, err := client.Watch(context.Background(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}

func TestATimeIsWrittenInEightDigits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0n", 0: "0n", time.Millisecond: "1000000n", time.Second: "1000000u", time.Hour: "3600000m", 30 * time.Hour: "108000S", 1 << 62: "1281023H",
	} {
		if got := timeout(d); d < 1<<62 && got != want || len(got) > 9 {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
