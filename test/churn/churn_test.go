// Package churn swaps snapshots and endpoints at random under load, and checks what must never happen: a request that sees two
// snapshots, a request that fails although its route stayed, a goroutine or an exchange that is left.
package churn

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/headers"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/ratelimit"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
)

// sleep is a filter that holds an exchange back, as external authorization would, across swaps. Its state in the exchange must be what
// it left there.
type sleep struct {
	Version string
	counts  *counts
}

type counts struct{ begun, done, wrong atomic.Int64 }

func (sleep) FilterName() string { return "sleep" }
func (s sleep) String() string   { return "sleep(" + s.Version + ")" }

func (s sleep) Build(env filter.Env) (filter.Faces, error) {
	slot := env.Slot()
	return filter.Faces{
		Request: func(ex *message.Exchange) filter.Verdict {
			s.counts.begun.Add(1)
			*ex.Slot(slot) = s.Version
			ex.Request.Header.Set("X-Filter", s.Version)
			time.Sleep(rand.N(3 * time.Millisecond))
			return filter.Continue
		},
		Response: func(ex *message.Exchange) filter.Verdict {
			ex.Response.Header.Set("X-Response-Filter", s.Version)
			return filter.Continue
		},
		Done: func(ex *message.Exchange) {
			if v := ex.Slot(slot); *v != nil {
				if *v != s.Version {
					s.counts.wrong.Add(1)
				}
				*v = nil
				s.counts.done.Add(1)
			}
		},
	}, nil
}

var (
	gateway = snapshot.Name{Namespace: "infra", Name: "gw"}
	stable  = snapshot.BackendRef{Service: snapshot.Name{Namespace: "shop", Name: "stable"}, Port: 80}
)

// world is what snapshots are drawn from.
type world struct {
	port      uint16
	endpoints []netip.AddrPort
	counts    *counts
}

// draw makes a snapshot of that version: the stable rule is always there, others come and go; every rule carries the version in a
// filter, in a header of the attempt and in one of the response.
func (w *world) draw(version int, r *rand.Rand) *snapshot.Snapshot {
	v := strconv.Itoa(version)
	rule := func(name string) *snapshot.Rule {
		return &snapshot.Rule{
			Key: snapshot.RuleKey{Kind: "HTTPRoute", Route: snapshot.Name{Namespace: "shop", Name: name}},
			Filters: []snapshot.Filter{
				ratelimit.Config{Limits: []ratelimit.Limit{{Policy: ratelimit.Policy{UID: "u", Name: gateway}, Name: "high", Rates: []ratelimit.Rate{{Requests: 1 << 20, Window: time.Second}}}}},
				sleep{v, w.counts},
			},
			Backends: []snapshot.WeightedBackend{{Ref: stable, Weight: 1, Filters: []snapshot.Filter{
				headers.Config{OnBackend: true, SetRequest: []headers.Field{{Name: "X-Attempt", Value: v}}},
			}}},
		}
	}
	prefix := func(path string, to *snapshot.Rule) snapshot.Match {
		return snapshot.Match{Path: snapshot.PathMatch{Kind: snapshot.PathPrefix, Value: path}, Rule: to}
	}
	host := snapshot.Host{Matches: []snapshot.Match{prefix("/stay", rule("stay"))}}
	for i := range 20 {
		if r.IntN(2) == 0 {
			host.Matches = append(host.Matches, prefix("/come/"+strconv.Itoa(i), rule("r"+strconv.Itoa(i))))
		}
	}
	r.Shuffle(len(host.Matches), func(i, j int) { host.Matches[i], host.Matches[j] = host.Matches[j], host.Matches[i] })
	return &snapshot.Snapshot{
		Sockets: []snapshot.Socket{{
			Key:      snapshot.SocketKey{Gateway: gateway, Address: netip.MustParseAddr("127.0.0.1"), Port: w.port},
			SpecPort: w.port, Protocol: snapshot.HTTP,
			Listeners: []*snapshot.Listener{{Key: snapshot.ListenerKey{Gateway: gateway, Section: "http"}, Hosts: []snapshot.Host{host}}},
		}},
		Backends: []snapshot.Backend{{Ref: stable, Algorithm: []string{"", "RoundRobin"}[version%2]}},
	}
}

