package controllers

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/controllers/watch"
)

// references finds answers about what Build refers to. Secrets and ConfigMaps are watched by name, those alone that are referred to and
// granted, and Secrets by label where a policy selects them. What a watch does not show may be on its way: two watches have no common
// order, and a Secret that is replaced is gone for a moment. So an object counts as absent when the API server has said so when asked for
// this one.
//
// There is no answer while the API server is away: what was served, serves on.
type references struct {
	client   client.Reader
	secrets  *watch.Pool // by name
	configs  *watch.Pool // ConfigMaps, by name
	selected *selected   // by label
	told     *union      // what both of them tell
	loop     *Loop
	patience time.Duration
	log      logr.Logger

	slots   chan struct{} // bounds what is asked at once
	working sync.WaitGroup

	mu     sync.Mutex // guards what follows
	ctx    context.Context
	asking map[translate.Ref]*question
	wants  []translate.Ref
	there  map[translate.Ref]bool // what was referred to when we were told last: whether it had an answer
}

// question is one that is being asked until there is an answer.
type question struct{ cancel context.CancelFunc }

const (
	// lookLimit is for one question to the API server: what waits for it serves what it served.
	lookLimit = time.Second
	// replaced is how long what was there may be gone before it is asked for: some tools replace by deleting.
	replaced = 500 * time.Millisecond
	// lookFirst and lookLongest are the times between two questions about the same object.
	lookFirst   = 100 * time.Millisecond
	lookLongest = 5 * time.Second
	// looksAtOnce is how many questions are asked at once.
	looksAtOnce = 8
)

// newReferences makes references whose work ends with ctx. The client reads from the API server, never from a cache.
func newReferences(ctx context.Context, c client.WithWatch, loop *Loop, trim func(Object) Object, patience time.Duration, log logr.Logger) *references {
	r := &references{
		client: c, loop: loop, patience: patience, log: log, ctx: ctx,
		slots: make(chan struct{}, looksAtOnce), asking: map[translate.Ref]*question{}, told: newUnion(loop.Set, loop.Delete),
	}
	secrets := watch.Options{
		Client: c, Object: &corev1.Secret{}, List: &corev1.SecretList{}, Trim: trim,
		Patience: patience, Longest: 15 * time.Second, Log: log.WithValues("kind", "Secret"),
	}
	r.selected = newSelected(ctx, secrets, r.told, loop.Answer)
	secrets.Set = func(all ...Object) { r.told.set(byName, all...) }
	secrets.Delete = func(all ...Object) { r.told.delete(byName, all...) }
	r.secrets = watch.NewPool(watch.PoolOptions{Options: secrets, Answered: r.answered("Secret")})
	r.configs = watch.NewPool(watch.PoolOptions{Options: watch.Options{
		Client: c, Object: &corev1.ConfigMap{}, List: &corev1.ConfigMapList{}, Trim: authoritiesOnly, Set: loop.Set, Delete: loop.Delete,
		Patience: patience, Longest: 15 * time.Second, Log: log.WithValues("kind", "ConfigMap"),
	}, Answered: r.answered("ConfigMap")})
	return r
}

// authoritiesOnly is what Build reads of a ConfigMap.
func authoritiesOnly(o Object) Object {
	m := o.(*corev1.ConfigMap)
	bare(&m.ObjectMeta)
	maps.DeleteFunc(m.Data, func(key, _ string) bool { return key != policy.CAKey })
	maps.DeleteFunc(m.BinaryData, func(key string, _ []byte) bool { return key != policy.CAKey })
	return m
}

// pool is the watches by name of a kind; nil: objects of it are watched in another way.
func (r *references) pool(kind string) *watch.Pool {
	switch kind {
	case "Secret":
		return r.secrets
	case "ConfigMap":
		return r.configs
	}
	return nil
}

// byName is what tells of Secrets that are watched by name, beside those that are by the text of their selector.
const byName = ""

// stop ends all work; ctx has ended.
func (r *references) stop() {
	r.secrets.Stop()
	r.configs.Stop()
	r.selected.stop()
	r.working.Wait()
}

