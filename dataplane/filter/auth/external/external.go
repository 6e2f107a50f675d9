package external

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
	"github.com/gatehouse-dev/gatehouse/dataplane/outbound"
)

// asker is the method: it asks a service about each request.
type asker struct {
	config  Config
	service service
	cache   *cache // nil: nothing is remembered
	clock   func() time.Time
}

// service is whom to ask, by its protocol. Exactly one of the two is returned: what the service allows, or why it does not.
type service interface {
	ask(ctx context.Context, t *told) (*allowed, *method.Result)
	// tells reports whether a field of the request is told.
	tells(name string) bool
}

// told is a request as the service hears of it.
type told struct {
	ex     *message.Exchange
	host   message.Host // in the spelling in which it was matched
	fields []message.Field
	body   []byte
}

// Authenticate asks the service, or remembers what it said of a request of which it would be told the same.
func (m *asker) Authenticate(ex *message.Exchange) method.Result {
	t, refused := m.tell(ex)
	if refused != nil {
		return *refused
	}
	var key fingerprint
	if m.cache != nil {
		key = t.fingerprint()
		if a := m.cache.get(key, m.clock()); a != nil {
			return a.result()
		}
	}
	ctx, cancel := context.WithTimeout(outbound.For(ex), m.config.Timeout)
	defer cancel()
	asked := m.clock()
	a, not := m.service.ask(ctx, t)
	if a == nil {
		return *not
	}
	if m.cache != nil {
		m.cache.put(key, a, asked.Add(m.config.CacheFor), m.clock())
	}
	return a.result()
}

// Strip does nothing: what was presented, the service alone knows. It says itself what it wants removed.
func (m *asker) Strip(*message.Request) {}

// tell gathers what is told. A body over the bound is refused as a whole: a service that judges the first half of a body judges nothing.
func (m *asker) tell(ex *message.Exchange) (*told, *method.Result) {
	t := &told{ex: ex, host: canonical(ex.Request.Host)}
	if _, one := ex.Request.Header.Only("Authorization"); !one && ex.Request.Header.Has("Authorization") {
		return nil, refusal(nil, "several Authorization fields: which of them the service looks at, and which of them the backend, is unknown")
	}
	for i := range ex.Request.Header.Len() {
		f := ex.Request.Header.At(i)
		if !m.service.tells(f.Name) {
			continue
		}
		if message.EqualName(f.Name, "X-Forwarded-Host") {
			if host, ok := message.ParseHost(f.Value); ok {
				f.Value = canonical(host).Raw
			}
		}
		t.fields = append(t.fields, f)
	}
	if m.config.MaxBody == 0 {
		return t, nil
	}
	body, err := ex.Request.Body.Buffer(m.config.MaxBody)
	var known *message.Error
	switch {
	case err == nil || err == io.EOF:
		t.body = body
		return t, nil
	case errors.Is(err, message.ErrTooLarge):
		return nil, refusal(message.Failure(message.ReasonBodyTooLarge, "over what the external service is told"), "the body is over what is told")
	case errors.Is(err, message.ErrNoBudget):
		return nil, unavailable(err)
	case errors.As(err, &known):
		return nil, refusal(message.Failure(known.Reason, "while the body was read for the external service"), err.Error())
	}
	return nil, refusal(message.Failure(message.ReasonClientLeft, ""), err.Error())
}

// canonical is a host as it is matched. A service that knows admin.example is not walked around by ADMIN.example. with a dot (threats 14).
func canonical(h message.Host) message.Host {
	h.Raw = h.Name
	if strings.Contains(h.Name, ":") {
		h.Raw = "[" + h.Name + "]"
	}
	if h.Port != 0 {
		h.Raw += ":" + strconv.Itoa(int(h.Port))
	}
	return h
}

func refusal(r *message.Response, detail string) *method.Result {
	return &method.Result{Outcome: method.Refused, Response: r, Detail: detail}
}

// unavailable is what comes of a service that gave no answer.
func unavailable(err error) *method.Result {
	return &method.Result{Outcome: method.Unavailable, Detail: err.Error()}
}

func nonsense(text string) *method.Result {
	return unavailable(errors.New("the service's answer: " + text))
}

// fingerprint is everything that the service is told, but for what is new with each request whatever it asks for: its id, its time, its
// trace, and the port that the client happens to have.
type fingerprint [sha256.Size]byte

func (t *told) fingerprint() fingerprint {
	ex, q := t.ex, &t.ex.Request
	b := make(texts, 0, 1<<10)
	b.add(q.Method, q.Scheme, t.host.Raw, q.Target.Path, q.Target.Query, strconv.FormatBool(q.Target.HasQuery), q.Version.String(), ex.ClientIP.String())
	b.add(strconv.FormatInt(q.Body.Len(), 10)) // told also where the body is not
	local, secure, sni, principal := "", "", "", ""
	if c := ex.Conn; c != nil {
		local = c.Local.String()
		if c.TLS != nil {
			secure, sni, principal = "TLS", c.TLS.ServerName, principalOf(c.TLS)
		}
	}
	b.add(local, secure, sni, principal) // always four: what follows must not be taken for them
	for _, f := range t.fields {
		if !changing(f.Name) {
			b.add(message.Lower(f.Name), f.Value)
		}
	}
	b.add("")
	return sha256.Sum256(append(b, t.body...))
}

func changing(name string) bool {
	for _, n := range [...]string{"X-Request-Id", "Traceparent", "Tracestate"} {
		if message.EqualName(name, n) {
			return true
		}
	}
	return false
}

// texts are one behind the other, each with its length, so that no two lists of them look the same.
type texts []byte

func (b *texts) add(list ...string) {
	for _, s := range list {
		*b = append(binary.BigEndian.AppendUint64(*b, uint64(len(s))), s...)
	}
}
