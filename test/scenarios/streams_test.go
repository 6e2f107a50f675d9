package scenarios

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
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

// What a script cannot say: bodies that take their time, tunnels, clients that leave, backends that misbehave.

// oneRoute sends everything to the backend blue.
const oneRoute = `
-- backends --
blue
-- objects.yaml --
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: blue, port: 8080}]}]
`

// serve opens a house from the files of a scenario.
func serve(t *testing.T, files ...string) *house {
	t.Helper()
	s := &scenario{files: map[string]string{}}
	for _, f := range txtar.Parse([]byte(strings.Join(files, "\n"))).Files {
		s.files[f.Name] += string(f.Data)
	}
	s.settings = settingsOf(t, s.files["settings"])
	return s.open(t, overNetHTTP)
}

// url is that of the usual Gateway.
func (h *house) url(path string) string { return "http://" + h.gatewayAddress(h.t) + path }

// clients are one of HTTP/1.1 and one of HTTP/2 with prior knowledge.
func clients(t *testing.T) map[string]*http.Client {
	one, two := &http.Transport{Protocols: new(http.Protocols)}, &http.Transport{Protocols: new(http.Protocols)}
	one.Protocols.SetHTTP1(true)
	two.Protocols.SetUnencryptedHTTP2(true)
	for _, tr := range []*http.Transport{one, two} {
		tr.DisableCompression = true
		tr.ExpectContinueTimeout = patience
		t.Cleanup(tr.CloseIdleConnections)
	}
	return map[string]*http.Client{"h1": {Transport: one, Timeout: patience}, "h2c": {Transport: two, Timeout: patience}}
}

func get(t *testing.T, url, do string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Do", do)
	return r
}

func TestEventsComeWhenTheyAreSent(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute)
	for name, client := range clients(t) {
		resp, err := client.Do(get(t, h.url("/events"), "stream 3"))
		if err != nil {
			t.Fatal(name, err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			h.backend("blue").next <- struct{}{}
			// The backend says no more before it is asked to, so this ends only if the event was not held back.
			line, err := lines.ReadString('\n')
			if want := fmt.Sprintf("data: %d\n", i); err != nil || line != want {
				t.Fatalf("%s: %q %v, want %q", name, line, err, want)
			}
			lines.ReadString('\n')
		}
		if _, err := lines.ReadString('\n'); err != io.EOF {
			t.Errorf("%s: the end of the stream: %v", name, err)
		}
		resp.Body.Close()
	}
}

func TestTrailersPassBothWays(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute)
	for name, client := range clients(t) {
		body := struct{ io.Reader }{strings.NewReader("body")} // of unknown length
		r, err := http.NewRequest("POST", h.url("/"), body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Do", "trailer X-Sum: 42")
		r.Trailer = http.Header{"X-Digest": {"abc"}}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(name, err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		all := h.backend("blue").requests(0)
		saw := all[len(all)-1]
		if got := resp.Trailer.Get("X-Sum"); got != "42" {
			t.Errorf("%s: the answer's trailer is %q, of %v", name, got, resp.Trailer)
		}
		if got := saw.Trailer.Get("X-Digest"); got != "abc" || saw.Body != "body" {
			t.Errorf("%s: the backend saw trailer %q, body %q", name, got, saw.Body)
		}
	}
}

func TestEarlyHintsReachTheClient(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute)
	for name, client := range clients(t) {
		var links []string
		r := get(t, h.url("/"), "inform 103")
		r = r.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				links = append(links, fmt.Sprint(code, " ", header.Get("Link")))
				return nil
			},
		}))
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(name, err)
		}
		resp.Body.Close()
		if len(links) != 1 || links[0] != "103 </style.css>" || resp.StatusCode != 200 {
			t.Errorf("%s: informed %q, then %d", name, links, resp.StatusCode)
		}
	}
}

