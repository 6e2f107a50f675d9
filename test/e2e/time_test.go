//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
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
