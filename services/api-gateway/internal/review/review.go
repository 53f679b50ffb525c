// Package review puts the organisation's hooks before writes: what would be written is judged first, and what was
// judged is what is written. It stands between package records and its store. The judging itself is
// prompt-worker's; which hooks there are, Postgres says: in the same transaction as the write.
package review

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
)

// Hook is what a writer has to know of a hook that reviews.
type Hook struct {
	ID   int64
	Name string
	// EventTypes are of pre_* events.
	EventTypes []event.Pattern
	// FailClosed stops the write when the hook cannot be asked.
	FailClosed bool
	// Enforcement is "shadow", "warn" or "enforce"; only the last ever stops a write.
	Enforcement string
	// TimeoutMS is how long it may take, in milliseconds.
	TimeoutMS int64
}

// Set is an organisation's hooks as of one generation.
type Set struct {
	Generation int64
	Hooks      []Hook
}

// matching gives the hooks that judge an event.
func (s *Set) matching(eventType string) (list []Hook) {
	for _, h := range s.Hooks {
		if slices.ContainsFunc(h.EventTypes, func(p event.Pattern) bool { return p.Match(eventType) }) {
			list = append(list, h)
		}
	}
	return list
}

// Proposal is a write before it happens.
type Proposal struct {
	EventType, Type string
	// ID is 0 for a record that has none yet.
	ID   int64
	Name string
	// Before and After are what a write can change of a record; nil for what is not.
	Before, After json.RawMessage
	// Changed names the fields that differ: top-level ones, and attributes.NAME.
	Changed []string
	// BaseVersion is the version that the write is based on; 0 for a new record.
	BaseVersion        int64
	WorkflowID, StepID *int64
}

// Verdict is what one hook says, as it stands in the `reviews` of the pre_* event.
type Verdict struct {
	HookID   int64  `json:"hook_id"`
	HookName string `json:"hook_name"`
	// Verdict is "approve", "reject", "failed" or "superseded".
	Verdict     string   `json:"verdict"`
	Enforced    bool     `json:"enforced"`
	Enforcement string   `json:"enforcement"`
	Reason      string   `json:"reason,omitempty"`
	RuleIDs     []string `json:"rule_ids,omitempty"`
	RunID       int64    `json:"run_id,omitempty"`
	FailedOpen  bool     `json:"failed_open,omitempty"`
	Suspected   bool     `json:"injection_suspected,omitempty"`
}

// Judgement is what all hooks say of one proposal.
type Judgement struct {
	Rejected bool
	Verdicts []Verdict
	// Unavailable: it was rejected only because a hook could not be asked.
	Unavailable bool
}

// Judge judges proposals. It answers in the order of the proposals, or errs when nobody could be asked.
type Judge interface {
	Judge(ctx context.Context, call records.Call, list []Proposal) ([]Judgement, error)
}

// withoutJudge is what the hooks' own failure policies say when nobody can be asked.
func withoutJudge(hooks []Hook) (j Judgement) {
	for _, h := range hooks {
		stops := h.FailClosed && h.Enforcement == "enforce"
		j.Rejected = j.Rejected || stops
		j.Verdicts = append(j.Verdicts, Verdict{HookID: h.ID, HookName: h.Name, Verdict: "failed", Enforced: stops,
			Enforcement: h.Enforcement, Reason: "prompt-worker could not be asked", FailedOpen: !h.FailClosed && h.Enforcement == "enforce"})
	}
	j.Unavailable = j.Rejected
	return j
}

// refusal is the error of a rejected write. It names the first hook that stopped it.
func refusal(j Judgement) *errs.Error {
	i := slices.IndexFunc(j.Verdicts, func(v Verdict) bool { return v.Enforced && v.Verdict != "superseded" && v.Verdict != "approve" })
	if i < 0 {
		i = 0
	}
	v := Verdict{}
	if len(j.Verdicts) > 0 {
		v = j.Verdicts[i]
	}
	if j.Unavailable {
		return errs.New(errs.Unavailable, "REVIEW_UNAVAILABLE", "a hook that must review this write could not be asked, try again").
			WithRetryAfter(time.Second).
			WithMeta("hook_id", strconv.FormatInt(v.HookID, 10)).WithMeta("hook", v.HookName)
	}
	text := "a review has rejected this write"
	if v.Reason != "" {
		text += ": " + v.Reason
	}
	e := errs.New(errs.FailedPrecondition, "REVIEW_REJECTED", text).
		WithMeta("hook_id", strconv.FormatInt(v.HookID, 10)).WithMeta("hook", v.HookName)
	if len(v.RuleIDs) > 0 {
		e = e.WithMeta("rules", strings.Join(v.RuleIDs, ","))
	}
	return e
}

// snapshot is what a review sees of a record: what a write can change of it.
func snapshot(r *records.Record) json.RawMessage {
	text, err := json.Marshal(struct {
		Name       string          `json:"name"`
		Attributes json.RawMessage `json:"attributes"`
		WorkflowID *int64          `json:"workflow_id"`
		StepID     *int64          `json:"step_id"`
		Archived   bool            `json:"archived"`
	}{r.Name, r.Attributes, r.WorkflowID, r.StepID, r.ArchivedAt != nil})
	if err != nil { // the attributes are JSON: records has seen to it
		panic(err)
	}
	return text
}

// propose makes the proposal of a change; before is nil for a new record.
func propose(before *records.Record, c *records.Change) Proposal {
	p := Proposal{EventType: event.TypeOf(c.Next.Type, event.Pre(c.Operation)), Type: c.Next.Type, ID: c.Next.ID, Name: c.Next.Name,
		After: snapshot(&c.Next), WorkflowID: c.Next.WorkflowID, StepID: c.Next.StepID}
	if before != nil {
		p.Before, p.BaseVersion = snapshot(before), before.Version
		p.Changed = changed(c.Changes)
	}
	return p
}

// changed names the fields of a change: of attributes, each one.
func changed(changes json.RawMessage) (names []string) {
	var fields map[string]struct {
		Before, After json.RawMessage
	}
	if len(changes) == 0 || json.Unmarshal(changes, &fields) != nil {
		return nil
	}
	for field, c := range fields {
		if field != "attributes" {
			names = append(names, field)
			continue
		}
		for _, side := range []json.RawMessage{c.Before, c.After} {
			var object map[string]json.RawMessage
			_ = json.Unmarshal(side, &object) // an object, by package records
			for name := range object {
				names = append(names, "attributes."+name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
