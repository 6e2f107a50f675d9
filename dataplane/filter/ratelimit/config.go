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
}

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
	if uid := l.Policy.short(); uid != "" {
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
	if l.Shadow {
		b.WriteString(" shadow")
	}
}

// short tells two policies of one name apart (one that was deleted and made again). The first digits of a UUID are random.
func (p Policy) short() string {
	if len(p.UID) == 36 {
		return p.UID[:8]
	}
	return p.UID
}

// plain is a variable or an entry of a map, such as request.headers["x-tenant"]: it needs no marks.
var plain = regexp.MustCompile(`^[a-z]+\.[a-z]+(\["[A-Za-z0-9_-]+"\])?$`)

// quote marks where any other expression begins and ends, so that none can look like two.
func quote(text string) string {
	switch {
	case plain.MatchString(text):
		return text
	case strings.ContainsAny(text, "`\n\r"):
		return strconv.Quote(text)
	}
	return "`" + text + "`"
}

// String is "100/1m" or, with a burst, "100/1m+20".
func (r Rate) String() string {
	s := strconv.FormatInt(r.Requests, 10) + "/" + window(r.Window)
	if r.Burst > 0 {
		s += "+" + strconv.FormatInt(r.Burst, 10)
	}
	return s
}

// window is a duration without the zeros at its end.
func window(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Check reports what is wrong with a rate, in words for whoever wrote it.
func (r Rate) Check() error {
	switch {
	case r.Requests < 1 || r.Requests > MaxRequests:
		return fmt.Errorf("requests must be from 1 to %d", MaxRequests)
	case r.Window < time.Second || r.Window > MaxWindow:
		return fmt.Errorf("window must be from 1s to %s", window(MaxWindow))
	case r.Burst < 0 || r.Burst > MaxRequests:
		return fmt.Errorf("burst must be from 0 to %d", MaxRequests)
	}
	if r.Requests+r.Burst > maxDebt/int64(r.interval()) {
		return fmt.Errorf("burst %d is too large for %d requests in %s: such a debt would take decades to come back", r.Burst, r.Requests, window(r.Window))
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
	seen := map[time.Duration]bool{}
	for _, r := range l.Rates {
		if err := r.Check(); err != nil {
			return err
		}
		if seen[r.Window] {
			return fmt.Errorf("window %s stands twice", window(r.Window))
		}
		seen[r.Window] = true
	}
	return nil
}

// compile makes the programs of a limit; when is nil for every request.
func (l Limit) compile() (when *expr.Program, key []*expr.Program, err error) {
	if l.When != "" {
		if when, err = expr.Compile(l.When, expr.Bool); err != nil {
			return nil, nil, fmt.Errorf("when: %w", err)
		}
	}
	for i, k := range l.Key {
		p, err := expr.Compile(k, expr.String)
		if err != nil {
			return nil, nil, fmt.Errorf("key[%d]: %w", i, err)
		}
		key = append(key, p)
	}
	return when, key, nil
}
