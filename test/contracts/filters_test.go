package contracts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/cors"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/headers"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/mem"
)

// notBuildable is settings that are no filter.Config.
type notBuildable struct{}

func (notBuildable) FilterName() string { return "settings-only" }
func (notBuildable) String() string     { return "settings-only" }

// A filter that loses its face, or cannot be built, closes its place and no other: it might be what guards it.
func TestContract09_WhatCannotBeBuiltFailsClosed(t *testing.T) {
	open_ := func(change func(h *house, bad snapshot.Filter)) func(t *testing.T, bad snapshot.Filter) *house {
		return func(t *testing.T, bad snapshot.Filter) *house {
			h := open(t, options{})
			h.endpoints("a", serveHTTP(t, ok).address)
			change(h, bad)
			return h
		}
	}
	places := map[string]struct {
		open  func(t *testing.T, bad snapshot.Filter) *house
		wants map[string]int
	}{
		"rule": {open_(func(h *house, bad snapshot.Filter) { h.serve(rule("bad", "a", with(bad)), rule("good", "a")) }),
			map[string]int{"/bad": 500, "/good": 200, "/none": 404}},
		"backendRef": {open_(func(h *house, bad snapshot.Filter) { h.serve(rule("bad", "a", onBackend(bad)), rule("good", "a")) }),
			map[string]int{"/bad": 500, "/good": 200}},
		"pre": {open_(func(h *house, bad snapshot.Filter) {
			l := listener("bad", "", rule("good", "a"))
			l.Pre = []snapshot.Filter{bad}
			h.apply(l)
		}), map[string]int{"/good": 500, "/none": 500}},
		"default": {open_(func(h *house, bad snapshot.Filter) {
			l := listener("bad", "", rule("good", "a"))
			l.Default = []snapshot.Filter{bad}
			h.apply(l)
		}), map[string]int{"/good": 200, "/none": 500}},
	}
	for name, bad := range map[string]snapshot.Filter{
		"no face":              faces("faceless", filter.Faces{}),
		"a face of nobody's":   faces("conn", filter.Faces{Conn: func(*message.Conn) filter.Verdict { return filter.Fail(message.ReasonDenied, "") }}),
		"an error":             probe{"error", func(filter.Env) (filter.Faces, error) { return filter.Faces{}, errors.New("no") }},
		"a panic":              probe{"panic", func(filter.Env) (filter.Faces, error) { panic("oh") }},
		"settings of no build": notBuildable{},
	} {
		for place, p := range places {
			t.Run(name+" on "+place, func(t *testing.T) {
				h := p.open(t, bad)
				for path, want := range p.wants {
					if status, _ := h.get(path); status != want {
						t.Errorf("%s: %d, want %d", path, status, want)
					}
				}
				if !strings.Contains(h.errors.String(), bad.FilterName()) {
					t.Errorf("the log does not name it: %s", h.errors)
				}
			})
		}
	}
}

