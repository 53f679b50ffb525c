// Package prompting has the rules of prompt hooks: templates and how an event enters them, what a model is asked
// and what counts as its answer, budgets, retries. Nothing here knows Postgres, HTTP or a provider's SDK.
package prompting

import (
	"context"
	"encoding/json"
	"time"
)

// Model calls a language model once: no retries, those are ours. Safe for concurrent use. Errors are *ModelError.
type Model interface {
	Complete(ctx context.Context, r Request) (Response, error)
}

// Request is what a model is asked.
type Request struct {
	Model  string
	System string
	// Turns begin with the user's.
	Turns []Turn
	// Schema is the JSON Schema of the answer; nil asks for text.
	Schema     json.RawMessage
	SchemaName string
	Tools      []Tool
	// MaxTokens bounds the answer; 0 means DefaultMaxTokens: what is not bounded cannot be paid for beforehand.
	MaxTokens int
	// Temperature is nil where it is left to the provider, which some insist on.
	Temperature *float64
}

// Turn is one message of a conversation, or the results of tools.
type Turn struct {
	// Role is "user", "assistant" or "tool".
	Role  string
	Text  string
	Calls []ToolCall
	// CallID is of the call that a tool's turn answers.
	CallID string
	// Failed says that the tool's text is an error.
	Failed bool
	// Native is the Response's, given back; nil for none.
	Native json.RawMessage
}

// Tool is one that the model may ask for.
type Tool struct {
	Name, Description string
	Schema            json.RawMessage
}

// ToolCall is the model's wish to call a tool.
type ToolCall struct {
	ID, Name  string
	Arguments json.RawMessage
}

// Response is a model's whole answer. An answer that was refused, cut or empty is an error and no response.
type Response struct {
	Text string
	// JSON is the answer when a schema was asked for: valid JSON, not yet checked against the schema.
	JSON  json.RawMessage
	Calls []ToolCall
	Usage Usage
	// Native is what the provider wants back unchanged in the next request, such as its signed thoughts. Only an
	// adapter reads it.
	Native json.RawMessage
	// From is who answered, where several may be asked.
	From Source
}

// Source is a provider and its model: what a price and a limit belong to.
type Source struct {
	ProviderID int64
	Model      string
}

// DefaultMaxTokens is the bound of an answer that asks for none.
const DefaultMaxTokens = 4096

// Usage counts tokens. Input leaves out what a cache served, whatever the provider counts.
type Usage struct {
	Input, Cached, Output int64
}

// Causes of a failure.
const (
	CauseTimeout      = "timeout"
	CauseRateLimited  = "rate_limited"
	CauseOverloaded   = "overloaded"
	CauseQuota        = "quota"
	CauseBudget       = "budget"
	CauseRefused      = "refused"
	CauseTruncated    = "truncated"
	CauseInvalid      = "invalid_output"
	CauseUnavailable  = "unavailable"
	CauseUnauthorized = "unauthorized"
	CauseBadRequest   = "bad_request"
	CauseCondition    = "condition"
	CauseTemplate     = "template"
	CauseTool         = "tool"
)

// ModelError is why a model gave no answer.
type ModelError struct {
	Cause string
	// Text is for the hook's owner: no key, no internal address.
	Text string
	// RetryAfter is what the provider asked for; 0 for nothing. Never slept for by an adapter.
	RetryAfter time.Duration
	// Unknown: the request may have been carried out, and paid for.
	Unknown bool
	// Unsent: nothing has left this process, so another provider may be asked whatever the cause.
	Unsent bool
	// Usage is what was spent although it failed.
	Usage Usage
	// From is who failed, where several may be asked.
	From Source
}

// Error implements error.
func (e *ModelError) Error() string { return e.Cause + ": " + e.Text }

// Retryable tells whether the same request may succeed later.
func (e *ModelError) Retryable() bool {
	switch e.Cause {
	case CauseTimeout, CauseRateLimited, CauseOverloaded, CauseUnavailable:
		return true
	default:
		return false
	}
}
