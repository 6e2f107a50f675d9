package expr

import (
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

// The commonest forms are evaluated without CEL and without an allocation: a variable, a header, a query parameter, a constant, and the
// comparison of one of them with a constant; that is what most keys and conditions are. None of them can fail. A test holds each
// against CEL.

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
	name := call.FunctionName()
	if name != operators.Equals && name != operators.NotEquals || len(call.Args()) != 2 {
		return nil
	}
	left, right := call.Args()[0], call.Args()[1]
	if literal(left) {
		left, right = right, left
	}
	t := nativeText(left)
	to, ok := literalString(right)
	if t == nil || !ok {
		return nil
	}
	equal := name == operators.Equals
	return func(ex *message.Exchange) bool { return t.is(ex, to) == equal }
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
	}
	return nil
}

// entryOf reads m["name"] and m.name, where m is a variable.
func entryOf(e ast.Expr) (of, name string, ok bool) {
	switch e.Kind() {
	case ast.SelectKind:
		if s := e.AsSelect(); !s.IsTestOnly() {
			return variableOf(s.Operand()), s.FieldName(), true
		}
	case ast.CallKind:
		if c := e.AsCall(); c.FunctionName() == operators.Index && len(c.Args()) == 2 {
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
