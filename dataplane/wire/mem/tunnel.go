package mem

import (
	"io"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Pipe returns the two ends of a tunnel in memory.
func Pipe() (a, b message.Tunnel) {
	ar, bw := io.Pipe()
	br, aw := io.Pipe()
	return &end{ar, aw}, &end{br, bw}
}

type end struct {
	r *io.PipeReader
	w *io.PipeWriter
}

func (e *end) Read(p []byte) (int, error)  { return e.r.Read(p) }
func (e *end) Write(p []byte) (int, error) { return e.w.Write(p) }
func (e *end) CloseWrite() error           { return e.w.Close() }
func (e *end) Close() error {
	e.r.CloseWithError(io.ErrClosedPipe)
	return e.w.Close()
}

// tunnel runs a 101: the client's side on a goroutine of its own.
func (r *Runner) tunnel(res *message.Response) {
	if r.ex.Request.Upgrade == "" {
		res.Tunnel(nil)
		r.ex.Response = failure(message.ReasonInternal, "a tunnel that the client had not asked for")
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
