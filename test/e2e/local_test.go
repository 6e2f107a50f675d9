//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

const (
	squat       = "GATEHOUSE_E2E_SQUAT"
	firstSquat  = 10000
	manySquat   = 2000
	squatSettle = "squatting"
)

// squatting is this program as somebody who holds ports of a pod, until its input ends. Those that are taken stay whose they are.
func squatting() bool {
	if os.Getenv(squat) == "" {
		return false
	}
	for port := firstSquat; port < firstSquat+manySquat; port++ {
		if l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			defer l.Close()
		}
	}
	fmt.Println(squatSettle)
	os.Stdin.Read(make([]byte, 1))
	return true
}

// squatIn takes the free ports among a pod's first, and returns what gives them back.
func squatIn(t *testing.T, p corev1.Pod) (end func()) {
	t.Helper()
	numbers, err := processes(p)
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", numbers[0]), self)
	cmd.Env = append(os.Environ(), squat+"=yes")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	end = func() {
		in.Close()
		cmd.Wait()
	}
	t.Cleanup(end)
	if n, err := out.Read(make([]byte, 100)); n == 0 {
		t.Fatalf("nobody squats: %v", err)
	}
	return end
}

func TestAPortThatCantBeBoundHarmsOnlyItsListener(t *testing.T) {
	g := house(t)
	were := replicas(t)
	l := begin(t, g, *rate)
	end := squatIn(t, were[0])
	applied(t, gatewayText(shop, "unbound", ""))
	says(t, time.Minute, "the Gateway whose port can't be bound", conditionsOf(t, shop, "unbound"), "Programmed", metav1.ConditionFalse, were[0].Name)
	if s, err := serviceOf(t, shop, "unbound"); err == nil {
		t.Errorf("it has the Service %s, although not all replicas listen", s.Name)
	}
	programmed(t, shop, front)
	end()
	programmed(t, shop, "unbound")
	l.endsClean()
	unharmed(t, were)
}

