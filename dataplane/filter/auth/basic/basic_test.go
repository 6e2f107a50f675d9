package basic

import (
	"context"
	"encoding/base64"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/racetest"
	"github.com/gatehouse-dev/gatehouse/dataplane/snapshot"
)

// clock stands until it is moved.
type clock struct{ now atomic.Int64 }

func (c *clock) time() time.Time { return time.Unix(0, c.now.Load()) }

func userOf(t testing.TB, name, password string, cost int) User {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return User{Name: name, Hash: snapshot.Sensitive{Data: hash}}
}

// room is where methods live.
type room struct {
	t     testing.TB
	store *keep.Store
	clock clock
}

func newRoom(t testing.TB) *room {
	r := &room{t: t}
	r.clock.now.Store(1_700_000_000_000_000_000)
	r.store = keep.New(r.clock.time)
	return r
}

func (r *room) build(users ...User) *passwords {
	r.t.Helper()
	round := r.store.Begin()
	defer round.End()
	m, err := Config{Realm: "staff", Users: users}.Build(filter.Env{Keep: round, Clock: r.clock.time})
	if err != nil {
		r.t.Fatal(err)
	}
	return m.(*passwords)
}

func with(lines ...string) *message.Exchange {
	ex := &message.Exchange{}
	for _, l := range lines {
		ex.Request.Header.Add("Authorization", l)
	}
	return ex
}

func login(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }

func subject(r method.Result) string {
	if r.Identity == nil {
		return ""
	}
	return r.Identity.Subject
}

func TestAPasswordProvesItsUser(t *testing.T) {
	long := strings.Repeat("x", maxPassword)
	p := newRoom(t).build(userOf(t, "ann", "secret", 4), userOf(t, "bob", "sec:ret:", 4), userOf(t, "jürgen", "pässwort", 4), userOf(t, "eve", "", 4), userOf(t, "lea", long, 4), userOf(t, "nul", "a\x00b", 4))
	for _, c := range []struct {
		sentence string
		ex       *message.Exchange
		outcome  method.Outcome
		subject  string
	}{
		{"right", with(login("ann:secret")), method.Accepted, "ann"},
		{"the scheme in another case, and two spaces", with("bASIC  " + login("ann:secret")[6:]), method.Accepted, "ann"},
		{"colons in the password", with(login("bob:sec:ret:")), method.Accepted, "bob"},
		{"UTF-8", with(login("jürgen:pässwort")), method.Accepted, "jürgen"},
		{"an empty password that is right", with(login("eve:")), method.Accepted, "eve"},
		{"as long as bcrypt reads", with(login("lea:" + long)), method.Accepted, "lea"},
		{"absent", with(), method.Absent, ""},
		{"another scheme", with("Bearer x"), method.Absent, ""},
		{"a wrong password", with(login("ann:Secret")), method.Refused, ""},
		{"another's password", with(login("ann:sec:ret:")), method.Refused, ""},
		{"an empty password", with(login("ann:")), method.Refused, ""},
		{"longer than bcrypt reads", with(login("lea:" + long + "y")), method.Refused, ""},
		{"an unknown user", with(login("ANN:secret")), method.Refused, ""},
		{"no user", with(login(":secret")), method.Refused, ""},
		{"no colon", with(login("ann")), method.Refused, ""},
		{"no base64", with("Basic ann:secret"), method.Refused, ""},
		{"without its padding", with("Basic " + strings.TrimRight(base64.StdEncoding.EncodeToString([]byte("eve:")), "=")), method.Refused, ""},
		{"the scheme alone", with("Basic"), method.Absent, ""},
		{"a NUL, where others stop reading", with(login("nul:a\x00b")), method.Refused, ""},
		{"very long", with(login("ann:" + strings.Repeat("x", 10_000))), method.Refused, ""},
		{"twice", with(login("ann:secret"), login("ann:secret")), method.Refused, ""},
		{"beside another scheme", with("Bearer x", login("ann:secret")), method.Refused, ""},
	} {
		r := p.Authenticate(c.ex)
		if r.Outcome != c.outcome || subject(r) != c.subject {
			t.Errorf("%s: %v %q (%s)", c.sentence, r.Outcome, subject(r), r.Detail)
		}
		if want := `Basic realm="staff", charset="UTF-8"`; r.Outcome != method.Accepted && r.Challenge != want {
			t.Errorf("%s: %s", c.sentence, r.Challenge)
		}
		p.Strip(&c.ex.Request)
		for _, v := range c.ex.Request.Header.Values("Authorization") {
			if len(v) > 5 && strings.EqualFold(v[:6], "basic ") {
				t.Errorf("%s: not stripped: %s", c.sentence, v)
			}
		}
	}
}

