package members

import (
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1ac "k8s.io/client-go/applyconfigurations/coordination/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Client is what an Announcer needs of a controller-runtime client.
type Client interface {
	Apply(context.Context, runtime.ApplyConfiguration, ...client.ApplyOption) error
}

// Self is the replica that we are, by the downward API.
type Self struct {
	Namespace, Pod string
	UID            types.UID
}

// Manager is the name under which our fields are applied.
const Manager = client.FieldOwner("gatehouse")

// Announcer tells the others what this replica has bound, in a Lease of its own. The Lease has no duration: nobody is to wait for its
// end, and it is not renewed. It is written when what is said changes, again and again until that succeeds.
type Announcer struct {
	self   Self
	client Client
	log    logr.Logger
	wake   chan struct{} // holds one

	mu    sync.Mutex // guards what follows
	said  Said
	ready bool // something was said
	again bool // to be written though it is the same
}

// NewAnnouncer makes one that says nothing before Say.
func NewAnnouncer(self Self, c Client, log logr.Logger) *Announcer {
	return &Announcer{self: self, client: c, log: log, wake: make(chan struct{}, 1)}
}

// Say takes what is bound now. Nobody changes it afterwards.
func (a *Announcer) Say(s Said) {
	a.mu.Lock()
	a.said, a.ready = s, true
	a.mu.Unlock()
	a.rouse()
}

// Said returns what was said last.
func (a *Announcer) Said() (Said, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.said, a.ready
}

// Repeat has it written once more: somebody deleted or changed the Lease.
func (a *Announcer) Repeat() {
	a.mu.Lock()
	a.again = true
	a.mu.Unlock()
	a.rouse()
}

// Saw compares a version of our Lease with what was said, and has it written again if somebody changed it. An older one that a watch
// is late to show costs a write that changes nothing.
func (a *Announcer) Saw(l *coordinationv1.Lease) {
	now, ok := a.Said()
	if !ok {
		return
	}
	for k, v := range now.annotations() {
		if l.Annotations[k] != v {
			a.Repeat()
			return
		}
	}
}

func (a *Announcer) rouse() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// The times between tries to write, and how long one may take.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	patience   = 10 * time.Second
)

// Run writes until ctx ends.
func (a *Announcer) Run(ctx context.Context) {
	var written map[string]string
	var failed <-chan time.Time
	retry := firstRetry
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-failed:
		}
		failed = nil
		now, again := a.due()
		if now == nil || maps.Equal(now, written) && !again {
			continue
		}
		if err := a.write(ctx, now); err != nil {
			if ctx.Err() == nil {
				a.log.Error(err, "cannot say which ports are bound; no new port is published meanwhile", "again", retry)
			}
			failed = time.After(retry/2 + rand.N(retry/2))
			retry = min(2*retry, lastRetry)
			if again {
				a.mu.Lock()
				a.again = true
				a.mu.Unlock()
			}
			continue
		}
		written, retry = now, firstRetry
	}
}

// due is what the Lease is to say; nil before anything was said.
func (a *Announcer) due() (annotations map[string]string, again bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ready {
		return nil, false
	}
	again, a.again = a.again, false
	return a.said.annotations(), again
}

func (a *Announcer) write(ctx context.Context, annotations map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	lease := coordinationv1ac.Lease(a.self.Pod, a.self.Namespace).
		WithAnnotations(annotations).
		WithOwnerReferences(metav1ac.OwnerReference().WithAPIVersion("v1").WithKind("Pod").WithName(a.self.Pod).WithUID(a.self.UID)).
		WithSpec(coordinationv1ac.LeaseSpec().WithHolderIdentity(a.self.Pod))
	return a.client.Apply(ctx, lease, Manager, client.ForceOwnership)
}
