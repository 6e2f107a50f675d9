package wiretest

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Limits are those that the suite opens engines with.
func Limits() message.Limits {
	return message.Limits{
		HeadTimeout: patience, IdleTimeout: patience, BodyTimeout: patience, WriteTimeout: patience,
		MaxHeadBytes: 8 << 10, MaxFields: 40, MaxURIBytes: 1000, MaxBodyBytes: 1 << 20, MaxStreams: 100,
		MaxInform: 3, DrainBytes: 64 << 10, DrainDuration: 200 * time.Millisecond,
	}
}

// Run runs the whole suite on an engine.
func Run(t *testing.T, e Engine) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, Engine)
	}{
		{"FiltersSeeWhatWasSent", heads},
		{"WhatIsAmbiguousIsRefused", refusals},
		{"LimitsHoldToTheByte", limits},
		{"AnswersArriveAsTheyWereMade", answers},
		{"A1xxIsPassedOn", informations},
		{"TheFirstPullAsksForTheBody", expectations},
		{"AnEarlyAnswerIsHeard", early},
		{"ATunnelPassesBothEnds", tunnels},
		{"AClientMayLeaveAtAnyTime", leaving},
		{"APanicEndsOneExchange", panics},
	} {
		t.Run(e.Name+"/"+part.name, func(t *testing.T) {
			NothingLeaks(t, func(t *testing.T) { t.Run("", func(t *testing.T) { part.run(t, e) }) })
		})
	}
}

// heads: the exchange as filters see it.
func heads(t *testing.T, e Engine) {
	for _, c := range []struct {
		name string
		r    Request
		want string
	}{
		{"the plainest request", Request{},
			"GET http://example.com[example.com:0] / path=/\n"},
		{"fields, also twice and with odd names", Request{Header: []string{"X-A: 1", "x-b_c: 2", "X-A: 3", "X-Empty: "}},
			"GET http://example.com[example.com:0] / path=/\nx-a: 1\nx-a: 3\nx-b_c: 2\nx-empty: \n"},
		{"host in capitals, with dot and port", Request{Host: "ExAmple.COM.:8080"},
			"GET http://ExAmple.COM.:8080[example.com:8080] / path=/\n"},
		{"an IPv6 host", Request{Host: "[2001:DB8::1]:80"},
			"GET http://[2001:DB8::1]:80[2001:db8::1:80] / path=/\n"},
		{"a target that is normalised", Request{Target: "/%61//b/./c/../d%2c?x=%zz;y=%2F"},
			"GET http://example.com[example.com:0] /%61//b/./c/../d%2c?x=%zz;y=%2F path=/a/b/d%2C query=x=%zz;y=%2F\n"},
		{"a query that is empty", Request{Target: "/a?"},
			"GET http://example.com[example.com:0] /a? path=/a query=\n"},
		{"OPTIONS of the server", Request{Method: "OPTIONS", Target: "*"},
			"OPTIONS http://example.com[example.com:0] * path=*\n"},
		{"a method of its own", Request{Method: "PURGE"},
			"PURGE http://example.com[example.com:0] / path=/\n"},
		{"cookies in several lines", Request{Header: []string{"Cookie: a=1", "Cookie: b=2; c=3"}},
			"GET http://example.com[example.com:0] / path=/\ncookie: a=1; b=2; c=3\n"},
		{"a body in one piece", Request{Method: "POST", Body: []string{"hello"}},
			"POST http://example.com[example.com:0] / path=/\nbody 5 \"hello\"\n"},
		{"a body in pieces without a length", Request{Method: "POST", Body: []string{"hel", "lo"}, Chunked: true},
			"POST http://example.com[example.com:0] / path=/\nbody -1 \"hello\"\n"},
		{"a long body", Request{Method: "PUT", Body: []string{strings.Repeat("0123456789abcdef", 4096), strings.Repeat("x", 100000)}},
			"PUT http://example.com[example.com:0] / path=/\nbody 165536 \"01234567… (165536)\"\n"},
		{"trailers", Request{Method: "POST", Header: []string{"Trailer: X-Sum"}, Body: []string{"hello"}, Chunked: true,
			Trailer: []string{"X-Sum: 5"}},
			"POST http://example.com[example.com:0] / path=/\nbody -1 \"hello\"\ntrailer x-sum: 5\n"},
		{"trailers that must not stand there", Request{Method: "POST", Header: []string{"Trailer: X-Sum"}, Body: []string{"hello"}, Chunked: true,
			Trailer: []string{"X-Sum: 5", "Authorization: x"}},
			"POST http://example.com[example.com:0] / path=/\nbody -1 \"hello\"\ntrailer x-sum: 5\n"},
		{"TE: trailers", Request{Header: []string{"Te: trailers"}},
			"GET http://example.com[example.com:0] / path=/ te\n"},
	} {
		if c.name == "trailers that must not stand there" && (e.NoHead || e.NoAbsolute) {
			continue // HTTP/2 refuses the stream
		}
		t.Run(c.name, func(t *testing.T) {
			var got string
			spy := NewSpy(func(ex *message.Exchange) {
				got = Dump(ex)
				ex.Response = Text(200, "ok")
			})
			a := e.Open(t, spy, Limits()).Do(t, &c.r)
			end := spy.Ends(t, 1)[0]
			if a.Status != 200 || a.Body != "ok" {
				t.Errorf("answer %+v", a)
			}
			if got != c.want {
				t.Errorf("seen\n%swant\n%s", got, c.want)
			}
			if in := int64(len(strings.Join(c.r.Body, ""))); end.Outcome.BytesIn != in || end.Outcome.BytesOut != 2 || end.Outcome.Reason != 0 {
				t.Errorf("outcome %+v", end.Outcome)
			}
		})
	}
}

