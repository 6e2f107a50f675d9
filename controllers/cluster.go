package controllers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gatehouse-dev/gatehouse/controllers/endpoints"
	"github.com/gatehouse-dev/gatehouse/controllers/keys"
	"github.com/gatehouse-dev/gatehouse/controllers/lease"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// ClusterOptions say how a replica lives in a cluster.
type ClusterOptions struct {
	Config    *rest.Config // how to reach the API server; its rate limits are not used
	Namespace string       // that of this release
	Pod       string       // the name of this replica
	Headless  string       // the name of the Service over the replicas' pods, in Namespace
	Lease     string       // the name of the Lease that the leader holds, in Namespace
	Owner     string       // the name of the ConfigMap that the Lease belongs to, in Namespace: it lives as long as the release
	Nodes     bool         // nodes are watched, for their addresses

	DataPlane DataPlane
	Input     translate.Input   // as in Options
	Endpoints endpoints.Options // as in Options

	// Outside makes what there is outside of this process; nil: nothing. Changed is its way back. The client has no cache.
	Outside func(c client.Client, changed func()) Outside
	// Statuses makes where statuses go.
	Statuses func(StatusOptions) Statuses

	// Keys is the name of the Secret of keys that all replicas share, in Namespace; "": they share none. SetKeys takes them.
	Keys    string
	SetKeys func([][]byte) error
	// SetMembers is told how many replicas share the traffic, whenever that may have changed; nil: nobody wants to know.
	SetMembers func(live int)

	// Patience is how long the API server may refuse before that is an answer; 0: watch.DefaultPatience.
	Patience time.Duration
	Times    lease.Times // 0: lease.DefaultTimes
	Log      logr.Logger
}

// StatusOptions is what a writer of statuses needs of a cluster.
type StatusOptions struct {
	Client client.Client // without a cache
	// Stored is an object as it was read last; nil: it is gone. Nobody changes it.
	Stored func(kind string, name snapshot.Name) client.Object
	// Wrote is to be called after each write, with the values before and after.
	Wrote func(object client.Object, was, now any)
	Log   logr.Logger
}

// Cluster is a replica's life in a cluster: what is watched there goes to the loop, and what the loop says goes back, by one replica at
// a time. A cluster that is away changes nothing for traffic: what was read serves on, and is followed again when it is back.
type Cluster struct {
	options  ClusterOptions
	loop     *Loop
	watches  *watches
	trim     trimmer
	statuses Statuses
	outside  Outside // nil: nothing
	recorder *recorder
	lease    *lease.Lease
	keys     *keys.Keys // nil: replicas share none
	reader   client.WithWatch
	replicas replicas

	mu         sync.Mutex // guards what follows
	references *references
}

// NewCluster makes the wiring, and asks the API server nothing.
func NewCluster(o ClusterOptions) (*Cluster, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	c := &Cluster{options: o, trim: trimmer{namespace: o.Namespace, headless: o.Headless}}
	c.replicas.self, c.replicas.told, c.replicas.own = o.Pod, o.SetMembers, c.trim.ownSlice
	if c.reader, err = newClient(o.Config, scheme); err != nil {
		return nil, err
	}
	if c.recorder, err = newRecorder(ownConnections(o.Config), scheme); err != nil {
		return nil, err
	}
	c.lease, err = lease.New(lease.Options{
		Config: ownConnections(o.Config), Namespace: o.Namespace, Name: o.Lease, Identity: o.Pod, Owner: c.owner, Times: o.Times, Log: o.Log.WithName("lease"),
	})
	if err != nil {
		return nil, err
	}
	writer, err := newClient(o.Config, scheme)
	if err != nil {
		return nil, err
	}
	c.wire(scheme, writer)
	if o.Keys != "" {
		c.keys = keys.New(keys.Options{
			Client: c.reader, Namespace: o.Namespace, Name: o.Keys, Identity: o.Pod, Owner: c.owner, Apply: o.SetKeys, Patience: o.Patience,
			Log: o.Log.WithName("keys"),
		})
	}
	return c, nil
}

// wire ties the parts together. They know each other by interfaces and functions only.
func (c *Cluster) wire(scheme *runtime.Scheme, writer client.Client) {
	o := c.options
	c.statuses = o.Statuses(StatusOptions{
		Client: writer, Wrote: c.recorder.wrote, Log: o.Log.WithName("status"),
		Stored: func(kind string, name snapshot.Name) client.Object { return c.watches.stored(kind, name) },
	})
	if o.Outside != nil {
		c.outside = o.Outside(writer, func() { c.loop.Around() })
	}
	c.loop = NewLoop(Options{
		DataPlane: o.DataPlane, Input: o.Input, Endpoints: o.Endpoints, Told: c.statuses.Told, Log: o.Log,
		Cluster: surroundings{c}, Outside: c.outside,
	})
	c.watches = newWatches(watchesOptions{
		client: c.reader, scheme: scheme, trim: c.trim, nodes: o.Nodes, patience: o.Patience,
		set: c.set, delete: c.delete, changed: c.loop.Around, log: o.Log.WithName("watch"),
	})
}

