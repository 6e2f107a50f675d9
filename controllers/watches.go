package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/controllers/watch"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// watches are those of all kinds. A kind whose CRD is not there is not watched, and picked up when it comes; what was read of it goes
// only when the CRD has definitely gone: while nobody can say, what is known serves on.
type watches struct {
	options watchesOptions
	crds    *watch.Watch
	all     []*kindWatch
	byName  map[string]*kindWatch
	decide  chan struct{} // holds one: a CRD came or went
	running sync.WaitGroup
}

type watchesOptions struct {
	client   client.WithWatch
	scheme   *runtime.Scheme
	trim     trimmer
	nodes    bool
	patience time.Duration
	set      func(k kind, objects ...Object) // are told what is new, changed or gone, in the watches' goroutines
	delete   func(k kind, objects ...Object)
	changed  func() // synced, or what complete says, may have changed
	log      logr.Logger
}

// kindWatch is the watch of a kind.
type kindWatch struct {
	kind
	*watch.Watch

	// What follows is of the goroutine in run, but that others read absent and started.
	cancel context.CancelFunc
	done   chan struct{}

	mu              sync.Mutex // guards what follows
	absent, started bool
	said            [2]bool // answered and refused, when somebody was told last
}

func newWatches(o watchesOptions) *watches {
	ws := &watches{options: o, byName: map[string]*kindWatch{}, decide: make(chan struct{}, 1)}
	rouse := func() {
		select {
		case ws.decide <- struct{}{}:
		default:
		}
		o.changed()
	}
	crds := definitions(o.scheme)
	ws.crds = watch.New(watch.Options{
		Client: o.client, Object: crds.object, List: crds.list, Trim: o.trim.trim, Patience: o.patience,
		Keep: func(o client.Object) bool { return ws.byResource(o.GetName()) != nil },
		Set: func(all ...client.Object) {
			for _, o := range all {
				ws.byResource(o.GetName()).Again()
			}
			rouse()
		},
		Delete:  func(...client.Object) { rouse() },
		Changed: rouse,
		Log:     o.log.WithValues("kind", crds.name),
	})
	for _, k := range kinds(o.scheme, o.nodes) {
		ws.add(k)
	}
	return ws
}

func (ws *watches) add(k kind) {
	w := &kindWatch{kind: k}
	o := watch.Options{
		Client: ws.options.client, Object: k.object, List: k.list, Trim: ws.options.trim.trim, Patience: ws.options.patience,
		Set:     func(all ...client.Object) { ws.options.set(k, all...) },
		Delete:  func(all ...client.Object) { ws.options.delete(k, all...) },
		Changed: func() { ws.stateOf(w) },
		Log:     ws.options.log.WithValues("kind", k.name),
	}
	if k.own {
		o.Namespace = ws.options.trim.namespace
	}
	if k.name == "Namespace" {
		o.Trim = asNamespace
	}
	w.Watch = watch.New(o)
	ws.all = append(ws.all, w)
	ws.byName[k.name] = w
}

func (ws *watches) byResource(resource string) *kindWatch {
	i := slices.IndexFunc(ws.all, func(w *kindWatch) bool { return w.custom && w.resource == resource })
	if i < 0 {
		return nil
	}
	return ws.all[i]
}

// run watches until ctx ends.
func (ws *watches) run(ctx context.Context) {
	defer ws.running.Wait()
	ws.running.Go(func() { ws.crds.Run(ctx) })
	for _, w := range ws.all {
		if !w.custom {
			ws.start(ctx, w)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ws.decide:
			ws.settle(ctx)
		}
	}
}

// settle begins with kinds whose CRD has come, and ends with those whose CRD has gone. If we may not see CRDs, we try them all.
func (ws *watches) settle(ctx context.Context) {
	known := ws.crds.State()
	for _, w := range ws.all {
		switch {
		case !w.custom || !known.Answered():
		case known.Synced && ws.crds.Get("", w.resource) == nil:
			ws.end(w)
		default:
			ws.start(ctx, w)
		}
	}
	ws.options.changed()
}