// refusals: nothing of these reaches Serve, all reach Done.
func refusals(t *testing.T, e Engine) {
	for _, c := range []struct {
		name   string
		r      Request
		reason message.Reason
		byte   bool // a matter of bytes
	}{
		{"a list of hosts", Request{Host: "a.com,b.com"}, message.ReasonBadHost, false},
		{"a port that is no number", Request{Host: "a:99x"}, message.ReasonBadHost, false},
		{"an IPv6 zone", Request{Host: "[::1%25eth0]"}, message.ReasonBadHost, false},
		{"a slash in escapes", Request{Target: "/a%2fb"}, message.ReasonBadTarget, false},
		{"a backslash in escapes", Request{Target: "/a%5Cb"}, message.ReasonBadTarget, false},
		{"a fragment", Request{Target: "/public#/../admin"}, message.ReasonBadTarget, false},
		{"a parameter on dots", Request{Target: "/a/..;/b"}, message.ReasonBadTarget, false},
		{"a climb above the root", Request{Target: "/../a"}, message.ReasonBadTarget, false},
		{"a double escape", Request{Target: "/%252e%252e/a"}, message.ReasonBadTarget, false},
		{"TRACE", Request{Method: "TRACE"}, message.ReasonBadMethod, false},
		{"an absolute target of another host", Request{Target: "http://other.com/"}, message.ReasonBadHost, true},
		{"an absolute target with userinfo", Request{Target: "http://u@example.com/"}, message.ReasonBadHost, true},
		{"an absolute target of another scheme", Request{Target: "ftp://example.com/"}, message.ReasonBadTarget, true},
		{"* without OPTIONS", Request{Target: "*"}, message.ReasonBadTarget, false},
	} {
		if c.byte && (e.NoHead || e.NoAbsolute) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			spy := NewSpy(nil)
			a := e.Open(t, spy, Limits()).Do(t, &c.r)
			end := spy.Ends(t, 1)[0]
			if a.Status != c.reason.Status() || end.Reason != c.reason || end.Status != c.reason.Status() || spy.Served() != 0 {
				t.Errorf("answer %d, end %+v, served %d; want %s", a.Status, end, spy.Served(), c.reason)
			}
		})
	}
}

