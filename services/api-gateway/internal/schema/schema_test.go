package schema

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/pkg/event"
)

func mustBuiltin(t testing.TB) map[event.Type]*Schema {
	all, err := Builtin()
	require.NoError(t, err)
	require.Len(t, all, 17)
	return all
}

func TestBuiltin(t *testing.T) {
	all := mustBuiltin(t)
	seen := map[string]string{}
	for typ, s := range all {
		var doc struct {
			Description string
			Properties  map[string]struct{ Description string }
		}
		require.NoError(t, json.Unmarshal(s.Text(), &doc))
		require.NotEmpty(t, doc.Description)
		require.GreaterOrEqual(t, len(doc.Properties), 3, typ)
		text, err := json.Marshal(doc.Properties)
		require.NoError(t, err)
		require.Empty(t, seen[string(text)], "%s is no copy", typ)
		seen[string(text)] = typ
		for _, r := range s.references {
			require.True(t, event.IsType(r.typ), "%s refers to %s", typ, r.typ)
		}
		require.Empty(t, s.Check([]byte(`{"a field of their own": {"deep": [1, null]}}`)), typ)
		_, faults := Compile(s.Text())
		require.Empty(t, faults, "%s could be anybody's", typ)
	}
}

func TestFaultsNameTheField(t *testing.T) {
	all := mustBuiltin(t)
	for _, c := range []struct{ typ, attributes, want string }{
		{"task", `{"status":"later"}`, "[{status NOT_IN_ENUM one of: open, in_progress, blocked, done, cancelled}]"},
		{"task", `{"due_date":"2026-02-30"}`, "[{due_date INVALID_FORMAT a date: 2026-04-12}]"},
		{"task", `{"estimate_hours":-1,"tags":["a",1]}`, "[{estimate_hours OUT_OF_RANGE at least 0} {tags[1] WRONG_TYPE of type string}]"},
		{"task", `{"assignee_id":1.5}`, "[{assignee_id WRONG_TYPE of type integer}]"},
		{"task", `{"description":null}`, "[]"},
		{"employee", `{"email":"nobody"}`, "[{email INVALID_FORMAT an email address}]"},
		{"survey", `{"questions":[{"key":"a","text":"?"},{"key":"b"}]}`, "[{questions[1].text REQUIRED a value}]"},
		{"kudos", `{"to_employee_ids":[1,1]}`, "[{to_employee_ids DUPLICATE each item once}]"},
		{"webhook_endpoint", `{"url":"/relative"}`, "[{url INVALID_FORMAT an absolute URL}]"},
		{"organization", `{"currency":"Euro"}`, "[{currency INVALID_FORMAT text that matches ^[A-Z]{3}$}]"},
		{"calendar_event", `{"starts_at":"2026-04-12"}`, "[{starts_at INVALID_FORMAT a time with its zone: 2026-04-12T14:30:00Z}]"},
	} {
		got := all[c.typ].Check([]byte(c.attributes))
		slices.SortFunc(got, func(a, b Fault) int { return len(b.Reason) - len(a.Reason) })
		want := c.want
		if len(got) == 2 { // the library's order is a map's
			want = fmt.Sprint(got)
			require.ElementsMatch(t, []string{"OUT_OF_RANGE", "WRONG_TYPE"}, []string{got[0].Reason, got[1].Reason})
		}
		require.Equal(t, want, fmt.Sprint(got), c.attributes)
	}
}

func TestReferences(t *testing.T) {
	all := mustBuiltin(t)
	require.Equal(t, []Ref{{"assignee_id", "employee", 7}}, all["task"].References([]byte(`{"assignee_id":7,"team_id":null}`)))
	require.Equal(t, []Ref{{"from_employee_id", "employee", 1}, {"to_employee_ids[0]", "employee", 2}, {"to_employee_ids[1]", "employee", 3}},
		all["kudos"].References([]byte(`{"to_employee_ids":[2,3],"from_employee_id":1}`)))
	s, faults := Compile([]byte(`{"type":"object","properties":{"rows":{"type":"array","items":{"type":"object","properties":{"who":{"x-reference":"user"}}}}}}`))
	require.Empty(t, faults)
	require.Equal(t, []Ref{{"rows[1].who", "user", 4}}, s.References([]byte(`{"rows":[{},{"who":4},{"who":"4"}]}`)))
}

