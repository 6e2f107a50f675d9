package status

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Client is what is needed of a controller-runtime client, one that reads from the API server itself. It ought to have connections of its
// own: what is written here must not be in the way of the lease.
type Client interface {
	Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error
	Status() client.SubResourceWriter
}

// Options of a Writer.
type Options struct {
	Client Client
	// Stored is an object as it is stored now, as far as is known; nil: it is gone. Nobody changes it. Without it, the API server is
	// asked each time.
	Stored func(kind string, name snapshot.Name) client.Object
	// Wrote is called after each write, from several goroutines, with the object and its status (a Value) before and after. Nil: nobody.
	Wrote func(object client.Object, was, now any)
	Log   logr.Logger
	Now   func() time.Time // nil: time.Now
}

// Limits of a Writer.
const (
	workers  = 8                // objects that are written at a time
	patience = 10 * time.Second // for one call
	tries    = 5                // against others who write the same object, before it waits
	// An object that cannot be written is tried again after the first of these, then ever later.
	firstRetry = 200 * time.Millisecond
	lastRetry  = time.Minute
)

// key names an object.
type key struct {
	kind string
	name snapshot.Name
}

func (k key) String() string { return k.kind + " " + k.name.String() }

// Writer writes statuses while it leads: of each object the latest value that was told, if it says something else than what is stored.
// There is at most one entry for an object, and one write of it at a time. A write is for one version of an object; if that has changed
// meanwhile, what is stored is read and merged once more.
type Writer struct {
	options Options
	wake    chan struct{} // holds one: told has changed

	mu   sync.Mutex // guards what follows
	told []translate.Status
	term *term // nil: it does not lead
}

// term is the time in which a Writer leads.
type term struct {
	options Options
	queue   workqueue.TypedRateLimitingInterface[key]

	mu      sync.Mutex // guards what follows
	wanted  map[key]translate.Status
	written map[key]string // the version that we wrote last: what is stored cannot be older
}

// NewWriter makes one that writes nothing before Lead.
func NewWriter(o Options) *Writer {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wrote == nil {
		o.Wrote = func(client.Object, any, any) {}
	}
	return &Writer{options: o, wake: make(chan struct{}, 1)}
}

// Told takes all statuses of now. What is not among them stays as it is stored. Nobody changes what was told.
func (w *Writer) Told(all []translate.Status) {
	w.mu.Lock()
	w.told = all
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Seen tells that an object is new, changed or gone, its status included: somebody may have changed what we wrote.
func (w *Writer) Seen(kind string, name snapshot.Name) {
	w.mu.Lock()
	t := w.term
	w.mu.Unlock()
	if t != nil {
		t.look(key{kind, name})
	}
}

// Lead writes until ctx ends; calls that are under way then are broken off. It looks at all that was told, whenever that was.
func (w *Writer) Lead(ctx context.Context) {
	t := &term{
		options: w.options,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[key](firstRetry, lastRetry)),
		wanted:  map[key]translate.Status{},
		written: map[key]string{},
	}
	w.mu.Lock()
	w.term = t
	w.mu.Unlock()
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for t.work(ctx) {
			}
		})
	}
	for ctx.Err() == nil {
		w.mu.Lock()
		told := w.told
		w.mu.Unlock()
		t.take(told)
		select {
		case <-ctx.Done():
		case <-w.wake:
		}
	}
	w.mu.Lock()
	w.term = nil
	w.mu.Unlock()
	t.queue.ShutDown()
	all.Wait()
}

// take notes what is wanted now, and has those looked at of which something else is wanted than before.
func (t *term) take(all []translate.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.wanted
	t.wanted = make(map[key]translate.Status, len(all))
	for _, s := range all {
		k := key{s.Kind, s.Name}
		t.wanted[k] = s
		if was, ok := before[k]; !ok || was.Generation != s.Generation || !reflect.DeepEqual(was.Value, s.Value) {
			t.queue.Add(k)
		}
	}
	for k := range t.written {
		if _, still := t.wanted[k]; !still {
			delete(t.written, k)
		}
	}
}

// look has an object looked at of which something is wanted.
func (t *term) look(k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ours := t.wanted[k]; ours {
		t.queue.Add(k)
	}
}

