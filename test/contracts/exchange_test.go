package contracts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/ratelimit"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/mem"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
)

// panicking is a transport that panics for one path, and is the real one for others.
type panicking struct{ message.Transport }

func (p panicking) RoundTrip(ctx context.Context, at *message.Attempt) error {
	if at.Request.Target.Path == "/panics/transport" {
		panic("oh")
	}
	return p.Transport.RoundTrip(ctx, at)
}

// oneAtATime is a limit that a lost Done would use up for ever.
func oneAtATime(name string) ratelimit.Config {
	return ratelimit.Config{Limits: []ratelimit.Limit{{Policy: ratelimit.Policy{UID: name, Name: gateway}, Name: name, Concurrency: 1}}}
}

func TestContract01_EachExchangeEndsExactlyOnce(t *testing.T) {
	eachWire(t, func(t *testing.T, h2 bool) {
		reached, release := make(chan struct{}, 10), make(chan struct{})
		b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/stay/silent":
				reached <- struct{}{}
				select {
				case <-r.Context().Done():
				case <-release:
				}
			case "/stay/streams":
				http.NewResponseController(w).EnableFullDuplex()
				io.WriteString(w, "first")
				w.(http.Flusher).Flush()
				reached <- struct{}{}
				<-r.Context().Done()
			case "/stay/breaks":
				w.Header().Set("Content-Length", "100")
				io.WriteString(w, "half")
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			default:
				ok(w, r)
			}
		})
		h := open(t, options{transport: func(k message.ConnKey, o message.TransportOptions) message.Transport {
			return panicking{nethttp.NewTransport(k, o)}
		}})
		boom := func(*message.Exchange) filter.Verdict { panic("oh") }
		backend := "a"
		h.endpoints(backend, b.address)
		h.serve(
			rule("stay", backend, with(oneAtATime("stay"))),
			rule("panics/transport", backend, with(oneAtATime("transport"))),
			rule("panics/request", backend, with(oneAtATime("request"), faces("boom", filter.Faces{Request: boom}))),
			rule("panics/response", backend, with(oneAtATime("response"), faces("boom", filter.Faces{Response: boom}))),
			rule("panics/attempt", backend, with(oneAtATime("attempt"), faces("boom", filter.Faces{Attempt: func(*message.Attempt) filter.Verdict { panic("oh") }}))),
			rule("panics/done", backend, with(faces("boom", filter.Faces{Done: func(*message.Exchange) { panic("oh") }}), oneAtATime("done"))),
			rule("panics/answer", backend, with(oneAtATime("answer")), onBackend(faces("boom", filter.Faces{Attempt: func(at *message.Attempt) filter.Verdict {
				at.OnResponse = append(at.OnResponse, func(*message.Response) { panic("oh") })
				return filter.Continue
			}}))),
		)
		n := 0
		ask := func(method, path string, body io.Reader, leave <-chan struct{}) (int, error) {
			n++
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if u, ok := body.(*unfinished); ok {
				u.ctx = ctx
			}
			go func() {
				select {
				case <-leave:
					cancel()
				case <-ctx.Done():
				}
			}()
			req, err := http.NewRequestWithContext(ctx, method, "http://"+h.address()+path, body)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client(t, h2).Do(req)
			if err != nil {
				return 0, err
			}
			defer res.Body.Close()
			_, err = io.Copy(io.Discard, res.Body)
			return res.StatusCode, err
		}
		// ends asks once more than the limit would let in, if an exchange of the step had not ended.
		ends := func(step, path string, want int, reason message.Reason) {
			t.Helper()
			e := h.tally.last(t, n)
			if e.reason != reason || want != 0 && e.status != want {
				t.Errorf("%s: ended with %d %v, want %d %v", step, e.status, e.reason, want, reason)
			}
		}

		ask("GET", "/stay/a", nil, nil)
		ends("a whole answer", "/stay/a", 200, message.ReasonNone)
		ask("HEAD", "/stay/a", nil, nil)
		ends("no body", "/stay/a", 200, message.ReasonNone)
		ask("POST", "/stay/a", strings.NewReader(strings.Repeat("x", 1<<20)), nil)
		ends("a long upload", "/stay/a", 200, message.ReasonNone)
		ask("GET", "/nowhere", nil, nil)
		ends("no route", "/nowhere", 404, message.ReasonNoRoute)
		ask("GET", "/stay/..%2f", nil, nil)
		ends("refused by the engine", "/stay", 400, message.ReasonBadTarget)

		ask("GET", "/stay/silent", nil, reached)
		ends("left while the backend is silent", "/stay/silent", 0, message.ReasonClientLeft)
		ask("POST", "/stay/streams", &unfinished{}, reached)
		ends("left in the middle of both bodies", "/stay/streams", 0, message.ReasonClientLeft)
		ask("GET", "/stay/streams", nil, reached)
		ends("left in the middle of an answer", "/stay/streams", 0, message.ReasonClientLeft)
		ask("GET", "/stay/breaks", nil, nil)
		ends("the backend breaks off", "/stay/breaks", 200, message.ReasonResponseTruncated)

		for _, face := range []string{"transport", "request", "response", "attempt", "answer"} {
			for range 2 { // the second would be refused if the first held its place
				if status, err := ask("GET", "/panics/"+face, nil, nil); status != 500 {
					t.Errorf("panic of %s: %d %v", face, status, err)
				}
				ends("panic of "+face, "", 500, message.ReasonPanic)
			}
		}
		for range 2 {
			if status, err := ask("GET", "/panics/done", nil, nil); status != 200 {
				t.Errorf("panic of done: %d %v", status, err)
			}
			ends("panic of done", "", 200, message.ReasonNone)
		}
		if status, err := ask("GET", "/stay/a", nil, nil); status != 200 {
			t.Errorf("at the end: %d %v", status, err)
		}
		h.tally.last(t, n)
		until(t, "nothing is in flight", func() bool { return h.figure("requests_in_flight")+h.figure("attempts_in_flight") == 0 })
		if got := h.figure("requests_total"); int(got) != n {
			t.Errorf("%v exchanges counted, %d were asked", got, n)
		}
		until(t, "each has its line", func() bool { return strings.Count(h.log.String(), "\n") == n })
	})
}

