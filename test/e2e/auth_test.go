//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
)

// guarded makes a Gateway for the time of the test, with a route "closed" for closed.example and a route "open" for the host of the load. It returns
// where the replicas serve it, and the target of a load on the route "open".
func guarded(t *testing.T, name string) (map[string]string, target) {
	t.Helper()
	house(t)
	applied(t, routeText(shop, name+"-closed", name, "closed.example", "/", "blue")+routeText(shop, name+"-open", name, loadHost, "/load", "green")+
		gatewayText(shop, name, "front-tls"))
	address := programmed(t, shop, name)
	g := target{
		host: loadHost, http: net.JoinHostPort(address, "80"), https: net.JoinHostPort(address, "443"), roots: certificates(t).roots,
		path: "/load/", backends: []string{"green-"},
	}
	answers(t, g, time.Minute) // until kube-proxy has heard of the Service
	at := each(t, shop, name, 80)
	is(t, at, question{host: "closed.example", path: "/"}, 200)
	return at, g
}

// keysText is YAML of a Secret with keys of clients, as entry: key.
func keysText(name, labels string, entries ...string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: e2e, labels: {%s}}\nstringData: {%s}\n", name, labels, strings.Join(entries, ", "))
}

// policyText is YAML of an AuthPolicy; lines are what its spec has beside the target.
func policyText(name, target string, lines ...string) string {
	return fmt.Sprintf("---\napiVersion: gatehouse.dev/v1alpha1\nkind: AuthPolicy\nmetadata: {name: %s, namespace: e2e}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, %s}]\n  %s\n",
		name, target, strings.Join(lines, "\n  "))
}

const withKeys = "methods: [{name: keys, apiKey: {from: [{header: X-API-Key}], secretRefs: [{name: keys}]}}]"

