package hooks

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/prompt-worker/internal/review"
)

// Causation is why there is an event: the runs of hooks that led to it. It stands in the payload of the event of a
// run; whoever writes in answer to such an event may pass it on.
type Causation struct {
	// EventIDs and HookIDs are of the events and the hooks that they triggered, the oldest first.
	EventIDs []int64 `json:"event_ids"`
	HookIDs  []int64 `json:"hook_ids"`
	Depth    int     `json:"depth"`
}

// CausationOf reads an event's envelope. What is malformed counts as deep: nobody's loop gets by with it.
func CausationOf(envelope []byte) Causation {
	var e struct {
		Payload struct {
			Causation json.RawMessage `json:"causation"`
		} `json:"payload"`
	}
	var c Causation
	if json.Unmarshal(envelope, &e) != nil || len(e.Payload.Causation) == 0 {
		return c
	}
	if json.Unmarshal(e.Payload.Causation, &c) != nil || c.Depth < 0 {
		c.Depth = 1 << 30
	}
	return c
}

// Then is the causation of what a hook's run on an event leads to.
func (c Causation) Then(eventID, hookID int64) Causation {
	return Causation{append(slices.Clone(c.EventIDs), eventID), append(slices.Clone(c.HookIDs), hookID), c.Depth + 1}
}

// Allows tells whether an event may trigger a hook: not one that it was caused by, and not beyond the depth.
func (c Causation) Allows(hookID int64, maxDepth int) bool {
	return c.Depth < maxDepth && !slices.Contains(c.HookIDs, hookID)
}

// Matches tells whether patterns select an event type. Events of runs and of backtests are selected by name alone
// (prompt_run.…): a hook on everything must not run on what hooks do.
func Matches(patterns []string, eventType string) bool {
	aggregate, _, _ := strings.Cut(eventType, ".")
	own := aggregate == TypeRun || aggregate == TypeBacktest
	return slices.ContainsFunc(patterns, func(text string) bool {
		p, ok := event.ParsePattern(text)
		return ok && p.Match(eventType) && (!own || strings.HasPrefix(text, aggregate+"."))
	})
}

// Triggers tells whether an event at a position triggers an async hook, but for its condition.
func (h *Hook) Triggers(eventType string, position int64) bool {
	return h.Mode == ModeAsync && h.InForce() && h.FromPosition != nil && position > *h.FromPosition && Matches(h.EventTypes, eventType)
}

// Pick gives the template's version for an entity: the candidate for its share of them, always the same ones; else
// the one that the hook names or follows.
func (h *Hook) Pick(t *Template, aggregateType string, aggregateID int64) (int, error) {
	if h.CandidateVersion > 0 && review.Bucket(h.ID, aggregateType+" "+strconv.FormatInt(aggregateID, 10)) < h.CandidatePercentage {
		return t.Resolve(h.CandidateVersion, "")
	}
	return t.Resolve(h.TemplateVersion, h.TemplateLabel)
}
