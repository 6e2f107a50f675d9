//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/hack/kube"
)

const (
	system = "gatehouse-system" // the release's namespace
	shop   = "e2e"              // that of the Gateway and the backends that are under load
)

var (
	cluster *kube.Cluster
	api     client.WithWatch
	rate    = flag.Int("rate", 200, "requests per second of the load")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if squatting() {
		return
	}
	go machine.watch()
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// enter begins anew inside the cluster's network, and connects to its API server.
func enter() (err error) {
	if cluster, err = kube.Enter(context.Background()); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", cmp.Or(os.Getenv("KUBECONFIG"), cluster.Kubeconfig))
	if err != nil {
		return err
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	if err := gwv1.Install(scheme); err != nil {
		return err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	api, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	return err
}
