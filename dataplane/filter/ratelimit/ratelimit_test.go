package ratelimit

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func TestARateAdmitsAllAtOnceAndGivesThemBackEvenly(t *testing.T) {
	h := newHouse(t)
	c := h.chain(limitOf("l", perMinute(60, 5)))
	for _, step := range []struct {
		pass time.Duration
		ask  int
		want int
	}{
		{0, 100, 65},                           // fresh: all requests and the burst
		{0, 10, 0},                             //
		{999 * time.Millisecond, 5, 0},         //
		{time.Millisecond, 5, 1},               // one comes back each second
		{10 * time.Second, 20, 10},             //
		{2500 * time.Millisecond, 20, 2},       // the half is not lost
		{500 * time.Millisecond, 20, 1},        //
		{time.Hour, 100, 65},                   // and no more than all
		{30 * time.Second, 100, 30},            //
		{time.Minute + 5*time.Second, 100, 65}, //
		{time.Minute, 100, 60},                 //
		{-time.Hour, 100, 0},                   // a clock that goes back locks out for no longer
		{time.Second, 100, 1},                  // than until the next would be due
	} {
		h.Pass(step.pass)
		if got := admitted(c, step.ask, "10.0.0.1"); got != step.want {
			t.Errorf("after %v, of %d: %d admitted, want %d", step.pass, step.ask, got, step.want)
		}
	}
}

func TestAnIntervalIsRoundedUpAndNeverDown(t *testing.T) {
	h := newHouse(t)
	c := h.chain(limitOf("l", perMinute(7, 0)))
	admitted(c, 7, "10.0.0.1")
	h.Pass(time.Minute / 7)
	if got := admitted(c, 1, "10.0.0.1"); got != 0 {
		t.Error("admitted a nanosecond too early")
	}
	h.Pass(time.Nanosecond)
	if got := admitted(c, 2, "10.0.0.1"); got != 1 {
		t.Errorf("then %d admitted, want 1", got)
	}
}

func TestEachKeyHasACounterOfItsOwn(t *testing.T) {
	h := newHouse(t)
	l := limitOf("l", perMinute(2, 0))
	l.Key = []string{"source.ip", `request.headers["x-tenant"]`}
	c := h.chain(l)
	send := func(ip, tenant string) bool {
		ex := from(ip)
		ex.Request.Header.Set("X-Tenant", tenant)
		defer c.Done(ex)
		return ask(c, ex)
	}
	long := strings.Repeat("long", 500)
	for _, key := range [][2]string{{"10.0.0.1", "a"}, {"10.0.0.2", "a"}, {"10.0.0.1", "b"}, {"10.0.0.1", ""}, {"10.0.0.1", long}, {"10.0.0.1", long + "x"}} {
		got := []bool{send(key[0], key[1]), send(key[0], key[1]), send(key[0], key[1])}
		if !slices.Equal(got, []bool{true, true, false}) {
			t.Errorf("%.20s: %v", key, got)
		}
	}
}

func TestNoTwoSetsOfPartsMakeOneKey(t *testing.T) {
	seen := map[string][]string{}
	parts := []string{"", "a", "b", "ab", "\x01a", "\x01", "\x00", strings.Repeat("x", 126), strings.Repeat("x", 127), strings.Repeat("x", 300)}
	try := func(set ...string) {
		var key []byte
		for _, p := range set {
			from := len(key)
			key = closePart(append(key, p...), from)
		}
		key = closeKey(key, 0)
		if len(key) > maxKey {
			t.Fatalf("a key of %d bytes", len(key))
		}
		if other, ok := seen[string(key)]; ok {
			t.Fatalf("%q and %q have one key", set, other)
		}
		seen[string(key)] = set
	}
	try()
	for _, a := range parts {
		try(a)
		for _, b := range parts {
			try(a, b)
			for _, c := range parts {
				try(a, b, c)
			}
		}
	}
}

func TestALimitAppliesToWhatItsConditionHoldsFor(t *testing.T) {
	h := newHouse(t)
	l := limitOf("l", perMinute(1, 0))
	l.When = `request.method != "OPTIONS"`
	c := h.chain(l)
	for range 3 {
		ex := from("10.0.0.1")
		ex.Request.Method = "OPTIONS"
		if !ask(c, ex) {
			t.Fatal("the limit does not apply, and refuses")
		}
		ex.Response = &message.Response{Status: 204}
		c.Response(ex, 1, nil)
		if ex.Response.Header.Len() != 0 {
			t.Errorf("a limit that does not apply tells about itself: %v", ex.Response.Header)
		}
		c.Done(ex)
	}
	if got := admitted(c, 3, "10.0.0.1"); got != 1 {
		t.Errorf("%d admitted, want 1", got)
	}
}

