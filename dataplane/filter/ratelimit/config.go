package ratelimit

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/expr"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Config is every limit that holds for a rule, or for what matches none: those of all policies of its Gateway, listener, route and rule
// together, so that admitting is one step. A limit that is named twice (its policy is attached twice on the way) counts once.
type Config struct {
	Limits []Limit
}

// Limit is one named limit of one policy.
type Limit struct {
	Policy Policy
	Name   string   // unique in its policy
	Shadow bool     // counted, never refused
	When   string   // CEL, kind Bool: which requests it applies to; "" all
	Key    []string // CEL, kind String: one counter for each distinct set of values; none: one counter
	Rates  []Rate   // all of them must admit; windows are unique
	// Concurrency is how many requests may be under way at once, from the head to the end of the answer (or tunnel); 0: any number.
	Concurrency int64

	// Cost is CEL, kind Int: what a request counts as in the rates; "" is 1. Concurrency counts requests.
	Cost string
	// CostFromResponse: Cost may name the response. One is taken when the request comes, and the rest when the answer's head does.
	CostFromResponse bool

	Scope          Scope
	OnStoreFailure OnStoreFailure // of Shared
}

// Scope is whose requests a counter counts.
type Scope uint8

const (
	// Local: those of this process. With n replicas there are n counters.
	Local Scope = iota
	// Divided: those of this process, which admits its share of the limit: one of as many as there are live members.
	Divided
	// Shared: those of all replicas, in the store.
	Shared
)

// OnStoreFailure is what becomes of requests when the store gives no answer.
type OnStoreFailure uint8

const (
	// CountLocally: as with Divided, on from what this replica has seen last of each counter.
	CountLocally OnStoreFailure = iota
	// Allow admits, and counts nothing.
	Allow
	// Deny refuses with 503.
	Deny
)

// Policy names the object that a limit comes from. A counter belongs to it and to no rule: however many rules a policy reaches, it has
// one counter per limit, window and key.
type Policy struct {
	UID  string // of the Kubernetes object: a policy that is made anew counts anew; "" without a cluster
	Name snapshot.Name
}

// Rate admits Requests at once from a fresh key and gives them back evenly over Window; Burst more are admitted at once on top.
type Rate struct {
	Requests int64         // 1 to MaxRequests
	Window   time.Duration // 1s to MaxWindow
	Burst    int64         // 0 to MaxRequests
}

// The bounds of a rate.
const (
	MaxRequests = 1_000_000_000
	MaxWindow   = 366 * 24 * time.Hour
)

func (Config) FilterName() string { return "ratelimit" }

// String is the text form: "ratelimit(shop/api-limits/per-client 100/1m+20,1000/1h by source.ip; shop/api-limits/at-once 50 at once)".
// Configs with the same text do the same.
func (c Config) String() string {
	var b strings.Builder
	b.WriteString("ratelimit(")
	for i, l := range c.Limits {
		if i > 0 {
			b.WriteString("; ")
		}
		l.text(&b)
	}
	b.WriteString(")")
	return b.String()
}

func (l Limit) text(b *strings.Builder) {
	b.WriteString(l.Policy.Name.String())
	if uid := snapshot.UIDWord(l.Policy.UID); uid != "" {
		b.WriteString("#" + uid)
	}
	b.WriteString("/" + l.Name)
	for i, r := range l.Rates {
		b.WriteString([]string{" ", ","}[min(i, 1)])
		b.WriteString(r.String())
	}
	if l.Concurrency > 0 {
		fmt.Fprintf(b, " %d at once", l.Concurrency)
	}
	for i, k := range l.Key {
		b.WriteString([]string{" by ", ", "}[min(i, 1)])
		b.WriteString(quote(k))
	}
	if l.When != "" {
		b.WriteString(" when " + quote(l.When))
	}
	switch {
	case l.Cost != "" && l.CostFromResponse:
		b.WriteString(" cost by the answer " + quote(l.Cost))
	case l.Cost != "":
		b.WriteString(" cost " + quote(l.Cost))
	}
	b.WriteString(l.scope())
	if l.Shadow {
		b.WriteString(" shadow")
	}
}