func TestOwnSchemasThatAreRefused(t *testing.T) {
	deep := `{"type":"object"}`
	for range 30 {
		deep = `{"type":"object","properties":{"a":` + deep + `}}`
	}
	for text, reason := range map[string]string{
		doubling(40): "TOO_COMPLEX", // 2^40 steps for {}
		`{"type":"object","$defs":{"a":{"properties":{"b":{"$ref":"#/$defs/a"},"c":{}}}},"$ref":"#/$defs/a"}`: "TOO_COMPLEX",
		`{"type":"object","properties":{"a":{"$ref":"#"}}}`:                                                   "TOO_COMPLEX",
		`{"type":"object","$dynamicAnchor":"x","items":{"$dynamicRef":"#x"}}`:                                 "TOO_COMPLEX",
		`{"type":"object","$defs":{"a":{"x-reference":"task"}},"properties":{"a":{"$ref":"#/$defs/a"}}}`:      "NOT_ALLOWED",
		`{"type":"object","allOf":[{"properties":{"a":{"x-reference":"task"}}}]}`:                             "NOT_ALLOWED",
		`{`: "MALFORMED_JSON", `[]`: "NOT_OF_OBJECTS", `{"type":"string"}`: "NOT_OF_OBJECTS", deep: "TOO_DEEP",
		`{"type":"object","$schema":"http://json-schema.org/draft-04/schema#"}`:      "NOT_IN_ENUM",
		`{"type":"object","properties":{"a":{"$ref":"https://example.com/x.json"}}}`: "REMOTE_REFERENCE",
		`{"type":"object","properties":{"a":{"$ref":"file:///etc/passwd"}}}`:         "REMOTE_REFERENCE",
		`{"type":"object","$id":"https://example.com/x"}`:                            "NOT_ALLOWED",
		`{"type":"object","properties":{"a":{"type":"text"}}}`:                       "INVALID_SCHEMA",
		`{"type":"object","properties":{"a":{"pattern":"("}}}`:                       "INVALID_SCHEMA",
		`{"type":"object","properties":{"a":{"$ref":"#/$defs/none"}}}`:               "INVALID_SCHEMA",
		`{"type":"object","properties":{"a":{"x-reference":7}}}`:                     "INVALID_TYPE",
	} {
		_, faults := Compile([]byte(text))
		require.NotEmpty(t, faults, text)
		require.Equal(t, reason, faults[0].Reason, text)
		require.NotEmpty(t, faults[0].Allowed)
	}
}

// doubling is a schema of n definitions, each of which refers twice to the next.
func doubling(n int) string {
	defs := `"d0":{}`
	for i := range n {
		defs = fmt.Sprintf(`"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},%s`, i+1, i, i, defs)
	}
	return fmt.Sprintf(`{"type":"object","$defs":{%s},"$ref":"#/$defs/d%d"}`, defs, n)
}

func TestOwnSchemasThatAreTaken(t *testing.T) {
	fields := make([]string, 1900)
	for i := range fields {
		fields[i] = fmt.Sprintf(`"f%d":{"type":"string"}`, i)
	}
	for _, text := range []string{doubling(8), `{"type":"object","properties":{` + strings.Join(fields, ",") + `}}`,
		`{"type":"object","$defs":{"a":{"type":"string"}},"properties":{"a":{"$ref":"#/$defs/a"},"b":{"type":"array","items":{"x-reference":"task"}}}}`} {
		_, faults := Compile([]byte(text))
		require.Empty(t, faults)
	}
}

