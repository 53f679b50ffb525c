package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/compiler/protogen"
)

type object = map[string]any

// rule is an HTTP rule of http.yaml.
type rule struct {
	Selector, Get, Post, Patch, Delete, Body string
}

func (r rule) route() (method, path string) {
	for method, path := range map[string]string{"get": r.Get, "post": r.Post, "patch": r.Patch, "delete": r.Delete} {
		if path != "" {
			return method, path
		}
	}
	return "", ""
}

// generator collects the document.
type generator struct {
	schemas object
	// asked are messages that requests have, whose fields may be left out.
	asked map[string]bool
}

func document(p *protogen.Plugin, file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rules struct{ HTTP struct{ Rules []rule } }
	if err := yaml.Unmarshal(text, &rules); err != nil {
		return nil, err
	}
	methods := map[string]*protogen.Method{}
	for _, f := range p.Files {
		for _, s := range f.Services {
			for _, m := range s.Methods {
				methods[string(m.Desc.FullName())] = m
			}
		}
	}
	g := &generator{schemas: object{}, asked: map[string]bool{}}
	for _, r := range rules.HTTP.Rules {
		if m := methods[r.Selector]; m != nil && r.Body != "" {
			g.ask(m.Input)
		}
	}
	paths := object{}
	for _, r := range rules.HTTP.Rules {
		m := methods[r.Selector]
		if m == nil {
			return nil, fmt.Errorf("%s: no method %s", file, r.Selector)
		}
		method, path := r.route()
		item, ok := paths[path].(object)
		if !ok {
			item = object{}
			paths[path] = item
		}
		item[method] = g.operation(m, method, path)
	}
	return json.MarshalIndent(g.document(paths), "", " ")
}

func (g *generator) document(paths object) object {
	g.schemas["Problem"] = problem()
	for path, item := range served() {
		paths[path] = item
	}
	return object{
		"openapi": "3.0.3",
		"info": object{"title": "Sametick", "version": "1", "description": "Every mutation records its event and its audit entry in the same transaction. " +
			"Sign in with POST /api/auth/login, then send the access token, or an API key, as a bearer token."},
		"servers":  []any{object{"url": "/"}},
		"security": []any{object{"bearer": []any{}}},
		"paths":    paths,
		"components": object{
			"securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer", "description": "An access token of /api/auth/login, or an API key (stk_…)."}},
			"headers":         headers(),
			"responses":       object{"Problem": object{"description": "What went wrong (RFC 9457).", "headers": answered("Retry-After"), "content": object{"application/problem+json": object{"schema": ref("Problem")}}}},
			"schemas":         g.schemas,
		},
	}
}

// ask marks a message and what it holds as parts of requests.
func (g *generator) ask(m *protogen.Message) {
	if g.asked[name(m)] {
		return
	}
	g.asked[name(m)] = true
	for _, f := range m.Fields {
		if f.Message != nil {
			g.ask(f.Message)
		}
	}
}

func (g *generator) operation(m *protogen.Method, method, path string) object {
	summary, description := comment(m.Comments.Leading, m.GoName)
	op := object{
		"operationId": m.GoName, "tags": []any{strings.TrimSuffix(string(m.Parent.Desc.Name()), "Service")},
		"summary": summary, "responses": object{"200": g.answer(m), "4XX": object{"$ref": "#/components/responses/Problem"}, "5XX": object{"$ref": "#/components/responses/Problem"}},
		"x-grpc-method": "/" + string(m.Parent.Desc.FullName()) + "/" + string(m.Desc.Name()),
	}
	if description != "" {
		op["description"] = description
	}
	var parameters []any
	inPath := variables(path)
	body := object{}
	for _, f := range m.Input.Fields {
		key := string(f.Desc.Name())
		switch {
		case slices.Contains(inPath, key):
			parameters = append(parameters, parameter(f, "path", g.field(f, false)))
		case method == "get" || method == "delete":
			parameters = append(parameters, parameter(f, "query", g.field(f, false)))
		case !isMask(f):
			body[key] = g.field(f, true)
		}
	}
	if isVersioned(m) {
		parameters = append(parameters, object{"name": "If-Match", "in": "header", "schema": object{"type": "string", "pattern": `^(\*|"[1-9][0-9]*")$`},
			"description": "The ETag that the change was made from; 412 when it is another by now."})
	}
	if method != "get" && !m.Desc.IsStreamingServer() {
		parameters = append(parameters, object{"name": "Idempotency-Key", "in": "header", "schema": object{"type": "string", "pattern": "^[!-~]{1,255}$"},
			"description": "Makes a call that is sent again, within 24 hours, give the answer of the first (Idempotency-Replayed: true). Another request with the same key gets 422."})
	}
	if len(parameters) > 0 {
		op["parameters"] = parameters
	}
	if method == "post" || method == "patch" {
		needed := slices.ContainsFunc(m.Input.Fields, func(f *protogen.Field) bool {
			return !slices.Contains(inPath, string(f.Desc.Name())) && !f.Desc.HasOptionalKeyword()
		})
		op["requestBody"] = object{"required": needed, "content": object{"application/json": object{"schema": object{"type": "object", "additionalProperties": false, "properties": body}}}}
	}
	return op
}