// newClient makes a client without a cache, on connections of its own: a slow write is not in the way of a watch.
func newClient(config *rest.Config, scheme *runtime.Scheme) (client.WithWatch, error) {
	config = ownConnections(config)
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper(scheme), HTTPClient: http})
}

// ownConnections makes a configuration whose clients share no connection with those of others: client-go gives one transport to all that
// are configured alike, unless they dial for themselves. What is asked at once is bounded where it is asked, not here.
func ownConnections(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.Dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return config
}

// Run lives until ctx ends, which ought to be after the drain: endpoints come and go to the very end.
func (c *Cluster) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.references = newReferences(ctx, c.reader, c.loop, c.trim.trim, c.options.Patience, c.options.Log.WithName("references"))
	c.mu.Unlock()
	var all sync.WaitGroup
	all.Go(func() { c.watches.run(ctx) })
	all.Go(func() { c.loop.Run(ctx) })
	all.Go(func() { c.recorder.run(ctx, c.options.Log) })
	if c.keys != nil {
		all.Go(func() { c.keys.Run(ctx) })
	}
	if c.outside != nil {
		all.Go(func() { c.outside.Run(ctx) })
	}
	all.Wait()
	c.references.stop()
}

// Applied is closed when the first snapshot has been applied: everything was read once, each reference has an answer, and each socket
// was tried.
func (c *Cluster) Applied() <-chan struct{} { return c.loop.Applied() }

// Waiting says why nothing has been applied yet; nil: it has.
func (c *Cluster) Waiting() error {
	select {
	case <-c.loop.Applied():
		return nil
	default:
	}
	if err := c.watches.missing(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.references != nil {
		if names := c.references.waiting(); len(names) > 0 {
			return errors.New("no answer yet: " + strings.Join(names, ", "))
		}
	}
	return errors.New("the first snapshot is not applied yet")
}

// Lead contends for the lease until ctx ends, and writes while it has it. Who has not applied anything doesn't contend: there would be
// nothing to write. When Lead returns, nobody writes, and the lease is free.
func (c *Cluster) Lead(ctx context.Context) {
	select {
	case <-c.loop.Applied():
	case <-ctx.Done():
		return
	}
	c.lease.Run(ctx, func(ctx context.Context) {
		var all sync.WaitGroup
		all.Go(func() { c.statuses.Lead(ctx) })
		if c.keys != nil {
			all.Go(func() { c.keys.Lead(ctx) })
		}
		if c.outside != nil {
			all.Go(func() { c.outside.Lead(ctx) })
		}
		all.Wait()
	})
}

// owner is what the Lease and the keys belong to; nil: it is not there, such as in an uninstallation.
func (c *Cluster) owner() *metav1.OwnerReference {
	o := c.watches.stored("ConfigMap", snapshot.Name{Namespace: c.options.Namespace, Name: c.options.Owner})
	if o == nil || o.GetDeletionTimestamp() != nil {
		return nil
	}
	return &metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o.GetName(), UID: o.GetUID()}
}

// set passes on what is new or changed.
func (c *Cluster) set(k kind, objects ...Object) {
	if k.build {
		c.loop.Set(objects...)
	}
	c.replicas.set(objects)
	c.pass(k, objects, Outside.Set)
}

func (c *Cluster) delete(k kind, objects ...Object) {
	if k.build {
		c.loop.Delete(objects...)
	}
	c.replicas.delete(objects)
	c.pass(k, objects, Outside.Delete)
}

// pass tells the others, as far as they want to know.
func (c *Cluster) pass(k kind, objects []Object, tell func(Outside, ...Object)) {
	for _, o := range objects {
		if c.outside != nil && c.trim.outside(o) {
			tell(c.outside, o)
		}
		if k.custom && statusOf(o) != nil {
			c.statuses.Seen(k.name, identityOf(o).name)
		}
	}
}

// surroundings is the cluster as the loop sees it.
type surroundings struct{ c *Cluster }

var _ Surroundings = surroundings{}

func (s surroundings) Synced() bool                   { return s.c.watches.synced() }
func (s surroundings) Gateways() bool                 { return s.c.watches.whole("Gateway") }
func (s surroundings) Complete(f *translate.Facts)    { s.c.watches.complete(f) }
func (s surroundings) Follow(refs, w []translate.Ref) { s.c.references.follow(refs, w) }

func (s surroundings) Stored(kind string) []Object {
	if w := s.c.watches.byName[kind]; w != nil {
		return w.Objects()
	}
	return nil
}
