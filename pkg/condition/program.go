package condition

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

var (
	// ErrMissing is that it reads a key or element that the event does not have. has(…) and .? ask first.
	ErrMissing = errors.New("condition: the event lacks what it reads")
	// ErrLimit is that it needs more steps, memory, output or time than allowed.
	ErrLimit = errors.New("condition: more than allowed")
	// ErrValue is that it does not apply to this event, such as a text where it wants a number, or gives what it must not.
	ErrValue = errors.New("condition: does not apply to the event")
)

// Program is one compiled text. Safe for concurrent use.
type Program struct {
	kind    Kind
	program cel.Program
	// loops: it has a comprehension, so its time is not bounded by its length.
	loops bool
	reads map[int64]bool
}

func (c *Compiler) compile(text string, kind Kind) (*Program, error) {
	if text == "" || len(text) > MaxText || !utf8.ValidString(text) {
		return nil, ErrText
	}
	checked, issues := c.env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, invalid(issues.Errors())
	}
	if !gives(checked.OutputType(), kind) {
		return nil, &Invalid{[]Problem{{Text: "it gives " + checked.OutputType().String() + ", wanted " + kind.String()}}}
	}
	p := &Program{kind: kind, reads: map[int64]bool{}}
	var closed []Problem
	ast.PostOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if f := p.look(e); amplifies(f) {
			at := checked.NativeRep().SourceInfo().GetStartLocation(e.ID())
			closed = append(closed, Problem{Line: at.Line(), Column: at.Column() + 1, Text: "'" + f + "' is not available"})
		}
	}))
	if closed != nil {
		return nil, &Invalid{closed}
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize), cel.CustomDecoratorV2(orderLiterals), cel.CustomDecoratorV2(boundMatches),
		cel.CostTracking(sizes{}), cel.CostLimit(maxCost)}
	if p.loops {
		sizes := types.NewSizeCalculator(types.SizeCalculatorMaxDepth(10_000), types.SizeCalculatorMaxTraversal(maxMemory))
		options = append(options, cel.MemoryTracking(types.MemoryTrackerSizeCalculator(sizes)), cel.MemoryLimit(maxMemory), cel.InterruptCheckFrequency(1))
	}
	var err error
	if p.program, err = c.env.Program(checked, options...); err != nil {
		return nil, &Invalid{[]Problem{{Text: err.Error()}}}
	}
	return p, nil
}

// look notes what an evaluation needs to know of the text, and gives the function that is called, if any.
func (p *Program) look(e ast.Expr) string {
	switch e.Kind() {
	case ast.ComprehensionKind:
		p.loops = true
	case ast.SelectKind:
		p.reads[e.ID()] = true
	case ast.CallKind:
		f := e.AsCall().FunctionName()
		p.reads[e.ID()] = f == operators.Index || f == operators.OptIndex || f == operators.OptSelect
		return f
	}
	return ""
}

// amplifies tells the functions that make of two short texts one of any length in a single step, before a bound is
// looked at.
func amplifies(function string) bool {
	return function == "replace" || function == "join" || function == "format"
}

func invalid(found []*common.Error) *Invalid {
	out := &Invalid{}
	for _, e := range found {
		// The library prints what it refuses; a line of it says enough.
		message, _, _ := strings.Cut(e.Message, "\n")
		p := Problem{Text: message}
		if e.Location.Line() > 0 {
			p.Line, p.Column = e.Location.Line(), e.Location.Column()+1
		}
		out.Problems = append(out.Problems, p)
	}
	return out
}

// gives tells whether a type may be what the kind wants; what is dyn shows at evaluation.
func gives(t *cel.Type, kind Kind) bool {
	if t.Kind() == types.DynKind || kind == Any {
		return true
	}
	if kind == Bool {
		return t.Kind() == types.BoolKind
	}
	return t.Kind() == types.MapKind
}

