// Package watch follows objects of one kind in a cluster: it tells what there is, and then each change. It is a client-go Reflector with
// an end that feeds somebody else's maps instead of a cache of its own, and with a memory for how it stands: whether everything was read
// once, and what the API server said last.
//
// What was read stays when the API server is away, refuses, or forgets the kind. Only what it says is gone, is gone.
//
// Limits: there is no order between two watches. An object that is told again with the version that it had is not told.
package watch

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options of a watch. Client, Object and List are needed.
type Options struct {
	Client client.WithWatch
	// Object and List are empty ones of the type that is watched; for metadata alone a PartialObjectMetadata and its list, with their kind.
	Object client.Object
	List   client.ObjectList
	// Namespace and Name narrow what is watched; "": all. So does Selector, by labels; nil: all.
	Namespace, Name string
	Selector        labels.Selector

	// Trim strips what nobody needs of an object that is its own. It may be called again with what it returned. Nil: nothing is stripped.
	Trim func(client.Object) client.Object
	// Keep says which objects are told; nil: all. One that is not kept any more is told as deleted.
	Keep func(client.Object) bool
	// Set and Delete are told what is new or changed, and what is gone: from one goroutine, all of a first list at once.
	Set, Delete func(...client.Object)
	// Changed is called after State has changed, from the same goroutine; nil: nobody.
	Changed func()

	// Patience is how long the API server has to refuse before this is taken for an answer: one that starts refuses what it will grant in
	// a moment. It is six times as long for what was read once: it serves, and a slow API server that comes back must not end that. Longest is the longest time between two tries. 0: the defaults.
	Patience, Longest time.Duration
	Log               logr.Logger
}

// The defaults of Options.
const (
	DefaultPatience = 10 * time.Second
	DefaultLongest  = 2 * time.Second
)

const firstTry = 200 * time.Millisecond // between the first two tries

// State is how a watch stands.
type State struct {
	// Synced: everything was read once, and is followed since, as far as the API server lets us.
	Synced bool
	// Refused: for Patience the API server has answered, and has not let us read: Forbidden, or it does not know the kind.
	Refused bool
	// Err is why the last try failed; nil while nothing is wrong.
	Err error
}

// Why is Err in few words; "" nothing is wrong.
func (s State) Why() string { return text(s.Err) }

// Answered says that the API server has answered, one way or the other.
func (s State) Answered() bool { return s.Synced || s.Refused }

// Watch follows objects of one kind while Run runs.
type Watch struct {
	options Options
	again   chan struct{} // holds one: try again now

	mu      sync.Mutex // guards what follows
	state   State
	refused time.Time // since when the API server refuses; zero: it doesn't
	objects map[types.NamespacedName]client.Object
}

// New makes a watch. It does nothing before Run.
func New(o Options) *Watch {
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.Longest == 0 {
		o.Longest = DefaultLongest
	}
	if o.Trim == nil {
		o.Trim = func(o client.Object) client.Object { return o }
	}
	return &Watch{options: o, again: make(chan struct{}, 1), objects: map[types.NamespacedName]client.Object{}}
}

// State is how the watch stands now.
func (w *Watch) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Get returns an object that was told and is not gone, or nil. Nobody changes it.
func (w *Watch) Get(namespace, name string) client.Object {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.objects[types.NamespacedName{Namespace: namespace, Name: name}]
}

// Objects are those that were told and are not gone, in no order. Nobody changes them.
func (w *Watch) Objects() []client.Object {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]client.Object, 0, len(w.objects))
	for _, o := range w.objects {
		all = append(all, o)
	}
	return all
}

// Again ends the wait for the next try, if the last one failed.
func (w *Watch) Again() {
	if w.State().Err == nil {
		return
	}
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// Run follows the objects until ctx ends. What was told stays. It may be called again when it has returned.
func (w *Watch) Run(ctx context.Context) {
	for ctx.Err() == nil {
		one, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); w.reflector().RunWithContext(one) }()
		select {
		case <-w.again:
		case <-ctx.Done():
		}
		cancel()
		<-done
	}
}

// Forget tells all objects as deleted, and the watch is as if it had never run. It must not be running.
func (w *Watch) Forget() {
	w.mu.Lock()
	gone := make([]client.Object, 0, len(w.objects))
	for _, o := range w.objects {
		gone = append(gone, o)
	}
	w.objects, w.state, w.refused = map[types.NamespacedName]client.Object{}, State{}, time.Time{}
	w.mu.Unlock()
	w.options.Delete(gone...)
}

func (w *Watch) reflector() *cache.Reflector {
	backoff := &wait.Backoff{Duration: firstTry, Cap: w.options.Longest, Steps: 100, Factor: 2, Jitter: 0.5}
	return cache.NewReflectorWithOptions(lists{w}, w.options.Object, store{w}, cache.ReflectorOptions{Name: "gatehouse", Backoff: backoff})
}

// note remembers what came of a try.
func (w *Watch) note(err error) {
	w.mu.Lock()
	before := w.state
	w.state.Err = err
	switch {
	case !refusal(err):
		w.refused, w.state.Refused = time.Time{}, false
	case w.refused.IsZero():
		w.refused = time.Now()
	default:
		patience := w.options.Patience
		if w.state.Synced {
			patience *= 6
		}
		w.state.Refused = time.Since(w.refused) >= patience
	}
	now := w.state
	w.mu.Unlock()
	w.tell(before, now)
}

