package controllers

import (
	"context"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/endpoints"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Options of a loop.
type Options struct {
	DataPlane DataPlane
	// Input is what Build is given beside the objects. The loop sets Objects and LastGood.
	Input translate.Input
	// Endpoints says which addresses backends may have.
	Endpoints endpoints.Options
	// Told is called from the loop's goroutine with all statuses, after each change that may have changed one. It ought to return soon.
	Told func([]translate.Status)
	Log  logr.Logger
}

// Loop brings changes of objects to the data plane: changes → batch → Build → SetEndpoints, Apply → statuses. The first change is
// handled at once, and what comes meanwhile is the next batch; there is no timer that waits for more. It owns the table of endpoints
// and what serves while an answer is pending.
//
// A change of EndpointSlices alone is told to the data plane without a Build. A snapshot that is as before is not applied again. Sockets
// that could not be bound are tried again after a second, then ever less often, at least every half minute.
type Loop struct {
	options Options
	wake    chan struct{} // holds one: there is something to do
	applied chan struct{} // closed after the first Apply

	mu    sync.Mutex // guards known and dirty
	known map[identity]Object
	dirty map[identity]bool // what of known changed since the last batch

	// What follows is of the goroutine in Run.
	objects map[identity]Object
	table   *endpoints.Table
	refused []endpoints.Refused
	gone    map[snapshot.BackendRef]bool // backends that are no more, and that the plan still names
	stale   bool                         // objects changed since built
	built   translate.Result
	good    *translate.LastGood
	serving serving
	retry   time.Duration // before failed binds are tried again; 0: none failed
	retryAt time.Time
}

// The first and the longest time before failed binds are tried again.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// NewLoop makes a loop that knows nothing. It does nothing before Run, so that all that there is can be told first.
func NewLoop(o Options) *Loop {
	return &Loop{
		options: o,
		wake:    make(chan struct{}, 1),
		applied: make(chan struct{}),
		known:   map[identity]Object{},
		dirty:   map[identity]bool{},
		objects: map[identity]Object{},
		stale:   true,
		table:   endpoints.New(o.Endpoints),
		gone:    map[snapshot.BackendRef]bool{},
	}
}

// Applied is closed when the first snapshot has been applied.
func (l *Loop) Applied() <-chan struct{} { return l.applied }

// Set tells of objects that are new or changed.
func (l *Loop) Set(objects ...Object) {
	l.mu.Lock()
	for _, o := range objects {
		l.set(identityOf(o), o)
	}
	l.mu.Unlock()
	l.rouse()
}

// Delete tells of objects that are gone; only their kinds and names count.
func (l *Loop) Delete(objects ...Object) {
	l.mu.Lock()
	for _, o := range objects {
		l.set(identityOf(o), nil)
	}
	l.mu.Unlock()
	l.rouse()
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

// set notes an object, nil for one that is gone; l.mu is held.
func (l *Loop) set(id identity, o Object) {
	switch was, ok := l.known[id]; {
	case ok && o == was, !ok && o == nil:
		return
	case o == nil:
		delete(l.known, id)
	default:
		l.known[id] = o
	}
	l.dirty[id] = true
}

func (l *Loop) rouse() {
	select {
	case l.wake <- struct{}{}:
	default: // it is awake, and will see this too
	}
}

// batch takes what changed since the last one: objects by identity, nil for those that are gone.
func (l *Loop) batch() map[identity]Object {
	l.mu.Lock()
	defer l.mu.Unlock()
	changes := make(map[identity]Object, len(l.dirty))
	for id := range l.dirty {
		changes[id] = l.known[id]
	}
	clear(l.dirty)
	return changes
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
			l.handle(l.batch())
		case <-again.C:
			l.bindAgain()
		}
	}
}

// handle is the life of a change.
func (l *Loop) handle(changes map[identity]Object) {
	began := time.Now()
	for id, o := range changes {
		if l.note(id, o) {
			l.stale = true
		}
	}
	moved, gone := l.table.Changes()
	l.forget(moved, gone)
	rebuilt := l.stale && l.build()
	if len(moved) > 0 {
		l.options.DataPlane.SetEndpoints(moved)
	}
	var d difference
	if rebuilt {
		d = l.apply()
	}
	l.emptyGone()
	if refused := l.table.Refused(); rebuilt || !reflect.DeepEqual(refused, l.refused) {
		l.refused = refused
		l.tell()
	}
	log := l.options.Log
	if !rebuilt {
		log = log.V(1) // pods come and go all day
	}
	log.Info("changes handled", "objects", len(changes), "built", rebuilt, "added", d.added, "removed", d.removed,
		"backends", len(moved), "failedBinds", l.serving.failed(), "took", time.Since(began))
}

