package provider

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
	"github.com/anthropics/anthropic-sdk-go/packages/param"

	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/provider/strict"
)

// Anthropic speaks messages (platform.claude.com/docs/en/api/messages). Safe for concurrent use.
type Anthropic struct {
	config   Config
	messages anthropic.MessageService
}

func newAnthropic(c Config) *Anthropic {
	// The service is made without the SDK's client, which would look for credentials in the environment and in files.
	// Its spans would double ours.
	options := []option.RequestOption{
		option.WithBaseURL(c.BaseURL), option.WithMaxRetries(0), option.WithRequestTimeout(callTimeout), option.WithoutOpenTelemetry(),
	}
	if c.Key != "" {
		options = append(options, option.WithAPIKey(c.Key))
	}
	return &Anthropic{config: c, messages: anthropic.NewMessageService(options...)}
}

// Enforces implements Model.
func (a *Anthropic) Enforces(schema json.RawMessage) bool {
	_, err := strict.Anthropic(schema)
	return schema == nil || err == nil
}

// Complete implements prompting.Model.
func (a *Anthropic) Complete(ctx context.Context, r prompting.Request) (prompting.Response, error) {
	params, err := a.params(r)
	if err != nil {
		return prompting.Response{}, &prompting.ModelError{Cause: prompting.CauseBadRequest, Text: err.Error()}
	}
	e := a.config.exchange()
	got, err := a.messages.New(ctx, params, option.WithHTTPClient(e))
	if err != nil {
		return prompting.Response{}, e.fail(ctx, err, a.config.Key)
	}
	return a.read(r, got)
}

func (a *Anthropic) params(r prompting.Request) (anthropic.MessageNewParams, error) {
	p := anthropic.MessageNewParams{Model: r.Model, MaxTokens: limit(r), Messages: conversation(r.Turns)}
	if r.System != "" {
		p.System = []anthropic.TextBlockParam{{Text: r.System}}
	}
	if r.Temperature != nil && takesTemperature(r.Model) {
		p.Temperature = anthropic.Float(*r.Temperature)
	}
	if r.Schema != nil {
		schema, err := strict.Anthropic(r.Schema)
		if err != nil {
			return p, err
		}
		p.OutputConfig.Format = param.Override[anthropic.JSONOutputFormatParam](map[string]any{"type": "json_schema", "schema": schema})
	}
	for _, t := range r.Tools {
		tool := anthropic.ToolParam{Name: t.Name, InputSchema: param.Override[anthropic.ToolInputSchemaParam](fields(t.Schema))}
		if t.Description != "" {
			tool.Description = anthropic.String(t.Description)
		}
		p.Tools = append(p.Tools, anthropic.ToolUnionParam{OfTool: &tool})
	}
	return p, nil
}

// sampled are the models that take a temperature: newer ones of this family answer 400 to any.
var sampled = regexp.MustCompile(`^claude-(2|3|instant|(opus|sonnet|haiku)-4(-[0-6])?(-\d{8})?$)`)

func takesTemperature(model string) bool {
	return !strings.HasPrefix(model, "claude-") || sampled.MatchString(model)
}

// conversation puts the results of tools that were asked for together into one message, as the protocol wants it.
func conversation(turns []prompting.Turn) (out []anthropic.MessageParam) {
	results := false
	for _, t := range turns {
		switch t.Role {
		case "tool":
			block := anthropic.NewToolResultBlock(t.CallID, t.Text, t.Failed)
			if results {
				out[len(out)-1].Content = append(out[len(out)-1].Content, block)
			} else {
				out = append(out, anthropic.NewUserMessage(block))
			}
		case "assistant":
			out = append(out, said(t))
		default:
			out = append(out, anthropic.NewUserMessage(anthropic.NewTextBlock(t.Text)))
		}
		results = t.Role == "tool"
	}
	return out
}

func said(t prompting.Turn) anthropic.MessageParam {
	if t.Native != nil {
		return param.Override[anthropic.MessageParam](map[string]any{"role": "assistant", "content": t.Native})
	}
	var blocks []anthropic.ContentBlockParamUnion
	if t.Text != "" {
		blocks = append(blocks, anthropic.NewTextBlock(t.Text))
	}
	for _, c := range t.Calls {
		blocks = append(blocks, anthropic.NewToolUseBlock(c.ID, c.Arguments, c.Name))
	}
	return anthropic.NewAssistantMessage(blocks...)
}

func (a *Anthropic) read(r prompting.Request, got *anthropic.Message) (prompting.Response, error) {
	// input_tokens leaves the cached ones out; what was written to a cache was read as input first.
	told := prompting.Usage{
		Input: got.Usage.InputTokens + got.Usage.CacheCreationInputTokens, Cached: got.Usage.CacheReadInputTokens, Output: got.Usage.OutputTokens,
	}
	out := prompting.Response{Usage: counted(told, r, len(got.RawJSON()))}
	failed := func(cause, text string) (prompting.Response, error) {
		return prompting.Response{}, &prompting.ModelError{Cause: cause, Text: text, Usage: out.Usage}
	}
	switch got.StopReason {
	case anthropic.StopReasonEndTurn, anthropic.StopReasonStopSequence, anthropic.StopReasonToolUse:
	case anthropic.StopReasonRefusal:
		return failed(prompting.CauseRefused, strings.TrimSpace("the model refused "+clean(got.StopDetails.Explanation, a.config.Key)))
	case anthropic.StopReasonMaxTokens, "model_context_window_exceeded":
		return failed(prompting.CauseTruncated, "the answer reached its limit of tokens")
	default:
		return failed(prompting.CauseInvalid, "the answer ended for another reason than its end")
	}
	thought := false
	for _, block := range got.Content {
		switch block.Type {
		case "text":
			out.Text += block.Text
		case "tool_use":
			out.Calls = append(out.Calls, prompting.ToolCall{ID: block.ID, Name: block.Name, Arguments: arguments(string(block.Input))})
		case "thinking", "redacted_thinking":
			thought = true
		}
	}
	if thought && len(out.Calls) > 0 {
		out.Native, _ = json.Marshal(got.ToParam().Content) // made of JSON a moment ago
	}
	return answer(r, out)
}