// unfinished is a body that never ends; it breaks when its client leaves.
type unfinished struct {
	begun bool
	ctx   context.Context
}

func (u *unfinished) Read(p []byte) (int, error) {
	if !u.begun {
		u.begun = true
		return copy(p, "begin"), nil
	}
	<-u.ctx.Done() // net/http's client waits for it
	return 0, u.ctx.Err()
}

// tunnelTo upgrades a connection of the house to a tunnel.
func tunnelTo(h *house, path string) *conn {
	h.t.Helper()
	c := h.dial()
	c.send("GET %s HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", path)
	if res, _ := c.answer("GET"); res == nil || res.StatusCode != 101 {
		h.t.Fatalf("no tunnel: %v", res)
	}
	return c
}

// echo is a backend whose tunnels give each line back.
func echo(t testing.TB) *backend {
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			ok(w, r)
			return
		}
		nc, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer nc.Close()
		io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome\n")
		io.Copy(nc, rw)
		io.WriteString(nc, "bye\n")
	})
}

func TestContract01_ATunnelEndsItsExchangeWhenBothSidesAreDone(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", echo(t).address)
	h.serve(rule("ws", "a", with(oneAtATime("ws"))))
	c := tunnelTo(h, "/ws")
	if served, ended := h.tally.count(); served != 1 || ended != 0 {
		t.Fatalf("served %d, ended %d while the tunnel is open", served, ended)
	}
	if status, _ := h.get("/ws"); status != 429 {
		t.Fatalf("a second one beside the tunnel: %d, want 429", status)
	}
	until(t, "the second one has ended", func() bool { _, ended := h.tally.count(); return ended == 1 })
	c.send("hello\n")
	c.CloseWrite()
	all, err := io.ReadAll(c.r)
	if string(all) != "welcome\nhello\nbye\n" || err != nil {
		t.Fatalf("%q %v", all, err)
	}
	e := h.tally.last(t, 2)
	if e.status != 101 || e.outcome.BytesIn != 6 || e.outcome.BytesOut != int64(len(all)) {
		t.Errorf("%+v", e)
	}
	if status, _ := h.get("/ws"); status != 200 {
		t.Errorf("after the tunnel: %d", status)
	}
}

