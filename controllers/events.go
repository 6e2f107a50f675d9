package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	eventsv1 "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

// recorder makes Events of what changes in statuses, so that `kubectl describe` tells a story and not only its end. Only who writes
// statuses has one to tell: the leader. Events are told once and may be lost; the truth is in the statuses.
type recorder struct {
	broadcaster events.EventBroadcaster
	recorder    events.EventRecorderLogger
}

func newRecorder(config *rest.Config, scheme *runtime.Scheme) (*recorder, error) {
	c, err := eventsv1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server for events: %w", err)
	}
	b := events.NewBroadcaster(&events.EventSinkImpl{Interface: c})
	return &recorder{b, b.NewRecorder(scheme, v1alpha1.ControllerName)}, nil
}

// run sends what is recorded until ctx ends.
func (r *recorder) run(ctx context.Context, log logr.Logger) {
	defer r.broadcaster.Shutdown()
	if err := r.broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		log.Error(err, "no Events are written")
	}
	<-ctx.Done()
}

// wrote records the transitions of a status that was written.
func (r *recorder) wrote(object client.Object, was, now any) {
	for _, t := range transitions(was, now) {
		r.recorder.Eventf(object, nil, t.kind, t.reason, "Translate", "%s", t.note)
	}
}

// transition is what an Event says.
type transition struct{ kind, reason, note string }

const maxNote = 1000 // bytes; the API server refuses more than 1024

// placed is a condition, and where in the status it stands: "listener http", "parent infra/gw"; "" the object itself.
type placed struct {
	place string
	metav1.Condition
}

// transitions are the conditions that say something else than before. What is well from the start on is told once, by what sums it up;
// what only waits is not told.
func transitions(was, now any) (all []transition) {
	before := conditionsIn(was)
	for _, c := range conditionsIn(now) {
		i := slices.IndexFunc(before, func(b placed) bool {
			return b.place == c.place && b.Type == c.Type && b.Status != metav1.ConditionUnknown
		})
		first := i < 0
		good := (c.Status == metav1.ConditionTrue) != slices.Contains(complaints, c.Type)
		switch {
		case c.Status == metav1.ConditionUnknown, c.Reason == string(gwv1.GatewayReasonPending):
		case !first && before[i].Status == c.Status && (good || before[i].Reason == c.Reason):
		case good && first && (strings.HasPrefix(c.place, "listener") || !slices.Contains(summaries, c.Type)):
		case good:
			all = append(all, transition{corev1.EventTypeNormal, c.Type, c.note()})
		default:
			all = append(all, transition{corev1.EventTypeWarning, c.Reason, c.note()})
		}
	}
	return all
}

// summaries are the conditions whose first True is news, and complaints those that are True when something is wrong.
var (
	summaries  = []string{string(gwv1.GatewayConditionAccepted), string(gwv1.GatewayConditionProgrammed), v1alpha1.PolicyConditionOverridden}
	complaints = []string{
		string(gwv1.ListenerConditionConflicted), string(gwv1.ListenerConditionOverlappingTLSConfig), string(gwv1.RouteConditionPartiallyInvalid),
	}
)

// note says it in words: "listener http: ResolvedRefs is False: there is no Secret shop/cert".
func (p placed) note() string {
	note := fmt.Sprintf("%s is %s", p.Type, p.Status)
	if p.place != "" {
		note = p.place + ": " + note
	}
	if p.Message != "" {
		note += ": " + p.Message
	}
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote], "") + "…"
	}
	return note
}

// conditionsIn are those of a status that are ours.
func conditionsIn(status any) (all []placed) {
	add := func(place string, conditions []metav1.Condition) {
		for _, c := range conditions {
			if slices.Contains(translate.Conditions, c.Type) {
				all = append(all, placed{place, c})
			}
		}
	}
	switch s := status.(type) {
	case gwv1.GatewayClassStatus:
		add("", s.Conditions)
	case gwv1.GatewayStatus:
		add("", s.Conditions)
		for _, l := range s.Listeners {
			add("listener "+string(l.Name), l.Conditions)
		}
	case gwv1.RouteStatus:
		for _, p := range s.Parents {
			if p.ControllerName == v1alpha1.ControllerName {
				add("parent "+refName(p.ParentRef), p.Conditions)
			}
		}
	case gwv1.PolicyStatus:
		for _, a := range s.Ancestors {
			if a.ControllerName == v1alpha1.ControllerName {
				add("ancestor "+refName(a.AncestorRef), a.Conditions)
			}
		}
	}
	return all
}

// refName tells parents of one object apart: "infra/gw, listener http, port 80".
func refName(ref gwv1.ParentReference) string {
	name := string(ref.Name)
	if ref.Namespace != nil {
		name = string(*ref.Namespace) + "/" + name
	}
	if ref.SectionName != nil {
		name += ", listener " + string(*ref.SectionName)
	}
	if ref.Port != nil {
		name += fmt.Sprintf(", port %d", *ref.Port)
	}
	return name
}
