package telemetry

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// counting returns telemetry that only counts, with a clock that the test moves.
func counting(t *testing.T) (*Telemetry, *time.Time) {
	t.Helper()
	now := time.Unix(1_700_000_000, 0)
	tel, err := New(Options{Clock: func() time.Time { return now }, Version: "v0", Commit: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	return tel, &now
}

// exchange is one that a backend answered.
func exchange(now time.Time, route *Route) *message.Exchange {
	ex := &message.Exchange{
		Request: message.Request{
			Method: "GET", Scheme: "https", Host: message.Host{Raw: "shop.example.com", Name: "shop.example.com"}, Version: message.HTTP2,
			Target: message.Target{Raw: "/cart?id=7&access_token=hunter2", Path: "/cart", Query: "id=7&access_token=hunter2", HasQuery: true},
		},
		Received: now.Add(-20 * time.Millisecond), ID: "r-1", ClientIP: netip.MustParseAddr("192.0.2.7"),
		Conn:        &message.Conn{Remote: netip.MustParseAddrPort("192.0.2.7:4711"), TLS: &message.TLSState{Version: 0x0304, ServerName: "shop.example.com"}},
		BackendName: "shop/cart:8080", Route: "HTTPRoute shop/cart rule 0", Upstream: netip.MustParseAddrPort("10.0.0.1:8080"), Attempts: 1,
		Response: &message.Response{Status: 200},
		Outcome:  message.Outcome{BytesIn: 3, BytesOut: 100},
	}
	if route != nil {
		ex.RouteKey = route
	}
	ex.Request.Header.Add("User-Agent", "curl/8")
	ex.Request.Header.Add("Authorization", "Bearer hunter2")
	ex.Request.Header.Add("Cookie", "session=hunter2")
	return ex
}

// value is a sample, or the count of a histogram; −1 when there is no such series.
func value(t *testing.T, tel *Telemetry, name string, labels ...string) float64 {
	t.Helper()
	for _, f := range gather(t, tel) {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if hasLabels(m, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}

func hasLabels(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == labels[i] && l.GetValue() == labels[i+1] }) {
			return false
		}
	}
	return true
}

func gather(t *testing.T, tel *Telemetry) []*dto.MetricFamily {
	t.Helper()
	families, err := tel.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func series(t *testing.T, tel *Telemetry) (n int) {
	t.Helper()
	for _, f := range gather(t, tel) {
		n += len(f.GetMetric())
	}
	return n
}

// everything makes each metric count once.
func everything(tel *Telemetry, now time.Time) {
	r := tel.Round()
	route := r.Route(RouteLabels{Gateway: "infra/gw", Kind: "HTTPRoute", Route: "shop/cart", Rule: "0"})
	backend := r.Backend("shop/cart:8080")
	gw := r.Gateway("infra/gw")
	r.Certificate("infra/gw", "https", "infra/cert", now)
	r.Counter("ratelimit", "ratelimit_decisions", "policy", "shop/p", "limit", "per-client", "result", "refused").Add(1)
	r.Gauge("ratelimit", "ratelimit_used_ratio", func() float64 { return 0.5 }, "policy", "shop/p", "limit", "per-client")
	r.End()
	store := tel.Store()
	store.StoreCall("ok", time.Millisecond)
	store.StoreUp(true)
	store.StoreDropped(1)
	gw.Opened()
	gw.Refused("limit")
	gw.AcceptFailed()
	gw.Handshake(0x0304, true, time.Millisecond)
	gw.HandshakeFailed("timeout")
	gw.Sockets(1, 0)
	backend.SetEndpoints(2, 1)
	ex := exchange(now, route)
	tel.Begin(ex)
	at := &message.Attempt{Exchange: ex, Request: ex.Request, Replays: 1}
	rec := backend.Begin(at)
	at.Response = ex.Response
	rec.Answered(nil)
	rec.Finished(nil)
	ex.Outcome.Reason = message.ReasonClientLeft
	tel.End(ex)
	tel.Retry(message.ReasonConnectFailed)
	tel.BodyBudget(message.NewBudget(10))
	tel.Applied(7, time.Millisecond)
}

func TestMetricsAreNamedAsPrometheusWantsAndHaveNoOtherLabels(t *testing.T) {
	tel, now := counting(t)
	everything(tel, *now)
	families := gather(t, tel)
	if len(families) < 30 {
		t.Fatalf("only %d families counted: the test does not see them all", len(families))
	}
	name := regexp.MustCompile(`^gatehouse_[a-z][a-z0-9_]*[a-z0-9]$`)
	for _, f := range families {
		n := f.GetName()
		if !name.MatchString(n) {
			t.Errorf("%s: not a name of ours", n)
		}
		if isCounter := f.GetType() == dto.MetricType_COUNTER; isCounter != strings.HasSuffix(n, "_total") {
			t.Errorf("%s is a %s: counters, and they alone, end in _total", n, f.GetType())
		}
		if f.GetType() == dto.MetricType_HISTOGRAM && !strings.HasSuffix(n, "_seconds") {
			t.Errorf("%s: a histogram without its unit", n)
		}
		if strings.Contains(n, "_ms") || strings.Contains(n, "milli") {
			t.Errorf("%s: base units only", n)
		}
		if f.GetHelp() == "" || !strings.HasSuffix(f.GetHelp(), ".") && f.GetName() != "gatehouse_build_info" {
			t.Errorf("%s: help %q", n, f.GetHelp())
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if !slices.Contains(Labels, l.GetName()) {
					t.Errorf("%s has label %s", n, l.GetName())
				}
			}
		}
	}
}

func TestAnExchangeIsCountedUnderItsRoute(t *testing.T) {
	tel, now := counting(t)
	r := tel.Round()
	route := r.Route(RouteLabels{Gateway: "infra/gw", Kind: "HTTPRoute", Route: "shop/cart", Rule: "0"})
	nowhere := r.Route(RouteLabels{Gateway: "infra/gw"})
	r.End()

	answered := exchange(*now, route)
	tel.Begin(answered)
	if got := value(t, tel, "gatehouse_requests_in_flight"); got != 1 {
		t.Errorf("%v in flight, want 1", got)
	}
	tel.End(answered)

	lost := exchange(*now, nowhere)
	lost.Response = &message.Response{Status: 404, Origin: message.OriginProxy, Reason: message.ReasonNoRoute}
	tel.Begin(lost)
	tel.End(lost)

	strange := exchange(*now, route)
	strange.Response.Status = 477
	tel.Begin(strange)
	tel.End(strange)

	// What the engine refuses never saw Begin.
	refused := &message.Exchange{Outcome: message.Outcome{Reason: message.ReasonHeadTooLarge}}
	tel.End(refused)

	left := exchange(*now, route)
	left.Response, left.Outcome.Reason = nil, message.ReasonClientLeft
	tel.Begin(left)
	tel.End(left)

	for _, c := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{1, "gatehouse_requests_total", []string{"route", "shop/cart", "code", "200", "kind", "HTTPRoute", "rule", "0", "gateway", "infra/gw"}},
		{1, "gatehouse_requests_total", []string{"route", "shop/cart", "code", "4xx"}},
		{1, "gatehouse_requests_total", []string{"route", "shop/cart", "code", "499"}},
		{1, "gatehouse_requests_total", []string{"gateway", "infra/gw", "route", "", "code", "404"}},
		{1, "gatehouse_requests_total", []string{"gateway", "", "code", "431"}},
		{1, "gatehouse_request_failures_total", []string{"gateway", "infra/gw", "route", "", "reason", "no_route"}},
		{1, "gatehouse_request_failures_total", []string{"route", "shop/cart", "reason", "client_left"}},
		{3, "gatehouse_request_duration_seconds", []string{"route", "shop/cart"}},
		{400, "gatehouse_response_body_bytes_total", []string{"gateway", "infra/gw"}},
		{0, "gatehouse_requests_in_flight", nil},
	} {
		if got := value(t, tel, c.name, c.labels...); got != c.want {
			t.Errorf("%s%v is %v, want %v", c.name, c.labels, got, c.want)
		}
	}
}

