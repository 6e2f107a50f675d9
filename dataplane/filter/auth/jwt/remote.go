package jwt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/outbound"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// How keys of a URL are fetched.
const (
	MaxSetBytes = 1 << 20 // of a JWK Set

	// Keys are fresh as long as Cache-Control: max-age says, within these, or else freshUnsaid. After three quarters of it they are
	// fetched again, in the background.
	freshLeast, freshUnsaid, freshMost = time.Minute, 10 * time.Minute, 24 * time.Hour

	staleMost    = 24 * time.Hour   // after they were fresh, keys of an issuer that is down hold so much longer
	maxWait      = 2 * time.Second  // a request waits so long for a fetch
	fetchTimeout = 10 * time.Second // of a fetch
	renewEvery   = 10 * time.Second // for a token that names an unknown key, since the last fetch began

	backoffLeast, backoffMost = time.Second, time.Minute // between fetches that fail
)

// fetch gets the document: its bytes, and the fields of the answer.
type fetch func(ctx context.Context) (body []byte, header func(string) string, err error)

// remote is the keys that an issuer publishes at a URL. They are fetched when they are needed and not fresh, by one fetch at a time; what
// was fetched holds while the issuer is down. There is no goroutine and no timer of its own: keys that nobody asks for are not fetched.
type remote struct {
	clock func() time.Time
	now   atomic.Pointer[held]

	mu       sync.Mutex // guards what follows, and storing to now
	use      fetch      // by the newest snapshot's backend
	async    func(func()) bool
	count    func(result string)
	flight   chan struct{} // closed when the fetch under way has ended; nil: none is
	began    time.Time     // the last one
	failures int           // in a row
	notUntil time.Time     // after failures
	problem  error         // of the last one, nil when it succeeded
}

// held are keys and how long they hold. A fetch that brings the same bytes makes a new held of the same keys.
type held struct {
	keys                *keySet
	refresh, fresh, end time.Time
}

type remoteKey struct {
	url     string
	backend snapshot.BackendRef
}

// keptRemote returns the keys of that URL, which every policy shares that reaches it the same way, and has them fetched.
func keptRemote(k Keys, env filter.Env) (*remote, error) {
	caller, err := env.Call(k.Backend)
	if err != nil {
		return nil, fmt.Errorf("keys at %s: %w", k.URL, err)
	}
	client := outbound.Client(caller, outbound.Options{Timeout: fetchTimeout, MaxBytes: MaxSetBytes})
	get := func(ctx context.Context) ([]byte, func(string) string, error) {
		return outbound.Fetch(ctx, client, k.URL, MaxSetBytes)
	}
	fetched := map[string]filter.Counter{}
	if env.Counter != nil {
		for _, result := range []string{"ok", "failed"} {
			fetched[result] = env.Counter("jwks_fetches_total", "backend", k.Backend.String(), "result", result)
		}
	}
	r := keep.Get(env.Keep, remoteKey{k.URL, k.Backend}, func() *remote { return &remote{clock: env.Clock} })
	r.through(get, env.Async, func(result string) {
		if c := fetched[result]; c != nil {
			c.Add(1)
		}
	})
	return r, nil
}

// through makes fetches go by the newest snapshot's means, and begins one if keys are due.
func (r *remote) through(get fetch, async func(func()) bool, count func(string)) {
	r.mu.Lock()
	r.use, r.async, r.count = get, async, count
	start := func() {}
	if h := r.now.Load(); h == nil || !r.clock().Before(h.refresh) {
		start = r.begin()
	}
	r.mu.Unlock()
	start()
}

func (r *remote) current(ex *message.Exchange) (*keySet, error) {
	h, now := r.now.Load(), r.clock()
	if h != nil && now.Before(h.refresh) {
		return h.keys, nil
	}
	r.mu.Lock()
	start := r.begin()
	flight, left, down := r.flight, r.left(), r.failures > 0
	r.mu.Unlock()
	start()
	if h != nil && now.Before(h.fresh) {
		return h.keys, nil
	}
	// Keys that are no longer fresh may have been taken back: ask first. But nobody waits for an issuer that is down while there are keys.
	if flight != nil && !(down && h != nil && now.Before(h.end)) {
		wait(ex, flight, left)
	}
	if h = r.now.Load(); h != nil && now.Before(h.end) {
		return h.keys, nil
	}
	return nil, r.why()
}