func TestContract02_StringsStayAfterTheConnectionHasServedOthers(t *testing.T) {
	eachWire(t, func(t *testing.T, h2 bool) {
		var mu sync.Mutex // guards kept
		kept := map[int][]string{}
		keep := faces("keep", filter.Faces{Request: func(ex *message.Exchange) filter.Verdict {
			mu.Lock()
			defer mu.Unlock()
			r := &ex.Request
			kept[len(kept)] = []string{r.Method, r.Host.Raw, r.Host.Name, r.Target.Path, r.Target.Query, r.Header.Get("X-Who"), ex.ID}
			return filter.Continue
		}})
		h := open(t, options{})
		h.endpoints("a", serveHTTP(t, ok).address)
		h.serve(rule("a", "a", with(keep)))
		c := client(t, h2)
		ids := map[string]bool{}
		for i := range 200 {
			req, _ := http.NewRequest("GET", fmt.Sprintf("http://%s/a/%04d?q=%04d", h.address(), i, i), nil)
			req.Host = fmt.Sprintf("Host-%04d.example.com:80", i)
			req.Header.Set("X-Who", strings.Repeat(fmt.Sprintf("%04d", i), 50))
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		for i := range 200 {
			want := fmt.Sprintf("GET Host-%04d.example.com:80 host-%04d.example.com /a/%04d q=%04d %s", i, i, i, i, strings.Repeat(fmt.Sprintf("%04d", i), 50))
			if got := strings.Join(kept[i][:6], " "); got != want {
				t.Fatalf("what was kept of exchange %d reads now %q", i, got)
			}
			ids[kept[i][6]] = true
		}
		if len(ids) != 200 {
			t.Errorf("%d different ids", len(ids))
		}
	})
}

func TestContract03_AClientThatLeavesIsNoticedWhileTheBackendIsSilent(t *testing.T) {
	eachWire(t, func(t *testing.T, h2 bool) {
		for _, upload := range []bool{false, true} {
			t.Run(fmt.Sprintf("unfinished upload %v", upload), func(t *testing.T) {
				reached, gone := make(chan struct{}, 1), make(chan struct{})
				b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
					if upload {
						r.Body.Read(make([]byte, 5))
					}
					reached <- struct{}{}
					if upload { // net/http of the backend notices only while it reads
						io.Copy(io.Discard, r.Body)
					}
					<-r.Context().Done()
					close(gone)
				})
				h := open(t, options{})
				name := "a"
				if h2 {
					name = "h2c"
				}
				h.endpoints(name, b.address)
				h.serve(rule("a", name))
				ctx, leave := context.WithCancel(context.Background())
				var body io.Reader
				method := "GET"
				if upload {
					method, body = "POST", &unfinished{ctx: ctx}
				}
				req, _ := http.NewRequestWithContext(ctx, method, "http://"+h.address()+"/a", body)
				done := make(chan struct{})
				go func() {
					defer close(done)
					if res, err := client(t, h2).Do(req); err == nil {
						res.Body.Close()
					}
				}()
				<-reached
				leave()
				closed(t, "the backend to hear of it", gone)
				<-done
				if e := h.tally.last(t, 1); e.reason != message.ReasonClientLeft {
					t.Errorf("ended with %v", e.reason)
				}
			})
		}
	})
}