func TestATunnelIsNotInTheDurations(t *testing.T) {
	tel, now := counting(t)
	r := tel.Round()
	route := r.Route(RouteLabels{Gateway: "infra/gw", Route: "shop/ws"})
	r.End()
	ex := exchange(*now, route)
	ex.Response = &message.Response{Status: 101, Tunnel: func(message.Tunnel) message.Outcome { return message.Outcome{} }}
	tel.Begin(ex)
	tel.End(ex)
	if got := value(t, tel, "gatehouse_requests_total", "route", "shop/ws", "code", "101"); got != 1 {
		t.Errorf("counted %v times", got)
	}
	if got := value(t, tel, "gatehouse_request_duration_seconds", "route", "shop/ws"); got != -1 {
		t.Errorf("%v durations of tunnels", got)
	}
}

func TestAttemptsAreCountedByWhatCameOfThem(t *testing.T) {
	tel, _ := counting(t)
	r := tel.Round()
	b := r.Backend("shop/cart:8080")
	r.End()
	for _, c := range []struct {
		status int
		err    error
		result string
	}{
		{200, nil, "2xx"},
		{503, nil, "5xx"},
		{0, &message.Error{Reason: message.ReasonConnectFailed}, "connect_failed"},
		{0, fmt.Errorf("wrapped: %w", &message.Error{Reason: message.ReasonNoEndpoint}), "no_endpoint"},
		{0, errors.New("of nobody"), "internal"},
	} {
		at := &message.Attempt{Exchange: &message.Exchange{}}
		rec := b.Begin(at)
		if got := value(t, tel, "gatehouse_attempts_in_flight"); got != 1 {
			t.Errorf("%v in flight", got)
		}
		if c.err == nil {
			at.Response = &message.Response{Status: c.status}
			rec.Answered(nil)
			rec.Answered(errors.New("too late to count"))
		}
		rec.Finished(c.err)
		rec.Finished(nil)
		if got := value(t, tel, "gatehouse_attempts_total", "backend", "shop/cart:8080", "result", c.result); got != 1 {
			t.Errorf("%+v counted %v times", c, got)
		}
	}
	if got := value(t, tel, "gatehouse_attempts_in_flight"); got != 0 {
		t.Errorf("%v in flight at the end", got)
	}
	if got := value(t, tel, "gatehouse_attempt_duration_seconds"); got != 5 {
		t.Errorf("%v durations", got)
	}
}

