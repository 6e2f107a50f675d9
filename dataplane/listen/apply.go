package listen

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
	"github.com/gatehouse-dev/gatehouse/dataplane/telemetry"
)

// Apply makes a plan of Prepare the one that serves: it binds what is new, calls swap, which must make Options.Current return this
// plan, and then closes what left. The result tells of each socket, in the snapshot's order. One Apply runs at a time; swap must not
// call back. After Shutdown it only swaps, and no socket is bound.
func (l *Listen) Apply(p *Plan, swap func()) snapshot.BindResult {
	l.applying.Lock()
	defer l.applying.Unlock()
	if l.closed {
		swap()
		return l.result(p)
	}
	if l.retry != nil {
		l.retry.Stop()
	}
	clear(l.failed)
	heirs, fresh := l.bindNew(p)
	swap()
	closed := l.closeLeft(p, heirs)
	if closed && len(l.failed) > 0 {
		fresh = append(fresh, l.bindFailed(p)...)
	}
	l.begin(p, fresh)
	l.retryLater()
	return l.result(p)
}

// bindNew binds the sockets that are new. One whose address belongs to a socket that leaves the plan inherits it.
func (l *Listen) bindNew(p *Plan) (heirs map[*socket]snapshot.SocketKey, fresh []*socket) {
	heirs = map[*socket]snapshot.SocketKey{}
	for _, n := range p.order {
		if l.sockets[n.key] != nil {
			continue
		}
		if old := l.leavingFrom(p, n.key, heirs); old != nil {
			heirs[old] = n.key
			old.keys.Store(&handover{old.key(), n.key})
			continue
		}
		if s := l.tryBind(n.key); s != nil {
			fresh = append(fresh, s)
		}
	}
	return heirs, fresh
}

// leavingFrom finds the socket that listens on that key's address, is not in the plan any more, and has no heir yet.
func (l *Listen) leavingFrom(p *Plan, key snapshot.SocketKey, heirs map[*socket]snapshot.SocketKey) *socket {
	for old, s := range l.sockets {
		if _, taken := heirs[s]; !taken && old.Address == key.Address && old.Port == key.Port && p.socket(old) == nil {
			return s
		}
	}
	return nil
}

// tryBind binds, or remembers why not.
func (l *Listen) tryBind(key snapshot.SocketKey) *socket {
	s, err := l.bind(key)
	if err != nil {
		l.failed[key] = l.explained(key, err)
		return nil
	}
	delete(l.failed, key)
	l.sockets[key] = s
	return s
}

// explained says who has the address, when it is one of ours.
func (l *Listen) explained(key snapshot.SocketKey, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	for other := range l.sockets {
		same := other.Address == key.Address || !other.Address.IsValid() || !key.Address.IsValid() ||
			other.Address.IsUnspecified() || key.Address.IsUnspecified()
		if same && other.Port == key.Port {
			return fmt.Errorf("address %s is taken by Gateway %s, which listens on %s: %w", key.Bind(), other.Gateway, other.Bind(), err)
		}
	}
	return fmt.Errorf("address %s is taken by another process: %w", key.Bind(), err)
}

// closeLeft hands over what has an heir, and closes what has left the plan; it reports whether any address became free.
func (l *Listen) closeLeft(p *Plan, heirs map[*socket]snapshot.SocketKey) (closed bool) {
	for key, s := range l.sockets {
		if p.socket(key) != nil {
			continue
		}
		delete(l.sockets, key)
		if _, inherited := heirs[s]; inherited {
			continue
		}
		s.close()
		s.settle(nil)
		closed = true
	}
	for s, heir := range heirs {
		s.keys.Store(&handover{heir, heir})
		l.sockets[heir] = s
	}
	return closed
}

// bindFailed tries again what failed, in the plan's order.
func (l *Listen) bindFailed(p *Plan) (fresh []*socket) {
	for _, n := range p.order {
		if l.failed[n.key] == nil {
			continue
		}
		if s := l.tryBind(n.key); s != nil {
			fresh = append(fresh, s)
		}
	}
	return fresh
}

// begin settles every socket of the plan, and accepts on those that are new.
func (l *Listen) begin(p *Plan, fresh []*socket) {
	for key, s := range l.sockets {
		s.settle(p.socket(key))
	}
	for _, s := range fresh {
		s.accept()
	}
	l.countSockets(p)
}

func (l *Listen) countSockets(p *Plan) {
	type count struct{ bound, failed int }
	counts := map[*telemetry.Gateway]count{}
	for _, n := range p.order {
		c := counts[n.metrics]
		if l.sockets[n.key] != nil {
			c.bound++
		} else {
			c.failed++
		}
		counts[n.metrics] = c
	}
	for g, c := range counts {
		g.Sockets(c.bound, c.failed)
	}
}

// result is the state of each socket of the plan.
func (l *Listen) result(p *Plan) snapshot.BindResult {
	out := snapshot.BindResult{Sockets: make([]snapshot.BindState, 0, len(p.order))}
	for _, n := range p.order {
		state := snapshot.BindState{Key: n.key, Err: l.failed[n.key]}
		if l.closed {
			state.Err = net.ErrClosed
		}
		out.Sockets = append(out.Sockets, state)
	}
	return out
}

// retryLater sets the timer when something failed.
func (l *Listen) retryLater() {
	if len(l.failed) > 0 && l.options.Retry > 0 {
		l.retry = time.AfterFunc(l.options.Retry, l.retryNow)
	}
}

// retryNow binds what an Apply could not.
func (l *Listen) retryNow() {
	l.applying.Lock()
	p := l.options.Current()
	if l.closed || len(l.failed) == 0 || p == nil {
		l.applying.Unlock()
		return
	}
	fresh := l.bindFailed(p)
	l.begin(p, fresh)
	l.retryLater()
	result := l.result(p)
	l.applying.Unlock()
	for _, s := range fresh {
		l.options.Log.Info("a socket is bound at last", "gateway", s.key().Gateway.String(), "address", s.key().Bind())
	}
	if len(fresh) > 0 && l.options.Bound != nil {
		l.options.Bound(result)
	}
}