// someEndpoints is a random, never empty part of the endpoints: pods that come and go while they all still answer.
func (w *world) someEndpoints(r *rand.Rand) []snapshot.Endpoints {
	set := snapshot.Endpoints{Backend: stable}
	for _, i := range r.Perm(len(w.endpoints))[:1+r.IntN(len(w.endpoints))] {
		set.Endpoints = append(set.Endpoints, snapshot.Endpoint{Address: w.endpoints[i], Draining: r.IntN(4) == 0})
	}
	return []snapshot.Endpoints{set}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestNoRequestFailsOrSeesTwoSnapshotsWhileEverythingChanges(t *testing.T) {
	for_ := 5 * time.Second
	if d, err := time.ParseDuration(os.Getenv("CHURN")); err == nil {
		for_ = d
	}
	before := runtime.NumGoroutine()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)

	w := &world{port: freePort(t), counts: &counts{}}
	var origins []*httptest.Server
	for range 4 {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			rw.Header().Set("X-Saw-Filter", r.Header.Get("X-Filter"))
			rw.Header().Set("X-Saw-Attempt", r.Header.Get("X-Attempt"))
			fmt.Fprint(rw, "ok")
		}))
		origins = append(origins, s)
		w.endpoints = append(w.endpoints, netip.MustParseAddrPort(s.Listener.Addr().String()))
	}
	seen, err := telemetry.New(telemetry.Options{Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	settings := dataplane.Defaults()
	settings.LocalEndpoints = true
	plane := dataplane.New(dataplane.Options{
		Settings: settings, Engine: nethttp.New(), Transport: nethttp.NewTransport, Telemetry: seen,
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	})

	r := rand.New(rand.NewPCG(seed, 1))
	plane.SetEndpoints(w.someEndpoints(r))
	if b := plane.Apply(w.draw(0, r)); b.Sockets[0].Err != nil {
		t.Fatal(b.Sockets[0].Err)
	}

	ctx, stop := context.WithTimeout(context.Background(), for_)
	defer stop()
	var wg sync.WaitGroup
	var requests, notFound atomic.Int64
	for i := range 8 {
		wg.Go(func() { w.load(ctx, t, rand.New(rand.NewPCG(seed, uint64(i+2))), i%2 == 0, &requests, &notFound) })
	}
	swaps := 0
	for ctx.Err() == nil {
		swaps++
		if r.IntN(3) == 0 {
			plane.SetEndpoints(w.someEndpoints(r))
		} else {
			plane.Apply(w.draw(swaps, r))
		}
		time.Sleep(rand.N(2 * time.Millisecond))
	}
	wg.Wait()

	closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := plane.Shutdown(closing); err != nil {
		t.Error("shutdown:", err)
	}
	seen.Close(closing)
	for _, s := range origins {
		s.Close()
	}
	c := w.counts
	if begun, done := c.begun.Load(), c.done.Load(); begun != done || c.wrong.Load() != 0 {
		t.Errorf("Done ran %d times for %d exchanges, %d with a state not theirs", done, begun, c.wrong.Load())
	}
	waitForGoroutines(t, before)
	t.Logf("%d requests (%d of routes that had gone) over %d changes", requests.Load(), notFound.Load(), swaps)
	if requests.Load() < 100 || swaps < 50 {
		t.Error("too little happened to prove anything")
	}
}

// load asks in a loop: the stable rule must always answer; one that comes and goes answers, or is not there.
func (w *world) load(ctx context.Context, t *testing.T, r *rand.Rand, h2 bool, requests, notFound *atomic.Int64) {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	if h2 {
		transport.Protocols.SetUnencryptedHTTP2(true)
	} else {
		transport.Protocols.SetHTTP1(true)
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	for ctx.Err() == nil {
		path, mayMiss := "/stay/here", false
		if r.IntN(2) == 0 {
			path, mayMiss = "/come/"+strconv.Itoa(r.IntN(20)), true
		}
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", w.port, path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		requests.Add(1)
		if resp.StatusCode == http.StatusNotFound && mayMiss {
			notFound.Add(1)
			continue
		}
		if err != nil || resp.StatusCode != 200 || string(body) != "ok" {
			t.Errorf("%s: %d %q %v", path, resp.StatusCode, body, err)
			return
		}
		a, b, c := resp.Header.Get("X-Saw-Filter"), resp.Header.Get("X-Saw-Attempt"), resp.Header.Get("X-Response-Filter")
		if a == "" || a != b || b != c {
			t.Errorf("%s saw several snapshots: request filter %q, attempt %q, response filter %q", path, a, b, c)
			return
		}
	}
}

// testLog fails the test for whatever the data plane finds worth a line: nothing here is.
type testLog struct{ t *testing.T }

func (l testLog) Write(line []byte) (int, error) {
	l.t.Errorf("logged: %s", line)
	return len(line), nil
}

func waitForGoroutines(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before+2 {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
}
