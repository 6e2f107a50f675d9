package translate_test

import (
	"cmp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// witness looks at a snapshot with nothing but the objects: slowly, and in its own words.
type witness struct{ translate.Objects }

func newWitness(o translate.Objects) witness { return witness{o} }

func (w witness) check(t *testing.T, s *snapshot.Snapshot) {
	t.Helper()
	listed := map[snapshot.BackendRef]int{}
	for _, b := range s.Backends {
		listed[b.Ref]++
	}
	used := map[snapshot.BackendRef]bool{}
	sockets := map[string]bool{}
	for _, socket := range s.Sockets {
		if bind := socket.Key.Bind(); sockets[bind] {
			t.Errorf("%s stands twice", bind)
		} else {
			sockets[bind] = true
		}
		hostnames := map[string]bool{}
		for _, l := range socket.Listeners {
			w.checkCertificates(t, l)
			w.checkAccess(t, place{listener: l.Key}, l.Default, l.Deny, used)
			if hostnames[l.Hostname] {
				t.Errorf("%s: the hostname %q stands twice on its socket", l.Key, l.Hostname)
			}
			hostnames[l.Hostname] = true
			for _, h := range l.Hosts {
				for i, m := range h.Matches {
					w.checkRule(t, l, m.Rule, used)
					if i > 0 && w.younger(h.Matches[i-1].Rule.Key, m.Rule.Key) {
						t.Errorf("%s: %s stands before %s", l.Key, h.Matches[i-1].Rule.Key, m.Rule.Key)
					}
				}
			}
		}
	}
	for ref := range used {
		if listed[ref] != 1 {
			t.Errorf("%s is listed %d times", ref, listed[ref])
		}
	}
	for ref := range listed {
		if !used[ref] {
			t.Errorf("%s is listed, and not used", ref)
		}
	}
}

func (w witness) checkRule(t *testing.T, l *snapshot.Listener, rule *snapshot.Rule, used map[snapshot.BackendRef]bool) {
	t.Helper()
	if !w.admits(l.Key, rule.Key.Route.Namespace) {
		t.Errorf("%s serves %s, which it does not admit", l.Key, rule.Key)
	}
	w.checkAccess(t, place{l.Key, rule.Key}, rule.Filters, cmp.Or(l.Deny, rule.Failure), used)
	for _, b := range rule.Backends {
		if b.Failure != nil {
			continue
		}
		used[b.Ref] = true
		w.checkBackend(t, rule, b.Ref)
	}
	for _, m := range rule.Mirrors {
		used[m.Ref] = true
		w.checkBackend(t, rule, m.Ref)
	}
	for _, r := range w.HTTPRoutes {
		if rule.Key.Kind != "HTTPRoute" || r.Name != rule.Key.Route.Name || r.Namespace != rule.Key.Route.Namespace {
			continue
		}
		for _, f := range r.Spec.Rules[rule.Key.Rule].Filters {
			if (f.Type == "ExternalAuth" || f.Type == "Glob") && rule.Failure == nil {
				t.Errorf("%s serves without its filter of type %s", rule.Key, f.Type)
			}
		}
	}
}

func (w witness) checkCertificates(t *testing.T, l *snapshot.Listener) {
	t.Helper()
	if l.TLS == nil {
		return
	}
	for _, c := range l.TLS.Certificates {
		granted := c.Name.Namespace == l.Key.Gateway.Namespace
		for _, g := range w.ReferenceGrants {
			from, to := g.Spec.From[0], g.Spec.To[0]
			granted = granted || g.Namespace == c.Name.Namespace && from.Kind == "Gateway" && string(from.Namespace) == l.Key.Gateway.Namespace &&
				to.Kind == "Secret" && (to.Name == nil || string(*to.Name) == c.Name.Name)
		}
		if !granted {
			t.Errorf("%s uses %s without a grant", l.Key, c)
		}
	}
}

// younger reports whether rule a must stand behind b.
func (w witness) younger(a, b snapshot.RuleKey) bool {
	if a.Kind == b.Kind && a.Route == b.Route {
		return a.Rule > b.Rule
	}
	if x, y := w.age(a), w.age(b); !x.Equal(y) {
		return x.After(y)
	}
	return a.Route.String() > b.Route.String()
}

func (w witness) age(key snapshot.RuleKey) time.Time {
	for _, r := range w.HTTPRoutes {
		if key.Kind == "HTTPRoute" && r.Namespace == key.Route.Namespace && r.Name == key.Route.Name {
			return r.CreationTimestamp.Time
		}
	}
	for _, r := range w.GRPCRoutes {
		if key.Kind == "GRPCRoute" && r.Namespace == key.Route.Namespace && r.Name == key.Route.Name {
			return r.CreationTimestamp.Time
		}
	}
	return time.Time{}
}

func (w witness) admits(key snapshot.ListenerKey, namespace string) bool {
	for _, g := range w.Gateways {
		for _, l := range g.Spec.Listeners {
			if g.Namespace != key.Gateway.Namespace || g.Name != key.Gateway.Name || string(l.Name) != key.Section {
				continue
			}
			switch *l.AllowedRoutes.Namespaces.From {
			case gwv1.NamespacesFromAll:
				return true
			case gwv1.NamespacesFromSame:
				return namespace == g.Namespace
			}
			for _, ns := range w.Namespaces {
				if ns.Name == namespace {
					return ns.Labels["team"] == l.AllowedRoutes.Namespaces.Selector.MatchLabels["team"]
				}
			}
		}
	}
	return false
}

func (w witness) checkBackend(t *testing.T, rule *snapshot.Rule, ref snapshot.BackendRef) {
	t.Helper()
	granted := ref.Service.Namespace == rule.Key.Route.Namespace
	for _, g := range w.ReferenceGrants {
		from, to := g.Spec.From[0], g.Spec.To[0]
		granted = granted || g.Namespace == ref.Service.Namespace && string(from.Kind) == rule.Key.Kind && string(from.Namespace) == rule.Key.Route.Namespace &&
			to.Kind == "Service" && (to.Name == nil || string(*to.Name) == ref.Service.Name)
	}
	if !granted {
		t.Errorf("%s uses %s without a grant", rule.Key, ref)
	}
	for _, s := range w.Services {
		if s.Namespace != ref.Service.Namespace || s.Name != ref.Service.Name {
			continue
		}
		if s.Spec.Type == corev1.ServiceTypeExternalName {
			t.Errorf("%s uses %s, an ExternalName", rule.Key, ref)
		}
		for _, p := range w.BackendTLSPolicies {
			target := p.Spec.TargetRefs[0]
			if p.Namespace == s.Namespace && target.Kind == "Service" && string(target.Name) == s.Name {
				t.Errorf("%s speaks plain text to %s, to which %s asks for TLS", rule.Key, ref, strings.Join([]string{p.Namespace, p.Name}, "/"))
			}
		}
		return
	}
	t.Errorf("%s uses %s, which is not there", rule.Key, ref)
}
