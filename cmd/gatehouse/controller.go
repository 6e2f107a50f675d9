package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	runtimelog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/gatehouse-dev/gatehouse/controllers"
	"github.com/gatehouse-dev/gatehouse/controllers/endpoints"
	"github.com/gatehouse-dev/gatehouse/controllers/infra"
	"github.com/gatehouse-dev/gatehouse/controllers/status"
	"github.com/gatehouse-dev/gatehouse/dataplane"
)

// controllerOptions are the flags of controller beside those of every process.
type controllerOptions struct {
	processOptions
	kubeconfig string
	logFormat  string
	verbose    int

	namespace, pod, podUID string
	exposure               string
	owner, record, lease   string
	keys                   string
	members                string
	selector               map[string]string
	clusterDomain          string

	service           infra.ServiceOptions
	serviceType       string
	trafficPolicy     string
	ipFamilyPolicy    string
	addressPool       prefixes
	addressAnnotation map[string]string
}

func controllerCommand() *cobra.Command {
	settings := dataplane.Defaults() // its endpoints are never those of this machine
	var o controllerOptions
	c := &cobra.Command{
		Use:   "controller",
		Short: "Serves the Gateway API objects of the cluster that it runs in, as one of several replicas",
		Long: "controller is what the chart runs. It serves the Gateways of its classes, follows every change, and takes part in\n" +
			"electing the replica that writes statuses and Services. An API server that is away changes nothing for traffic.\n" +
			"Every setting below is a key of --config too, in camelCase: --head-timeout is headTimeout.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.read(cmd.Flags(), &settings); err != nil {
				return err
			}
			if err := o.check(); err != nil {
				return err
			}
			return runController(cmd.Context(), o, settings, cmd.ErrOrStderr())
		},
	}
	f := c.Flags()
	o.clusterFlags(f)
	o.serviceFlags(f)
	o.flags(f)
	settingsFlags(f, &settings)
	return c
}

func (o *controllerOptions) clusterFlags(f *pflag.FlagSet) {
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server; empty: as a pod does")
	f.StringVar(&o.logFormat, "log-format", "json", "json or text")
	f.IntVarP(&o.verbose, "verbose", "v", 0, "1 tells developers more")
	f.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "of this release; by default $POD_NAMESPACE")
	f.StringVar(&o.pod, "pod-name", os.Getenv("POD_NAME"), "name of this replica's pod; by default $POD_NAME")
	f.StringVar(&o.podUID, "pod-uid", os.Getenv("POD_UID"), "UID of this replica's pod; by default $POD_UID")
	f.StringVar(&o.exposure, "exposure", "service", "service: a Service per Gateway; host: listeners bind on the nodes")
	f.StringVar(&o.owner, "owner", "gatehouse-owner", "ConfigMap of the release, which owns what is made in its namespace")
	f.StringVar(&o.record, "record", "", "ConfigMap in which pod ports are recorded; by default the owner's name with -pod-ports")
	f.StringVar(&o.lease, "lease", "", "Lease of the leader; by default the owner's name with -leader")
	f.StringVar(&o.keys, "keys-secret", "gatehouse-keys", "Secret of the keys of TLS tickets and cookies, which the leader makes and rotates; empty: each replica has its own")
	f.StringVar(&o.members, "members", "gatehouse-members", "headless Service over the replicas' pods")
	f.StringToStringVar(&o.selector, "selector", map[string]string{"app.kubernetes.io/name": "gatehouse"}, "labels of the replicas' pods")
	f.StringVar(&o.clusterDomain, "cluster-domain", "", "DNS domain of the cluster; by default that of the pod's resolv.conf")
}

func (o *controllerOptions) serviceFlags(f *pflag.FlagSet) {
	f.StringVar(&o.serviceType, "service-type", "LoadBalancer", "of the Gateways' Services: LoadBalancer, NodePort or ClusterIP")
	f.StringToStringVar(&o.service.Annotations, "service-annotations", nil, "of all Gateways' Services; a Gateway's own win")
	f.StringToStringVar(&o.service.Labels, "service-labels", nil, "of all Gateways' Services; a Gateway's own win")
	f.StringVar(&o.trafficPolicy, "external-traffic-policy", "", "of the Gateways' Services: Cluster or Local")
	f.StringVar(&o.service.LoadBalancerClass, "load-balancer-class", "", "of the Gateways' Services")
	f.StringVar(&o.ipFamilyPolicy, "ip-family-policy", "", "of the Gateways' Services: SingleStack, PreferDualStack or RequireDualStack")
	f.Var(&o.addressPool, "address-pool", "addresses and networks that Gateways may ask for, by commas; empty: none")
	f.StringToStringVar(&o.addressAnnotation, "address-annotations", nil,
		"how addresses that are asked for get to the load balancer, with "+infra.Addresses+" for them; none: spec.loadBalancerIP")
}

