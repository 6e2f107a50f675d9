// Package headers sets, adds and removes header fields of requests and responses: the RequestHeaderModifier and
// ResponseHeaderModifier of the Gateway API, on a rule or on a backendRef.
package headers

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse/dataplane/filter"
	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Field is a header field.
type Field struct{ Name, Value string }

// Config is what is done, in the order set, add, remove. The Gateway API allows one action for a name, so no one can tell the order.
type Config struct {
	// OnBackend says that the filter stands on a backendRef. Its request part then acts on each attempt, and its response part on the
	// answer of that backend: never on those that the gateway makes.
	OnBackend bool

	SetRequest     []Field
	AddRequest     []Field
	RemoveRequest  []string
	SetResponse    []Field
	AddResponse    []Field
	RemoveResponse []string
}

// FilterName is "headers".
func (Config) FilterName() string { return "headers" }

// String is such as "headers(set X-A=1 remove X-B; response add X-C=2)".
func (c Config) String() string {
	var parts []string
	if request := words(c.SetRequest, c.AddRequest, c.RemoveRequest); request != "" {
		parts = append(parts, request)
	}
	if response := words(c.SetResponse, c.AddResponse, c.RemoveResponse); response != "" {
		parts = append(parts, "response "+response)
	}
	where := ""
	if c.OnBackend {
		where = "backend: "
	}
	return "headers(" + where + strings.Join(parts, "; ") + ")"
}

func words(set, add []Field, remove []string) string {
	var out []string
	for _, f := range set {
		out = append(out, "set "+f.String())
	}
	for _, f := range add {
		out = append(out, "add "+f.String())
	}
	for _, name := range remove {
		out = append(out, "remove "+name)
	}
	return strings.Join(out, " ")
}

// String is "name=value"; a value that could be taken for more than one is quoted, since settings are equal when their texts are.
func (f Field) String() string {
	if strings.ContainsAny(f.Value, " ;()\"") || !strconv.CanBackquote(f.Value) {
		return f.Name + "=" + strconv.Quote(f.Value)
	}
	return f.Name + "=" + f.Value
}

// Check says what is wrong, in words for whoever wrote it: a name that is no token or that frames the message, a value that cannot stand
// in a field, two actions for one name.
func (c Config) Check() error {
	if _, err := newChange(c.SetRequest, c.AddRequest, c.RemoveRequest); err != nil {
		return err
	}
	_, err := newChange(c.SetResponse, c.AddResponse, c.RemoveResponse)
	return err
}

// Build makes the filter. The error is Check's.
func (c Config) Build(filter.Env) (filter.Faces, error) {
	request, err := newChange(c.SetRequest, c.AddRequest, c.RemoveRequest)
	if err != nil {
		return filter.Faces{}, err
	}
	response, err := newChange(c.SetResponse, c.AddResponse, c.RemoveResponse)
	if err != nil {
		return filter.Faces{}, err
	}

	if c.OnBackend {
		return filter.Faces{Attempt: onAttempt(request, response)}, nil
	}
	return filter.Faces{
		Request: func(ex *message.Exchange) filter.Verdict {
			request.apply(&ex.Request.Header)
			return filter.Continue
		},
		Response: func(ex *message.Exchange) filter.Verdict {
			response.apply(&ex.Response.Header)
			return filter.Continue
		},
	}, nil
}

// onAttempt is the filter on a backendRef. What is done to the answer waits on the attempt until it is the one that counts.
func onAttempt(request, response change) filter.OnAttempt {
	answer := func(r *message.Response) { response.apply(&r.Header) }
	return func(at *message.Attempt) filter.Verdict {
		request.apply(&at.Request.Header)
		if !response.empty() {
			at.OnResponse = append(at.OnResponse, answer)
		}
		return filter.Continue
	}
}

// change is what is done to one Header, checked.
type change struct {
	set, add []Field
	remove   []string
}

func newChange(set, add []Field, remove []string) (change, error) {
	seen := seenNames{}
	var c change
	var err error
	if c.set, err = seen.fields("set", set); err != nil {
		return change{}, err
	}
	if c.add, err = seen.fields("add", add); err != nil {
		return change{}, err
	}
	for _, name := range remove {
		if again, err := seen.name("remove", name); err != nil {
			return change{}, err
		} else if !again {
			c.remove = append(c.remove, name)
		}
	}
	return c, nil
}

// seenNames is which action each name has, by the name in lower case.
type seenNames map[string]string

// name reports whether the name has that very action already: of equivalent entries the first counts (HTTPHeader).
func (s seenNames) name(action, name string) (again bool, err error) {
	switch {
	case !message.ValidName(name):
		return false, fmt.Errorf("%q is no header name", name)
	case message.Framing(name):
		return false, fmt.Errorf("the header %s cannot be changed: it belongs to the connection or frames the message", name)
	}
	lower := message.Lower(name)
	before, has := s[lower]
	if has && before != action {
		return false, fmt.Errorf("the header %s has two actions, %s and %s", name, before, action)
	}
	s[lower] = action
	return has, nil
}

func (s seenNames) fields(action string, fields []Field) ([]Field, error) {
	var out []Field
	for _, f := range fields {
		again, err := s.name(action, f.Name)
		if err != nil {
			return nil, err
		}
		f.Value = strings.Trim(f.Value, " \t")
		if !message.ValidValue(f.Value) {
			return nil, fmt.Errorf("the value of the header %s has a control character", f.Name)
		}
		if !again {
			out = append(out, f)
		}
	}
	return out, nil
}

func (c change) empty() bool { return len(c.set)+len(c.add)+len(c.remove) == 0 }

func (c change) apply(h *message.Header) {
	for _, f := range c.set {
		dropAliases(h, f.Name)
		h.Set(f.Name, f.Value)
	}
	for _, f := range c.add {
		add(h, f)
	}
	for _, name := range c.remove {
		dropAliases(h, name)
		h.Del(name)
	}
}

// dropAliases removes the other spellings of a name that a route sets or removes: to many servers X_User is X-User, and what a client
// sends there would stand beside what the route says (contracts 7).
func dropAliases(h *message.Header, name string) {
	h.DelFunc(func(other, _ string) bool { return message.AliasName(other, name) && !message.EqualName(other, name) })
}

// add joins the value to those that are there, as the Gateway API shows it: "my-header: foo,bar". Set-Cookie is no list (RFC 9110 5.3)
// and gets a line of its own; Cookie is a list with semicolons (RFC 6265 4.2.1).
func add(h *message.Header, f Field) {
	switch message.Lower(f.Name) {
	case "set-cookie":
		h.Add(f.Name, f.Value)
	case "cookie":
		join(h, f, "; ")
	default:
		join(h, f, ",")
	}
}

func join(h *message.Header, f Field, separator string) {
	values := h.Values(f.Name)
	if len(values) == 0 {
		h.Add(f.Name, f.Value)
		return
	}
	h.Set(f.Name, strings.Join(append(values, f.Value), separator))
}
