package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/apikey"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/basic"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/filtertest"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// scripted is a method that says what a test wants.
type scripted struct {
	result   method.Result
	say      func(*message.Exchange) method.Result
	strips   string // the header that is its credential
	asked    int
	stripped int
}

func (s *scripted) Authenticate(ex *message.Exchange) method.Result {
	s.asked++
	if s.say != nil {
		return s.say(ex)
	}
	return s.result
}

func (s *scripted) Strip(r *message.Request) {
	s.stripped++
	r.Header.Del(s.strips)
}

func accepts(subject string) *scripted {
	return &scripted{result: method.Result{Outcome: method.Accepted, Identity: &message.Identity{Subject: subject}}}
}

func says(o method.Outcome, challenge, detail string) *scripted {
	return &scripted{result: method.Result{Outcome: o, Challenge: challenge, Detail: detail}}
}

// house builds filters.
type house struct {
	*filtertest.House
	t testing.TB
}

func newHouse(t testing.TB) *house { return &house{filtertest.New(time.Now()), t} }

func (h *house) env() filter.Env { return h.Env(h.Store.Begin()) }

// counted is how many requests a policy has counted under a result, whatever the method.
func (h *house) counted(policy, result string) float64 {
	return h.Counted("auth_requests_total", "policy", policy, "result", result)
}

// with is a Config whose methods are scripted.
type with struct {
	Config
	methods map[string]method.Method
}

func (w with) Build(env filter.Env) (filter.Faces, error) {
	g, err := newGuard(w.Config, env, func(m Method, env filter.Env) (method.Method, error) {
		if s, found := w.methods[m.Name]; found {
			return s, nil
		}
		return m.build(env)
	})
	if err != nil {
		return filter.Faces{}, err
	}
	return filter.Faces{Request: g.request, Response: g.response}, nil
}

// Join is none: what is scripted is lost by joining.
func (w with) Join(snapshot.Filter) (snapshot.Filter, bool) { return nil, false }

// chain is the filter of these policies, with scripted methods by name.
func (h *house) chain(methods map[string]method.Method, policies ...Policy) *filter.Chain {
	h.t.Helper()
	c, err := filter.Build([]snapshot.Filter{with{Config{policies}, methods}}, h.env(), false, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// policyOf has methods of these names.
func policyOf(name string, require Require, methods ...string) Policy {
	p := Policy{Name: snapshot.Name{Namespace: "shop", Name: name}, Require: require}
	for _, m := range methods {
		p.Methods = append(p.Methods, Method{Name: m})
	}
	return p
}

func get(path string, fields ...message.Field) *message.Exchange {
	host, _ := message.ParseHost("shop.example.com")
	target, reason, detail := message.ParseTarget(path, message.PathRules{})
	if reason != message.ReasonNone {
		panic(detail)
	}
	return &message.Exchange{
		Request:  message.Request{Method: "GET", Scheme: "https", Host: host, Target: target, Version: message.HTTP11, Header: message.NewHeader(slices.Clone(fields)...)},
		ClientIP: netip.MustParseAddr("192.0.2.7"),
	}
}

func field(name, value string) message.Field { return message.Field{Name: name, Value: value} }

// send runs the request face, and returns the status of the refusal, or 0 when the request goes on.
func send(t testing.TB, c *filter.Chain, ex *message.Exchange) int {
	t.Helper()
	_, v := c.Request(ex)
	if reason, detail, failed := v.Failed(); failed {
		t.Fatalf("failed: %v %s", reason, detail)
	}
	if !v.Answered() {
		return 0
	}
	return ex.Response.Status
}

func reasonOf(ex *message.Exchange) message.Reason {
	if ex.Response == nil {
		return message.ReasonNone
	}
	return ex.Response.Reason
}

func subjectOf(ex *message.Exchange) string {
	if ex.Identity == nil {
		return ""
	}
	return ex.Identity.Subject
}

func note(ex *message.Exchange, key string) string {
	for _, n := range slices.Backward(ex.Notes) {
		if n.Key == key {
			return n.Value
		}
	}
	return ""
}

// partners is two keys, one of them hashed at rest.
func partners(from ...method.Place) *apikey.Config {
	sum := sha256.Sum256([]byte("key-of-blue"))
	if len(from) == 0 {
		from = method.Places{{Header: "X-API-Key"}}
	}
	return &apikey.Config{From: from, Keys: []apikey.Key{
		{Subject: "red", Value: sensitive("key-of-red"), Labels: []apikey.Label{{Name: "tier", Value: "gold"}}},
		{Subject: "blue", Value: sensitive("sha256:" + hex.EncodeToString(sum[:]))},
	}}
}

func staff(t testing.TB) *basic.Config {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return &basic.Config{Realm: "staff", Users: []basic.User{{Name: "ann", Hash: sensitive(string(hash))}}}
}

func sensitive(text string) snapshot.Sensitive {
	return snapshot.Sensitive{Name: snapshot.Name{Namespace: "shop", Name: "s"}, Data: []byte(text)}
}

func basicOf(userPassword string) message.Field {
	return field("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(userPassword)))
}
