package oidc

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/keep"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// gate is the method, alive.
type gate struct {
	config        Config
	tag           string
	plain, secure names
	provider      *provider
	memory        *memory
	sessions      *box
	logins        *box
	now           func() time.Time
	count         counters
}

// counters count logins and refreshes by what became of them.
type counters struct{ started, completed, failed, looped, refreshed, refused, unavailable filter.Counter }

// memory is what one policy's logins leave in this process. It outlives changes of the settings.
type memory struct {
	sessions  *recent[sessionKey, *session]        // opened cookies
	refreshes *recent[[32]byte, *flight[*session]] // by refresh token
	used      *recent[[32]byte, struct{}]          // states that a browser came back with
	ended     *recent[string, struct{}]            // ids of sessions that were logged out
}

type sessionKey struct{ scheme, host, text string }

const (
	rememberSessions  = 500 // of at most rememberText bytes each; twice that in the end
	rememberText      = 8 << 10
	rememberRefreshes = 1000
	rememberWords     = 10_000
	openedFor         = 5 * time.Minute // before a session is opened anew, in case that its key is gone
)

type memoryKey struct{ policy, issuer, client string }
type providerKey struct{ issuer, backends string }
type keysKey struct{ purpose string }

// Build makes the method.
func (c Config) Build(env filter.Env) (method.Method, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	callers, err := c.callers(env)
	if err != nil {
		return nil, err
	}
	g := &gate{config: c, tag: c.tag(), now: env.Clock}
	g.plain, g.secure = namesOf(c.CookieName, g.tag)
	backends := Config{Backend: c.Backend, Origins: c.Origins}.String()
	g.provider = keep.Get(env.Keep, providerKey{c.Issuer, backends}, func() *provider { return newProvider(c.Issuer, callers, env.Clock) })
	g.provider.use(callers)
	g.memory = keep.Get(env.Keep, memoryKey{c.Policy, c.Issuer, c.ClientID}, func() *memory {
		return &memory{
			sessions:  newRecent[sessionKey, *session](rememberSessions),
			refreshes: newRecent[[32]byte, *flight[*session]](rememberRefreshes),
			used:      newRecent[[32]byte, struct{}](rememberWords),
			ended:     newRecent[string, struct{}](rememberWords),
		}
	})
	g.sessions, g.logins = boxOf(env, "oidc-session"), boxOf(env, "oidc-login")
	g.count = countersOf(env)
	return g, nil
}

// boxOf seals with the keys of the process. Where there are none (in tests), random ones live as long as the plan needs them.
func boxOf(env filter.Env, purpose string) *box {
	if env.Keys != nil {
		return &box{keys: func() [][]byte { return env.Keys(purpose) }}
	}
	return keep.Get(env.Keep, keysKey{purpose}, func() *box {
		key := make([]byte, 32)
		rand.Read(key)
		return &box{keys: func() [][]byte { return [][]byte{key} }}
	})
}

func countersOf(env filter.Env) counters {
	of := func(name, result string) filter.Counter {
		if env.Counter == nil {
			return void{}
		}
		return env.Counter(name, "result", result)
	}
	const logins, refreshes = "oidc_logins_total", "oidc_refreshes_total"
	return counters{
		started: of(logins, "started"), completed: of(logins, "completed"), failed: of(logins, "failed"), looped: of(logins, "looped"),
		refreshed: of(refreshes, "refreshed"), refused: of(refreshes, "refused"), unavailable: of(refreshes, "unavailable"),
	}
}

type void struct{}

func (void) Add(float64) {}

// visit is how a client reaches us.
type visit struct {
	names
	scheme, host string
	origin       string
}

func (g *gate) visit(r *message.Request) visit {
	v := visit{g.plain, "http", r.Host.Name, ""}
	if r.Scheme == "https" {
		v.names, v.scheme = g.secure, "https"
	}
	v.origin = origin(v.scheme, r.Host)
	return v
}

// bound ties what is sealed to its kind, to how the client reaches us, and to this policy and client.
func (g *gate) bound(kind string, v visit) []byte {
	var p packer
	for _, t := range []string{kind, v.scheme, v.host, g.config.Policy, g.config.Issuer, g.config.ClientID} {
		p.text(t)
	}
	return p
}

// challenge: RFC 9110 15.5.2 demands one with each 401. None is registered for cookies, and "Bearer" would ask for what is not accepted.
const challenge = `Cookie realm="login"`

var errEnded = errors.New("the session has ended")

