// Package keys keeps the Secret from which all replicas derive their keys of session tickets and cookies: the leader makes it and rotates
// it, and each replica follows it.
//
// It holds three keys. `current` seals; `previous` and `next` only open. A rotation moves each on by one place: what a replica seals that
// has heard of it is opened by one that has not, since that one knows the key as `next`. It is one patch that names the version it was
// made of, so two leaders at once cannot rotate twice.
//
// Limits: a Secret that cannot be used (no `current`, or a key that is too short) is not touched, since somebody may have written it on
// purpose; it is logged, and the keys before it stay. Where it cannot be read each replica has random keys of its own: sessions and tickets
// then end with the replica that sealed them.
package keys

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gatehouse-dev/gatehouse/controllers/watch"
)

// Options of Keys. All but Life, Patience, Clock and Log are needed.
type Options struct {
	Client          client.WithWatch
	Namespace, Name string // of the Secret
	Identity        string // of this replica: its pod's name
	// Owner is what the Secret belongs to, in Namespace; nil: the release is going, and nothing is made any more.
	Owner func() *metav1.OwnerReference
	// Apply takes the keys, the one that seals first.
	Apply func([][]byte) error
	// Life is how long a key seals; 0: DefaultLife.
	Life     time.Duration
	Patience time.Duration // as in watch.Options
	Clock    func() time.Time
	Log      logr.Logger
}

// DefaultLife is how long a key seals. A ticket or cookie can be opened for as long again at least.
const DefaultLife = 24 * time.Hour

// The entries of the Secret, and the annotation that says since when the current key seals (RFC 3339).
const (
	current  = "current"
	next     = "next"
	previous = "previous"

	since = "gatehouse.dev/keys-since"
)

// size is that of a key, in bytes.
const size = 32

// retry is the time between two tries of a write that failed, and between two looks at what is not there yet.
const retry = 2 * time.Second

// Keys follows the Secret, and keeps it while it leads.
type Keys struct {
	options Options
	watch   *watch.Watch
	changed chan struct{} // holds one
}

// New makes Keys, and asks the API server nothing.
func New(o Options) *Keys {
	if o.Life == 0 {
		o.Life = DefaultLife
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	k := &Keys{options: o, changed: make(chan struct{}, 1)}
	k.watch = watch.New(watch.Options{
		Client: o.Client, Object: &corev1.Secret{}, List: &corev1.SecretList{}, Namespace: o.Namespace, Name: o.Name,
		Set: k.set, Delete: func(...client.Object) { k.wake() }, Changed: k.wake,
		Patience: o.Patience, Longest: 15 * time.Second, Log: o.Log,
	})
	return k
}

// Run follows the Secret until ctx ends.
func (k *Keys) Run(ctx context.Context) { k.watch.Run(ctx) }

func (k *Keys) wake() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// set takes the keys over. A Secret that is gone leaves the keys as they are.
func (k *Keys) set(objects ...client.Object) {
	defer k.wake()
	for _, o := range objects {
		keys, err := read(o.(*corev1.Secret))
		if err == nil {
			err = k.options.Apply(keys)
		}
		if err != nil {
			k.options.Log.Error(err, "keys cannot be used; those before them stay", "secret", k.options.Name,
				"help", "delete the Secret, and it is made anew")
		}
	}
}

// read returns the keys in the order in which they are to be used.
func read(s *corev1.Secret) ([][]byte, error) {
	var keys [][]byte
	for _, name := range []string{current, next, previous} {
		key := s.Data[name]
		if len(key) == 0 && name != current {
			continue
		}
		if len(key) < size {
			return nil, fmt.Errorf("entry %s of Secret %s/%s has %d bytes; it needs %d", name, s.Namespace, s.Name, len(key), size)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Lead makes the Secret and rotates it until ctx ends.
func (k *Keys) Lead(ctx context.Context) {
	for ctx.Err() == nil {
		wait, err := k.keep(ctx)
		if err != nil && ctx.Err() == nil {
			k.options.Log.Error(err, "cannot keep the keys that replicas share", "secret", k.options.Name)
			wait = max(wait, retry)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-k.changed:
			if err != nil { // what has failed is not tried again at once
				select {
				case <-timer.C:
				case <-ctx.Done():
				}
			}
		}
		timer.Stop()
	}
}

// keep does what is to be done now, and says when to look again.
func (k *Keys) keep(ctx context.Context) (time.Duration, error) {
	if s := k.watch.State(); !s.Synced {
		return retry, nil // what cannot be read is not written
	}
	now := k.options.Clock()
	secret, _ := k.watch.Get(k.options.Namespace, k.options.Name).(*corev1.Secret)
	if secret == nil {
		return retry, k.create(ctx, now)
	}
	if _, err := read(secret); err != nil {
		return k.options.Life, nil // set has said so
	}
	began, err := time.Parse(time.RFC3339, secret.Annotations[since])
	if err != nil || began.After(now) {
		began = time.Time{} // not ours, or the clock was wrong: it rotates now, and is ours from then on
	}
	if left := began.Add(k.options.Life).Sub(now); left > 0 {
		return left, nil
	}
	return retry, k.rotate(ctx, secret, now)
}

func random() []byte {
	key := make([]byte, size)
	rand.Read(key)
	return key
}

// create makes the Secret: by server-side apply, since the right to create cannot be limited to a name, but that to apply can. Whoever
// has made it in the meantime owns its entries, and the API server says so: they are not written over.
func (k *Keys) create(ctx context.Context, now time.Time) error {
	owner := k.options.Owner()
	if owner == nil {
		return errors.New("the ConfigMap that owns what the release makes is not there")
	}
	s := corev1ac.Secret(k.options.Name, k.options.Namespace).
		WithOwnerReferences(metav1ac.OwnerReference().WithAPIVersion(owner.APIVersion).WithKind(owner.Kind).WithName(owner.Name).WithUID(owner.UID)).
		WithAnnotations(map[string]string{since: now.UTC().Format(time.RFC3339)}).
		WithType(corev1.SecretTypeOpaque).
		WithData(map[string][]byte{current: random(), next: random(), previous: random()})
	if err := k.options.Client.Apply(ctx, s, client.FieldOwner("gatehouse-keys-"+k.options.Identity)); err != nil {
		return fmt.Errorf("make Secret %s/%s: %w", k.options.Namespace, k.options.Name, err)
	}
	return nil
}

// rotate moves each key on by one place. The patch names the version that it was made of.
func (k *Keys) rotate(ctx context.Context, was *corev1.Secret, now time.Time) error {
	s := was.DeepCopy()
	s.Data[previous] = was.Data[current]
	if s.Data[current] = was.Data[next]; len(s.Data[current]) == 0 {
		s.Data[current] = random() // somebody wrote no next one: replicas that have not heard yet cannot open it for a moment
	}
	s.Data[next] = random()
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[since] = now.UTC().Format(time.RFC3339)
	patch := client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{})
	if err := k.options.Client.Patch(ctx, s, patch); err != nil {
		return fmt.Errorf("rotate the keys of Secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	k.options.Log.Info("keys are rotated", "secret", k.options.Name)
	return nil
}
