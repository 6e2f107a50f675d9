package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// The times between two looks at a store that is away.
const (
	firstProbe = 50 * time.Millisecond
	lastProbe  = time.Second
)

// lost has the store asked no more, and looked for. It is called when a connection is missing, and when several batches in a row have
// failed.
func (s *Store) lost(err error) {
	if s.ending.Err() != nil || !s.health.set(false) {
		return
	}
	s.options.Metrics.StoreUp(false)
	s.options.Log.Warn("the store is not asked any more; limits do what onStoreFailure says", "error", err)
	select {
	case s.roused <- struct{}{}:
	default:
	}
}

// watch connects, and looks for the store whenever it was lost, until the store is closed.
func (s *Store) watch() {
	pause := firstProbe
	said := ""
	for {
		if err := s.probe(s.ending); err == nil {
			s.found()
			pause, said = firstProbe, ""
			select {
			case <-s.roused:
			case <-s.ending.Done():
				return
			}
			continue
		} else if text := err.Error(); text != said && s.ending.Err() == nil {
			s.options.Log.Warn("the store cannot be asked; it is looked for", "error", err)
			said = text
		}
		select {
		case <-time.After(pause):
		case <-s.ending.Done():
			return
		}
		pause = min(2*pause, lastProbe)
	}
}

// found has the store asked again.
func (s *Store) found() {
	s.failed.Store(0)
	s.generation.Add(1)
	s.health.set(true)
	s.options.Metrics.StoreUp(true)
	s.options.Log.Info("the store answers", "mode", s.options.Mode, "addresses", s.options.Addresses)
	select {
	case s.renewed <- struct{}{}:
	default:
	}
}

// probe connects to all servers that there are, and has one decide a call of ours, twice: the first one may still have to be told the
// script, the second one must be as fast as a request wants it.
func (s *Store) probe(ctx context.Context) error {
	defer s.probes.Add(1)
	client, err := s.connect(ctx)
	if err != nil {
		return err
	}
	greet(ctx, client)
	for _, limit := range []time.Duration{dialTimeout, s.options.Timeout} {
		if err = s.try(ctx, client, limit); err != nil {
			break
		}
	}
	if err != nil && s.refused(err) {
		// Connections are made with the credentials of then, to who had the address then; with new ones, a new client.
		s.client.Store(nil)
		client.Close()
	}
	return err
}

// refused reports whether the server does not know us (any more), or is not the one that decides: another one may have taken its place
// behind the same address.
func (s *Store) refused(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	for _, word := range []string{"NOAUTH", "WRONGPASS", "NOPERM", "READONLY", "ERR AUTH", "ERR invalid password"} {
		if len(e.Error()) >= len(word) && e.Error()[:len(word)] == word {
			return true
		}
	}
	return false
}

// connect makes the client, if there is none yet. The library is not told when to give up; if it takes too long we go on without it.
func (s *Store) connect(ctx context.Context) (rueidis.Client, error) {
	if c := s.client.Load(); c != nil {
		return *c, nil
	}
	options, err := s.clientOptions()
	if err != nil {
		return nil, err
	}
	type made struct {
		client rueidis.Client
		err    error
	}
	done := make(chan made, 1)
	go func() {
		c, err := rueidis.NewClient(options)
		if err != nil && c != nil {
			c.Close()
		}
		done <- made{c, err}
	}()
	select {
	case m := <-done:
		if m.err != nil {
			return nil, fmt.Errorf("connect to the store: %w", m.err)
		}
		s.client.Store(&m.client)
		return m.client, nil
	case <-ctx.Done():
		go func() {
			if m := <-done; m.err == nil {
				m.client.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// greet makes a connection to each server, so that requests find it. One that does not answer does not keep the others from serving.
func greet(ctx context.Context, client rueidis.Client) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, node := range client.Nodes() {
		all.Go(func() { node.Do(ctx, node.B().Ping().Build()) })
	}
	all.Wait()
}

// try has the server decide a call of ours.
func (s *Store) try(ctx context.Context, client rueidis.Client, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := &Call{Claims: []Claim{{
		Counter: s.Counter("probe", "probe"), Cost: time.Microsecond, Most: time.Second, Deepest: time.Second,
	}}}
	groups := s.groups([]*Call{c})
	if unknown := s.evaluate(ctx, client, groups, false); len(unknown) > 0 {
		s.evaluate(ctx, client, unknown, true)
	}
	err := groups[0].err
	if errors.Is(err, context.DeadlineExceeded) && limit == s.options.Timeout {
		return fmt.Errorf("it takes longer than %v to answer", limit)
	}
	return err
}
