package translate_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-dev/gatehouse/api/v1alpha1"
	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/controllers/translate"
)

// random makes objects of few names, so that they meet, clash and miss each other.
type random struct {
	*rand.Rand
	t       *testing.T
	objects []policy.Object
	seen    map[string]bool
}

func newRandom(t *testing.T, seed uint64) *random {
	return &random{Rand: rand.New(rand.NewPCG(seed, 1)), t: t, seen: map[string]bool{}}
}

var (
	namespaces = []string{"a", "b", "a-b"}
	words      = []string{"x", "y", "x-y"}
	hosts      = []gwv1.Hostname{"a.example.com", "*.example.com", "b.a.example.com", "*.com", "other.org"}
)

func pick[T any](r *random, all []T) T { return all[r.IntN(len(all))] }

// mostly is the first of them nine times in ten: a rule with many parts is right now and then only if each part nearly always is.
func mostly[T any](r *random, all ...T) T {
	if r.IntN(10) > 0 {
		return all[0]
	}
	return pick(r, all)
}

// some is nil one time in three.
func some[T any](r *random, v T) *T {
	if r.IntN(3) == 0 {
		return nil
	}
	return &v
}

// add gives the object an identity, unless there is one of the kind with that name.
func (r *random) add(o policy.Object) {
	o.SetNamespace(pick(r, namespaces))
	o.SetName(pick(r, words))
	id := fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName())
	if r.seen[id] {
		return
	}
	r.seen[id] = true
	o.SetGeneration(1 + r.Int64N(9))
	o.SetCreationTimestamp(metav1.Time{Time: time.Unix(r.Int64N(4), 0)})
	r.objects = append(r.objects, o)
}

func (r *random) all() []policy.Object {
	class := &gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "gatehouse"}}
	class.Spec.ControllerName = v1alpha1.ControllerName
	r.objects = append(r.objects, class)
	for _, ns := range namespaces {
		r.objects = append(r.objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{"team": pick(r, words)}}})
	}
	for range 10 + r.IntN(60) {
		switch r.IntN(15) {
		case 0, 1:
			r.add(r.gateway())
		case 2, 3, 4:
			r.add(r.httpRoute())
		case 5:
			r.add(r.grpcRoute())
		case 6, 7:
			r.add(r.service())
		case 8:
			r.add(r.grant())
		case 9:
			r.add(r.limit())
		case 10:
			r.add(r.tlsPolicy())
		case 11:
			r.add(r.secret())
		case 12, 13, 14:
			r.add(r.auth())
		}
	}
	return r.objects
}

