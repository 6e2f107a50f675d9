package expr

import (
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// The commonest forms are evaluated without CEL and without an allocation: a variable, a header, a query parameter, a label, a constant;
// the comparison of one of them, or of a claim, with a constant; a constant in a list of the identity's; and such conditions put together
// by &&, || and !. That is what most keys and conditions are. None of them can fail. A test holds each against CEL.

// nativeCondition returns nil for what is of no such form.
func nativeCondition(e ast.Expr) func(*message.Exchange) bool {
	if literal(e) {
		b, ok := e.AsLiteral().(types.Bool)
		if !ok {
			return nil
		}
		return func(*message.Exchange) bool { return bool(b) }
	}
	if e.Kind() != ast.CallKind {
		return nil
	}
	call := e.AsCall()
	switch args := call.Args(); call.FunctionName() {
	case operators.LogicalNot:
		if a := nativeCondition(args[0]); a != nil {
			return func(ex *message.Exchange) bool { return !a(ex) }
		}
	case operators.LogicalAnd:
		if a, b := nativeCondition(args[0]), nativeCondition(args[1]); a != nil && b != nil {
			return func(ex *message.Exchange) bool { return a(ex) && b(ex) }
		}
	case operators.LogicalOr:
		if a, b := nativeCondition(args[0]), nativeCondition(args[1]); a != nil && b != nil {
			return func(ex *message.Exchange) bool { return a(ex) || b(ex) }
		}
	case operators.Equals:
		return nativeEquals(args[0], args[1])
	case operators.NotEquals:
		if a := nativeEquals(args[0], args[1]); a != nil {
			return func(ex *message.Exchange) bool { return !a(ex) }
		}
	case operators.In:
		return nativeIn(args[0], args[1])
	}
	return nil
}

// nativeEquals compares with a constant, on either side.
func nativeEquals(left, right ast.Expr) func(*message.Exchange) bool {
	if literal(left) {
		left, right = right, left
	}
	if !literal(right) {
		return nil
	}
	if of, name, ok := entryOf(left); ok && of == "identity.claims" {
		return claimEquals(name, right)
	}
	t := nativeText(left)
	to, ok := literalString(right)
	if t == nil || !ok {
		return nil
	}
	return func(ex *message.Exchange) bool { return t.is(ex, to) }
}

// claimEquals compares with a string or bool; a claim of another type is not equal.
func claimEquals(name string, right ast.Expr) func(*message.Exchange) bool {
	switch to := right.AsLiteral().(type) {
	case types.String:
		return func(ex *message.Exchange) bool {
			s, ok := identityOf(ex).Claims[name].(string)
			return ok && s == string(to)
		}
	case types.Bool:
		return func(ex *message.Exchange) bool {
			b, ok := identityOf(ex).Claims[name].(bool)
			return ok && b == bool(to)
		}
	}
	return nil
}

// nativeIn is "ops" in identity.list("groups"), and a string in a list of constants.
func nativeIn(left, right ast.Expr) func(*message.Exchange) bool {
	if of, name, ok := entryOf(right); ok && of == identityList {
		what, ok := literalString(left)
		if !ok {
			return nil
		}
		return func(ex *message.Exchange) bool {
			found := false
			eachOf(identityOf(ex), name, func(s string) bool { found = s == what; return !found })
			return found
		}
	}
	t := nativeText(left)
	if t == nil || right.Kind() != ast.ListKind || right.AsList().Size() > 16 {
		return nil
	}
	var all []string
	for _, e := range right.AsList().Elements() {
		s, ok := literalString(e)
		if !ok {
			return nil
		}
		all = append(all, s)
	}
	return func(ex *message.Exchange) bool {
		for _, s := range all {
			if t.is(ex, s) {
				return true
			}
		}
		return false
	}
}

// nativeNumber is a constant or the status of the answer.
func nativeNumber(e ast.Expr) func(*message.Exchange) int64 {
	if variableOf(e) == "response.code" {
		return func(ex *message.Exchange) int64 { return int64(status(ex)) }
	}
	if !literal(e) {
		return nil
	}
	n, ok := e.AsLiteral().(types.Int)
	if !ok {
		return nil
	}
	return func(*message.Exchange) int64 { return int64(n) }
}

// text is a string that needs no CEL.
type text interface {
	append(dst []byte, ex *message.Exchange) []byte
	is(ex *message.Exchange, s string) bool
}

// nativeText returns nil for what is of no such form.
func nativeText(e ast.Expr) text {
	if s, ok := literalString(e); ok {
		return constant(s)
	}
	if name := variableOf(e); name == "source.ip" {
		return clientIP{}
	} else if v, ok := plainVariable(name); ok {
		return plain(v)
	}
	of, name, ok := entryOf(e)
	switch {
	case ok && of == "request.headers":
		return plain(func(ex *message.Exchange) string { v, _ := ex.Request.Header.Joined(name); return v })
	case ok && of == "request.query":
		return plain(func(ex *message.Exchange) string { v, _ := queryValue(ex, name); return v })
	case ok && of == "response.headers":
		return plain(func(ex *message.Exchange) string { v, _ := answerHeader(ex).Joined(name); return v })
	case ok && of == "identity.labels":
		return plain(func(ex *message.Exchange) string { return identityOf(ex).Labels[name] })
	}
	return nil
}

const indexOperator = operators.Index

// entryOf reads m["name"] and m.name, where m is a variable.
func entryOf(e ast.Expr) (of, name string, ok bool) {
	switch e.Kind() {
	case ast.SelectKind:
		if s := e.AsSelect(); !s.IsTestOnly() {
			return variableOf(s.Operand()), s.FieldName(), true
		}
	case ast.CallKind:
		if c := e.AsCall(); c.FunctionName() == indexOperator && len(c.Args()) == 2 {
			name, ok = literalString(c.Args()[1])
			return variableOf(c.Args()[0]), name, ok
		}
	}
	return "", "", false
}

// variableOf is the variable that e names, whether the checker has made one name of it or left it a selection.
func variableOf(e ast.Expr) string {
	switch e.Kind() {
	case ast.IdentKind:
		return e.AsIdent()
	case ast.SelectKind:
		if s := e.AsSelect(); !s.IsTestOnly() && s.Operand().Kind() == ast.IdentKind {
			return s.Operand().AsIdent() + "." + s.FieldName()
		}
	}
	return ""
}

type constant string

func (c constant) append(dst []byte, _ *message.Exchange) []byte { return append(dst, c...) }
func (c constant) is(_ *message.Exchange, s string) bool         { return string(c) == s }

type plain func(*message.Exchange) string

func (p plain) append(dst []byte, ex *message.Exchange) []byte { return append(dst, p(ex)...) }
func (p plain) is(ex *message.Exchange, s string) bool         { return p(ex) == s }

// clientIP is apart, so that an address becomes a key without becoming a string.
type clientIP struct{}

func (clientIP) append(dst []byte, ex *message.Exchange) []byte { return sourceIP(ex).AppendTo(dst) }

func (c clientIP) is(ex *message.Exchange, s string) bool {
	var room [64]byte
	return string(c.append(room[:0], ex)) == s
}
