package expr

import (
	"fmt"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
)

// maxCost is what an evaluation may cost, in CEL's units: about one for each step, a tenth for each character that is read. So many
// take some milliseconds.
const maxCost = 100_000

// variables are what an expression can name. Names with a dot are one name for CEL: so each is asked for on its own, and nothing is
// computed that isn't.
var variables = []variable{
	{name: "request.method", kind: cel.StringType, most: size{whole: 64 << 10}},
	{name: "request.scheme", kind: cel.StringType, most: size{whole: 5}},
	{name: "request.host", kind: cel.StringType, most: size{whole: 253}},
	{name: "request.path", kind: cel.StringType, most: size{whole: 16 << 10}},
	{name: "request.headers", kind: cel.MapType(cel.StringType, cel.StringType), most: size{whole: 200, item: 64 << 10}},
	{name: "request.query", kind: cel.MapType(cel.StringType, cel.StringType), most: size{whole: 8 << 10, item: 16 << 10}},
	{name: "request.time", kind: cel.TimestampType, most: size{whole: 1}},
	{name: "source.ip", kind: cel.StringType, most: size{whole: 45}},
	{name: "source.port", kind: cel.IntType, most: size{whole: 1}},
	{name: "identity.subject", kind: cel.StringType, most: size{whole: 16 << 10}},
	{name: "identity.method", kind: cel.StringType, most: size{whole: 253}},
	// A claim may be a string or a list: no type says which. The plausible one has 256 characters or elements.
	{name: "identity.claims", kind: cel.MapType(cel.StringType, cel.DynType), most: size{whole: 1 << 10, item: 64 << 10}, likely: 256},
	{name: "identity.labels", kind: cel.MapType(cel.StringType, cel.StringType), most: size{whole: 100, item: 4 << 10}},
	{name: identityList, kind: cel.MapType(cel.StringType, cel.ListType(cel.StringType)), most: size{whole: 1 << 10, item: 16 << 10}, lists: true},
	{name: "response.code", kind: cel.IntType, most: size{whole: 1}, response: true},
	{name: "response.headers", kind: cel.MapType(cel.StringType, cel.StringType), most: size{whole: 200, item: 64 << 10}, response: true},
}

func hasVariable(name string) bool {
	for _, v := range variables {
		if v.name == name {
			return true
		}
	}
	return false
}

type variable struct {
	name     string
	kind     *cel.Type
	most     size   // by the default settings
	likely   uint64 // plausible size of an item; 0: as of any
	lists    bool   // the items are lists, of which whole is the length and item the characters of an element
	response bool   // there once there is an answer
}

// size is the characters of a string, or the entries of a map and the characters of each key and value.
type size struct{ whole, item uint64 }

// Two sizes of a request are reckoned with: the largest that can come, and one that is large and yet plausible.
var (
	largest   = sizes{characters: 1 << 20, entries: 1 << 20}
	plausible = sizes{characters: 4 << 10, entries: 50, likely: true}
)

// environments are made on first use: one takes about a millisecond, and a data plane without policies needs none.
var (
	beforeAnswer = sync.OnceValues(func() (*cel.Env, error) { return newEnvironment(false) })
	afterAnswer  = sync.OnceValues(func() (*cel.Env, error) { return newEnvironment(true) })
)

func newEnvironment(response bool) (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.ClearMacros(),
		cel.Macros(standardMacros()...),
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
		if response || !v.response {
			options = append(options, cel.Variable(v.name, v.kind))
		}
	}
	options = append(options, addressFunctions()...)
	return cel.NewEnv(append(options, identityOptions()...)...)
}

// compile is Compile without a memory. The recover is for the library: a text that a user wrote must never end the process.
func compile(key memoKey) (p *Program, problem *Error) {
	defer func() {
		if v := recover(); v != nil {
			p, problem = nil, &Error{1, 1, fmt.Sprintf("cannot be compiled: %.100v", v)}
		}
	}()
	environment := beforeAnswer
	if key.response {
		environment = afterAnswer
	}
	env, err := environment()
	if err != nil {
		return nil, &Error{1, 1, "internal: " + oneLine(err.Error())}
	}
	checked, problem := check(env, key)
	if problem != nil {
		return nil, problem
	}
	p = &Program{source: key.text}
	switch root := checked.NativeRep().Expr(); key.want {
	case Bool:
		p.condition = nativeCondition(root)
	case String:
		p.part = nativeText(root)
	case Int:
		p.count = nativeNumber(root)
	}
	watched, problem := estimate(env, checked)
	if problem != nil {
		return nil, problem
	}
	options := []cel.ProgramOption{cel.CustomDecoratorV2(makeNullable), cel.EvalOptions(cel.OptOptimize)}
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
func check(env *cel.Env, key memoKey) (*cel.Ast, *Error) {
	checked, issues := env.Compile(key.text)
	if issues.Err() != nil {
		return nil, firstIssue(key, issues)
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
		checkResult(native.Expr(), checked.OutputType(), key.want, at)
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
	case want == Int && !got.IsExactType(cel.IntType) && !got.IsExactType(cel.UintType) && !got.IsExactType(cel.DynType):
		at(e, "gives %s, but must give a whole number; int(...) converts strings and doubles", typeName(got))
	case want == Int && literal(e):
		if n, ok := e.AsLiteral().(types.Int); ok && n < 0 {
			at(e, "is less than 0")
		}
	}
}

// keyType reports whether a value of that type can be a key. What claims are is known only when it runs.
func keyType(t *cel.Type) bool {
	for _, k := range []*cel.Type{cel.StringType, cel.IntType, cel.UintType, cel.DoubleType, cel.BoolType, cel.ListType(cel.StringType), cel.DynType,
		cel.ListType(cel.DynType)} {
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
	entries    uint64 // no map or list is larger
	likely     bool   // plausible, not largest
}

func (s sizes) EstimateSize(node checker.AstNode) *checker.SizeEstimate {
	path := node.Path()
	if len(path) == 0 {
		return nil
	}
	for _, v := range variables {
		if path[0] != v.name {
			continue
		}
		item := min(v.most.item, s.characters)
		if s.likely && v.likely > 0 {
			item = v.likely
		}
		switch {
		case v.lists && len(path) == 2, len(path) == 1 && v.most.item > 0:
			return &checker.SizeEstimate{Max: min(v.most.whole, s.entries)}
		case len(path) > 1:
			return &checker.SizeEstimate{Max: item}
		default:
			return &checker.SizeEstimate{Max: min(v.most.whole, s.characters)}
		}
	}
	return nil
}

func (sizes) EstimateCallCost(function, overload string, _ *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	switch overload {
	case overloads.IntToString, overloads.UintToString, overloads.DoubleToString, overloads.BoolToString, overloads.TimestampToString, overloads.DurationToString:
		return &checker.CallEstimate{CostEstimate: checker.FixedCostEstimate(2), ResultSize: &checker.SizeEstimate{Max: 40}}
	}
	switch function {
	case hasEntry:
		return &checker.CallEstimate{CostEstimate: checker.FixedCostEstimate(2)}
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
