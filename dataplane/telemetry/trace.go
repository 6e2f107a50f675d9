package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// TraceOptions say where spans go and which are made. The zero value: no traces.
type TraceOptions struct {
	// Endpoint is the URL of an OTLP gRPC receiver, such as "http://127.0.0.1:4317"; https is TLS with the system's roots. "": what the
	// standard environment says, if UseEnvironment.
	Endpoint string
	// UseEnvironment lets OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT turn traces on, and OTEL_SDK_DISABLED=true or
	// OTEL_TRACES_EXPORTER=none turn them off. The exporter's other variables (headers, certificates, timeout) hold whenever it runs.
	UseEnvironment bool
	// Ratio is the share of exchanges that are sampled when the caller brought no decision, from 0 to 1. With a valid traceparent the
	// caller's decision holds.
	Ratio float64
	// Service is the name of the service in the spans' resource; "": gatehouse. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to it.
	Service string
}

// wanted reports whether there is anywhere to send spans to.
func (o TraceOptions) wanted() bool {
	if !o.UseEnvironment {
		return o.Endpoint != ""
	}
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return o.Endpoint != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// traces makes spans. Nil makes none.
type traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

func newTraces(o TraceOptions, failures prometheus.Counter, log *slog.Logger) (*traces, error) {
	if !o.wanted() {
		return nil, nil
	}
	if o.Ratio < 0 || o.Ratio > 1 {
		return nil, fmt.Errorf("sampling ratio %v of traces is not between 0 and 1", o.Ratio)
	}
	var options []otlptracegrpc.Option
	if o.Endpoint != "" {
		options = append(options, otlptracegrpc.WithEndpointURL(o.Endpoint))
	}
	// New opens no connection: a receiver that is away at the start is found later.
	exporter, err := otlptracegrpc.New(context.Background(), options...)
	if err != nil {
		return nil, fmt.Errorf("make the exporter of traces: %w", err)
	}
	service := o.Service
	if service == "" {
		service = "gatehouse"
	}
	described, err := resource.New(context.Background(),
		resource.WithAttributes(attribute.String("service.name", service)), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("describe ourselves for traces: %w", err), exporter.Shutdown(context.Background()))
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&counted{exporter, failures, log}),
		sdktrace.WithResource(described),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Ratio))),
	)
	return &traces{provider: provider, tracer: provider.Tracer("github.com/gatehouse-dev/gatehouse")}, nil
}

func (t *traces) close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// counted keeps the errors of an exporter from OpenTelemetry's global handler.
type counted struct {
	sdktrace.SpanExporter
	failures prometheus.Counter
	log      *slog.Logger
}

func (c *counted) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := c.SpanExporter.ExportSpans(ctx, spans); err != nil {
		c.failures.Inc()
		c.log.Error("spans cannot be sent", "spans", len(spans), "error", err)
	}
	return nil
}

// serve starts the span of an exchange, as a child of the caller's, and sets the trace context that its attempts inherit.
func (t *traces) serve(ex *message.Exchange) trace.Span {
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), callers(&ex.Request.Header))
	_, span := t.tracer.Start(ctx, methodWord(ex.Request.Method), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(ex.Received))
	ex.Trace.Traceparent, ex.Trace.Tracestate = formatted(span.SpanContext())
	return span
}

// callers is the span that the request names as its parent; the zero one when it names none, or in a way that W3C forbids.
func callers(h *message.Header) trace.SpanContext {
	traceparent, tracestate := passedOn(h)
	if traceparent == "" {
		return trace.SpanContext{}
	}
	// Neither can fail: the digits were looked at.
	id, _ := trace.TraceIDFromHex(traceparent[3:35])
	parent, _ := trace.SpanIDFromHex(traceparent[36:52])
	flags := trace.TraceFlags(unhex(traceparent[53])<<4 | unhex(traceparent[54]))
	state, err := trace.ParseTraceState(tracestate)
	if err != nil {
		state = trace.TraceState{} // W3C Trace Context 3.3: a bad tracestate does not spoil traceparent
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: id, SpanID: parent, TraceFlags: flags & trace.FlagsSampled, TraceState: state, Remote: true,
	})
}

func unhex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// formatted is a span's context as fields.
func formatted(c trace.SpanContext) (traceparent, tracestate string) {
	id, span, flags := c.TraceID(), c.SpanID(), byte(c.TraceFlags()&trace.FlagsSampled)
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = appendHex(b, id[:])
	b = append(b, '-')
	b = appendHex(b, span[:])
	b = append(b, '-', '0', '0'+flags)
	return string(b), c.TraceState().String()
}

func appendHex(b, bytes []byte) []byte {
	for _, c := range bytes {
		b = append(b, hex[c>>4], hex[c&15])
	}
	return b
}

