package expr

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/racetest"
)

// identified returns the exchange of a client that has proven to be someone, once there is an answer.
func identified() *message.Exchange {
	ex := exchange()
	ex.Identity = &message.Identity{
		Subject: "joe", Method: "customers",
		Claims: claimsOf(`{"email":"joe@example.com", "groups":["ops","dev",7,true,null,{"a":1},["x"]], "team":"blue", "empty":[], "nothing":null,
			"realm_access":{"roles":["admin"], "deep":{"a.b":["c"]}}, "https://example.com/roles":["reader"], "scope":"read  write", "scp":"",
			"admin":true, "age":42, "big":9007199254740993, "huge":123456789012345678901234567890, "ratio":1.5, "address":{"country":"NL"}, "dotted.name":"literal"}`),
		Labels: map[string]string{"tier": "gold"},
	}
	ex.Response = &message.Response{Status: 207}
	ex.Response.Header = message.NewHeader(message.Field{Name: "X-Cost", Value: "5"}, message.Field{Name: "x-cost", Value: "6"}, message.Field{Name: "X-One", Value: "12"})
	return ex
}

func claimsOf(text string) (out map[string]any) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		panic(err)
	}
	return out
}

func TestAnIdentitySaysWhatWasProven(t *testing.T) {
	for text, want := range map[string][2]string{ // of joe, of nobody
		`identity.subject`:             {"joe", ""},
		`identity.method`:              {"customers", ""},
		`identity.subject == "joe"`:    {"true", "false"},
		`identity.labels.tier`:         {"gold", ""},
		`identity.labels["tier"]`:      {"gold", ""},
		`identity.labels.absent`:       {"", ""},
		`"tier" in identity.labels`:    {"true", "false"},
		`has(identity.labels.absent)`:  {"false", "false"},
		`size(identity.labels)`:        {"1", "0"},
		`identity.labels == {"a":"b"}`: {"false", "false"},

		`identity.claims.email`:                                                          {"joe@example.com", ""},
		`identity.claims["email"]`:                                                       {"joe@example.com", ""},
		`identity.claims.absent`:                                                         {"", ""},
		`identity.claims.absent == null`:                                                 {"true", "true"},
		`identity.claims["absent"] == null`:                                              {"true", "true"},
		`null == identity.claims.absent`:                                                 {"true", "true"},
		`identity.claims.nothing == null`:                                                {"true", "true"},
		`identity.claims.absent == identity.claims.nothing`:                              {"true", "true"},
		`identity.claims.absent != null`:                                                 {"false", "false"},
		`identity.claims.email == null`:                                                  {"false", "true"},
		`identity.claims.absent.a.b.c == null`:                                           {"true", "true"},
		`identity.claims.absent["a"].b == null`:                                          {"true", "true"},
		`identity.claims.absent.a.b == "x"`:                                              {"false", "false"},
		`identity.claims.absent in [null]`:                                               {"true", "true"},
		`identity.claims.address.country`:                                                {"NL", ""},
		`identity.claims.address["country"] == "NL"`:                                     {"true", "false"},
		`identity.claims.address == {"country": "NL"}`:                                   {"true", "false"},
		`identity.claims.address == {"country": null}`:                                   {"false", "false"},
		`identity.claims.realm_access.deep["a.b"]`:                                       {"c", ""},
		`identity.claims["dotted.name"]`:                                                 {"literal", ""},
		`identity.claims.admin == true`:                                                  {"true", "false"},
		`identity.claims.email == true`:                                                  {"false", "false"},
		`identity.claims.admin == "true"`:                                                {"false", "false"},
		`identity.claims.age == 42`:                                                      {"true", "false"},
		`identity.claims.age == 42.0`:                                                    {"true", "false"},
		`identity.claims.age == "42"`:                                                    {"false", "false"},
		`identity.claims.age`:                                                            {"42", ""},
		`identity.claims.big`:                                                            {"9007199254740993", ""},
		`identity.claims.big == 9007199254740993`:                                        {"true", "false"},
		`identity.claims.huge`:                                                           {"1.2345678901234568e+29", ""},
		`identity.claims.ratio`:                                                          {"1.5", ""},
		`has(identity.claims.email)`:                                                     {"true", "false"},
		`has(identity.claims.nothing)`:                                                   {"true", "false"},
		`has(identity.claims.absent)`:                                                    {"false", "false"},
		`has(identity.claims.address.country)`:                                           {"true", "false"},
		`has(identity.claims.absent.country)`:                                            {"false", "false"},
		`has(identity.claims.email.country)`:                                             {"false", "false"},
		`"email" in identity.claims`:                                                     {"true", "false"},
		`identity.claims.exists(c, c == "email")`:                                        {"true", "false"},
		`[identity.claims].all(c, c.absent.x == null)`:                                   {"true", "true"},
		`(request.method == "GET" ? identity.claims : identity.claims).absent.x == null`: {"true", "true"},
		`(request.method == "GET" ? identity.claims.absent : identity.claims.email) == null`: {"true", "true"},
		`has(request.headers.absent)`: {"false", "false"},
		`has(request.headers.accept)`: {"true", "true"},

		`identity.list("groups")`:                                  {"ops,dev,7,true", ""},
		`"ops" in identity.list("groups")`:                         {"true", "false"},
		`"op" in identity.list("groups")`:                          {"false", "false"},
		`"7" in identity.list("groups")`:                           {"true", "false"},
		`identity.list("team")`:                                    {"blue", ""},
		`"blue" in identity.list("team")`:                          {"true", "false"},
		`size(identity.list("team"))`:                              {"1", "0"},
		`size(identity.list("absent"))`:                            {"0", "0"},
		`size(identity.list("empty"))`:                             {"0", "0"},
		`size(identity.list("nothing"))`:                           {"0", "0"},
		`size(identity.list("address"))`:                           {"0", "0"},
		`identity.list("realm_access.roles")`:                      {"admin", ""},
		`identity.list("realm_access.deep.a.b")`:                   {"c", ""},
		`identity.list("https://example.com/roles")`:               {"reader", ""},
		`identity.list("dotted.name")`:                             {"literal", ""},
		`identity.list("absent.roles")`:                            {"", ""},
		`identity.list("email.roles")`:                             {"", ""},
		`identity.list("scope")`:                                   {"read,write", ""},
		`"write" in identity.list("scope")`:                        {"true", "false"},
		`size(identity.list("scp"))`:                               {"0", "0"},
		`identity.list("admin")`:                                   {"true", ""},
		`identity.list("age")`:                                     {"42", ""},
		`identity.list("big")`:                                     {"9007199254740993", ""},
		`identity.list("groups").exists(g, g.startsWith("op"))`:    {"true", "false"},
		`identity.list("groups").filter(g, g.matches("^[a-z]+$"))`: {"ops,dev,true", ""},
		`identity.list("te" + "am")`:                               {"blue", ""},
		`identity.claims.groups.exists(g, g == "dev")`:             {"true", "expected iterable type"},
	} {
		p, err := Compile(text, String)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		nobody := exchange()
		for i, ex := range []*message.Exchange{identified(), nobody} {
			got, err := p.Value(ex)
			if want[i] != "" && err != nil && strings.Contains(err.Error(), want[i]) {
				continue
			}
			if got != want[i] || err != nil {
				t.Errorf("%s of exchange %d = %q, %v; want %q", text, i, got, err, want[i])
			}
		}
	}
}

