package nethttp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/wiretest"
)

// forward is the least that a proxy does between engine and transport.
type forward struct{ transport message.Transport }

func (f forward) Serve(ex *message.Exchange) {
	at := &message.Attempt{Exchange: ex, Request: ex.Request}
	at.Request.Header = ex.Request.Header.Share()
	ex.State = at
	if err := f.transport.RoundTrip(ex.Context(), at); err != nil {
		var known *message.Error
		errors.As(err, &known)
		ex.Response = wiretest.Text(known.Reason.Status(), "")
		ex.Response.Reason, ex.Response.Detail = known.Reason, err.Error()
		return
	}
	ex.Response = at.Response
}

func (f forward) Done(ex *message.Exchange) {
	if at, ok := ex.State.(*message.Attempt); ok && at.Join != nil {
		ex.Request.Body.Abort(nil)
		at.Join()
	}
}

// through starts client → engine → transport → origin.
func through(t testing.TB, protocol message.Protocol, origin http.Handler) (string, func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: origin, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(protocol == message.ProtocolHTTP1)
	srv.Protocols.SetUnencryptedHTTP2(protocol == message.ProtocolH2C)
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	tr := nethttp.NewTransport(message.ConnKey{Endpoint: netip.MustParseAddrPort(l.Addr().String()), Protocol: protocol}, message.TransportOptions{
		ConnectTimeout: time.Second, IdleTimeout: time.Minute, MaxIdle: 128, MaxHeadBytes: 64 << 10, MaxInformations: 16,
	})
	t.Cleanup(tr.Retire)
	limits := wiretest.Limits()
	limits.MaxBodyBytes = 0
	addr, _ := wiretest.Listen(t, nethttp.New(), forward{tr}, limits)
	return addr, tr.Retire
}

func client(t testing.TB, h2 bool) *http.Client {
	rt := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols), MaxIdleConnsPerHost: 100}
	rt.Protocols.SetHTTP1(!h2)
	rt.Protocols.SetUnencryptedHTTP2(h2)
	t.Cleanup(rt.CloseIdleConnections)
	return &http.Client{Transport: rt, Timeout: 20 * time.Second}
}

func TestWhatGoesThroughComesOutUnchanged(t *testing.T) {
	for _, protocol := range []message.Protocol{message.ProtocolHTTP1, message.ProtocolH2C} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("h2 %v to %s", h2, protocol), func(t *testing.T) {
				wiretest.NothingLeaks(t, func(t *testing.T) { t.Run("", func(t *testing.T) { echo(t, protocol, h2) }) })
			})
		}
	}
}

// echo sends bodies of many sizes through, and has the origin send them back while they come.
func echo(t *testing.T, protocol message.Protocol, h2 bool) {
	addr, _ := through(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Content-Type", "x")
		w.Header().Set("Trailer", "X-Sum")
		sum := sha256.New()
		buf := make([]byte, 5000)
		for {
			n, err := r.Body.Read(buf)
			sum.Write(buf[:n])
			w.Write(buf[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			w.(http.Flusher).Flush()
		}
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sum.Sum(nil)))
	}))
	c := client(t, h2)
	for _, size := range []int{0, 1, 100, 4096, 16 << 10, 16<<10 + 1, 100_000, 3_000_000} {
		for _, chunked := range []bool{false, true} {
			content := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			var body io.Reader = bytes.NewReader(content)
			if chunked {
				body = io.MultiReader(body)
			}
			res, err := c.Post("http://"+addr+"/", "x", body)
			if err != nil {
				t.Fatalf("%d bytes, chunked %v: %v", size, chunked, err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || !bytes.Equal(got, content) || res.Trailer.Get("X-Sum") != fmt.Sprintf("%x", sha256.Sum256(content)) {
				t.Errorf("%d bytes, chunked %v: got %d, %v, trailer %v", size, chunked, len(got), err, res.Trailer)
			}
		}
	}
}

func TestAClientThatLeavesEndsTheRequestAtTheBackend(t *testing.T) {
	wiretest.NothingLeaks(t, func(t *testing.T) {
		t.Run("", func(t *testing.T) {
			for _, protocol := range []message.Protocol{message.ProtocolHTTP1, message.ProtocolH2C} {
				entered, ended := make(chan struct{}, 1), make(chan struct{}, 1)
				addr, _ := through(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/stream" {
						w.(http.Flusher).Flush()
					}
					entered <- struct{}{}
					<-r.Context().Done()
					ended <- struct{}{}
				}))
				for _, path := range []string{"/silent", "/stream"} {
					for _, h2 := range []bool{false, true} {
						ctx, cancel := context.WithCancel(context.Background())
						req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+addr+path, nil)
						done := make(chan struct{})
						go func() {
							defer close(done)
							if res, err := client(t, h2).Do(req); err == nil {
								io.Copy(io.Discard, res.Body)
								res.Body.Close()
							}
						}()
						<-entered
						cancel()
						select {
						case <-ended:
						case <-time.After(10 * time.Second):
							t.Errorf("%s %s: the backend was never told", protocol, path)
						}
						<-done
					}
				}
			}
		})
	})
}

