package infra

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/members"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Client is what is needed of a controller-runtime client, one that reads from the API server itself.
type Client interface {
	Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error
	Create(context.Context, client.Object, ...client.CreateOption) error
	Update(context.Context, client.Object, ...client.UpdateOption) error
	Delete(context.Context, client.Object, ...client.DeleteOption) error
	Apply(context.Context, runtime.ApplyConfiguration, ...client.ApplyOption) error
}

// Options are given by the chart.
type Options struct {
	Client Client
	// Changed is called when what PodPorts returns or Complete says may have changed, from any goroutine, and never with a lock held.
	Changed func()
	Log     logr.Logger

	Namespace string // ours
	Pod       string // ours, and its UID
	PodUID    types.UID
	Headless  string // the headless Service over our pods
	// Host: no Services, listeners bind the spec's ports on the nodes. What follows is for exposure service only.
	Host          bool
	Owner         string            // the ConfigMap that owns our Services, rendered by the chart
	Record        string            // the ConfigMap that the leader keeps the record in
	Selector      map[string]string // of our pods
	ClusterDomain string            // "cluster.local"
	Service       ServiceOptions

	Now         func() time.Time // nil: time.Now
	LastPodPort uint16           // 0: 29999; for tests of a range that is full
}

func (o Options) lastPodPort() uint16 {
	if o.LastPodPort == 0 {
		return lastPodPort
	}
	return o.LastPodPort
}

// Infra holds what there is for the Gateways outside of this process, and on the leader brings it to what it should be. All methods may be
// called from several goroutines.
type Infra struct {
	options   Options
	announcer *members.Announcer
	wake      chan struct{} // holds one: there may be something to do for the leader

	mu       sync.Mutex // guards what follows
	owner    *corev1.ConfigMap
	stored   *corev1.ConfigMap // the record's; nil: there is none
	record   Record            // what was stored last: it counts on when somebody deletes the ConfigMap
	podPorts map[translate.PodPort]uint16
	services map[snapshot.Name]*corev1.Service
	slices   map[string]*discoveryv1.EndpointSlice
	leases   map[string]*coordinationv1.Lease
	nodes    map[string]*corev1.Node
	applied  bool
	wanted   []translate.Infra
	gateways map[types.UID]bool
	planned  map[snapshot.Name]string // Plan.Unprovided
	failures failures
}

// New makes one that knows nothing yet.
func New(o Options) *Infra {
	if o.Now == nil {
		o.Now = time.Now
	}
	self := members.Self{Namespace: o.Namespace, Pod: o.Pod, UID: o.PodUID}
	i := &Infra{
		options:   o,
		announcer: members.NewAnnouncer(self, o.Client, o.Log),
		wake:      make(chan struct{}, 1),
		record:    Record{},
		services:  map[snapshot.Name]*corev1.Service{},
		slices:    map[string]*discoveryv1.EndpointSlice{},
		leases:    map[string]*coordinationv1.Lease{},
		nodes:     map[string]*corev1.Node{},
		failures:  failures{},
	}
	if !o.Host {
		i.podPorts = map[translate.PodPort]uint16{}
	}
	return i
}

// Set tells of what there is, as watches see it: of our own namespace ConfigMaps, Leases, EndpointSlices and Services, of others the
// Services with UIDLabel, and Nodes where Services are of type NodePort. What is of no concern is passed over. Nobody changes what was
// told.
func (i *Infra) Set(objects ...client.Object) { i.tell(objects, i.set) }

// Delete tells of what is gone.
func (i *Infra) Delete(objects ...client.Object) { i.tell(objects, i.delete) }

func (i *Infra) tell(objects []client.Object, enter func(client.Object) bool) {
	news := false
	i.mu.Lock()
	for _, o := range objects {
		news = enter(o) || news
	}
	i.mu.Unlock()
	if news {
		i.rouse()
		i.options.Changed()
	}
}

