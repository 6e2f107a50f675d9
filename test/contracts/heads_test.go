package contracts

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// The path that is matched, the one that filters see and the one that the backend gets are one.
func TestContract07_ThePathThatIsMatchedIsTheOneThatIsForwarded(t *testing.T) {
	var mu sync.Mutex // guards seen
	var seen string
	b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.RequestURI)
	})
	h := open(t, options{})
	h.endpoints("a", b.address)
	h.serve(rule("open", "a", with(faces("see", filter.Faces{Request: func(ex *message.Exchange) filter.Verdict {
		mu.Lock()
		defer mu.Unlock()
		seen = ex.Request.Target.String()
		return filter.Continue
	}}))), rule("admin", ""))
	for raw, want := range map[string]string{
		"/open/a?q=%zz;%2F":           "/open/a?q=%zz;%2F",
		"/open//%61/./b/../c?x":       "/open/a/c?x",
		"/admin/..//open/%7euser%2c?": "/open/~user%2C?",
		"/open/../admin/x":            "",
		"/open/..%2fadmin":            "400",
		"/open/..;/admin":             "400",
		"/open\\..\\admin":            "400",
		"/open/%252e%252e/admin":      "400",
		"/open/\xc3\xa9":              "400",
		"/open#/../admin":             "400",
		"/../open":                    "400",
	} {
		c := h.dial()
		status, text := c.ask("GET", raw, "")
		c.close()
		mu.Lock()
		switch {
		case want == "" && status == 500: // the rule of /admin, which has no backend
		case want == "400" && status == 400:
		case status != 200 || text != want || seen != want:
			t.Errorf("%s: %d, the filter saw %s, the backend %s; want %s", raw, status, seen, text, want)
		}
		mu.Unlock()
	}
}

func TestContract07_ARefusedPathSaysHowToAllowIt(t *testing.T) {
	for _, allow := range []bool{false, true} {
		h := open(t, options{settings: func(s *dataplane.Settings) { s.Paths.AllowEncodedSlash = allow }})
		h.endpoints("a", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) }).address)
		h.serve(rule("a", "a"))
		status, text := h.get("/a/x%2fy")
		if allow && (status != 200 || text != "/a/x%2Fy") || !allow && status != 400 {
			t.Errorf("allowed %v: %d %s", allow, status, text)
		}
		if !allow {
			until(t, "the log says how", func() bool { return strings.Contains(h.log.String(), "allow-encoded-slash") })
		}
	}
}

