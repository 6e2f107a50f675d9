package jwt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// at waits until the condition holds.
func at(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestKeysAreFetchedBeforeAnyoneAsks(t *testing.T) {
	w := newWorld(t)
	m := w.build(remoteConfig())
	at(t, "the keys are fetched", func() bool { return w.counted("ok") == 1 })
	for range 100 {
		expect(t, m, bearer(esPair("a").sign(claims())), method.Accepted, "")
	}
	w.build(remoteConfig()) // the next snapshot
	if w.called() != 1 {
		t.Errorf("%d calls", w.called())
	}
}

func TestAttackOutageOfTheIssuerAtStart(t *testing.T) {
	w := newWorld(t)
	w.goDown()
	m := w.build(remoteConfig())
	token := esPair("a").sign(claims())
	got := expect(t, m, bearer(token), method.Unavailable, "keys of "+issuerName)
	if got.Challenge == "" {
		t.Error("no challenge")
	}
	at(t, "the failure is counted", func() bool { return w.counted("failed") == 1 })
	for range 50 {
		expect(t, m, bearer(token), method.Unavailable, "connection refused")
	}
	if w.called() != 1 {
		t.Errorf("%d calls at once to an issuer that is down", w.called())
	}
	expect(t, m, bearer("garbage"), method.Refused, "") // needs no keys
	expect(t, m, &message.Exchange{}, method.Absent, "")

	w.publish(setOf(esPair("a")))
	w.Pass(backoffLeast)
	expect(t, m, bearer(token), method.Accepted, "") // heals by itself, with no change of anything
}

func TestAttackOutageOfTheIssuerLater(t *testing.T) {
	w := newWorld(t)
	m := w.build(remoteConfig())
	long := func(kid string) string { return esPair(kid).sign(claims("exp", start.Add(100*time.Hour).Unix())) }
	expect(t, m, bearer(long("a")), method.Accepted, "")
	w.goDown()
	w.Pass(2 * freshUnsaid)
	expect(t, m, bearer(long("a")), method.Accepted, "")
	expect(t, m, bearer(long("b")), method.Refused, "no key named \"b\"") // 401, and not 503
	w.Pass(freshUnsaid)
	began := time.Now()
	for range 100 {
		expect(t, m, bearer(esPair("a").sign(claims("exp", start.Add(100*time.Hour).Unix()))), method.Accepted, "")
	}
	if time.Since(began) > time.Second {
		t.Errorf("an issuer that is down holds requests up: %s", time.Since(began))
	}
	w.Pass(staleMost)
	expect(t, m, bearer(long("a")), method.Unavailable, "connection refused")
	w.publish(setOf(esPair("a"), esPair("b")))
	w.Pass(backoffMost)
	expect(t, m, bearer(long("b")), method.Accepted, "")
}

// Between failures we wait twice as long each time, up to a minute.
func TestAnIssuerThatIsDownIsAskedEverLessOften(t *testing.T) {
	w := newWorld(t)
	w.goDown()
	m := w.build(remoteConfig())
	token := esPair("a").sign(claims())
	for i, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		at(t, "the failure is counted", func() bool { return w.counted("failed") == float64(i+1) })
		w.Pass(pause*time.Second - 1)
		expect(t, m, bearer(token), method.Unavailable, "")
		if w.called() != i+1 {
			t.Fatalf("%d calls before the pause of %d s is over", w.called(), pause)
		}
		w.Pass(1)
		expect(t, m, bearer(token), method.Unavailable, "")
	}
}

func TestRotatedKeysArePickedUp(t *testing.T) {
	w := newWorld(t)
	m := w.build(remoteConfig())
	a, b, c := esPair("a").sign(claims()), pair{"b", jose.ES256, other()}.sign(claims()), pair{"c", jose.RS256, rsaKey()}.sign(claims())
	expect(t, m, bearer(a), method.Accepted, "")
	w.publish(setOf(pair{"b", jose.ES256, other()}))
	w.Pass(renewEvery - 1)
	expect(t, m, bearer(b), method.Refused, "no key named") // asked for too soon after the last time
	w.Pass(1)
	expect(t, m, bearer(b), method.Accepted, "")
	if w.called() != 2 {
		t.Errorf("%d calls", w.called())
	}
	// What was verified by a key that is gone is verified no more.
	expect(t, m, bearer(a), method.Refused, "no key named \"a\"")
	// And without any new name, when the keys are due.
	w.publish(setOf(pair{"c", jose.RS256, rsaKey()}))
	w.Pass(freshUnsaid)
	expect(t, m, bearer(b), method.Refused, "no key named \"b\"")
	expect(t, m, bearer(c), method.Accepted, "")
}