// rounds counts the work of a method: 2^cost for each comparison. Nothing is compared in fact, so that it is quick.
func rounds(p *passwords) *atomic.Int64 {
	var n atomic.Int64
	p.compare = func(hash, _ []byte) error {
		cost, err := bcrypt.Cost(hash)
		if err != nil {
			panic(err)
		}
		n.Add(1 << cost)
		return bcrypt.ErrMismatchedHashAndPassword
	}
	return &n
}

// Unknown against known user: by the work that is done, not by a clock. Also for a user whose hash is cheaper than others'.
func TestAttackUnknownAgainstKnownUser(t *testing.T) {
	for _, costs := range [][]int{{4}, {4, 4}, {4, 6}, {5, 4, 8}, {}} {
		var users []User
		for i, cost := range costs {
			users = append(users, userOf(t, string(rune('a'+i)), "secret", cost))
		}
		p := newRoom(t).build(users...)
		n := rounds(p)
		most := slices.Max(append(costs, 4))
		if len(costs) == 0 {
			most = bcrypt.DefaultCost
		}
		for _, name := range []string{"a", "b", "c", "nobody", "A"} {
			n.Store(0)
			if r := p.Authenticate(with(login(name + ":wrong"))); r.Outcome != method.Refused || r.Detail != "wrong user or password" {
				t.Errorf("%v: %v", name, r)
			}
			if n.Load() != 1<<most {
				t.Errorf("costs %v: %d rounds for %s, want %d", costs, n.Load(), name, 1<<most)
			}
		}
	}
}

func TestTheHashThatNobodyHasLetsNobodyIn(t *testing.T) {
	p := newRoom(t).build()
	p.compare = func([]byte, []byte) error { return nil } // a password that fits
	if r := p.Authenticate(with(login("nobody:x"))); r.Outcome != method.Refused {
		t.Errorf("%v", r.Outcome)
	}
	if err := bcrypt.CompareHashAndPassword(idle(4), []byte("x")); err != bcrypt.ErrMismatchedHashAndPassword {
		t.Errorf("it costs nothing: %v", err)
	}
}

// User a with password b:c is not user a:b with password c, whatever is remembered.
func TestAttackColonConfusion(t *testing.T) {
	r := newRoom(t)
	p := r.build(userOf(t, "a", "b:c", 4), userOf(t, "ab", "c", 4))
	for range 2 { // the second time from memory
		for text, want := range map[string]string{"a:b:c": "a", "ab:c": "ab", "ab:b:c": "", "a:bc": "", "a:b": ""} {
			if got := subject(p.Authenticate(with(login(text)))); got != want {
				t.Errorf("%s: %q, want %q", text, got, want)
			}
		}
	}
}