// work looks at one object; false: the term is over.
func (t *term) work(ctx context.Context) bool {
	k, over := t.queue.Get()
	if over {
		return false
	}
	defer t.queue.Done(k)
	t.mu.Lock()
	wanted, still := t.wanted[k]
	t.mu.Unlock()
	if !still || ctx.Err() != nil {
		t.queue.Forget(k)
		return true
	}
	if err := t.write(ctx, k, wanted); err != nil && ctx.Err() == nil {
		t.options.Log.Error(err, "cannot write a status", "object", k.String(), "failures", t.queue.NumRequeues(k)+1)
		t.queue.AddRateLimited(k)
		return true
	}
	t.queue.Forget(k)
	return true
}

// write brings an object's status to what is wanted, unless it says so, speaks of a newer generation, or the object is gone.
func (t *term) write(ctx context.Context, k key, wanted translate.Status) error {
	kind, ok := kinds[k.kind]
	if !ok {
		return fmt.Errorf("no status is written for objects of kind %s", k.kind)
	}
	stored, live, err := t.stored(ctx, k, kind)
	for try := 0; err == nil && stored != nil; try++ {
		if wanted.Generation > stored.GetGeneration() {
			// Either we do not know yet what Build knew, or it was another object of that name. That one's generation must not get into
			// this one's status: it would be the newer one for a long time.
			if live {
				return nil
			}
			stored, live, err = t.read(ctx, k, kind)
			continue
		}
		was := kind.status(stored)
		m, mergeErr := merge(was, wanted.Value, wanted.Generation, t.options.Now())
		if mergeErr != nil || m.newer || !m.changed {
			return mergeErr
		}
		written, writeErr := t.patch(ctx, k, kind, stored, was, m)
		if writeErr == nil || apierrors.IsNotFound(writeErr) {
			t.wrote(k, kind, written, was, m)
			return nil
		}
		if !apierrors.IsConflict(writeErr) && !apierrors.IsInvalid(writeErr) || try+1 == tries {
			return writeErr
		}
		version := stored.GetResourceVersion() // the lock answers "invalid", too
		stored, live, err = t.read(ctx, k, kind)
		if err == nil && stored != nil && stored.GetResourceVersion() == version {
			return writeErr // it is not for another version that it was refused
		}
	}
	return err
}

// stored is the object as it is known; nil: it is gone. Live: the API server was asked.
func (t *term) stored(ctx context.Context, k key, kind kind) (o client.Object, live bool, err error) {
	if t.options.Stored == nil {
		return t.read(ctx, k, kind)
	}
	o = t.options.Stored(k.kind, k.name)
	if o == nil {
		return nil, false, nil
	}
	t.mu.Lock()
	written := t.written[k]
	t.mu.Unlock()
	if written != "" {
		if order, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), written); err != nil || order < 0 {
			return t.read(ctx, k, kind) // what we wrote has not come back to us yet
		}
	}
	return o, false, nil
}

// read asks the API server; a nil object is gone.
func (t *term) read(ctx context.Context, k key, kind kind) (client.Object, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o := kind.object()
	err := t.options.Client.Get(ctx, types.NamespacedName{Namespace: k.name.Namespace, Name: k.name.Name}, o)
	if apierrors.IsNotFound(err) {
		return nil, true, nil
	}
	if err != nil {
		return nil, true, fmt.Errorf("read %s: %w", k, err)
	}
	return o, true, nil
}

// patch writes, for that version of the object, and returns the next one.
func (t *term) patch(ctx context.Context, k key, kind kind, stored client.Object, was any, m merged) (client.Object, error) {
	body, err := patch(stored.GetResourceVersion(), was, m.status)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o := kind.object()
	o.SetNamespace(k.name.Namespace)
	o.SetName(k.name.Name)
	return o, t.options.Client.Status().Patch(ctx, o, client.RawPatch(types.JSONPatchType, body), client.FieldOwner("gatehouse-status"))
}

// wrote notes what was written; the object is gone if it has no version.
func (t *term) wrote(k key, kind kind, o client.Object, was any, m merged) {
	if o == nil || o.GetResourceVersion() == "" {
		return
	}
	t.mu.Lock()
	t.written[k] = o.GetResourceVersion()
	t.mu.Unlock()
	log := t.options.Log.WithValues("object", k.String())
	log.V(1).Info("status written")
	if len(m.leftOut) > 0 {
		log.Info("a status has no room for all that is to be told", "leftOut", m.leftOut)
	}
	t.options.Wrote(o, was, kind.status(o))
}
