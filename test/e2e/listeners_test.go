//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func TestANewGatewayIsServedByAllReplicasWhenItIsProgrammed(t *testing.T) {
	g := house(t)
	l := begin(t, g, *rate)
	for n := range 3 {
		name := fmt.Sprintf("second-%d", n)
		g2 := g
		g2.host, g2.https, g2.path, g2.backends = "second.example", "", "/", []string{"green-"}
		applied(t, routeText(shop, name, name, g2.host, "/", "green")+gatewayText(shop, name, ""))
		g2.http = net.JoinHostPort(programmed(t, shop, name), "80")
		onEach(t, replicas(t), podPort(t, shop, name, 80), g2)
		answers(t, g2, 30*time.Second) // until kube-proxy has heard of the Service
		direct := begin(t, g2, *rate)
		until(t, 30*time.Second, "the load of a second", func() error { return direct.has(*rate) })
		direct.endsClean()
	}
	l.endsClean()
}

func TestANewListenerIsServedByAllReplicasWhenItIsProgrammed(t *testing.T) {
	g := house(t)
	l := begin(t, g, *rate)
	for n := range 3 {
		port := int32(8100 + n)
		apply(t, gatewayText(shop, front, "front-tls")+fmt.Sprintf("  - {name: more, protocol: HTTP, port: %d}\n", port))
		more := g
		more.http, more.https = net.JoinHostPort(programmed(t, shop, front), fmt.Sprint(port)), ""
		onEach(t, replicas(t), podPort(t, shop, front, port), more)
		answers(t, more, 30*time.Second)
		direct := begin(t, more, *rate)
		until(t, 30*time.Second, "the load of a second", func() error { return direct.has(*rate) })
		direct.endsClean()
	}
	apply(t, gatewayText(shop, front, "front-tls"))
	l.endsClean()
}

// has says whether there were so many answers, right or wrong.
func (l *load) has(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.took) < n {
		return fmt.Errorf("%d answers of %d", len(l.took), n)
	}
	return nil
}

func TestTwoGatewaysWithTheSamePortsNeverSeeEachOther(t *testing.T) {
	g := house(t)
	a := certificates(t)
	namespaces(t, "left", "right")
	for _, side := range []string{"left", "right"} {
		secret, _ := a.secret(t, side, "tls", side+".example")
		apply(t, backend(side, side, 1)+secret+gatewayText(side, side, "tls")+
			// Both routes are for any host, so that what keeps them apart is the Gateway alone.
			strings.Replace(routeText(side, side, side, "x", "/", side), "  hostnames: [x]\n", "", 1))
	}
	for _, side := range []string{"left", "right"} {
		rolled(t, side, side)
	}
	left := sideOf(t, g, "left")
	answers(t, left, 30*time.Second)
	l := begin(t, left, *rate/2)

	for round := range 4 {
		right := sideOf(t, g, "right")
		answers(t, right, 30*time.Second)
		end := watchSide(t, right, "right")
		// Its ports are freed and used again, by another Gateway and by itself.
		gateway := &gwv1.Gateway{}
		gateway.Namespace, gateway.Name = "right", "right"
		remove(t, gateway)
		third := fmt.Sprintf("third-%d", round)
		secret, _ := a.secret(t, "left", third, third+".example")
		apply(t, secret+gatewayText("left", third, third)+
			strings.Replace(routeText("left", third, third, "x", "/", "left"), "  hostnames: [x]\n", "", 1))
		programmed(t, "left", third)
		apply(t, gatewayText("right", "right", "tls"))
		answers(t, sideOf(t, g, "right"), 30*time.Second)
		t.Logf("round %d: %d answers were of the right side", round, end())
	}
	l.endsClean()
}

// sideOf is the target of a Gateway that serves one backend of its own namespace.
func sideOf(t *testing.T, g target, side string) target {
	t.Helper()
	address := programmed(t, side, side)
	g.host, g.path, g.backends = side+".example", "/", []string{side + "-"}
	g.http, g.https = net.JoinHostPort(address, "80"), net.JoinHostPort(address, "443")
	return g
}

// watchSide asks an address over fresh connections until it is told to end. The address may answer or not, since its Gateway goes; an
// answer or a certificate of another side is an error, unless the address has become another Gateway's meanwhile, which its Service tells.
func watchSide(t *testing.T, g target, side string) (end func() (right int64)) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var right atomic.Int64
	for _, scheme := range []string{"http", "https"} {
		all.Go(func() {
			for ctx.Err() == nil {
				before := ownerOf(ctx, g)
				seen := sideSeen(ctx, g, scheme)
				switch {
				case seen == "" || ctx.Err() != nil: // nobody's
				case before != side+"/"+side || ownerOf(ctx, g) != before: // not ours all the time
				case strings.HasPrefix(seen, side):
					right.Add(1)
				default:
					t.Errorf("%s at %s was answered by %s", scheme, g.http, seen)
				}
			}
		})
	}
	return func() int64 {
		cancel()
		all.Wait()
		return right.Load()
	}
}

// ownerOf is the Gateway to whose Service the address belongs.
func ownerOf(ctx context.Context, g target) string {
	host, _, _ := net.SplitHostPort(g.http)
	var all gwv1.GatewayList
	if err := api.List(ctx, &all); err != nil {
		return ""
	}
	for _, gateway := range all.Items {
		for _, a := range gateway.Status.Addresses {
			if a.Value == host {
				return gateway.Namespace + "/" + gateway.Name
			}
		}
	}
	return ""
}

// sideSeen is who answered, or whose certificate was shown; empty: nobody's.
func sideSeen(ctx context.Context, g target, scheme string) string {
	var name string
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: g.roots, ServerName: g.host, InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
			name = s.PeerCertificates[0].Subject.CommonName
			return nil
		}},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			address := g.http
			if scheme == "https" {
				address = g.https
			}
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
		},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+g.host+"/", nil)
	if err != nil {
		return ""
	}
	response, err := (&http.Client{Transport: transport, Timeout: 2 * time.Second}).Do(r)
	if err != nil {
		return name
	}
	defer response.Body.Close()
	var a answer
	if json.NewDecoder(response.Body).Decode(&a) != nil {
		return name
	}
	return a.Backend
}
