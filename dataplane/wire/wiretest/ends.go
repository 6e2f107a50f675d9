package wiretest

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// leaving: a client that goes away is noticed at each stage, and Done comes once.
func leaving(t *testing.T, e Engine) {
	leaves := func(name string, r Request, serve func(t *testing.T, ex *message.Exchange, leave func())) {
		t.Run(name, func(t *testing.T) {
			gone := make(chan struct{})
			spy := NewSpy(func(ex *message.Exchange) { serve(t, ex, func() { close(gone) }) })
			r.Leave = gone
			e.Open(t, spy, Limits()).Do(t, &r)
			if end := spy.Ends(t, 1)[0]; end.Outcome.Reason != message.ReasonClientLeft {
				t.Errorf("end %+v, want client_left", end)
			}
		})
	}
	ended := func(t *testing.T, ex *message.Exchange) {
		select {
		case <-ex.Context().Done():
		case <-time.After(patience):
			t.Error("nobody noticed that the client has left")
		}
	}
	leaves("while the handler works", Request{}, func(t *testing.T, ex *message.Exchange, leave func()) {
		leave()
		ended(t, ex)
		ex.Response = Text(200, "ok")
	})
	leaves("while its body is awaited", Request{Method: "POST", Body: []string{"hello", "never"}, Hold: make(chan struct{})},
		func(t *testing.T, ex *message.Exchange, leave func()) {
			if _, err := ex.Request.Body.Next(); err != nil && !e.NoHead {
				t.Error(err)
			}
			leave()
			for {
				_, err := ex.Request.Body.Next()
				if err == io.EOF && e.NoHead {
					ended(t, ex) // its body was there at once
					break
				}
				var known *message.Error
				if err != nil {
					if !errors.As(err, &known) || known.Reason != message.ReasonClientLeft {
						t.Errorf("the body ended with %v", err)
					}
					break
				}
			}
			ex.Response = Text(200, "ok")
		})
	leaves("with a body that nobody reads on, while the backend is silent", Request{Method: "POST", Body: []string{"hello", "never"}, Hold: make(chan struct{})},
		func(t *testing.T, ex *message.Exchange, leave func()) {
			ctx := ex.Context()
			if _, err := ex.Request.Body.Next(); err != nil && !e.NoHead {
				t.Error(err)
			}
			leave()
			select {
			case <-ctx.Done():
			case <-time.After(patience):
				t.Error("nobody noticed that the client has left")
			}
			ex.Response = Text(200, "ok")
		})
	leaves("while the answer is silent", Request{}, func(t *testing.T, ex *message.Exchange, leave func()) {
		leave()
		ex.Response = &message.Response{Status: 200, Length: -1, Body: message.NewBody(&Pieces{Rest: []string{"hel"}, Wait: make(chan struct{})}, -1, nil)}
	})
	t.Run("in the middle of an answer", func(t *testing.T) {
		endless := func() *message.Body { return message.NewBody(endless{}, -1, nil) }
		spy := NewSpy(func(ex *message.Exchange) { ex.Response = &message.Response{Status: 200, Length: -1, Body: endless()} })
		e.Open(t, spy, Limits()).Do(t, &Request{LeaveAfter: 100000})
		if end := spy.Ends(t, 1)[0]; end.Outcome.Reason != message.ReasonClientLeft || end.Outcome.BytesOut < 100000 {
			t.Errorf("end %+v, want client_left", end)
		}
	})
}

// endless is an answer that never stops.
type endless struct{}

func (endless) Next() ([]byte, error)    { return make([]byte, 10000), nil }
func (endless) More() bool               { return true }
func (endless) Trailer() *message.Header { return nil }
func (endless) Abort(error)              {}

// panics: of Serve, and of a source while it is pulled.
func panics(t *testing.T, e Engine) {
	first := true
	spy := NewSpy(func(ex *message.Exchange) {
		if first {
			first = false
			panic("oh")
		}
		ex.Response = Text(200, "ok")
	})
	c := e.Open(t, spy, Limits())
	if a := c.Do(t, &Request{}); a.Status != http.StatusInternalServerError {
		t.Errorf("answer %+v", a)
	}
	if end := spy.Ends(t, 1)[0]; end.Reason != message.ReasonPanic {
		t.Errorf("end %+v", end)
	}
	if a := c.Do(t, &Request{}); a.Status != 200 {
		t.Errorf("answer after a panic: %+v", a)
	}
	spy.Ends(t, 2)

	spy = NewSpy(func(ex *message.Exchange) {
		ex.Response = &message.Response{Status: 200, Length: -1, Body: message.NewBody(panicking{}, -1, nil)}
	})
	a := e.Open(t, spy, Limits()).Do(t, &Request{})
	if end := spy.Ends(t, 1)[0]; end.Outcome.Reason != message.ReasonPanic || a.Status == 200 && !a.Broken {
		t.Errorf("answer %+v, end %+v", a, end)
	}
}

type panicking struct{ endless }

func (panicking) Next() ([]byte, error) { panic("oh") }
