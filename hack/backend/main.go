// Command backend is the small server that the samples route to: it says who it is and what it was asked, over HTTP/1.1 and HTTP/2 in
// the clear, so that one sees with curl where a request went.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"strconv"
	"time"
)

func main() {
	name := flag.String("name", "backend", "who it says it is")
	address := flag.String("listen", "127.0.0.1:9001", "address")
	flag.Parse()

	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Addr: *address, Handler: handler(*name), Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}

// handler answers with what it saw. ?status=503 chooses the status, ?delay=1s waits, ?bytes=1000 answers with that many bytes.
func handler(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if d, err := time.ParseDuration(q.Get("delay")); err == nil && d > 0 {
			time.Sleep(min(d, 30*time.Second))
		}
		status := http.StatusOK
		if n, err := strconv.Atoi(q.Get("status")); err == nil && n >= 200 && n <= 599 {
			status = n
		}
		w.Header().Set("X-Backend", name)
		if n, err := strconv.Atoi(q.Get("bytes")); err == nil && n >= 0 && n <= 64<<20 {
			w.Header().Set("Content-Length", strconv.Itoa(n))
			w.WriteHeader(status)
			fmt.Fprintf(w, "%*s", n, "")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.Encode(struct {
			Backend string      `json:"backend"`
			Method  string      `json:"method"`
			Host    string      `json:"host"`
			Target  string      `json:"target"`
			Proto   string      `json:"proto"`
			Header  http.Header `json:"header"`
		}{name, r.Method, r.Host, r.RequestURI, r.Proto, r.Header})
	})
}
