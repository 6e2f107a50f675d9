package controller

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gatehouse-dev/gatehouse/controllers"
)

// wire is a way to the API server that can be cut.
type wire struct {
	t       *testing.T
	address string

	mu       sync.Mutex // guards what follows
	listener net.Listener
	open     map[net.Conn]bool
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{t: t, address: "127.0.0.1:0", open: map[net.Conn]bool{}}
	w.mend()
	t.Cleanup(w.cut)
	return w
}

// mend listens at the same address as before.
func (w *wire) mend() {
	w.t.Helper()
	l, err := net.Listen("tcp4", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.listener, w.address = l, l.Addr().String()
	w.mu.Unlock()
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go w.join(near)
		}
	}()
}

func (w *wire) join(near net.Conn) {
	far, err := net.Dial("tcp4", strings.TrimPrefix(control.Host, "https://"))
	if err != nil {
		near.Close()
		return
	}
	w.mu.Lock()
	w.open[near], w.open[far] = true, true
	w.mu.Unlock()
	go func() { io.Copy(far, near); far.Close() }()
	io.Copy(near, far)
	near.Close()
}

// cut refuses connections, and ends those that there are.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listener.Close()
	for c := range w.open {
		c.Close()
	}
	clear(w.open)
}

func (w *wire) through(o *controllers.ClusterOptions) { o.Config.Host = "https://" + w.address }

// load asks 200 times a second until stop is called, which returns how many answers there were, and those that were not "200 cart".
func load(t *testing.T, address string) (stop func() (asked int, failed []string)) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c := &http.Client{Timeout: 5 * time.Second}
	var mu sync.Mutex
	var bad []string
	var n atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-tick.C {
				n.Add(1)
				if got := ask(c, address); got != "200 cart" {
					mu.Lock()
					bad = append(bad, fmt.Sprintf("%s %s", time.Now().Format("15:04:05.000"), got))
					mu.Unlock()
				}
			}
		})
	}
	return func() (int, []string) {
		cancel()
		all.Wait()
		c.CloseIdleConnections()
		return int(n.Load()), bad
	}
}

func ask(c *http.Client, address string) string {
	response, err := c.Get("http://" + address + "/")
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", response.StatusCode, body)
}

// outage is longer than a lease, quick or not.
func outage() time.Duration {
	if testing.Short() {
		return 6 * time.Second
	}
	return 30 * time.Second
}

func TestAnAPIServerThatIsAwayChangesNothingForTraffic(t *testing.T) {
	w := newWorld(t)
	api := newWire(t)
	w.start(api.through).applied()
	w.backend("cart")
	w.create(basics)
	at := w.address("gw", 80)
	w.answers(at, "/", "200 cart")
	w.condition("Gateway", "gw", "Programmed", "True Programmed")

	stop := load(t, at)
	api.cut()
	time.Sleep(outage()) // this is what is tested
	w.create(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: new, namespace: SHOP}
spec:
  parentRefs: [{name: gw}]
  rules: [{matches: [{path: {value: /new}}], backendRefs: [{name: cart, port: 80}]}]
`)
	api.mend()
	mended := time.Now()
	// Something that only the new route says: its name, in the statuses. The load goes on meanwhile.
	w.condition("HTTPRoute", "new", "Accepted", "True Accepted")
	t.Logf("the new route is served and told %s after the API server came back", time.Since(mended).Round(time.Millisecond))
	asked, failed := stop()
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed, such as %s", len(failed), asked, failed[0])
	}
	if least := int(outage().Seconds() * 150); asked < least {
		t.Errorf("only %d requests, want %d", asked, least)
	}
}

func TestAReplicaThatStartsWithoutAnAPIServerIsNotReadyAndSaysWhy(t *testing.T) {
	w := newWorld(t)
	api := newWire(t)
	w.backend("cart")
	w.create(basics)
	api.cut()
	r := w.start(api.through)
	w.eventually("why it waits", func() string {
		err := r.cluster.Waiting()
		if err == nil || !strings.Contains(err.Error(), "HTTPRoute") || !strings.Contains(err.Error(), "connection refused") {
			return fmt.Sprint(err)
		}
		return ""
	})
	if n := r.applies.Load(); n > 0 {
		t.Errorf("%d snapshots were applied", n)
	}
	api.mend()
	r.applied()
	if err := r.cluster.Waiting(); err != nil {
		t.Errorf("still waiting: %v", err)
	}
	w.answers(w.address("gw", 80), "/", "200 cart")
}

func TestWhoLosesTheLeaseServesOnAndWritesNothing(t *testing.T) {
	w := newWorld(t)
	w.start().applied()
	w.backend("cart")
	w.create(basics)
	at := w.address("gw", 80)
	w.answers(at, "/", "200 cart")
	w.condition("HTTPRoute", "api", "Accepted", "True Accepted")
	stop := load(t, at)

	// Somebody else takes it, and holds it for as long as we renew for him.
	key := types.NamespacedName{Namespace: w.release, Name: "gatehouse-leader"}
	hold := func(holder string) error {
		l := &coordinationv1.Lease{}
		if err := w.client.Get(t.Context(), key, l); err != nil {
			return err
		}
		now := metav1.NowMicro()
		l.Spec.HolderIdentity, l.Spec.RenewTime = &holder, &now
		return w.client.Update(t.Context(), l)
	}
	w.eventually("the lease is somebody else's", func() string {
		if err := hold("somebody-else"); err != nil {
			return err.Error()
		}
		return ""
	})
	const change = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: second, namespace: SHOP}
spec:
  parentRefs: [{name: gw}]
  hostnames: [second.example]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
`
	for end := time.Now().Add(quick.Renew + quick.Retry + quick.Call); time.Now().Before(end); time.Sleep(quick.Retry) { // then it has given up
		if err := hold("somebody-else"); err != nil {
			t.Log(err) // it tries, too
		}
	}
	w.create(change)
	w.eventually("the new route is served", func() string {
		if got := get(at, "second.example", "/"); got != "200 cart" {
			return got
		}
		return ""
	})
	for end := time.Now().Add(quick.Duration); time.Now().Before(end); time.Sleep(quick.Retry) {
		if err := hold("somebody-else"); err != nil {
			t.Fatal(err)
		}
		if said := w.conditions("HTTPRoute", "second"); len(said) > 0 {
			t.Fatalf("it has written: %v", said)
		}
	}
	// He is gone: it runs out, and is ours again.
	w.condition("HTTPRoute", "second", "Accepted", "True Accepted")
	if asked, failed := stop(); len(failed) > 0 {
		t.Errorf("%d of %d requests failed, such as %s", len(failed), asked, failed[0])
	}
}

