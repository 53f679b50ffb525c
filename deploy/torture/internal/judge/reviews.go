package judge

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/torture/internal/prompts"
)

// Reviews judges writes of reviewed types, each by its name:
//
//   - under fail_closed nothing is there that its review has not approved, whoever died;
//   - under fail_open nothing is refused but what a rule denies, and what is there without an approval says so;
//   - what a writer was told of a write is so.
type Reviews struct {
	types  map[string]*prompts.Reviewed
	there  map[string]*Created
	v      *Verdict
	counts ReviewCounts
}

// ReviewCounts is what a run came to.
type ReviewCounts struct {
	// Created and Rejected are writes; Unavailable those that were refused because nobody could review them, Unreviewed those
	// that passed because of it.
	Created, Rejected, Unavailable, Unreviewed int64
}

// Created is a record that is there, as its events tell.
type Created struct {
	Type, Name string
	// Reviews are those of its pre_ event.
	Reviews []Review
}

// Review is a hook's verdict in a pre_ event.
type Review struct {
	HookID     int64  `json:"hook_id"`
	Verdict    string `json:"verdict"`
	FailedOpen bool   `json:"failed_open"`
}

// NewReviews starts with nothing written.
func NewReviews(types []*prompts.Reviewed) *Reviews {
	r := &Reviews{types: map[string]*prompts.Reviewed{}, there: map[string]*Created{}, v: &Verdict{What: "reviewed writes"}}
	for _, t := range types {
		r.types[t.Type] = t
	}
	return r
}

// Recall judges a record that is there.
func (r *Reviews) Recall(c *Created) {
	v, t := r.v, r.types[c.Type]
	v.Checked++
	r.counts.Created++
	if r.there[c.Name] != nil {
		v.note(&v.Twice, "%s %q is there twice", c.Type, c.Name)
	}
	r.there[c.Name] = c
	approved, open := false, false
	for _, review := range c.Reviews {
		if review.HookID == t.HookID {
			approved = approved || review.Verdict == "approve"
			open = open || review.FailedOpen
		}
	}
	switch {
	case !approved && !t.FailOpen:
		v.note(&v.Foreign, "%s %q was written under fail_closed, and no review approved it: %+v", c.Type, c.Name, c.Reviews)
	case !approved && !open:
		v.note(&v.Foreign, "%s %q was written without an approval, and its event does not say that its review failed: %+v", c.Type, c.Name, c.Reviews)
	case !approved:
		r.counts.Unreviewed++
	}
}

// Take judges what a writer was told, once all records are recalled. bad tells what the rule denies.
func (r *Reviews) Take(w *prompts.Write) {
	v, t := r.v, r.types[w.Type]
	there := r.there[w.Name]
	if there != nil && w.Bad && !t.FailOpen {
		v.note(&v.Foreign, "%s %q is there, which the rule denies", w.Type, w.Name)
	}
	switch w.Outcome {
	case prompts.Created:
		if there == nil {
			v.note(&v.Lost, "%s %q was acknowledged and is not there", w.Type, w.Name)
		}
	case prompts.Rejected, prompts.Unavailable:
		if there != nil {
			v.note(&v.Foreign, "%s %q was refused and is there", w.Type, w.Name)
		}
		if t.FailOpen && (w.Outcome == prompts.Unavailable || !w.Bad) {
			v.note(&v.Lost, "%s %q was blocked under fail_open, though no rule denies it", w.Type, w.Name)
		}
	case prompts.Unknown:
	}
	switch w.Outcome {
	case prompts.Rejected:
		r.counts.Rejected++
	case prompts.Unavailable:
		r.counts.Unavailable++
	case prompts.Created, prompts.Unknown:
	}
}

// Finish gives what was found.
func (r *Reviews) Finish() (*Verdict, ReviewCounts) { return r.v, r.counts }

// createdSQL is one row for each record of some types that is there, with the reviews of the event before it.
const createdSQL = `
SELECT e.aggregate_type, coalesce(e.payload->>'record_name', ''), coalesce((SELECT p.payload->'reviews' FROM sametick.events p
    WHERE (p.org_id, p.aggregate_type, p.aggregate_id) = (e.org_id, e.aggregate_type, e.aggregate_id)
      AND p.event_type = e.aggregate_type || '.pre_create' AND p.id < e.id ORDER BY p.id DESC LIMIT 1), '[]')::text
  FROM sametick.events e WHERE e.event_type = ANY($1)`

// LoadReviews reads the records that are there and judges them.
func LoadReviews(ctx context.Context, db Querier, r *Reviews) error {
	types := make([]string, 0, len(r.types))
	for t := range r.types {
		types = append(types, t+".post_create")
	}
	rows, err := db.Query(ctx, createdSQL, types)
	if err != nil {
		return fmt.Errorf("read the reviewed records: %w", err)
	}
	var aggregateType, name, reviews string
	_, err = pgx.ForEachRow(rows, []any{&aggregateType, &name, &reviews}, func() error {
		c := &Created{Type: aggregateType, Name: name}
		if err := json.Unmarshal([]byte(reviews), &c.Reviews); err != nil {
			return fmt.Errorf("reviews of %q: %w", name, err)
		}
		r.Recall(c)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the reviewed records: %w", err)
	}
	return nil
}
