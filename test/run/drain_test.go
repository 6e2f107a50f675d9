package run

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/process"
)

// SIGTERM under load: who is being answered is answered, who asks again is told to go elsewhere first, nobody is cut.
func TestASignalDrainsWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	w := samples(t)
	p := start(t, "-f", w.dir, "--drain-delay=1s", "--drain-timeout=20s")
	l := newLoad(t, w, "/", 4)

	// A connection that has asked once and is idle since.
	idle, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.port))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	idle.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(idle, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	r := bufio.NewReader(idle)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 || resp.Close {
		t.Fatal(resp, err)
	}
	io.Copy(io.Discard, resp.Body)

	// Requests whose answers come long after the signal, over both protocols.
	slow := make(chan error, 2)
	for _, two := range []bool{false, true} {
		go func() {
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetHTTP1(!two)
			transport.Protocols.SetUnencryptedHTTP2(two)
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get(w.url("/?delay=3s&bytes=100000"))
			if err == nil {
				var n int64
				n, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err == nil && (n != 100000 || resp.StatusCode != 200) {
					err = fmt.Errorf("%s, %d bytes", resp.Status, n)
				}
			}
			slow <- err
		}()
	}
	process.Until(t, "the slow requests are under way", func() bool { return p.Metric("gatehouse_requests_in_flight", "") >= 2 && l.requests.Load() > 100 })

	l.leaving.Store(true)
	closes := l.closes.Load()
	p.Signal(syscall.SIGTERM)
	p.Says("draining")
	process.Until(t, "it is not ready any more", func() bool {
		resp, err := http.Get("http://" + p.Health + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 503
	})
	for range 2 {
		select {
		case err := <-slow:
			if err != nil {
				t.Errorf("a request under way at the signal: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("a request under way at the signal has no answer")
		}
	}
	if code := p.Exits(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	l.end()
	if l.closes.Load() == closes {
		t.Error("no client was told to leave")
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection ended with %v", err)
	}
}

func TestASignalEndsAGatewayWithoutTrafficAtOnce(t *testing.T) {
	t.Parallel()
	w := samples(t)
	p := start(t, "-f", w.dir, "--drain-delay=0s", "--drain-timeout=60s")
	ask(t, noRedirects, w.url("/"))
	noRedirects.CloseIdleConnections()
	p.Signal(syscall.SIGTERM)
	if code := p.Exits(); code != 0 { // far sooner than the drain's timeout
		t.Errorf("exit status %d", code)
	}
}
