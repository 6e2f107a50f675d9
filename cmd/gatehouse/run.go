package main

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/controllers/endpoints"
	replicas "github.com/gatehouse-dev/gatehouse/controllers/members"
	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/dataplane"
)

// runOptions are the flags of run beside those of every process.
type runOptions struct {
	processOptions
	paths   []string
	peers   []string
	keys    string
	verbose int
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
			if len(o.paths) == 0 {
				return errors.New("name files or folders with -f")
			}
			if err := o.read(cmd.Flags(), &settings); err != nil {
				return err
			}
			return run(cmd.Context(), o, settings, cmd.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringSliceVarP(&o.paths, "filename", "f", nil, "files or folders (*.yaml, *.yml, recursively)")
	f.StringVar(&o.keys, "keys", "", "file of keys that several processes share, in base64 on a line each, the one that seals first; empty: random ones")
	f.StringSliceVar(&o.peers, "peers", nil, "the processes that serve the same files, among which limits of scope Divided are divided: their number, or host:port of the health of each, this one's too, by commas; empty: this one alone")
	f.IntVarP(&o.verbose, "verbose", "v", 0, "1 tells developers more")
	o.flags(f)
	settingsFlags(f, &settings)
	return c
}

// run serves until ctx ends, and then drains.
func run(ctx context.Context, o runOptions, settings dataplane.Settings, stderr io.Writer) error {
	fitIn("/sys/fs/cgroup")
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.Level(-o.verbose)}))
	loader := source.NewLoader(o.paths)
	first := loader.Load()
	told := &teller{log: log}
	told.read(first)
	if first.Failed() {
		return errors.New("the files are not valid; nothing is served")
	}

	members, addresses, err := peers(o.peers)
	if err != nil {
		return err
	}
	p, err := newProcess(o.processOptions, settings, log)
	if err != nil {
		return err
	}
	if err := p.open(p.plane.Ready); err != nil {
		return err
	}

	// The loop outlives the drain: what is under way must not be sent to pods that have gone meanwhile (cluster 2).
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	if o.keys != "" {
		if err := shareKeys(living, o.keys, p.plane.SetKeys, log); err != nil {
			return errors.Join(err, p.close())
		}
	}
	p.plane.SetMembers(max(members, len(addresses)))
	if len(addresses) > 0 {
		watched := &replicas.Peers{Addresses: addresses, Told: p.plane.SetMembers, Log: logr.FromSlogHandler(log.Handler())}
		go watched.Run(living)
	}
	loop := controllers.NewLoop(controllers.Options{
		DataPlane: p.plane, Input: input(settings, o.store.there()), Endpoints: endpoints.Options{AllowLocal: settings.LocalEndpoints},
		Told: told.told, Log: logr.FromSlogHandler(log.Handler()),
	})
	loop.Replace(controllers.Files(first))
	go loop.Run(living)
	watching := make(chan error, 1)
	go func() { watching <- loop.Follow(living, loader, told.read) }()
	<-loop.Applied()
	p.plane.SetReady()
	log.Info("serving", "files", len(o.paths), "objects", len(first.Objects))

	select {
	case <-ctx.Done():
	case err := <-watching:
		log.Error("files are not watched any more; what is served stays", "error", err)
		<-ctx.Done()
	}
	p.drain(func() {})
	end()
	return p.close()
}