// String names the kind as CEL does.
func (k Kind) String() string {
	switch k {
	case Bool:
		return "bool"
	case Object:
		return "map"
	default:
		return "any"
	}
}

// sizes prices the calls whose overload shows only at evaluation, as with what is dyn, by what they read and make. The
// library would take each for one step, however long the texts are.
type sizes struct{}

// CallCost implements cost.ActualCostEstimator.
func (sizes) CallCost(function, overload string, args []ref.Val, result ref.Val) *uint64 {
	if text, ok := first(args).(types.String); ok && function == overloads.Matches {
		cost := 20 + uint64(len(text)) // more than the library says: a short expression may have a large program
		return &cost
	}
	if overload != "" {
		return nil
	}
	cost := 1 + weight(result)
	for _, a := range args {
		cost += weight(a)
	}
	return &cost
}

func first(args []ref.Val) ref.Val {
	if len(args) == 0 {
		return nil
	}
	return args[0]
}

func weight(v ref.Val) uint64 {
	switch v := v.(type) {
	case types.String:
		return uint64(len(v)) / 10
	case types.Bytes:
		return uint64(len(v)) / 10
	case traits.Sizer:
		n, _ := v.Size().(types.Int)
		return uint64(n)
	}
	return 0
}

// Bool evaluates a program of kind Bool. Errors: ErrMissing, ErrLimit, ErrValue, and ctx's.
func (p *Program) Bool(ctx context.Context, e *Event) (bool, error) {
	v, err := p.evaluate(ctx, e)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("%w: it gives %s, wanted bool", ErrValue, v.Type().TypeName())
	}
	return bool(b), nil
}

// Object evaluates a program of kind Object, and gives its JSON: minified, keys in order of their bytes, so the same
// for the same event. Timestamps, durations and bytes are texts, as in the JSON of Protocol Buffers. Errors: as Bool.
func (p *Program) Object(ctx context.Context, e *Event) (json.RawMessage, error) {
	v, err := p.evaluate(ctx, e)
	if err != nil {
		return nil, err
	}
	if _, ok := v.(traits.Mapper); !ok {
		return nil, fmt.Errorf("%w: it gives %s, wanted map", ErrValue, v.Type().TypeName())
	}
	return appendValue(nil, v)
}

// JSON evaluates a program of any kind, and gives its JSON as Object does. Errors: as Bool.
func (p *Program) JSON(ctx context.Context, e *Event) (json.RawMessage, error) {
	v, err := p.evaluate(ctx, e)
	if err != nil {
		return nil, err
	}
	return appendValue(nil, v)
}

func (p *Program) evaluate(ctx context.Context, e *Event) (ref.Val, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !p.loops {
		v, _, err := p.program.Eval(e.vars)
		return v, p.explain(err)
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, _, err := p.program.ContextEval(limited, e.vars)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return v, p.explain(err)
}

// explain sorts the errors of the library. It tells a missing key from others by words alone, so where it failed
// decides: at a step that reads.
func (p *Program) explain(err error) error {
	if err == nil {
		return nil
	}
	var cancelled interpreter.EvalCancelledError
	var failed *types.Err
	switch {
	case errors.As(err, &cancelled):
		return fmt.Errorf("%w: %s", ErrLimit, cancelled.Message)
	case errors.Is(err, ErrLimit):
		return errMatched
	case errors.Is(err, interpreter.InterruptError{}):
		return fmt.Errorf("%w: time", ErrLimit)
	case errors.As(err, &failed) && p.reads[failed.NodeID()] && !errors.Is(err, noOverload):
		return fmt.Errorf("%w: %s", ErrMissing, clip(err.Error()))
	}
	return fmt.Errorf("%w: %s", ErrValue, clip(err.Error()))
}

// noOverload is the library's error for a value of another type than wanted.
var noOverload, _ = types.NoSuchOverloadErr().(*types.Err)

// clip bounds an error, which may show a value of the event.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
