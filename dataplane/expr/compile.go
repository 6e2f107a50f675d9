package expr

import (
	"fmt"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
)

// maxCost is what an evaluation may cost, in CEL's units: about one for each step, a tenth for each character that is read. So many
// take some milliseconds.
const maxCost = 100_000

// variables are what an expression can name. Names with a dot are one name for CEL: so each is asked for on its own, and nothing is
// computed that isn't.
var variables = []struct {
	name string
	kind *cel.Type
	most size // by the default settings
}{
	{"request.method", cel.StringType, size{whole: 64 << 10}},
	{"request.scheme", cel.StringType, size{whole: 5}},
	{"request.host", cel.StringType, size{whole: 253}},
	{"request.path", cel.StringType, size{whole: 16 << 10}},
	{"request.headers", cel.MapType(cel.StringType, cel.StringType), size{whole: 200, item: 64 << 10}},
	{"request.query", cel.MapType(cel.StringType, cel.StringType), size{whole: 8 << 10, item: 16 << 10}},
	{"request.time", cel.TimestampType, size{whole: 1}},
	{"source.ip", cel.StringType, size{whole: 45}},
	{"source.port", cel.IntType, size{whole: 1}},
}

// size is the characters of a string, or the entries of a map and the characters of each key and value.
type size struct{ whole, item uint64 }

// Two sizes of a request are reckoned with: the largest that can come, and one that is large and yet plausible.
var (
	largest   = sizes{characters: 1 << 20, entries: 1 << 20}
	plausible = sizes{characters: 4 << 10, entries: 50}
)

// environment is made on first use: it takes about a millisecond, and a data plane without policies needs none.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{
		ext.Strings(ext.StringsVersion(5)),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(MaxText),
		cel.ParserRecursionLimit(50),
		cel.ParserErrorRecoveryLimit(4),
		cel.ASTValidators(
			cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(), cel.ValidateComprehensionNestingLimit(2),
		),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.kind))
	}
	return cel.NewEnv(append(options, addressFunctions()...)...)
})

// compile is Compile without a memory. The recover is for the library: a text that a user wrote must never end the process.
func compile(text string, want Kind) (p *Program, problem *Error) {
	defer func() {
		if v := recover(); v != nil {
			p, problem = nil, &Error{1, 1, fmt.Sprintf("cannot be compiled: %.100v", v)}
		}
	}()
	env, err := environment()
	if err != nil {
		return nil, &Error{1, 1, "internal: " + oneLine(err.Error())}
	}
	checked, problem := check(env, text, want)
	if problem != nil {
		return nil, problem
	}
	p = &Program{source: text}
	if want == Bool {
		p.condition = nativeCondition(checked.NativeRep().Expr())
	} else {
		p.part = nativeText(checked.NativeRep().Expr())
	}
	watched, problem := estimate(env, checked)
	if problem != nil {
		return nil, problem
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if watched {
		options = append(options, cel.CostLimit(maxCost)) // makes it five times slower: only where it can matter
	}
	if p.cel, err = env.Program(checked, options...); err != nil {
		return nil, &Error{1, 1, oneLine(err.Error())}
	}
	return p, nil
}

// estimate refuses what would cost too much on a plausible request, and says whether the largest would cost too much.
func estimate(env *cel.Env, checked *cel.Ast) (watched bool, problem *Error) {
	likely, err := env.EstimateCost(checked, plausible)
	if err != nil {
		return false, &Error{1, 1, "its cost cannot be estimated: " + oneLine(err.Error())}
	}
	if likely.Max > maxCost {
		return false, &Error{1, 1, "takes too long on a large request: make it simpler (fewer comprehensions, shorter patterns, substring before matches)"}
	}
	worst, err := env.EstimateCost(checked, largest)
	return err != nil || worst.Max > maxCost, nil
}

// check parses and checks the text, and refuses what we do not want to run.
func check(env *cel.Env, text string, want Kind) (*cel.Ast, *Error) {
	checked, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, firstIssue(text, issues)
	}
	native := checked.NativeRep()
	var problem *Error
	at := func(e ast.Expr, format string, args ...any) {
		if problem == nil {
			l := native.SourceInfo().GetStartLocation(e.ID())
			problem = &Error{l.Line(), l.Column() + 1, fmt.Sprintf(format, args...)}
		}
	}
	ast.PreOrderVisit(native.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.CallKind {
			checkCall(e, at)
		}
	}))
	if problem == nil {
		checkResult(native.Expr(), checked.OutputType(), want, at)
	}
	return checked, problem
}

