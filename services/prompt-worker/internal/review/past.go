package review

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
)

// past is what an event tells of its write.
type past struct {
	ActorID    *int64           `json:"actor_id"`
	RecordName string           `json:"record_name"`
	WorkflowID *int64           `json:"workflow_id"`
	StepID     *int64           `json:"step_id"`
	Changes    map[string]sides `json:"changes"`
}

type sides struct {
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// IsPre tells whether an event is of a write before it happened.
func IsPre(e *event.Event) bool { return strings.HasPrefix(e.EventType, e.AggregateType+".pre_") }

// PastWrite gives the write that a past pre_* event was of, as far as the event tells: of an update, the fields that
// changed and the name.
func PastWrite(e *event.Event) (w Write, actorID *int64, err error) {
	var p past
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return w, nil, err
	}
	w = Write{EventType: e.EventType, AggregateType: e.AggregateType, AggregateID: e.AggregateID, RecordName: p.RecordName,
		WorkflowID: p.WorkflowID, StepID: p.StepID}
	archived := e.EventType == event.TypeOf(e.AggregateType, event.Pre(event.Archive))
	if w.After, err = p.snapshot(archived, func(s sides) json.RawMessage { return s.After }); err != nil {
		return w, nil, err
	}
	if e.EventType == event.TypeOf(e.AggregateType, event.Pre(event.Create)) {
		return w, p.ActorID, nil
	}
	w.Changed = p.changed()
	w.Before, err = p.snapshot(false, func(s sides) json.RawMessage { return s.Before })
	return w, p.ActorID, err
}

// snapshot has the form in which api-gateway shows records to reviews.
func (p *past) snapshot(archived bool, side func(sides) json.RawMessage) (json.RawMessage, error) {
	out := map[string]any{"name": p.RecordName, "workflow_id": p.WorkflowID, "step_id": p.StepID, "archived": archived}
	for field, both := range p.Changes {
		out[field] = side(both)
	}
	if text, known := out["attributes"].(json.RawMessage); !known || len(text) == 0 || string(text) == "null" {
		out["attributes"] = json.RawMessage(`{}`)
	}
	delete(out, "archived_at")
	return json.Marshal(out)
}

func (p *past) changed() (names []string) {
	for field, both := range p.Changes {
		if field != "attributes" {
			names = append(names, field)
			continue
		}
		for _, side := range []json.RawMessage{both.Before, both.After} {
			var object map[string]json.RawMessage
			_ = json.Unmarshal(side, &object) // what is no object has no names
			for name := range object {
				names = append(names, "attributes."+name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Applies tells whether a hook's condition selects a write; rules of a hook that no such write is shown to select none.
// Errors: *prompting.ModelError of a condition that cannot tell, *errs.Error of a write that is none.
func Applies(ctx context.Context, rules *prompting.Rules, orgID int64, actorID *int64, w *Write) (bool, error) {
	if exempt(w.AggregateType) {
		return false, nil
	}
	p, err := propose(orgID, actorID, w)
	if err != nil {
		return false, err
	}
	return rules.Matches(ctx, p.event)
}
