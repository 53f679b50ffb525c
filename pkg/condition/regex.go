package condition

import (
	"fmt"

	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// A regular expression takes time by the length of the text times the size of its program, and nothing ends it midway:
// both are bounded, so that one takes a fraction of a second at most.
const (
	maxMatched = 64 << 10
	maxRegex   = 200
)

// errMatched is ErrLimit as the library passes it on.
var errMatched = fmt.Errorf("%w: matches() on a text of more than 64 KiB", ErrLimit)

// boundedMatch refuses a text that is too long before it is matched.
type boundedMatch struct{ interpreter.InterpretableCall }

// Exec implements interpreter.InterpretableV2. The text is evaluated twice, which its cost says.
func (m boundedMatch) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	if text, ok := m.Args()[0].Exec(frame).(types.String); ok && len(text) > maxMatched {
		return types.WrapErr(errMatched)
	}
	return m.InterpretableCall.Exec(frame)
}

// Eval implements interpreter.Interpretable.
func (m boundedMatch) Eval(vars interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(vars, m.Exec)
}

func boundMatches(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	if call, ok := i.(interpreter.InterpretableCall); ok && call.Function() == overloads.Matches && len(call.Args()) == 2 {
		return boundedMatch{call}, nil
	}
	return i, nil
}
