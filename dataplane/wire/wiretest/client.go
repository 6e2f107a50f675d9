package wiretest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Engine is what Run tests: a way to open an engine and to be its client.
type Engine struct {
	Name string
	// Open returns a client of an engine that calls h. What it opens, it closes in t's Cleanup.
	Open func(t testing.TB, h message.Handler, limits message.Limits) Client

	NoTunnel   bool // the protocol has no upgrade
	NoExpect   bool // the client of the suite cannot hold its body back
	NoOrder    bool // order of fields is lost
	NoHead     bool // nothing is written as bytes: no raw targets
	NoAbsolute bool // the protocol has no absolute-form
}

// Client is one client's side of a connection, or of several.
type Client interface {
	Do(t testing.TB, r *Request) *Answer
}

// Request is what a client sends.
type Request struct {
	Method  string // "" GET
	Host    string // "" example.com
	Target  string // "" /
	Header  []string
	Body    []string // in pieces
	Chunked bool     // the length is not announced
	Trailer []string
	Expect  bool // hold the body back until 100 Continue or an answer
	Upgrade string

	Hold  <-chan struct{} // wait for it before the last piece of the body
	Leave <-chan struct{} // go away when it is closed
	// LeaveAfter makes the client go away after so many bytes of the answer's body.
	LeaveAfter int
	// Tunnel is the client's side of a tunnel.
	Tunnel func(rw io.ReadWriter, closeWrite func() error)
}

func (r *Request) method() string { return or(r.Method, "GET") }
func (r *Request) host() string   { return or(r.Host, "example.com") }
func (r *Request) target() string { return or(r.Target, "/") }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Answer is what the client got.
type Answer struct {
	Status    int // 0: none
	Header    http.Header
	Length    int64
	Body      string
	Trailer   http.Header
	Informed  []int
	Continued bool
	Broken    bool // the answer broke off
	Close     bool // the server announced the end of the connection
}

// Listen serves connections to loopback with the engine until t ends, and returns its address and server.
func Listen(t testing.TB, e message.Engine, h message.Handler, limits message.Limits) (string, message.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := e.Open(h, limits)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			remote, _ := netip.ParseAddrPort(nc.RemoteAddr().String())
			local, _ := netip.ParseAddrPort(nc.LocalAddr().String())
			srv.Serve(nc, &message.Conn{Remote: remote, Local: local, Opened: time.Now()})
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		srv.Close()
	})
	return l.Addr().String(), srv
}

// OverHTTP1 tests an engine by HTTP/1.1 on sockets of the suite's own making.
func OverHTTP1(name string, e message.Engine) Engine {
	return Engine{Name: name + "/http1", Open: func(t testing.TB, h message.Handler, limits message.Limits) Client {
		addr, _ := Listen(t, e, h, limits)
		c := &client1{addr: addr}
		t.Cleanup(c.close)
		return c
	}}
}

// client1 speaks HTTP/1.1; it keeps one connection as long as the server does.
type client1 struct {
	addr string
	nc   net.Conn
	br   *bufio.Reader
}

func (c *client1) close() {
	if c.nc != nil {
		c.nc.Close()
		c.nc = nil
	}
}

func (c *client1) Do(t testing.TB, r *Request) *Answer {
	t.Helper()
	if c.nc == nil {
		nc, err := net.Dial("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		c.nc, c.br = nc, bufio.NewReader(nc)
	}
	nc := c.nc
	nc.SetDeadline(time.Now().Add(patience))
	a := &Answer{}
	left := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-r.Leave:
			nc.Close()
		case <-left:
		}
	}()
	sent := make(chan error, 1)
	goOn := make(chan bool, 1)
	go func() { sent <- c.send(nc, r, goOn) }()
	c.receive(r, a, goOn)
	select {
	case goOn <- false:
	default:
	}
	if a.Close || a.Broken || a.Status == 0 {
		nc.Close()
	}
	err := <-sent
	close(left)
	<-stopped
	if err != nil || a.Close || a.Broken || a.Status == 0 {
		c.close()
	}
	return a
}

func (c *client1) send(nc net.Conn, r *Request, goOn <-chan bool) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method(), r.target(), r.host())
	for _, l := range r.Header {
		b.WriteString(l + "\r\n")
	}
	if r.Upgrade != "" {
		fmt.Fprintf(&b, "Connection: Upgrade\r\nUpgrade: %s\r\n", r.Upgrade)
	}
	if r.Expect {
		b.WriteString("Expect: 100-continue\r\n")
	}
	length := 0
	for _, p := range r.Body {
		length += len(p)
	}
	if r.Chunked {
		b.WriteString("Transfer-Encoding: chunked\r\n")
	} else if length > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", length)
	}
	b.WriteString("\r\n")
	if r.Expect {
		if _, err := nc.Write(b.Bytes()); err != nil {
			return err
		}
		b.Reset()
		if !<-goOn {
			return errors.New("the body was not wanted")
		}
	}
	for i, p := range r.Body {
		if i == len(r.Body)-1 && r.Hold != nil {
			if _, err := nc.Write(b.Bytes()); err != nil {
				return err
			}
			b.Reset()
			select {
			case <-r.Hold:
			case <-goOn:
				return errors.New("answered before the body was sent")
			}
		}
		if r.Chunked {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
		} else {
			b.WriteString(p)
		}
	}
	if r.Chunked {
		b.WriteString("0\r\n")
		for _, l := range r.Trailer {
			b.WriteString(l + "\r\n")
		}
		b.WriteString("\r\n")
	}
	_, err := nc.Write(b.Bytes())
	return err
}

