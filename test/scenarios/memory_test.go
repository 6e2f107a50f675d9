package scenarios

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/mem"
)

// inMemory is the engine without sockets on both sides: requests are given to the house as their parts, and the backends' handlers are
// called. TLS, raw bytes and streams are not of this wire.
var inMemory = wire{
	"mem",
	func(h *house) message.Engine { return &memory{opened: make(chan struct{})} },
	func(h *house) message.TransportFactory {
		return mem.Factory(func(key message.ConnKey) mem.Upstream {
			b, ok := h.byAddress.Load(key.Endpoint)
			if !ok || b.(*backend).server == nil {
				return nil
			}
			return b.(*backend).upstream(key.Protocol)
		})
	},
}

// memory is an engine that only keeps the handler: exchanges come from elsewhere.
type memory struct {
	once    sync.Once
	opened  chan struct{}
	handler message.Handler
	limits  message.Limits
}

func (e *memory) Open(h message.Handler, limits message.Limits) message.Server {
	e.once.Do(func() {
		e.handler, e.limits = h, limits
		close(e.opened)
	})
	return closed{}
}

// closed is a server that takes no connection.
type closed struct{}

func (closed) Serve(conn net.Conn, _ *message.Conn) { conn.Close() }
func (closed) Shutdown(context.Context) error       { return nil }
func (closed) Close()                               {}

// recall is a client of the in-memory engine.
type recall struct {
	runner mem.Runner
}

// openMemory knocks at the socket, since a data plane opens its engine with the first connection.
func (h *house) openMemory(e *memory, r *request) *recall {
	port := h.port(r.gateway, r.port)
	conn, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	receive(h.t, e.opened, "the engine to be opened")
	namespace, name, _ := strings.Cut(r.gateway, "/")
	return &recall{mem.Runner{Handler: e.handler, Limits: e.limits, Conn: &message.Conn{
		Socket: snapshot.SocketKey{Gateway: snapshot.Name{Namespace: namespace, Name: name}, Port: port},
		Remote: netip.MustParseAddrPort("127.0.0.1:40000"), Local: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
	}}}
}

func (c *recall) close() {}

func (c *recall) send(r *request) (answer, error) {
	req := mem.Request{Method: r.method, Host: r.host(), Target: r.target}
	if r.how == "h2c" {
		req.Version = message.HTTP2
	}
	for _, f := range r.fields {
		switch {
		case strings.EqualFold(f.name, "Upgrade"):
			req.Upgrade = f.value
		case !strings.EqualFold(f.name, "Host"):
			req.Header.Add(f.name, f.value)
		}
	}
	// What Connection names, an engine drops.
	for _, name := range strings.Split(req.Header.Get("Connection"), ",") {
		req.Header.Del(strings.TrimSpace(name))
	}
	if r.body != "" {
		req.Content = [][]byte{[]byte(r.body)}
	}
	resp := c.runner.Do(&req)
	if resp.Broken {
		return answer{}, errors.New("the answer broke off")
	}
	a := answer{status: resp.Status, header: map[string][]string{}, body: string(resp.Body)}
	for name, value := range resp.Header.All() {
		name = strings.ToLower(name)
		a.header[name] = append(a.header[name], value)
	}
	return a, nil
}

// upstream calls the backend's handler as a server would.
func (b *backend) upstream(protocol message.Protocol) mem.Upstream {
	return func(ctx context.Context, at *message.Attempt) error {
		var content []byte
		for at.Request.Body != nil {
			p, err := at.Request.Body.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return &message.Error{Reason: message.ReasonClientLeft, Err: err}
			}
			content = append(content, p...)
		}
		at.Sent = message.SentBody
		w := httptest.NewRecorder()
		if !b.serve(w, b.request(ctx, at, content, protocol)) {
			var known *message.Error
			if errors.As(context.Cause(ctx), &known) {
				return known
			}
			return &message.Error{Reason: message.ReasonUpstreamReset, Err: errors.New("no answer")}
		}
		at.Response = &message.Response{Status: w.Code, Body: message.BodyOf(w.Body.Bytes()), Length: -1}
		for name, values := range w.Result().Header {
			for _, v := range values {
				at.Response.Header.Add(name, v)
			}
		}
		return nil
	}
}

func (b *backend) request(ctx context.Context, at *message.Attempt, content []byte, protocol message.Protocol) *http.Request {
	r := &http.Request{
		Method: at.Request.Method, RequestURI: at.Request.Target.String(), Host: at.Request.Host.Raw, Proto: "HTTP/1.1",
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(content))),
	}
	if protocol == message.ProtocolH2C {
		r.Proto = "HTTP/2.0"
	}
	for name, value := range at.Request.Header.All() {
		r.Header.Add(name, value)
	}
	return r.WithContext(ctx)
}

// serve reports whether there was an answer.
func (b *backend) serve(w http.ResponseWriter, r *http.Request) (answered bool) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}()
	b.ServeHTTP(w, r)
	return r.Context().Err() == nil
}
