package telemetry

import (
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Attempt is the record of one attempt: counted under its backend, and a span of its own. The zero value keeps nothing.
type Attempt struct {
	backend  *Backend
	at       *message.Attempt
	span     trace.Span
	started  time.Time
	answered bool
	over     bool
}

// Begin opens the record of an attempt, after an endpoint was chosen (or could not be) and before the transport is called. With traces
// it sets traceparent and tracestate on the attempt's own head: nobody else writes them.
func (b *Backend) Begin(at *message.Attempt) Attempt {
	if b == nil {
		return Attempt{}
	}
	b.inFlight.Inc()
	return Attempt{backend: b, at: at, started: b.t.now(), span: b.t.traces.call(b.name, at)}
}

// Answered is called when the head of the answer is there, or with what failed. Only the first call counts.
func (a *Attempt) Answered(err error) {
	if a.backend == nil || a.answered {
		return
	}
	a.answered = true
	b := a.backend
	b.results.at(result(a.at, err)).Inc()
	b.duration.observe(b.t.now().Sub(a.started))
	if a.at.Replays > 0 {
		b.replays.Add(float64(a.at.Replays))
	}
	if a.span != nil {
		b.t.traces.answered(a.span, a.at, err)
	}
}

// Finished is called when the attempt is over: the body of its answer at its end, or given up because of err. Without an Answered
// before it, it is one.
func (a *Attempt) Finished(err error) {
	if a.backend == nil || a.over {
		return
	}
	a.Answered(err)
	a.over = true
	a.backend.inFlight.Dec()
	if a.span != nil {
		a.backend.t.traces.called(a.span, err)
	}
}

// result is the class of the answer's status, or the word of the failure.
func result(at *message.Attempt, err error) string {
	if err != nil {
		return reasonOfError(err).String()
	}
	if at.Response == nil {
		return message.ReasonInternal.String()
	}
	return codeClass(at.Response.Status)
}

func reasonOfError(err error) message.Reason {
	var e *message.Error
	if errors.As(err, &e) && e.Reason != message.ReasonNone {
		return e.Reason
	}
	return message.ReasonInternal
}
