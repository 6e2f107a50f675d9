package dataplane

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// async runs work off the way of a request: bounded, and refused when full, so that a slow store or mirror cannot pile up memory.
type async struct {
	slots   chan struct{}
	wg      sync.WaitGroup
	refused atomic.Int64
	panics  func(value any, stack []byte)
}

// asyncLimit is how many pieces of work are under way at once.
const asyncLimit = 1024

func newAsync(panics func(any, []byte)) *async {
	return &async{slots: make(chan struct{}, asyncLimit), panics: panics}
}

// run starts the work, or reports false when there is too much already.
func (a *async) run(work func()) bool {
	select {
	case a.slots <- struct{}{}:
	default:
		a.refused.Add(1)
		return false
	}
	a.wg.Add(1)
	go func() {
		defer a.wg.Done()
		defer func() { <-a.slots }()
		defer func() {
			if p := recover(); p != nil {
				a.panics(p, debug.Stack())
			}
		}()
		work()
	}()
	return true
}

// wait returns when all work has ended, or ctx has: a copy to a mirror is not what a process stays for.
func (a *async) wait(ctx context.Context) {
	done := make(chan struct{})
	go func() { a.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