func TestAnExpressionThatFailsNeverFreesFromALimit(t *testing.T) {
	h := newHouse(t)
	l := limitOf("l", perMinute(2, 0))
	l.When = `int(request.method) > 0`
	l.Key = []string{`request.path.split("/")[7]`}
	c := h.chain(l)
	if got := admitted(c, 5, "10.0.0.1"); got != 2 {
		t.Errorf("%d admitted, want 2: the condition fails, so it applies; the key fails, so it is empty", got)
	}
	if n := h.counted("ratelimit_expression_errors_total", "l", ""); n != 10 {
		t.Errorf("%v failures counted, want 10", n)
	}
}

func TestEveryRateOfEveryLimitMustAdmitAndARefusalTakesNothing(t *testing.T) {
	h := newHouse(t)
	small := limitOf("small", Rate{Requests: 3, Window: time.Second}, Rate{Requests: 5, Window: time.Minute})
	large := limitOf("large", perMinute(100, 0))
	large.Policy.UID, large.Policy.Name.Name = "other", "other"
	chains := h.apply(Config{[]Limit{small, large}}, Config{[]Limit{large}}, Config{[]Limit{limitOf("small", small.Rates[1])}})
	both, onlyLarge, onlyMinute := chains[0], chains[1], chains[2]

	if got := admitted(both, 1000, "10.0.0.1"); got != 3 {
		t.Fatalf("%d admitted, want 3: the second's rate", got)
	}
	h.Pass(time.Second)
	if got := admitted(both, 1000, "10.0.0.1"); got != 2 {
		t.Fatalf("%d admitted, want 2: what is left in the minute; the 997 refusals took nothing of it", got)
	}
	if got := admitted(onlyMinute, 1, "10.0.0.1"); got != 0 {
		t.Fatal("the minute's rate is one counter wherever it stands")
	}
	h.Pass(time.Second)
	if got := admitted(onlyLarge, 1000, "10.0.0.1"); got != 98 {
		t.Fatalf("%d admitted, want 98: 100 less 5, and 2 s gave back 3", got)
	}
}

func TestAPolicyThatReachesManyRulesHasOneCounter(t *testing.T) {
	h := newHouse(t)
	l := limitOf("l", perMinute(10, 0))
	chains := h.apply(Config{[]Limit{l}}, Config{[]Limit{limitOf("more", perMinute(1000, 0)), l}}, Config{[]Limit{l, l}})
	total := 0
	for range 10 {
		for _, c := range chains {
			total += admitted(c, 1, "10.0.0.1")
		}
	}
	if total != 10 {
		t.Errorf("%d admitted over three rules, want 10; a limit that is named twice counts once", total)
	}
}