func (r *random) gateway() *gwv1.Gateway {
	o := &gwv1.Gateway{}
	o.Spec.GatewayClassName = pick(r, []gwv1.ObjectName{"gatehouse", "gatehouse", "gatehouse", "other"})
	for i := range 1 + r.IntN(4) {
		l := gwv1.Listener{Name: gwv1.SectionName(fmt.Sprint("l", i)), Port: 8080 + r.Int32N(4)}
		l.Protocol = mostly(r, gwv1.HTTPProtocolType, "HTTPS", "TCP")
		l.Hostname = some(r, pick(r, hosts))
		if l.Protocol == "HTTPS" {
			ref := gwv1.SecretObjectReference{Name: gwv1.ObjectName(pick(r, words)), Namespace: some(r, gwv1.Namespace(pick(r, namespaces)))}
			l.TLS = &gwv1.ListenerTLSConfig{CertificateRefs: []gwv1.SecretObjectReference{ref}}
		}
		from := pick(r, []gwv1.FromNamespaces{gwv1.NamespacesFromAll, gwv1.NamespacesFromSame, gwv1.NamespacesFromSelector})
		l.AllowedRoutes = &gwv1.AllowedRoutes{Namespaces: &gwv1.RouteNamespaces{From: &from,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": pick(r, words)}}}}
		if r.IntN(5) == 0 {
			l.AllowedRoutes.Kinds = []gwv1.RouteGroupKind{{Kind: pick(r, []gwv1.Kind{"HTTPRoute", "GRPCRoute", "TCPRoute"})}}
		}
		o.Spec.Listeners = append(o.Spec.Listeners, l)
	}
	if r.IntN(3) == 0 {
		o.Spec.Addresses = []gwv1.GatewaySpecAddress{{Value: fmt.Sprint("127.0.0.", 1+r.IntN(2))}}
	}
	if r.IntN(10) == 0 {
		o.Spec.TLS = &gwv1.GatewayTLSConfig{Frontend: &gwv1.FrontendTLSConfig{Default: gwv1.TLSConfig{Validation: &gwv1.FrontendTLSValidation{}}}}
	}
	return o
}

func (r *random) parents() []gwv1.ParentReference {
	var refs []gwv1.ParentReference
	for range 1 + r.IntN(3) {
		ref := gwv1.ParentReference{Name: gwv1.ObjectName(pick(r, words)), Namespace: some(r, gwv1.Namespace(pick(r, namespaces)))}
		if r.IntN(4) == 0 {
			ref.SectionName = some(r, gwv1.SectionName(fmt.Sprint("l", r.IntN(3))))
			ref.Port = some(r, 8080+r.Int32N(3))
		}
		refs = append(refs, ref)
	}
	return refs
}

func (r *random) hostnames() []gwv1.Hostname {
	var all []gwv1.Hostname
	for range r.IntN(3) {
		all = append(all, pick(r, hosts))
	}
	return all
}

func (r *random) backend() gwv1.BackendObjectReference {
	return gwv1.BackendObjectReference{Name: gwv1.ObjectName(pick(r, words)), Namespace: some(r, gwv1.Namespace(pick(r, namespaces))),
		Port: ptr(mostly(r, gwv1.PortNumber(80), 81, 0)), Kind: some(r, mostly(r, gwv1.Kind("Service"), "Pod"))}
}

func (r *random) httpRoute() *gwv1.HTTPRoute {
	o := &gwv1.HTTPRoute{}
	o.Spec.ParentRefs, o.Spec.Hostnames = r.parents(), r.hostnames()
	for range 1 + r.IntN(3) {
		rule := gwv1.HTTPRouteRule{Name: some(r, gwv1.SectionName(pick(r, words)))}
		for range r.IntN(3) {
			path := gwv1.HTTPPathMatch{Type: ptr(mostly(r, "PathPrefix", gwv1.PathMatchExact, gwv1.PathMatchRegularExpression, "Glob")),
				Value: ptr(mostly(r, pick(r, []string{"/", "/a", "/a/b/"}), "/a(", "/%2f", "/a?b", "x"))}
			rule.Matches = append(rule.Matches, gwv1.HTTPRouteMatch{Path: some(r, path)})
		}
		for range pick(r, []int{0, 0, 0, 1, 1, 2}) {
			rule.Filters = append(rule.Filters, r.filter())
		}
		for range 1 + r.IntN(3) {
			b := gwv1.HTTPBackendRef{BackendRef: gwv1.BackendRef{BackendObjectReference: r.backend(), Weight: some(r, r.Int32N(3))}}
			if r.IntN(10) == 0 {
				b.Filters = []gwv1.HTTPRouteFilter{r.filter()}
			}
			rule.BackendRefs = append(rule.BackendRefs, b)
		}
		o.Spec.Rules = append(o.Spec.Rules, rule)
	}
	return o
}

func (r *random) filter() gwv1.HTTPRouteFilter {
	f := gwv1.HTTPRouteFilter{Type: pick(r, []gwv1.HTTPRouteFilterType{"RequestHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror", "RequestMirror", "RequestMirror", "CORS", "ExternalAuth", "Glob"})}
	switch f.Type {
	case "RequestHeaderModifier":
		f.RequestHeaderModifier = some(r, gwv1.HTTPHeaderFilter{Remove: []string{pick(r, []string{"x-a", "Host", "a b"})}})
	case "RequestRedirect":
		f.RequestRedirect = some(r, gwv1.HTTPRequestRedirectFilter{Scheme: some(r, pick(r, []string{"https", "ftp"}))})
	case "URLRewrite":
		f.URLRewrite = some(r, gwv1.HTTPURLRewriteFilter{Path: &gwv1.HTTPPathModifier{
			Type: pick(r, []gwv1.HTTPPathModifierType{"ReplaceFullPath", "ReplacePrefixMatch", "Glob"}), ReplaceFullPath: some(r, pick(r, []string{"/x", "x", "/%"}))}})
	case "RequestMirror":
		f.RequestMirror = &gwv1.HTTPRequestMirrorFilter{BackendRef: r.backend(), Percent: some(r, r.Int32N(110))}
	case "CORS":
		f.CORS = some(r, gwv1.HTTPCORSFilter{AllowOrigins: []gwv1.CORSOrigin{pick(r, []gwv1.CORSOrigin{"*", "https://a.example.com", "x"})}})
	}
	return f
}

func (r *random) grpcRoute() *gwv1.GRPCRoute {
	o := &gwv1.GRPCRoute{}
	o.Spec.ParentRefs, o.Spec.Hostnames = r.parents(), r.hostnames()
	method := gwv1.GRPCMethodMatch{Type: some(r, mostly(r, gwv1.GRPCMethodMatchExact, "RegularExpression", "Glob")),
		Service: some(r, mostly(r, "a.B", "(")), Method: some(r, "Get")}
	rule := gwv1.GRPCRouteRule{Matches: []gwv1.GRPCRouteMatch{{Method: some(r, method)}}}
	rule.BackendRefs = []gwv1.GRPCBackendRef{{BackendRef: gwv1.BackendRef{BackendObjectReference: r.backend()}}}
	o.Spec.Rules = []gwv1.GRPCRouteRule{rule}
	return o
}

func (r *random) service() *corev1.Service {
	o := &corev1.Service{}
	if r.IntN(10) == 0 {
		o.Spec.Type = corev1.ServiceTypeExternalName
	}
	for i := range 2 {
		o.Spec.Ports = append(o.Spec.Ports, corev1.ServicePort{Port: int32(80 + i),
			AppProtocol: some(r, mostly(r, "http", "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"))})
	}
	return o
}

func (r *random) grant() *gwv1.ReferenceGrant {
	o := &gwv1.ReferenceGrant{}
	from := gwv1.ReferenceGrantFrom{Group: gwv1.GroupName, Kind: pick(r, []gwv1.Kind{"HTTPRoute", "GRPCRoute", "Gateway", "AuthPolicy"}), Namespace: gwv1.Namespace(pick(r, namespaces))}
	if from.Kind == "AuthPolicy" {
		from.Group = mostly[gwv1.Group](r, v1alpha1.GroupName, gwv1.GroupName)
	}
	o.Spec.From = []gwv1.ReferenceGrantFrom{from}
	o.Spec.To = []gwv1.ReferenceGrantTo{{Kind: pick(r, []gwv1.Kind{"Service", "Secret"}), Name: some(r, gwv1.ObjectName(pick(r, words)))}}
	return o
}

func (r *random) limit() *v1alpha1.RateLimitPolicy {
	o := &v1alpha1.RateLimitPolicy{}
	o.Spec.TargetRefs = []gwv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
		Group: gwv1.GroupName, Kind: pick(r, []gwv1.Kind{"Gateway", "HTTPRoute", "GRPCRoute"}), Name: gwv1.ObjectName(pick(r, words))}}}
	o.Spec.Limits = []v1alpha1.RateLimit{{Name: "all", When: pick(r, []string{"", "no"}), Rates: []v1alpha1.Rate{{Requests: 1, Window: "1m"}}}}
	return o
}

