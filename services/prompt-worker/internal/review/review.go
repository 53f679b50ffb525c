// Package review decides what an organisation's review hooks say of proposed writes, in time. It asks models through
// Runner and keeps runs through Recorder; how either does it, and where hooks come from, is others' matter.
package review

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// What a hook's reject does.
const (
	Shadow  = "shadow"
	Warn    = "warn"
	Enforce = "enforce"
)

// Verdicts of hooks, beside prompting.Approve and prompting.Reject.
const (
	// Failed: there is no verdict, and the failure policy decided.
	Failed = "failed"
	// Superseded: another hook had stopped the write.
	Superseded = "superseded"
)

// Version is a template's version.
type Version struct {
	Number   int
	Template *prompting.Template
}

// Hook is a review hook that is enabled. Immutable.
type Hook struct {
	ID   int64
	Name string
	// Revision changes with every change of the hook.
	Revision int64
	Patterns []event.Pattern
	Rules    *prompting.Rules
	// Stable is nil for a hook of rules alone; Candidate is nil, or tried on CandidatePercentage of the entities.
	Stable, Candidate   *Version
	CandidatePercentage int
	ProviderID          int64
	Model               string
	// Parameters are the model's, as JSON.
	Parameters json.RawMessage
	// Timeout is 0 for DefaultTimeout.
	Timeout     time.Duration
	FailClosed  bool
	Enforcement string
	// Broken is why the hook cannot be asked, such as a label that its template has not; nil for none.
	Broken *prompting.ModelError
}

// Hooks finds an organisation's.
type Hooks interface {
	// ReviewHooks gives the enabled ones of mode review, in a stable order, as they are now or as they were in a generation.
	ReviewHooks(ctx context.Context, orgID int64, generation *int64) ([]*Hook, error)
}

// Ask is one question to a model.
type Ask struct {
	OrgID   int64
	Hook    *Hook
	Version int
	Prompt  prompting.Prompt
}

// Runner asks a model for a verdict: with the hook's provider, within limits and budgets, and with no tools unless the
// hook grants them. What it gives is not trusted. It should end with ctx; if it does not, the review goes on without it.
// Errors are *prompting.ModelError.
type Runner interface {
	Review(ctx context.Context, a Ask) (prompting.Response, error)
}

// Recorder keeps runs. Record gives a run its id at once and never waits: the review's deadline is running.
type Recorder interface {
	Record(r Run) int64
}

// Run is what became of one hook on one write.
type Run struct {
	OrgID   int64
	HookID  int64
	Write   Write
	Hash    string
	Version int
	// ProviderID and Model are those that were to be asked.
	ProviderID int64
	Model      string
	// Input, Output and Usage are empty where no model was asked.
	Input   []prompting.Message
	Output  json.RawMessage
	Usage   prompting.Usage
	Cached  bool
	Verdict HookVerdict
	// Cause and Error are for the hook's owner; empty for none.
	Cause, Error string
	StartedAt    time.Time
	Latency      time.Duration
	Traceparent  string
}

// HookVerdict is what a hook says of a write.
type HookVerdict struct {
	HookID   int64
	HookName string
	// Verdict is approve, reject, failed or superseded.
	Verdict string
	// Enforced: it stops the write.
	Enforced    bool
	Enforcement string
	// Reason is for whoever is refused: clean, at most 500 characters.
	Reason  string
	RuleIDs []string
	RunID   int64
	// FailedOpen: a failure that the hook's policy let pass.
	FailedOpen         bool
	InjectionSuspected bool
}

// Judgement is what all hooks say of a write.
type Judgement struct {
	Rejected bool
	// Hash is reviewhash's, of the write that was judged.
	Hash     string
	Verdicts []HookVerdict
}

// exempt are the types of prompt-worker's own objects. No hook is asked about them: a bad hook can always be removed.
func exempt(aggregateType string) bool {
	return slices.Contains([]string{"prompt_template", "prompt_hook", "prompt_provider", "mcp_server", "prompt_backtest"}, aggregateType)
}

// matches tells whether a hook wants to see an event type.
func (h *Hook) matches(eventType string) bool {
	return slices.ContainsFunc(h.Patterns, func(p event.Pattern) bool { return p.Match(eventType) })
}

// version chooses the template's version for a write: always the same for one entity. What has no id yet is known by
// the hash of the write.
func (h *Hook) version(w *Write, hash string) *Version {
	if h.Candidate == nil {
		return h.Stable
	}
	entity := fmt.Sprintf("%s %d", w.AggregateType, w.AggregateID)
	if w.AggregateID == 0 {
		entity = hash
	}
	if Bucket(h.ID, entity) < h.CandidatePercentage {
		return h.Candidate
	}
	return h.Stable
}

// Bucket gives an entity its place among a hook's hundred, 0 to 99: for ever the same, spread evenly, and another for
// another hook.
func Bucket(hookID int64, entity string) int {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", hookID, entity))
	return int(binary.BigEndian.Uint64(sum[:8]) % 100)
}

// decide is the one place where a hook's verdict is made of what happened. Nothing but a sound verdict approves.
func decide(h *Hook, o outcome) HookVerdict {
	v := HookVerdict{HookID: h.ID, HookName: h.Name, Enforcement: h.Enforcement, RuleIDs: []string{}}
	enforce := h.Enforcement == Enforce
	switch {
	case o.superseded:
		v.Verdict = Superseded
		return v
	case o.failure == nil && o.verdict.Verdict == prompting.Reject:
		v.Verdict, v.Enforced = prompting.Reject, enforce
		v.Reason, v.RuleIDs, v.InjectionSuspected = o.verdict.Reason, o.verdict.RuleIDs, o.verdict.InjectionSuspected
		return v
	case o.failure == nil && o.verdict.Verdict == prompting.Approve && !o.verdict.InjectionSuspected:
		v.Verdict, v.Reason = prompting.Approve, o.verdict.Reason
		return v
	case o.failure == nil && o.verdict.InjectionSuspected:
		v.InjectionSuspected, v.Reason = true, "an instruction in the data is suspected"
	case o.failure != nil:
		v.Reason = "the review failed: " + o.failure.Cause
	default:
		v.Reason = "the review failed: " + prompting.CauseInvalid
	}
	v.Verdict, v.Enforced, v.FailedOpen = Failed, enforce && h.FailClosed, enforce && !h.FailClosed
	return v
}