// timeParts take a time zone as their argument.
var timeParts = map[string]bool{
	"getDate": true, "getDayOfMonth": true, "getDayOfWeek": true, "getDayOfYear": true, "getFullYear": true, "getHours": true,
	"getMilliseconds": true, "getMinutes": true, "getMonth": true, "getSeconds": true,
}

func checkCall(e ast.Expr, at func(ast.Expr, string, ...any)) {
	call := e.AsCall()
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	name := call.FunctionName()
	switch {
	case name == "format" || name == "join":
		at(e, "%s is not available: its result has no bound; use + to put strings together", name)
	case len(args) < 2:
	case name == "matches" && !literal(args[1]):
		at(args[1], "the pattern of matches must be a constant string")
	case timeParts[name] && !literal(args[1]):
		at(args[1], "the time zone of %s must be a constant string", name)
	case name == inCIDR:
		checkPrefixes(args[1], at)
	case name == network:
		checkBits(args[1:], at)
	}
}

// checkResult refuses what is not of the wanted kind.
func checkResult(e ast.Expr, got *cel.Type, want Kind, at func(ast.Expr, string, ...any)) {
	switch {
	case want == Bool && !got.IsExactType(cel.BoolType):
		at(e, "gives %s, but must give true or false; compare it with something, for example", typeName(got))
	case want == String && !keyType(got):
		at(e, "gives %s, but must give a string, number, bool or list of strings; string(...) converts times and bytes", typeName(got))
	}
}

func keyType(t *cel.Type) bool {
	for _, k := range []*cel.Type{cel.StringType, cel.IntType, cel.UintType, cel.DoubleType, cel.BoolType, cel.ListType(cel.StringType)} {
		if t.IsExactType(k) {
			return true
		}
	}
	return false
}

func typeName(t *cel.Type) string {
	if t.IsExactType(cel.DynType) {
		return "something whose type is not known before it runs"
	}
	return cel.FormatCELType(t)
}

func literal(e ast.Expr) bool { return e.Kind() == ast.LiteralKind }

// literalString is the string that e is, if it is one.
func literalString(e ast.Expr) (string, bool) {
	if !literal(e) {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// sizes tells the cost estimate how large things can be.
type sizes struct {
	characters uint64 // no string is longer
	entries    uint64 // no map is larger
}

func (s sizes) EstimateSize(node checker.AstNode) *checker.SizeEstimate {
	path := node.Path()
	if len(path) == 0 {
		return nil
	}
	for _, v := range variables {
		switch {
		case path[0] != v.name:
		case len(path) > 1:
			return &checker.SizeEstimate{Max: min(v.most.item, s.characters)}
		case v.most.item > 0:
			return &checker.SizeEstimate{Max: min(v.most.whole, s.entries)}
		default:
			return &checker.SizeEstimate{Max: min(v.most.whole, s.characters)}
		}
	}
	return nil
}

func (sizes) EstimateCallCost(function, _ string, _ *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	switch function {
	case network:
		return &checker.CallEstimate{CostEstimate: checker.FixedCostEstimate(5), ResultSize: &checker.SizeEstimate{Max: 43}}
	case inCIDR:
		n := uint64(1)
		if len(args) > 0 && args[0].Expr().Kind() == ast.ListKind {
			n = uint64(args[0].Expr().AsList().Size())
		}
		return &checker.CallEstimate{CostEstimate: checker.FixedCostEstimate(5 * (n + 1))}
	}
	return nil
}
