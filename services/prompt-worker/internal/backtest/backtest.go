// Package backtest runs a version of a template on past events beside what was decided then: which events, one attempt,
// what it means, the whole as a job that survives its worker. Its rows lie in Postgres, behind Queue; a review is judged
// by package review, behind Reviews. Nothing comes of it but its result.
package backtest

import (
	"time"

	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// Statuses of backtests.
const (
	Queued    = "queued"
	Running   = "running"
	Completed = "completed"
	Cancelled = "cancelled"
	Failed    = "failed"
)

// Words of what was decided then, and of what the version says, beside prompting.Approve and prompting.Reject.
const (
	NoBaseline = "no_baseline"
	Error      = "error"
	Output     = "output"
	Equal      = "equal"
	Different  = "different"
	Invalid    = "invalid"
)

// CauseGone is of an event that retention has dropped meanwhile.
const CauseGone = "event_gone"

// Limits of a backtest.
const (
	MaxEvents     = 200
	DefaultEvents = 50
	// MaxOpen is how many of an organisation may wait or run.
	MaxOpen = 10
	// Valid is how long a finished one lets a protected label move.
	Valid = 7 * 24 * time.Hour
)

// Request is what was asked for; the JSON is how it is stored.
type Request struct {
	// Events are the newest matching ones, so many.
	Events int `json:"events"`
	// ProviderID and Model are empty for the hook's own.
	ProviderID int64  `json:"provider_id,omitempty"`
	Model      string `json:"model,omitempty"`
	// Budget is of the whole backtest.
	Budget prompting.Limits `json:"budget"`
}

// Backtest is one, as it is kept.
type Backtest struct {
	OrgID, ID, HookID, HookVersion int64
	TemplateID                     int64
	TemplateVersion                int
	Request                        Request
	// Settings are the hook's as of the request, with what the request changes.
	Settings hooks.Settings
	Status   string
	// Error is why it failed; Exhausted whose budget ended it: "backtest", "organisation" or nobody's.
	Error, Exhausted string
	// Selected: its events have been found.
	Selected   bool
	CreatedAt  time.Time
	FinishedAt *time.Time
	// Cases are its events, newest first.
	Cases []Case
}

// Ended tells whether nothing more comes of it.
func (b *Backtest) Ended() bool { return b.Status != Queued && b.Status != Running }

// With gives a hook's settings with what a request changes: one version for all, and its provider alone where it names one.
func (r Request) With(set hooks.Settings, version int) hooks.Settings {
	set.TemplateVersion, set.TemplateLabel, set.CandidateVersion, set.CandidatePercentage = version, "", 0, 0
	if r.ProviderID != 0 && r.ProviderID != set.ProviderID {
		set.ProviderID, set.FallbackProviderIDs, set.Model = r.ProviderID, nil, ""
	}
	if r.Model != "" {
		set.Model, set.FallbackProviderIDs = r.Model, nil
	}
	set.Budget = r.Budget
	return set
}

// Case is one event of a backtest.
type Case struct {
	EventID, RunID int64
	// Attempts are calls of the model that have begun; Unknown of them ended nobody knows how.
	Attempts, Unknown int
	// Took is all that is known to be spent, and the worst case of what is not.
	Took prompting.Amount
	// Result is nil until it is done.
	Result *Result
}

// Result is what came of an event; the JSON is how it is stored.
type Result struct {
	Baseline       string `json:"baseline"`
	BaselineReason string `json:"baseline_reason,omitempty"`
	BaselineRunID  int64  `json:"baseline_run_id,omitempty"`
	Verdict        string `json:"verdict"`
	Reason         string `json:"reason,omitempty"`
	// Cause is empty where it did not fail.
	Cause string          `json:"cause,omitempty"`
	Usage prompting.Usage `json:"usage"`
	// Cost is in millionths.
	Cost int64 `json:"cost"`
	// Latency is in microseconds; 0 where no model was asked.
	Latency int64 `json:"latency_us,omitempty"`
}

// Job is a backtest in the hands of a worker.
type Job struct {
	Backtest
	Holder string
}