func TestWhatNoClaimCanBecomeIsAnError(t *testing.T) {
	for text, kind := range map[string]Kind{
		`identity.claims.address`:              String,
		`identity.claims.groups`:               String, // has a map in it
		`identity.claims.email.local == "joe"`: Bool,
		`identity.claims.email > 17`:           Bool,
		`identity.claims.email`:                Int,
		`identity.claims.ratio`:                Int,
		`identity.claims.absent`:               Int,
		`identity.claims.age - 43`:             Int,
		`18446744073709551615u`:                Int,
		`"ops" in identity.claims.absent`:      Bool,
	} {
		p, err := Compile(text, kind)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		switch kind {
		case Bool:
			_, err = p.Holds(identified())
		case String:
			_, err = p.Value(identified())
		case Int:
			_, err = p.Number(identified())
		}
		if err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

func TestACostIsAWholeNumber(t *testing.T) {
	for text, want := range map[string]int64{
		`3`:                                3,
		`3u`:                               3,
		`0`:                                0,
		`request.method == "GET" ? 1 : 10`: 1,
		`identity.claims.age`:              42,
		`size(request.query)`:              7,
		`int(request.headers["x-n"])`:      17,
		`response.code`:                    207,
		`response.code >= 200 ? 2 : 0`:     2,
		`int(response.headers["x-one"])`:   12,
		`int(response.headers["x-cost"].split(",")[1])`: 6,
		`has(response.headers.absent) ? 1 : 4`:          4,
	} {
		p, err := CompileResponse(text, Int)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		ex := identified()
		ex.Request.Header.Add("X-N", "17")
		if got, err := p.Number(ex); got != want || err != nil {
			t.Errorf("%s = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestAnAnswerIsThereForWhatIsEvaluatedAfterIt(t *testing.T) {
	p, err := CompileResponse(`string(response.code) + response.headers["X-Cost"] + response.headers.absent`, String)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Value(identified()); got != "2075,6" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := p.Value(exchange()); got != "0" || err != nil {
		t.Errorf("without an answer: %q, %v", got, err)
	}
	if _, err := Compile(`response.code == 200`, Bool); !errors.As(err, new(*Error)) {
		t.Errorf("before there is an answer: %v", err)
	}
	_, err = CompileResponse(`response.body == ""`, Bool)
	if err == nil || !strings.Contains(err.Error(), "response.body is not there; there are response.code, response.headers") {
		t.Errorf("%v", err)
	}
	if _, err = CompileResponse(`foo`, Bool); err == nil || !strings.Contains(err.Error(), "there are request, source, identity and response") {
		t.Errorf("%v", err)
	}
}

// What is evaluated by us about identities says what CEL says.
func TestTheNativeFormsOfIdentitiesSayWhatCELSays(t *testing.T) {
	odd := identified()
	odd.Identity.Claims = claimsOf(`{"email":7,"team":["blue"],"groups":"ops","admin":"true","realm_access":"x","scope":["read","write"]}`)
	odd.Identity.Labels = nil
	odd.Response = nil
	exchanges := []*message.Exchange{identified(), exchange(), odd, {}}
	for _, text := range []string{"identity.subject", "identity.method", "identity.labels.tier", `identity.labels["absent"]`} {
		p, err := Compile(text, String)
		if err != nil || p.part == nil {
			t.Fatalf("%s: %v; native %v", text, err, p != nil && p.part != nil)
		}
		for i, ex := range exchanges {
			ours, _ := p.Append(nil, ex)
			theirs, err := p.celAppend(nil, ex)
			if string(ours) != string(theirs) || err != nil {
				t.Errorf("%s of exchange %d: we say %q, CEL says %q, %v", text, i, ours, theirs, err)
			}
		}
	}
	conditions := []string{
		`identity.subject == "joe"`, `identity.labels.tier == "gold"`, `identity.labels.tier in ["silver", "gold"]`, `identity.subject in []`,
		`identity.claims.email == "joe@example.com"`, `identity.claims.admin == true`, `identity.claims.admin != true`, `identity.claims.absent == false`,
		`identity.claims.absent != "x"`, `"blue" == identity.claims["team"]`, `"ops" in identity.list("groups")`, `"admin" in identity.list("realm_access.roles")`,
		`"read" in identity.list("scope")`, `"" in identity.list("absent")`, `!("ops" in identity.list("groups"))`, `request.method in ["GET", "HEAD"]`,
	}
	for i, a := range conditions {
		for _, b := range []string{"", " && ", " || "} {
			text := a
			if b != "" {
				text = a + b + conditions[(i+3)%len(conditions)] + b + "!(" + a + ")"
			}
			p, err := Compile(text, Bool)
			if err != nil || p.condition == nil {
				t.Fatalf("%s: %v; native %v", text, err, p != nil && p.condition != nil)
			}
			for i, ex := range exchanges {
				ours, _ := p.Holds(ex)
				theirs, err := p.celHolds(ex)
				if ours != theirs || err != nil {
					t.Errorf("%s of exchange %d: we say %v, CEL says %v, %v", text, i, ours, theirs, err)
				}
			}
		}
	}
	p, err := CompileResponse(`response.code`, Int)
	if err != nil || p.count == nil {
		t.Fatal(err)
	}
	q, err := CompileResponse(`response.headers["x-cost"]`, String)
	if err != nil || q.part == nil {
		t.Fatal(err)
	}
	for i, ex := range exchanges {
		ours, _ := p.Number(ex)
		theirs, err := p.celNumber(ex)
		value, _ := q.Append(nil, ex)
		celValue, err2 := q.celAppend(nil, ex)
		if ours != theirs || err != nil || string(value) != string(celValue) || err2 != nil {
			t.Errorf("exchange %d: %d %q, CEL says %d %q %v %v", i, ours, value, theirs, celValue, err, err2)
		}
	}
}

func TestTheCommonFormsOfIdentitiesDoNotAllocate(t *testing.T) {
	racetest.SkipsAllocations(t)
	ex := identified()
	for text, most := range map[string]float64{
		`identity.subject != ""`:                                            0,
		`identity.labels.tier == "gold"`:                                    0,
		`identity.claims.email == "joe@example.com"`:                        0,
		`"admin" in identity.list("realm_access.roles") && source.ip != ""`: 0,
		`identity.claims.address.country == "NL"`:                           12,
	} {
		p, err := Compile(text, Bool)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(200, func() { _, err = p.Holds(ex) }); n > most || err != nil {
			t.Errorf("%s: %v allocations (%v), want at most %v", text, n, err, most)
		}
	}
}

func BenchmarkIdentities(b *testing.B) {
	ex := identified()
	for _, text := range []string{`identity.labels.tier == "gold"`, `"dev" in identity.list("groups")`, `identity.claims.email == "joe@example.com"`,
		`identity.claims.address.country == "NL"`, `identity.list("groups").exists(g, g.startsWith("dev"))`} {
		p, err := Compile(text, Bool)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(text), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Holds(ex)
			}
		})
	}
}