func (c *client1) receive(r *Request, a *Answer, goOn chan<- bool) {
	for {
		res, err := http.ReadResponse(c.br, &http.Request{Method: r.method()})
		if err != nil {
			return
		}
		switch {
		case res.StatusCode == 100:
			a.Continued = true
			goOn <- true
			continue
		case res.StatusCode == 101:
			a.Status, a.Header, a.Close = 101, res.Header, true
			if r.Tunnel != nil {
				r.Tunnel(struct {
					io.Reader
					io.Writer
				}{c.br, c.nc}, c.nc.(*net.TCPConn).CloseWrite)
			}
			return
		case res.StatusCode < 200:
			a.Informed = append(a.Informed, res.StatusCode)
			continue
		}
		a.take(res, r.LeaveAfter)
		return
	}
}

// take reads the answer's body.
func (a *Answer) take(res *http.Response, leaveAfter int) {
	a.Status, a.Header, a.Length, a.Close = res.StatusCode, res.Header, res.ContentLength, a.Close || res.Close
	var body io.Reader = res.Body
	if leaveAfter > 0 {
		body = io.LimitReader(body, int64(leaveAfter))
		a.Close = true // and no Close of the body, which would read on
	} else {
		defer res.Body.Close()
	}
	content, err := io.ReadAll(body)
	a.Body, a.Trailer = string(content), res.Trailer
	if err != nil {
		a.Broken = true
	}
}

// OverH2C tests an engine by HTTP/2 with prior knowledge, by the client of net/http.
func OverH2C(name string, e message.Engine) Engine {
	return Engine{Name: name + "/h2c", NoTunnel: true, NoOrder: true, NoAbsolute: true,
		Open: func(t testing.TB, h message.Handler, limits message.Limits) Client {
			addr, _ := Listen(t, e, h, limits)
			rt := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols), ExpectContinueTimeout: patience}
			rt.Protocols.SetUnencryptedHTTP2(true)
			t.Cleanup(rt.CloseIdleConnections)
			return &client2{addr, rt}
		}}
}

type client2 struct {
	addr string
	rt   *http.Transport
}

func (c *client2) Do(t testing.TB, r *Request) *Answer {
	t.Helper()
	a := &Answer{}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-r.Leave:
			cancel()
		case <-stop:
		}
	}()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got100Continue: func() { a.Continued = true },
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if code != 100 {
				a.Informed = append(a.Informed, code)
			}
			return nil
		},
	})
	req := (&http.Request{
		Method: r.method(), URL: &url.URL{Scheme: "http", Host: c.addr, Opaque: r.target()}, Host: r.host(),
		Header: http.Header{"User-Agent": nil}, Trailer: http.Header{},
	}).WithContext(ctx)
	for _, l := range r.Header {
		name, value, _ := strings.Cut(l, ": ")
		req.Header.Add(name, value)
	}
	if r.Expect {
		req.Header.Set("Expect", "100-continue")
	}
	for _, l := range r.Trailer {
		name, value, _ := strings.Cut(l, ": ")
		req.Trailer.Add(name, value)
	}
	if len(r.Body) > 0 {
		req.Body = &held{rest: slices.Clone(r.Body), hold: r.Hold, gone: ctx.Done(), closed: make(chan struct{})}
		req.ContentLength = -1
		if !r.Chunked {
			req.ContentLength = int64(len(strings.Join(r.Body, "")))
		}
	}
	res, err := c.rt.RoundTrip(req)
	if err != nil {
		return a
	}
	a.take(res, r.LeaveAfter)
	return a
}

// held is a body whose last piece waits.
type held struct {
	rest []string
	hold <-chan struct{}
	gone <-chan struct{}

	closed chan struct{}
	once   sync.Once
}

func (h *held) Read(p []byte) (int, error) {
	if len(h.rest) == 0 {
		return 0, io.EOF
	}
	if len(h.rest) == 1 && h.hold != nil {
		select {
		case <-h.hold:
		case <-h.gone:
			return 0, io.ErrUnexpectedEOF
		case <-h.closed:
			return 0, io.ErrClosedPipe
		}
		h.hold = nil
	}
	n := copy(p, h.rest[0])
	if h.rest[0] = h.rest[0][n:]; h.rest[0] == "" {
		h.rest = h.rest[1:]
	}
	return n, nil
}

func (h *held) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}
