package telemetry

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// gaugeFamily is a metric of values that filters are asked for when somebody looks.
type gaugeFamily struct {
	desc   *prometheus.Desc
	labels []string

	mu     sync.Mutex // guards series
	series map[*filterGauge]bool
}

// filterGauge is one series of it.
type filterGauge struct {
	family *gaugeFamily
	values []string
	read   atomic.Pointer[func() float64]
}

func (g *filterGauge) drop() {
	g.family.mu.Lock()
	defer g.family.mu.Unlock()
	delete(g.family.series, g)
}

// Describe says what there is.
func (f *gaugeFamily) Describe(ch chan<- *prometheus.Desc) { ch <- f.desc }

// Collect asks for all values; no lock is held meanwhile.
func (f *gaugeFamily) Collect(ch chan<- prometheus.Metric) {
	f.mu.Lock()
	all := make([]*filterGauge, 0, len(f.series))
	for g := range f.series {
		all = append(all, g)
	}
	f.mu.Unlock()
	for _, g := range all {
		ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, (*g.read.Load())(), g.values...)
	}
}

type filterGaugeKey struct{ name, values string }

// Gauge shows a value of a filter, gatehouse_filter_<name>, that is read whenever metrics are asked for, by several at once. Labels are as
// with Counter. Of those that name the same series the last one given is read.
func (r *Round) Gauge(filter, name string, read func() float64, pairs ...string) {
	if r == nil {
		return
	}
	labels, values := labelled(filter, pairs)
	family, err := r.t.metrics.gaugeFamily(name, labels)
	if err != nil {
		r.t.options.Errors.Error("a filter's gauge cannot be made", "filter", filter, "name", name, "error", err)
		return
	}
	g := get(r, filterGaugeKey{name, strings.Join(values, "\xff")}, func() *filterGauge {
		g := &filterGauge{family: family, values: values}
		g.read.Store(&read)
		family.mu.Lock()
		defer family.mu.Unlock()
		family.series[g] = true
		return g
	})
	g.read.Store(&read)
}

func (m *metrics) gaugeFamily(name string, labels []string) (*gaugeFamily, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.filterGauges[name]; ok {
		return f, asElsewhere(labels, f.labels)
	}
	if err := known(labels); err != nil {
		return nil, err
	}
	f := &gaugeFamily{
		desc:   prometheus.NewDesc("gatehouse_filter_"+name, "Read of filters; see their pages.", labels, nil),
		labels: labels, series: map[*filterGauge]bool{},
	}
	if err := m.registry.Register(f); err != nil {
		return nil, err
	}
	m.filterGauges[name] = f
	return f, nil
}