func TestSeriesGoAWhileAfterTheirObjectHasLeftThePlan(t *testing.T) {
	tel, now := counting(t)
	plan := func(labels ...string) (last *Route) {
		r := tel.Round()
		for _, l := range labels {
			last = r.Route(RouteLabels{Gateway: "infra/gw", Route: l})
		}
		r.End()
		return last
	}
	serve := func(route *Route) {
		ex := exchange(*now, route)
		tel.Begin(ex)
		tel.End(ex)
	}
	old := plan("shop/old")
	serve(old)
	plan("shop/new")
	*now = now.Add(Grace)
	plan("shop/new")
	if got := value(t, tel, "gatehouse_requests_total", "route", "shop/old"); got != 1 {
		t.Fatalf("within the grace: %v, want 1", got)
	}
	if again := plan("shop/old"); again != old {
		t.Error("came back within the grace, with another handle")
	}
	plan("shop/new")
	*now = now.Add(Grace + time.Second)
	plan("shop/new")
	if got := value(t, tel, "gatehouse_requests_total", "route", "shop/old"); got != -1 {
		t.Fatalf("after the grace: %v", got)
	}
	// A request of an old plan ends now, even with a code that it never had: no series may come back.
	late := exchange(*now, old)
	late.Response.Status = 503
	tel.Begin(late)
	tel.End(late)
	if got := value(t, tel, "gatehouse_requests_total", "route", "shop/old"); got != -1 {
		t.Fatal("a late exchange brought the series back")
	}
}

