// Package expr evaluates the expressions of policies: CEL (github.com/google/cel-go) over an exchange.
//
// # Variables
//
//	request.method    string     as sent
//	request.scheme    string     "http" or "https": how the client reached us
//	request.host      string     lower case, no port
//	request.path      string     normalised, still escaped: the one that is routed and forwarded
//	request.headers   map        by name without case; an absent header is "", several lines are joined by ","
//	request.query     map        by name with case, decoded; an absent parameter is "", several are joined by ","
//	request.time      timestamp  when the head was complete
//	source.ip         string     the client, by trusted hops; IPv4 in its own form, also when it came mapped into IPv6
//	source.port       int        of the connection's peer, who may be a proxy; 0 when unknown
//	identity.subject  string     who the client has proven to be; "" when nobody has proven anything
//	identity.method   string     the name of the method that it was proven by, in its AuthPolicy; ""
//	identity.labels   map        what the operator says about the subject, such as the labels of a key; an absent label is ""
//	identity.claims   map        what the issuer says about the subject, as JSON; an absent claim is null, and so is what is asked of it
//	response.code     int        the status of the answer (CompileResponse only)
//	response.headers  map        of the answer, as request.headers (CompileResponse only)
//
// An absent header or parameter has a value, so that a client cannot escape a limit by leaving something out; whether it is there at
// all says `"x" in request.headers`, or has(request.headers.x).
//
// A claim is a string, bool, number, list, map or null; whole numbers are ints. What it is is known only when the expression runs:
// identity.claims.admin == true gives false for a claim of another type, but identity.claims.age > 17 fails for a string. For lists there
// is
//
//	identity.list("groups")  list of strings  empty when the claim is absent, of one when it is no list
//
// "realm_access.roles" is the claim of that name, or else roles in realm_access. The claims scope and scp are words with spaces between
// (RFC 8693 4.2), which become one element each.
//
// # Functions
//
// The standard library and macros of CEL, the string functions of cel-go's ext.Strings (without format and join, whose results have no
// bound), identity.list, and two for addresses:
//
//	source.ip.inCIDR("10.0.0.0/8")  bool    or a list of prefixes; false for what is no address
//	source.ip.network(32, 64)       string  the network of that many bits (IPv4, IPv6); "" for what is no address
//
// An IPv6 client has a whole /64 to itself; who limits by source.ip may want source.ip.network(32, 64).
//
// # Limits
//
// Regular expressions are RE2. A pattern, a prefix and a time zone must be constants, so that no client can choose one. A text has at
// most MaxText characters, comprehensions are nested twice at most, and a text that would cost more than maxCost on a large but plausible
// request (50 headers, 50 parameters, none longer than 4 KiB) is refused. What could cost more on the largest request that the default
// settings let in is watched while it runs, and fails.
package expr

