package ratelimit

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/filtertest"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/store"
)

// house is what this filter lives in.
type house struct {
	*filtertest.House
	t      testing.TB
	gauges map[string]func() float64
	page   message.Handler

	shared  *store.Store // of replicas; nil: none
	members atomic.Int64 // 0: nobody has said
}

func newHouse(t testing.TB) *house {
	return &house{House: filtertest.New(time.Unix(1_700_000_000, 0)), t: t, gauges: map[string]func() float64{}}
}

func (h *house) env(r *keep.Round) filter.Env {
	env := h.Env(r)
	env.Store, env.Members = h.shared, func() int { return int(h.members.Load()) }
	env.Gauge = func(name string, read func() float64, pairs ...string) {
		h.gauges[name+" "+strings.Join(pairs, " ")] = read
	}
	env.Admin = func(_ string, page message.Handler) { h.page = page }
	return env
}

// apply builds one chain per config, as one application of a snapshot does.
func (h *house) apply(configs ...Config) []*filter.Chain {
	h.t.Helper()
	r := h.Store.Begin()
	defer r.End()
	var chains []*filter.Chain
	for _, c := range configs {
		chain, err := filter.Build([]snapshot.Filter{c}, h.env(r), false, nil)
		if err != nil {
			h.t.Fatal(err)
		}
		chains = append(chains, chain)
	}
	return chains
}

func (h *house) chain(limits ...Limit) *filter.Chain {
	h.t.Helper()
	return h.apply(Config{limits})[0]
}

var apiLimits = Policy{UID: "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9", Name: snapshot.Name{Namespace: "shop", Name: "api-limits"}}

func limitOf(name string, rates ...Rate) Limit {
	return Limit{Policy: apiLimits, Name: name, Rates: rates}
}

func perMinute(n, burst int64) Rate { return Rate{Requests: n, Window: time.Minute, Burst: burst} }

func from(ip string) *message.Exchange {
	ex := &message.Exchange{ClientIP: netip.MustParseAddr(ip)}
	ex.Request.Method = "GET"
	ex.Request.Target.Path = "/"
	return ex
}

// ask sends one exchange through; it is over at once when it was refused.
func ask(c *filter.Chain, ex *message.Exchange) bool {
	if _, v := c.Request(ex); v == filter.Continue {
		return true
	}
	c.Done(ex)
	return false
}

// admitted asks n times for a client, each exchange over at once, and says how many were admitted.
func admitted(c *filter.Chain, n int, ip string) (yes int) {
	for range n {
		ex := from(ip)
		if ask(c, ex) {
			yes++
			c.Done(ex)
		}
	}
	return yes
}

func notes(ex *message.Exchange, key string) (values []string) {
	for _, n := range ex.Notes {
		if n.Key == key {
			values = append(values, n.Value)
		}
	}
	return values
}

func note(ex *message.Exchange, key string) string { return strings.Join(notes(ex, key), "|") }

func (h *house) counted(name, limit, result string) float64 {
	pairs := []string{"policy", "shop/api-limits", "limit", limit}
	if result != "" {
		pairs = append(pairs, "result", result)
	}
	return h.Counted(name, pairs...)
}

// keys is how many keys a counter remembers.
func (c *counter) keys() (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.index)
		s.mu.Unlock()
	}
	return n
}

// kept is the counter of a limit's window.
func (h *house) kept(l Limit, window time.Duration) *counter {
	return keptCounter(h.Store.Begin(), l, window)
}
