package filter

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// Chain is the filters of one rule (or of a listener's Pre or Default), alive: each face collected once into a slice. It is
// immutable and shared by all exchanges.
type Chain struct {
	filters  []built
	request  []int // indices into filters that have the face, in order
	attempt  []int
	response []int // in reverse
	done     []int
	log      func(filter string, value any, stack []byte)
}

type built struct {
	name  string
	faces Faces
}

// Build makes a chain of these settings, which stand in the order in which a request meets them. On error the chain is nil: the rule
// must then fail closed.
func Build(configs []snapshot.Filter, env Env, pre bool, panicked func(filter string, value any, stack []byte)) (*Chain, error) {
	slots := 0
	env.slots, env.pre = &slots, pre
	c := &Chain{log: panicked}
	for _, s := range joined(configs) {
		config, ok := s.(Config)
		if !ok {
			return nil, fmt.Errorf("filter %s: its settings cannot build it", s.FilterName())
		}
		if name := s.FilterName(); env.CounterOf != nil {
			env.Counter = func(counter string, pairs ...string) Counter { return env.CounterOf(name, counter, pairs...) }
		}
		if name := s.FilterName(); env.GaugeOf != nil {
			env.Gauge = func(gauge string, read func() float64, pairs ...string) { env.GaugeOf(name, gauge, read, pairs...) }
		}
		faces, err := build(config, env)
		if err == nil && faces.Conn != nil {
			err = errors.New("it wants to see connections, which is not built yet") // left out, it would fail open
		}
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", s.FilterName(), err)
		}
		c.add(s.FilterName(), faces)
	}
	return c, nil
}

// joined is the configs with those joined that stand side by side and want to be one. The order of filters puts those of a kind there.
func joined(configs []snapshot.Filter) []snapshot.Filter {
	out := make([]snapshot.Filter, 0, len(configs))
	for _, next := range configs {
		if last := len(out) - 1; last >= 0 && out[last].FilterName() == next.FilterName() {
			if j, ok := out[last].(Joiner); ok {
				if one, ok := j.Join(next); ok {
					out[last] = one
					continue
				}
			}
		}
		out = append(out, next)
	}
	return out
}

func build(config Config, env Env) (faces Faces, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	faces, err = config.Build(env)
	if err == nil && faces.Conn == nil && faces.Request == nil && faces.Attempt == nil && faces.Response == nil && faces.Done == nil {
		err = errors.New("no face at all")
	}
	return faces, err
}

func (c *Chain) add(name string, f Faces) {
	i := len(c.filters)
	c.filters = append(c.filters, built{name, f})
	if f.Request != nil {
		c.request = append(c.request, i)
	}
	if f.Attempt != nil {
		c.attempt = append(c.attempt, i)
	}
	if f.Response != nil {
		c.response = append([]int{i}, c.response...)
	}
	if f.Done != nil {
		c.done = append(c.done, i)
	}
}

// Len is the number of filters.
func (c *Chain) Len() int {
	if c == nil {
		return 0
	}
	return len(c.filters)
}

// Request runs the request faces. It returns how many filters (not faces) the request has met without an end: what Response is given
// so that an answer passes only the filters before the one that made it. A failure that stopped the chain is returned as a verdict.
func (c *Chain) Request(ex *message.Exchange) (met int, v Verdict) {
	if c == nil {
		return 0, Continue
	}
	for _, i := range c.request {
		if v := c.callRequest(i, ex); v != Continue {
			return i, v
		}
	}
	return len(c.filters), Continue
}

// Response runs the response faces of the first met filters, in reverse. A face that answers or fails replaces the answer, and those
// further out see the new one: fail makes it. The answer of a backend that a face has replaced is dropped at the end of the exchange,
// by the proxy: the new one may go on with its body.
func (c *Chain) Response(ex *message.Exchange, met int, fail func(message.Reason, string) *message.Response) {
	if c == nil {
		return
	}
	for _, i := range c.response {
		if i >= met {
			continue
		}
		before := ex.Response
		v := c.callResponse(i, ex)
		if ex.Response == nil {
			ex.Response, v = before, Fail(message.ReasonFilterFailed, "filter "+c.filters[i].name+" took the answer away")
		}
		if v.Answered() && ex.Response != before {
			ex.Response.Origin = message.OriginFilter
		}
		if reason, detail, failed := v.Failed(); failed {
			ex.Response.Drop(nil)
			ex.Response = fail(reason, detail)
		}
	}
}

// Attempt runs the attempt faces.
func (c *Chain) Attempt(at *message.Attempt) Verdict {
	if c == nil {
		return Continue
	}
	for _, i := range c.attempt {
		if v := c.callAttempt(i, at); v != Continue {
			return v
		}
	}
	return Continue
}

// HasAttempt reports whether any filter acts on attempts.
func (c *Chain) HasAttempt() bool { return c != nil && len(c.attempt) > 0 }

// OnlyAttempt reports whether no filter acts on anything but attempts: what stands on a backendRef must be so, since it belongs to no
// exchange, and has no slots in it.
func (c *Chain) OnlyAttempt() bool {
	return c == nil || len(c.request)+len(c.response)+len(c.done) == 0
}

// Done runs every done face, whatever the others do.
func (c *Chain) Done(ex *message.Exchange) {
	if c == nil {
		return
	}
	for _, i := range c.done {
		c.callDone(i, ex)
	}
}

func (c *Chain) callRequest(i int, ex *message.Exchange) (v Verdict) {
	defer c.catch(i, &v)
	return c.filters[i].faces.Request(ex)
}

func (c *Chain) callResponse(i int, ex *message.Exchange) (v Verdict) {
	defer c.catch(i, &v)
	return c.filters[i].faces.Response(ex)
}

func (c *Chain) callAttempt(i int, at *message.Attempt) (v Verdict) {
	defer c.catch(i, &v)
	return c.filters[i].faces.Attempt(at)
}

func (c *Chain) callDone(i int, ex *message.Exchange) {
	var v Verdict
	defer c.catch(i, &v)
	c.filters[i].faces.Done(ex)
}

// catch turns a panic of a face into a failure of this exchange, and no other.
func (c *Chain) catch(i int, v *Verdict) {
	p := recover()
	if p == nil {
		return
	}
	name := c.filters[i].name
	if c.log != nil {
		c.log(name, p, debug.Stack())
	}
	*v = Fail(message.ReasonPanic, "filter "+name)
}
