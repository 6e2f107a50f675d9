package status_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr/testr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/status"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// store is an API server that holds Gateways and nothing else.
type store struct {
	client.SubResourceWriter

	mu        sync.Mutex // guards what follows
	gateways  map[client.ObjectKey]*gwv1.Gateway
	version   int
	gets      int
	patches   int
	beforePut func(*gwv1.Gateway) // called before a patch is looked at, with what is stored
	refuse    error
	hold      chan struct{} // patches wait for it, or for the end of their context
}

var resource = schema.GroupResource{Group: gwv1.GroupName, Resource: "gateways"}

func newStore(names ...string) *store {
	s := &store{gateways: map[client.ObjectKey]*gwv1.Gateway{}}
	for _, name := range names {
		g := &gwv1.Gateway{}
		g.Namespace, g.Name, g.Generation = "infra", name, generation
		s.put(g)
	}
	return s
}

// put stores a new version.
func (s *store) put(g *gwv1.Gateway) {
	s.version++
	g.ResourceVersion = strconv.Itoa(s.version)
	s.gateways[client.ObjectKeyFromObject(g)] = g
}

func (s *store) Status() client.SubResourceWriter { return s }

func (s *store) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	g := s.gateways[key]
	if g == nil {
		return apierrors.NewNotFound(resource, key.Name)
	}
	g.DeepCopyInto(o.(*gwv1.Gateway))
	return nil
}

func (s *store) Patch(ctx context.Context, o client.Object, p client.Patch, _ ...client.SubResourcePatchOption) error {
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patches++
	if s.refuse != nil {
		return s.refuse
	}
	key := client.ObjectKeyFromObject(o)
	if s.gateways[key] == nil {
		return apierrors.NewNotFound(resource, key.Name)
	}
	if s.beforePut != nil {
		s.beforePut(s.gateways[key])
	}
	text, err := p.Data(o)
	if err != nil {
		return err
	}
	operations, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return err
	}
	stored, err := json.Marshal(s.gateways[key])
	if err != nil {
		return err
	}
	after, err := operations.Apply(stored)
	if err != nil { // the API server says so when a place in a list is not there, too
		return apierrors.NewInvalid(schema.GroupKind{}, key.Name, nil)
	}
	g := &gwv1.Gateway{}
	if err := json.Unmarshal(after, g); err != nil {
		return err
	}
	s.put(g)
	g.DeepCopyInto(o.(*gwv1.Gateway))
	return nil
}

func (s *store) gateway(name string) *gwv1.Gateway {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gateways[client.ObjectKey{Namespace: "infra", Name: name}]
	if g == nil {
		return nil
	}
	return g.DeepCopy()
}

func (s *store) count() (gets, patches int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets, s.patches
}

// stored is as a watch that is never late.
func (s *store) stored(_ string, name snapshot.Name) client.Object {
	if g := s.gateway(name.Name); g != nil {
		return g
	}
	return nil
}

// told is a Gateway's status with these conditions, of a generation.
func told(t *testing.T, name string, generation int64, conditions string) translate.Status {
	return translate.Status{
		Kind: "Gateway", Name: snapshot.Name{Namespace: "infra", Name: name}, Generation: generation,
		Value: gwv1.GatewayStatus{Conditions: parse(t, conditions)},
	}
}

func newWriter(t *testing.T, s *store, o status.Options) *status.Writer {
	o.Client, o.Log = s, testr.New(t)
	return status.NewWriter(o)
}

// lead has the writer lead until the returned function is called, or the test ends.
func lead(t *testing.T, w *status.Writer) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Lead(ctx) }()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	return end
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("it never happened that %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *store) says(name, conditions string) func() bool {
	return func() bool {
		var words string
		for _, c := range s.gateway(name).Status.Conditions {
			words += fmt.Sprintf("%s=%s/%d ", c.Type, c.Status, c.ObservedGeneration)
		}
		return words == conditions+" "
	}
}

func TestNothingIsWrittenByOneWhoDoesNotLead(t *testing.T) {
	s := newStore("gw")
	w := newWriter(t, s, status.Options{})
	w.Told([]translate.Status{told(t, "gw", 2, "Accepted=True")})
	w.Seen("Gateway", snapshot.Name{Namespace: "infra", Name: "gw"})
	if gets, patches := s.count(); gets+patches > 0 {
		t.Errorf("%d reads, %d writes", gets, patches)
	}
	lead(t, w)
	eventually(t, "it is written", s.says("gw", "Accepted=True/2"))
}

func TestAThousandStatusesThatSayTheSameAreNotWritten(t *testing.T) {
	var names []string
	var all []translate.Status
	for i := range 1000 {
		names = append(names, fmt.Sprintf("gw%d", i))
		all = append(all, told(t, names[i], 2, "Accepted=True Programmed=False"))
	}
	s := newStore(names...)
	w := newWriter(t, s, status.Options{Stored: s.stored})
	w.Told(all)
	end := lead(t, w)
	eventually(t, "all are written", func() bool { _, patches := s.count(); return patches == 1000 })
	end()

	lead(t, w) // a new term looks at all of them
	again := append([]translate.Status{told(t, "last", 2, "Accepted=True")}, all...)
	s.mu.Lock()
	g := &gwv1.Gateway{}
	g.Namespace, g.Name, g.Generation = "infra", "last", 2
	s.put(g)
	s.mu.Unlock()
	w.Told(again)
	for i := range all {
		w.Seen("Gateway", all[i].Name)
	}
	eventually(t, "what is new is written", s.says("last", "Accepted=True/2"))
	w.Told(append([]translate.Status{told(t, "last", 2, "Accepted=False")}, all...))
	eventually(t, "what changed is written", s.says("last", "Accepted=False/2"))
	if gets, patches := s.count(); gets > 0 || patches != 1002 {
		t.Errorf("%d reads, %d writes", gets, patches)
	}
}

