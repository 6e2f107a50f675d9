package watch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// An API server that has just started refuses everything, and a slow one does so for long.
func TestARefusalIsAnAnswerAfterPatienceAndLaterForWhatWasRead(t *testing.T) {
	const patience = 10 * time.Second
	refused := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "tls", nil)
	for name, c := range map[string]struct {
		read bool
		want time.Duration
	}{
		"never read": {false, patience},
		"read once":  {true, 6 * patience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := New(Options{Object: &corev1.Secret{}, List: &corev1.SecretList{}, Patience: patience, Log: logr.Discard()})
				if c.read {
					w.synced()
				}
				began := time.Now()
				for !w.State().Refused {
					w.note(refused)
					time.Sleep(time.Second)
				}
				if took := time.Since(began) - time.Second; took != c.want {
					t.Errorf("refused after %v, want %v", took, c.want)
				}
				if w.State().Synced != c.read {
					t.Error("whether it was read is forgotten")
				}
				w.note(nil)
				if s := w.State(); s.Refused || s.Err != nil {
					t.Errorf("after it could be read again: %+v", s)
				}
			})
		})
	}
}
