package members

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	gocmp "github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1ac "k8s.io/client-go/applyconfigurations/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func lease(pod, uid, bound, failed string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Name:            pod,
		Annotations:     map[string]string{BoundAnnotation: bound, FailedAnnotation: failed},
		OwnerReferences: []metav1.OwnerReference{{Kind: "Pod", Name: pod, UID: types.UID(uid)}},
	}}
}

// slice has pods as "name=address", with a ! for those that are not ready.
func slice(pods ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{}
	for _, p := range pods {
		p, notReady := strings.CutPrefix(p, "!")
		name, address, _ := strings.Cut(p, "=")
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{address},
			Conditions: discoveryv1.EndpointConditions{Ready: new(!notReady)},
			NodeName:   new("node-" + name),
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Name: name, UID: types.UID("uid-" + name)},
		})
	}
	return s
}

func TestASocketIsBoundWhenEveryReadyReplicaSaysSo(t *testing.T) {
	port := Socket{Port: 10000}
	for name, c := range map[string]struct {
		slices []*discoveryv1.EndpointSlice
		leases []*coordinationv1.Lease
		want   Answer
		why    string
	}{
		"nobody is ready": {want: Pending},
		"all have": {
			slices: []*discoveryv1.EndpointSlice{slice("a=10.0.0.1", "b=10.0.0.2")},
			leases: []*coordinationv1.Lease{lease("a", "uid-a", "9999-10001", ""), lease("b", "uid-b", "10000", "")},
			want:   Bound,
		},
		"one that is ready has not spoken": {
			slices: []*discoveryv1.EndpointSlice{slice("a=10.0.0.1", "b=10.0.0.2")},
			leases: []*coordinationv1.Lease{lease("a", "uid-a", "10000", "")},
			want:   Pending,
		},
		"one has not spoken of that port": {
			slices: []*discoveryv1.EndpointSlice{slice("a=10.0.0.1", "b=10.0.0.2")},
			leases: []*coordinationv1.Lease{lease("a", "uid-a", "10000", ""), lease("b", "uid-b", "", "")},
			want:   Pending,
		},
		"one that is not ready has not spoken": {
			slices: []*discoveryv1.EndpointSlice{slice("a=10.0.0.1", "!b=10.0.0.2")},
			leases: []*coordinationv1.Lease{lease("a", "uid-a", "10000", "")},
			want:   Bound,
		},
		"one cannot, and another has not spoken": {
			slices: []*discoveryv1.EndpointSlice{slice("a=10.0.0.1"), slice("b=10.0.0.2", "c=10.0.0.3")},
			leases: []*coordinationv1.Lease{lease("a", "uid-a", "10000", ""), lease("c", "uid-c", "", "10000: in use")},
			want:   Failed,
			why:    "pod c: in use",
		},
		"many cannot": {
			slices: []*discoveryv1.EndpointSlice{slice("a=1", "b=2", "c=3", "d=4", "e=5")},
			leases: []*coordinationv1.Lease{
				lease("a", "uid-a", "", "10000: x"), lease("b", "uid-b", "", "10000: x"), lease("c", "uid-c", "", "10000: x"),
				lease("d", "uid-d", "", "10000: x"), lease("e", "uid-e", "", "10000: x"),
			},
			want: Failed,
			why:  "pod a: x; pod b: x; pod c: x; and 2 more",
		},
		"the Lease is that of an earlier pod of that name": {
			slices: []*discoveryv1.EndpointSlice{slice("a=10.0.0.1")},
			leases: []*coordinationv1.Lease{lease("a", "uid-before", "10000", "")},
			want:   Pending,
		},
		"the Lease is no replica's": {
			slices: []*discoveryv1.EndpointSlice{slice("a=10.0.0.1")},
			leases: []*coordinationv1.Lease{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}},
			want:   Pending,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, why := Of(c.slices, c.leases).Answer(port)
			if got != c.want || why != c.why {
				t.Errorf("%d %q, want %d %q", got, why, c.want, c.why)
			}
		})
	}
}