import (
	"fmt"
	"math"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// Kind is what an expression must give.
type Kind uint8

const (
	// Bool: true or false.
	Bool Kind = iota
	// String: a part of a key. An int, uint, double or bool is written as CEL's string() writes it; the strings of a list are joined
	// by ",", and an absent claim is "".
	String
	// Int: what a request costs, a whole number that is not negative.
	Int
)

// MaxText is the most characters that an expression may have.
const MaxText = 4096

// Program is a compiled expression. It is immutable, and used by all exchanges at once.
type Program struct {
	source    string
	condition func(*message.Exchange) bool // set: evaluated by us, as CEL would
	part      text                         // the same, for a string
	count     func(*message.Exchange) int64
	cel       cel.Program
}

// String is the text that was compiled.
func (p *Program) String() string { return p.source }

// Holds evaluates an expression of kind Bool.
func (p *Program) Holds(ex *message.Exchange) (bool, error) {
	if p.condition != nil {
		return p.condition(ex), nil
	}
	return p.celHolds(ex)
}

func (p *Program) celHolds(ex *message.Exchange) (bool, error) {
	a := activate(ex)
	defer a.release()
	out, err := p.eval(a)
	if err != nil {
		return false, err
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, fmt.Errorf("evaluate %s: %s is no bool", p.source, out.Type().TypeName())
	}
	return bool(b), nil
}

func (p *Program) eval(a *activation) (ref.Val, error) {
	out, _, err := p.cel.Eval(a)
	if err != nil {
		return nil, fmt.Errorf("evaluate %s: %w", p.source, err)
	}
	return out, nil
}

// Append evaluates an expression of kind String and appends its value. On error dst is returned as it was.
func (p *Program) Append(dst []byte, ex *message.Exchange) ([]byte, error) {
	if p.part != nil {
		return p.part.append(dst, ex), nil
	}
	return p.celAppend(dst, ex)
}

func (p *Program) celAppend(dst []byte, ex *message.Exchange) ([]byte, error) {
	a := activate(ex)
	defer a.release()
	out, err := p.eval(a)
	if err != nil {
		return dst, err
	}
	whole, err := appendValue(dst, out)
	if err != nil {
		return dst, fmt.Errorf("evaluate %s: %w", p.source, err)
	}
	return whole, nil
}

// Number evaluates an expression of kind Int. What is negative, or larger than an int64, is an error.
func (p *Program) Number(ex *message.Exchange) (int64, error) {
	if p.count != nil {
		return p.count(ex), nil
	}
	return p.celNumber(ex)
}

func (p *Program) celNumber(ex *message.Exchange) (int64, error) {
	a := activate(ex)
	defer a.release()
	out, err := p.eval(a)
	if err != nil {
		return 0, err
	}
	switch n := out.(type) {
	case types.Int:
		if n >= 0 {
			return int64(n), nil
		}
	case types.Uint:
		if n <= math.MaxInt64 {
			return int64(n), nil
		}
	default:
		return 0, fmt.Errorf("evaluate %s: %s is no whole number", p.source, out.Type().TypeName())
	}
	return 0, fmt.Errorf("evaluate %s: %v is out of range", p.source, out.Value())
}

// Value is Append as a string.
func (p *Program) Value(ex *message.Exchange) (string, error) {
	b, err := p.Append(nil, ex)
	return string(b), err
}

// maxPrograms bounds what Compile remembers: far more than the distinct texts of a cluster's policies. A program takes some 10 KiB.
const maxPrograms = 4096

// memo remembers programs (and refusals) by text, for the whole process: compiling takes some 30 µs, and every policy is compiled
// again with every change of any object, once for its status and once for each chain.
var memo = struct {
	sync.Mutex // guards results
	results    map[memoKey]memoResult
}{results: map[memoKey]memoResult{}}

type memoKey struct {
	text     string
	want     Kind
	response bool
}

type memoResult struct {
	program *Program
	err     error
}

// Compile makes a program of a text that gives what is wanted. The error is an *Error. Both are remembered.
func Compile(text string, want Kind) (*Program, error) {
	return remembered(memoKey{text: text, want: want})
}

// CompileResponse is Compile for an expression that is evaluated once there is an answer: it may name response too.
func CompileResponse(text string, want Kind) (*Program, error) {
	return remembered(memoKey{text: text, want: want, response: true})
}

func remembered(key memoKey) (*Program, error) {
	memo.Lock()
	r, found := memo.results[key]
	memo.Unlock()
	if found {
		return r.program, r.err
	}
	if p, err := compile(key); err != nil {
		r.err = err
	} else {
		r.program = p
	}
	if len(key.text) > 4*MaxText {
		return r.program, r.err // refused, and not worth remembering
	}
	memo.Lock()
	defer memo.Unlock()
	if len(memo.results) >= maxPrograms {
		for old := range memo.results {
			delete(memo.results, old) // any: a map begins at random
			break
		}
	}
	memo.results[key] = r
	return r.program, r.err
}
