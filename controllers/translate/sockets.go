package translate

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// snapshot is the graph as the data plane sees it: per socket its listeners, per listener the hosts of its routes.
func (g *graph) snapshot() *snapshot.Snapshot {
	s := &snapshot.Snapshot{}
	for _, n := range g.gateways {
		for _, port := range n.servedPorts() {
			s.Sockets = append(s.Sockets, g.sockets(n, port)...)
		}
	}
	s.Backends = g.backendsOf(s)
	return s
}

// sockets are those of one port: one for each address, with the same listeners.
func (g *graph) sockets(n *gatewayNode, port uint16) []snapshot.Socket {
	keys := g.socketKeys(n, port)
	if len(keys) == 0 {
		return nil
	}
	var sockets []snapshot.Socket
	protocol, listeners := g.listeners(n, port)
	for _, key := range keys {
		sockets = append(sockets, snapshot.Socket{Key: key, SpecPort: port, Protocol: protocol, Listeners: listeners})
	}
	return sockets
}

// socketKeys are the sockets that a port of a Gateway has: none while its pod port is not recorded, or where another Gateway has it.
func (g *graph) socketKeys(n *gatewayNode, port uint16) []snapshot.SocketKey {
	bound := port
	if g.in.PodPorts != nil {
		bound = g.in.PodPorts[PodPort{n.object.UID, port}]
		if bound == 0 {
			return nil
		}
	}
	var keys []snapshot.SocketKey
	for _, addr := range n.addresses {
		if n.taken[netip.AddrPortFrom(addr, port)] == nil {
			keys = append(keys, snapshot.SocketKey{Gateway: n.name, Address: addr, Port: bound})
		}
	}
	return keys
}

// listeners are those of a port that serve, and those that should and cannot: they stay in the way of their hostname and refuse what
// comes, or their requests would fall to a listener with a less specific one.
func (g *graph) listeners(n *gatewayNode, port uint16) (snapshot.Protocol, []*snapshot.Listener) {
	var protocol snapshot.Protocol
	var out []*snapshot.Listener
	hostnames := map[string]bool{}
	for _, l := range n.listeners {
		if l.port == port && l.serves() {
			protocol = l.protocol
			hostnames[l.hostname] = true
			out = append(out, g.listener(l))
		}
	}
	for _, l := range n.listeners {
		if l.port == port && l.shares(protocol) && !hostnames[l.hostname] {
			hostnames[l.hostname] = true
			out = append(out, closedListener(l, protocol))
		}
	}
	return protocol, out
}

// shares reports whether the listener's hostname is one of a socket of that protocol. A TLS listener, which is not served, has a server
// name to itself all the same: its neighbours must not end the TLS that was to be passed through.
func (l *listenerNode) shares(protocol snapshot.Protocol) bool {
	return l.protocol == protocol || l.spec.Protocol == gwv1.TLSProtocolType && protocol == snapshot.HTTPS
}

func (g *graph) listener(l *listenerNode) *snapshot.Listener {
	effect := g.policies.Default(l.gateway.name, l.key.Section)
	g.call(effect)
	out := &snapshot.Listener{Key: l.key, Hostname: l.hostname, Default: g.inOrder(effect.Filters), Deny: effect.Failure}
	if l.protocol == snapshot.HTTPS {
		out.TLS = &snapshot.TLS{Certificates: secretsOf(l.keyPairs), Clients: l.clients}
	}
	out.Hosts = g.hosts(l)
	return out
}

// closedListener answers 500 to all. An HTTPS one has no certificate, so that no handshake for its names comes to an end.
func closedListener(l *listenerNode, protocol snapshot.Protocol) *snapshot.Listener {
	out := &snapshot.Listener{Key: l.key, Hostname: l.hostname, Deny: failure(message.ReasonRouteInvalid, "the listener is not valid; the Gateway's status says why")}
	if protocol == snapshot.HTTPS {
		out.TLS = &snapshot.TLS{}
	}
	return out
}

