package wiretest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// vanishing: the connection is cut behind each byte of an answer.
func vanishing(t *testing.T, b backend) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	head := strings.Index(answer, "hello")
	var cut atomic.Int32
	for _, reset := range []bool{false, true} {
		addr := b.script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
			if _, err := readRequest(br); err != nil {
				return
			}
			io.WriteString(nc, answer[:cut.Load()])
			if reset && cut.Load() == 0 {
				socket(nc).SetLinger(0)
			}
		})
		tr := b.transport(t, addr)
		for n := range len(answer) {
			cut.Store(int32(n))
			at := attempt("GET", "/", nil)
			got, err := try(t, tr, at)
			reason := message.ReasonUpstreamReset
			if n >= head {
				reason = message.ReasonResponseTruncated
			}
			want(t, err, reason)
			if n >= head && got != answer[head:n] || at.Sent != message.SentHead {
				t.Errorf("cut at %d: %q, sent %d", n, got, at.Sent)
			}
		}
	}
}

func badAnswers(t *testing.T, b backend) {
	for _, c := range []struct{ name, bytes string }{
		{"both Content-Length and Transfer-Encoding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"two Content-Lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"},
		{"a Content-Length that is none", "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello"},
		{"a negative Content-Length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"},
		{"another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
		{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"a folded line", "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n"},
		{"a bare line feed", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"},
		{"a NUL", "HTTP/1.1 200 OK\r\nX-A: b\x00\r\nContent-Length: 0\r\n\r\n"},
		{"a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"},
		{"no status", "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"},
		{"a status that is none", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n"},
		{"a status below 100", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"},
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n"},
		{"another version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"a head over the limit", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("b", 9<<10) + "\r\n\r\n"},
		{"a head without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: b\r\n", 2000)},
		{"an unasked 101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"a bad chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5x\r\nhello\r\n0\r\n\r\n"},
		{"a chunk longer than its size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"},
		{"a bare line feed behind a size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"},
		{"a trailer that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX A: b\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hold := make(chan struct{})
			addr := b.script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
				if _, err := readRequest(br); err != nil {
					return
				}
				io.WriteString(nc, c.bytes)
				if _, err := br.Peek(1); err == nil {
					t.Error("the connection was used again")
				}
				close(hold)
			})
			_, err := try(t, b.transport(t, addr), attempt("GET", "/", nil))
			want(t, err, message.ReasonUpstreamProtocol)
			<-hold
		})
	}
}

// leftovers: bytes that nobody asked for never answer somebody else's request (threats 6).
func leftovers(t *testing.T, b backend) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for _, c := range []struct{ name, method, first string }{
		{"behind the body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil},
		{"behind the last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + evil},
		{"behind 204", "GET", "HTTP/1.1 204 No Content\r\n\r\n" + evil},
		{"behind 304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n" + evil},
		{"behind HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + evil},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, late %v", c.name, late), func(t *testing.T) {
				sent := make(chan struct{})
				addr := b.script(t, func(n int, nc net.Conn, br *bufio.Reader) {
					for {
						r, err := readRequest(br)
						if err != nil {
							return
						}
						if n > 0 {
							fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(r.RequestURI), r.RequestURI)
							continue
						}
						if !late {
							io.WriteString(nc, c.first)
							continue
						}
						io.WriteString(nc, strings.TrimSuffix(c.first, evil))
						io.WriteString(nc, evil)
						close(sent)
					}
				})
				tr := b.transport(t, addr)
				if _, err := try(t, tr, attempt(c.method, "/0", nil)); err != nil {
					t.Fatal(err)
				}
				if late {
					<-sent
				}
				for i := range 3 {
					target := fmt.Sprintf("/%d", i+1)
					if got, err := try(t, tr, attempt("GET", target, nil)); err != nil || got != target {
						t.Errorf("request %d got %q, %v", i+1, got, err)
					}
				}
			})
		}
	}
	t.Run("an idle connection that the backend closes", func(t *testing.T) {
		closed := make(chan struct{}, 10)
		addr := b.script(t, func(n int, nc net.Conn, br *bufio.Reader) {
			if _, err := readRequest(br); err != nil {
				return
			}
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			nc.Close()
			closed <- struct{}{}
		})
		tr := b.transport(t, addr)
		for range 5 {
			at := attempt("POST", "/", nil)
			if got, err := try(t, tr, at); err != nil || got != "ok" || at.Reused {
				t.Errorf("%q, %v, reused %v", got, err, at.Reused)
			}
			<-closed
		}
	})
	t.Run("a body until the connection ends", func(t *testing.T) {
		addr := b.script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
			readRequest(br)
			io.WriteString(nc, "HTTP/1.0 200 OK\r\n\r\nhello")
		})
		tr := b.transport(t, addr)
		for range 2 {
			at := attempt("GET", "/", nil)
			if got, err := try(t, tr, at); got != "hello" || err != nil || at.Reused {
				t.Errorf("%q, %v", got, err)
			}
		}
	})
}

// spliced: both directions, bytes that came early, half-closed ends, and a backend that refuses.
func spliced(t *testing.T, b backend) {
	addr := b.script(t, func(n int, nc net.Conn, br *bufio.Reader) {
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
				io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
				return
			}
			if r.URL.Path == "/no" {
				io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
				continue
			}
			io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nX-A: 1\r\n\r\nwelcome ")
			io.Copy(struct{ io.Writer }{nc}, br) // not by splice, whose pipes outlive the test
			nc.(interface{ CloseWrite() error }).CloseWrite()
			return
		}
	})
	tr := b.transport(t, addr)
	at := attempt("GET", "/no", nil)
	at.Request.Upgrade = "websocket"
	if got, err := try(t, tr, at); got != "no" || err != nil {
		t.Errorf("a refusal: %q, %v", got, err)
	}

	at = attempt("GET", "/", nil)
	at.Request.Upgrade = "websocket"
	if err := tr.RoundTrip(context.Background(), at); err != nil {
		t.Fatal(err)
	}
	res := at.Response
	if res.Status != 101 || res.Upgrade != "websocket" || res.Tunnel == nil || res.Header.Get("X-A") != "1" || !at.Reused {
		t.Fatalf("answer %+v", res)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := dial(t, l.Addr().String())
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan message.Outcome, 1)
	go func() { out <- res.Tunnel(ours.(*net.TCPConn)) }()
	io.WriteString(client, "hello")
	client.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(client); string(got) != "welcome hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if o := <-out; o.BytesIn != 5 || o.BytesOut != 13 || o.Reason != 0 {
		t.Errorf("outcome %+v", o)
	}

	// A tunnel that nobody runs ends with its exchange, or when it is told so.
	for _, told := range []bool{true, false} {
		at = attempt("GET", "/", nil)
		at.Request.Upgrade = "websocket"
		if err := tr.RoundTrip(context.Background(), at); err != nil {
			t.Fatal(err)
		}
		if told {
			at.Response.Tunnel(nil)
		}
		at.Exchange.Cancel(context.Canceled)
	}
}