func TestTheLeaseIsFreeBeforeTheDrain(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	r.applied()
	key := types.NamespacedName{Namespace: w.release, Name: "gatehouse-leader"}
	holder := func() string {
		l := &coordinationv1.Lease{}
		if err := w.client.Get(t.Context(), key, l); client.IgnoreNotFound(err) != nil {
			return err.Error()
		}
		if l.Spec.HolderIdentity == nil {
			return ""
		}
		return *l.Spec.HolderIdentity
	}
	w.eventually("it leads", func() string {
		if h := holder(); h != "gatehouse-a" {
			return "the holder is " + h
		}
		return ""
	})
	began := time.Now()
	r.leave()
	if h, took := holder(), time.Since(began); h != "" || took > quick.Duration {
		t.Errorf("%s after it left, the holder is %q", took, h)
	}
}

func TestTheLeaseBelongsToTheReleaseAndNotToAnEarlierOne(t *testing.T) {
	w := newWorld(t)
	// That of a release that was uninstalled just now, and that nobody has collected yet.
	w.create(`
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  name: gatehouse-leader
  namespace: RELEASE
  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: gatehouse-owner, uid: 11111111-1111-1111-1111-111111111111}]
spec: {holderIdentity: "", leaseDurationSeconds: 1, leaseTransitions: 3}
`)
	w.start().applied()
	owner := &corev1.ConfigMap{}
	if err := w.client.Get(t.Context(), types.NamespacedName{Namespace: w.release, Name: "gatehouse-owner"}, owner); err != nil {
		t.Fatal(err)
	}
	key := types.NamespacedName{Namespace: w.release, Name: "gatehouse-leader"}
	owned := func() string {
		l := &coordinationv1.Lease{}
		if err := w.client.Get(t.Context(), key, l); err != nil {
			return err.Error()
		}
		if h := l.Spec.HolderIdentity; h == nil || *h != "gatehouse-a" {
			return "it is not held yet"
		}
		if refs := l.OwnerReferences; len(refs) != 1 || refs[0].Kind != "ConfigMap" || refs[0].Name != owner.Name || refs[0].UID != owner.UID {
			return fmt.Sprintf("it belongs to %v", refs)
		}
		return ""
	}
	w.eventually("the lease that there was is taken over", owned)
	// Kubernetes removes it with its owner; whoever leads then makes one.
	if err := w.client.Delete(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}); err != nil {
		t.Fatal(err)
	}
	w.eventually("a new lease is made", owned)
}