func TestAMillionRenamedRoutesDoNotGrow(t *testing.T) {
	tel, now := counting(t)
	const rounds, each = 200, 100 // each handle with traffic; the bound is reached after 41 rounds
	for n := range rounds {
		r := tel.Round()
		for i := range each {
			route := r.Route(RouteLabels{Gateway: "infra/gw", Kind: "HTTPRoute", Route: fmt.Sprintf("shop/r-%d-%d", n, i)})
			b := r.Backend(fmt.Sprintf("shop/b-%d-%d", n, i))
			ex := exchange(*now, route)
			tel.Begin(ex)
			rec := b.Begin(&message.Attempt{Exchange: ex})
			rec.Finished(errors.New("x"))
			tel.End(ex)
		}
		r.End()
	}
	if got, most := tel.Len(), maxStale+2*each+1; got > most {
		t.Errorf("%d handles after %d, at most %d wanted", got, 2*rounds*each, most)
	}
	if got := series(t, tel); got > 6*(maxStale+2*each) {
		t.Errorf("%d series", got)
	}
	r := tel.Round()
	r.End()
	*now = now.Add(Grace + time.Second)
	r = tel.Round()
	r.End()
	if got := tel.Len(); got != 0 {
		t.Errorf("%d handles when nothing is asked for any more", got)
	}
	if got := value(t, tel, "gatehouse_attempts_in_flight"); got != -1 {
		t.Error("series of backends are left")
	}
}

func TestRoundsAndExchangesAtOnce(t *testing.T) {
	tel, _ := counting(t)
	r := tel.Round()
	route := r.Route(RouteLabels{Gateway: "infra/gw", Route: "shop/a"})
	backend := r.Backend("shop/a:80")
	r.End()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				ex := exchange(time.Now(), route)
				ex.Response.Status = 200 + (i+g)%300
				tel.Begin(ex)
				rec := backend.Begin(&message.Attempt{Exchange: ex, Response: ex.Response})
				rec.Finished(nil)
				tel.End(ex)
			}
		})
	}
	wg.Go(func() {
		for i := range maxStale / 16 {
			r := tel.Round()
			for n := range 40 {
				r.Route(RouteLabels{Gateway: "infra/gw", Route: fmt.Sprintf("x/%d-%d", i, n)})
			}
			r.End()
		}
	})
	wg.Wait()
	if got := value(t, tel, "gatehouse_requests_in_flight"); got != 0 {
		t.Errorf("%v in flight", got)
	}
}

func TestACounterOfAFilterWithStrayLabelsCountsNothing(t *testing.T) {
	tel, _ := counting(t)
	r := tel.Round()
	r.Counter("ratelimit", "decisions", "policy", "a/b").Add(2)
	r.Counter("ratelimit", "decisions", "limit", "x").Add(1)
	r.Counter("cors", "seen", "path", "/secret").Add(1)
	r.End()
	if got := value(t, tel, "gatehouse_filter_decisions_total", "filter", "ratelimit", "policy", "a/b"); got != 2 {
		t.Errorf("counted %v, want 2", got)
	}
	if got := value(t, tel, "gatehouse_filter_decisions_total", "limit", "x"); got != -1 {
		t.Error("counted with other labels")
	}
	if got := value(t, tel, "gatehouse_filter_seen_total"); got != -1 {
		t.Error("counted by path")
	}
}