// upgrade runs helm upgrade with the values of this release, and further ones.
func upgrade(t *testing.T, more ...string) {
	t.Helper()
	out, err := run(t, "helm", append([]string{"upgrade", "gatehouse", chart, "--namespace", system, "--values", values(t), "--wait", "--timeout", "300s"}, more...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

const chart = "../../charts/gatehouse"

func values(t *testing.T) string {
	t.Helper()
	path := os.Getenv("GATEHOUSE_E2E_VALUES")
	if path == "" {
		t.Fatal("GATEHOUSE_E2E_VALUES is not set: run hack/e2e.sh e2e, which says what the release's values are")
	}
	return path
}

func TestASecretThatIsForbiddenHarmsOnlyItsListener(t *testing.T) {
	g := house(t)
	were := replicas(t)
	l := begin(t, g, *rate)
	upgrade(t, "--set-json", `rbac.secrets={"namespaces":["`+shop+`"]}`)
	restored := false
	t.Cleanup(func() {
		if !restored {
			upgrade(t)
		}
	})
	namespaces(t, "locked")
	secret, _ := certificates(t).secret(t, "locked", "tls", "locked.example")
	apply(t, secret+gatewayText("locked", "locked", "tls"))
	says(t, time.Minute, "the listener with the forbidden Secret", listenerConditionsOf(t, "locked", "locked", "https"),
		"ResolvedRefs", metav1.ConditionFalse, "locked", "tls", "rbac.secrets")
	says(t, time.Minute, "the listener beside it", listenerConditionsOf(t, "locked", "locked", "http"), "Programmed", metav1.ConditionTrue)

	// Nor do policies get at Secrets that are forbidden; what they guard is closed.
	locked := strings.NewReplacer("namespace: e2e", "namespace: locked")
	apply(t, locked.Replace(routeText("locked", "locked", "locked", "locked.example", "/", "none")+keysText("keys", "keys: ours", "alice: k-alice")+
		policyText("locked", "kind: HTTPRoute, name: locked", withKeys)+
		policyText("selects", "kind: Gateway, name: locked", "methods: [{name: keys, apiKey: {from: [{header: X-API-Key}], secretSelector: {matchLabels: {keys: ours}}}}]")))
	says(t, time.Minute, "the policy with the forbidden Secret", authPolicy(t, "locked", "locked"), "ResolvedRefs", metav1.ConditionFalse,
		"InvalidSecretRef", "may not read Secret locked/keys", "rbac.secrets")
	says(t, time.Minute, "the policy that selects forbidden Secrets", authPolicy(t, "locked", "selects"), "Accepted", metav1.ConditionFalse,
		"InvalidSecretRef", "may not list the Secrets of namespace locked", "rbac.secrets")
	at := each(t, "locked", "locked", 80)
	eachSays(t, time.Minute, at, question{host: "locked.example", path: "/"}.with("X-API-Key", "k-alice"), 500)
	unharmed(t, were)
	upgrade(t)
	restored = true
	inForce(t, "the policy whose Secret is allowed", authPolicy(t, "locked", "locked"))
	inForce(t, "the policy that selects allowed Secrets", authPolicy(t, "locked", "selects"))
	eachSays(t, time.Minute, at, question{host: "locked.example", path: "/"}, 401)
	says(t, time.Minute, "the listener whose Secret is allowed", listenerConditionsOf(t, "locked", "locked", "https"), "ResolvedRefs", metav1.ConditionTrue)
	programmed(t, "locked", "locked")
	l.endsClean()
	unharmed(t, were)
}

func TestAQuotaHarmsOnlyTheGatewayThatItStops(t *testing.T) {
	g := house(t)
	were := replicas(t)
	l := begin(t, g, *rate)
	var all corev1.ServiceList
	must(t, api.List(t.Context(), &all, client.InNamespace(system)))
	quota := &corev1.ResourceQuota{}
	quota.Namespace, quota.Name = system, "e2e"
	apply(t, fmt.Sprintf("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: e2e, namespace: %s}\nspec: {hard: {services: %d}}\n", system, len(all.Items)))
	t.Cleanup(func() { remove(t, quota) })
	until(t, time.Minute, "the quota counts", func() error {
		if err := api.Get(t.Context(), client.ObjectKeyFromObject(quota), quota); err != nil {
			return err
		}
		if used := quota.Status.Used["services"]; used.Value() != int64(len(all.Items)) {
			return fmt.Errorf("%v used", used.Value())
		}
		return nil
	})
	applied(t, gatewayText(shop, "over-quota", ""))
	says(t, time.Minute, "the Gateway over quota", conditionsOf(t, shop, "over-quota"), "Programmed", metav1.ConditionFalse, "NoResources", "quota")
	programmed(t, shop, front)
	unharmed(t, were)
	remove(t, quota)
	programmed(t, shop, "over-quota")
	l.endsClean()
	unharmed(t, were)
}

func TestACRDThatIsDeletedHarmsOnlyItsRoutes(t *testing.T) {
	g := house(t)
	were := replicas(t)
	l := begin(t, g, *rate)
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	crd.SetName("grpcroutes.gateway.networking.k8s.io")
	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(crd), crd))
	again := crd.DeepCopy()
	for _, field := range []string{"resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"} {
		unstructured.RemoveNestedField(again.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(again.Object, "status")
	restored := false
	restore := func() {
		if !restored {
			must(t, api.Create(t.Context(), again))
			restored = true
		}
	}
	defer restore()

	remove(t, crd)
	serves(t, g, nil)
	until(t, time.Minute, "the GatewayClass no longer claims GRPCRoute", func() error { return claimsGRPC(t, false) })
	says(t, time.Minute, "the GatewayClass without the CRD", class(t), "SupportedVersion", metav1.ConditionFalse, "grpcroutes")
	unharmed(t, were)

	restore()
	says(t, time.Minute, "the GatewayClass with the CRD", class(t), "SupportedVersion", metav1.ConditionTrue)
	until(t, time.Minute, "the GatewayClass claims GRPCRoute", func() error { return claimsGRPC(t, true) })
	route := &gwv1.GRPCRoute{}
	route.Namespace, route.Name = shop, "picked-up"
	until(t, time.Minute, "a GRPCRoute can be made", func() error {
		route.ResourceVersion = ""
		route.Spec.ParentRefs = []gwv1.ParentReference{{Name: front}}
		return client.IgnoreAlreadyExists(api.Create(t.Context(), route))
	})
	t.Cleanup(func() { remove(t, route) })
	until(t, time.Minute, "a GRPCRoute is attached", func() error {
		if err := api.Get(t.Context(), client.ObjectKeyFromObject(route), route); err != nil {
			return err
		}
		if len(route.Status.Parents) == 0 {
			return errors.New("it has no status")
		}
		return isTrue(route.Status.Parents[0].Conditions, "Accepted", route.Generation)
	})
	l.endsClean()
	unharmed(t, were)
}

func class(t *testing.T) func() ([]metav1.Condition, int64, error) {
	return func() ([]metav1.Condition, int64, error) {
		c := &gwv1.GatewayClass{}
		err := api.Get(t.Context(), client.ObjectKey{Name: "gatehouse"}, c)
		return c.Status.Conditions, c.Generation, err
	}
}

func claimsGRPC(t *testing.T, want bool) error {
	c := &gwv1.GatewayClass{}
	if err := api.Get(t.Context(), client.ObjectKey{Name: "gatehouse"}, c); err != nil {
		return err
	}
	has := slices.ContainsFunc(c.Status.SupportedFeatures, func(f gwv1.SupportedFeature) bool { return f.Name == "GRPCRoute" })
	if has != want {
		return fmt.Errorf("supportedFeatures has GRPCRoute: %v", has)
	}
	return nil
}
