package nethttp

import (
	"context"
	"time"
)

// idleGrace is how long an idle HTTP/1 connection may wait for the answer that tells its client to leave: a client that is busy sends
// a request within it, and is spared a connection that closes under it.
const idleGrace = 5 * time.Second

// Shutdown tells clients to leave and waits for them: HTTP/2 by GOAWAY, HTTP/1 by Connection: close on the next answer. Idle HTTP/1
// connections are closed after a quarter of the time that ctx leaves, at most five seconds.
func (s *server) Shutdown(ctx context.Context) error {
	grace := idleGrace
	if deadline, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(deadline)/4)
	}
	s.leave()
	go s.h2.Shutdown(ctx) // GOAWAY now; we wait by our own count, which knows tunnels too

	timer := time.NewTimer(grace)
	defer timer.Stop()
	late := false
	for s.open() > 0 {
		select {
		case <-timer.C:
			late = true
		case <-s.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
		if late {
			s.closeIdle()
			timer.Reset(50 * time.Millisecond) // those that have become idle meanwhile
		}
	}
	s.Close()
	return nil
}

// leave marks every connection, those to come too.
func (s *server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	for c := range s.conns {
		c.info.Leave()
	}
}

func (s *server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// closeIdle ends HTTP/1 connections on which nothing is under way. They are woken by their read deadline and close themselves: a
// request that has arrived meanwhile is still read.
func (s *server) closeIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.idle.Load() {
			c.last.Store(true)
			c.Conn.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// Close ends every connection at once.
func (s *server) Close() {
	s.mu.Lock()
	s.closed = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.kill()
	}
	s.h1.Close()
	s.h2.Close()
}