// No filter and no backend ever sees what frames a message or belongs to a hop, nor a stranger's word about who he is.
func TestContract07_WhatBelongsToAHopOrIsOursNeverPasses(t *testing.T) {
	eachWire(t, func(t *testing.T, h2 bool) {
		var mu sync.Mutex // guards filtered and backend
		var filtered []string
		var backend http.Header
		h := open(t, options{})
		h.endpoints("a", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			backend = r.Header.Clone()
			w.Header().Set("Keep-Alive", "timeout=5")
			w.Header().Set("X-Private", "1")
			w.Header().Set("Connection", "X-Private")
			io.WriteString(w, "ok")
		}).address)
		h.serve(rule("a", "a", with(faces("see", filter.Faces{Request: func(ex *message.Exchange) filter.Verdict {
			mu.Lock()
			defer mu.Unlock()
			for name := range ex.Request.Header.All() {
				filtered = append(filtered, name)
			}
			return filter.Continue
		}}))))
		spoofs := []string{
			"X-Forwarded-For: 6.6.6.6", "x_forwarded_for: 6.6.6.6", "X-Forwarded_Proto: https", "X-Forwarded-Prefix: /admin", "X-Real-Ip: 6.6.6.6",
			"X_Real_Ip: 6.6.6.6", "Forwarded: for=6.6.6.6", "Proxy: http://evil", "X-Request-Id: mine", "X-Plain_Name: stays",
		}
		if h2 {
			req, _ := http.NewRequest("GET", "http://"+h.address()+"/a", nil)
			for _, f := range spoofs {
				name, value, _ := strings.Cut(f, ": ")
				req.Header[name] = []string{value}
			}
			res, err := client(t, true).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 200 || res.Header.Get("Keep-Alive")+res.Header.Get("X-Private") != "" {
				t.Errorf("%v", res)
			}
		} else {
			c := h.dial()
			defer c.close()
			c.send("GET /a HTTP/1.1\r\nHost: a\r\n%s\r\nTE: gzip\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\n"+
				"X-Hop: 1\r\nX-Two: 2\r\nAuthorization: secret\r\nConnection: keep-alive, X-Hop\r\nConnection: x-two, authorization, x-forwarded-for\r\n\r\n", strings.Join(spoofs, "\r\n"))
			res, _ := c.answer("GET")
			if res == nil || res.StatusCode != 200 || res.Header.Get("Keep-Alive")+res.Header.Get("X-Private") != "" {
				t.Fatalf("%v", res)
			}
			if backend.Get("Authorization") != "secret" {
				t.Error("a client named its credentials away")
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, name := range []string{"X-Hop", "X-Two", "Te", "Keep-Alive", "Proxy-Connection", "Connection", "Upgrade", "Host", "Proxy", "X-Real-Ip", "X-Forwarded-Prefix", "X-Forwarded_proto", "X_forwarded_for", "X_real_ip"} {
			if backend.Get(name) != "" && name != "Te" || slices.ContainsFunc(filtered, func(f string) bool { return message.EqualName(f, name) }) {
				t.Errorf("%s passes", name)
			}
		}
		if got := backend.Values("X-Forwarded-For"); !slices.Equal(got, []string{"127.0.0.1"}) {
			t.Errorf("X-Forwarded-For %q", got)
		}
		if id := backend.Values("X-Request-Id"); len(id) != 1 || id[0] == "mine" {
			t.Errorf("X-Request-Id %q", id)
		}
		if backend.Get("X-Plain_name") != "stays" {
			t.Errorf("a name with an underscore that is nobody's: %v", backend)
		}
	})
}

// Held bodies draw on one budget. Spent, nothing is held, and so nothing sent again; that is counted. At the end all is given back.
func TestContract08_WithoutBudgetABodyIsForwardedButNotSentAgain(t *testing.T) {
	for _, c := range []struct {
		budget int64
		tries  int
	}{{1 << 20, 3}, {10, 1}} {
		var mu sync.Mutex // guards tries
		tries := 0
		h := open(t, options{settings: func(s *dataplane.Settings) { s.BodyBudget = c.budget }})
		h.endpoints("a", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			if tries++; len(body) != 1000 {
				t.Errorf("%d bytes came", len(body))
			}
			w.WriteHeader(503)
		}).address)
		h.serve(rule("a", "a", func(r *snapshot.Rule) { r.Retry = snapshot.Retry{Set: true, Attempts: 2, Codes: []int{503}} }))
		conn := h.dial()
		if status, _ := conn.ask("PUT", "/a", strings.Repeat("x", 1000)); status != 503 || tries != c.tries {
			t.Errorf("budget %d: %d after %d tries, want %d", c.budget, status, tries, c.tries)
		}
		conn.close()
		h.tally.last(t, 1)
		until(t, "the budget is given back", func() bool { return h.figure("body_budget_left_bytes") == float64(c.budget) })
		if refused := h.figure("body_budget_refused_total"); (refused > 0) != (c.tries == 1) {
			t.Errorf("budget %d: refused %v times", c.budget, refused)
		}
	}
}

