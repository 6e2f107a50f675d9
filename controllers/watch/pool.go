package watch

import (
	"context"
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// DefaultMany is the number of names in a namespace above which it is watched as a whole.
const DefaultMany = 200

// Pool follows single objects by name, those that somebody wants, such as the Secrets that Gateways refer to. It has a watch for each
// name; where many are wanted in one namespace and all of it may be watched, one for the namespace, until none of it is wanted any more.
// Of what is not wanted nothing is told.
type Pool struct {
	options PoolOptions
	watches sync.WaitGroup
	ctx     context.Context
	stop    context.CancelFunc

	// mu guards spaces, and is held while somebody is told: what is told is told by a watch that counts.
	mu     sync.Mutex
	spaces map[string]*space
}

// PoolOptions of a pool.
type PoolOptions struct {
	// Options are those of each watch, of which Namespace, Name, Keep and Changed are the pool's own. Set and Delete must not call the pool.
	Options
	// Many is the number of names in a namespace above which it is watched as a whole; 0: DefaultMany.
	Many int
	// Answered is called when a name that is wanted is there or not (synced), or cannot be read (refused). It must not call the pool.
	Answered func(types.NamespacedName, State)
}

// space is what is wanted in one namespace.
type space struct {
	wanted map[string]bool
	single map[string]*member
	whole  *member // nil: there is none
	denied bool    // not all of it may be watched
}

// member is a watch of the pool. It is told to end without waiting for it; what it tells then is not passed on.
type member struct {
	*Watch
	cancel context.CancelFunc
	told   bool // that it is synced; guarded by the pool's mu
}

// NewPool makes a pool in which nothing is wanted.
func NewPool(o PoolOptions) *Pool {
	if o.Many == 0 {
		o.Many = DefaultMany
	}
	p := &Pool{options: o, spaces: map[string]*space{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// Stop ends all watches. What was told stays. Nothing may be wanted afterwards.
func (p *Pool) Stop() {
	p.stop()
	p.watches.Wait()
}

// Want says which names are wanted from now on, and does not wait for answers about new ones. What is not wanted any more is told as
// deleted.
func (p *Pool) Want(names map[types.NamespacedName]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	spaces := map[string]map[string]bool{}
	for n := range names {
		if spaces[n.Namespace] == nil {
			spaces[n.Namespace] = map[string]bool{}
		}
		spaces[n.Namespace][n.Name] = true
	}
	for namespace, s := range p.spaces {
		if spaces[namespace] == nil {
			p.want(namespace, s, nil)
			if s.whole != nil {
				s.whole.cancel()
			}
			delete(p.spaces, namespace)
		}
	}
	for namespace, wanted := range spaces {
		s := p.spaces[namespace]
		if s == nil {
			s = &space{single: map[string]*member{}}
			p.spaces[namespace] = s
		}
		p.want(namespace, s, wanted)
	}
}

// State is how the watch of a name stands; the zero State for one that is not wanted.
func (p *Pool) State(name types.NamespacedName) State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.spaces[name.Namespace]
	if s == nil || !s.wanted[name.Name] {
		return State{}
	}
	return s.watchOf(name.Name).State()
}

// watchOf is the watch that a name that is wanted is told by: the one that has been at it for longer.
func (s *space) watchOf(name string) *member {
	if w := s.single[name]; w != nil {
		return w
	}
	return s.whole
}

// want changes what is wanted in a namespace; p.mu is held.
func (p *Pool) want(namespace string, s *space, wanted map[string]bool) {
	for name := range s.wanted {
		if wanted[name] {
			continue
		}
		w := s.watchOf(name)
		if o := w.Get(namespace, name); o != nil {
			p.options.Delete(o)
		}
		if w != s.whole {
			w.cancel()
			delete(s.single, name)
		}
	}
	before := s.wanted
	s.wanted = maps.Clone(wanted)
	if s.whole == nil && !s.denied && len(wanted) > p.options.Many {
		s.whole = p.watch(namespace, "")
	}
	for name := range wanted {
		switch {
		case before[name]:
		case s.whole == nil:
			s.single[name] = p.watch(namespace, name)
		case s.whole.State().Synced:
			p.tell(s.whole, namespace, name)
		}
	}
}

// tell tells all that a watch that is synced knows of a name; p.mu is held. What another one told before may have gone meanwhile.
func (p *Pool) tell(m *member, namespace, name string) {
	if o := m.Get(namespace, name); o != nil {
		p.options.Set(o)
	} else {
		gone := p.options.Object.DeepCopyObject().(client.Object)
		gone.SetNamespace(namespace)
		gone.SetName(name)
		p.options.Delete(gone)
	}
	p.options.Answered(types.NamespacedName{Namespace: namespace, Name: name}, State{Synced: true})
}

// watch starts a watch of one name, or of the namespace (name ""); p.mu is held.
func (p *Pool) watch(namespace, name string) *member {
	m := &member{}
	o := p.options.Options
	o.Namespace, o.Name = namespace, name
	o.Set = func(all ...client.Object) { p.pass(m, namespace, name, p.options.Set, all) }
	o.Delete = func(all ...client.Object) { p.pass(m, namespace, name, p.options.Delete, all) }
	o.Changed = func() { p.changed(m, namespace, name) }
	if name == "" {
		o.Log = o.Log.WithValues("namespace", namespace)
	} else {
		o.Log = o.Log.WithValues("object", namespace+"/"+name)
	}
	m.Watch = New(o)
	ctx, cancel := context.WithCancel(p.ctx)
	m.cancel = cancel
	p.watches.Go(func() { m.Run(ctx) })
	return m
}

// counts reports whether a watch is one of now; p.mu is held.
func (p *Pool) counts(m *member, namespace, name string) (*space, bool) {
	s := p.spaces[namespace]
	switch {
	case s == nil:
		return nil, false
	case name == "":
		return s, s.whole == m
	}
	return s, s.single[name] == m
}

// pass tells what a watch tells, as far as it is wanted.
func (p *Pool) pass(m *member, namespace, name string, tell func(...client.Object), all []client.Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, counts := p.counts(m, namespace, name)
	if !counts {
		return
	}
	for _, o := range all {
		if s.wanted[o.GetName()] && s.watchOf(o.GetName()) == m {
			tell(o)
		}
	}
}

// changed passes on how a watch stands, and goes over from single watches to one of the namespace, or back if that is refused.
func (p *Pool) changed(m *member, namespace, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, counts := p.counts(m, namespace, name)
	state := m.State()
	switch {
	case !counts:
	case name == "" && refusal(state.Err):
		p.single(namespace, s)
	case state.Refused:
		m.told = false
		p.options.Answered(types.NamespacedName{Namespace: namespace, Name: name}, state)
	case !state.Synced || m.told:
	case name == "":
		m.told = true
		for _, w := range s.single {
			w.cancel()
		}
		clear(s.single)
		for name := range s.wanted {
			p.tell(m, namespace, name)
		}
	default:
		m.told = true
		p.tell(m, namespace, name)
	}
}

// single goes back to a watch for each name, since the namespace may not be watched as a whole.
func (p *Pool) single(namespace string, s *space) {
	s.whole.cancel()
	s.whole, s.denied = nil, true
	for name := range s.wanted {
		if s.single[name] == nil {
			s.single[name] = p.watch(namespace, name)
		}
	}
}
