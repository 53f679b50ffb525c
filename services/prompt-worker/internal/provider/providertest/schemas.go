package providertest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
)

// faulty says why a provider would refuse a schema; empty for no reason. Strict is OpenAI's mode.
func faulty(raw json.RawMessage, strict bool) string {
	var root map[string]any
	if json.Unmarshal(raw, &root) != nil || root["type"] != "object" {
		return "Invalid schema: schema must be a JSON Schema of 'type: \"object\"'"
	}
	return faultyNode(root, strict)
}

func faultyNode(node any, strict bool) string {
	s, ok := node.(map[string]any)
	if !ok {
		return "Invalid schema: not an object"
	}
	refused := []string{"default", "allOf", "oneOf", "not", "if", "patternProperties", "minLength", "maxLength", "uniqueItems"}
	if !strict {
		refused = append(refused, "minimum", "maximum", "multipleOf", "maxItems")
	}
	for _, word := range refused {
		if _, has := s[word]; has {
			return "Invalid schema: '" + word + "' is not permitted"
		}
	}
	if properties, ok := s["properties"].(map[string]any); ok {
		required, _ := s["required"].([]any)
		if s["additionalProperties"] != false {
			return "Invalid schema: 'additionalProperties' is required to be supplied and to be false"
		}
		for name, p := range properties {
			if strict && !slices.Contains(required, any(name)) {
				return "Invalid schema: 'required' is required to be supplied and to be an array including every key in properties. Missing '" + name + "'."
			}
			if wrong := faultyNode(p, strict); wrong != "" {
				return wrong
			}
		}
	}
	if items, ok := s["items"]; ok {
		return faultyNode(items, strict)
	}
	return ""
}

// Random answers each request with JSON that its schema allows, and nothing else about it: what no caller may take for
// a judgement. The same seed gives the same answers.
func Random(seed uint64) Script {
	return func(n int, a Asked) Reply {
		g := generator{rand.New(rand.NewPCG(seed, uint64(n))), a.Schema}
		return Reply{Text: g.text(), Input: 10, Output: 10}
	}
}

type generator struct {
	*rand.Rand
	root json.RawMessage
}

func (g generator) text() string {
	var root map[string]any
	if json.Unmarshal(g.root, &root) != nil {
		return "text"
	}
	out, _ := json.Marshal(g.value(root, root, 0)) // maps of plain values
	return string(out)
}

func (g generator) value(root, s map[string]any, depth int) any {
	if ref, ok := s["$ref"].(string); ok {
		var at any = root
		for _, token := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			m, _ := at.(map[string]any)
			at = m[token]
		}
		s, _ = at.(map[string]any)
	}
	if variants, ok := s["anyOf"].([]any); ok {
		v, _ := variants[g.IntN(len(variants))].(map[string]any)
		return g.value(root, v, depth+1)
	}
	if values, ok := s["enum"].([]any); ok {
		return values[g.IntN(len(values))]
	}
	if c, ok := s["const"]; ok {
		return c
	}
	kind, _ := s["type"].(string)
	if kinds, ok := s["type"].([]any); ok {
		kind, _ = kinds[g.IntN(len(kinds))].(string)
		if depth > 8 {
			kind = "null"
		}
	}
	switch kind {
	case "object":
		out := map[string]any{}
		properties, _ := s["properties"].(map[string]any)
		for name, p := range properties {
			p, _ := p.(map[string]any)
			out[name] = g.value(root, p, depth+1)
		}
		return out
	case "array":
		items, _ := s["items"].(map[string]any)
		out := []any{}
		for range g.IntN(3) {
			out = append(out, g.value(root, items, depth+1))
		}
		return out
	case "boolean":
		return g.IntN(2) == 0
	case "integer", "number":
		return g.IntN(100)
	case "null":
		return nil
	default:
		return fmt.Sprintf("text %d", g.IntN(100))
	}
}

// Instruction is what Gullible takes for an order.
var Instruction = regexp.MustCompile(`(?i)\b(ignore|disregard|forget|override|instead|approve[ds]?|you are now|new instructions?|must|answer with|respond with|call|jailbreak|developer mode)\b`)

// Gullible is a model that does whatever it is told outside the fence: outside gives the part of a message of a role
// ("system" too) that no fence encloses and that is not the template's own. It then approves (whatever its schema calls verdict) and calls the first tool that is named there. Told
// nothing, it rejects. It stands for the worst model; that a real one is better is not claimed.
func Gullible(outside func(role, message string) string) Script {
	return func(_ int, a Asked) Reply {
		heard := outside("system", a.System)
		for _, t := range a.Turns {
			heard += "\n" + outside(t.Role, t.Text)
		}
		obeys := Instruction.MatchString(heard)
		if len(a.Turns) > 0 && a.Turns[len(a.Turns)-1].Role != "tool" && obeys {
			for _, name := range a.Tools {
				if strings.Contains(heard, name) {
					return Reply{Calls: []Call{{ID: "call_1", Name: name, Arguments: "{}"}}, Input: 10, Output: 10}
				}
			}
		}
		g := generator{rand.New(rand.NewPCG(1, 1)), a.Schema}
		var answer map[string]any
		if json.Unmarshal([]byte(g.text()), &answer) != nil {
			return Reply{Text: map[bool]string{true: "approve", false: "reject"}[obeys], Input: 10, Output: 10}
		}
		answer["verdict"] = map[bool]string{true: "approve", false: "reject"}[obeys]
		if _, has := answer["injection_suspected"]; has {
			answer["injection_suspected"] = false
		}
		text, _ := json.Marshal(answer) // a map of plain values
		return Reply{Text: string(text), Input: 10, Output: 10}
	}
}