func TestContract08_TheBudgetIsWholeAfterAStorm(t *testing.T) {
	h := open(t, options{settings: func(s *dataplane.Settings) { s.BodyBudget = 300_000 }})
	h.endpoints("a", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Early") != "" {
			w.WriteHeader(503)
			return
		}
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(503)
	}).address)
	h.endpoints("copy", serveHTTP(t, ok).address)
	h.serve(rule("a", "a", func(r *snapshot.Rule) {
		r.Retry = snapshot.Retry{Set: true, Attempts: 2, Codes: []int{503}}
		r.Mirrors = []snapshot.Mirror{{Ref: ref("copy"), Numerator: 1, Denominator: 1}}
	}))
	h.endpoints("copy", serveHTTP(t, ok).address)
	const each, clients = 15, 8
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c := client(t, i%2 == 0)
			for n := range each {
				req, _ := http.NewRequest("PUT", "http://"+h.address()+"/a", strings.NewReader(strings.Repeat("x", 20_000*(1+n%4))))
				if n%3 == 0 {
					req.Header.Set("X-Early", "1")
				}
				res, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode != 503 {
					t.Error(res.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	h.tally.last(t, each*clients)
	if left := h.figure("body_budget_left_bytes"); left != 300_000 {
		t.Errorf("%v bytes left of 300000", left)
	}
}

// Who wraps a body that was buffered neither loses its bytes nor the budget that they were taken from.
func TestContract08_AWrappedBodyGivesItsBudgetBack(t *testing.T) {
	budget := message.NewBudget(1000)
	for _, buffered := range []bool{true, false} {
		b := message.NewBody(&pieces{rest: []string{"hello ", "world"}}, 11, budget)
		if buffered {
			if all, err := b.Buffer(100); string(all) != "hello world" || err != nil {
				t.Fatal(err)
			}
		}
		b.Wrap(func(s message.Source) message.Source { return s }, 11)
		b.Keep(100)
		for range 2 {
			all := ""
			for p, err := b.Next(); err == nil; p, err = b.Next() {
				all += string(p)
			}
			if all != "hello world" || !b.Rewind() {
				t.Errorf("buffered %v: read %q", buffered, all)
			}
		}
		if spent := 1000 - budget.Left(); spent > 22 {
			t.Errorf("%d bytes are held of 11 that can be read twice", spent)
		}
		b.Release()
		if budget.Left() != 1000 {
			t.Errorf("buffered %v: %d bytes were not given back", buffered, 1000-budget.Left())
		}
	}
}

// pieces is a Source.
type pieces struct{ rest []string }

func (p *pieces) Next() ([]byte, error) {
	if len(p.rest) == 0 {
		return nil, io.EOF
	}
	s := p.rest[0]
	p.rest = p.rest[1:]
	return []byte(s), nil
}
func (p *pieces) More() bool               { return true }
func (p *pieces) Trailer() *message.Header { return nil }
func (p *pieces) Abort(error)              { p.rest = nil }

// A mirror never slows a request, and one whose answer never ends holds neither the process nor its copies for ever.
func TestContract08_AMirrorReadsThePrefixAndNeverSlowsTheRequest(t *testing.T) {
	var mu sync.Mutex // guards copies
	var copies []string
	h := open(t, options{settings: func(s *dataplane.Settings) { s.RetryBodyBytes = 100 }})
	h.endpoints("a", serveHTTP(t, ok).address)
	hold := make(chan struct{})
	defer close(hold)
	h.endpoints("copy", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		copies = append(copies, fmt.Sprintf("%s %d", r.URL.Path, len(body)))
		mu.Unlock()
		<-hold
	}).address)
	h.serve(rule("a", "a", func(r *snapshot.Rule) {
		r.Mirrors = []snapshot.Mirror{{Ref: ref("copy"), Numerator: 1, Denominator: 1}}
	}))
	for i, size := range []int{0, 50, 1000} {
		c := h.dial()
		if status, _ := c.ask("POST", fmt.Sprintf("/a/%d", i), strings.Repeat("x", size)); status != 200 {
			t.Error(status)
		}
		c.close()
	}
	h.tally.last(t, 3)
	until(t, "what was held has been copied", func() bool {
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(copies)
		return slices.Equal(copies, []string{"/a/0 0", "/a/1 50"})
	})
	if n := h.figure("filter_mirrors_dropped_total"); n != 1 {
		t.Errorf("%v copies counted as dropped, want the one that was too large", n)
	}
}

func TestContract08_AMirrorThatNeverEndsDoesNotHoldTheProcess(t *testing.T) {
	reached := make(chan struct{}, 1)
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	h.endpoints("copy", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		reached <- struct{}{}
		<-r.Context().Done()
	}).address)
	h.serve(rule("a", "a", func(r *snapshot.Rule) {
		r.Mirrors = []snapshot.Mirror{{Ref: ref("copy"), Numerator: 1, Denominator: 1}}
	}))
	if status, _ := h.get("/a"); status != 200 {
		t.Error(status)
	}
	closed(t, "the copy", reached)
	h.tally.last(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	over := make(chan struct{})
	go func() { defer close(over); h.shutdown(ctx) }()
	closed(t, "the end of Shutdown", over)
}
