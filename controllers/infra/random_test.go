package infra

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-dev/gatehouse/controllers/members"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

// FuzzNoPodPortIsTwoGateways lets Gateways come, change and go while replicas bind and leave, plans are carried out in part, time passes,
// caches are late and the record is lost, and wants that no client is ever sent to the listener of another Gateway.
func FuzzNoPodPortIsTwoGateways(f *testing.F) {
	for seed := range uint64(80) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := &simulation{t: t, world: newWorld(), rand: rand.New(rand.NewPCG(seed, 1)), last: map[uint16]use{}}
		s.options.LastPodPort = firstPodPort + 11 // few, so that they are used again
		for range 150 {
			s.change()
			s.carryOut()
			s.check()
		}
	})
}

type simulation struct {
	t *testing.T
	*world
	rand *rand.Rand
	made int
	last map[uint16]use
	late []*corev1.Service // what a cache shows that is late; nil: it is not
	log  []string
}

// use is who had a pod port last, and when.
type use struct {
	uid types.UID
	at  time.Time
}

func (s *simulation) change() {
	s.Now = s.Now.Add(time.Duration(s.rand.IntN(200)) * time.Second)
	switch s.rand.IntN(9) {
	case 0, 1:
		s.made++
		g := gateway(fmt.Sprintf("g%d", s.rand.IntN(4)), s.somePorts()...)
		g.UID = types.UID(fmt.Sprintf("uid-%d", s.made))
		s.want(append(slices.DeleteFunc(slices.Clone(s.Wanted), func(o translate.Infra) bool { return o.Gateway == g.Gateway }), g)...)
	case 2:
		if len(s.Wanted) > 0 {
			s.want(s.Wanted[1:]...)
		}
	case 3, 4:
		if len(s.Wanted) > 0 {
			all := slices.Clone(s.Wanted)
			g := &all[s.rand.IntN(len(all))]
			g.Named = s.somePorts()
			g.Ports = slices.DeleteFunc(slices.Clone(g.Named), func(uint16) bool { return s.rand.IntN(4) == 0 })
			s.want(all...)
		}
	case 5:
		s.Gateways = nil // it is not known now
	case 6:
		// Somebody deletes it while no leader is there to remember it: what Services say is all that is left, to one who has just read them.
		s.Record, s.last, s.late = Record{}, map[uint16]use{}, nil
	case 7:
		s.bindSome()
		return
	}
	s.bind()
}

func (s *simulation) somePorts() (ports []uint16) {
	for _, p := range []uint16{80, 443, 8080} {
		if s.rand.IntN(2) == 0 {
			ports = append(ports, p)
		}
	}
	return ports
}

func (s *simulation) bindSome() {
	s.bind()
	if said := s.Members.Ready[0].Said; s.rand.IntN(2) == 0 {
		for socket := range maps.Clone(said.Bound) {
			delete(said.Bound, socket)
		}
	} else {
		s.Members = members.Members{}
	}
}

// carryOut makes a plan, of a late cache now and then, and does a part of it.
func (s *simulation) carryOut() {
	state := s.State
	if s.late != nil {
		state.Services = s.late
	}
	plan := MakePlan(s.options, state)
	s.late = nil
	if len(s.Record) > 0 && s.rand.IntN(3) == 0 {
		s.late = slices.Clone(s.Services)
	}
	if s.rand.IntN(4) > 0 {
		s.Record = plan.Record
	} else {
		return // as the leader does when it cannot write the record
	}
	for _, task := range plan.Tasks {
		if task.Service == nil || s.rand.IntN(4) == 0 {
			continue
		}
		// as apply does: what is there of another Gateway is not touched
		i := slices.IndexFunc(s.Services, func(o *corev1.Service) bool { return o.Name == task.Service.Name })
		if i >= 0 && uidOf(s.Services[i]) != task.UID {
			continue
		}
		if i >= 0 {
			s.Services = slices.Delete(slices.Clone(s.Services), i, i+1)
		}
		s.Services = append(slices.Clone(s.Services), task.Service)
	}
	for _, gone := range plan.Remove {
		if s.rand.IntN(3) > 0 {
			s.Services = slices.DeleteFunc(slices.Clone(s.Services), func(o *corev1.Service) bool { return o.Name == gone.Name && uidOf(o) == uidOf(gone) })
		}
	}
	s.log = append(s.log, fmt.Sprintf("%v %v", s.Record.text(), plan.Unprovided))
}

func (s *simulation) check() {
	uses := map[uint16]types.UID{}
	note := func(uid types.UID, pod uint16, where string) {
		if other, ok := uses[pod]; ok && other != uid {
			s.fail("pod port %d is of %s and of %s (%s)", pod, other, uid, where)
		}
		uses[pod] = uid
		if last, ok := s.last[pod]; ok && last.uid != uid && s.Now.Sub(last.at) < rest {
			s.fail("pod port %d is given to %s %s after %s", pod, uid, s.Now.Sub(last.at), last.uid)
		}
	}
	held := map[types.UID]map[Port]uint16{}
	for uid, entries := range s.Record {
		held[uid] = map[Port]uint16{}
		for p, e := range entries {
			if e.held() {
				note(uid, e.Pod, "recorded")
				held[uid][p] = e.Pod
			}
		}
	}
	for _, svc := range s.Services {
		if svc.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		if len(svc.Spec.Ports) == 0 {
			s.fail("Service %s has no port", svc.Name)
		}
		for _, pod := range publishedPorts(svc) {
			note(uidOf(svc), pod, "published")
		}
	}
	for pod, uid := range uses {
		s.last[pod] = use{uid, s.Now}
	}
}

func (s *simulation) fail(format string, args ...any) {
	s.t.Helper()
	for _, line := range s.log[max(0, len(s.log)-8):] {
		s.t.Log(line)
	}
	s.t.Fatalf(format, args...)
}
