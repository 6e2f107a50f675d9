//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

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
	until(t, time.Minute, "the keys that replicas shared are gone", func() error {
		_, err := keysSecret(t)
		if err == nil {
			err = errors.New("they are there")
		}
		return client.IgnoreNotFound(err)
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
		if err := fresh.probe(); err != nil {
			return err
		}
		c := fresh.clients()[2] // GET on a fresh connection
		return ask(c, fresh, g.path)
	})
	return time.Now()
}