// On a backendRef only attempts are seen. A filter with other faces would be left out in silence there.
func TestContract09_AFilterOnABackendRefWithOtherFacesIsRefused(t *testing.T) {
	guard := func(*message.Exchange) filter.Verdict { return filter.Fail(message.ReasonDenied, "") }
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	attempt := func(*message.Attempt) filter.Verdict { return filter.Continue }
	h.serve(
		rule("request", "a", onBackend(faces("guard", filter.Faces{Request: guard}))),
		rule("response", "a", onBackend(faces("guard", filter.Faces{Attempt: attempt, Response: guard}))),
		rule("done", "a", onBackend(faces("guard", filter.Faces{Attempt: attempt, Done: func(*message.Exchange) {}}))),
		rule("cors", "a", onBackend(cors.Config{AllowOrigins: []string{"https://example.com"}})),
		rule("attempt", "a", onBackend(faces("fine", filter.Faces{Attempt: attempt}))),
	)
	for path, want := range map[string]int{"/request": 500, "/response": 500, "/done": 500, "/cors": 500, "/attempt": 200} {
		if status, _ := h.get(path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
}

// trace is a filter that writes down when it is asked.
type trace struct {
	mu  sync.Mutex // guards all
	all []string
}

func (tr *trace) note(what string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.all = append(tr.all, what)
}

func (tr *trace) take() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	s := strings.Join(tr.all, " ")
	tr.all = nil
	return s
}

// filter is named; verdict is what its request face says.
func (tr *trace) filter(name string, verdict func(ex *message.Exchange) filter.Verdict) probe {
	return faces(name, filter.Faces{
		Request: func(ex *message.Exchange) filter.Verdict {
			tr.note(name)
			if verdict != nil {
				return verdict(ex)
			}
			return filter.Continue
		},
		Response: func(ex *message.Exchange) filter.Verdict {
			tr.note(fmt.Sprintf("%s←%d/%s", name, ex.Response.Status, ex.Response.Origin))
			return filter.Continue
		},
		Done: func(*message.Exchange) { tr.note("~" + name) },
	})
}

func TestContract10_RequestsMeetFiltersInOrderAndResponsesInReverse(t *testing.T) {
	var tr trace
	answers := func(ex *message.Exchange) filter.Verdict {
		ex.Response = message.Respond(message.OriginUpstream, 418, "text/plain", "tea") // its origin is not a filter's to say
		return filter.Answer
	}
	fails := func(*message.Exchange) filter.Verdict { return filter.Fail(message.ReasonDenied, "") }
	panics := func(*message.Exchange) filter.Verdict { panic("oh") }
	chain := func(second func(*message.Exchange) filter.Verdict) func(*snapshot.Rule) {
		return with(tr.filter("a", nil), tr.filter("b", second), tr.filter("c", nil))
	}
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	h.serve(
		rule("ok", "a", chain(nil)), rule("answers", "a", chain(answers)), rule("fails", "a", chain(fails)), rule("panics", "a", chain(panics)),
		rule("nobody", "nobody", chain(nil)), rule("invalid", "", chain(nil)),
	)
	for path, want := range map[string]string{
		"/ok":      "a b c c←200/upstream b←200/upstream a←200/upstream",
		"/answers": "a b a←418/filter",
		"/fails":   "a b a←403/gateway",
		"/panics":  "a b a←500/gateway",
		"/nobody":  "a b c c←503/gateway b←503/gateway a←503/gateway",
		"/invalid": "a b c c←500/gateway b←500/gateway a←500/gateway",
	} {
		r := h.mem()
		tr.take()
		r.Do(&mem.Request{Target: path})
		if got := tr.take(); got != want+" ~a ~b ~c" {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// A response face may replace the answer; those further out see the new one.
func TestContract10_AnAnswerOfAResponseFacePassesThoseFurtherOut(t *testing.T) {
	var tr trace
	for name, c := range map[string]struct {
		face filter.OnResponse
		want string
	}{
		"answers": {func(ex *message.Exchange) filter.Verdict {
			ex.Response = message.Respond(message.OriginFilter, 299, "text/plain", "stale")
			return filter.Answer
		}, "a←299/filter"},
		"fails":  {func(*message.Exchange) filter.Verdict { return filter.Fail(message.ReasonDenied, "") }, "a←403/gateway"},
		"panics": {func(*message.Exchange) filter.Verdict { panic("oh") }, "a←500/gateway"},
	} {
		h := open(t, options{})
		h.endpoints("a", serveHTTP(t, ok).address)
		h.serve(rule("r", "a", with(tr.filter("a", nil), faces("b", filter.Faces{Response: c.face}), tr.filter("c", nil))))
		r := h.mem()
		tr.take()
		r.Do(&mem.Request{Target: "/r"})
		if got, want := tr.take(), "a c c←200/upstream "+c.want+" ~a ~c"; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// What runs for each exchange of a listener, matched or not, before the match; and what runs for those that match nothing.
func TestContract11_PreRunsForEveryExchangeAndDefaultForWhatMatchesNothing(t *testing.T) {
	var tr trace
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	l := listener("http", "", rule("to", "a", with(tr.filter("rule", nil))))
	l.Pre = []snapshot.Filter{tr.filter("pre1", nil), tr.filter("pre2", func(ex *message.Exchange) filter.Verdict {
		if ex.Request.Header.Has("X-Refuse") {
			return filter.Fail(message.ReasonDenied, "")
		}
		if ex.Route != "" {
			t.Error("pre runs after the match")
		}
		if p := ex.Request.Header.Get("X-Path"); p != "" { // the match sees what pre made of the request
			ex.Request.Target, _, _ = message.ParseTarget(p, message.PathRules{})
		}
		return filter.Continue
	})}
	l.Default = []snapshot.Filter{tr.filter("default", nil)}
	h.apply(l)
	r := h.mem()
	tr.take()
	for _, c := range []struct{ path, field, want string }{
		{"/to", "", "pre1 pre2 rule rule←200/upstream pre2←200/upstream pre1←200/upstream ~rule ~pre1 ~pre2"},
		{"/x", "X-Path: /to", "pre1 pre2 rule rule←200/upstream pre2←200/upstream pre1←200/upstream ~rule ~pre1 ~pre2"},
		{"/x", "", "pre1 pre2 default default←404/gateway pre2←404/gateway pre1←404/gateway ~default ~pre1 ~pre2"},
		{"/to", "X-Refuse: 1", "pre1 pre2 pre1←403/gateway ~pre1 ~pre2"},
		{"/to%2f", "", ""}, // the engine refused: no filter
	} {
		var head message.Header
		if name, value, has := strings.Cut(c.field, ": "); has {
			head.Add(name, value)
		}
		_, before := h.tally.count()
		r.Do(&mem.Request{Target: c.path, Header: head})
		if got := tr.take(); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.path, c.field, got, c.want)
		}
		if _, after := h.tally.count(); after != before+1 {
			t.Errorf("%s: %d ends", c.path, after-before)
		}
	}
	until(t, "a refused head is in the log too", func() bool { return strings.Contains(h.log.String(), `"path":"/to%2f"`) })
}

func TestContract12_SlotsAreNumberedPerChainAndCleanForEachExchange(t *testing.T) {
	const perChain = 7 // more than the few that need no allocation
	var tr trace
	keep := func(name string) probe {
		return probe{name, func(env filter.Env) (filter.Faces, error) {
			slot := env.Slot()
			return filter.Faces{
				Request: func(ex *message.Exchange) filter.Verdict {
					if *ex.Slot(slot) != nil {
						t.Errorf("%s finds %v in its slot", name, *ex.Slot(slot))
					}
					*ex.Slot(slot) = name
					if ex.Request.Header.Get("X-Stop") == name {
						return filter.Fail(message.ReasonDenied, "")
					}
					return filter.Continue
				},
				Done: func(ex *message.Exchange) {
					if v := *ex.Slot(slot); v != nil && v != name {
						t.Errorf("%s has %v in its slot at the end", name, v)
					} else if v != nil {
						tr.note(name)
						*ex.Slot(slot) = nil
					}
				},
			}, nil
		}}
	}
	chain := func(prefix string) (all []snapshot.Filter) {
		for i := range perChain {
			all = append(all, keep(fmt.Sprint(prefix, i)))
		}
		return all
	}
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	l := listener("http", "", rule("a", "a", with(chain("a")...)), rule("b", "a", with(chain("b")...)))
	l.Pre, l.Default = chain("p"), chain("d")
	h.apply(l)
	r := h.mem()
	tr.take()
	names := func(prefix string, n int) string {
		var s []string
		for i := range n {
			s = append(s, fmt.Sprint(prefix, i))
		}
		return strings.Join(s, " ")
	}
	for range 3 { // a Runner uses its exchange again, as engines do
		for _, c := range []struct{ path, stop, want string }{
			{"/a", "", names("a", 7) + " " + names("p", 7)},
			{"/b", "", names("b", 7) + " " + names("p", 7)},
			{"/none", "", names("d", 7) + " " + names("p", 7)},
			{"/a", "a2", names("a", 3) + " " + names("p", 7)}, // a release happens only where something is
			{"/a", "p5", names("p", 6)},
		} {
			var head message.Header
			if c.stop != "" {
				head.Set("X-Stop", c.stop)
			}
			r.Do(&mem.Request{Target: c.path, Header: head})
			if got := tr.take(); got != c.want {
				t.Errorf("%s %s: %s, want %s", c.path, c.stop, got, c.want)
			}
		}
	}
}

// What filters do to an attempt is done to each attempt once, whether it is the first or the third, and never to the exchange.
func TestContract13_ARetryAppliesNothingTwice(t *testing.T) {
	var mu sync.Mutex // guards saw and tries
	var saw []string
	tries := 0
	b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		tries++
		saw = append(saw, fmt.Sprintf("%s %v %s", r.URL.Path, r.Header["X-Add"], body))
		w.Header().Set("X-Answer", "theirs")
		if tries%3 != 0 {
			w.WriteHeader(503)
		}
	})
	attempts := 0
	h := open(t, options{})
	h.endpoints("a", b.address)
	h.serve(rule("a", "a", with(
		headers.Config{AddRequest: []headers.Field{{Name: "X-Add", Value: "rule"}}},
		faces("attempts", filter.Faces{
			Attempt: func(at *message.Attempt) filter.Verdict {
				attempts++
				if at.N != attempts-1 {
					t.Errorf("attempt %d says that it is %d", attempts-1, at.N)
				}
				at.Request.Target.Path += "/try"
				return filter.Continue
			},
			Done: func(ex *message.Exchange) {
				if got := ex.Request.Header.Values("X-Add"); !slices.Equal(got, []string{"rule"}) || ex.Request.Target.Path != "/a" {
					t.Errorf("the exchange was changed by its attempts: %q %s", got, ex.Request.Target.Path)
				}
			},
		}),
	), onBackend(
		headers.Config{OnBackend: true, AddRequest: []headers.Field{{Name: "X-Add", Value: "backend"}}},
		headers.Config{OnBackend: true, AddResponse: []headers.Field{{Name: "X-Answer", Value: "ours"}}},
	), func(r *snapshot.Rule) { r.Retry = snapshot.Retry{Set: true, Attempts: 5, Codes: []int{503}} }))
	c := h.dial()
	defer c.close()
	c.send("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
	res, _ := c.answer("PUT")
	if res == nil || res.StatusCode != 200 {
		t.Fatalf("%v", res)
	}
	if got := res.Header.Values("X-Answer"); !slices.Equal(got, []string{"theirs,ours"}) {
		t.Errorf("answer of the third attempt: %q", got)
	}
	want := "/a/try [rule,backend] body"
	if !slices.Equal(saw, []string{want, want, want}) {
		t.Errorf("the backend saw %q, want three times %q", saw, want)
	}
	if n := h.figure("attempts_total"); n != 3 {
		t.Errorf("%v attempts counted", n)
	}
	if n := h.figure("retries_total", `reason="status"`); n != 2 {
		t.Errorf("%v retries counted", n)
	}
	h.tally.last(t, 1)
	if n := h.figure("attempts_in_flight"); n != 0 {
		t.Errorf("%v attempts in flight at the end", n)
	}
}

// A filter that refuses an attempt has refused: the next endpoint is not asked whether it thinks otherwise.
func TestContract13_ARefusalOfAFilterIsNotTriedAgain(t *testing.T) {
	asked := 0
	h := open(t, options{settings: func(s *dataplane.Settings) { s.ConnectRetries = 5 }})
	b := serveHTTP(t, ok)
	h.endpoints("a", b.address, serveHTTP(t, ok).address)
	h.serve(rule("a", "a", with(faces("refuse", filter.Faces{Attempt: func(*message.Attempt) filter.Verdict {
		asked++
		return filter.Fail(message.ReasonDenied, "no")
	}})), func(r *snapshot.Rule) { r.Retry = snapshot.Retry{Set: true, Attempts: 5} }))
	if status, _ := h.get("/a"); status != 403 || asked != 1 {
		t.Errorf("%d after %d attempts", status, asked)
	}
	if made, _ := b.connections(); made != 0 {
		t.Error("a connection was made for a refused attempt")
	}
}

// What still sends the request of an attempt that failed is waited for only when its answer, and so its connection, has been given up.
func TestContract13_ARetryWaitsForNobodyWhoWaitsForIt(t *testing.T) {
	var tries atomic.Int64
	h := open(t, options{transport: func(message.ConnKey, message.TransportOptions) message.Transport {
		return transport(func(_ context.Context, at *message.Attempt) error {
			for err := error(nil); err == nil; {
				_, err = at.Request.Body.Next()
			}
			at.Sent = message.SentBody
			if tries.Add(1) > 1 {
				at.Response = &message.Response{Status: 200, Length: -1}
				return nil
			}
			s := newSilent("")
			at.Response = &message.Response{Status: 503, Length: -1, Body: message.NewBody(s, -1, nil)}
			at.Join = func() { <-s.gone } // as a write to a backend that does not read, until the connection is closed
			return nil
		})
	}})
	h.endpoints("a", netip.MustParseAddrPort("10.0.0.1:80"))
	h.serve(rule("a", "a", func(r *snapshot.Rule) { r.Retry = snapshot.Retry{Set: true, Attempts: 1, Codes: []int{503}} }))
	c := h.dial()
	defer c.close()
	if status, _ := c.ask("PUT", "/a", "body"); status != 200 || tries.Load() != 2 {
		t.Errorf("%d after %d tries", status, tries.Load())
	}
}

// Nothing is sent twice without the rule's word, but for attempts of which no byte was sent.
func TestContract13_WhatMayHaveReachedABackendIsNotSentAgain(t *testing.T) {
	var mu sync.Mutex // guards saw
	saw := map[string]int{}
	slams := serveRaw(t, func(nc net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err == nil {
			mu.Lock()
			saw[req.Method+req.URL.Path]++
			mu.Unlock()
		}
	})
	h := open(t, options{})
	h.endpoints("a", slams)
	retry := func(r *snapshot.Rule) { r.Retry = snapshot.Retry{Set: true, Attempts: 2} }
	h.serve(rule("plain", "a"), rule("retry", "a", retry))
	for ask, want := range map[string]int{"GET/plain": 1, "POST/plain": 1, "GET/retry": 3, "POST/retry": 1} {
		i := strings.IndexByte(ask, '/')
		c := h.dial()
		if status, _ := c.ask(ask[:i], ask[i:], map[string]string{"POST": "x"}[ask[:i]]); status != 502 {
			t.Errorf("%s: %d", ask, status)
		}
		c.close()
		mu.Lock()
		if saw[ask] != want {
			t.Errorf("%s reached the backend %d times, want %d", ask, saw[ask], want)
		}
		mu.Unlock()
	}
}

// net/http sends a request over HTTP/2 once more when the backend has refused the stream: in silence, but it is counted.
func TestContract13_SilentRetriesOfATransportAreCounted(t *testing.T) {
	var mu sync.Mutex // guards refused
	refused := 0
	h := open(t, options{})
	h.endpoints("h2c", serveRaw(t, func(nc net.Conn, r *bufio.Reader) {
		if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(nc, r)
		f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					f.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				mu.Lock()
				refused++
				first := refused == 1
				mu.Unlock()
				if first {
					f.WriteRSTStream(frame.StreamID, http2.ErrCodeRefusedStream)
					continue
				}
				var block strings.Builder
				hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true})
			}
		}
	}))
	h.serve(rule("a", "h2c"))
	if status, _ := h.get("/a"); status != 200 {
		t.Fatal(status)
	}
	if n := h.figure("attempt_replays_total"); n != 1 {
		t.Errorf("%v replays counted", n)
	}
}

