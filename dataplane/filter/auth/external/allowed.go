package external

import (
	"net/url"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter/auth/method"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// allowed is an answer that lets a request in, and what it changes. It is immutable: it may be remembered.
type allowed struct {
	identity *message.Identity
	request  []change
	response []change
	query    []change // set and remove only
	size     int      // bytes held, about
}

// change is one of a field, or of a query parameter.
type change struct {
	action action
	name   string
	value  string
}

type action uint8

const (
	set          action = iota // instead of all that is there
	add                        // beside what is there
	addIfAbsent                // nothing is there
	setIfPresent               // something is there
	remove
)

func (a *allowed) result() method.Result {
	r := method.Result{Outcome: method.Accepted, Identity: a.identity}
	if len(a.request)+len(a.query) > 0 {
		r.OnRequest = a.onRequest
	}
	if len(a.response) > 0 {
		r.OnResponse = a.onResponse
	}
	return r
}

// onRequest changes the request that is forwarded. What is replaced or removed goes in every spelling that some server would take for it
// (threats 8).
func (a *allowed) onRequest(r *message.Request) {
	for _, c := range a.request {
		c.apply(&r.Header, message.AliasName)
	}
	for _, c := range a.query {
		c.applyQuery(&r.Target)
	}
}

func (a *allowed) onResponse(r *message.Response) {
	for _, c := range a.response {
		c.apply(&r.Header, message.EqualName)
	}
}

func (c change) apply(h *message.Header, same func(a, b string) bool) {
	present := false
	for i := range h.Len() {
		present = present || same(h.At(i).Name, c.name)
	}
	switch c.action {
	case addIfAbsent:
		if present {
			return
		}
	case setIfPresent:
		if !present {
			return
		}
	}
	if present && c.action != add {
		h.DelFunc(func(name, _ string) bool { return same(name, c.name) })
	}
	if c.action != remove {
		h.Add(c.name, c.value)
	}
}

// applyQuery leaves every other byte of the query as it is.
func (c change) applyQuery(t *message.Target) {
	var kept []string
	if t.Query != "" {
		for pair := range strings.SplitSeq(t.Query, "&") {
			raw, _, _ := strings.Cut(pair, "=")
			if name, err := url.QueryUnescape(raw); err != nil || name != c.name {
				kept = append(kept, pair)
			}
		}
	}
	if c.action == set {
		kept = append(kept, url.QueryEscape(c.name)+"="+url.QueryEscape(c.value))
	}
	t.Query = strings.Join(kept, "&")
	t.HasQuery = len(kept) > 0
}

// weigh notes what the answer holds; false: it changes more than anybody needs.
func (a *allowed) weigh() bool {
	n := len(a.request) + len(a.response) + len(a.query)
	for _, list := range [...][]change{a.request, a.response, a.query} {
		for _, c := range list {
			a.size += len(c.name) + len(c.value) + 64
		}
	}
	return n <= maxChanges
}

// protected reports whether a field of the request is not the service's to change: it frames the message, or says who asks and how, which
// Gatehouse knows and backends believe.
func protected(name string) bool {
	const forwarded = "x-forwarded-"
	return name == "" || name[0] == ':' || message.Framing(name) || message.AliasName(name, "authority") || message.AliasName(name, "forwarded") ||
		message.AliasName(name, "x-real-ip") || message.AliasName(name, "x-request-id") ||
		len(name) > len(forwarded) && message.AliasName(name[:len(forwarded)], forwarded)
}