func TestContract03_AnEarlyAnswerIsHeardWhileTheRequestIsStillBeingSent(t *testing.T) {
	eachWire(t, func(t *testing.T, h2 bool) {
		h := open(t, options{})
		h.endpoints("a", serveRaw(t, func(nc net.Conn, r *bufio.Reader) {
			for line, _ := r.ReadString('\n'); line != "\r\n" && line != ""; line, _ = r.ReadString('\n') {
			}
			io.WriteString(nc, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
			r.ReadByte() // hold the connection open as long as the client goes on
			io.Copy(io.Discard, r)
		}))
		h.endpoints("h2c", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(413)
			io.WriteString(w, "no")
		}).address)
		retried := snapshot.Retry{Set: true, Attempts: 3, Codes: []int{413}} // what cannot be sent again is passed on, and nobody waits for it
		h.serve(rule("a", "a"), rule("h2c", "h2c"), rule("retried", "a", func(r *snapshot.Rule) { r.Retry = retried }))
		for i, path := range []string{"/a", "/h2c", "/retried"} {
			ctx, leave := context.WithCancel(context.Background())
			defer leave()
			req, _ := http.NewRequestWithContext(ctx, "PUT", "http://"+h.address()+path, &unfinished{ctx: ctx})
			res, err := client(t, h2).Do(req)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			text, _ := io.ReadAll(res.Body)
			leave()
			res.Body.Close()
			if res.StatusCode != 413 || string(text) != "no" {
				t.Errorf("%s: %d %q", path, res.StatusCode, text)
			}
			h.tally.last(t, i+1)
		}
	})
}

// Messages go both ways at once, each as soon as it is there, as gRPC needs it.
func TestContract03_BothBodiesStreamAtOnce(t *testing.T) {
	b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintf(w, "echo %s\n", lines.Text())
			w.(http.Flusher).Flush()
		}
	})
	h := open(t, options{})
	h.endpoints("h2c", b.address)
	h.serve(rule("a", "h2c"))
	in, out := io.Pipe()
	req, _ := http.NewRequest("POST", "http://"+h.address()+"/a", in)
	req.Header.Set("Content-Type", "application/grpc")
	res, err := client(t, true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answers := bufio.NewReader(res.Body)
	for i := range 20 {
		fmt.Fprintf(out, "%d\n", i)
		if line, err := answers.ReadString('\n'); line != fmt.Sprintf("echo %d\n", i) {
			t.Fatalf("message %d: %q %v", i, line, err)
		}
	}
	out.Close()
	if rest, err := io.ReadAll(answers); len(rest) > 0 || err != nil {
		t.Fatalf("%q %v", rest, err)
	}
	h.tally.last(t, 1)
}

// The deadline of one request, and of one attempt, ends with it: the next on the same two connections has all the time that it wants.
func TestContract04_TheDeadlineOfOneRequestNeverKillsTheNextOnTheConnection(t *testing.T) {
	eachWire(t, func(t *testing.T, h2 bool) {
		const deadline = 60 * time.Millisecond
		b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				time.Sleep(3 * deadline) // longer than any deadline of the one before
			}
			ok(w, r)
		})
		h := open(t, options{})
		h.endpoints("a", b.address)
		h.serve(rule("quick", "a", func(r *snapshot.Rule) { r.Timeouts = snapshot.Timeouts{Request: deadline, Backend: deadline} }), rule("slow", "a"))
		c := client(t, h2)
		for _, path := range []string{"/quick", "/slow", "/quick", "/quick", "/slow"} {
			res, err := c.Get("http://" + h.address() + path)
			if err != nil {
				t.Fatal(path, err)
			}
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 || string(text) != path || err != nil {
				t.Errorf("%s: %d %q %v", path, res.StatusCode, text, err)
			}
		}
		if made, _ := b.connections(); made != 1 {
			t.Errorf("%d connections to the backend: nothing was proved", made)
		}
	})
}

