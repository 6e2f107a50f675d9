package telemetry

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Labels are all label names that a metric of ours may have. A value is the name of an object of the configuration, or a word of a
// closed list; a test holds every metric to this list.
var Labels = []string{
	"gateway",  // namespace/name
	"listener", // name in its Gateway
	"kind",     // HTTPRoute, GRPCRoute
	"route",    // namespace/name; "" when none matched
	"rule",     // name, or index in its route
	"backend",  // namespace/service:port
	"secret",   // namespace/name
	"code",     // HTTP status, or its class when it is not a registered one
	"reason",   // a word of message.Reason, or of the metric's own list
	"result",   // of an attempt: class of the answer's status, or a reason
	"state",    // of an endpoint or a socket
	"version",  // of TLS, or of the build
	"resumed",  // "true", "false"
	"filter",   // name of the filter
	"policy",   // namespace/name
	"limit",    // name in its policy
	"method",   // of an AuthPolicy: name in its policy; never an HTTP method
	"mode",     // of a policy: Enforce, Shadow
	"commit", "go_version",
}

// seconds are the buckets of durations. Few, as each costs a series per route and backend.
var seconds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// metrics are all families, in a registry of their own.
type metrics struct {
	registry *prometheus.Registry
	unrouted *Route // counts what reached no Gateway

	requests        *prometheus.CounterVec
	requestDuration *prometheus.HistogramVec
	failures        *prometheus.CounterVec
	inFlight        prometheus.Gauge
	requestBytes    *prometheus.CounterVec
	responseBytes   *prometheus.CounterVec

	attempts         *prometheus.CounterVec
	attemptDuration  *prometheus.HistogramVec
	attemptsInFlight *prometheus.GaugeVec
	replays          *prometheus.CounterVec
	retries          *fan
	endpoints        *prometheus.GaugeVec

	connections      *prometheus.GaugeVec
	accepted         *prometheus.CounterVec
	refused          *prometheus.CounterVec
	acceptErrors     *prometheus.CounterVec
	handshakes       *prometheus.CounterVec
	handshakeFailed  *prometheus.CounterVec
	handshakeSeconds *prometheus.HistogramVec
	sockets          *prometheus.GaugeVec
	certificates     *prometheus.GaugeVec

	logLines            prometheus.Counter
	logDropped          prometheus.Counter
	traceExportFailures prometheus.Counter

	applies      prometheus.Counter
	applySeconds prometheus.Histogram
	sequence     prometheus.Gauge
	lastApply    prometheus.Gauge

	mu           sync.Mutex // guards what follows
	filters      map[string]*filterFamily
	filterGauges map[string]*gaugeFamily
}

func newMetrics(o Options) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), filters: map[string]*filterFamily{}, filterGauges: map[string]*gaugeFamily{}}
	m.exchanges()
	m.upstream()
	m.downstream()
	m.process(o)
	m.unrouted = newRoute(m, newGateway(m, ""), RouteLabels{})
	return m
}

func (m *metrics) exchanges() {
	route := []string{"gateway", "kind", "route", "rule"}
	m.requests = m.counters("requests_total", "Exchanges that are over.", append(slices.Clone(route), "code")...)
	m.failures = m.counters("request_failures_total",
		"Exchanges that no backend answered, or whose answer did not reach its end.", append(slices.Clone(route), "reason")...)
	m.requestDuration = m.histograms("request_duration_seconds",
		"From the head of a request to the last byte of its answer; tunnels are not in it.", route...)
	m.inFlight = m.gauge("requests_in_flight", "Exchanges under way.")
	m.requestBytes = m.counters("request_body_bytes_total", "Bytes of request bodies, and of tunnels from clients.", "gateway")
	m.responseBytes = m.counters("response_body_bytes_total", "Bytes of response bodies, and of tunnels to clients.", "gateway")
}

