package telemetry

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// RouteLabels name a rule on a Gateway. With Gateway alone: what matches no rule there.
type RouteLabels struct {
	Gateway string // namespace/name
	Kind    string // HTTPRoute, GRPCRoute
	Route   string // namespace/name
	Rule    string // its name, or its index
}

// Route is what an exchange of one rule on one Gateway counts into; the proxy puts it into Exchange.RouteKey. Nil: nothing.
type Route struct {
	gateway  *Gateway
	codes    *fan
	reasons  *fan
	duration *lazy
}

// Route resolves the handle of a rule on a Gateway.
func (r *Round) Route(labels RouteLabels) *Route {
	if r == nil {
		return nil
	}
	gateway := r.Gateway(labels.Gateway)
	return get(r, labels, func() *Route { return newRoute(r.t.metrics, gateway, labels) })
}

func newRoute(m *metrics, gateway *Gateway, l RouteLabels) *Route {
	labels := []string{l.Gateway, l.Kind, l.Route, l.Rule}
	return &Route{
		gateway: gateway, codes: newFan(m.requests, labels...), reasons: newFan(m.failures, labels...),
		duration: newLazy(m.requestDuration, labels...),
	}
}

func (r *Route) count(d *ending) {
	r.codes.at(codeWord(d.status)).Inc()
	if d.reason != message.ReasonNone {
		r.reasons.at(d.reason.String()).Inc()
	}
	if d.took > 0 && !d.tunnel() {
		r.duration.observe(d.took)
	}
	r.gateway.bytesIn.Add(float64(max(d.ex.Outcome.BytesIn, 0)))
	r.gateway.bytesOut.Add(float64(max(d.ex.Outcome.BytesOut, 0)))
}

func (r *Route) drop() {
	r.codes.drop()
	r.reasons.drop()
	r.duration.drop()
}

// Backend is what attempts on one backend count into. Nil: nothing.
type Backend struct {
	t        *Telemetry
	name     string
	results  *fan
	duration *lazy
	inFlight prometheus.Gauge
	replays  prometheus.Counter
	ready    prometheus.Gauge
	draining prometheus.Gauge
}

type backendKey string

// Backend resolves the handle of a backend, named as in logs ("shop/cart:8080"). It must be asked for in every round, and what is
// returned be used from then on: a backend that was away for longer than Grace has new series.
func (r *Round) Backend(name string) *Backend {
	if r == nil {
		return nil
	}
	return get(r, backendKey(name), func() *Backend {
		m := r.t.metrics
		return &Backend{
			t: r.t, name: name, results: newFan(m.attempts, name), duration: newLazy(m.attemptDuration, name),
			inFlight: m.attemptsInFlight.WithLabelValues(name), replays: m.replays.WithLabelValues(name),
			ready: m.endpoints.WithLabelValues(name, "ready"), draining: m.endpoints.WithLabelValues(name, "draining"),
		}
	})
}

func (b *Backend) drop() {
	b.results.drop()
	b.duration.drop()
	m := b.t.metrics
	m.replays.DeleteLabelValues(b.name)
	m.attemptsInFlight.DeleteLabelValues(b.name)
	m.endpoints.DeleteLabelValues(b.name, "ready")
	m.endpoints.DeleteLabelValues(b.name, "draining")
}

// SetEndpoints shows how many endpoints the backend has; draining ones are terminating and still serve.
func (b *Backend) SetEndpoints(ready, draining int) {
	if b != nil {
		b.ready.Set(float64(ready))
		b.draining.Set(float64(draining))
	}
}

// Gateway is what connections to one Gateway count into. Nil: nothing.
type Gateway struct {
	m         *metrics
	name      string
	open      prometheus.Gauge
	accepted  prometheus.Counter
	errors    prometheus.Counter
	bytesIn   prometheus.Counter
	bytesOut  prometheus.Counter
	refused   *fan
	failed    *fan
	duration  *lazy
	succeeded [len(tlsVersions)]*fan
}

type gatewayKey string

// Gateway resolves the handle of a Gateway ("namespace/name").
func (r *Round) Gateway(name string) *Gateway {
	if r == nil {
		return nil
	}
	return get(r, gatewayKey(name), func() *Gateway { return newGateway(r.t.metrics, name) })
}

func newGateway(m *metrics, name string) *Gateway {
	g := &Gateway{
		m: m, name: name,
		open:     m.connections.WithLabelValues(name),
		accepted: m.accepted.WithLabelValues(name),
		errors:   m.acceptErrors.WithLabelValues(name),
		bytesIn:  m.requestBytes.WithLabelValues(name),
		bytesOut: m.responseBytes.WithLabelValues(name),
		refused:  newFan(m.refused, name),
		failed:   newFan(m.handshakeFailed, name),
		duration: newLazy(m.handshakeSeconds, name),
	}
	for i, v := range tlsVersions {
		g.succeeded[i] = newFan(m.handshakes, name, v.word)
	}
	return g
}

