package scenarios

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// backend is a fake one: a real server on loopback that speaks HTTP/1.1 and HTTP/2 in the clear, remembers what it was asked, and
// answers with it as JSON. What else it does, the request says in X-Do: words by semicolons.
//
//	status 503      answers with that status
//	fail 2 503      the first two requests that say so get 503
//	header a: b     a field of the answer
//	inform 103      a 1xx answer first, with "Link: </style.css>"
//	delay 300ms     waits, head and all
//	hang            does not answer until the client leaves
//	close           closes the connection instead of an answer
//	break           announces more than it sends, and closes
//	bytes 1000      answers with that many bytes
//	stream 3        as many events, each flushed, and the next once the test says so (backend.next)
//	trailer a: b    a trailer field
//	early 413       answers without reading the body
type backend struct {
	name    string
	address netip.AddrPort
	server  *http.Server
	next    chan struct{}
	left    chan string // a request whose client left while it hung

	mu    sync.Mutex // guards what follows
	saw   []seen
	fails map[string]int
}

// seen is a request as a backend saw it.
type seen struct {
	Backend string      `json:"backend"`
	Method  string      `json:"method"`
	Target  string      `json:"target"`
	Host    string      `json:"host"`
	Proto   string      `json:"proto"`
	Header  http.Header `json:"header"`
	Body    string      `json:"body,omitempty"` // its begin
	Bytes   int64       `json:"bytes"`
	Trailer http.Header `json:"trailer,omitempty"`
}

func newBackend(t testing.TB, name string) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{
		name: name, address: netip.MustParseAddrPort(l.Addr().String()),
		fails: map[string]int{}, next: make(chan struct{}), left: make(chan string, 100),
	}
	b.server = &http.Server{Handler: b, Protocols: new(http.Protocols), ReadHeaderTimeout: 10 * time.Second}
	b.server.Protocols.SetHTTP1(true)
	b.server.Protocols.SetUnencryptedHTTP2(true)
	b.server.DisableGeneralOptionsHandler = true
	done := make(chan struct{})
	go func() { defer close(done); b.server.Serve(l) }()
	t.Cleanup(func() { b.server.Close(); <-done })
	return b
}

// refusing is a backend on whose port nobody listens.
func refusing(t testing.TB, name string) *backend {
	t.Helper()
	return &backend{name: name, address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))}
}

// requests are those that came since the n-th.
func (b *backend) requests(from int) []seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]seen(nil), b.saw[from:]...)
}

func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.saw)
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	do := orders(r.Header.Get("X-Do"))
	s := seen{Backend: b.name, Method: r.Method, Target: r.RequestURI, Host: r.Host, Proto: r.Proto, Header: r.Header}
	_, early := do["early"]
	i := b.note(s)
	if _, upgrade := do["websocket"]; upgrade || r.Header.Get("Upgrade") == "websocket" {
		b.upgrade(w, r)
		return
	}
	if !early {
		s.Body, s.Bytes = drain(r.Body)
		s.Trailer = r.Trailer
		b.mu.Lock()
		b.saw[i] = s
		b.mu.Unlock()
	}
	if !b.before(w, r, do) {
		return
	}
	b.answer(w, r, s, do)
}

func (b *backend) note(s seen) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saw = append(b.saw, s)
	return len(b.saw) - 1
}

// orders are the words of X-Do.
func orders(text string) map[string]string {
	do := map[string]string{}
	for _, word := range strings.Split(text, ";") {
		verb, rest, _ := strings.Cut(strings.TrimSpace(word), " ")
		do[verb] = rest
	}
	return do
}

func drain(body io.Reader) (begin string, n int64) {
	var b bytes.Buffer
	n, _ = io.Copy(&b, io.LimitReader(body, 4096))
	more, _ := io.Copy(io.Discard, body)
	return b.String(), n + more
}

// before does what is not an answer; false if there is to be none.
func (b *backend) before(w http.ResponseWriter, r *http.Request, do map[string]string) bool {
	if code, ok := do["inform"]; ok {
		n, _ := strconv.Atoi(code)
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(n)
		w.Header().Del("Link")
	}
	if d, err := time.ParseDuration(do["delay"]); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			b.left <- r.RequestURI
		}
	}
	if _, ok := do["hang"]; ok {
		<-r.Context().Done()
		b.left <- r.RequestURI
		return false
	}
	if _, ok := do["close"]; ok {
		panic(http.ErrAbortHandler)
	}
	if _, ok := do["break"]; ok {
		w.Header().Set("Content-Length", "1000")
		w.Header().Set("X-Backend", b.name)
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return true
}

func (b *backend) answer(w http.ResponseWriter, r *http.Request, s seen, do map[string]string) {
	status := b.status(r, do)
	w.Header().Set("X-Backend", b.name)
	if field, ok := do["header"]; ok {
		name, value, _ := strings.Cut(field, ": ")
		w.Header().Add(name, value)
	}
	trailer, value, trailed := strings.Cut(do["trailer"], ": ")
	if trailed {
		w.Header().Set("Trailer", trailer)
	}
	switch {
	case do["bytes"] != "":
		n, _ := strconv.Atoi(do["bytes"])
		w.Header().Set("Content-Length", do["bytes"])
		w.WriteHeader(status)
		io.Copy(w, io.LimitReader(endless{}, int64(n)))
	case do["stream"] != "":
		b.stream(w, r, do["stream"])
	case status == http.StatusNoContent || status == http.StatusNotModified || status < 200:
		w.WriteHeader(status)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.Encode(s)
	}
	if trailed {
		w.Header().Set(trailer, value)
	}
}

// status is the one to answer with: "fail" counts per target, so that tests do not meet.
func (b *backend) status(r *http.Request, do map[string]string) int {
	for _, verb := range []string{"status", "early"} {
		if n, err := strconv.Atoi(do[verb]); err == nil {
			return n
		}
	}
	var times, status int
	if n, _ := fmt.Sscanf(do["fail"], "%d %d", &times, &status); n == 2 {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.fails[r.RequestURI] < times {
			b.fails[r.RequestURI]++
			return status
		}
	}
	return http.StatusOK
}

// stream sends events, each when the test asks for it.
func (b *backend) stream(w http.ResponseWriter, r *http.Request, times string) {
	n, _ := strconv.Atoi(times)
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for i := range n {
		select {
		case <-b.next:
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			b.left <- r.RequestURI
			return
		}
	}
}

// upgrade becomes a tunnel that gives lines back, in capitals, until the client ends.
func (b *backend) upgrade(w http.ResponseWriter, r *http.Request) {
	if do := orders(r.Header.Get("X-Do")); do["status"] != "" {
		w.Header().Set("X-Backend", b.name)
		w.WriteHeader(b.status(r, do))
		return
	}
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Backend: "+b.name+"\r\n"+
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nwelcome\n")
	lines := bufio.NewScanner(rw)
	for lines.Scan() {
		fmt.Fprintln(conn, strings.ToUpper(lines.Text()))
	}
	io.WriteString(conn, "bye\n")
}

// endless is a reader of as many bytes as one wants.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