func TestAPasswordThatWasRightIsRememberedForAShortWhile(t *testing.T) {
	r := newRoom(t)
	ann := userOf(t, "ann", "secret", 4)
	p := r.build(ann)
	var compared atomic.Int64
	count := func(p *passwords) {
		p.compare = func(hash, password []byte) error {
			compared.Add(1)
			return bcrypt.CompareHashAndPassword(hash, password)
		}
	}
	count(p)
	ask := func(p *passwords, text string, want method.Outcome, work int64) {
		t.Helper()
		before := compared.Load()
		if r := p.Authenticate(with(login(text))); r.Outcome != want || compared.Load()-before != work {
			t.Errorf("%s: %v with %d comparisons, want %v with %d", text, r.Outcome, compared.Load()-before, want, work)
		}
	}
	ask(p, "ann:secret", method.Accepted, 1)
	ask(p, "ann:secret", method.Accepted, 0)
	ask(p, "ann:wrong", method.Refused, 1)
	ask(p, "ann:wrong", method.Refused, 1) // never remembered
	ask(p, "ann:secret", method.Accepted, 0)
	r.clock.now.Add(int64(remembered))
	ask(p, "ann:secret", method.Accepted, 1)

	again := r.build(ann, userOf(t, "bob", "x", 4))
	count(again)
	ask(again, "ann:secret", method.Accepted, 0) // another's change costs her nothing
	changed := r.build(userOf(t, "ann", "other", 4))
	count(changed)
	ask(changed, "ann:secret", method.Refused, 1)
	gone := r.build(userOf(t, "bob", "x", 4))
	count(gone)
	ask(gone, "ann:secret", method.Refused, 1)
	rehashed := r.build(userOf(t, "ann", "secret", 4))
	count(rehashed)
	ask(rehashed, "ann:secret", method.Accepted, 1)
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	h := newHouse()
	now := time.Unix(1_700_000_000, 0)
	for i := range maxEntries + 10 {
		h.remember(h.key([]byte("hash"), []byte{byte(i), byte(i >> 8), byte(i >> 16)}), now)
	}
	if len(h.entries) != maxEntries {
		t.Errorf("%d", len(h.entries))
	}
	last := h.key([]byte("hash"), []byte("last"))
	h.remember(last, now.Add(remembered))
	if len(h.entries) != 1 || !h.verified(last, now.Add(remembered)) || h.verified(last, now) {
		t.Errorf("%d: what is old does not go first", len(h.entries))
	}
}

