package provider

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/provider/strict"
)

// OpenAI speaks chat completions (platform.openai.com/docs/api-reference/chat). Safe for concurrent use.
type OpenAI struct {
	config Config
	chat   openai.ChatCompletionService
	// vendor: it is OpenAI itself, whose newer models refuse what compatible servers alone know.
	vendor bool
}

func newOpenAI(c Config, vendor bool) *OpenAI {
	// The service is made without the SDK's client, which would read keys and headers from the environment.
	options := []option.RequestOption{option.WithBaseURL(c.BaseURL), option.WithMaxRetries(0), option.WithRequestTimeout(callTimeout)}
	if c.Key != "" {
		options = append(options, option.WithAPIKey(c.Key))
	}
	return &OpenAI{config: c, chat: openai.NewChatCompletionService(options...), vendor: vendor}
}

// Enforces implements Model.
func (o *OpenAI) Enforces(schema json.RawMessage) bool {
	_, err := strict.OpenAI(schema)
	return schema == nil || err == nil
}

// Complete implements prompting.Model.
func (o *OpenAI) Complete(ctx context.Context, r prompting.Request) (prompting.Response, error) {
	params, err := o.params(r)
	if err != nil {
		return prompting.Response{}, &prompting.ModelError{Cause: prompting.CauseBadRequest, Text: err.Error()}
	}
	e := o.config.exchange()
	got, err := o.chat.New(ctx, params, option.WithHTTPClient(e))
	if err != nil {
		return prompting.Response{}, e.fail(ctx, err, o.config.Key)
	}
	return o.read(r, got)
}

func (o *OpenAI) params(r prompting.Request) (openai.ChatCompletionNewParams, error) {
	p := openai.ChatCompletionNewParams{Model: r.Model}
	if r.System != "" {
		p.Messages = append(p.Messages, openai.SystemMessage(r.System))
	}
	for _, t := range r.Turns {
		p.Messages = append(p.Messages, message(t))
	}
	if r.Temperature != nil {
		p.Temperature = openai.Float(*r.Temperature)
	}
	if o.vendor {
		p.MaxCompletionTokens, p.Store = openai.Int(limit(r)), openai.Bool(false)
	} else {
		p.MaxTokens = openai.Int(limit(r))
	}
	if r.Schema != nil {
		schema, err := strict.OpenAI(r.Schema)
		if err != nil {
			return p, err
		}
		p.ResponseFormat.OfJSONSchema = &openai.ResponseFormatJSONSchemaParam{JSONSchema: openai.ResponseFormatJSONSchemaJSONSchemaParam{
			Name: name(r), Strict: openai.Bool(true), Schema: schema,
		}}
	}
	for _, t := range r.Tools {
		p.Tools = append(p.Tools, openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
			Name: t.Name, Description: openai.String(t.Description), Parameters: fields(t.Schema),
		}))
	}
	return p, nil
}

func name(r prompting.Request) string {
	if r.SchemaName == "" {
		return "answer"
	}
	return r.SchemaName
}

// fields is a schema as the SDK wants it, its members untouched.
func fields(schema json.RawMessage) map[string]any {
	var members map[string]json.RawMessage
	if json.Unmarshal(schema, &members) != nil || members == nil {
		return map[string]any{"type": "object"}
	}
	out := make(map[string]any, len(members))
	for name, value := range members {
		out[name] = value
	}
	return out
}

func message(t prompting.Turn) openai.ChatCompletionMessageParamUnion {
	switch t.Role {
	case "tool":
		return openai.ToolMessage(t.Text, t.CallID)
	case "assistant":
		m := openai.ChatCompletionAssistantMessageParam{}
		if t.Text != "" || len(t.Calls) == 0 {
			m.Content.OfString = param.NewOpt(t.Text)
		}
		for _, c := range t.Calls {
			m.ToolCalls = append(m.ToolCalls, openai.ChatCompletionMessageToolCallUnionParam{
				OfFunction: &openai.ChatCompletionMessageFunctionToolCallParam{
					ID: c.ID, Function: openai.ChatCompletionMessageFunctionToolCallFunctionParam{Name: c.Name, Arguments: written(c.Arguments)},
				},
			})
		}
		return openai.ChatCompletionMessageParamUnion{OfAssistant: &m}
	default:
		return openai.UserMessage(t.Text)
	}
}

// written undoes arguments.
func written(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func (o *OpenAI) read(r prompting.Request, got *openai.ChatCompletion) (prompting.Response, error) {
	cached := got.Usage.PromptTokensDetails.CachedTokens
	out := prompting.Response{}
	failed := func(cause, text string) (prompting.Response, error) {
		return prompting.Response{}, &prompting.ModelError{Cause: cause, Text: text, Usage: out.Usage}
	}
	// prompt_tokens has the cached ones in it.
	told := prompting.Usage{Input: got.Usage.PromptTokens - cached, Cached: cached, Output: got.Usage.CompletionTokens}
	out.Usage = counted(told, r, len(got.RawJSON()))
	if len(got.Choices) == 0 {
		return failed(prompting.CauseInvalid, "the answer has no choices")
	}
	choice := got.Choices[0]
	switch {
	case choice.Message.Refusal != "", choice.FinishReason == "content_filter":
		return failed(prompting.CauseRefused, strings.TrimSpace("the model refused "+clean(choice.Message.Refusal, o.config.Key)))
	case choice.FinishReason == "length":
		return failed(prompting.CauseTruncated, "the answer reached its limit of tokens")
	case choice.FinishReason != "stop" && choice.FinishReason != "tool_calls":
		return failed(prompting.CauseInvalid, "the answer ended for another reason than its end")
	}
	out.Text = choice.Message.Content
	for _, c := range choice.Message.ToolCalls {
		if c.Function.Name == "" {
			return failed(prompting.CauseInvalid, "the model asks for a tool without a name")
		}
		out.Calls = append(out.Calls, prompting.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: arguments(c.Function.Arguments)})
	}
	return answer(r, out)
}