func (i *Infra) rouse() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// set enters an object, and says whether it concerns us; i.mu is held.
func (i *Infra) set(o client.Object) bool {
	if n, ok := o.(*corev1.Node); ok {
		was := i.nodes[n.Name]
		i.nodes[n.Name] = n
		return was == nil || !sameNode(was, n)
	}
	if s, ok := o.(*corev1.Service); ok {
		return i.setService(s)
	}
	if o.GetNamespace() != i.options.Namespace {
		return false
	}
	switch v := o.(type) {
	case *corev1.ConfigMap:
		switch v.Name {
		case i.options.Owner:
			i.owner = v
			return true
		case i.options.Record:
			return i.setRecord(v)
		}
	case *discoveryv1.EndpointSlice:
		if v.Labels[discoveryv1.LabelServiceName] == i.options.Headless {
			i.slices[v.Name] = v
			return true
		}
	case *coordinationv1.Lease:
		return i.setLease(v)
	}
	return false
}

func (i *Infra) setService(s *corev1.Service) bool {
	name := snapshot.Name{Namespace: s.Namespace, Name: s.Name}
	if s.Namespace != i.options.Namespace && uidOf(s) == "" {
		_, was := i.services[name]
		delete(i.services, name)
		return was
	}
	i.services[name] = s
	return true
}

// setRecord enters the record unless a newer one is known: what we wrote ourselves is known before a watch tells it.
func (i *Infra) setRecord(c *corev1.ConfigMap) bool {
	if i.stored != nil && i.stored.UID == c.UID {
		if order, err := resourceversion.CompareResourceVersion(c.ResourceVersion, i.stored.ResourceVersion); err == nil && order <= 0 {
			return false
		}
	}
	i.stored, i.record = c, readRecord(c.Data)
	if !i.options.Host {
		i.podPorts = i.record.podPorts()
	}
	return true
}

// setLease enters the Lease of a replica. The election's is renewed every few seconds, and none of our business.
func (i *Infra) setLease(l *coordinationv1.Lease) bool {
	if !members.IsReplica(l) {
		return false
	}
	if l.Name == i.options.Pod {
		i.announcer.Saw(l)
	}
	was := i.leases[l.Name]
	i.leases[l.Name] = l
	return was == nil || !maps.Equal(was.Annotations, l.Annotations) || !reflect.DeepEqual(was.OwnerReferences, l.OwnerReferences)
}

// delete is the opposite of set; i.mu is held.
func (i *Infra) delete(o client.Object) bool {
	switch v := o.(type) {
	case *corev1.Node:
		delete(i.nodes, v.Name)
		return true
	case *corev1.Service:
		name := snapshot.Name{Namespace: v.Namespace, Name: v.Name}
		_, was := i.services[name]
		delete(i.services, name)
		return was
	case *corev1.ConfigMap:
		return v.Namespace == i.options.Namespace && i.deleteConfigMap(v)
	case *discoveryv1.EndpointSlice:
		_, was := i.slices[v.Name]
		delete(i.slices, v.Name)
		return was && v.Namespace == i.options.Namespace
	case *coordinationv1.Lease:
		if v.Namespace != i.options.Namespace || !members.IsReplica(v) {
			return false
		}
		delete(i.leases, v.Name)
		if v.Name == i.options.Pod {
			i.announcer.Repeat()
		}
		return true
	}
	return false
}

func (i *Infra) deleteConfigMap(c *corev1.ConfigMap) bool {
	switch {
	case c.Name == i.options.Owner:
		i.owner = nil
		return true
	case c.Name == i.options.Record && i.stored != nil && i.stored.UID == c.UID:
		i.stored = nil // what it said still holds: the sockets are bound
		return true
	}
	return false
}

// PodPorts is the record of pod ports. Nil: listeners bind the spec's ports. Nobody changes it.
func (i *Infra) PodPorts() map[translate.PodPort]uint16 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.podPorts
}

// Applied tells what the Gateways ought to have, which Gateways there are that are not another controller's (translate.Result.Gateways; nil:
// not known now, so nothing is removed), and what became of the sockets here.
func (i *Infra) Applied(wanted []translate.Infra, gateways map[types.UID]bool, here snapshot.BindResult) {
	said := members.Said{Bound: map[members.Socket]bool{}, Failed: map[members.Socket]string{}}
	for _, s := range here.Sockets {
		socket := members.Socket{Address: s.Key.Address, Port: s.Key.Port}
		if s.Err != nil {
			said.Failed[socket] = s.Err.Error()
		} else {
			said.Bound[socket] = true
		}
	}
	i.announcer.Say(said)
	i.mu.Lock()
	i.applied, i.wanted, i.gateways = true, wanted, gateways
	i.mu.Unlock()
	i.rouse()
}

