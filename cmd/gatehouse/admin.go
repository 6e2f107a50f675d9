package main

import (
	"context"
	"io"
	"net/http"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

type pages struct{ s []*http.Server }

func (p *pages) Shutdown(ctx context.Context) error {
	for _, s := range p.s {
		s.Shutdown(ctx)
	}
	return nil
}

func openAdmin(o runOptions, plane *dataplane.DataPlane, seen *telemetry.Telemetry) (*pages, error) {
	m := http.NewServeMux()
	m.Handle("/metrics", seen.Handler())
	m.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if !plane.Ready() {
			w.WriteHeader(503)
		}
	})
	m2 := http.NewServeMux()
	m2.HandleFunc("/snapshot", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, plane.Text()) })
	p := &pages{[]*http.Server{{Addr: o.healthAddress, Handler: m}, {Addr: o.adminAddress, Handler: m2}}}
	for _, s := range p.s {
		go s.ListenAndServe()
	}
	return p, nil
}
