package prompting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/schemacost"
)

// Limits of output schemas and of what is held to them.
const (
	MaxSchema    = 64 << 10  // bytes
	MaxOutput    = 256 << 10 // bytes
	maxNesting   = 24
	maxRefusals  = 5
	schemaDraft  = "https://json-schema.org/draft/2020-12/schema"
	schemaSource = "mem:output.json"
)

// Output checks what an async hook's model answers. Safe for concurrent use.
type Output struct {
	compiled *jsonschema.Schema
	text     json.RawMessage
}

// Schema is the JSON Schema, without white space.
func (o *Output) Schema() json.RawMessage { return o.text }

// CompileOutput reads a JSON Schema (2020-12) of an object. Its error is an *errs.Error of kind Invalid.
func CompileOutput(text []byte) (*Output, error) {
	refuse := func(reason, format string, args ...any) (*Output, error) {
		return nil, errs.New(errs.Invalid, "INVALID_SCHEMA", "the output schema cannot be used").
			WithField("output_schema", reason, fmt.Sprintf(format, args...))
	}
	if len(text) > MaxSchema {
		return refuse("TOO_LARGE", "at most %d bytes", MaxSchema)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return refuse("MALFORMED_JSON", "a JSON object")
	}
	if root, ok := doc.(map[string]any); !ok || root["type"] != "object" {
		return refuse("NOT_OF_OBJECTS", `a schema with "type": "object": providers take no other`)
	}
	if problem := inspect(doc, 0); problem != "" {
		return refuse("NOT_ALLOWED", "%s", problem)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(nowhere{})
	if err := c.AddResource(schemaSource, doc); err != nil {
		return refuse("INVALID_SCHEMA", "a JSON Schema (2020-12)")
	}
	compiled, err := c.Compile(schemaSource)
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return refuse("INVALID_SCHEMA", "a JSON Schema (2020-12): %s", Clean(first, 200))
	}
	if schemacost.TooHigh(compiled) {
		return refuse("TOO_COMPLEX", "at most %d subschemas, each counted as often as it is referred to, and none that refers to itself", schemacost.Max)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return refuse("MALFORMED_JSON", "a JSON object")
	}
	return &Output{compiled, compact.Bytes()}, nil
}

// Check holds an answer to the schema, whatever the provider promised. Its error is a *ModelError with CauseInvalid.
func (o *Output) Check(answer []byte) error {
	if len(answer) > MaxOutput {
		return invalid("an answer of more than %d bytes", MaxOutput)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer))
	if err != nil {
		return invalid("an answer that is no JSON")
	}
	err = o.compiled.Validate(doc)
	var refused *jsonschema.ValidationError
	if errors.As(err, &refused) {
		return invalid("an answer against its schema at %s", strings.Join(places(nil, refused), ", "))
	}
	if err != nil {
		return invalid("an answer that cannot be held to its schema")
	}
	return nil
}

// places names where an answer is wrong; what it says there is not repeated.
func places(out []string, e *jsonschema.ValidationError) []string {
	if len(out) >= maxRefusals {
		return out
	}
	if len(e.Causes) == 0 {
		return append(out, Clean("/"+strings.Join(e.InstanceLocation, "/"), 100)+" ("+strings.Join(e.ErrorKind.KeywordPath(), "/")+")")
	}
	for _, cause := range e.Causes {
		out = places(out, cause)
	}
	return out
}

// inspect refuses what is too deep, of another dialect, or would be looked for elsewhere.
func inspect(node any, depth int) string {
	if depth > maxNesting {
		return fmt.Sprintf("at most %d levels", maxNesting)
	}
	switch node := node.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(node)) {
			text, isText := node[name].(string)
			switch {
			case isText && (name == "$ref" || name == "$dynamicRef") && !strings.HasPrefix(text, "#"):
				return "references within the schema alone, such as #/$defs/address"
			case isText && name == "$schema" && text != schemaDraft:
				return "$schema as " + schemaDraft + ", or absent"
			case isText && name == "$id":
				return "no $id: the schema has no address"
			}
			if problem := inspect(node[name], depth+1); problem != "" {
				return problem
			}
		}
	case []any:
		for _, item := range node {
			if problem := inspect(item, depth+1); problem != "" {
				return problem
			}
		}
	}
	return ""
}

// nowhere loads nothing: a schema is whole in itself.
type nowhere struct{}

var errNowhere = errors.New("references to other documents are not followed")

// Load implements jsonschema.URLLoader.
func (nowhere) Load(string) (any, error) { return nil, errNowhere }