func (g *Gateway) drop() {
	g.m.connections.DeleteLabelValues(g.name)
	g.m.accepted.DeleteLabelValues(g.name)
	g.m.acceptErrors.DeleteLabelValues(g.name)
	g.m.requestBytes.DeleteLabelValues(g.name)
	g.m.responseBytes.DeleteLabelValues(g.name)
	g.m.sockets.DeleteLabelValues(g.name, socketBound)
	g.m.sockets.DeleteLabelValues(g.name, socketFailed)
	g.refused.drop()
	g.failed.drop()
	g.duration.drop()
	for _, f := range g.succeeded {
		f.drop()
	}
}

// Opened counts a connection that was accepted and is served; Closed its end.
func (g *Gateway) Opened() {
	if g != nil {
		g.accepted.Inc()
		g.open.Inc()
	}
}

// Closed counts the end of a connection that was Opened.
func (g *Gateway) Closed() {
	if g != nil {
		g.open.Dec()
	}
}

// Refused counts a connection that was closed before anything was read of it; reason is one of a closed list ("limit", "draining").
func (g *Gateway) Refused(reason string) {
	if g != nil {
		g.refused.at(reason).Inc()
	}
}

// AcceptFailed counts a failure to accept.
func (g *Gateway) AcceptFailed() {
	if g != nil {
		g.errors.Inc()
	}
}

// Handshake counts a TLS handshake that succeeded; version as crypto/tls numbers it.
func (g *Gateway) Handshake(version uint16, resumed bool, took time.Duration) {
	if g != nil {
		g.succeeded[tlsIndex(version)].at(strconv.FormatBool(resumed)).Inc()
		g.duration.observe(took)
	}
}

// HandshakeFailed counts one that did not; reason is one of a closed list.
func (g *Gateway) HandshakeFailed(reason string) {
	if g != nil {
		g.failed.at(reason).Inc()
	}
}

// The states of a listening socket.
const (
	socketBound  = "bound"
	socketFailed = "failed"
)

// Sockets shows how many sockets the Gateway listens on, and how many it could not bind.
func (g *Gateway) Sockets(bound, failed int) {
	if g != nil {
		g.m.sockets.WithLabelValues(g.name, socketBound).Set(float64(bound))
		g.m.sockets.WithLabelValues(g.name, socketFailed).Set(float64(failed))
	}
}

// tlsVersions are those that we speak, as crypto/tls numbers them. The last one stands for any other.
var tlsVersions = [...]struct {
	number uint16
	word   string
}{{0x0303, "1.2"}, {0x0304, "1.3"}, {0, "other"}}

func tlsWord(version uint16) string { return tlsVersions[tlsIndex(version)].word }

func tlsIndex(version uint16) int {
	for i := range tlsVersions {
		if tlsVersions[i].number == version {
			return i
		}
	}
	return len(tlsVersions) - 1
}

// certificate is the expiry of one listener's certificate.
type certificate struct {
	m                         *metrics
	gateway, listener, secret string
}

func (c certificate) drop() { c.m.certificates.DeleteLabelValues(c.gateway, c.listener, c.secret) }

// Certificate shows when a certificate of a listener expires. A secret that is rotated keeps its series.
func (r *Round) Certificate(gateway, listener, secret string, expires time.Time) {
	if r == nil {
		return
	}
	c := certificate{r.t.metrics, gateway, listener, secret}
	get(r, c, func() certificate { return c })
	r.t.metrics.certificates.WithLabelValues(gateway, listener, secret).Set(float64(expires.Unix()))
}

// codeWord is the label of a status: a backend of a tenant may send any of 900 numbers, and only those that are registered get a
// series of their own.
func codeWord(status int) string {
	if _, registered := slices.BinarySearch(registeredCodes, status); registered {
		return codeWords[status-100]
	}
	return codeClass(status)
}

// codeClass is "1xx" to "5xx", or "other".
func codeClass(status int) string {
	if status < 100 || status > 599 {
		return "other"
	}
	return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[status/100-1]
}

// registeredCodes are those of IANA's HTTP Status Code Registry that a gateway meets, and 499, which is ours for a client that left.
var registeredCodes = []int{
	101, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308,
	400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424, 425, 426, 428, 429,
	431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 511,
}

// codeWords are the numbers from 100 to 599 in decimal.
var codeWords = func() (words [500]string) {
	for i := range words {
		words[i] = strconv.Itoa(100 + i)
	}
	return words
}()
