// Package store is what replicas share: counters and places in a Redis or Valkey that the operator names.
//
// One Store is one pool of connections for the process, made by cmd and given to filters by Env.Store. A filter asks it with a Call: all
// that one request wants, of any number of counters, which the server decides in one step, by a script, on its own clock. All that
// enforces must admit, or nothing is taken. Calls that come at the same time travel together.
//
// A call never waits longer than Options.Timeout, whatever the network does: who asks waits for an answer or for a timer, and workers,
// not requests, speak to the server. A store that does not answer is asked no more (Down) until a probe of our own has found it well
// again. What to do meanwhile is the filter's business. What nobody waits for (giving a place back, charging what is known only
// afterwards) goes into a bounded queue.
//
// Places of those under way are leases: they end by themselves on the server when their replica dies, and are renewed, all together, as
// long as it lives.
//
// README.md says what an operator has to know. The client is rueidis (hack/decisions/0009): it dials for itself, as it must follow the
// server's redirections; the dialer is ours.
package store
