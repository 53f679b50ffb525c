package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Compatible tells why a schema may not take another's place: every document that was valid must stay so. What
// cannot be shown to be so is refused. The faults name the place in the new schema.
func Compatible(old, next *Schema) []Fault {
	before, err := jsonschema.UnmarshalJSON(bytes.NewReader(old.text))
	if err != nil {
		return []Fault{{"schema", "INCOMPATIBLE", "the stored schema cannot be read"}}
	}
	after, err := jsonschema.UnmarshalJSON(bytes.NewReader(next.text))
	if err != nil {
		return []Fault{{"schema", "INCOMPATIBLE", "a JSON object"}}
	}
	c := &comparison{}
	if !reflect.DeepEqual(before, after) && (entangled(before) || entangled(after)) {
		c.refuse("schema", "what it was: with unevaluated… or a $ref outside $defs a change here can refuse something there")
	}
	c.schemas("schema", before, after)
	return c.faults
}

// entangled tells whether a schema has keywords by which a looser part can make another one tighter.
func entangled(node any) bool {
	switch node := node.(type) {
	case map[string]any:
		for word, v := range node {
			text, isText := v.(string)
			if word == "unevaluatedProperties" || word == "unevaluatedItems" || word == "$dynamicRef" ||
				word == "$ref" && isText && !strings.HasPrefix(text, "#/$defs/") || entangled(v) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(node, entangled)
	}
	return false
}

type comparison struct{ faults []Fault }

func (c *comparison) refuse(path, allowed string) {
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, Fault{clip(path), "INCOMPATIBLE", allowed})
	}
}

// words that do not decide what is valid.
var annotations = []string{"$schema", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}

func (c *comparison) schemas(path string, before, after any) {
	if reflect.DeepEqual(before, after) || after == true {
		return
	}
	old, isMap := before.(map[string]any)
	next, isMap2 := after.(map[string]any)
	if before == true {
		old, isMap = map[string]any{}, true
	}
	if before == false {
		return // nothing was valid
	}
	if !isMap || !isMap2 {
		c.refuse(path, "the schema that it was, or one that takes more")
		return
	}
	for _, word := range slices.Sorted(maps.Keys(next)) {
		if !slices.Contains(annotations, word) {
			c.keyword(path, word, old, next)
		}
	}
	for _, word := range []string{"prefixItems", "minContains", "patternProperties"} {
		if _, had := old[word]; had && next[word] == nil {
			c.refuse(path+"."+word, "what it was: without it another keyword would rule what it did")
		}
	}
	// What is gone takes away a bound, but for properties that additionalProperties then catches.
	for _, name := range slices.Sorted(maps.Keys(object(old["properties"]))) {
		if _, kept := object(next["properties"])[name]; !kept && !takesAll(next["additionalProperties"]) {
			c.refuse(path+".properties."+name, "the property, or additionalProperties that take it")
		}
	}
}

func object(v any) map[string]any { m, _ := v.(map[string]any); return m }

// takesAll tells whether a schema, which may be absent, has no bounds.
func takesAll(v any) bool {
	if v == nil || v == true {
		return true
	}
	m, ok := v.(map[string]any)
	if !ok {
		return false
	}
	for word := range m {
		if !slices.Contains(annotations, word) {
			return false
		}
	}
	return true
}

func (c *comparison) keyword(path, word string, old, next map[string]any) {
	at := path + "." + word
	was, had := old[word]
	is := next[word]
	if had && reflect.DeepEqual(was, is) {
		// additionalProperties and the properties that it rules change together, see property.
		if word != "additionalProperties" && word != "properties" {
			return
		}
	}
	switch word {
	case "type":
		c.types(at, was, had, is)
	case "enum":
		if _, wasConst := old["const"]; wasConst {
			was, had = []any{old["const"]}, true
		}
		if !had || !covers(is, was) {
			c.refuse(at, "at least the values that were allowed")
		}
	case "required":
		for _, name := range strs(is) {
			if !slices.Contains(strs(was), name) {
				c.refuse(at, fmt.Sprintf("no new required property such as %q", name))
			}
		}
	case "properties":
		for _, name := range slices.Sorted(maps.Keys(object(is))) {
			c.property(at+"."+name, name, old, object(is)[name])
		}
	case "additionalProperties":
		if closed, ok := c.additional(old).(bool); ok && !closed {
			return
		}
		c.schemas(at, c.additional(old), is)
	case "items":
		if !had {
			was = true
		}
		c.schemas(at, was, is)
	case "minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties":
		c.bound(at, was, had, is, -1)
	case "maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties":
		c.bound(at, was, had, is, 1)
	case "uniqueItems":
		if is == true {
			c.refuse(at, "false: items could be the same")
		}
	default:
		c.refuse(at, "what it was: what else it would refuse cannot be told")
	}
}

// additional is what an object's other properties had to be.
func (*comparison) additional(old map[string]any) any {
	if v, ok := old["additionalProperties"]; ok {
		return v
	}
	return true
}

// property compares one that is in the new schema with what it could be before.
func (c *comparison) property(at, name string, old map[string]any, is any) {
	was, had := object(old["properties"])[name]
	if !had {
		if len(object(old["patternProperties"])) > 0 {
			c.refuse(at, "no new property beside patternProperties")
			return
		}
		was = c.additional(old)
	}
	if was == true || (!had && takesAll(was)) {
		if !takesAll(is) {
			c.refuse(at, "no bounds: records may have any value there already, since additional properties are allowed")
		}
		return
	}
	c.schemas(at, was, is)
}

func (c *comparison) types(at string, was any, had bool, is any) {
	now := strs(is)
	if !had {
		c.refuse(at, "no type, as it was")
		return
	}
	for _, t := range strs(was) {
		if !slices.Contains(now, t) && (t != "integer" || !slices.Contains(now, "number")) {
			c.refuse(at, "at least the types that were allowed")
			return
		}
	}
}

// bound compares a number: the new one may only be further out, in direction.
func (c *comparison) bound(at string, was any, had bool, is any, direction int) {
	a, okA := rat(was)
	b, okB := rat(is)
	if !had || !okA || !okB || b.Cmp(a)*direction < 0 {
		c.refuse(at, "a bound that takes at least what it took")
	}
}

func rat(v any) (*big.Rat, bool) {
	n, ok := v.(json.Number)
	if !ok || len(n) > 400 {
		return nil, false
	}
	return new(big.Rat).SetString(n.String())
}

func covers(next, old any) bool {
	list, _ := next.([]any)
	values, _ := old.([]any)
	for _, v := range values {
		if !slices.ContainsFunc(list, func(w any) bool { return reflect.DeepEqual(v, w) }) {
			return false
		}
	}
	return true
}

// strs gives a keyword's texts: one or several.
func strs(v any) (out []string) {
	if s, ok := v.(string); ok {
		return []string{s}
	}
	list, _ := v.([]any)
	for _, item := range list {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