// A fork is an exchange of our own: its head is a copy, its depth is bounded, and its context ends with the parent's.
func TestContract14_AForkSharesNothingAndGoesThreeDeep(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	var forked *message.Exchange
	h.serve(rule("a", "a", with(faces("fork", filter.Faces{Request: func(ex *message.Exchange) filter.Verdict {
		f, ok := ex.Fork()
		if !ok {
			t.Error("no fork of a client's exchange")
			return filter.Continue
		}
		f.Request.Header.Set("X-Fork", "1")
		f.Request.Header.Del("X-Mine")
		if ex.Request.Header.Has("X-Fork") || ex.Request.Header.Get("X-Mine") != "1" {
			t.Error("the parent's head was changed")
		}
		if f.ID != ex.ID || f.ClientIP != ex.ClientIP || f.Depth != 1 || f.Request.Body != nil || f.Context() == ex.Context() {
			t.Errorf("fork %+v", f)
		}
		for deeper := f; ; {
			next, ok := deeper.Fork()
			if !ok {
				if deeper.Depth != 3 {
					t.Errorf("no fork at depth %d", deeper.Depth)
				}
				break
			}
			deeper = next
		}
		forked = f
		return filter.Continue
	}}))))
	res := h.mem().Do(&mem.Request{Target: "/a", Header: message.NewHeader(message.Field{Name: "X-Mine", Value: "1"})})
	if res.Status != 200 {
		t.Fatal(res.Status)
	}
	if forked.Context().Err() == nil {
		t.Error("a fork's context outlives its parent")
	}
}

// What an environment does not have yet is no seam to fall through: a filter that needs it fails its rule.
func TestContract14_AFilterThatCallsOutFailsClosedWhileNothingCanBeCalled(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	h.serve(rule("a", "a", with(probe{"caller", func(env filter.Env) (filter.Faces, error) {
		_, err := env.Call(ref("auth"))
		return filter.Faces{Request: func(*message.Exchange) filter.Verdict { return filter.Continue }}, err
	}})))
	if status, _ := h.get("/a"); status != 500 {
		t.Errorf("%d", status)
	}
}