// note enters a change, and says whether it concerns Build.
func (l *Loop) note(id identity, o Object) bool {
	switch v := o.(type) {
	case nil:
		was := l.objects[id]
		delete(l.objects, id)
		switch was.(type) {
		case nil:
			return false
		case *discoveryv1.EndpointSlice:
			l.table.DeleteSlice(id.name)
			return false
		case *corev1.Service:
			l.table.DeleteService(id.name)
		}
		return true
	case *discoveryv1.EndpointSlice:
		l.objects[id] = v
		l.table.SetSlice(v)
		return false
	case *corev1.Service:
		l.table.SetService(v)
	}
	l.objects[id] = o
	return true
}

// build makes the graph anew, or keeps the last one if that cannot be done: a bug of ours must not end what is being served. It is
// tried again with the next change.
func (l *Loop) build() (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			l.options.Log.Error(nil, "Build panicked; what was served stays", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	in := l.options.Input
	in.Objects, in.LastGood = Sorted(slices.Collect(maps.Values(l.objects))), l.good
	l.built = translate.Build(in)
	l.good, l.stale = l.built.LastGood, false
	return true
}

// apply gives the snapshot to the data plane unless it is what is served.
func (l *Loop) apply() difference {
	now := newServing(l.built.Snapshot)
	first := l.serving.snapshot == nil
	d := now.differs(l.serving)
	if !d.any && !first {
		return d
	}
	now.binds = l.options.DataPlane.Apply(now.snapshot)
	l.serving = now
	l.retryAfter(firstRetry)
	if first {
		close(l.applied)
	}
	return d
}

// retryAfter plans when failed binds are tried again.
func (l *Loop) retryAfter(d time.Duration) {
	l.retry = 0
	if l.serving.failed() > 0 {
		l.retry, l.retryAt = d, time.Now().Add(d)
	}
}

// bindAgain applies what is served once more, for the sockets that could not be bound.
func (l *Loop) bindAgain() {
	before := l.serving.failed()
	l.serving.binds = l.options.DataPlane.Apply(l.serving.snapshot)
	l.retryAfter(min(2*l.retry, lastRetry))
	if l.serving.failed() != before {
		l.options.Log.Info("sockets bound", "bound", before-l.serving.failed(), "failedBinds", l.serving.failed())
		l.tell()
	}
}

// forget notes backends that are gone, and those that came back.
func (l *Loop) forget(moved []snapshot.Endpoints, gone []snapshot.BackendRef) {
	for _, e := range moved {
		delete(l.gone, e.Backend)
	}
	for _, ref := range gone {
		l.gone[ref] = true
	}
}

// emptyGone tells the data plane of backends that are gone, once the plan does not name them: until then requests may still be on
// their way to them.
func (l *Loop) emptyGone() {
	if len(l.gone) == 0 || l.serving.snapshot == nil {
		return
	}
	named := map[snapshot.BackendRef]bool{}
	for _, b := range l.serving.snapshot.Backends {
		named[snapshot.BackendRef{Service: b.Ref.Service, Port: b.Ref.Port}] = true
	}
	var empty []snapshot.Endpoints
	for ref := range l.gone {
		if !named[ref] {
			empty = append(empty, snapshot.Endpoints{Backend: ref})
			delete(l.gone, ref)
		}
	}
	if len(empty) > 0 {
		l.options.DataPlane.SetEndpoints(empty)
	}
}

// tell hands on what users are to be told.
func (l *Loop) tell() {
	defer func() {
		if p := recover(); p != nil {
			l.options.Log.Error(nil, "Statuses panicked; what was told stays", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if l.serving.snapshot == nil {
		return
	}
	facts := translate.Facts{RefusedEndpoints: map[snapshot.BackendRef][]string{}}
	facts.Bound(l.serving.binds)
	for _, r := range l.refused {
		facts.RefusedEndpoints[r.Backend] = []string{r.String()}
	}
	l.options.Told(l.built.Statuses(facts))
}
