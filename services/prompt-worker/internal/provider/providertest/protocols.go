package providertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

type openAI struct{}

func (openAI) key(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func (openAI) read(_ *http.Request, body []byte) (Asked, string) {
	var in struct {
		Model       string
		Messages    []openAIMessage
		Temperature *float64
		MaxTokens   int64 `json:"max_tokens"`
		MaxAnswer   int64 `json:"max_completion_tokens"`
		Format      *struct {
			Type       string
			JSONSchema struct {
				Name   string
				Strict bool
				Schema json.RawMessage
			} `json:"json_schema"`
		} `json:"response_format"`
		Tools []struct {
			Function struct{ Name string }
		}
	}
	a := Asked{Protocol: "openai", Body: body}
	if err := json.Unmarshal(body, &in); err != nil {
		return a, "We could not parse the JSON body of your request."
	}
	a.Model, a.Temperature, a.MaxTokens = in.Model, in.Temperature, max(in.MaxTokens, in.MaxAnswer)
	for _, t := range in.Tools {
		a.Tools = append(a.Tools, t.Function.Name)
	}
	wrong := a.take(in.Messages)
	if f := in.Format; f != nil {
		a.Schema = f.JSONSchema.Schema
		switch {
		case f.Type != "json_schema" || !f.JSONSchema.Strict || !toolName.MatchString(f.JSONSchema.Name):
			wrong = "Invalid 'response_format'."
		case wrong == "":
			wrong = faulty(a.Schema, true)
		}
	}
	switch {
	case in.Model == "":
		wrong = "you must provide a model parameter"
	case in.MaxTokens > 0 && in.MaxAnswer > 0:
		wrong = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
	}
	return a, cmpOr(wrong, badNames(a.Tools))
}

type openAIMessage struct {
	Role    string
	Content string
	CallID  string `json:"tool_call_id"`
	Calls   []struct {
		ID, Type string
		Function struct{ Name, Arguments string }
	} `json:"tool_calls"`
}

// take reads the messages: each result must be of a call of the assistant's message before.
func (a *Asked) take(messages []openAIMessage) (wrong string) {
	open := map[string]bool{}
	for _, m := range messages {
		if m.Role == "system" {
			a.System += m.Content
			continue
		}
		t := Turn{Role: m.Role, Text: m.Content, CallID: m.CallID}
		for _, c := range m.Calls {
			t.Calls = append(t.Calls, Call{c.ID, c.Function.Name, c.Function.Arguments})
		}
		if m.Role == "tool" {
			if !open[m.CallID] {
				wrong = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
			}
			delete(open, m.CallID)
		} else if len(open) > 0 {
			wrong = "An assistant message with 'tool_calls' must be followed by tool messages."
		}
		for _, c := range t.Calls {
			open[c.ID] = true
		}
		a.Turns = append(a.Turns, t)
	}
	if len(messages) == 0 {
		wrong = "[] is too short - 'messages'"
	}
	return wrong
}

func (openAI) answer(a Asked, r Reply) any {
	message := map[string]any{"role": "assistant", "content": r.Text, "refusal": nil}
	stop := "stop"
	if r.Refusal != "" {
		message["refusal"], message["content"] = r.Refusal, nil
	}
	if len(r.Calls) > 0 {
		stop = "tool_calls"
		var calls []any
		for _, c := range r.Calls {
			calls = append(calls, map[string]any{"id": c.ID, "type": "function", "function": map[string]any{"name": c.Name, "arguments": c.Arguments}})
		}
		message["tool_calls"] = calls
	}
	choices := []any{map[string]any{"index": 0, "finish_reason": cmpOr(r.Stop, stop), "message": message}}
	if r.NoChoices {
		choices = []any{}
	}
	out := map[string]any{"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": a.Model, "choices": choices}
	if r.Input+r.Cached+r.Output > 0 {
		out["usage"] = map[string]any{
			"prompt_tokens": r.Input, "completion_tokens": r.Output, "total_tokens": r.Input + r.Output,
			"prompt_tokens_details": map[string]any{"cached_tokens": r.Cached},
		}
	}
	return out
}

func (openAI) failure(r Reply) any {
	return map[string]any{"error": map[string]any{"message": r.Message, "type": r.Type, "code": r.Code, "param": nil}}
}

type anthropic struct{}

func (anthropic) key(r *http.Request) string { return r.Header.Get("X-Api-Key") }

type anthropicBlock struct {
	Type, Text, ID, Name, Thinking string
	Input                          json.RawMessage
	ToolUseID                      string `json:"tool_use_id"`
	Content                        []anthropicBlock
}

// cold are the models that refuse a temperature.
var cold = regexp.MustCompile(`^claude-(opus-4-[7-9]|[a-z]+-([5-9]|\d\d))`)

func (anthropic) read(r *http.Request, body []byte) (Asked, string) {
	var in struct {
		Model       string
		MaxTokens   int64 `json:"max_tokens"`
		System      []anthropicBlock
		Temperature *float64
		Messages    []struct {
			Role    string
			Content []anthropicBlock
		}
		Output struct {
			Format *struct {
				Type   string
				Schema json.RawMessage
			}
		} `json:"output_config"`
		Tools []struct {
			Name   string
			Schema struct{ Type string } `json:"input_schema"`
		}
	}
	a := Asked{Protocol: "anthropic", Body: body}
	if err := json.Unmarshal(body, &in); err != nil {
		return a, "The request body is not valid JSON: " + err.Error()
	}
	a.Model, a.Temperature, a.MaxTokens = in.Model, in.Temperature, in.MaxTokens
	for _, b := range in.System {
		a.System += b.Text
	}
	wrong := ""
	for _, t := range in.Tools {
		a.Tools = append(a.Tools, t.Name)
		if t.Schema.Type != "object" {
			wrong = "tools.0.custom.input_schema.type: Field required"
		}
	}
	for _, m := range in.Messages {
		wrong = cmpOr(wrong, a.add(m.Role, m.Content))
	}
	if f := in.Output.Format; f != nil {
		a.Schema = f.Schema
		wrong = cmpOr(wrong, faulty(f.Schema, false))
	}
	switch {
	case r.Header.Get("Anthropic-Version") == "":
		wrong = "anthropic-version: header is required"
	case in.MaxTokens <= 0:
		wrong = "max_tokens: Field required"
	case in.Temperature != nil && cold.MatchString(in.Model):
		wrong = "`temperature` is deprecated for this model."
	case len(a.Turns) == 0 || a.Turns[0].Role != "user":
		wrong = "messages: first message must use the \"user\" role"
	}
	return a, cmpOr(wrong, badNames(a.Tools))
}

// add reads a message: all calls of one must be answered in the next, and thoughts come back before them.
func (a *Asked) add(role string, blocks []anthropicBlock) (wrong string) {
	open := []string{}
	if n := len(a.Turns); n > 0 {
		for _, c := range a.Turns[n-1].Calls {
			open = append(open, c.ID)
		}
	}
	t := Turn{Role: role}
	for _, b := range blocks {
		switch b.Type {
		case "text":
			t.Text += b.Text
		case "thinking":
			t.Text += "<" + b.Thinking + ">"
		case "tool_use":
			t.Calls = append(t.Calls, Call{b.ID, b.Name, string(b.Input)})
		case "tool_result":
			i := slices.Index(open, b.ToolUseID)
			if i < 0 {
				return "unexpected `tool_use_id` found in `tool_result` blocks"
			}
			open = slices.Delete(open, i, i+1)
			result := Turn{Role: "tool", CallID: b.ToolUseID}
			for _, c := range b.Content {
				result.Text += c.Text
			}
			a.Turns = append(a.Turns, result)
			t.Role = "tool"
		}
	}
	if len(open) > 0 {
		return "`tool_use` ids were found without `tool_result` blocks immediately after"
	}
	if t.Role != "tool" {
		a.Turns = append(a.Turns, t)
	}
	return ""
}

func (anthropic) answer(a Asked, r Reply) any {
	content, stop := []any{}, "end_turn"
	if r.Thought != "" {
		content = append(content, map[string]any{"type": "thinking", "thinking": r.Thought, "signature": "sig"})
	}
	if r.Text != "" {
		content = append(content, map[string]any{"type": "text", "text": r.Text})
	}
	for _, c := range r.Calls {
		stop = "tool_use"
		content = append(content, map[string]any{"type": "tool_use", "id": c.ID, "name": c.Name, "input": json.RawMessage(c.Arguments)})
	}
	var details any
	if r.Refusal != "" {
		stop, details = "refusal", map[string]any{"type": "refusal", "category": "cyber", "explanation": r.Refusal}
	}
	if r.NoChoices {
		content = []any{}
	}
	return map[string]any{
		"id": "msg_1", "type": "message", "role": "assistant", "model": a.Model, "content": content,
		"stop_reason": cmpOr(r.Stop, stop), "stop_sequence": nil, "stop_details": details,
		"usage": map[string]any{"input_tokens": r.Input, "output_tokens": r.Output, "cache_read_input_tokens": r.Cached, "cache_creation_input_tokens": 0},
	}
}

func (anthropic) failure(r Reply) any {
	return map[string]any{"type": "error", "error": map[string]any{"type": r.Type, "message": r.Message}, "request_id": "req_1"}
}

var toolName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

func badNames(names []string) string {
	for _, n := range names {
		if !toolName.MatchString(n) {
			return fmt.Sprintf("tools: %q: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'", n)
		}
	}
	return ""
}

func cmpOr(first, second string) string {
	if first != "" {
		return first
	}
	return second
}
