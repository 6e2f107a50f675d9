package headers

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// header makes one of "name: value" lines; lines is the way back.
func header(fields ...string) message.Header {
	var h message.Header
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Add(name, value)
	}
	return h
}

func lines(h *message.Header) string {
	var out []string
	for name, value := range h.All() {
		out = append(out, name+": "+value)
	}
	return strings.Join(out, "|")
}

func faces(t *testing.T, c Config) filter.Faces {
	t.Helper()
	f, err := c.Build(filter.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFieldsAreSetAddedAndRemoved(t *testing.T) {
	for _, c := range []struct {
		set, add []Field
		remove   []string
		before   string
		want     string
	}{
		{set: []Field{{"X-A", "new"}}, before: "X-B: b", want: "X-B: b|X-A: new"},
		{set: []Field{{"X-A", "new"}}, before: "x-a: old|X-B: b|X-A: older", want: "X-A: new|X-B: b"},
		{add: []Field{{"X-A", "new"}}, before: "X-B: b", want: "X-B: b|X-A: new"},
		{add: []Field{{"X-A", "new"}}, before: "x-a: old", want: "X-A: old,new"},
		{add: []Field{{"X-A", "c,d"}}, before: "x-a: a|x-b: x|x-a: b", want: "X-A: a,b,c,d|x-b: x"},
		{add: []Field{{"Set-Cookie", "b=2"}}, before: "Set-Cookie: a=1", want: "Set-Cookie: a=1|Set-Cookie: b=2"},
		{add: []Field{{"cookie", "b=2"}}, before: "Cookie: a=1", want: "cookie: a=1; b=2"},
		{remove: []string{"x-a", "X-C"}, before: "X-A: 1|X-B: 2|x-a: 3", want: "X-B: 2"},
		{set: []Field{{"X-1", "set"}, {"X-2", "set"}}, add: []Field{{"X-3", "add"}}, remove: []string{"X-4"}, before: "x-2: a|x-3: b|x-4: c", want: "X-2: set|X-3: b,add|X-1: set"},
		{set: []Field{{"X-A", "first"}, {"x-a", "second"}}, want: "X-A: first"}, // of equivalent names the first counts
		{add: []Field{{"X-A", "first"}, {"x-a", "second"}}, want: "X-A: first"},
		{set: []Field{{"X-A", " \tpadded "}}, want: "X-A: padded"},
	} {
		start := func() message.Header {
			if c.before == "" {
				return message.Header{}
			}
			return header(strings.Split(c.before, "|")...)
		}
		config := Config{
			SetRequest: c.set, AddRequest: c.add, RemoveRequest: c.remove,
			SetResponse: c.set, AddResponse: c.add, RemoveResponse: c.remove,
		}
		f := faces(t, config)
		ex := &message.Exchange{Request: message.Request{Header: start()}, Response: &message.Response{Header: start()}}
		if v := f.Request(ex); v != filter.Continue {
			t.Errorf("%s: %v", config, v)
		}
		if v := f.Response(ex); v != filter.Continue {
			t.Errorf("%s: %v", config, v)
		}
		if got := lines(&ex.Request.Header); got != c.want {
			t.Errorf("%s: the request has %s, want %s", config, got, c.want)
		}
		if got := lines(&ex.Response.Header); got != c.want {
			t.Errorf("%s: the response has %s, want %s", config, got, c.want)
		}
	}
}

func TestOnABackendTheRequestPartActsOnTheAttemptOnly(t *testing.T) {
	f := faces(t, Config{OnBackend: true, AddRequest: []Field{{"X-A", "2"}}})
	if f.Request != nil {
		t.Fatal("it acts on the exchange")
	}
	ex := &message.Exchange{Request: message.Request{Header: header("x-a: 1")}}
	for try := range 2 {
		at := &message.Attempt{Exchange: ex, Request: ex.Request, N: try}
		at.Request.Header = ex.Request.Header.Share()
		f.Attempt(at)
		if got := lines(&at.Request.Header); got != "X-A: 1,2" {
			t.Errorf("try %d sends %s", try, got)
		}
	}
	if got := lines(&ex.Request.Header); got != "x-a: 1" {
		t.Errorf("the exchange has %s", got)
	}
}

func TestOnABackendTheResponsePartWaitsForTheAnswerOfTheAttempt(t *testing.T) {
	f := faces(t, Config{OnBackend: true, AddResponse: []Field{{"X-A", "2"}}})
	if f.Response != nil {
		t.Fatal("it acts on answers that the gateway makes")
	}
	at := &message.Attempt{Exchange: &message.Exchange{}}
	f.Attempt(at)
	if len(at.OnResponse) != 1 {
		t.Fatalf("%d wait for the answer", len(at.OnResponse))
	}
	answer := &message.Response{Header: header("x-a: 1")}
	at.OnResponse[0](answer)
	if got := lines(&answer.Header); got != "X-A: 1,2" {
		t.Errorf("the answer has %s", got)
	}
}

func TestOnABackendNothingWaitsForTheAnswerWithoutAResponsePart(t *testing.T) {
	at := &message.Attempt{Exchange: &message.Exchange{}}
	faces(t, Config{OnBackend: true, SetRequest: []Field{{"X-A", "1"}}}).Attempt(at)
	if len(at.OnResponse) != 0 {
		t.Errorf("%d wait", len(at.OnResponse))
	}
}

func TestOnARuleTheResponsePartActsOnEachAnswer(t *testing.T) {
	f := faces(t, Config{SetResponse: []Field{{"X-A", "1"}}})
	ex := &message.Exchange{Response: &message.Response{Origin: message.OriginProxy}}
	f.Response(ex)
	if got := lines(&ex.Response.Header); got != "X-A: 1" {
		t.Errorf("got %q", got)
	}
}

func TestWhatCannotBeIsNamed(t *testing.T) {
	for _, c := range []struct {
		config Config
		says   string
	}{
		{Config{SetRequest: []Field{{"Host", "a"}}}, "Host cannot be changed"},
		{Config{AddRequest: []Field{{"content-length", "0"}}}, "content-length cannot be changed"},
		{Config{RemoveRequest: []string{"TE"}}, "TE cannot be changed"},
		{Config{SetResponse: []Field{{"Transfer-Encoding", "chunked"}}}, "Transfer-Encoding cannot be changed"},
		{Config{RemoveResponse: []string{"Connection"}}, "Connection cannot be changed"},
		{Config{SetRequest: []Field{{"X A", "a"}}}, "no header name"},
		{Config{SetRequest: []Field{{"", "a"}}}, "no header name"},
		{Config{RemoveResponse: []string{"X\r\nY"}}, "no header name"},
		{Config{SetRequest: []Field{{"X-A", "a\r\nX-B: c"}}}, "control character"},
		{Config{AddResponse: []Field{{"X-A", "a\x00"}}}, "control character"},
		{Config{SetRequest: []Field{{"X-A", "a"}}, RemoveRequest: []string{"x-a"}}, "two actions, set and remove"},
		{Config{SetResponse: []Field{{"X-A", "a"}}, AddResponse: []Field{{"x-a", "b"}}}, "two actions, set and add"},
	} {
		err := c.config.Check()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.config, err, c.says)
		}
		if _, err := c.config.Build(filter.Env{}); err == nil {
			t.Errorf("%s was built", c.config)
		}
	}
	if err := (Config{SetRequest: []Field{{"X-A", "a"}}, RemoveResponse: []string{"X-A"}}).Check(); err != nil {
		t.Errorf("request and response are apart: %v", err)
	}
}

