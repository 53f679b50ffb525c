package feed

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/prompting"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// triggered gives the runs of an event.
func (f *Feed) triggered(ctx context.Context, list []*hooks.Hook, e *stream.Entry) (out []*runs.Item) {
	matching := slices.DeleteFunc(slices.Clone(list), func(h *hooks.Hook) bool { return !h.Triggers(e.EventType, e.Position) })
	if len(matching) == 0 {
		return nil
	}
	var cause hooks.Causation
	if bytes.Contains(e.Envelope, []byte(`"causation"`)) {
		cause = hooks.CausationOf(e.Envelope)
	}
	var event struct {
		ID int64 `json:"id"`
	}
	subject, parseErr := condition.NewWrite(e.Envelope)
	if err := json.Unmarshal(e.Envelope, &event); err != nil {
		parseErr = err
	}
	for _, h := range matching {
		if !cause.Allows(h.ID, f.MaxDepth) {
			if slices.Contains(cause.HookIDs, h.ID) {
				f.Stats.Loops.Add(1)
			} else {
				f.Stats.Deep.Add(1)
			}
			continue
		}
		item := &runs.Item{OrgID: e.OrgID, HookID: h.ID, EventID: event.ID, Event: e.Envelope, EventType: e.EventType,
			AggregateType: e.AggregateType, AggregateID: e.AggregateID, Traceparent: e.Traceparent}
		applies, err := f.applies(ctx, h, subject, parseErr)
		if err != nil { // its run says so: no event is lost in silence
			item.Cause, item.Error = prompting.CauseCondition, prompting.Clean(err.Error(), prompting.MaxReason)
		} else if !applies {
			continue
		}
		out = append(out, item)
	}
	return out
}

func (f *Feed) applies(ctx context.Context, h *hooks.Hook, subject *condition.Event, parseErr error) (bool, error) {
	if h.Condition == "" {
		return true, nil
	}
	if parseErr != nil {
		return false, parseErr
	}
	rules, err := f.Compiler.Rules(h)
	if err != nil {
		return false, err
	}
	return rules.Matches(ctx, subject)
}
