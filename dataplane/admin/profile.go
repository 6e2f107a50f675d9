package admin

import (
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"time"
)

// longestProfile bounds what one may ask for with ?seconds=.
const longestProfile = time.Minute

// profile serves what `go tool pprof` asks for. net/http/pprof is not used: importing it puts profiles on every server that serves
// http.DefaultServeMux, and its command line page shows flags.
func profile(w http.ResponseWriter, r *http.Request) {
	switch name := r.PathValue("name"); name {
	case "profile":
		during(w, r, func() error { return pprof.StartCPUProfile(w) }, pprof.StopCPUProfile)
	case "trace":
		during(w, r, func() error { return trace.Start(w) }, trace.Stop)
	default:
		p := pprof.Lookup(name)
		if p == nil {
			http.NotFound(w, r)
			return
		}
		debug, _ := strconv.Atoi(r.URL.Query().Get("debug"))
		if debug > 0 {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		} else {
			w.Header().Set("Content-Type", "application/octet-stream")
		}
		p.WriteTo(w, debug)
	}
}

// during records until the time is over, or whoever asked has left.
func during(w http.ResponseWriter, r *http.Request, start func() error, stop func()) {
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
	if err != nil || !(seconds > 0) {
		seconds = 30
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := start(); err != nil { // another one is running
		text(w, http.StatusConflict, err.Error()+"\n")
		return
	}
	defer stop()
	t := time.NewTimer(time.Duration(min(seconds, longestProfile.Seconds()) * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}
