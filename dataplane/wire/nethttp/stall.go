package nethttp

import (
	"net/http"
	"sync"
	"time"
)

// stall ends an HTTP/2 stream on which a write makes no progress, since its client never opens the window. The write deadline that
// net/http has for that is no use: it ends a stream on which nothing is written, too, and an answer may be silent for as long as its
// source is (server-sent events, gRPC).
type stall struct {
	mu    sync.Mutex // guards what follows
	w     http.ResponseWriter
	until time.Time // zero: nothing is being written
	over  bool      // a write took too long

	timer *time.Timer
}

// begin is called before a write that may take d, end behind it.
func (s *stall) begin(w http.ResponseWriter, d time.Duration) {
	s.mu.Lock()
	s.w, s.until = w, time.Now().Add(d)
	s.mu.Unlock()
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.fire)
	} else {
		s.timer.Reset(d)
	}
}

func (s *stall) end() {
	s.timer.Stop()
	s.mu.Lock()
	s.w, s.until = nil, time.Time{}
	s.mu.Unlock()
}

// fire looks at the time again: it may have been meant for the write before.
func (s *stall) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.IsZero() && !time.Now().Before(s.until) {
		s.over = true
		http.NewResponseController(s.w).SetWriteDeadline(time.Unix(1, 0))
	}
}

// stalled reports whether a write took too long, and makes s ready for the next exchange.
func (s *stall) stalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := s.over
	s.over = false
	return over
}
