package controllers

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
)

// saying makes conditions of words such as "Accepted=False/NoMatchingParent there is none".
func saying(texts ...string) (all []metav1.Condition) {
	for _, text := range texts {
		head, message, _ := strings.Cut(text, " ")
		kind, rest, _ := strings.Cut(head, "=")
		status, reason, _ := strings.Cut(rest, "/")
		if reason == "" {
			reason = kind
		}
		all = append(all, metav1.Condition{Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, Message: message})
	}
	return all
}

func TestTransitionsAreTold(t *testing.T) {
	tests := []struct {
		name     string
		was, now []metav1.Condition
		want     []string
	}{
		{"what sums up is told once when it is well from the start", nil, saying("Accepted=True", "Programmed=True", "ResolvedRefs=True"),
			[]string{"Normal Accepted: Accepted is True", "Normal Programmed: Programmed is True"}},
		{"the CRD's defaults say nothing", saying("Accepted=Unknown/Pending Waiting for controller"), saying("Accepted=True"),
			[]string{"Normal Accepted: Accepted is True"}},
		{"the same again", saying("Accepted=True"), saying("Accepted=True other words"), nil},
		{"what goes wrong", saying("ResolvedRefs=True"), saying("ResolvedRefs=False/BackendNotFound there is no Service a/b"),
			[]string{"Warning BackendNotFound: ResolvedRefs is False: there is no Service a/b"}},
		{"what is wrong from the start", nil, saying("ResolvedRefs=False/BackendNotFound"), []string{"Warning BackendNotFound: ResolvedRefs is False"}},
		{"wrong in another way", saying("ResolvedRefs=False/BackendNotFound"), saying("ResolvedRefs=False/RefNotPermitted"),
			[]string{"Warning RefNotPermitted: ResolvedRefs is False"}},
		{"what is well again", saying("ResolvedRefs=False/BackendNotFound"), saying("ResolvedRefs=True"), []string{"Normal ResolvedRefs: ResolvedRefs is True"}},
		{"what only waits", saying("Accepted=True"), saying("Accepted=True", "Programmed=False/Pending"), nil},
		{"a complaint", nil, saying("PartiallyInvalid=True/UnsupportedValue Dropped Rule"),
			[]string{"Warning UnsupportedValue: PartiallyInvalid is True: Dropped Rule"}},
		{"a policy that is replaced", saying("Accepted=True", "Programmed=True"), saying("Accepted=True", "Programmed=True/PartiallyProgrammed", "Overridden=True/PartiallyOverridden by one"),
			[]string{"Normal Overridden: Overridden is True: by one"}},
		{"conditions of others", nil, saying("Ready=False"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, tr := range transitions(gwv1.GatewayClassStatus{Conditions: tt.was}, gwv1.GatewayClassStatus{Conditions: tt.now}) {
				got = append(got, tr.kind+" "+tr.reason+": "+tr.note)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

func TestAnEventSaysWhichPartItIsAbout(t *testing.T) {
	section := gwv1.SectionName("http")
	parent := gwv1.RouteParentStatus{
		ParentRef: gwv1.ParentReference{Name: "gw", SectionName: &section}, ControllerName: v1alpha1.ControllerName,
		Conditions: saying("Accepted=False/NotAllowedByListeners no"),
	}
	other := parent
	other.ControllerName = "example.com/theirs"
	got := transitions(gwv1.RouteStatus{}, gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{other, parent}})
	if len(got) != 1 || got[0].note != "parent gw, listener http: Accepted is False: no" {
		t.Errorf("told: %+v", got)
	}
	ancestor := gwv1.PolicyAncestorStatus{
		AncestorRef: gwv1.ParentReference{Name: "gw"}, ControllerName: v1alpha1.ControllerName,
		Conditions: saying("Accepted=True", "ResolvedRefs=False/InvalidSecretRef there is no Secret shop/keys"),
	}
	before := gwv1.PolicyStatus{Ancestors: []gwv1.PolicyAncestorStatus{{
		AncestorRef: ancestor.AncestorRef, ControllerName: ancestor.ControllerName, Conditions: saying("Accepted=True", "ResolvedRefs=True"),
	}}}
	got = transitions(before, gwv1.PolicyStatus{Ancestors: []gwv1.PolicyAncestorStatus{ancestor}})
	if len(got) != 1 || got[0].note != "ancestor gw: ResolvedRefs is False: there is no Secret shop/keys" || got[0].kind != "Warning" {
		t.Errorf("told: %+v", got)
	}
	gateway := gwv1.GatewayStatus{Listeners: []gwv1.ListenerStatus{{Name: "http", Conditions: saying("Programmed=True", "Conflicted=True/HostnameConflict")}}}
	got = transitions(gwv1.GatewayStatus{}, gateway)
	if len(got) != 1 || got[0].note != "listener http: Conflicted is True" || got[0].kind != "Warning" {
		t.Errorf("told: %+v", got)
	}
}

func TestAnEventIsAsLongAsTheAPIServerTakes(t *testing.T) {
	note := placed{Condition: metav1.Condition{Type: "Accepted", Status: "False", Message: strings.Repeat("ä", 2000)}}.note()
	if len(note) > 1024 || !strings.HasSuffix(note, "ä…") {
		t.Errorf("%d bytes, ending in %q", len(note), note[len(note)-5:])
	}
}
