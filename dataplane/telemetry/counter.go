package telemetry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Counter counts what a filter finds worth it; many may Add at once.
type Counter interface{ Add(n float64) }

// filterFamily is a metric that filters asked for.
type filterFamily struct {
	vec    *prometheus.CounterVec
	labels []string
}

// filterCounter is one series of it.
type filterCounter struct {
	prometheus.Counter
	vec    *prometheus.CounterVec
	values []string
}

func (c *filterCounter) drop() { c.vec.DeleteLabelValues(c.values...) }

type filterCounterKey struct{ name, values string }

// Counter resolves a counter of a filter: gatehouse_filter_<name>_total, labelled with the filter's name and the pairs (label, value,
// label, value). Name is in snake case, with or without its _total. Labels are out of Labels, and the same, in the same order, wherever
// that name is asked for; otherwise it is a bug of ours that is logged, and counts nothing.
func (r *Round) Counter(filter, name string, pairs ...string) Counter {
	if r == nil {
		return void
	}
	labels, values := labelled(filter, pairs)
	family, err := r.t.metrics.family(name, labels)
	if err != nil {
		r.t.options.Errors.Error("a filter's counter cannot be made", "filter", filter, "name", name, "error", err)
		return void
	}
	key := filterCounterKey{name, strings.Join(values, "\xff")}
	return get(r, key, func() *filterCounter {
		return &filterCounter{family.vec.WithLabelValues(values...), family.vec, values}
	})
}

func (m *metrics) family(name string, labels []string) (*filterFamily, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.filters[name]; ok {
		return f, asElsewhere(labels, f.labels)
	}
	if err := known(labels); err != nil {
		return nil, err
	}
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_filter_" + strings.TrimSuffix(name, "_total") + "_total", Help: "Counted by filters; see their pages.",
	}, labels)
	if err := m.registry.Register(vec); err != nil {
		return nil, err
	}
	f := &filterFamily{vec, labels}
	m.filters[name] = f
	return f, nil
}

// labelled are the labels of a filter's series and their values.
func labelled(filter string, pairs []string) (labels, values []string) {
	labels, values = []string{"filter"}, []string{filter}
	for i := 0; i+1 < len(pairs); i += 2 {
		labels, values = append(labels, pairs[i]), append(values, pairs[i+1])
	}
	return labels, values
}

// asElsewhere reports whether a name that is in use is asked for with its labels.
func asElsewhere(labels, elsewhere []string) error {
	if !slices.Equal(labels, elsewhere) {
		return fmt.Errorf("labels %v, and elsewhere %v", labels, elsewhere)
	}
	return nil
}

// known reports whether labels are out of Labels.
func known(labels []string) error {
	for _, l := range labels {
		if !slices.Contains(Labels, l) {
			return fmt.Errorf("label %q is not one of %v", l, Labels)
		}
	}
	return nil
}