// Run tells the other replicas what this one has bound, until ctx ends.
func (i *Infra) Run(ctx context.Context) { i.announcer.Run(ctx) }

// members are those of now; i.mu is held.
func (i *Infra) members() members.Members {
	m := members.Of(slices.Collect(maps.Values(i.slices)), slices.Collect(maps.Values(i.leases)))
	if said, ok := i.announcer.Said(); ok {
		m = m.With(i.options.Pod, said)
	}
	return m
}

// Members are the replicas that are ready.
func (i *Infra) Members() members.Members {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.members()
}

// Complete adds what is known of the outside: addresses, what cannot be had, and what the other replicas say of the sockets. A socket that
// is published counts as bound unless a replica says that it cannot: one that has not spoken yet does not take it back.
func (i *Infra) Complete(f *translate.Facts) {
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.members()
	f.Addresses = map[snapshot.Name][]gwv1.GatewayStatusAddress{}
	f.Unprovided, f.Unusable, f.Remarks = map[snapshot.Name]string{}, map[snapshot.Name]string{}, map[snapshot.Name]string{}
	if i.options.Host {
		for _, g := range i.wanted {
			f.Addresses[g.Gateway] = hostAddresses(g, m)
		}
		for key := range f.Binds {
			socket := members.Socket{Address: key.Address, Port: key.Port}
			answer, why := m.Answer(socket)
			if key.Address.IsValid() && m.Somewhere(socket) {
				answer = members.Bound // it is the address of one node
			}
			settle(f, key, answer, why)
		}
		return
	}
	published := map[snapshot.Name]map[uint16]bool{}
	for _, g := range i.wanted {
		if s := i.serviceOf(g); s != nil {
			f.Addresses[g.Gateway] = addressesOf(s, slices.Collect(maps.Values(i.nodes)), m)
			published[g.Gateway] = map[uint16]bool{}
			for _, pod := range publishedPorts(s) {
				published[g.Gateway][pod] = true
			}
		}
		if _, problem := i.options.Service.usable(g.Addresses); problem != "" {
			f.Unusable[g.Gateway] = problem
		}
	}
	for key := range f.Binds {
		answer, why := m.Answer(members.Socket{Port: key.Port})
		switch is := published[key.Gateway][key.Port]; {
		case answer == members.Pending && is:
			answer = members.Bound
		case answer == members.Bound && !is:
			answer = members.Pending
		}
		settle(f, key, answer, why)
	}
	maps.Copy(f.Unprovided, i.planned)
	i.failures.add(f)
}

func settle(f *translate.Facts, key snapshot.SocketKey, answer members.Answer, why string) {
	switch answer {
	case members.Bound:
		f.Binds[key] = nil
	case members.Failed:
		f.Binds[key] = fmt.Errorf("%s", why)
	default:
		delete(f.Binds, key)
	}
}

// serviceOf is a Gateway's Service; i.mu is held.
func (i *Infra) serviceOf(g translate.Infra) *corev1.Service {
	s := i.services[snapshot.Name{Namespace: i.options.Namespace, Name: serviceName(g.Gateway)}]
	if s == nil || uidOf(s) != g.UID || s.DeletionTimestamp != nil {
		return nil
	}
	return s
}

// state is what a plan is made of; not ok: nothing was applied yet, so that it is not known what is wanted.
func (i *Infra) state() (s State, stored *corev1.ConfigMap, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s = State{
		Wanted:   i.wanted,
		Gateways: i.gateways,
		Record:   i.record,
		Services: slices.SortedFunc(maps.Values(i.services), byName),
		Members:  i.members(),
		Now:      i.options.Now(),
	}
	if i.owner != nil && i.owner.DeletionTimestamp == nil {
		s.Owner = &metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: i.owner.Name, UID: i.owner.UID}
	}
	return s, i.stored, i.applied
}

func sameNode(a, b *corev1.Node) bool {
	_, excludedA := a.Labels[corev1.LabelNodeExcludeBalancers]
	_, excludedB := b.Labels[corev1.LabelNodeExcludeBalancers]
	return excludedA == excludedB && nodeReady(a) == nodeReady(b) && slices.Equal(a.Status.Addresses, b.Status.Addresses)
}
