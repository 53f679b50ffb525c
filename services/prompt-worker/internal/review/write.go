package review

import (
	"encoding/json"
	"strings"
	"sync"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/reviewhash"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// MaxWrites bounds the writes of one request.
const MaxWrites = 1000

// Write is a proposed write: a pre_* event and what would become of the entity.
type Write struct {
	EventType, AggregateType string
	// AggregateID and BaseVersion are 0 for what is new.
	AggregateID, BaseVersion int64
	RecordName               string
	// Before and After are JSON; empty where there is nothing.
	Before, After json.RawMessage
	// Changed names the fields that differ: top-level ones, and attributes.NAME.
	Changed            []string
	WorkflowID, StepID *int64
}

// proposal is a write made ready to be judged.
type proposal struct {
	*Write
	hash  string
	event *condition.Event
	// subject is made when a template needs it.
	subject func() (*prompting.Subject, error)
}

func propose(orgID int64, actorID *int64, w *Write) (*proposal, error) {
	refuse := func(err error) (*proposal, error) {
		return nil, errs.New(errs.Invalid, "INVALID_WRITE", "the write cannot be judged").WithCause(err)
	}
	hash, err := reviewhash.Hash(reviewhash.Write{
		OrgID: orgID, EventType: w.EventType, AggregateType: w.AggregateType, AggregateID: w.AggregateID, BaseVersion: w.BaseVersion,
		RecordName: w.RecordName, WorkflowID: w.WorkflowID, StepID: w.StepID, Changed: w.Changed, After: w.After,
	})
	if err != nil {
		return refuse(err)
	}
	text, err := document(orgID, actorID, w)
	if err != nil {
		return refuse(err)
	}
	e, err := condition.NewWrite(text)
	if err != nil {
		return refuse(err)
	}
	subject := sync.OnceValues(func() (*prompting.Subject, error) { return prompting.ParseSubject(text) })
	return &proposal{w, hash, e, subject}, nil
}

// document is the event that the write would be, with what hooks see beside it. It has no id and no time: nothing has
// happened, and two proposals of the same write are the same question.
func document(orgID int64, actorID *int64, w *Write) ([]byte, error) {
	_, action, _ := strings.Cut(w.EventType, ".")
	payload := map[string]any{
		"org_id": orgID, "actor_id": actorID, "record_id": w.AggregateID, "record_type": w.AggregateType, "record_name": w.RecordName, "action": action,
	}
	if w.WorkflowID != nil {
		payload["workflow_id"] = *w.WorkflowID
	}
	if w.StepID != nil {
		payload["step_id"] = *w.StepID
	}
	changed := w.Changed
	if changed == nil {
		changed = []string{}
	}
	return json.Marshal(map[string]any{
		"org_id": orgID, "aggregate_type": w.AggregateType, "aggregate_id": w.AggregateID, "event_type": w.EventType, "payload": payload,
		"before": orNull(w.Before), "after": orNull(w.After), "changed": changed,
	})
}

func orNull(text json.RawMessage) json.RawMessage {
	if len(text) == 0 {
		return json.RawMessage("null")
	}
	return text
}