func TestKeysAreRefreshedAheadAndNobodyWaits(t *testing.T) {
	w := newWorld(t)
	w.publish(setOf(esPair("a")), message.Field{Name: "Cache-Control", Value: "public, max-age=3600"})
	m := w.build(remoteConfig())
	token := esPair("a").sign(claims("exp", start.Add(100*time.Hour).Unix()))
	expect(t, m, bearer(token), method.Accepted, "")
	before, _ := m.(*verifier).keys.current(&message.Exchange{})
	w.Pass(45*time.Minute - 1)
	expect(t, m, bearer(token), method.Accepted, "")
	if w.called() != 1 {
		t.Fatalf("%d calls", w.called())
	}
	answer := make(chan struct{})
	w.issuerAnswers(func(_ context.Context, ex *message.Exchange) error {
		<-answer
		ex.Response = &message.Response{Status: 200, Length: -1, Body: message.BodyOf(setOf(esPair("a")))}
		return nil
	})
	w.Pass(1)
	expect(t, m, bearer(token), method.Accepted, "") // while the fetch hangs
	close(answer)
	at(t, "the fetch ends", func() bool { return w.counted("ok") == 2 })
	if after, _ := m.(*verifier).keys.current(&message.Exchange{}); after != before {
		t.Error("the same keys are another version: all that was verified is lost")
	}
}

// Many tokens at once, each with a name that nobody knows, make one fetch.
func TestUnknownNamesMakeNoStampede(t *testing.T) {
	w := newWorld(t)
	m := w.build(remoteConfig())
	expect(t, m, bearer(esPair("a").sign(claims())), method.Accepted, "")
	w.Pass(time.Minute)
	open := make(chan struct{})
	w.issuerAnswers(func(_ context.Context, ex *message.Exchange) error {
		<-open
		ex.Response = &message.Response{Status: 200, Length: -1, Body: message.BodyOf(setOf(esPair("a")))}
		return nil
	})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			expect(t, m, bearer(esPair(fmt.Sprintf("x%d", i)).sign(claims())), method.Refused, "no key named")
		})
	}
	at(t, "a fetch is under way", func() bool { return w.called() == 2 })
	close(open)
	all.Wait()
	if w.called() != 2 {
		t.Errorf("%d calls", w.called()-1)
	}
}

// An issuer that accepts connections and never answers.
func TestAttackAnIssuerThatNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{clock: time.Now}
		hang := func(ctx context.Context) ([]byte, func(string) string, error) {
			<-ctx.Done()
			return nil, nil, ctx.Err()
		}
		async := func(f func()) bool { go f(); return true }
		r.through(hang, async, func(string) {})
		began := time.Now()
		if _, err := r.current(&message.Exchange{}); err == nil || time.Since(began) != maxWait {
			t.Errorf("%v after %s, want none after %s", err, time.Since(began), maxWait)
		}
		began = time.Now()
		if _, err := r.current(&message.Exchange{}); err == nil || time.Since(began) != 0 {
			t.Errorf("%v after %s: who comes later does not wait for the same fetch again", err, time.Since(began))
		}
		// The client leaves.
		time.Sleep(fetchTimeout)
		ex := &message.Exchange{}
		ctx, leave := context.WithTimeout(context.Background(), time.Second)
		defer leave()
		ex.WithParent(ctx)
		began = time.Now()
		if _, err := r.current(ex); err == nil || time.Since(began) != time.Second {
			t.Errorf("%v after %s: nobody waits for a client that has left", err, time.Since(began))
		}
		// With keys in hand, nobody waits for long, and none once it is known to be down.
		answer := func(context.Context) ([]byte, func(string) string, error) {
			return setOf(esPair("a")), func(string) string { return "" }, nil
		}
		time.Sleep(fetchTimeout + backoffMost)
		r.through(answer, async, func(string) {})
		synctest.Wait()
		r.through(hang, async, func(string) {})
		time.Sleep(freshUnsaid)
		for i, want := range []time.Duration{maxWait, 0, 0} {
			began = time.Now()
			if _, err := r.current(&message.Exchange{}); err != nil || time.Since(began) != want {
				t.Errorf("request %d: %v after %s, want keys after %s", i, err, time.Since(began), want)
			}
		}
		time.Sleep(fetchTimeout + backoffMost)
		began = time.Now()
		if _, err := r.current(&message.Exchange{}); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %s, want keys at once: it is known to be down", err, time.Since(began))
		}
		time.Sleep(2 * fetchTimeout)
	})
}

