package infra

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-dev/gatehouse/controllers/members"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// State is all that MakePlan looks at.
type State struct {
	// Wanted is what each Gateway that is served ought to have, oldest first.
	Wanted []translate.Infra
	// Gateways are all that there are and that are not another controller's. Of one that is here but not wanted, all stays as it is. Nil:
	// they are not known now, and nothing is removed or freed.
	Gateways map[types.UID]bool
	Record   Record // as it is stored
	// Services are those in our own namespace, and elsewhere those with UIDLabel.
	Services []*corev1.Service
	Members  members.Members
	// Owner is who owns our Services. Nil: it is gone, or not there yet; nothing is made then.
	Owner *metav1.OwnerReference
	Now   time.Time
}

// Plan is what is to be done, in this order: the record, the tasks, what is to be removed.
type Plan struct {
	// Record is how it ought to be. Services follow what is stored, never what is not.
	Record Record
	Tasks  []Task
	Remove []*corev1.Service
	// Unprovided is why a Gateway cannot have what it ought to have, where that is known without asking.
	Unprovided map[snapshot.Name]string
	// Again is when there may be something to do though nothing changed; zero: never.
	Again time.Time
}

// Task is to make what a Gateway has outside as it should be.
type Task struct {
	Gateway snapshot.Name
	UID     types.UID
	// Service and Alias as they should be; nil: it is so already, or it is not to be.
	Service, Alias *corev1.Service
}

// planning is a Plan in the making.
type planning struct {
	State
	Plan
	options   Options
	byName    map[snapshot.Name]*corev1.Service
	published map[types.UID]map[Port]uint16
	ports     *allocation
}

// MakePlan compares what there is with what there ought to be. It is pure.
func MakePlan(o Options, s State) Plan {
	if o.Host {
		return Plan{Record: s.Record, Remove: leftovers(o, s)}
	}
	p := &planning{options: o, State: s, Plan: Plan{Unprovided: map[snapshot.Name]string{}}, byName: map[snapshot.Name]*corev1.Service{}}
	for _, svc := range s.Services {
		p.byName[snapshot.Name{Namespace: svc.Namespace, Name: svc.Name}] = svc
	}
	p.published = p.allPublished()
	p.ports = newAllocation(s.Record, p.published, s.Now, o.lastPodPort())
	p.keepPublished()
	p.freeGone()
	for _, g := range s.Wanted {
		p.allocate(g)
		p.provide(g)
	}
	p.remove()
	p.Plan.Record, p.Again = p.ports.record, p.ports.rested()
	return p.Plan
}

// allPublished is what our Services publish, by Gateway, those included that are about to go.
func (p *planning) allPublished() map[types.UID]map[Port]uint16 {
	all := map[types.UID]map[Port]uint16{}
	for _, s := range p.Services {
		if uid := uidOf(s); uid != "" && s.Namespace == p.options.Namespace && s.Spec.Type != corev1.ServiceTypeExternalName {
			all[uid] = publishedPorts(s)
		}
	}
	return all
}

// keepPublished takes up in the record what Services publish, also those that are about to go: it is needed until they are gone, and rests
// afterwards.
func (p *planning) keepPublished() {
	for _, uid := range slices.Sorted(maps.Keys(p.published)) {
		for _, port := range slices.SortedFunc(maps.Keys(p.published[uid]), comparePorts) {
			p.ports.keep(uid, port)
		}
	}
}

func (p *planning) freeGone() {
	if p.Gateways == nil {
		return
	}
	for uid := range p.State.Record {
		if !p.Gateways[uid] {
			p.ports.free(uid, func(Port) bool { return false })
		}
	}
}

// needs are the ports that a Gateway is to have: those on which something is served, and those that its spec names and that it has
// already. What becomes invalid for a while, for want of a certificate, keeps its port.
func (p *planning) needs(g translate.Infra) map[Port]bool {
	needed := map[Port]bool{}
	for _, n := range g.Ports {
		needed[Port{Number: n}] = true
	}
	for _, n := range g.Named {
		port := Port{Number: n}
		_, published := p.published[g.UID][port]
		e, recorded := p.State.Record[g.UID][port]
		if published || recorded && e.held() {
			needed[port] = true
		}
	}
	return needed
}

// allocate sees to the record of a Gateway. What it needs no more is freed once it is published no more.
func (p *planning) allocate(g translate.Infra) {
	needed := p.needs(g)
	for _, port := range slices.SortedFunc(maps.Keys(needed), comparePorts) {
		if err := p.ports.hold(g.UID, port); err != nil {
			p.Unprovided[g.Gateway] = err.Error()
		}
	}
	p.ports.free(g.UID, func(port Port) bool { return needed[port] })
}

