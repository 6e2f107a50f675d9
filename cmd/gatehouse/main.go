// Command gatehouse is a Kubernetes Gateway API controller with its data plane in the same process.
//
// This package is flags and wiring only: it is the one place that knows both houses, controllers and dataplane.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version and commit are set by the linker.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	if !errors.Is(err, errTold) {
		fmt.Fprintln(os.Stderr, "gatehouse:", err)
	}
	os.Exit(1)
}

// errTold ends the process with a non-zero status when everything has been said already.
var errTold = errors.New("told")

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "gatehouse",
		Short:         "A load balancer and API gateway that speaks the Kubernetes Gateway API",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version + " (" + commit + ")",
	}
	root.AddCommand(runCommand(), controllerCommand(), checkCommand())
	return root
}
