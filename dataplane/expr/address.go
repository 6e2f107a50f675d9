package expr

import (
	"net/netip"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

const (
	inCIDR  = "inCIDR"
	network = "network"
)

// addressFunctions are ours, for addresses. Their other arguments are constants that Compile has checked, so they do not fail.
func addressFunctions() []cel.EnvOption {
	return []cel.EnvOption{
		cel.Function(inCIDR,
			cel.MemberOverload("string_in_cidr", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
				cel.BinaryBinding(inOneCIDR)),
			cel.MemberOverload("string_in_cidr_list", []*cel.Type{cel.StringType, cel.ListType(cel.StringType)}, cel.BoolType,
				cel.BinaryBinding(inAnyCIDR))),
		cel.Function(network,
			cel.MemberOverload("string_network", []*cel.Type{cel.StringType, cel.IntType, cel.IntType}, cel.StringType,
				cel.FunctionBinding(networkOf))),
	}
}

func address(v ref.Val) (netip.Addr, bool) {
	s, ok := v.(types.String)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(string(s))
	return a.Unmap().WithZone(""), err == nil
}

func inOneCIDR(ip, prefix ref.Val) ref.Val {
	a, ok := address(ip)
	return types.Bool(ok && prefixHas(prefix, a))
}

func inAnyCIDR(ip, prefixes ref.Val) ref.Val {
	a, ok := address(ip)
	list, isList := prefixes.(traits.Lister)
	if !ok || !isList {
		return types.False
	}
	for it := list.Iterator(); it.HasNext() == types.True; {
		if prefixHas(it.Next(), a) {
			return types.True
		}
	}
	return types.False
}

func prefixHas(prefix ref.Val, a netip.Addr) bool {
	s, ok := prefix.(types.String)
	if !ok {
		return false
	}
	p, err := netip.ParsePrefix(string(s))
	return err == nil && p.Contains(a)
}

func networkOf(args ...ref.Val) ref.Val {
	a, ok := address(args[0])
	if !ok {
		return types.String("")
	}
	bits := args[1]
	if a.Is6() {
		bits = args[2]
	}
	n, _ := bits.(types.Int)
	p, err := a.Prefix(int(n))
	if err != nil {
		return types.WrapErr(err)
	}
	return types.String(p.String())
}

// checkPrefixes wants one constant prefix, or a list of them.
func checkPrefixes(arg ast.Expr, at func(ast.Expr, string, ...any)) {
	elements := []ast.Expr{arg}
	if arg.Kind() == ast.ListKind {
		elements = arg.AsList().Elements()
	}
	for _, e := range elements {
		s, ok := literalString(e)
		if !ok {
			at(e, "the prefix of inCIDR must be a constant string such as \"10.0.0.0/8\", or a list of them")
			return
		}
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			at(e, "%.60q is no prefix; write it as \"10.0.0.0/8\" or \"2001:db8::/32\"", s)
			return
		}
	}
}

// checkBits wants two constant numbers of bits.
func checkBits(args []ast.Expr, at func(ast.Expr, string, ...any)) {
	for i, most := range []types.Int{32, 128} {
		if i >= len(args) {
			return
		}
		n, ok := types.Int(-1), false
		if literal(args[i]) {
			n, ok = args[i].AsLiteral().(types.Int)
		}
		if !ok || n < 0 || n > most {
			at(args[i], "the bits of network must be constant numbers: up to 32 for IPv4, up to 128 for IPv6")
			return
		}
	}
}
