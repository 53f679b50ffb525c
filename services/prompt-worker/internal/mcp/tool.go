package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// What a server may say of its tools; a tool that says more is left out.
const (
	maxTools       = 500
	maxOffer       = 1 << 20
	maxDescription = 4 << 10
	maxSchema      = 64 << 10
	maxArguments   = 64 << 10
	// maxSchemas bounds a tool's schema with its references followed: a few lines can ask for hours of checking.
	maxSchemas = 2000
	// maxText of an error, in characters.
	maxText = 500
)

// tool is one that can be called.
type tool struct {
	prompting.Tool
	arguments *jsonschema.Schema
}

// nowhere refuses to load a schema from a file or an address that another one names.
type nowhere struct{}

// Load implements jsonschema.URLLoader.
func (nowhere) Load(string) (any, error) { return nil, errors.New("schemas refer to themselves alone") }

// newTool is nil for a tool that is left out.
func newTool(t *sdk.Tool) *tool {
	raw, err := json.Marshal(t.InputSchema)
	if err != nil || len(raw) > maxSchema || len(t.Description) > maxDescription || t.Name == "" || len(t.Name) > 128 {
		return nil
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil || !bounded(doc) {
		return nil
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(nowhere{})
	const name = "mem:tool.json"
	if err := c.AddResource(name, doc); err != nil {
		return nil
	}
	compiled, err := c.Compile(name)
	if err != nil {
		return nil
	}
	return &tool{prompting.Tool{Name: t.Name, Description: t.Description, Schema: raw}, compiled}
}

// bounded tells whether a schema is small with all its references followed; one that contains itself is not.
func bounded(root any) bool {
	left := maxSchemas
	var walk func(node any, depth int) bool
	walk = func(node any, depth int) bool {
		if left--; left < 0 || depth > 64 {
			return false
		}
		switch n := node.(type) {
		case map[string]any:
			for name, value := range n {
				if ref, ok := value.(string); ok && (name == "$ref" || name == "$dynamicRef") {
					if value = resolve(root, ref); value == nil {
						return false
					}
				}
				if !walk(value, depth+1) {
					return false
				}
			}
		case []any:
			for _, value := range n {
				if !walk(value, depth+1) {
					return false
				}
			}
		}
		return true
	}
	return walk(root, 0)
}

// resolve follows a pointer inside a schema (RFC 6901); nil for any other reference.
func resolve(root any, ref string) any {
	if !strings.HasPrefix(ref, "#/") {
		return nil
	}
	for _, token := range strings.Split(ref[2:], "/") {
		m, _ := root.(map[string]any)
		root = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(token)]
	}
	return root
}

// check refuses arguments that the tool does not take. What is wrong is told to the model.
func (t *tool) check(arguments json.RawMessage) error {
	if len(arguments) > maxArguments {
		return toolError("the arguments are too large")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(arguments))
	if err != nil {
		return toolError("the arguments are not JSON")
	}
	if _, ok := doc.(map[string]any); !ok {
		return toolError("the arguments are not a JSON object")
	}
	if err := t.arguments.Validate(doc); err != nil {
		_, wrong, _ := strings.Cut(err.Error(), "\n") // after the schema's name
		return toolError("the arguments do not fit: %s", clean(wrong))
	}
	return nil
}

// result gives what a tool answered as JSON.
func result(r *sdk.CallToolResult, most int64) (json.RawMessage, error) {
	if len(r.InputRequests) > 0 {
		return nil, toolError("it asks for more input, which it does not get")
	}
	if r.IsError {
		return nil, toolError("%s", clean(text(r.Content)))
	}
	var value = r.StructuredContent
	if value == nil {
		value = text(r.Content)
	}
	out, err := json.Marshal(value)
	switch {
	case err != nil:
		return nil, toolError("the result is not JSON")
	case int64(len(out)) > most:
		return nil, toolError("the result is too large")
	}
	return out, nil
}

// text joins the texts; of what else there is only the kind is told.
func text(content []sdk.Content) string {
	var parts []string
	for _, c := range content {
		switch c := c.(type) {
		case *sdk.TextContent:
			parts = append(parts, c.Text)
		case *sdk.EmbeddedResource:
			parts = append(parts, c.Resource.Text)
		case *sdk.ImageContent:
			parts = append(parts, "[image]")
		case *sdk.AudioContent:
			parts = append(parts, "[audio]")
		case *sdk.ResourceLink:
			parts = append(parts, c.URI)
		}
	}
	return strings.Join(parts, "\n")
}

func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, ""))
	if runes := []rune(s); len(runes) > maxText {
		s = string(runes[:maxText]) + "…"
	}
	return s
}
