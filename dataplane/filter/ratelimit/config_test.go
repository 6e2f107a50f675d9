package ratelimit

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

func TestTheTextSaysAllThatDecides(t *testing.T) {
	full := func() Limit {
		return Limit{
			Policy: apiLimits, Name: "per-client", When: `request.method != "OPTIONS"`, Key: []string{"source.ip", `request.headers["x-tenant"]`},
			Rates: []Rate{perMinute(100, 20), {Requests: 1000, Window: time.Hour}},
		}
	}
	atOnce := Limit{Policy: Policy{Name: apiLimits.Name}, Name: "at-once", Concurrency: 50, Shadow: true}
	c := Config{[]Limit{full(), atOnce}}
	want := "ratelimit(shop/api-limits#0b1c2d3e/per-client 100/1m+20,1000/1h by source.ip, request.headers[\"x-tenant\"] when `request.method != \"OPTIONS\"`; " +
		"shop/api-limits/at-once 50 at once shadow)"
	if got := c.String(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	texts := map[string]string{}
	for name, change := range map[string]func(*Limit){
		"as it is":     func(*Limit) {},
		"uid":          func(l *Limit) { l.Policy.UID = "x" },
		"namespace":    func(l *Limit) { l.Policy.Name.Namespace = "x" },
		"policy":       func(l *Limit) { l.Policy.Name.Name = "x" },
		"name":         func(l *Limit) { l.Name = "x" },
		"shadow":       func(l *Limit) { l.Shadow = true },
		"when":         func(l *Limit) { l.When = "" },
		"other when":   func(l *Limit) { l.When = "`" },
		"key":          func(l *Limit) { l.Key = l.Key[:1] },
		"no key":       func(l *Limit) { l.Key = nil },
		"one key":      func(l *Limit) { l.Key = []string{"source.ip, request.headers[\"x-tenant\"]"} },
		"one key, too": func(l *Limit) { l.Key = []string{"source.ip`, `request.headers[\"x-tenant\"]"} },
		"requests":     func(l *Limit) { l.Rates[0].Requests++ },
		"burst":        func(l *Limit) { l.Rates[0].Burst++ },
		"window":       func(l *Limit) { l.Rates[0].Window += time.Second },
		"fewer rates":  func(l *Limit) { l.Rates = l.Rates[:1] },
		"concurrency":  func(l *Limit) { l.Concurrency = 1 },
	} {
		l := full()
		change(&l)
		text := Config{[]Limit{l}}.String()
		if other, ok := texts[text]; ok {
			t.Errorf("%s and %s have one text: %s", name, other, text)
		}
		texts[text] = name
	}
	for d, want := range map[time.Duration]string{
		time.Second: "1s", 90 * time.Second: "1m30s", time.Minute: "1m", time.Hour: "1h", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m", 10 * time.Hour: "10h",
		1500 * time.Millisecond: "1.5s", 30 * time.Minute: "30m", time.Hour + time.Second: "1h0m1s",
	} {
		if got := snapshot.DurationWord(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestWhatIsWrongFailsTheBuild(t *testing.T) {
	rates := func(r ...Rate) Limit { return limitOf("l", r...) }
	for want, l := range map[string]Limit{
		"neither rates nor concurrency": rates(),
		"requests must be":              rates(perMinute(0, 0)),
		"from 1 to 1000000000":          rates(perMinute(MaxRequests+1, 0)),
		"window must be":                rates(Rate{Requests: 1, Window: time.Millisecond}),
		"burst must be":                 rates(perMinute(1, -1)),
		"is too large for 1 requests":   rates(Rate{Requests: 1, Window: MaxWindow, Burst: MaxRequests}),
		"window 1m stands twice":        rates(perMinute(1, 0), perMinute(2, 0)),
		"when: line 1, column 1":        {Policy: apiLimits, Name: "l", Concurrency: 1, When: "nothing.there"},
		"key[0]: line 1, column 8":      {Policy: apiLimits, Name: "l", Concurrency: 1, Key: []string{"request.time"}},
		"without a name":                {Policy: apiLimits, Concurrency: 1},
	} {
		h := newHouse(t)
		c, err := filter.Build([]snapshot.Filter{Config{[]Limit{l}}}, h.env(h.Store.Begin()), false, nil)
		if c != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "shop/api-limits") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	largest := rates(Rate{Requests: MaxRequests, Window: time.Second, Burst: MaxRequests}, Rate{Requests: 1, Window: MaxWindow})
	if got := admitted(newHouse(t).chain(largest), 3, "10.0.0.1"); got != 1 {
		t.Errorf("at the bounds: %d admitted, want 1", got)
	}
}
