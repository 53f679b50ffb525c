package strict

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// types are the JSON types that a schema names or that follow from its other words; nil when any may come.
func types(s object) []string {
	if raw := s.get("type"); raw != nil {
		if one := text(raw); one != "" {
			return []string{one}
		}
		return texts(raw)
	}
	values, ok := parseArray(s.get("enum"))
	if c := s.get("const"); c != nil {
		values, ok = []jsontext.Value{c}, true
	}
	var out []string
	for _, v := range values {
		if t := typeOf(v); !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	if !ok && s.has("properties") {
		return []string{"object"}
	}
	return out
}

func typeOf(v jsontext.Value) string {
	switch v.Kind() {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '[':
		return "array"
	default:
		return "object"
	}
}

// acceptsNull tells it of a schema without references.
func acceptsNull(s object) bool {
	if raw := s.get("enum"); raw != nil {
		values, _ := parseArray(raw)
		return slices.ContainsFunc(values, func(v jsontext.Value) bool { return v.Kind() == 'n' })
	}
	for _, name := range []string{"anyOf", "oneOf"} {
		if variants, ok := parseArray(s.get(name)); ok {
			return slices.ContainsFunc(variants, func(v jsontext.Value) bool {
				o, err := parseObject(v)
				return err == nil && acceptsNull(o)
			})
		}
	}
	kinds := types(s)
	return !s.has("$ref") && (len(kinds) == 0 || slices.Contains(kinds, "null"))
}

// Restore undoes in an answer what OpenAI did to its schema: a null that stands for an absent optional member is
// removed. What is ambiguous stays, and the schema decides. The answer must be valid JSON.
func Restore(schema, answer json.RawMessage) json.RawMessage {
	r := restorer{root: jsontext.Value(schema)}
	return json.RawMessage(r.value(r.expand(nil, r.root, map[string]bool{}), jsontext.Value(answer), 0))
}

type restorer struct{ root jsontext.Value }

// value restores a value that one of several schemas describes.
func (r restorer) value(schemas []object, v jsontext.Value, depth int) jsontext.Value {
	if len(schemas) == 0 || depth > maxDepth {
		return v
	}
	switch v.Kind() {
	case '{':
		members, err := parseObject(v)
		if err != nil {
			return v
		}
		members = slices.DeleteFunc(members, func(m member) bool { return m.value.Kind() == 'n' && r.absent(schemas, m.name) })
		for i, m := range members {
			members[i].value = r.value(r.inside(schemas, "properties", m.name), m.value, depth+1)
		}
		return members.raw()
	case '[':
		list, ok := parseArray(v)
		if !ok {
			return v
		}
		for i := range list {
			list[i] = r.value(r.inside(schemas, "items", ""), list[i], depth+1)
		}
		return encodeArray(list)
	default:
		return v
	}
}

// absent: no schema that names the member wants it, or would take null for it.
func (r restorer) absent(schemas []object, name string) bool {
	named := false
	for _, s := range schemas {
		if own := r.inside([]object{s}, "properties", name); len(own) > 0 {
			named = true
			if slices.Contains(texts(s.get("required")), name) || slices.ContainsFunc(own, acceptsNull) {
				return false
			}
		}
	}
	return named
}

// inside gives the schemas of a property or of an array's items.
func (r restorer) inside(schemas []object, keyword, name string) (out []object) {
	for _, s := range schemas {
		raw := s.get(keyword)
		if o, err := parseObject(raw); err == nil && keyword == "properties" {
			raw = o.get(name)
		}
		if raw != nil {
			out = r.expand(out, raw, map[string]bool{})
		}
	}
	return out
}

// expand adds a schema, what it refers to and its variants. Each reference is followed once, or a schema of a few
// lines could ask for all the time there is.
func (r restorer) expand(out []object, raw jsontext.Value, followed map[string]bool) []object {
	s, err := parseObject(raw)
	if err != nil {
		return out
	}
	if ref := text(s.get("$ref")); ref != "" {
		if followed[ref] {
			return out
		}
		followed[ref] = true
		return r.expand(out, r.resolve(ref), followed)
	}
	for _, name := range []string{"anyOf", "oneOf"} {
		list, ok := parseArray(s.get(name))
		for _, v := range list {
			out = r.expand(out, v, followed)
		}
		if ok && !s.has("properties") && !s.has("items") {
			return out
		}
	}
	return append(out, s)
}

// resolve follows a pointer inside the schema (RFC 6901); nil for one that leads nowhere.
func (r restorer) resolve(ref string) jsontext.Value {
	at := r.root
	for _, token := range strings.Split(strings.TrimPrefix(ref, "#"), "/") {
		if token == "" {
			continue
		}
		o, err := parseObject(at)
		if err != nil {
			return nil
		}
		at = o.get(strings.NewReplacer("~1", "/", "~0", "~").Replace(token))
	}
	return at
}