func TestAWriteThatLosesARaceIsMergedOnceMore(t *testing.T) {
	s := newStore("gw")
	races := 0
	s.beforePut = func(g *gwv1.Gateway) {
		if races++; races <= 3 { // each time another tool is quicker
			g.Status.Conditions = append(parse(t, fmt.Sprintf("example.com/%d=True", races)), g.Status.Conditions...)
			s.put(g)
		}
	}
	w := newWriter(t, s, status.Options{Stored: s.stored})
	w.Told([]translate.Status{told(t, "gw", 2, "Accepted=True")})
	lead(t, w)
	eventually(t, "both have written", s.says("gw", "example.com/3=True/0 example.com/2=True/0 example.com/1=True/0 Accepted=True/2"))
}

func TestAnswersOfANewerGenerationStay(t *testing.T) {
	s := newStore("gw")
	g := s.gateway("gw")
	g.Generation, g.Status.Conditions = 3, parse(t, "Accepted=False/3")
	s.put(g)
	w := newWriter(t, s, status.Options{})
	w.Told([]translate.Status{told(t, "gw", 2, "Accepted=True")})
	lead(t, w)
	eventually(t, "it was looked at", func() bool { gets, _ := s.count(); return gets > 0 })
	w.Told([]translate.Status{told(t, "gw", 3, "Accepted=Unknown")})
	eventually(t, "the next answer is written", s.says("gw", "Accepted=Unknown/3"))
	if _, patches := s.count(); patches != 1 {
		t.Errorf("%d writes", patches)
	}
}

// An object that was deleted and made anew begins with generation 1. Were 5 in its status, all of the next four would be too old.
func TestTheGenerationOfAnEarlierObjectOfThatNameIsNotWritten(t *testing.T) {
	s := newStore("gw", "other")
	w := newWriter(t, s, status.Options{Stored: s.stored})
	w.Told([]translate.Status{told(t, "gw", 5, "Accepted=True")})
	lead(t, w)
	eventually(t, "it was looked at", func() bool { gets, _ := s.count(); return gets > 0 })
	w.Told([]translate.Status{told(t, "gw", 2, "Accepted=False")})
	eventually(t, "the next answer is written", s.says("gw", "Accepted=False/2"))
	if _, patches := s.count(); patches != 1 {
		t.Errorf("%d writes", patches)
	}
}

// A watch that is late still shows A after B was written. To believe it would leave B there when A is wanted again.
func TestWhatAWatchIsLateToShowIsNotBelieved(t *testing.T) {
	s := newStore("gw")
	g := s.gateway("gw")
	g.Status.Conditions = parse(t, "Accepted=True/2@50")
	s.put(g)
	before := s.gateway("gw")
	w := newWriter(t, s, status.Options{Stored: func(string, snapshot.Name) client.Object { return before }})
	w.Told([]translate.Status{told(t, "gw", 2, "Accepted=False")})
	lead(t, w)
	eventually(t, "B is written", s.says("gw", "Accepted=False/2"))
	w.Told([]translate.Status{told(t, "gw", 2, "Accepted=True")})
	eventually(t, "A is written again", s.says("gw", "Accepted=True/2"))
}

func TestWhatOthersChangeInOursIsWrittenAgain(t *testing.T) {
	s := newStore("gw")
	wrote := make(chan string, 10)
	w := newWriter(t, s, status.Options{Stored: s.stored, Wrote: func(o client.Object, was, now any) {
		wrote <- fmt.Sprintf("%s: %d, then %d", o.GetName(), len(was.(gwv1.GatewayStatus).Conditions), len(now.(gwv1.GatewayStatus).Conditions))
	}})
	w.Told([]translate.Status{told(t, "gw", 2, "Accepted=True")})
	lead(t, w)
	if got := <-wrote; got != "gw: 0, then 1" {
		t.Errorf("wrote %s", got)
	}
	s.mu.Lock()
	g := s.gateways[client.ObjectKey{Namespace: "infra", Name: "gw"}].DeepCopy()
	g.Status.Conditions = nil
	s.put(g)
	s.mu.Unlock()
	w.Seen("Gateway", snapshot.Name{Namespace: "infra", Name: "gw"})
	eventually(t, "it is written again", s.says("gw", "Accepted=True/2"))
}

func TestWritingEndsAtOnceWithTheLease(t *testing.T) {
	s := newStore("gw", "other")
	s.hold = make(chan struct{})
	w := newWriter(t, s, status.Options{Stored: s.stored})
	w.Told([]translate.Status{told(t, "gw", 2, "Accepted=True"), told(t, "other", 2, "Accepted=True")})
	end := lead(t, w)
	ended := make(chan struct{})
	go func() { end(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patient):
		t.Fatal("it waits for a write that does not end")
	}
	close(s.hold)
	if _, patches := s.count(); patches > 0 {
		t.Errorf("%d writes after the end", patches)
	}
}

const patient = 5 * time.Second // less than a call may take

func TestARefusedWriteIsTriedAgainAndDoesNotHoldUpOthers(t *testing.T) {
	s := newStore("gw")
	s.refuse = apierrors.NewForbidden(resource, "gw", nil)
	w := newWriter(t, s, status.Options{Stored: s.stored})
	w.Told([]translate.Status{told(t, "gw", 2, "Accepted=True"), told(t, "gone", 2, "Accepted=True"), {Kind: "Teapot"}})
	lead(t, w)
	eventually(t, "it was tried twice", func() bool { _, patches := s.count(); return patches >= 2 })
	s.mu.Lock()
	s.refuse = nil
	s.mu.Unlock()
	eventually(t, "it is written", s.says("gw", "Accepted=True/2"))
}