func (ws *watches) start(ctx context.Context, w *kindWatch) {
	if w.cancel != nil {
		return
	}
	ctx, w.cancel = context.WithCancel(ctx)
	done := make(chan struct{})
	w.done = done
	w.mark(true, false)
	ws.running.Go(func() { defer close(done); w.Run(ctx) })
}

// end forgets a kind: it is not there.
func (ws *watches) end(w *kindWatch) {
	if w.cancel != nil {
		w.cancel()
		<-w.done
		w.cancel = nil
		ws.options.log.Info("a CRD is gone, and with it what there was of its kind", "crd", w.resource)
	}
	w.Forget()
	w.mark(false, true)
}

func (w *kindWatch) mark(started, absent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started, w.absent = started, absent
}

// answered reports whether we know all that we shall know for now: all of it, or that there is no such kind, or that we may not know.
func (w *kindWatch) answered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.State()
	return w.absent || w.started && s.Answered() && !w.lacks(s)
}

// lacks reports whether we may not read, and never could, what we cannot do without: such a replica must not be sent anything. One that
// could until now serves on.
func (w *kindWatch) lacks(s watch.State) bool {
	return w.needed && !s.Synced && s.Refused && apierrors.IsForbidden(s.Err)
}

// stateOf passes on that a watch stands otherwise, if that matters to others.
func (ws *watches) stateOf(w *kindWatch) {
	s := w.State()
	now := [2]bool{s.Answered(), s.Refused}
	w.mu.Lock()
	before := w.said
	w.said = now
	w.mu.Unlock()
	if before != now && w.lacks(s) {
		ws.options.log.Error(s.Err, "not ready, since a right is missing that nothing works without", "grant", w.grant())
	}
	if before != now {
		ws.options.changed()
	}
}

// synced reports whether everything was read once, as far as it is there and may be read.
func (ws *watches) synced() bool {
	return ws.crds.State().Answered() && !slices.ContainsFunc(ws.all, func(w *kindWatch) bool { return !w.answered() })
}

// grant is the right that a kind needs.
func (w *kindWatch) grant() string { return "get, list and watch on " + w.resource }

// missing says what has not been read yet, and why; nil: nothing. A right that is missing comes first: nothing else helps.
func (ws *watches) missing() error {
	var names, grants []string
	why := ws.crds.State().Why()
	if !ws.crds.State().Answered() {
		names = append(names, "CustomResourceDefinition")
	}
	for _, w := range ws.all {
		if w.answered() {
			continue
		}
		if w.lacks(w.State()) {
			grants = append(grants, w.grant())
		}
		names = append(names, w.name)
		if why == "" {
			why = w.State().Why()
		}
	}
	switch {
	case len(names) == 0:
		return nil
	case len(grants) > 0:
		return fmt.Errorf("nothing works without a right that Gatehouse lacks; grant its ServiceAccount %s", strings.Join(grants, "; "))
	case why != "":
		return fmt.Errorf("not read from the API server yet: %s: %s", strings.Join(names, ", "), why)
	}
	return fmt.Errorf("not read from the API server yet: %s", strings.Join(names, ", "))
}

// complete adds to the facts which kinds there are, and which of them we may not read.
func (ws *watches) complete(f *translate.Facts) {
	for _, w := range ws.all {
		if s := w.State(); s.Refused && apierrors.IsForbidden(s.Err) {
			f.Unreadable = append(f.Unreadable, w.resource)
		}
	}
	if !ws.crds.State().Synced {
		return
	}
	f.CRDs = map[string]string{}
	for _, o := range ws.crds.Objects() {
		if strings.HasSuffix(o.GetName(), "."+gwv1.GroupName) {
			f.CRDs[o.GetName()] = o.GetAnnotations()[bundleVersion]
		}
	}
}

// whole reports whether all objects of a kind are known: a kind that is not there, or may not be read, has none that we know of.
func (ws *watches) whole(name string) bool {
	w := ws.byName[name]
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.started && w.State().Synced
}

// stored is an object as it was read last, or nil.
func (ws *watches) stored(kind string, name snapshot.Name) Object {
	if w := ws.byName[kind]; w != nil {
		return w.Get(name.Namespace, name.Name)
	}
	return nil
}
