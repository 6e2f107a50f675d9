package expr

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// activation answers CEL's questions about one exchange, when they are asked. It is pooled, and holds nothing of an exchange
// afterwards.
type activation struct {
	ex      *message.Exchange
	headers fields
	query   fields
	answer  fields
}

var activations = sync.Pool{New: func() any { return new(activation) }}

func activate(ex *message.Exchange) *activation {
	a := activations.Get().(*activation)
	a.ex = ex
	a.headers, a.query, a.answer = fields{ex: ex}, fields{ex: ex, of: ofQuery}, fields{ex: ex, of: ofAnswer}
	return a
}

func (a *activation) release() {
	*a = activation{}
	activations.Put(a)
}

func (a *activation) Parent() cel.Activation { return nil }

// ResolveName is asked for the names in variables only: Compile has checked the rest.
func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case "request.headers":
		return &a.headers, true
	case "request.query":
		return &a.query, true
	case "request.time":
		return types.Timestamp{Time: a.ex.Received}, true
	case "source.port":
		return types.Int(port(a.ex)), true
	case "source.ip":
		var room [64]byte
		return types.String(sourceIP(a.ex).AppendTo(room[:0])), true
	case "identity.claims":
		return newClaims(identityOf(a.ex).Claims), true
	case "identity.labels":
		return newLabels(identityOf(a.ex).Labels), true
	case identityList:
		return newLists(identityOf(a.ex)), true
	case "response.code":
		return types.Int(status(a.ex)), true
	case "response.headers":
		return &a.answer, true
	}
	if v, ok := plainVariable(name); ok {
		return types.String(v(a.ex)), true
	}
	return nil, false
}

// plainVariable is a variable that is a string as it stands.
func plainVariable(name string) (func(*message.Exchange) string, bool) {
	switch name {
	case "request.method":
		return func(ex *message.Exchange) string { return ex.Request.Method }, true
	case "request.scheme":
		return func(ex *message.Exchange) string { return ex.Request.Scheme }, true
	case "request.host":
		return func(ex *message.Exchange) string { return ex.Request.Host.Name }, true
	case "request.path":
		return func(ex *message.Exchange) string { return ex.Request.Target.Path }, true
	case "identity.subject":
		return func(ex *message.Exchange) string { return identityOf(ex).Subject }, true
	case "identity.method":
		return func(ex *message.Exchange) string { return identityOf(ex).Method }, true
	}
	return nil, false
}

// sourceIP is the client's address in one spelling; AppendTo makes "" of an unknown one.
func sourceIP(ex *message.Exchange) netip.Addr { return ex.ClientIP.Unmap().WithZone("") }

func port(ex *message.Exchange) uint16 {
	if ex.Conn == nil {
		return 0
	}
	return ex.Conn.Remote.Port()
}

// status is the status of the answer, 0 when there is none; answerHeader its head.
func status(ex *message.Exchange) int {
	if ex.Response == nil {
		return 0
	}
	return ex.Response.Status
}

func answerHeader(ex *message.Exchange) *message.Header {
	if ex.Response == nil {
		return &message.Header{}
	}
	return &ex.Response.Header
}

// headerPairs and queryPairs yield what was sent, line by line: names of headers in lower case, those of query parameters decoded.
func headerPairs(h *message.Header) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for name, value := range h.All() {
			if !yield(message.Lower(name), value) {
				return
			}
		}
	}
}

func queryPairs(ex *message.Exchange) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for rest := ex.Request.Target.Query; rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, "&")
			if pair == "" {
				continue
			}
			name, value, _ := strings.Cut(pair, "=")
			if !yield(unescape(name), unescape(value)) {
				return
			}
		}
	}
}

// queryValue returns all values of a parameter, joined; ok is false when there is none.
func queryValue(ex *message.Exchange, name string) (value string, ok bool) {
	var joined []byte // a client may send thousands
	for k, v := range queryPairs(ex) {
		switch {
		case k != name:
		case !ok:
			value, ok = v, true
		case joined == nil:
			joined = append(append(append(joined, value...), ','), v...)
		default:
			joined = append(append(joined, ','), v...)
		}
	}
	if joined != nil {
		value = string(joined)
	}
	return value, ok
}

