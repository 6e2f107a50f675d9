package mem_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/mem"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/wiretest"
)

func TestTheEngineKeepsTheContract(t *testing.T) {
	wiretest.Run(t, wiretest.Engine{Name: "mem", NoHead: true, Open: func(_ testing.TB, h message.Handler, limits message.Limits) wiretest.Client {
		return &client{mem.Runner{Handler: h, Limits: limits}}
	}})
}

type client struct{ runner mem.Runner }

func (c *client) Do(_ testing.TB, r *wiretest.Request) *wiretest.Answer {
	req := mem.Request{
		Method: r.Method, Host: r.Host, Target: r.Target, Header: wiretest.Fields(r.Header...), Upgrade: r.Upgrade,
		ExpectContinue: r.Expect, TETrailers: strings.Contains(strings.Join(r.Header, "\n"), "Te: trailers"),
		Leave: r.Leave, LeaveAfter: r.LeaveAfter,
	}
	for _, p := range r.Body {
		req.Content = append(req.Content, []byte(p))
	}
	if r.Chunked {
		req.Length = -1
	}
	if len(r.Trailer) > 0 {
		tail := wiretest.Fields(r.Trailer...)
		req.Trailer = &tail
	}
	if r.Tunnel != nil {
		req.Tunnel = func(t message.Tunnel) { r.Tunnel(struct{ io.ReadWriter }{t}, t.CloseWrite) }
	}
	res := c.runner.Do(&req)
	a := &wiretest.Answer{
		Status: res.Status, Header: http.Header{}, Length: res.Length, Body: string(res.Body), Trailer: http.Header{}, Continued: res.Continued, Broken: res.Broken,
	}
	for _, i := range res.Informed {
		a.Informed = append(a.Informed, i.Code)
	}
	for name, value := range res.Header.All() {
		if !message.Framing(name) {
			a.Header.Add(name, value)
		}
	}
	if res.Trailer != nil {
		for name, value := range res.Trailer.All() {
			a.Trailer.Add(name, value)
		}
	}
	return a
}

// plain answers with what is there, and nothing else.
type plain struct{ res message.Response }

func (p *plain) Serve(ex *message.Exchange) { ex.Response = &p.res }
func (p *plain) Done(*message.Exchange)     {}

func TestARunnerAllocatesNothingItself(t *testing.T) {
	runner := mem.Runner{Handler: &plain{message.Response{Status: 204, Length: -1}}}
	req := mem.Request{Header: wiretest.Fields("Accept: */*"), Content: [][]byte{[]byte("hello")}, Discard: true}
	runner.Do(&req)
	if n := testing.AllocsPerRun(100, func() { runner.Do(&req) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestBackendsAreFoundByKey(t *testing.T) {
	factory := mem.Factory(func(key message.ConnKey) mem.Upstream {
		if key.Protocol == message.ProtocolH2C {
			return nil
		}
		return mem.Reply(func(at *message.Attempt, body []byte) *message.Response {
			return wiretest.Text(200, at.Request.Method+" "+string(body))
		})
	})
	at := &message.Attempt{Request: message.Request{Method: "POST", Body: message.BodyOf([]byte("hello"))}}
	if err := factory(message.ConnKey{}, message.TransportOptions{}).RoundTrip(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if got, _ := wiretest.ReadAll(at.Response.Body); got != "POST hello" || at.Sent != message.SentBody {
		t.Errorf("%q, sent %d", got, at.Sent)
	}
	err := factory(message.ConnKey{Protocol: message.ProtocolH2C}, message.TransportOptions{}).RoundTrip(t.Context(), at)
	var known *message.Error
	if !errors.As(err, &known) || known.Reason != message.ReasonConnectFailed || at.Sent != message.SentNothing {
		t.Errorf("%v, sent %d", err, at.Sent)
	}
}