// Authenticate looks for a session in the cookies. A navigation without one is sent to the provider.
func (g *gate) Authenticate(ex *message.Exchange) method.Result {
	r := &ex.Request
	v := g.visit(r)
	switch r.Target.Path {
	case g.config.LogoutPath:
		return g.logout(ex, v)
	case g.config.CallbackPath:
		if result, ours := g.callback(ex, v); ours {
			return result
		}
	}
	old := v.parts(&r.Header)
	s, err := g.session(v, &old)
	if s == nil {
		return g.stranger(ex, v, err)
	}
	now, ttl := g.now(), g.config.SessionTTL
	if !s.refreshable(now, ttl) || !s.due(now) {
		if now.Before(s.ends(ttl)) {
			return g.accepted(s)
		}
		return g.stranger(ex, v, errEnded)
	}
	return g.refreshed(ex, v, s, old)
}

// accepted is the result for a session that holds.
func (g *gate) accepted(s *session) method.Result {
	identity := s.identity
	identity.Expires = s.ends(g.config.SessionTTL)
	result := method.Result{Outcome: method.Accepted, Identity: &identity}
	if g.config.ForwardAccessToken && s.access != "" {
		result.Set = []method.Field{{Name: "Authorization", Value: "Bearer " + s.access}}
	}
	return result
}

// stranger is the result for a request without a session that holds; why is nil when it brought none.
func (g *gate) stranger(ex *message.Exchange, v visit, why error) method.Result {
	result := method.Result{Outcome: method.Absent, Challenge: challenge}
	if why != nil {
		result.Outcome, result.Detail = method.Refused, why.Error()
	}
	switch {
	case ex.Request.Target.Path == g.config.CallbackPath: // for the login of nobody that we know
		return answered(g.fail(ex, 400, "This login is not known", textUnknown, v.origin+"/", "the state is of another policy"))
	case !navigation(&ex.Request):
		return result
	}
	response, err := g.login(ex, v)
	if err != nil {
		return method.Result{Outcome: method.Unavailable, Challenge: challenge, Detail: err.Error()}
	}
	result.Response = response
	return result
}

func answered(r *message.Response) method.Result {
	return method.Result{Outcome: method.Answered, Response: r, Detail: r.Detail}
}

// session is the one that the cookies hold; nil without an error when there is none.
func (g *gate) session(v visit, cookies *parts) (*session, error) {
	text, err := cookies.joined()
	if text == "" || err != nil {
		return nil, err
	}
	key := sessionKey{v.scheme, v.host, text}
	s, known := g.memory.sessions.get(key)
	if !known || !g.now().Before(s.until) {
		packed, ok := g.sessions.open(text, g.bound("session", v))
		if !ok {
			return nil, errors.New("the session's cookies are not ours, or were sealed with keys that are gone")
		}
		if s, err = unpackSession(packed); err != nil {
			return nil, err
		}
		s.until = g.now().Add(openedFor)
		if len(text) <= rememberText {
			// Cloned, as the request's own strings hold its whole head.
			g.memory.sessions.set(sessionKey{v.scheme, strings.Clone(v.host), strings.Clone(text)}, s)
		}
	}
	if _, out := g.memory.ended.get(s.id); out {
		return nil, errors.New("the session was logged out")
	}
	return s, nil
}

// write adds the cookies of a session to an answer, which no cache may keep then.
func (g *gate) write(h *message.Header, v visit, s *session, old parts) error {
	lines, err := g.lines(v, s, old)
	if errors.Is(err, errTooLarge) {
		lines, err = g.lines(v, s.withoutToken(), old)
	}
	if err != nil {
		return err
	}
	for _, line := range lines {
		h.Add("Set-Cookie", line)
	}
	h.Set("Cache-Control", "no-store")
	return nil
}

// lines are the Set-Cookie lines of a session.
func (g *gate) lines(v visit, s *session, old parts) ([]string, error) {
	text, err := g.sessions.seal(s.pack(), g.bound("session", v))
	if err != nil {
		return nil, err
	}
	ends := s.dies(g.config.SessionTTL)
	if ends.IsZero() && s.refresh == "" {
		ends = s.expires
	}
	if ends.IsZero() {
		return v.split(text, 0, old) // only the provider knows for how long it refreshes
	}
	return v.split(text, max(time.Second, ends.Sub(g.now())), old)
}

// Strip takes the cookies of this policy and client out of the request.
func (g *gate) Strip(r *message.Request) {
	strip(&r.Header, g.plain.prefix, g.secure.prefix)
}

// navigation reports whether a browser goes somewhere, and would follow a redirect to a login: not a script, not a form with a body, not a
// look ahead that nobody may ever see.
func navigation(r *message.Request) bool {
	if r.Method != "GET" && r.Method != "HEAD" || r.Upgrade != "" || r.GRPC() {
		return false
	}
	if lookAhead(r) {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return slices.ContainsFunc(r.Header.Values("Accept"), func(v string) bool { return strings.Contains(v, "text/html") })
}

// lookAhead reports whether a browser fetches what may never be visited.
func lookAhead(r *message.Request) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose"} {
		if strings.Contains(r.Header.Get(name), "prefetch") {
			return true
		}
	}
	return false
}

func hashOf(text string) [32]byte { return sha256.Sum256([]byte(text)) }