// limits: one byte below, at, and one above.
func limits(t *testing.T, e Engine) {
	lim := Limits()
	type check struct {
		name   string
		r      Request
		reason message.Reason // none: served
		late   bool           // found while the body is read
	}
	body := func(n int64) []string { return []string{strings.Repeat("x", int(n))} }
	checks := []check{
		{"body −1", Request{Method: "POST", Body: body(lim.MaxBodyBytes - 1)}, 0, false},
		{"body", Request{Method: "POST", Body: body(lim.MaxBodyBytes)}, 0, false},
		{"body +1", Request{Method: "POST", Body: body(lim.MaxBodyBytes + 1), Expect: !e.NoExpect}, message.ReasonBodyTooLarge, false},
		{"body without a length −1", Request{Method: "POST", Body: body(lim.MaxBodyBytes - 1), Chunked: true}, 0, false},
		{"body without a length", Request{Method: "POST", Body: body(lim.MaxBodyBytes), Chunked: true}, 0, false},
		{"body without a length +1", Request{Method: "POST", Body: body(lim.MaxBodyBytes + 1), Chunked: true}, message.ReasonBodyTooLarge, true},
	}
	for d, reason := range map[int]message.Reason{-1: 0, 0: 0, 1: message.ReasonURITooLong} {
		n := lim.MaxURIBytes + d
		checks = append(checks, check{"target", Request{Target: "/" + strings.Repeat("a", n-1)}, reason, false})
	}
	for d, reason := range map[int]message.Reason{-1: 0, 0: 0, 1: message.ReasonHeadTooLarge} {
		var fields []string
		for range lim.MaxFields + d - 1 { // Host is one too
			fields = append(fields, "X-Many: "+string(rune('a'+len(fields)%26)))
		}
		checks = append(checks, check{"fields", Request{Header: fields}, reason, false})
	}
	for d, reason := range map[int]message.Reason{-200: 0, 200: message.ReasonHeadTooLarge} {
		checks = append(checks, check{"head", Request{Header: []string{"X-Long: " + strings.Repeat("a", lim.MaxHeadBytes+d)}}, reason, false})
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
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
			a := e.Open(t, spy, lim).Do(t, &c.r)
			end := spy.Ends(t, 1)[0]
			if a.Status != c.reason.Status() || end.Reason != c.reason || end.Served != (c.reason == 0 || c.late) {
				t.Errorf("answer %d, end %+v, want %q", a.Status, end, c.reason)
			}
		})
	}
}

