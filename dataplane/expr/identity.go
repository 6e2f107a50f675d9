package expr

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/decls"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
	"github.com/google/cel-go/parser"

	"github.com/gatehouse-dev/gatehouse/dataplane/message"
)

const (
	identityList = "identity.@list" // identity.list(name) becomes identity.@list[name]; no user can write an @
	hasEntry     = "@has"           // has(map.name) becomes @has(map, "name")
)

// identityOptions are what makes identity more than variables.
//
// identity.list("groups") becomes an entry of a map that has every name, so that the cost estimate knows how large it can be. has(m.x)
// asks the map whether it contains x: CEL's own asks for the value, and ours always have one.
func identityOptions() []cel.EnvOption {
	return []cel.EnvOption{
		cel.Macros(
			cel.ReceiverMacro("list", 1, func(eh cel.MacroExprFactory, target ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
				if target.Kind() != ast.IdentKind || target.AsIdent() != "identity" {
					return nil, nil
				}
				if _, isString := literalString(args[0]); literal(args[0]) && !isString {
					return nil, eh.NewError(args[0].ID(), `identity.list wants the name of a claim, such as "groups"`)
				}
				return eh.NewCall(indexOperator, eh.NewIdent(identityList), args[0]), nil
			}),
			cel.GlobalMacro("has", 1, func(eh cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
				if args[0].Kind() != ast.SelectKind || hasVariable(variableOf(args[0])) {
					return nil, eh.NewError(args[0].ID(), "has wants a map and a name in it, such as has(identity.claims.email)")
				}
				s := args[0].AsSelect()
				return eh.NewCall(hasEntry, s.Operand(), eh.NewLiteral(types.String(s.FieldName()))), nil
			}),
		),
		cel.Function(hasEntry,
			decls.DisableTypeGuards(true), // null is asked too
			cel.Overload("map_has_entry", []*cel.Type{cel.MapType(cel.StringType, cel.TypeParamType("V")), cel.StringType}, cel.BoolType,
				cel.BinaryBinding(func(m, name ref.Val) ref.Val {
					if c, ok := m.(traits.Mapper); ok {
						return c.Contains(name)
					}
					return types.False
				}))),
	}
}

// standardMacros are those of CEL but has, which is ours.
func standardMacros() (out []cel.Macro) {
	for _, m := range parser.AllMacros {
		if m.Function() != "has" {
			out = append(out, m)
		}
	}
	return out
}

// identityOf returns the identity; nobody's is empty.
func identityOf(ex *message.Exchange) *message.Identity {
	if ex.Identity == nil {
		return &nobody
	}
	return ex.Identity
}

var nobody message.Identity

// claims are an object of JSON: every name has a value, null when it is absent.
type claims struct{ traits.Mapper }

func newClaims(m map[string]any) claims { return claims{types.NewStringInterfaceMap(fromJSON{}, m)} }

func (c claims) Find(key ref.Val) (ref.Val, bool) {
	if _, ok := key.(types.String); !ok {
		return types.MaybeNoSuchOverloadErr(key), false
	}
	if v, ok := c.Mapper.Find(key); ok {
		return v, true
	}
	return absent{types.NullValue}, true
}

func (c claims) Get(key ref.Val) ref.Val {
	v, _ := c.Find(key)
	return v
}

// absent is the null of a claim that is not there. Its entries are absent too, so that identity.claims.a.b is null when there is no a.
// Only attributes see it; nullable makes it CEL's null when the attribute has been read.
type absent struct{ types.Null }

func (a absent) Get(ref.Val) ref.Val   { return a }
func (absent) IsSet(ref.Val) ref.Val   { return types.False }
func (absent) Equal(o ref.Val) ref.Val { return types.NullValue.Equal(o) }

// nullable is an attribute that gives CEL's null for what is absent.
type nullable struct {
	interpreter.InterpretableAttribute
}