func TestWhatChangesInAPolicy(t *testing.T) {
	use := func(n int) func(*testing.T, *house, *filter.Chain) {
		return func(t *testing.T, h *house, c *filter.Chain) {
			if got := admitted(c, n, "10.0.0.1"); got != n {
				t.Fatalf("%d of %d admitted", got, n)
			}
		}
	}
	other := apiLimits
	other.UID = "made anew"
	for name, c := range map[string]struct {
		before Limit
		used   int
		after  Limit
		left   int           // admitted at once after the change
		next   time.Duration // and when the next one is
	}{
		"nothing":                         {limitOf("l", perMinute(100, 0)), 50, limitOf("l", perMinute(100, 0)), 50, 600 * time.Millisecond},
		"less: half used stays half":      {limitOf("l", perMinute(100, 0)), 50, limitOf("l", perMinute(10, 0)), 5, 6 * time.Second},
		"less: all used stays all":        {limitOf("l", perMinute(100, 0)), 100, limitOf("l", perMinute(1, 0)), 0, time.Minute},
		"more: half used stays half":      {limitOf("l", perMinute(10, 0)), 5, limitOf("l", perMinute(100, 0)), 50, 600 * time.Millisecond},
		"more: all used, soon one":        {limitOf("l", perMinute(1, 0)), 1, limitOf("l", perMinute(60, 0)), 0, time.Second},
		"a burst comes":                   {limitOf("l", perMinute(10, 0)), 10, limitOf("l", perMinute(10, 3)), 3, 6 * time.Second},
		"a used burst goes: no long wait": {limitOf("l", perMinute(10, 1000)), 1010, limitOf("l", perMinute(10, 0)), 0, 6 * time.Second},
		"a key that is written otherwise": {limitOf("l", perMinute(10, 0)), 10, Limit{Policy: apiLimits, Name: "l", Rates: []Rate{perMinute(10, 0)}, When: "true"}, 0, 6 * time.Second},
		"another name":                    {limitOf("l", perMinute(10, 0)), 10, limitOf("m", perMinute(10, 0)), 10, 6 * time.Second},
		"another window":                  {limitOf("l", perMinute(10, 0)), 10, limitOf("l", Rate{Requests: 10, Window: 2 * time.Minute}), 10, 12 * time.Second},
		"another policy of that name":     {limitOf("l", perMinute(10, 0)), 10, Limit{Policy: other, Name: "l", Rates: []Rate{perMinute(10, 0)}}, 10, 6 * time.Second},
		"shadow becomes enforced":         {Limit{Policy: apiLimits, Name: "l", Shadow: true, Rates: []Rate{perMinute(10, 0)}}, 10, limitOf("l", perMinute(10, 0)), 0, 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			use(c.used)(t, h, h.chain(c.before))
			chain := h.chain(c.after)
			if got := admitted(chain, 5000, "10.0.0.1"); got != c.left {
				t.Fatalf("%d admitted, want %d", got, c.left)
			}
			h.Pass(c.next - time.Millisecond)
			if got := admitted(chain, 5000, "10.0.0.1"); got != 0 {
				t.Fatalf("a moment before: %d admitted", got)
			}
			h.Pass(time.Millisecond)
			if got := admitted(chain, 5000, "10.0.0.1"); got != 1 {
				t.Fatalf("then: %d admitted, want 1", got)
			}
		})
	}
}

func TestAPolicyThatFlapsKeepsItsCounters(t *testing.T) {
	h := newHouse(t)
	l := limitOf("l", Rate{Requests: 10, Window: time.Hour})
	admitted(h.chain(l), 10, "10.0.0.1")
	h.apply()
	h.Pass(4 * time.Minute)
	if got := admitted(h.chain(l), 10, "10.0.0.1"); got != 0 {
		t.Errorf("%d admitted after the policy came back", got)
	}
	h.apply()
	h.Pass(keep.Grace + time.Second)
	h.apply()
	if got := admitted(h.chain(l), 20, "10.0.0.1"); got != 10 {
		t.Errorf("%d admitted; what was gone for longer than Grace starts anew", got)
	}
}

func concurrent(n int64) Limit {
	return Limit{Policy: apiLimits, Name: "at-once", Concurrency: n, Key: []string{"source.ip"}}
}

func TestAPlaceIsGivenBackOnceWhateverHappens(t *testing.T) {
	h := newHouse(t)
	c := h.chain(concurrent(2))
	one, two, three := from("10.0.0.1"), from("10.0.0.1"), from("10.0.0.1")
	if !ask(c, one) || !ask(c, two) || ask(c, three) {
		t.Fatal("two at once, and not three")
	}
	if three.Response.Reason != message.ReasonConcurrencyLimited || three.Response.Header.Get("Retry-After") != "1" {
		t.Errorf("%+v", three.Response)
	}
	if other := from("10.0.0.2"); !ask(c, other) {
		t.Error("another client has places of its own")
	}
	c.Done(three)            // again, though it was refused
	c.Done(from("10.0.0.1")) // for an exchange that never met the filter
	if ask(c, from("10.0.0.1")) {
		t.Fatal("a place was given back that nobody had")
	}
	c.Done(one)
	c.Done(one) // the second finds nothing
	if four, five := from("10.0.0.1"), from("10.0.0.1"); !ask(c, four) || ask(c, five) {
		t.Error("one place is free again, and not two")
	}
}

func TestAPlaceIsGivenBackWhenALaterFilterPanics(t *testing.T) {
	h := newHouse(t)
	r := h.Store.Begin()
	l := concurrent(1)
	c, err := filter.Build([]snapshot.Filter{Config{[]Limit{l}}, panics{}}, h.env(r), false, func(string, any, []byte) {})
	if err != nil {
		t.Fatal(err)
	}
	r.End()
	for range 3 {
		ex := from("10.0.0.1")
		_, v := c.Request(ex)
		if reason, _, failed := v.Failed(); !failed || reason != message.ReasonPanic {
			t.Fatalf("%v", reason)
		}
		c.Done(ex)
	}
	if n := h.kept(l, 0).keys(); n != 0 {
		t.Errorf("%d places are still held", n)
	}
}

