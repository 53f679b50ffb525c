package prompting

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/sametick/sametick/pkg/errs"
)

func TestParseVerdict(t *testing.T) {
	v, err := ParseVerdict([]byte(`{"verdict":"reject","rule_ids":["a","a","b\u202e\n"],"reason":"too\n\n much\u0000","injection_suspected":false}`))
	require.NoError(t, err)
	require.Equal(t, Verdict{Reject, []string{"a", "b"}, "too much", false}, v)
	for name, text := range map[string]string{
		"empty":           ``,
		"null":            `null`,
		"text":            `approve`,
		"a fence of code": "```json\n" + `{"verdict":"approve","rule_ids":[],"reason":"","injection_suspected":false}` + "\n```",
		"prose after":     `{"verdict":"approve","rule_ids":[],"reason":"","injection_suspected":false} sure`,
		"other verdict":   `{"verdict":"approved","rule_ids":[],"reason":"","injection_suspected":false}`,
		"other case":      `{"Verdict":"approve","rule_ids":[],"reason":"","injection_suspected":false}`,
		"twice":           `{"verdict":"reject","verdict":"approve","rule_ids":[],"reason":"","injection_suspected":false}`,
		"one more":        `{"verdict":"approve","rule_ids":[],"reason":"","injection_suspected":false,"grant":true}`,
		"no suspicion":    `{"verdict":"approve","rule_ids":[],"reason":""}`,
		"null verdict":    `{"verdict":null,"rule_ids":[],"reason":"","injection_suspected":false}`,
		"null rules":      `{"verdict":"approve","rule_ids":null,"reason":"","injection_suspected":false}`,
		"text for a bool": `{"verdict":"approve","rule_ids":[],"reason":"","injection_suspected":"false"}`,
		"an array":        `[{"verdict":"approve","rule_ids":[],"reason":"","injection_suspected":false}]`,
		"no UTF-8":        "{\"verdict\":\"approve\",\"rule_ids\":[],\"reason\":\"\xff\",\"injection_suspected\":false}",
		"many rules":      `{"verdict":"approve","rule_ids":[` + strings.Repeat(`"a",`, maxRuleIDs) + `"a"],"reason":"","injection_suspected":false}`,
		"too long":        `{"verdict":"approve","rule_ids":[],"reason":"` + strings.Repeat("x", maxVerdict) + `","injection_suspected":false}`,
	} {
		v, err := ParseVerdict([]byte(text))
		var failure *ModelError
		require.True(t, errors.As(err, &failure), name)
		require.Equal(t, CauseInvalid, failure.Cause)
		require.Zero(t, v, "%s: an error is no verdict", name)
	}
}

// TestVerdictSchema: what the parser takes, the schema takes, and the other way round but for repeated members.
func TestVerdictSchema(t *testing.T) {
	_, text := VerdictSchema()
	output, err := CompileOutput(text)
	require.NoError(t, err)
	for answer, want := range map[string]bool{
		`{"verdict":"approve","rule_ids":[],"reason":"","injection_suspected":false}`:       true,
		`{"verdict":"approve","rule_ids":[],"reason":"","injection_suspected":false,"x":1}`: false,
		`{"verdict":"maybe","rule_ids":[],"reason":"","injection_suspected":false}`:         false,
		`{"verdict":"approve","rule_ids":[1],"reason":"","injection_suspected":false}`:      false,
		`{"verdict":"approve","reason":"","injection_suspected":false}`:                     false,
	} {
		_, err := ParseVerdict([]byte(answer))
		require.Equal(t, want, err == nil, answer)
		require.Equal(t, want, output.Check([]byte(answer)) == nil, answer)
	}
}

func FuzzParseVerdict(f *testing.F) {
	f.Add([]byte(`{"verdict":"approve","rule_ids":["a"],"reason":"x","injection_suspected":false}`))
	_, schema := VerdictSchema()
	output, err := CompileOutput(schema)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := ParseVerdict(text)
		if err != nil {
			require.Zero(t, v)
			return
		}
		require.NoError(t, output.Check(text))
		require.LessOrEqual(t, utf8.RuneCountInString(v.Reason), MaxReason)
		require.Equal(t, v.Reason, Clean(v.Reason, MaxReason))
	})
}

func TestClean(t *testing.T) {
	require.Equal(t, "a b", Clean("\u200b a \u2028\r\n b \x1b", 10))
	require.Equal(t, "[31mx", Clean("\x1b[31mx", 10), "a terminal does nothing with it")
	require.Equal(t, strings.Repeat("é", 5), Clean(strings.Repeat("é", 9), 5))
	require.Equal(t, "abc", Clean("abc d", 4))
	require.Equal(t, "", Clean("\u202e\U000e0041", 4))
}

func TestCompileOutput(t *testing.T) {
	bomb := `{"type":"object","$defs":{`
	for i := range 20 {
		n := strconv.Itoa(i + 1)
		bomb += `"d` + strconv.Itoa(i) + `":{"allOf":[{"$ref":"#/$defs/d` + n + `"},{"$ref":"#/$defs/d` + n + `"}]},`
	}
	bomb += `"d20":{}},"properties":{"a":{"$ref":"#/$defs/d0"}}}`
	for text, reason := range map[string]string{
		`[]`:                                     "NOT_OF_OBJECTS",
		`{"type":"string"}`:                      "NOT_OF_OBJECTS",
		`{"type":"object"`:                       "MALFORMED_JSON",
		`{"type":"object","properties":1}`:       "INVALID_SCHEMA",
		`{"type":"object","$id":"http://x"}`:     "NOT_ALLOWED",
		`{"type":"object","$schema":"http://x"}`: "NOT_ALLOWED",
		`{"type":"object","properties":{"a":{"$ref":"http://127.0.0.1/x"}}}`: "NOT_ALLOWED",
		`{"type":"object","properties":{"a":{"$ref":"#"}}}`:                  "TOO_COMPLEX",
		bomb: "TOO_COMPLEX",
		`{"type":"object","properties":` + strings.Repeat(`{"a":`, 30) + `1` + strings.Repeat("}", 31): "NOT_ALLOWED",
		strings.Repeat(" ", MaxSchema+1): "TOO_LARGE",
	} {
		_, err := CompileOutput([]byte(text))
		var e *errs.Error
		require.ErrorAs(t, err, &e, text)
		require.Equal(t, reason, e.Fields[0].Reason, "%s: %v", text, e.Fields)
	}
}

func TestOutputCheck(t *testing.T) {
	o, err := CompileOutput([]byte(`{"type":"object", "required":["n"], "properties":{"n":{"type":"integer"}, "at":{"type":"string","format":"date"}}}`))
	require.NoError(t, err)
	require.True(t, json.Valid(o.Schema()))
	require.NoError(t, o.Check([]byte(`{"n":1,"at":"2026-04-12"}`)))
	for _, answer := range []string{``, `{}`, `{"n":"secret"}`, `{"n":1,"at":"soon"}`, `{"n":1}{"n":1}`, strings.Repeat(" ", MaxOutput) + `{"n":1}`} {
		err := o.Check([]byte(answer))
		var failure *ModelError
		require.ErrorAs(t, err, &failure, answer)
		require.Equal(t, CauseInvalid, failure.Cause)
		require.NotContains(t, failure.Text, "secret")
	}
}