// answers: head, body, trailer and their breaking off.
func answers(t *testing.T, e Engine) {
	closed := make(chan struct{})
	close(closed)
	long := strings.Repeat("0123456789abcdef", 1<<14)
	source := func(p *Pieces, length int64) *message.Response {
		return &message.Response{Status: 200, Length: -1, Body: message.NewBody(p, length, nil)}
	}
	for _, c := range []struct {
		name    string
		method  string
		res     func() *message.Response
		status  int
		body    string
		length  int64 // as the client is told; −2: not looked at
		trailer string
		reason  message.Reason
	}{
		{"text", "GET", func() *message.Response { return Text(201, "hello") }, 201, "hello", 5, "", 0},
		{"no body", "POST", func() *message.Response { return &message.Response{Status: 202, Length: -1} }, 202, "", 0, "", 0},
		{"204", "GET", func() *message.Response { return &message.Response{Status: 204, Length: -1} }, 204, "", -2, "", 0},
		{"304", "GET", func() *message.Response {
			return &message.Response{Status: 304, Length: -1, Header: Fields("Etag: \"a\"")}
		}, 304, "", -2, "", 0},
		{"HEAD with a length", "HEAD", func() *message.Response { return &message.Response{Status: 200, Length: 1234} }, 200, "", 1234, "", 0},
		{"HEAD without one", "HEAD", func() *message.Response { return &message.Response{Status: 200, Length: -1} }, 200, "", -1, "", 0},
		{"HEAD with a body all the same", "HEAD", func() *message.Response { return Text(200, "hello") }, 200, "", 5, "", 0},
		{"pieces of known length", "GET", func() *message.Response { return source(&Pieces{Rest: []string{"hel", "lo"}}, 5) }, 200, "hello", 5, "", 0},
		{"pieces of unknown length", "GET", func() *message.Response { return source(&Pieces{Rest: []string{"hel", "lo"}, Wait: closed}, -1) }, 200, "hello", -1, "", 0},
		{"nothing of unknown length", "GET", func() *message.Response { return source(&Pieces{}, -1) }, 200, "", -2, "", 0},
		{"a long body", "GET", func() *message.Response { return source(&Pieces{Rest: []string{long, long}}, -1) }, 200, long + long, -1, "", 0},
		{"a trailer", "GET", func() *message.Response {
			tail := Fields("X-Sum: 5")
			return source(&Pieces{Rest: []string{"hello"}, Tail: &tail}, -1)
		}, 200, "hello", -2, "5", 0},
		{"a trailer without a body", "GET", func() *message.Response {
			tail := Fields("X-Sum: 0")
			return source(&Pieces{Tail: &tail}, -1)
		}, 200, "", -2, "0", 0},
		{"a body that breaks off", "GET", func() *message.Response { return source(&Pieces{Rest: []string{"hel"}, Err: io.ErrUnexpectedEOF}, -1) },
			200, "hel", -2, "", message.ReasonResponseTruncated},
		{"a body that breaks off before its length", "GET", func() *message.Response { return source(&Pieces{Rest: []string{"hel"}, Err: io.ErrUnexpectedEOF}, 5) },
			200, "hel", -2, "", message.ReasonResponseTruncated},
		{"a body shorter than announced", "GET", func() *message.Response { return source(&Pieces{Rest: []string{"hel"}}, 5) },
			200, "hel", -2, "", message.ReasonResponseTruncated},
		{"a body longer than announced", "GET", func() *message.Response { return source(&Pieces{Rest: []string{"hello", "!"}}, 5) },
			200, "hello", -2, "", message.ReasonInternal},
		{"no answer at all", "GET", func() *message.Response { return nil }, 500, "", -2, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			spy := NewSpy(func(ex *message.Exchange) {
				if ex.Response = c.res(); ex.Response != nil {
					ex.Response.Header.Add("X-One", "1")
					ex.Response.Header.Add("X-One", "2")
					ex.Response.Header.Add("Connection", "x-one") // what frames does not come from filters
				}
			})
			a := e.Open(t, spy, Limits()).Do(t, &Request{Method: c.method})
			end := spy.Ends(t, 1)[0]
			broken := c.reason != 0
			if broken && a.Status == 0 { // it broke off before the first byte had left
				a.Status, a.Broken = c.status, true
				a.Header = http.Header{"X-One": {"1", "2"}}
			}
			if a.Status != c.status || !broken && c.status != 500 && a.Body != c.body || broken && !strings.HasPrefix(c.body, a.Body) {
				t.Errorf("answer %d %.40q, want %d %.40q", a.Status, a.Body, c.status, c.body)
			}
			if c.length != -2 && a.Length != c.length {
				t.Errorf("length %d, want %d", a.Length, c.length)
			}
			if a.Trailer.Get("X-Sum") != c.trailer {
				t.Errorf("trailer %v, want %q", a.Trailer, c.trailer)
			}
			if end.Outcome.Reason != c.reason || broken && c.name != "a body longer than announced" && !a.Broken {
				t.Errorf("outcome %+v, broken %v; want %s", end.Outcome, a.Broken, c.reason)
			}
			if c.status != 500 && (len(a.Header["X-One"]) != 2 || a.Header.Get("Content-Type") != "") {
				t.Errorf("fields %v", a.Header)
			}
		})
	}
}

// informations: 1xx answers are passed on, no more than MaxInform, and never after the answer.
func informations(t *testing.T, e Engine) {
	var late func()
	spy := NewSpy(func(ex *message.Exchange) {
		for range 5 {
			h := Fields("Link: </a.css>; rel=preload")
			if err := ex.Inform(103, &h); err != nil {
				t.Error(err)
			}
		}
		h := message.Header{}
		ex.Inform(100, &h)
		ex.Inform(101, &h)
		inform := ex.Informer
		late = func() { inform(103, &h) }
		ex.Response = Text(200, "ok")
		ex.Response.Body.Wrap(func(s message.Source) message.Source { return &lateInformer{s, late} }, 2)
	})
	a := e.Open(t, spy, Limits()).Do(t, &Request{})
	spy.Ends(t, 1)
	if !slices.Equal(a.Informed, []int{103, 103, 103}) || a.Status != 200 || a.Body != "ok" || a.Header.Get("Link") != "" {
		t.Errorf("answer %+v, want three times 103 and nothing of them in the answer", a)
	}
}

