package prompting

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
)

func rulesOf(t testing.TB, when string, review bool, rules ...Rule) (*Rules, error) {
	t.Helper()
	c, err := condition.NewWriteCompiler(100)
	require.NoError(t, err)
	return CompileRules(c, when, rules, review)
}

func write(t testing.TB, text string) *condition.Event {
	t.Helper()
	e, err := condition.NewWrite([]byte(text))
	require.NoError(t, err)
	return e
}

func TestRulesJudge(t *testing.T) {
	rules, err := rulesOf(t, `event.aggregate_type == "employee"`, true,
		Rule{"name", `after.name == ""`, "no\nname"},
		Rule{"raise", `after.salary > before.salary * 2`, "more than twice"},
		Rule{"both", `after.name == "" && after.salary > 1`, "never shown first"})
	require.NoError(t, err)
	for text, want := range map[string]Verdict{
		`{"before":{"salary":1},"after":{"name":"a","salary":2}}`: {Verdict: Approve, RuleIDs: []string{}},
		`{"before":{"salary":1},"after":{"name":"a","salary":3}}`: {Reject, []string{"raise"}, "more than twice", false},
		`{"before":{"salary":9},"after":{"name":"","salary":3}}`:  {Reject, []string{"name", "both"}, "no name", false},
		// raise cannot be told without a salary before, which does not undo the denial of another one.
		`{"before":null,"after":{"name":"","salary":1}}`: {Reject, []string{"name"}, "no name", false},
	} {
		got, err := rules.Judge(t.Context(), write(t, text))
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	v, err := rules.Judge(t.Context(), write(t, `{"before":null,"after":{"name":"a","salary":1}}`))
	var failure *ModelError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, CauseCondition, failure.Cause)
	require.Contains(t, failure.Text, "raise")
	require.Zero(t, v, "an error is no approval")

	matches, err := rules.Matches(t.Context(), write(t, `{"aggregate_type":"task"}`))
	require.True(t, err == nil && !matches)
	_, err = rules.Matches(t.Context(), write(t, `{}`))
	require.ErrorAs(t, err, &failure)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = rules.Judge(ctx, write(t, `{}`))
	require.ErrorAs(t, err, &failure)
	require.Equal(t, CauseTimeout, failure.Cause)
}

func TestRulesOutputs(t *testing.T) {
	rules, err := rulesOf(t, "", false, Rule{"size", `size(changed)`, ""}, Rule{"who", `{"id": event.aggregate_id}`, ""})
	require.NoError(t, err)
	out, err := rules.Outputs(t.Context(), write(t, `{"aggregate_id":9007199254740993,"changed":["a"]}`))
	require.NoError(t, err)
	require.JSONEq(t, `{"size":1,"who":{"id":9007199254740993}}`, string(out))
	require.Contains(t, string(out), "9007199254740993")
	_, err = rules.Outputs(t.Context(), write(t, `{}`))
	require.Error(t, err)
}

func TestRulesRefused(t *testing.T) {
	for _, tt := range []struct {
		when  string
		rule  Rule
		field string
		text  string
	}{
		{"event.", Rule{"a", "true", ""}, "condition", "line 1, column 7"},
		{"1", Rule{"a", "true", ""}, "condition", "wanted bool"},
		{"", Rule{"a", "true &&\n nothing", ""}, "rules[0].expression", "line 2, column 2"},
		{"", Rule{"a", "'text'", ""}, "rules[0].expression", "wanted bool"},
		{"", Rule{"a", "", ""}, "rules[0].expression", "1 to"},
		{"", Rule{"a b", "true", ""}, "rules[0].id", ""},
	} {
		_, err := rulesOf(t, tt.when, true, tt.rule)
		var e *errs.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, tt.field, e.Fields[0].Field)
		require.Contains(t, e.Fields[0].Description, tt.text)
	}
	_, err := rulesOf(t, "", true, Rule{"a", "true", ""}, Rule{"a", "true", ""})
	require.Error(t, err)
	_, err = rulesOf(t, "", true, make([]Rule, MaxRules+1)...)
	require.Error(t, err)
}
