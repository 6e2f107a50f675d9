package scenarios

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
)

// wire is an engine with its transport: scenarios run on each.
type wire struct {
	name      string
	engine    func(*house) message.Engine
	transport func(*house) message.TransportFactory
}

var overNetHTTP = wire{
	"nethttp",
	func(*house) message.Engine { return nethttp.New() },
	func(*house) message.TransportFactory { return nethttp.NewTransport },
}

// patience is how long a client waits for what must come.
const patience = 20 * time.Second

// wires are those that scenarios run on.
var wires = []wire{overNetHTTP, inMemory}

// client sends a request so many times, by one connection as far as that stays open.
type client interface {
	send(r *request) (answer, error)
	close()
}

// open connects to where a Gateway's port is bound.
func (h *house) open(r *request) client {
	if e, ok := h.engine.(*memory); ok {
		return h.openMemory(e, r)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(h.port(r.gateway, r.port))))
	switch r.how {
	case "h2", "h2c":
		return newTwo(address, r)
	}
	return &one{address: address, secure: r.how == "tls", sni: r.sni}
}

// one is a client of HTTP/1.1 that sends what it is told, byte by byte.
type one struct {
	address string
	secure  bool
	sni     string
	conn    net.Conn
	r       *bufio.Reader
}

func (c *one) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *one) dial() error {
	if c.conn != nil {
		return nil
	}
	conn, err := net.DialTimeout("tcp", c.address, patience)
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(patience))
	if c.secure {
		conn = tls.Client(conn, &tls.Config{ServerName: c.sni, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	return nil
}

func (c *one) send(r *request) (answer, error) {
	if err := c.dial(); err != nil {
		return answer{}, err
	}
	c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, head(r)+r.body); err != nil {
		return answer{}, err
	}
	return c.receive(r.method)
}

// head is the request's head as it goes out. What frames the body is added unless the script says it.
func head(r *request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", r.method, r.target)
	has := map[string]bool{}
	for _, f := range r.fields {
		has[strings.ToLower(f.name)] = true
		fmt.Fprintf(&b, "%s: %s\r\n", f.name, f.value)
	}
	if !has["host"] {
		fmt.Fprintf(&b, "Host: %s\r\n", r.host())
	}
	if r.body != "" && !has["transfer-encoding"] && !has["content-length"] {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.body))
	}
	b.WriteString("\r\n")
	return b.String()
}

// receive reads one answer, and passes over 1xx ones.
func (c *one) receive(method string) (answer, error) {
	for {
		resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
		if err != nil {
			return answer{}, err
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if resp.Close {
			c.close()
		}
		return answerOf(resp, body), err
	}
}

func answerOf(resp *http.Response, body []byte) answer {
	lower := func(h http.Header) map[string][]string {
		m := map[string][]string{}
		for name, values := range h {
			m[strings.ToLower(name)] = values
		}
		return m
	}
	return answer{status: resp.StatusCode, header: lower(resp.Header), body: string(body), trailer: lower(resp.Trailer)}
}

// two is a client of HTTP/2.
type two struct {
	address   string
	transport *http.Transport
	scheme    string
}

func newTwo(address string, r *request) *two {
	t := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	if r.how == "h2c" {
		t.Protocols.SetUnencryptedHTTP2(true)
		return &two{address, t, "http"}
	}
	t.Protocols.SetHTTP2(true)
	t.TLSClientConfig = &tls.Config{ServerName: r.sni, InsecureSkipVerify: true}
	return &two{address, t, "https"}
}

func (c *two) close() { c.transport.CloseIdleConnections() }

func (c *two) send(r *request) (answer, error) {
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(r.body)
	}
	req, err := http.NewRequest(r.method, c.scheme+"://"+c.address+"/", body)
	if err != nil {
		return answer{}, err
	}
	req.URL = &url.URL{Scheme: c.scheme, Host: c.address, Opaque: r.target}
	req.Host = r.host()
	for _, f := range r.fields {
		if !strings.EqualFold(f.name, "Host") {
			req.Header.Add(f.name, f.value)
		}
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.ProtoMajor != 2 {
		return answer{}, fmt.Errorf("the answer came by %s", resp.Proto)
	}
	return answerOf(resp, text), err
}

// exchange sends raw bytes and reads answers until the other side closes, or says nothing more for a while; closed tells which.
func exchangeRaw(address string, text []string) (answers []answer, closed bool, err error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, false, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for _, piece := range text {
			if _, err := io.WriteString(conn, piece); err != nil {
				return // it was answered before; what it says counts
			}
		}
	}()
	var all bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			closed = !isTimeout(err)
			break
		}
		select {
		case <-sent:
			// Whoever does not close has answered by then.
			conn.SetReadDeadline(time.Now().Add(quiet))
		default:
		}
	}
	conn.Close()
	<-sent
	return split(all.Bytes()), closed, nil
}

// quiet is how long an open connection that has answered is listened to for more.
const quiet = 300 * time.Millisecond

// split reads answers one after the other; one that breaks off is the last.
func split(text []byte) (answers []answer) {
	r := bufio.NewReader(bytes.NewReader(text))
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: "GET"})
		if err != nil {
			return answers
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode >= 200 {
			answers = append(answers, answerOf(resp, body))
		}
		if err != nil {
			return answers
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// setNetworks sets a list of networks.
func setNetworks(f reflect.Value, text string) error {
	list, ok := f.Addr().Interface().(*[]netip.Prefix)
	if !ok {
		return fmt.Errorf("a %s cannot be set", f.Type())
	}
	for _, word := range strings.Fields(text) {
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return err
		}
		*list = append(*list, p)
	}
	return nil
}

// gatewayAddress is where the usual Gateway is bound.
func (h *house) gatewayAddress(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(h.port("default/gw", 80))))
}