// check refuses what makes no sense, and fills in what follows from the rest.
func (o *controllerOptions) check() error {
	for name, value := range map[string]string{"namespace": o.namespace, "pod-name": o.pod, "owner": o.owner, "members": o.members} {
		if value == "" {
			return fmt.Errorf("--%s is needed", name)
		}
	}
	for name, c := range map[string]struct {
		value string
		of    []string
	}{
		"exposure":                {o.exposure, []string{"service", "host"}},
		"log-format":              {o.logFormat, []string{"json", "text"}},
		"service-type":            {o.serviceType, []string{"LoadBalancer", "NodePort", "ClusterIP"}},
		"external-traffic-policy": {o.trafficPolicy, []string{"", "Cluster", "Local"}},
		"ip-family-policy":        {o.ipFamilyPolicy, []string{"", "SingleStack", "PreferDualStack", "RequireDualStack"}},
	} {
		if !slices.Contains(c.of, c.value) {
			return fmt.Errorf("--%s: %q is not one of %s", name, c.value, strings.Join(c.of, ", "))
		}
	}
	release := strings.TrimSuffix(o.owner, "-owner")
	if o.record == "" {
		o.record = release + "-pod-ports"
	}
	if o.lease == "" {
		o.lease = release + "-leader"
	}
	if o.clusterDomain == "" {
		o.clusterDomain = clusterDomain("/etc/resolv.conf", o.namespace)
	}
	o.service.Type = corev1.ServiceType(o.serviceType)
	o.service.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicy(o.trafficPolicy)
	o.service.IPFamilyPolicy = corev1.IPFamilyPolicy(o.ipFamilyPolicy)
	o.service.AddressPool, o.service.AddressAnnotations = o.addressPool, o.addressAnnotation
	return nil
}

// clusterDomain is what the pod's search list says: "NAMESPACE.svc.cluster.local" is in it.
func clusterDomain(path, namespace string) string {
	const usual = "cluster.local"
	text, err := os.ReadFile(path)
	if err != nil {
		return usual
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "search" {
			continue
		}
		for _, w := range words[1:] {
			if domain, ok := strings.CutPrefix(w, namespace+".svc."); ok {
				return strings.TrimSuffix(domain, ".")
			}
		}
	}
	return usual
}

// runController serves until ctx ends, and then drains.
func runController(ctx context.Context, o controllerOptions, settings dataplane.Settings, stderr io.Writer) error {
	fitIn("/sys/fs/cgroup")
	log := o.logger(stderr)
	config, err := o.rest()
	if err != nil {
		return err
	}
	p, err := newProcess(o.processOptions, settings, log)
	if err != nil {
		return err
	}
	cluster, err := controllers.NewCluster(o.cluster(config, p))
	if err != nil {
		return err
	}
	ready := func() error {
		if err := cluster.Waiting(); err != nil {
			return err
		}
		return p.plane.Ready()
	}
	if err := p.open(ready); err != nil {
		return err
	}

	// What follows the cluster outlives the drain: what is under way must not be sent to pods that have gone meanwhile (cluster 2).
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var all sync.WaitGroup
	all.Go(func() { cluster.Run(living) })
	leading := make(chan struct{})
	go func() { defer close(leading); cluster.Lead(ctx) }()
	select {
	case <-cluster.Applied():
		p.plane.SetReady()
		log.Info("serving", "namespace", o.namespace, "pod", o.pod)
		<-ctx.Done()
	case <-ctx.Done():
		p.settings.DrainDelay = 0 // nobody was sent here
	}
	p.drain(func() { give(leading, log) })
	end()
	all.Wait()
	return p.close()
}

// give waits until the lease is released, for others to go on, but not for an API server that is away.
func give(released <-chan struct{}, log *slog.Logger) {
	select {
	case <-released:
	case <-time.After(3 * time.Second):
		log.Info("the lease is not released yet; it runs out by itself")
	}
}

func (o *controllerOptions) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.Level(-o.verbose)}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if o.logFormat == "text" {
		handler = slog.NewTextHandler(w, options)
	}
	// What client-go and controller-runtime say goes the same way.
	klog.SetSlogLogger(slog.New(handler))
	runtimelog.SetLogger(logr.FromSlogHandler(handler))
	return slog.New(handler)
}

// rest says how to reach the API server.
func (o *controllerOptions) rest() (config *rest.Config, err error) {
	if o.kubeconfig == "" {
		config, err = rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("this is no pod of a cluster: name a --kubeconfig, or use gatehouse run -f PATH for files")
		}
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	}
	if err != nil {
		return nil, err
	}
	config.UserAgent = "gatehouse/" + version
	return config, nil
}

func (o *controllerOptions) cluster(config *rest.Config, p *process) controllers.ClusterOptions {
	log := logr.FromSlogHandler(p.log.Handler())
	return controllers.ClusterOptions{
		Config: config, Namespace: o.namespace, Pod: o.pod, Headless: o.members, Lease: o.lease, Owner: o.owner,
		Keys: o.keys, SetKeys: p.plane.SetKeys, SetMembers: p.plane.SetMembers,
		Nodes:     o.exposure == "service" && o.service.Type == corev1.ServiceTypeNodePort,
		DataPlane: p.plane, Input: input(p.settings, p.store != nil), Endpoints: endpoints.Options{AllowLocal: p.settings.LocalEndpoints},
		Outside: func(c client.Client, changed func()) controllers.Outside {
			return o.outside(c, changed, log.WithName("infra"))
		},
		Statuses: func(s controllers.StatusOptions) controllers.Statuses {
			return status.NewWriter(status.Options{Client: s.Client, Stored: s.Stored, Wrote: s.Wrote, Log: s.Log})
		},
		Log: log,
	}
}

func (o *controllerOptions) outside(c client.Client, changed func(), log logr.Logger) *infra.Infra {
	return infra.New(infra.Options{
		Client: c, Changed: changed, Log: log,
		Namespace: o.namespace, Pod: o.pod, PodUID: types.UID(o.podUID), Headless: o.members,
		Host: o.exposure == "host", Owner: o.owner, Record: o.record, Selector: o.selector, ClusterDomain: o.clusterDomain, Service: o.service,
	})
}
