//go:build e2e

package e2e

import (
	"crypto/tls"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func TestNoRequestFailsWhileBackendsRollThreeTimes(t *testing.T) {
	l := begin(t, house(t), *rate)
	for range 3 {
		roll(t, shop, "blue", "green")
		rolled(t, shop, "blue", "green")
	}
	l.endsClean()
}

func TestNoRequestFailsWhileRoutesAreEditedTwoHundredTimes(t *testing.T) {
	g := house(t)
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	l := begin(t, g, *rate)
	extra := map[string]bool{} // paths of rules that there are, beside that of the load
	for n := range 200 {
		edit(t, func(route *gwv1.HTTPRoute) { change(route, random, n, extra) })
		if n%20 == 19 {
			serves(t, g, extra)
		}
	}
	serves(t, g, extra)
	l.endsClean()
}

// edit changes the route of the load. Its status may be written at the same time.
func edit(t *testing.T, change func(*gwv1.HTTPRoute)) {
	t.Helper()
	must(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
		route := &gwv1.HTTPRoute{}
		if err := api.Get(t.Context(), client.ObjectKey{Namespace: shop, Name: "load"}, route); err != nil {
			return err
		}
		change(route)
		return api.Update(t.Context(), route)
	}))
}

// change adds, removes or re-orders rules, or gives the load's backends other weights. Rules[i].Name is nobody's; the load's is the one for /load.
func change(route *gwv1.HTTPRoute, random *rand.Rand, n int, extra map[string]bool) {
	rules := &route.Spec.Rules
	switch kind := n % 4; {
	case kind == 0 || len(*rules) < 3:
		path := fmt.Sprintf("/extra-%d", n)
		extra[path] = true
		*rules = append(*rules, gwv1.HTTPRouteRule{
			Matches: []gwv1.HTTPRouteMatch{{Path: &gwv1.HTTPPathMatch{Type: new(gwv1.PathMatchPathPrefix), Value: new(path)}}},
			BackendRefs: []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{
				BackendObjectReference: gwv1.BackendObjectReference{Name: []gwv1.ObjectName{"blue", "green"}[n%8/4], Port: new(gwv1.PortNumber(80))},
			}}},
		})
	case kind == 1:
		random.Shuffle(len(*rules), func(i, j int) { (*rules)[i], (*rules)[j] = (*rules)[j], (*rules)[i] })
	case kind == 2:
		for i := range *rules {
			if path := *(*rules)[i].Matches[0].Path.Value; len(*rules) > 4 && path != "/load" {
				delete(extra, path)
				*rules = append((*rules)[:i], (*rules)[i+1:]...)
				break
			}
		}
	default:
		for i := range *rules {
			if refs := (*rules)[i].BackendRefs; len(refs) == 2 {
				refs[0].Weight, refs[1].Weight = new(random.Int32N(3)), new(1+random.Int32N(3))
			}
		}
	}
}

// serves waits until all the rules, and only they, are served.
func serves(t *testing.T, g target, extra map[string]bool) {
	t.Helper()
	c := g.clients()[0]
	defer c.CloseIdleConnections()
	until(t, 30*time.Second, "the rules of the last edit are served", func() error {
		for path := range extra {
			if err := ask(c, g, path); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		if err := ask(c, g, "/extra-none"); err == nil || !strings.HasPrefix(err.Error(), "404") {
			return fmt.Errorf("a path without a rule: %v", err)
		}
		return nil
	})
}

func TestNoRequestFailsWhileACertificateIsRotated(t *testing.T) {
	g := house(t)
	l := begin(t, g, *rate)
	for range 20 {
		text, serial := certificates(t).secret(t, shop, "front-tls", loadHost)
		apply(t, text)
		until(t, 30*time.Second, "the new certificate is shown by all replicas", func() error {
			for range 20 { // fresh connections, each to a replica of kube-proxy's choice
				if shown := shown(t, g); shown.Cmp(serial) != 0 {
					return fmt.Errorf("serial number %v, not %v", shown, serial)
				}
			}
			return nil
		})
	}
	until(t, 30*time.Second, "the load of some seconds", func() error { return l.has(5 * *rate) })
	l.endsClean()
}

// shown is the serial number of the certificate that a handshake brings.
func shown(t *testing.T, g target) *big.Int {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", g.https, &tls.Config{RootCAs: g.roots, ServerName: g.host})
	must(t, err)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber
}

// onEach asks each replica by itself, at the pod port behind a Gateway's port, and wants a right answer at once.
func onEach(t *testing.T, all []corev1.Pod, port int32, g target) {
	t.Helper()
	for _, p := range all {
		direct := g
		direct.http, direct.https = net.JoinHostPort(p.Status.PodIP, fmt.Sprint(port)), ""
		for _, c := range direct.clients() {
			if c.method == http.MethodGet {
				if err := ask(c, direct, g.path); err != nil {
					t.Errorf("replica %s, %s: %v", p.Name, c.kind, err)
				}
			}
			c.CloseIdleConnections()
		}
	}
}
