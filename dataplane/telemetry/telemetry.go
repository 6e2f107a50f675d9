package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Options say what is kept and where it goes. The zero value counts, and neither logs nor traces.
type Options struct {
	Log       io.Writer // the access log; nil: none. Only one goroutine writes to it
	LogQueue  int       // lines that wait for the writer; 0: 4096. More are dropped and counted
	MaxField  int       // bytes of a string in a log line; 0: 2048
	HideQuery bool      // leave queries out of log and traces

	Traces TraceOptions

	Version string // of the build, for gatehouse_build_info
	Commit  string
	Process bool // add the collectors of the Go runtime and of the process

	Clock  func() time.Time // nil: time.Now
	Errors *slog.Logger     // what goes wrong in here; nil: dropped
}

// Telemetry is the metrics, access log and traces of one data plane. Nil keeps nothing.
type Telemetry struct {
	options Options
	now     func() time.Time
	metrics *metrics
	handles handles
	log     *accessLog
	traces  *traces
	records sync.Pool // of *record, when there are no traces
}

// New starts telemetry; Close ends it. It fails when the exporter of traces cannot be made of its settings.
func New(o Options) (*Telemetry, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Errors == nil {
		o.Errors = slog.New(slog.DiscardHandler)
	}
	t := &Telemetry{options: o, now: o.Clock, metrics: newMetrics(o)}
	t.handles.init()
	t.records.New = func() any { return &record{} }
	var err error
	if t.traces, err = newTraces(o.Traces, t.metrics.traceExportFailures, o.Errors); err != nil {
		return nil, err
	}
	if o.Log != nil {
		t.log = newAccessLog(o, t.metrics)
	}
	return t, nil
}

// Close writes what is still held, and returns ctx's error when that takes too long.
func (t *Telemetry) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return errors.Join(t.log.close(ctx), t.traces.close(ctx))
}

// Handler is the page of metrics, in the formats that Prometheus asks for.
func (t *Telemetry) Handler() http.Handler {
	if t == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(t.metrics.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// record is what telemetry keeps of an exchange from Begin to End: what the client sent, before filters changed it.
type record struct {
	owner                        *message.Exchange // a fork copies Trace, and with it the record: it is not its own
	method, scheme, host, target string
	// span is set in records that are never used again, so that a fork that outlives its parent can read it.
	span trace.Span
}

// Begin is called when Serve gets an exchange of a client, before any filter, and sets ex.Trace. Forks have no Begin and no End: their
// attempts belong to the trace that they inherited.
func (t *Telemetry) Begin(ex *message.Exchange) {
	if t == nil {
		return
	}
	t.metrics.inFlight.Inc()
	var r *record
	if t.traces != nil {
		r = &record{}
		r.span = t.traces.serve(ex)
	} else {
		r = t.records.Get().(*record)
		ex.Trace.Traceparent, ex.Trace.Tracestate = passedOn(&ex.Request.Header)
	}
	r.owner = ex
	r.method, r.scheme, r.host, r.target = ex.Request.Method, ex.Request.Scheme, ex.Request.Host.Raw, ex.Request.Target.Raw
	ex.Trace.Span = r
}

// End is called once, in Done: also for what the engine refused, where Begin never ran. It reads ex.RouteKey (a *Route), and counts
// under no route at all when there is none.
func (t *Telemetry) End(ex *message.Exchange) {
	if t == nil {
		return
	}
	d := ending{ex: ex, reason: reasonOf(ex), now: t.now()}
	d.status = statusOf(ex, d.reason)
	if !ex.Received.IsZero() {
		d.took = max(d.now.Sub(ex.Received), 0)
	}
	own := recordOf(ex)
	if own != nil && own.owner == ex {
		t.metrics.inFlight.Dec()
	} else {
		own = nil
		d.set(ex.Request.Method, ex.Request.Scheme, ex.Request.Host.Raw, ex.Request.Target.Raw)
	}
	if own != nil {
		d.set(own.method, own.scheme, own.host, own.target)
	}

	route, _ := ex.RouteKey.(*Route)
	if route == nil {
		route = t.metrics.unrouted
	}
	route.count(&d)
	t.log.write(&d)
	if own != nil {
		t.release(own, &d)
	}
}

func (t *Telemetry) release(r *record, d *ending) {
	d.ex.Trace.Span = nil
	if r.span != nil {
		t.traces.served(r.span, d, t.options.HideQuery)
		return
	}
	*r = record{}
	t.records.Put(r)
}

func recordOf(ex *message.Exchange) *record {
	r, _ := ex.Trace.Span.(*record)
	return r
}

// ending is an exchange at its end, as counters, log and span see it.
type ending struct {
	ex     *message.Exchange
	now    time.Time
	took   time.Duration
	status int
	reason message.Reason

	method, scheme, host, target string // as received
}

func (d *ending) set(method, scheme, host, target string) {
	d.method, d.scheme, d.host, d.target = method, scheme, host, target
}

// tunnel reports whether bytes went both ways after a 101: its duration says nothing about answers.
func (d *ending) tunnel() bool { return d.ex.Response != nil && d.ex.Response.Tunnel != nil }

// reasonOf is what went wrong: with the connection to the client last, as it comes last.
func reasonOf(ex *message.Exchange) message.Reason {
	if ex.Outcome.Reason != message.ReasonNone {
		return ex.Outcome.Reason
	}
	if ex.Response != nil {
		return ex.Response.Reason
	}
	return message.ReasonNone
}

// statusOf is the status of the answer; without one, what the reason would have said.
func statusOf(ex *message.Exchange, reason message.Reason) int {
	if ex.Response != nil {
		return ex.Response.Status
	}
	if reason == message.ReasonNone {
		return message.ReasonInternal.Status()
	}
	return reason.Status()
}

// detailOf is the cause behind the reason.
func (d *ending) detail() string {
	if err := d.ex.Outcome.Err; err != nil && d.ex.Outcome.Reason != message.ReasonNone {
		return err.Error()
	}
	if d.ex.Response != nil && d.ex.Response.Detail != "" {
		return d.ex.Response.Detail
	}
	if err := d.ex.Outcome.Err; err != nil {
		return err.Error()
	}
	return ""
}
