package strict_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sametick/sametick/services/prompt-worker/internal/provider/strict"
)

func TestOpenAI(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"all required, closed, in order": {
			`{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"integer"}},"required":["b","a"]}`,
			`{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"integer"}},"required":["b","a"],"additionalProperties":false}`,
		},
		"optional ones are null": {
			`{"type":"object","properties":{"a":{"type":"string"},"e":{"enum":["x"]},"n":{"type":["string","null"]}}}`,
			`{"type":"object","properties":{"a":{"type":["string","null"]},"e":{"anyOf":[{"enum":["x"],"type":"string"},{"type":"null"}]},"n":{"type":["string","null"]}},` +
				`"required":["a","e","n"],"additionalProperties":false}`,
		},
		"what strict mode does not know is left out": {
			`{"$schema":"x","type":"object","additionalProperties":true,"minProperties":1,"required":["a"],"properties":` +
				`{"a":{"type":"string","default":"d","minLength":1,"maxLength":5,"pattern":"^x","format":"uri"}}}`,
			`{"type":"object","properties":{"a":{"pattern":"^x","type":"string"}},"required":["a"],"additionalProperties":false}`,
		},
		"inside arrays, variants and definitions": {
			`{"type":"object","required":["l"],"$defs":{"d":{"type":"object","properties":{"x":{"type":"number"}}}},"properties":` +
				`{"l":{"type":"array","maxItems":3,"items":{"oneOf":[{"$ref":"#/$defs/d"},{"type":"null"}]}}}}`,
			`{"$defs":{"d":{"type":"object","properties":{"x":{"type":["number","null"]}},"required":["x"],"additionalProperties":false}},` +
				`"type":"object","properties":{"l":{"maxItems":3,"type":"array","items":{"anyOf":[{"$ref":"#/$defs/d"},{"type":"null"}]}}},` +
				`"required":["l"],"additionalProperties":false}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := strict.OpenAI(json.RawMessage(c.in))
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
		})
	}
}

func TestOpenAIRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"no JSON":            `{`,
		"a doubled name":     `{"type":"object","type":"object","properties":{"a":{"type":"string"}}}`,
		"anything":           `{}`,
		"true":               `true`,
		"no object":          `{"type":"array","items":{"type":"string"}}`,
		"maybe an object":    `{"type":["object","null"],"properties":{"a":{"type":"string"}}}`,
		"variants":           `{"type":"object","anyOf":[{"type":"object","properties":{"a":{"type":"string"}}}]}`,
		"any members":        `{"type":"object","additionalProperties":{"type":"string"}}`,
		"no members":         `{"type":"object","properties":{}}`,
		"properties no map":  `{"type":"object","properties":[]}`,
		"any value":          `{"type":"object","properties":{"a":{}}}`,
		"any items":          `{"type":"object","properties":{"a":{"type":"array"}}}`,
		"allOf":              `{"type":"object","properties":{"a":{"allOf":[{"type":"string"}]}}}`,
		"required, unnamed":  `{"type":"object","properties":{"a":{"type":"string"}},"required":["b"]}`,
		"without any bottom": strings.Repeat(`{"type":"object","properties":{"a":`, 40) + `{"type":"string"}` + strings.Repeat(`}}`, 40),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := strict.OpenAI(json.RawMessage(in))
			require.Error(t, err)
		})
	}
}

func TestAnthropic(t *testing.T) {
	got, err := strict.Anthropic(json.RawMessage(`{"type":"object","required":["a"],"properties":{"a":{"type":"integer","minimum":1},` +
		`"l":{"type":"array","minItems":2,"maxItems":3,"items":{"type":"string","format":"uri"}},"one":{"type":"array","minItems":1,"items":{"type":"string"}}}}`))
	require.NoError(t, err)
	require.Equal(t, `{"type":"object","properties":{"a":{"type":"integer"},"l":{"type":"array","items":{"format":"uri","type":"string"}},`+
		`"one":{"minItems":1,"type":"array","items":{"type":"string"}}},"required":["a"],"additionalProperties":false}`, string(got))
}

func TestRestore(t *testing.T) {
	schema := `{"type":"object","required":["r"],"properties":{"r":{"type":["string","null"]},"o":{"type":"string"},"n":{"type":["string","null"]},` +
		`"d":{"$ref":"#/$defs/d"},"v":{"anyOf":[{"$ref":"#/$defs/d"},{"type":"object","required":["y"],"properties":{"y":{"type":"null"}}}]},` +
		`"l":{"type":"array","items":{"$ref":"#/$defs/d"}}},"$defs":{"d":{"type":"object","properties":{"x":{"type":"number"},"d":{"$ref":"#/$defs/d"}}}}}`
	for in, want := range map[string]string{
		`{"r":null,"o":null,"n":null}`:                                `{"r":null,"n":null}`,
		`{"o":"","d":{"x":1.50,"d":{"x":null,"d":null}}}`:             `{"o":"","d":{"x":1.50,"d":{}}}`,
		`{"l":[{"x":null},null,{"x":12345678901234567890}],"v":null}`: `{"l":[{},null,{"x":12345678901234567890}]}`,
		`{"v":{"x":null,"y":null}}`:                                   `{"v":{"y":null}}`,
		`{"unknown":null,"o":null}`:                                   `{"unknown":null}`,
		`[null]`:                                                      `[null]`,
		`null`:                                                        `null`,
		`{"d":` + strings.Repeat(`{"d":`, 500) + `null` + strings.Repeat(`}`, 501): `{"d":` + strings.Repeat(`{"d":`, 500) + `null` + strings.Repeat(`}`, 501),
	} {
		require.Equal(t, want, string(strict.Restore(json.RawMessage(schema), json.RawMessage(in))))
	}
}

// A schema that refers to itself from two sides would double the work with each level.
func TestRestoreIsBounded(t *testing.T) {
	schema := `{"type":"object","properties":{"a":{"$ref":"#/$defs/p"}},"$defs":{"p":{"anyOf":[{"$ref":"#/$defs/q"},{"$ref":"#/$defs/q"}]},` +
		`"q":{"anyOf":[{"$ref":"#/$defs/p"},{"$ref":"#/$defs/p"},{"type":"string"}]}}}`
	require.Equal(t, `{}`, string(strict.Restore(json.RawMessage(schema), json.RawMessage(`{"a":null}`))))
}

// What fulfils the strict schema fulfils, restored, the schema it was made of: with every optional member null, a value
// is never refused for what OpenAI did.
func TestOpenAIThenRestore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		schema := drawObject(t, 3)
		raw, err := json.Marshal(schema)
		require.NoError(t, err)
		made, err := strict.OpenAI(raw)
		require.NoError(t, err)
		answer, err := json.Marshal(drawAnswer(t, decode(t, made)))
		require.NoError(t, err)
		require.NoError(t, compile(t, made).Validate(decode(t, answer)), "%s: %s", made, answer)
		back := strict.Restore(raw, answer)
		require.NoError(t, compile(t, raw).Validate(decode(t, back)), "%s: %s of %s", raw, back, answer)
	})
}

func decode(t require.TestingT, raw []byte) any {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(raw)))
	require.NoError(t, err)
	return v
}

func compile(t require.TestingT, raw []byte) *jsonschema.Schema {
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("s", decode(t, raw)))
	s, err := c.Compile("s")
	require.NoError(t, err)
	return s
}

func drawObject(t *rapid.T, depth int) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 4, rapid.ID[string]).Draw(t, "names") {
		properties[name] = drawSchema(t, depth-1)
		if rapid.Bool().Draw(t, "required") {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required}
}

func drawSchema(t *rapid.T, depth int) map[string]any {
	kinds := []string{"string", "maybe", "enum", "number"}
	if depth > 0 {
		kinds = append(kinds, "object", "array", "anyOf")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "object":
		return drawObject(t, depth)
	case "array":
		return map[string]any{"type": "array", "items": drawSchema(t, depth-1)}
	case "anyOf":
		return map[string]any{"anyOf": []any{drawSchema(t, depth-1), map[string]any{"type": "boolean"}}}
	case "maybe":
		return map[string]any{"type": []string{"string", "null"}}
	case "enum":
		return map[string]any{"enum": []any{"x", "y"}}
	case "number":
		return map[string]any{"type": "number", "minimum": 0}
	default:
		return map[string]any{"type": "string"}
	}
}

// drawAnswer takes null wherever it may: that is what Restore is for.
func drawAnswer(t *rapid.T, schema any) any {
	s := schema.(map[string]any)
	if variants, ok := s["anyOf"].([]any); ok {
		return drawAnswer(t, rapid.SampledFrom(variants).Draw(t, "variant"))
	}
	if values, ok := s["enum"].([]any); ok {
		return values[0]
	}
	kind, _ := s["type"].(string)
	if list, ok := s["type"].([]any); ok {
		kind = rapid.SampledFrom(list).Draw(t, "type").(string)
	}
	switch kind {
	case "object":
		out := map[string]any{}
		for name, p := range s["properties"].(map[string]any) {
			out[name] = drawAnswer(t, p)
		}
		return out
	case "array":
		return []any{drawAnswer(t, s["items"])}
	case "number":
		return 1
	case "boolean":
		return true
	case "null":
		return nil
	default:
		return "x"
	}
}

func FuzzOpenAI(f *testing.F) {
	f.Add([]byte(`{"type":"object","properties":{"a":{"$ref":"#"}}}`), []byte(`{"a":{"a":null}}`))
	f.Fuzz(func(t *testing.T, schema, answer []byte) {
		made, err := strict.OpenAI(schema)
		require.True(t, err != nil || json.Valid(made))
		if json.Valid(answer) {
			require.True(t, json.Valid(strict.Restore(schema, answer)))
		}
	})
}
