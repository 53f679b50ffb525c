package prompting

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	jsonv2 "github.com/go-json-experiment/json"
)

// What a verdict says.
const (
	Approve = "approve"
	Reject  = "reject"
)

// Limits of a verdict.
const (
	MaxReason   = 500 // characters
	maxRuleIDs  = 20
	maxRuleID   = 64       // characters
	maxVerdict  = 32 << 10 // bytes
	verdictName = "verdict"
)

// Verdict is a reviewer's answer on one write. Approve grants nothing: it says that this reviewer does not object.
type Verdict struct {
	Verdict string
	// RuleIDs are the rules that were broken. A model's are its own words.
	RuleIDs []string
	// Reason is clean: one line, of characters that show.
	Reason             string
	InjectionSuspected bool
}

// VerdictSchema is the JSON Schema of a model's verdict, the same for every hook, and the name that providers want of
// it.
func VerdictSchema() (name string, schema json.RawMessage) {
	return verdictName, json.RawMessage(`{"type":"object","additionalProperties":false,` +
		`"required":["verdict","rule_ids","reason","injection_suspected"],"properties":{` +
		`"verdict":{"type":"string","enum":["approve","reject"]},` +
		`"rule_ids":{"type":"array","items":{"type":"string"}},` +
		`"reason":{"type":"string"},` +
		`"injection_suspected":{"type":"boolean"}}}`)
}

// ParseVerdict reads a model's answer: one JSON object with exactly the four members, each of its type and none twice,
// whatever the provider promised. Its error is a *ModelError with CauseInvalid. A long reason is cut.
func ParseVerdict(text []byte) (Verdict, error) {
	var answer struct {
		Verdict            *string   `json:"verdict"`
		RuleIDs            *[]string `json:"rule_ids"`
		Reason             *string   `json:"reason"`
		InjectionSuspected *bool     `json:"injection_suspected"`
	}
	if len(text) > maxVerdict {
		return Verdict{}, invalid("a verdict of more than %d bytes", maxVerdict)
	}
	if err := jsonv2.Unmarshal(text, &answer, jsonv2.RejectUnknownMembers(true)); err != nil {
		return Verdict{}, invalid("no verdict of the schema")
	}
	switch {
	case answer.Verdict == nil || answer.RuleIDs == nil || answer.Reason == nil || answer.InjectionSuspected == nil:
		return Verdict{}, invalid("a verdict without verdict, rule_ids, reason or injection_suspected")
	case *answer.Verdict != Approve && *answer.Verdict != Reject:
		return Verdict{}, invalid("a verdict that is neither approve nor reject")
	case len(*answer.RuleIDs) > maxRuleIDs:
		return Verdict{}, invalid("a verdict with more than %d rule_ids", maxRuleIDs)
	}
	v := Verdict{*answer.Verdict, []string{}, Clean(*answer.Reason, MaxReason), *answer.InjectionSuspected}
	for _, id := range *answer.RuleIDs {
		if id = Clean(id, maxRuleID); id != "" && !slices.Contains(v.RuleIDs, id) {
			v.RuleIDs = append(v.RuleIDs, id)
		}
	}
	return v, nil
}

func invalid(format string, args ...any) *ModelError {
	return &ModelError{Cause: CauseInvalid, Text: fmt.Sprintf(format, args...)}
}

// Clean makes one line of a text from a stranger, of at most so many characters: no control, nothing that steers
// direction or has no width.
func Clean(text string, most int) string {
	var out []rune
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			if len(out) > 0 && out[len(out)-1] != ' ' {
				out = append(out, ' ')
			}
		case !unicode.IsPrint(r) || unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
		default:
			out = append(out, r)
		}
		if len(out) > most {
			break
		}
	}
	return strings.TrimSpace(string(out[:min(len(out), most)]))
}
