package telemetry

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	v1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// receiver is a collector: the OTLP gRPC service, which keeps what it gets.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	refuse bool

	mu    sync.Mutex
	spans map[string]*v1.Span // by span id, raw
	names []string            // services that sent them
}

func (r *receiver) Export(_ context.Context, in *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	if r.refuse {
		return nil, status.Error(codes.InvalidArgument, "no")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range in.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				r.names = append(r.names, a.GetValue().GetStringValue())
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				r.spans[string(s.GetSpanId())] = s
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (r *receiver) ofKind(kind v1.Span_SpanKind) (out []*v1.Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.GetKind() == kind {
			out = append(out, s)
		}
	}
	return out
}

func attributeOf(s *v1.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			if v := a.GetValue().GetStringValue(); v != "" {
				return v
			}
			return a.GetValue().String()
		}
	}
	return ""
}

// receive starts a receiver on loopback.
func receive(t *testing.T, refuse bool) (*receiver, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{spans: map[string]*v1.Span{}, refuse: refuse}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, r)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return r, "http://" + l.Addr().String()
}

func tracing(t *testing.T, o TraceOptions) *Telemetry {
	t.Helper()
	tel, err := New(Options{Traces: o})
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

func closed(t *testing.T, tel *Telemetry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := tel.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

const (
	callerID   = "0af7651916cd43dd8448eb211c80319c"
	callerSpan = "b7ad6b7169203331"
	sampled    = "00-" + callerID + "-" + callerSpan + "-01"
	unsampled  = "00-" + callerID + "-" + callerSpan + "-00"
)

// forwarded runs an exchange with two attempts, and returns what the backend saw of each.
func forwarded(tel *Telemetry, ex *message.Exchange) (heads [2]message.Header) {
	r := tel.Round()
	b := r.Backend("shop/cart:8080")
	r.End()
	tel.Begin(ex)
	for n := range heads {
		at := &message.Attempt{Exchange: ex, Request: ex.Request, N: n, Endpoint: ex.Upstream}
		at.Request.Header = ex.Request.Header.Share()
		rec := b.Begin(at)
		heads[n] = at.Request.Header
		if n == 0 {
			rec.Answered(&message.Error{Reason: message.ReasonConnectFailed, Err: errors.New("refused \xff")})
			rec.Finished(nil)
			continue
		}
		at.Response = ex.Response
		rec.Answered(nil)
		rec.Finished(nil)
	}
	tel.End(ex)
	return heads
}

func TestSpansOfAnExchangeAndItsAttemptsReachAReceiver(t *testing.T) {
	got, endpoint := receive(t, false)
	tel := tracing(t, TraceOptions{Endpoint: endpoint, Ratio: 0})
	ex := exchange(time.Now(), nil)
	ex.Request.Header.Add("traceparent", sampled)
	ex.Request.Header.Add("tracestate", "a=1")
	ex.Request.Header.Add("tracestate", "b=2")
	ex.Request.Target.Raw = "/cart\xff?access_token=hunter2"
	heads := forwarded(tel, ex)
	closed(t, tel)

	servers, clients := got.ofKind(v1.Span_SPAN_KIND_SERVER), got.ofKind(v1.Span_SPAN_KIND_CLIENT)
	if len(servers) != 1 || len(clients) != 2 {
		t.Fatalf("%d spans of exchanges and %d of attempts, want 1 and 2", len(servers), len(clients))
	}
	s := servers[0]
	if hexOf(s.GetTraceId()) != callerID || hexOf(s.GetParentSpanId()) != callerSpan {
		t.Errorf("the exchange is not in the caller's trace: %v", s)
	}
	if s.GetName() != "GET HTTPRoute shop/cart rule 0" || attributeOf(s, "url.path") != "/cart�" {
		t.Errorf("name %q, path %q", s.GetName(), attributeOf(s, "url.path"))
	}
	if strings.Contains(s.String(), "hunter2") {
		t.Error("a credential is in the span")
	}
	for _, c := range clients {
		if string(c.GetParentSpanId()) != string(s.GetSpanId()) || hexOf(c.GetTraceId()) != callerID {
			t.Errorf("the attempt is not a child of the exchange: %v", c)
		}
	}
	for n, h := range heads {
		traceparent, ok := h.Only("traceparent")
		if !ok || !validTraceparent(traceparent) || traceparent[53:] != "01" {
			t.Fatalf("attempt %d carries %q", n, traceparent)
		}
		span := got.spans[string(unhexed(traceparent[36:52]))]
		if span == nil || span.GetKind() != v1.Span_SPAN_KIND_CLIENT {
			t.Errorf("attempt %d carries the span of something else", n)
			continue
		}
		failed := span.GetStatus().GetCode() == v1.Status_STATUS_CODE_ERROR
		if failed != (n == 0) || failed && attributeOf(span, "error.type") != "connect_failed" {
			t.Errorf("attempt %d: status %v, %q", n, span.GetStatus(), attributeOf(span, "error.type"))
		}
		if state, ok := h.Only("tracestate"); !ok || state != "a=1,b=2" {
			t.Errorf("attempt %d: tracestate %q", n, state)
		}
	}
	if ex.Request.Header.Get("traceparent") != sampled {
		t.Error("an attempt wrote into the head of the exchange")
	}
	if len(got.names) == 0 || got.names[0] != "gatehouse" {
		t.Errorf("service %v", got.names)
	}
}

func TestWhoDecidesIfAnExchangeIsSampled(t *testing.T) {
	for _, c := range []struct {
		sentence    string
		traceparent []string
		ratio       float64
		spans       bool
		inTrace     bool
	}{
		{"the caller said yes", []string{sampled}, 0, true, true},
		{"the caller said no", []string{unsampled}, 1, false, true},
		{"nobody said anything, all are wanted", nil, 1, true, false},
		{"nobody said anything, none is wanted", nil, 0, false, false},
		{"a malformed one is replaced", []string{"00-xyz"}, 1, true, false},
		{"a doubled one is replaced", []string{sampled, sampled}, 1, true, false},
		{"a later version is understood", []string{"cc-" + callerID + "-" + callerSpan + "-01-more"}, 0, true, true},
	} {
		got, endpoint := receive(t, false)
		tel := tracing(t, TraceOptions{Endpoint: endpoint, Ratio: c.ratio})
		ex := exchange(time.Now(), nil)
		for _, v := range c.traceparent {
			ex.Request.Header.Add("Traceparent", v)
		}
		heads := forwarded(tel, ex)
		closed(t, tel)
		if n := len(got.ofKind(v1.Span_SPAN_KIND_SERVER)); (n == 1) != c.spans {
			t.Errorf("%s: %d spans", c.sentence, n)
		}
		for _, h := range heads {
			traceparent, ok := h.Only("traceparent")
			if !ok || !validTraceparent(traceparent) {
				t.Errorf("%s: the backend sees %v", c.sentence, h.Values("traceparent"))
				continue
			}
			if (traceID(traceparent) == callerID) != c.inTrace {
				t.Errorf("%s: trace %s", c.sentence, traceparent)
			}
			if (traceparent[53:] == "01") != c.spans {
				t.Errorf("%s: flags %s", c.sentence, traceparent)
			}
		}
	}
}

func TestWithoutAnExporterTheTracePassesThrough(t *testing.T) {
	tel := tracing(t, TraceOptions{Ratio: 1})
	for _, in := range []string{sampled, unsampled, "00-xyz", ""} {
		ex := exchange(time.Now(), nil)
		if in != "" {
			ex.Request.Header.Add("TraceParent", in)
		}
		for _, h := range forwarded(tel, ex) {
			if got := h.Get("traceparent"); got != in {
				t.Errorf("%q went on as %q", in, got)
			}
		}
	}
}

func TestAForkBelongsToTheTraceOfItsParent(t *testing.T) {
	got, endpoint := receive(t, false)
	tel := tracing(t, TraceOptions{Endpoint: endpoint, Ratio: 1})
	r := tel.Round()
	b := r.Backend("shop/mirror:80")
	r.End()
	ex := exchange(time.Now(), nil)
	tel.Begin(ex)
	fork, _ := ex.Fork()
	tel.End(ex)
	at := &message.Attempt{Exchange: fork, Request: fork.Request, Response: &message.Response{Status: 200}}
	rec := b.Begin(at) // after its parent's end, as a mirror may
	rec.Finished(nil)
	tel.End(fork) // a mistake that must not end the parent twice
	closed(t, tel)
	servers, clients := got.ofKind(v1.Span_SPAN_KIND_SERVER), got.ofKind(v1.Span_SPAN_KIND_CLIENT)
	if len(servers) != 1 || len(clients) != 1 || string(clients[0].GetParentSpanId()) != string(servers[0].GetSpanId()) {
		t.Errorf("%d exchanges, %d attempts", len(servers), len(clients))
	}
	if got := value(t, tel, "gatehouse_requests_in_flight"); got != 0 {
		t.Errorf("%v in flight", got)
	}
}

func TestAReceiverThatRefusesIsCountedAndHoldsNobody(t *testing.T) {
	_, endpoint := receive(t, true)
	tel := tracing(t, TraceOptions{Endpoint: endpoint, Ratio: 1})
	forwarded(tel, exchange(time.Now(), nil))
	closed(t, tel)
	if got := value(t, tel, "gatehouse_trace_export_failures_total"); got != 1 {
		t.Errorf("%v failures", got)
	}
}

func TestTheEnvironmentTurnsTracesOnAndOff(t *testing.T) {
	got, endpoint := receive(t, false)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
	t.Setenv("OTEL_SERVICE_NAME", "edge")
	tel := tracing(t, TraceOptions{UseEnvironment: true, Ratio: 1})
	forwarded(tel, exchange(time.Now(), nil))
	closed(t, tel)
	if len(got.ofKind(v1.Span_SPAN_KIND_SERVER)) != 1 || got.names[0] != "edge" {
		t.Errorf("no span, or of another service: %v", got.names)
	}
	for _, off := range [][2]string{{"OTEL_SDK_DISABLED", "true"}, {"OTEL_TRACES_EXPORTER", "none"}} {
		t.Run(off[0], func(t *testing.T) {
			t.Setenv(off[0], off[1])
			if (TraceOptions{UseEnvironment: true}).wanted() {
				t.Error("traces are on")
			}
		})
	}
	if (TraceOptions{}).wanted() {
		t.Error("the environment counts without being asked")
	}
	if _, err := New(Options{Traces: TraceOptions{Endpoint: endpoint, Ratio: 2}}); err == nil {
		t.Error("a ratio of 2 is taken")
	}
}

// FuzzATraceparentIsReadAsTheSDKReadsIt has OpenTelemetry's own propagator as its judge.
func FuzzATraceparentIsReadAsTheSDKReadsIt(f *testing.F) {
	for _, s := range []string{
		sampled, unsampled, "", "ff" + sampled[2:], "cc" + sampled[2:], "cc" + sampled[2:] + "-x", "cc" + sampled[2:] + "x", sampled + "-", strings.ToUpper(sampled),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": s})
		theirs := trace.SpanContextFromContext(ctx)
		ours := callers(headerOf("traceparent", s))
		if !ours.IsValid() {
			// Of version 00 nothing may follow; they take a dash.
			if theirs.IsValid() && len(s) == 55 {
				t.Errorf("%q: they take it, we don't", s)
			}
			return
		}
		// Of flags, only "sampled" concerns us; they keep one that came later.
		if theirs.IsValid() && !theirs.WithTraceFlags(theirs.TraceFlags()&trace.FlagsSampled).Equal(ours) {
			t.Errorf("%q: %v and %v", s, ours, theirs)
		}
		// They refuse flags that nobody has defined yet, which W3C wants ignored.
		if !theirs.IsValid() && s[53] == '0' && s[54] <= '1' {
			t.Errorf("%q: we take it, they don't", s)
		}
	})
}

func headerOf(name, value string) *message.Header {
	h := message.NewHeader(message.Field{Name: name, Value: value})
	return &h
}

func hexOf(b []byte) string { return string(appendHex(nil, b)) }

func unhexed(s string) []byte {
	var out []byte
	for i := 0; i < len(s); i += 2 {
		out = append(out, unhex(s[i])<<4|unhex(s[i+1]))
	}
	return out
}
