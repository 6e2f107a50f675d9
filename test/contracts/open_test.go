//go:build open

// What is promised and not kept yet; `go test -tags open ./test/contracts` shows it. A test moves to its friends when it is green.

package contracts

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
)

// A client whose body nobody reads is noticed when it leaves, too: its backend answered without asking for the body, and says nothing
// more.
func TestContract03_AClientThatLeavesIsNoticedWhileNobodyReadsItsBody(t *testing.T) {
	gone := make(chan struct{}, 2)
	h := open(t, options{})
	h.endpoints("a", serveRaw(t, func(nc net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.URL.Path == "/a/expects" {
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
			r.ReadByte()
		}
		gone <- struct{}{}
	}))
	h.serve(rule("a", "a"))

	c := h.dial()
	c.send("PUT /a/expects HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if line, err := c.r.ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Fatal(line, err)
	}
	c.close()
	closed(t, "the backend to hear that the client has left", gone)
	h.tally.last(t, 1)
}
