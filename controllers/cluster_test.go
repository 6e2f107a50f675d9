package controllers

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// By default a client of client-go asks 5 times a second, and 10 times at first.
func TestNoClientOfOursSlowsItselfDown(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"any","namespace":"any"}}`)
	}))
	t.Cleanup(s.Close)
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newClient(&rest.Config{Host: s.URL, QPS: 1, Burst: 1}, scheme)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 50 {
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: "any", Name: "any"}, &corev1.ConfigMap{}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("50 questions took %v", took)
	}
}
