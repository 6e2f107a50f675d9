package infra

import (
	"context"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

const (
	workers  = 4                // Gateways that are worked on at a time
	patience = 10 * time.Second // for one call of the API server
	// What failed is tried again after the first of these, then ever later.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// job is what is done for one Gateway, or for one Service that is to go: the unit that fails alone.
type job struct {
	gateway snapshot.Name
	task    Task
	remove  *corev1.Service
}

// jobKey tells jobs apart. No two of one key are under way at a time.
type jobKey struct {
	gateway snapshot.Name // zero for a removal
	remove  snapshot.Name
}

// same reports whether a job is what failed before, so that it has to wait.
func (j job) same(other job) bool {
	text := func(s *corev1.Service) string {
		if s == nil {
			return ""
		}
		return s.Annotations[appliedAnnotation]
	}
	return j.task.UID == other.task.UID && text(j.task.Service) == text(other.task.Service) && text(j.task.Alias) == text(other.task.Alias)
}

// failure is a job that failed, and waits.
type failure struct {
	job        job
	delay      time.Duration
	until      time.Time
	unprovided string // for the status of its Gateway; "" if nobody but us can do something about it
	remark     string
}

type failures map[jobKey]*failure

func (all failures) add(f *translate.Facts) {
	for _, one := range all {
		if one.unprovided != "" {
			f.Unprovided[one.job.gateway] = one.unprovided
		}
		if one.remark != "" {
			f.Remarks[one.job.gateway] = one.remark
		}
	}
}

// leading is one term as the leader.
type leading struct {
	*Infra
	queue workqueue.TypedDelayingInterface[jobKey]

	mu   sync.Mutex // guards jobs
	jobs map[jobKey]job
}

// Lead brings about what the Gateways ought to have, until ctx ends.
func (i *Infra) Lead(ctx context.Context) {
	l := &leading{Infra: i, queue: workqueue.NewTypedDelayingQueue[jobKey](), jobs: map[jobKey]job{}}
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for l.work(ctx) {
			}
		})
	}
	l.run(ctx)
	l.queue.ShutDown()
	all.Wait()
	i.mu.Lock()
	i.planned, i.failures = nil, failures{}
	i.mu.Unlock()
}

// run makes a plan whenever something changed.
func (l *leading) run(ctx context.Context) {
	l.rouse()
	again := time.NewTimer(lastRetry)
	defer again.Stop()
	retry := firstRetry
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-again.C:
			l.lookAtRecord(ctx)
		}
		state, stored, ok := l.state()
		if !ok {
			continue
		}
		plan := MakePlan(l.options, state)
		wait := lastRetry
		if !plan.Again.IsZero() {
			wait = min(wait, max(plan.Again.Sub(state.Now), 0)+time.Second)
		}
		kept, err := l.keepRecord(ctx, state, stored, plan)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.options.Log.Error(err, "cannot write the record of pod ports; changes of Gateways wait for it", "again", retry)
			wait, retry = retry/2+rand.N(retry/2), min(2*retry, lastRetry)
		case kept:
			retry = firstRetry
			l.take(plan) // not before: a port that a Service gives up would not rest
		}
		again.Reset(wait)
	}
}

// lookAtRecord finds out what no watch has told: one that begins anew does not see what came and went meanwhile.
func (l *leading) lookAtRecord(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := l.readRecord(ctx, client.ObjectKey{Namespace: l.options.Namespace, Name: l.options.Record}); err != nil {
		l.options.Log.V(1).Info("cannot look at the record of pod ports", "error", err.Error())
	}
}

// keepRecord stores the record of a plan, if that is another one than is stored. Not kept: somebody else was quicker, and the plan is void.
func (l *leading) keepRecord(ctx context.Context, s State, stored *corev1.ConfigMap, p Plan) (kept bool, err error) {
	if l.options.Host || s.Owner == nil || stored != nil && p.Record.equal(s.Record) {
		return true, nil
	}
	return l.writeRecord(ctx, stored, p.Record, *s.Owner)
}

// take makes jobs of a plan. One that failed just so waits until its time has come.
func (l *leading) take(p Plan) {
	jobs := map[jobKey]job{}
	for _, t := range p.Tasks {
		jobs[jobKey{gateway: t.Gateway}] = job{gateway: t.Gateway, task: t}
	}
	for _, s := range p.Remove {
		gateway, _ := gatewayOf(s)
		jobs[jobKey{remove: snapshot.Name{Namespace: s.Namespace, Name: s.Name}}] = job{gateway: gateway, remove: s}
	}
	l.mu.Lock()
	l.jobs = jobs
	l.mu.Unlock()

	l.Infra.mu.Lock()
	news := !maps.Equal(l.planned, p.Unprovided)
	l.planned = p.Unprovided
	for key, f := range l.failures {
		if _, still := jobs[key]; !still {
			delete(l.failures, key)
			news = news || f.unprovided != "" || f.remark != ""
		}
	}
	now := l.options.Now()
	for key, j := range jobs {
		if f := l.failures[key]; f == nil || !f.job.same(j) || !now.Before(f.until) {
			l.queue.Add(key)
		}
	}
	l.Infra.mu.Unlock()
	if news {
		l.options.Changed()
	}
}

// work does one job; false: the term is over.
func (l *leading) work(ctx context.Context) bool {
	key, over := l.queue.Get()
	if over {
		return false
	}
	defer l.queue.Done(key)
	l.mu.Lock()
	j, still := l.jobs[key]
	l.mu.Unlock()
	if !still || ctx.Err() != nil {
		return true
	}
	failed := l.do(ctx, j)
	if ctx.Err() != nil {
		return true
	}
	if l.noteFailure(key, failed) {
		l.options.Changed()
	}
	if failed != nil {
		l.queue.AddAfter(key, failed.delay)
	}
	return true
}

// noteFailure keeps how a job failed, nil: it did not. It returns whether that changes what Gateways are told.
func (l *leading) noteFailure(key jobKey, failed *failure) (news bool) {
	l.Infra.mu.Lock()
	defer l.Infra.mu.Unlock()
	was := l.failures[key]
	if failed == nil {
		delete(l.failures, key)
		return was != nil && (was.unprovided != "" || was.remark != "")
	}
	failed.delay = firstRetry
	if was != nil && was.job.same(failed.job) {
		failed.delay = min(2*was.delay, lastRetry)
	}
	failed.delay = failed.delay/2 + rand.N(failed.delay/2+1)
	failed.until = l.options.Now().Add(failed.delay)
	l.failures[key] = failed
	return was == nil || was.unprovided != failed.unprovided || was.remark != failed.remark
}

func byName(a, b *corev1.Service) int {
	return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}