func (r *random) auth() *v1alpha1.AuthPolicy {
	o := &v1alpha1.AuthPolicy{}
	for range mostly(r, 1, 2) {
		target := gwv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
			Group: gwv1.GroupName, Kind: pick(r, []gwv1.Kind{"Gateway", "HTTPRoute", "GRPCRoute"}), Name: gwv1.ObjectName(pick(r, words))}}
		if r.IntN(3) == 0 {
			target.SectionName = some(r, pick(r, []gwv1.SectionName{"l0", "l1", "x", "y"}))
		}
		o.Spec.TargetRefs = append(o.Spec.TargetRefs, target)
	}
	o.Spec.Children = pick(r, []v1alpha1.ChildPolicies{"", v1alpha1.ChildrenMayAdd, v1alpha1.ChildrenMayReplace})
	o.Spec.Replace = r.IntN(2) == 0
	o.Spec.Authorize = some(r, v1alpha1.Authorization{Default: "Deny", Rules: []v1alpha1.AuthorizationRule{{Name: "x", Action: "Allow", When: mostly(r, "true", "no")}}})
	for i := range r.IntN(3) {
		m := v1alpha1.AuthMethod{Name: gwv1.SectionName(fmt.Sprint("m", i))}
		if r.IntN(3) == 0 {
			m.External = &v1alpha1.ExternalMethod{Protocol: v1alpha1.ExternalHTTP, BackendRef: r.backend()}
		} else {
			ref := gwv1.SecretObjectReference{Name: gwv1.ObjectName(pick(r, words)), Namespace: some(r, gwv1.Namespace(pick(r, namespaces)))}
			m.APIKey = &v1alpha1.APIKeyMethod{From: []v1alpha1.CredentialSource{{Header: "x-key"}}, SecretRefs: []gwv1.SecretObjectReference{ref},
				SecretSelector: some(r, metav1.LabelSelector{MatchLabels: map[string]string{"team": pick(r, words)}})}
		}
		o.Spec.Methods = append(o.Spec.Methods, m)
	}
	return o
}

