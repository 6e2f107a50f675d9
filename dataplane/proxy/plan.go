package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/router"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Plan is a snapshot, alive, as far as requests go: immutable.
type Plan struct {
	sockets map[snapshot.SocketKey]*socket
	rules   map[liveKey]string // what serves, with its access fingerprint: which long streams may stay
}

// liveKey names a rule under a listener: what a long stream must still find in the plan.
type liveKey struct {
	listener snapshot.ListenerKey
	rule     snapshot.RuleKey
}

type socket struct {
	specPort uint16
	names    *router.Names[*listener]
}

type listener struct {
	key      snapshot.ListenerKey
	routeKey any // what telemetry counts that matches no rule
	secure   bool
	pre      *chain
	def      *chain
	deny     *failure
	table    *router.Table[*rule]
}

type rule struct {
	routeKey any // what telemetry resolved
	cors     bool
	name     string
	live     liveKey
	security string
	chain    *chain
	failure  *failure
	shares   []share
	total    uint64
	mirrors  []mirror
	timeouts snapshot.Timeouts
	retry    snapshot.Retry
}

type failure struct {
	reason message.Reason
	detail string
}

// share is one backendRef of a rule.
type share struct {
	name    string
	upTo    uint64 // of the rule's total
	backend message.Backend
	chain   *chain
	failure *failure
}

// chain is a filter chain that may have failed to build: then its rule fails closed.
type chain struct {
	*filter.Chain
	broken bool
}

var none = &chain{}

// Builder makes plans: what it needs from the other rooms.
type Builder struct {
	Backends func(snapshot.Backend) message.Backend
	Env      func(snapshot.RuleKey) filter.Env
	// RouteKey resolves the metric handles of a rule on a Gateway; of the zero rule: of what matches none.
	RouteKey func(gateway snapshot.Name, rule snapshot.RuleKey) any
	// Dropped counts the copies for a mirror that were not sent.
	Dropped func(backend string) filter.Counter
	// Problem is told what could not be built: a bug of ours, since the controllers refused what users get wrong.
	Problem  func(what string, err error)
	Panicked func(filter string, value any, stack []byte)
}

// Build makes a plan of a snapshot. It never refuses the whole for one part: what cannot be built answers 500 and is reported.
func (b Builder) Build(s *snapshot.Snapshot) *Plan {
	w := work{Builder: b, plan: &Plan{sockets: map[snapshot.SocketKey]*socket{}, rules: map[liveKey]string{}}}
	w.backends = make(map[snapshot.BackendRef]message.Backend, len(s.Backends))
	for _, be := range s.Backends {
		w.backends[be.Ref] = b.Backends(be)
	}
	for i := range s.Sockets {
		w.plan.sockets[s.Sockets[i].Key] = w.socket(&s.Sockets[i])
	}
	return w.plan
}

// work is one Build under way.
type work struct {
	Builder
	plan     *Plan
	backends map[snapshot.BackendRef]message.Backend
}

func (w *work) socket(s *snapshot.Socket) *socket {
	out := &socket{specPort: s.SpecPort}
	names := make(map[string]*listener, len(s.Listeners))
	for _, l := range s.Listeners {
		names[l.Hostname] = w.listener(s, l)
	}
	out.names = router.NewNames(names)
	return out
}

func (w *work) listener(s *snapshot.Socket, l *snapshot.Listener) *listener {
	out := &listener{key: l.Key, secure: s.Protocol == snapshot.HTTPS, routeKey: w.RouteKey(l.Key.Gateway, snapshot.RuleKey{})}
	where := "listener " + l.Key.String()
	out.pre = w.chain(where+" pre", l.Pre, snapshot.RuleKey{}, true)
	out.def = w.chain(where, l.Default, snapshot.RuleKey{}, false)
	out.deny = newFailure(l.Deny)
	if out.pre.broken {
		out.deny = &failure{message.ReasonFilterFailed, "a filter could not be built"}
	}

	rules := map[*snapshot.Rule]*rule{}
	hosts := make([]router.Host[*rule], len(l.Hosts))
	for i, h := range l.Hosts {
		hosts[i] = router.Host[*rule]{Name: h.Name, Entries: make([]router.Entry[*rule], len(h.Matches))}
		for j, m := range h.Matches {
			r := rules[m.Rule]
			if r == nil {
				r = w.rule(l.Key, m.Rule)
				rules[m.Rule] = r
			}
			hosts[i].Entries[j] = entry(m, r)
		}
	}
	table, errs := router.New(hosts)
	for _, err := range errs {
		w.Problem(where, err)
	}
	out.table = table
	return out
}

func entry(m snapshot.Match, r *rule) router.Entry[*rule] {
	e := router.Entry[*rule]{Method: m.Method, Payload: r}
	e.Path.Value, e.Path.GRPC = m.Path.Value, m.Path.GRPC
	switch m.Path.Kind {
	case snapshot.PathExact:
		e.Path.Kind = router.Exact
	case snapshot.PathRegex:
		e.Path.Kind = router.Regex
	default:
		e.Path.Kind = router.Prefix
	}
	for _, v := range m.Headers {
		e.Headers = append(e.Headers, router.Value(v))
	}
	for _, v := range m.Queries {
		e.Queries = append(e.Queries, router.Value(v))
	}
	return e
}

