package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// found is a filter that holds what its policy found in Secrets.
type found string

func (found) FilterName() string { return "found" }
func (f found) String() string   { return "found(" + string(f) + ")" }

// askingKind is of policies that want the Secret that is named as they are, and those with the label "for" of that value.
var askingKind = policy.Of(func() *v1alpha1.RateLimitPolicy { return new(v1alpha1.RateLimitPolicy) },
	func(p *v1alpha1.RateLimitPolicy) []policy.Target { return p.Spec.TargetRefs }, policy.AttachTo{policy.Gateway, policy.HTTPRoute},
	func(e []policy.Effect) policy.Effect { return e[0] },
	func(p *v1alpha1.RateLimitPolicy, l policy.Lookup) (policy.Effect, []policy.Problem) {
		one, wrong := l.Secret("spec.one", gwv1.SecretObjectReference{Name: gwv1.ObjectName(p.Name)})
		some, also := l.Secrets("spec.some", metav1.LabelSelector{MatchLabels: map[string]string{"for": p.Name}})
		if wrong != nil || also != nil {
			return policy.Effect{}, []policy.Problem{*cmp.Or(wrong, also)}
		}
		text := ""
		for _, s := range append([]policy.Secret{one}, some...) {
			text += s.Name.Name + "=" + string(s.Data["key"]) + ";"
		}
		return policy.Effect{Filters: []snapshot.Filter{found(text)}}, nil
	})

const askingPolicy = `
---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: who, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  limits: [{name: all, rates: [{requests: 1, window: 1m}]}]
`

func key(name, value, label string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"for": label}},
		Data:       map[string][]byte{"key": []byte(value)},
	}
}

var (
	named    = translate.Ref{Kind: "Secret", Name: snapshot.Name{Namespace: "shop", Name: "who"}}
	labelled = translate.Ref{Kind: "Secret", Name: snapshot.Name{Namespace: "shop"}, Selector: "for=who"}
)

func TestAChangeOfASecretThatAPolicyRefersToIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{}
		b := newClusterBench(t, c, nil)
		b.loop.options.Input.Kinds = []policy.Kind{askingKind}
		serves := func(what, want string, calls ...string) {
			t.Helper()
			b.expect(what, calls...)
			if b.plane.last == nil {
				return
			}
			if got := b.plane.last.String(); !strings.Contains(got, want) {
				t.Errorf("%s: want %s in\n%s", what, want, got)
			}
		}
		b.loop.Set(read(t, world+askingPolicy)...)
		serves("nobody has looked", "", "endpoints shop/cart:80 10.0.0.1:8080")
		b.loop.Set(key("who", "1", ""))
		serves("one is there", "")
		if !slices.Equal(c.refs, []translate.Ref{labelled, named, cart}) || !slices.Equal(c.wants, []translate.Ref{labelled}) {
			t.Errorf("followed are %v, wanted %v", c.refs, c.wants)
		}
		b.loop.Set(key("b", "2", "who"), key("a", "3", "who"), key("other", "4", "you"))
		b.loop.Answer(labelled, translate.Found)
		serves("all are there", "found(who=1;a=3;b=2;)", "apply")

		b.loop.Set(key("a", "5", "who"))
		serves("a key changed", "found(who=1;a=5;b=2;)", "apply")
		b.loop.Set(key("other", "6", "you"))
		serves("one that nobody refers to changed", "found(who=1;a=5;b=2;)")
		b.loop.Set(key("other", "6", "who"))
		serves("it is labelled", "found(who=1;a=5;b=2;other=6;)", "apply")
		b.loop.Set(key("b", "2", "you"))
		serves("another one is not any more", "found(who=1;a=5;other=6;)", "apply")
		b.loop.Delete(key("other", "", ""))
		serves("one is deleted", "found(who=1;a=5;)", "apply")
		b.loop.Delete(key("who", "", ""))
		serves("the one by name is gone, and nobody knows for good", "found(who=1;a=5;)")
		if b.says("RateLimitPolicy") && b.says("there is no Secret") {
			t.Errorf("told is %q", b.told)
		}
		b.loop.Answer(named, translate.Absent)
		serves("now it is known", "/ → shop/cart:80", "apply")
		if !b.says("there is no Secret shop/who") {
			t.Errorf("told is %q", b.told)
		}
		b.loop.Set(key("who", "7", ""))
		serves("it is back", "found(who=7;a=5;)", "apply")
		b.loop.Answer(labelled, translate.Forbidden)
		serves("the right is taken away", "/ → shop/cart:80", "apply")
		if !b.says("may not list the Secrets of namespace shop") {
			t.Errorf("told is %q", b.told)
		}
	})
}

func TestFilesHoldAllSecretsThatThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, []policy.Kind{askingKind})
		b.loop.Replace(read(t, world+askingPolicy+`
---
apiVersion: v1
kind: Secret
metadata: {name: who, namespace: shop}
stringData: {key: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: more, namespace: shop, labels: {for: who}}
stringData: {key: "2"}
`))
		b.expect("at the start", "endpoints shop/cart:80 10.0.0.1:8080", "apply")
		if got := b.plane.last.String(); !strings.Contains(got, "found(who=1;more=2;)") {
			t.Error(got)
		}
	})
}

func TestAnObjectIsThereWhileAnyWatchHasIt(t *testing.T) {
	var told []string
	u := newUnion(
		func(all ...Object) {
			for _, o := range all {
				told = append(told, fmt.Sprintf("set %s %s", o.GetName(), o.GetResourceVersion()))
			}
		},
		func(all ...Object) {
			for _, o := range all {
				told = append(told, "delete "+o.GetName())
			}
		})
	version := func(name, v string) Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: v}}
	}
	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{"one has it", func() { u.set("name", version("a", "9")) }, []string{"set a 9"}},
		{"another one is behind", func() { u.set("label", version("a", "8")) }, []string{"set a 9"}},
		{"and catches up", func() { u.set("label", version("a", "10")) }, []string{"set a 10"}},
		{"its label is gone", func() { u.delete("label", version("a", "11")) }, []string{"set a 9"}},
		{"it is deleted", func() { u.delete("name", version("a", "12")) }, []string{"delete a"}},
		{"what nobody has is deleted all the same", func() { u.delete("name", version("b", "")) }, []string{"delete b"}},
		{"of what one watch told", func() { u.set("label", version("c", "1"), version("d", "1")); u.set("name", version("d", "1")) },
			[]string{"set c 1", "set d 1", "set d 1"}},
		{"what others told stays", func() { u.drop("label"); slices.Sort(told) }, []string{"delete c", "set d 1"}},
		{"versions that are no numbers are taken as they come", func() { u.set("label", version("d", "x")) }, []string{"set d x"}},
	}
	for _, step := range steps {
		told = nil
		step.do()
		if !slices.Equal(told, step.want) {
			t.Errorf("%s: told %q, want %q", step.name, told, step.want)
		}
	}
}

func TestLabelsAndAnnotationsOfASecretAreNews(t *testing.T) {
	labelled, annotated := key("a", "1", "who"), key("a", "1", "")
	annotated.Annotations = map[string]string{"gatehouse.dev/labels.x": "tier=gold"}
	plain := key("a", "1", "")
	if same(plain, labelled) || same(plain, annotated) || !same(plain, key("a", "1", "")) {
		t.Errorf("the same with another label %t, with an annotation %t, as it was %t", same(plain, labelled), same(plain, annotated), same(plain, key("a", "1", "")))
	}
}