func TestLargeBodiesPassBothWays(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute)
	const size = 8 << 20
	for name, client := range clients(t) {
		for _, known := range []bool{true, false} {
			r, _ := http.NewRequest("POST", h.url("/"), io.LimitReader(endless{}, size))
			if known {
				r.ContentLength = size
			}
			r.Header.Set("X-Do", "bytes "+strconv.Itoa(size))
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(name, err)
			}
			sum := sha256.New()
			n, err := io.Copy(sum, resp.Body)
			resp.Body.Close()
			want := sha256.New()
			io.Copy(want, io.LimitReader(endless{}, size))
			all := h.backend("blue").requests(0)
			if err != nil || n != size || !bytes.Equal(sum.Sum(nil), want.Sum(nil)) || all[len(all)-1].Bytes != size {
				t.Errorf("%s, length known %v: up %d, down %d, %v", name, known, all[len(all)-1].Bytes, n, err)
			}
		}
	}
}

func TestAnEarlyAnswerIsHeardWhileTheBodyIsStillBeingSent(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute)
	for name, client := range clients(t) {
		body, more := io.Pipe()
		r, _ := http.NewRequest("POST", h.url("/"), body)
		r.Header.Set("X-Do", "early 413")
		// The body never ends by itself: the answer must come all the same.
		stop := make(chan struct{})
		go func() {
			defer more.Close()
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := more.Write(make([]byte, 1024)); err != nil {
						return
					}
				}
			}
		}()
		resp, err := client.Do(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			if resp.StatusCode != 413 || resp.Header.Get("X-Backend") != "blue" {
				t.Errorf("%s: %s", name, resp.Status)
			}
			resp.Body.Close()
		}
		close(stop)
		body.Close()
	}
}

func TestTheGatewaysOwnRefusalComesBeforeTheBody(t *testing.T) {
	t.Parallel()
	h := serve(t, "-- settings --\nMaxBodyBytes 1000", oneRoute)
	conn, err := net.Dial("tcp", h.gatewayAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1000000000\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 413 {
		t.Fatal(resp, err)
	}
	if n := h.backend("blue").count(); n != 0 {
		t.Errorf("%d requests reached the backend", n)
	}
}

func TestContinueIsTheBackendsToSay(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute, `-- objects.yaml --
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: nothing}
spec:
  parentRefs: [{name: gw}]
  rules: [{matches: [{path: {value: /refused}}]}]
`)
	for _, c := range []struct {
		path, do  string
		status    int
		continued bool
	}{
		{"/", "", 200, true},
		{"/", "early 417", 417, false},
		{"/refused", "", 500, false},
	} {
		continued := false
		client := clients(t)["h1"]
		r, _ := http.NewRequest("POST", h.url(c.path), strings.NewReader("the body"))
		r.Header.Set("Expect", "100-continue")
		r.Header.Set("X-Do", c.do)
		r = r.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { continued = true }}))
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status || continued != c.continued {
			t.Errorf("%s %s: %d, continued %v, want %d %v", c.path, c.do, resp.StatusCode, continued, c.status, c.continued)
		}
	}
	all := h.backend("blue").requests(0)
	if all[0].Body != "the body" {
		t.Errorf("the backend saw body %q", all[0].Body)
	}
}

func TestAClientThatLeavesIsNoticedByTheBackend(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute)
	blue := h.backend("blue")
	for name, client := range clients(t) {
		for _, do := range []string{"hang", "stream 2"} {
			ctx, leave := context.WithCancel(t.Context())
			before := blue.count()
			ended := make(chan error, 1)
			go func() {
				resp, err := client.Do(get(t, h.url("/"+name), do).WithContext(ctx))
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				ended <- err
			}()
			until(t, "the backend is asked", func() bool { return blue.count() > before })
			if do != "hang" {
				blue.next <- struct{}{}
			}
			leave()
			if err := receive(t, ended, "the client to end"); !errors.Is(err, context.Canceled) {
				t.Errorf("%s, %s: %v", name, do, err)
			}
			if got := receive(t, blue.left, name+", "+do+": the backend to notice"); got != "/"+name {
				t.Errorf("%s left", got)
			}
		}
	}
}