type panics struct{}

func (panics) FilterName() string { return "panics" }
func (panics) String() string     { return "panics" }
func (panics) Build(filter.Env) (filter.Faces, error) {
	return filter.Faces{Request: func(*message.Exchange) filter.Verdict { panic("bug") }}, nil
}

func TestAChainThatRunsTwiceHoldsOnePlace(t *testing.T) {
	h := newHouse(t)
	l := concurrent(5)
	c := h.chain(l)
	ex := from("10.0.0.1")
	for range 2 {
		if !ask(c, ex) {
			t.Fatal("refused")
		}
	}
	c.Done(ex)
	if n := h.kept(l, 0).keys(); n != 0 {
		t.Error("a place is still held")
	}
}

func TestAnotherConcurrencyKeepsWhatIsUnderWay(t *testing.T) {
	h := newHouse(t)
	old := h.chain(concurrent(10))
	var under []*message.Exchange
	for range 5 {
		ex := from("10.0.0.1")
		ask(old, ex)
		under = append(under, ex)
	}
	fresh := h.chain(concurrent(4))
	if ask(fresh, from("10.0.0.1")) {
		t.Fatal("five are under way, and four allowed")
	}
	old.Done(under[0])
	old.Done(under[1])
	if !ask(fresh, from("10.0.0.1")) || ask(fresh, from("10.0.0.1")) {
		t.Fatal("three are under way: one place")
	}
}

func TestARefusedRequestTakesNoPlaceAndABusyOneNoRequest(t *testing.T) {
	h := newHouse(t)
	both := Limit{Policy: apiLimits, Name: "both", Rates: []Rate{perMinute(3, 0)}, Concurrency: 1}
	c := h.chain(both)
	first := from("10.0.0.1")
	ask(c, first)
	for range 10 {
		if ask(c, from("10.0.0.1")) {
			t.Fatal("two at once")
		}
	}
	c.Done(first)
	if got := admitted(c, 10, "10.0.0.1"); got != 2 {
		t.Fatalf("%d admitted, want 2: those that found no place took nothing of the rate", got)
	}
	h.Pass(20 * time.Second)
	if !ask(c, from("10.0.0.1")) {
		t.Fatal("those that the rate refused hold no place")
	}
}

func TestAShadowLimitCountsAndNeverRefuses(t *testing.T) {
	h := newHouse(t)
	shadow, enforced := limitOf("shadow", perMinute(2, 0)), limitOf("enforced", perMinute(5, 0))
	shadow.Shadow = true
	c := h.chain(shadow, enforced)
	var notes []string
	for range 8 {
		ex := from("10.0.0.1")
		if ask(c, ex) {
			c.Done(ex)
		}
		notes = append(notes, note(ex, "limit_shadow")+"|"+note(ex, "limit"))
	}
	want := []string{"|", "|", "shop/api-limits/shadow|", "shop/api-limits/shadow|", "shop/api-limits/shadow|",
		"|shop/api-limits/enforced", "|shop/api-limits/enforced", "|shop/api-limits/enforced"}
	if !slices.Equal(notes, want) {
		t.Errorf("notes %q", notes)
	}
	for _, c := range []struct {
		limit, result string
		want          float64
	}{{"shadow", "admitted", 2}, {"shadow", "shadow", 3}, {"shadow", "refused", 0}, {"enforced", "admitted", 5}, {"enforced", "refused", 3}, {"enforced", "shadow", 0}} {
		if got := h.counted("ratelimit_requests_total", c.limit, c.result); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.limit, c.result, got, c.want)
		}
	}
	// What the enforcing limit refused took nothing of the shadow one: in 30 s one comes back, and one is all that it admits.
	h.Pass(30 * time.Second)
	admitted(c, 2, "10.0.0.1")
	if got := h.counted("ratelimit_requests_total", "shadow", "admitted"); got != 3 {
		t.Errorf("shadow admitted %v, want 3", got)
	}
}