// isVersioned: what changes one entity of which the version can be given.
func isVersioned(m *protogen.Method) bool {
	return slices.ContainsFunc(m.Input.Fields, func(f *protogen.Field) bool { return f.Desc.Name() == "version" })
}

func (g *generator) answer(m *protogen.Method) object {
	if m.Desc.IsStreamingServer() { // the bytes themselves
		binary := object{"schema": object{"type": "string", "format": "binary"}}
		return object{"description": "The records, as they come; the trailers Sametick-Count and Sametick-Sha256 end a complete export.", "headers": answered(),
			"content": object{"application/x-ndjson": binary, "text/csv": binary}}
	}
	g.message(m.Output)
	return object{"description": "Done.", "headers": answered(), "content": object{"application/json": object{"schema": ref(name(m.Output))}}}
}

func parameter(f *protogen.Field, in string, schema object) object {
	p := object{"name": string(f.Desc.Name()), "in": in, "schema": schema}
	if text, ok := schema["description"]; ok {
		p["description"] = text
		delete(schema, "description")
	}
	if in == "path" {
		p["required"] = true
	}
	return p
}

// message puts a message's schema into the components.
func (g *generator) message(m *protogen.Message) {
	key := name(m)
	if _, done := g.schemas[key]; done {
		return
	}
	schema := object{"type": "object"}
	g.schemas[key] = schema
	properties, required := object{}, []any{}
	for _, f := range m.Fields {
		if isMask(f) {
			continue
		}
		properties[string(f.Desc.Name())] = g.field(f, g.asked[key])
		required = append(required, string(f.Desc.Name()))
	}
	schema["properties"] = properties
	// An answer shows every field; a request may leave any out.
	if g.asked[key] {
		schema["additionalProperties"] = false
	} else if len(required) > 0 {
		schema["required"] = required
	}
	if text, rest := comment(m.Comments.Leading, ""); text != "" {
		schema["description"] = strings.TrimSpace(text + " " + rest)
	}
}

// field gives a field's schema; asked: of a request.
func (g *generator) field(f *protogen.Field, asked bool) object {
	schema := g.value(f)
	first, rest := comment(f.Comments.Leading, "")
	text := strings.TrimSpace(first + " " + rest)
	if f.Desc.IsList() {
		schema = object{"type": "array", "items": schema}
	} else if (f.Desc.HasPresence() || asked) && !isJSON(f) {
		if reference, ok := schema["$ref"]; ok {
			schema = object{"allOf": []any{object{"$ref": reference}}}
		}
		schema["nullable"] = true
	}
	limits(schema, text)
	if text != "" {
		schema["description"] = text
	}
	return schema
}

func (g *generator) value(f *protogen.Field) object {
	switch kind := f.Desc.Kind().String(); kind {
	case "string":
		return object{"type": "string"}
	case "bool":
		return object{"type": "boolean"}
	case "int32", "int64":
		return object{"type": "integer", "format": kind}
	case "double":
		return object{"type": "number", "format": kind}
	case "message":
		if f.Desc.IsMap() { // of strings, see internal/rest
			return object{"type": "object", "additionalProperties": object{"type": "string"}}
		}
		switch string(f.Message.Desc.FullName()) {
		case "sametick.wire.v1.Json":
			return object{"type": "object", "additionalProperties": true, "nullable": true}
		case "google.protobuf.Timestamp":
			return object{"type": "string", "format": "date-time"}
		}
		g.message(f.Message)
		return ref(name(f.Message))
	default:
		panic("no JSON form for " + kind)
	}
}

var (
	characters = regexp.MustCompile(`^(\d+) to ([\d,]+) characters`)
	between    = regexp.MustCompile(`^(?:[^.]*: )?(\d+) to ([\d,]+)[;.]`)
)

// limits reads the ranges that comments begin with: "1 to 500 characters", "1 to 100; absent means 25".
func limits(schema object, text string) {
	least, most := "minimum", "maximum"
	found := between.FindStringSubmatch(text)
	switch {
	case schema["type"] == "string":
		least, most, found = "minLength", "maxLength", characters.FindStringSubmatch(text)
	case schema["type"] == "array":
		least, most = "minItems", "maxItems"
	case schema["type"] != "integer":
		return
	}
	if found != nil {
		schema[least], schema[most] = json.Number(found[1]), json.Number(strings.ReplaceAll(found[2], ",", ""))
	}
}

