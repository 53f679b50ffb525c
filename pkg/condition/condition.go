// Package condition evaluates CEL (Common Expression Language, github.com/google/cel-spec) over one event: filters,
// which give a bool, and transforms, which give an object. The texts come from strangers, so every evaluation is
// bounded in cost, memory, output and time, and has no access to anything but its event: not even to the clock.
//
// An expression sees `event` as the specification shows it (id, org_id, aggregate_type, aggregate_id, event_type,
// payload), with occurred_at as a timestamp. Whole numbers of 64 bits are exact; others are doubles. It has the
// standard functions, optional values (event.payload.?name.orValue("")) and strings: charAt, indexOf, lastIndexOf,
// lowerAscii, upperAscii, reverse, split, substring, trim. matches() takes texts of 64 KiB at most.
package condition

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

// The bounds of each program.
const (
	// MaxText bounds an expression, in bytes.
	MaxText = 8192
	// MaxOutput bounds what a transform gives, in bytes of JSON: as much as an event may have.
	MaxOutput = 2 << 20
	// maxCost bounds an evaluation in units of CEL: about one for a step or ten characters; a hundred thousand are some ms.
	maxCost = 200_000
	// maxMemory bounds a value during evaluation in elements, of ten bytes where it is text. An event of 2 MiB fits.
	maxMemory = 4 << 20
	maxNodes  = 5_000
	maxDepth  = 100
	// timeout is the last resort: the cost ends an evaluation long before.
	timeout = 250 * time.Millisecond
)

// Kind is what an expression must give.
type Kind int

// The kinds of expressions.
const (
	// Bool is a filter.
	Bool Kind = iota + 1
	// Object is a transform: it gives a map.
	Object
	// Any gives whatever JSON has.
	Any
)

// ErrText is a text that is empty, too long or no UTF-8. What the parser finds is an *Invalid.
var ErrText = errors.New("condition: empty, longer than 8192 bytes or no UTF-8")

// Problem is one fault of a text.
type Problem struct {
	// Line and Column are where it lies, in characters, from 1; 0 where it is of the whole.
	Line, Column int
	Text         string
}

// Invalid is every fault of a text at once.
type Invalid struct{ Problems []Problem }

// Error shows the first problem.
func (e *Invalid) Error() string {
	p := e.Problems[0]
	if p.Line == 0 {
		return p.Text
	}
	return fmt.Sprintf("line %d, column %d: %s", p.Line, p.Column, p.Text)
}

type source struct {
	text string
	kind Kind
}

type compiled struct {
	program *Program
	err     error
}

// Compiler makes programs, and remembers them by their text. Safe for concurrent use.
type Compiler struct {
	env *cel.Env
	max int

	mu    sync.Mutex
	known map[source]compiled
}

// NewCompiler remembers up to maxPrograms programs, 3 to 6 KiB each where they are short; when they are more it begins again empty.
func NewCompiler(maxPrograms int) (*Compiler, error) {
	return newCompiler(maxPrograms)
}

func newCompiler(maxPrograms int, more ...cel.EnvOption) (*Compiler, error) {
	env, err := cel.NewEnv(append(more,
		cel.CustomTypeAdapter(ordered{types.DefaultTypeAdapter}),
		cel.Variable("event", cel.MapType(cel.StringType, cel.DynType)),
		cel.OptionalTypes(),
		ext.Strings(),
		cel.DefaultUTCTimeZone(true),
		cel.ParserRecursionLimit(maxDepth),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegex),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()),
	)...)
	if err != nil {
		return nil, fmt.Errorf("condition: %w", err)
	}
	return &Compiler{env: env, max: maxPrograms, known: map[source]compiled{}}, nil
}

// Compile makes the program of a text, or finds it. Errors: ErrText, *Invalid.
func (c *Compiler) Compile(text string, kind Kind) (*Program, error) {
	key := source{text, kind}
	c.mu.Lock()
	found, ok := c.known[key]
	c.mu.Unlock()
	if ok {
		return found.program, found.err
	}
	found.program, found.err = c.compile(text, kind)
	if len(text) > MaxText { // not worth its memory
		return nil, found.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= c.max {
		clear(c.known)
	}
	c.known[key] = found
	return found.program, found.err
}
