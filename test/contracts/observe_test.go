package contracts

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/ratelimit"
)

// stuck is a log that takes nothing until it is freed.
type stuck struct{ free chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.free; return len(p), nil }

// An access log that is stuck costs lines, which are counted, and neither requests nor memory.
func TestContract22_AStuckAccessLogDropsLinesAndHoldsNobody(t *testing.T) {
	const requests, queue = 3000, 16
	s := stuck{make(chan struct{})}
	var once sync.Once
	free := func() { once.Do(func() { close(s.free) }) }
	h := open(t, options{log: s, queue: queue})
	t.Cleanup(free) // before the house closes its log
	h.endpoints("a", serveHTTP(t, ok).address)
	h.serve(rule("a", "a"))
	c := h.dial()
	defer c.close()
	for range requests {
		if status, _ := c.ask("GET", "/a", ""); status != 200 {
			t.Fatal(status)
		}
	}
	h.tally.last(t, requests)
	dropped := h.figure("access_log_dropped_lines_total")
	if dropped == 0 {
		t.Error("nothing was dropped: the log was not stuck")
	}
	free()
	until(t, "each line was written or counted", func() bool {
		return h.figure("access_log_lines_total")+h.figure("access_log_dropped_lines_total") == requests
	})
}

// A client must not escape a limit by leaving out what its key is made of: those without share one place.
func TestContract23_WhoLeavesAKeyOutSharesALimit(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	for name, key := range map[string]string{
		"header": `request.headers["x-tenant"]`, "query": `request.query["tenant"]`, "fails": `string(1 / (size(request.headers["x-tenant"]) - 1))`,
	} {
		h.serve(rule("a", "a", with(ratelimit.Config{Limits: []ratelimit.Limit{{
			Policy: ratelimit.Policy{UID: name, Name: gateway}, Name: "one", Key: []string{key}, Rates: []ratelimit.Rate{{Requests: 1, Window: time.Hour}},
		}}})))
		for i, c := range []struct {
			path, field string
			want        int
		}{
			{"/a", "", 200}, {"/a", "", 429}, {"/a?tenant=", "X-Tenant: ", 429}, {"/a?TENANT=x", "X-Tenant_: x", 429},
		} {
			var fields []string
			if c.field != "" {
				fields = append(fields, c.field)
			}
			if status, _ := h.get(c.path, fields...); status != c.want {
				t.Errorf("%s, request %d: %d, want %d", name, i, status, c.want)
			}
		}
		if name == "fails" { // one byte makes it divide by zero: its key is "", as that of a limit of its own
			if status, _ := h.get("/a", "X-Tenant: b"); status != 200 {
				t.Errorf("fails: %d", status)
			}
			if status, _ := h.get("/a", "X-Tenant: c"); status != 429 {
				t.Errorf("fails: %d for another value that fails too", status)
			}
		}
	}
}

// A key may be made of a credential: neither the answer nor the log shows it.
func TestContract23_HeadersOfAnAnswerNeverLeakAKey(t *testing.T) {
	h := open(t, options{settings: func(s *dataplane.Settings) { s.ServerName = "" }})
	h.endpoints("a", serveHTTP(t, ok).address)
	h.serve(rule("a", "a", with(ratelimit.Config{Limits: []ratelimit.Limit{{
		Policy: ratelimit.Policy{UID: "u", Name: gateway}, Name: "one", Key: []string{`request.headers["authorization"]`}, Rates: []ratelimit.Rate{{Requests: 1, Window: time.Hour}},
	}}})))
	for range 2 {
		res, err := http.DefaultClient.Do(func() *http.Request {
			r, _ := http.NewRequest("GET", "http://"+h.address()+"/a", nil)
			r.Header.Set("Authorization", "Bearer secret-token")
			r.Close = true
			return r
		}())
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		for name, values := range res.Header {
			if strings.Contains(strings.Join(values, " "), "secret-token") {
				t.Errorf("%s tells the key", name)
			}
		}
	}
	h.tally.last(t, 2)
	until(t, "both lines are written", func() bool { return strings.Count(h.log.String(), "\n") == 2 })
	if strings.Contains(h.log.String(), "secret-token") {
		t.Error("the log tells the key")
	}
}