func TestTheAnswerToARefusalSaysWhenAndWhy(t *testing.T) {
	h := newHouse(t)
	second := limitOf("second", Rate{Requests: 1, Window: 10 * time.Second})
	hour := limitOf(`ho"ur`, Rate{Requests: 2, Window: time.Hour, Burst: 1})
	c := h.chain(second, hour)
	refused := func() *message.Exchange {
		t.Helper()
		ex := from("10.0.0.1")
		if ask(c, ex) {
			t.Fatal("admitted")
		}
		return ex
	}
	check := func(ex *message.Exchange, limit, retry, policy, field string) {
		t.Helper()
		r := ex.Response
		if r.Status != 429 || r.Origin != message.OriginFilter || r.Reason != message.ReasonRateLimited {
			t.Errorf("%d %v %v", r.Status, r.Origin, r.Reason)
		}
		if got := note(ex, "limit"); got != limit || r.Detail != limit {
			t.Errorf("note %q, detail %q; want %q", got, r.Detail, limit)
		}
		for name, want := range map[string]string{"Retry-After": retry, "RateLimit-Policy": policy, "RateLimit": field} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s; want %s", name, got, want)
			}
		}
		if content, _ := r.Body.Buffer(100); string(content) != "too many requests\n" {
			t.Errorf("body %q", content)
		}
	}
	admitted(c, 1, "10.0.0.1")
	check(refused(), "shop/api-limits/second", "10", `"second";q=1;w=10`, `"second";r=0;t=10`)
	h.Pass(9100 * time.Millisecond)
	check(refused(), "shop/api-limits/second", "1", `"second";q=1;w=10`, `"second";r=0;t=1`)
	h.Pass(900 * time.Millisecond)
	admitted(c, 1, "10.0.0.1")
	h.Pass(10 * time.Second)
	admitted(c, 1, "10.0.0.1") // the third of the hour: its interval is 1800 s, of which 20 s have passed
	check(refused(), `shop/api-limits/second,shop/api-limits/ho"ur`, "1780", `"ho\"ur";q=2;w=3600`, `"ho\"ur";r=0;t=1780`)

	c = h.chain(hour, second) // whatever the order, the longest wait counts
	check(refused(), `shop/api-limits/ho"ur,shop/api-limits/second`, "1780", `"ho\"ur";q=2;w=3600`, `"ho\"ur";r=0;t=1780`)

	h.Pass(1780 * time.Second)
	if got := admitted(c, 1, "10.0.0.1"); got != 1 {
		t.Error("Retry-After was too short")
	}
}

func TestAnAdmittedClientIsToldOfTheTightestRate(t *testing.T) {
	h := newHouse(t)
	shadow := limitOf("shadow", perMinute(1, 0))
	shadow.Shadow = true
	c := h.chain(limitOf("l", perMinute(10, 5), Rate{Requests: 12, Window: time.Hour}), shadow)
	var got []string
	for range 12 {
		ex := from("10.0.0.1")
		if !ask(c, ex) {
			t.Fatal("refused")
		}
		ex.Response = &message.Response{Status: 200}
		ex.Response.Header.Add("RateLimit", `"theirs";r=1;t=2`)
		ex.Response.Header.Add("RateLimit-Policy", `"theirs";q=1`)
		c.Response(ex, 1, nil)
		c.Done(ex)
		v := ex.Response.Header.Values("RateLimit")
		if p := ex.Response.Header.Values("RateLimit-Policy"); len(v) != 2 || v[0] != `"theirs";r=1;t=2` || len(p) != 2 || p[0] != `"theirs";q=1` {
			t.Fatalf("what the backend said is gone: %q %q", v, p)
		}
		got = append(got, v[1])
	}
	// 12 an hour is tighter than 15 at once all along. Until the last, t is when all 12 are back (5 minutes each); at the last, when one is.
	want := []string{`"l";r=11;t=300`, `"l";r=10;t=600`}
	if !slices.Equal(got[:2], want) || got[11] != `"l";r=0;t=300` {
		t.Errorf("%q", got)
	}
}

func TestTheBurstIsNotPromised(t *testing.T) {
	h := newHouse(t)
	c := h.chain(limitOf("l", perMinute(10, 5)))
	for i, want := range []string{`"l";r=10;t=1`, `"l";r=10;t=1`, `"l";r=10;t=1`, `"l";r=10;t=1`, `"l";r=10;t=1`, `"l";r=9;t=6`} {
		ex := from("10.0.0.1")
		ask(c, ex)
		ex.Response = &message.Response{}
		c.Response(ex, 1, nil)
		if got := ex.Response.Header.Get("RateLimit"); got != want {
			t.Errorf("request %d: %s, want %s", i+1, got, want)
		}
	}
}