// However many ask, so many cores stay free.
func TestOnlySoManyPasswordsAreCheckedAtOnce(t *testing.T) {
	r := newRoom(t)
	p, other := r.build(userOf(t, "ann", "secret", 4)), r.build(userOf(t, "ann", "secret", 5))
	places := max(1, runtime.GOMAXPROCS(0)/2)
	var under, most atomic.Int64
	busy, free := make(chan struct{}, 100), make(chan struct{})
	block := func([]byte, []byte) error {
		now := under.Add(1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		busy <- struct{}{}
		<-free
		under.Add(-1)
		return bcrypt.ErrMismatchedHashAndPassword
	}
	p.compare, other.compare = block, block

	var all sync.WaitGroup
	for i := range 3 * places {
		m := []*passwords{p, other}[i%2]
		all.Go(func() {
			if r := m.Authenticate(with(login("ann:wrong"))); r.Outcome != method.Refused {
				t.Errorf("%v", r.Outcome)
			}
		})
	}
	for range places {
		<-busy
	}
	// A client that leaves waits for nothing, and gets no answer that lets it in.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ex := with(login("ann:secret"))
	ex.WithParent(ctx)
	if r := p.Authenticate(ex); r.Outcome != method.Unavailable {
		t.Errorf("%v", r.Outcome)
	}
	close(free)
	all.Wait()
	if n := most.Load(); n > int64(places) {
		t.Errorf("%d at once, want at most %d", n, places)
	}
}

// asked is a context that says when somebody begins to wait with it.
type asked struct {
	context.Context
	once sync.Once
	now  chan struct{}
}

func (a *asked) Done() <-chan struct{} {
	a.once.Do(func() { close(a.now) })
	return a.Context.Done()
}

// The queue behind one who logs in does not log in again.
func TestManyWithOneNewPasswordCheckItOnce(t *testing.T) {
	p := newRoom(t).build(userOf(t, "ann", "secret", 4))
	p.house.places = make(chan struct{}, 1)
	entered, free := make(chan struct{}), make(chan struct{})
	var compared atomic.Int64
	p.compare = func(hash, password []byte) error {
		if compared.Add(1) == 1 {
			close(entered)
			<-free
		}
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	var all sync.WaitGroup
	ask := func() *asked {
		ctx := &asked{Context: t.Context(), now: make(chan struct{})}
		ex := with(login("ann:secret"))
		ex.WithParent(ctx)
		all.Go(func() {
			if r := p.Authenticate(ex); r.Outcome != method.Accepted {
				t.Errorf("%v", r.Outcome)
			}
		})
		return ctx
	}
	ask()
	<-entered
	for range 5 {
		<-ask().now // it has not found the password in memory, and asks for a place
	}
	close(free)
	all.Wait()
	if compared.Load() != 1 {
		t.Errorf("%d comparisons", compared.Load())
	}
}

const hash = "$2y$05$0123456789abcdefghijkuXp5QkEG2K3r8WqAqJ3b2JzYUqg8h3dK"

func TestWhatIsWrongIsSaidAndNeverWithAHash(t *testing.T) {
	user := func(name, hash string) User { return User{Name: name, Hash: snapshot.Sensitive{Data: []byte(hash)}} }
	for _, c := range []struct {
		want  string
		users []User
	}{
		{`hash of user "ann" is not bcrypt; make it with`, []User{user("ann", "$apr1$hunter2$hunter2")}},
		{`hash of user "ann" is not bcrypt`, []User{user("ann", "hunter2")}},
		{`hash of user "ann" is not bcrypt`, []User{user("ann", "")}},
		{`hash of user "ann" is not bcrypt`, []User{user("ann", strings.Replace(hash, "$2y$", "$2x$", 1))}}, // of an implementation with a bug
		{`hash of user "ann" is not bcrypt`, []User{user("ann", strings.Replace(hash, "X", "!", 1))}},
		{`hash of user "ann" is not bcrypt`, []User{user("ann", strings.Replace(hash, "$05$", "$99$", 1))}},
		{`has cost 15; 14 is the most`, []User{user("ann", strings.Replace(hash, "$05$", "$15$", 1))}},
		{`user "ann" stands twice`, []User{user("ann", hash), user("bob", hash), user("ann", hash)}},
		{`"" cannot be a user's name`, []User{user("", hash)}},
		{`"a:b" cannot be a user's name`, []User{user("a:b", hash)}},
		{`"a\x01b" cannot be a user's name`, []User{user("a\x01b", hash)}},
	} {
		config := Config{Users: c.users}
		err := config.Check()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("want %s: %v", c.want, err)
		}
		if m, err := config.Build(filter.Env{}); m != nil || err == nil {
			t.Errorf("%s: it is built", c.want)
		}
	}
	for _, version := range []string{"$2a$", "$2b$", "$2y$"} {
		if err := (Config{Users: []User{user("ann", version+hash[4:])}}).Check(); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func TestARealmIsQuoted(t *testing.T) {
	for realm, want := range map[string]string{
		"": `Basic realm="restricted", charset="UTF-8"`, `a "b" \c`: `Basic realm="a \"b\" \\c", charset="UTF-8"`,
	} {
		if got := challenge(realm); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if err := (Config{Realm: "a\nb"}).Check(); err == nil {
		t.Error("a realm of two lines")
	}
}

func TestTheTextTellsUsersApartAndNoHash(t *testing.T) {
	a, b := userOf(t, "ann", "x", 4), userOf(t, "ann", "x", 4)
	seen := map[string]bool{}
	for _, c := range []Config{{}, {Realm: "r"}, {Users: []User{a}}, {Users: []User{b}}, {Users: []User{{Name: "bob", Hash: a.Hash}}}} {
		text := c.String()
		if seen[text] || strings.Contains(text, "$2") {
			t.Error(text)
		}
		seen[text] = true
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	p := newRoom(b).build(userOf(b, "ann", "secret", 10))
	right, wrong := with(login("ann:secret")), with(login("ann:wrong"))
	p.Authenticate(right)
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if p.Authenticate(right).Outcome != method.Accepted {
				b.Fatal("refused")
			}
		}
	})
	b.Run("wrong, cost 10", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Authenticate(wrong)
		}
	})
}

func TestARememberedPasswordIsCheckedWithoutAnAllocation(t *testing.T) {
	racetest.SkipsAllocations(t)
	p := newRoom(t).build(userOf(t, "ann", "secret", 4))
	ex := with(login("ann:secret"))
	p.Authenticate(ex)
	if n := testing.AllocsPerRun(500, func() { p.Authenticate(ex) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