func TestContract04_ATimeoutIsAnsweredAndTheClientsConnectionServesOn(t *testing.T) {
	eachWire(t, func(t *testing.T, h2 bool) {
		release := make(chan struct{})
		b := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hangs" {
				select {
				case <-r.Context().Done():
				case <-release:
				}
				return
			}
			ok(w, r)
		})
		defer close(release)
		h := open(t, options{})
		h.endpoints("a", b.address)
		h.serve(rule("hangs", "a", func(r *snapshot.Rule) { r.Timeouts.Request = 20 * time.Millisecond }), rule("a", "a"))
		c := client(t, h2)
		for range 5 {
			for path, want := range map[string]int{"/hangs": 504, "/a": 200} {
				res, err := c.Get("http://" + h.address() + path)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode != want {
					t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
				}
			}
		}
		if n := h.figure("connections_accepted_total"); n != 1 {
			t.Errorf("%v connections of the client", n)
		}
	})
}

// The context of an exchange is never used again: what a filter leaves running on it ends with its own exchange, and sees no other.
func TestContract04_TheContextOfAnExchangeIsItsOwn(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	var contexts []context.Context
	h.serve(rule("a", "a", with(faces("context", filter.Faces{Request: func(ex *message.Exchange) filter.Verdict {
		for _, c := range contexts {
			if c == ex.Context() {
				t.Error("a context is used twice")
			}
		}
		contexts = append(contexts, ex.Context())
		if ex.Context().Err() != nil {
			t.Error("it has ended before it begins")
		}
		return filter.Continue
	}}))))
	r := h.mem()
	for range 5 {
		if res := r.Do(&mem.Request{Target: "/a"}); res.Status != 200 {
			t.Fatal(res.Status)
		}
	}
	for i, c := range contexts {
		if c.Err() == nil {
			t.Errorf("the context of exchange %d goes on", i)
		}
	}
}

func TestContract05_AFilterThatRefusesNeverCausesA100(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, ok).address)
	h.serve(rule("no", "a", with(faces("no", filter.Faces{Request: func(*message.Exchange) filter.Verdict {
		return filter.Fail(message.ReasonDenied, "")
	}}))))
	c := h.dial()
	defer c.close()
	c.send("POST /no HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if res, _ := c.answer("POST"); res == nil || res.StatusCode != 403 {
		t.Fatalf("%v, want 403 and nothing before", res)
	}
}

