package members

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
)

// health is a replica's health port: it is ready, is not, or says nothing.
type health struct {
	*httptest.Server
	status atomic.Int32 // 0: says nothing
}

func newHealth(t *testing.T) *health {
	s := &health{}
	s.status.Store(200)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := int(s.status.Load())
		if r.URL.Path != "/readyz" {
			code = 404
		}
		if code == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestPeersAreThoseThatSayTheyAreReady(t *testing.T) {
	a, b, c := newHealth(t), newHealth(t), newHealth(t)
	var told []int64
	var last atomic.Int64
	p := &Peers{
		Addresses: []string{a.Listener.Addr().String(), b.Listener.Addr().String(), c.Listener.Addr().String()},
		Every:     30 * time.Millisecond, Log: testr.New(t),
		Told: func(n int) { told = append(told, int64(n)); last.Store(int64(n)) },
	}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	becomes := func(what string, want int64) {
		t.Helper()
		for until := time.Now().Add(10 * time.Second); last.Load() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%s: %d are live, want %d", what, last.Load(), want)
			}
		}
	}
	becomes("all are there", 3)
	b.status.Store(503)
	becomes("one drains", 2)
	b.status.Store(200)
	becomes("it is back", 3)
	c.status.Store(0)
	becomes("one hangs", 2)
	c.status.Store(200)
	becomes("it answers again", 3)
	c.Close()
	b.Close()
	becomes("two are gone", 1)
	a.status.Store(503)
	time.Sleep(100 * time.Millisecond)
	end()
	<-done
	if last.Load() != 1 || told[0] != 3 {
		t.Errorf("told %v: at first all, and never less than one", told)
	}
}