// comment gives a comment's first sentence and the rest, without the name that it begins with.
func comment(c protogen.Comments, subject string) (first, rest string) {
	text := strings.Join(strings.Fields(string(c)), " ")
	if subject != "" {
		text = strings.TrimPrefix(text, subject+" ")
	}
	if text == "" {
		return plain(subject), ""
	}
	text = strings.ToUpper(text[:1]) + text[1:]
	if i := strings.Index(text, ". "); i > 0 {
		return text[:i+1], text[i+2:]
	}
	return text, ""
}

var word = regexp.MustCompile(`([a-z])([A-Z])`)

// plain says a method's name in words: "ListApiKeys" is "List API keys".
func plain(name string) string {
	if name == "" {
		return ""
	}
	text := strings.ToLower(word.ReplaceAllString(name, "$1 $2"))
	text = strings.NewReplacer(" api ", " API ", " mcp ", " MCP ").Replace(text)
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

var variable = regexp.MustCompile(`\{([a-z_]+)\}`)

func variables(path string) (names []string) {
	for _, found := range variable.FindAllStringSubmatch(path, -1) {
		names = append(names, found[1])
	}
	return names
}

func isMask(f *protogen.Field) bool {
	return f.Message != nil && f.Message.Desc.FullName() == "google.protobuf.FieldMask"
}

func isJSON(f *protogen.Field) bool {
	return f.Message != nil && f.Message.Desc.FullName() == "sametick.wire.v1.Json"
}

// name is a message's in the components: without its package, nested ones with their parents.
func name(m *protogen.Message) string {
	full := string(m.Desc.FullName())
	return strings.ReplaceAll(strings.TrimPrefix(full, string(m.Desc.ParentFile().Package())+"."), ".", "")
}

func ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// rateLimits are on every answer to a caller who is known and whose calls are limited.
var rateLimits = map[string]string{
	"RateLimit-Limit":     "The most calls at once, of the organisation or of the caller, whichever has less left.",
	"RateLimit-Remaining": "How many of those are left. Without any a call gets 429 RATE_LIMITED.",
	"RateLimit-Reset":     "The seconds until all of them are.",
}

// headers are the components that answered refers to.
func headers() object {
	out := object{"Retry-After": object{"description": "After how many seconds the same call may succeed.", "schema": object{"type": "integer"}}}
	for name, text := range rateLimits {
		out[name] = object{"description": text, "schema": object{"type": "integer"}}
	}
	return out
}

// answered gives the header fields of an answer: the rate limits, and more by name.
func answered(more ...string) object {
	out := object{}
	for _, name := range slices.AppendSeq(more, maps.Keys(rateLimits)) {
		out[name] = object{"$ref": "#/components/headers/" + name}
	}
	return out
}

// problem is an error, as internal/rest writes it.
func problem() object {
	text := object{"type": "string"}
	return object{
		"type": "object", "required": []any{"type", "title", "status", "detail", "reason", "errors", "request_id"},
		"properties": object{
			"type": text, "title": text, "status": object{"type": "integer"}, "detail": text,
			"reason": object{"type": "string", "description": "What clients branch on, such as RECORD_NOT_FOUND."},
			"errors": object{"type": "array", "description": "The faulty fields.", "items": object{"type": "object", "required": []any{"field", "reason", "description"},
				"properties": object{"field": text, "reason": text, "description": object{"type": "string", "description": "What is allowed."}}}},
			"metadata":   object{"type": "object", "additionalProperties": text},
			"request_id": object{"type": "string", "description": "Finds the request in the logs."},
		},
	}
}

// served are the routes that are no gRPC method.
func served() object {
	filter := func(name, text string, schema object) object {
		return object{"name": name, "in": "query", "description": text, "schema": schema}
	}
	list := object{"type": "array", "items": object{"type": "string"}}
	return object{"/api/events/stream": object{"get": object{
		"operationId": "StreamEvents", "tags": []any{"Event"}, "summary": "The organisation's events as they happen (Server-Sent Events).",
		"description": "Each event has its position as id and the event's JSON as data. Reconnect with the last id as Last-Event-ID: nothing is missed or repeated.",
		"parameters": []any{
			object{"name": "Last-Event-ID", "in": "header", "description": "Go on after this position; 0 replays all that is kept.", "schema": object{"type": "string"}},
			filter("token", "The access token, for EventSource, which cannot send headers.", object{"type": "string"}),
			filter("last_event_id", "As Last-Event-ID.", object{"type": "string"}),
			filter("aggregate_type", "Only these types.", list), filter("event_type", "Only these, exact or with a wildcard: task.*.", list),
			filter("aggregate_id", "Only this entity.", object{"type": "integer", "format": "int64"}),
		},
		"responses": object{"200": object{"description": "The stream.", "content": object{"text/event-stream": object{"schema": object{"type": "string"}}}},
			"4XX": object{"$ref": "#/components/responses/Problem"}, "5XX": object{"$ref": "#/components/responses/Problem"}},
	}}}
}