// provide compares a Gateway's Service and alias with how they should be.
func (p *planning) provide(g translate.Infra) {
	have := p.byName[snapshot.Name{Namespace: p.options.Namespace, Name: serviceName(g.Gateway)}]
	if have != nil && uidOf(have) != g.UID {
		if uidOf(have) == "" {
			p.Unprovided[g.Gateway] = taken(have)
		}
		return // of an earlier Gateway of that name: it will be removed, and then there is room
	}
	if have != nil && have.DeletionTimestamp != nil {
		return // somebody deletes it; once it is gone it is made anew
	}
	if p.Owner == nil || have != nil && !ownedBy(have, p.Owner.UID) {
		if have == nil || p.Owner != nil {
			p.Unprovided[g.Gateway] = p.noOwner(have)
		}
		return
	}
	addresses, problem := p.options.Service.usable(g.Addresses)
	if problem != "" && len(addresses) == 0 {
		return // none of those that it asks for can be had; it does not get another one
	}
	ports := p.servicePorts(g)
	if len(ports) == 0 {
		return
	}
	t := Task{Gateway: g.Gateway, UID: g.UID}
	if want := p.options.service(g, *p.Owner, ports, addresses); have == nil || differs(want, have) {
		t.Service = want
	}
	want := p.options.alias(g)
	if have := p.byName[snapshot.Name{Namespace: want.Namespace, Name: want.Name}]; have == nil || differs(want, have) {
		t.Alias = want
	}
	if t.Service != nil || t.Alias != nil {
		p.Tasks = append(p.Tasks, t)
	}
}

func taken(s *corev1.Service) string {
	return fmt.Sprintf("the name of Service %s/%s is needed for this Gateway, and it is not Gatehouse's; delete it, or give the Gateway another name", s.Namespace, s.Name)
}

func (p *planning) noOwner(have *corev1.Service) string {
	if have != nil {
		return fmt.Sprintf("Service %s/%s belongs to another installation of Gatehouse; is it being uninstalled? Else delete the Service", have.Namespace, have.Name)
	}
	return fmt.Sprintf("ConfigMap %s/%s is not there, which is to own the Services; is Gatehouse being uninstalled? Else helm upgrade makes it again", p.options.Namespace, p.options.Owner)
}

// servicePorts are the ports that a Gateway's Service is to have: those that every ready replica has bound, and of those that it has
// already all that are still needed, or else as they are: it keeps its last ones, so as not to lose its load balancer.
func (p *planning) servicePorts(g translate.Infra) []corev1.ServicePort {
	needed, published, record := p.needs(g), p.published[g.UID], p.State.Record[g.UID]
	var ports []corev1.ServicePort
	for _, port := range slices.SortedFunc(maps.Keys(needed), comparePorts) {
		pod := published[port]
		if e, ok := record[port]; ok && e.held() {
			pod = e.Pod
		}
		_, is := published[port]
		if answer, _ := p.Members.Answer(members.Socket{Port: pod}); pod != 0 && (is || answer == members.Bound) {
			ports = append(ports, servicePort(port, pod))
		}
	}
	if len(ports) > 0 {
		return ports
	}
	for _, port := range slices.SortedFunc(maps.Keys(published), comparePorts) {
		pod := published[port]
		if e, ok := record[port]; ok {
			pod = e.Pod
		}
		if pod != 0 {
			ports = append(ports, servicePort(port, pod))
		}
	}
	return ports
}

// remove finds the Services and aliases whose Gateway is gone.
func (p *planning) remove() {
	if p.Gateways == nil {
		return
	}
	for _, s := range p.Services {
		uid := uidOf(s)
		if uid == "" || p.Gateways[uid] || s.DeletionTimestamp != nil {
			continue
		}
		alias := s.Namespace != p.options.Namespace || s.Spec.Type == corev1.ServiceTypeExternalName
		if alias && ownedBy(s, uid) || !alias && p.Owner != nil && ownedBy(s, p.Owner.UID) {
			p.Remove = append(p.Remove, s)
		}
	}
}

// leftovers are the Services and aliases that this installation made before its exposure became host. Nobody listens any more on the pod
// ports that they send to. Aliases of other installations name Services in another namespace.
func leftovers(o Options, s State) (all []*corev1.Service) {
	for _, svc := range s.Services {
		uid := uidOf(svc)
		if uid == "" || svc.DeletionTimestamp != nil {
			continue
		}
		service := svc.Namespace == o.Namespace && s.Owner != nil && ownedBy(svc, s.Owner.UID)
		alias := svc.Spec.Type == corev1.ServiceTypeExternalName && ownedBy(svc, uid) &&
			strings.Contains(svc.Spec.ExternalName, "."+o.Namespace+".svc.")
		if service || alias {
			all = append(all, svc)
		}
	}
	return all
}
