package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/controllers/endpoints"
	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/dataplane"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
	"github.com/gatehouse-dev/gatehouse/dataplane/wire/nethttp"
)

// runOptions are the flags of run beside the data plane's settings.
type runOptions struct {
	paths         []string
	config        string
	accessLog     string
	hideQuery     bool
	healthAddress string
	adminAddress  string
	pprof         bool
	otlp          string
	sampling      float64
	verbose       int
}

func runCommand() *cobra.Command {
	settings := dataplane.Defaults()
	settings.LocalEndpoints = true
	var o runOptions
	c := &cobra.Command{
		Use:   "run -f PATH...",
		Short: "Serves the Gateway API objects of files, and follows their changes",
		Long: "run binds each listener's port on its Gateway's spec.addresses (none: all addresses), serves the routes,\n" +
			"and applies changes of the files without dropping a request. A file that breaks keeps what it said last.\n" +
			"Every setting below is a key of --config too, in camelCase: --head-timeout is headTimeout.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.paths = append(o.paths, args...)
			if o.config != "" {
				if err := readConfig(o.config, cmd.Flags()); err != nil {
					return err
				}
			}
			if len(o.paths) == 0 {
				return errors.New("name files or folders with -f")
			}
			if err := settings.Check(); err != nil {
				return err
			}
			return run(cmd.Context(), o, settings, cmd.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringSliceVarP(&o.paths, "filename", "f", nil, "files or folders (*.yaml, *.yml, recursively)")
	f.StringVar(&o.config, "config", "", "a YAML file of settings")
	f.StringVar(&o.accessLog, "access-log", "-", "file for the access log; - is standard output, empty none")
	f.BoolVar(&o.hideQuery, "access-log-hide-query", false, "leave queries out of the access log and traces")
	f.StringVar(&o.healthAddress, "health-address", ":8081", "address of /healthz, /readyz and /metrics")
	f.StringVar(&o.adminAddress, "admin-address", "127.0.0.1:8082", "loopback address of /snapshot and pprof; empty: none")
	f.BoolVar(&o.pprof, "pprof", true, "offer pprof on the admin address")
	f.StringVar(&o.otlp, "otlp-endpoint", "", "OTLP over gRPC for traces, such as http://localhost:4317; empty: as OTEL_EXPORTER_OTLP_ENDPOINT says")
	f.Float64Var(&o.sampling, "trace-ratio", 1, "share of traces without a parent that are kept, 0 to 1")
	f.IntVarP(&o.verbose, "verbose", "v", 0, "1 tells developers more")
	settingsFlags(f, &settings)
	return c
}

// run serves until ctx ends, and then drains.
func run(ctx context.Context, o runOptions, settings dataplane.Settings, stderr io.Writer) error {
	fitIn()
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.Level(-o.verbose)}))
	loader := source.NewLoader(o.paths)
	first := loader.Load()
	told := &teller{log: log}
	told.read(first)
	if first.Failed() {
		return errors.New("the files are not valid; nothing is served")
	}

	seen, closeLog, err := openTelemetry(o, log)
	if err != nil {
		return err
	}
	plane := dataplane.New(dataplane.Options{
		Settings: settings, Engine: nethttp.New(), Transport: nethttp.NewTransport, Telemetry: seen, Log: log,
	})
	pages, err := openAdmin(o, plane, seen)
	if err != nil {
		return err
	}

	// The loop outlives the drain: what is under way must not be sent to pods that have gone meanwhile (cluster 2).
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	loop := controllers.NewLoop(controllers.Options{
		DataPlane: plane, Input: input(settings), Endpoints: endpoints.Options{AllowLocal: settings.LocalEndpoints},
		Told: told.told, Log: logr.FromSlogHandler(log.Handler()),
	})
	loop.Replace(controllers.Files(first))
	go loop.Run(living)
	watching := make(chan error, 1)
	go func() { watching <- loop.Follow(living, loader, told.read) }()
	<-loop.Applied()
	plane.SetReady()
	log.Info("serving", "files", len(o.paths), "objects", len(first.Objects))

	select {
	case <-ctx.Done():
	case err := <-watching:
		log.Error("files are not watched any more; what is served stays", "error", err)
		<-ctx.Done()
	}
	drain(plane, settings, log)
	end()
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(pages.Shutdown(closing), seen.Close(closing), closeLog())
}

// drain leaves as a replica should: not ready first, then patience, then the end of what is under way.
func drain(plane *dataplane.DataPlane, settings dataplane.Settings, log *slog.Logger) {
	log.Info("draining", "delay", settings.DrainDelay, "timeout", settings.DrainTimeout)
	plane.Leave()
	time.Sleep(settings.DrainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), settings.DrainTimeout)
	defer cancel()
	if err := plane.Shutdown(ctx); err != nil {
		log.Error("some requests were cut at the end of the drain", "error", err)
	}
}

func openTelemetry(o runOptions, log *slog.Logger) (*telemetry.Telemetry, func() error, error) {
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
