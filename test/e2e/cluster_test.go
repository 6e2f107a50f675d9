//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// until waits for a condition, which says why it isn't met yet.
func until(t *testing.T, within time.Duration, what string, met func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := met()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// must is for what the test itself needs.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// apply applies objects of YAML as their owner, and returns them.
func apply(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if len(object.Object) == 0 {
			continue
		}
		config := client.ApplyConfigurationFromUnstructured(object)
		if err := api.Apply(t.Context(), config, client.FieldOwner("e2e"), client.ForceOwnership); err != nil {
			t.Fatalf("apply %s %s: %v", object.GetKind(), object.GetName(), err)
		}
		all = append(all, object)
	}
}

// applied is apply for the time of the test.
func applied(t *testing.T, text string) {
	t.Helper()
	for _, object := range apply(t, text) {
		t.Cleanup(func() { remove(t, object) })
	}
}

// remove deletes objects and waits until they are gone. What belongs to them may go later.
func remove(t *testing.T, objects ...client.Object) {
	t.Helper()
	ctx := context.Background() // also in a cleanup
	for _, object := range objects {
		err := api.Delete(ctx, object, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete %s: %v", object.GetName(), err)
		}
	}
	for _, object := range objects {
		gone(ctx, t, object)
	}
}

func gone(ctx context.Context, t *testing.T, object client.Object) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := api.Get(ctx, client.ObjectKeyFromObject(object), object)
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s %s is not gone 90 s after its deletion: %v", object.GetObjectKind().GroupVersionKind().Kind, object.GetName(), err)
			return
		}
	}
}

// namespaces makes some for the time of the test. They end side by side, as that takes a while.
func namespaces(t *testing.T, names ...string) {
	t.Helper()
	var all []client.Object
	for _, name := range names {
		for _, object := range apply(t, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", name)) {
			all = append(all, object)
		}
	}
	t.Cleanup(func() { remove(t, all...) })
}

// --- Gateways

// condition finds one that is of the object's generation.
func condition(conditions []metav1.Condition, kind string, generation int64) (metav1.Condition, error) {
	for _, c := range conditions {
		if c.Type != kind {
			continue
		}
		if c.ObservedGeneration != generation {
			return c, fmt.Errorf("%s is of generation %d, not %d", kind, c.ObservedGeneration, generation)
		}
		return c, nil
	}
	return metav1.Condition{}, fmt.Errorf("there is no condition %s", kind)
}

func gateway(t *testing.T, namespace, name string) (*gwv1.Gateway, error) {
	g := &gwv1.Gateway{}
	return g, api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, g)
}

// programmed waits until a Gateway with all its listeners is, and returns its address.
func programmed(t *testing.T, namespace, name string) string {
	t.Helper()
	var address string
	until(t, time.Minute, "Gateway "+name+" is programmed", func() error {
		g, err := gateway(t, namespace, name)
		if err != nil {
			return err
		}
		if err := isTrue(g.Status.Conditions, "Programmed", g.Generation); err != nil {
			return err
		}
		if len(g.Status.Listeners) != len(g.Spec.Listeners) {
			return fmt.Errorf("%d listeners have a status, of %d", len(g.Status.Listeners), len(g.Spec.Listeners))
		}
		for _, l := range g.Status.Listeners {
			if err := isTrue(l.Conditions, "Programmed", g.Generation); err != nil {
				return fmt.Errorf("listener %s: %w", l.Name, err)
			}
		}
		if len(g.Status.Addresses) == 0 {
			return errors.New("no address")
		}
		address = g.Status.Addresses[0].Value
		return nil
	})
	return address
}

func isTrue(conditions []metav1.Condition, kind string, generation int64) error {
	c, err := condition(conditions, kind, generation)
	if err == nil && c.Status != metav1.ConditionTrue {
		err = fmt.Errorf("%s is %s/%s: %s", kind, c.Status, c.Reason, c.Message)
	}
	return err
}

// says waits until a condition is as it ought to be, and its message has all the words.
func says(t *testing.T, within time.Duration, what string, get func() ([]metav1.Condition, int64, error), kind string, status metav1.ConditionStatus, words ...string) {
	t.Helper()
	var last metav1.Condition
	until(t, within, what, func() error {
		conditions, generation, err := get()
		if err != nil {
			return err
		}
		c, err := condition(conditions, kind, generation)
		if err != nil {
			return err
		}
		if c.Status != status {
			return fmt.Errorf("%s is %s/%s: %s", kind, c.Status, c.Reason, c.Message)
		}
		for _, w := range words {
			if !strings.Contains(strings.ToLower(c.Reason+" "+c.Message), strings.ToLower(w)) {
				return fmt.Errorf("%s=%s/%s doesn't say %q: %s", kind, c.Status, c.Reason, w, c.Message)
			}
		}
		last = c
		return nil
	})
	t.Logf("%s: %s=%s/%s: %s", what, last.Type, last.Status, last.Reason, last.Message)
}

