package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/admin"
	"github.com/gatehouse-dev/gatehouse/dataplane/store"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
)

// processOptions are flags of every process that serves, beside the data plane's settings.
type processOptions struct {
	config        string
	accessLog     string
	hideQuery     bool
	healthAddress string
	adminAddress  string
	pprof         bool
	otlp          string
	sampling      float64
	store         storeOptions
}

func (o *processOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.config, "config", "", "a YAML file of settings")
	f.StringVar(&o.accessLog, "access-log", "-", "file for the access log; - is standard output, empty none")
	f.BoolVar(&o.hideQuery, "access-log-hide-query", false, "leave queries out of the access log and traces")
	f.StringVar(&o.healthAddress, "health-address", ":8081", "address of /healthz, /readyz and /metrics")
	f.StringVar(&o.adminAddress, "admin-address", "127.0.0.1:8082", "loopback address of /snapshot and pprof; empty: none")
	f.BoolVar(&o.pprof, "pprof", true, "offer pprof on the admin address")
	f.StringVar(&o.otlp, "otlp-endpoint", "", "OTLP over gRPC for traces, such as http://localhost:4317; empty: as OTEL_EXPORTER_OTLP_ENDPOINT says")
	f.Float64Var(&o.sampling, "trace-ratio", 1, "share of traces without a parent that are kept, 0 to 1")
	o.store.flags(f)
}

// read takes what --config says, and refuses settings that make no sense.
func (o *processOptions) read(f *pflag.FlagSet, settings *dataplane.Settings) error {
	if o.config != "" {
		if err := readConfig(o.config, f); err != nil {
			return err
		}
	}
	return settings.Check()
}

// process is what serves, wherever its objects come from: the data plane, and what is seen of it.
type process struct {
	options  processOptions
	settings dataplane.Settings
	log      *slog.Logger
	plane    *dataplane.DataPlane
	seen     *telemetry.Telemetry
	store    *store.Store // nil: none was named
	closeLog func() error
	pages    *admin.Admin
}

func newProcess(o processOptions, settings dataplane.Settings, log *slog.Logger) (*process, error) {
	seen, closeLog, err := openTelemetry(o, log)
	if err != nil {
		return nil, err
	}
	p := &process{options: o, settings: settings, log: log, seen: seen, closeLog: closeLog}
	if p.store, err = o.store.open(seen, log); err != nil {
		return nil, err
	}
	if p.store != nil {
		greet(p.store, log)
	}
	p.plane = dataplane.New(dataplane.Options{
		Settings: settings, Engine: nethttp.New(), Transport: nethttp.NewTransport, Telemetry: seen, Store: p.store, Log: log,
	})
	return p, nil
}

// open serves health and metrics, which say "not ready" until the first snapshot serves, and the inside.
func (p *process) open(ready func() error) (err error) {
	o := p.options
	p.pages, err = admin.Start(admin.Options{
		Public: o.healthAddress, Local: o.adminAddress, Ready: ready, Telemetry: p.seen, Snapshot: p.plane.Text, Page: p.plane.Page, Pprof: o.pprof,
	})
	return err
}

// drain leaves as a replica should: not ready first, then patience, then the end of what is under way. Meanwhile, which is run during
// the patience, is what others should not wait for so long.
func (p *process) drain(meanwhile func()) {
	p.log.Info("draining", "delay", p.settings.DrainDelay, "timeout", p.settings.DrainTimeout)
	p.plane.Leave()
	patience := time.After(p.settings.DrainDelay)
	meanwhile()
	<-patience
	ctx, cancel := context.WithTimeout(context.Background(), p.settings.DrainTimeout)
	defer cancel()
	if err := p.plane.Shutdown(ctx); err != nil {
		p.log.Error("some requests were cut at the end of the drain", "error", err)
	}
}

// close ends what is left after the drain. Health is asked for until the very end.
func (p *process) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var stored error
	if p.store != nil {
		stored = p.store.Close(ctx)
	}
	return errors.Join(p.pages.Shutdown(ctx), stored, p.seen.Close(ctx), p.closeLog())
}

func openTelemetry(o processOptions, log *slog.Logger) (*telemetry.Telemetry, func() error, error) {
	options := telemetry.Options{
		HideQuery: o.hideQuery, Version: version, Commit: commit, Process: true, Errors: log,
		Traces: telemetry.TraceOptions{Endpoint: o.otlp, UseEnvironment: true, Ratio: o.sampling},
	}
	closeLog := func() error { return nil }
	switch o.accessLog {
	case "":
	case "-":
		options.Log = os.Stdout
	default:
		f, err := os.OpenFile(o.accessLog, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("access log: %w", err)
		}
		options.Log, closeLog = f, f.Close
	}
	seen, err := telemetry.New(options)
	return seen, closeLog, err
}
