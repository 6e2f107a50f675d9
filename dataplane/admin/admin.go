// Package admin serves what operators look at: health and metrics on one port, and the inside (the snapshot as text, profiles, pages of
// filters) on another one, which is for this machine alone.
//
//	public, :8081           /healthz   200 while the process lives
//	                        /readyz    200, or 503 and why not
//	                        /metrics   for Prometheus
//	local, 127.0.0.1:8082   /snapshot         what is served, in its text form
//	                        /filters/PATH     pages that filters offer
//	                        /debug/pprof/...  profiles, if Options.Pprof
//
// Nothing else is there, nothing changes anything, and no page shows a credential (threats 39). Only GET is answered. A browser must not
// become somebody's way in: requests with an Origin are refused, and a Host that could be a name of an attacker's own (DNS rebinding) is
// refused everywhere but on the two health pages, which say nothing. Text is sent as such, never to be sniffed.
//
// net/http serves here: nothing of this is on the way of a request.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// Options say what is served where.
type Options struct {
	Public string // address:port of health and metrics, such as ":8081"; "": not served
	Local  string // address:port of the inside, such as "127.0.0.1:8082"; "": not served
	// AnyAddress lets Local be an address that others can reach. There is no authentication.
	AnyAddress bool
	// Hosts are further names by which the ports may be asked for, beside IP addresses, localhost and names of Services.
	Hosts []string

	Ready     func() error                      // nil error: ready; else why not. Nil: always ready
	Telemetry *telemetry.Telemetry              // whose metrics are shown
	Snapshot  func() string                     // the snapshot that serves, as text; nil: no page
	Page      func(path string) message.Handler // the page of a filter, by what follows /filters/; nil: none
	Pprof     bool
}

// Admin is the two ports.
type Admin struct {
	options Options
	servers []*http.Server
	bound   [2]net.Addr // public and local
}

// Start binds and serves. It fails when an address cannot be bound, or when that of the inside can be reached by others.
func Start(o Options) (*Admin, error) {
	a := &Admin{options: o}
	if err := a.start(); err != nil {
		return nil, errors.Join(err, a.Shutdown(context.Background()))
	}
	return a, nil
}

func (a *Admin) start() error {
	if a.options.Public != "" {
		l, err := net.Listen("tcp", a.options.Public)
		if err != nil {
			return fmt.Errorf("bind the port of health and metrics: %w", err)
		}
		a.bound[0] = l.Addr()
		a.serve(l, a.public(), 30*time.Second)
	}
	if a.options.Local == "" {
		return nil
	}
	l, err := net.Listen("tcp", a.options.Local)
	if err != nil {
		return fmt.Errorf("bind the admin port: %w", err)
	}
	if !a.options.AnyAddress && !loopback(l.Addr()) {
		return errors.Join(fmt.Errorf("the admin port has no authentication, and %s is not a loopback address", a.options.Local), l.Close())
	}
	a.bound[1] = l.Addr()
	a.serve(l, a.local(), longestProfile+30*time.Second)
	return nil
}

func loopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

func (a *Admin) serve(l net.Listener, h http.Handler, write time.Duration) {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: write, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, DisableGeneralOptionsHandler: true, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	a.servers = append(a.servers, s)
	go s.Serve(l)
}

// Addresses are what was bound; nil: not served.
func (a *Admin) Addresses() (public, local net.Addr) { return a.bound[0], a.bound[1] }

// Shutdown ends both, after what is under way, and at once when ctx ends. Health is asked for until the very end of a drain: it is the
// last thing to stop.
func (a *Admin) Shutdown(ctx context.Context) error {
	var err error
	for _, s := range a.servers {
		if e := s.Shutdown(ctx); e != nil {
			err = errors.Join(err, e, s.Close())
		}
	}
	return err
}

func (a *Admin) public() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("/readyz", a.ready)
	mux.Handle("/metrics", a.known(a.options.Telemetry.Handler()))
	return guarded(mux)
}

func (a *Admin) local() http.Handler {
	mux := http.NewServeMux()
	if a.options.Snapshot != nil {
		mux.HandleFunc("/snapshot", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, a.options.Snapshot()) })
	}
	if a.options.Page != nil {
		mux.HandleFunc("/filters/", a.page)
	}
	if a.options.Pprof {
		mux.HandleFunc("/debug/pprof/{name}", profile)
	}
	return guarded(a.known(mux))
}

func (a *Admin) ready(w http.ResponseWriter, _ *http.Request) {
	if a.options.Ready != nil {
		if err := a.options.Ready(); err != nil {
			text(w, http.StatusServiceUnavailable, err.Error()+"\n")
			return
		}
	}
	text(w, http.StatusOK, "ok\n")
}

// guarded refuses what changes things, and what a page of somebody else makes a browser ask.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case r.Method != http.MethodGet:
			h.Set("Allow", http.MethodGet)
			text(w, http.StatusMethodNotAllowed, "only GET\n")
		case len(r.Header.Values("Origin")) > 0, site != "" && site != "none" && site != "same-origin":
			text(w, http.StatusForbidden, "not for pages of others\n")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// known refuses a Host that an attacker could have in DNS.
func (a *Admin) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.knows(r.Host) {
			text(w, http.StatusForbidden, "not a name of this server; ask by IP address\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *Admin) knows(raw string) bool {
	host, ok := message.ParseHost(raw)
	if !ok {
		return false
	}
	if _, err := netip.ParseAddr(host.Name); err == nil {
		return true
	}
	for _, name := range a.options.Hosts {
		if strings.EqualFold(name, host.Name) {
			return true
		}
	}
	return host.Name == "localhost" || strings.HasSuffix(host.Name, ".svc") || strings.HasSuffix(host.Name, ".svc.cluster.local")
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, s)
}
