package proxy

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// mirror is a backend that gets copies of a share of a rule's requests. Its answers are read and dropped. A mirror never slows the
// request: without a body the copy leaves beside it, with one it leaves when the exchange is over, if the body was held whole
// (Settings.RetryBodyBytes); otherwise it is dropped and counted. Copies keep their credentials: the route's owner named the backend,
// and the grant of its namespace's owner stood for it.
type mirror struct {
	backend     message.Backend
	numerator   uint32
	denominator uint32
	dropped     filter.Counter // copies that could not be sent
}

// mirrorTimeout bounds a copy's life.
const mirrorTimeout = 30 * time.Second

// chosen draws whether this request is copied.
func (m *mirror) chosen() bool {
	return m.numerator >= m.denominator || rand.Uint32N(m.denominator) < m.numerator
}

// startMirrors draws for each mirror, and sends the copies that need no body.
func (l *life) startMirrors() {
	for i := range l.rule.mirrors {
		m := &l.rule.mirrors[i]
		if !m.chosen() {
			continue
		}
		if l.ex.Request.Body != nil {
			l.mirror = append(l.mirror, m)
			continue
		}
		l.send(m, nil)
	}
}

// mirrorBodies sends the copies that waited for the body, from Done.
func (l *life) mirrorBodies() {
	if len(l.mirror) == 0 {
		return
	}
	content, ok := l.ex.Request.Body.Held()
	if ok {
		content = bytes.Clone(content)
	}
	for _, m := range l.mirror {
		if !ok {
			m.dropped.Add(1)
			continue
		}
		l.send(m, content)
	}
}

// send makes one copy, on memory of its own.
func (l *life) send(m *mirror, content []byte) {
	fork, ok := l.ex.Fork()
	async := l.p.options.Async
	if !ok || async == nil {
		m.dropped.Add(1)
		return
	}
	fork.WithParent(context.Background()) // the copy outlives the request
	fork.Request.Upgrade, fork.Request.ExpectContinue = "", false
	fork.Request.Body = message.BodyOf(content)
	sent := async(func() {
		ctx, cancel := context.WithTimeout(context.Background(), mirrorTimeout)
		defer cancel()
		at := &message.Attempt{Exchange: fork, Request: fork.Request}
		if err := m.backend.Do(ctx, at); err != nil {
			return
		}
		drain(ctx, at)
	})
	if !sent {
		m.dropped.Add(1)
	}
}

// drain reads an answer to its end, so that its connection can serve again, but not beyond ctx: it may never end.
func drain(ctx context.Context, at *message.Attempt) {
	var err error
	if b := at.Response.Body; b != nil {
		stop := context.AfterFunc(ctx, func() { b.Abort(ctx.Err()) })
		for err == nil {
			_, err = b.Next()
		}
		stop()
	}
	at.Response.Drop(nil)
	if err == io.EOF {
		err = nil
	}
	if at.Join != nil {
		at.Join()
	}
	if at.Finished != nil {
		at.Finished(err)
	}
}
