package translate

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// graph is the objects with their references resolved. Each node carries its problems.
type graph struct {
	in         Input
	refs       *references
	grants     grants
	namespaces map[string]labels.Set
	secured    map[snapshot.Name][]*gwv1.BackendTLSPolicy // by the Service that they target, oldest first

	classes  []*classNode
	gateways []*gatewayNode // ours, oldest first
	byName   map[snapshot.Name]*gatewayNode
	routes   []*routeNode // those that name a Gateway of ours, oldest first
	policies *policy.Attached

	chains map[chainKey]*snapshot.Rule              // rules, with what policies add
	called map[snapshot.BackendRef]snapshot.Backend // what their filters call
	good   *LastGood                                // what the next Build may fall back to
}

// problem is what is wrong with a part of an object, in words for its author.
type problem struct {
	field   string // "spec.rules[0].filters[1]"; "" the object as a whole
	reason  string // of the condition
	message string // what is wrong, and what to change
}

func (p problem) String() string {
	if p.field == "" {
		return p.message
	}
	return p.field + ": " + p.message
}

func wrong[R ~string](field string, reason R, format string, args ...any) *problem {
	return &problem{field, string(reason), fmt.Sprintf(format, args...)}
}

// problems that share a condition: its reason is the first one's, its message tells all.
type problems []problem

func (ps *problems) add(p *problem) {
	if p != nil {
		*ps = append(*ps, *p)
	}
}

const maxProblems = 5 // told in one message; the rest is counted

func (ps problems) message() string {
	var told []string
	for i, p := range ps {
		if i == maxProblems {
			told = append(told, fmt.Sprintf("and %d more", len(ps)-i))
			break
		}
		told = append(told, p.String())
	}
	return strings.Join(told, "; ")
}

// list makes problems of one that may be nil.
func (p *problem) list() problems {
	if p == nil {
		return nil
	}
	return problems{*p}
}

func newGraph(in Input) *graph {
	g := &graph{
		in:         in,
		refs:       newReferences(in),
		grants:     newGrants(in.Objects.ReferenceGrants),
		namespaces: map[string]labels.Set{},
		secured:    securedServices(in.Objects.BackendTLSPolicies),
		byName:     map[snapshot.Name]*gatewayNode{},
		chains:     map[chainKey]*snapshot.Rule{},
		called:     map[snapshot.BackendRef]snapshot.Backend{},
		good:       newLastGood(),
	}
	for _, ns := range in.Objects.Namespaces {
		g.namespaces[ns.Name] = ns.Labels
	}
	return g
}

// selects reports whether a namespace has the labels; one that is not known has none of them.
func (g *graph) selects(selector *metav1.LabelSelector, namespace string) bool {
	set, known := g.namespaces[namespace]
	if !known || selector == nil {
		return false
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(set)
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
