// Package lease lets one replica at a time do what only one may do: write statuses and what Gateways have outside.
//
// It is a loop around client-go's elector, which ends a process when a lease is lost. Ours is the data plane as well, so nothing ends:
// who loses the lease stops writing, and contends again.
//
// A replica that is told to end releases the lease, so that the next one leads at once. When a release is uninstalled it cannot: its rights go
// before its pods. So the Lease belongs to what lives as long as the release, and goes with it; else one that is installed again would
// wait for Duration.
//
// Limits: a leader that is cut off from the API server leads on for up to Renew and Call together; another one begins after Duration at
// the earliest, which is longer. What both might write meanwhile is safe by other means (resourceVersion, server-side apply).
package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Options of a lease.
type Options struct {
	Config          *rest.Config
	Namespace, Name string
	Identity        string // of this replica: its pod's name
	// Owner is what the Lease belongs to, in Namespace; it is asked before each write. Nil, or when it returns nil: to nobody that we know.
	Owner func() *metav1.OwnerReference
	Times Times
	Log   logr.Logger
}

// Times of a lease.
type Times struct {
	Duration time.Duration // without a renewal for this long, others may take it
	Renew    time.Duration // without a renewal for this long, its holder gives up
	Retry    time.Duration // between two tries to take or renew it
	Call     time.Duration // for one call to the API server
}

// DefaultTimes are what others call the usual ones, but that giving up in good time includes the last call.
var DefaultTimes = Times{Duration: 15 * time.Second, Renew: 8 * time.Second, Retry: 2 * time.Second, Call: 3 * time.Second}

// Lease is contended for by Run.
type Lease struct {
	options Options
	lock    resourcelock.Interface
}

// New makes a lease, and asks the API server nothing.
func New(o Options) (*Lease, error) {
	if o.Times == (Times{}) {
		o.Times = DefaultTimes
	}
	config := rest.CopyConfig(o.Config)
	config.QPS, config.Timeout = -1, o.Times.Call
	client, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server for the lease: %w", err)
	}
	if o.Identity == "" || o.Namespace == "" || o.Name == "" {
		return nil, errors.New("a lease needs a namespace, a name and an identity")
	}
	if o.Owner == nil {
		o.Owner = func() *metav1.OwnerReference { return nil }
	}
	l := &Lease{options: o, lock: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name},
		Client:     owned{client, o.Owner},
		LockConfig: resourcelock.ResourceLockConfig{Identity: o.Identity},
	}}
	_, err = l.elector(func(context.Context) {})
	return l, err
}

// Run contends until ctx ends, and calls lead whenever the lease is ours, with a context that ends when it isn't any more. When Run
// returns, lead has returned, and the lease is free for others.
func (l *Lease) Run(ctx context.Context, lead func(context.Context)) {
	for ctx.Err() == nil {
		l.term(ctx, lead)
	}
	l.free()
}

// free releases a lease that is ours and that no elector knows to be: an acquisition that was cut off by the end, after the API server had
// written it and before we heard so. Others would wait for Duration.
func (l *Lease) free() {
	ctx, cancel := context.WithTimeout(context.Background(), l.options.Times.Call)
	defer cancel()
	record, _, err := l.lock.Get(ctx)
	if err != nil || record.HolderIdentity != l.options.Identity {
		return
	}
	record.HolderIdentity, record.LeaseDurationSeconds, record.RenewTime = "", 1, metav1.Now() // as an elector releases it
	if err := l.lock.Update(ctx, *record); err != nil {
		l.options.Log.Info("the lease could not be released; another replica leads when it has run out", "lease", l.options.Name, "error", err.Error())
	}
}

// term is one election and what follows. The lease is released after lead has returned: the elector itself would do so before.
func (l *Lease) term(ctx context.Context, lead func(context.Context)) {
	holding, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	started, ended := make(chan context.Context, 1), make(chan struct{})
	elector, err := l.elector(func(ours context.Context) { started <- ours })
	if err != nil {
		l.options.Log.Error(err, "cannot contend for the lease") // New has tried the same
		<-ctx.Done()
		return
	}
	go func() { defer close(ended); elector.Run(holding) }()

	select {
	case <-ctx.Done():
	case <-ended:
	case ours := <-started:
		l.options.Log.Info("leading", "lease", l.options.Name)
		l.lead(ctx, ours, lead)
		l.options.Log.Info("not leading any more", "lease", l.options.Name)
	}
	release()
	<-ended
}

// lead runs until ctx ends or the lease is not ours any more, whichever is first.
func (l *Lease) lead(ctx, ours context.Context, lead func(context.Context)) {
	ours, stop := context.WithCancel(ours)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	lead(ours)
	<-ours.Done() // lead may have nothing to do; the lease is ours all the same
}

func (l *Lease) elector(started func(context.Context)) (*leaderelection.LeaderElector, error) {
	t := l.options.Times
	return leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: l.lock, LeaseDuration: t.Duration, RenewDeadline: t.Renew, RetryPeriod: t.Retry,
		ReleaseOnCancel: true, Name: l.options.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: started,
			OnStoppedLeading: func() {},
		},
	})
}
