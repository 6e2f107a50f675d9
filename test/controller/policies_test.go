package controller

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// withCRD brings a CRD of ours for the time of the test.
func withCRD(t *testing.T, name string) {
	t.Helper()
	plural, _, _ := strings.Cut(strings.TrimPrefix(name, "gatehouse.dev_"), ".")
	if err := kubectl("apply", "--server-side", "-f", "../../config/crd/"+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kubectl("delete", "crd", plural+".gatehouse.dev", "--ignore-not-found", "--timeout=30s"); err != nil {
			t.Error(err)
		}
	})
	if err := kubectl("wait", "--for=condition=Established", "crd/"+plural+".gatehouse.dev", "--timeout=30s"); err != nil {
		t.Fatal(err)
	}
}

// withKey waits until a request with a key is answered with that status.
func (w *world) withKey(address, key string, want int) {
	w.t.Helper()
	w.eventually("with key "+key, func() string {
		request, err := http.NewRequest(http.MethodGet, "http://"+address+"/", nil)
		if err != nil {
			return err.Error()
		}
		request.Header.Set("X-API-Key", key)
		response, err := quickClient.Do(request)
		if err != nil {
			return err.Error()
		}
		response.Body.Close()
		if response.StatusCode != want {
			return fmt.Sprintf("%d, want %d", response.StatusCode, want)
		}
		return ""
	})
}

// keysPolicy lets in whoever has a key.
func keysPolicy(from string) string {
	return `
apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: keys, namespace: SHOP}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: api}]
  methods: [{name: keys, apiKey: {from: [{header: X-API-Key}], ` + from + `}}]
`
}

func keys(name, labels, entry string) string {
	return `
apiVersion: v1
kind: Secret
metadata: {name: ` + name + `, namespace: SHOP, labels: {` + labels + `}}
stringData: {` + entry + `}
`
}