// unescape decodes a part of a query; what cannot be decoded is taken as it stands.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	if d, err := url.QueryUnescape(s); err == nil {
		return d
	}
	return s
}

// fields is the map of headers, of the answer's headers, or of query parameters: every name has a value, and only those that were sent
// are in it.
type fields struct {
	ex    *message.Exchange
	of    part
	asked int
	all   map[string][]string // made when several names are asked for in one evaluation, so that a loop over them is not quadratic
}

type part uint8

const (
	ofRequest part = iota
	ofQuery
	ofAnswer
)

var (
	_ traits.Mapper = (*fields)(nil)

	errMap = errors.New("headers and query can only be asked for their names")
)

func (f *fields) value(name string) (string, bool) {
	if f.asked++; f.asked > 4 {
		if f.of != ofQuery {
			name = message.Lower(name)
		}
		values := f.collected()[name]
		return strings.Join(values, ","), values != nil
	}
	if f.of == ofQuery {
		return queryValue(f.ex, name)
	}
	return f.header().Joined(name)
}

func (f *fields) pairs() iter.Seq2[string, string] {
	if f.of == ofQuery {
		return queryPairs(f.ex)
	}
	return headerPairs(f.header())
}

func (f *fields) header() *message.Header {
	if f.of == ofAnswer {
		return answerHeader(f.ex)
	}
	return &f.ex.Request.Header
}

func (f *fields) collected() map[string][]string {
	if f.all == nil {
		f.all = map[string][]string{}
		for k, v := range f.pairs() {
			f.all[k] = append(f.all[k], v)
		}
	}
	return f.all
}

// Find gives each name a value: an absent one is "".
func (f *fields) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key), false
	}
	v, _ := f.value(string(name))
	return types.String(v), true
}

func (f *fields) Get(key ref.Val) ref.Val {
	v, _ := f.Find(key)
	return v
}

// Contains tells what was sent from what was not.
func (f *fields) Contains(key ref.Val) ref.Val {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key)
	}
	_, found := f.value(string(name))
	return types.Bool(found)
}

func (f *fields) Size() ref.Val { return types.Int(len(f.collected())) }

func (f *fields) Iterator() traits.Iterator {
	return types.NewStringList(types.DefaultTypeAdapter, slices.Sorted(maps.Keys(f.collected()))).Iterator()
}

func (f *fields) Equal(other ref.Val) ref.Val { return types.Bool(f == other) }
func (f *fields) Type() ref.Type              { return types.MapType }
func (f *fields) Value() any                  { return f }

func (f *fields) ConvertToNative(reflect.Type) (any, error) { return nil, errMap }

func (f *fields) ConvertToType(t ref.Type) ref.Val {
	if t == types.MapType {
		return f
	}
	return types.WrapErr(errMap)
}

// maxJoined bounds what a list of strings becomes, in bytes: its elements may be one long string many times.
const maxJoined = 64 << 10

// appendValue appends a value as a part of a key; null, an absent claim, is "".
func appendValue(dst []byte, v ref.Val) ([]byte, error) {
	switch v := v.(type) {
	case types.String:
		return append(dst, v...), nil
	case types.Null:
		return dst, nil
	case types.Bool, types.Int, types.Uint, types.Double:
		s, ok := v.ConvertToType(types.StringType).(types.String)
		if !ok {
			return dst, fmt.Errorf("%s cannot be a key", v.Type().TypeName())
		}
		return append(dst, s...), nil
	case traits.Lister:
		return appendList(dst, v)
	}
	return dst, fmt.Errorf("%s cannot be a key", v.Type().TypeName())
}

func appendList(dst []byte, list traits.Lister) ([]byte, error) {
	start := len(dst)
	for it, i := list.Iterator(), 0; it.HasNext() == types.True; i++ {
		e := it.Next()
		if _, nested := e.(traits.Lister); nested {
			return dst[:start], errors.New("a list that is a key has no lists in it")
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendValue(dst, e); err != nil {
			return dst[:start], err
		}
		if len(dst)-start > maxJoined {
			return dst[:start], fmt.Errorf("a list is longer than %d bytes as a key", maxJoined)
		}
	}
	return dst, nil
}
