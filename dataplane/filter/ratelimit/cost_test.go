package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// priced is a limit that a request counts in as its header says.
func priced(r Rate) Limit {
	l := limitOf("l", r)
	l.Cost = `int(request.headers["x-cost"])`
	return l
}

func costing(n int64) *message.Exchange {
	ex := from("10.0.0.1")
	ex.Request.Header.Set("x-cost", fmt.Sprint(n))
	return ex
}

// over asks once, and the exchange is over at once.
func over(c *filter.Chain, ex *message.Exchange) bool {
	ok := ask(c, ex)
	if ok {
		c.Done(ex)
	}
	return ok
}

func TestAnyRunOfRequestsThatCostDifferentlySaysWhatTheModelSays(t *testing.T) {
	for run := range 200 {
		rng := rand.New(rand.NewPCG(2, uint64(run)))
		r := Rate{Requests: 1 + rng.Int64N(20), Window: time.Minute, Burst: rng.Int64N(5)}
		h := newHouse(t)
		c := h.chain(priced(r))
		each := (int64(r.Window) + r.Requests - 1) / r.Requests
		full := each * (r.Requests + r.Burst)
		have := full
		for step := range 200 {
			d := time.Duration(rng.ExpFloat64() * float64(each))
			h.Pass(d)
			have = min(full, have+int64(d))
			n := rng.Int64N(r.Requests + r.Burst + 3)
			want := n*each <= have
			if got := over(c, costing(n)); got != want {
				t.Fatalf("run %d step %d: a cost of %d with %d of %d there: admitted %v (%s)", run, step, n, have, full, got, r)
			}
			if want {
				have -= n * each
			}
		}
	}
}

func TestACostThatCannotBeToldIsOne(t *testing.T) {
	h := newHouse(t)
	c := h.chain(priced(perMinute(3, 0)))
	for i, text := range []string{"many", "-5", ""} {
		ex := from("10.0.0.1")
		ex.Request.Header.Set("x-cost", text)
		if !over(c, ex) {
			t.Errorf("request %d was refused", i)
		}
	}
	if over(c, costing(1)) {
		t.Error("a fourth was admitted")
	}
	if n := h.counted("ratelimit_expression_errors_total", "l", ""); n != 3 {
		t.Errorf("%v errors, want 3", n)
	}
}

func TestWhatCostsNothingIsAdmittedAndTakesNothing(t *testing.T) {
	h := newHouse(t)
	l := priced(perMinute(2, 0))
	c := h.chain(l)
	for range 10 {
		if !over(c, costing(0)) {
			t.Fatal("refused")
		}
	}
	if n := h.kept(l, time.Minute).keys(); n != 0 {
		t.Errorf("%d keys are remembered for nothing", n)
	}
	if !over(c, costing(2)) || over(c, costing(1)) || !over(c, costing(0)) {
		t.Error("2 of 2, 1 more, and nothing more")
	}
}

func TestWhatCostsMoreThanThereEverIsIsNotToldToComeBack(t *testing.T) {
	h := newHouse(t)
	c := h.chain(priced(perMinute(10, 2)))
	for _, n := range []int64{13, 1 << 40, 1<<63 - 1} {
		ex := costing(n)
		if over(c, ex) {
			t.Fatalf("a cost of %d was admitted by a limit of 12", n)
		}
		if got := ex.Response.Header.Values("Retry-After"); len(got) != 0 {
			t.Errorf("a cost of %d: Retry-After %q", n, got)
		}
	}
	if !over(c, costing(12)) {
		t.Error("refusals took something")
	}
	ex := costing(5)
	if over(c, ex) || ex.Response.Header.Get("Retry-After") != "30" {
		t.Errorf("Retry-After %q, want 30: five of ten in a minute", ex.Response.Header.Get("Retry-After"))
	}
}

