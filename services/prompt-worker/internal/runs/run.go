// Package runs works off what hooks are to run on: the queue of async runs, one attempt of a run, what becomes of it.
// The queue's rows and the history lie in Postgres, behind the interfaces here; models behind prompting.Model.
package runs

import (
	"encoding/json"
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Statuses of runs.
const (
	Pending    = "pending"
	Completed  = "completed"
	Failed     = "failed"
	Superseded = "superseded"
)

// Triggers of runs.
const (
	ByEvent    = "event"
	ByReview   = "review"
	ByDryRun   = "dry_run"
	ByBacktest = "backtest"
)

// CauseCancelled is of a run whose hook was archived or disabled while it waited.
const CauseCancelled = "cancelled"

// Run is one execution of a hook, as it is kept.
type Run struct {
	ID, OrgID, HookID int64
	// HookName is for events; it is not kept.
	HookName              string
	Mode, Trigger, Status string
	// EventID is 0 for a review: its event comes after it.
	EventID                  int64
	EventType, AggregateType string
	AggregateID              int64
	TemplateVersion          int
	ProviderID               int64
	Model                    string
	Input                    []prompting.Message
	Output                   json.RawMessage
	ToolCalls                []ToolCall
	Usage                    prompting.Usage
	// Cost is in millionths.
	Cost            int64
	Latency         time.Duration
	Verdict, Reason string
	RuleIDs         []string
	Suspected       bool
	Cached          bool
	// Cause is empty, one of prompting.Cause… or CauseCancelled; Error its text.
	Cause, Error string
	// Attempts have begun, Unknown of them ended nobody knows how.
	Attempts, Unknown     int
	CreatedAt, FinishedAt time.Time
	Traceparent           string
	// Causation is of the event that triggered it.
	Causation hooks.Causation
}

// ToolCall is one call of a tool that a run has made.
type ToolCall struct {
	Tool      string          `json:"tool"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     string          `json:"error,omitempty"`
	// Latency is in milliseconds.
	Latency float64 `json:"latency"`
}

// Item is a run that waits.
type Item struct {
	ID, OrgID, HookID, EventID int64
	Shard                      int
	// Event is the envelope.
	Event                    []byte
	EventType, AggregateType string
	AggregateID              int64
	// Attempts have begun. Calling: the newest of them has not ended, so its outcome is unknown.
	Attempts, Unknown int
	Calling           bool
	Due, CreatedAt    time.Time
	// Cause and Error are of the scheduling (before the first attempt) or of the newest attempt.
	Cause, Error string
	Traceparent  string
}
