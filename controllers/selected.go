package controllers

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/controllers/watch"
)

// selected follows Secrets by their labels: a watch for each namespace and selector that a policy names. It needs the right to list all
// Secrets of the namespace; where that is missing, this is the answer.
type selected struct {
	options watch.Options
	told    *union
	answer  func(translate.Ref, translate.Answer)
	ctx     context.Context
	running sync.WaitGroup

	// mu guards watches, and is held while somebody is told: what is told is told by a watch that counts.
	mu      sync.Mutex
	watches map[translate.Ref]*selection
}

// selection is one watch. It is told to end without waiting for it; what it tells then is not passed on.
type selection struct {
	*watch.Watch
	cancel   context.CancelFunc
	answered bool // that all is there; guarded by selected.mu
}

// newSelected makes one in which nothing is wanted. Its watches end with ctx.
func newSelected(ctx context.Context, o watch.Options, told *union, answer func(translate.Ref, translate.Answer)) *selected {
	return &selected{options: o, told: told, answer: answer, ctx: ctx, watches: map[translate.Ref]*selection{}}
}

// stop waits for the watches; ctx has ended.
func (s *selected) stop() { s.running.Wait() }

// want says what is wanted from now on. What is not wanted any more is told as deleted, unless it is told by others too.
func (s *selected) want(refs map[translate.Ref]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, w := range s.watches {
		if !refs[ref] {
			w.cancel()
			delete(s.watches, ref)
			s.told.drop(ref.String())
		}
	}
	for ref := range refs {
		if s.watches[ref] == nil {
			s.watch(ref)
		}
	}
}

// watch starts a watch; s.mu is held. Build has made the selector's text, so it can be read.
func (s *selected) watch(ref translate.Ref) {
	selector, err := labels.Parse(ref.Selector)
	if err != nil {
		panic(err)
	}
	w := &selection{}
	o := s.options
	o.Namespace, o.Selector = ref.Name.Namespace, selector
	o.Log = o.Log.WithValues("namespace", o.Namespace, "selector", ref.Selector)
	o.Set = func(all ...Object) { s.pass(ref, w, s.told.set, all) }
	o.Delete = func(all ...Object) { s.pass(ref, w, s.told.delete, all) }
	o.Changed = func() { s.changed(ref, w) }
	w.Watch = watch.New(o)
	ctx, cancel := context.WithCancel(s.ctx)
	w.cancel = cancel
	s.watches[ref] = w
	s.running.Go(func() { w.Run(ctx) })
}

func (s *selected) pass(ref translate.Ref, w *selection, tell func(string, ...Object), all []Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches[ref] == w && !w.State().Refused {
		tell(ref.String(), all...)
	}
}

// changed passes on how a watch stands. That we may not list acts at once, even on what was served before: after a restart we could not
// read it either.
func (s *selected) changed(ref translate.Ref, w *selection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := w.State()
	switch {
	case s.watches[ref] != w:
	case state.Refused:
		w.answered = false
		s.told.drop(ref.String())
		s.answer(ref, translate.Forbidden)
	case state.Synced && !w.answered:
		w.answered = true
		s.told.set(ref.String(), w.Objects()...) // again, if it was dropped
		s.answer(ref, translate.Found)
	}
}
