package telemetry

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Grace is how long the series of what has left the plan are still shown, so that a last scrape sees their last values.
const Grace = 5 * time.Minute

// maxStale bounds the handles that wait for the end of their grace: renaming routes in a loop must not grow the process.
const maxStale = 4096

// handle is something resolved that owns series.
type handle interface{ drop() }

// handles are the resolved handles by key, as keep holds things: by rounds.
type handles struct {
	mu    sync.Mutex // guards what follows
	held  map[any]*held
	round uint64
}

type held struct {
	handle handle
	round  uint64
	left   time.Time // when it left the plan; zero: it is in it
}

func (h *handles) init() { h.held = map[any]*held{} }

// Round is one application of a snapshot: ask for every handle that the new plan needs, then End. A nil Round gives nil handles.
type Round struct {
	t *Telemetry
	n uint64
}

// Round opens a round. One is open at a time.
func (t *Telemetry) Round() *Round {
	if t == nil {
		return nil
	}
	t.handles.mu.Lock()
	defer t.handles.mu.Unlock()
	t.handles.round++
	return &Round{t, t.handles.round}
}

// get returns the handle of that key. Making one takes no lock but vectors' own.
func get[H handle](r *Round, key any, make func() H) H {
	s := &r.t.handles
	s.mu.Lock()
	defer s.mu.Unlock()
	e, found := s.held[key]
	if !found {
		e = &held{handle: make()}
		s.held[key] = e
	}
	e.round, e.left = r.n, time.Time{}
	return e.handle.(H)
}

// End removes the series of handles that have been out of the plan for longer than Grace, the oldest earlier when there are many.
// What is still held by an exchange of an old plan counts into the void from then on.
func (r *Round) End() {
	if r == nil {
		return
	}
	s, now := &r.t.handles, r.t.now()
	s.mu.Lock()
	stale := 0
	for key, e := range s.held {
		if e.round == r.n {
			continue
		}
		if e.left.IsZero() {
			e.left = now
		}
		if now.Sub(e.left) > Grace {
			delete(s.held, key)
			e.handle.drop()
			continue
		}
		stale++
	}
	if stale > maxStale {
		s.dropOldest(stale - maxStale)
	}
	s.mu.Unlock()
}

// dropOldest removes n stale handles, those first that left in the earliest rounds.
func (s *handles) dropOldest(n int) {
	for n > 0 {
		oldest := s.round
		for _, e := range s.held {
			oldest = min(oldest, e.round)
		}
		for key, e := range s.held {
			if e.round == oldest && n > 0 {
				delete(s.held, key)
				e.handle.drop()
				n--
			}
		}
	}
}

// Len is the number of handles, of the plan and stale.
func (t *Telemetry) Len() int {
	if t == nil {
		return 0
	}
	t.handles.mu.Lock()
	defer t.handles.mu.Unlock()
	return len(t.handles.held)
}

// fan is the counters of one vector that differ in their last label only. Each is made when it first counts, found without a lock
// afterwards, and removed with the fan.
type fan struct {
	vec    *prometheus.CounterVec
	labels []string // all but the last
	blades atomic.Pointer[[]blade]

	mu      sync.Mutex // guards what follows, and changes of blades
	dropped bool
}

type blade struct {
	last    string
	counter prometheus.Counter
}

func newFan(vec *prometheus.CounterVec, labels ...string) *fan {
	f := &fan{vec: vec, labels: labels}
	f.blades.Store(&[]blade{})
	return f
}

// void is counted into when a handle is used after its series are gone.
var void = prometheus.NewCounter(prometheus.CounterOpts{Name: "gatehouse_void_total"})

// at returns the counter whose last label is that.
func (f *fan) at(last string) prometheus.Counter {
	blades := *f.blades.Load()
	for i := range blades {
		if blades[i].last == last {
			return blades[i].counter
		}
	}
	return f.add(last)
}

func (f *fan) add(last string) prometheus.Counter {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dropped {
		return void
	}
	old := *f.blades.Load()
	for _, b := range old {
		if b.last == last {
			return b.counter
		}
	}
	c := f.vec.WithLabelValues(append(f.labels[:len(f.labels):len(f.labels)], last)...)
	next := append(old[:len(old):len(old)], blade{last, c})
	f.blades.Store(&next)
	return c
}

func (f *fan) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped = true
	for _, b := range *f.blades.Load() {
		f.vec.DeleteLabelValues(append(f.labels[:len(f.labels):len(f.labels)], b.last)...)
	}
	f.blades.Store(&[]blade{})
}

// lazy is one series of a histogram vector, made when it is first observed.
type lazy struct {
	vec      *prometheus.HistogramVec
	labels   []string
	observer atomic.Pointer[prometheus.Observer]

	mu      sync.Mutex // guards dropped, and changes of observer
	dropped bool
}

func newLazy(vec *prometheus.HistogramVec, labels ...string) *lazy {
	return &lazy{vec: vec, labels: labels}
}

func (l *lazy) observe(d time.Duration) {
	if o := l.observer.Load(); o != nil {
		(*o).Observe(d.Seconds())
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped {
		return
	}
	o := l.vec.WithLabelValues(l.labels...)
	l.observer.Store(&o)
	o.Observe(d.Seconds())
}

func (l *lazy) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = true
	l.vec.DeleteLabelValues(l.labels...)
}
