package controllers

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/gatehouse-dev/gatehouse/controllers/endpoints"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Options of a loop.
type Options struct {
	DataPlane DataPlane
	// Input is what Build is given beside the objects. The loop sets Objects and LastGood, and in a cluster PodPorts and Answers.
	Input translate.Input
	// Endpoints says which addresses backends may have.
	Endpoints endpoints.Options
	// Told is called from the loop's goroutine with all statuses, after each change that may have changed one. It ought to return soon.
	Told func([]translate.Status)
	Log  logr.Logger

	// Cluster is where the objects come from; nil: from files, and what is not among them is absent.
	Cluster Surroundings
	// Outside is what the cluster has for the Gateways; nil: nothing, and listeners bind where their Gateways say.
	Outside Outside
}

// Loop brings changes of objects to the data plane: changes → batch → Build → SetEndpoints, Apply → statuses. The first change is
// handled at once, and what comes meanwhile is the next batch; there is no timer that waits for more. It owns the table of endpoints
// and what serves while an answer is pending.
//
// A change of EndpointSlices alone is told to the data plane without a Build, and what concerns nobody here is only noted. A snapshot that
// is as before is not applied again. Sockets that could not be bound are tried again after a second, then ever less often, at least every
// half minute.
//
// In a cluster the first snapshot is applied when all is known that it depends on: everything was read once, and Build asks for nothing
// that has no answer.
type Loop struct {
	options Options
	wake    chan struct{} // holds one: there is something to do
	applied chan struct{} // closed after the first Apply

	mu    sync.Mutex // guards what follows
	known map[identity]Object
	news  news

	// What follows is of the goroutine in Run.
	objects  map[identity]Object
	answers  translate.Answers
	hopeless map[translate.Ref]bool // references that the start does not wait for
	ours     ours                   // what the last Build was about
	podPorts map[translate.PodPort]uint16
	table    *endpoints.Table
	refused  []endpoints.Refused
	gone     map[snapshot.BackendRef]bool // backends that are no more, and that the plan still names
	stale    bool                         // objects changed since built
	built    translate.Result
	good     *translate.LastGood
	serving  serving
	retry    time.Duration // before failed binds are tried again; 0: none failed
	retryAt  time.Time
}

// news is what was told since the last batch.
type news struct {
	dirty    map[identity]bool // what of known is another object; false: though it says the same
	answers  translate.Answers
	hopeless []translate.Ref
	around   bool // Surroundings or Outside have something new to say
}

// The first and the longest time before failed binds are tried again.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// NewLoop makes a loop that knows nothing. It does nothing before Run, so that all that there is can be told first.
func NewLoop(o Options) *Loop {
	return &Loop{
		options:  o,
		wake:     make(chan struct{}, 1),
		applied:  make(chan struct{}),
		known:    map[identity]Object{},
		news:     news{dirty: map[identity]bool{}},
		objects:  map[identity]Object{},
		answers:  translate.Answers{},
		hopeless: map[translate.Ref]bool{},
		stale:    true,
		table:    endpoints.New(o.Endpoints),
		gone:     map[snapshot.BackendRef]bool{},
	}
}

// Applied is closed when the first snapshot has been applied.
func (l *Loop) Applied() <-chan struct{} { return l.applied }

// Set tells of objects that are new or changed.
func (l *Loop) Set(objects ...Object) {
	changed := false
	l.mu.Lock()
	for _, o := range objects {
		changed = l.set(identityOf(o), o) || changed
	}
	l.mu.Unlock()
	if changed {
		l.rouse()
	}
}

// Delete tells of objects that are gone; only their kinds and names count.
func (l *Loop) Delete(objects ...Object) {
	changed := false
	l.mu.Lock()
	for _, o := range objects {
		changed = l.set(identityOf(o), nil) || changed
	}
	l.mu.Unlock()
	if changed {
		l.rouse()
	}
}

// Replace tells of all objects that there are. Those that are the same pointer as before have not changed. Of two with one name the
// first counts.
func (l *Loop) Replace(objects []Object) {
	there := make(map[identity]bool, len(objects))
	l.mu.Lock()
	for _, o := range objects {
		if id := identityOf(o); !there[id] {
			there[id] = true
			l.set(id, o)
		}
	}
	for id := range l.known {
		if !there[id] {
			l.set(id, nil)
		}
	}
	l.mu.Unlock()
	l.rouse()
}

// Answer tells what is known of a reference that the surroundings were asked about. That an object is there is told by Set; where a selector
// refers to many, Found says that all of them were.
func (l *Loop) Answer(ref translate.Ref, a translate.Answer) {
	l.mu.Lock()
	if l.news.answers == nil {
		l.news.answers = translate.Answers{}
	}
	l.news.answers[ref] = a
	l.mu.Unlock()
	l.rouse()
}

// Hopeless tells that there is no answer about a reference though the API server is there: at the start, others do not wait for it.
func (l *Loop) Hopeless(ref translate.Ref) {
	l.mu.Lock()
	l.news.hopeless = append(l.news.hopeless, ref)
	l.mu.Unlock()
	l.rouse()
}

// Around tells that what Surroundings or Outside say may not be what they said before.
func (l *Loop) Around() {
	l.mu.Lock()
	l.news.around = true
	l.mu.Unlock()
	l.rouse()
}

// set notes an object, nil for one that is gone, and says whether that is news; l.mu is held. One that says the same as before takes its
// place quietly, or both would stay in memory.
func (l *Loop) set(id identity, o Object) (changed bool) {
	was, ok := l.known[id]
	switch {
	case ok && o == was, !ok && o == nil:
		return false
	case o == nil:
		delete(l.known, id)
		changed = true
	default:
		l.known[id] = o
		changed = !ok || !same(was, o)
	}
	l.news.dirty[id] = l.news.dirty[id] || changed
	return changed
}

func (l *Loop) rouse() {
	select {
	case l.wake <- struct{}{}:
	default: // it is awake, and will see this too
	}
}

// batch takes what was told since the last one, and the objects that changed by identity, nil for those that are gone.
func (l *Loop) batch() (map[identity]Object, news) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changes := make(map[identity]Object, len(l.news.dirty))
	for id := range l.news.dirty {
		changes[id] = l.known[id]
	}
	n := l.news
	l.news = news{dirty: map[identity]bool{}}
	return changes, n
}

// Run handles changes until ctx ends.
func (l *Loop) Run(ctx context.Context) {
	again := time.NewTimer(lastRetry)
	defer again.Stop()
	for {
		again.Stop()
		if l.retry > 0 {
			again.Reset(time.Until(l.retryAt))
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			whole := l.complete() // asked first: what was read by then is in the batch
			changes, n := l.batch()
			l.handle(changes, n, whole)
		case <-again.C:
			l.bindAgain()
		}
	}
}