func makeNullable(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	if a, ok := i.(interpreter.InterpretableAttribute); ok {
		return nullable{a}, nil
	}
	return i, nil
}

func (n nullable) Eval(a interpreter.Activation) ref.Val {
	return present(n.InterpretableAttribute.Eval(a))
}

func (n nullable) Exec(f *interpreter.ExecutionFrame) ref.Val {
	return present(n.InterpretableAttribute.Exec(f))
}

func present(v ref.Val) ref.Val {
	if _, is := v.(absent); is {
		return types.NullValue
	}
	return v
}

// fromJSON makes CEL's values of what encoding/json has decoded.
type fromJSON struct{}

func (a fromJSON) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case nil:
		return types.NullValue
	case string:
		return types.String(v)
	case bool:
		return types.Bool(v)
	case float64:
		return types.Double(v)
	case json.Number:
		return number(v)
	case map[string]any:
		return newClaims(v)
	case []any:
		return types.NewDynamicList(a, v)
	}
	return types.DefaultTypeAdapter.NativeToValue(v)
}

// number is an int if it can be, since 12345678901234567 is no double.
func number(n json.Number) ref.Val {
	if i, err := n.Int64(); err == nil {
		return types.Int(i)
	}
	f, err := n.Float64()
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Double(f)
}

// labels have a value for every name.
type labels struct{ traits.Mapper }

func newLabels(m map[string]string) labels {
	return labels{types.NewStringStringMap(types.DefaultTypeAdapter, m)}
}

func (l labels) Find(key ref.Val) (ref.Val, bool) {
	if _, ok := key.(types.String); !ok {
		return types.MaybeNoSuchOverloadErr(key), false
	}
	if v, ok := l.Mapper.Find(key); ok {
		return v, true
	}
	return types.String(""), true
}

func (l labels) Get(key ref.Val) ref.Val {
	v, _ := l.Find(key)
	return v
}

// lists is what identity.list asks.
type lists struct {
	traits.Mapper
	of *message.Identity
}

func newLists(of *message.Identity) lists {
	return lists{types.NewStringStringMap(types.DefaultTypeAdapter, nil), of}
}

func (l lists) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key), false
	}
	var all []string
	eachOf(l.of, string(name), func(s string) bool { all = append(all, s); return true })
	return types.NewStringList(types.DefaultTypeAdapter, all), true
}

func (l lists) Get(key ref.Val) ref.Val {
	v, _ := l.Find(key)
	return v
}

// eachOf calls yield with each string of the list that a claim is, until it returns false: a scalar is a list of one, null and objects
// are empty, and so are they inside a list. The claims scope and scp hold words with spaces between (RFC 8693 4.2, RFC 9068 2.2.3).
func eachOf(id *message.Identity, name string, yield func(string) bool) {
	v := claimAt(id.Claims, name)
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if s, ok := scalar(e); ok && !yield(s) {
				return
			}
		}
	case []string:
		for _, s := range v {
			if !yield(s) {
				return
			}
		}
	case string:
		if name != "scope" && name != "scp" {
			yield(v)
			return
		}
		for word := range strings.FieldsSeq(v) {
			if !yield(word) {
				return
			}
		}
	default:
		if s, ok := scalar(v); ok {
			yield(s)
		}
	}
}

// claimAt finds a claim by its literal name, or else by dots: realm_access.roles is roles in realm_access.
func claimAt(m map[string]any, name string) any {
	if v, found := m[name]; found {
		return v
	}
	for i := 0; i < len(name); i++ {
		if name[i] != '.' {
			continue
		}
		if inner, ok := m[name[:i]].(map[string]any); ok {
			return claimAt(inner, name[i+1:])
		}
	}
	return nil
}

// scalar is a JSON scalar as text.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return strconv.FormatInt(int64(v), 10), true
		}
		return strconv.FormatFloat(v, 'g', -1, 64), true
	}
	return "", false
}