type lateInformer struct {
	message.Source
	inform func()
}

func (l *lateInformer) Next() ([]byte, error) {
	l.inform()
	return l.Source.Next()
}

// expectations: who pulls the body has the client send it; who refuses, not.
func expectations(t *testing.T, e Engine) {
	if e.NoExpect {
		t.Skip("the client cannot hold its body back")
	}
	for _, pull := range []bool{true, false} {
		spy := NewSpy(func(ex *message.Exchange) {
			if !pull {
				ex.Response = Text(403, "no")
				return
			}
			got, err := ReadAll(ex.Request.Body)
			if got != "hello" || err != nil {
				t.Errorf("body %q, %v", got, err)
			}
			ex.Response = Text(200, "ok")
		})
		a := e.Open(t, spy, Limits()).Do(t, &Request{Method: "POST", Body: []string{"hello"}, Expect: true})
		spy.Ends(t, 1)
		if a.Continued != pull || a.Status != map[bool]int{true: 200, false: 403}[pull] {
			t.Errorf("pulled %v: answer %+v", pull, a)
		}
	}
}

// early: an answer while the client is still sending.
func early(t *testing.T, e Engine) {
	if e.NoHead {
		t.Skip("nothing is sent while something else is")
	}
	for _, pulls := range []int{0, 1} {
		hold := make(chan struct{}) // never closed: the client would send for ever
		spy := NewSpy(func(ex *message.Exchange) {
			for range pulls {
				if _, err := ex.Request.Body.Next(); err != nil {
					t.Error(err)
				}
			}
			ex.Response = Text(413, "too much")
		})
		a := e.Open(t, spy, Limits()).Do(t, &Request{Method: "POST", Body: []string{"hello", strings.Repeat("x", 1000)}, Hold: hold})
		end := spy.Ends(t, 1)[0]
		if a.Status != 413 || a.Body != "too much" || end.Outcome.Reason != 0 {
			t.Errorf("%d pulled: answer %+v, end %+v", pulls, a, end)
		}
	}
}

// tunnels: bytes both ways, those sent early too, and the end of one direction.
func tunnels(t *testing.T, e Engine) {
	if e.NoTunnel {
		t.Skip("no upgrade in this protocol")
	}
	spy := NewSpy(func(ex *message.Exchange) {
		if ex.Request.Upgrade != "websocket" {
			ex.Response = Text(400, "no upgrade")
			return
		}
		ex.Response = &message.Response{Status: 101, Upgrade: "websocket", Header: Fields("Sec-Websocket-Accept: x"),
			Tunnel: func(client message.Tunnel) message.Outcome {
				var out message.Outcome
				client.Write([]byte("welcome "))
				buf := make([]byte, 100)
				for {
					n, err := client.Read(buf)
					out.BytesIn += int64(n)
					client.Write(buf[:n])
					if err != nil {
						client.CloseWrite()
						client.Close()
						return out
					}
				}
			}}
	})
	c := e.Open(t, spy, Limits())
	var echoed []byte
	a := c.Do(t, &Request{Upgrade: "websocket", Tunnel: func(rw io.ReadWriter, closeWrite func() error) {
		io.WriteString(rw, "hello")
		closeWrite()
		echoed, _ = io.ReadAll(rw)
	}})
	if a.Status != 101 || string(echoed) != "welcome hello" || a.Header.Get("Sec-Websocket-Accept") != "x" {
		t.Errorf("answer %+v, echoed %q", a, echoed)
	}
	if end := spy.Ends(t, 1)[0]; end.Outcome.BytesIn != 5 || end.Status != 101 {
		t.Errorf("end %+v", end)
	}
	if a := c.Do(t, &Request{Upgrade: "h2c", Header: []string{"HTTP2-Settings: AAMAAABkAAQAAP__"}}); a.Status != 400 {
		t.Errorf("an upgrade that is not ours was seen: %+v", a)
	}
	spy.Ends(t, 2)
}
