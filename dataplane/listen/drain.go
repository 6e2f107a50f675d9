package listen

import (
	"context"
	"time"
)

// lastCalls is how long sockets still accept at the end.
const lastCalls = 50 * time.Millisecond

// Leave tells every connection, and each that comes, to end after its next answer. Sockets go on accepting: it is for the drain delay,
// in which others may not have noticed yet that this replica leaves.
func (l *Listen) Leave() {
	l.draining.Store(true)
	l.mu.Lock()
	for c := range l.shaking {
		c.info.Leave()
	}
	l.mu.Unlock()
	// Those that end their handshake meanwhile are in a group before they leave shaking.
	for _, g := range l.groups() {
		g.tell(-1)
	}
}

// groups are all, of sockets and leaving.
func (l *Listen) groups() (out []*group) {
	l.applying.Lock()
	for _, s := range l.sockets {
		s.mu.Lock()
		for _, g := range s.groups {
			out = append(out, g)
		}
		s.mu.Unlock()
	}
	l.applying.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for g := range l.leaving {
		out = append(out, g)
	}
	return out
}

// Shutdown ends everything: Leave; no more accepting; connections get Options.LeaveFirst to end by themselves, then idle ones are
// closed, and HTTP/2 clients get a GOAWAY; what is under way may finish until ctx ends, and is cut then. It returns ctx's error if
// anything had to be cut. Readiness and the drain delay come before it (cluster 2), and are the caller's. It is called once.
func (l *Listen) Shutdown(ctx context.Context) error {
	l.Leave()
	l.applying.Lock()
	l.closed = true
	if l.retry != nil {
		l.retry.Stop()
	}
	for _, s := range l.sockets {
		s.lastCall(lastCalls)
	}
	for _, s := range l.sockets {
		s.close()
	}
	l.applying.Unlock()

	l.linger(ctx)
	l.final = ctx
	close(l.hurry)
	l.applying.Lock()
	for _, s := range l.sockets {
		s.settle(nil)
	}
	clear(l.sockets)
	l.applying.Unlock()

	err := l.untilQuiet(ctx)
	if err != nil {
		l.cutAll()
	}
	l.tasks.Wait()
	return err
}

// linger gives connections time to end at an answer of theirs.
func (l *Listen) linger(ctx context.Context) {
	if l.options.LeaveFirst <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.options.LeaveFirst)
	defer cancel()
	l.untilQuiet(ctx)
}

// untilQuiet waits until there is no connection any more.
func (l *Listen) untilQuiet(ctx context.Context) error {
	for l.open.Load() > 0 {
		select {
		case <-l.quiet:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// cutAll closes every connection: those in a handshake first, as they would join a group. What joins one in this very moment is cut by
// the next look.
func (l *Listen) cutAll() {
	for l.open.Load() > 0 {
		l.mu.Lock()
		shaking := make([]*conn, 0, len(l.shaking))
		for c := range l.shaking {
			shaking = append(shaking, c)
		}
		l.mu.Unlock()
		for _, c := range shaking {
			c.Close()
		}
		for _, g := range l.groups() {
			g.cut()
		}
		t := time.NewTimer(10 * time.Millisecond)
		select {
		case <-l.quiet:
		case <-t.C:
		}
		t.Stop()
	}
}