func (w *work) rule(l snapshot.ListenerKey, s *snapshot.Rule) *rule {
	name := s.Key.String()
	r := &rule{
		name: name, live: liveKey{l, s.Key}, security: s.Security, failure: newFailure(s.Failure),
		timeouts: s.Timeouts, retry: s.Retry, chain: w.chain(name, s.Filters, s.Key, false), routeKey: w.RouteKey(l.Gateway, s.Key),
	}
	r.cors = slices.ContainsFunc(s.Filters, func(f snapshot.Filter) bool { return f.FilterName() == "cors" })
	w.plan.rules[r.live] = s.Security
	for _, b := range s.Backends {
		r.shares = append(r.shares, w.share(name, s.Key, b))
		r.total += uint64(b.Weight)
		r.shares[len(r.shares)-1].upTo = r.total
	}
	if len(s.Backends) == 0 && r.failure == nil {
		r.failure = &failure{message.ReasonNoBackend, ""}
	}
	for _, m := range s.Mirrors {
		if be := w.backends[m.Ref]; be != nil {
			r.mirrors = append(r.mirrors, mirror{
				backend: be, numerator: m.Numerator, denominator: m.Denominator, dropped: w.Dropped(m.Ref.String()),
			})
		}
	}
	return r
}

func (w *work) share(rule string, key snapshot.RuleKey, b snapshot.WeightedBackend) share {
	out := share{name: b.Ref.String(), failure: newFailure(b.Failure), chain: none}
	if out.failure != nil {
		return out
	}
	out.chain = w.chain(rule+" backend "+out.name, b.Filters, key, false)
	if out.chain.Len() > 0 && !out.chain.OnlyAttempt() { // its other faces would never be asked, and might be what guards the backend
		w.Problem(rule, fmt.Errorf("a filter on backend %s acts on more than attempts", b.Ref))
		out.chain = &chain{broken: true}
	}
	out.backend = w.backends[b.Ref]
	switch {
	case out.chain.broken:
		out.failure = &failure{message.ReasonFilterFailed, "a filter could not be built"}
	case out.backend == nil:
		w.Problem(rule, fmt.Errorf("the snapshot has no backend %s", b.Ref))
		out.failure = &failure{message.ReasonBackendInvalid, "missing in the snapshot"}
	}
	return out
}

// chain builds the filters of one place.
func (w *work) chain(where string, configs []snapshot.Filter, key snapshot.RuleKey, pre bool) *chain {
	if len(configs) == 0 {
		return none
	}
	c, err := filter.Build(configs, w.Env(key), pre, w.Panicked)
	if err != nil {
		w.Problem(where, err)
		return &chain{broken: true}
	}
	return &chain{Chain: c}
}

func newFailure(f *snapshot.Failure) *failure {
	if f == nil {
		return nil
	}
	for _, r := range message.Reasons() {
		if r.String() == f.Reason {
			return &failure{r, f.Detail}
		}
	}
	return &failure{message.ReasonRouteInvalid, f.Reason + " " + f.Detail}
}

// match finds the rule for a request, and notes what of the path a prefix matched.
func (li *listener) match(ex *message.Exchange) *rule {
	e := li.entry(&ex.Request)
	if e == nil {
		return nil
	}
	if e.Path.Kind == router.Prefix {
		ex.MatchedPrefix = e.Path.Value
	}
	return e.Payload
}

// entry finds the match for a request. A CORS preflight asks for the request that will follow it, so the rule of that one answers when
// it has CORS, although it may match on the method.
func (li *listener) entry(r *message.Request) *router.Entry[*rule] {
	if method, ok := r.Preflight(); ok {
		if e := li.table.MatchMethod(r, method); e != nil && e.Payload.cors {
			return e
		}
	}
	return li.table.Match(r)
}

// pick chooses a share by weight; nil when all weights are zero.
func (r *rule) pick() *share {
	switch {
	case r.total == 0:
		return nil
	case len(r.shares) == 1:
		return &r.shares[0]
	}
	n := rand.Uint64N(r.total)
	for i := range r.shares {
		if n < r.shares[i].upTo {
			return &r.shares[i]
		}
	}
	return nil
}

// mayResend reports whether a request that may have reached a backend can be sent again: the route asks for retries, and the method
// means the same twice.
func (r *rule) mayResend(q *message.Request) bool {
	return r.retry.Set && r.retry.Attempts > 0 && q.Idempotent()
}

// extraAttempts is how often a request is tried again at most.
func (r *rule) extraAttempts(process int) int {
	if r.retry.Set {
		return r.retry.Attempts
	}
	return process
}

// has reports whether a stream of that rule may stay: the rule is there, and lets in whom it let in before.
func (p *Plan) has(k liveKey, security string) bool {
	s, found := p.rules[k]
	return found && s == security
}

// What ends a stream that outlives a right.
var (
	errRuleGone        = &message.Error{Reason: message.ReasonRuleGone}
	errIdentityExpired = &message.Error{Reason: message.ReasonIdentityExpired}
)

// Applied tells the proxy that this plan serves now: streams whose rule is gone, or whose access rules changed, end after the grace.
func (p *Proxy) Applied(plan *Plan) {
	p.streams.plan.Store(plan)
	p.streams.sweep(func(s *stream) { p.streams.judge(s, plan) })
}

var errIdle = &message.Error{Reason: message.ReasonResponseTruncated, Err: errors.New("nothing came for the time that a stream may idle")}

const tick = time.Second
