package translate

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Text is statuses as one reads them: a line for each object, listener, parent and ancestor.
//
//	Gateway infra/gw: Accepted, Programmed
//	Gateway infra/gw listener http: Accepted, Programmed, ResolvedRefs, 1 route
//	HTTPRoute web/shop @infra/gw: Accepted, ResolvedRefs=False(RefNotPermitted) "no ReferenceGrant in …"
func Text(statuses []Status) string {
	var b strings.Builder
	for _, s := range statuses {
		s.text(&b)
	}
	return b.String()
}

func (s Status) String() string {
	var b strings.Builder
	s.text(&b)
	return b.String()
}

func (s Status) text(b *strings.Builder) {
	object := s.Kind + " " + strings.TrimPrefix(s.Name.String(), "/")
	switch v := s.Value.(type) {
	case gwv1.GatewayClassStatus:
		line(b, object, v.Conditions)
	case gwv1.GatewayStatus:
		var addresses []string
		for _, a := range v.Addresses {
			addresses = append(addresses, a.Value)
		}
		line(b, object, v.Conditions, addresses...)
		for _, l := range v.Listeners {
			line(b, object+" listener "+string(l.Name), l.Conditions, routesText(l), kindsText(l))
		}
	case gwv1.RouteStatus:
		for _, p := range v.Parents {
			line(b, object+" @"+refText(p.ParentRef, s.Name.Namespace), p.Conditions)
		}
	case gwv1.PolicyStatus:
		for _, a := range v.Ancestors {
			kind := ""
			if k := value(a.AncestorRef.Kind, "Gateway"); k != "Gateway" {
				kind = string(k) + " "
			}
			line(b, object+" @"+kind+refText(a.AncestorRef, s.Name.Namespace), a.Conditions)
		}
	}
}

func line(b *strings.Builder, object string, conditions []metav1.Condition, more ...string) {
	var words []string
	for _, c := range conditions {
		words = append(words, conditionText(c))
	}
	for _, m := range more {
		if m != "" {
			words = append(words, m)
		}
	}
	fmt.Fprintf(b, "%s: %s\n", object, strings.Join(words, ", "))
}

// conditionText is "Accepted" for the usual case, else "Accepted=False(Reason)"; with its message if it has one.
func conditionText(c metav1.Condition) string {
	s := c.Type
	switch {
	case c.Status != metav1.ConditionTrue || negative(c.Type):
		s += fmt.Sprintf("=%s(%s)", c.Status, c.Reason)
	case c.Reason != c.Type:
		s += "(" + c.Reason + ")"
	}
	if c.Message != "" {
		s += fmt.Sprintf(" %q", c.Message)
	}
	return s
}

// negative conditions say something bad when they are True, and are only there then.
func negative(kind string) bool {
	switch kind {
	case string(gwv1.ListenerConditionConflicted), string(gwv1.ListenerConditionOverlappingTLSConfig), string(gwv1.RouteConditionPartiallyInvalid):
		return true
	}
	return false
}

func routesText(l gwv1.ListenerStatus) string {
	if l.AttachedRoutes == 1 {
		return "1 route"
	}
	return fmt.Sprintf("%d routes", l.AttachedRoutes)
}

// kindsText is empty for a listener that takes all kinds.
func kindsText(l gwv1.ListenerStatus) string {
	var kinds []string
	for _, k := range l.SupportedKinds {
		kinds = append(kinds, string(k.Kind))
	}
	switch {
	case len(kinds) == len(routeKinds):
		return ""
	case len(kinds) == 0:
		return "no kinds"
	}
	return "kinds " + strings.Join(kinds, " ")
}

func refText(ref gwv1.ParentReference, namespace string) string {
	s := string(value(ref.Namespace, gwv1.Namespace(namespace))) + "/" + string(ref.Name)
	if ref.SectionName != nil {
		s += "/" + string(*ref.SectionName)
	}
	if ref.Port != nil {
		s += fmt.Sprintf(":%d", *ref.Port)
	}
	return s
}
