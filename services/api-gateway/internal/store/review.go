package store

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/outbox"
	"github.com/sametick/sametick/pkg/pg"
	"github.com/sametick/sametick/services/api-gateway/internal/records"
	"github.com/sametick/sametick/services/api-gateway/internal/review"
)

const (
	// One statement, hence one snapshot: a generation and its hooks.
	findReviewSet = `SELECT coalesce(s.generation, 0), h.hook_id, h.name, h.event_types, h.failure_policy = 'fail_closed', h.enforcement, h.timeout_ms
		FROM (SELECT $1::bigint AS org_id) o LEFT JOIN sametick.review_sets s USING (org_id) LEFT JOIN sametick.review_hooks h USING (org_id) ORDER BY h.hook_id`
)

// FindReviewSet implements review.Finder.
func (s *Store) FindReviewSet(ctx context.Context, orgID int64) (set review.Set, err error) {
	b := batch(orgID)
	b.Queue(findReviewSet, orgID)
	err = send(ctx, s.pool, b, 1, func(results pgx.BatchResults) error {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		var (
			id, timeout       *int64
			name, enforcement *string
			patterns          []string
			closed            *bool
		)
		_, err = pgx.ForEachRow(rows, []any{&set.Generation, &id, &name, &patterns, &closed, &enforcement, &timeout}, func() error {
			if id == nil {
				return nil
			}
			h := review.Hook{ID: *id, Name: *name, FailClosed: *closed, Enforcement: *enforcement, TimeoutMS: *timeout}
			for _, text := range patterns {
				if p, ok := event.ParsePattern(text); ok {
					h.EventTypes = append(h.EventTypes, p)
				}
			}
			set.Hooks = append(set.Hooks, h)
			return nil
		})
		return err
	})
	return set, pg.Translate(err)
}

// InUnit implements review.Store.
func (s *Store) InUnit(ctx context.Context) bool { return unitOf(ctx) != nil }

// Peek implements review.Store.
func (s *Store) Peek(ctx context.Context, call records.Call, typ string, id int64, refs records.Refs) (current records.Current, err error) {
	call.ReviewSet = nil // nothing is written yet
	err = s.connected(ctx, func(c *pgxpool.Conn) (err error) {
		current, err = lock(ctx, c, call, peekRecord, typ, id, refs)
		return err
	})
	return current, pg.Translate(err)
}

// PeekBatch implements review.Store.
func (s *Store) PeekBatch(ctx context.Context, call records.Call, typ string, ids []int64, refs []records.Refs) (records.Located, error) {
	call.ReviewSet = nil
	l := nothingLocated()
	err := s.connected(ctx, func(c *pgxpool.Conn) error { return locate(ctx, c, call, peekRecords, typ, ids, refs, &l) })
	return l, pg.Translate(err)
}

// Reject implements review.Store. It takes a connection of its own also in a unit, whose transaction the rejection
// ends: of the pool that nothing else waits for.
func (s *Store) Reject(ctx context.Context, call records.Call, list []*records.Change) error {
	var events []outbox.Event
	for _, c := range list {
		if c.Next.ID == 0 {
			var err error
			if c.Next.ID, err = s.ids.next(ctx); err != nil {
				return err
			}
		}
		pre, _ := changeEvents(call.OrgID, c)
		events = append(events, pre)
	}
	args, err := outbox.Args(outbox.Context{ActorID: call.ActorID, RequestID: call.RequestID, IP: call.IP,
		UserAgent: call.UserAgent, Traceparent: call.Traceparent, Outcome: "rejected"}, events...)
	if err != nil {
		return err
	}
	b := beginBatch(call) // hooks that are gone reject nothing
	b.Queue(outbox.Statement, args...)
	ctx = context.WithValue(ctx, unitKey{}, (*pgxpool.Conn)(nil))
	return outcome(send(ctx, s.aside, b, 1, func(pgx.BatchResults) error { return nil }))
}

// reviewsOf gives what a pre_* event says of its reviews.
func reviewsOf(reviews json.RawMessage) json.RawMessage {
	if reviews == nil {
		return nil
	}
	return append(append([]byte(`{"reviews":`), reviews...), '}')
}
