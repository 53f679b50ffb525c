// Package strict makes the schemas that providers enforce of a hook's JSON Schema, and brings answers back to it. It is
// apart from the adapters so that it can be fuzzed without their SDKs, which take long to build for that.
package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// errSchema is why a provider cannot enforce a schema; its text is for whoever wrote the schema.
var errSchema = errors.New("the schema cannot be enforced by this provider")

// dialect is the part of JSON Schema that a provider enforces.
type dialect struct {
	// nullable: each property must be required, so that optional ones are null instead of absent.
	nullable bool
	// keywords that narrow a value and are understood. Others are left out: the answer is validated by the
	// schema as it was.
	keywords []string
	formats  []string
	// smallArrays: minItems may be 0 or 1 only.
	smallArrays bool
}

// openAI is "structured outputs" (platform.openai.com/docs/guides/structured-outputs, supported schemas).
func openAI() dialect {
	return dialect{
		nullable: true,
		keywords: []string{"pattern", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"},
		formats:  []string{"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"},
	}
}

// anthropic is theirs (platform.claude.com/docs/en/build-with-claude/structured-outputs, limitations).
func anthropic() dialect {
	return dialect{
		keywords:    []string{"minItems"},
		formats:     []string{"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"},
		smallArrays: true,
	}
}

// OpenAI makes the schema that strict mode takes of a JSON Schema: every property required (optional ones
// become nullable), no others, no defaults; keywords that it does not know are left out, and the order of properties
// is kept, since answers follow it. An answer goes back through Restore. An error says what cannot be expressed.
func OpenAI(schema json.RawMessage) (json.RawMessage, error) { return openAI().convert(schema) }

// Anthropic makes the schema that output_config.format takes: objects are closed, optional properties stay so, and limits
// that it does not know are left out. An answer needs no Restore, and takes none amiss.
func Anthropic(schema json.RawMessage) (json.RawMessage, error) { return anthropic().convert(schema) }

// maxDepth of a schema: deeper ones are refused by providers, and would cost us stack.
const maxDepth = 32

func (d dialect) convert(schema json.RawMessage) (json.RawMessage, error) {
	raw := jsontext.Value(bytes.Clone(schema))
	if err := raw.Compact(); err != nil {
		return nil, fmt.Errorf("%w: it is no JSON", errSchema)
	}
	root, err := parseObject(raw)
	if err != nil || !slices.Equal(types(root), []string{"object"}) || root.has("anyOf") || root.has("oneOf") {
		return nil, fmt.Errorf("%w: the answer must be an object", errSchema)
	}
	out, err := d.node(raw, "", 0)
	return json.RawMessage(out), err
}

// node converts the schema at a path.
func (d dialect) node(raw jsontext.Value, at string, depth int) (jsontext.Value, error) {
	in, err := parseObject(raw)
	if err != nil {
		return nil, unsupported(at, "true and false are no schemas here")
	}
	switch {
	case depth > maxDepth:
		return nil, unsupported(at, "it is too deep")
	case in.has("allOf"), in.has("prefixItems"):
		return nil, unsupported(at, "allOf and prefixItems are not supported")
	}
	out, err := d.shared(in, at, depth)
	if err != nil {
		return nil, err
	}
	if in.has("$ref") {
		return append(out, member{"$ref", in.get("$ref")}).raw(), nil
	}
	if out, err = d.variants(in, out, at, depth); err != nil {
		return nil, err
	}
	kinds := types(in)
	if len(kinds) == 0 && !out.has("anyOf") {
		return nil, unsupported(at, "it has no type")
	}
	if len(kinds) > 0 {
		out = append(out, member{"type", encodeTypes(kinds)})
	}
	if slices.Contains(kinds, "array") {
		items, err := d.node(in.get("items"), at+"/items", depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, member{"items", items})
	}
	if slices.Contains(kinds, "object") {
		if out, err = d.properties(in, out, at, depth); err != nil {
			return nil, err
		}
	}
	return out.raw(), nil
}

// shared has what any schema may have: words, values, limits and definitions.
func (d dialect) shared(in object, at string, depth int) (out object, err error) {
	for _, m := range in {
		switch {
		case m.name == "description", m.name == "title", m.name == "enum", m.name == "const":
			out = append(out, m)
		case m.name == "format" && slices.Contains(d.formats, text(m.value)):
			out = append(out, m)
		case m.name == "minItems" && d.smallArrays && string(m.value) != "0" && string(m.value) != "1":
		case slices.Contains(d.keywords, m.name):
			out = append(out, m)
		case m.name == "$defs", m.name == "definitions":
			defs, err := d.each(m.value, at+"/"+m.name, depth)
			if err != nil {
				return nil, err
			}
			out = append(out, member{m.name, defs.raw()})
		}
	}
	return out, nil
}

// each converts every member of an object of schemas.
func (d dialect) each(raw jsontext.Value, at string, depth int) (object, error) {
	in, err := parseObject(raw)
	if err != nil {
		return nil, unsupported(at, "no object")
	}
	for i, m := range in {
		if in[i].value, err = d.node(m.value, at+"/"+m.name, depth+1); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (d dialect) variants(in, out object, at string, depth int) (object, error) {
	for _, name := range []string{"anyOf", "oneOf"} {
		list, ok := parseArray(in.get(name))
		if !ok {
			continue
		}
		for i := range list {
			var err error
			if list[i], err = d.node(list[i], fmt.Sprintf("%s/%s/%d", at, name, i), depth+1); err != nil {
				return nil, err
			}
		}
		// oneOf is anyOf for who makes an answer; that only one holds is seen when it is validated.
		return append(out, member{"anyOf", encodeArray(list)}), nil
	}
	return out, nil
}

func (d dialect) properties(in, out object, at string, depth int) (object, error) {
	properties, err := d.each(in.get("properties"), at, depth)
	if err != nil || len(properties) == 0 {
		if err == nil || !in.has("properties") {
			err = unsupported(at, "an object needs named properties")
		}
		return nil, err
	}
	required := texts(in.get("required"))
	for _, name := range required {
		if !properties.has(name) {
			return nil, unsupported(at, "the required "+name+" is no property")
		}
	}
	if d.nullable {
		for i, m := range properties {
			if !slices.Contains(required, m.name) {
				properties[i].value = orNull(m.value)
			}
		}
		required = properties.names()
	}
	return append(out,
		member{"properties", properties.raw()},
		member{"required", encodeTexts(required)},
		member{"additionalProperties", jsontext.Value("false")}), nil
}

// orNull makes a converted schema accept null.
func orNull(raw jsontext.Value) jsontext.Value {
	s, err := parseObject(raw)
	if err != nil || acceptsNull(s) {
		return raw
	}
	if s.has("type") && !s.has("enum") && !s.has("const") && !s.has("anyOf") {
		return s.set("type", encodeTypes(append(types(s), "null"))).raw()
	}
	return object{{"anyOf", encodeArray([]jsontext.Value{raw, jsontext.Value(`{"type":"null"}`)})}}.raw()
}

func unsupported(at, why string) error {
	if at == "" {
		at = "/"
	}
	return fmt.Errorf("%w: at %s: %s", errSchema, at, why)
}