func TestAPodOfBothFamiliesIsOneMember(t *testing.T) {
	m := Of([]*discoveryv1.EndpointSlice{slice("b=10.0.0.2", "a=fd00::1"), slice("a=10.0.0.1", "a=10.0.0.1")}, nil)
	var got []string
	for _, p := range m.Ready {
		got = append(got, fmt.Sprint(p.Name, p.Node, p.Addresses))
	}
	if diff := gocmp.Diff([]string{"anode-a[10.0.0.1 fd00::1]", "bnode-b[10.0.0.2]"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAReplicaKnowsItselfBest(t *testing.T) {
	m := Of([]*discoveryv1.EndpointSlice{slice("a=10.0.0.1")}, nil)
	with := m.With("a", Said{Bound: map[Socket]bool{{Port: 1}: true}}).With("other", Said{})
	if got, _ := with.Answer(Socket{Port: 1}); got != Bound {
		t.Error("it is not bound")
	}
	if got, _ := m.Answer(Socket{Port: 1}); got != Pending {
		t.Error("the members from before were changed")
	}
}

func TestAnAddressOfOneNodeIsBoundSomewhere(t *testing.T) {
	here := Socket{netip.MustParseAddr("192.0.2.1"), 80}
	m := Of([]*discoveryv1.EndpointSlice{slice("a=192.0.2.1", "b=192.0.2.2", "!c=192.0.2.3")}, []*coordinationv1.Lease{
		lease("a", "uid-a", "192.0.2.1:80", ""), lease("b", "uid-b", "", "192.0.2.1:80 [fd00::1]:80: cannot assign"), lease("c", "uid-c", "81", ""),
	})
	if !m.Somewhere(here) || m.Somewhere(Socket{Port: 80}) || m.Somewhere(Socket{Port: 81}) {
		t.Errorf("%+v", m)
	}
	if got, why := m.Answer(Socket{netip.MustParseAddr("fd00::1"), 80}); got != Failed || why != "pod b: cannot assign" {
		t.Errorf("%d %q", got, why)
	}
}

func TestWhatIsSaidIsReadAgain(t *testing.T) {
	at := func(text string) Socket {
		if a, err := netip.ParseAddrPort(text); err == nil {
			return Socket{a.Addr(), a.Port()}
		}
		return sockets(text)[0]
	}
	for _, c := range []struct {
		said          Said
		bound, failed string
	}{
		{Said{}, "", ""},
		{Said{Bound: map[Socket]bool{at("10000"): true, at("10001"): true, at("10003"): true, at("65535"): true, at("65534"): true}}, "10000-10001 10003 65534-65535", ""},
		{Said{Bound: map[Socket]bool{at("[::1]:80"): true, at("192.0.2.1:80"): true, at("192.0.2.1:81"): true, at("80"): true}}, "80 192.0.2.1:80 192.0.2.1:81 [::1]:80", ""},
		{Said{Failed: map[Socket]string{at("1"): "in: use", at("2"): "in: use", at("3"): "no"}}, "", "1-2: in: use\n3: no"},
		{Said{Bound: map[Socket]bool{at("9"): true}, Failed: map[Socket]string{at("[::1]:80"): "no\n right"}}, "9", "[::1]:80: no right"},
	} {
		a := c.said.annotations()
		if a[BoundAnnotation] != c.bound || a[FailedAnnotation] != c.failed {
			t.Errorf("%+v is written as %q", c.said, a)
		}
		back := read(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Annotations: a}})
		if again := back.annotations(); !maps.Equal(again, a) {
			t.Errorf("%q is read as %q", a, again)
		}
	}
}

func TestALeaseWithTenThousandFailuresIsOneThatTheAPIServerTakes(t *testing.T) {
	s := Said{Bound: map[Socket]bool{}, Failed: map[Socket]string{}}
	for p := range uint16(10000) {
		s.Bound[Socket{Port: 10000 + 2*p}] = true
		s.Failed[Socket{Port: 10001 + 2*p}] = fmt.Sprintf("listen tcp :%d: %s", 10001+2*p, strings.Repeat("é", 500))
	}
	a := s.annotations()
	if n := len(a[BoundAnnotation]) + len(a[FailedAnnotation]); n > 200<<10 {
		t.Errorf("%d bytes", n)
	}
	if back := read(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Annotations: a}}); len(back.Bound) != 10000 || len(back.Failed) != 10000 {
		t.Errorf("%d bound, %d failed", len(back.Bound), len(back.Failed))
	}
}

func FuzzWhatAReplicaSaysCanBeAnything(f *testing.F) {
	f.Add("10000-10004 10007 192.0.2.1:80", "1-2: no")
	f.Add("5-1 70000 -3 1-70000 [::1%eth0]:80", ": x\n\n1")
	f.Fuzz(func(t *testing.T, bound, failed string) {
		read(lease("a", "b", bound, failed))
	})
}

// server takes Leases.
type server struct {
	mu     sync.Mutex // guards what follows
	writes []string
	fail   int // so many times
}

func (s *server) Apply(_ context.Context, o runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail > 0 {
		s.fail--
		return errors.New("away")
	}
	l := o.(*coordinationv1ac.LeaseApplyConfiguration)
	s.writes = append(s.writes, fmt.Sprint(*l.Namespace, "/", *l.Name, " ", l.Annotations[BoundAnnotation], " ", *l.OwnerReferences[0].UID))
	return nil
}

func (s *server) is(want ...string) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return gocmp.Equal(s.writes, want)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never happened that %s", what)
		}
	}
}

func TestAReplicaWritesOnlyWhatChanges(t *testing.T) {
	s := &server{}
	a := NewAnnouncer(Self{"ns", "pod", "uid"}, s, testr.New(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	defer func() { cancel(); <-done }()
	ports := func(all ...uint16) Said {
		m := map[Socket]bool{}
		for _, p := range all {
			m[Socket{Port: p}] = true
		}
		return Said{Bound: m}
	}

	a.Say(ports(1))
	eventually(t, "it is said", s.is("ns/pod 1 uid"))
	a.Say(ports(1))
	a.Saw(lease("pod", "uid", "1", "")) // as it was written
	a.Say(ports(1, 2))
	eventually(t, "only the change is said", s.is("ns/pod 1 uid", "ns/pod 1-2 uid"))
	a.Saw(lease("pod", "uid", "7", ""))
	eventually(t, "what somebody else changed is said again", s.is("ns/pod 1 uid", "ns/pod 1-2 uid", "ns/pod 1-2 uid"))
}

func TestAReplicaSpeaksUntilItIsHeard(t *testing.T) {
	s := &server{fail: 1}
	a := NewAnnouncer(Self{"ns", "pod", "uid"}, s, testr.New(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	defer func() { cancel(); <-done }()
	a.Say(Said{Bound: map[Socket]bool{{Port: 1}: true}})
	eventually(t, "it is heard", s.is("ns/pod 1 uid"))
}
