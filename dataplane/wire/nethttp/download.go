package nethttp

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// download is the body of an HTTP/1 answer as a Source. Pieces are parts of the connection's buffer, without a copy; the connection
// goes back to its pool when the end is pulled.
type download struct {
	c         *call
	l         *link
	keepAlive bool
	framing   bodyFraming
	left      int64 // of the body by length, or of a chunk
	where     where // of the body by chunks: atSize (its zero, atHead, too), inChunk, afterChunk
	big       *[pieceSize]byte
	err       error
	trailer   *message.Header

	mu    sync.Mutex // guards what Abort may meet
	over  bool       // the connection is no longer ours
	given error      // what Abort gave it up for
}

func (d *download) Next() ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	p, err := d.piece()
	if err == nil {
		return p, nil
	}
	if err == io.EOF {
		d.finish()
	} else {
		err = d.broke(err)
	}
	if d.big != nil {
		pieces.Put(d.big)
		d.big = nil
	}
	d.err = err
	return nil, err
}

func (d *download) piece() ([]byte, error) {
	switch d.framing {
	case byLength:
		if d.left == 0 {
			return nil, io.EOF
		}
		return d.data(io.ErrUnexpectedEOF)
	case byChunks:
		if err := d.toChunk(); err != nil {
			return nil, err
		}
		return d.data(io.ErrUnexpectedEOF)
	}
	d.left = 1 << 62
	return d.data(io.EOF)
}

// data returns a piece of at most left bytes; atEOF is what the end of the connection means.
func (d *download) data(atEOF error) ([]byte, error) {
	l := d.l
	if l.r == l.w && d.left > int64(len(l.in)) {
		if d.big == nil {
			d.big = pieces.Get().(*[pieceSize]byte)
		}
		for {
			n, err := l.Read(d.big[:min(pieceSize, d.left)])
			if n > 0 {
				return d.took(d.big[:n]), nil
			}
			if err == io.EOF {
				err = atEOF
			}
			if err != nil {
				return nil, err
			}
		}
	}
	if l.r == l.w {
		if err := l.fill(); err == io.EOF {
			return nil, atEOF
		} else if err != nil {
			return nil, err
		}
	}
	n := int(min(int64(l.w-l.r), d.left))
	p := l.in[l.r : l.r+n]
	l.r += n
	return d.took(p), nil
}

func (d *download) took(p []byte) []byte {
	if d.left -= int64(len(p)); d.left == 0 && d.framing == byChunks {
		d.where = afterChunk
	}
	return p
}

// toChunk goes on to the data of a chunk; io.EOF behind the last one and the trailer.
func (d *download) toChunk() error {
	for d.where != inChunk {
		line, err := d.line(maxChunkLine)
		if err != nil {
			return err
		}
		if d.where == afterChunk {
			if len(line) != 0 {
				return protocolError("a chunk is longer than its size")
			}
			d.where = atSize
			continue
		}
		n, ok := chunkSize(line)
		if !ok {
			return protocolError("a chunk without a size")
		}
		if n == 0 {
			return d.readTrailer()
		}
		d.where, d.left = inChunk, n
	}
	return nil
}

// line takes a line, without its end.
func (d *download) line(limit int) ([]byte, error) {
	e, err := d.l.end(0, limit)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	line := d.l.in[d.l.r:e]
	d.l.r = e
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, protocolError("a line ends without a carriage return")
	}
	return line[:len(line)-2], nil
}

// readTrailer reads trailer fields up to the empty line, and ends with io.EOF.
func (d *download) readTrailer() error {
	size := 0
	for {
		line, err := d.line(maxTrailer)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return io.EOF
		}
		if size += len(line); size > maxTrailer {
			return protocolError("the trailer is over the limit")
		}
		name, value, fault := field(string(line))
		if fault != "" {
			return protocolError(fault)
		}
		if !forbiddenTrailer(name) {
			if d.trailer == nil {
				d.trailer = &message.Header{}
			}
			d.trailer.Add(name, value)
		}
	}
}

// broke gives an error its reason and gives the connection up.
func (d *download) broke(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.close()
	var known *message.Error
	sendErr := d.c.sendErr.Load()
	switch {
	case d.given != nil:
		return d.given
	case sendErr != nil:
		return *sendErr // the client broke off its request
	case errors.As(err, &known):
		return err
	}
	return &message.Error{Reason: message.ReasonResponseTruncated, Err: err}
}

// finish gives the connection back when it is fit for another request: nothing unread, nothing unsent (threats 6).
func (d *download) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	if d.keepAlive && d.l.quiet() {
		d.over = true
		d.c.release()
		return
	}
	d.close()
}

func (d *download) close() {
	if !d.over {
		d.over = true
		d.l.Close()
	}
}

// More reports whether Next would not wait: with a piece, with the end, or with an error.
func (d *download) More() bool {
	if d.err != nil || d.l.r < d.l.w && d.framing != byChunks {
		return true
	}
	switch d.framing {
	case byLength:
		return d.left == 0
	case byChunks:
		return d.ready()
	}
	return false
}

// ready reports whether the buffer has what comes next of a chunked body, or its end.
func (d *download) ready() bool {
	b := d.l.in[d.l.r:d.l.w]
	switch d.where {
	case inChunk:
		return len(b) > 0
	case afterChunk:
		if len(b) < 2 {
			return false
		}
		b = b[2:]
	}
	i := bytes.IndexByte(b, '\n')
	if i < 1 {
		return i == 0
	}
	n, ok := chunkSize(b[:i-1])
	rest := b[i+1:]
	if !ok || n > 0 {
		return !ok || len(rest) > 0
	}
	return bytes.HasPrefix(rest, []byte("\r\n")) || bytes.Contains(rest, []byte("\r\n\r\n"))
}

func (d *download) Trailer() *message.Header { return d.trailer }

// Abort closes the connection; a blocked Next returns.
func (d *download) Abort(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	if err == nil {
		err = errGivenUp
	}
	d.given = bodyError(err)
	d.close()
}