func TestAnAnswerThatBreaksOffIsNotTakenForAWholeOne(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute)
	for name, client := range clients(t) {
		resp, err := client.Do(get(t, h.url("/"), "break"))
		if err != nil {
			continue // the head itself did not come: that is no whole answer either
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("%s: %d %q and no error", name, resp.StatusCode, body)
		}
		again, err := client.Do(get(t, h.url("/"), ""))
		if err != nil || again.StatusCode != 200 {
			t.Errorf("%s: the next request: %v %v", name, again, err)
			continue
		}
		again.Body.Close()
	}
}

func TestAWebSocketIsATunnelBothWays(t *testing.T) {
	t.Parallel()
	for _, service := range []string{"blue", "ws blue"} {
		h := serve(t, strings.Replace(oneRoute, "\nblue\n", "\n"+service+"\n", 1))
		conn, err := net.Dial("tcp", h.gatewayAddress(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, "GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Do: websocket\r\n\r\n")
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 101 || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") ||
			resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Fatal(resp, err)
		}
		// What the backend said at once, in one packet with its head, is not lost.
		for _, want := range []string{"welcome\n", "HELLO\n", "AGAIN\n"} {
			if want != "welcome\n" {
				io.WriteString(conn, strings.ToLower(want))
			}
			if got, err := r.ReadString('\n'); got != want {
				t.Fatalf("%q %v, want %q", got, err, want)
			}
		}
		// The client ends its side; the backend still has a word.
		conn.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(r); string(got) != "bye\n" || err != nil {
			t.Errorf("at the end: %q %v", got, err)
		}
		saw := h.backend("blue").requests(0)[0]
		if saw.Header.Get("Sec-Websocket-Key") == "" || saw.Proto != "HTTP/1.1" || saw.Header.Get("X-Forwarded-For") != "127.0.0.1" {
			t.Errorf("the backend saw %+v", saw)
		}
	}
}

// TestAtOnceIsCountedAsLongAsAnAnswerIsUnderWay: a concurrency limit holds for the whole of a stream, and is given back at its end.
func TestAtOnceIsCountedAsLongAsAnAnswerIsUnderWay(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute, `-- objects.yaml --
---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: at-once}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
  limits: [{name: at-once, concurrency: 2}]
`)
	blue := h.backend("blue")
	client := clients(t)["h1"]
	ends := make(chan int, 2)
	for range 2 {
		go func() {
			resp, err := client.Do(get(t, h.url("/"), "stream 1"))
			if err != nil {
				ends <- 0
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			ends <- resp.StatusCode
		}()
	}
	until(t, "both are under way", func() bool { return blue.count() == 2 })
	resp, err := client.Get(h.url("/"))
	if err != nil || resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("the third: %v %v", resp, err)
	}
	resp.Body.Close()
	for range 2 {
		blue.next <- struct{}{}
	}
	for range 2 {
		if got := receive(t, ends, "the streams to end"); got != 200 {
			t.Errorf("a stream got %d", got)
		}
	}
	until(t, "there is room again", func() bool {
		resp, err := client.Get(h.url("/"))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode == 200
	})
}

func TestManyStreamsOfOneConnectionAreBalancedOneByOne(t *testing.T) {
	t.Parallel()
	h := serve(t, strings.Replace(oneRoute, "\nblue\n", "\nblue: blue green\n", 1))
	client := clients(t)["h2c"]
	var answers [2]atomic.Int64
	ends := make(chan error, 200)
	for range 200 {
		go func() {
			resp, err := client.Get(h.url("/"))
			if err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					err = errors.New(resp.Status)
				} else if resp.Header.Get("X-Backend") == "blue" {
					answers[0].Add(1)
				} else {
					answers[1].Add(1)
				}
			}
			ends <- err
		}()
	}
	for range 200 {
		if err := receive(t, ends, "all answers"); err != nil {
			t.Error(err)
		}
	}
	if a, b := answers[0].Load(), answers[1].Load(); a < 50 || b < 50 {
		t.Errorf("blue %d, green %d", a, b)
	}
}
