package store

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
)

// maxEventOutput bounds the output that the event of a run shows, in bytes; the run has it whole.
const maxEventOutput = 16 << 10

// recordRuns queues the recording of the events of runs that have ended: of all in one call, but for those of other traces.
func recordRuns(b *pgx.Batch, list []*runs.Run) error {
	var order []outbox.Context
	calls := map[outbox.Context][]outbox.Event{}
	for _, r := range list {
		c, action := outbox.Context{Traceparent: r.Traceparent}, "completed"
		if r.Status != runs.Completed {
			c.Outcome, action = "failed", "failed"
		}
		extra, err := json.Marshal(eventOf(r))
		if err != nil {
			return err
		}
		if calls[c] == nil {
			order = append(order, c)
		}
		calls[c] = append(calls[c], outbox.Event{OrgID: r.OrgID, AggregateType: hooks.TypeRun, AggregateID: r.ID, Action: action,
			RecordName: r.HookName, Extra: extra})
	}
	for _, c := range order {
		args, err := outbox.Args(c, calls[c]...)
		if err != nil {
			return err
		}
		b.Queue(outbox.Statement, args...)
	}
	return nil
}

type runEvent struct {
	HookID    int64           `json:"hook_id"`
	RunID     int64           `json:"run_id"`
	EventID   int64           `json:"trigger_event_id"`
	EventType string          `json:"trigger_event_type"`
	Output    json.RawMessage `json:"output,omitempty"`
	Cause     string          `json:"cause,omitempty"`
	Causation hooks.Causation `json:"causation"`
}

func eventOf(r *runs.Run) runEvent {
	e := runEvent{HookID: r.HookID, RunID: r.ID, EventID: r.EventID, EventType: r.EventType, Cause: r.Cause, Causation: r.Causation.Then(r.EventID, r.HookID)}
	if len(r.Output) <= maxEventOutput {
		e.Output = plain(r.Output)
	}
	return e
}

// plain is JSON as events take it: without NUL and lone surrogates, and without numbers beyond the reach of a double. It
// is nil for what has such numbers: they cannot be left out without saying something else.
func plain(text json.RawMessage) json.RawMessage {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var value any
	if d.Decode(&value) != nil { // it has no lone surrogates any more
		return nil
	}
	value, ok := representable(value)
	out, err := json.Marshal(value)
	if err != nil || !ok {
		return nil
	}
	return out
}

func representable(value any) (any, bool) {
	all := true
	each := func(item any) any {
		item, ok := representable(item)
		all = all && ok
		return item
	}
	switch v := value.(type) {
	case string:
		return strings.ReplaceAll(v, "\x00", ""), true
	case json.Number:
		f, err := v.Float64()
		return v, err == nil && (f == 0 && !strings.ContainsAny(string(v), "123456789") || math.Abs(f) > 1e-308 && math.Abs(f) < 1e308)
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, item := range v {
			out[strings.ReplaceAll(name, "\x00", "")] = each(item)
		}
		return out, all
	case []any:
		for i := range v {
			v[i] = each(v[i])
		}
	}
	return value, all
}
