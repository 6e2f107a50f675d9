package wiretest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// RunBytes tests an engine by bytes on sockets: what no well-behaved client sends, what comes too slowly, and how connections end.
func RunBytes(t *testing.T, name string, e message.Engine) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, message.Engine)
	}{
		{"WhatFramesAmbiguouslyIsRefused", framing},
		{"ABadBodyEndsItsConnection", badBodies},
		{"RequestsOnOneConnectionStayApart", pipelines},
		{"ConnectionNamesNobodyAway", named},
		{"SlowClientsAreCut", slow},
		{"HTTP2IsRefusedByFrame", frames},
		{"DrainingAnswersWhatComes", draining},
		{"GOAWAYLetsStreamsEnd", goaway},
	} {
		t.Run(name+"/"+part.name, func(t *testing.T) {
			NothingLeaks(t, func(t *testing.T) { t.Run("", func(t *testing.T) { part.run(t, e) }) })
		})
	}
}

// dial connects, for the length of t.
func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { nc.Close() })
	return nc
}

// framing: each is answered and the connection closed; nothing reaches Serve, and Done hears of it.
func framing(t *testing.T, e message.Engine) {
	const host = "Host: example.com\r\n"
	for _, c := range []struct {
		name, bytes string
		reason      message.Reason
	}{
		{"both Content-Length and Transfer-Encoding", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", message.ReasonBadFraming},
		{"a sign in Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nhello", message.ReasonBadFraming},
		{"a list in Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5, 6\r\n\r\nhello", message.ReasonBadFraming},
		{"an empty Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: \r\n\r\n", message.ReasonBadFraming},
		{"a Content-Length that overflows", "POST / HTTP/1.1\r\n" + host + "Content-Length: 9223372036854775813\r\n\r\n", message.ReasonBadFraming},
		{"two Content-Lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", message.ReasonBadFraming},
		{"the same Content-Length twice", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", message.ReasonBadFraming},
		{"a coding behind chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", message.ReasonBadFraming},
		{"chunked twice", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", message.ReasonBadFraming},
		{"a coding that nobody knows", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", message.ReasonBadFraming},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", message.ReasonBadFraming},
		{"a space before the colon", "GET / HTTP/1.1\r\n" + host + "X-A : b\r\n\r\n", message.ReasonBadHead},
		{"a folded line", "GET / HTTP/1.1\r\n" + host + "X-A: b\r\n c\r\n\r\n", message.ReasonBadHead},
		{"a bare line feed", "GET / HTTP/1.1\n" + host + "\r\n", message.ReasonBadHead},
		{"a bare line feed at the end", "GET / HTTP/1.1\r\n" + host + "\n", message.ReasonBadHead},
		{"a bare carriage return", "GET / HTTP/1.1\r\n" + host + "X-A: b\rc\r\n\r\n", message.ReasonBadHead},
		{"a NUL", "GET / HTTP/1.1\r\n" + host + "X-A: b\x00c\r\n\r\n", message.ReasonBadHead},
		{"a name that is no token", "GET / HTTP/1.1\r\n" + host + "X(A: b\r\n\r\n", message.ReasonBadHead},
		{"a line without a name", "GET / HTTP/1.1\r\n" + host + ": b\r\n\r\n", message.ReasonBadHead},
		{"HTTP/0.9", "GET /\r\n\r\n", message.ReasonBadHead},
		{"a version that is none", "GET / HTTP/1.7\r\n" + host + "\r\n", message.ReasonBadHead},
		{"two spaces in the request line", "GET  / HTTP/1.1\r\n" + host + "\r\n", message.ReasonBadHead},
		{"no host", "GET / HTTP/1.1\r\n\r\n", message.ReasonBadHost},
		{"no host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", message.ReasonBadHost},
		{"two hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", message.ReasonBadHost},
		{"an absolute target beside another host", "GET http://other.com/ HTTP/1.1\r\n" + host + "\r\n", message.ReasonBadHost},
		{"an escape that is none", "GET /%zz HTTP/1.1\r\n" + host + "\r\n", message.ReasonBadTarget},
		{"a raw byte above 127", "GET /\xc3\xbc HTTP/1.1\r\n" + host + "\r\n", message.ReasonBadTarget},
		{"CONNECT", "CONNECT example.com:443 HTTP/1.1\r\n" + host + "\r\n", message.ReasonBadMethod},
		{"a websocket with a body", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", message.ReasonBadUpgrade},
		{"a long request line", "GET /" + strings.Repeat("a", 20000) + " HTTP/1.1\r\n" + host + "\r\n", message.ReasonURITooLong},
		{"a long head", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X-A: "+strings.Repeat("b", 990)+"\r\n", 20) + "\r\n", message.ReasonHeadTooLarge},
		{"many fields", "GET / HTTP/1.1\r\n" + host + strings.Repeat("a: b\r\n", 500) + "\r\n", message.ReasonHeadTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			spy := NewSpy(nil)
			addr, _ := Listen(t, e, spy, Limits())
			nc := dial(t, addr)
			// A second request behind it, which must not be seen.
			nc.Write([]byte(c.bytes + "GET /smuggled HTTP/1.1\r\n" + host + "\r\n"))
			all, err := io.ReadAll(nc)
			if err != nil {
				t.Errorf("after %.60q: %v", all, err)
			}
			want := fmt.Sprintf("HTTP/1.1 %d ", c.reason.Status())
			if strings.HasSuffix(strings.SplitN(c.bytes, "\r\n", 2)[0], "HTTP/1.0") {
				want = fmt.Sprintf("HTTP/1.%d %d ", all[min(7, len(all)-1)]-'0', c.reason.Status())
			}
			if !bytes.HasPrefix(all, []byte(want)) || bytes.Count(all, []byte("HTTP/1.")) != 1 {
				t.Errorf("answer %q, want %s once", all, want)
			}
			end := spy.Ends(t, 1)[0]
			if end.Served || end.Reason != c.reason || spy.Served() != 0 {
				t.Errorf("end %+v, served %d; want %s", end, spy.Served(), c.reason)
			}
		})
	}
}

// badBodies: the reader of the body learns of it, and the connection is not used again.
func badBodies(t *testing.T, e message.Engine) {
	for _, c := range []struct{ name, body string }{
		{"a bare line feed", "2;\nxx\r\n0\r\n\r\n"},
		{"a space behind the size", "5 \r\nhello\r\n0\r\n\r\n"},
		{"a prefix", "0x5\r\nhello\r\n0\r\n\r\n"},
		{"data longer than the size", "5\r\nhelloX\r\n0\r\n\r\n"},
		{"a size that overflows", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"},
		{"no size", "\r\nhello\r\n0\r\n\r\n"},
		{"a bare line feed in the trailer", "5\r\nhello\r\n0\r\nX-A: b\n\r\n"},
		{"a trailer that is none", "5\r\nhello\r\n0\r\nX A: b\r\n\r\n"},
		{"long extensions", strings.Repeat("1;"+strings.Repeat("e", 2048)+"\r\nx\r\n", 64) + "0\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spy := NewSpy(func(ex *message.Exchange) {
				_, err := ReadAll(ex.Request.Body)
				var known *message.Error
				if !errors.As(err, &known) || known.Reason != message.ReasonBadFraming {
					t.Errorf("the body ended with %v", err)
					known = &message.Error{Reason: message.ReasonInternal}
				}
				ex.Response = Text(known.Reason.Status(), "no")
				ex.Response.Reason = known.Reason
			})
			addr, _ := Listen(t, e, spy, Limits())
			nc := dial(t, addr)
			nc.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + c.body + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
			all, _ := io.ReadAll(nc)
			if !bytes.HasPrefix(all, []byte("HTTP/1.1 400 ")) || bytes.Count(all, []byte("HTTP/1.1")) != 1 {
				t.Errorf("answer %q", all)
			}
			if end := spy.Ends(t, 1)[0]; end.Reason != message.ReasonBadFraming {
				t.Errorf("end %+v", end)
			}
		})
	}
}

// pipelines: several requests in one write, with bodies, are answered in order, each with its own.
func pipelines(t *testing.T, e message.Engine) {
	spy := NewSpy(func(ex *message.Exchange) {
		content, err := ReadAll(ex.Request.Body)
		if err != nil {
			t.Error(err)
		}
		ex.Response = Text(200, ex.Request.Target.Path+"="+content)
	})
	addr, _ := Listen(t, e, spy, Limits())
	nc := dial(t, addr)
	var all, want bytes.Buffer
	for i := range 50 {
		body := strings.Repeat("x", i*137%4000)
		switch i % 3 {
		case 0:
			fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
			body = ""
		case 1:
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body)
		default:
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x;ext=1\r\n%s\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n", i, len(body)+1, body+"?")
			body += "?!"
		}
		fmt.Fprintf(&want, "/%d=%s\n", i, body)
	}
	sent := make(chan error, 1)
	go func() {
		// In pieces of odd size, so that heads and chunks are torn apart.
		for b := all.Bytes(); len(b) > 0; {
			n := min(len(b), 611)
			if _, err := nc.Write(b[:n]); err != nil {
				sent <- err
				return
			}
			b = b[n:]
		}
		sent <- nil
	}()
	br := bufio.NewReader(nc)
	var got bytes.Buffer
	for range 50 {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		got.Write(append(content, '\n'))
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if got.String() != want.String() {
		t.Errorf("got\n%.2000s\nwant\n%.2000s", got.String(), want.String())
	}
	spy.Ends(t, 50)
}

// named: what Connection names goes, but not what says who the client is.
func named(t *testing.T, e message.Engine) {
	var got string
	spy := NewSpy(func(ex *message.Exchange) {
		got = Dump(ex)
		ex.Response = Text(200, "ok")
	})
	addr, _ := Listen(t, e, spy, Limits())
	nc := dial(t, addr)
	nc.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nconnection: x-forwarded-for, host, X-Own,  x-real-ip ,authorization\r\nCONNECTION: close\r\n" +
		"X-Forwarded-For: 1.1.1.1\r\nx-own: 2\r\nX-Real-Ip: 3\r\nAuthorization: b\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nX-Kept: 1\r\n\r\n"))
	all, _ := io.ReadAll(nc)
	spy.Ends(t, 1)
	const want = "GET http://a[a:0] / path=/\nauthorization: b\nx-forwarded-for: 1.1.1.1\nx-kept: 1\nx-real-ip: 3\n"
	if got != want || !bytes.HasPrefix(all, []byte("HTTP/1.1 200 ")) {
		t.Errorf("seen\n%swant\n%sanswer %q", got, want, all)
	}
}

