package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/controllers/source"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane"
)

func checkCommand() *cobra.Command {
	var paths []string
	var showSnapshot, store bool
	settings := dataplane.Defaults()
	c := &cobra.Command{
		Use:   "check -f PATH...",
		Short: "Says per object what kubectl get and its conditions would say, and fails when something is not accepted",
		Long: "check reads files and folders as the API server and Gatehouse would, without serving anything.\n" +
			"It prints a line per object, and for each problem the file and line to change.\n" +
			"Its exit status is 1 when a file is not valid or an object is not accepted.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths = append(paths, args...)
			if len(paths) == 0 {
				return errors.New("name files or folders with -f")
			}
			return check(cmd.OutOrStdout(), paths, settings, store, showSnapshot)
		},
	}
	c.Flags().StringSliceVarP(&paths, "filename", "f", nil, "files or folders (*.yaml, *.yml, recursively)")
	c.Flags().BoolVar(&store, "with-store", false, "there is a store for limits of scope Shared")
	c.Flags().BoolVar(&showSnapshot, "snapshot", false, "print what would be served, as text")
	return c
}

// check prints what is wrong and what would be said. It returns errTold when something is.
func check(out io.Writer, paths []string, settings dataplane.Settings, store, showSnapshot bool) error {
	read := source.NewLoader(paths).Load()
	for _, p := range read.Problems {
		fmt.Fprintln(out, p)
	}
	in := input(settings, store)
	in.Objects = controllers.Sorted(controllers.Files(read))
	built := translate.Build(in)
	statuses := built.Statuses(translate.AllBound(built.Snapshot))
	complaints := controllers.Complaints(statuses, read)
	for _, c := range complaints {
		fmt.Fprintln(out, c)
	}
	fmt.Fprint(out, translate.Text(statuses))
	if showSnapshot {
		fmt.Fprintf(out, "\n%s", built.Snapshot)
	}
	if read.Failed() || len(complaints) > 0 {
		return errTold
	}
	return nil
}

// input is what Build is given beside objects. Store: there is one for what replicas share.
func input(settings dataplane.Settings, store bool) translate.Input {
	return translate.Input{Kinds: controllers.PoliciesWith(store), FilterOrder: dataplane.FilterOrder(), Paths: settings.Paths}
}
