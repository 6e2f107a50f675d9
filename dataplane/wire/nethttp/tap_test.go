package nethttp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// read gives bytes to a tap in pieces and tells what it made of them.
func readBy(content []byte, piece int) string {
	t := &tap{limits: &message.Limits{MaxHeadBytes: 2000, MaxFields: 20, MaxURIBytes: 500}}
	for b := content; len(b) > 0; {
		n := min(piece, len(b))
		t.feed(b[:n])
		b = b[n:]
	}
	var out strings.Builder
	for _, h := range t.heads {
		if h.reason != message.ReasonNone { // how much of it was read when it was refused depends on the pieces
			fmt.Fprintln(&out, h.reason)
			continue
		}
		fmt.Fprintf(&out, "%s %q %q %d %q %s %v\n", h.method, h.target, h.host, h.length, h.upgrade, h.reason, h.fields)
	}
	fmt.Fprintf(&out, "%d of %d bodies, where %d, bad %v", t.ended, t.seen, t.where, t.bad.Load())
	return out.String()
}

func seeds(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-T: 1\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, x-a\r\nUpgrade: WebSocket\r\nX-A: 1\r\nCookie: a\r\nCookie: b\r\n\r\n",
		"\r\nGET http://a/ HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\n\n",
	} {
		f.Add([]byte(s))
	}
}

func FuzzHowBytesArriveDoesNotMatter(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		whole := readBy(content, max(len(content), 1))
		for _, n := range []int{1, 2, 7} {
			if got := readBy(content, n); got != whole {
				t.Errorf("in pieces of %d\n%s\nwhole\n%s", n, got, whole)
			}
		}
	})
}

// What the tap lets through, net/http must read in the same way: where it is stricter, it refuses.
func FuzzTheTapAndNetHTTPReadTheSame(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		tp := &tap{limits: &message.Limits{}}
		tp.feed(content)
		br := bufio.NewReader(bytes.NewReader(content))
		for i := 0; ; i++ {
			h, number := tp.next()
			r, err := http.ReadRequest(br)
			if h == nil || h.reason != message.ReasonNone || err != nil {
				return
			}
			if r.Method != h.method || r.RequestURI != h.target || (h.length >= 0 && r.ContentLength != h.length) || (h.length < 0) != (r.ContentLength < 0) {
				t.Fatalf("request %d: tap %s %q %d, net/http %s %q %d", i, h.method, h.target, h.length, r.Method, r.RequestURI, r.ContentLength)
			}
			_, err = io.Copy(io.Discard, r.Body)
			if ended := tp.atHand(number); err != nil || !ended {
				if err == nil && !tp.bad.Load() {
					t.Fatalf("request %d: net/http has read its body, the tap has not", i)
				}
				return
			}
		}
	})
}
