// Package schema says what the attributes of a record may be: a JSON Schema (2020-12) for each type, built
// in or an organisation's own, checked field by field, and which changes of a schema keep what was valid
// valid. It decides and does not act; types are stored by store.
package schema

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/schemacost"
)

//go:embed builtin/*.json
var files embed.FS

// Limits of an organisation's own schema.
const (
	MaxBytes = 64 << 10
	MaxDepth = 24
)

// referenceKeyword marks an integer as the id of a record of a type.
const referenceKeyword = "x-reference"

// Schema is a compiled one. Safe for concurrent use.
type Schema struct {
	text       json.RawMessage
	compiled   *jsonschema.Schema
	references []reference
}

// reference is where ids of a type are: the names of properties, "*" for the items of an array.
type reference struct {
	path []string
	typ  event.Type
}

// Fault is one violation. Field is a path as faults name it: "due_date", "questions[2].key".
type Fault struct{ Field, Reason, Allowed string }

// Ref is a record that attributes refer to.
type Ref struct {
	Field string
	Type  event.Type
	ID    int64
}

// Text is the schema's JSON.
func (s *Schema) Text() json.RawMessage { return s.text }

// Builtin compiles the schemas of the built-in types.
func Builtin() (map[event.Type]*Schema, error) {
	out := map[event.Type]*Schema{}
	for _, typ := range event.Types() {
		text, err := fs.ReadFile(files, "builtin/"+typ+".json")
		if err != nil {
			return nil, err
		}
		if out[typ], err = compile(text); err != nil {
			return nil, fmt.Errorf("schema of %s: %w", typ, err)
		}
	}
	return out, nil
}

// Compile reads an organisation's own schema; faults say what is wrong with it.
func Compile(text []byte) (*Schema, []Fault) {
	if len(text) > MaxBytes {
		return nil, []Fault{{"schema", "TOO_LARGE", fmt.Sprintf("at most %d bytes", MaxBytes)}}
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, []Fault{{"schema", "MALFORMED_JSON", "a JSON object"}}
	}
	root, ok := doc.(map[string]any)
	if !ok || root["type"] != "object" {
		return nil, []Fault{{"schema", "NOT_OF_OBJECTS", `a schema with "type": "object": attributes are an object`}}
	}
	if dialect, ok := root["$schema"]; ok && dialect != draft {
		return nil, []Fault{{"schema.$schema", "NOT_IN_ENUM", draft + ", or absent"}}
	}
	if faults := inspect(doc, "schema", 0); len(faults) > 0 {
		return nil, faults
	}
	s, err := compile(text)
	if err != nil {
		return nil, []Fault{{"schema", "INVALID_SCHEMA", "a JSON Schema (2020-12): " + clip(reason(err))}}
	}
	if schemacost.TooHigh(s.compiled) {
		return nil, []Fault{{"schema", "TOO_COMPLEX", fmt.Sprintf("at most %d subschemas, each counted as often as it is referred to, and none that refers to itself", schemacost.Max)}}
	}
	if len(s.references) < marks(doc) {
		return nil, []Fault{{"schema", "NOT_ALLOWED", referenceKeyword + " only in properties and their items: elsewhere nothing would check it"}}
	}
	return s, nil
}

const draft = "https://json-schema.org/draft/2020-12/schema"

// inspect refuses what is too deep and what would be looked for elsewhere.
func inspect(node any, path string, depth int) (faults []Fault) {
	if depth > MaxDepth {
		return []Fault{{clip(path), "TOO_DEEP", fmt.Sprintf("at most %d levels", MaxDepth)}}
	}
	switch node := node.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(node)) {
			value := node[name]
			at := path + "." + name
			if text, isText := value.(string); isText && slices.Contains([]string{"$ref", "$dynamicRef"}, name) && !strings.HasPrefix(text, "#") {
				faults = append(faults, Fault{clip(at), "REMOTE_REFERENCE", "a reference within the schema, such as #/$defs/address"})
			}
			if name == "$id" {
				faults = append(faults, Fault{clip(at), "NOT_ALLOWED", "no $id: a type's schema has no address"})
			}
			if name == referenceKeyword {
				if text, isText := value.(string); !isText || !event.IsWord(text) {
					faults = append(faults, Fault{clip(at), "INVALID_TYPE", "the name of a type"})
				}
			}
			faults = append(faults, inspect(value, at, depth+1)...)
		}
	case []any:
		for i, value := range node {
			faults = append(faults, inspect(value, path+"["+strconv.Itoa(i)+"]", depth+1)...)
		}
	}
	return faults
}

// marks counts the references that are asked for.
func marks(node any) (n int) {
	switch node := node.(type) {
	case map[string]any:
		if _, ok := node[referenceKeyword].(string); ok {
			n++
		}
		for _, value := range node {
			n += marks(value)
		}
	case []any:
		for _, value := range node {
			n += marks(value)
		}
	}
	return n
}

// nowhere loads nothing: a schema is whole in itself.
type nowhere struct{}

var errNowhere = errors.New("references to other documents are not followed")

// Load implements jsonschema.URLLoader.
func (nowhere) Load(string) (any, error) { return nil, errNowhere }

func compile(text []byte) (*Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(nowhere{})
	const name = "mem:type.json"
	if err := c.AddResource(name, doc); err != nil {
		return nil, err
	}
	compiled, err := c.Compile(name)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, err
	}
	return &Schema{text: compact.Bytes(), compiled: compiled, references: findReferences(doc, nil)}, nil
}

func findReferences(node any, path []string) (out []reference) {
	m, ok := node.(map[string]any)
	if !ok {
		return nil
	}
	if typ, ok := m[referenceKeyword].(string); ok {
		out = append(out, reference{slices.Clone(path), typ})
	}
	if properties, ok := m["properties"].(map[string]any); ok {
		for _, name := range slices.Sorted(maps.Keys(properties)) {
			out = append(out, findReferences(properties[name], append(slices.Clone(path), name))...)
		}
	}
	return append(out, findReferences(m["items"], append(slices.Clone(path), "*"))...)
}

// References gives the records that attributes, or a merge patch of them, refer to.
func (s *Schema) References(attributes []byte) (out []Ref) {
	if len(s.references) == 0 {
		return nil
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(attributes))
	if err != nil { // others have said so
		return nil
	}
	for _, r := range s.references {
		out = append(out, collect(doc, r.path, "", r.typ)...)
	}
	return out
}

func collect(node any, path []string, at string, typ event.Type) (out []Ref) {
	if len(path) == 0 {
		if number, ok := node.(json.Number); ok {
			if id, err := number.Int64(); err == nil && id > 0 {
				return []Ref{{at, typ, id}}
			}
		}
		return nil
	}
	if list, ok := node.([]any); ok && path[0] == "*" {
		for i, item := range list {
			out = append(out, collect(item, path[1:], at+"["+strconv.Itoa(i)+"]", typ)...)
		}
	}
	if m, ok := node.(map[string]any); ok && path[0] != "*" {
		return collect(m[path[0]], path[1:], strings.TrimPrefix(at+"."+path[0], "."), typ)
	}
	return out
}

func clip(s string) string {
	const limit = 200
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
