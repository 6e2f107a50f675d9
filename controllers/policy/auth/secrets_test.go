package auth_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/controllers/policy"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/apikey"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// clients says who has which key and labels: "alice=key{tier:gold}".
func clients(keys []apikey.Key) (all []string) {
	for _, k := range keys {
		var labels []string
		for _, l := range k.Labels {
			labels = append(labels, l.Name+":"+l.Value)
		}
		all = append(all, k.Subject+"="+string(k.Value.Data)+"{"+strings.Join(labels, " ")+"}")
	}
	return all
}

func TestClientsOfSecrets(t *testing.T) {
	gold, silver := map[string]string{"tier": "gold", "team": "a"}, map[string]string{"tier": "silver"}
	world := there{
		"gold":   annotated(secret("gold", gold, "alice", "a1\n", "bob", "b1\r\n"), "gatehouse.dev/labels.bob", "tier=platinum, colour=,url=a=b"),
		"silver": secret("silver", silver, "alice", "a2", "carol", "c1"),
		"a":      secret("a", gold, "alice", "a1"),
		"empty":  secret("empty", gold),
	}
	goldClients := []string{"alice=a1{team:a tier:gold}", "bob=b1{colour: team:a tier:platinum url:a=b}"}
	silverClients := []string{"alice=a2{tier:silver}", "carol=c1{tier:silver}"}
	tests := []struct {
		name, secrets string
		want          []string
	}{
		{"a Secret's labels are those of all its clients, and an annotation adds or changes one's", "secretRefs: [{name: gold}]", goldClients},
		{"a client may have several keys", "secretRefs: [{name: gold}, {name: silver}]", append(goldClients[:2:2], silverClients...)},
		{"a Secret that is named twice is read once", "secretRefs: [{name: gold}, {name: gold}], secretSelector: {matchLabels: {tier: silver}}", append(goldClients[:2:2], silverClients...)},
		{"a client that moves to another Secret may be in both", "secretRefs: [{name: a}, {name: gold}]", goldClients},
		{"by labels", "secretSelector: {matchExpressions: [{key: tier, operator: In, values: [silver]}]}", silverClients},
		{"labels that no Secret has yet let nobody in", "secretSelector: {matchLabels: {tier: bronze}}", nil},
		{"nor does a Secret without clients", "secretRefs: [{name: empty}]", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := compiled(t, world, "methods: [{name: keys, apiKey: {from: [{header: X-API-Key}], "+tt.secrets+"}}]")
			same(t, tt.want, clients(got.Methods[0].APIKey.Keys))
		})
	}
}

func TestOneKeyOfAClientWithTwoSetsOfLabelsIsRefused(t *testing.T) {
	world := there{"a": secret("a", map[string]string{"tier": "gold"}, "alice", "k"), "b": secret("b", map[string]string{"tier": "silver"}, "alice", "k")}
	a := attach(world, read(t, "auth", "HTTPRoute api", apiKey("{name: a}, {name: b}")))
	if c := accepted(a); !strings.Contains(c.Message, "Secret shop/b, entry alice holds the same key as Secret shop/a, entry alice") {
		t.Error(c.Message)
	}
}

func TestWhatIsNotKnownYetIsNoMistakeAndLetsNobodyIn(t *testing.T) {
	a := policy.Attach(policy.Input{Kinds: kinds, Objects: []policy.Object{read(t, "auth", "HTTPRoute api", users("later"))}, Targets: targets,
		Lookup: func(policy.Kind, policy.Object) policy.Lookup { return nil }})
	if c := accepted(a); strings.Contains(c.Message, "spec.methods") {
		t.Errorf("told as a mistake: %s", c.Message)
	}
	if e := onRule(a); e.Failure == nil {
		t.Errorf("lets in: %+v", e)
	}
}

func TestHostsOutsideBecomeBackends(t *testing.T) {
	world := there{"ca": secret("ca", nil, "ca.crt", authority)}
	tests := []struct {
		name, jwks string
		want       snapshot.Backend
	}{
		{"a host", "{url: 'https://Login.Example.com/k'}",
			snapshot.Backend{Ref: snapshot.BackendRef{Outside: "login.example.com", Port: 443}, Outside: &snapshot.Outside{TLS: true}}},
		{"a port", "{url: 'https://login.example.com:8443/k'}",
			snapshot.Backend{Ref: snapshot.BackendRef{Outside: "login.example.com", Port: 8443}, Outside: &snapshot.Outside{TLS: true}}},
		{"private addresses", "{url: 'https://login.example.com/k', connection: {allowPrivateAddresses: true}}",
			snapshot.Backend{Ref: snapshot.BackendRef{Outside: "login.example.com", Port: 443, Owner: "private"}, Outside: &snapshot.Outside{TLS: true, Private: true}}},
		{"a private address", "{url: 'https://10.0.0.1/k', connection: {allowPrivateAddresses: true}}",
			snapshot.Backend{Ref: snapshot.BackendRef{Outside: "10.0.0.1", Port: 443, Owner: "private"}, Outside: &snapshot.Outside{TLS: true, Private: true}}},
		{"loopback", "{url: 'http://localhost/k'}",
			snapshot.Backend{Ref: snapshot.BackendRef{Outside: "localhost", Port: 80, Owner: "clear,private"}, Outside: &snapshot.Outside{Private: true}}},
		{"loopback of IPv6", "{url: 'http://[::1]:81/k'}",
			snapshot.Backend{Ref: snapshot.BackendRef{Outside: "::1", Port: 81, Owner: "clear,private"}, Outside: &snapshot.Outside{Private: true}}},
		{"authorities of its own", "{url: 'https://login.example.com/k', connection: {caSecretRef: {name: ca}}}",
			snapshot.Backend{Ref: snapshot.BackendRef{Outside: "login.example.com", Port: 443, Owner: "roots=" + sumOfAuthority},
				Outside: &snapshot.Outside{TLS: true, Roots: []byte(authority)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, e := compiled(t, world, keySet(tt.jwks))
			same(t, []snapshot.Backend{tt.want}, e.Backends)
			same(t, tt.want.Ref, p.Methods[0].JWT.Keys.Backend)
		})
	}
}

func TestAHostThatIsReachedInTwoWaysIsTwoBackends(t *testing.T) {
	const method = "{name: %, jwt: {issuer: a, algorithms: [ES256], jwks: {url: 'https://login.example.com/k', connection: {allowPrivateAddresses: @}}}}"
	m := func(name, private string) string { return strings.NewReplacer("%", name, "@", private).Replace(method) }
	p, e := compiled(t, nil, "methods: ["+m("a", "true")+", "+m("b", "false")+", "+m("c", "true")+"]")
	if len(e.Backends) != 2 {
		t.Errorf("%d backends", len(e.Backends))
	}
	a, b, c := p.Methods[0].JWT.Keys.Backend, p.Methods[1].JWT.Keys.Backend, p.Methods[2].JWT.Keys.Backend
	if a == b || a != c {
		t.Errorf("%s, %s and %s", a, b, c)
	}
}