// slow: every wait for a client has an end.
func slow(t *testing.T, e message.Engine) {
	lim := Limits()
	lim.HeadTimeout, lim.IdleTimeout, lim.BodyTimeout, lim.WriteTimeout = 150*time.Millisecond, 200*time.Millisecond, 150*time.Millisecond, 150*time.Millisecond
	for _, c := range []struct {
		name, bytes string
		answer      string
		reason      message.Reason // of the last exchange; none: none is refused
		ends        int
	}{
		{"silence from the start", "", "", 0, 0},
		{"half a head", "GET / HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 408 ", message.ReasonHeadTimeout, 1},
		{"half a second head", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHo", "HTTP/1.1 200 ", message.ReasonHeadTimeout, 2},
		{"silence behind an answer", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", 0, 1},
		{"half the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM", "", 0, 0},
		{"the preface of HTTP/2 and half a head", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x20\x01\x00", "\x00", 0, 0},
		{"half a body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1 408 ", message.ReasonBodyTimeout, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			spy := NewSpy(func(ex *message.Exchange) {
				_, err := ReadAll(ex.Request.Body)
				var known *message.Error
				if errors.As(err, &known) {
					ex.Response = Text(known.Reason.Status(), "")
					ex.Response.Reason = known.Reason
					return
				}
				ex.Response = Text(200, "ok")
			})
			addr, _ := Listen(t, e, spy, lim)
			nc := dial(t, addr)
			io.WriteString(nc, c.bytes)
			start := time.Now()
			all, err := io.ReadAll(nc)
			if err != nil || time.Since(start) > 5*time.Second {
				t.Errorf("%v after %v: %q", err, time.Since(start), all)
			}
			if !strings.HasPrefix(string(all), c.answer) || c.answer == "" && len(all) > 0 {
				t.Errorf("answer %q, want %q", all, c.answer)
			}
			ends := spy.Ends(t, c.ends)
			if c.ends > 0 && ends[c.ends-1].Reason != c.reason {
				t.Errorf("ends %+v, want %s", ends, c.reason)
			}
		})
	}
	t.Run("a client that does not read", func(t *testing.T) {
		t.Parallel()
		spy := NewSpy(func(ex *message.Exchange) {
			ex.Response = &message.Response{Status: 200, Length: -1, Body: message.NewBody(endless{}, -1, nil)}
		})
		addr, _ := Listen(t, e, spy, lim)
		nc := dial(t, addr)
		io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if end := spy.Ends(t, 1)[0]; end.Outcome.Reason != message.ReasonWriteTimeout || !errors.Is(end.Outcome.Err, os.ErrDeadlineExceeded) {
			t.Errorf("end %+v", end)
		}
	})
	t.Run("a client of HTTP/2 that opens no window", func(t *testing.T) {
		t.Parallel()
		spy := NewSpy(func(ex *message.Exchange) {
			ex.Response = &message.Response{Status: 200, Length: -1, Body: message.NewBody(endless{}, -1, nil)}
		})
		addr, _ := Listen(t, e, spy, lim)
		f := newFramer(t, dial(t, addr))
		f.head(1, true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")
		go func() {
			for { // answers pings, but never opens the window
				fr, err := f.ReadFrame()
				if err != nil {
					return
				}
				if p, ok := fr.(*http2.PingFrame); ok && !p.IsAck() {
					f.WritePing(true, p.Data)
				}
			}
		}()
		if end := spy.Ends(t, 1)[0]; end.Outcome.Reason != message.ReasonWriteTimeout {
			t.Errorf("end %+v", end)
		}
	})
}