// served ends the span of an exchange. What it says is that of OpenTelemetry's conventions for HTTP servers.
func (t *traces) served(span trace.Span, d *ending, hideQuery bool) {
	defer span.End(trace.WithTimestamp(d.now))
	if !span.IsRecording() {
		return
	}
	ex := d.ex
	path, query, _ := strings.Cut(d.target, "?")
	span.SetAttributes(
		attribute.String("http.request.method", methodAttribute(d.method)),
		attribute.String("url.scheme", d.scheme),
		attribute.String("url.path", clean(path)),
		attribute.String("server.address", clean(d.host)),
		attribute.String("network.protocol.version", strings.TrimPrefix(ex.Request.Version.String(), "HTTP/")),
		attribute.Int("http.response.status_code", d.status),
		attribute.String("gatehouse.request_id", clean(ex.ID)),
	)
	if query != "" && !hideQuery {
		span.SetAttributes(attribute.String("url.query", clean(redacted(query, ex.HiddenQuery))))
	}
	if agent := ex.Request.Header.Get("User-Agent"); agent != "" {
		span.SetAttributes(attribute.String("user_agent.original", clean(agent)))
	}
	if ex.ClientIP.IsValid() {
		span.SetAttributes(attribute.String("client.address", ex.ClientIP.String()))
	}
	if ex.Route != "" {
		span.SetName(methodWord(d.method) + " " + ex.Route)
		span.SetAttributes(attribute.String("gatehouse.route", ex.Route))
	}
	if ex.BackendName != "" {
		span.SetAttributes(attribute.String("gatehouse.backend", ex.BackendName))
	}
	if d.reason != message.ReasonNone {
		span.SetAttributes(attribute.String("error.type", d.reason.String()))
	}
	if d.status >= 500 || d.reason == message.ReasonResponseTruncated {
		span.SetStatus(codes.Error, clean(d.detail()))
	}
}

// call starts the span of an attempt, and tells the backend of it. Of an exchange that is not sampled it makes none, and the backend
// gets the exchange's trace context.
func (t *traces) call(backend string, at *message.Attempt) trace.Span {
	if t == nil || at.Exchange == nil {
		return nil
	}
	parent := recordOf(at.Exchange)
	if parent == nil || parent.span == nil {
		return nil
	}
	var span trace.Span
	traceparent, tracestate := at.Exchange.Trace.Traceparent, at.Exchange.Trace.Tracestate
	if parent.span.SpanContext().IsSampled() {
		ctx := trace.ContextWithSpanContext(context.Background(), parent.span.SpanContext())
		_, span = t.tracer.Start(ctx, methodWord(at.Request.Method), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("http.request.method", methodAttribute(at.Request.Method)),
			attribute.String("gatehouse.backend", backend),
		))
		if at.Endpoint.IsValid() {
			span.SetAttributes(
				attribute.String("server.address", at.Endpoint.Addr().String()), attribute.Int("server.port", int(at.Endpoint.Port())))
		}
		if at.N > 0 {
			span.SetAttributes(attribute.Int("http.request.resend_count", at.N))
		}
		traceparent, tracestate = formatted(span.SpanContext())
	}
	setTrace(&at.Request.Header, traceparent, tracestate)
	return span
}

func setTrace(h *message.Header, traceparent, tracestate string) {
	h.Set("traceparent", traceparent)
	if tracestate == "" {
		h.Del("tracestate")
		return
	}
	h.Set("tracestate", tracestate)
}

// answered notes what came of an attempt.
func (t *traces) answered(span trace.Span, at *message.Attempt, err error) {
	if err != nil {
		span.SetAttributes(attribute.String("error.type", reasonOfError(err).String()))
		span.SetStatus(codes.Error, clean(err.Error()))
		return
	}
	if at.Response == nil {
		return
	}
	span.SetAttributes(attribute.Int("http.response.status_code", at.Response.Status))
	if at.Response.Status >= 400 { // a client's span; the exchange's, a server's, counts from 500 on
		span.SetAttributes(attribute.String("error.type", codeWord(at.Response.Status)))
		span.SetStatus(codes.Error, "")
	}
}

// called ends the span of an attempt.
func (t *traces) called(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, clean(err.Error()))
	}
	span.End()
}

// methodWord is what a span is called by: methods that nobody registered share a word, as any client can make up more.
func methodWord(method string) string {
	if m := methodAttribute(method); m != "_OTHER" {
		return m
	}
	return "HTTP"
}

func methodAttribute(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return method
	}
	return "_OTHER"
}

// clean makes a string of a client's bytes fit for protobuf, which takes UTF-8 only: one bad byte would lose a whole batch.
func clean(s string) string { return strings.ToValidUTF8(s, "�") }