func TestWhatIsNoKeySetChangesNothing(t *testing.T) {
	key := string(must(esPair("a").public().MarshalJSON()))
	for name, body := range map[string]string{
		"HTML": "<html><body>Sign in</body></html>", "nothing": "", "null": "null", "a list": "[" + key + "]", "a key": key, "other members": `{"key":[]}`,
		"keys that are no list": `{"keys":{}}`, "null keys": `{"keys":null}`, "two lists": `{"keys":[],"keys":[` + key + `]}`, "half of it": `{"keys":[` + key,
		"more after it": `{"keys":[` + key + `]} x`, "too many": `{"keys":[` + strings.Repeat(key+",", MaxKeys) + key + `]}`,
		"a megabyte": `{"keys":[` + key + `],"x":"` + strings.Repeat("x", MaxSetBytes) + `"}`,
	} {
		w := newWorld(t)
		w.publish([]byte(body))
		m := w.build(remoteConfig())
		expect(t, m, bearer(esPair("a").sign(claims())), method.Unavailable, "keys of")

		w = newWorld(t)
		m = w.build(remoteConfig())
		expect(t, m, bearer(esPair("a").sign(claims())), method.Accepted, "")
		w.publish([]byte(body))
		w.Pass(2 * freshUnsaid)
		expect(t, m, bearer(esPair("a").sign(claims())), method.Accepted, "")
		if w.counted("failed") != 1 {
			t.Errorf("%s: %v failures", name, w.counted("failed"))
		}
	}
	// An issuer that takes all its keys back is believed.
	w := newWorld(t)
	m := w.build(remoteConfig())
	expect(t, m, bearer(esPair("a").sign(claims())), method.Accepted, "")
	w.publish([]byte(`{"keys":[]}`))
	w.Pass(2 * freshUnsaid)
	expect(t, m, bearer(esPair("a").sign(claims())), method.Refused, "no key named")
}

func TestAnAnswerThatIsNot200IsNone(t *testing.T) {
	for _, status := range []int{204, 301, 302, 307, 308, 401, 404, 500, 503} {
		w := newWorld(t)
		w.issuerAnswers(func(_ context.Context, ex *message.Exchange) error {
			ex.Response = &message.Response{Status: status, Length: -1, Body: message.BodyOf(setOf(esPair("a")))}
			ex.Response.Header.Set("Location", "http://169.254.169.254/latest/meta-data")
			return nil
		})
		m := w.build(remoteConfig())
		expect(t, m, bearer(esPair("a").sign(claims())), method.Unavailable, fmt.Sprint(status))
		if w.called() != 1 {
			t.Errorf("%d: %d calls", status, w.called())
		}
	}
}

func TestKeysHoldAsLongAsTheIssuerSaysWithinBounds(t *testing.T) {
	for _, c := range []struct {
		control, age string
		want         time.Duration
	}{
		{"", "", freshUnsaid},
		{"public", "", freshUnsaid},
		{"max-age=300", "", 5 * time.Minute},
		{"public, Max-Age=3600, must-revalidate", "", time.Hour},
		{`max-age="300"`, "", 5 * time.Minute},
		{"max-age=300", "60", 4 * time.Minute},
		{"max-age=300", "9999", freshLeast},
		{"max-age=0", "", freshLeast},
		{"max-age=1", "", freshLeast},
		{"max-age=-1", "", freshLeast},
		{"max-age=99999999", "", freshMost},
		{"max-age=99999999999999999999999", "", freshUnsaid},
		{"max-age=x", "", freshUnsaid},
		{"no-store, max-age=3600", "", freshLeast},
		{"max-age=3600, no-cache", "", freshLeast},
	} {
		got := freshness(func(name string) string { return map[string]string{"Cache-Control": c.control, "Age": c.age}[name] })
		if got != c.want {
			t.Errorf("%q, age %q: %s, want %s", c.control, c.age, got, c.want)
		}
	}
}

