package nethttp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// clientTunnel is a client's connection after 101. What the client sent behind its request comes first.
type clientTunnel struct {
	net.Conn
	c     *conn
	early *bufio.Reader // nil once it is empty
}

func (t *clientTunnel) Read(p []byte) (int, error) {
	if t.early != nil {
		if n := t.early.Buffered(); n > 0 {
			return t.early.Read(p[:min(len(p), n)])
		}
		t.early = nil
	}
	return t.Conn.Read(p)
}

func (t *clientTunnel) CloseWrite() error { return t.c.CloseWrite() }
func (t *clientTunnel) Close() error      { return t.c.kill() }

// spliceWith returns the Tunnel of a 101 on l. If it is never run, the connection ends with the exchange.
func spliceWith(l *link, ex *message.Exchange) func(message.Tunnel) message.Outcome {
	var run atomic.Bool
	forget := func() bool { return true }
	if ex != nil {
		forget = context.AfterFunc(ex.Context(), func() {
			if !run.Load() {
				l.Close()
			}
		})
	}
	return func(client message.Tunnel) message.Outcome {
		run.Store(true)
		forget()
		defer l.Close()
		if client == nil {
			return message.Outcome{}
		}
		return splice(client, &backendTunnel{l})
	}
}

// backendTunnel is a backend's connection after 101. What it sent behind the 101 comes first.
type backendTunnel struct{ *link }

func (t *backendTunnel) Read(p []byte) (int, error) {
	if t.r < t.w {
		n := copy(p, t.in[t.r:t.w])
		t.r += n
		return n, nil
	}
	return t.Conn.Read(p)
}

func (t *backendTunnel) CloseWrite() error {
	if cw, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// splice copies both ways until both are done: the end of one direction is passed on, an error ends both.
func splice(client, backend message.Tunnel) message.Outcome {
	var out message.Outcome
	up := make(chan error, 1)
	go func() {
		var err error
		out.BytesIn, err = pour(backend, client)
		if err != nil {
			client.Close()
			backend.Close()
		}
		up <- err
	}()
	var down error
	out.BytesOut, down = pour(client, backend)
	if down != nil {
		client.Close()
		backend.Close()
	}
	if err := <-up; err != nil {
		out.Reason, out.Err = message.ReasonClientLeft, err
	} else if down != nil {
		out.Reason, out.Err = message.ReasonUpstreamReset, down
	}
	client.Close()
	backend.Close()
	return out
}

// pour copies one direction, and passes its end on.
func pour(to, from message.Tunnel) (int64, error) {
	buf := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(buf)
	var n int64
	for {
		r, err := from.Read(buf[:])
		if r > 0 {
			w, err := to.Write(buf[:r])
			n += int64(w)
			if err != nil {
				return n, err
			}
		}
		if err == io.EOF {
			if to.CloseWrite() != nil {
				to.Close()
			}
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
