package oidc

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// recent remembers values by key: the n that were used last at least, twice as many at most. When values grow old is for who asks.
type recent[K comparable, V any] struct {
	n int

	mu         sync.Mutex // guards what follows
	young, old map[K]V
}

func newRecent[K comparable, V any](n int) *recent[K, V] {
	return &recent[K, V]{n: n, young: map[K]V{}}
}

func (r *recent[K, V]) get(k K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.look(k)
}

// getOr is the value of k, or the one that create makes when there is none that is good. Create must not wait.
func (r *recent[K, V]) getOr(k K, good func(V) bool, create func() V) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.look(k)
	if !ok || !good(v) {
		v = create()
		r.put(k, v)
	}
	return v
}

// first notes k, and reports whether it was not there.
func (r *recent[K, V]) first(k K, v V) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.look(k); ok {
		return false
	}
	r.put(k, v)
	return true
}

func (r *recent[K, V]) set(k K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(k, v)
}

func (r *recent[K, V]) look(k K) (V, bool) {
	if v, ok := r.young[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	if ok {
		r.put(k, v)
	}
	return v, ok
}

func (r *recent[K, V]) put(k K, v V) {
	if _, there := r.young[k]; !there && len(r.young) >= r.n {
		r.old, r.young = r.young, make(map[K]V, r.n)
	}
	r.young[k] = v
}

// flight is work that one does and many wait for. It belongs to none of them: a client that leaves does not end it for the others.
type flight[V any] struct {
	done  chan struct{} // closed when what follows is set
	value V
	err   error
	ended time.Time
}

// fly begins the work, which has that long.
func fly[V any](limit time.Duration, now func() time.Time, work func(context.Context) (V, error)) *flight[V] {
	f := &flight[V]{done: make(chan struct{})}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		defer close(f.done)
		defer func() {
			if p := recover(); p != nil {
				f.err = fmt.Errorf("panic: %v", p)
			}
			f.ended = now()
		}()
		f.value, f.err = work(ctx)
	}()
	return f
}

// wait returns what became of it, or the error of ctx.
func (f *flight[V]) wait(ctx context.Context) (V, error) {
	select {
	case <-f.done:
		return f.value, f.err
	default:
	}
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// over reports whether it has ended; value, err and ended may then be read.
func (f *flight[V]) over() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}
