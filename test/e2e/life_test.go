//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestNoRequestFailsWhileGatehouseRestartsAndTheBackendRolls(t *testing.T) {
	l := begin(t, house(t), *rate)
	roll(t, system, "gatehouse")
	roll(t, shop, "blue", "green")
	rolled(t, shop, "blue", "green")
	roll(t, shop, "blue", "green") // the second one falls into the drain of the old replicas
	rolled(t, shop, "blue", "green")
	rolled(t, system, "gatehouse")
	l.endsClean()
}

// away is longer than the lease, so that there is no leader when the API server is back.
const away = 30 * time.Second

func TestNoRequestFailsWhileTheAPIServerIsAway(t *testing.T) {
	g := house(t)
	were := replicas(t)
	l := begin(t, g, *rate)
	must(t, cluster.StopProgram(t.Context(), "kube-apiserver"))
	// Not a wait for anything: the outage itself.
	time.Sleep(away)
	must(t, cluster.StartProgram(t.Context(), "kube-apiserver"))
	until(t, time.Minute, "the API server is back", func() error {
		return api.Get(t.Context(), client.ObjectKey{Name: system}, &corev1.Namespace{})
	})
	back := time.Now()
	applied(t, routeText(shop, "after", front, "after.example", "/", "blue"))
	after := g
	after.host, after.https, after.path, after.backends = "after.example", "", "/", []string{"blue-"}
	answers(t, after, time.Minute)
	t.Logf("a new route was served %.1f s after the API server was back", time.Since(back).Seconds())
	held(t, "", time.Minute)
	l.endsClean()
	unharmed(t, were)
}

func lease(t *testing.T) (*coordinationv1.Lease, error) {
	l := &coordinationv1.Lease{}
	return l, api.Get(t.Context(), client.ObjectKey{Namespace: system, Name: "gatehouse-leader"}, l)
}

// held waits until a replica of ours has renewed the lease just now, and is another one than not.
func held(t *testing.T, not string, within time.Duration) string {
	t.Helper()
	var holder string
	until(t, within, "a replica holds the lease", func() error {
		l, err := lease(t)
		if err != nil {
			return err
		}
		if l.Spec.HolderIdentity == nil || l.Spec.RenewTime == nil || time.Since(l.Spec.RenewTime.Time) > 5*time.Second {
			return errors.New("nobody")
		}
		holder = *l.Spec.HolderIdentity
		if holder == not || !slices.ContainsFunc(replicas(t), func(p corev1.Pod) bool { return p.Name == holder }) {
			return fmt.Errorf("it is %s", holder)
		}
		return nil
	})
	return holder
}

func TestNoRequestFailsWhenTheLeaseIsTakenAway(t *testing.T) {
	g := house(t)
	were := replicas(t)
	leader := held(t, "", time.Minute)
	l := begin(t, g, *rate)

	stranger := "a-stranger"
	until(t, 30*time.Second, "the lease is taken", func() error { // the leader writes it too
		taken, err := lease(t)
		if err != nil {
			return err
		}
		now := metav1.NowMicro()
		taken.Spec.HolderIdentity, taken.Spec.AcquireTime, taken.Spec.RenewTime = &stranger, &now, &now
		return api.Update(t.Context(), taken)
	})
	applied(t, routeText(shop, "leaderless", front, "leaderless.example", "/", "green"))
	without := g
	without.host, without.https, without.path, without.backends = "leaderless.example", "", "/", []string{"green-"}
	answers(t, without, 10*time.Second)
	if now, err := lease(t); err != nil || *now.Spec.HolderIdentity != stranger {
		t.Errorf("the route was to be served while nobody of us leads, but the lease is %v's (%v)", now.Spec.HolderIdentity, err)
	}
	t.Logf("leader was %s, is %s", leader, held(t, stranger, time.Minute))
	l.endsClean()
	unharmed(t, were)
}

func TestAReplicaThatIsKilledTakesOnlyItsOwnConnectionsAlong(t *testing.T) {
	g := house(t)
	were := replicas(t)
	victim, port := were[0], podPort(t, shop, front, 80)
	var others []*load
	for _, p := range were[1:] {
		direct := g
		direct.http, direct.https = net.JoinHostPort(p.Status.PodIP, fmt.Sprint(port)), ""
		others = append(others, begin(t, direct, *rate/2))
	}
	through := begin(t, g, *rate)
	// The load has to be under way on kept connections to the victim.
	until(t, 30*time.Second, "the load is under way", func() error { return through.has(2 * *rate) })

	killed := time.Now()
	kill(t, victim)
	until(t, time.Minute, "the replica is back", func() error {
		now := replicas(t)
		if restarts(now) == restarts(were) {
			return errors.New("not restarted")
		}
		if i := slices.IndexFunc(now, func(p corev1.Pod) bool { return !ready(p) }); i >= 0 {
			return fmt.Errorf("%s is not ready", now[i].Name)
		}
		return nil
	})
	answers(t, g, 30*time.Second)
	// So long that there are requests from after the 3 s.
	until(t, 30*time.Second, "the load after the kill", func() error { return through.has(8 * *rate) })
	for _, o := range others {
		o.endsClean()
	}
	failures := through.end()
	t.Logf("killed at %s: %d of %d requests failed", killed.Format("15:04:05.000"), len(failures), through.sent)
	var late []failure
	for _, f := range failures {
		if machine.ran(killed, f.at) > 3*time.Second {
			late = append(late, f)
		}
	}
	if len(late) > 0 {
		t.Error("of those that were begun more than 3 s after the kill:")
		through.tell(late)
	}
}

// kill ends the replica's process without a warning. Its number is found by the pod's control group.
func kill(t *testing.T, p corev1.Pod) {
	t.Helper()
	numbers, err := processes(p)
	must(t, err)
	for _, n := range numbers {
		t.Logf("killing %s, process %d", p.Name, n)
		must(t, syscall.Kill(n, syscall.SIGKILL))
	}
}

// processes are those of Gatehouse in a pod.
func processes(p corev1.Pod) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, file := range files {
		groups, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(groups), string(p.UID)) {
			continue
		}
		dir := filepath.Dir(file)
		name, err := os.ReadFile(dir + "/comm")
		if err != nil || strings.TrimSpace(string(name)) != "gatehouse" {
			continue
		}
		n, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("no process of pod %s", p.Name)
	}
	return numbers, nil
}