// follow watches the Secrets and ConfigMaps among refs, and looks for what is wanted.
func (r *references) follow(refs, wants []translate.Ref) {
	secrets, configs, selections := map[types.NamespacedName]bool{}, map[types.NamespacedName]bool{}, map[translate.Ref]bool{}
	for _, ref := range refs {
		switch {
		case ref.Selector != "":
			selections[ref] = true
		case ref.Kind == "Secret":
			secrets[types.NamespacedName(ref.Name)] = true
		case ref.Kind == "ConfigMap":
			configs[types.NamespacedName(ref.Name)] = true
		}
	}
	r.secrets.Want(secrets)
	r.configs.Want(configs)
	r.selected.want(selections)

	wanted := map[translate.Ref]bool{}
	for _, ref := range wants {
		wanted[ref] = ref.Selector == "" // its watch answers
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	there := r.there
	r.wants, r.there = wants, map[translate.Ref]bool{}
	for _, ref := range refs {
		r.there[ref] = !wanted[ref]
	}
	for ref, q := range r.asking {
		if !wanted[ref] {
			q.cancel()
			delete(r.asking, ref)
		}
	}
	for ref, ask := range wanted {
		pool := r.pool(ref.Kind)
		if ask && r.asking[ref] == nil && (pool == nil || pool.State(types.NamespacedName(ref.Name)).Answered()) {
			r.ask(ref, there[ref])
		}
	}
}

// answered takes the first answer about an object that is wanted: its watch was empty, or was refused. If the object was there, it has
// been told.
func (r *references) answered(kind string) func(types.NamespacedName, watch.State) {
	return func(name types.NamespacedName, s watch.State) {
		ref := translate.Ref{Kind: kind}
		ref.Name.Namespace, ref.Name.Name = name.Namespace, name.Name
		if s.Refused {
			r.forbidden(ref)
			return
		}
		r.loop.Answer(ref, translate.Absent) // which nobody hears if it is there
	}
}

// forbidden acts at once, even on what was served before: after a restart we could not read it either.
func (r *references) forbidden(ref translate.Ref) {
	object := emptyOf(ref.Kind)
	object.SetNamespace(ref.Name.Namespace)
	object.SetName(ref.Name.Name)
	if ref.Kind == "Secret" {
		r.told.delete(byName, object)
	} else {
		r.loop.Delete(object)
	}
	r.loop.Answer(ref, translate.Forbidden)
}

// emptyOf makes an object to be read into.
func emptyOf(kind string) client.Object {
	switch kind {
	case "Secret":
		return &corev1.Secret{}
	case "ConfigMap":
		return &corev1.ConfigMap{}
	}
	return &corev1.Service{}
}

// ask looks for an object until there is an answer, or nobody wants one; r.mu is held. Gone: it was there a moment ago.
func (r *references) ask(ref translate.Ref, gone bool) {
	ctx, cancel := context.WithCancel(r.ctx)
	q := &question{cancel}
	r.asking[ref] = q
	r.working.Go(func() {
		defer cancel()
		if gone {
			pause(ctx, replaced)
		}
		if answer := r.seek(ctx, ref); answer != translate.Pending {
			r.loop.Answer(ref, answer)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.asking[ref] == q {
			delete(r.asking, ref)
		}
	})
}

// seek asks until there is an answer; Pending: ctx ended before.
func (r *references) seek(ctx context.Context, ref translate.Ref) translate.Answer {
	log := r.log.WithValues("kind", ref.Kind, "name", ref.Name.String())
	began, hopeless := time.Now(), false
	for wait := lookFirst; ; wait = min(2*wait, lookLongest) {
		err := r.look(ctx, ref)
		patient := time.Since(began) < r.patience
		switch {
		case ctx.Err() != nil:
			return translate.Pending
		case apierrors.IsNotFound(err):
			return translate.Absent
		case apierrors.IsForbidden(err) && !patient:
			return translate.Absent // it may be watched, and the watch does not show it
		case apierrors.ReasonForError(err) != "" && !patient && !hopeless:
			hopeless = true
			log.Error(err, "the API server does not say whether an object is there")
			r.loop.Hopeless(ref)
		case err != nil:
			log.V(1).Info("no answer about an object yet", "error", err.Error())
		}
		pause(ctx, wait)
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// look asks once. An object that is there is no answer: its watch will tell it in a moment.
func (r *references) look(ctx context.Context, ref translate.Ref) error {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	return r.client.Get(ctx, types.NamespacedName(ref.Name), emptyOf(ref.Kind))
}

// waiting are the references that have no answer, in words, sorted.
func (r *references) waiting() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ref := range r.wants {
		names = append(names, ref.String())
	}
	return names
}
