package mem_test

import (
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