func conditionsOf(t *testing.T, namespace, name string) func() ([]metav1.Condition, int64, error) {
	return func() ([]metav1.Condition, int64, error) {
		g, err := gateway(t, namespace, name)
		return g.Status.Conditions, g.Generation, err
	}
}

func listenerConditionsOf(t *testing.T, namespace, name string, listener gwv1.SectionName) func() ([]metav1.Condition, int64, error) {
	return func() ([]metav1.Condition, int64, error) {
		g, err := gateway(t, namespace, name)
		if err != nil {
			return nil, 0, err
		}
		for _, l := range g.Status.Listeners {
			if l.Name == listener {
				return l.Conditions, g.Generation, nil
			}
		}
		return nil, 0, fmt.Errorf("listener %s has no status", listener)
	}
}

// serviceOf is a Gateway's Service in the release's namespace.
func serviceOf(t *testing.T, namespace, name string) (*corev1.Service, error) {
	var all corev1.ServiceList
	if err := api.List(t.Context(), &all, client.InNamespace(system)); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all.Items, func(s corev1.Service) bool { return s.Annotations["gatehouse.dev/gateway"] == namespace+"/"+name })
	if i < 0 {
		return nil, fmt.Errorf("Gateway %s/%s has no Service", namespace, name)
	}
	return &all.Items[i], nil
}

// podPort is the port of our pods behind a port of a Gateway.
func podPort(t *testing.T, namespace, name string, port int32) int32 {
	t.Helper()
	s, err := serviceOf(t, namespace, name)
	must(t, err)
	for _, p := range s.Spec.Ports {
		if p.Port == port {
			return p.TargetPort.IntVal
		}
	}
	t.Fatalf("the Service of %s/%s has no port %d", namespace, name, port)
	return 0
}

// --- pods

// replicas are our pods that live and are not about to go.
func replicas(t *testing.T) []corev1.Pod {
	t.Helper()
	all, err := pods(t, system, "gatehouse")
	must(t, err)
	return slices.DeleteFunc(all, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

func pods(t *testing.T, namespace, name string) ([]corev1.Pod, error) {
	var all corev1.PodList
	err := api.List(t.Context(), &all, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/name": name})
	return all.Items, err
}

func ready(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
}

func restarts(all []corev1.Pod) int32 {
	var n int32
	for _, p := range all {
		for _, c := range p.Status.ContainerStatuses {
			n += c.RestartCount
		}
	}
	return n
}

// unharmed says that the replicas are those that they were, ready and never restarted.
func unharmed(t *testing.T, were []corev1.Pod) {
	t.Helper()
	now := replicas(t)
	names := map[string]int32{}
	for _, p := range were {
		names[p.Name] = restarts([]corev1.Pod{p})
	}
	for _, p := range now {
		if was, known := names[p.Name]; !known || restarts([]corev1.Pod{p}) != was {
			t.Errorf("replica %s is new or was restarted", p.Name)
		}
		if !ready(p) {
			t.Errorf("replica %s is not ready", p.Name)
		}
	}
	if len(now) != len(were) {
		t.Errorf("%d replicas, of %d before", len(now), len(were))
	}
}

// roll begins a rolling update, as kubectl rollout restart does.
func roll(t *testing.T, namespace string, names ...string) {
	t.Helper()
	for _, name := range names {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"e2e/rolled":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
		must(t, api.Patch(t.Context(), d, client.RawPatch("application/merge-patch+json", []byte(patch))))
	}
}

// rolled waits until an update is through and the last old pod is gone.
func rolled(t *testing.T, namespace string, names ...string) {
	t.Helper()
	for _, name := range names {
		until(t, 4*time.Minute, "the rolling update of "+name, func() error {
			d := &appsv1.Deployment{}
			if err := api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, d); err != nil {
				return err
			}
			s, want := d.Status, *d.Spec.Replicas
			if s.ObservedGeneration != d.Generation || s.UpdatedReplicas != want || s.AvailableReplicas != want || s.Replicas != want {
				return fmt.Errorf("%d updated and %d available of %d; %d in all", s.UpdatedReplicas, s.AvailableReplicas, want, s.Replicas)
			}
			var left corev1.PodList
			if err := api.List(t.Context(), &left, client.InNamespace(namespace), client.MatchingLabels(d.Spec.Selector.MatchLabels)); err != nil {
				return err
			}
			if len(left.Items) != int(want) {
				return fmt.Errorf("%d pods, where %d are wanted", len(left.Items), want)
			}
			return nil
		})
	}
}

// --- commands

// run runs a program in the cluster's network, also in a cleanup, and returns what it wrote.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := cluster.Command(context.WithoutCancel(t.Context()), name, args...)
	return output(cmd)
}

func output(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%v: %w\n%s", cmd.Args, err, out.String())
	}
	return out.String(), err
}