func (w *Watch) tell(before, now State) {
	switch {
	case before.Err == nil && now.Err != nil && now.Synced:
		w.options.Log.Info("cannot watch; what is known stays", "error", text(now.Err))
	case before.Err == nil && now.Err != nil:
		w.options.Log.V(1).Info("cannot watch yet", "error", text(now.Err))
	case before.Err != nil && now.Err == nil:
		w.options.Log.Info("watching again")
	}
	if !before.Refused && now.Refused {
		w.options.Log.Error(now.Err, "the API server refuses a watch")
	}
	if w.options.Changed != nil && (before.Synced != now.Synced || before.Refused != now.Refused || text(before.Err) != text(now.Err)) {
		w.options.Changed()
	}
}

// text is an error without the long path that was asked for.
func text(err error) string {
	var asked *url.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &asked):
		return asked.Err.Error()
	}
	return err.Error()
}

// refusal reports whether the API server knows who we are, and will not let us read. It says "not found" of a kind that it doesn't know.
func refusal(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) }

// lists is how the reflector asks.
type lists struct{ w *Watch }

var _ cache.ListerWatcherWithContext = lists{}

func (l lists) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list := l.w.list()
	if err := l.w.options.Client.List(ctx, list, l.w.narrow(&o)); err != nil {
		if ctx.Err() == nil {
			l.w.note(err)
		}
		return nil, err
	}
	return list, nil
}

func (l lists) WatchWithContext(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
	events, err := l.w.options.Client.Watch(ctx, l.w.list(), l.w.narrow(&o))
	switch {
	case ctx.Err() != nil:
	case err != nil && apierrors.IsInvalid(err) && o.SendInitialEvents != nil: // an API server that cannot stream lists; it will be asked for one
	case err != nil:
		l.w.note(err)
	case l.w.State().Synced:
		l.w.note(nil)
	}
	return events, err
}

func (l lists) List(o metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(context.Background(), o)
}

func (l lists) Watch(o metav1.ListOptions) (apiwatch.Interface, error) {
	return l.WatchWithContext(context.Background(), o)
}

func (w *Watch) list() client.ObjectList { return w.options.List.DeepCopyObject().(client.ObjectList) }

// narrow hands the reflector's options on. Limit and Continue are given apart: the client overwrites those of Raw.
func (w *Watch) narrow(o *metav1.ListOptions) *client.ListOptions {
	if w.options.Name != "" {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, w.options.Name).String()
	}
	if w.options.Selector != nil {
		o.LabelSelector = w.options.Selector.String()
	}
	return &client.ListOptions{Namespace: w.options.Namespace, Raw: o, Limit: o.Limit, Continue: o.Continue}
}

// store is where the reflector puts what it reads.
type store struct{ w *Watch }

var _ cache.TransformingStore = store{}

// Transformer strips objects of a first list while it still comes in. Not all ways of reading go through it.
func (s store) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { return s.w.options.Trim(o.(client.Object)), nil }
}

func (s store) Add(o any) error {
	s.w.set(o.(client.Object))
	return nil
}

func (s store) Update(o any) error { return s.Add(o) }

func (s store) Delete(o any) error {
	s.w.remove(nameOf(o.(client.Object)))
	return nil
}

func (s store) Resync() error { return nil }

// Replace is told everything there is: what is not in it is gone.
func (s store) Replace(all []any, _ string) error {
	w := s.w
	w.mu.Lock()
	var changed, gone []client.Object
	there := make(map[types.NamespacedName]client.Object, len(all))
	for _, raw := range all {
		o := w.options.Trim(raw.(client.Object))
		if w.options.Keep != nil && !w.options.Keep(o) {
			continue
		}
		name := nameOf(o)
		if was := w.objects[name]; was != nil && sameVersion(was, o) {
			o = was
		} else {
			changed = append(changed, o)
		}
		there[name] = o
	}
	for name, o := range w.objects {
		if there[name] == nil {
			gone = append(gone, o)
		}
	}
	w.objects = there
	w.mu.Unlock()

	if len(changed) > 0 {
		w.options.Set(changed...)
	}
	if len(gone) > 0 {
		w.options.Delete(gone...)
	}
	w.synced() // not before all was told
	return nil
}

func (w *Watch) synced() {
	w.mu.Lock()
	before := w.state
	w.state, w.refused = State{Synced: true}, time.Time{}
	w.mu.Unlock()
	w.tell(before, State{Synced: true})
}

func (w *Watch) set(o client.Object) {
	o = w.options.Trim(o)
	name := nameOf(o)
	if w.options.Keep != nil && !w.options.Keep(o) {
		w.remove(name)
		return
	}
	w.mu.Lock()
	was := w.objects[name]
	w.objects[name] = o
	w.mu.Unlock()
	if was == nil || !sameVersion(was, o) {
		w.options.Set(o)
	}
}

func (w *Watch) remove(name types.NamespacedName) {
	w.mu.Lock()
	was := w.objects[name]
	delete(w.objects, name)
	w.mu.Unlock()
	if was != nil {
		w.options.Delete(was)
	}
}

func nameOf(o client.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func sameVersion(a, b client.Object) bool {
	return a.GetUID() == b.GetUID() && a.GetResourceVersion() == b.GetResourceVersion()
}
