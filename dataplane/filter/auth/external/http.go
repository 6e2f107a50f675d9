package external

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// overHTTP asks by a request that is like the client's: same method, host and path (behind the prefix).
type overHTTP struct {
	config *Config
	call   filter.Caller
	prefix string
}

// forwarded are the fields by which Gatehouse says where a request comes from. The client's own were dropped or continued before.
var forwarded = []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "Authorization"}

// tells: Authorization is always told (GEP-1494), and who asks.
func (s *overHTTP) tells(name string) bool {
	same := func(n string) bool { return message.EqualName(n, name) }
	return slices.ContainsFunc(forwarded, same) || slices.ContainsFunc(s.config.AllowedRequestHeaders, same)
}

func (s *overHTTP) ask(ctx context.Context, t *told) (*allowed, *method.Result) {
	ex, ok := t.ex.Fork()
	if !ok {
		return nil, unavailable(&message.Error{Reason: message.ReasonTooManyForks})
	}
	ex.Request = s.request(t)
	if err := s.call.Do(ctx, ex); err != nil {
		return nil, unavailable(err)
	}
	res := ex.Response
	content, err := read(res)
	if err != nil {
		return nil, unavailable(err)
	}
	return s.judge(res, content)
}

func (s *overHTTP) request(t *told) message.Request {
	q := &t.ex.Request
	out := message.Request{Method: q.Method, Host: t.host, Version: message.HTTP11, Header: message.NewHeader(t.fields...), Body: message.BodyOf(t.body)}
	out.Target = message.Target{Path: s.prefix + q.Target.Path, Query: q.Target.Query, HasQuery: q.Target.HasQuery}
	if q.Target.Path == "*" {
		out.Target.Path = s.prefix + "/"
	}
	out.Target.Raw = out.Target.String()
	// For services that look at neither: what the client asked for, before the prefix.
	out.Header.Add("X-Forwarded-Method", q.Method)
	out.Header.Add("X-Forwarded-Uri", q.Target.String())
	return out
}

// read takes the body of an answer, which ends the call and leaves its connection for the next.
func read(res *message.Response) (content []byte, err error) {
	if res.Body == nil {
		return nil, nil
	}
	for {
		p, err := res.Body.Next()
		switch {
		case err == io.EOF:
			return content, nil
		case err != nil:
			return nil, err
		case len(content)+len(p) > maxAnswer:
			res.Drop(nil)
			return nil, fmt.Errorf("the service's answer is over %d bytes", maxAnswer)
		}
		content = append(content, p...)
	}
}

// judge: 200 allows, and nothing else (GEP-1494). A redirect or a client error is the denial that the client gets; another success, which
// the client would take for one, is 403; of what the server could not do, nothing follows.
func (s *overHTTP) judge(res *message.Response, content []byte) (*allowed, *method.Result) {
	detail := fmt.Sprintf("the service answered %d", res.Status)
	switch {
	case res.Status == 200:
		return s.allow(res)
	case res.Status >= 500:
		return nil, &method.Result{Outcome: method.Unavailable, Detail: detail}
	case res.Status >= 300 && res.Status != 304:
		return nil, refusal(denial(res.Status, fieldsOf(&res.Header), content), detail)
	}
	return nil, refusal(message.Failure(message.ReasonDenied, detail), detail)
}

func (s *overHTTP) allow(res *message.Response) (*allowed, *method.Result) {
	a := &allowed{}
	for _, name := range s.config.AllowedResponseHeaders {
		a.request = append(a.request, change{remove, name, ""}) // the service alone says it, also when it says nothing
	}
	var set []string
	for name, value := range res.Header.All() {
		if !s.takes(name) {
			continue
		}
		act := add
		if !slices.ContainsFunc(set, func(n string) bool { return message.EqualName(n, name) }) {
			act, set = 0, append(set, name) // the first replaces what the client sent, a further one stands beside it
		}
		a.request = append(a.request, change{act, name, value})
	}
	if subject, ok := res.Header.Only(s.config.Subject); s.config.Subject != "" && ok && subject != "" {
		a.identity = &message.Identity{Subject: subject}
	}
	if !a.weigh() {
		return nil, nonsense("too many fields")
	}
	return a, nil
}

// describing are fields about the answer itself. Taken over, they would say it of the request: Content-Type, above all.
var describing = []string{
	"Date", "Server", "Content-Type", "Content-Encoding", "Content-Language", "Content-Location", "Content-Range", "Content-Disposition",
	"Accept-Ranges", "ETag", "Last-Modified", "Vary", "Age", "Expires", "Alt-Svc", "Set-Cookie",
}

// takes reports whether a field of an answer that allows goes into the request.
func (s *overHTTP) takes(name string) bool {
	same := func(n string) bool { return message.EqualName(n, name) }
	switch {
	case protected(name):
		return false
	case len(s.config.AllowedResponseHeaders) > 0:
		return slices.ContainsFunc(s.config.AllowedResponseHeaders, same)
	}
	return !slices.ContainsFunc(describing, same)
}
