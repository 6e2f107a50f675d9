package wiretest

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// framer is a client of HTTP/2 that may send anything.
type framer struct {
	*http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
}

func newFramer(t testing.TB, nc net.Conn) *framer {
	t.Helper()
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := &framer{Framer: http2.NewFramer(nc, nc)}
	f.enc = hpack.NewEncoder(&f.buf)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.AllowIllegalWrites = true
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *framer) head(id uint32, end bool, fields ...string) {
	f.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: end})
}

// result is a stream's status, or its error.
func (f *framer) result(t testing.TB) string {
	t.Helper()
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch fr := fr.(type) {
		case *http2.MetaHeadersFrame:
			return fr.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return fr.ErrCode.String()
		case *http2.GoAwayFrame:
			return "GOAWAY " + fr.ErrCode.String()
		}
	}
}

// frames: heads of HTTP/2 that no client may send reach nobody.
func frames(t *testing.T, e message.Engine) {
	with := func(fields ...string) []string {
		return append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}, fields...)
	}
	for _, c := range []struct {
		name   string
		fields []string
		data   string
		want   string // the alternatives, by |
	}{
		{"a connection field", with("connection", "close"), "", "PROTOCOL_ERROR|400"},
		{"transfer-encoding", with("transfer-encoding", "chunked"), "", "PROTOCOL_ERROR|400"},
		{"TE that is not trailers", with("te", "gzip"), "", "PROTOCOL_ERROR|400"},
		{"a name in capitals", with("X-A", "b"), "", "PROTOCOL_ERROR|400"},
		{"a line break in a value", with("x-a", "b\r\nx: y"), "", "PROTOCOL_ERROR|400"},
		{"a space in a name", with("x a", "b"), "", "PROTOCOL_ERROR|400"},
		{"Host beside another authority", with("host", "b"), "", "400"},
		{"two Hosts", with("host", "a", "host", "a"), "", "400"},
		{"userinfo", []string{":method", "GET", ":scheme", "http", ":authority", "u@a", ":path", "/"}, "", "PROTOCOL_ERROR|400"},
		{"a path without slash", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "pkg.Svc/M"}, "", "PROTOCOL_ERROR|400"},
		{"a fragment", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a#b"}, "", "400"},
		{"no authority", []string{":method", "GET", ":scheme", "http", ":path", "/"}, "", "400"},
		{"a pseudo-header twice", with(":path", "/b"), "", "PROTOCOL_ERROR"},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "a:1"}, "", "405"},
		{"extended CONNECT", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/"}, "", "PROTOCOL_ERROR|405"},
		{"Content-Length 0 with data", with("content-length", "0"), "hello", "PROTOCOL_ERROR|400|200"},
		{"less announced than sent", with("content-length", "2"), "hello", "PROTOCOL_ERROR|400"},
		{"a head over the limit", with("x-long", strings.Repeat("a", 9<<10)), "", "431"},
		{"many fields", with(strings.Split(strings.Repeat("x-a,b,", 50)+"x-a,b", ",")...), "", "431"},
		{"very many fields", with(strings.Split(strings.Repeat("x-a,b,", 1000)+"x-a,b", ",")...), "", "431|GOAWAY|ENHANCE_YOUR_CALM|closed"},
		{"many crumbs", with(strings.Split(strings.Repeat("cookie,a,", 1000)+"cookie,a", ",")...), "", "431|GOAWAY|ENHANCE_YOUR_CALM|closed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spy := NewSpy(func(ex *message.Exchange) {
				if content, err := ReadAll(ex.Request.Body); err == nil && content != "" || ex.Request.Header.Has("X-A") {
					t.Errorf("Serve saw %s", Dump(ex))
				}
				ex.Response = Text(200, "ok")
			})
			addr, _ := Listen(t, e, spy, Limits())
			f := newFramer(t, dial(t, addr))
			f.head(1, c.data == "", c.fields...)
			if c.data != "" {
				f.WriteData(1, true, []byte(c.data))
			}
			got := f.result(t)
			if !strings.Contains("|"+c.want+"|", "|"+strings.Fields(got)[0]+"|") {
				t.Errorf("%s, want %s", got, c.want)
			}
			if served := spy.Served(); served > 0 && c.data == "" {
				t.Errorf("%d exchanges reached Serve", served)
			}
		})
	}
}
