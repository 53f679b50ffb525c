package records

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/errs"
)

// TestMergePatch has the cases of RFC 7396, appendix A, that are about objects.
func TestMergePatch(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"n":1}`, `{"n":123456789012345678901234567890.10}`, `{"n":123456789012345678901234567890.10}`},
	} {
		require.Equal(t, c[2], string(mergePatch([]byte(c[0]), []byte(c[1]))), "%s + %s", c[0], c[1])
	}
}

func objects() *rapid.Generator[map[string]any] {
	leaf := rapid.OneOf(rapid.Just[any](nil), rapid.Map(rapid.Int64(), func(n int64) any { return json.Number(json.RawMessage(itoa(n))) }), rapid.Map(rapid.String(), func(s string) any { return s }))
	inner := rapid.Map(rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "ü\"", ""}), leaf, 0, 3), func(m map[string]any) any { return m })
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c", "external_id"}), rapid.OneOf(leaf, inner), 0, 4)
}

// apply is RFC 7396's own algorithm over decoded values: a second opinion.
func apply(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if t, ok := target.(map[string]any); ok {
		for k, v := range t {
			out[k] = v
		}
	}
	for k, v := range p {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = apply(out[k], v)
		}
	}
	return out
}

func TestMergePatchAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		target, patch := objects().Draw(t, "target"), objects().Draw(t, "patch")
		text := func(v any) []byte { b, err := json.Marshal(v); require.NoError(t, err); return b }
		got := mergePatch(text(target), text(patch))
		require.JSONEq(t, string(text(apply(target, patch))), string(got))
		before, after := diffObjects(text(target), got)
		require.Equal(t, len(before)+len(after) == 0, equal(text(target), got), "a difference is found exactly when there is one")
	})
}

func TestUpdateDecides(t *testing.T) {
	now := time.Date(2026, 4, 12, 14, 30, 0, 0, time.UTC)
	id := func(n int64) *int64 { return &n }
	current := Current{Record: Record{Type: "task", Name: "a", Attributes: []byte(`{"x": 1, "y": {"z": 1.0}}`), Version: 4, WorkflowID: id(7)}, Now: now}
	name := "flow"
	current.Names.Workflow = &name

	change, err := (&Update{Mask: []string{"name", "attributes"}, Name: "b", Attributes: []byte(`{"x":null,"y":{"q":[2]}}`)}).decide(current)
	require.NoError(t, err)
	require.Equal(t, `{"attributes":{"before":{"x":1,"y":{"z":1.0}},"after":{"y":{"q":[2],"z":1.0}}},"name":{"before":"a","after":"b"}}`, string(change.Changes))
	require.Equal(t, int64(5), change.Next.Version)
	require.Equal(t, now, change.Next.UpdatedAt)

	change, err = (&Update{Mask: []string{"name", "attributes", "workflow_id"}, Name: "a", Attributes: []byte(`{"y":{"z":1.0}}`), WorkflowID: id(7)}).decide(current)
	require.NoError(t, err)
	require.Nil(t, change, "what changes nothing is no change")

	change, err = (&Update{Mask: []string{"workflow_id"}}).decide(current)
	require.NoError(t, err)
	require.Equal(t, `{"workflow_id":{"before":7,"after":null}}`, string(change.Changes))
	require.Nil(t, change.Names.Workflow)

	_, err = (&Update{Mask: []string{"workflow_id"}, WorkflowID: id(8)}).decide(Current{Record: current.Record, Now: now})
	require.Equal(t, "REFERENCE_MISSING", errs.From(err).Fields[0].Reason)
	_, err = (&Update{Mask: []string{"attributes"}, Attributes: []byte(`{"b":"` + strings.Repeat("x", 200<<10) + `"}`)}).
		decide(Current{Record: Record{Attributes: []byte(`{"a":"` + strings.Repeat("x", 200<<10) + `"}`)}})
	require.Equal(t, "TOO_LARGE", errs.From(err).Fields[0].Reason, "two patches within the limit can add up to more")
}

func TestAttributes(t *testing.T) {
	for text, reason := range map[string]string{
		`{}`: "", `{"a":1e308,"b":-0,"c":1E-308}`: "", `{"external_id":5}`: "", `{"x":{"external_id":""}}`: "", `{"a":"external_id"}`: "",
		`{"external_id":""}`: "OUT_OF_RANGE", `{"external_id":"` + strings.Repeat("é", 255) + `"}`: "", `{"external_id":"` + strings.Repeat("é", 256) + `"}`: "OUT_OF_RANGE",
		`{"a":1e309}`: "OUT_OF_RANGE", `{"a":1e-309}`: "OUT_OF_RANGE", `{"a":1e99999999999999999999}`: "OUT_OF_RANGE", `{"a":` + strings.Repeat("9", 1001) + `}`: "OUT_OF_RANGE",
		``: "MALFORMED_JSON", `{`: "MALFORMED_JSON", `{}x`: "MALFORMED_JSON", `{"a":1,"a":1}`: "DUPLICATE_KEY", `[]`: "NOT_AN_OBJECT", `null`: "NOT_AN_OBJECT", `"{}"`: "NOT_AN_OBJECT",
		`{"a":"\u0000"}`: "NUL_CHARACTER", `{"\u0000":1}`: "NUL_CHARACTER", `{"a":"\ud800"}`: "MALFORMED_JSON", "{\"a\":\"\xff\"}": "MALFORMED_JSON",
		strings.Repeat(`{"a":`, 32) + `1` + strings.Repeat(`}`, 32): "", strings.Repeat(`{"a":`, 33) + `1` + strings.Repeat(`}`, 33): "TOO_DEEP",
	} {
		_, got, allowed := checkAttributes([]byte(text))
		require.Equal(t, reason, got, "%.60q", text)
		require.Equal(t, reason == "", allowed == "")
	}
}

func FuzzAttributes(f *testing.F) {
	for _, seed := range []string{`{"a":[1e9,"\ud83d\ude00"]}`, `{"\u0000":1}`, `{}{}`, `{"a":{"b":{}}}`, "{\"\xff\":1}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, reason, _ := checkAttributes([]byte(text)); reason != "" {
			return
		}
		merged := mergePatch([]byte(`{"a":{"b":1},"z":2}`), []byte(text))
		if !json.Valid([]byte(text)) || !json.Valid(merged) {
			t.Fatalf("%q was taken, merged: %q", text, merged)
		}
	})
}
