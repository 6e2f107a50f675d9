package scenarios

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Backends that misbehave, and what becomes of it.

// rawBackend answers with bytes of its own making. The function is called with each request, and says whether the connection goes on.
func rawBackend(t *testing.T, h *house, name string, answer func(w net.Conn, r *http.Request) bool) *atomic.Int64 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests := new(atomic.Int64)
	var conns sync.WaitGroup
	over := make(chan struct{})
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				go func() { <-over; conn.Close() }()
				conn.SetDeadline(time.Now().Add(patience))
				r := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					requests.Add(1)
					if !answer(conn, req) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); close(over); conns.Wait() })
	b := &backend{name: name, address: netip.MustParseAddrPort(l.Addr().String())}
	h.backends[name] = b
	h.byAddress.Store(b.address, b)
	return requests
}

// badAnswers are what a backend must not send, and what a client gets instead: 0 when it only must not be taken for a whole answer.
var badAnswers = []struct {
	name, text string
	status     int
}{
	{"two different lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", 502},
	{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 0},
	{"no number", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok", 502},
	{"a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", 502},
	{"not HTTP", "SSH-2.0-OpenSSH_9.6\r\n\r\n", 502},
	{"no status", "HTTP/1.1 abc OK\r\n\r\n", 502},
	{"a switch nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nsmuggled", 502},
	{"a name with a space", "HTTP/1.1 200 OK\r\nX y: 1\r\nContent-Length: 2\r\n\r\nok", 502},
	{"a huge head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100<<10) + "\r\nContent-Length: 2\r\n\r\nok", 502},
	{"too many hints", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 5000) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502},
	{"a bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", 0},
	{"an end too early", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", 0},
}

func TestAMalformedAnswerIs502AndPoisonsNothing(t *testing.T) {
	t.Parallel()
	for _, c := range badAnswers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := serve(t, oneRoute)
			rawBackend(t, h, "raw", func(w net.Conn, r *http.Request) bool {
				if r.URL.Path == "/bad" {
					io.WriteString(w, c.text)
					return !strings.HasPrefix(c.name, "an end")
				}
				io.WriteString(w, "HTTP/1.1 200 OK\r\nX-Backend: raw\r\nContent-Length: "+strconv.Itoa(len(r.URL.Path))+"\r\n\r\n"+r.URL.Path)
				return true
			})
			h.endpoints("blue: raw")
			for name, client := range clients(t) {
				resp, err := client.Get(h.url("/bad"))
				var body []byte
				if err == nil {
					body, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				switch {
				case c.status != 0 && (err != nil || resp.StatusCode != c.status):
					t.Errorf("%s: %v %v, want %d", name, resp, err, c.status)
				case c.status == 0 && err == nil && resp.StatusCode == 200 && c.name != "length and chunks":
					t.Errorf("%s: 200 %q, whole", name, body)
				}
				for i := range 3 {
					path := "/good" + strconv.Itoa(i)
					resp, err := client.Get(h.url(path))
					if err != nil {
						t.Fatal(name, err)
					}
					got, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if resp.StatusCode != 200 || string(got) != path {
						t.Errorf("%s: afterwards %s got %d %q", name, path, resp.StatusCode, got)
					}
				}
			}
		})
	}
}

// Bytes behind an answer would be the answer to the next request on that connection, which is another client's (threats 6).
func TestBytesBehindAnAnswerAreNobodysAnswer(t *testing.T) {
	t.Parallel()
	const smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nSMUGGLED"
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + smuggled,
		"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n" + smuggled,
		"HTTP/1.1 304 Not Modified\r\n\r\n" + smuggled,
	} {
		h := serve(t, oneRoute)
		rawBackend(t, h, "raw", func(w net.Conn, r *http.Request) bool {
			if r.URL.Path == "/bad" {
				io.WriteString(w, answer)
				return true
			}
			io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
			return true
		})
		h.endpoints("blue: raw")
		client := clients(t)["h1"]
		for range 3 {
			resp, err := client.Get(h.url("/bad"))
			if err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			for range 3 {
				resp, err := client.Get(h.url("/good"))
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != "good" {
					t.Fatalf("after %.40q: got %d %q", answer, resp.StatusCode, body)
				}
			}
		}
	}
}

func TestADeadPooledConnectionIsNotTheClientsTrouble(t *testing.T) {
	t.Parallel()
	h := serve(t, oneRoute)
	seen := rawBackend(t, h, "raw", func(w net.Conn, r *http.Request) bool {
		// It says nothing of its leaving, and closes.
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		return false
	})
	h.endpoints("blue: raw")
	client := clients(t)["h1"]
	for i := range 50 {
		method, body := "GET", io.Reader(nil)
		if i%2 == 1 {
			method, body = "POST", strings.NewReader("once")
		}
		r, _ := http.NewRequest(method, h.url("/"), body)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		// A POST may meet the close that it could not know of, and must not be sent twice.
		if resp.StatusCode != 200 && (method != "POST" || resp.StatusCode != 502) {
			t.Errorf("%s %d got %d", method, i, resp.StatusCode)
		}
	}
	if n := seen.Load(); n > 50 {
		t.Errorf("%d requests reached the backend, of 50", n)
	}
}
