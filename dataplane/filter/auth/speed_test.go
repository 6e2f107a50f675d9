package auth

import (
	"strconv"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/apikey"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/racetest"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

type noCounter struct{}

func (noCounter) Add(float64) {}

// typical is a policy as a shop would have it: keys, a rule, and a header for the backend.
func typical(t testing.TB, methods ...Method) *filter.Chain {
	p := Policy{
		Name: snapshot.Name{Namespace: "shop", Name: "api"}, Methods: methods,
		Authorize: Authorize{Deny: true, Rules: []Rule{{Name: "all", When: `request.path.startsWith("/cart")`, Sources: prefixes("192.0.2.0/24"), Methods: []string{"GET"}}}},
		Forward:   Forward{Headers: []Header{{"X-User", "identity.subject"}}},
	}
	env := filter.Env{Keep: keep.New(time.Now).Begin(), Clock: time.Now, Counter: func(string, ...string) filter.Counter { return noCounter{} }}
	c, err := filter.Build([]snapshot.Filter{Config{[]Policy{p}}}, env, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// request makes one that can be sent again and again: the head is given back what was taken from it.
func request(credential message.Field) (ex *message.Exchange, again func()) {
	ex = get("/cart")
	fields := []message.Field{field("User-Agent", "test"), field("Accept", "*/*"), credential}
	var room [8]message.Field
	return ex, func() {
		ex.Identity = nil
		ex.Request.Header = message.NewHeader(append(room[:0], fields...)...)
	}
}

// What one request costs: the identity, which names policy and method; the value of the header, twice as it becomes a string; the path for
// CEL.
const allocations = 4

func TestAnAdmittedRequestAllocatesWhatIsWrittenDown(t *testing.T) {
	racetest.SkipsAllocations(t)
	for name, m := range map[string]struct {
		method     Method
		credential message.Field
	}{
		"apikey": {Method{Name: "partners", APIKey: partners()}, field("X-API-Key", "key-of-red")},
		"basic":  {Method{Name: "staff", Basic: staff(t)}, basicOf("ann:secret")},
	} {
		c := typical(t, m.method)
		ex, again := request(m.credential)
		n := testing.AllocsPerRun(500, func() {
			again()
			if got := send(t, c, ex); got != 0 {
				t.Fatal(got)
			}
		})
		t.Logf("%s: %v allocations", name, n)
		if n > allocations {
			t.Errorf("%s: %v allocations, %v are written down", name, n, allocations)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	for name, m := range map[string]struct {
		method     Method
		credential message.Field
	}{
		"apikey": {Method{Name: "partners", APIKey: partners()}, field("X-API-Key", "key-of-red")},
		"basic":  {Method{Name: "staff", Basic: staff(b)}, basicOf("ann:secret")},
	} {
		b.Run(name, func(b *testing.B) {
			c := typical(b, m.method)
			ex, again := request(m.credential)
			b.ReportAllocs()
			for b.Loop() {
				again()
				c.Request(ex)
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		c := typical(b, Method{Name: "partners", APIKey: partners()})
		ex, again := request(field("X-API-Key", "key-of-nobody"))
		b.ReportAllocs()
		for b.Loop() {
			again()
			ex.Notes = ex.Notes[:0]
			c.Request(ex)
		}
	})
}

// Ten thousand keys must not be read again for each of a thousand matches, nor stand in memory a thousand times.
func TestKeysAreReadOnceForAllRules(t *testing.T) {
	h := newHouse(t)
	config := apikey.Config{From: method.Places{{Header: "X-Key"}}}
	for i := range 100 {
		config.Keys = append(config.Keys, apikey.Key{Subject: strconv.Itoa(i), Value: snapshot.Sensitive{Data: []byte("key-" + strconv.Itoa(i))}})
	}
	plain := Config{Policies: []Policy{{Name: snapshot.Name{Namespace: "shop", Name: "api"}, Methods: []Method{{Name: "keys", APIKey: &config}}}}}
	settled := plain.Settle()
	if settled.String() != plain.String() {
		t.Errorf("%s, want %s", settled, plain)
	}
	env := h.env()
	one, err := settled.Policies[0].Methods[0].build(env)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := settled.Policies[0].Methods[0].build(env); err != nil || other != one {
		t.Errorf("another rule has a table of its own (%v)", err)
	}
	if allocs := testing.AllocsPerRun(100, func() { _ = settled.Policies[0].Methods[0].String() }); allocs > 0 {
		t.Errorf("the text of 100 keys is made anew: %v allocations", allocs)
	}
}