// hosts sorts what is attached to a listener by the routes' own hostnames: their order among each other decides before any path does.
// Routes come from the oldest on, so matches do too.
func (g *graph) hosts(l *listenerNode) []snapshot.Host {
	byName := map[string]*snapshot.Host{}
	var names []string
	for _, r := range l.attached {
		for _, name := range r.hostnamesOn(l) {
			h := byName[name]
			if h == nil {
				h = &snapshot.Host{Name: name}
				byName[name] = h
				names = append(names, name)
			}
			for i := range r.rules {
				h.Matches = append(h.Matches, g.matches(l, r, i)...)
			}
		}
	}
	slices.SortFunc(names, compareHostnames)
	var hosts []snapshot.Host
	for _, name := range names {
		if len(byName[name].Matches) > 0 {
			hosts = append(hosts, *byName[name])
		}
	}
	return hosts
}

// hostnamesOn are the route's hostnames that can be met through the listener.
func (r *routeNode) hostnamesOn(l *listenerNode) []string {
	if len(r.hostnames) == 0 {
		return []string{""}
	}
	var names []string
	for _, h := range r.hostnames {
		if hostnamesIntersect(h, l.hostname) {
			names = append(names, h)
		}
	}
	return names
}

func (g *graph) matches(l *listenerNode, r *routeNode, index int) []snapshot.Match {
	matches := slices.Clone(r.rules[index].matches)
	if len(matches) == 0 || r.rules[index].withheld {
		return nil
	}
	rule := g.chain(r, index, g.policies.Rule(l.gateway.name, l.key.Section, r.id, index))
	for i := range matches {
		matches[i].Rule = rule
	}
	return matches
}

// chainKey tells rules apart that policies made different: by the listener, as policies of a Gateway are only met through it.
type chainKey struct {
	rule   snapshot.RuleKey
	effect string // its fingerprint
}

// chain is a rule with what policies add to it. Where that is the same, it is the same Rule.
func (g *graph) chain(r *routeNode, index int, effect policy.Effect) *snapshot.Rule {
	compiled := r.rules[index].rule
	key := chainKey{compiled.Key, effect.Fingerprint}
	if rule := g.chains[key]; rule != nil {
		return rule
	}
	g.call(effect)
	r.call(&r.rules[index], g.called)
	rule := compiled
	rule.Security = strings.TrimSpace(effect.Security + " " + compiled.Security)
	rule.Filters = g.inOrder(slices.Concat(effect.Filters, compiled.Filters))
	if effect.Failure != nil {
		rule.Failure = effect.Failure
	}
	g.chains[key] = &rule
	return &rule
}

// inOrder sorts filters as a request meets them; among equals the declared order stays.
func (g *graph) inOrder(filters []snapshot.Filter) []snapshot.Filter {
	if len(filters) == 0 {
		return nil
	}
	place := func(f snapshot.Filter) int {
		if i := slices.Index(g.in.FilterOrder, f.FilterName()); i >= 0 {
			return i
		}
		return len(g.in.FilterOrder)
	}
	sorted := slices.Clone(filters)
	slices.SortStableFunc(sorted, func(a, b snapshot.Filter) int { return place(a) - place(b) })
	return sorted
}

// backendsOf collects what the rules of a snapshot forward and mirror to, and what filters call, each once, by name.
func (g *graph) backendsOf(s *snapshot.Snapshot) []snapshot.Backend {
	found := maps.Clone(g.called)
	for _, r := range g.routes {
		for _, b := range r.backends {
			if known, ok := found[b.Ref]; !ok || known.Protocol == snapshot.BackendHTTP {
				found[b.Ref] = b
			}
		}
	}
	used := map[snapshot.BackendRef]bool{}
	for ref := range g.called {
		used[ref] = true
	}
	for _, rule := range rulesOf(s) {
		for _, b := range rule.Backends {
			if b.Failure == nil {
				used[b.Ref] = true
			}
		}
		for _, m := range rule.Mirrors {
			used[m.Ref] = true
		}
	}
	var out []snapshot.Backend
	for ref := range used {
		out = append(out, found[ref])
	}
	slices.SortFunc(out, func(a, b snapshot.Backend) int { return compareBackends(a.Ref, b.Ref) })
	return out
}

// rulesOf are the rules of a snapshot, some of them more than once.
func rulesOf(s *snapshot.Snapshot) []*snapshot.Rule {
	var rules []*snapshot.Rule
	for i := range s.Sockets {
		for _, l := range s.Sockets[i].Listeners {
			for _, h := range l.Hosts {
				for _, m := range h.Matches {
					rules = append(rules, m.Rule)
				}
			}
		}
	}
	return rules
}