// scope is empty for what is local.
func (l Limit) scope() string {
	switch l.Scope {
	case Divided:
		return " divided"
	case Shared:
		return " shared or " + [...]string{CountLocally: "local", Allow: "allow", Deny: "deny"}[l.OnStoreFailure]
	}
	return ""
}

// plain is a variable or an entry of a map, such as request.headers["x-tenant"]: it needs no marks.
var plain = regexp.MustCompile(`^[a-z]+\.[a-z]+(\["[A-Za-z0-9_-]+"\])?$`)

// quote marks where any other expression begins and ends, so that none can look like two.
func quote(text string) string {
	if plain.MatchString(text) {
		return text
	}
	return snapshot.Quote(text)
}

// String is "100/1m" or, with a burst, "100/1m+20".
func (r Rate) String() string {
	s := strconv.FormatInt(r.Requests, 10) + "/" + snapshot.DurationWord(r.Window)
	if r.Burst > 0 {
		s += "+" + strconv.FormatInt(r.Burst, 10)
	}
	return s
}

// Check reports what is wrong with a rate, in words for whoever wrote it.
func (r Rate) Check() error {
	switch {
	case r.Requests < 1 || r.Requests > MaxRequests:
		return fmt.Errorf("requests must be from 1 to %d", MaxRequests)
	case r.Window < time.Second || r.Window > MaxWindow:
		return fmt.Errorf("window must be from 1s to %s", snapshot.DurationWord(MaxWindow))
	case r.Burst < 0 || r.Burst > MaxRequests:
		return fmt.Errorf("burst must be from 0 to %d", MaxRequests)
	}
	if r.Requests+r.Burst > maxDebt/int64(r.interval()) {
		return fmt.Errorf("burst %d is too large for %d requests in %s: such a debt would take decades to come back", r.Burst, r.Requests, snapshot.DurationWord(r.Window))
	}
	return nil
}

// check reports what is wrong with a limit. Where policies are compiled the same is found, with the place in the object.
func (l Limit) check() error {
	if l.Name == "" || l.Policy.Name.Name == "" {
		return errors.New("a limit without a name or policy")
	}
	if len(l.Rates) == 0 && l.Concurrency == 0 || l.Concurrency < 0 {
		return errors.New("neither rates nor concurrency")
	}
	if l.Cost != "" && len(l.Rates) == 0 {
		return errors.New("a cost without a rate")
	}
	seen := map[time.Duration]bool{}
	for _, r := range l.Rates {
		if err := r.Check(); err != nil {
			return err
		}
		if seen[r.Window] {
			return fmt.Errorf("window %s stands twice", snapshot.DurationWord(r.Window))
		}
		seen[r.Window] = true
	}
	return nil
}

// programs are the expressions of a limit, compiled.
type programs struct {
	when  *expr.Program // nil: every request
	key   []*expr.Program
	cost  *expr.Program // of the request; nil: 1
	after *expr.Program // the cost by the answer; nil: it is known before
}

func (l Limit) compile() (p programs, err error) {
	if l.When != "" {
		if p.when, err = expr.Compile(l.When, expr.Bool); err != nil {
			return p, fmt.Errorf("when: %w", err)
		}
	}
	for i, k := range l.Key {
		part, err := expr.Compile(k, expr.String)
		if err != nil {
			return p, fmt.Errorf("key[%d]: %w", i, err)
		}
		p.key = append(p.key, part)
	}
	switch {
	case l.Cost == "":
	case l.CostFromResponse:
		p.after, err = expr.CompileResponse(l.Cost, expr.Int)
	default:
		p.cost, err = expr.Compile(l.Cost, expr.Int)
	}
	if err != nil {
		return p, fmt.Errorf("cost: %w", err)
	}
	return p, nil
}
