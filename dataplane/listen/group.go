package listen

import (
	"context"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// waves is in how many steps the connections of a group are told to leave.
const waves = 16

// group is the connections of one fate, and their server.
type group struct {
	fate   fate
	proof  string
	server message.Server

	entering sync.WaitGroup // connections that the server may not know yet; none is added once it is shut

	mu    sync.Mutex // guards what follows
	conns map[*conn]struct{}
	shut  bool // takes no more
}

func (g *group) add(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	g.entering.Add(1)
	c.group.Store(g)
	c.entering.Store(true)
	if c.gone.Load() {
		c.entered()
		return true
	}
	g.conns[c] = struct{}{}
	return true
}

func (g *group) remove(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// tell asks the connections of that wave to leave; −1 is all of them.
func (g *group) tell(wave int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		if wave < 0 || int(c.info.ID%waves) == wave {
			c.info.Leave()
		}
	}
}

// cut closes what is left.
func (g *group) cut() {
	g.server.Close()
	g.mu.Lock()
	left := make([]*conn, 0, len(g.conns))
	for c := range g.conns {
		left = append(left, c)
	}
	g.mu.Unlock()
	for _, c := range left {
		c.Close()
	}
}

// manner is how a group leaves.
type manner struct {
	spread time.Duration // over which its connections are told; 0: all at once
	first  time.Duration // from the last telling to closing idle ones
}

// dismiss makes a group leave; it takes no new connections of its socket from now on.
func (l *Listen) dismiss(g *group, how manner) {
	l.mu.Lock()
	l.leaving[g] = struct{}{}
	l.mu.Unlock()
	l.tasks.Go(func() {
		l.tellAll(g, how)
		l.end(g)
		l.mu.Lock()
		delete(l.leaving, g)
		l.mu.Unlock()
	})
}

func (l *Listen) tellAll(g *group, how manner) {
	for wave := range waves {
		if how.spread <= 0 || !l.wait(how.spread/waves) {
			break
		}
		g.tell(wave)
	}
	g.tell(-1)
	l.wait(how.first)
}

// end shuts the server down, and cuts what has not left in time.
func (l *Listen) end(g *group) {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
	g.entering.Wait() // a server that is shut down before it knows of a connection would close it without a word
	ctx := context.Background()
	if !l.wait(0) {
		ctx = l.final
	} else if d := l.options.DrainLeft; d > 0 {
		limited, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		ctx = limited
	}
	if g.server.Shutdown(ctx) != nil {
		g.cut()
	}
}
