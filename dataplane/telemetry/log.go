package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	flushEvery = time.Second // a line is not held back for longer
	flushBytes = 64 << 10    // nor when so much is waiting
	keptLine   = 16 << 10    // the memory of longer lines is not used again
)

// accessLog writes lines by one goroutine, from a bounded queue. Nil logs nothing.
type accessLog struct {
	style   lineStyle
	metrics *metrics
	errors  *slog.Logger
	to      io.Writer

	queue chan *[]byte
	lines sync.Pool // of *[]byte
	stop  chan struct{}
	once  sync.Once
	done  chan struct{} // closed when the writer has ended
}

func newAccessLog(o Options, m *metrics) *accessLog {
	if o.LogQueue == 0 {
		o.LogQueue = 4096
	}
	if o.MaxField == 0 {
		o.MaxField = 2048
	}
	l := &accessLog{
		style: lineStyle{maxField: o.MaxField, hideQuery: o.HideQuery}, metrics: m, errors: o.Errors, to: o.Log,
		queue: make(chan *[]byte, o.LogQueue), stop: make(chan struct{}), done: make(chan struct{}),
	}
	l.lines.New = func() any { b := make([]byte, 0, 1024); return &b }
	go l.run()
	return l
}

// write encodes the line and hands it to the writer, or drops it.
func (l *accessLog) write(d *ending) {
	if l == nil {
		return
	}
	line := l.lines.Get().(*[]byte)
	*line = l.style.append((*line)[:0], d)
	select {
	case l.queue <- line:
	default:
		l.metrics.logDropped.Inc()
		l.giveBack(line)
	}
}

func (l *accessLog) giveBack(line *[]byte) {
	if cap(*line) <= keptLine {
		l.lines.Put(line)
	}
}

// run collects lines, and writes them when there is enough, when nothing more waits for a while, and at the end.
func (l *accessLog) run() {
	defer close(l.done)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	var held bytes.Buffer
	lines := 0
	take := func(line *[]byte) {
		held.Write(*line)
		lines++
		l.giveBack(line)
		if held.Len() >= flushBytes {
			l.flush(&held, &lines)
		}
	}
	for {
		select {
		case line := <-l.queue:
			take(line)
		case <-tick.C:
			l.flush(&held, &lines)
		case <-l.stop:
			for {
				select {
				case line := <-l.queue:
					take(line)
				default:
					l.flush(&held, &lines)
					return
				}
			}
		}
	}
}

func (l *accessLog) flush(held *bytes.Buffer, lines *int) {
	if *lines == 0 {
		return
	}
	if _, err := l.to.Write(held.Bytes()); err != nil {
		l.metrics.logDropped.Add(float64(*lines))
		l.errors.Error("the access log cannot be written", "lines", *lines, "error", err)
	} else {
		l.metrics.logLines.Add(float64(*lines))
	}
	held.Reset()
	*lines = 0
}

// close writes what waits. Lines of exchanges that end later are lost.
func (l *accessLog) close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.once.Do(func() { close(l.stop) })
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
