//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// nodeAddress is that of the cluster's one node.
func nodeAddress(t *testing.T) string {
	t.Helper()
	var all corev1.NodeList
	must(t, api.List(t.Context(), &all))
	for _, a := range all.Items[0].Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	t.Fatalf("node %s has no address", all.Items[0].Name)
	return ""
}

// The whole way from load balancers to ports of the nodes and back, with the rights of each.
func TestListenersMoveToTheNodesAndBackAndServicesFollow(t *testing.T) {
	g := house(t)
	before := podPort(t, shop, front, 80)
	moved := false
	t.Cleanup(func() {
		if moved {
			upgrade(t)
		}
	})
	moved = true
	upgrade(t, "--set", "kind=DaemonSet", "--set", "exposure=host")

	until(t, time.Minute, "no Service of a Gateway is left", func() error {
		var all corev1.ServiceList
		if err := api.List(t.Context(), &all, client.HasLabels{"gatehouse.dev/gateway-uid"}); err != nil {
			return err
		}
		if len(all.Items) > 0 {
			return fmt.Errorf("there is %s/%s", all.Items[0].Namespace, all.Items[0].Name)
		}
		return nil
	})
	node := nodeAddress(t)
	until(t, time.Minute, "the Gateway's address is the node's", func() error {
		if now := programmed(t, shop, front); now != node {
			return fmt.Errorf("it is %s", now)
		}
		return nil
	})
	direct := g
	direct.http, direct.https = net.JoinHostPort(node, "80"), net.JoinHostPort(node, "443")
	answers(t, direct, time.Minute)
	l := begin(t, direct, *rate)

	// One address and port is one Gateway's.
	applied(t, gatewayText(shop, "too-late", ""))
	says(t, time.Minute, "a second Gateway on the node's port", conditionsOf(t, shop, "too-late"), "Programmed", "False", "AddressNotUsable", front)
	until(t, 30*time.Second, "the load of a second", func() error { return l.has(*rate) })
	l.endsClean()

	upgrade(t)
	moved = false
	g = house(t)
	if after := podPort(t, shop, front, 80); after != before {
		t.Errorf("the Gateway has pod port %d, had %d", after, before)
	}
	back := begin(t, g, *rate)
	until(t, 30*time.Second, "the load of a second", func() error { return back.has(*rate) })
	back.endsClean()
}
