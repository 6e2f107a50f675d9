package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// quick are the buckets of calls that requests wait for.
var quick = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25}

// Store counts what a store of counters that replicas share is asked. Nil counts nothing.
type Store struct {
	calls   *fan
	seconds prometheus.Histogram
	up      prometheus.Gauge
	dropped prometheus.Counter
}

// Store makes the metrics of the process's store. It is called once, and only where there is a store: a metric that says "down" of one
// that nobody wants would be an alarm.
func (t *Telemetry) Store() *Store {
	if t == nil {
		return nil
	}
	m := t.metrics
	s := &Store{
		calls:   newFan(m.counters("store_calls_total", "Calls that requests wanted of the store that replicas share.", "result")),
		up:      m.gauge("store_up", "1: the store is asked. 0: it does not answer, and is looked for."),
		dropped: m.counter("store_dropped_total", "Things to be told to the store that were given up, such as places given back."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gatehouse_store_call_duration_seconds", Help: "Of calls that the store was asked, answered or not.", Buckets: quick,
		}),
	}
	m.registry.MustRegister(s.seconds)
	return s
}

// StoreCall counts a call; one that was not even made ("down") has no duration.
func (s *Store) StoreCall(result string, took time.Duration) {
	if s == nil {
		return
	}
	s.calls.at(result).Inc()
	if result != "down" {
		s.seconds.Observe(took.Seconds())
	}
}

// StoreUp says whether the store is asked.
func (s *Store) StoreUp(up bool) {
	switch {
	case s == nil:
	case up:
		s.up.Set(1)
	default:
		s.up.Set(0)
	}
}

// StoreDropped counts what was given up.
func (s *Store) StoreDropped(n int) {
	if s != nil {
		s.dropped.Add(float64(n))
	}
}