func TestCompatible(t *testing.T) {
	compile := func(text string) *Schema {
		s, faults := Compile([]byte(text))
		require.Empty(t, faults, text)
		return s
	}
	for _, c := range []struct{ old, next, at string }{
		{`{"type":"object"}`, `{"type":"object","title":"x"}`, ""},
		{`{"type":"object","additionalProperties":false}`, `{"type":"object","additionalProperties":false,"properties":{"a":{"type":"string"}}}`, ""},
		{`{"type":"object"}`, `{"type":"object","properties":{"a":{"type":"string"}}}`, "schema.properties.a"},
		{`{"type":"object"}`, `{"type":"object","properties":{"a":{"description":"any"}}}`, ""},
		{`{"type":"object"}`, `{"type":"object","required":["a"]}`, "schema.required"},
		{`{"type":"object","required":["a"]}`, `{"type":"object"}`, ""},
		{`{"type":"object"}`, `{"type":"object","additionalProperties":false}`, "schema.additionalProperties"},
		{`{"type":"object","properties":{"a":{}},"additionalProperties":false}`, `{"type":"object","additionalProperties":false}`, "schema.properties.a"},
		{`{"type":"object","properties":{"a":{"type":"integer"}}}`, `{"type":"object","properties":{"a":{"type":["number","null"]}}}`, ""},
		{`{"type":"object","properties":{"a":{"type":"number"}}}`, `{"type":"object","properties":{"a":{"type":"integer"}}}`, "schema.properties.a.type"},
		{`{"type":"object","properties":{"a":{"enum":[1,2]}}}`, `{"type":"object","properties":{"a":{"enum":[1,2,3]}}}`, ""},
		{`{"type":"object","properties":{"a":{"enum":[1,2]}}}`, `{"type":"object","properties":{"a":{"enum":[1]}}}`, "schema.properties.a.enum"},
		{`{"type":"object","properties":{"a":{"maximum":5}}}`, `{"type":"object","properties":{"a":{"maximum":4}}}`, "schema.properties.a.maximum"},
		{`{"type":"object","properties":{"a":{"minLength":5}}}`, `{"type":"object","properties":{"a":{"minLength":4}}}`, ""},
		{`{"type":"object","properties":{"a":{"pattern":"a"}}}`, `{"type":"object","properties":{"a":{"pattern":"b"}}}`, "schema.properties.a.pattern"},
		{`{"type":"object","properties":{"a":{"items":{"type":"string"}}}}`, `{"type":"object","properties":{"a":{"items":{}}}}`, ""},
		{`{"type":"object","not":{"$ref":"#/properties/a"},"properties":{"a":{"enum":[1]}}}`, `{"type":"object","not":{"$ref":"#/properties/a"},"properties":{"a":{}}}`, "schema"},
		{`{"type":"object","properties":{"a":{"prefixItems":[true],"items":false}}}`, `{"type":"object","properties":{"a":{"items":false}}}`, "schema.properties.a.prefixItems"},
	} {
		faults := Compatible(compile(c.old), compile(c.next))
		if c.at == "" {
			require.Empty(t, faults, c.next)
			continue
		}
		require.NotEmpty(t, faults, c.next)
		require.Equal(t, c.at, faults[0].Field)
	}
}

// drawSchema makes a small schema, so that two of them are often near each other.
func drawSchema(t *rapid.T, depth int) map[string]any {
	s := map[string]any{}
	maybe := func(word string, v func() any) {
		if rapid.IntRange(0, 3).Draw(t, word) == 0 {
			s[word] = v()
		}
	}
	maybe("type", func() any {
		return rapid.SampledFrom([]any{"string", "integer", "number", "object", "array", "null"}).Draw(t, "t")
	})
	maybe("enum", func() any {
		return rapid.SampledFrom([]any{[]any{1}, []any{1, "a"}, []any{"a", nil}}).Draw(t, "e")
	})
	maybe("minimum", func() any { return rapid.IntRange(0, 2).Draw(t, "m") })
	maybe("maxLength", func() any { return rapid.IntRange(0, 2).Draw(t, "l") })
	maybe("minProperties", func() any { return rapid.IntRange(0, 2).Draw(t, "p") })
	maybe("uniqueItems", func() any { return rapid.Bool().Draw(t, "u") })
	if depth == 0 {
		return s
	}
	sub := func() any { return drawSchema(t, depth-1) }
	maybe("items", sub)
	maybe("required", func() any {
		return rapid.SampledFrom([]any{[]any{"a"}, []any{"a", "b"}, []any{"b"}}).Draw(t, "r")
	})
	maybe("additionalProperties", func() any {
		if rapid.Bool().Draw(t, "closed") {
			return false
		}
		return sub()
	})
	if rapid.Bool().Draw(t, "properties") {
		properties := map[string]any{}
		for _, name := range []string{"a", "b"} {
			if rapid.Bool().Draw(t, name) {
				properties[name] = sub()
			}
		}
		s["properties"] = properties
	}
	return s
}

