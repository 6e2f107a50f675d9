package mem

import (
	"io"
	"sync"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// pipeSize is what one direction of a Pipe holds, in bytes, before a writer waits: as with sockets, both sides may write first.
const pipeSize = 64 << 10

// Pipe returns the two ends of a tunnel in memory.
func Pipe() (a, b message.Tunnel) {
	x, y := newFlow(), newFlow()
	return &end{x, y}, &end{y, x}
}

type end struct{ in, out *flow }

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *end) CloseWrite() error {
	e.out.close(io.EOF)
	return nil
}

func (e *end) Close() error {
	e.out.close(io.EOF)
	e.in.close(io.ErrClosedPipe)
	return nil
}

// flow is one direction.
type flow struct {
	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	held    []byte
	end     error // io.EOF: its writer is done; io.ErrClosedPipe: its reader has gone
}

func newFlow() *flow {
	f := &flow{}
	f.changed = sync.NewCond(&f.mu)
	return f
}

func (f *flow) read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.held) == 0 && f.end == nil {
		f.changed.Wait()
	}
	if len(f.held) == 0 || f.end == io.ErrClosedPipe {
		return 0, f.end
	}
	n := copy(p, f.held)
	f.held = f.held[n:]
	f.changed.Broadcast()
	return n, nil
}

func (f *flow) write(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(p) > 0 {
		for len(f.held) >= pipeSize && f.end == nil {
			f.changed.Wait()
		}
		if f.end != nil {
			return n, io.ErrClosedPipe
		}
		m := min(len(p), pipeSize-len(f.held))
		f.held = append(f.held, p[:m]...)
		n, p = n+m, p[m:]
		f.changed.Broadcast()
	}
	return n, nil
}

func (f *flow) close(end error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end != io.ErrClosedPipe {
		f.end = end
	}
	f.changed.Broadcast()
}

// tunnel runs a 101: the client's side on a goroutine of its own.
func (r *Runner) tunnel(res *message.Response) {
	if r.ex.Request.Upgrade == "" {
		res.Tunnel(nil)
		r.ex.Response = message.Failure(message.ReasonInternal, "a tunnel that the client had not asked for")
		r.respond()
		return
	}
	r.res.Status, r.res.Header = res.Status, &res.Header
	ours, theirs := Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		if r.req.Tunnel != nil {
			r.req.Tunnel(theirs)
		}
	}()
	defer func() {
		ours.Close()
		<-done
	}()
	r.ex.Outcome = res.Tunnel(ours)
}