func (r *remote) why() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.problem == nil {
		return errors.New("no answer yet")
	}
	return r.problem
}

func (r *remote) renewed(ex *message.Exchange, than *keySet) *keySet {
	start := func() {}
	r.mu.Lock()
	if r.keys() == than && r.clock().Sub(r.began) >= renewEvery {
		start = r.begin()
	}
	flight, left := r.flight, r.left()
	r.mu.Unlock()
	start()
	if flight != nil && r.keys() == than {
		wait(ex, flight, left)
	}
	if k := r.keys(); k != than {
		return k
	}
	return nil
}

func (r *remote) keys() *keySet {
	if h := r.now.Load(); h != nil {
		return h.keys
	}
	return nil
}

// left is how long a request waits for the fetch under way. Who comes late into one that takes long does not wait again. The lock is held.
func (r *remote) left() time.Duration { return maxWait - r.clock().Sub(r.began) }

// wait returns when the fetch has ended, the client has left, or it has taken too long.
func wait(ex *message.Exchange, flight <-chan struct{}, most time.Duration) {
	limit := time.NewTimer(most)
	defer limit.Stop()
	select {
	case <-flight:
	case <-limit.C:
	case <-ex.Context().Done():
	}
}

// begin returns what starts a fetch, to be called without the lock; nothing if one is under way, or failures say to wait. The lock is held.
func (r *remote) begin() (start func()) {
	now := r.clock()
	if r.flight != nil || now.Before(r.notUntil) {
		return func() {}
	}
	flight := make(chan struct{})
	r.flight, r.began = flight, now
	get, async := r.use, r.async
	return func() {
		if !async(func() { r.fetch(get, flight) }) {
			r.end(flight, nil, errors.New("too much is under way"))
		}
	}
}

func (r *remote) fetch(get fetch, flight chan struct{}) {
	var h *held
	err := errors.New("the fetch broke off")
	defer func() { r.end(flight, h, err) }()
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	body, header, err1 := get(ctx)
	if err = err1; err != nil {
		return
	}
	keys, err1 := parseSet(body, false)
	if err = err1; err != nil {
		return
	}
	fresh := freshness(header)
	now := r.clock()
	h = &held{keys: keys, refresh: now.Add(fresh * 3 / 4), fresh: now.Add(fresh), end: now.Add(fresh + staleMost)}
}

// end takes over what a fetch has brought.
func (r *remote) end(flight chan struct{}, h *held, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer close(flight)
	r.flight, r.problem = nil, err
	if err != nil {
		r.count("failed")
		r.notUntil = r.clock().Add(min(backoffLeast<<min(r.failures, 10), backoffMost))
		r.failures++
		return
	}
	r.count("ok")
	r.failures, r.notUntil = 0, time.Time{}
	if before := r.now.Load(); before != nil && before.keys.sum == h.keys.sum {
		h.keys = before.keys
	}
	r.now.Store(h)
}

// freshness is how long an answer holds (RFC 9111 5.2.2), within our bounds.
func freshness(header func(string) string) time.Duration {
	fresh := freshUnsaid
	for d := range strings.SplitSeq(header("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(d)), "=")
		switch name {
		case "no-store", "no-cache":
			return freshLeast
		case "max-age":
			if n, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 64); err == nil {
				fresh = time.Duration(min(max(n, 0), int64(freshMost/time.Second))) * time.Second
			}
		}
	}
	if age, err := strconv.ParseInt(header("Age"), 10, 64); err == nil && age > 0 {
		fresh -= time.Duration(min(age, int64(freshMost/time.Second))) * time.Second
	}
	return max(fresh, freshLeast)
}
