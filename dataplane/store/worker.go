package store

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/rueidis"
)

//go:embed script.lua
var scriptText string

// scriptSHA is by what a server knows the script.
var scriptSHA = func() string {
	sum := sha1.Sum([]byte(scriptText))
	return hex.EncodeToString(sum[:])
}()

// maxBatch is how many calls travel together, as long as they have not more than maxClaims: the server does nothing else meanwhile, so a
// script takes some milliseconds at most.
const (
	maxBatch  = 128
	maxClaims = 1024
)

// The operations of the script.
const (
	opRate    = "r"
	opPlace   = "l"
	opAdd     = "a"
	opRelease = "z"
	opKeep    = "k"
)

// work sends what requests ask, until the store is closed: one call when there is one, and all that have come meanwhile when there are
// more.
func (s *Store) work() {
	var batch []*Call
	for {
		select {
		case c := <-s.calls:
			batch = append(batch[:0], c)
		case <-s.ending.Done():
			return
		}
		for claims := len(batch[0].Claims); len(batch) < maxBatch && claims < maxClaims; {
			select {
			case c := <-s.calls:
				batch = append(batch, c)
				claims += len(c.Claims)
				continue
			default:
			}
			break
		}
		s.decide(batch)
		clear(batch)
	}
}

// decide has the server decide a batch, and hands out the answers.
func (s *Store) decide(batch []*Call) {
	batch = slices.DeleteFunc(batch, func(c *Call) bool { return !c.state.CompareAndSwap(waiting, sent) })
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithValue(s.ending, onBehalf{}, true), s.options.Timeout)
	defer cancel()
	groups := s.groups(batch)
	s.send(ctx, groups)
	failure := error(nil)
	for _, c := range batch {
		err := s.gather(c, groups)
		if err != nil {
			failure = err
		}
		for _, g := range groups {
			if g.partOf(c) != nil {
				g.next++
			}
		}
		s.answer(c, known(err))
	}
	s.went(failure)
}

// known is an error as a Result.
func known(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Failed
}

// went counts failures: a few in a row, and the store is not asked any more.
func (s *Store) went(err error) {
	const tolerated = 3
	if err == nil {
		s.failed.Store(0)
		return
	}
	if s.ending.Err() == nil && s.failed.Add(1) >= tolerated {
		s.lost(err)
	}
}

// send has the server run the script for each group, all at once. A server that does not know the script (it is new, or was started
// again) is told its text.
func (s *Store) send(ctx context.Context, groups []*group) {
	client := s.client.Load()
	if client == nil {
		for _, g := range groups {
			g.err = errNoConnection
		}
		return
	}
	unknown := s.evaluate(ctx, *client, groups, false)
	if len(unknown) > 0 {
		s.evaluate(ctx, *client, unknown, true)
	}
}

// evaluate fills in the answers of groups, and returns those whose server does not know the script.
func (s *Store) evaluate(ctx context.Context, client rueidis.Client, groups []*group, whole bool) (unknown []*group) {
	commands := make([]rueidis.Completed, len(groups))
	for i, g := range groups {
		keys, words := g.strings()
		if whole {
			commands[i] = client.B().Eval().Script(scriptText).Numkeys(int64(len(keys))).Key(keys...).Arg(words...).Build()
		} else {
			commands[i] = client.B().Evalsha().Sha1(scriptSHA).Numkeys(int64(len(keys))).Key(keys...).Arg(words...).Build()
		}
	}
	var results []rueidis.RedisResult
	if len(commands) == 1 {
		results = []rueidis.RedisResult{client.Do(ctx, commands[0])}
	} else {
		results = client.DoMulti(ctx, commands...)
	}
	for i, g := range groups {
		g.answers, g.err = results[i].AsIntSlice()
		if e, ok := rueidis.IsRedisErr(g.err); ok && e.IsNoScript() && !whole {
			unknown = append(unknown, g)
		} else if g.err == nil && len(g.answers) != g.numbers {
			g.err = fmt.Errorf("%d numbers in an answer of %d", len(g.answers), g.numbers)
		}
	}
	return unknown
}

// gather fills in the answers of a call from the groups that it has parts in. When groups disagree, what some took is given back.
func (s *Store) gather(c *Call, groups []*group) error {
	parts, refused := 0, 0
	for _, g := range groups {
		p := g.partOf(c)
		if p == nil {
			continue
		}
		if g.err != nil {
			return g.err
		}
		parts++
		if !p.read(g.answers) {
			refused++
		}
	}
	c.Admitted = refused == 0
	if refused > 0 && refused < parts {
		s.giveBack(c, groups)
	}
	return nil
}

// giveBack undoes the parts of a call that were admitted, since others were not.
func (s *Store) giveBack(c *Call, groups []*group) {
	for _, g := range groups {
		p := g.partOf(c)
		if p == nil || g.answers[p.at] == 0 {
			continue
		}
		for _, i := range p.claims {
			claim := &c.Claims[i]
			switch {
			case claim.Refused: // a shadow's: it took nothing
			case claim.Places > 0:
				s.later(errand{op: opRelease, counter: claim.Counter, key: claim.Key, id: claim.id})
				claim.Under--
			case claim.Cost > 0:
				s.later(errand{op: opAdd, counter: claim.Counter, key: claim.Key, amount: -claim.Cost, deepest: claim.Deepest})
				claim.Debt = max(0, claim.Debt-claim.Cost)
			}
		}
	}
}