func (r *random) tlsPolicy() *gwv1.BackendTLSPolicy {
	o := &gwv1.BackendTLSPolicy{}
	o.Spec.TargetRefs = []gwv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
		Kind: pick(r, []gwv1.Kind{"Service", "Service", "Pod"}), Name: gwv1.ObjectName(pick(r, words))}}}
	return o
}

var secrets = map[string][]byte{}

func (r *random) secret() *corev1.Secret {
	o := &corev1.Secret{Data: map[string][]byte{}}
	if r.IntN(2) == 0 { // keys of clients
		o.Labels = map[string]string{"team": pick(r, words)}
		o.Data["client"] = fmt.Appendf(nil, "key-%d", len(r.objects))
		return o
	}
	if len(secrets) == 0 {
		for _, s := range decodeSecret(r.t) {
			secrets[corev1.TLSCertKey], secrets[corev1.TLSPrivateKeyKey] = s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]
		}
	}
	o.Data[corev1.TLSCertKey] = secrets[corev1.TLSCertKey]
	if r.IntN(4) > 0 {
		o.Data[corev1.TLSPrivateKeyKey] = secrets[corev1.TLSPrivateKeyKey]
	}
	return o
}

func decodeSecret(t *testing.T) []*corev1.Secret {
	objects, _ := objectsOf(t, `
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: a}
data: {tls.crt: CERTIFICATE(*.example.com), tls.key: KEY(0)}
`, "")
	return objects.Secrets
}

func inputOf(all []policy.Object) translate.Input {
	in := translate.Input{Kinds: kinds, FilterOrder: filterOrder}
	for _, o := range all {
		in.Objects.Add(o)
	}
	return in
}

func FuzzBuild(f *testing.F) {
	for seed := range uint64(400) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := newRandom(t, seed)
		all := r.all()
		before, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		in := inputOf(all)
		built := translate.Build(in)
		statuses := built.Statuses(translate.AllBound(built.Snapshot))
		whole := built.Snapshot.String() + translate.Text(statuses)

		for _, s := range statuses {
			checkConditions(t, s)
		}
		w := newWitness(in.Objects)
		w.check(t, built.Snapshot)

		ordered := slices.Clone(all)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		again := translate.Build(inputOf(all))
		if diff := gocmp.Diff(whole, again.Snapshot.String()+translate.Text(again.Statuses(translate.AllBound(again.Snapshot)))); diff != "" {
			t.Errorf("it depends on the order of the objects:\n%s", diff)
		}

		// What is known to be absent is as what is not there.
		in.Answers = translate.Answers{}
		for _, ref := range built.Refs {
			in.Answers[ref] = translate.Absent
		}
		if got := translate.Build(in).Snapshot.String(); got != built.Snapshot.String() {
			t.Errorf("answers change what is served:\n%s", gocmp.Diff(built.Snapshot.String(), got))
		}

		// While nothing is known any more of what is referred to, all that served serves on.
		in.Answers, in.LastGood = translate.Answers{}, built.LastGood
		in.Objects.Services, in.Objects.Secrets = nil, nil
		pending := translate.Build(in)
		if got := pending.Snapshot.String(); got != built.Snapshot.String() {
			t.Errorf("what is pending changes what is served:\n%s", gocmp.Diff(built.Snapshot.String(), got))
		}
		pending.Statuses(translate.Facts{})

		// But a grant that is gone is gone at once, for Services and Secrets, and so is a namespace's label. What is in force is looked at with
		// the objects of before.
		in.Objects.ReferenceGrants = nil
		for _, ns := range in.Objects.Namespaces {
			in.Objects.Namespaces = append(in.Objects.Namespaces[1:], &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns.Name}})
		}
		w.Objects.ReferenceGrants, w.Objects.Namespaces = nil, in.Objects.Namespaces
		w.check(t, translate.Build(in).Snapshot)

		if after, _ := json.Marshal(ordered); string(before) != string(after) {
			t.Error("an object was changed")
		}
	})
}
