package contracts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/headers"
)

// WriteTimeout is for writes that make no progress. An answer that says nothing for longer, since its backend has nothing to say, is
// none: only StreamIdle ends that.
func TestContract04_ASilentAnswerIsNoWriteTimeout(t *testing.T) {
	eachWire(t, func(t *testing.T, h2 bool) {
		const timeout = 150 * time.Millisecond
		next := make(chan struct{})
		h := open(t, options{settings: func(s *dataplane.Settings) { s.WriteTimeout, s.IdleTimeout, s.HeadTimeout = timeout, timeout, timeout }})
		h.endpoints("a", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			for i := range 3 {
				fmt.Fprintf(w, "event %d\n", i)
				w.(http.Flusher).Flush()
				<-next
			}
		}).address)
		h.serve(rule("a", "a"))
		res, err := client(t, h2).Get("http://" + h.address() + "/a")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		lines := bufio.NewReader(res.Body)
		for i := range 3 {
			if line, err := lines.ReadString('\n'); line != fmt.Sprintf("event %d\n", i) {
				t.Errorf("event %d: %q %v", i, line, err)
			}
			time.Sleep(3 * timeout) // the silence that is tested
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
			t.Errorf("%q %v", rest, err)
		}
	})
}

// BodyTimeout is for uploads. A stream both ways whose client listens is none, once its answer has begun.
func TestContract04_AClientThatListensIsNoBodyTimeout(t *testing.T) {
	eachWire(t, func(t *testing.T, h2 bool) {
		const timeout = 150 * time.Millisecond
		h := open(t, options{settings: func(s *dataplane.Settings) { s.BodyTimeout = timeout }})
		name := "a"
		if h2 {
			name = "h2c"
		}
		h.endpoints(name, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			lines := bufio.NewScanner(r.Body)
			for lines.Scan() {
				fmt.Fprintf(w, "echo %s\n", lines.Text())
				w.(http.Flusher).Flush()
			}
		}).address)
		h.serve(rule("a", name))
		in, out := io.Pipe()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+h.address()+"/a", in)
		req.Header.Set("Content-Type", "application/grpc")
		go fmt.Fprint(out, "0\n")
		res, err := client(t, h2).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		defer out.Close()
		answers := bufio.NewReader(res.Body)
		for i := range 3 {
			if line, err := answers.ReadString('\n'); line != fmt.Sprintf("echo %d\n", i) {
				t.Fatalf("message %d: %q %v", i, line, err)
			}
			time.Sleep(3 * timeout) // the silence that is tested
			if i < 2 {
				fmt.Fprintf(out, "%d\n", i+1)
			}
		}
	})
}

// A field that a policy or route sets has no twin with an underscore, which many a backend reads as the same.
func TestContract07_AFieldThatARouteSetsHasNoTwin(t *testing.T) {
	var seen http.Header
	h := open(t, options{})
	h.endpoints("a", serveHTTP(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() }).address)
	h.serve(rule("a", "a", with(headers.Config{
		SetRequest: []headers.Field{{Name: "X-User", Value: "nobody"}}, RemoveRequest: []string{"X-Admin-Secret"},
	})))
	h.get("/a", "X_User: root", "x-admin_secret: 1", "X_Other: stays")
	for name := range seen {
		if strings.EqualFold(name, "X_User") || strings.EqualFold(name, "X-Admin_Secret") {
			t.Errorf("%s passes", name)
		}
	}
	if seen.Get("X_other") != "stays" {
		t.Error("a name that is nobody's was dropped")
	}
}
