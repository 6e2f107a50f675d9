package auth

import (
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// guard is the filter. It is immutable.
type guard struct {
	slot     message.Slot
	policies []policy // outermost first
	hidden   []string // query parameters that carry credentials: telemetry must not show their values
	late     []string // headers that policies set, and those that methods may set: nothing under them reaches a backend that is not ours
}

// policy is a Policy, ready.
type policy struct {
	title     string // namespace/name
	namespace string
	shadow    bool
	all       bool
	optional  bool
	strip     bool
	methods   []asked
	rules     rules
	forward   []forwarded
	// early are the headers that it sets, but for those in which credentials of any policy stand: what a client sends under the names is
	// dropped before its methods and expressions, or those further in, could believe it. Those further out have seen it: nobody hides a
	// header from the rules above him.
	early []string
	// judged are the headers by which its methods decide. Another spelling of one, which no method looks at and some servers take for it,
	// is dropped. Of a policy in shadow there are none.
	judged []string
	// hides are methods of policies further out that strip, and whose author is another one: services of this policy are not told of
	// their credentials.
	hides []method.Method

	allowed, anonymous, answered, shadowed, failed filter.Counter
	refused                                        map[message.Reason]filter.Counter // by each of refusals
}

// asked is a method of a policy.
type asked struct {
	name    string
	method  method.Method
	tells   bool // a service of the policy's author, what is presented
	allowed filter.Counter
}

// visit is what policies find out about one request.
type visit struct {
	at    int                       // the policy that is asked
	own   []*message.Identity       // what each policy has proven itself, nil: nothing; none at all where there is one policy
	set   []method.Field            // for the request that is forwarded
	on    []func(*message.Request)  // and what methods change of it themselves
	after []func(*message.Response) // for the answer
	until time.Time                 // when the first of the proofs ends by which it came in; zero: never
}

// answer is what a method said that did not accept.
type answer struct {
	method string
	method.Result
}

// ruling is what a policy says of a request: to let it in, or the answer.
type ruling struct {
	response *message.Response // nil: let in
	counter  filter.Counter
}

// request is OnRequest: policies are asked one after the other, and the first that refuses ends it. Nothing is taken from the request
// before the last one has seen it.
func (g *guard) request(ex *message.Exchange) filter.Verdict {
	ex.HiddenQuery = g.hidden
	var v visit
	if len(g.policies) > 1 {
		v.own = make([]*message.Identity, len(g.policies))
	}
	if ex.Identity != nil {
		v.until = ex.Identity.Expires
	}
	for i := range g.policies {
		p := &g.policies[i]
		v.at = i
		drop(&ex.Request.Header, p.early)
		dropOtherSpellings(&ex.Request.Header, p.judged)
		r := p.judge(ex, &v)
		switch {
		case r.response == nil:
			r.counter.Add(1)
		case p.shadow:
			p.shadowed.Add(1)
			ex.Note("auth_shadow", p.title+": "+why(r.response))
			r.response.Drop(nil)
		default:
			r.counter.Add(1)
			ex.Note("auth", p.title)
			for _, change := range v.after { // a session that was renewed on the way must not be lost
				change(r.response)
			}
			ex.Response = r.response
			return filter.Answer
		}
	}
	g.pass(ex, &v)
	return filter.Continue
}

// pass makes the request the one that is forwarded.
func (g *guard) pass(ex *message.Exchange, v *visit) {
	if len(v.after) > 0 {
		*ex.Slot(g.slot) = v.after
	}
	for i := range g.policies {
		if p := &g.policies[i]; p.strip {
			for j := range p.methods {
				p.methods[j].method.Strip(&ex.Request)
			}
		}
	}
	g.setHeaders(ex, v)
}

// response is OnResponse: what methods have to say to the client.
func (g *guard) response(ex *message.Exchange) filter.Verdict {
	if after, ok := (*ex.Slot(g.slot)).([]func(*message.Response)); ok {
		for _, change := range after {
			change(ex.Response)
		}
	}
	return filter.Continue
}

// judge asks the methods, and then the rules. Who presents nothing where that is allowed, and is denied, is asked to prove something: a
// request that names somebody may be let in.
func (p *policy) judge(ex *message.Exchange, v *visit) ruling {
	allowed := p.allowed
	var few [4]answer
	said, anonymous := few[:0], false
	if len(p.methods) > 0 {
		var by *asked
		by, said = p.ask(ex, v, said)
		switch {
		case by != nil:
			allowed = by.allowed
		case p.optional && absent(said):
			allowed, anonymous = p.anonymous, true
		default:
			return p.unproven(said)
		}
	}
	detail, denied := p.denies(ex)
	if denied && anonymous {
		return p.unproven(said)
	}
	giveUp(said)
	if denied {
		return p.refuse(message.ReasonDenied, p.title+": "+detail, nil)
	}
	return ruling{counter: allowed}
}

// ask asks the methods in order, and returns the one whose word counts, or nil and what the others said.
func (p *policy) ask(ex *message.Exchange, v *visit, said []answer) (by *asked, _ []answer) {
	var proven proof
	for i := range p.methods {
		m := &p.methods[i]
		r := p.authenticate(m, ex)
		if r.Outcome == method.Accepted && r.Identity != nil && r.Identity.Subject == "" {
			r = method.Result{Outcome: method.Unavailable, Detail: "it proves an identity without a subject"} // a bug of ours
		}
		if r.OnResponse != nil {
			v.after = append(v.after, r.OnResponse)
		}
		if r.Outcome != method.Accepted {
			said = append(said, answer{m.name, r})
			if p.all || r.Outcome == method.Answered {
				return nil, said
			}
			continue
		}
		r.Response.Drop(nil)
		proven.add(m, &r)
		if by == nil {
			by = m
		}
		if !p.all {
			break
		}
	}
	if by != nil {
		proven.settle(ex, v, p)
	}
	return by, said
}

// authenticate asks one method. One that tells a service of the request sees it without what policies further out keep from backends:
// whoever may write a policy below them must not collect their users' passwords with it (threats 32).
func (p *policy) authenticate(m *asked, ex *message.Exchange) method.Result {
	if !m.tells || len(p.hides) == 0 {
		return m.method.Authenticate(ex)
	}
	told := ex.Request.Header.Share()
	header, target := ex.Request.Header, ex.Request.Target
	defer func() { ex.Request.Header, ex.Request.Target = header, target }()
	ex.Request.Header = told
	for _, h := range p.hides {
		h.Strip(&ex.Request)
	}
	return m.method.Authenticate(ex)
}

// proof is what the methods of one policy have proven.
type proof struct {
	by       *asked
	identity *message.Identity // of the first method that names somebody
	until    time.Time
	set      []method.Field
	on       []func(*message.Request)
}

func (f *proof) add(m *asked, r *method.Result) {
	f.set = append(f.set, r.Set...)
	if r.OnRequest != nil {
		f.on = append(f.on, r.OnRequest)
	}
	if r.Identity == nil {
		return
	}
	f.until = earlier(f.until, r.Identity.Expires)
	if f.identity == nil {
		f.by, f.identity = m, r.Identity
	}
}

// settle makes it the exchange's. The identity ends with the first of all proofs without which the request would not have come in, those
// of policies further out among them; not with those of a policy that refuses nobody.
func (f *proof) settle(ex *message.Exchange, v *visit, p *policy) {
	v.set = append(v.set, f.set...)
	if !p.shadow {
		v.until = earlier(v.until, f.until)
		v.on = append(v.on, f.on...)
	}
	switch {
	case f.identity != nil:
		id := *f.identity // it belongs to the method, and may be another exchange's, too
		id.Method, id.Policy, id.Expires = f.by.name, p.title, v.until
		ex.Identity = &id
		if v.own != nil {
			v.own[v.at] = &id
		}
	case ex.Identity != nil && !ex.Identity.Expires.Equal(v.until):
		id := *ex.Identity
		id.Expires = v.until
		ex.Identity = &id
	}
}

// earlier is the earlier time; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func absent(said []answer) bool {
	for i := range said {
		if said[i].Outcome != method.Absent {
			return false
		}
	}
	return true
}

// giveUp drops the answers that methods had for the client, since it gets another one.
func giveUp(said []answer) {
	for i := range said {
		said[i].Response.Drop(nil)
	}
}