func TestTheTextTellsSettingsApart(t *testing.T) {
	full := Config{
		SetRequest: []Field{{"X-A", "1"}, {"X-B", "a b"}}, AddRequest: []Field{{"X-C", "2"}}, RemoveRequest: []string{"X-D"},
		SetResponse: []Field{{"X-E", `q"`}}, RemoveResponse: []string{"X-F"},
	}
	if got, want := full.String(), `headers(set X-A=1 set X-B="a b" add X-C=2 remove X-D; response set X-E="q\"" remove X-F)`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	seen := map[string]bool{}
	for _, c := range []Config{
		full,
		{SetRequest: []Field{{"X-A", "1"}}},
		{OnBackend: true, SetRequest: []Field{{"X-A", "1"}}},
		{SetResponse: []Field{{"X-A", "1"}}},
		{AddRequest: []Field{{"X-A", "1"}}},
		{SetRequest: []Field{{"X-A", "1 set X-B=2"}}},
		{SetRequest: []Field{{"X-A", "1"}, {"X-B", "2"}}},
		{SetRequest: []Field{{"X-A", `"1 set X-B=2"`}}},
	} {
		if seen[c.String()] {
			t.Errorf("%s stands for two settings", c)
		}
		seen[c.String()] = true
	}
}

func TestSettingAFieldThatIsThereDoesNotAllocate(t *testing.T) {
	f := faces(t, Config{SetRequest: []Field{{"X-A", "1"}}, RemoveRequest: []string{"X-B"}})
	ex := &message.Exchange{Request: message.Request{Header: header("x-a: 0", "x-c: 1")}}
	if n := testing.AllocsPerRun(100, func() { f.Request(ex) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAnotherSpellingOfWhatARouteSetsDoesNotPass(t *testing.T) {
	f := faces(t, Config{SetRequest: []Field{{"X-User", "ours"}}, RemoveRequest: []string{"X-Admin"}})
	ex := &message.Exchange{}
	ex.Request.Header = header("X_User: spoofed", "x-USER: spoofed", "X_Admin: 1", "x-admin: 1", "X_Other: kept")
	f.Request(ex)
	if got := lines(&ex.Request.Header); got != "X-User: ours|X_Other: kept" && got != "X_Other: kept|X-User: ours" {
		t.Error(got)
	}
}
