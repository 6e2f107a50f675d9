package writers

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gatehouse-dev/gatehouse/controllers/keys"
)

// holder is a replica that follows the keys.
type holder struct {
	mu   sync.Mutex // guards keys
	keys [][]byte
}

func (h *holder) set(keys [][]byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys = keys
	return nil
}

func (h *holder) get() [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keys
}

// hold makes a replica that follows the keys of a namespace until the test ends.
func hold(t *testing.T, s *server, namespace, name string, clock func() time.Time) (*holder, *keys.Keys) {
	h := &holder{}
	owner := &corev1.ConfigMap{ObjectMeta: named(namespace, "release")}
	if err := s.Get(t.Context(), client.ObjectKeyFromObject(owner), owner); err != nil {
		s.create(t, owner)
	}
	k := keys.New(keys.Options{
		Client: s, Namespace: namespace, Name: "gatehouse-keys", Identity: name, Apply: h.set, Life: time.Hour, Clock: clock, Log: testr.New(t),
		Owner: func() *metav1.OwnerReference {
			return &metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}
		},
	})
	background(t, k.Run)
	return h, k
}

// background runs until the returned function is called, or the test ends.
func background(t *testing.T, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func keysRotate(t *testing.T, s *server) {
	namespace := s.space(t, "gatehouse")
	var hours atomic.Int64
	began := time.Now()
	clock := func() time.Time { return began.Add(time.Duration(hours.Load()) * time.Hour) }
	one, leader := hold(t, s, namespace, "one", clock)
	two, other := hold(t, s, namespace, "two", clock)
	stop := background(t, leader.Lead)

	same := func() bool {
		return len(one.get()) == 3 && slices.EqualFunc(one.get(), two.get(), bytes.Equal)
	}
	eventually(t, "both replicas have the same keys", same)
	first := one.get()
	secret := &corev1.Secret{ObjectMeta: named(namespace, "gatehouse-keys")}
	s.get(t, secret)
	if o := secret.OwnerReferences; len(o) != 1 || o[0].Name != "release" {
		t.Errorf("it would outlive its release: %+v", o)
	}

	stop()
	hours.Store(1)
	background(t, other.Lead) // a new leader goes on where the old one was
	eventually(t, "the keys rotate", func() bool { return same() && !bytes.Equal(one.get()[0], first[0]) })
	// In the order current, next, previous: who has not heard yet knew the new current key as its next one.
	if now := one.get(); !bytes.Equal(now[0], first[1]) || !bytes.Equal(now[2], first[0]) || bytes.Equal(now[1], first[1]) {
		t.Errorf("keys did not move on by one place")
	}

	s.remove(t, secret)
	eventually(t, "they are made anew", func() bool { return same() && !bytes.Equal(one.get()[0], first[1]) })
}

func keysAreTheirs(t *testing.T, s *server) {
	namespace := s.space(t, "gatehouse")
	theirs := &corev1.Secret{ObjectMeta: named(namespace, "gatehouse-keys"), Data: map[string][]byte{"current": []byte("too short")}}
	s.create(t, theirs)
	h, k := hold(t, s, namespace, "one", time.Now)
	background(t, k.Lead)
	usable := bytes.Repeat([]byte{7}, 32)
	change(t, s, theirs, func(o *corev1.Secret) { o.Data["note"] = []byte("x") }, s.update)
	change(t, s, theirs, func(o *corev1.Secret) { o.Data["current"] = usable }, s.update)
	eventually(t, "what can be used is used, and is theirs no more", func() bool {
		keys := h.get()
		return len(keys) > 0 && slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, usable) })
	})
}
