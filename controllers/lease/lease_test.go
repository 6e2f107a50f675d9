package lease

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// server is an API server that knows one Lease. Its answer to the creation never arrives: it ends with the request.
type server struct {
	mu      sync.Mutex // guards lease
	lease   *coordinationv1.Lease
	created chan struct{}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.Method {
	case http.MethodGet:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.lease == nil {
			w.WriteHeader(http.StatusNotFound)
			json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404})
			return
		}
		json.NewEncoder(w).Encode(s.lease)
	case http.MethodPost, http.MethodPut:
		lease := &coordinationv1.Lease{}
		if err := json.NewDecoder(r.Body).Decode(lease); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		lease.TypeMeta = metav1.TypeMeta{Kind: "Lease", APIVersion: "coordination.k8s.io/v1"}
		s.mu.Lock()
		s.lease = lease
		s.mu.Unlock()
		if r.Method == http.MethodPost {
			close(s.created)
			<-r.Context().Done()
			return
		}
		json.NewEncoder(w).Encode(lease)
	}
}

func (s *server) holder() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil || s.lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *s.lease.Spec.HolderIdentity
}

func TestALeaseThatWasTakenWithoutOurHearingOfItIsReleasedAtTheEnd(t *testing.T) {
	s := &server{created: make(chan struct{})}
	web := httptest.NewServer(s)
	defer web.Close()
	l, err := New(Options{
		// JSON: what this server speaks.
		Config:    &rest.Config{Host: web.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"}},
		Namespace: "gatehouse-system", Name: "gatehouse-leader", Identity: "gatehouse-a", Log: testr.New(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx, func(context.Context) { t.Error("it leads without having heard so") })
	}()
	<-s.created
	if h := s.holder(); h != "gatehouse-a" {
		t.Fatalf("the holder is %q", h)
	}
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
	if h := s.holder(); h != "" {
		t.Errorf("the lease is still %s's: others wait until it has run out", h)
	}
}