func TestAnAnswerDuringAnUploadIsHeardThroughTheGateway(t *testing.T) {
	wiretest.NothingLeaks(t, func(t *testing.T) {
		t.Run("", func(t *testing.T) {
			for _, protocol := range []message.Protocol{message.ProtocolHTTP1, message.ProtocolH2C} {
				addr, _ := through(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					http.NewResponseController(w).EnableFullDuplex()
					io.ReadFull(r.Body, make([]byte, 1000))
					w.WriteHeader(413)
				}))
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				nc.SetDeadline(time.Now().Add(10 * time.Second))
				io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"+strings.Repeat("x", 2000))
				res, err := http.ReadResponse(bufio.NewReader(nc), nil)
				if err != nil || res.StatusCode != 413 {
					t.Errorf("%s: %v %v", protocol, res, err)
				}
				nc.Close()
			}
		})
	})
}

// BenchmarkThrough is a small GET on kept connections: client, engine, transport and origin in one process, so that three quarters of
// what it shows are not ours. Bare is the same without engine and transport.
func BenchmarkThrough(b *testing.B) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() { // an origin that allocates nothing
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				buf := make([]byte, 4096)
				for {
					n, err := nc.Read(buf)
					if err != nil {
						return
					}
					if bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						nc.Write(answer)
					}
				}
			}()
		}
	}()
	tr := nethttp.NewTransport(message.ConnKey{Endpoint: netip.MustParseAddrPort(l.Addr().String())}, message.TransportOptions{
		ConnectTimeout: time.Second, IdleTimeout: time.Minute, MaxIdle: 128, MaxHeadBytes: 64 << 10, MaxInformations: 16,
	})
	defer tr.Retire()
	limits := wiretest.Limits()
	limits.IdleTimeout = time.Minute
	through, _ := wiretest.Listen(b, nethttp.New(), forward{tr}, limits)
	alone, _ := wiretest.Listen(b, nethttp.New(), wiretestFixed{}, limits)
	for name, addr := range map[string]string{"bare": l.Addr().String(), "engine": alone, "engine+transport": through} {
		b.Run(name, func(b *testing.B) { get(b, addr) })
	}
}

// wiretestFixed answers at once.
type wiretestFixed struct{}

func (wiretestFixed) Serve(ex *message.Exchange) { ex.Response = wiretest.Text(200, "hello") }
func (wiretestFixed) Done(*message.Exchange)     {}

// get asks again and again on one connection, and allocates nothing itself.
func get(b *testing.B, addr string) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	request := []byte("GET /a/b?c=d HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n" +
		"Accept-Language: en\r\nCookie: session=0123456789abcdef\r\nX-Request-Id: 0123456789\r\n\r\n")
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		nc.Write(request)
		for n := 0; !bytes.HasSuffix(buf[:n], []byte("hello")); {
			m, err := nc.Read(buf[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += m
		}
	}
}
