package controllers

import (
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// handle is the life of a change. Whole: everything there is has been told.
func (l *Loop) handle(changes map[identity]Object, n news, whole bool) {
	began := time.Now()
	for id, o := range changes {
		if l.note(id, o, n.dirty[id]) {
			l.stale = true
		}
	}
	l.hear(n)
	moved, gone := l.table.Changes()
	l.forget(moved, gone)
	rebuilt := l.stale && whole && l.build()

	if len(moved) > 0 {
		l.options.DataPlane.SetEndpoints(moved)
	}
	var d difference
	if rebuilt {
		d = l.apply()
	}
	l.emptyGone()
	if refused := l.table.Refused(); rebuilt || n.around || !reflect.DeepEqual(refused, l.refused) {
		l.refused = refused
		l.tell()
	}

	log := l.options.Log
	if !rebuilt {
		log = log.V(1) // pods come and go all day
	}
	log.Info("changes handled", "objects", len(changes), "built", rebuilt, "added", d.added, "removed", d.removed,
		"backends", len(moved), "failedBinds", l.serving.failed(), "pending", len(l.built.Wants), "took", time.Since(began))
}

// complete reports whether all is there to begin with.
func (l *Loop) complete() bool {
	return l.serving.snapshot != nil || l.options.Cluster == nil || l.options.Cluster.Synced()
}

// hear takes over what was told beside objects.
func (l *Loop) hear(n news) {
	for ref, a := range n.answers {
		if was, known := l.answers[ref]; !l.ours.refs[ref] || l.has(ref) || known && was == a {
			continue // nobody asks any more, or the object came meanwhile
		}
		l.answers[ref] = a
		l.stale = true
	}
	for _, ref := range n.hopeless {
		if l.ours.refs[ref] {
			l.hopeless[ref] = true
			l.stale = l.stale || l.serving.snapshot == nil
		}
	}
	if l.options.Outside != nil {
		if ports := l.options.Outside.PodPorts(); !maps.Equal(ports, l.podPorts) || (ports == nil) != (l.podPorts == nil) {
			l.podPorts = ports
			l.stale = true
		}
	}
}

// note enters an object, nil for one that is gone, and says whether that concerns Build. News: it does not say the same as before.
func (l *Loop) note(id identity, o Object, news bool) bool {
	was := l.objects[id]
	if o == nil {
		delete(l.objects, id)
	} else {
		l.objects[id] = o
		if ref, ok := refTo(o); ok {
			delete(l.answers, ref) // when it is gone again, somebody has to look
		}
	}
	if !news {
		return false
	}
	l.enter(was, o)
	_, gateway := was.(*gwv1.Gateway)
	return l.ours.concern(was) || l.ours.concern(o) || gateway && o == nil // what it had outside goes, even if it was ours only once
}

// enter hands on what the table of endpoints is made of.
func (l *Loop) enter(was, o Object) {
	switch v := o.(type) {
	case *discoveryv1.EndpointSlice:
		l.table.SetSlice(v)
	case *corev1.Service:
		l.table.SetService(v)
	}
	if o != nil {
		return
	}
	switch v := was.(type) {
	case *discoveryv1.EndpointSlice:
		l.table.DeleteSlice(identityOf(v).name)
	case *corev1.Service:
		l.table.DeleteService(identityOf(v).name)
	}
}

// has reports whether the object that a reference names is there.
func (l *Loop) has(ref translate.Ref) bool {
	switch {
	case ref.Selector != "": // any number of them
		return false
	case ref.Kind == "Service":
		return l.objects[identity{reflect.TypeFor[*corev1.Service](), ref.Name}] != nil
	case ref.Kind == "Secret":
		return l.objects[identity{reflect.TypeFor[*corev1.Secret](), ref.Name}] != nil
	case ref.Kind == "ConfigMap":
		return l.objects[identity{reflect.TypeFor[*corev1.ConfigMap](), ref.Name}] != nil
	}
	return false
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
	if l.options.Outside != nil {
		in.PodPorts = l.podPorts
	}
	if l.options.Cluster != nil {
		in.Answers = l.answers
	}
	l.built = translate.Build(in)
	l.good, l.stale = l.built.LastGood, false
	l.ours = newOurs(in.Objects, l.built.Refs)
	maps.DeleteFunc(l.answers, func(ref translate.Ref, _ translate.Answer) bool { return !l.ours.refs[ref] })
	maps.DeleteFunc(l.hopeless, func(ref translate.Ref, _ bool) bool { return !l.ours.refs[ref] })
	if l.options.Cluster != nil {
		l.options.Cluster.Follow(l.built.Refs, l.built.Wants)
	}
	return true
}

// apply gives the snapshot to the data plane unless it is what is served, or the first one and not the whole truth.
func (l *Loop) apply() difference {
	first := l.serving.snapshot == nil
	if first && !l.answered() {
		return difference{}
	}
	now := newServing(l.built.Snapshot)
	d := now.differs(l.serving)
	if d.any || first {
		now.binds = l.options.DataPlane.Apply(now.snapshot)
		l.serving = now
		l.retryAfter(firstRetry)
	}
	l.toOutside()
	if first {
		close(l.applied)
	}
	return d
}

// answered reports whether Build asks for nothing that somebody could still answer.
func (l *Loop) answered() bool {
	return !slices.ContainsFunc(l.built.Wants, func(ref translate.Ref) bool { return !l.hopeless[ref] })
}

// toOutside tells what Gateways ought to have now, and what they have here.
func (l *Loop) toOutside() {
	if l.options.Outside == nil {
		return
	}
	gateways := l.built.Gateways
	if l.options.Cluster != nil && !l.options.Cluster.Gateways() {
		gateways = nil
	}
	l.options.Outside.Applied(l.built.Infra, gateways, l.serving.binds)
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
		l.toOutside()
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
	if l.options.Cluster != nil {
		l.options.Cluster.Complete(&facts)
	}
	if l.options.Outside != nil {
		l.options.Outside.Complete(&facts)
	}
	all := l.built.Statuses(facts)
	if l.options.Cluster != nil {
		all = append(all, leftovers(all, l.built.Waiting(), l.options.Cluster.Stored)...)
	}
	l.options.Told(all)
}