func (m *metrics) upstream() {
	m.attempts = m.counters("attempts_total", "Attempts to forward, by what came of them.", "backend", "result")
	m.attemptDuration = m.histograms("attempt_duration_seconds",
		"From the choice of an endpoint to the head of its answer, or to the failure.", "backend")
	m.attemptsInFlight = m.gauges("attempts_in_flight", "Attempts whose answer is not at its end.", "backend")
	m.replays = m.counters("attempt_replays_total", "Times that a transport tried again by itself on a dead connection.", "backend")
	m.retries = newFan(m.counters("retries_total", "Further attempts of an exchange, by why the one before was not enough.", "reason"))
	m.endpoints = m.gauges("endpoints", "Endpoints of a backend.", "backend", "state")
}

func (m *metrics) downstream() {
	m.connections = m.gauges("connections_open", "Connections of clients.", "gateway")
	m.accepted = m.counters("connections_accepted_total", "Connections accepted.", "gateway")
	m.refused = m.counters("connections_refused_total", "Connections closed before anything was read.", "gateway", "reason")
	m.acceptErrors = m.counters("accept_errors_total", "Failures to accept, such as no file descriptors left.", "gateway")
	m.handshakes = m.counters("tls_handshakes_total", "TLS handshakes that succeeded.", "gateway", "version", "resumed")
	m.handshakeFailed = m.counters("tls_handshake_failures_total", "TLS handshakes that failed.", "gateway", "reason")
	m.handshakeSeconds = m.histograms("tls_handshake_duration_seconds", "Of handshakes that succeeded.", "gateway")
	m.sockets = m.gauges("sockets", "Listening sockets.", "gateway", "state")
	m.certificates = m.gauges("certificate_expiry_timestamp_seconds",
		"When the certificate of a listener expires, as Unix time.", "gateway", "listener", "secret")
}

func (m *metrics) process(o Options) {
	m.logLines = m.counter("access_log_lines_total", "Lines of the access log that were written.")
	m.logDropped = m.counter("access_log_dropped_lines_total", "Lines of the access log that were dropped, as the queue was full or writing failed.")
	m.traceExportFailures = m.counter("trace_export_failures_total", "Batches of spans that could not be sent.")
	m.applies = m.counter("snapshot_applies_total", "Snapshots applied.")
	m.applySeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "gatehouse_snapshot_apply_duration_seconds", Help: "Of applying a snapshot.", Buckets: seconds,
	})
	m.registry.MustRegister(m.applySeconds)
	m.sequence = m.gauge("snapshot_sequence", "Number of the snapshot that serves.")
	m.lastApply = m.gauge("snapshot_last_apply_timestamp_seconds", "When the snapshot that serves was applied, as Unix time.")
	build := m.gauges("build_info", "1; the labels say what this is.", "version", "commit", "go_version")
	build.WithLabelValues(o.Version, o.Commit, runtime.Version()).Set(1)
	if o.Process {
		m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "gatehouse_" + name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *metrics) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "gatehouse_" + name, Help: help})
	m.registry.MustRegister(g)
	return g
}

func (m *metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gatehouse_" + name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gatehouse_" + name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *metrics) histograms(name, help string, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "gatehouse_" + name, Help: help, Buckets: seconds}, labels)
	m.registry.MustRegister(v)
	return v
}

// Applied tells that a snapshot of that number (ascending) serves since now, and how long applying took.
func (t *Telemetry) Applied(sequence uint64, took time.Duration) {
	if t == nil {
		return
	}
	t.metrics.applies.Inc()
	t.metrics.applySeconds.Observe(took.Seconds())
	t.metrics.sequence.Set(float64(sequence))
	t.metrics.lastApply.Set(float64(t.now().UnixMilli()) / 1000)
}

// Retry counts a further attempt; reason is why the one before was not enough, ReasonNone for an answer whose status is tried again.
func (t *Telemetry) Retry(reason message.Reason) {
	if t == nil {
		return
	}
	word := reason.String()
	if reason == message.ReasonNone {
		word = "status"
	}
	t.metrics.retries.at(word).Inc()
}

// BodyBudget shows a budget for held bodies. It is called once.
func (t *Telemetry) BodyBudget(b *message.Budget) {
	if t == nil || b == nil {
		return
	}
	t.metrics.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gatehouse_body_budget_left_bytes", Help: "Memory left for bodies that are held.",
		}, func() float64 { return float64(b.Left()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "gatehouse_body_budget_refused_total", Help: "Times that there was no memory for holding a body.",
		}, func() float64 { return float64(b.Refused()) }))
}
