package contracts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/headers"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Clients that leave at any moment, backends that break off, timeouts, retries, mirrors, tunnels and new plans, all at once: whatever
// happens, each exchange ends once, and nothing of it stays: no place of a limit, no attempt in flight, no byte of the budget.
func TestContract01_AStormLeavesNothingBehind(t *testing.T) {
	const budget = 4 << 20
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	whims := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			nc, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer nc.Close()
			io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.CopyN(nc, rw, rand.Int64N(100))
			return
		}
		if rand.IntN(3) > 0 {
			io.CopyN(io.Discard, r.Body, rand.Int64N(100_000))
		}
		switch rand.IntN(8) {
		case 0:
			panic(http.ErrAbortHandler)
		case 1:
			w.WriteHeader(503)
		case 2:
			time.Sleep(rand.N(20 * time.Millisecond))
			io.WriteString(w, "late")
		case 3:
			w.Header().Set("Content-Length", "100000")
			io.WriteString(w, strings.Repeat("x", rand.IntN(100_001)))
		case 4:
			for range rand.IntN(5) {
				io.WriteString(w, "piece\n")
				w.(http.Flusher).Flush()
				time.Sleep(rand.N(3 * time.Millisecond))
			}
		default:
			io.Copy(w, r.Body)
		}
	}
	a, b, dead := serveHTTP(t, whims), serveHTTP(t, whims), serveRaw(t, func(net.Conn, *bufio.Reader) {})
	h := open(t, options{settings: func(s *dataplane.Settings) { s.BodyBudget, s.StreamGrace = budget, time.Millisecond }})

	var held atomic.Int64
	holds := probe{"holds", func(env filter.Env) (filter.Faces, error) {
		slot := env.Slot()
		return filter.Faces{
			Request: func(ex *message.Exchange) filter.Verdict {
				if *ex.Slot(slot) != nil {
					t.Error("a slot that is not clean")
				}
				*ex.Slot(slot) = ex.ID
				held.Add(1)
				return filter.Continue
			},
			Done: func(ex *message.Exchange) {
				if v := *ex.Slot(slot); v != nil {
					if v != ex.ID {
						t.Errorf("a slot of %v in %s", v, ex.ID)
					}
					*ex.Slot(slot) = nil
					held.Add(-1)
				}
			},
		}, nil
	}}
	plan := func(r *rand.Rand) {
		all := []*snapshot.Rule{
			rule("plain", "a", with(holds)),
			rule("retry", "b", with(holds), func(s *snapshot.Rule) {
				s.Retry = snapshot.Retry{Set: true, Attempts: 2, Codes: []int{503}, Backoff: time.Millisecond}
				s.Mirrors = []snapshot.Mirror{{Ref: ref("a"), Numerator: 1, Denominator: 3}}
			}, onBackend(headers.Config{OnBackend: true, AddRequest: []headers.Field{{Name: "X-Try", Value: "1"}}})),
			rule("timeout", "h2c", with(holds), func(s *snapshot.Rule) {
				s.Timeouts = snapshot.Timeouts{Request: 15 * time.Millisecond, Backend: 5 * time.Millisecond}
				s.Retry = snapshot.Retry{Set: true, Attempts: 1}
			}),
		}
		if drop := r.IntN(6); drop < len(all) {
			all = append(all[:drop], all[drop+1:]...)
		}
		h.serve(all...)
	}
	for _, name := range []string{"a", "b", "h2c"} {
		h.endpoints(name, a.address, b.address, dead)
	}
	r := rand.New(rand.NewPCG(seed, 0))
	plan(r)

	ctx, stop := context.WithTimeout(context.Background(), 3*time.Second)
	defer stop()
	var wg sync.WaitGroup
	var asked atomic.Int64
	for i := range 12 {
		wg.Go(func() { storm(ctx, t, h, rand.New(rand.NewPCG(seed, uint64(i+1))), i%3, &asked) })
	}
	for ctx.Err() == nil {
		plan(r)
		h.endpoints([]string{"a", "b", "h2c"}[r.IntN(3)], a.address, dead, b.address)
		time.Sleep(rand.N(10 * time.Millisecond))
	}
	wg.Wait()
	until(t, "everything has ended", func() bool {
		served, ended := h.tally.count()
		return served <= ended && h.figure("requests_in_flight") == 0
	})
	until(t, "mirrors have ended too", func() bool { return h.figure("attempts_in_flight") == 0 })
	if n := held.Load(); n != 0 {
		t.Errorf("%d places are held", n)
	}
	if left := h.figure("body_budget_left_bytes"); left != budget {
		t.Errorf("%v bytes of %d are left", left, budget)
	}
	_, ended := h.tally.count()
	t.Logf("%d asked, %d ended", asked.Load(), ended)
	if ended < 200 {
		t.Error("too little happened to prove anything")
	}
}

// storm is one client.
func storm(ctx context.Context, t *testing.T, h *house, r *rand.Rand, kind int, asked *atomic.Int64) {
	c := client(t, kind == 1)
	for ctx.Err() == nil {
		asked.Add(1)
		path := "/" + []string{"plain", "retry", "timeout"}[r.IntN(3)]
		leaves, leave := context.WithCancel(ctx)
		if r.IntN(3) == 0 {
			time.AfterFunc(time.Duration(r.IntN(10))*time.Millisecond, leave)
		}
		if kind == 2 {
			raw(leaves, h, r, path)
			leave()
			continue
		}
		var body io.Reader
		if r.IntN(2) == 0 {
			body = io.MultiReader(strings.NewReader(strings.Repeat("x", r.IntN(80_000)))) // of no known length
			if r.IntN(2) == 0 {
				body = strings.NewReader(strings.Repeat("x", r.IntN(80_000)))
			}
		}
		req, _ := http.NewRequestWithContext(leaves, []string{"GET", "PUT", "POST"}[r.IntN(3)], "http://"+h.address()+path, body)
		if res, err := c.Do(req); err == nil {
			io.CopyN(io.Discard, res.Body, r.Int64N(200_000))
			res.Body.Close()
		}
		leave()
	}
}

// raw is a client that may open a tunnel, leave in the middle of its head or body, or ask several things at once.
func raw(ctx context.Context, h *house, r *rand.Rand, path string) {
	nc, err := net.Dial("tcp", h.address())
	if err != nil {
		return
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	nc.SetDeadline(time.Now().Add(100 * time.Millisecond))
	text := []string{
		"GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
		"GET %s HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf",
		"PUT %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"PUT %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"GET %s HTTP/1.1\r\nHost: a\r\nX: ",
	}[r.IntN(6)]
	fmt.Fprintf(nc, text, path)
	io.CopyN(io.Discard, nc, r.Int64N(100_000))
}