func drawValue(t *rapid.T, depth int) any {
	n := 5
	if depth == 0 {
		n = 3
	}
	switch rapid.IntRange(0, n).Draw(t, "kind") {
	case 0:
		return rapid.IntRange(-1, 3).Draw(t, "n")
	case 1:
		return rapid.SampledFrom([]string{"", "a", "bbb"}).Draw(t, "s")
	case 2:
		return nil
	case 3:
		return 1.5
	case 4:
		return []any{drawValue(t, depth-1), drawValue(t, depth-1)}
	default:
		return drawObject(t, depth)
	}
}

func drawObject(t *rapid.T, depth int) map[string]any {
	m := map[string]any{}
	for _, name := range []string{"a", "b", "c"} {
		if rapid.Bool().Draw(t, "has "+name) {
			m[name] = drawValue(t, max(0, depth-1))
		}
	}
	return m
}

// What was valid stays valid over every change that is taken; and changes are taken.
func TestCompatibleKeepsWhatWasValid(t *testing.T) {
	taken, compared := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		compile := func(m map[string]any) *Schema {
			m["type"] = "object"
			text, err := json.Marshal(m)
			require.NoError(t, err)
			s, err := compile(text)
			require.NoError(t, err)
			return s
		}
		first := drawSchema(t, 2)
		second := drawSchema(t, 2)
		if rapid.Bool().Draw(t, "related") { // else hardly any two are compatible
			second = map[string]any{}
			for k, v := range first {
				if rapid.IntRange(0, 3).Draw(t, "keep "+k) > 0 {
					second[k] = v
				}
			}
		}
		old, next := compile(first), compile(second)
		if len(Compatible(old, next)) > 0 {
			return
		}
		taken++
		for range 20 {
			doc, err := json.Marshal(drawObject(t, 2))
			require.NoError(t, err)
			if len(old.Check(doc)) == 0 {
				compared++
				require.Empty(t, next.Check(doc), "%s was valid by %s and is not by %s", doc, old.Text(), next.Text())
			}
		}
	})
	require.Positive(t, taken)
	require.Positive(t, compared)
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"type":"object","properties":{"a":{"type":"string","x-reference":"task"}}}`))
	f.Add([]byte(`{"type":"object","$defs":{"a":{"$ref":"#/$defs/a"}},"allOf":[{"$ref":"#/$defs/a"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, faults := Compile(text)
		if (s == nil) == (len(faults) == 0) {
			t.Fatalf("%q: %v", text, faults)
		}
		if s != nil {
			s.Check([]byte(`{"a":1,"b":[{"c":null}]}`))
			if again := Compatible(s, s); len(again) > 0 {
				t.Fatalf("%q is not compatible with itself: %v", text, again)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	s := mustBuiltin(b)["task"]
	task := []byte(`{"priority": "high", "estimate_hours": 12, "tags": ["review", "finance"], "due_date": "2026-04-12"}`)
	b.ReportAllocs()
	for b.Loop() {
		if len(s.Check(task)) > 0 {
			b.Fatal("faults")
		}
	}
}

// The same attributes are refused with the same faults in the same order, also where there are more than are told.
func TestFaultsAreInOrder(t *testing.T) {
	var properties, wrong []string
	for i := range 2 * maxFaults {
		properties = append(properties, fmt.Sprintf(`"p%02d":{"type":"string"}`, i))
		wrong = append(wrong, fmt.Sprintf(`"p%02d":1`, i))
	}
	s, faults := Compile([]byte(`{"type":"object","properties":{` + strings.Join(properties, ",") + `}}`))
	require.Empty(t, faults)
	first := s.Check([]byte("{" + strings.Join(wrong, ",") + "}"))
	require.Len(t, first, maxFaults)
	require.Equal(t, "p00", first[0].Field)
	for range 20 {
		require.Equal(t, first, s.Check([]byte("{"+strings.Join(wrong, ",")+"}")))
	}
}
