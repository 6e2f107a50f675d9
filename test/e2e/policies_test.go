//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
)

// authPolicy is the conditions of an AuthPolicy under its first Gateway.
func authPolicy(t *testing.T, namespace, name string) func() ([]metav1.Condition, int64, error) {
	return func() ([]metav1.Condition, int64, error) {
		p := &v1alpha1.AuthPolicy{}
		err := api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, p)
		return underFirst(p.Status), p.Generation, err
	}
}

func rateLimitPolicy(t *testing.T, namespace, name string) func() ([]metav1.Condition, int64, error) {
	return func() ([]metav1.Condition, int64, error) {
		p := &v1alpha1.RateLimitPolicy{}
		err := api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, p)
		return underFirst(p.Status), p.Generation, err
	}
}

func underFirst(s gwv1.PolicyStatus) []metav1.Condition {
	if len(s.Ancestors) == 0 {
		return nil
	}
	return s.Ancestors[0].Conditions
}

// inForce waits until a policy says that it is, and that all that it refers to is there, if it refers to anything.
func inForce(t *testing.T, what string, get func() ([]metav1.Condition, int64, error)) {
	t.Helper()
	until(t, time.Minute, what, func() error {
		conditions, generation, err := get()
		for _, kind := range []string{"Accepted", "Programmed"} {
			err = errors.Join(err, isTrue(conditions, kind, generation))
		}
		if meta.FindStatusCondition(conditions, "ResolvedRefs") != nil {
			err = errors.Join(err, isTrue(conditions, "ResolvedRefs", generation))
		}
		return err
	})
}

// each is where the replicas serve a port of a Gateway, by their pods' names.
func each(t *testing.T, namespace, name string, port int32) map[string]string {
	t.Helper()
	at := map[string]string{}
	behind := fmt.Sprint(podPort(t, namespace, name, port))
	for _, p := range replicas(t) {
		at[p.Name] = net.JoinHostPort(p.Status.PodIP, behind)
	}
	if len(at) < 2 {
		t.Fatalf("%d replicas", len(at))
	}
	return at
}

// question is a request. It is asked on a connection of its own.
type question struct {
	host, path string
	method     string // "": GET
	header     http.Header
	body       string
	tls        *tls.Config // nil: in the clear
}

// with is a copy with another header: pairs of name and value.
func (q question) with(pairs ...string) question {
	q.header = maps.Clone(q.header)
	if q.header == nil {
		q.header = http.Header{}
	}
	for i := 0; i < len(pairs); i += 2 {
		q.header.Set(pairs[i], pairs[i+1])
	}
	return q
}

type reply struct {
	status  int
	header  http.Header
	body    string
	resumed bool   // its TLS session was one from before
	seen    answer // by the backend, if that answered
}

// at asks at an address.
func (q question) at(address string) (*reply, error) {
	transport := &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: q.tls,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, address) },
	}
	scheme := "http"
	if q.tls != nil {
		scheme = "https"
	}
	r, err := http.NewRequest(q.method, scheme+"://"+q.host+q.path, strings.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	maps.Copy(r.Header, q.header)
	response, err := (&http.Client{Transport: transport, Timeout: forever, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	out := &reply{status: response.StatusCode, header: response.Header, body: string(raw), resumed: response.TLS != nil && response.TLS.DidResume}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") && bytes.HasPrefix(raw, []byte(`{"backend"`)) {
		err = json.Unmarshal(raw, &out.seen)
	}
	return out, err
}

// eachSays waits until all replicas answer with a status, and returns how they did.
func eachSays(t *testing.T, within time.Duration, at map[string]string, q question, status int) map[string]*reply {
	t.Helper()
	replies := map[string]*reply{}
	until(t, within, fmt.Sprintf("each replica answers %s%s with %d", q.host, q.path, status), func() error {
		for _, pod := range slices.Sorted(maps.Keys(at)) {
			a, err := q.at(at[pod])
			if err != nil {
				return fmt.Errorf("%s: %w", pod, err)
			}
			if a.status != status {
				return fmt.Errorf("%s: %d %.200q", pod, a.status, a.body)
			}
			replies[pod] = a
		}
		return nil
	})
	return replies
}

// is asks each replica once: no time is given, since what was in force is in force.
func is(t *testing.T, at map[string]string, q question, status int) map[string]*reply {
	t.Helper()
	replies := map[string]*reply{}
	for pod, address := range at {
		a, err := q.at(address)
		if err != nil {
			t.Fatalf("%s: %s%s: %v", pod, q.host, q.path, err)
		}
		if a.status != status {
			t.Errorf("%s: %s %s%s: %d %.200q, want %d", pod, q.method, q.host, q.path, a.status, a.body, status)
		}
		replies[pod] = a
	}
	return replies
}

// table is what kubectl prints, by its columns' names; the first row's.
func table(t *testing.T, args ...string) []map[string]string {
	t.Helper()
	out, err := run(t, "kubectl", append([]string{"get"}, args...)...)
	must(t, err)
	t.Logf("kubectl get %s\n%s", strings.Join(args, " "), out)
	var rows []map[string]string
	var names []string
	var ends []int
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
			names = nil
		case names == nil:
			names = strings.Fields(line)
			ends = ends[:0]
			for i := range names {
				if i > 0 {
					ends = append(ends, strings.Index(line, "   "+names[i])+3)
				}
			}
			ends = append(ends, 1<<20)
		default:
			row, from := map[string]string{}, 0
			for i, name := range names {
				to := min(ends[i], len(line))
				row[name] = strings.TrimSpace(line[min(from, to):to])
				from = to
			}
			rows = append(rows, row)
		}
	}
	return rows
}