func TestAGaugeOfAFilterIsReadWhenSomebodyLooks(t *testing.T) {
	tel, clock := counting(t)
	var n float64
	at := func(policy string) float64 { return value(t, tel, "gatehouse_filter_used", "policy", policy) }
	round := func(policies ...string) {
		r := tel.Round()
		for _, p := range policies {
			r.Gauge("ratelimit", "used", func() float64 { return n }, "policy", p)
		}
		r.Gauge("ratelimit", "used", func() float64 { return 9 }, "limit", "x")
		r.Gauge("ratelimit", "paths", func() float64 { return 9 }, "path", "/secret")
		r.End()
	}
	round("a/b", "a/c")
	n = 3
	if at("a/b") != 3 || at("a/c") != 3 {
		t.Errorf("%v and %v, want 3", at("a/b"), at("a/c"))
	}
	if got := value(t, tel, "gatehouse_filter_used", "limit", "x"); got != -1 {
		t.Error("shown with other labels")
	}
	if got := value(t, tel, "gatehouse_filter_paths"); got != -1 {
		t.Error("shown by path")
	}
	round("a/b")
	*clock = clock.Add(Grace + time.Second)
	round("a/b")
	if at("a/b") != 3 || at("a/c") != -1 {
		t.Errorf("%v and %v, want 3 and none", at("a/b"), at("a/c"))
	}
}

func TestNothingIsKeptByNil(t *testing.T) {
	var tel *Telemetry
	s := tel.Store()
	s.StoreCall("ok", time.Second)
	s.StoreUp(true)
	s.StoreDropped(1)
	r := tel.Round()
	route := r.Route(RouteLabels{})
	b := r.Backend("x")
	g := r.Gateway("x")
	r.Certificate("a", "b", "c", time.Now())
	r.Counter("f", "n").Add(1)
	r.Gauge("f", "g", func() float64 { return 0 })
	r.End()
	b.SetEndpoints(1, 0)
	g.Opened()
	g.Closed()
	g.Refused("limit")
	g.AcceptFailed()
	g.Handshake(0x0304, false, 0)
	g.HandshakeFailed("timeout")
	g.Sockets(1, 1)
	ex := exchange(time.Now(), route)
	tel.Begin(ex)
	rec := b.Begin(&message.Attempt{})
	rec.Answered(nil)
	rec.Finished(nil)
	tel.End(ex)
	tel.Retry(message.ReasonNone)
	tel.Applied(1, 0)
	tel.BodyBudget(nil)
	if tel.Close(t.Context()) != nil || tel.Handler() == nil || tel.Len() != 0 {
		t.Error("nil telemetry does not behave")
	}
}

func TestCountingAnExchangeAllocatesNothing(t *testing.T) {
	tel, now := counting(t)
	r := tel.Round()
	route := r.Route(RouteLabels{Gateway: "infra/gw", Route: "shop/cart"})
	b := r.Backend("shop/cart:80")
	r.End()
	ex := exchange(*now, route)
	at := &message.Attempt{Exchange: ex, Response: ex.Response}
	got := testing.AllocsPerRun(200, func() {
		tel.Begin(ex)
		rec := b.Begin(at)
		rec.Answered(nil)
		rec.Finished(nil)
		tel.End(ex)
	})
	if got > 0 {
		t.Errorf("%v allocations", got)
	}
}

func TestThePageOfMetricsShowsThem(t *testing.T) {
	tel, now := counting(t)
	everything(tel, *now)
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{"gatehouse_requests_total{", "gatehouse_snapshot_sequence 7", "gatehouse_body_budget_left_bytes 10", `gatehouse_build_info{commit="abc"`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(w.Body.String(), "hunter2") {
		t.Error("a credential is on the page")
	}
}

func TestTheProcessIsMeasuredWhenAsked(t *testing.T) {
	tel, err := New(Options{Process: true})
	if err != nil {
		t.Fatal(err)
	}
	if value(t, tel, "go_goroutines") < 1 || value(t, tel, "process_open_fds") < 1 {
		t.Error("no figures of the runtime or the process")
	}
	if prometheus.DefaultRegisterer == prometheus.Registerer(tel.metrics.registry) {
		t.Error("the registry is the global one")
	}
}
