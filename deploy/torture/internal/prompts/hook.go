// Package prompts is the far end of prompt hooks: hooks of several organisations, a scripted model behind them that fails
// and hangs when it is told to, writers whose writes are reviewed, and records of every call and every answer. It knows
// the wire (chat completions, REST) and nothing of the worker.
package prompts

import (
	"fmt"
	"strings"
)

// Hook is one async hook of the run, as it was asked for.
type Hook struct {
	ID, OrgID int64
	// Number is the plan's own; the model that it asks is named after it.
	Number int
	// Type and Condition select the events: CEL over the aggregate's id; Wants is the same.
	Type, Condition string
	Wants           func(aggregateID int64) bool
	// Model is false for a hook of rules. Moody: its model has moods.
	Model, Moody bool
	// Runs bounds its calls of a day; 0 bounds nothing.
	Runs int64
}

// burst is more than a hook's runs at once, and than the budget.
const burst = 100

// Burst are ids of aggregates whose events bring a hook with a budget to its edge at once; none for one without.
func (h *Hook) Burst() (ids []int64) {
	for id := int64(bulkID); h.Runs > 0 && len(ids) < burst; id++ {
		if h.Wants(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Name tells it apart in a diagnostic.
func (h *Hook) Name() string {
	kind := "rules"
	if h.Model {
		kind = "model"
	}
	return fmt.Sprintf("hook %d (org %d, %s)", h.ID, h.OrgID, kind)
}

// EventTypes are its patterns.
func (h *Hook) EventTypes() []string { return []string{h.Type + ".*"} }

// Selects tells whether an event of its organisation is for the hook.
func (h *Hook) Selects(aggregateType string, aggregateID int64) bool {
	return aggregateType == h.Type && h.Wants(aggregateID)
}

// ModelName is what the model is asked as, so that it knows who asks.
func (h *Hook) ModelName() string { return fmt.Sprintf("hook-%d", h.Number) }

const (
	// bulkID is where the ids of bulk transactions begin; see package load.
	bulkID = 10_000
	// atTheEdge is the budget of a day: a few bulk transactions spend it.
	atTheEdge = 40
)

// Plan gives each organisation a hook of rules and one of a model, steady or moody in turn; and the first two another one with
// a budget, on so many events of one transaction that dozens of its runs are begun at a time. types are three kinds of
// aggregates, of which the first is left alone; bulk is the size of the greatest transaction.
func Plan(orgs []int64, types []string, bulk int) []*Hook {
	var list []*Hook
	add := func(h *Hook) {
		h.Number = len(list)
		list = append(list, h)
	}
	for n, org := range orgs {
		add(&Hook{OrgID: org, Type: types[2], Condition: "event.aggregate_id == 3", Wants: func(id int64) bool { return id == 3 }})
		add(&Hook{OrgID: org, Type: types[1], Condition: "event.aggregate_id <= 2", Wants: func(id int64) bool { return id <= 2 }, Model: true, Moody: n%2 == 1})
	}
	every := int64(max(bulk/200, 1))
	for _, org := range orgs[:min(2, len(orgs))] {
		add(&Hook{OrgID: org, Type: types[2], Condition: fmt.Sprintf("event.aggregate_id >= %d && event.aggregate_id %% %d == 0", bulkID, every),
			Wants: func(id int64) bool { return id >= bulkID && id%every == 0 }, Model: true, Runs: atTheEdge})
	}
	return list
}

// Template is what a hook's model is asked; the event's id is data in it.
const Template = "Say something about event {{ id }} of {{ name }}."

// numberOf reads a model's name.
func numberOf(model string) (number int, ok bool) {
	_, err := fmt.Sscanf(model, "hook-%d", &number)
	return number, err == nil && strings.HasPrefix(model, "hook-")
}