const mayListSecrets = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: all-secrets, namespace: SHOP}
rules: [{apiGroups: [""], resources: [secrets], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: all-secrets, namespace: SHOP}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: all-secrets}
subjects: [{kind: ServiceAccount, name: gatehouse, namespace: RELEASE}]
`

func TestKeysFollowTheSecretsThatAPolicyNamesAndSelects(t *testing.T) {
	withCRD(t, "gatehouse.dev_authpolicies.yaml")
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	w.create(keysPolicy("secretRefs: [{name: partners}]"))
	w.start(w.account("")).applied()
	at := w.address("gw", 80)

	// A Secret that may not be read closes the route.
	w.answers(at, "/", "500")
	got := w.condition("AuthPolicy", "keys", "ResolvedRefs", "False InvalidSecretRef")
	if want := "may not read Secret " + w.shop + "/partners; grant its ServiceAccount get, list and watch on secrets in namespace " + w.shop; !strings.Contains(got, want) {
		t.Errorf("told: %s", got)
	}
	w.condition("AuthPolicy", "keys", "Accepted", "False InvalidSecretRef")
	w.eventually("an Event of it", func() string {
		var all eventsv1.EventList
		if err := w.client.List(t.Context(), &all, client.InNamespace(w.shop)); err != nil {
			return err.Error()
		}
		for _, e := range all.Items {
			if e.Regarding.Kind == "AuthPolicy" && e.Reason == "InvalidSecretRef" && e.Type == "Warning" {
				return ""
			}
		}
		return "not among those there are"
	})

	// With the right to this one Secret it has to be there, and then it serves; a key that changes, changes at once.
	w.create(mayReadOne("secrets", "partners"))
	w.eventually("that there is no Secret is told", func() string {
		if got := w.condition("AuthPolicy", "keys", "ResolvedRefs", "False InvalidSecretRef"); !strings.Contains(got, "there is no Secret") {
			return got
		}
		return ""
	})
	w.create(keys("partners", "", "alice: k-1"))
	w.condition("AuthPolicy", "keys", "ResolvedRefs", "True ResolvedRefs")
	w.withKey(at, "k-1", 200)
	w.withKey(at, "k-2", 401)
	w.apply(keys("partners", "", "alice: k-2"))
	w.withKey(at, "k-2", 200)
	w.withKey(at, "k-1", 401)

	// To select Secrets takes the right to list them.
	w.apply(keysPolicy("secretRefs: [{name: partners}], secretSelector: {matchLabels: {keys: more}}"))
	w.eventually("that Secrets may not be listed is told", func() string {
		if got := w.condition("AuthPolicy", "keys", "Accepted", "False InvalidSecretRef"); !strings.Contains(got, "may not list the Secrets of namespace "+w.shop) {
			return got
		}
		return ""
	})
	w.withKey(at, "k-2", 500)
	w.create(keys("more", "keys: more", "bob: k-3"))
	w.create(keys("others", "keys: others", "carol: k-4"))
	w.create(mayListSecrets)
	w.condition("AuthPolicy", "keys", "Programmed", "True Programmed")
	w.withKey(at, "k-3", 200)
	w.withKey(at, "k-4", 401)
	w.apply(keys("others", "keys: more", "carol: k-4")) // it is selected now
	w.withKey(at, "k-4", 200)
	w.apply(keys("more", "keys: none", "bob: k-3")) // and this one no longer
	w.withKey(at, "k-3", 401)

	// One that is named and selected goes when it is neither.
	w.apply(keys("partners", "keys: more", "alice: k-2"))
	w.apply(keys("partners", "keys: none", "alice: k-5"))
	w.withKey(at, "k-5", 200)
	w.withKey(at, "k-2", 401)
	w.delete(keys("others", "", ""))
	w.withKey(at, "k-4", 401)
	w.apply(keysPolicy("secretRefs: [{name: more}], secretSelector: {matchLabels: {keys: more}}"))
	w.withKey(at, "k-5", 401)
	w.withKey(at, "k-3", 200)
	w.condition("AuthPolicy", "keys", "ResolvedRefs", "True ResolvedRefs")
}

func TestWhoWinsIsToldToBoth(t *testing.T) {
	withCRD(t, "gatehouse.dev_authpolicies.yaml")
	w := newWorld(t)
	w.backend("cart")
	w.create(basics)
	w.start().applied()
	at := w.address("gw", 80)
	policy := func(name, target, spec, action string) string {
		return `
apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: ` + name + `, namespace: SHOP}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, ` + target + `}]
  ` + spec + `
  authorize: {default: ` + action + `}
`
	}
	w.create(policy("base", "kind: Gateway, name: gw", "children: MayReplace", "Deny"))
	w.answers(at, "/", "403")
	w.create(policy("own", "kind: HTTPRoute, name: api", "replace: true", "Allow"))
	w.answers(at, "/", "200 cart")
	if got := w.condition("AuthPolicy", "base", "Overridden", "True PartiallyOverridden"); got != "replaced by AuthPolicy "+w.shop+"/own (HTTPRoute "+w.shop+"/api)" {
		t.Errorf("told: %s", got)
	}
	w.apply(policy("base", "kind: Gateway, name: gw", "children: MayAdd", "Deny"))
	w.answers(at, "/", "403")
	w.eventually("the parent is not replaced any more", func() string {
		for _, c := range w.conditions("AuthPolicy", "base") {
			if c.kind == "Overridden" {
				return c.message
			}
		}
		return ""
	})
	if got := w.condition("AuthPolicy", "own", "Accepted", "True Accepted"); !strings.Contains(got, "which does not let itself be replaced") {
		t.Errorf("told: %s", got)
	}
	w.create(policy("younger", "kind: HTTPRoute, name: api", "replace: false", "Deny"))
	if got := w.condition("AuthPolicy", "younger", "Accepted", "False Conflicted"); !strings.Contains(got, "AuthPolicy "+w.shop+"/own") {
		t.Errorf("told: %s", got)
	}
}