func TestAPolicyWhoseSecretIsMissingOrWrongClosesItsTargetAndNoOther(t *testing.T) {
	at, g := guarded(t, "guarded")
	l := begin(t, g, *rate)
	const users = `---
apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: users, namespace: e2e}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: guarded-closed}]
  methods: [{name: users, basic: {secretRef: {name: users}}}]
`
	secret := func(entry string) string {
		return "---\napiVersion: v1\nkind: Secret\nmetadata: {name: users, namespace: e2e}\nstringData:\n  " + entry + "\n"
	}
	q := question{host: "closed.example", path: "/"}
	alice := q.with("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("alice:open-sesame")))
	is(t, at, q, 200)

	applied(t, users)
	get := authPolicy(t, shop, "users")
	says(t, time.Minute, "a policy whose Secret is missing", get, "ResolvedRefs", metav1.ConditionFalse, "InvalidSecretRef", "there is no Secret e2e/users")
	says(t, time.Minute, "a policy whose Secret is missing", get, "Accepted", metav1.ConditionFalse, "InvalidSecretRef")
	says(t, time.Minute, "a policy whose Secret is missing", get, "Programmed", metav1.ConditionFalse, "InvalidSecretRef")
	eachSays(t, time.Minute, at, alice, 500)
	if row := table(t, "authpolicies", "--namespace", shop)[0]; row["NAME"] != "users" || row["ACCEPTED"] != "False" || row["PROGRAMMED"] != "False" {
		t.Errorf("kubectl says %v", row)
	}

	applied(t, secret("password: open-sesame"))
	says(t, time.Minute, "a Secret without the entry", get, "ResolvedRefs", metav1.ConditionFalse, "InvalidSecretRef", "users", "auth")
	is(t, at, alice, 500)
	apply(t, secret("auth: alice:open-sesame"))
	says(t, time.Minute, "a Secret with a password that is no hash", get, "Accepted", metav1.ConditionFalse, "InvalidSecretRef", "bcrypt")
	is(t, at, alice, 500)
	apply(t, secret("auth: alice:$2a$10$XxmnJ3UMrqjjyNLKimTmuOmJ1mQw.ckE0KmzCyd6otUwbxykSaJU."))
	inForce(t, "the policy with its Secret", get)
	eachSays(t, time.Minute, at, alice, 200)
	is(t, at, q, 401)
	l.endsClean()
}

func TestKeysAreGoodForWhatTheyAllowAndRevokedOnEachReplica(t *testing.T) {
	at, _ := guarded(t, "guarded")
	applied(t, providerText(shop, "streamer", "https://none.example")+`---
apiVersion: v1
kind: Service
metadata: {name: streamer, namespace: e2e}
spec: {selector: {app: streamer}, ports: [{port: 80, targetPort: 8080}]}
`+routeText(shop, "streams", "guarded", "closed.example", "/stream", "streamer")+routeText(shop, "open-streams", "guarded", "free.example", "/stream", "streamer"))
	rolled(t, shop, "streamer")
	eachSays(t, time.Minute, at, question{host: "free.example", path: "/stream/ready"}, 200) // EndpointSlices may be a second behind
	applied(t, keysText("keys", "", "alice: k-alice", "bob: k-bob", "carol: k-carol"))
	rules := []string{withKeys, "authorize:", "  default: Deny", `  rules: [{name: known, action: Allow, when: 'identity.subject in ["alice", "bob"]'}]`,
		"forward: {headers: [{name: X-User, value: identity.subject}]}"}
	applied(t, policyText("closed", "kind: HTTPRoute, name: guarded-closed", rules...)+policyText("streams", "kind: HTTPRoute, name: streams", rules...))
	inForce(t, "the policy", authPolicy(t, shop, "closed"))
	inForce(t, "that of streams", authPolicy(t, shop, "streams"))

	q := question{host: "closed.example", path: "/"}
	eachSays(t, time.Minute, at, q, 401)
	eachSays(t, time.Minute, at, question{host: "closed.example", path: "/stream"}, 401)
	is(t, at, q.with("X-API-Key", "k-nobody"), 401)
	is(t, at, q.with("X-API-Key", "k-carol"), 403)
	for pod, a := range is(t, at, q.with("X-API-Key", "k-alice", "X-User", "bob"), 200) {
		if got := strings.Join(a.seen.Header["X-User"], " and "); got != "alice" {
			t.Errorf("%s: the backend was told it is %s", pod, got)
		}
	}

	// Streams end with the right by which they came, and no others.
	var revoked, others []*stream
	for pod, address := range at {
		revoked = append(revoked, openStream(t, pod, address, "closed.example", "k-alice"))
		others = append(others, openStream(t, pod, address, "free.example", ""))
	}
	until(t, 30*time.Second, "streams are old enough to be long ones", func() error {
		for _, s := range append(revoked, others...) {
			if s.age() < 6*time.Second {
				return fmt.Errorf("at %s for %v", s.pod, s.age())
			}
		}
		return nil
	})
	apply(t, keysText("keys", "", "alice: k-new", "bob: k-bob"))
	gone := time.Now()
	eachSays(t, 10*time.Second, at, q.with("X-API-Key", "k-alice"), 401)
	t.Logf("a key was refused by each replica %.2f s after it was revoked", time.Since(gone).Seconds())
	is(t, at, q.with("X-API-Key", "k-new"), 200)
	is(t, at, q.with("X-API-Key", "k-bob"), 200)
	for _, s := range revoked {
		select {
		case <-s.ended:
			t.Logf("%s: a stream ended %.1f s after its key was revoked: %v", s.pod, s.end.Sub(gone).Seconds(), s.err)
		case <-time.After(20 * time.Second):
			t.Errorf("%s: a stream goes on 20 s after its key was revoked", s.pod)
		}
	}
	for _, s := range others {
		select {
		case <-s.ended:
			t.Errorf("%s: a stream that needs no key ended: %v", s.pod, s.err)
		default:
		}
	}
}

// stream is an answer that goes on.
type stream struct {
	pod   string
	began time.Time
	ended chan struct{} // closed when it has; then the others are set
	end   time.Time
	err   error
}

func (s *stream) age() time.Duration { return time.Since(s.began) }

func openStream(t *testing.T, pod, address, host, key string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/stream", nil)
	must(t, err)
	r.Host = host
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	must(t, err)
	if response.StatusCode != 200 {
		t.Fatalf("%s: no stream but %d", pod, response.StatusCode)
	}
	s := &stream{pod: pod, began: time.Now(), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		defer response.Body.Close()
		lines := bufio.NewReader(response.Body)
		for s.err == nil {
			_, s.err = lines.ReadString('\n')
		}
		if s.err == io.EOF {
			s.err = fmt.Errorf("with its proper end")
		}
		s.end = time.Now()
	}()
	return s
}

func TestAPolicyOfAGatewayHoldsWhereNoRouteIs(t *testing.T) {
	at, g := guarded(t, "guarded")
	applied(t, keysText("keys", "", "alice: k-alice"))
	applied(t, policyText("all", "kind: Gateway, name: guarded", withKeys))
	inForce(t, "the policy", authPolicy(t, shop, "all"))
	for _, q := range []question{{host: "closed.example", path: "/"}, {host: loadHost, path: "/load/"}, {host: loadHost, path: "/nothing-here"}, {host: "nobody.example", path: "/"}} {
		eachSays(t, time.Minute, at, q, 401)
	}
	none := question{host: "nobody.example", path: "/"}.with("X-API-Key", "k-alice")
	is(t, at, none, 404)
	is(t, at, question{host: loadHost, path: "/nothing-here"}.with("X-API-Key", "k-alice"), 404)
	is(t, at, question{host: "closed.example", path: "/"}.with("X-API-Key", "k-alice"), 200)

	// A route that comes later is never open, not for a moment.
	l := begin(t, target{host: "late.example", http: g.http, path: "/", refused: 401}, *rate)
	until(t, 30*time.Second, "the load is under way", func() error { return l.has(*rate / 4) })
	applied(t, routeText(shop, "late", "guarded", "late.example", "/", "blue"))
	eachSays(t, time.Minute, at, question{host: "late.example", path: "/"}.with("X-API-Key", "k-alice"), 200)
	until(t, 30*time.Second, "the load goes on", func() error { return l.has(*rate / 2) })
	l.endsClean()
}

func TestWhoWinsAmongPoliciesIsToldAndDone(t *testing.T) {
	at, _ := guarded(t, "guarded")
	q := question{host: "closed.example", path: "/"}
	open := question{host: loadHost, path: "/load/"}
	applied(t, policyText("base", "kind: Gateway, name: guarded", "children: MayReplace", "authorize: {default: Deny}"))
	inForce(t, "the Gateway's policy", authPolicy(t, shop, "base"))
	eachSays(t, time.Minute, at, q, 403)

	applied(t, policyText("own", "kind: HTTPRoute, name: guarded-closed", "replace: true", "authorize: {default: Allow}"))
	says(t, time.Minute, "who is replaced", authPolicy(t, shop, "base"), "Overridden", metav1.ConditionTrue, "PartiallyOverridden", "AuthPolicy e2e/own", "HTTPRoute e2e/guarded-closed")
	eachSays(t, time.Minute, at, q, 200)
	is(t, at, open, 403)

	applied(t, policyText("younger", "kind: HTTPRoute, name: guarded-closed", "authorize: {default: Deny}"))
	says(t, time.Minute, "the younger of two", authPolicy(t, shop, "younger"), "Accepted", metav1.ConditionFalse, "Conflicted", "AuthPolicy e2e/own")
	is(t, at, q, 200)

	apply(t, policyText("base", "kind: Gateway, name: guarded", "children: MayAdd", "authorize: {default: Deny}"))
	says(t, time.Minute, "who may not replace", authPolicy(t, shop, "own"), "Accepted", metav1.ConditionTrue, "does not let itself be replaced")
	eachSays(t, time.Minute, at, q, 403)
	until(t, time.Minute, "nothing is told to be replaced any more", func() error {
		conditions, _, err := authPolicy(t, shop, "base")()
		for _, c := range conditions {
			if c.Type == "Overridden" {
				return fmt.Errorf("%s: %s", c.Reason, c.Message)
			}
		}
		return err
	})
}

// Whoever has the right key is let in, and whoever has none is not, while policies come, go and change.
func TestNoRequestFailsAndNobodySlipsInWhilePoliciesChangeFiftyTimes(t *testing.T) {
	at, g := guarded(t, "guarded")
	applied(t, keysText("keys", "", "load: k-load"))
	base := func(n int) string {
		return policyText("base", "kind: Gateway, name: guarded", strings.Replace(withKeys, "{header: X-API-Key}", fmt.Sprintf("{header: X-API-Key}, {query: key%d}", n), 1),
			fmt.Sprintf("forward: {headers: [{name: X-User-%d, value: identity.subject}]}", n))
	}
	applied(t, base(0))
	inForce(t, "the Gateway's policy", authPolicy(t, shop, "base"))
	eachSays(t, time.Minute, at, question{host: loadHost, path: "/load/"}, 401)
	// Another one, whose route only a policy of its own guards.
	alone, sole := guarded(t, "alone")

	g.header = http.Header{"X-Api-Key": {"k-load"}}
	with := begin(t, g, *rate/2)
	g.header, g.refused = nil, 401
	without := begin(t, g, *rate/2)
	sole.header = http.Header{"X-Api-Key": {"k-load"}}
	withSole := begin(t, sole, *rate/4)
	sole.header, sole.refused = nil, 401

	edits := 0
	edit := func(text string) {
		apply(t, text)
		edits++
	}
	extra := func(lines ...string) string {
		return policyText("extra", "kind: HTTPRoute, name: guarded-open", append([]string{withKeys}, lines...)...)
	}
	for n := 1; n <= 8; n++ {
		edit(policyText("sole", "kind: HTTPRoute, name: alone-open", withKeys))
		edit(extra())
		edit(extra("authorize: {default: Deny, rules: [{name: load, action: Allow, when: 'identity.subject == \"load\"'}]}"))
		edit(base(n))
		edit(keysText("keys", fmt.Sprintf("round: r-%d", n), "load: k-load", fmt.Sprintf("other-%d: k-%d", n, n)))
		inForce(t, "the route's policy", authPolicy(t, shop, "extra"))
		eachSays(t, time.Minute, alone, question{host: loadHost, path: "/load/"}, 401)
		// From here to its end it is in force.
		strict := begin(t, sole, *rate/2)
		until(t, 30*time.Second, "the load of half a second", func() error { return strict.has(*rate / 4) })
		strict.endsClean()
		for _, name := range []string{"extra", "sole"} {
			remove(t, &v1alpha1.AuthPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name}})
			edits++
		}
		eachSays(t, time.Minute, alone, question{host: loadHost, path: "/load/"}, 200)
	}
	t.Logf("%d changes of policies and their Secret", edits)
	if edits < 50 {
		t.Error("they were to be fifty")
	}
	with.endsClean()
	without.endsClean()
	withSole.endsClean()
}