func TestAFetchThatPanicsOrIsRefusedIsOver(t *testing.T) {
	r := &remote{clock: func() time.Time { return start }}
	r.through(nil, func(func()) bool { return false }, func(string) {})
	if _, err := r.current(&message.Exchange{}); err == nil || !strings.Contains(err.Error(), "too much") {
		t.Errorf("%v", err)
	}
	r = &remote{clock: func() time.Time { return start }}
	r.through(func(context.Context) ([]byte, func(string) string, error) { panic("x") }, func(f func()) bool {
		func() {
			defer func() { recover() }()
			f() // at once, on this goroutine
		}()
		return true
	}, func(string) {})
	if _, err := r.current(&message.Exchange{}); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("%v", err)
	}
}

// web is the way to a real issuer: HTTP over a connection to its address, wherever a URL leads.
type web struct {
	server *httptest.Server
	asked  atomic.Int64
}

func (w *web) Do(ctx context.Context, ex *message.Exchange) error {
	w.asked.Add(1)
	req, err := http.NewRequestWithContext(ctx, ex.Request.Method, w.server.URL+ex.Request.Target.String(), nil)
	if err != nil {
		return err
	}
	res, err := (&http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != w.server.Listener.Addr().String() {
			return nil, errors.New("dialled " + address)
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err
	}
	ex.Response = &message.Response{Status: res.StatusCode, Length: -1, Body: message.NewBody(&stream{res.Body}, res.ContentLength, nil)}
	for name, values := range res.Header {
		for _, v := range values {
			ex.Response.Header.Add(name, v)
		}
	}
	return nil
}

type stream struct{ io.ReadCloser }

func (s *stream) Next() ([]byte, error) {
	b := make([]byte, 32<<10)
	n, err := s.Read(b)
	if n > 0 {
		return b[:n], nil
	}
	return nil, err
}
func (s *stream) More() bool               { return false }
func (s *stream) Trailer() *message.Header { return nil }
func (s *stream) Abort(error)              { s.Close() }

// overTheWeb builds a method whose issuer is a real server.
func overTheWeb(t *testing.T, serve http.HandlerFunc) (method.Method, *web, *world) {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	way, w := &web{server: server}, newWorld(t)
	w.issuerAnswers(way.Do)
	return w.build(remoteConfig()), way, w
}

func TestAttackAKeySetOfAGigabyte(t *testing.T) {
	var sent atomic.Int64
	m, _, w := overTheWeb(t, func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, `{"keys":[`)
		block := []byte(strings.Repeat(" ", 64<<10))
		for range 1 << 14 {
			if _, err := rw.Write(block); err != nil {
				return
			}
			sent.Add(int64(len(block)))
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	expect(t, m, bearer(esPair("a").sign(claims())), method.Unavailable, "over the limit")
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d MiB were allocated", grown>>20)
	}
	at(t, "the server is told to stop", func() bool { n := sent.Load(); time.Sleep(20 * time.Millisecond); return n == sent.Load() })
	if n := sent.Load(); n > 64<<20 {
		t.Errorf("%d MiB were taken", n>>20)
	}
	w.work.Wait()
}

func TestAttackAKeySetThatSaysItIsAGigabyte(t *testing.T) {
	m, _, _ := overTheWeb(t, func(rw http.ResponseWriter, r *http.Request) { rw.Header().Set("Content-Length", "1073741824") })
	expect(t, m, bearer(esPair("a").sign(claims())), method.Unavailable, "over the limit")
}

func TestAttackKeysThatRedirectToALinkLocalAddress(t *testing.T) {
	for _, to := range []string{"http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "https://127.0.0.1:1/", "/keys2", "//evil.example.com/keys", "file:///etc/passwd"} {
		m, way, _ := overTheWeb(t, func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, to, http.StatusFound)
		})
		expect(t, m, bearer(esPair("a").sign(claims())), method.Unavailable, "status 302")
		if way.asked.Load() != 1 {
			t.Errorf("%s: %d calls: it was followed", to, way.asked.Load())
		}
	}
}

func TestKeysComeOverRealHTTP(t *testing.T) {
	m, _, _ := overTheWeb(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/keys" {
			http.NotFound(rw, r)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		rw.Write(setOf(esPair("a")))
	})
	expect(t, m, bearer(esPair("a").sign(claims())), method.Accepted, "")
}