// The backend decides whether the client shall send, when nobody buffers the body.
func TestContract05_TheBackends100IsAwaited(t *testing.T) {
	asked, goOn := make(chan struct{}), make(chan bool)
	h := open(t, options{})
	h.endpoints("a", serveRaw(t, func(nc net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.Header.Get("Expect") != "100-continue" {
				t.Error("the backend is not asked")
			}
			asked <- struct{}{}
			if !<-goOn {
				io.WriteString(nc, "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
				return
			}
			io.WriteString(nc, "HTTP/1.1 100 Continue\r\n\r\n")
			body, _ := io.ReadAll(req.Body)
			fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	}))
	h.serve(rule("a", "a"))
	for _, wants := range []bool{true, false} {
		c := h.dial()
		c.send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		<-asked
		goOn <- wants
		res, _ := c.answer("POST")
		if !wants {
			if res == nil || res.StatusCode != 401 {
				t.Errorf("%v, want the backend's 401 without a 100", res)
			}
			c.close()
			continue
		}
		if res == nil || res.StatusCode != 100 {
			t.Fatalf("%v, want 100", res)
		}
		c.send("hello")
		if res, text := c.answer("POST"); res == nil || res.StatusCode != 200 || text != "hello" {
			t.Errorf("%v %q", res, text)
		}
		c.close()
	}
}

func TestContract05_AtMostSixteen1xxArePassedOn(t *testing.T) {
	h := open(t, options{settings: func(s *dataplane.Settings) { s.MaxInformations = 16 }})
	h.endpoints("a", serveRaw(t, func(nc net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			for range map[string]int{"/a/16": 16, "/a/17": 17}[req.URL.Path] {
				io.WriteString(nc, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
			}
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}))
	h.serve(rule("a", "a"))
	for path, want := range map[string]int{"/a/16": 200, "/a/17": 502} {
		c := h.dial()
		c.send("GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
		informed, status := 0, 0
		for {
			res, _ := c.answer("GET")
			if res == nil {
				break
			}
			if status = res.StatusCode; status != 103 {
				break
			}
			informed++
		}
		if informed != 16 || status != want {
			t.Errorf("%s: %d informations, then %d; want 16, then %d", path, informed, status, want)
		}
		c.close()
	}
}

// An answer to a body that nobody wants: a short rest is read and the connection serves on; a long one ends it, but the client gets to
// read the answer.
func TestContract05_AnUnreadBodyEndsTheConnectionOrIsDrained(t *testing.T) {
	h := open(t, options{})
	h.serve(rule("a", ""))
	for _, c := range []struct {
		size int
		on   bool
	}{{1000, true}, {10 << 20, false}} {
		conn := h.dial()
		conn.send("POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", c.size)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			conn.TCPConn.Write(make([]byte, c.size)) // fails when the other side goes
		}()
		res, text := conn.answer("POST")
		if res == nil || res.StatusCode != 404 || !strings.Contains(text, "no route") {
			t.Errorf("%d bytes: %v %q", c.size, res, text)
		} else if res.Close == c.on {
			t.Errorf("%d bytes: close %v", c.size, res.Close)
		}
		if c.on {
			<-sent
			if status, _ := conn.ask("GET", "/none", ""); status != 404 {
				t.Errorf("the next: %d", status)
			}
		}
		conn.close()
		<-sent
	}
}

func TestContract06_BytesBehindThe101FollowOnBothSides(t *testing.T) {
	h := open(t, options{})
	h.endpoints("a", serveRaw(t, func(nc net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil || req.Header.Get("Upgrade") != "websocket" {
			t.Errorf("%v %v", req, err)
			return
		}
		io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly from the backend\n")
		line, _ := r.ReadString('\n')
		io.WriteString(nc, "got "+line)
	}))
	h.serve(rule("ws", "a"))
	c := h.dial()
	defer c.close()
	c.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly from the client\n")
	res, _ := c.answer("GET")
	if res == nil || res.StatusCode != 101 {
		t.Fatalf("%v", res)
	}
	if all, err := io.ReadAll(c.r); string(all) != "early from the backend\ngot early from the client\n" || err != nil {
		t.Errorf("%q %v", all, err)
	}
	c.CloseWrite()
	h.tally.last(t, 1)
}

func TestContract06_ATunnelledConnectionNeverReturnsToAPool(t *testing.T) {
	b := echo(t)
	h := open(t, options{})
	h.endpoints("a", b.address)
	h.serve(rule("a", "a"))
	if status, _ := h.get("/a"); status != 200 {
		t.Fatal(status)
	}
	c := tunnelTo(h, "/a") // takes the idle one
	c.CloseWrite()
	io.Copy(io.Discard, c.r)
	c.close()
	h.tally.last(t, 2)
	if status, _ := h.get("/a"); status != 200 {
		t.Fatal(status)
	}
	if made, _ := b.connections(); made != 2 {
		t.Errorf("%d connections, want one of the tunnel and one after it", made)
	}
}

// Shutdown waits for tunnels as for everything under way, and cuts them when its time is over.
func TestContract06_ATunnelIsWaitedForInADrainAndThenCut(t *testing.T) {
	for _, cut := range []bool{false, true} {
		h := open(t, options{})
		h.endpoints("a", echo(t).address)
		h.serve(rule("ws", "a"))
		c := tunnelTo(h, "/ws")
		patient := patience
		if cut {
			patient = 200 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		ended := make(chan error, 1)
		plane := h.plane
		h.plane = nil
		go func() { ended <- plane.Shutdown(ctx) }()
		until(t, "the socket is closed", func() bool {
			nc, err := net.Dial("tcp", h.address())
			if err == nil {
				nc.Close()
			}
			return err != nil
		})
		if !cut {
			c.send("hello\n")
			c.r.ReadString('\n')
			if line, _ := c.r.ReadString('\n'); line != "hello\n" {
				t.Errorf("the tunnel does not serve while the house drains: %q", line)
			}
			c.CloseWrite()
		}
		io.Copy(io.Discard, c.r)
		if err := <-ended; (err != nil) != cut {
			t.Errorf("cut %v: Shutdown says %v", cut, err)
		}
		h.tally.last(t, 1)
		c.close()
		cancel()
	}
}

// An answer that a filter replaces lets go of the backend at once or at the end of the exchange, a body as well as a tunnel.
func TestContract06_AnAnswerThatNobodyGetsLetsGoOfItsBackend(t *testing.T) {
	gone := make(chan struct{}, 10)
	address := serveRaw(t, func(nc net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.Header.Get("Upgrade") != "" {
			io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		} else {
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
		}
		r.ReadByte()
		gone <- struct{}{}
	})
	fail := faces("fail", filter.Faces{Response: func(*message.Exchange) filter.Verdict { return filter.Fail(message.ReasonDenied, "") }})
	replace := faces("replace", filter.Faces{Response: func(ex *message.Exchange) filter.Verdict {
		ex.Response = message.Respond(message.OriginFilter, 403, "text/plain", "replaced")
		return filter.Answer
	}})
	away := faces("away", filter.Faces{Response: func(ex *message.Exchange) filter.Verdict {
		ex.Response = nil
		return filter.Continue
	}})
	h := open(t, options{})
	h.endpoints("a", address)
	h.serve(rule("fail", "a", with(fail)), rule("replace", "a", with(replace)), rule("away", "a", with(away)))
	for path, want := range map[string]int{"/fail": 403, "/replace": 403, "/away": 500} {
		for _, fields := range [][]string{nil, {"Upgrade: websocket"}} {
			c := h.dial()
			head := ""
			if fields != nil {
				head = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
			}
			c.send("GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n", path, head)
			if res, _ := c.answer("GET"); res == nil || res.StatusCode != want {
				t.Errorf("%s %v: %v, want %d", path, fields, res, want)
			}
			select {
			case <-gone: // while the client's connection is still there
			case <-time.After(patience):
				t.Errorf("%s %v: the backend's connection stays", path, fields)
			}
			c.close()
		}
	}
	until(t, "nothing is in flight", func() bool { return h.figure("attempts_in_flight") == 0 })
}

// A 101 to a client that cannot have one closes the backend's side, and nothing else is done with it.
func TestContract06_ATunnelThatNobodyAskedForIsClosed(t *testing.T) {
	tunnels := make(chan message.Tunnel, 1)
	h := open(t, options{transport: func(message.ConnKey, message.TransportOptions) message.Transport {
		return transport(func(_ context.Context, at *message.Attempt) error {
			at.Response = &message.Response{Status: 101, Length: -1, Upgrade: "websocket", Tunnel: func(c message.Tunnel) message.Outcome {
				tunnels <- c
				return message.Outcome{}
			}}
			return nil
		})
	}})
	h.endpoints("a", netip.MustParseAddrPort("10.0.0.1:80"))
	h.serve(rule("a", "a"))
	eachWire(t, func(t *testing.T, h2 bool) {
		res, err := client(t, h2).Get("http://" + h.address() + "/a")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 500 {
			t.Errorf("%d", res.StatusCode)
		}
		if c := <-tunnels; c != nil {
			t.Errorf("it was run with %v", c)
		}
	})
}
