package prompting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"unicode/utf8"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
)

// MaxRules bounds the rules of a hook.
const MaxRules = 50

// Rule is a CEL expression of a hook: in a review it gives a bool, and true denies the write; in an async hook it gives
// an output.
type Rule struct {
	// ID is named in verdicts.
	ID string `json:"id"`
	// Expression sees event, before, after and changed, see condition.NewWriteCompiler.
	Expression string `json:"expression"`
	// Reason is for whoever is refused.
	Reason string `json:"reason"`
}

// Rules are a hook's condition and rules, ready to be evaluated. Safe for concurrent use.
type Rules struct {
	condition *condition.Program // nil is always true
	rules     []rule
}

type rule struct {
	Rule
	program *condition.Program
}

var ruleID = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}$`)

// CompileRules makes the rules of a hook, with a compiler of writes. Its error is an *errs.Error of kind Invalid whose
// fields name the line and column.
func CompileRules(c *condition.Compiler, when string, rules []Rule, review bool) (*Rules, error) {
	f := &ruleFaults{c: c}
	out := &Rules{}
	if when != "" {
		out.condition = f.compile("condition", when, condition.Bool)
	}
	if len(rules) > MaxRules {
		f.add("rules", "OUT_OF_RANGE", "at most "+strconv.Itoa(MaxRules))
		return nil, f.err
	}
	kind := condition.Any
	if review {
		kind = condition.Bool
	}
	seen := map[string]bool{}
	for i, r := range rules {
		at := fmt.Sprintf("rules[%d]", i)
		switch {
		case !ruleID.MatchString(r.ID):
			f.add(at+".id", "INVALID_FORMAT", "letters, digits, _ . and -, at most 64")
		case seen[r.ID]:
			f.add(at+".id", "DUPLICATE", "each id once")
		}
		seen[r.ID] = true
		if utf8.RuneCountInString(r.Reason) > MaxReason {
			f.add(at+".reason", "OUT_OF_RANGE", fmt.Sprintf("at most %d characters", MaxReason))
		}
		out.rules = append(out.rules, rule{r, f.compile(at+".expression", r.Expression, kind)})
	}
	if f.err != nil {
		return nil, f.err
	}
	return out, nil
}

type ruleFaults struct {
	c   *condition.Compiler
	err *errs.Error
}

func (f *ruleFaults) add(field, reason, text string) {
	if f.err == nil {
		f.err = errs.New(errs.Invalid, "INVALID_RULES", "the rules cannot be used")
	}
	f.err = f.err.WithField(field, reason, text)
}

func (f *ruleFaults) compile(field, text string, kind condition.Kind) *condition.Program {
	program, err := f.c.Compile(text, kind)
	var wrong *condition.Invalid
	switch {
	case errors.As(err, &wrong):
		for _, p := range wrong.Problems {
			at := ""
			if p.Line > 0 {
				at = fmt.Sprintf("line %d, column %d: ", p.Line, p.Column)
			}
			f.add(field, "SYNTAX", at+Clean(p.Text, 300))
		}
	case err != nil:
		f.add(field, "OUT_OF_RANGE", fmt.Sprintf("CEL of 1 to %d bytes", condition.MaxText))
	}
	return program
}

// Len is how many rules there are.
func (r *Rules) Len() int { return len(r.rules) }

// Matches tells whether the condition holds. Its error, a *ModelError with CauseCondition, is no answer: the failure
// policy decides.
func (r *Rules) Matches(ctx context.Context, e *condition.Event) (bool, error) {
	if r.condition == nil {
		return true, nil
	}
	ok, err := r.condition.Bool(ctx, e)
	if err != nil {
		return false, evaluation("condition", err)
	}
	return ok, nil
}

// Judge gives the verdict of a review's rules: a reject when one denies, whatever becomes of the others. When none does and
// one cannot tell, its error is a *ModelError with CauseCondition.
func (r *Rules) Judge(ctx context.Context, e *condition.Event) (Verdict, error) {
	v := Verdict{Verdict: Approve, RuleIDs: []string{}}
	var failed error
	for _, rule := range r.rules {
		denies, err := rule.program.Bool(ctx, e)
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("rule %s: %w", rule.ID, err))
		case denies && v.Verdict == Approve:
			v.Verdict, v.Reason = Reject, Clean(rule.Reason, MaxReason)
			fallthrough
		case denies:
			v.RuleIDs = append(v.RuleIDs, rule.ID)
		}
	}
	if v.Verdict == Approve && failed != nil {
		return Verdict{}, evaluation("rules", failed)
	}
	return v, nil
}

// Outputs gives what an async hook's rules give, a JSON object with a member a rule. Its error is a *ModelError with
// CauseCondition.
func (r *Rules) Outputs(ctx context.Context, e *condition.Event) (json.RawMessage, error) {
	out, size := map[string]json.RawMessage{}, 0
	for _, rule := range r.rules {
		value, err := rule.program.JSON(ctx, e)
		if err != nil {
			return nil, evaluation("rule "+rule.ID, err)
		}
		if size += len(value); size > MaxOutput {
			return nil, evaluation("rule "+rule.ID, fmt.Errorf("more than %d bytes of outputs", MaxOutput))
		}
		out[rule.ID] = value
	}
	text, err := json.Marshal(out)
	if err != nil {
		return nil, evaluation("rules", err)
	}
	return text, nil
}

func evaluation(what string, err error) *ModelError {
	cause := CauseCondition
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		cause = CauseTimeout
	}
	return &ModelError{Cause: cause, Text: Clean(what+": "+err.Error(), MaxReason)}
}