// metered is a limit whose requests count as the answer says.
func metered(r Rate) Limit {
	l := limitOf("l", r)
	l.Cost, l.CostFromResponse = `int(response.headers["x-tokens"])`, true
	return l
}

// serve asks, and gives an answer that says what the request has cost; "" says nothing.
func serve(c *filter.Chain, tokens string) bool {
	ex := from("10.0.0.1")
	met, v := c.Request(ex)
	if v == filter.Continue {
		ex.Response = &message.Response{Status: 200}
		if tokens != "" {
			ex.Response.Header.Set("x-tokens", tokens)
		}
		c.Response(ex, met, nil)
	}
	c.Done(ex)
	return v == filter.Continue
}

func TestACostThatTheAnswerTellsIsTakenThen(t *testing.T) {
	h := newHouse(t)
	c := h.chain(metered(perMinute(60, 0)))
	if !serve(c, "59") || !serve(c, "30") {
		t.Fatal("refused though something was left")
	}
	// 89 of 60 are taken: the next one comes when 30 are back.
	h.Pass(29 * time.Second)
	if serve(c, "1") {
		t.Error("admitted in debt")
	}
	h.Pass(2 * time.Second)
	if !serve(c, "1") {
		t.Error("refused though the debt is paid")
	}
}

func TestAnAnswersCostGoesNoDeeperThanAnotherFullCounter(t *testing.T) {
	h := newHouse(t)
	c := h.chain(metered(perMinute(60, 0)))
	serve(c, "1000000000000")
	h.Pass(60 * time.Second)
	if serve(c, "1") {
		t.Error("admitted after one window: a debt of another one was owed")
	}
	h.Pass(2 * time.Second)
	if !serve(c, "1") {
		t.Error("refused after more than a window and an interval: the debt has no bound")
	}
}

func TestAnAnswerThatCostsNothingGivesBackAndOneThatDoesNotSayCostsOne(t *testing.T) {
	h := newHouse(t)
	c := h.chain(metered(perMinute(3, 0)))
	for range 10 {
		if !serve(c, "0") {
			t.Fatal("refused")
		}
	}
	for i := range 3 {
		if !serve(c, "") {
			t.Errorf("request %d was refused", i)
		}
	}
	if serve(c, "") {
		t.Error("a fourth was admitted")
	}
}

func TestAClientThatLeavesBeforeTheAnswerHasPaidOne(t *testing.T) {
	h := newHouse(t)
	c := h.chain(metered(perMinute(3, 0)))
	for range 3 {
		if !over(c, from("10.0.0.1")) {
			t.Fatal("refused")
		}
	}
	if over(c, from("10.0.0.1")) {
		t.Error("who leaves early is free")
	}
}

func TestATierIsALimitForWhoHasTheLabelCountedByWhoItIs(t *testing.T) {
	h := newHouse(t)
	gold := limitOf("gold", perMinute(5, 0))
	gold.When, gold.Key = `identity.labels.tier == "gold"`, []string{"identity.subject"}
	rest := limitOf("rest", perMinute(2, 0))
	rest.When, rest.Key = `identity.labels.tier != "gold"`, []string{"identity.subject", "source.ip"}
	c := h.chain(gold, rest)
	times := func(who *message.Identity) (n int) {
		for range 8 {
			ex := from("10.0.0.1")
			ex.Identity = who
			if over(c, ex) {
				n++
			}
		}
		return n
	}
	is := func(subject, tier string) *message.Identity {
		return &message.Identity{Subject: subject, Labels: map[string]string{"tier": tier}}
	}
	for _, q := range []struct {
		who  *message.Identity
		want int
	}{{is("ann", "gold"), 5}, {is("bob", "gold"), 5}, {is("cyd", "tin"), 2}, {nil, 2}, {is("dan", ""), 2}} {
		if got := times(q.who); got != q.want {
			t.Errorf("%+v: %d were admitted, want %d", q.who, got, q.want)
		}
	}
}
