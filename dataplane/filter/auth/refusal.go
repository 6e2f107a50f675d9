package auth

import (
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// refusals are the reasons for which a policy refuses.
var refusals = []message.Reason{
	message.ReasonUnauthenticated, message.ReasonBadCredential, message.ReasonAuthUnavailable, message.ReasonDenied,
}

// unproven is the ruling when the methods are not content.
func (p *policy) unproven(said []answer) ruling {
	var first *message.Response
	reason := message.ReasonUnauthenticated
	for i := range said {
		a := &said[i]
		switch {
		case a.Outcome == method.Answered:
			giveUp(said[:i])
			return p.answer(a)
		case a.Outcome == method.Unavailable:
			reason = message.ReasonAuthUnavailable
		case a.Outcome == method.Refused && reason == message.ReasonUnauthenticated:
			reason = message.ReasonBadCredential
		}
		if first == nil {
			first = a.Response
		}
	}
	detail := p.detail(said)
	if reason == message.ReasonAuthUnavailable || first == nil {
		giveUp(said)
		return p.refuse(reason, detail, said)
	}
	for i := range said {
		if r := said[i].Response; r != first {
			r.Drop(nil)
		}
	}
	if first.Reason == message.ReasonNone {
		first.Reason = reason
	}
	if first.Detail == "" {
		first.Detail = detail
	}
	counter := p.refused[first.Reason]
	if counter == nil {
		counter = p.refused[reason]
	}
	return ruling{response: first, counter: counter}
}

// answer is the ruling when the request was for a method itself.
func (p *policy) answer(a *answer) ruling {
	if a.Response == nil {
		return p.refuse(message.ReasonAuthUnavailable, p.title+": "+a.method+": answered without a response", nil) // a bug of ours
	}
	return ruling{response: a.Response, counter: p.answered}
}

// refuse makes the answer to a request that may not come in. A 401 without a challenge does not exist (RFC 9110 15.5.2): where no method
// has one, as for a client certificate that is missing, it is a 403. The reason, and the status of gRPC, are the same.
func (p *policy) refuse(reason message.Reason, detail string, said []answer) ruling {
	status := reason.Status()
	var challenges []string
	if status == 401 {
		if challenges = challengesOf(said); len(challenges) == 0 {
			status = 403
		}
	}
	r := message.Respond(message.OriginFilter, status, "text/plain; charset=utf-8", reason.Text()+"\n")
	r.Reason, r.Detail = reason, detail
	for _, c := range challenges {
		r.Header.Add("WWW-Authenticate", c) // a line for each: clients that split lists at commas get parameters wrong
	}
	return ruling{response: r, counter: p.refused[reason]}
}

// challengesOf are those of all methods, each once. Of a scheme whose credential was refused, only what was said about that stands: a
// client that reads the first challenge of its scheme would miss the error.
func challengesOf(said []answer) (out []string) {
	for i := range said {
		c := said[i].Challenge
		if c == "" || !message.ValidValue(c) || said[i].Outcome == method.Absent && refusedIn(said, scheme(c)) || contains(out, c) {
			continue
		}
		out = append(out, c)
	}
	return out
}

func refusedIn(said []answer, of string) bool {
	for i := range said {
		if said[i].Outcome == method.Refused && said[i].Challenge != "" && strings.EqualFold(scheme(said[i].Challenge), of) {
			return true
		}
	}
	return false
}

func scheme(challenge string) string {
	s, _, _ := strings.Cut(challenge, " ")
	return s
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// detail is such as "shop/api: customers: the token has expired; partners: absent", for the log.
func (p *policy) detail(said []answer) string {
	var b strings.Builder
	b.WriteString(p.title)
	for i := range said {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		b.WriteString(said[i].method + ": ")
		switch {
		case said[i].Detail != "":
			b.WriteString(said[i].Detail)
		case said[i].Outcome == method.Absent:
			b.WriteString("absent")
		default:
			b.WriteString("refused")
		}
	}
	return b.String()
}

// why is what a shadow policy's note says: the reason of the answer that nobody gets.
func why(r *message.Response) string {
	if r.Reason == message.ReasonNone {
		return "answered " + strconv.Itoa(r.Status)
	}
	return r.Reason.String() + ": " + r.Detail
}
