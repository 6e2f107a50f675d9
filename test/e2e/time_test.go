//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestARouteIsServedWithinMoments(t *testing.T) {
	g := house(t)
	l := begin(t, g, *rate)
	var took []time.Duration
	for n := range 100 {
		mine := g
		mine.host, mine.path, mine.backends = fmt.Sprintf("r%d.example", n), "/", []string{"blue-"}
		c := mine.clients()[0]
		// One connection, opened before, so that nothing but the route is new.
		_ = ask(c, mine, "/")
		began := time.Now()
		applied(t, routeText(shop, fmt.Sprintf("r%d", n), front, mine.host, "/", "blue"))
		for ask(c, mine, "/") != nil {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("route %d is not served after 30 s", n)
			}
			time.Sleep(2 * time.Millisecond)
		}
		took = append(took, time.Since(began))
		c.CloseIdleConnections()
	}
	slices.Sort(took)
	t.Logf("from creating an HTTPRoute to its first right answer, 100 times beside %d requests/s: p50 %v, p99 %v, longest %v",
		*rate, quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1))
	if p99 := quantile(took, 0.99); p99 > 2*time.Second {
		t.Errorf("p99 is %v, which is more than 2 s", p99)
	}
	l.endsClean()
}

// The last one, since all others need the release.
func TestZHelmInstallServesAfterSecondsAndUninstallLeavesNoBalancerBehind(t *testing.T) {
	g := house(t)
	if out, err := run(t, "helm", "uninstall", "gatehouse", "--namespace", system, "--wait", "--timeout", "300s"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	until(t, time.Minute, "the Gateways' Services are gone", func() error {
		var all corev1.ServiceList
		if err := api.List(t.Context(), &all, client.InNamespace(system)); err != nil {
			return err
		}
		if len(all.Items) > 0 {
			return fmt.Errorf("%d are left, such as %s", len(all.Items), all.Items[0].Name)
		}
		return nil
	})
	// The replicas could not release it: their rights went before they did. But a new release must not wait for it.
	until(t, time.Minute, "the Lease of the leader is gone", func() error {
		_, err := lease(t)
		if err == nil {
			err = errors.New("it is there")
		}
		return client.IgnoreNotFound(err)
	})

	// At once, while the replicas of the last release drain.
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := run(t, "helm", "install", "gatehouse", chart, "--namespace", system, "--create-namespace", "--values", values(t))
		done <- err
	}()
	first := firstAnswer(t, g, 2*time.Minute)
	t.Logf("from helm install to the first right answer: %.1f s", first.Sub(began).Seconds())
	must(t, <-done)
	rolled(t, system, "gatehouse")
}

// firstAnswer asks at the address that the Gateway has, which may be another one than before, until it is served.
func firstAnswer(t *testing.T, g target, within time.Duration) time.Time {
	t.Helper()
	until(t, within, "the first answer", func() error {
		object, err := gateway(t, shop, front)
		if err != nil {
			return err
		}
		if err := isTrue(object.Status.Conditions, "Programmed", object.Generation); err != nil || len(object.Status.Addresses) == 0 {
			return fmt.Errorf("no address yet: %v", err)
		}
		fresh := g
		fresh.http, fresh.https = net.JoinHostPort(object.Status.Addresses[0].Value, "80"), ""
		c := fresh.clients()[2] // GET on a fresh connection
		return ask(c, fresh, g.path)
	})
	return time.Now()
}
